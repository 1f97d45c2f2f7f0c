//! Reading DHCP packets: a client's request, and what another server says (RFC 951, 2131 §2, 2132, 3396).
//!
//! Owns: the checks that keep every later step from harm. The options are scanned here and not by dhcproto: there,
//! a hardware address longer than 16 bytes panics, one option that cannot be decoded hides all after it, the magic
//! cookie goes unchecked, overload (option 52) is not followed, and option 93 keeps one architecture only.
//! Never does: decide anything.

use super::{BootRequest, MessageKind, Port, ServerKind, ServerReply};
use proto::Mac;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Fixed fields and magic cookie, bytes.
const FIXED_BYTES: usize = 240;
/// RFC 2131 §3.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// The longest packet that is looked at, bytes; an Ethernet frame holds no more.
const PACKET_BYTES_MAX: usize = 1500;

const PAD: u8 = 0;
const END: u8 = 255;
const REQUESTED: u8 = 50;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const SIZE_MAX: u8 = 57;
const CLASS: u8 = 60;
const CLIENT_ID: u8 = 61;
const USER_CLASS: u8 = 77;
const BOOT_FILE: u8 = 67;
const RELAY_INFO: u8 = 82;
const ARCHITECTURES: u8 = 93;
const MACHINE_ID: u8 = 97;
const IPXE: u8 = 175;

/// The options that are looked at; others are stepped over.
const READ: [u8; 14] = [
    REQUESTED,
    OVERLOAD,
    MESSAGE_TYPE,
    SERVER,
    PARAMETERS,
    SIZE_MAX,
    CLASS,
    CLIENT_ID,
    USER_CLASS,
    RELAY_INFO,
    ARCHITECTURES,
    MACHINE_ID,
    IPXE,
    BOOT_FILE,
];

/// Sub-option of option 82 that names the client's network when the relay is reached by another address, RFC 3527 §3.
const LINK_SELECTION: u8 = 5;

/// Why a packet cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than fixed fields and cookie, or longer than a frame.
    #[error("{bytes} bytes, expected 240 to 1500")]
    Length {
        /// What came.
        bytes: usize,
    },
    /// A server's reply where a request was expected, the other way round, or noise.
    #[error("operation {op}, expected {expected} (1 is a request, 2 a reply)")]
    Operation {
        /// What came.
        op: u8,
        /// What is read here.
        expected: u8,
    },
    /// Not Ethernet.
    #[error("hardware type {htype} with addresses of {hlen} bytes, expected Ethernet, 1 and 6")]
    Hardware {
        /// Type.
        htype: u8,
        /// Length.
        hlen: u8,
    },
    /// A group address or all zeros cannot be a client's own.
    #[error("the client names {mac} as its own address")]
    Address {
        /// What came.
        mac: Mac,
    },
    /// No magic cookie: BOOTP's own vendor area, or noise.
    #[error("no DHCP magic cookie")]
    Cookie,
    /// Option 53 is missing, of the wrong length or of the other side.
    #[error("message type {given:?} (option 53), expected a client's (1, 3, 4, 7 or 8) or a server's (2, 5 or 6)")]
    MessageType {
        /// What came.
        given: Option<u8>,
    },
}

/// Reads a client's packet. An option of a wrong length is as if it were absent; options after one that runs over
/// the end of its field cannot be found and are left.
pub fn decode(packet: &[u8]) -> Result<BootRequest, DecodeError> {
    let (fixed, area, mac) = parts(packet, 1)?;
    let options = options(area, &fixed[108..236], &fixed[44..108]);
    let bytes = |code: u8| options.get(&code).filter(|value| !value.is_empty()).cloned();
    let address = |code: u8| options.get(&code).and_then(|value| ipv4(value));
    let given = message_type(&options);
    let kind = match given {
        Some(1) => MessageKind::Discover,
        Some(3) => MessageKind::Request,
        Some(4) => MessageKind::Decline,
        Some(7) => MessageKind::Release,
        Some(8) => MessageKind::Inform,
        _ => return Err(DecodeError::MessageType { given }),
    };
    let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let relay_info = bytes(RELAY_INFO);
    Ok(BootRequest {
        mac,
        port: Port::Server,
        xid: xid(fixed),
        kind,
        secs: word(8),
        broadcast: word(10) & 0x8000 != 0,
        ciaddr: fixed_ipv4(fixed, 12),
        giaddr: fixed_ipv4(fixed, 24),
        link: relay_info.as_deref().and_then(link_selection),
        requested: address(REQUESTED),
        server: address(SERVER),
        parameters: bytes(PARAMETERS).unwrap_or_default(),
        size_max: options.get(&SIZE_MAX).and_then(|v| Some(u16::from_be_bytes(v.as_slice().try_into().ok()?))),
        class: bytes(CLASS),
        client_id: bytes(CLIENT_ID),
        user_class: bytes(USER_CLASS),
        relay_info,
        architectures: options
            .get(&ARCHITECTURES)
            .map(|v| v.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
            .unwrap_or_default(),
        machine_id: bytes(MACHINE_ID),
        ipxe_options: options.contains_key(&IPXE),
    })
}

/// Reads what a server sends to a client.
pub fn decode_reply(packet: &[u8]) -> Result<ServerReply, DecodeError> {
    let (fixed, area, mac) = parts(packet, 2)?;
    let options = options(area, &fixed[108..236], &fixed[44..108]);
    let given = message_type(&options);
    let kind = match given {
        Some(2) => ServerKind::Offer,
        Some(5) => ServerKind::Ack,
        Some(6) => ServerKind::Nak,
        _ => return Err(DecodeError::MessageType { given }),
    };
    let class = options.get(&CLASS).map_or(&[][..], Vec::as_slice);
    let file = options.contains_key(&BOOT_FILE) || !options.contains_key(&OVERLOAD) && fixed[108] != 0;
    Ok(ServerReply {
        mac,
        kind,
        server: options.get(&SERVER).and_then(|value| ipv4(value)),
        address: Some(fixed_ipv4(fixed, 16)).filter(|address| !address.is_unspecified()),
        boots: file || class.starts_with(b"PXEClient") || class.starts_with(b"HTTPClient"),
    })
}

/// The checks that both directions share: fixed fields up to the magic cookie, options, and the client's address.
fn parts(packet: &[u8], expected: u8) -> Result<(&[u8], &[u8], Mac), DecodeError> {
    if packet.len() < FIXED_BYTES || packet.len() > PACKET_BYTES_MAX {
        return Err(DecodeError::Length { bytes: packet.len() });
    }
    let (fixed, area) = packet.split_at(FIXED_BYTES);
    let op = fixed[0];
    if op != expected {
        return Err(DecodeError::Operation { op, expected });
    }
    let (htype, hlen) = (fixed[1], fixed[2]);
    if htype != 1 || hlen != 6 {
        return Err(DecodeError::Hardware { htype, hlen });
    }
    let mac = Mac([fixed[28], fixed[29], fixed[30], fixed[31], fixed[32], fixed[33]]);
    if mac.0[0] & 1 != 0 || mac.0 == [0; 6] {
        return Err(DecodeError::Address { mac });
    }
    if fixed[236..240] != MAGIC {
        return Err(DecodeError::Cookie);
    }
    Ok((fixed, area, mac))
}

fn xid(fixed: &[u8]) -> u32 {
    u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]])
}

fn fixed_ipv4(fixed: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3])
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))
}

fn message_type(options: &BTreeMap<u8, Vec<u8>>) -> Option<u8> {
    match options.get(&MESSAGE_TYPE).map(Vec::as_slice) {
        Some(&[kind]) => Some(kind),
        _ => None,
    }
}

/// The client's network, if the relay says that its own address does not tell it.
fn link_selection(mut info: &[u8]) -> Option<Ipv4Addr> {
    while let [code, length, rest @ ..] = info {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *code == LINK_SELECTION {
            return ipv4(value);
        }
        info = rest;
    }
    None
}

/// All options that are looked at: the option field, then `file`, then `sname` as far as option 52 says that they
/// hold options (RFC 2131 §4.1); parts of one option are put together in that order (RFC 3396 §7).
fn options(area: &[u8], file: &[u8], sname: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut found = BTreeMap::new();
    scan(area, &mut found);
    let overload = match found.get(&OVERLOAD).map(Vec::as_slice) {
        Some(&[which]) => which,
        _ => 0,
    };
    if overload & 1 != 0 {
        scan(file, &mut found);
    }
    if overload & 2 != 0 {
        scan(sname, &mut found);
    }
    found
}

fn scan(mut field: &[u8], found: &mut BTreeMap<u8, Vec<u8>>) {
    while let [code, rest @ ..] = field {
        match *code {
            PAD => field = rest,
            END => return,
            code => {
                let [length, rest @ ..] = rest else { return };
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                if READ.contains(&code) {
                    found.entry(code).or_default().extend_from_slice(value);
                }
                field = rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet with these options, as a client would send it.
    pub(crate) fn packet(options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![0; FIXED_BYTES];
        packet[..3].copy_from_slice(&[1, 1, 6]);
        packet[4..8].copy_from_slice(&0xdead_beef_u32.to_be_bytes());
        packet[28..34].copy_from_slice(&[0x52, 0x54, 0, 0xaa, 0xbb, 1]);
        packet[236..240].copy_from_slice(&MAGIC);
        for (code, value) in options {
            packet.push(*code);
            packet.push(u8::try_from(value.len()).expect("options in tests are short"));
            packet.extend_from_slice(value);
        }
        packet.push(END);
        packet
    }

    #[test]
    fn reads_what_the_decision_needs() {
        let given = packet(&[
            (53, &[1]),
            (55, &[1, 3, 66, 67]),
            (57, &[0x05, 0xc0]),
            (93, &[0, 7, 0, 9]),
            (60, b"PXEClient:Arch:00007:UNDI:003016"),
            (97, &[0; 17]),
            (77, b"iP"),
            (77, b"XE"), // parts, RFC 3396
            (175, &[]),
        ]);
        let request = decode(&given).expect("well formed");
        assert_eq!(request.mac.to_string(), "52:54:00:aa:bb:01");
        assert_eq!(request.xid, 0xdead_beef);
        assert_eq!(request.kind, MessageKind::Discover);
        assert_eq!(request.architectures, [7, 9]);
        assert_eq!(request.user_class.as_deref(), Some(b"iPXE".as_slice()));
        assert_eq!(request.size_max, Some(1472));
        assert!(request.ipxe_options);
    }

    #[test]
    fn follows_overload_into_file_and_sname() {
        let mut given = packet(&[(52, &[3])]);
        given[108..112].copy_from_slice(&[53, 1, 3, END]);
        given[44..51].copy_from_slice(&[50, 4, 10, 77, 0, 50, END]);
        let request = decode(&given).expect("well formed");
        assert_eq!((request.kind, request.requested), (MessageKind::Request, Some(Ipv4Addr::new(10, 77, 0, 50))));
    }

    #[test]
    fn refuses_what_is_no_request() {
        let good = packet(&[(53, &[1])]);
        let with = |at: usize, byte: u8| {
            let mut packet = good.clone();
            packet[at] = byte;
            decode(&packet).expect_err("spoilt")
        };
        assert_eq!(with(0, 2), DecodeError::Operation { op: 2, expected: 1 });
        assert_eq!(with(2, 255), DecodeError::Hardware { htype: 1, hlen: 255 });
        assert_eq!(with(1, 6), DecodeError::Hardware { htype: 6, hlen: 6 });
        assert!(matches!(with(28, 0x53), DecodeError::Address { .. }));
        assert_eq!(with(236, 0), DecodeError::Cookie);
        assert_eq!(with(242, 5), DecodeError::MessageType { given: Some(5) });
        assert_eq!(decode(&good[..239]), Err(DecodeError::Length { bytes: 239 }));
        // An option that runs over the end hides itself and what follows, not what came before.
        assert_eq!(decode(&packet(&[(53, &[1])])[..242]), Err(DecodeError::MessageType { given: None }));
    }

    #[test]
    fn the_relays_word_on_the_clients_network() {
        let link = |info: &[u8]| decode(&packet(&[(53, &[1]), (82, info)])).expect("well formed").link;
        assert_eq!(link(&[1, 2, 0xab, 0xcd, 5, 4, 10, 78, 0, 0]), Some(Ipv4Addr::new(10, 78, 0, 0)));
        assert_eq!(link(&[1, 2, 0xab, 0xcd]), None);
        assert_eq!(link(&[5, 3, 10, 78, 0]), None, "not an address");
        assert_eq!(link(&[1, 9, 5, 4, 10, 78, 0, 0]), None, "runs over the end");
    }

    #[test]
    fn what_another_server_says() {
        let mut given = packet(&[(53, &[2]), (54, &[10, 77, 0, 9]), (60, b"PXEClient")]);
        given[0] = 2;
        let heard = decode_reply(&given).expect("well formed");
        assert_eq!((heard.kind, heard.server), (ServerKind::Offer, Some(Ipv4Addr::new(10, 77, 0, 9))));
        assert_eq!((heard.address, heard.boots), (None, true), "a proxy's");
        let mut given = packet(&[(53, &[5]), (54, &[10, 77, 0, 9])]);
        (given[0], given[19]) = (2, 60);
        let heard = decode_reply(&given).expect("well formed");
        assert_eq!(
            (heard.kind, heard.address, heard.boots),
            (ServerKind::Ack, Some(Ipv4Addr::new(0, 0, 0, 60)), false)
        );
        given[242] = 3;
        assert_eq!(decode_reply(&given), Err(DecodeError::MessageType { given: Some(3) }));
        given[0] = 1;
        assert_eq!(decode_reply(&given), Err(DecodeError::Operation { op: 1, expected: 2 }));
    }

    proptest! {
        #[test]
        fn never_panics(packet in prop::collection::vec(any::<u8>(), 0..1600)) {
            let _ = (decode(&packet), decode_reply(&packet));
        }

        #[test]
        fn never_panics_past_the_fixed_part(
            options in prop::collection::vec(any::<u8>(), 0..400),
            sname in prop::collection::vec(any::<u8>(), 64),
            file in prop::collection::vec(any::<u8>(), 128),
        ) {
            let mut given = packet(&[(53, &[1]), (52, &[3])]);
            given.pop();
            given[44..108].copy_from_slice(&sname);
            given[108..236].copy_from_slice(&file);
            given.extend_from_slice(&options);
            // A repeated option 53 makes one of two bytes, which is refused; all else leaves a request.
            let _ = decode(&given);
        }
    }
}
