//! Backups: whole copies of the store by SQLite's online backup, while the writer goes on.

use super::{Connection, StoreError, io, path, sqlite};
use rusqlite::OpenFlags;
use rusqlite::backup::Backup;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How many are kept.
const KEPT: usize = 24;
const DIR: &str = "backups";
const PREFIX: &str = "store-";
const SUFFIX: &str = ".sqlite";

/// The newest backup of a state directory.
pub(super) fn newest(state: &Path) -> Option<PathBuf> {
    all(&state.join(DIR)).pop()
}

/// Takes one. It appears under its name only when it is whole and on disk.
pub(super) fn take(state: &Path) -> Result<PathBuf, StoreError> {
    let (from, dir) = (path(state), state.join(DIR));
    fs::create_dir_all(&dir).map_err(io("making", &dir))?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let to = dir.join(format!("{PREFIX}{:013}{SUFFIX}", since.as_millis()));
    let part = dir.join("part");
    let _ = fs::remove_file(&part); // left by a server that was killed
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let file = file.map_err(io("making", &part))?;
    {
        let source = Connection::open_with_flags(&from, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let source = source.map_err(sqlite("opening", &from))?;
        let mut copy = Connection::open(&part).map_err(sqlite("opening", &part))?;
        Backup::new(&source, &mut copy)
            .and_then(|backup| backup.run_to_completion(512, Duration::from_millis(1), None))
            .map_err(sqlite("copying the store to", &part))?;
        // A plain file that can be copied about, without a log beside it.
        copy.pragma_update(None, "journal_mode", "DELETE").map_err(sqlite("closing", &part))?;
    }
    file.sync_all().map_err(io("writing", &part))?;
    fs::rename(&part, &to).map_err(io("naming", &to))?;
    File::open(&dir).and_then(|dir| dir.sync_all()).map_err(io("writing", &dir))?;
    let kept = all(&dir);
    for old in &kept[..kept.len().saturating_sub(KEPT)] {
        fs::remove_file(old).map_err(io("removing", old))?;
    }
    Ok(to)
}

/// Oldest first: the names hold the time, padded.
fn all(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(PREFIX) && name.ends_with(SUFFIX)
        })
        .collect();
    found.sort();
    found
}
