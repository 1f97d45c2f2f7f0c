//! Who was let in to a disk, kept beside it: so that a cut finds every way in after a restart, and a server of disks that was
//! started anew can be given them again. Holds CHAP secrets: mode 0600, in the appliance's state directory only.

use super::{StorageError, file};
use crate::state_dir;
use proto::agent::Secret;
use proto::{DiskId, HostId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Grants in force for one disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    pub(super) grants: BTreeMap<HostId, Grant>,
}

/// One host's way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) initiator: String,
    pub(super) address: Ipv4Addr,
    pub(super) user: String,
    pub(super) secret: Secret,
}

impl Ledger {
    /// Whether a grant from this address is in force.
    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        self.grants.values().any(|grant| grant.address == address)
    }

    pub(super) fn load(directory: &Path, disk: &DiskId) -> Result<Self, StorageError> {
        let path = path(directory, disk);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|err| StorageError::Ledger { path, err }),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(err) => Err(file("reading", &path)(err)),
        }
    }

    /// Durable when it returns: written beside, synced, renamed.
    pub(super) fn save(&self, directory: &Path, disk: &DiskId) -> Result<(), StorageError> {
        let path = path(directory, disk);
        let beside = path.with_extension("grants.new");
        let write = || -> io::Result<()> {
            let mut new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            new.write_all(&serde_json::to_vec(self)?)?;
            new.sync_all()?;
            fs::rename(&beside, &path)?;
            state_dir::sync(directory)
        };
        write().map_err(file("writing", &path))
    }

    /// Durable when it returns, as [`Files::remove`](super::Files) is.
    pub(super) fn remove(directory: &Path, disk: &DiskId) -> Result<(), StorageError> {
        let path = path(directory, disk);
        state_dir::remove(&path).map_err(file("removing", &path))?;
        state_dir::sync(directory).map_err(file("syncing", directory))
    }
}

fn path(directory: &Path, disk: &DiskId) -> PathBuf {
    directory.join(format!("{disk}.grants"))
}
