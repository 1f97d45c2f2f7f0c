//! An IPv4 and UDP header written by hand, for a client that cannot be reached by ARP.

use std::net::SocketAddrV4;

/// IP's header (RFC 791 §3.1, no options) and UDP's (RFC 768), bytes.
const HEADERS: usize = 20 + 8;

/// A whole IPv4 datagram that carries `payload` by UDP. A payload longer than 65,507 bytes is cut there.
pub(super) fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(usize::from(u16::MAX) - HEADERS)];
    let length = (HEADERS + payload.len()) as u16; // fits: cut above
    let udp_length = length - 20;
    let mut packet = Vec::with_capacity(usize::from(length));
    // Version 4, header of five words; type of service 0x10, low delay, as DHCP servers use.
    packet.extend([0x45, 0x10]);
    packet.extend(length.to_be_bytes());
    // No identification: it is never fragmented (RFC 6864 §4.1). Don't fragment; 64 hops; UDP; checksum to come.
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    let sum = !sum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = packet.len();
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    // The pseudo header: both addresses, the protocol, the length.
    let pseudo = u32::from(self::sum(&packet[12..20], 0)) + 17 + u32::from(udp_length);
    let sum = match !self::sum(&packet[udp..], pseudo) {
        0 => u16::MAX, // 0 would say that there is no checksum
        sum => sum,
    };
    packet[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The ones' complement sum of 16-bit words (RFC 1071), an odd last byte padded with zero.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        total += u32::from(word);
        total = (total & 0xffff) + (total >> 16);
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16 // fits: folded above
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A receiver's check: summing header, and pseudo header with datagram, gives all ones.
        #[test]
        fn checksums_hold(payload in prop::collection::vec(any::<u8>(), 0..1500), port in 1u16.., ip in any::<u32>()) {
            let from = SocketAddrV4::new([10, 77, 0, 1].into(), 67);
            let packet = datagram(from, SocketAddrV4::new(ip.into(), port), &payload);
            prop_assert_eq!(packet.len(), HEADERS + payload.len());
            prop_assert_eq!(sum(&packet[..20], 0), 0xffff);
            let mut pseudo = packet[12..20].to_vec();
            pseudo.extend([0, 17]);
            pseudo.extend(((payload.len() + 8) as u16).to_be_bytes());
            pseudo.extend(&packet[20..]);
            prop_assert_eq!(sum(&pseudo, 0), 0xffff);
            prop_assert_eq!(&packet[28..], &payload[..]);
        }
    }
}
