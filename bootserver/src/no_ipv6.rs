//! Tells booting machines at once that there is no IPv6 to wait for.
//!
//! iPXE configures IPv4 and IPv6 side by side and does not go on before both have ended: where no router answers, each
//! boot waits 16 seconds for one (seen with Debian 12's iPXE). A router advertisement (RFC 4861 §4.2) that says "no
//! default router, no prefix, no DHCPv6" ends that wait, and configures nothing.
//!
//! Owns: that one answer. Never does: answer anyone but a machine that is booting from us, by the link-local address
//! made from its MAC (RFC 4291 appendix A), or announce a router.

use crate::rack_task::Handle;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use proto::Mac;
use proto::view::HostState;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use tokio::sync::watch;

/// ICMPv6 types, RFC 4861 §4.1 and §4.2.
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Type, code, checksum (the kernel's), hop limit unsaid, no flags, router lifetime 0, timers unsaid.
const NO_ROUTER: [u8; 16] = [ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The socket.
pub struct NoIpv6 {
    socket: tokio::net::UdpSocket,
    index: u32,
}

impl NoIpv6 {
    /// Opens a raw ICMPv6 socket on an interface (needs CAP_NET_RAW).
    pub fn open(interface: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let raw = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
        setsockopt(&raw, sockopt::BindToDevice, &OsString::from(interface))?;
        let index = nix::net::if_::if_nametoindex(interface)?;
        // Anything less than 255 has come through a router and is not believed (RFC 4861 §6.1.2).
        setsockopt(&raw, sockopt::Ipv6Ttl, &255)?;
        // Raw sockets of this kind send and receive as UDP's do: address and payload.
        let raw = UdpSocket::from(raw);
        raw.join_multicast_v6(&ALL_ROUTERS, index)?;
        Ok(Self { socket: tokio::net::UdpSocket::from_std(raw)?, index })
    }

    /// Serves until `stop` turns true.
    pub async fn serve(self, rack: Handle, mut stop: watch::Receiver<bool>) {
        let mut packet = [0; 256];
        loop {
            let received = tokio::select! {
                received = self.socket.recv_from(&mut packet) => received,
                _ = stop.wait_for(|&stop| stop) => return,
            };
            let from = match received {
                Ok((length, SocketAddr::V6(from))) if is_solicitation(&packet[..length]) => *from.ip(),
                Ok(_) => continue,
                Err(err) => {
                    tracing::debug!(%err, "receiving router solicitations");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(mac) = mac_of(from) else { continue };
            let shown = rack.shown();
            let boots = shown.view.hosts.iter().any(|host| host.mac == mac && host.state == HostState::Booting);
            if boots {
                let to = SocketAddrV6::new(from, 0, 0, self.index);
                match self.socket.send_to(&NO_ROUTER, to).await {
                    Ok(_) => tracing::debug!(%mac, "told that there is no IPv6"),
                    Err(err) => tracing::debug!(%mac, %err, "telling that there is no IPv6"),
                }
            }
        }
    }
}

fn is_solicitation(packet: &[u8]) -> bool {
    packet.len() >= 8 && packet[0] == SOLICITATION && packet[1] == 0
}

/// The MAC that a link-local address was made from: its middle is ff:fe, and one bit is turned.
fn mac_of(address: Ipv6Addr) -> Option<Mac> {
    match address.octets() {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, 0xff, 0xfe, d, e, f] => Some(Mac([a ^ 2, b, c, d, e, f])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_of_addresses() {
        let mac = |text: &str| mac_of(text.parse().expect("an address")).map(|mac| mac.to_string());
        assert_eq!(mac("fe80::5054:ff:feaa:bb01").as_deref(), Some("52:54:00:aa:bb:01"));
        for other in ["fe80::1", "::", "2001:db8::5054:ff:feaa:bb01", "fe80:0:0:1:5054:ff:feaa:bb01"] {
            assert_eq!(mac(other), None, "{other}");
        }
    }

    #[test]
    fn solicitations() {
        assert!(is_solicitation(&[133, 0, 1, 2, 0, 0, 0, 0, 1, 1]));
        for bad in [&[133, 0, 1][..], &[134, 0, 1, 2, 0, 0, 0, 0], &[133, 1, 1, 2, 0, 0, 0, 0], &[]] {
            assert!(!is_solicitation(bad), "{bad:?}");
        }
    }
}
