//! What an operator asks of disks.

use super::{Rack, check_size};
use crate::effect::CloneSource;
use crate::event::Now;
use crate::ha::is_heartbeat;
use crate::record::{DiskDoing, DiskRecord};
use proto::DiskId;
use proto::api::{Accepted, CreateDisk, GrowDisk, Refusal};
use proto::view::VmPhase;

impl Rack {
    pub(crate) fn create_disk(&mut self, request: CreateDisk, now: Now) -> Result<Accepted, Refusal> {
        self.own_disks_only()?;
        let CreateDisk { name, size_mib, from } = request;
        check_size(size_mib)?;
        if self.disks.contains(&name) {
            return Err(Refusal::NameTaken { name: name.to_string() });
        }
        let from = match from {
            None => None,
            Some(from) if self.policy.templates.get(&from).is_some_and(|t| t.disk_image) => {
                Some(CloneSource::Template(from))
            }
            Some(from) => Some(CloneSource::Disk(self.cloneable(&from, size_mib)?)),
        };
        self.make_disk(name, size_mib, from, None, now);
        Ok(Accepted::Begun)
    }

    /// A disk that may be copied: ready, written to by nobody, and no larger than the copy.
    fn cloneable(&self, from: &str, size_mib: u64) -> Result<DiskId, Refusal> {
        let bad = |expected: &str| Refusal::BadValue {
            field: "from".to_owned(),
            given: from.chars().take(80).collect(),
            expected: expected.to_owned(),
        };
        let disk: DiskId = from.parse().map_err(|_| bad("a template with a disk image, or a disk"))?;
        let record = self.operators_disk(&disk)?;
        if !record.ready || record.doing.is_some() {
            return Err(bad("a disk that is ready"));
        }
        if let Some(vm) = record.vm.as_ref().filter(|_| !record.grants.is_empty()) {
            return Err(Refusal::DiskInUse { disk, vm: vm.clone() });
        }
        if record.size_mib > size_mib {
            return Err(bad("a disk no larger than the new one"));
        }
        Ok(disk)
    }

    /// A disk that an operator may touch.
    fn operators_disk(&self, disk: &DiskId) -> Result<&DiskRecord, Refusal> {
        let found = self.disks.get(disk).filter(|_| !is_heartbeat(disk));
        found.ok_or_else(|| Refusal::NoDisk { disk: disk.clone() })
    }

    fn idle_disk(&self, disk: &DiskId) -> Result<&DiskRecord, Refusal> {
        let record = self.operators_disk(disk)?;
        if self.is_copied(disk) {
            return Err(Refusal::Unavailable { detail: format!("disk {disk} is being copied") });
        }
        Ok(record)
    }

    pub(crate) fn grow_disk(&mut self, disk: &DiskId, request: GrowDisk, now: Now) -> Result<Accepted, Refusal> {
        self.own_disks_only()?;
        check_size(request.size_mib)?;
        let record = self.idle_disk(disk)?;
        if request.size_mib <= record.size_mib {
            let expected = format!("more than {}", record.size_mib);
            return Err(Refusal::BadValue {
                field: "size_mib".to_owned(),
                given: request.size_mib.to_string(),
                expected,
            });
        }
        if !record.ready || record.doing.is_some() {
            return Err(Refusal::Unavailable { detail: format!("disk {disk} is being worked on") });
        }
        if let Some(vm) = record.vm.as_ref().and_then(|vm| self.vms.get(vm))
            && vm.phase != VmPhase::Stopped
        {
            return Err(Refusal::VmIs { vm: vm.spec.name.clone(), phase: vm.phase });
        }
        if let Some(record) = self.disks.edit(disk) {
            record.doing = Some(DiskDoing::Grow(request.size_mib));
        }
        self.do_disk(disk, now);
        Ok(Accepted::Begun)
    }

    pub(crate) fn delete_disk(&mut self, disk: &DiskId, now: Now) -> Result<Accepted, Refusal> {
        self.own_disks_only()?;
        let record = self.idle_disk(disk)?;
        if let Some(vm) = &record.vm {
            return Err(Refusal::DiskInUse { disk: disk.clone(), vm: vm.clone() });
        }
        self.unmake_disk(disk, now);
        Ok(Accepted::Begun)
    }
}
