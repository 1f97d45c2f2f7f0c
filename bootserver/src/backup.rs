//! Backups: on a schedule and on command, while the server runs.
//!
//! Owns: when one is taken, how many are kept, what the rack is told of them. `file` is what is in one, `restore` makes a state directory of
//! one. Never does: hold up a commit, as a copy is made by SQLite's online backup, beside the writer; or put by the record of a server whose
//! place was taken, which is old, and would displace the other's backups in a directory that both have.
//!
//! ```text
//! wait --due, or asked--> copy, check, digest --> under its name, durable --> the oldest beyond `keep` removed --> rack told --> wait
//!                                 \-- failed: rack told, again in a minute --------------------------------------------------^
//! ```

mod file;
mod restore;
#[cfg(test)]
mod tests;

pub use file::BackupError;
pub use restore::{Restored, restore, was_not_interrupted};

use crate::rack_task::Handle;
use crate::state_dir::{self, Lock, StateError};
use proto::view::{BackupFile, BackupView};
use rack::event::Event;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};

/// Where, how often and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Where they are put; made when missing, mode 0700.
    pub directory: PathBuf,
    /// Seconds from one to the next; 0 for on command only.
    pub every_s: u64,
    /// How many are kept, 1 or more.
    pub keep: usize,
}

impl Schedule {
    /// How long until the next is due; `None` for never.
    fn wait(&self, failed: bool) -> Option<Duration> {
        if self.every_s == 0 {
            return None;
        }
        if failed {
            return Some(AGAIN);
        }
        let every = Duration::from_secs(self.every_s);
        // By the wall clock, so that a server that is often restarted takes one all the same. One from the future is none.
        let (now, files) = (unix_now(), list(&self.directory));
        let since =
            files.iter().find_map(|file| now.checked_sub(Duration::from_millis(file.taken_ms))).unwrap_or(every);
        Some(every.saturating_sub(since))
    }
}

/// One that failed is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Held by whoever takes one: the server and a command may be at it at once. Its own name, should they be put beside the state's lock.
const LOCK: &str = "backup.lock";
/// Commands that wait; each is answered by a backup of its own.
const ASKED_MAX: usize = 4;

type Asked = oneshot::Sender<Result<BackupFile, String>>;

/// Asks for a backup now.
#[derive(Clone)]
pub struct Asker(mpsc::Sender<Asked>);

impl Asker {
    /// Takes one, and says what was taken; else one line on what failed.
    pub async fn now(&self) -> Result<BackupFile, String> {
        let (answer, taken) = oneshot::channel();
        let stopping = || "the server is stopping".to_owned();
        self.0.send(answer).await.map_err(|_| stopping())?;
        taken.await.map_err(|_| stopping())?
    }
}

/// Takes backups.
pub struct Backups {
    state: PathBuf,
    schedule: Schedule,
    rack: Handle,
    asked: mpsc::Receiver<Asked>,
}

impl Backups {
    /// Of this state directory, for this rack.
    pub fn new(state: PathBuf, schedule: Schedule, rack: Handle) -> (Self, Asker) {
        let (asker, asked) = mpsc::channel(ASKED_MAX);
        (Self { state, schedule, rack, asked }, Asker(asker))
    }

    /// Takes backups until `stop` turns true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // What is in the way is told now, and not when the next is due.
        let directory = self.schedule.directory.clone();
        let failure = blocking(move || ready(&directory)).await.err();
        if let Some(err) = &failure {
            tracing::error!(err, "no backup can be taken");
        }
        let mut failed = failure.is_some();
        self.tell(failure).await;
        loop {
            let wait = if self.superseded().is_none() { self.schedule.wait(failed) } else { None };
            let asked = tokio::select! {
                () = due(wait) => None,
                Some(asked) = self.asked.recv() => Some(asked),
                _ = stop.wait_for(|&stop| stop) => return,
            };
            if let Some(why) = self.superseded() {
                if let Some(asked) = asked {
                    let _ = asked.send(Err(why));
                }
                continue;
            }
            let (state, schedule) = (self.state.clone(), self.schedule.clone());
            let taken = blocking(move || take(&state, &schedule)).await;
            failed = taken.is_err();
            match &taken {
                Ok(file) => tracing::info!(name = file.name, bytes = file.bytes, "a backup was taken"),
                Err(err) => tracing::error!(err, "no backup was taken"),
            }
            self.tell(taken.as_ref().err().cloned()).await;
            if let Some(asked) = asked {
                // Whoever asked may be gone.
                let _ = asked.send(taken);
            }
        }
    }

    /// What the rack says when another server has taken this one's place.
    fn superseded(&self) -> Option<String> {
        let shown = self.rack.shown();
        let ha = &shown.view.ha;
        ha.standing_by.clone().filter(|_| ha.superseded)
    }

    async fn tell(&self, failure: Option<String>) {
        let Schedule { directory, every_s, keep } = &self.schedule;
        let view = BackupView {
            directory: directory.display().to_string(),
            every_s: *every_s,
            keep: u32::try_from(*keep).unwrap_or(u32::MAX),
            files: list(directory),
            failure,
            late: false,
        };
        self.rack.say(Event::BackedUp(view)).await;
    }
}

/// Takes one of a state directory, beside a running server or without one. Waits for another that is being taken.
pub fn take(state: &Path, schedule: &Schedule) -> Result<BackupFile, BackupError> {
    let _lock = ready(&schedule.directory)?;
    let taken_ms = u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX);
    let taken = file::write(state, &schedule.directory, taken_ms)?;
    // A clock that was ahead once has left some from the future: they are no reason to remove what is newer in truth.
    for old in list(&schedule.directory).iter().filter(|file| file.taken_ms <= taken_ms).skip(schedule.keep) {
        let path = schedule.directory.join(&old.name);
        // The new one is there all the same.
        if let Err(err) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %err, "an old backup cannot be removed; remove it by hand");
        }
    }
    Ok(taken)
}

/// Makes the directory if need be, sees that it can be written, and waits for its lock.
fn ready(directory: &Path) -> Result<Lock, BackupError> {
    let trial = directory.join("trial");
    let written = || {
        let lock = state_dir::wait_for(directory, LOCK)?;
        let written = std::fs::write(&trial, b"a backup can be put here\n");
        let removed = state_dir::remove(&trial);
        written.and(removed).map_err(|err| StateError::Io { doing: "writing", path: trial.clone(), err })?;
        Ok(lock)
    };
    written().map_err(|why| BackupError::Directory { directory: directory.to_owned(), why })
}

/// Those in a directory, newest first; the name holds the time.
pub fn list(directory: &Path) -> Vec<BackupFile> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<BackupFile> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(BackupFile { taken_ms: file::taken_ms(&name)?, bytes: entry.metadata().ok()?.len(), name })
        })
        .collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.taken_ms));
    files
}

/// Does what may take long, with one line on what failed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|err| err.to_string()).and_then(|done| done.map_err(|err| err.to_string()))
}

async fn due(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
