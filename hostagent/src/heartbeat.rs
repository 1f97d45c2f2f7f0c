//! Writing this host's slot on the heartbeat disk.
//!
//! Owns: the session to that disk, and a thread of its own that writes, since a write to a storage that is away may not come back for
//! hours. Never does: say what a lease means; it tells the agent of every write that came back.
//!
//! ```text
//! begin ──> log in ──> thread: write, tell, sleep … ──an error──> log in again …        until another begin
//! ```

use crate::agent::AgentEvent;
use crate::iscsi;
use crate::stats::uptime_ms;
use nix::libc;
use proto::HostId;
use proto::agent::Heartbeat;
use proto::heartbeat::{SLOT_BYTES, Slot};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};

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
        let (writer, given, path) = (self.clone(), given.clone(), format!("/dev/{}", device.name));
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("heartbeat".into()).stack_size(64 << 10).spawn(move || {
            let error = writer.write(&given, turn, &path).err().map(|e| format!("writing slot to {path}: {e}"));
            // Nobody waits when the agent is ending.
            let _ = end.send(error.unwrap_or_default());
        });
        match thread {
            Ok(_) => ended.await.unwrap_or_else(|_| "the writing thread has ended".to_owned()),
            Err(e) => format!("starting the writing thread: {e}"),
        }
    }

    /// Writes until an error, or until another access was given.
    fn write(&self, given: &Heartbeat, turn: u64, path: &str) -> io::Result<()> {
        let device = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
        let at = u64::from(given.slot) * SLOT_BYTES as u64;
        while self.is_newest(turn) {
            // The lease counts from here. As a counter it rises over restarts of the agent too.
            let begun_ms = uptime_ms();
            let slot = Slot { host: self.host.clone(), boot: self.boot.clone(), counter: begun_ms };
            device.write_all_at(&Block(slot.encode()).0, at)?;
            let event = AgentEvent::Renewed {
                user: given.access.user.clone(),
                until_ms: begun_ms.saturating_add(given.lease_ms),
            };
            if self.events.blocking_send(event).is_err() {
                return Ok(());
            }
            let next_ms = begun_ms.saturating_add(given.write_ms);
            std::thread::sleep(Duration::from_millis(next_ms.saturating_sub(uptime_ms())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::agent::{DiskAccess, Secret};

    fn given(slot: u32) -> Heartbeat {
        let access = DiskAccess {
            disk: "tsubame-heartbeat".parse().expect("good"),
            portal: ([10, 77, 0, 1], 3260).into(),
            target: "iqn.x:tsubame-heartbeat".into(),
            lun: 1,
            user: "u-1".into(),
            secret: Secret("0123456789abcdef".into()),
        };
        Heartbeat { access, slot, write_ms: 1, lease_ms: 20_000, watchdog_ms: 15_000, cuttable: true }
    }

    /// A regular file in place of the disk: it takes O_DIRECT as well.
    #[test]
    fn every_write_is_in_its_place_and_told_with_its_beginning() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0; 4 * SLOT_BYTES]).expect("written");
        let (events, mut told) = mpsc::channel(8);
        let host: HostId = "h525400aabb01".parse().expect("good");
        let writer = Writer::new(host.clone(), "boot".into(), events);
        writer.turn.store(1, Ordering::Relaxed);
        let (before_ms, other, file) = (uptime_ms(), writer.clone(), path.display().to_string());
        let writing = std::thread::spawn(move || other.write(&given(2), 1, &file));
        for _ in 0..3 {
            let Some(AgentEvent::Renewed { user, until_ms }) = told.blocking_recv() else { panic!("a write is told") };
            assert_eq!(user, "u-1");
            assert!((before_ms..=uptime_ms()).contains(&(until_ms - 20_000)));
        }
        // Another access was given.
        writer.turn.store(2, Ordering::Relaxed);
        while told.try_recv().is_ok() {}
        writing.join().expect("no panic").expect("written");
        let bytes = std::fs::read(&path).expect("read");
        let slots: Vec<_> = bytes.chunks(SLOT_BYTES).map(Slot::decode).collect();
        assert_eq!(slots.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, false]);
        assert_eq!(slots[2].as_ref().map(|slot| (&slot.host, slot.boot.as_str())), Some((&host, "boot")));
    }
}
