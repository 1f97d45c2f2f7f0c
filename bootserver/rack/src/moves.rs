//! Moves: a VM goes from one host to another while it runs.
//!
//! Owns: the move's record and when it begins, fails and ends; `step` takes it from phase to phase. Never does: choose what
//! moves (that is `balance`).
//!
//! ```text
//! Preparing --Receive: Ok--> Copying --target: Received--> Committing --source cut--> Activating --Ok--> Releasing --> Done
//!     |                         |         owner, epoch + 1: the point of no return
//!     +-------------------------+--> Aborting --both sides cleared, target cut--> Aborted
//! ```
//! Before the commit every fault ends at the source, after it every step is repeated until it is so. But no side that cannot be
//! cleared is waited for while the VM runs nowhere: its disks are cut, and the VM is started elsewhere. After a restart the record
//! says the phase; orders are said again by the same number, storage jobs anew, and the survey tells what was reached.

mod step;
#[cfg(test)]
mod tests;

use crate::Rack;
use crate::event::Now;
use crate::orders::Purpose;
use crate::record::{Counters, MoveRecord};
use proto::agent::{DomainState, Permit, Stage};
use proto::api::{Accepted, MigrateVm, Refusal};
use proto::event::{LogEvent, Topic};
use proto::view::{MovePhase, MoveView, VmPhase};
use proto::{HostId, MoveId, VmId};

/// Ended moves that are kept.
const ENDED_KEPT: usize = 200;
/// The oldest are removed so many at once.
const ENDED_REMOVED_AT_ONCE: usize = 50;
/// A permit is good for so long from the move's begin, milliseconds.
const PERMIT_MS: u64 = 600_000;

/// What is known of a move and not kept.
#[derive(Default)]
pub(crate) struct Transit {
    /// When the server first looked at it, which after a restart is later than its begin.
    pub(crate) began_mono_ms: Option<u64>,
    /// When memory began to be copied.
    pub(crate) copying_mono_ms: Option<u64>,
    /// What the agents last said, and when that changed.
    pub(crate) stage: Option<Stage>,
    pub(crate) bytes: u64,
    pub(crate) progress_mono_ms: Option<u64>,
    /// When the target last showed the reception as under way.
    pub(crate) awaited_mono_ms: Option<u64>,
    /// A step that failed is tried again from then on.
    pub(crate) again_mono_ms: Option<u64>,
    /// Attempts to have the guest run at the source again.
    pub(crate) resumes: u32,
}

impl Rack {
    /// Moves under way.
    pub(crate) fn live_moves(&self) -> impl Iterator<Item = MoveId> {
        // Ended ones are behind those that are kept for show; both are few.
        self.moves.values().rev().filter(|m| !m.ended()).map(|m| m.view.id)
    }

    /// Moves under way that a host has a part in.
    pub(crate) fn moves_of(&self, host: &HostId) -> impl Iterator<Item = MoveId> {
        let part = move |m: &&MoveRecord| !m.ended() && (m.view.source == *host || m.view.target == *host);
        self.moves.values().filter(part).map(|m| m.view.id)
    }

    pub(crate) fn move_shown(&self, record: &MoveRecord) -> MoveView {
        let mut view = record.view.clone();
        if let Some(transit) = self.transits.get(&view.id).filter(|_| !record.ended()) {
            view.stage = transit.stage;
            view.bytes = view.bytes.max(transit.bytes);
        }
        view
    }

    pub(crate) fn migrate_vm(&mut self, vm: &VmId, request: MigrateVm, now: Now) -> Result<Accepted, Refusal> {
        let record = self.vm_or_refuse(vm)?;
        let phase = self.phase_shown(record);
        if let Some(r#move) = record.r#move {
            return Err(Refusal::MoveUnderWay { r#move });
        }
        let (true, VmPhase::Running, Some(source)) = (record.doing.is_none(), phase, record.owner.clone()) else {
            return Err(Refusal::VmIs { vm: vm.clone(), phase });
        };
        if let Some(target) = &request.to {
            let host = self.hosts.get(target).ok_or_else(|| Refusal::NoHost { host: target.clone() })?;
            if *target == source {
                return Err(Refusal::AlreadyThere { vm: vm.clone(), host: source });
            }
            if !self.reporting(target) || host.draining {
                return Err(Refusal::HostIs { host: target.clone(), state: self.host_state(host) });
            }
        }
        let target = self.place_for_move(vm, &source, request.to.as_ref(), now)?;
        let reason = match request.to {
            Some(_) => "an operator asked for it".to_owned(),
            None => "an operator asked for it; the planner chose where to".to_owned(),
        };
        let r#move = self.begin_move(vm, &target, reason, now)?;
        Ok(Accepted::Moving { r#move })
    }

    /// Begins a move, if what it needs still holds.
    pub(crate) fn begin_move(
        &mut self,
        vm: &VmId,
        target: &HostId,
        reason: String,
        now: Now,
    ) -> Result<MoveId, Refusal> {
        let record = self.vm_or_refuse(vm)?;
        let (epoch, phase) = (record.epoch, record.phase);
        if let Some(r#move) = record.r#move {
            return Err(Refusal::MoveUnderWay { r#move });
        }
        let (true, VmPhase::Running, Some(source)) = (record.doing.is_none(), phase, record.owner.clone()) else {
            return Err(Refusal::VmIs { vm: vm.clone(), phase });
        };
        for host in [&source, target] {
            if !self.reporting(host) {
                let state = self.hosts.get(host).map(|record| self.host_state(record));
                return Err(match state {
                    Some(state) => Refusal::HostIs { host: host.clone(), state },
                    None => Refusal::NoHost { host: host.clone() },
                });
            }
            // Its ways to the disks are being taken: who may run the VM is known when that has ended.
            if self.hosts.get(host).is_some_and(|record| record.fence.is_some()) {
                return Err(Refusal::HostFenced { host: host.clone() });
            }
        }
        // Held, crashed or gone: what becomes of it is told by how long it is shown so, and a move would begin that time anew.
        let shown = self.live.get(&source).and_then(|live| live.domain(vm)).map(|domain| domain.state);
        if shown != Some(DomainState::Running) {
            let what = shown.map_or_else(|| "is not there".to_owned(), |state| format!("stands {state}"));
            let detail = format!("{vm} {what}, as {source} shows it; it is seen to first");
            return Err(Refusal::Unavailable { detail });
        }
        // Two streams on one link would both miss the downtime goal.
        let busy = |m: &&MoveRecord| !m.ended() && (m.view.source == source || m.view.target == *target);
        if let Some(other) = self.moves.values().find(busy) {
            return Err(Refusal::MoveUnderWay { r#move: other.view.id });
        }
        if !self.usable(target) {
            return Err(Refusal::Unavailable { detail: format!("{target} has no lease to run guests under") });
        }
        let left_over = self.live.get(target).is_some_and(|live| live.domain(vm).is_some())
            || self.told(target, &Purpose::Orphan(vm.clone()));
        if left_over {
            return Err(Refusal::Unavailable { detail: format!("what is left of {vm} on {target} is being removed") });
        }
        let counters = self.counters.get(&()).copied().unwrap_or_default();
        let id = MoveId(self.above(counters.moves.0));
        self.counters.put(Counters { moves: id, ..counters });
        let mut record = MoveRecord::begun(id, vm.clone(), (source.clone(), target.clone()), epoch, now.unix_ms);
        record.view.reason.clone_from(&reason);
        self.moves.put(record);
        self.set_phase(vm, VmPhase::Moving, now);
        if let Some(record) = self.vms.edit(vm) {
            record.r#move = Some(id);
        }
        self.transits.insert(id, Transit::default());
        self.touched_moves.insert(id);
        self.move_info(id, now, format!("{vm} moves from {source} to {target}: {reason}"));
        self.forget_old_moves();
        Ok(id)
    }

    fn forget_old_moves(&mut self) {
        let ended: Vec<MoveId> = self.moves.values().filter(|m| m.ended()).map(|m| m.view.id).collect();
        if ended.len() > ENDED_KEPT + ENDED_REMOVED_AT_ONCE {
            for id in &ended[..ENDED_REMOVED_AT_ONCE] {
                self.moves.remove(id);
            }
        }
    }

    /// The leave that the server gives for one stream; the same after a restart.
    pub(crate) fn permit(&self, record: &MoveRecord) -> Option<Permit> {
        let target = self.hosts.get(&record.view.target)?;
        Some(Permit {
            r#move: record.view.id,
            vm: record.view.vm.clone(),
            epoch: record.epoch,
            source: record.view.source.clone(),
            target: record.view.target.clone(),
            target_address: self.leases.address_of(target.mac)?,
            target_port: self.policy.migration_port,
            expires_ms: record.view.began_ms.saturating_add(PERMIT_MS),
        })
    }

    pub(crate) fn move_info(&mut self, id: MoveId, now: Now, text: String) {
        let vm = self.moves.get(&id).map(|record| record.view.vm.clone());
        self.info(Topic::Move, now, text, |e| about_move(e, id, vm));
    }

    pub(crate) fn move_warn(&mut self, id: MoveId, now: Now, text: String) {
        let vm = self.moves.get(&id).map(|record| record.view.vm.clone());
        self.warn(Topic::Move, now, text, |e| about_move(e, id, vm));
    }

    /// A host was booted anew or fenced, as `what` says: what moves had there is gone.
    pub(crate) fn moves_after_boot_of(&mut self, host: &HostId, what: &str, now: Now) {
        for id in self.moves_of(host).collect::<Vec<_>>() {
            let Some(record) = self.moves.get(&id) else { continue };
            let (phase, at_source) = (record.view.phase, record.view.source == *host);
            let vm = record.view.vm.clone();
            match phase {
                MovePhase::Preparing | MovePhase::Copying | MovePhase::Aborting => {
                    if phase != MovePhase::Aborting {
                        self.abort(id, format!("{host} {what}"), now);
                    }
                    if let Some(record) = self.moves.edit(&id) {
                        // Nothing is left there to be cleared.
                        if at_source { record.source_order = None } else { record.target_order = None }
                    }
                    if at_source {
                        self.set_phase(&vm, VmPhase::Unknown, now);
                    }
                }
                MovePhase::Committing | MovePhase::Activating if !at_source => {
                    self.lost_at_target(id, format!("{host} {what} before the guest ran there"), now);
                    self.set_phase(&vm, VmPhase::Unknown, now);
                }
                _ => {}
            }
            self.touched_moves.insert(id);
        }
    }
}

fn about_move(event: &mut LogEvent, id: MoveId, vm: Option<VmId>) {
    event.r#move = Some(id);
    event.vm = vm;
}
