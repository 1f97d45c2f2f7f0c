//! Writing this host's slot on the heartbeat disk.
//!
//! Owns: the session to that disk, and a program of its own that writes (`hostagent beat`), since a write to a storage that is away may
//! not come back for hours, and until then the kernel lets no program end that waits for it: the agent could not be started anew
//! meanwhile. Never does: say what a lease means; it tells the agent of every write that came back.
//!
//! ```text
//! begin ──> log in ──> beat: asked, writes, answers, sleep … ──an error──> log in again …        until another begin
//! ```
//! The slot moves only when the agent asks: it says that the agent lives.

use crate::agent::AgentEvent;
use crate::hypervisor::xl::exe;
use crate::iscsi;
use crate::stats::uptime_ms;
use nix::libc;
use proto::HostId;
use proto::agent::Heartbeat;
use proto::heartbeat::{SLOT_BYTES, Slot};
use std::fs::OpenOptions;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::{Mutex, mpsc};

/// Between two attempts to log in, milliseconds.
const AGAIN_MS: u64 = 1_000;

/// A block as O_DIRECT wants it.
#[repr(align(4096))]
struct Block([u8; SLOT_BYTES]);

/// Who writes. Only the newest access counts.
#[derive(Clone)]
pub struct Writer {
    host: HostId,
    boot: String,
    events: mpsc::Sender<AgentEvent>,
    /// Raised with every access given.
    turn: Arc<AtomicU64>,
    /// One log-in at a time: an older one that is under way ends first.
    logging_in: Arc<Mutex<()>>,
}

impl Writer {
    /// For this boot of this host; writes that come back are told to `events`.
    pub fn new(host: HostId, boot: String, events: mpsc::Sender<AgentEvent>) -> Self {
        Self { host, boot, events, turn: Arc::default(), logging_in: Arc::default() }
    }

    /// Writes here from now on.
    pub fn begin(&self, given: Heartbeat) {
        let writer = self.clone();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(async move {
            let mut last = String::new();
            while writer.is_newest(turn) {
                let error = writer.write_until_error(&given, turn).await;
                if writer.is_newest(turn) && error != last {
                    tracing::warn!(error, "heartbeat");
                    last = error;
                }
                tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
            }
        });
    }

    fn is_newest(&self, turn: u64) -> bool {
        self.turn.load(Ordering::Relaxed) == turn
    }

    async fn write_until_error(&self, given: &Heartbeat, turn: u64) -> String {
        let device = {
            let _one = self.logging_in.lock().await;
            if !self.is_newest(turn) {
                return String::new();
            }
            match iscsi::login(&self.host, &given.access).await {
                Ok(device) => device,
                Err(e) => return e.to_string(),
            }
        };
        tracing::info!(device = device.name, slot = given.slot, "heartbeat disk is there");
        let path = format!("/dev/{}", device.name);
        let error = self.write(given, turn, &path).await.err();
        error.map(|e| format!("writing slot to {path}: {e}")).unwrap_or_default()
    }

    /// Has the slot written until an error, or until another access was given.
    async fn write(&self, given: &Heartbeat, turn: u64, path: &str) -> io::Result<()> {
        let mut command = Command::new(exe());
        command.args(["beat", path, &given.slot.to_string(), self.host.as_str(), &self.boot]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut ask), Some(answers)) = (stdin, stdout) else { return Err(io::Error::other("it has no pipes")) };
        let mut answers = BufReader::new(answers).lines();
        while self.is_newest(turn) {
            ask.write_all(b"\n").await?;
            let answer = answers.next_line().await?.unwrap_or_else(|| "the writing program has ended".to_owned());
            let Ok(begun_ms) = answer.parse::<u64>() else { return Err(io::Error::other(answer)) };
            // It came back late, and another is written by now.
            if !self.is_newest(turn) {
                return Ok(());
            }
            let event = AgentEvent::Renewed { user: given.access.user.clone(), begun_ms };
            if self.events.send(event).await.is_err() {
                return Ok(());
            }
            let next_ms = begun_ms.saturating_add(given.write_ms);
            tokio::time::sleep(Duration::from_millis(next_ms.saturating_sub(uptime_ms()))).await;
        }
        Ok(())
    }
}

/// `hostagent beat DEVICE SLOT HOST BOOT`: writes the slot once for each line that is asked for, and answers each with when the write was
/// begun, milliseconds since the host's start: what came back was written no earlier. Ends when nobody asks any more.
///
/// # Errors
/// The first write that failed; it is answered as well.
pub fn beat(path: &str, slot: u32, host: &HostId, boot: &str) -> io::Result<()> {
    let (asked, answers) = (io::stdin().lock(), io::stdout().lock());
    serve(path, slot, host, boot, asked, answers)
}

fn serve(path: &str, slot: u32, host: &HostId, boot: &str, asked: impl BufRead, mut to: impl Write) -> io::Result<()> {
    let mut device = None;
    for line in asked.lines() {
        line?;
        // The lease counts from here. As a counter it rises over restarts of the agent too.
        let begun_ms = uptime_ms();
        let mut write = || {
            let device = match &device {
                Some(device) => device,
                None => device.insert(OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?),
            };
            let text = Slot { host: host.clone(), boot: boot.to_owned(), counter: begun_ms };
            device.write_all_at(&Block(text.encode()).0, u64::from(slot) * SLOT_BYTES as u64)
        };
        let written = write();
        match &written {
            Ok(()) => writeln!(to, "{begun_ms}")?,
            Err(e) => writeln!(to, "{e}")?,
        }
        to.flush()?;
        written?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A regular file in place of the disk: it takes O_DIRECT as well.
    #[test]
    fn each_write_is_asked_for_is_in_its_place_and_answered_with_its_beginning() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let path = dir.path().join("disk").display().to_string();
        std::fs::write(&path, vec![0; 4 * SLOT_BYTES]).expect("written");
        let host: HostId = "h525400aabb01".parse().expect("good");
        let (before_ms, mut said) = (uptime_ms(), Vec::new());
        serve(&path, 2, &host, "boot", &b"\n\n\n"[..], &mut said).expect("written");
        let said: Vec<u64> = String::from_utf8(said).expect("text").lines().map(|l| l.parse().expect("ms")).collect();
        assert_eq!(said.len(), 3);
        assert!(said.iter().all(|at| (before_ms..=uptime_ms()).contains(at)), "{said:?}");
        let bytes = std::fs::read(&path).expect("read");
        let slots: Vec<_> = bytes.chunks(SLOT_BYTES).map(Slot::decode).collect();
        assert_eq!(slots.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, false]);
        let found = slots[2].as_ref().map(|slot| (&slot.host, slot.boot.as_str(), slot.counter));
        assert_eq!(found, Some((&host, "boot", said[2])));
        // What fails is answered too, and is the end.
        let mut said = Vec::new();
        assert!(serve("/nowhere", 0, &host, "boot", &b"\n\n"[..], &mut said).is_err());
        assert_eq!(String::from_utf8(said).expect("text").lines().count(), 1);
    }
}
