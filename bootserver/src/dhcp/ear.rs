//! Hears what other servers say to clients on our network.
//!
//! Owns: a packet socket that takes in, by a filter in the kernel, nothing but UDP from port 67 to port 68. A UDP socket
//! on port 68 would be in the way of a DHCP client of this machine. Never does: send. What a switch does not flood, such as
//! an offer that goes to its client alone, is not heard; whose offer won is, as clients say that by broadcast.

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};
use rack::dhcp::{ServerReply, decode_reply};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// The rack is told of so many replies a second at most: who floods the network must not fill its queue.
const REPLIES_PER_SECOND: u32 = 20;

/// The socket.
pub(super) struct Ear {
    socket: AsyncFd<OwnedFd>,
    second: Instant,
    told: u32,
}

/// UDP (protocol 17), not a later fragment, from port 67 to port 68; offsets are from IP's header (RFC 791 §3.1).
const FILTER: [libc::sock_filter; 11] = [
    step(0x30, 0, 0, 9),      // load the protocol
    step(0x15, 0, 8, 17),     // not UDP: leave
    step(0x28, 0, 0, 6),      // load the fragment's offset
    step(0x45, 6, 0, 0x1fff), // not 0: leave
    step(0xb1, 0, 0, 0),      // X = length of IP's header
    step(0x48, 0, 0, 0),      // load the source port
    step(0x15, 0, 3, 67),
    step(0x48, 0, 0, 2), // load the destination port
    step(0x15, 0, 1, 68),
    step(0x06, 0, 0, 0xffff), // take it
    step(0x06, 0, 0, 0),      // leave it
];

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

impl Ear {
    /// Opens the socket on an interface (needs CAP_NET_RAW).
    pub(super) fn open(index: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Protocol 0: it receives nothing until it is bound, and then the filter is there.
        let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, None)?;
        let mut filter = FILTER;
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: `program` and the filter that it points to live over the call, and its length is that of the array.
        let attached = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as u32,
            )
        };
        nix::errno::Errno::result(attached)?;
        let at = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_IP as u16).to_be(),
            sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: `at` is a whole sockaddr_ll and lives over the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const at).cast(), size_of_val(&at) as u32) };
        nix::errno::Errno::result(bound)?;
        // SAFETY: `socket` is open, and the `AsyncFd` owns it from here on: it is closed with it and not before.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, second: Instant::now(), told: 0 })
    }

    /// The next reply that was heard. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> io::Result<ServerReply> {
        let mut datagram = [0; 2048];
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| Ok(recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty())?));
            let Ok(received) = received else { continue };
            let Some(reply) = udp_payload(&datagram[..received?]).and_then(|payload| decode_reply(payload).ok()) else {
                continue;
            };
            if self.second.elapsed() >= Duration::from_secs(1) {
                (self.second, self.told) = (Instant::now(), 0);
            }
            self.told += 1;
            if self.told <= REPLIES_PER_SECOND {
                return Ok(reply);
            }
        }
    }
}

/// What UDP carries in an IPv4 datagram.
fn udp_payload(datagram: &[u8]) -> Option<&[u8]> {
    let header = usize::from(datagram.first()? & 0xf) * 4;
    let udp = datagram.get(header.max(20)..)?;
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    // Frames may be padded behind it.
    udp.get(8..length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::SocketAddrV4;

    proptest! {
        #[test]
        fn what_was_wrapped_is_unwrapped(payload in prop::collection::vec(any::<u8>(), 0..1400), padding in 0..40_usize) {
            let at = |port| SocketAddrV4::new([10, 77, 0, 1].into(), port);
            let mut datagram = super::super::frame::datagram(at(67), at(68), &payload);
            datagram.extend(vec![0; padding]);
            prop_assert_eq!(udp_payload(&datagram), Some(&payload[..]));
        }

        #[test]
        fn never_panics(datagram in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = udp_payload(&datagram);
        }
    }
}
