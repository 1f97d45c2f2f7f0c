//! A small model of the storage: jobs on one disk in order, any of them may fail.

use crate::effect::{CloneSource, StorageOp};
use proto::{DiskId, HostId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Default)]
pub(super) struct Disks {
    made: BTreeMap<DiskId, BTreeMap<HostId, (String, String)>>,
    pub(super) queue: VecDeque<(u64, StorageOp)>,
    users: BTreeSet<(DiskId, String, String)>,
}

impl Disks {
    pub(super) fn lets_in(&self, disk: &DiskId, host: &HostId, user: &str, secret: &str) -> bool {
        self.made.get(disk).and_then(|hosts| hosts.get(host)).is_some_and(|(u, s)| u == user && s == secret)
    }

    pub(super) fn any_reached_by(&self, host: &HostId) -> bool {
        self.made.values().any(|hosts| hosts.contains_key(host))
    }

    pub(super) fn reached_by(&self, disk: &DiskId) -> Vec<HostId> {
        self.made.get(disk).map(|hosts| hosts.keys().cloned().collect()).unwrap_or_default()
    }

    /// The first job in the queue of a disk chosen by `pick`.
    pub(super) fn next(&mut self, pick: usize) -> Option<(u64, StorageOp)> {
        let (_, op) = self.queue.get(pick.checked_rem(self.queue.len())?)?;
        let disk = op.disk().clone();
        let at = self.queue.iter().position(|(_, op)| *op.disk() == disk)?;
        self.queue.remove(at)
    }

    pub(super) fn perform(&mut self, op: &StorageOp) -> Result<(), String> {
        match op {
            StorageOp::Create { disk, .. } | StorageOp::Clone { disk, from: CloneSource::Template(_), .. } => {
                self.made.entry(disk.clone()).or_default();
            }
            StorageOp::Clone { disk, from: CloneSource::Disk(from), .. } => {
                if !self.made.contains_key(from) {
                    return Err(format!("{from} is not there"));
                }
                self.made.entry(disk.clone()).or_default();
            }
            StorageOp::Attach { disk, .. } | StorageOp::Grow { disk, .. } => {
                self.made.get(disk).ok_or_else(|| format!("{disk} is not there"))?;
            }
            StorageOp::Delete { disk } => {
                if let Some(hosts) = self.made.remove(disk) {
                    assert!(hosts.is_empty(), "{disk} was deleted while {hosts:?} reached it");
                }
            }
            StorageOp::Grant { disk, host, user, secret, .. } => {
                let hosts = self.made.get_mut(disk).ok_or_else(|| format!("{disk} is not there"))?;
                let access = (user.clone(), secret.0.clone());
                let before = hosts.insert(host.clone(), access.clone());
                assert!(before.is_none_or(|before| before == access), "{host} was granted {disk} twice, differently");
                let (user, secret) = access;
                assert!((12..=16).contains(&secret.len()));
                self.users.insert((disk.clone(), user.clone(), secret));
                let same = self.users.iter().filter(|(d, u, _)| d == disk && *u == user).count();
                assert_eq!(same, 1, "user {user} of {disk} has had two secrets");
            }
            StorageOp::Cut { disk, host } => {
                if let Some(hosts) = self.made.get_mut(disk) {
                    hosts.remove(host);
                }
            }
        }
        Ok(())
    }
}
