//! The kernel's tree of what it serves, as far as we touch it.
//!
//! Owns: making, setting, linking and removing in it; that it is so already is success. Each call waits for the kernel.

use super::super::{StorageError, file};
use std::fs;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Where the kernel has it.
pub(super) const ROOT: &str = "/sys/kernel/config/target";

pub(super) fn make(path: &Path) -> std::result::Result<(), StorageError> {
    settle("making", path, fs::create_dir(path), ErrorKind::AlreadyExists)
}

/// Links `path` to what it is to show.
pub(super) fn link(path: &Path, to: &Path) -> std::result::Result<(), StorageError> {
    settle("linking", path, symlink(to, path), ErrorKind::AlreadyExists)
}

pub(super) fn unlink(path: &Path) -> std::result::Result<(), StorageError> {
    settle("unlinking", path, fs::remove_file(path), ErrorKind::NotFound)
}

pub(super) fn remove(path: &Path) -> std::result::Result<(), StorageError> {
    settle("removing", path, fs::remove_dir(path), ErrorKind::NotFound)
}

/// Sets an attribute. What is set may be a secret: no error shows it.
pub(super) fn set(path: &Path, value: &str) -> std::result::Result<(), StorageError> {
    // One write: each is one setting. And never made: a file that is not there is no attribute of this kernel.
    let write = || fs::OpenOptions::new().write(true).open(path).and_then(|mut open| write_once(&mut open, value));
    write().map_err(file("setting", path))
}

fn write_once(open: &mut fs::File, value: &str) -> Result<()> {
    use std::io::Write;
    let taken = open.write(value.as_bytes())?;
    if taken == value.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

pub(super) fn get(path: &Path) -> std::result::Result<String, StorageError> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(file("reading", path))
}

/// What is in a directory; nothing when it is not there.
pub(super) fn list(path: &Path) -> std::result::Result<Vec<PathBuf>, StorageError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(file("listing", path)(err)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(file("listing", path))?;
        // Attributes are files.
        if entry.file_type().is_ok_and(|kind| !kind.is_file()) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn settle(
    doing: &'static str,
    path: &Path,
    done: Result<()>,
    already: ErrorKind,
) -> std::result::Result<(), StorageError> {
    match done {
        Err(err) if err.kind() == already => Ok(()),
        done => done.map_err(file(doing, path)),
    }
}
