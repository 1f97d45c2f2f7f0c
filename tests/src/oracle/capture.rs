//! Packets of one TCP port as the kernel of the target's side sees them: AF_PACKET (packet(7)), cooked, every byte, stamped by the kernel.
//!
//! Owns: the socket, its filter, what the kernel says it has dropped. Never does: put up with a loss; a capture that lost a packet is
//! an error for good.

use crate::network::{Network, inside};
use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What the kernel may hold for us, bytes: some seconds of all that a small rack can write.
const HELD_BYTES: libc::c_int = 256 << 20;
/// The longest packet, segmentation not yet done by a card that is none.
const PACKET_BYTES_MAX: usize = 128 << 10;

/// A TCP segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// When the kernel had it, Unix nanoseconds.
    pub at_ns: u64,
    /// Sender.
    pub from: (u32, u16),
    /// Receiver.
    pub to: (u32, u16),
    /// Number of its first byte.
    pub seq: u32,
    /// The next byte that the sender awaits, if it says so.
    pub ack: Option<u32>,
    /// Flags, as in its header.
    pub flags: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A flag of TCP's header (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
/// The same.
pub const SYN: u8 = 0x02;
/// The same.
pub const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Capture {
    /// Begins to capture what this interface of the rack's namespace sends and receives by TCP on a port.
    pub fn start(network: &Network, interface: &'static str, port: u16) -> Result<Self> {
        let socket =
            inside(network.handle(), move || open(interface, port).context("capturing the storage's packets"))?;
        Ok(Self { socket, buffer: vec![0; PACKET_BYTES_MAX] })
    }

    /// The next segment; none when none came for a tenth of a second.
    pub fn await_one(&mut self) -> Result<Option<Segment>> {
        let mut part = libc::iovec { iov_base: self.buffer.as_mut_ptr().cast(), iov_len: self.buffer.len() };
        let mut control = [0_u64; 16];
        // SAFETY: all zeros is a valid msghdr, and what it is made to point at outlives the call.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
        // SAFETY: as above.
        let bytes = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let Ok(bytes) = usize::try_from(bytes) else {
            let err = io::Error::last_os_error();
            return match err.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(err).context("reading captured packets"),
            };
        };
        ensure!(
            message.msg_flags & libc::MSG_TRUNC == 0,
            "a packet longer than {PACKET_BYTES_MAX} bytes was cut short"
        );
        let at_ns = stamp(&message).context("the kernel gave a packet without its time")?;
        // The filter lets nothing else through.
        Ok(Some(segment(&self.buffer[..bytes], at_ns).context("a captured packet is no TCP in IPv4")?))
    }

    /// Fails when the kernel has dropped packets.
    pub fn check(&self) -> Result<()> {
        let mut counts = [0_u32; 2];
        let mut length = libc::socklen_t::try_from(size_of_val(&counts)).context("eight")?;
        // SAFETY: struct tpacket_stats is two 32-bit words (linux/if_packet.h).
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                counts.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        ensure!(result == 0, "asking for the capture's losses: {}", io::Error::last_os_error());
        match counts[1] {
            0 => Ok(()),
            lost => bail!("the kernel dropped {lost} packets of the capture: what they carried was not judged"),
        }
    }
}

fn open(interface: &str, port: u16) -> Result<OwnedFd> {
    let every = libc::c_int::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: plain system call; what it returns is ours.
    let number = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    ensure!(number >= 0, "opening a packet socket: {}; it needs root", io::Error::last_os_error());
    // SAFETY: as above.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let program = filter(port);
    let program =
        libc::sock_fprog { len: u16::try_from(program.len()).context("a dozen")?, filter: program.as_ptr().cast_mut() };
    // Made without a protocol and bound last: until then it receives nothing, so nothing passes by the filter.
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program).context("attaching the filter")?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &HELD_BYTES).context("having room for packets")?;
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32).context("having packets stamped")?;
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout).context("setting a limit")?;
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "there is no interface {interface}");
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every as u16;
    address.sll_ifindex = i32::try_from(index)?;
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: the address is valid for its length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    ensure!(result == 0, "binding to {interface}: {}", io::Error::last_os_error());
    Ok(socket)
}

fn set<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>())?;
    // SAFETY: the value is valid for its length, and each option above takes that type.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
    ensure!(result == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// IPv4, TCP, no later fragment, one port the one we want; a cooked packet begins with IP's header.
fn filter(port: u16) -> [libc::sock_filter; 14] {
    let one = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX};
    use libc::{BPF_MSH, BPF_RET};
    [
        one(BPF_LD | BPF_B | BPF_ABS, 0, 0, 0),
        one(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xf0),
        one(BPF_JMP | BPF_JEQ | BPF_K, 0, 10, 0x40),
        one(BPF_LD | BPF_B | BPF_ABS, 0, 0, 9),
        one(BPF_JMP | BPF_JEQ | BPF_K, 0, 8, 6),
        one(BPF_LD | BPF_H | BPF_ABS, 0, 0, 6),
        one(BPF_JMP | BPF_JSET | BPF_K, 6, 0, 0x1fff),
        one(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0),
        one(BPF_LD | BPF_H | BPF_IND, 0, 0, 0),
        one(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, u32::from(port)),
        one(BPF_LD | BPF_H | BPF_IND, 0, 0, 2),
        one(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, u32::from(port)),
        one(BPF_RET | BPF_K, 0, 0, u32::MAX),
        one(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

fn stamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel filled the control area of this header, and CMSG_* stay within it.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while !head.is_null() {
            if (*head).cmsg_level == libc::SOL_SOCKET && (*head).cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = std::ptr::read_unaligned(libc::CMSG_DATA(head).cast());
                return Some(u64::try_from(time.tv_sec).ok()? * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?);
            }
            head = libc::CMSG_NXTHDR(message, head);
        }
    }
    None
}

/// Reads IPv4 (RFC 791) and TCP (RFC 9293).
fn segment(packet: &[u8], at_ns: u64) -> Option<Segment> {
    let half = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |bytes: &[u8], at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let header = usize::from(packet.first()? & 15) * 4;
    // Beyond it there may be padding.
    let ip = packet.get(..usize::from(half(packet, 2)?))?;
    let tcp = ip.get(header..)?;
    let flags = *tcp.get(13)?;
    let data = usize::from(tcp.get(12)? >> 4) * 4;
    Some(Segment {
        at_ns,
        from: (word(ip, 12)?, half(tcp, 0)?),
        to: (word(ip, 16)?, half(tcp, 2)?),
        seq: word(tcp, 4)?,
        ack: (flags & ACK != 0).then_some(word(tcp, 8)?),
        flags,
        payload: tcp.get(data..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read_without_its_padding() {
        let mut packet = vec![0x45, 0, 0, 43, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 77, 0, 50, 10, 77, 0, 1];
        packet.extend([0x9c, 0x40, 0x0c, 0xbc, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        packet.extend(*b"abc\0\0\0");
        let got = segment(&packet, 5).expect("a segment");
        assert_eq!((got.from, got.to), ((0x0a4d_0032, 40_000), (0x0a4d_0001, 3260)));
        assert_eq!((got.seq, got.ack, got.flags, got.payload), (7, Some(9), 0x18, b"abc".to_vec()));
        for cut in 0..43 {
            assert_eq!(segment(&packet[..cut], 5), None, "{cut} bytes");
        }
    }
}
