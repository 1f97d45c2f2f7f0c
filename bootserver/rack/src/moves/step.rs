//! A move's next step, from its record, the surveys, and what the storage has confirmed.

use super::{Rack, about_move};
use crate::event::Now;
use crate::orders::Purpose;
use crate::record::MoveRecord;
use proto::agent::{Act, Done, Failure, FailureKind, OrderOutcome, SignedPermit, Stage};
use proto::event::Topic;
use proto::view::{MovePhase, VmPhase};
use proto::{HostId, MoveId, VmId};

/// The target has so long to become ready, milliseconds.
const PREPARE_MS: u64 = 180_000;
/// So long may pass without a byte or a change of stage while memory is copied, milliseconds.
const STANDSTILL_MS: u64 = 180_000;
/// So long may a target's reports lack a reception that they have shown, milliseconds.
const FORGOTTEN_MS: u64 = 15_000;
/// A step that failed is tried again after this, milliseconds.
const AGAIN_MS: u64 = 2_000;
/// So often the source is asked to let the guest run again before it is started anew.
const RESUMES_MAX: u32 = 10;

impl Rack {
    /// Takes a move's next step, if it can be taken.
    pub(crate) fn step_move(&mut self, id: MoveId, now: Now) {
        let Some(record) = self.moves.get(&id).cloned() else { return };
        if record.ended() {
            return;
        }
        let transit = self.transits.entry(id).or_default();
        transit.began_mono_ms.get_or_insert(now.mono_ms);
        if transit.again_mono_ms.is_some_and(|at| at > now.mono_ms) {
            return;
        }
        self.hear(id, &record, now);
        match record.view.phase {
            MovePhase::Preparing => self.step_preparing(id, &record, now),
            MovePhase::Copying => self.step_copying(id, &record, now),
            MovePhase::Committing => self.step_committing(id, &record, now),
            MovePhase::Activating => self.step_activating(id, &record),
            MovePhase::Releasing => self.step_releasing(id, &record, now),
            MovePhase::Aborting => self.step_aborting(id, &record, now),
            MovePhase::Done | MovePhase::Aborted => {}
        }
    }

    /// What both agents say of their orders under way.
    fn hear(&mut self, id: MoveId, record: &MoveRecord, now: Now) {
        let progress = |host: &HostId, order| {
            let report = self.live.get(host)?.report.as_ref()?;
            let order = order?;
            report.underway.iter().find(|progress| progress.id == order).cloned()
        };
        let source = progress(&record.view.source, record.source_order);
        let target = progress(&record.view.target, record.target_order);
        let Some(transit) = self.transits.get_mut(&id) else { return };
        if target.is_some() {
            transit.awaited_mono_ms = Some(now.mono_ms);
        }
        // The source counts what it sends; the target knows when it has it all.
        let stage = match (&source, &target) {
            (_, Some(t)) if t.stage == Stage::Received => Some(t.stage),
            (Some(s), _) => Some(s.stage),
            (None, Some(t)) => Some(t.stage),
            (None, None) => transit.stage,
        };
        let bytes = source.map_or(0, |s| s.bytes).max(target.map_or(0, |t| t.bytes)).max(transit.bytes);
        if (stage, bytes) != (transit.stage, transit.bytes) || transit.progress_mono_ms.is_none() {
            transit.progress_mono_ms = Some(now.mono_ms);
            (transit.stage, transit.bytes) = (stage, bytes);
            self.version += 1;
        }
    }

    /// Before the commit both hosts must be there.
    fn absent(&self, record: &MoveRecord) -> Option<String> {
        let view = &record.view;
        [&view.source, &view.target].into_iter().find(|host| !self.present(host)).map(|host| format!("{host} is lost"))
    }

    fn step_preparing(&mut self, id: MoveId, record: &MoveRecord, now: Now) {
        if let Some(why) = self.absent(record) {
            return self.abort(id, why, now);
        }
        let began = self.transits.get(&id).and_then(|transit| transit.began_mono_ms).unwrap_or(now.mono_ms);
        if now.mono_ms.saturating_sub(began) > PREPARE_MS {
            return self.abort(id, format!("{} was not ready in time", record.view.target), now);
        }
        let (vm, target) = (&record.view.vm, &record.view.target);
        if !self.reporting(target) || self.told(target, &Purpose::Target(id)) {
            return;
        }
        if !self.grant_all(vm, target, self.next_epoch(record.epoch), now) {
            return;
        }
        let spec = self.vms.get(vm).map(|vm| vm.spec.clone());
        let (Some(vm), Some(disks), Some(permit)) = (spec, self.accesses(vm, target), self.permit(record)) else {
            return self.abort(id, format!("{target} has no address any more"), now);
        };
        let order = record.target_order.unwrap_or_else(|| self.order_number());
        if record.target_order.is_none()
            && let Some(record) = self.moves.edit(&id)
        {
            record.target_order = Some(order);
        }
        self.tell(target, order, record.epoch, Act::Receive { permit, vm, disks }, Purpose::Target(id));
    }

    fn step_copying(&mut self, id: MoveId, record: &MoveRecord, now: Now) {
        if let Some(why) = self.absent(record) {
            return self.abort(id, why, now);
        }
        let (source, target) = (&record.view.source, &record.view.target);
        let shown = self.live.get(target).and_then(|live| live.report.as_ref()).map(|report| {
            let progress = report.underway.iter().find(|progress| Some(progress.id) == record.target_order);
            progress.map(|progress| progress.stage)
        });
        // After a restart the target is heard before the source is told anything: it may hold the guest already.
        let Some(shown) = shown else { return };
        if shown == Some(Stage::Received) {
            return self.commit_move(id, record, now);
        }
        let Some(transit) = self.transits.get(&id) else { return };
        let since = |at: Option<u64>| at.map_or(0, |at| now.mono_ms.saturating_sub(at));
        if shown.is_none() && since(transit.awaited_mono_ms) > FORGOTTEN_MS {
            return self.abort(id, format!("{target} no longer awaits the guest"), now);
        }
        if since(transit.progress_mono_ms) > STANDSTILL_MS {
            return self.abort(id, "nothing was sent for too long".to_owned(), now);
        }
        if record.sent || self.told(source, &Purpose::Source(id)) {
            return;
        }
        let Some(permit) = self.permit(record) else { return };
        // A permit is plain data: it can always be written.
        let permit_json = serde_json::to_string(&permit).unwrap_or_default();
        let order = record.source_order.unwrap_or_else(|| self.order_number());
        if record.source_order.is_none()
            && let Some(record) = self.moves.edit(&id)
        {
            record.source_order = Some(order);
        }
        let permit = SignedPermit { permit_json, signature: String::new() };
        let act = Act::Send { permit, rate_bytes_s: self.policy.migration_rate_bytes_s };
        self.tell(source, order, record.epoch, act, Purpose::Source(id));
    }

    /// The target holds the guest whole, paused: it becomes the owner. One transaction, durable before anything follows.
    fn commit_move(&mut self, id: MoveId, record: &MoveRecord, now: Now) {
        let (vm, source, target) = (&record.view.vm, &record.view.source, &record.view.target);
        let as_begun = self
            .vms
            .get(vm)
            .is_some_and(|vm| vm.epoch == record.epoch && vm.owner.as_ref() == Some(source) && vm.r#move == Some(id));
        if !as_begun {
            return self.abort(id, "the VM has changed meanwhile".to_owned(), now);
        }
        if !self.leased(target) || self.hosts.get(target).is_none_or(|host| host.fence.is_some()) {
            // It could not let the guest run, and would be fenced with it.
            return self.abort(id, format!("{target} has no lease any more"), now);
        }
        self.set_owner(vm, target, self.next_epoch(record.epoch));
        self.take_back(source, &Purpose::Source(id));
        let bytes = self.transits.get(&id).map_or(0, |transit| transit.bytes);
        if let Some(record) = self.moves.edit(&id) {
            record.view.phase = MovePhase::Committing;
            record.view.bytes = record.view.bytes.max(bytes);
            record.source_order = None;
            record.target_order = None;
        }
        self.info(Topic::Move, now, format!("{target} holds {vm} and owns it now"), |e| {
            about_move(e, id, Some(vm.clone()));
            (e.host, e.epoch) = (Some(target.clone()), Some(record.epoch.next()));
        });
        self.touched_moves.insert(id);
    }

    fn step_committing(&mut self, id: MoveId, record: &MoveRecord, now: Now) {
        // After this no write of the source's can land.
        if !self.cut_from(&record.view.vm, &record.view.source, now) {
            if self.is_external() {
                self.release_source(id, record);
            }
            return;
        }
        if let Some(record) = self.moves.edit(&id) {
            record.view.phase = MovePhase::Activating;
        }
        self.touched_moves.insert(id);
    }

    /// Of a SAN nobody can be cut off: the source itself takes what is left of the guest away, and says so. One that is lost does so
    /// without power.
    fn release_source(&mut self, id: MoveId, record: &MoveRecord) {
        let source = &record.view.source;
        let left = self.live.get(source).and_then(|live| live.domain(&record.view.vm)).is_some();
        if self.present(source) && (left || record.source_order.is_some()) {
            self.tell_release(id, record);
        }
    }

    fn tell_release(&mut self, id: MoveId, record: &MoveRecord) {
        let source = &record.view.source;
        if self.told(source, &Purpose::Source(id)) {
            return;
        }
        let order = record.source_order.unwrap_or_else(|| self.order_number());
        if record.source_order.is_none()
            && let Some(record) = self.moves.edit(&id)
        {
            record.source_order = Some(order);
        }
        let act = Act::Release { r#move: id, vm: record.view.vm.clone() };
        self.tell(source, order, self.next_epoch(record.epoch), act, Purpose::Source(id));
    }

    fn step_activating(&mut self, id: MoveId, record: &MoveRecord) {
        let target = &record.view.target;
        if !self.reporting(target) || self.told(target, &Purpose::Target(id)) {
            return;
        }
        let order = record.target_order.unwrap_or_else(|| self.order_number());
        if record.target_order.is_none()
            && let Some(record) = self.moves.edit(&id)
        {
            record.target_order = Some(order);
        }
        let act = Act::Activate { r#move: id, vm: record.view.vm.clone() };
        self.tell(target, order, self.next_epoch(record.epoch), act, Purpose::Target(id));
    }

    fn step_releasing(&mut self, id: MoveId, record: &MoveRecord, now: Now) {
        let source = &record.view.source;
        // A source that is gone has nothing to clear; if it comes back with a leftover, the survey shows that it is stale.
        if !self.present(source) {
            return self.end_move(id, MovePhase::Done, now);
        }
        self.tell_release(id, record);
    }

    fn step_aborting(&mut self, id: MoveId, record: &MoveRecord, now: Now) {
        let view = &record.view;
        if let Some(order) = record.source_order {
            let act = Act::AbortSend { r#move: id, vm: view.vm.clone() };
            self.tell(&view.source, order, record.epoch, act, Purpose::Source(id));
        }
        // A target that is lost is cut off its disks, and told by no one to let the guest run; its leftover is stale.
        let target_order = record.target_order.filter(|_| self.present(&view.target));
        if let Some(order) = target_order {
            let act = Act::AbortReceive { r#move: id, vm: view.vm.clone() };
            self.tell(&view.target, order, record.epoch, act, Purpose::Target(id));
        }
        if record.source_order.is_some() || target_order.is_some() {
            return;
        }
        self.take_back(&view.target, &Purpose::Target(id));
        if self.cut_from(&view.vm, &view.target, now) {
            self.end_move(id, MovePhase::Aborted, now);
        }
    }

    /// Calls a move off; nothing was committed.
    pub(crate) fn abort(&mut self, id: MoveId, why: String, now: Now) {
        let Some(record) = self.moves.get(&id).cloned() else { return };
        let view = &record.view;
        if !matches!(view.phase, MovePhase::Preparing | MovePhase::Copying) {
            return;
        }
        self.take_back(&view.source, &Purpose::Source(id));
        self.take_back(&view.target, &Purpose::Target(id));
        // Only who was told something has something to clear.
        let source_order = record.source_order.map(|_| self.order_number());
        let target_order = record.target_order.map(|_| self.order_number());
        if let Some(record) = self.moves.edit(&id) {
            record.view.phase = MovePhase::Aborting;
            record.view.failure = Some(why.clone());
            record.source_order = source_order;
            record.target_order = target_order;
        }
        self.move_warn(id, now, format!("the move of {} is called off: {why}", view.vm));
        self.touched_moves.insert(id);
    }

    /// The guest was lost between the commit and its first breath at the target: the move ends, and it is started anew.
    pub(crate) fn lost_at_target(&mut self, id: MoveId, why: String, now: Now) {
        if let Some(record) = self.moves.edit(&id) {
            record.view.phase = MovePhase::Releasing;
            record.view.failure = Some(why.clone());
            record.target_order = None;
        }
        self.move_warn(id, now, why);
        self.touched_moves.insert(id);
    }

    fn end_move(&mut self, id: MoveId, phase: MovePhase, now: Now) {
        let Some(record) = self.moves.edit(&id) else { return };
        record.view.phase = phase;
        record.view.ended_ms = Some(now.unix_ms);
        record.source_order = None;
        record.target_order = None;
        let view = record.view.clone();
        self.transits.remove(&id);
        let mut still_moving = false;
        if let Some(vm) = self.vms.edit(&view.vm) {
            vm.r#move = None;
            still_moving = vm.phase == VmPhase::Moving;
            let rest = balancer::Rest::default();
            vm.moved = Some(balancer::after_move(vm.moved, now.unix_ms, &rest));
        }
        if still_moving {
            self.set_phase(&view.vm, VmPhase::Running, now);
        }
        self.touch_vm(&view.vm);
        let text = match (phase, view.total_ms, view.downtime_ms) {
            (MovePhase::Done, Some(total), Some(down)) => {
                format!("{} is on {}: {total} ms in all, {down} ms of standstill", view.vm, view.target)
            }
            (MovePhase::Done, ..) => format!("the move of {} has ended", view.vm),
            _ => format!("{} stays on {}", view.vm, view.source),
        };
        self.move_info(id, now, text);
        self.balance_soon(now);
    }

    /// The source has said how its order ended.
    pub(crate) fn source_order_ended(&mut self, id: MoveId, outcome: OrderOutcome, now: Now) {
        let Some(record) = self.moves.get(&id).cloned() else { return };
        if record.source_order != Some(outcome.id) {
            return;
        }
        self.touched_moves.insert(id);
        let done = record.view.source.clone();
        match (record.view.phase, outcome.result) {
            (MovePhase::Copying, Ok(result)) => {
                if let Some(record) = self.moves.edit(&id) {
                    record.sent = true;
                    if let Done::Sent { bytes, .. } = result {
                        record.view.bytes = bytes;
                    }
                }
            }
            (MovePhase::Copying, Err(failure)) => self.abort(id, format!("{done}: {}", failure.detail), now),
            (MovePhase::Committing, result) => match result {
                Err(failure) if failure.kind != FailureKind::NoDomain => self.again(id, true, failure.detail, now),
                result => {
                    if let Some(record) = self.moves.edit(&id) {
                        record.source_order = None;
                    }
                    if result.is_ok() {
                        self.has_logged_out(&done, &record.view.vm);
                    }
                }
            },
            (MovePhase::Releasing, result) => match result {
                Err(failure) if failure.kind != FailureKind::NoDomain => {
                    if self.leaves_behind(id, &record.view.vm, &done, &failure, now) {
                        self.end_move(id, MovePhase::Done, now);
                    } else {
                        self.again(id, true, failure.detail, now);
                    }
                }
                _ => self.end_move(id, MovePhase::Done, now),
            },
            (MovePhase::Aborting, result) => {
                let resumes = self.transits.entry(id).or_default().resumes;
                match result {
                    Err(failure) if failure.kind != FailureKind::NoDomain && resumes < RESUMES_MAX => {
                        self.transits.entry(id).or_default().resumes += 1;
                        self.again(id, true, failure.detail, now);
                    }
                    // Gone, or not to be woken: the survey shows which, and the VM is started anew.
                    _ => {
                        if let Some(record) = self.moves.edit(&id) {
                            record.source_order = None;
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// The target has said how its order ended.
    pub(crate) fn target_order_ended(&mut self, id: MoveId, outcome: OrderOutcome, now: Now) {
        let Some(record) = self.moves.get(&id).cloned() else { return };
        if record.target_order != Some(outcome.id) {
            return;
        }
        self.touched_moves.insert(id);
        let (vm, target) = (record.view.vm.clone(), record.view.target.clone());
        match (record.view.phase, outcome.result) {
            (MovePhase::Preparing, Ok(_)) => {
                if let Some(record) = self.moves.edit(&id) {
                    record.view.phase = MovePhase::Copying;
                }
                let transit = self.transits.entry(id).or_default();
                transit.copying_mono_ms = Some(now.mono_ms);
                transit.progress_mono_ms = Some(now.mono_ms);
            }
            (MovePhase::Preparing, Err(failure)) => self.abort(id, format!("{target}: {}", failure.detail), now),
            (MovePhase::Activating, Ok(result)) => {
                let copying = self.transits.get(&id).and_then(|transit| transit.copying_mono_ms);
                // After a restart only the wall clock knows, and counts the preparation in.
                let total_ms = copying.map_or(now.unix_ms.saturating_sub(record.view.began_ms), |at| now.mono_ms - at);
                if let Some(record) = self.moves.edit(&id) {
                    record.view.phase = MovePhase::Releasing;
                    record.view.total_ms = Some(total_ms);
                    record.target_order = None;
                    if let Done::Activated { downtime_ms } = result {
                        record.view.downtime_ms = Some(downtime_ms);
                    }
                }
                self.set_phase(&vm, VmPhase::Running, now);
            }
            (MovePhase::Activating, Err(failure)) if failure.kind == FailureKind::NoDomain => {
                self.lost_at_target(id, format!("{vm} was lost at {target}: {}", failure.detail), now);
                // The survey of the target says whether anything of it is there.
                self.set_phase(&vm, VmPhase::Unknown, now);
                self.guests.entry(vm.clone()).or_default().lost_in_move = true;
            }
            (MovePhase::Activating, Err(failure)) => self.again(id, false, failure.detail, now),
            (MovePhase::Aborting, Err(failure)) if failure.kind != FailureKind::NoDomain => {
                // Lost with its source: what was received of it never ran, and is cut off next.
                if !self.leaves_behind(id, &vm, &target, &failure, now) {
                    self.again(id, false, failure.detail, now);
                } else if let Some(record) = self.moves.edit(&id) {
                    record.target_order = None;
                }
            }
            (MovePhase::Aborting, _) => {
                if let Some(record) = self.moves.edit(&id) {
                    record.target_order = None;
                }
            }
            _ => {}
        }
    }

    /// Leaves what a host could not clear away, and has hosts without it come first, if the VM runs nowhere: its start is not to wait
    /// for what may never go. That is cut off its disks, and stale by its epoch. False where it is to be cleared after all, as on a SAN.
    fn leaves_behind(&mut self, id: MoveId, vm: &VmId, host: &HostId, failure: &Failure, now: Now) -> bool {
        let runs_nowhere = self.phase_is(vm, VmPhase::Unknown) || self.phase_is(vm, VmPhase::Stopped);
        let left = runs_nowhere && !self.is_external();
        if left {
            self.move_warn(id, now, format!("{}; {vm} runs nowhere and does not wait for that", failure.detail));
            self.guests.entry(vm.clone()).or_default().failed_on.insert(host.clone());
        }
        left
    }

    /// A step that must be done failed: once more, by a new order, after a while.
    fn again(&mut self, id: MoveId, source: bool, detail: String, now: Now) {
        let order = self.order_number();
        if let Some(record) = self.moves.edit(&id) {
            if source { record.source_order = Some(order) } else { record.target_order = Some(order) }
        }
        self.transits.entry(id).or_default().again_mono_ms = Some(now.mono_ms + AGAIN_MS);
        let vm = self.moves.get(&id).map(|record| record.view.vm.clone());
        let text = format!("move {id}: {detail}; it is tried again");
        self.warn_repeated(Topic::Move, now, text, |e| about_move(e, id, vm));
    }
}
