//! Orders: begun in turn, led step by step, ended with an outcome.
//!
//! Owns: the works under way and their steps, as drawn in the parent module; when one is begun, and when what was not asked for leads it on.
//! What follows on the end of each step is in [`step`]. Never does: reporting.

mod step;

use super::{Agent, Guest, JobFor, Note, failure};
use crate::hypervisor::{Job, Op, Progress, SeenDomain, Survey};
use proto::agent::{Act, DiskAccess, DomainState, Done, Failure, FailureKind, Order, OrderProgress, Permit, Stage};
use proto::{Epoch, MoveId, OrderId, VmId};

/// Orders taken on and not begun. More are left to the server's next answer.
pub const ORDERS_WAITING_MAX: usize = 256;

/// How often a guest that was asked to shut down is looked at, milliseconds; a change that Xen announces is seen at once.
pub const POLL_MS: u64 = 1_000;

/// A guest that wants to start again sooner than this after it last did has had a short life, milliseconds; after so many in a row it is not
/// made anew at once.
const SHORT_LIFE_MS: u64 = 60_000;
const SHORT_LIVES: u32 = 3;

/// What is being done to one VM.
#[derive(Debug)]
pub(super) struct Work {
    cause: Cause,
    step: Step,
    job: Option<Job>,
    /// The CHAP user of the lease when it was begun.
    under: Option<String>,
}

/// A guest that wanted to start again.
#[derive(Debug)]
pub(super) struct Remade {
    /// Under which it was started by order.
    epoch: Option<Epoch>,
    at_ms: u64,
    /// Short lives in a row.
    short: u32,
}

/// An order that is understood.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    order: Order,
    vm: VmId,
    /// Of `Send` and `Receive`.
    permit: Option<Permit>,
}

#[derive(Debug)]
enum Cause {
    Order(Taken),
    /// The guest shut itself down in order to start again.
    Reboot(Guest),
}

#[derive(Debug)]
enum Step {
    /// A survey before acting.
    Looking,
    /// Something of that name is in the way.
    Clearing,
    Preparing,
    Creating,
    /// It stands paused, and the lease is that of the begin; then this is the end.
    LettingRun {
        then: Result<Done, Failure>,
    },
    /// Asked to shut down.
    Asked {
        until_ms: u64,
        look_ms: u64,
    },
    /// The stream runs, or is awaited.
    Streaming {
        stage: Stage,
        bytes: u64,
        listening: bool,
        cancelled: bool,
    },
    /// Seeing that the guest is here again, before it is let run; then this is the end.
    Resuming {
        then: Result<Done, Failure>,
    },
    /// The disks of a guest that went: what it had under way waits for a session that the storage has cut, and would
    /// hold its destruction up.
    Letting,
    /// The domain goes, then the disks; then this is the end.
    Destroying {
        then: Result<Done, Failure>,
    },
    Detaching {
        then: Result<Done, Failure>,
    },
    Activating {
        stopped_ms: Option<u64>,
    },
    /// One operation whose end is the order's.
    Single,
}

impl Work {
    pub(super) fn order_id(&self) -> Option<OrderId> {
        match &self.cause {
            Cause::Order(taken) => Some(taken.order.id),
            Cause::Reboot(_) => None,
        }
    }

    /// The move that it sends or receives by.
    fn r#move(&self) -> Option<MoveId> {
        match &self.cause {
            Cause::Order(taken) => taken.permit.as_ref().map(|permit| permit.r#move),
            Cause::Reboot(_) => None,
        }
    }

    /// Whether it receives a guest.
    fn receives(&self) -> bool {
        matches!(&self.cause, Cause::Order(taken) if matches!(taken.order.act, Act::Receive { .. }))
    }

    /// A reception that nothing has come to yet.
    fn only_listens(&self) -> bool {
        self.receives() && matches!(self.step, Step::Streaming { stage: Stage::Preparing | Stage::Listening, .. })
    }

    /// The guest that it makes anew, as that one wanted to start again.
    pub(super) fn remakes(&self) -> Option<&Guest> {
        match &self.cause {
            Cause::Order(_) => None,
            Cause::Reboot(guest) => Some(guest),
        }
    }

    /// A guest was asked to shut down, and nothing is under way.
    fn only_waits(&self) -> bool {
        matches!(self.step, Step::Asked { .. }) && self.job.is_none()
    }

    /// Its end decides whether the guest runs.
    pub(super) fn makes(&self) -> bool {
        matches!(self.step, Step::Creating | Step::Resuming { .. } | Step::LettingRun { .. })
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self.step {
            Step::Asked { until_ms, look_ms } => Some(until_ms.min(look_ms)),
            _ => None,
        }
    }

    pub(super) fn progress(&self) -> Option<OrderProgress> {
        let (stage, bytes) = match self.step {
            Step::Looking | Step::Clearing | Step::Preparing => (Stage::Preparing, 0),
            Step::Streaming { stage, bytes, .. } => (stage, bytes),
            _ => (Stage::Working, 0),
        };
        self.order_id().map(|id| OrderProgress { id, stage, bytes })
    }
}

impl Taken {
    /// Reads an order. Only a permit can be unreadable.
    pub(super) fn read(order: Order) -> Result<Self, (OrderId, Failure)> {
        let (vm, permit) = match &order.act {
            Act::Start { vm, .. } => (vm.name.clone(), None),
            Act::Receive { permit, vm, .. } if permit.vm == vm.name => (vm.name.clone(), Some(permit.clone())),
            Act::Receive { permit, vm, .. } => {
                let detail = format!("receiving: the permit is for {}, the VM is {}", permit.vm, vm.name);
                return Err((order.id, failure(FailureKind::Permit, detail)));
            }
            Act::Send { permit, .. } => match serde_json::from_str::<Permit>(&permit.permit_json) {
                Ok(permit) => (permit.vm.clone(), Some(permit)),
                Err(e) => {
                    return Err((order.id, failure(FailureKind::Permit, format!("reading the permit to send: {e}"))));
                }
            },
            // It is about no VM, and is not taken on.
            Act::Reboot { .. } => {
                return Err((order.id, failure(FailureKind::Tool, "starting anew is no work on a VM")));
            }
            Act::Shutdown { vm, .. }
            | Act::Destroy { vm }
            | Act::Pause { vm }
            | Act::Unpause { vm }
            | Act::Activate { vm, .. }
            | Act::Release { vm, .. }
            | Act::AbortSend { vm, .. }
            | Act::AbortReceive { vm, .. }
            | Act::Console { vm, .. } => (vm.clone(), None),
        };
        Ok(Self { order, vm, permit })
    }

    pub(super) fn id(&self) -> OrderId {
        self.order.id
    }

    /// The move that it ends here.
    fn move_ended(&self) -> Option<MoveId> {
        match self.order.act {
            Act::AbortSend { r#move, .. } | Act::AbortReceive { r#move, .. } | Act::Release { r#move, .. } => {
                Some(r#move)
            }
            _ => None,
        }
    }

    /// Ends the stream of this move. `Release` does not: by the time it is given the stream has been sent whole, and a cancel
    /// must never lead to a resumption.
    fn ends_stream(&self, of: Option<MoveId>) -> bool {
        match self.order.act {
            Act::AbortSend { .. } | Act::AbortReceive { .. } => self.move_ended() == of,
            Act::Destroy { .. } => true,
            _ => false,
        }
    }

    /// Puts the guest where a reception that was ordered before only listens: that one was called off, and this host not told.
    fn takes_the_place_of(&self, work: &Work) -> bool {
        let puts = matches!(self.order.act, Act::Start { .. } | Act::Receive { .. });
        puts && work.only_listens() && work.order_id() < Some(self.order.id)
    }
}

impl Agent {
    /// Begins what can be begun: orders whose VM is free, by number.
    pub(super) fn begin_waiting(&mut self, now_ms: u64) {
        for id in self.waiting.keys().copied().collect::<Vec<_>>() {
            let Some(taken) = self.waiting.get(&id) else { continue };
            if !self.may_begin(&taken.order.act, now_ms) {
                continue;
            }
            if let Act::Console { vm, bytes_max } = &taken.order.act {
                let op = Op::Console { vm: vm.clone(), bytes_max: *bytes_max };
                self.waiting.remove(&id);
                self.run(JobFor::Console(id), op);
                continue;
            }
            let vm = taken.vm.clone();
            let destroys = matches!(taken.order.act, Act::Destroy { .. });
            if destroys
                && self.works.get(&vm).is_some_and(Work::only_waits)
                && let Some(work) = self.works.remove(&vm)
            {
                let why = format!("shutting {vm} down: destroyed while it was awaited");
                self.finish(work, Err(failure(FailureKind::Tool, why)));
            }
            let Some(taken) = self.waiting.get(&id) else { continue };
            let Some(work) = self.works.get(&taken.vm) else {
                if let Some(taken) = self.waiting.remove(&id) {
                    self.begin(taken);
                }
                continue;
            };
            if taken.ends_stream(work.r#move()) || taken.takes_the_place_of(work) {
                self.call_off(&vm);
            }
        }
        self.make_way();
    }

    /// A host is given one reception at a time: one that only listens while a later one is here was called off, and this host not told.
    /// It would keep the port.
    fn make_way(&mut self) {
        let newest = self.works.values().filter(|work| work.receives()).filter_map(Work::order_id).max();
        let over = self.works.iter().filter(|(_, work)| work.only_listens() && work.order_id() < newest);
        for vm in over.map(|(vm, _)| vm.clone()).collect::<Vec<_>>() {
            self.call_off(&vm);
        }
    }

    /// Ends a VM's stream as a failure, unless it has just ended well.
    pub(super) fn call_off(&mut self, vm: &VmId) {
        if let Some(work) = self.works.get_mut(vm)
            && let Step::Streaming { cancelled: cancelled @ false, .. } = &mut work.step
            && let Some(job) = work.job
        {
            *cancelled = true;
            self.run(JobFor::Nobody, Op::Cancel { job });
        }
    }

    fn begin(&mut self, taken: Taken) {
        let Taken { order, vm, permit } = &taken;
        let (id, vm) = (order.id, vm.clone());
        let empty = Note { vm: vm.clone(), floor: Epoch(0), order: OrderId(0), guest: None };
        let note = self.notes.get(&vm).cloned().unwrap_or(empty);
        let floor = note.floor;
        if order.epoch < floor {
            let detail = format!("{vm}: ordered under epoch {}, but epoch {floor} is known here", order.epoch);
            return self.outcome(id, Err(failure(FailureKind::StaleEpoch, detail)));
        }
        if id < note.order {
            let detail = format!("{vm}: order {id} was overtaken by {}", note.order);
            return self.outcome(id, Err(failure(FailureKind::Tool, detail)));
        }
        if order.epoch > floor || id > note.order {
            self.keep(Note { floor: order.epoch, order: id, ..note.clone() });
        }
        let (epoch, guest) = (order.epoch, note.guest);
        let by = guest.as_ref().and_then(|guest| guest.r#move);
        if by.is_some() && taken.move_ended().is_some_and(|ended| by != Some(ended)) {
            return self.outcome(id, Ok(Done::Ok));
        }
        let (step, op) = match &order.act {
            Act::Start { .. } | Act::Shutdown { .. } | Act::Send { .. } | Act::AbortReceive { .. } => {
                (Step::Looking, Op::Survey)
            }
            Act::Receive { .. } => {
                let already = guest.filter(|g| g.received.is_some()).and_then(|g| g.r#move);
                if already.is_some() && already == permit.as_ref().map(|p| p.r#move) {
                    return self.outcome(id, Ok(Done::Ok));
                }
                (Step::Looking, Op::Survey)
            }
            // What a held guest had under way may wait for a session that was cut; so may that of one which did not go in time.
            Act::Destroy { .. } if guest.is_some_and(|g| g.held.is_some()) || self.stuck.contains(&vm) => {
                (Step::Letting, Op::Detach { disks: self.disks(&vm) })
            }
            Act::Destroy { .. } => (Step::Destroying { then: Ok(Done::Ok) }, Op::Destroy { vm: vm.clone() }),
            Act::Release { .. } => (Step::Letting, Op::Detach { disks: self.disks(&vm) }),
            Act::Pause { .. } => (Step::Single, Op::Pause { vm: vm.clone() }),
            Act::Unpause { .. } => (Step::Single, Op::Unpause { vm: vm.clone() }),
            Act::AbortSend { .. } => {
                self.hold_until_let(&vm, self.lease.under());
                (Step::Resuming { then: Ok(Done::Ok) }, Op::Resume { vm: vm.clone() })
            }
            Act::Activate { r#move, .. } => match self.activate(&vm, *r#move, epoch) {
                Ok(stopped_ms) => (Step::Activating { stopped_ms }, Op::Activate { vm: vm.clone() }),
                Err(failure) => return self.outcome(id, Err(failure)),
            },
            Act::Console { .. } | Act::Reboot { .. } => return,
        };
        let under = self.lease.under();
        self.works.insert(vm.clone(), Work { cause: Cause::Order(taken), step, job: None, under });
        self.step_job(&vm, op);
    }

    /// Whether the received guest may be run, and raises its epoch, noted before it runs.
    fn activate(&mut self, vm: &VmId, r#move: MoveId, epoch: Epoch) -> Result<Option<u64>, Failure> {
        let absent =
            || failure(FailureKind::NoDomain, format!("activating {vm}: nothing received by move {move} is here"));
        let note = self.notes.get(vm).cloned().ok_or_else(absent)?;
        let mut guest = note.guest.ok_or_else(absent)?;
        match guest.received {
            Some(received) if guest.r#move == Some(r#move) => {
                guest.epoch = epoch;
                self.keep(Note { guest: Some(guest), ..note });
                Ok(Some(received.stopped_ms))
            }
            // Done before, and the outcome lost with the agent's memory.
            None if guest.epoch == epoch => Ok(None),
            _ => Err(absent()),
        }
    }

    /// Begins the next operation of a VM's work.
    fn step_job(&mut self, vm: &VmId, op: Op) {
        let job = self.run(JobFor::Work(vm.clone()), op);
        if let Some(work) = self.works.get_mut(vm) {
            work.job = Some(job);
        }
    }

    fn go(&mut self, vm: &VmId, work: Work, step: Step, op: Op) {
        self.works.insert(vm.clone(), Work { step, job: None, ..work });
        self.step_job(vm, op);
    }

    fn disks(&self, vm: &VmId) -> Vec<DiskAccess> {
        self.notes.get(vm).and_then(|n| n.guest.as_ref()).map(|g| g.disks.clone()).unwrap_or_default()
    }

    fn finish(&mut self, work: Work, result: Result<Done, Failure>) {
        if let Some(id) = work.order_id()
            && !self.done.contains(&id)
        {
            self.outcome(id, result);
        }
        self.report_wanted = true;
    }

    /// Every survey passes here: who waits for a shutdown is led on, and a guest that restarts is made anew.
    pub(super) fn look(&mut self, survey: &Survey, now_ms: u64) {
        let asked: Vec<VmId> = self
            .works
            .iter()
            .filter(|(_, w)| matches!(w.step, Step::Asked { .. }) && w.job.is_none())
            .map(|(vm, _)| vm.clone())
            .collect();
        for vm in asked {
            let seen = survey.domains.iter().find(|d| d.vm == vm);
            if !seen.is_some_and(lives)
                && let Some(work) = self.works.remove(&vm)
            {
                self.go(&vm, work, Step::Destroying { then: Ok(Done::Ok) }, Op::Destroy { vm: vm.clone() });
            }
        }
        self.unmade.retain(|vm, _| survey.domains.iter().any(|d| d.vm == *vm && d.reboots));
        self.remade.retain(|vm, _| self.notes.get(vm).is_some_and(|note| note.guest.is_some()));
        // None is made anew without a lease.
        let leased = self.leased(now_ms);
        for seen in survey.domains.iter().filter(|d| leased && d.reboots && d.is_resident()) {
            let guest = self.notes.get(&seen.vm).and_then(|n| n.guest.clone());
            if let Some(guest) = guest
                && self.may_remake(&seen.vm)
                && self.unmade.get(&seen.vm).is_none_or(|&again_ms| now_ms >= again_ms)
                && !self.works.contains_key(&seen.vm)
                && !self.runs_in_a_circle(&seen.vm, now_ms)
            {
                let under = self.lease.under();
                // Its files may have gone since, and a guest that came by a move may never have had them here.
                let op = Op::Prepare { guest: guest.clone(), files: true };
                let work = Work { cause: Cause::Reboot(guest), step: Step::Preparing, job: None, under };
                self.go(&seen.vm, work, Step::Preparing, op);
            }
        }
    }

    /// A guest that wants to start again: whether it has done little else of late. The server is told, which has it started again later and later.
    fn runs_in_a_circle(&mut self, vm: &VmId, now_ms: u64) -> bool {
        if self.unmade.contains_key(vm) {
            return false; // the same end of it once more
        }
        let epoch = self.notes.get(vm).and_then(|note| note.guest.as_ref()).map(|guest| guest.epoch);
        let before = self.remade.get(vm).filter(|before| before.epoch == epoch);
        let before = before.filter(|before| now_ms.saturating_sub(before.at_ms) < SHORT_LIFE_MS);
        let short = before.map_or(0, |before| before.short + 1);
        self.remade.insert(vm.clone(), Remade { epoch, at_ms: now_ms, short });
        if short < SHORT_LIVES {
            return false;
        }
        self.unmade.insert(vm.clone(), now_ms + SHORT_LIFE_MS);
        self.report_wanted = true;
        true
    }

    /// Whether a guest that wants to start again may: one that was held under an earlier lease may be another host's by now.
    pub(super) fn may_remake(&self, vm: &VmId) -> bool {
        let guest = self.notes.get(vm).and_then(|note| note.guest.as_ref());
        guest.is_some_and(|g| g.received.is_none() && (g.held.is_none() || g.held == self.lease.under()))
    }

    pub(super) fn work_deadlines(&mut self, now_ms: u64) {
        let due: Vec<VmId> = self
            .works
            .iter()
            .filter(|(_, w)| w.job.is_none() && w.deadline_ms().is_some_and(|d| d <= now_ms))
            .map(|(vm, _)| vm.clone())
            .collect();
        for vm in due {
            let Some(work) = self.works.remove(&vm) else { continue };
            match work.step {
                Step::Asked { until_ms, .. } if until_ms <= now_ms => {
                    let why = format!("shutting {vm} down: it has not, and nothing was forced");
                    self.finish(work, Err(failure(FailureKind::Timeout, why)));
                }
                Step::Asked { until_ms, .. } => {
                    self.go(&vm, work, Step::Asked { until_ms, look_ms: u64::MAX }, Op::Survey);
                }
                _ => {}
            }
        }
    }

    pub(super) fn progressed(&mut self, job: Job, progress: Progress) {
        let Some(JobFor::Work(vm)) = self.jobs.get(&job).cloned() else { return };
        let Some(work) = self.works.get_mut(&vm) else { return };
        let Step::Streaming { stage, bytes, listening, .. } = &mut work.step else { return };
        *stage = progress.stage;
        *bytes = progress.bytes;
        if progress.stage == Stage::Listening && !*listening {
            *listening = true;
            if let Some(id) = work.order_id() {
                self.outcome(id, Ok(Done::Ok));
            }
        }
    }
}

fn lives(seen: &SeenDomain) -> bool {
    matches!(seen.state, DomainState::Running | DomainState::Paused | DomainState::Suspended)
}
