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

mod commands;
mod external;
mod grants;

use crate::Rack;
use crate::effect::{CloneSource, Effect, StorageOp};
use crate::event::Now;
use crate::ha::is_heartbeat;
use crate::record::{Counters, DiskDoing, DiskRecord};
use proto::api::Refusal;
use proto::event::{LogEvent, Topic};
use proto::{DiskId, HostId, VmId};
use std::collections::{BTreeMap, BTreeSet};

/// The largest disk, MiB: 64 TiB.
pub(crate) const DISK_MIB_MAX: u64 = 64 << 20;
/// A job that failed is tried again after this, milliseconds.
const TRY_AGAIN_MS: u64 = 5000;

pub use grants::initiator;

/// What is known of the storage and not kept.
#[derive(Default)]
pub(crate) struct Storage {
    last_job: u64,
    jobs: BTreeMap<u64, Job>,
    /// Grants that the storage has confirmed since the server started.
    confirmed: BTreeSet<(DiskId, HostId, u64)>,
    /// Ways to a SAN that are being taken, and whose hosts have said since that they are logged out.
    let_go: BTreeSet<(DiskId, HostId, u64)>,
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

    /// Disks and grants are given to a storage that was started anew; guests wait for theirs meanwhile.
    pub(crate) fn storage_anew(&mut self, now: Now) {
        self.warn(Topic::Storage, now, "the storage's server had ended and was started anew".to_owned(), |_| {});
        self.attach_disks(now);
    }

    /// After a restart: has the storage see to every disk, to what was being done, and to every grant.
    pub(crate) fn attach_disks(&mut self, now: Now) {
        self.declare_disks();
        for disk in self.disks.ids() {
            let Some(record) = self.disks.get(&disk).cloned() else { continue };
            if record.ready && record.doing != Some(DiskDoing::Delete) {
                self.attach(&disk, now);
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

    /// Has the storage see that a disk is served over its data as it is.
    pub(crate) fn attach(&mut self, disk: &DiskId, now: Now) {
        if let Some(size_mib) = self.disks.get(disk).map(|record| record.size_mib) {
            let op = StorageOp::Attach { disk: disk.clone(), size_mib };
            self.storage_job(Job::Attach(disk.clone()), op, now);
        }
    }

    /// A grant that the storage was found to have.
    pub(crate) fn found_granted(&mut self, disk: &DiskId, host: HostId, number: u64) {
        self.storage.confirmed.insert((disk.clone(), host, number));
    }

    /// Whether a copy of it is being made: nobody may write to it, nor may it go, until that has ended.
    pub(crate) fn is_copied(&self, disk: &DiskId) -> bool {
        let from = DiskDoing::Clone(CloneSource::Disk(disk.clone()));
        self.storage.jobs.values().any(|job| matches!(job, Job::Doing(_, doing) if *doing == from))
    }

    /// Gives the storage what the record says is being done.
    pub(crate) fn do_disk(&mut self, disk: &DiskId, now: Now) {
        let Some(record) = self.disks.get(disk) else { return };
        let (name, size_mib) = (disk.clone(), record.size_mib);
        let Some(doing) = record.doing.clone() else { return };
        if let DiskDoing::Clone(CloneSource::Disk(from)) = &doing
            && self.disks.get(from).is_some_and(|from| !from.grants.is_empty())
        {
            // A copy that failed before, and its disk is written to by now.
            self.storage.failed.insert(Job::Doing(name, doing), now.mono_ms + TRY_AGAIN_MS);
            return;
        }
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
            let about = |e: &mut LogEvent| e.vm.clone_from(&vm);
            let once = matches!(&job, Job::Doing(_, DiskDoing::Create | DiskDoing::Clone(_) | DiskDoing::Grow(_)));
            if once && !is_heartbeat(&disk) {
                self.warn(Topic::Storage, now, text.clone(), about);
            } else {
                self.warn_repeated(Topic::Storage, now, text.clone(), about);
            }
            let doing = self.disks.get(&disk).and_then(|record| record.doing.clone());
            match &job {
                Job::Doing(_, ended) if doing.as_ref() != Some(ended) => {}
                // What cannot be made is for a person to look at; what was granted or is to go is tried again.
                Job::Doing(_, DiskDoing::Create | DiskDoing::Clone(_)) => {
                    if is_heartbeat(&disk) {
                        self.storage.failed.insert(job, again);
                        return;
                    }
                    // Nor is it tried again by itself when the server starts next.
                    if let Some(record) = self.disks.edit(&disk) {
                        record.doing = None;
                        record.failure.clone_from(&text);
                    }
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
        self.came_right(Topic::Storage, &format!("{disk}:"));
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
                    record.found.remove(&host);
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
                let grants = record.grants.clone();
                self.info(Topic::Storage, now, format!("disk {disk} is ready"), |e| e.vm = vm);
                // One that was lost and made anew is reached by nobody yet.
                for (host, grant) in grants.iter().filter(|(_, grant)| !grant.cutting) {
                    self.grant_again(disk, host, *grant, now);
                }
                if is_heartbeat(disk) {
                    self.wait_in_full(now);
                }
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
        if let Some(declared) = self.external_disk(&name).map(|disk| disk.size_mib) {
            return self.take_declared(name, declared, vm);
        }
        let doing = from.map_or(DiskDoing::Create, DiskDoing::Clone);
        self.disks.put(DiskRecord {
            name: name.clone(),
            size_mib,
            vm,
            ready: false,
            doing: Some(doing),
            grants: BTreeMap::new(),
            found: BTreeMap::new(),
            failure: String::new(),
            granted: self.counters.get(&()).map_or(0, |counters| counters.grants),
        });
        self.do_disk(&name, now);
    }

    /// Has a disk made once more whose data are gone, and whose data nobody needs.
    pub(crate) fn make_anew(&mut self, disk: &DiskId, now: Now) {
        if let Some(record) = self.disks.edit(disk) {
            (record.ready, record.doing) = (false, Some(DiskDoing::Create));
        }
        self.do_disk(disk, now);
    }

    /// Has a disk removed; nobody may reach it any more.
    pub(crate) fn unmake_disk(&mut self, disk: &DiskId, now: Now) {
        if self.is_external() {
            return self.give_back(disk);
        }
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
                Job::Attach(disk) => self.attach(&disk, now),
            }
        }
    }
}

pub(crate) fn check_size(size_mib: u64) -> Result<(), Refusal> {
    if (1..=DISK_MIB_MAX).contains(&size_mib) {
        return Ok(());
    }
    let expected = format!("1 to {DISK_MIB_MAX}");
    Err(Refusal::BadValue { field: "size_mib".to_owned(), given: size_mib.to_string(), expected })
}
