//! dom0's log, sent to the boot server as it is written, from the kernel's first line on.
//!
//! Owns: /dev/log, where daemons write (syslog(3)), and the way of both to the server by UDP: it works before the agent
//! has an identity, and when it never gets one. Never does: hold anything up. What cannot be sent is lost.
//!
//! A datagram is lines, each with its priority in front as in `<6>text` (RFC 5424 §6.2.1).

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const SYSLOG: &str = "/dev/log";
const KERNEL: &str = "/dev/kmsg";
/// What an Ethernet frame carries beside IPv4's and UDP's heads.
const DATAGRAM_BYTES_MAX: usize = 1472;
/// Between datagrams, so that the thousand lines of a boot do not overrun whoever hears them.
const PAUSE: Duration = Duration::from_millis(2);
/// The kernel gives a record at a time, of at most 8 KiB (Documentation/ABI/testing/dev-kmsg).
const RECORD_BYTES_MAX: usize = 8192;

/// Sends the log to `to` for ever.
///
/// # Errors
/// When the kernel's log or /dev/log cannot be opened.
pub fn relay(to: SocketAddrV4) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let mut kernel = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(KERNEL)?;
    // One that is left from before.
    match std::fs::remove_file(SYSLOG) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let daemons = UnixDatagram::bind(SYSLOG)?;
    daemons.set_nonblocking(true)?;
    let mut lines = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    loop {
        let mut wanted =
            [PollFd::new(kernel.as_fd(), PollFlags::POLLIN), PollFd::new(daemons.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        while let Some(line) = next(&mut kernel, &daemons)? {
            if lines.len() + line.len() > DATAGRAM_BYTES_MAX {
                // A server that is away, or a link that is down: the line is on the console as well.
                let _ = socket.send(&lines);
                lines.clear();
                std::thread::sleep(PAUSE);
            }
            lines.extend_from_slice(&line);
        }
        let _ = socket.send(&lines);
        lines.clear();
    }
}

/// The next line of either, with its end; `None` when there is none.
fn next(kernel: &mut File, daemons: &UnixDatagram) -> io::Result<Option<Vec<u8>>> {
    let mut record = [0; RECORD_BYTES_MAX];
    let line = match kernel.read(&mut record) {
        Ok(length) => from_kernel(&String::from_utf8_lossy(&record[..length])),
        // Records were overwritten before they were read; the next read goes on with the oldest that is left.
        Err(err) if err.raw_os_error() == Some(nix::libc::EPIPE) => {
            "<4>hostagent: lines of the kernel's log were lost".to_owned()
        }
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => match daemons.recv(&mut record) {
            Ok(length) => String::from_utf8_lossy(&record[..length]).trim_end_matches(['\0', '\n']).replace('\n', " "),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(err) => return Err(err),
        },
        Err(err) => return Err(err),
    };
    let mut line = line.into_bytes();
    line.truncate(DATAGRAM_BYTES_MAX - 1);
    line.push(b'\n');
    Ok(Some(line))
}

/// `6,339,5140900,-;text` and lines of keys that are left out, as `<6>[    5.140900] text`.
fn from_kernel(record: &str) -> String {
    let text = record.lines().next().unwrap_or_default();
    let Some((head, text)) = text.split_once(';') else { return text.to_owned() };
    let mut fields = head.split(',');
    let rank = fields.next().unwrap_or("6");
    let micros: u64 = fields.nth(1).and_then(|micros| micros.parse().ok()).unwrap_or(0);
    format!("<{rank}>[{:>5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000)
}

/// Standard error, with a copy of each line to /dev/log.
pub struct Copied(Option<UnixDatagram>);

impl Copied {
    /// The copy goes nowhere when nobody is there to take it.
    pub fn open() -> Self {
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        Self(open().ok())
    }
}

impl Write for &Copied {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(socket) = &self.0 {
            // Whoever takes it may be away, or have no room: the line is on the console.
            let _ = socket.send_to(&[b"<14>hostagent: ", line].concat(), SYSLOG);
        }
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        for (record, line) in [
            ("6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n", "<6>[    5.140900] NET: Registered"),
            ("14,1,9,-;tsubame: init; host h1\n", "<14>[    0.000009] tsubame: init; host h1"),
            ("no record", "no record"),
            ("", ""),
        ] {
            assert_eq!(from_kernel(record), line);
        }
    }
}
