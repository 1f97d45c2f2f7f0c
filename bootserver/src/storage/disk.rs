//! Disks as sparse raw files: made, copied, grown, removed. A disk that is there is whole: it is made under another
//! name and renamed.

use super::ledger::Ledger;
use super::{StorageError, file};
use crate::state_dir::{self, RESERVE_BYTES, free_bytes};
use proto::DiskId;
use rack::effect::CloneSource;
use rack::record::Way;
use rack::recovery::FoundDisk;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::process::Command;

const MIB: u64 = 1 << 20;

/// Where disks are, and what they are copied from.
#[derive(Debug, Clone)]
pub struct Files {
    /// Directory of disk files and grants; made when missing, mode 0700.
    pub directory: PathBuf,
    /// Disk images of templates, by template name.
    pub templates: BTreeMap<String, PathBuf>,
}

/// A disk's file in a directory of disks.
pub fn path_in(directory: &Path, disk: &DiskId) -> PathBuf {
    directory.join(format!("{disk}.img"))
}

impl Files {
    /// A disk's file.
    pub fn path(&self, disk: &DiskId) -> PathBuf {
        path_in(&self.directory, disk)
    }

    pub(super) fn make_directory(&self) -> Result<(), StorageError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(file("making", &self.directory))
    }

    /// Every disk that is there, and who is let in to it.
    pub(super) fn found(&self) -> Result<Vec<FoundDisk>, StorageError> {
        let failed = |err| file("listing", &self.directory)(err);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().ok();
            let disk = name.as_deref().and_then(|name| name.strip_suffix(".img")?.parse::<DiskId>().ok());
            let Some(disk) = disk else { continue };
            let bytes = entry.metadata().map_err(failed)?.len();
            let grants = Ledger::load(&self.directory, &disk)?.grants.into_iter();
            let ways = grants.map(|(host, grant)| (host, Way { user: grant.user, secret: grant.secret })).collect();
            found.push(FoundDisk { disk, size_mib: bytes.div_ceil(MIB), ways });
        }
        Ok(found)
    }

    /// Bytes of a disk that must be there.
    pub(super) fn size(&self, disk: &DiskId) -> Result<u64, StorageError> {
        let path = self.path(disk);
        fs::metadata(&path).map(|meta| meta.len()).map_err(file("looking for", &path))
    }

    /// Makes what is to be a disk of zeros, under a name of its own: this may fail, and then nothing has changed yet.
    pub(super) fn prepare(&self, disk: &DiskId, size_mib: u64) -> Result<(), StorageError> {
        let path = self.path(disk);
        if path.exists() {
            return Ok(());
        }
        let make = || -> io::Result<()> {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(part(&path))?.set_len(size_mib * MIB)
        };
        make().map_err(file("making", &path))
    }

    /// Gives it the disk's name.
    pub(super) fn put(&self, disk: &DiskId) -> Result<(), StorageError> {
        let path = self.path(disk);
        if path.exists() { Ok(()) } else { publish(&part(&path), &path).map_err(file("making", &path)) }
    }

    /// Copies, sharing blocks where the file system can and keeping holes where it cannot, then grows to the size.
    pub(super) async fn copy(&self, disk: &DiskId, from: &CloneSource, size_mib: u64) -> Result<(), StorageError> {
        let (path, source) = (self.path(disk), self.source(from)?);
        if path.exists() {
            return Ok(());
        }
        let have = fs::metadata(&source).map_err(file("reading", &source))?.len();
        let want = size_mib * MIB;
        if want < have {
            return Err(StorageError::Shrink { disk: disk.clone(), have_mib: have.div_ceil(MIB), want_mib: size_mib });
        }
        let part = part(&path);
        let copied = async {
            if cp(&["--reflink=always"], &source, &part).await.is_err() {
                self.room_for(&source)?;
                cp(&["--reflink=never", "--sparse=always"], &source, &part).await?;
            }
            // It may be as long as the disk is large.
            let (part, path) = (part.clone(), path.clone());
            let finish = move || {
                fs::OpenOptions::new().write(true).open(&part)?.set_len(want)?;
                publish(&part, &path)
            };
            tokio::task::spawn_blocking(finish).await?
        };
        let copied = copied.await;
        if copied.is_err() {
            // It would take the room that others need, the server's own records among them.
            let _ = tokio::fs::remove_file(&part).await;
        }
        copied.map_err(file("copying to", &path))
    }

    /// Whether a copy of this file fits, beside what is left free for the server's records.
    fn room_for(&self, source: &Path) -> io::Result<()> {
        let needed = fs::metadata(source)?.blocks() * 512;
        let free = free_bytes(&self.directory)?;
        if free < needed.saturating_add(RESERVE_BYTES) {
            let (needed, free, reserve) = (needed.div_ceil(MIB), free / MIB, RESERVE_BYTES / MIB);
            return Err(io::Error::other(format!(
                "it takes {needed} MiB, and {free} MiB are free, of which {reserve} MiB are kept for the server's records"
            )));
        }
        Ok(())
    }

    pub(super) fn grow(&self, disk: &DiskId, size_mib: u64) -> Result<(), StorageError> {
        let path = self.path(disk);
        let open = fs::OpenOptions::new().write(true).open(&path).map_err(file("opening", &path))?;
        let have = open.metadata().map_err(file("reading", &path))?.len();
        if size_mib * MIB < have {
            return Err(StorageError::Shrink { disk: disk.clone(), have_mib: have.div_ceil(MIB), want_mib: size_mib });
        }
        open.set_len(size_mib * MIB).and_then(|()| open.sync_all()).map_err(file("growing", &path))
    }

    /// Durable when it returns, also if all was gone: an earlier try may have ended before it was.
    pub(super) fn remove(&self, disk: &DiskId) -> Result<(), StorageError> {
        for path in [self.path(disk), part(&self.path(disk))] {
            state_dir::remove(&path).map_err(file("removing", &path))?;
        }
        state_dir::sync(&self.directory).map_err(file("syncing", &self.directory))
    }

    fn source(&self, from: &CloneSource) -> Result<PathBuf, StorageError> {
        let (what, name, path) = match from {
            CloneSource::Template(name) => ("template", name.clone(), self.templates.get(name).cloned()),
            CloneSource::Disk(disk) => ("disk", disk.to_string(), Some(self.path(disk))),
        };
        path.filter(|path| path.exists()).ok_or(StorageError::NoSource { what, name })
    }
}

async fn cp(how: &[&str], source: &Path, to: &Path) -> io::Result<()> {
    let copied = Command::new("cp").args(how).arg("--").arg(source).arg(to).output().await?;
    if copied.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&copied.stderr).trim().to_owned()))
}

fn part(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn publish(part: &Path, path: &Path) -> io::Result<()> {
    fs::File::open(part)?.sync_all()?;
    fs::rename(part, path)?;
    match path.parent() {
        Some(directory) => state_dir::sync(directory),
        None => Ok(()),
    }
}
