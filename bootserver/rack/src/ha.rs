//! Failures of hosts: signs of life, the fence, and when nothing is done because it is us.
//!
//! Owns: the heartbeat disk, each host's slot, how far a host is fenced, the freeze. Never does: start a VM; once a host is fenced its
//! VMs are Stopped and still to run, and `vm` does the rest as for any other.
//!
//! ```text
//! (none) --no sign of life for fence_ms--> Cutting --all cut, slots read since, quiet for fence_ms--> Done
//!    ^                                                                                                |
//!    +------------------- a report of the same boot, or the join of a newer one ----------------------+
//! ```
//! On a SAN, where nobody can be cut off, a host's power is switched off in place of the cut: `power`.
//! Each step is in the host's record before anything relies on it, and is asked for again until it is so. Time runs only as
//! far as the slots were read: who cannot see does not judge. The reasons for each number are in docs/design/0006.

mod power;
mod room;
#[cfg(test)]
mod tests;
mod turn;

use crate::Rack;
use crate::event::Now;
use crate::record::{Fence, HostRecord, VmRecord};
use proto::agent::{Heartbeat, LeaseState};
use proto::api::{Accepted, Refusal};
use proto::event::Topic;
use proto::heartbeat::{DISK, DISK_MIB, SLOTS, Slot};
use proto::view::{FenceStep, HaView, VmPhase};
use proto::{DiskId, Epoch, HostId, VmId};
use std::collections::BTreeMap;

/// If more than one host and more than this many in a hundred vanish together, nothing is done by itself.
const VANISHED_PERCENT_MAX: usize = 30;

/// What is known of failures and not kept.
#[derive(Default)]
pub(crate) struct Watch {
    /// When the reading of the slots began that was heard last.
    read_mono_ms: Option<u64>,
    /// Why nothing is fenced or started by itself.
    frozen: Option<String>,
    /// Why the slots cannot be read, and whether the log says so.
    blind: Option<(String, bool)>,
    /// Host failures that can be borne, and the largest VM, MiB, with which it is one still; as last reckoned.
    room: Option<(u32, u64)>,
    /// VMs of fenced hosts that are to wait, and until when: who comes after them does not take their room meanwhile.
    delayed: BTreeMap<VmId, u64>,
}

/// Whether this is the disk of heartbeats, which is no operator's.
pub(crate) fn is_heartbeat(disk: &DiskId) -> bool {
    disk.as_str() == DISK
}

fn heartbeat_disk() -> DiskId {
    // A name of letters and a dash.
    DISK.parse().expect("the heartbeat disk's name is a disk's")
}

impl Watch {
    /// Whether the slots were read since the server started.
    pub(crate) fn is_read(&self) -> bool {
        self.read_mono_ms.is_some()
    }
}

impl Rack {
    /// Sees that there is a heartbeat disk: from the first host on that is let in.
    fn make_heartbeat_disk(&mut self, now: Now) {
        let disk = heartbeat_disk();
        if !self.disks.contains(&disk) {
            self.make_disk(disk, DISK_MIB, None, None, now);
        }
    }

    /// Sees that a host that reports has a slot and may write it.
    pub(crate) fn keep_heartbeat(&mut self, host: &HostId, now: Now) {
        let Some(record) = self.hosts.get(host) else { return };
        if !self.slots_are_known() {
            return;
        }
        if record.slot.is_none() {
            let taken: Vec<u32> = self.hosts.values().filter_map(|record| record.slot).collect();
            let Some(free) = (0..SLOTS).find(|slot| !taken.contains(slot)) else {
                let text = format!("{host} gets no slot on the heartbeat disk, as all {SLOTS} are taken: remove hosts");
                return self.warn_seldom(Topic::Host, now, text);
            };
            if let Some(record) = self.hosts.edit(host) {
                record.slot = Some(free);
            }
        }
        self.make_heartbeat_disk(now);
        // Every host has it under the same epoch: it says nothing of a VM.
        if self.grant(&heartbeat_disk(), host, Epoch(0), now) {
            self.to_answer.insert(host.clone());
        }
    }

    /// Where a host writes its heartbeat, once the storage has confirmed that it may.
    pub(crate) fn heartbeat_of(&self, host: &HostId) -> Option<Heartbeat> {
        let record = self.hosts.get(host).filter(|record| record.fence.is_none())?;
        let disk = heartbeat_disk();
        let ha = &self.policy.ha;
        Some(Heartbeat {
            access: self.is_granted(&disk, host).then(|| self.access(&disk, host))??,
            slot: record.slot?,
            write_ms: ha.heartbeat_ms,
            lease_ms: ha.lease_ms,
            watchdog_ms: ha.watchdog_ms,
            cuttable: !self.is_external(),
        })
    }

    /// Whether a host has said that it may run guests.
    pub(crate) fn leased(&self, host: &HostId) -> bool {
        let report = self.live.get(host).and_then(|live| live.report.as_ref());
        report.is_some_and(|report| report.lease == LeaseState::Valid)
    }

    /// Whether a host can be given a VM.
    pub(crate) fn usable(&self, host: &HostId) -> bool {
        self.reporting(host)
            && self.leased(host)
            && !self.goes_down(host)
            && self.hosts.get(host).is_some_and(|record| record.fence.is_none())
    }

    /// Whether nothing is to be started by itself.
    pub(crate) fn frozen(&self) -> bool {
        self.ha.frozen.is_some() || self.superseded.is_some()
    }

    /// The slots were read.
    pub(crate) fn heartbeats(&mut self, read_mono_ms: u64, slots: Vec<(u32, Slot)>, now: Now) {
        if let Some((_, said)) = self.ha.blind.take() {
            self.version += 1;
            if said {
                self.info(Topic::Storage, now, "heartbeats are read again".to_owned(), |_| ());
            }
        }
        self.slots_found(&slots);
        let before_mono_ms = self.ha.read_mono_ms.replace(read_mono_ms);
        self.forgive_blindness(before_mono_ms, read_mono_ms);
        for (at, slot) in slots {
            // What stands in a slot that is another's by now is its former holder's.
            if self.hosts.get(&slot.host).is_none_or(|record| record.slot != Some(at)) {
                continue;
            }
            let live = self.live(&slot.host);
            if live.beat.as_ref() != Some(&slot) {
                // What is first seen may have been written long ago, unless the slot is seen to move.
                let moved = live.beat.is_some();
                live.beat = Some(slot);
                if moved {
                    (live.sign_mono_ms, live.signed) = (now.mono_ms, true);
                    live.wrote_after_mono_ms = before_mono_ms.unwrap_or(0);
                }
            }
        }
        self.watch_hosts(now);
    }

    /// The slots could not be read. What stands in them is written anew every few seconds, so a disk that is gone is made anew.
    pub(crate) fn heartbeats_unread(&mut self, why: &str, gone: bool, now: Now) {
        let disk = heartbeat_disk();
        if self.disks.get(&disk).is_none_or(|record| !record.ready) {
            return; // it is being made, for the first time or anew
        }
        let mut text = format!("{why}: a host that fails is not noticed meanwhile");
        // Amid a survey, or where another server rules, what there is is not for us to say.
        if gone && !self.is_external() && !self.orders_nothing() {
            text = format!("{text}; the heartbeat disk is made anew");
            self.make_anew(&disk, now);
        }
        let before = self.ha.blind.take();
        let told = before.as_ref().is_some_and(|(before, _)| *before == text);
        let said = before.is_some_and(|(_, said)| said);
        if !told {
            self.version += 1;
        }
        let said = if told { said } else { self.warn_repeated(Topic::Storage, now, text.clone(), |_| ()) || said };
        self.ha.blind = Some((text, said));
    }

    /// Who wrote last, and when, is not known any more: everybody's silence begins anew, as after a start of the server.
    pub(crate) fn wait_in_full(&mut self, now: Now) {
        for live in self.live.values_mut() {
            (live.sign_mono_ms, live.beat, live.thawed) = (now.mono_ms, None, None);
        }
    }

    /// Fences hosts without a sign of life, step by step.
    pub(crate) fn watch_hosts(&mut self, now: Now) {
        let Some(read_mono_ms) = self.ha.read_mono_ms else { return };
        let fence_ms = self.policy.ha.fence_ms;
        self.find_freeze(now);
        for host in self.hosts.ids() {
            let Some(record) = self.hosts.get(&host).filter(|record| record.accepted && record.joined()) else {
                continue;
            };
            let (fence, quiet_ms) = (record.fence, self.quiet_ms(&host));
            match fence {
                None if self.waited_ms(&host) >= fence_ms && !self.frozen() && self.needs_fence(&host) => {
                    self.begin_fence(&host, now)
                }
                Some(Fence::Cutting) if self.is_external() => self.fence_by_power(&host, read_mono_ms, now),
                Some(Fence::Cutting) => {
                    let cut = self.cut_host(&host, now);
                    let cut_mono_ms = self.live(&host).cut_mono_ms.filter(|_| cut);
                    self.live(&host).cut_mono_ms = cut.then_some(cut_mono_ms.unwrap_or(now.mono_ms));
                    // A write that was on its way before the cut shows in what was read after it.
                    if cut_mono_ms.is_some_and(|at| read_mono_ms >= at) && quiet_ms >= fence_ms {
                        self.end_fence(&host, now);
                    }
                }
                None | Some(Fence::Done) => {}
            }
        }
    }

    /// For how long a host has shown no sign of life, as far as the slots were read, milliseconds.
    fn quiet_ms(&self, host: &HostId) -> u64 {
        let sign_mono_ms = self.live.get(host).map(|live| live.sign_mono_ms);
        self.ha.read_mono_ms.zip(sign_mono_ms).map_or(0, |(read_mono_ms, sign)| read_mono_ms.saturating_sub(sign))
    }

    /// How much of that counts for a fence. When what kept many silent is mended they return one after another, and the last is to have the
    /// time that the first had: once for each silence, or one that comes and goes would keep one that is dead from ever being fenced.
    fn waited_ms(&self, host: &HostId) -> u64 {
        let Some((live, read_mono_ms)) = self.live.get(host).zip(self.ha.read_mono_ms) else { return 0 };
        let thawed = live.thawed.filter(|(sign, _)| *sign == live.sign_mono_ms);
        read_mono_ms.saturating_sub(thawed.map_or(live.sign_mono_ms, |(_, thawed)| thawed))
    }

    /// Whether anything waits for its end.
    fn needs_fence(&self, host: &HostId) -> bool {
        self.may_run_vms(host) || self.holds_disks(host)
    }

    /// Whether guests of these records may run there.
    fn may_run_vms(&self, host: &HostId) -> bool {
        self.may_run_unknown(host) || self.vms_that_may_run(host) > 0
    }

    /// How many.
    pub(crate) fn vms_that_may_run(&self, host: &HostId) -> usize {
        let may = |vm: &&VmId| self.vms.get(vm).is_some_and(|record| may_run_in(record.phase));
        self.owned.get(host).map_or(0, |vms| vms.iter().filter(may).count())
    }

    fn begin_fence(&mut self, host: &HostId, now: Now) {
        if let Some(record) = self.hosts.edit(host) {
            (record.fence, record.off) = (Some(Fence::Cutting), None);
        }
        let live = self.live(host);
        (live.cut_mono_ms, live.signed) = (None, false);
        let quiet_s = self.policy.ha.fence_ms / 1000;
        let mut text = format!("{host} has shown no sign of life for {quiet_s} s: it is being fenced");
        if self.is_external() {
            // What an earlier fence was told says nothing of this one.
            self.forget_fence_order(host);
            text = format!("{text}; it {}", self.power_off_wanted(host));
        } else {
            self.cut_host(host, now);
        }
        self.warn(Topic::Host, now, text, |e| e.host = Some(host.clone()));
    }

    /// It can write nowhere and runs nothing: its VMs are free.
    fn end_fence(&mut self, host: &HostId, now: Now) {
        if let Some(record) = self.hosts.edit(host) {
            record.fence = Some(Fence::Done);
        }
        if self.is_external() {
            self.end_ways_of_boot(host, now);
        }
        for order in std::mem::take(&mut self.live(host).orders) {
            self.order_dropped(order);
        }
        // What it last said to have is had no more.
        self.live(host).report = None;
        if self.surveying() {
            // What becomes of its VMs is decided when all others were heard.
            let text = format!("{host} is fenced: what it had is started elsewhere, unless another host has it");
            return self.warn(Topic::Host, now, text, |e| e.host = Some(host.clone()));
        }
        self.vms_after_boot_of(host, now);
        self.moves_after_boot_of(host, "was fenced", now);
        for vm in self.vms_of(host) {
            // Whatever is left of it there is of a lower epoch from here on, and goes when the host is back.
            let next = self.vms.get(&vm).filter(|_| self.may_run(&vm)).map(|record| self.next_epoch(record.epoch));
            if let (Some(epoch), Some(record)) = (next, self.vms.edit(&vm)) {
                record.epoch = epoch;
            }
            self.touch_vm(&vm);
        }
        self.warn(Topic::Host, now, format!("{host} is fenced: its VMs are started elsewhere"), |e| {
            e.host = Some(host.clone());
        });
    }

    fn may_run(&self, vm: &VmId) -> bool {
        self.vms.get(vm).is_some_and(|record| matches!(record.phase, VmPhase::Unknown | VmPhase::Moving))
    }

    /// A VM whose host was fenced, when its move has ended: it runs nowhere.
    pub(crate) fn step_unknown(&mut self, vm: &VmId, record: &VmRecord, now: Now) {
        let Some(owner) = record.owner.clone().filter(|_| record.r#move.is_none()) else { return };
        if self.hosts.get(&owner).is_none_or(|host| host.fence != Some(Fence::Done)) {
            return;
        }
        self.lost_with_host(vm, format!("{owner} has failed"), now);
    }

    /// A host that was fenced reports under the same boot: it is used again, with new ways to the storage.
    pub(crate) fn heard_after_fence(&mut self, host: &HostId, now: Now) {
        if self.hosts.get(host).is_none_or(|record| record.fence != Some(Fence::Done)) {
            return;
        }
        // While VMs of it still end their moves it stays as it is: their records are to say first that they are gone. What a backup says of
        // moves ends nothing, and amid the survey the host is to be heard.
        if !self.surveying() && self.vms_of(host).iter().any(|vm| self.may_run(vm)) {
            return;
        }
        self.says_it_was_on(host, now);
        if let Some(record) = self.hosts.edit(host) {
            (record.fence, record.off) = (None, None);
        }
        let live = self.live(host);
        live.cut_mono_ms = None;
        live.sign_mono_ms = now.mono_ms;
        self.info(Topic::Host, now, format!("{host} is back after it was fenced"), |e| e.host = Some(host.clone()));
    }

    /// Looks whether so many hosts vanished together that it must be us.
    fn find_freeze(&mut self, now: Now) {
        let lost_ms = self.policy.lost_ms;
        let (mut vanished, mut there) = (Vec::new(), 0);
        for record in self.hosts.values().filter(|r| r.accepted && r.joined() && r.fence.is_none()) {
            let Some(live) = self.live.get(&record.id) else { continue };
            if now.mono_ms.saturating_sub(live.sign_mono_ms) <= lost_ms {
                there += 1;
            } else if self.needs_fence(&record.id) {
                vanished.push(record.name.clone());
            }
        }
        let many = vanished.len() > 1 && vanished.len() * 100 > (vanished.len() + there) * VANISHED_PERCENT_MAX;
        match (many, self.ha.frozen.is_some()) {
            (true, false) => {
                let of = vanished.len() + there;
                let names = vanished.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
                let why = format!(
                    "{} of {of} hosts vanished together ({names}): that is rather our own network or storage, so nothing is \
                     fenced or started by itself until enough are back or an operator thaws the rack",
                    vanished.len()
                );
                self.error(Topic::Server, now, format!("frozen: {why}"), |_| ());
                self.ha.frozen = Some(why);
            }
            (false, true) => {
                self.ha.frozen = None;
                for live in self.live.values_mut() {
                    let sign_mono_ms = live.sign_mono_ms;
                    live.thawed.take_if(|(sign, _)| *sign != sign_mono_ms);
                    live.thawed.get_or_insert((sign_mono_ms, now.mono_ms));
                }
                self.info(Topic::Server, now, "no longer frozen".to_owned(), |_| ());
            }
            _ => {}
        }
    }

    /// An operator says that the hosts that vanished are dead: each is fenced as if it had vanished alone.
    pub(crate) fn thaw(&mut self, now: Now) -> Result<Accepted, Refusal> {
        if self.ha.frozen.is_none() {
            return Err(Refusal::Unavailable { detail: "the rack is not frozen".to_owned() });
        }
        let lost_ms = self.policy.lost_ms;
        let vanished = self.hosts.values().filter(|record| {
            let quiet = |live: &crate::host::Live| now.mono_ms.saturating_sub(live.sign_mono_ms) > lost_ms;
            record.fence.is_none() && self.live.get(&record.id).is_some_and(quiet) && self.needs_fence(&record.id)
        });
        for host in vanished.map(|record| record.id.clone()).collect::<Vec<_>>() {
            self.begin_fence(&host, now);
        }
        self.ha.frozen = None;
        self.info(Topic::Operator, now, "the rack was thawed".to_owned(), |_| ());
        Ok(Accepted::Done)
    }

    pub(crate) fn fence_shown(&self, record: &HostRecord) -> Option<FenceStep> {
        match record.fence {
            Some(Fence::Cutting) if self.is_external() && record.off.is_none() => Some(FenceStep::Power),
            Some(Fence::Cutting) => Some(FenceStep::Cutting),
            Some(Fence::Done) => Some(FenceStep::Done),
            None => {
                let lost = self.live.get(&record.id).is_some_and(|live| live.lost);
                (lost && self.needs_fence(&record.id)).then_some(FenceStep::Waiting)
            }
        }
    }

    /// When the wait of a fence is over, Unix milliseconds, if nothing is heard until then. It stands still while the slots are not read.
    pub(crate) fn fence_at_ms(&self, record: &HostRecord, now: Now) -> Option<u64> {
        let step = self.fence_shown(record)?;
        let waits = match step {
            FenceStep::Waiting => !self.frozen(),
            FenceStep::Power => self.quiet_ms(&record.id) < self.policy.ha.fence_ms,
            FenceStep::Cutting => true,
            FenceStep::Done => false,
        };
        let known = self.ha.is_read() && self.live.contains_key(&record.id);
        let waited_ms = if step == FenceStep::Waiting { self.waited_ms(&record.id) } else { self.quiet_ms(&record.id) };
        (waits && known).then(|| now.unix_ms + self.policy.ha.fence_ms.saturating_sub(waited_ms))
    }

    pub(crate) fn lost_note(&self, record: &HostRecord) -> String {
        match self.fence_shown(record) {
            None if self.is_off(&record.id) => "is switched off; it has no VMs".to_owned(),
            None => "neither reports nor writes its heartbeat; it has no VMs".to_owned(),
            Some(_) if self.frozen() => {
                "neither reports nor writes its heartbeat; the rack is frozen, so its VMs stay its own".to_owned()
            }
            Some(FenceStep::Waiting) => {
                "neither reports nor writes its heartbeat; its lease is waited out, then its VMs start elsewhere"
                    .to_owned()
            }
            Some(FenceStep::Power) => self.power_off_wanted(&record.id),
            Some(FenceStep::Cutting) if self.is_external() => {
                "is off; its VMs start elsewhere when its slot has been read once more".to_owned()
            }
            Some(FenceStep::Cutting) => "is being cut off its VMs' disks".to_owned(),
            Some(FenceStep::Done) => "was fenced; its VMs run elsewhere".to_owned(),
        }
    }

    pub(crate) fn ha_shown(&self) -> HaView {
        let (failures_borne, room_mib) = self.ha.room.unwrap_or_default();
        let (frozen, blind) = (self.ha.frozen.clone(), self.ha.blind.as_ref().map(|(why, _)| why.clone()));
        let (standing_by, superseded) = (self.why_standing_by(), self.superseded.is_some());
        HaView { failures_borne, room_mib, frozen, blind, standing_by, superseded }
    }
}

/// Whether a VM's owner may run it, by the phase in its record.
fn may_run_in(phase: VmPhase) -> bool {
    match phase {
        VmPhase::Starting
        | VmPhase::Running
        | VmPhase::Paused
        | VmPhase::Moving
        | VmPhase::Stopping
        | VmPhase::Unknown => true,
        VmPhase::Creating | VmPhase::Stopped | VmPhase::Deleting | VmPhase::Failed => false,
    }
}
