//! Disks on a SAN that is not ours: declared, never made, and nobody can be cut off them.
//!
//! Owns: when a host that was let in can no longer write, where no storage says so. Never does: switch power; `ha` has that done.
//!
//! ```text
//! granted --cut--> cutting --the host shows nothing of the VM, and says that it is logged out of its disks--> (none)
//!                     |----- a newer boot of it has joined: the old one is over ---------------------------> (none)
//!                     +----- it is fenced, which it is only when its power is certainly off ---------------> (none)
//! ```

use super::{DiskRecord, Rack};
use crate::event::Now;
use crate::ha::is_heartbeat;
use crate::orders::Purpose;
use crate::policy::{ExternalDisk, Storage};
use proto::agent::{DiskAccess, Stage};
use proto::api::Refusal;
use proto::{DiskId, HostId, VmId};
use std::collections::BTreeMap;

impl ExternalDisk {
    /// How every host reaches it.
    pub(super) fn access(&self, disk: &DiskId) -> DiskAccess {
        DiskAccess {
            disk: disk.clone(),
            portal: self.portal,
            target: self.target.clone(),
            lun: self.lun,
            user: self.user.clone(),
            secret: self.secret.clone(),
        }
    }
}

impl Rack {
    /// Whether guests' disks are on a SAN that is not ours.
    pub(crate) fn is_external(&self) -> bool {
        matches!(self.policy.storage, Storage::External { .. })
    }

    /// What is declared of a disk.
    pub(crate) fn external_disk(&self, disk: &DiskId) -> Option<&ExternalDisk> {
        match &self.policy.storage {
            Storage::Own { .. } => None,
            Storage::External { disks } => disks.get(disk),
        }
    }

    /// Sees that each declared disk has a record with its size. The heartbeat disk gets its with the first host.
    pub(super) fn declare_disks(&mut self) {
        let Storage::External { disks } = &self.policy.storage else { return };
        let declared: Vec<(DiskId, u64)> =
            disks.iter().map(|(disk, declared)| (disk.clone(), declared.size_mib)).collect();
        for (disk, size_mib) in declared.into_iter().filter(|(disk, _)| !is_heartbeat(disk)) {
            match self.disks.get(&disk) {
                None => self.take_declared(disk, size_mib, None),
                Some(record) if record.size_mib != size_mib => {
                    if let Some(record) = self.disks.edit(&disk) {
                        record.size_mib = size_mib;
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// A declared disk is there already.
    pub(super) fn take_declared(&mut self, name: DiskId, size_mib: u64, vm: Option<VmId>) {
        if let Some(record) = self.disks.edit(&name) {
            record.vm = vm;
            return;
        }
        let granted = self.counters.get(&()).map_or(0, |counters| counters.grants);
        self.disks.put(DiskRecord {
            name,
            size_mib,
            vm,
            ready: true,
            doing: None,
            grants: BTreeMap::new(),
            found: BTreeMap::new(),
            failure: String::new(),
            granted,
        });
    }

    /// A VM that is deleted leaves its disks as they are.
    pub(super) fn give_back(&mut self, disk: &DiskId) {
        let vm = self.disks.edit(disk).and_then(|record| record.vm.take());
        if let Some(record) = vm.as_ref().and_then(|vm| self.vms.edit(vm)) {
            record.spec.disks.retain(|name| name != disk);
        }
        if let Some(vm) = vm {
            self.touch_vm(&vm);
        }
    }

    /// A disk that a new VM may have.
    pub(crate) fn is_free_declared(&self, disk: &DiskId) -> bool {
        self.external_disk(disk).is_some() && self.disks.get(disk).is_none_or(|record| record.vm.is_none())
    }

    /// What makes, grows and removes disks is the SAN's administrator.
    pub(super) fn own_disks_only(&self) -> Result<(), Refusal> {
        if self.is_external() {
            let detail =
                "disks are on a SAN that is not the appliance's: declare them in storage.disks of the configuration"
                    .to_owned();
            return Err(Refusal::Unavailable { detail });
        }
        Ok(())
    }

    /// Ends a way that is being taken, once the host can certainly not write by it any more. True when it has ended.
    pub(super) fn end_if_let_go(&mut self, disk: &DiskId, host: &HostId) -> bool {
        // One that was removed could be forgotten: it had none.
        if self.hosts.contains(host) && !self.has_let_go(disk, host) {
            return false;
        }
        self.end_way(disk, host);
        true
    }

    fn end_way(&mut self, disk: &DiskId, host: &HostId) {
        let Some(record) = self.disks.edit(disk) else { return };
        record.grants.remove(host);
        if let Some(vm) = record.vm.clone() {
            self.touch_vm(&vm);
        }
    }

    /// Whether the host has nothing of the VM, and has said since the way is being taken that it is logged out: what dom0 still held of a
    /// guest's writes is gone with the session. Asks it to.
    fn has_let_go(&mut self, disk: &DiskId, host: &HostId) -> bool {
        let Some(record) = self.disks.get(disk) else { return true };
        let Some(grant) = record.grants.get(host) else { return true };
        // A boot that may run at all may write its heartbeat.
        let Some(vm) = record.vm.clone().filter(|_| !is_heartbeat(disk)) else { return false };
        let way = (disk.clone(), host.clone(), grant.number);
        let Some(live) = self.live.get(host).filter(|_| self.reporting(host)) else { return false };
        let moved = self.vms.get(&vm).and_then(|record| record.r#move);
        let told = [Purpose::Vm(vm.clone()), Purpose::Orphan(vm.clone())]
            .into_iter()
            .chain(moved.into_iter().flat_map(|id| [Purpose::Source(id), Purpose::Target(id)]))
            .any(|purpose| self.told(host, &purpose));
        // What it does that we have taken back may still make a domain, or send one. What it has received shows as a domain.
        let of_another = |id| match self.purpose_of(host, id) {
            None => false,
            Some(Purpose::Vm(other) | Purpose::Orphan(other)) => other != vm,
            Some(Purpose::Source(other) | Purpose::Target(other)) => Some(other) != moved,
            Some(Purpose::Console { .. } | Purpose::Reboot) => true,
        };
        let works = live.report.as_ref().is_none_or(|report| {
            report.underway.iter().any(|work| work.stage != Stage::Received && !of_another(work.id))
        });
        if live.domain(&vm).is_some() || told || works {
            return false;
        }
        let let_go = self.storage.let_go.remove(&way);
        if !let_go {
            self.destroy_orphan(host, &vm);
        }
        let_go
    }

    /// A host has said that nothing of a VM is left there, and that it is logged out of its disks.
    pub(crate) fn has_logged_out(&mut self, host: &HostId, vm: &VmId) {
        let disks = self.vms.get(vm).map(|record| record.spec.disks.clone()).unwrap_or_default();
        for disk in disks {
            let grant = self.disks.get(&disk).and_then(|record| record.grants.get(host));
            if let Some(number) = grant.filter(|grant| grant.cutting && self.is_external()).map(|grant| grant.number) {
                self.storage.let_go.insert((disk, host.clone(), number));
            }
        }
        self.touch_vm(vm);
    }

    /// The ways of a boot that is over: on our own storage they are cut; on a SAN they ended with it.
    pub(crate) fn end_ways_of_boot(&mut self, host: &HostId, now: Now) {
        if !self.is_external() {
            self.cut_host(host, now);
            return;
        }
        for disk in self.disks.ids() {
            if self.disks.get(&disk).is_some_and(|record| record.grants.contains_key(host)) {
                self.end_way(&disk, host);
            }
        }
    }

    /// Whether a host may write to any VM's disk: on a SAN nobody else can say that it does not.
    pub(crate) fn holds_disks(&self, host: &HostId) -> bool {
        let holds = |record: &DiskRecord| !is_heartbeat(&record.name) && record.grants.contains_key(host);
        self.is_external() && self.disks.values().any(holds)
    }

    /// A host on a SAN can only be forgotten when it is no longer there to write.
    pub(crate) fn may_forget_ways(&self, host: &HostId) -> Result<(), Refusal> {
        if self.is_external() && (self.present(host) || self.holds_disks(host)) {
            let detail =
                format!("{host} may still write to the SAN: drain it, switch it off, and remove it when it is lost");
            return Err(Refusal::Unavailable { detail });
        }
        Ok(())
    }
}
