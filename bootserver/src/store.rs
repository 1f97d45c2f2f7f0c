//! The store: every record of the rack in one SQLite file, written by one thread.
//!
//! Owns: durability (WAL, synchronous=FULL: what [`Store::commit`] has acknowledged survives a kill and a power cut),
//! the check at start that nothing on disk was damaged. Never does: know what a record means, or go on
//! after a commit failed: what the rack has in memory would no longer be true.
//!
//! ```text
//! open -> quick_check, checksum of each record -> load -> commit … commit -> (a commit fails: the server ends)
//!              | damaged
//!              +-> refused; it is said how to go back to a backup
//! ```

mod table;

use crate::privileges;
use rack::record::{Change, Loaded};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, oneshot};

/// The store's file in the state directory.
pub const FILE: &str = "store.sqlite";

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("{doing} {path}: {err}")]
    Sqlite {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What SQLite said.
        err: rusqlite::Error,
    },
    /// The file system said no.
    #[error("{doing} {path}: {err}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        err: std::io::Error,
    },
    /// What is on disk is not what was written.
    #[error(
        "the store {path} is damaged: {what}. It was left as it is. To go back to a backup: mv {path} {path}.damaged; \
         rm -f {path}-wal {path}-shm; bootserver restore BACKUP --state {}", path.parent().unwrap_or(path).display()
    )]
    Damaged {
        /// The store.
        path: PathBuf,
        /// Where.
        what: String,
    },
    /// Made by a newer server.
    #[error("the store {path} has schema version {found}, this server knows up to {known}; run the newer server")]
    TooNew {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A record was not at the version that the rack holds: two writers, or a fault of ours.
    #[error("record {kind}/{name} is not at version {expected} in the store {path}; nothing was written")]
    Conflict {
        /// The store.
        path: PathBuf,
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What the rack holds.
        expected: u64,
    },
    /// The writer has ended after an earlier error.
    #[error("the store's writer has ended after an earlier error")]
    Ended,
}

struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// A handle on the writer thread. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens or makes the store in a state directory, checks it and loads all records.
    pub fn open(state: &Path) -> Result<(Self, Vec<Loaded>), StoreError> {
        let (mut connection, records) = table::open(state)?;
        // The rack task waits for each commit, so few jobs ever wait here.
        let (jobs, mut todo) = mpsc::channel(4);
        let file = path(state);
        let write = move || {
            privileges::give_up_or_warn();
            while let Some(Job { changes, done }) = todo.blocking_recv() {
                let result = table::commit(&mut connection, &file, &changes);
                let failed = result.is_err();
                // Whoever asked may be gone; the work is done all the same.
                let _ = done.send(result);
                if failed {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("store".to_owned()).spawn(write).map_err(|err| StoreError::Io {
            doing: "starting the writer of",
            path: FILE.into(),
            err,
        })?;
        Ok((Self { jobs }, records))
    }

    /// Writes all changes or none; when it returns `Ok` they are durable. After an error the store takes no more.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.jobs.send(Job { changes, done }).await.map_err(|_| StoreError::Ended)?;
        result.await.map_err(|_| StoreError::Ended)?
    }
}

/// The records of a store that is opened, each checked; a version that this server does not know is refused.
pub(crate) fn check(connection: &Connection, file: &Path) -> Result<Vec<Loaded>, StoreError> {
    table::check(connection, file)
}

/// Changes a store that no server has open.
pub(crate) fn change(connection: &mut Connection, file: &Path, changes: &[Change]) -> Result<(), StoreError> {
    table::commit(connection, file, changes)
}

fn path(state: &Path) -> PathBuf {
    state.join(FILE)
}

fn sqlite(doing: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    move |err| StoreError::Sqlite { doing, path, err }
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |err| StoreError::Io { doing, path, err }
}

#[cfg(test)]
pub(crate) mod tests;
