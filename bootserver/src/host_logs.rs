//! What dom0's kernel and daemons say, sent by each host to the UDP port of the boot port's number: the end of it, in memory.
//!
//! Owns: hearing it, and how much of it is kept. Never does: believe it. It comes without proof of who sent it, from an
//! address that a host has; it is text for a person, and nothing is decided by it.

use crate::rack_task::Handle;
use proto::HostId;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// Kept of one host.
const BYTES_MAX: usize = 128 * 1024;
/// Of one line; the kernel's own are shorter.
const LINE_CHARS_MAX: usize = 1024;
/// What is reckoned for a line beside its text, or empty lines would take many times their bytes.
const LINE_BYTES: usize = 64;
/// What one Ethernet frame carries, and some more.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// The logs of all hosts; clones share them.
#[derive(Clone, Default)]
pub struct HostLogs(Arc<Mutex<HashMap<HostId, Log>>>);

#[derive(Default)]
struct Log {
    lines: VecDeque<String>,
    bytes: usize,
}

impl HostLogs {
    /// The end of a host's log, each line with its end; empty when it has said nothing since the server started.
    pub fn text(&self, host: &HostId) -> String {
        let logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(host).map(|log| log.lines.iter().map(String::as_str).collect()).unwrap_or_default()
    }

    /// Hears until `stop` turns true. What comes from an address that is no host's is dropped.
    pub async fn hear(self, at: SocketAddr, rack: Handle, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let socket = UdpSocket::bind(at).await?;
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut datagram) => received,
                _ = stop.wait_for(|&stop| stop) => return Ok(()),
            };
            let (length, from) = match received {
                Ok(received) => received,
                Err(err) => {
                    tracing::warn!(%err, "receiving hosts' logs");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let IpAddr::V4(from) = from.ip() else { continue };
            let shown = rack.shown();
            let hosts = &shown.view.hosts;
            let Some(host) = hosts.iter().find(|host| host.address == Some(from)) else { continue };
            let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those of hosts that were removed.
            if logs.len() > hosts.len() {
                logs.retain(|id, _| hosts.iter().any(|host| host.id == *id));
            }
            let log = logs.entry(host.id.clone()).or_default();
            String::from_utf8_lossy(&datagram[..length]).lines().for_each(|line| log.add(line));
        }
    }
}

impl Log {
    /// Adds a line as a person may read it: without its priority (`<6>`, RFC 5424 §6.2.1), and without what would drive a terminal.
    fn add(&mut self, line: &str) {
        let unranked = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        let text = match unranked {
            Some((rank, text)) if rank.len() <= 3 && rank.bytes().all(|b| b.is_ascii_digit()) => text,
            _ => line,
        };
        let mut text: String = text.chars().filter(|c| *c == '\t' || !c.is_control()).take(LINE_CHARS_MAX).collect();
        text.push('\n');
        self.bytes += text.len() + LINE_BYTES;
        self.lines.push_back(text);
        while self.bytes > BYTES_MAX {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.len() + LINE_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(lines: &[&str]) -> String {
        let mut log = Log::default();
        lines.iter().for_each(|line| log.add(line));
        log.lines.iter().map(String::as_str).collect()
    }

    #[test]
    fn lines() {
        assert_eq!(
            kept(&["<6>[    5.14] eth0: link up", "<30>iscsid: ready"]),
            "[    5.14] eth0: link up\niscsid: ready\n"
        );
        assert_eq!(kept(&["<b>no rank", "<1234>nor this", "<7"]), "<b>no rank\n<1234>nor this\n<7\n");
        assert_eq!(kept(&["\x1b[2Jcleared\u{9b}31m\tred"]), "[2Jcleared31m\tred\n");
    }

    #[test]
    fn no_more_is_kept_than_the_end() {
        let mut log = Log::default();
        for number in 0..100_000 {
            log.add(&format!("<6>line {number} {}", "x".repeat(number % 3000)));
        }
        let kept: usize = log.lines.iter().map(|line| line.len() + LINE_BYTES).sum();
        assert_eq!(kept, log.bytes);
        assert!((BYTES_MAX - LINE_CHARS_MAX - 1 - LINE_BYTES..=BYTES_MAX).contains(&kept), "{kept}");
        (0..100_000).for_each(|_| log.add(""));
        assert!(log.lines.len() <= BYTES_MAX / LINE_BYTES, "empty lines take room as well");
        log.add("<6>line 99999 ");
        assert!(log.lines.back().is_some_and(|line| line.starts_with("line 99999 ")));
    }
}
