//! Asks a guest every 100 ms whether it is there: ICMP echo (RFC 792), from within the rack's network.
//!
//! Owns: the questions and when each was answered. Never does: judge.

use crate::network::{Network, inside};
use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two questions.
pub const EVERY: Duration = Duration::from_millis(100);

/// A ping under way; [`Pinger::stop`] ends it.
pub struct Pinger {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    asking: JoinHandle<Result<Answers>>,
}

/// Which questions were answered, and when.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// For each question when it was asked and, if it was, answered.
    pub asked: Vec<(Instant, Option<Instant>)>,
}

impl Pinger {
    /// Begins to ask.
    pub fn start(network: &Network, to: Ipv4Addr) -> Result<Self> {
        let socket = inside(network.handle(), || {
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)
                .context("opening a raw socket")
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let (stopped, counts) = (stop.clone(), answered.clone());
        Ok(Self { stop, answered, asking: std::thread::spawn(move || ask(&socket, to, &stopped, &counts)) })
    }

    /// How many were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn stop(self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_| anyhow!("the pinging thread panicked"))?
    }
}

impl Answers {
    /// The longest time without an answer between the first and the last: about one interval when none is missing.
    pub fn longest_gap(&self) -> Duration {
        let mut answered: Vec<Instant> = self.asked.iter().filter_map(|(_, answered)| *answered).collect();
        answered.sort();
        answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// How many were not answered.
    pub fn lost(&self) -> usize {
        self.asked.iter().filter(|(_, answered)| answered.is_none()).count()
    }
}

fn ask(socket: &OwnedFd, to: Ipv4Addr, stop: &AtomicBool, counts: &AtomicUsize) -> Result<Answers> {
    let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
    // A pinger of its own identifier, so that several do not answer for each other.
    let id = (std::process::id() as u16) ^ (socket.as_raw_fd() as u16) << 8;
    let mut answers = Answers::default();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = answers.asked.len() as u16;
        // No route or a full queue is a question without an answer.
        let _ = sendto(socket.as_raw_fd(), &echo(id, number), &to, MsgFlags::empty());
        answers.asked.push((Instant::now(), None));
        next += EVERY;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let left_us = i64::try_from(left.as_micros()).unwrap_or(100_000).max(1);
            setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::new(0, left_us))?;
            let mut packet = [0; 256];
            let Ok(bytes) = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) else { continue };
            if let Some(number) = answered(&packet[..bytes], id) {
                // Numbers wrap after two hours; the newest question of that number is meant.
                let newest = answers.asked.len() - 1;
                let back = (newest as u16).wrapping_sub(number) as usize;
                if let Some((_, at @ None)) = newest.checked_sub(back).and_then(|at| answers.asked.get_mut(at)) {
                    *at = Some(Instant::now());
                    counts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(answers)
}

fn echo(id: u16, number: u16) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = 8;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    let sum = packet.chunks(2).fold(0_u32, |sum, two| sum + u32::from(two[0]) * 256 + u32::from(two[1]));
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    packet
}

/// The number of the question that a packet, its IP header before it, answers.
fn answered(packet: &[u8], id: u16) -> Option<u16> {
    let header = usize::from(packet.first()? & 15) * 4;
    let icmp = packet.get(header..header + 8)?;
    let word = |at: usize| u16::from_be_bytes([icmp[at], icmp[at + 1]]);
    (icmp[0] == 0 && word(4) == id).then(|| word(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers() {
        let mut packet = vec![0x45; 20];
        packet.extend(echo(0x1234, 7));
        // Sums to all ones with its own checksum.
        let sum: u32 = packet[20..].chunks(2).map(|two| u32::from(two[0]) * 256 + u32::from(two[1])).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(answered(&packet, 0x1234), None, "a question is no answer");
        packet[20] = 0;
        assert_eq!(answered(&packet, 0x1234), Some(7));
        assert_eq!(answered(&packet, 0x1235), None);
        assert_eq!(answered(&packet[..25], 0x1234), None);
    }

    #[test]
    fn a_gap_is_the_longest_silence() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let asked = vec![(at(0), Some(at(1))), (at(100), None), (at(200), None), (at(300), Some(at(302)))];
        let answers = Answers { asked };
        assert_eq!((answers.longest_gap(), answers.lost()), (Duration::from_millis(301), 2));
    }
}
