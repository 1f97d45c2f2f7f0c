//! Our part of the kernel's tree: one backstore, one target with one portal group, one LUN for each disk.
//!
//! ```text
//! core/fileio_7/DISK                                   the file, with a page cache and told to say so to initiators
//! iscsi/PREFIX:DISK/tpgt_1/lun/lun_1/disk -> the above
//!                         /np/ADDRESS:PORT
//!                         /acls/INITIATOR/auth/{userid,password}
//!                         /acls/INITIATOR/lun_1/disk -> tpgt_1/lun/lun_1      as long as it is let in
//! ```

use super::super::StorageError;
use super::super::ledger::Grant;
use super::LioConfig;
use super::configfs::{self, get, link, list, make, remove, set, unlink};
use proto::DiskId;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The backstores' directory; targetcli numbers its own from 0.
const BACKSTORES: &str = "core/fileio_7";
const LUN: &str = "lun_1";
/// How often a cut looks whether the sessions are gone.
const LOOK: Duration = Duration::from_millis(5);
/// How long it may take, below [`super::DEADLINE`].
const PATIENCE: Duration = Duration::from_secs(10);

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
        for (name, value) in attributes {
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
        let reaches = has_lun(&acl)? && get(&acl.join("auth/userid"))? == grant.user;
        if acl.exists() && !reaches {
            // What a cut has left, and a login that it met: that one must end before the name may reach the disk again.
            self.cut(disk, &grant.initiator)?;
            remove(&acl)?;
        }
        make(&acl)?;
        set(&acl.join("auth/userid"), &grant.user)?;
        set(&acl.join("auth/password"), &grant.secret.0)?;
        let lun = acl.join(LUN);
        make(&lun)?;
        link(&lun.join("disk"), &self.group(disk).join("lun").join(LUN))
    }

    /// Cuts an initiator off. The order matters: first no login can succeed; then one that is past that has no LUN to write to; then every
    /// session is closed, and the kernel counts it until its last command has ended. The ACL itself stays: to remove it would wait for a
    /// login that is under way, which may be as long as its host likes, and nobody else could be let in meanwhile.
    pub(super) fn cut(&self, disk: &DiskId, initiator: &str) -> Result<(), StorageError> {
        let acl = self.acl(disk, initiator);
        if !acl.exists() {
            return Ok(());
        }
        let mut bytes = [0; 12];
        getrandom::fill(&mut bytes).map_err(|err| StorageError::Random { disk: disk.clone(), err })?;
        let unknowable: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        set(&acl.join("auth/password"), &unknowable)?;
        unlink(&acl.join(LUN).join("disk"))?;
        remove(&acl.join(LUN))?;
        let began = Instant::now();
        loop {
            end_sessions(&acl)?;
            // An ACL shows one session, and that until it begins to end: only the count of all says when it has.
            let mut others = 0;
            for other in list(&self.group(disk).join("acls"))? {
                others += usize::from(other != acl && has_session(&other)?);
            }
            if self.counted(disk)? <= others {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(StorageError::StillThere { disk: disk.clone(), initiator: initiator.to_owned() });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Initiators with a session that reaches the disk.
    pub(super) fn sessions(&self, disk: &DiskId) -> Result<Vec<String>, StorageError> {
        let mut logged_in = Vec::new();
        for acl in list(&self.group(disk).join("acls"))? {
            if has_session(&acl)? && has_lun(&acl)? {
                logged_in.push(name_of(&acl));
            }
        }
        Ok(logged_in)
    }

    /// Sessions of a target as the kernel counts them.
    fn counted(&self, disk: &DiskId) -> Result<usize, StorageError> {
        let path = self.target(disk).join("fabric_statistics/iscsi_instance/sessions");
        let failed = |what: &str| StorageError::Kernel { what: format!("{} is {what}", path.display()) };
        // Every target has it from its making on. That it is not there says nothing of sessions.
        if !path.exists() {
            return Err(failed("not there, so no cut is certain; this needs another kernel, or storage.kind: tgt"));
        }
        let count = get(&path)?;
        count.parse().map_err(|_| failed(&format!("{count:?}, no number")))
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

fn has_session(acl: &Path) -> Result<bool, StorageError> {
    Ok(!get(&acl.join("info"))?.starts_with("No active iSCSI Session"))
}

fn has_lun(acl: &Path) -> Result<bool, StorageError> {
    Ok(!list(&acl.join(LUN))?.is_empty())
}

/// Has the kernel close an initiator's sessions: it does so whenever their queue's depth changes (core_tpg_set_initiator_node_queue_depth).
fn end_sessions(acl: &Path) -> Result<(), StorageError> {
    let depth = acl.join("cmdsn_depth");
    let other = if get(&depth)? == "64" { "63" } else { "64" };
    set(&depth, other)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_cut_is_certain_by_the_kernels_count_alone() {
        let cut = |counted: Option<&str>| {
            let root = tempfile::tempdir().expect("a directory");
            let portal = SocketAddr::from(([127, 0, 0, 1], 3260));
            let tree = Tree { root: root.path().to_owned(), iqn_prefix: "iqn.x".to_owned(), portal };
            let disk: DiskId = "web-0".parse().expect("a name");
            let write = |path: PathBuf, text: &str| {
                fs::create_dir_all(path.parent().expect("it has one")).expect("made");
                fs::write(path, text).expect("written");
            };
            let acl = tree.acl(&disk, "iqn.x:ha");
            write(acl.join("auth/password"), "secret");
            write(acl.join("cmdsn_depth"), "64");
            if let Some(counted) = counted {
                write(tree.target(&disk).join("fabric_statistics/iscsi_instance/sessions"), counted);
            }
            tree.cut(&disk, "iqn.x:ha").map_err(|err| err.to_string())
        };
        assert_eq!(cut(Some("0\n")), Ok(()));
        for (counted, says) in [(None, "sessions is not there"), (Some("?\n"), "sessions is \"?\", no number")] {
            let said = cut(counted).expect_err("nothing says that the session has ended");
            assert!(said.contains(says), "{said}");
        }
    }
}
