//! Disks: making, growing and removing them, and who may reach them.
//!
//! Owns: disk records, storage jobs and grants. Never does: reach the storage itself.
//!
//! ```text
//! (none) --grant--> granted, job under way --done--> granted and confirmed
//!                       |                                 |
//!                       +----------------cut--------------+--> cutting --done--> (none)
//! ```
//! A grant is in the record before the storage hears of it and leaves it only when the storage has confirmed the cut:
//! so the record names every host that may still write. Each grant has a CHAP user and secret of its own; a host that
//! logs in by itself with those of an earlier boot or epoch is turned away.

use crate::Rack;
use crate::effect::{CloneSource, Effect, StorageOp};
use crate::event::Now;
use crate::host::base64url;
use crate::record::{Counters, DiskDoing, DiskRecord, Grant};
use proto::agent::{DiskAccess, Secret};
use proto::api::{Accepted, CreateDisk, GrowDisk, Refusal};
use proto::event::Topic;
use proto::view::VmPhase;
use proto::{DiskId, Epoch, HostId, VmId};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The largest disk, MiB: 64 TiB.
pub(crate) const DISK_MIB_MAX: u64 = 64 << 20;
/// A job that failed is tried again after this, milliseconds.
const TRY_AGAIN_MS: u64 = 5000;

/// What is known of the storage and not kept.
#[derive(Default)]
pub(crate) struct Storage {
    last_job: u64,
    jobs: BTreeMap<u64, Job>,
    /// Grants that the storage has confirmed since the server started.
    confirmed: BTreeSet<(DiskId, HostId, u64)>,
    /// Jobs that failed, and when they may be tried again.
    failed: BTreeMap<Job, u64>,
}

/// What a storage job is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Attach(DiskId),
    Doing(DiskId, DiskDoing),
    Grant(DiskId, HostId, u64),
    Cut(DiskId, HostId, u64),
}

impl Job {
    fn disk(&self) -> &DiskId {
        match self {
            Self::Attach(disk) | Self::Doing(disk, _) | Self::Grant(disk, ..) | Self::Cut(disk, ..) => disk,
        }
    }
}

impl Rack {
    /// Gives the storage something to do, unless it is at it or failed at it just now.
    fn storage_job(&mut self, job: Job, op: StorageOp, now: Now) {
        if self.storage.jobs.values().any(|under_way| *under_way == job) {
            return;
        }
        if self.storage.failed.get(&job).is_some_and(|&again| again > now.mono_ms) {
            return;
        }
        self.storage.failed.remove(&job);
        self.storage.last_job += 1;
        let number = self.storage.last_job;
        self.storage.jobs.insert(number, job);
        self.effects.push(Effect::Storage { job: number, op });
    }

    /// Lets a host reach a disk. True once the storage has confirmed it; asked again until then.
    pub(crate) fn grant(&mut self, disk: &DiskId, host: &HostId, epoch: Epoch, now: Now) -> bool {
        let Some(record) = self.disks.get(disk) else { return false };
        let grant = match record.grants.get(host) {
            Some(grant) if grant.epoch == epoch && !grant.cutting => *grant,
            Some(_) => {
                self.cut(disk, host, now);
                return false;
            }
            None => {
                let Some(record) = self.disks.edit(disk) else { return false };
                record.granted += 1;
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

    fn grant_again(&mut self, disk: &DiskId, host: &HostId, grant: Grant, now: Now) {
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
        self.disks_of(vm).iter().fold(true, |done, disk| self.grant(disk, host, epoch, now) && done)
    }

    /// Takes a host's way to all disks of a VM. True once the storage has confirmed it.
    pub(crate) fn cut_from(&mut self, vm: &VmId, host: &HostId, now: Now) -> bool {
        self.disks_of(vm).iter().fold(true, |done, disk| self.cut(disk, host, now) && done)
    }

    /// Takes all of a host's ways: its boot is over, and the secrets with it.
    pub(crate) fn cut_host(&mut self, host: &HostId, now: Now) {
        for disk in self.disks.ids() {
            self.cut(&disk, host, now);
        }
    }

    fn disks_of(&self, vm: &VmId) -> Vec<DiskId> {
        self.vms.get(vm).map(|record| record.spec.disks.clone()).unwrap_or_default()
    }

    /// How a host reaches a VM's disks, in their order; `None` when it was not let.
    pub(crate) fn accesses(&self, vm: &VmId, host: &HostId) -> Option<Vec<DiskAccess>> {
        self.disks_of(vm).iter().map(|disk| self.access(disk, host)).collect()
    }

    fn access(&self, disk: &DiskId, host: &HostId) -> Option<DiskAccess> {
        let grant = self.disks.get(disk)?.grants.get(host)?;
        let seed = &self.hosts.get(host)?.boot.as_ref()?.chap_seed;
        let Grant { epoch, number, .. } = grant;
        let digest = Sha256::digest(format!("tsubame disk {}\n{disk}\n{epoch}\n{number}", seed.0));
        Some(DiskAccess {
            disk: disk.clone(),
            portal: self.policy.portal,
            target: format!("{}:{disk}", self.policy.iqn_prefix),
            lun: 1,
            user: format!("{host}-{epoch}-{number}"),
            // 96 bits in 16 characters: what RFC 7143 asks for, and the most that every initiator takes.
            secret: Secret(base64url(digest.get(..12).unwrap_or_default())),
        })
    }

    /// After a restart: has the storage see to every disk, to what was being done, and to every grant.
    pub(crate) fn attach_disks(&mut self, now: Now) {
        for disk in self.disks.ids() {
            let Some(record) = self.disks.get(&disk).cloned() else { continue };
            if !matches!(record.doing, Some(DiskDoing::Create | DiskDoing::Clone(_) | DiskDoing::Delete)) {
                let op = StorageOp::Attach { disk: disk.clone(), size_mib: record.size_mib };
                self.storage_job(Job::Attach(disk.clone()), op, now);
            }
            for (host, grant) in &record.grants {
                if grant.cutting {
                    self.cut(&disk, host, now);
                } else {
                    self.grant_again(&disk, host, *grant, now);
                }
            }
            self.do_disk(&disk, now);
        }
    }

    /// Gives the storage what the record says is being done.
    fn do_disk(&mut self, disk: &DiskId, now: Now) {
        let Some(record) = self.disks.get(disk) else { return };
        let (name, size_mib) = (disk.clone(), record.size_mib);
        let Some(doing) = record.doing.clone() else { return };
        let op = match doing.clone() {
            DiskDoing::Create => StorageOp::Create { disk: name, size_mib },
            DiskDoing::Clone(from) => StorageOp::Clone { disk: name, from, size_mib },
            DiskDoing::Grow(size_mib) => StorageOp::Grow { disk: name, size_mib },
            DiskDoing::Delete => StorageOp::Delete { disk: name },
        };
        self.storage_job(Job::Doing(disk.clone(), doing), op, now);
    }

    /// A storage job has ended.
    pub(crate) fn storage_done(&mut self, number: u64, result: Result<(), String>, now: Now) {
        let Some(job) = self.storage.jobs.remove(&number) else { return };
        let disk = job.disk().clone();
        if let Err(detail) = result {
            let again = now.mono_ms + TRY_AGAIN_MS;
            let text = format!("{disk}: {}", detail.chars().take(300).collect::<String>());
            let vm = self.disks.get(&disk).and_then(|record| record.vm.clone());
            self.warn(Topic::Storage, now, text.clone(), |e| e.vm = vm.clone());
            let doing = self.disks.get(&disk).and_then(|record| record.doing.clone());
            match &job {
                Job::Doing(_, ended) if doing.as_ref() != Some(ended) => {}
                // What cannot be made is for a person to look at; what was granted or is to go is tried again.
                Job::Doing(_, DiskDoing::Create | DiskDoing::Clone(_)) => {
                    if let Some(vm) = vm {
                        self.vm_failed(&vm, text, now);
                    }
                }
                Job::Doing(_, DiskDoing::Grow(_)) => {
                    if let Some(record) = self.disks.edit(&disk) {
                        record.doing = None;
                    }
                }
                _ => {
                    self.storage.failed.insert(job, again);
                }
            }
            return;
        }
        match job {
            Job::Attach(_) => {}
            Job::Grant(disk, host, number) => {
                let current = self.disks.get(&disk).and_then(|record| record.grants.get(&host));
                if current.is_some_and(|grant| grant.number == number && !grant.cutting) {
                    self.storage.confirmed.insert((disk.clone(), host, number));
                }
            }
            Job::Cut(disk, host, number) => {
                let current = self.disks.get(&disk).and_then(|record| record.grants.get(&host));
                if current.is_some_and(|grant| grant.number == number && grant.cutting)
                    && let Some(record) = self.disks.edit(&disk)
                {
                    record.grants.remove(&host);
                }
            }
            Job::Doing(disk, doing) => self.disk_done(&disk, doing, now),
        }
        self.touch_disk(&disk);
    }

    fn disk_done(&mut self, disk: &DiskId, done: DiskDoing, now: Now) {
        // A disk may have been given up while it was still being made.
        if self.disks.get(disk).is_none_or(|record| record.doing.as_ref() != Some(&done)) {
            return;
        }
        let Some(record) = self.disks.edit(disk) else { return };
        let vm = record.vm.clone();
        record.doing = None;
        match done {
            DiskDoing::Delete => {
                let granted = record.granted;
                let counters = self.counters.get(&()).copied().unwrap_or_default();
                if granted > counters.grants {
                    self.counters.put(Counters { grants: granted, ..counters });
                }
                self.disks.remove(disk);
                if let Some(record) = vm.as_ref().and_then(|vm| self.vms.edit(vm)) {
                    record.spec.disks.retain(|name| name != disk);
                }
                self.info(Topic::Storage, now, format!("disk {disk} is gone"), |e| e.vm = vm);
            }
            DiskDoing::Grow(size_mib) => {
                record.size_mib = size_mib;
                self.info(Topic::Storage, now, format!("disk {disk} has {size_mib} MiB"), |e| e.vm = vm);
            }
            DiskDoing::Create | DiskDoing::Clone(_) => {
                record.ready = true;
                self.info(Topic::Storage, now, format!("disk {disk} is ready"), |e| e.vm = vm);
            }
        }
    }

    fn touch_disk(&mut self, disk: &DiskId) {
        if let Some(vm) = self.disks.get(disk).and_then(|record| record.vm.clone()) {
            self.touch_vm(&vm);
        } else {
            // Removed just now: its VM may go as well.
            self.touch_deleting();
        }
    }

    /// Makes a disk's record and has it made.
    pub(crate) fn make_disk(
        &mut self,
        name: DiskId,
        size_mib: u64,
        from: Option<CloneSource>,
        vm: Option<VmId>,
        now: Now,
    ) {
        let doing = from.map_or(DiskDoing::Create, DiskDoing::Clone);
        self.disks.put(DiskRecord {
            name: name.clone(),
            size_mib,
            vm,
            ready: false,
            doing: Some(doing),
            grants: BTreeMap::new(),
            granted: self.counters.get(&()).map_or(0, |counters| counters.grants),
        });
        self.do_disk(&name, now);
    }

    /// Has a disk removed; nobody may reach it any more.
    pub(crate) fn unmake_disk(&mut self, disk: &DiskId, now: Now) {
        if self.disks.get(disk).is_some_and(|record| record.doing != Some(DiskDoing::Delete))
            && let Some(record) = self.disks.edit(disk)
        {
            record.doing = Some(DiskDoing::Delete);
            record.ready = false;
        }
        self.do_disk(disk, now);
    }

    /// Tries again what failed, where nothing else asks for it.
    pub(crate) fn look_at_disks(&mut self, now: Now) {
        let due: Vec<Job> = self
            .storage
            .failed
            .iter()
            .filter(|(_, again)| **again <= now.mono_ms)
            .map(|(job, _)| job.clone())
            .collect();
        for job in due {
            self.storage.failed.remove(&job);
            match job {
                Job::Doing(disk, _) => self.do_disk(&disk, now),
                Job::Cut(disk, host, _) => {
                    if self.disks.get(&disk).and_then(|r| r.grants.get(&host)).is_some_and(|grant| grant.cutting) {
                        self.cut(&disk, &host, now);
                    }
                }
                Job::Grant(disk, host, number) => {
                    let grant = self.disks.get(&disk).and_then(|record| record.grants.get(&host)).copied();
                    if let Some(grant) = grant.filter(|grant| grant.number == number && !grant.cutting) {
                        self.grant_again(&disk, &host, grant, now);
                    }
                }
                Job::Attach(disk) => {
                    if let Some(size_mib) = self.disks.get(&disk).map(|record| record.size_mib) {
                        let op = StorageOp::Attach { disk: disk.clone(), size_mib };
                        self.storage_job(Job::Attach(disk), op, now);
                    }
                }
            }
        }
    }

    pub(crate) fn create_disk(&mut self, request: CreateDisk, now: Now) -> Result<Accepted, Refusal> {
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
        let record = self.disks.get(&disk).ok_or_else(|| Refusal::NoDisk { disk: disk.clone() })?;
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

    fn idle_disk(&self, disk: &DiskId) -> Result<&DiskRecord, Refusal> {
        let record = self.disks.get(disk).ok_or_else(|| Refusal::NoDisk { disk: disk.clone() })?;
        let copied = |other: &DiskRecord| other.doing == Some(DiskDoing::Clone(CloneSource::Disk(disk.clone())));
        if self.disks.values().any(copied) {
            return Err(Refusal::Unavailable { detail: format!("disk {disk} is being copied") });
        }
        Ok(record)
    }

    pub(crate) fn grow_disk(&mut self, disk: &DiskId, request: GrowDisk, now: Now) -> Result<Accepted, Refusal> {
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
        let record = self.idle_disk(disk)?;
        if let Some(vm) = &record.vm {
            return Err(Refusal::DiskInUse { disk: disk.clone(), vm: vm.clone() });
        }
        self.unmake_disk(disk, now);
        Ok(Accepted::Begun)
    }
}

/// The name that a host's initiator must bear.
pub fn initiator(iqn_prefix: &str, host: &HostId) -> String {
    format!("{iqn_prefix}:{host}")
}

pub(crate) fn check_size(size_mib: u64) -> Result<(), Refusal> {
    if (1..=DISK_MIB_MAX).contains(&size_mib) {
        return Ok(());
    }
    let expected = format!("1 to {DISK_MIB_MAX}");
    Err(Refusal::BadValue { field: "size_mib".to_owned(), given: size_mib.to_string(), expected })
}
