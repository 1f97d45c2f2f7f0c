//! Our part of the kernel's tree: one backstore, one target with one portal group, one LUN for each disk.
//!
//! ```text
//! core/fileio_7/DISK                                   the file, with a page cache and told to say so to initiators
//! iscsi/PREFIX:DISK/tpgt_1/lun/lun_1/disk -> the above
//!                         /np/ADDRESS:PORT
//!                         /acls/INITIATOR/auth/{userid,password}
//!                         /acls/INITIATOR/lun_1/disk -> tpgt_1/lun/lun_1
//! ```

use super::super::StorageError;
use super::super::ledger::Grant;
use super::LioConfig;
use super::configfs::{self, get, link, list, make, remove, set, unlink};
use proto::DiskId;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// The backstores' directory; targetcli numbers its own from 0.
const BACKSTORES: &str = "core/fileio_7";
const LUN: &str = "lun_1";
/// How long the end of an initiator's sessions may take before the whole portal group is shut for a moment: a login that was under way when
/// its ACL went holds that up for as long as its session lasts.
const ALONE: Duration = Duration::from_secs(2);
/// How long after that, in all well below [`super::DEADLINE`].
const SHUT: Duration = Duration::from_secs(10);
/// Seconds after which an unfinished login is dropped: the least that the kernel takes (TA_LOGIN_TIMEOUT_MIN).
const LOGIN_S: &str = "5";

#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: PathBuf,
    iqn_prefix: String,
    portal: SocketAddr,
}

impl Tree {
    pub(super) fn new(config: &LioConfig) -> Self {
        Self { root: configfs::ROOT.into(), iqn_prefix: config.iqn_prefix.clone(), portal: config.portal }
    }

    /// Makes what all disks share. Whether any disk of ours is served already.
    pub(super) fn ready(&self) -> Result<bool, StorageError> {
        make(&self.root.join("iscsi"))?;
        make(&self.root.join(BACKSTORES))?;
        Ok(!self.disks()?.is_empty())
    }

    /// Serves a disk, to nobody as yet.
    pub(super) fn export(&self, disk: &DiskId, path: &Path, bytes: u64) -> Result<(), StorageError> {
        let store = self.store(disk);
        make(&store)?;
        if get(&store.join("enable"))? != "1" {
            // Buffered: as with tgt, a guest's flush is what makes its writes durable, and the initiator is told so.
            let control = format!("fd_dev_name={},fd_dev_size={bytes},fd_buffered_io=1", path.display());
            set(&store.join("control"), &control)?;
            set(&store.join("enable"), "1")?;
            // Its identity to initiators: the same whenever it is made anew, and no other disk's.
            let serial = Sha256::digest(format!("{}:{disk}", self.iqn_prefix));
            let serial: String = serial.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            set(&store.join("wwn/vpd_unit_serial"), &serial)?;
        }
        let group = self.group(disk);
        make(&self.target(disk))?;
        make(&group)?;
        if get(&group.join("enable"))? == "1" {
            return Ok(());
        }
        let attributes = [("authentication", "1"), ("generate_node_acls", "0"), ("cache_dynamic_acls", "0")];
        for (name, value) in attributes.into_iter().chain([("login_timeout", LOGIN_S)]) {
            set(&group.join("attrib").join(name), value)?;
        }
        make(&group.join("lun").join(LUN))?;
        link(&group.join("lun").join(LUN).join("disk"), &store)?;
        make(&group.join("np").join(self.portal.to_string()))?;
        // Last: a portal group that is served is whole.
        set(&group.join("enable"), "1")
    }

    /// Lets an initiator log in, by user and secret.
    pub(super) fn bind(&self, disk: &DiskId, grant: &Grant) -> Result<(), StorageError> {
        let acl = self.acl(disk, &grant.initiator);
        if acl.exists() && get(&acl.join("auth/userid"))? != grant.user {
            self.cut(disk, &grant.initiator)?;
        }
        make(&acl)?;
        set(&acl.join("auth/userid"), &grant.user)?;
        set(&acl.join("auth/password"), &grant.secret.0)?;
        let lun = acl.join(LUN);
        make(&lun)?;
        link(&lun.join("disk"), &self.group(disk).join("lun").join(LUN))
    }

    /// Cuts an initiator off. The order matters: first no login can succeed; then one that is past that has no LUN to write to; then every
    /// session is closed, and the kernel comes back when the last command of each has ended.
    pub(super) fn cut(&self, disk: &DiskId, initiator: &str) -> Result<(), StorageError> {
        let acl = self.acl(disk, initiator);
        if acl.exists() {
            let mut bytes = [0; 12];
            getrandom::fill(&mut bytes).map_err(|err| StorageError::Random { disk: disk.clone(), err })?;
            let unknowable: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            set(&acl.join("auth/password"), &unknowable)?;
            unlink(&acl.join(LUN).join("disk"))?;
            remove(&acl.join(LUN))?;
            self.remove_acl(disk, &acl)?;
        }
        // What the kernel counts must be what is left: a session more would be one that nobody let in.
        let (all, theirs) = (self.counted(disk)?, self.sessions(disk)?);
        if all > theirs.len() {
            return Err(StorageError::StillThere { disk: disk.clone(), initiator: initiator.to_owned() });
        }
        Ok(())
    }

    fn remove_acl(&self, disk: &DiskId, acl: &Path) -> Result<(), StorageError> {
        let (sender, done) = channel();
        let path = acl.to_owned();
        // A thread of its own, as it comes back only with the end of the last session.
        std::thread::spawn(move || sender.send(remove(&path)));
        let stuck = || StorageError::Stuck { doing: format!("the sessions of {}", acl.display()) };
        match done.recv_timeout(ALONE) {
            Ok(removed) => return removed,
            Err(RecvTimeoutError::Disconnected) => return Err(stuck()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Others of this disk log in again by themselves.
        tracing::warn!(%disk, "an initiator's session outlasts its ACL: the disk's portal group is shut for a moment");
        let enable = self.group(disk).join("enable");
        set(&enable, "0")?;
        let removed = done.recv_timeout(SHUT);
        set(&enable, "1")?;
        removed.map_err(|_| stuck())?
    }

    /// Initiators with a session.
    pub(super) fn sessions(&self, disk: &DiskId) -> Result<Vec<String>, StorageError> {
        let mut logged_in = Vec::new();
        for acl in list(&self.group(disk).join("acls"))? {
            if !get(&acl.join("info"))?.starts_with("No active iSCSI Session") {
                logged_in.push(name_of(&acl));
            }
        }
        Ok(logged_in)
    }

    /// Sessions of a target as the kernel counts them.
    fn counted(&self, disk: &DiskId) -> Result<usize, StorageError> {
        let path = self.target(disk).join("fabric_statistics/iscsi_instance/sessions");
        if !path.exists() {
            return Ok(0);
        }
        let count = get(&path)?;
        count.parse().map_err(|_| StorageError::Kernel { what: format!("{} is {count:?}, no number", path.display()) })
    }

    /// Takes a disk out of the kernel. Its file stays.
    pub(super) fn withdraw(&self, disk: &DiskId) -> Result<(), StorageError> {
        let group = self.group(disk);
        if group.exists() {
            if get(&group.join("enable"))? == "1" {
                // Closes every session.
                set(&group.join("enable"), "0")?;
            }
            for acl in list(&group.join("acls"))? {
                unlink(&acl.join(LUN).join("disk"))?;
                remove(&acl.join(LUN))?;
                remove(&acl)?;
            }
            unlink(&group.join("lun").join(LUN).join("disk"))?;
            remove(&group.join("lun").join(LUN))?;
            for portal in list(&group.join("np"))? {
                remove(&portal)?;
            }
            remove(&group)?;
        }
        remove(&self.target(disk))?;
        remove(&self.store(disk))
    }

    pub(super) fn withdraw_all(&self) -> Result<(), StorageError> {
        self.disks()?.iter().try_for_each(|disk| self.withdraw(disk))
    }

    /// Disks of ours that are served.
    fn disks(&self) -> Result<Vec<DiskId>, StorageError> {
        let targets = list(&self.root.join("iscsi"))?;
        let ours = |path: &PathBuf| {
            let name = name_of(path);
            name.strip_prefix(&self.iqn_prefix)?.strip_prefix(':')?.parse().ok()
        };
        Ok(targets.iter().filter_map(ours).collect())
    }

    fn store(&self, disk: &DiskId) -> PathBuf {
        self.root.join(BACKSTORES).join(disk.as_str())
    }

    fn target(&self, disk: &DiskId) -> PathBuf {
        self.root.join("iscsi").join(format!("{}:{disk}", self.iqn_prefix))
    }

    fn group(&self, disk: &DiskId) -> PathBuf {
        self.target(disk).join("tpgt_1")
    }

    fn acl(&self, disk: &DiskId, initiator: &str) -> PathBuf {
        self.group(disk).join("acls").join(initiator)
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
