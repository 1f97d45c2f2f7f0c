//! A state directory made from a backup, by one command, without a server.
//!
//! Owns: the checks before, and that a directory has a store only when all of it is there. Never does: overwrite anything of a state. What a
//! server does with a record that is old is the rack's: `rack::recovery`.

use super::file::{self, BackupError, FILES, io, sqlite};
use crate::storage::path_in;
use crate::{state_dir, store};
use proto::DiskId;
use proto::heartbeat::DISK;
use rack::event::Entropy;
use rack::record::{Kind, Loaded, Record};
use rack::recovery::begin_term;
use rusqlite::{Connection, OptionalExtension};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What is to become the store, in the state directory.
const PART: &str = "restore.part";

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// When the backup was taken, Unix milliseconds.
    pub taken_ms: u64,
    /// Hosts in it.
    pub hosts: usize,
    /// VMs in it.
    pub vms: usize,
    /// Where.
    pub state: PathBuf,
}

/// Makes the state of a server of a backup. Disks that are in the directory are left as they are; where most are not in it, only `without_disks`
/// goes on. Interrupted, it can be done again.
pub fn restore(from: &Path, state: &Path, now_ms: u64, without_disks: bool) -> Result<Restored, BackupError> {
    let (taken_ms, body) = file::read(from)?;
    if now_ms < taken_ms {
        return Err(BackupError::Clock { behind_s: (taken_ms - now_ms).div_ceil(1000) });
    }
    let _lock = state_dir::lock(state)?;
    // A log that outlived its store would be brought into the new one.
    for path in with_logs(&state.join(store::FILE)) {
        if path.exists() {
            return Err(BackupError::StateExists { path });
        }
    }
    let part = state.join(PART);
    // One that is there is of a restore that was interrupted, perhaps with keys in place. It is written over and never away: it alone says so.
    let interrupted = part.exists();
    let [logs @ .., _] = with_logs(&part);
    clear(&logs)?;
    let written = state_dir::write(&part, &body).map_err(BackupError::from);
    let checked = written.and_then(|()| begin(from, state, &part, (taken_ms, now_ms), without_disks));
    if checked.is_err() && !interrupted {
        let _ = clear(&with_logs(&part));
    }
    let Begun { records, keys } = checked?;
    // From the first key on it stays whatever fails, until it is the store.
    put(state, &part, keys)?;
    let count = |kind: Kind| records.iter().filter(|loaded: &&Loaded| loaded.key.kind == kind).count();
    Ok(Restored { taken_ms, hosts: count(Kind::Host), vms: count(Kind::Vm), state: state.to_owned() })
}

/// Sees that a state is not what an interrupted restore has left: a server would begin an empty record on it, beside the old keys.
pub fn was_not_interrupted(state: &Path) -> Result<(), BackupError> {
    if state.join(PART).exists() && !state.join(store::FILE).exists() {
        return Err(BackupError::Interrupted { state: state.to_owned() });
    }
    Ok(())
}

fn clear(left: &[PathBuf]) -> Result<(), BackupError> {
    left.iter().try_for_each(|path| state_dir::remove(path).map_err(io("removing", path)))
}

/// What SQLite keeps beside a file, and the file itself last.
fn with_logs(file: &Path) -> [PathBuf; 4] {
    ["-journal", "-wal", "-shm", ""].map(|beside| {
        let mut path = file.as_os_str().to_owned();
        path.push(beside);
        path.into()
    })
}

/// A restore of which all is checked and nothing but `restore.part` is in the state directory.
struct Begun {
    records: Vec<Loaded>,
    /// The files that are still to be written, with what is in them.
    keys: Vec<(PathBuf, Vec<u8>)>,
}

/// Checks what was written and begins the term in it.
fn begin(
    from: &Path,
    state: &Path,
    part: &Path,
    (taken_ms, now_ms): (u64, u64),
    without_disks: bool,
) -> Result<Begun, BackupError> {
    let mut connection = Connection::open(part).map_err(sqlite("opening", part))?;
    let failed = sqlite("reading", part);
    file::sound(&connection, from)?;
    let records = store::check(&connection, part)?;
    if !without_disks {
        disks_are_there(&records, state)?;
    }
    let mut keys = Vec::new();
    for name in FILES {
        let body =
            connection.query_row("SELECT body FROM file WHERE name = ?1", [name], |row| row.get::<_, Vec<u8>>(0));
        let Some(body) = body.optional().map_err(&failed)? else { continue };
        let path = state.join(name);
        // The same is there when a restore was interrupted.
        match fs::read(&path) {
            Ok(there) if there == body => {}
            Ok(_) => return Err(BackupError::StateExists { path }),
            Err(_) => keys.push((path, body)),
        }
    }
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(BackupError::Random)?;
    let change = begin_term(&records, taken_ms, now_ms, Entropy(entropy));
    store::change(&mut connection, part, &[change])?;
    // The keys are in files of their own from here on.
    connection.execute_batch("DROP TABLE file; VACUUM;").map_err(&failed)?;
    Ok(Begun { records, keys })
}

/// Where most disks are missing it is rather another directory that has them, or a volume that is not mounted: a server would take the guests that
/// run on them for cut off, and end them.
fn disks_are_there(records: &[Loaded], state: &Path) -> Result<(), BackupError> {
    let directory = state.join("disks");
    let disks = records.iter().filter_map(|loaded| match &loaded.record {
        Record::Disk(disk) if disk.ready && disk.name.as_str() != DISK => Some(&disk.name),
        _ => None,
    });
    let disks: Vec<&DiskId> = disks.collect();
    let missing = disks.iter().filter(|disk| !path_in(&directory, disk).exists()).count();
    if missing * 2 > disks.len() {
        return Err(BackupError::DisksMissing { missing, of: disks.len(), directory });
    }
    Ok(())
}

/// Puts the keys in place, and the store last.
fn put(state: &Path, part: &Path, keys: Vec<(PathBuf, Vec<u8>)>) -> Result<(), BackupError> {
    for (path, body) in keys {
        if let Some(parent) = path.parent() {
            state_dir::make(parent)?;
        }
        state_dir::write(&path, &body)?;
    }
    let to = state.join(store::FILE);
    let name = || {
        File::open(part)?.sync_all()?;
        fs::rename(part, &to)?;
        state_dir::sync(state)
    };
    name().map_err(io("naming", &to))
}
