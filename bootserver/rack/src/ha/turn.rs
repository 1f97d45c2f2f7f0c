//! Whose turn it is when VMs of failed hosts are started again.
//!
//! Owns: each one's delay, and who waits for whom. Never does: choose a host, or start a VM.

use super::may_run_in;
use crate::Rack;
use crate::event::Now;
use crate::record::{Fence, HostRecord, VmRecord};
use proto::VmId;
use proto::view::VmPhase;
use proto::vm::Priority;

/// Hosts whose fences are so far apart have failed together: their slots are written in turn. Milliseconds.
const TOGETHER_MS: u64 = 5_000;

impl Rack {
    /// A VM's host has failed, or was booted anew under it: it starts again when its restart says so, if at all.
    pub(crate) fn lost_with_host(&mut self, vm: &VmId, note: String, now: Now) {
        self.gone(vm, note, now);
        let Some(record) = self.vms.edit(vm) else { return };
        let delay_ms = record.restart.delay_ms();
        record.delayed_until_ms = Some(now.unix_ms + delay_ms);
        if delay_ms > 0 {
            self.ha.delayed.insert(vm.clone(), now.mono_ms + delay_ms);
        }
        self.heed_never(vm, now);
    }

    /// A VM that went with its host and is never started again by itself waits for nothing.
    pub(crate) fn heed_never(&mut self, vm: &VmId, now: Now) {
        let waits_for_nothing = |record: &&mut VmRecord| {
            let waits = record.run && record.phase == VmPhase::Stopped && record.delayed_until_ms.is_some();
            waits && record.restart.priority == Priority::Never
        };
        let Some(record) = self.vms.edit(vm).filter(waits_for_nothing) else { return };
        record.run = false;
        record.note = format!("{}; this VM is not started again by itself", record.note);
        self.vm_info(vm, now, format!("{vm} is not started again by itself"));
    }

    /// After a restart of the server: what is left of each delay by the wall clock, which may have been set back meanwhile.
    pub(crate) fn take_up_delays(&mut self, now: Now) {
        for record in self.vms.values() {
            let left_ms = record.delayed_until_ms.unwrap_or(0).saturating_sub(now.unix_ms);
            let left_ms = left_ms.min(record.restart.delay_ms());
            if left_ms > 0 {
                self.ha.delayed.insert(record.spec.name.clone(), now.mono_ms + left_ms);
            }
        }
    }

    /// It is being started all the same, or is gone.
    pub(crate) fn forget_delay(&mut self, vm: &VmId) {
        self.ha.delayed.remove(vm);
    }

    /// Its delay has been set anew, and counts from now at the latest.
    pub(crate) fn shorten_delay(&mut self, vm: &VmId, now: Now) {
        let Some(record) = self.vms.edit(vm) else { return };
        let delay_ms = record.restart.delay_ms();
        record.delayed_until_ms = record.delayed_until_ms.map(|until| until.min(now.unix_ms + delay_ms));
        if let Some(until_mono_ms) = self.ha.delayed.get_mut(vm) {
            *until_mono_ms = (*until_mono_ms).min(now.mono_ms + delay_ms);
        }
        self.touch_vm(vm);
    }

    /// Whether a VM that is to run waits for its own delay or for that of one that goes before it.
    pub(crate) fn awaits_its_turn(&mut self, vm: &VmId, now: Now) -> bool {
        self.ha.delayed.retain(|_, until_mono_ms| *until_mono_ms > now.mono_ms);
        self.goes_before(vm, now).is_some() || self.fence_before(vm, now).is_some()
    }

    /// The host that failed together with a VM's own and is not fenced yet, with VMs that take what room there is before that one. It is waited for
    /// so long only, whatever becomes of its fence.
    fn fence_before(&self, vm: &VmId, now: Now) -> Option<&HostRecord> {
        let record = self.vms.get(vm).filter(|record| record.delayed_until_ms.is_some())?;
        let fence_ms = self.policy.ha.fence_ms;
        let goes_first = |other: &VmId| {
            let other = self.vms.get(other).filter(|other| other.run && may_run_in(other.phase));
            other.is_some_and(|other| other.restart.priority < record.restart.priority)
        };
        self.hosts.values().find(|host| {
            let fenced_soon = match host.fence {
                None => {
                    let lost = host.accepted && host.joined() && self.needs_fence(&host.id);
                    lost && self.waited_ms(&host.id) + TOGETHER_MS >= fence_ms
                }
                Some(Fence::Cutting) => true,
                Some(Fence::Done) => false,
            };
            let sign_mono_ms = self.live.get(&host.id).map_or(0, |live| live.sign_mono_ms);
            let recent = now.mono_ms.saturating_sub(sign_mono_ms) < fence_ms + 2 * TOGETHER_MS;
            fenced_soon && recent && self.vms_of(&host.id).iter().any(goes_first)
        })
    }

    /// The VM with a delay that another waits for, itself before others, and until when.
    fn goes_before(&self, vm: &VmId, now: Now) -> Option<(&VmId, u64)> {
        let goes_first = |other: &VmId| {
            let own = self.vms.get(vm).map(|record| record.restart.priority);
            let others = self.vms.get(other).filter(|record| record.run && record.phase == VmPhase::Stopped);
            others.is_some_and(|record| Some(record.restart.priority) < own)
        };
        let delayed = || self.ha.delayed.iter().filter(|(_, until_mono_ms)| **until_mono_ms > now.mono_ms);
        let own = delayed().find(|(other, _)| *other == vm);
        // One that did not go with a host takes back no more than was its own.
        let went_with_host = self.vms.get(vm).is_some_and(|record| record.delayed_until_ms.is_some());
        own.or_else(|| delayed().find(|(other, _)| went_with_host && goes_first(other)))
            .map(|(other, until)| (other, *until))
    }

    /// Why a VM that is to run is not being started, where it is for what has failed or may have.
    pub(crate) fn why_held_back(&self, record: &VmRecord, now: Now) -> Option<String> {
        if self.frozen() {
            return Some("waits: the rack is frozen, so nothing is started by itself".to_owned());
        }
        let vm = &record.spec.name;
        let Some((other, until_mono_ms)) = self.goes_before(vm, now) else {
            if self.placed_later.contains(vm) {
                return Some("waits for its turn to be placed".to_owned());
            }
            let host = self.fence_before(vm, now)?;
            return Some(format!("waits for the fence of {}, whose VMs go first", host.name));
        };
        let seconds = (until_mono_ms - now.mono_ms).div_ceil(1000);
        Some(if other == vm {
            format!("waits {seconds} s more: it is started no sooner after its host was fenced")
        } else {
            format!("waits for {other}, which goes first and is held back for {seconds} s more")
        })
    }
}
