//! The oracle outside the code under test: who wrote to which disk, and when, on the target's side.
//!
//! Owns: a thread that reads every packet of the storage's port in the rack's namespace and every change of the disks' files, from before the
//! first host is switched on; and the judgement over all of it. Never does: lose anything quietly; a capture with a gap fails.
//!
//! ```text
//! kernel ── capture ── stream ── iscsi ── wire ─┐
//! kernel ── files ──────────────────────────────┼── verdict
//! the server's event log ── Story ──────────────┘
//! ```

pub mod capture;
pub mod files;
pub mod iscsi;
pub mod stream;
pub mod verdict;
pub mod wire;

use crate::network::{BRIDGE, Network};
use crate::operator::Operator;
use anyhow::{Context, Result, anyhow};
use capture::Capture;
use files::Files;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::SystemTime;
use verdict::{Change, Story, Verdict};
use wire::{Seen, Wire};

/// A question for all that was seen up to now.
type Ask = Sender<(Seen, Vec<Change>)>;

/// The oracle at work.
pub struct Oracle {
    asks: Sender<Ask>,
    reading: Option<JoinHandle<Result<()>>>,
    story: Story,
    heard_seq: u64,
}

impl Oracle {
    /// Begins to look; the storage is not to be used before.
    pub fn start(network: &Network, disks: &Path) -> Result<Self> {
        let capture = Capture::start(network, BRIDGE, wire::PORT)?;
        let files = Files::watch(disks)?;
        let (asks, asked) = channel();
        let reading = std::thread::spawn(move || read(capture, files, &asked));
        Ok(Self { asks, reading: Some(reading), story: Story::default(), heard_seq: 0 })
    }

    /// Judges all from the beginning until now.
    pub fn judge(&mut self, operator: &Operator) -> Result<Verdict> {
        // First what was written, then the log: a write that came is then never judged by a log that is older.
        let (seen, changes) = self.seen()?;
        self.listen(operator)?;
        verdict::judge(&seen, &changes, &self.story)
    }

    /// All that was seen up to now.
    pub fn seen(&mut self) -> Result<(Seen, Vec<Change>)> {
        let (answer, answered) = channel();
        let seen = self.asks.send(answer).ok().and_then(|()| answered.recv().ok());
        if let Some(seen) = seen {
            return Ok(seen);
        }
        let ended = self.reading.take().context("the capture has ended")?.join();
        ended.map_err(|_| anyhow!("the capturing thread panicked"))??;
        Err(anyhow!("the capture has ended"))
    }

    /// The event log as far as it was taken in.
    pub fn story(&self) -> &Story {
        &self.story
    }

    /// How far the event log was heard.
    pub fn heard_seq(&self) -> u64 {
        self.heard_seq
    }

    /// The event log goes on from an earlier number, as that of a server which was restored from a backup.
    pub fn rewound_to(&mut self, heard_seq: u64) {
        self.heard_seq = heard_seq;
    }

    /// Takes in what is new in the event log, and which VM has which disk: also of one that is removed again later.
    pub fn listen(&mut self, operator: &Operator) -> Result<()> {
        loop {
            let events = operator.events(self.heard_seq)?;
            let Some(last) = events.last() else { break };
            self.heard_seq = last.seq;
            events.iter().for_each(|event| self.story.hear(event));
        }
        for vm in operator.rack()?.vms {
            for disk in vm.spec.disks {
                self.story.disks.insert(disk.to_string(), vm.spec.name.to_string());
            }
        }
        Ok(())
    }
}

fn read(mut capture: Capture, mut files: Files, asked: &Receiver<Ask>) -> Result<()> {
    let mut wire = Wire::default();
    let mut changes: Vec<Change> = Vec::new();
    // Who has asked, and when.
    let mut waiting: Option<(Ask, u64)> = None;
    loop {
        if waiting.is_none() {
            waiting = match asked.try_recv() {
                Ok(ask) => Some((ask, unix_ns(SystemTime::now()))),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return capture.check(),
            };
        }
        let segment = capture.await_one()?;
        // All that had come when it was asked for has been read.
        let read_up = |asked_ns: &u64| segment.as_ref().is_none_or(|segment| segment.at_ns > *asked_ns);
        let answers = waiting.take_if(|(_, asked_ns)| read_up(asked_ns));
        if let Some(segment) = segment {
            wire.see(segment)?;
        }
        changes.extend(files.changed()?);
        if let Some((ask, _)) = answers {
            capture.check()?;
            // Whoever asked may be gone.
            let _ = ask.send((wire.seen().clone(), changes.clone()));
        }
    }
}

fn unix_ns(at: SystemTime) -> u64 {
    // A clock before 1970 would show itself elsewhere.
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
