//! Who may reach a disk: granting, cutting, and the secrets.

use super::{Job, Rack};
use crate::effect::StorageOp;
use crate::event::Now;
use crate::host::base64url;
use crate::policy::Storage;
use crate::record::Grant;
use proto::agent::{DiskAccess, Secret};
use proto::{DiskId, Epoch, HostId, VmId};
use sha2::{Digest, Sha256};
use std::ops::BitAnd;

impl Rack {
    /// Lets a host reach a disk. True once the storage has confirmed it; asked again until then.
    pub(crate) fn grant(&mut self, disk: &DiskId, host: &HostId, epoch: Epoch, now: Now) -> bool {
        // What is being taken from a host is not given to it meanwhile.
        if self.hosts.get(host).is_none_or(|record| record.fence.is_some()) {
            return false;
        }
        let Some(record) = self.disks.get(disk) else { return false };
        let grant = match record.grants.get(host) {
            Some(grant) if grant.epoch == epoch && !grant.cutting => *grant,
            Some(_) => {
                self.cut(disk, host, now);
                return false;
            }
            None => {
                let number = self.above(record.granted);
                let Some(record) = self.disks.edit(disk) else { return false };
                record.granted = number;
                let grant = Grant { epoch, number: record.granted, cutting: false };
                record.grants.insert(host.clone(), grant);
                grant
            }
        };
        if self.storage.confirmed.contains(&(disk.clone(), host.clone(), grant.number)) {
            return true;
        }
        self.grant_again(disk, host, grant, now);
        false
    }

    /// Whether the storage has confirmed that a host may reach a disk.
    pub(crate) fn is_granted(&self, disk: &DiskId, host: &HostId) -> bool {
        let grant = self.disks.get(disk).and_then(|record| record.grants.get(host));
        grant.is_some_and(|grant| self.storage.confirmed.contains(&(disk.clone(), host.clone(), grant.number)))
    }

    pub(super) fn grant_again(&mut self, disk: &DiskId, host: &HostId, grant: Grant, now: Now) {
        let address = self.hosts.get(host).and_then(|record| self.leases.address_of(record.mac));
        let (Some(address), Some(access)) = (address, self.access(disk, host)) else { return };
        let op = StorageOp::Grant {
            disk: disk.clone(),
            host: host.clone(),
            initiator: initiator(&self.policy.iqn_prefix, host),
            address,
            user: access.user,
            secret: access.secret,
        };
        self.storage_job(Job::Grant(disk.clone(), host.clone(), grant.number), op, now);
    }

    /// Takes a host's way to a disk. True once the storage has confirmed that it has none; asked again until then.
    pub(crate) fn cut(&mut self, disk: &DiskId, host: &HostId, now: Now) -> bool {
        let Some(grant) = self.disks.get(disk).and_then(|record| record.grants.get(host)).copied() else { return true };
        if !grant.cutting
            && let Some(record) = self.disks.edit(disk)
        {
            record.grants.insert(host.clone(), Grant { cutting: true, ..grant });
            self.storage.confirmed.remove(&(disk.clone(), host.clone(), grant.number));
        }
        if self.is_external() {
            return self.end_if_let_go(disk, host);
        }
        let op = StorageOp::Cut { disk: disk.clone(), host: host.clone() };
        self.storage_job(Job::Cut(disk.clone(), host.clone(), grant.number), op, now);
        false
    }

    /// Takes all ways to a VM's disks but one host's. True once the storage has confirmed that.
    pub(crate) fn cut_all_but(&mut self, vm: &VmId, keep: Option<&HostId>, now: Now) -> bool {
        let mut done = true;
        for disk in self.disks_of(vm) {
            let others: Vec<HostId> = self
                .disks
                .get(&disk)
                .map(|record| record.grants.keys().filter(|host| Some(*host) != keep).cloned().collect())
                .unwrap_or_default();
            for host in others {
                done &= self.cut(&disk, &host, now);
            }
        }
        done
    }

    /// Lets a host reach all disks of a VM. True once the storage has confirmed it.
    pub(crate) fn grant_all(&mut self, vm: &VmId, host: &HostId, epoch: Epoch, now: Now) -> bool {
        self.disks_of(vm).iter().map(|disk| self.grant(disk, host, epoch, now)).fold(true, BitAnd::bitand)
    }

    /// Takes a host's way to all disks of a VM. True once the storage has confirmed it.
    pub(crate) fn cut_from(&mut self, vm: &VmId, host: &HostId, now: Now) -> bool {
        self.disks_of(vm).iter().map(|disk| self.cut(disk, host, now)).fold(true, BitAnd::bitand)
    }

    /// Takes all of a host's ways, as its boot is over, and the secrets with it, or as it is fenced. True once the storage has
    /// confirmed that it has none.
    pub(crate) fn cut_host(&mut self, host: &HostId, now: Now) -> bool {
        self.disks.ids().iter().map(|disk| self.cut(disk, host, now)).fold(true, BitAnd::bitand)
    }

    fn disks_of(&self, vm: &VmId) -> Vec<DiskId> {
        self.vms.get(vm).map(|record| record.spec.disks.clone()).unwrap_or_default()
    }

    /// How a host reaches a VM's disks, in their order; `None` when it was not let.
    pub(crate) fn accesses(&self, vm: &VmId, host: &HostId) -> Option<Vec<DiskAccess>> {
        self.disks_of(vm).iter().map(|disk| self.access(disk, host)).collect()
    }

    pub(crate) fn access(&self, disk: &DiskId, host: &HostId) -> Option<DiskAccess> {
        let record = self.disks.get(disk)?;
        let grant = record.grants.get(host)?;
        let portal = match &self.policy.storage {
            Storage::Own { portal } => *portal,
            Storage::External { .. } => return self.external_disk(disk).map(|declared| declared.access(disk)),
        };
        let of = |user, secret| DiskAccess {
            disk: disk.clone(),
            portal,
            target: format!("{}:{disk}", self.policy.iqn_prefix),
            lun: 1,
            user,
            secret,
        };
        if let Some(way) = record.found.get(host) {
            return Some(of(way.user.clone(), way.secret.clone()));
        }
        let seed = &self.hosts.get(host)?.boot.as_ref()?.chap_seed;
        let Grant { epoch, number, .. } = grant;
        let digest = Sha256::digest(format!("tsubame disk {}\n{disk}\n{epoch}\n{number}", seed.0));
        // The disk is in it as well: tgtd's accounts are all in one table, and one that is there is not made again.
        let user = format!("{host}-{disk}-{epoch}-{number}");
        // 96 bits in 16 characters: what RFC 7143 asks for, and the most that every initiator takes.
        Some(of(user, Secret(base64url(digest.get(..12).unwrap_or_default()))))
    }
}

/// The name that a host's initiator must bear.
pub fn initiator(iqn_prefix: &str, host: &HostId) -> String {
    format!("{iqn_prefix}:{host}")
}
