//! The record made true: what the hosts run, held against what the backup says.
//!
//! Owns: that one step, all of it in one transaction. Never does: start a VM; what is to run and runs nowhere is Stopped, and goes the way
//! of every VM that is to run.
//!
//! | of a VM the hosts show | it becomes |
//! |---|---|
//! | one guest of the highest epoch, with its ways to its disks | what runs there, under that epoch |
//! | a guest that was cut off from its disks | destroyed; only when it is gone is the VM Stopped, or Failed if a disk of it is not there |
//! | a guest that was sent away and stands still, with its ways | a move that is called off: it goes on there |
//! | one that was received whole, and no such source | a move past its commit: it is let run there |
//! | nothing | Stopped, under an epoch above all that were ever given |
//! | nothing, and a disk of it is not on the storage | Failed: it was deleted since, perhaps |
//! | two guests of one epoch | Failed, and a person must look: this cannot be |

use crate::Rack;
use crate::event::Now;
use crate::moves::Transit;
use crate::record::{MoveRecord, VmRecord};
use proto::agent::{DomainState, DomainSurvey, HostSurvey, KnownGuest, Part};
use proto::event::Topic;
use proto::view::{MovePhase, VmPhase};
use proto::vm::Restart;
use proto::{DiskId, Epoch, HostId, MoveId, VmId};
use std::collections::{BTreeMap, BTreeSet};

/// A domain of a VM, and what its host knows of the guest in it.
struct Seen {
    host: HostId,
    domain: DomainSurvey,
    guest: Option<KnownGuest>,
}

impl Seen {
    /// Orders are heard under the highest epoch that was ever ordered of it there.
    fn epoch(&self) -> Option<Epoch> {
        let floor = self.guest.as_ref().map_or(Epoch(0), |guest| guest.floor);
        self.domain.epoch.map(|epoch| epoch.max(floor))
    }

    fn r#move(&self) -> Option<MoveId> {
        self.guest.as_ref()?.r#move
    }

    /// It runs there, or may be let run by its own agent.
    fn lives(&self) -> bool {
        let still = self.domain.state == DomainState::Suspended;
        self.domain.part == Part::Resident && !still && self.domain.epoch.is_some()
    }

    /// It was sent away, and runs by order only.
    fn sent(&self) -> bool {
        let still = self.domain.state == DomainState::Suspended || self.domain.part == Part::MigratedAway;
        still && self.domain.epoch.is_some() && self.r#move().is_some()
    }

    /// It came whole, and runs by order only.
    fn received(&self) -> bool {
        let whole = self.guest.as_ref().is_some_and(|guest| guest.received);
        self.domain.part == Part::Incoming && whole && self.domain.epoch.is_some() && self.r#move().is_some()
    }
}

/// What becomes of a VM.
enum Fate {
    Runs { host: HostId, epoch: Epoch, phase: VmPhase },
    Moves { id: MoveId, phase: MovePhase, source: HostId, target: HostId, epoch: Epoch },
    Goes { host: HostId, epoch: Epoch },
    Stopped,
    Lacks(DiskId),
    Doubled(String),
}

impl Rack {
    /// Makes the record true. All hosts were heard or are fenced.
    pub(super) fn adopt(&mut self, missing: &BTreeSet<DiskId>, heard: BTreeMap<HostId, HostSurvey>, now: Now) {
        let mut seen: BTreeMap<VmId, Vec<Seen>> = BTreeMap::new();
        for (host, survey) in heard {
            // Of one that fell silent after it was heard and was fenced, nothing is left.
            let there = self.hosts.get(&host).is_some_and(|record| record.fence.is_none());
            let report = self.live.get(&host).and_then(|live| live.report.as_ref()).filter(|_| there);
            for domain in report.map(|report| report.domains.as_slice()).unwrap_or_default() {
                let guest = survey.guests.iter().find(|guest| guest.spec.name == domain.vm).cloned();
                let one = Seen { host: host.clone(), domain: domain.clone(), guest };
                seen.entry(domain.vm.clone()).or_default().push(one);
            }
        }
        self.end_moves_of_the_backup(now);
        let (mut found, mut runs) = (0, 0);
        let vms: BTreeSet<VmId> = self.vms.ids().into_iter().chain(seen.keys().cloned()).collect();
        for vm in vms {
            let seen = seen.remove(&vm).unwrap_or_default();
            found += u32::from(!self.vms.contains(&vm));
            if !self.take_spec(&vm, &seen, now) {
                continue;
            }
            let fate = self.fate(&vm, &seen, missing);
            runs += u32::from(matches!(fate, Fate::Runs { .. } | Fate::Moves { .. }));
            self.meet(&vm, fate, now);
        }
        let text = format!(
            "the survey after the restore is over: {runs} VMs run and were taken over as they are, {found} of them unknown to the backup"
        );
        self.info(Topic::Server, now, text, |_| ());
    }

    /// Moves that the backup has as under way have ended since, or are found under way by what hosts show.
    fn end_moves_of_the_backup(&mut self, now: Now) {
        for id in self.live_moves().collect::<Vec<_>>() {
            if let Some(record) = self.moves.edit(&id) {
                record.view.phase = MovePhase::Aborted;
                record.view.ended_ms = Some(now.unix_ms);
                record.view.failure = Some("it was under way when the backup was taken".to_owned());
                (record.source_order, record.target_order) = (None, None);
            }
        }
        for vm in self.vms.ids() {
            if let Some(record) = self.vms.edit(&vm) {
                (record.r#move, record.doing, record.order) = (None, None, None);
            }
        }
    }

    /// A VM is what its host was told that it is; one that the backup does not know gets a record. False when nobody knows it.
    fn take_spec(&mut self, vm: &VmId, seen: &[Seen], now: Now) -> bool {
        let newest = seen.iter().filter(|one| one.guest.is_some()).max_by_key(|one| one.epoch());
        let Some(mut spec) = newest.and_then(|one| one.guest.as_ref()).map(|guest| guest.spec.clone()) else {
            return self.vms.contains(vm);
        };
        if let Some(before) = self.vms.get(vm).map(|record| record.spec.clone()) {
            self.forget_macs(vm, &before);
        }
        for vif in &spec.vifs {
            if let Some(other) = self.vm_macs.insert(vif.mac, vm.clone()) {
                self.vm_warn(vm, now, format!("{vm} and {other} both have the address {}", vif.mac));
            }
        }
        // The storage has said which disks there are: each of them has a record.
        spec.disks.retain(|disk| self.disks.contains(disk));
        for disk in &spec.disks {
            if self.disks.get(disk).is_some_and(|record| record.vm.as_ref() != Some(vm))
                && let Some(record) = self.disks.edit(disk)
            {
                record.vm = Some(vm.clone());
            }
        }
        if let Some(record) = self.vms.edit(vm) {
            record.spec = spec;
            return true;
        }
        let note = "made after the backup, and found running".to_owned();
        self.vm_info(vm, now, format!("{vm} was {note}: it is kept as it is"));
        self.vms.put(VmRecord {
            spec,
            owner: None,
            epoch: Epoch(0),
            phase: VmPhase::Stopped,
            r#move: None,
            doing: None,
            order: None,
            run: true,
            since_ms: now.unix_ms,
            note,
            moved: None,
            restart: Restart::default(),
            delayed_until_ms: None,
            crashed_on: None,
        });
        true
    }

    fn fate(&self, vm: &VmId, seen: &[Seen], missing: &BTreeSet<DiskId>) -> Fate {
        let Some(record) = self.vms.get(vm) else { return Fate::Stopped };
        let ways = || record.spec.disks.iter().filter_map(|disk| self.disks.get(disk)).flat_map(|d| d.grants.keys());
        let granted = |disk: &DiskId, host: &HostId| self.disks.get(disk).is_some_and(|d| d.grants.contains_key(host));
        let reaches = |one: &&Seen| record.spec.disks.iter().all(|disk| granted(disk, &one.host));

        let whole: Vec<&Seen> = seen.iter().filter(|one| one.lives()).filter(reaches).collect();
        if let Some(epoch) = whole.iter().filter_map(|one| one.epoch()).max() {
            let best: Vec<&&Seen> = whole.iter().filter(|one| one.epoch() == Some(epoch)).collect();
            let [one] = best[..] else {
                let hosts: Vec<_> = best.iter().map(|one| one.host.to_string()).collect();
                return Fate::Doubled(hosts.join(" and "));
            };
            // One that its agent holds is let go on; an operator's pause is known if it is as old as the backup.
            let paused = one.domain.state == DomainState::Paused && record.phase == VmPhase::Paused;
            let phase = if paused { VmPhase::Paused } else { VmPhase::Running };
            return Fate::Runs { host: one.host.clone(), epoch, phase };
        }
        // One that may run, though cut off, is gone before another is begun.
        if let Some(one) = seen.iter().filter(|one| one.lives()).max_by_key(|one| one.epoch()) {
            let epoch = one.epoch().unwrap_or_default().max(record.epoch);
            return Fate::Goes { host: one.host.clone(), epoch };
        }
        let far = |than: &HostId| {
            let others = seen.iter().map(|one| &one.host).chain(ways()).chain(self.hosts.values().map(|host| &host.id));
            others.into_iter().find(|host| *host != than).cloned()
        };
        let newest =
            |fits: fn(&Seen) -> bool| seen.iter().filter(|one| fits(one)).filter(reaches).max_by_key(|one| one.epoch());
        let begun = |one: &Seen| Some((one.r#move()?, one.epoch()?, one.host.clone(), far(&one.host)?));
        if let Some((id, epoch, source, target)) = newest(Seen::sent).and_then(begun) {
            return Fate::Moves { id, phase: MovePhase::Aborting, source, target, epoch };
        }
        if let Some((id, epoch, target, source)) = newest(Seen::received).and_then(begun) {
            return Fate::Moves { id, phase: MovePhase::Activating, source, target, epoch };
        }
        match record.spec.disks.iter().find(|disk| missing.contains(disk)) {
            Some(disk) => Fate::Lacks(disk.clone()),
            None => Fate::Stopped,
        }
    }

    fn meet(&mut self, vm: &VmId, fate: Fate, now: Now) {
        match fate {
            Fate::Runs { host, epoch, phase } => {
                let before = self.vms.get(vm).and_then(|record| record.owner.clone());
                if before.is_some_and(|before| before != host) {
                    self.vm_info(vm, now, format!("{vm} runs on {host}: it was moved after the backup"));
                }
                self.take_over(vm, &host, epoch);
                self.set_phase(vm, phase, now);
            }
            Fate::Moves { id, phase, source, target, epoch } => {
                if phase == MovePhase::Activating {
                    self.take_over(vm, &target, self.next_epoch(epoch));
                } else {
                    self.take_over(vm, &source, epoch);
                }
                self.go_on_with_move(vm, id, (phase, source, target, epoch), now);
            }
            Fate::Goes { host, epoch } => {
                self.set_owner(vm, &host, epoch);
                let text = format!("{vm} on {host} was cut off from its disks; it is started anew when it is gone");
                self.vm_warn(vm, now, text);
                self.begin_destroy(vm, &host, now);
            }
            Fate::Lacks(disk) => {
                self.raise_epoch(vm);
                let note = self.disks.get(&disk).map(|record| record.failure.clone()).unwrap_or_default();
                self.vm_failed(vm, note, now);
            }
            Fate::Doubled(hosts) => {
                let note = format!("{hosts} both show it under one epoch; nothing is done with either");
                self.vm_failed(vm, note, now);
            }
            Fate::Stopped => {
                self.raise_epoch(vm);
                let ready = |disk: &DiskId| self.disks.get(disk).is_some_and(|record| record.ready);
                let Some(record) = self.vms.get(vm) else { return };
                if record.phase == VmPhase::Failed || !record.spec.disks.iter().all(ready) {
                    return;
                }
                match record.owner.clone().filter(|_| record.run && record.phase != VmPhase::Stopped) {
                    // Whether that host failed or the guest ended is not known: it starts again as after a failure, if at all.
                    Some(owner) => {
                        self.lost_with_host(vm, format!("it ran on {owner} by the backup, and no host has it"), now)
                    }
                    None => self.set_phase(vm, VmPhase::Stopped, now),
                }
            }
        }
    }

    /// What was granted before the restore goes on under the epoch that it is found to be of.
    fn take_over(&mut self, vm: &VmId, host: &HostId, epoch: Epoch) {
        for disk in self.vms.get(vm).map(|record| record.spec.disks.clone()).unwrap_or_default() {
            if let Some(grant) = self.disks.edit(&disk).and_then(|record| record.grants.get_mut(host)) {
                grant.epoch = epoch;
            }
        }
        self.set_owner(vm, host, epoch);
        if let Some(record) = self.vms.edit(vm) {
            record.run = true;
        }
    }

    /// Whatever is left of it anywhere is of a lower epoch.
    fn raise_epoch(&mut self, vm: &VmId) {
        let term = self.term().0;
        if let Some(record) = self.vms.edit(vm) {
            record.epoch = Epoch(record.epoch.0.max(term));
        }
    }

    fn go_on_with_move(
        &mut self,
        vm: &VmId,
        id: MoveId,
        (phase, source, target, epoch): (MovePhase, HostId, HostId, Epoch),
        now: Now,
    ) {
        let off = phase == MovePhase::Aborting;
        let orders = off.then(|| (self.order_number(), self.order_number())).unzip();
        let mut record = MoveRecord::begun(id, vm.clone(), (source, target), epoch, now.unix_ms);
        record.view.reason = "found under way after the restore".to_owned();
        record.view.phase = phase;
        record.view.failure = off.then(|| "the server was restored from a backup".to_owned());
        (record.source_order, record.target_order, record.sent) = (orders.0, orders.1, true);
        self.moves.put(record);
        if let Some(record) = self.vms.edit(vm) {
            record.r#move = Some(id);
        }
        self.set_phase(vm, VmPhase::Moving, now);
        self.transits.insert(id, Transit::default());
        self.move_info(id, now, format!("the move of {vm} is taken up where it was found"));
    }
}
