//! What hosts show, against what the records say.
//!
//! A report shows every domain of its host; what it does not show is not there. A domain is destroyed only when the records
//! prove it stale: of a lower epoch than the VM's, or a part of a move that is over. Anything else is left and told.

use super::{Rack, left_crashed};
use crate::event::Now;
use crate::orders::Purpose;
use crate::record::VmDoing;
use proto::agent::{Act, DomainState, DomainSurvey, Part};
use proto::event::Topic;
use proto::view::VmPhase;
use proto::vm::OnCrash;
use proto::{Epoch, HostId, VmId};

/// A guest that is missing, or stands suspended at the end of a move that failed, may be back by itself: so long it is waited for,
/// milliseconds. One that starts itself anew is told by its host from one that has ended.
const ODD_MS: u64 = 20_000;
/// So many reports in a row must show whatever it is: one may have been made before the guest was there.
const ODD_REPORTS: u32 = 2;
/// Processor use is noted so often, milliseconds, and so many values are kept: an hour.
pub(crate) const SAMPLE_MS: u64 = 60_000;
pub(crate) const HISTORY_MAX: usize = 60;

/// What is shown of a VM in place of a running guest.
pub(crate) struct Odd {
    what: Option<DomainState>,
    since_mono_ms: u64,
    reports: u32,
}

impl Rack {
    /// A report has come: its domains and the records are compared.
    pub(crate) fn surveyed(&mut self, host: &HostId, now: Now) {
        for vm in self.vms_of(host) {
            let domain = self.live.get(host).and_then(|live| live.domain(&vm)).cloned();
            self.compare(&vm, host, domain, now);
        }
        let strays: Vec<DomainSurvey> = match self.live.get(host).and_then(|live| live.report.as_ref()) {
            Some(report) => {
                let owned = |vm: &VmId| self.owned.get(host).is_some_and(|vms| vms.contains(vm));
                report.domains.iter().filter(|domain| !owned(&domain.vm)).cloned().collect()
            }
            None => Vec::new(),
        };
        for domain in strays {
            self.stray(host, &domain, now);
        }
        self.touch_host(host);
    }

    /// A VM of which this host is the owner.
    fn compare(&mut self, vm: &VmId, host: &HostId, domain: Option<DomainSurvey>, now: Now) {
        let Some(record) = self.vms.get(vm) else { return };
        let (phase, ordered, idle) = (record.phase, record.order.is_some(), record.doing.is_none());
        // Left from before the VM was taken from this host.
        let fenced_off = |d: &DomainSurvey| d.epoch.is_some_and(|epoch| epoch < record.epoch);
        if phase == VmPhase::Unknown && domain.as_ref().is_some_and(fenced_off) {
            return self.destroy_orphan(host, vm);
        }
        match (phase, domain) {
            (VmPhase::Running | VmPhase::Paused, domain) => {
                if let Some(domain) = &domain {
                    self.sample(vm, domain.cpu_cores, now);
                }
                self.shown(vm, host, domain.map(|d| d.state), idle, now);
            }
            (VmPhase::Unknown, None) if self.guests.get(vm).is_some_and(|guest| guest.lost_in_move) => {
                self.gone(vm, format!("{vm} was lost on its way to {host}"), now);
            }
            (VmPhase::Unknown, None) => {
                self.lost_with_host(vm, format!("{host} was booted anew and no longer has {vm}"), now);
            }
            // What was received by a move and never ran is of no use any more.
            (VmPhase::Unknown, Some(domain)) if domain.part == Part::Incoming => self.begin_destroy(vm, host, now),
            (VmPhase::Unknown, Some(domain)) => {
                let phase = if domain.state == DomainState::Paused { VmPhase::Paused } else { VmPhase::Running };
                self.set_phase(vm, phase, now);
            }
            (VmPhase::Stopping, None) if !ordered => {
                self.set_phase(vm, VmPhase::Stopped, now);
                self.vm_info(vm, now, format!("{vm} has stopped"));
            }
            (VmPhase::Stopping, Some(_)) if !ordered => self.begin_destroy(vm, host, now),
            (VmPhase::Stopped, Some(domain)) => self.stray(host, &domain, now),
            _ => {}
        }
    }

    /// A VM that is to run or be paused: does it?
    fn shown(&mut self, vm: &VmId, host: &HostId, state: Option<DomainState>, idle: bool, now: Now) {
        // Held for want of a lease that is there again: the agent lets its own go at once, unless it cannot know that they are.
        let is_held = state == Some(DomainState::Paused) && self.leased(host) && self.phase_is(vm, VmPhase::Running);
        let guest = self.guests.entry(vm.clone()).or_default();
        if !is_held && matches!(state, Some(DomainState::Running | DomainState::Paused | DomainState::Dying)) {
            guest.odd = None;
            return;
        }
        let before = guest.odd.take().filter(|odd| odd.what == state);
        let odd = guest.odd.insert(before.unwrap_or(Odd { what: state, since_mono_ms: now.mono_ms, reports: 0 }));
        odd.reports += 1;
        // That it has ended must not be forgotten if its host fails next.
        let ended = state == Some(DomainState::Shutdown);
        let lasts = odd.reports >= ODD_REPORTS && (ended || now.mono_ms.saturating_sub(odd.since_mono_ms) >= ODD_MS);
        // It asked to be started anew, and its host cannot, or not again so soon.
        let reboots = self.live.get(host).and_then(|live| live.domain(vm)).is_some_and(|domain| domain.reboots);
        let stops = self.vms.get(vm).is_some_and(|record| record.restart.on_crash == OnCrash::Stop);
        let left = state == Some(DomainState::Crashed) && stops && !reboots;
        let note = match state {
            // Its host goes on trying; taken away, it would be started by nobody.
            Some(DomainState::Crashed) if reboots && self.frozen() => return,
            Some(DomainState::Crashed) if left => left_crashed(vm, host),
            Some(DomainState::Crashed) => format!("{vm} has crashed on {host}"),
            _ if !lasts || !idle => return,
            // That nothing of it is left, and nothing makes it anew, is for its host to say.
            None => format!("{vm} is no longer on {host}"),
            Some(DomainState::Paused) => {
                self.vm_info(vm, now, format!("{vm} stands paused on {host} and is let go on"));
                return self.have_done(vm, host, VmDoing::Unpause);
            }
            Some(DomainState::Shutdown) => format!("{vm} has shut itself down"),
            Some(state) => format!("{vm} stood {state} on {host} with no move under way"),
        };
        if reboots && let Some(guest) = self.guests.get_mut(vm) {
            guest.running_mono_ms = None; // in a circle, however long
        }
        if !ended {
            self.back_off(vm, now);
        }
        self.vm_warn(vm, now, note.clone());
        if let Some(record) = self.vms.edit(vm) {
            record.run &= !ended && !left;
            record.note = note;
            record.crashed_on = left.then(|| host.clone());
        }
        self.begin_destroy(vm, host, now);
    }

    /// Notes processor use for the planner's forecast.
    fn sample(&mut self, vm: &VmId, cpu_cores: f64, now: Now) {
        let guest = self.guests.entry(vm.clone()).or_default();
        if guest.sampled_mono_ms.is_none_or(|at| now.mono_ms.saturating_sub(at) >= SAMPLE_MS) {
            guest.sampled_mono_ms = Some(now.mono_ms);
            while guest.history.len() >= HISTORY_MAX {
                guest.history.pop_front();
            }
            #[allow(clippy::cast_possible_truncation)] // a load in cores; a float of 32 bits is what the planner keeps
            guest.history.push_back(cpu_cores as f32);
        }
    }

    /// A VM is no longer where it was, and nobody asked for that.
    pub(crate) fn gone(&mut self, vm: &VmId, note: String, now: Now) {
        let Some(record) = self.vms.get(vm) else { return };
        if let Some(owner) = record.owner.clone() {
            self.take_back(&owner, &Purpose::Vm(vm.clone()));
        }
        if self.vms.get(vm).is_some_and(|record| record.phase != VmPhase::Unknown) {
            self.back_off(vm, now);
        }
        self.vm_warn(vm, now, note.clone());
        if let Some(record) = self.vms.edit(vm) {
            record.note = note;
            record.doing = None;
            record.order = None;
        }
        self.set_phase(vm, VmPhase::Stopped, now);
    }

    /// A domain on a host that the records do not put there.
    fn stray(&mut self, host: &HostId, domain: &DomainSurvey, now: Now) {
        let vm = &domain.vm;
        let Some(record) = self.vms.get(vm) else {
            // Of one of ours that was deleted while its host was away. What a backup may not know has an epoch of before the term.
            let ours = |epoch: Epoch| epoch.0 > self.term().0 && epoch <= self.highest_deleted_epoch();
            if domain.epoch.is_some_and(ours) {
                return self.destroy_orphan(host, &vm.clone());
            }
            return self.warn_seldom(
                Topic::Vm,
                now,
                format!("{host} has a domain {vm} of which nothing is known; it is left alone"),
            );
        };
        let in_move = |m: &crate::record::MoveRecord| m.view.source == *host || m.view.target == *host;
        if record.r#move.and_then(|id| self.moves.get(&id)).is_some_and(in_move) {
            return;
        }
        let owner = record.owner.as_ref() == Some(host);
        let lower = domain.epoch.is_some_and(|epoch| epoch < record.epoch);
        // Under the very epoch that was stopped: the stop was confirmed, so it was not to come back.
        let stopped = owner && record.phase == VmPhase::Stopped && domain.epoch == Some(record.epoch);
        let left_over = match domain.part {
            Part::Incoming => true,
            Part::MigratedAway => !owner,
            Part::Resident => false,
        };
        if lower || stopped || left_over {
            self.destroy_orphan(host, &vm.clone());
        } else {
            let text = format!(
                "{host} has a domain {vm} that should not be there, but nothing proves it stale; it is left alone"
            );
            self.warn_seldom(Topic::Vm, now, text);
        }
    }

    /// Has a stale domain taken away.
    pub(crate) fn destroy_orphan(&mut self, host: &HostId, vm: &VmId) {
        let purpose = Purpose::Orphan(vm.clone());
        let epoch = self.vms.get(vm).map_or(self.highest_deleted_epoch(), |record| record.epoch);
        if !self.told(host, &purpose) {
            let order = self.order_number();
            self.tell(host, order, epoch, Act::Destroy { vm: vm.clone() }, purpose);
        }
    }

    /// The highest epoch of a VM that was deleted.
    pub(crate) fn highest_deleted_epoch(&self) -> Epoch {
        self.counters.get(&()).map_or(Epoch(0), |counters| counters.epochs)
    }

    /// A host was booted anew: it has none of its VMs any more, but its first survey is to say so.
    pub(crate) fn vms_after_boot_of(&mut self, host: &HostId, now: Now) {
        for vm in self.vms_of(host) {
            let Some(phase) = self.vms.get(&vm).map(|record| record.phase) else { continue };
            if matches!(phase, VmPhase::Starting | VmPhase::Running | VmPhase::Paused | VmPhase::Stopping) {
                if let Some(record) = self.vms.edit(&vm) {
                    record.doing = None;
                    record.order = None;
                }
                self.set_phase(&vm, VmPhase::Unknown, now);
            }
        }
    }
}
