//! Disks as sparse raw files: made, copied, grown, removed. A disk that is there is whole: it is made under another
//! name and renamed.

use super::{StorageError, file};
use proto::DiskId;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::process::Command;

const MIB: u64 = 1 << 20;

/// A disk's file.
pub(super) fn path(directory: &Path, disk: &DiskId) -> PathBuf {
    directory.join(format!("{disk}.img"))
}

pub(super) fn make_directory(directory: &Path) -> Result<(), StorageError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file("making", directory))
}

pub(super) fn open_log(log: &Path) -> Result<fs::File, StorageError> {
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log).map_err(file("opening", log))
}

pub(super) async fn create(directory: &Path, disk: &DiskId, size_mib: u64) -> Result<(), StorageError> {
    let path = path(directory, disk);
    if path.exists() {
        return Ok(());
    }
    let part = part(&path);
    let make = || -> io::Result<()> {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?
            .set_len(size_mib * MIB)?;
        publish(&part, &path)
    };
    make().map_err(file("making", &path))
}

/// Copies, sharing blocks where the file system can and keeping holes where it cannot, then grows to the size.
pub(super) async fn copy(directory: &Path, disk: &DiskId, source: &Path, size_mib: u64) -> Result<(), StorageError> {
    let path = path(directory, disk);
    if path.exists() {
        return Ok(());
    }
    let have = fs::metadata(source).map_err(file("reading", source))?.len();
    let want = size_mib * MIB;
    if want < have {
        return Err(StorageError::Shrink { disk: disk.clone(), have_mib: have.div_ceil(MIB), want_mib: size_mib });
    }
    let part = part(&path);
    let failed = |err| file("copying to", &path)(err);
    let copied = Command::new("cp")
        .args(["--reflink=auto", "--sparse=always", "--"])
        .arg(source)
        .arg(&part)
        .output()
        .await
        .map_err(failed)?;
    if !copied.status.success() {
        return Err(file("copying to", &path)(io::Error::other(
            String::from_utf8_lossy(&copied.stderr).trim().to_owned(),
        )));
    }
    let finish = || -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(&part)?.set_len(want)?;
        publish(&part, &path)
    };
    finish().map_err(file("copying to", &path))
}

pub(super) async fn grow(directory: &Path, disk: &DiskId, size_mib: u64) -> Result<(), StorageError> {
    let path = path(directory, disk);
    let open = fs::OpenOptions::new().write(true).open(&path).map_err(file("opening", &path))?;
    let have = open.metadata().map_err(file("reading", &path))?.len();
    if size_mib * MIB < have {
        return Err(StorageError::Shrink { disk: disk.clone(), have_mib: have.div_ceil(MIB), want_mib: size_mib });
    }
    open.set_len(size_mib * MIB).and_then(|()| open.sync_all()).map_err(file("growing", &path))
}

pub(super) fn remove(directory: &Path, disk: &DiskId) -> Result<(), StorageError> {
    for path in [path(directory, disk), part(&path(directory, disk))] {
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(file("removing", &path)(err)),
            _ => {}
        }
    }
    Ok(())
}

fn part(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn publish(part: &Path, path: &Path) -> io::Result<()> {
    fs::File::open(part)?.sync_all()?;
    fs::rename(part, path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
