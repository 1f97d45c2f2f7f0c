//! A VM's next step: what its record says is to be, done as far as it can be done now.
//!
//! Called whenever something changed that a step may wait for; asking for the same again changes nothing.

use super::Rack;
use crate::event::Now;
use crate::orders::Purpose;
use crate::record::{Counters, VmDoing, VmRecord};
use proto::agent::{Act, Failure, FailureKind, OrderOutcome};
use proto::api::Refusal;
use proto::event::Topic;
use proto::view::VmPhase;
use proto::{HostId, VmId};

/// How long a guest is given to shut down, milliseconds.
const SHUTDOWN_MS: u64 = 60_000;
/// A VM that found no place looks again after this, milliseconds.
const PLACE_AGAIN_MS: u64 = 5_000;
/// Of so many hosts a note says why they cannot take a VM.
const HOSTS_IN_NOTE: usize = 5;
/// Each placement asks the planner about the whole rack. A fifth of two hundred hosts may fail at once: their VMs are placed bit by bit, so that
/// hosts are heard and machines answered in between.
pub(crate) const PLACEMENTS_PER_TICK: u32 = 8;
/// First and longest wait before a VM that ended unasked is started again, milliseconds; doubled each time between.
const START_AGAIN_MS: u64 = 5_000;
const START_AGAIN_MS_MAX: u64 = 300_000;
/// A VM that ran this long has started well, milliseconds.
const RAN_WELL_MS: u64 = 60_000;

impl Rack {
    /// Takes a VM's next step, if it can be taken.
    pub(crate) fn step_vm(&mut self, vm: &VmId, now: Now) {
        let Some(record) = self.vms.get(vm).cloned() else { return };
        match record.phase {
            VmPhase::Creating => {
                let ready = record.spec.disks.iter().all(|disk| self.disks.get(disk).is_some_and(|d| d.ready));
                if ready {
                    self.set_phase(vm, VmPhase::Stopped, now);
                    self.vm_info(vm, now, format!("{vm} is made"));
                }
            }
            VmPhase::Stopped => self.step_stopped(vm, &record, now),
            VmPhase::Starting => self.step_starting(vm, &record, now),
            VmPhase::Running | VmPhase::Paused | VmPhase::Stopping => self.say_again(vm, &record),
            VmPhase::Deleting => self.step_deleting(vm, &record, now),
            VmPhase::Unknown => self.step_unknown(vm, &record, now),
            VmPhase::Moving | VmPhase::Failed => {}
        }
    }

    fn step_stopped(&mut self, vm: &VmId, record: &VmRecord, now: Now) {
        let cut = self.cut_all_but(vm, None, now);
        // It ran on when its disk was lost, and is gone by now: no host could start it.
        let lost = record.spec.disks.iter().filter_map(|disk| self.disks.get(disk)).find(|d| !d.failure.is_empty());
        if let Some(note) = lost.filter(|_| cut).map(|disk| disk.failure.clone()) {
            return self.vm_failed(vm, note, now);
        }
        let waits = self.guests.get(vm).and_then(|guest| guest.again_mono_ms).is_some_and(|at| at > now.mono_ms);
        if !record.run || !cut || waits || record.r#move.is_some() || self.frozen() || self.awaits_its_turn(vm, now) {
            return;
        }
        if self.guests.get(vm).and_then(|guest| guest.no_place_in) == Some(self.placing_round) {
            return; // all others are tried once before it is tried again
        }
        if self.placements_left == 0 {
            self.placed_later.insert(vm.clone());
            return;
        }
        self.placements_left -= 1;
        let place = match record.owner {
            None => self.place(vm, now),
            Some(_) => self.place_again(vm, now).or_else(|refusal| {
                // Nowhere else: from here on every host may be tried once more.
                let failed_on = std::mem::take(&mut self.guests.entry(vm.clone()).or_default().failed_on);
                if failed_on.is_empty() { Err(refusal) } else { self.place_again(vm, now) }
            }),
        };
        match place {
            Ok(host) => self.begin_start(vm, &host, now),
            Err(refusal) => {
                let round = self.placing_round;
                let guest = self.guests.entry(vm.clone()).or_default();
                (guest.again_mono_ms, guest.no_place_in) = (Some(now.mono_ms + PLACE_AGAIN_MS), Some(round));
                self.note_no_place(vm, record, refusal, now);
            }
        }
    }

    /// Says why a VM finds no place: in its note as it is now, in the log when that begins.
    fn note_no_place(&mut self, vm: &VmId, record: &VmRecord, mut refusal: Refusal, now: Now) {
        let mut more = 0;
        if let Refusal::NoPlace { rejected, .. } = &mut refusal {
            more = rejected.len().saturating_sub(HOSTS_IN_NOTE);
            rejected.truncate(HOSTS_IN_NOTE);
        }
        let mut note = refusal.to_string();
        if more > 0 {
            note = format!("{note}; and {more} more hosts");
        }
        if record.note == note {
            return;
        }
        if record.note.split(';').next() != note.split(';').next() {
            self.vm_warn(vm, now, note.clone());
        }
        if let Some(record) = self.vms.edit(vm) {
            record.note = note;
        }
    }

    /// The VM gets an owner and a new epoch: from here on nobody else may run it.
    pub(crate) fn begin_start(&mut self, vm: &VmId, host: &HostId, now: Now) {
        let Some(epoch) = self.vms.get(vm).map(|record| self.next_epoch(record.epoch)) else { return };
        self.set_owner(vm, host, epoch);
        if let Some(record) = self.vms.edit(vm) {
            record.doing = Some(VmDoing::Start);
            record.order = None;
            record.delayed_until_ms = None;
        }
        self.forget_delay(vm);
        self.set_phase(vm, VmPhase::Starting, now);
        self.info(Topic::Vm, now, format!("{vm} starts on {host}"), |e| {
            (e.vm, e.host, e.epoch) = (Some(vm.clone()), Some(host.clone()), Some(epoch));
        });
    }

    fn step_starting(&mut self, vm: &VmId, record: &VmRecord, now: Now) {
        let Some(owner) = record.owner.clone() else { return };
        if record.order.is_none() && !self.present(&owner) {
            // It was never told to start it: another may.
            if let Some(record) = self.vms.edit(vm) {
                record.doing = None;
            }
            return self.set_phase(vm, VmPhase::Stopped, now);
        }
        if !self.reporting(&owner) || self.told(&owner, &Purpose::Vm(vm.clone())) {
            return;
        }
        if self.told(&owner, &Purpose::Orphan(vm.clone())) {
            return; // what is left of it there goes first
        }
        let left = self.live.get(&owner).and_then(|live| live.domain(vm));
        if record.order.is_none() && left.is_some_and(|domain| domain.epoch != Some(record.epoch)) {
            // No start has been ordered under this epoch: whatever is there is of an earlier one.
            return self.destroy_orphan(&owner, vm);
        }
        let ready = |disk| self.disks.get(disk).is_some_and(|d| d.ready && d.doing.is_none()) && !self.is_copied(disk);
        if !record.spec.disks.iter().all(ready) {
            return;
        }
        if !self.cut_all_but(vm, Some(&owner), now) || !self.grant_all(vm, &owner, record.epoch, now) {
            return;
        }
        let Some(disks) = self.accesses(vm, &owner) else { return };
        let order = record.order.unwrap_or_else(|| self.order_number());
        if record.order.is_none()
            && let Some(record) = self.vms.edit(vm)
        {
            record.order = Some(order);
        }
        let act = Act::Start { vm: record.spec.clone(), disks };
        self.tell(&owner, order, record.epoch, act, Purpose::Vm(vm.clone()));
    }

    /// Tells the owner what the record says it is told: after a command, and again after a restart, by the same number.
    fn say_again(&mut self, vm: &VmId, record: &VmRecord) {
        let (Some(owner), Some(doing), Some(order)) = (record.owner.clone(), record.doing, record.order) else {
            return;
        };
        if !self.present(&owner) {
            return;
        }
        let vm = vm.clone();
        let purpose = Purpose::Vm(vm.clone());
        let act = match doing {
            VmDoing::Start => return,
            VmDoing::Shutdown => Act::Shutdown { vm, timeout_ms: SHUTDOWN_MS },
            VmDoing::Destroy => Act::Destroy { vm },
            VmDoing::Pause => Act::Pause { vm },
            VmDoing::Unpause => Act::Unpause { vm },
        };
        self.tell(&owner, order, record.epoch, act, purpose);
    }

    fn step_deleting(&mut self, vm: &VmId, record: &VmRecord, now: Now) {
        if !self.cut_all_but(vm, None, now) || record.spec.disks.iter().any(|disk| self.is_copied(disk)) {
            return;
        }
        for disk in &record.spec.disks {
            self.unmake_disk(disk, now);
        }
        if record.spec.disks.is_empty() {
            let counters = self.counters.get(&()).copied().unwrap_or_default();
            if record.epoch > counters.epochs {
                self.counters.put(Counters { epochs: record.epoch, ..counters });
            }
            self.vms.remove(vm);
            self.forget_macs(vm, &record.spec);
            if let Some(vms) = record.owner.as_ref().and_then(|owner| self.owned.get_mut(owner)) {
                vms.remove(vm);
            }
            self.guests.remove(vm);
            self.forget_delay(vm);
            self.vm_info(vm, now, format!("{vm} is deleted"));
        }
    }

    /// A disk's record is gone: its VM may go as well.
    pub(crate) fn touch_deleting(&mut self) {
        let deleting = self.vms.values().filter(|vm| vm.phase == VmPhase::Deleting).map(|vm| vm.spec.name.clone());
        self.touched_vms.extend(deleting.collect::<Vec<_>>());
    }

    /// Everything that concerns a host is looked at.
    pub(crate) fn touch_host(&mut self, host: &HostId) {
        let moves: Vec<_> = self.moves_of(host).collect();
        self.touched_moves.extend(moves);
        self.touched_vms.extend(self.vms_of(host));
    }

    /// Steps that wait for time to pass, or for what may have been missed.
    pub(crate) fn look_again(&mut self, now: Now) {
        self.look_at_disks(now);
        self.reckon_room(now);
        let may_go_on = self.vms.values().filter(|vm| match vm.phase {
            VmPhase::Stopped => vm.run,
            VmPhase::Starting | VmPhase::Deleting | VmPhase::Creating => true,
            _ => false,
        });
        let may_go_on: Vec<VmId> = may_go_on.map(|vm| vm.spec.name.clone()).collect();
        self.touched_vms.extend(may_go_on);
        let moves: Vec<_> = self.live_moves().collect();
        self.touched_moves.extend(moves);
    }

    /// The owner has said how an order of the VM's own ended.
    pub(crate) fn vm_order_ended(&mut self, vm: &VmId, host: &HostId, outcome: OrderOutcome, now: Now) {
        let Some(record) = self.vms.get(vm) else { return };
        if record.order != Some(outcome.id) || record.owner.as_ref() != Some(host) {
            return;
        }
        let Some(doing) = record.doing else { return };
        if let Some(record) = self.vms.edit(vm) {
            record.order = None;
            record.doing = None;
        }
        self.touch_vm(vm);
        let stale = matches!(&outcome.result, Err(failure) if failure.kind == FailureKind::StaleEpoch);
        let note = match outcome.result {
            Ok(_) => String::new(),
            Err(failure) => {
                let gone = failure.kind == FailureKind::NoDomain;
                if gone && matches!(doing, VmDoing::Shutdown | VmDoing::Destroy) {
                    String::new()
                } else {
                    let what = match doing {
                        VmDoing::Start => "start",
                        VmDoing::Shutdown => "shut down",
                        VmDoing::Destroy => "destroy",
                        VmDoing::Pause => "pause",
                        VmDoing::Unpause => "resume",
                    };
                    self.vm_warn(vm, now, format!("{host} did not {what} {vm}: {}", failure.detail));
                    failure.detail.chars().take(500).collect()
                }
            }
        };
        let failed = !note.is_empty();
        if let Some(record) = self.vms.edit(vm) {
            record.note = note;
        }
        match (doing, failed) {
            (VmDoing::Start, false) => {
                self.set_phase(vm, VmPhase::Running, now);
                self.vm_info(vm, now, format!("{vm} runs on {host}"));
            }
            (VmDoing::Start, true) if stale => self.store_is_behind(vm, host, now),
            (VmDoing::Start, true) => {
                // Whatever it left there goes, then it is tried again, elsewhere if it fits there.
                self.start_failed_on(vm, host, now);
                self.begin_destroy(vm, host, now);
            }
            (VmDoing::Shutdown, true) => {
                if let Some(record) = self.vms.edit(vm) {
                    record.run = true;
                }
                self.set_phase(vm, VmPhase::Running, now);
            }
            (VmDoing::Pause, false) => self.set_phase(vm, VmPhase::Paused, now),
            (VmDoing::Unpause, false) => self.set_phase(vm, VmPhase::Running, now),
            // Whether it is gone is for the survey to say, which comes with this report.
            (VmDoing::Shutdown, false) | (VmDoing::Destroy, _) => {}
            (VmDoing::Pause | VmDoing::Unpause, true) => {}
        }
    }

    /// What is left of a VM on its new host could not be taken away. If its start waits for that, it is tried elsewhere.
    pub(crate) fn orphan_stays(&mut self, vm: &VmId, host: &HostId, failure: Failure, now: Now) {
        let waits = |r: &VmRecord| r.phase == VmPhase::Starting && r.order.is_none() && r.owner.as_ref() == Some(host);
        if failure.kind == FailureKind::NoDomain || !self.vms.get(vm).is_some_and(waits) {
            return;
        }
        if failure.kind == FailureKind::StaleEpoch {
            return self.store_is_behind(vm, host, now);
        }
        let note = format!("{host} cannot take away what is left of {vm}: {}", failure.detail);
        self.vm_warn(vm, now, note.clone());
        if let Some(record) = self.vms.edit(vm) {
            (record.doing, record.note) = (None, note.chars().take(500).collect());
        }
        self.start_failed_on(vm, host, now);
        self.set_phase(vm, VmPhase::Stopped, now);
    }

    /// The store is behind what was acknowledged, as after an old backup: nothing may be concluded from it.
    fn store_is_behind(&mut self, vm: &VmId, host: &HostId, now: Now) {
        self.vm_failed(vm, format!("{host} knows a later owner of {vm} than the store does"), now);
    }

    /// The next start waits, and tries other hosts first.
    fn start_failed_on(&mut self, vm: &VmId, host: &HostId, now: Now) {
        self.back_off(vm, now);
        self.guests.entry(vm.clone()).or_default().failed_on.insert(host.clone());
    }

    /// Whether a VM's start has failed on a host since it ran last, or what a move left of it there stands in its way.
    pub(crate) fn failed_to_start(&self, vm: &VmId, host: &HostId) -> bool {
        self.guests.get(vm).is_some_and(|guest| guest.failed_on.contains(host))
    }

    /// A start that ended unasked: the next one waits, longer each time.
    pub(crate) fn back_off(&mut self, vm: &VmId, now: Now) {
        let guest = self.guests.entry(vm.clone()).or_default();
        if guest.running_mono_ms.is_some_and(|since| now.mono_ms.saturating_sub(since) >= RAN_WELL_MS) {
            guest.attempts = 0;
        }
        let wait_ms = (START_AGAIN_MS << guest.attempts.min(16)).min(START_AGAIN_MS_MAX);
        guest.attempts = guest.attempts.saturating_add(1);
        guest.again_mono_ms = Some(now.mono_ms + wait_ms);
    }
}
