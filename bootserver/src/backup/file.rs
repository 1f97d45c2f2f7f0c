//! What is in a backup: one file, readable by its owner only, whole or not there.
//!
//! ```text
//! tsubame-backup 1 SHA256 UNIXMS VERSION\n     sha256 of all that follows, hexadecimal; when it was taken; by which server
//! SQLite database                              the store's own tables, and `file(name, body)`: ca.pem, operator/password
//! ```
//! The digest finds a flipped bit, `PRAGMA integrity_check` a copy that SQLite itself would not have made, and each record has the checksum that
//! it has in the store. Not in it: guests' disks, which are the storage's; sessions, so that one that was ended does not come back; our own
//! TLS certificate, which is made anew.

use crate::config::files::hex;
use crate::state_dir;
use crate::store;
use proto::view::BackupFile;
use rusqlite::{Connection, OpenFlags, params};
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first word of the first line, and the form's number.
const MAGIC: &str = "tsubame-backup";
const FORM: u32 = 1;
/// The longest first line, bytes.
const HEAD_BYTES_MAX: usize = 256;
/// Files of the state directory that are in it, where they are there.
pub(super) const FILES: [&str; 2] = ["ca.pem", "operator/password"];
/// All are copied in one step: a commit between two begins the copy anew, and where they never cease it would never end. In WAL mode, which the
/// store is in, a read holds up no writer however long it takes.
const PAGES_AT_ONCE: i32 = i32::MAX;
/// Before another try, should SQLite be busy.
const PAUSE: Duration = Duration::from_millis(1);
/// What a backup is longer than the store at the most: two small files, a first line, and SQLite's journal while they are added.
const BESIDE_BYTES: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// Why a backup is not taken or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system said no.
    #[error("{doing} {}: {err}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        err: std::io::Error,
    },
    /// SQLite said no.
    #[error("{doing} {}: {err}", path.display())]
    Sqlite {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What SQLite said.
        err: rusqlite::Error,
    },
    /// The state directory.
    #[error(transparent)]
    State(#[from] state_dir::StateError),
    /// None can be put where they are to be.
    #[error(
        "a backup cannot be put into {}: {why}. See that the server may write there; the unit tsubame.service allows it by `ReadWritePaths={}`",
        directory.display(), directory.display()
    )]
    Directory {
        /// Where.
        directory: PathBuf,
        /// What is in the way.
        why: state_dir::StateError,
    },
    /// It would take room that others need, or that is not there.
    #[error(
        "there is no room for a backup in {}: it takes {needed_mib} MiB, and {free_mib} MiB are free, of which {reserve_mib} MiB are kept for the \
         server's records. Make room there, or let `backup.directory` name another file system",
        directory.display()
    )]
    NoRoom {
        /// Where.
        directory: PathBuf,
        /// What it takes.
        needed_mib: u64,
        /// What there is.
        free_mib: u64,
        /// What of it is kept.
        reserve_mib: u64,
    },
    /// The store in it.
    #[error("the store in the backup: {0}")]
    Store(#[from] store::StoreError),
    /// It is something else.
    #[error("{} is no backup of this server: it does not begin with {MAGIC:?}", path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
    },
    /// A newer server made it.
    #[error("the backup {} has form {found}, this server knows {FORM}: restore it with the server that made it, or a newer one", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
    /// It is not what was written.
    #[error("the backup {} is damaged: {what}. Nothing was restored; take another copy of it, or an older backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is a state already.
    #[error(
        "{} is there already: a restore never overwrites a state. Name another directory by --state, or move {} away first (leave its disks)",
        path.display(), path.display()
    )]
    StateExists {
        /// What is there.
        path: PathBuf,
    },
    /// Most disks of the backup are not in the state directory.
    #[error(
        "{missing} of the {of} disks in the backup are not in {}: move or mount them there first, as guests that run on them would be ended. If \
         they are lost, go on by --without-disks: their VMs fail, and all else is taken over",
        directory.display()
    )]
    DisksMissing {
        /// So many.
        missing: usize,
        /// Of so many.
        of: usize,
        /// Where they are to be.
        directory: PathBuf,
    },
    /// A restore has not come to its end.
    #[error(
        "a restore into {} was interrupted: do it again, by `bootserver restore BACKUP --state {}`",
        state.display(), state.display()
    )]
    Interrupted {
        /// The state directory.
        state: PathBuf,
    },
    /// The machine's clock is behind.
    #[error(
        "the clock of this machine is behind the backup by {behind_s} s: set it first, as numbers that were given before the restore must be known to be lower"
    )]
    Clock {
        /// Seconds.
        behind_s: u64,
    },
    /// No randomness.
    #[error("drawing a secret: {0}")]
    Random(getrandom::Error),
}

pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |err| BackupError::Io { doing, path, err }
}

pub(super) fn sqlite(doing: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> BackupError {
    let path = path.to_owned();
    move |err| BackupError::Sqlite { doing, path: path.clone(), err }
}

fn name(taken_ms: u64) -> String {
    format!("tsubame-{taken_ms:013}.backup")
}

/// When one of this name was taken, Unix milliseconds.
pub(super) fn taken_ms(name: &str) -> Option<u64> {
    name.strip_prefix("tsubame-")?.strip_suffix(".backup")?.parse().ok()
}

/// Takes one in a directory whose lock is held. It appears under its name only when it is whole, checked and on disk.
pub(super) fn write(state: &Path, directory: &Path, taken_ms: u64) -> Result<BackupFile, BackupError> {
    let (copy, part) = (directory.join("part.sqlite"), directory.join("part"));
    for left in [&copy, &part] {
        let _ = fs::remove_file(left); // by a server that was killed
    }
    room_for(state, directory)?;
    let copied = copy_store(state, &copy).and_then(|()| fs::read(&copy).map_err(io("reading", &copy)));
    // Left by nobody: it holds secrets. Gone before the backup is written, so that there is never room taken for both.
    let _ = fs::remove_file(&copy);
    finish(&copied?, &part, directory, taken_ms)
}

/// Whether there is room for one beside what is kept for the records, where these are on the same file system.
fn room_for(state: &Path, directory: &Path) -> Result<(), BackupError> {
    let asking = "asking for the room on";
    let device = |dir: &Path| fs::metadata(dir).map(|meta| meta.dev()).map_err(io(asking, dir));
    let reserve = if device(state)? == device(directory)? { state_dir::RESERVE_BYTES } else { 0 };
    let store = state.join(store::FILE);
    // What is in the log may all be added to what is in the file.
    let length = |file: &Path| fs::metadata(file).map_or(0, |meta| meta.len());
    let needed = length(&store) + length(&store.with_extension("sqlite-wal")) + BESIDE_BYTES;
    let free = state_dir::free_bytes(directory).map_err(io(asking, directory))?;
    if free < needed.saturating_add(reserve) {
        let (needed_mib, free_mib, reserve_mib) = (needed.div_ceil(MIB), free / MIB, reserve / MIB);
        return Err(BackupError::NoRoom { directory: directory.to_owned(), needed_mib, free_mib, reserve_mib });
    }
    Ok(())
}

fn copy_store(state: &Path, copy: &Path) -> Result<(), BackupError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(copy);
    drop(made.map_err(io("making", copy))?);
    let from = state.join(store::FILE);
    let source = Connection::open_with_flags(&from, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let source = source.map_err(sqlite("opening", &from))?;
    let mut to = Connection::open(copy).map_err(sqlite("opening", copy))?;
    // What counts is written, synced and read back by `finish`; meanwhile the store's log grows, as it is being read.
    to.pragma_update(None, "synchronous", "OFF").map_err(sqlite("opening", copy))?;
    rusqlite::backup::Backup::new(&source, &mut to)
        .and_then(|backup| backup.run_to_completion(PAGES_AT_ONCE, PAUSE, None))
        .map_err(sqlite("copying the store to", copy))?;
    let failed = sqlite("writing", copy);
    // A plain file, without a log beside it.
    to.pragma_update(None, "journal_mode", "DELETE").map_err(&failed)?;
    to.execute_batch("CREATE TABLE file (name TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;")
        .map_err(&failed)?;
    for name in FILES {
        if let Some(text) = state_dir::read(&state.join(name))? {
            to.execute("INSERT INTO file (name, body) VALUES (?1, ?2)", params![name, text.as_bytes()])
                .map_err(&failed)?;
        }
    }
    sound(&to, copy)
}

/// SQLite's own whole check.
pub(super) fn sound(connection: &Connection, path: &Path) -> Result<(), BackupError> {
    let verdict = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(what) => Err(BackupError::Damaged { path: path.to_owned(), what }),
        Err(err) => Err(BackupError::Damaged { path: path.to_owned(), what: err.to_string() }),
    }
}

fn finish(body: &[u8], part: &Path, directory: &Path, taken_ms: u64) -> Result<BackupFile, BackupError> {
    let version = env!("CARGO_PKG_VERSION");
    let head = format!("{MAGIC} {FORM} {} {taken_ms} {version}\n", hex(&Sha256::digest(body)));
    let to = directory.join(name(taken_ms));
    let put = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part)?;
        file.write_all(head.as_bytes())?;
        file.write_all(body)?;
        file.sync_all()?;
        let written = fs::read(part)?;
        if written.strip_prefix(head.as_bytes()) != Some(body) {
            return Err(std::io::Error::other("what is read back is not what was written"));
        }
        fs::rename(part, &to)?;
        state_dir::sync(directory)
    };
    put().inspect_err(|_| drop(fs::remove_file(part))).map_err(io("writing", &to))?;
    Ok(BackupFile { name: name(taken_ms), taken_ms, bytes: (head.len() + body.len()) as u64 })
}

/// Reads one: when it was taken, and the database in it.
pub(super) fn read(path: &Path) -> Result<(u64, Vec<u8>), BackupError> {
    let mut bytes = fs::read(path).map_err(io("reading the backup", path))?;
    let not_one = || BackupError::NotOne { path: path.to_owned() };
    let damaged = |what: &str| BackupError::Damaged { path: path.to_owned(), what: what.to_owned() };
    if !bytes.starts_with(MAGIC.as_bytes()) {
        return Err(not_one());
    }
    let end = bytes.iter().take(HEAD_BYTES_MAX).position(|&byte| byte == b'\n');
    let end = end.ok_or_else(|| damaged("its first line has no end"))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut words = head.split(' ');
    let (Some(MAGIC), Some(form)) = (words.next(), words.next()) else { return Err(not_one()) };
    let found = form.parse().map_err(|_| damaged("its first line names no form"))?;
    if found != FORM {
        return Err(BackupError::TooNew { path: path.to_owned(), found });
    }
    let (Some(digest), Some(taken)) = (words.next(), words.next()) else {
        return Err(damaged("its first line is cut short"));
    };
    let taken_ms = taken.parse().map_err(|_| damaged("its first line does not say when it was taken"))?;
    let body = bytes.split_off(end + 1);
    if hex(&Sha256::digest(&body)) != digest {
        return Err(damaged("its digest is another than that of its content"));
    }
    Ok((taken_ms, body))
}
