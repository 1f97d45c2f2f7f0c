//! What follows on the end of each step of an order.
//!
//! Owns: the table of steps and results. Never does: begin an order.

use super::{Cause, POLL_MS, Step, Taken, Work, lives};
use crate::agent::{Agent, Guest, Note, Received, failure};
use crate::hypervisor::{Completion, Op, OpResult, Survey};
use proto::VmId;
use proto::agent::{Act, DomainState, Done, Failure, FailureKind, Order, Part, Stage};

/// From a try to make a guest anew to the next, milliseconds.
const REMAKE_AGAIN_MS: u64 = 5_000;

impl Agent {
    /// A work's operation has ended: what now?
    pub(in crate::agent) fn advance(&mut self, vm: &VmId, result: OpResult, now_ms: u64) {
        let Some(mut work) = self.works.remove(vm) else { return };
        work.job = None;
        if matches!(work.step, Step::Clearing | Step::Destroying { .. }) {
            self.destroyed(vm, &result);
        }
        match std::mem::replace(&mut work.step, Step::Single) {
            Step::Looking => match result {
                Ok(Completion::Survey(survey)) => self.looked(vm, work, &survey, now_ms),
                Ok(_) => {
                    self.finish(work, Err(failure(FailureKind::Tool, format!("looking at {vm}: no survey came back"))))
                }
                Err(why) => self.finish(work, Err(why)),
            },
            Step::Clearing => match (result, &work.cause) {
                (Err(_), Cause::Reboot(_)) => self.not_remade(vm, now_ms),
                (Err(why), _) => self.finish(work, Err(why)),
                (Ok(_), Cause::Order(taken)) => {
                    let order = taken.order.clone();
                    self.prepare(vm, work, order);
                }
                // The guest is still the owner's to decide about: it shows as gone.
                (Ok(_), Cause::Reboot(_)) if self.ends_by_order(vm) => self.report_wanted = true,
                (Ok(_), Cause::Reboot(_)) => self.create(vm, work),
            },
            Step::Preparing => match (result, &work.cause) {
                (Ok(_), Cause::Reboot(_)) if self.ends_by_order(vm) => self.report_wanted = true,
                // All that it needs is here: only now goes what is left of its life before.
                (Ok(_), Cause::Reboot(_)) => self.go(vm, work, Step::Clearing, Op::Destroy { vm: vm.clone() }),
                (Err(_), Cause::Reboot(_)) => self.not_remade(vm, now_ms),
                (Err(why), _) => self.undo(vm, work, why),
                (Ok(_), Cause::Order(Taken { permit: Some(permit), .. })) => {
                    let op = Op::Receive { permit: permit.clone() };
                    let step =
                        Step::Streaming { stage: Stage::Preparing, bytes: 0, listening: false, cancelled: false };
                    self.go(vm, work, step, op);
                }
                (Ok(_), _) => self.create(vm, work),
            },
            Step::Creating => match (result, &work.cause) {
                (Ok(_), _) if self.may_let_run(&work, now_ms) => {
                    self.go(vm, work, Step::LettingRun { then: Ok(Done::Ok) }, Op::Unpause { vm: vm.clone() });
                }
                // It was made, and is held as any other.
                (Ok(_), _) => self.finish(work, Ok(Done::Ok)),
                // A tool that was killed leaves half a domain, which must not be taken for one that is held.
                (Err(why), _) => self.undo(vm, work, why),
            },
            Step::LettingRun { then } => match (result, &work.cause) {
                (Ok(_), _) => {
                    self.not_held(vm);
                    self.finish(work, then);
                }
                // The guest is still the owner's to decide about: it shows as gone.
                (Err(_), Cause::Reboot(_)) => self.report_wanted = true,
                (Err(why), Cause::Order(taken)) if matches!(taken.order.act, Act::Start { .. }) => {
                    self.undo(vm, work, why);
                }
                // It has run before, so it is kept, and let go on with the next write of the slot.
                (Err(why), Cause::Order(_)) => self.finish(work, then.and(Err(why))),
            },
            Step::Asked { until_ms, look_ms: _ } => match result {
                Err(why) => self.finish(work, Err(why)),
                Ok(Completion::Survey(survey)) if !survey.domains.iter().any(|d| &d.vm == vm && lives(d)) => {
                    self.go(vm, work, Step::Destroying { then: Ok(Done::Ok) }, Op::Destroy { vm: vm.clone() });
                }
                // Asked, or looked at and still there.
                Ok(_) => {
                    work.step = Step::Asked { until_ms, look_ms: now_ms + POLL_MS };
                    self.works.insert(vm.clone(), work);
                }
            },
            Step::Streaming { listening, .. } => self.stream_ended(vm, work, result, listening, now_ms),
            Step::Resuming { then } => match result {
                Ok(_) if self.may_let_run(&work, now_ms) => {
                    self.go(vm, work, Step::LettingRun { then }, Op::Unpause { vm: vm.clone() });
                }
                // It is here, and is held as any other.
                Ok(_) => self.finish(work, then),
                Err(why) => {
                    self.not_held(vm);
                    self.finish(work, then.and(Err(why)));
                }
            },
            // Whether or not it worked: they are logged out of once more when the domain is gone.
            Step::Letting => {
                self.go(vm, work, Step::Destroying { then: Ok(Done::Ok) }, Op::Destroy { vm: vm.clone() });
            }
            Step::Destroying { then } => match result {
                Ok(_) => self.detach(vm, work, then),
                Err(why) => self.finish(work, then.and(Err(why))),
            },
            Step::Detaching { then } => match result {
                Ok(_) => {
                    self.forget_guest(vm);
                    self.finish(work, then);
                }
                Err(why) => self.finish(work, then.and(Err(why))),
            },
            Step::Activating { stopped_ms } => match result {
                Ok(_) => {
                    if let Some(mut note) = self.notes.get(vm).cloned()
                        && let Some(guest) = &mut note.guest
                    {
                        guest.received = None;
                        self.keep(note);
                    }
                    let downtime_ms = stopped_ms.map_or(0, |stopped| now_ms.saturating_sub(stopped));
                    self.finish(work, Ok(Done::Activated { downtime_ms }));
                }
                Err(why) => self.finish(work, Err(why)),
            },
            Step::Single => {
                if result.is_ok() {
                    // It was paused or let go on by order, which goes before the lease.
                    self.not_held(vm);
                }
                self.finish(work, result.map(|_| Done::Ok));
            }
        }
    }

    /// A guest that wants to start again could not be made anew: it is tried again, and the server is told, which may have it made elsewhere.
    fn not_remade(&mut self, vm: &VmId, now_ms: u64) {
        self.report_wanted |= self.unmade.insert(vm.clone(), now_ms + REMAKE_AGAIN_MS).is_none();
    }

    /// Every destruction's end passes here.
    fn destroyed(&mut self, vm: &VmId, result: &OpResult) {
        match result {
            Ok(_) => self.stuck.remove(vm),
            Err(why) => why.kind == FailureKind::Timeout && self.stuck.insert(vm.clone()),
        };
    }

    /// A fresh look for an order that must know what is there.
    fn looked(&mut self, vm: &VmId, work: Work, survey: &Survey, now_ms: u64) {
        let Cause::Order(taken) = &work.cause else { return };
        let taken = taken.clone();
        let seen = survey.domains.iter().find(|d| &d.vm == vm);
        let noted = self.notes.get(vm).and_then(|n| n.guest.as_ref()).map(|guest| guest.epoch);
        let runs = seen.filter(|d| d.is_resident() && matches!(d.state, DomainState::Running | DomainState::Paused));
        match (&taken.order.act, seen) {
            // What runs under another epoch is of an earlier life, whose disks may have been taken: it is cleared away below.
            (Act::Start { .. }, Some(_)) if runs.is_some() && noted == Some(taken.order.epoch) => {
                self.finish(work, Ok(Done::Ok));
            }
            // Made by this very order before, and sent since: whether it is to run here is for the move's orders to say.
            (Act::Start { .. }, Some(d)) if d.state == DomainState::Suspended && noted == Some(taken.order.epoch) => {
                self.finish(work, Ok(Done::Ok));
            }
            (Act::Receive { .. }, Some(d)) if d.part != Part::Incoming => {
                let why = format!("receiving {vm}: a domain of this name ({:?}, {:?}) is here", d.state, d.part);
                self.finish(work, Err(failure(FailureKind::Tool, why)));
            }
            (Act::Start { .. } | Act::Receive { .. }, Some(_)) => {
                self.go(vm, work, Step::Clearing, Op::Destroy { vm: vm.clone() });
            }
            (Act::Start { .. } | Act::Receive { .. }, None) => self.prepare(vm, work, taken.order),
            (Act::Shutdown { timeout_ms, .. }, Some(_)) if runs.is_some() => {
                let step = Step::Asked { until_ms: now_ms + timeout_ms, look_ms: u64::MAX };
                self.go(vm, work, step, Op::AskShutdown { vm: vm.clone() });
            }
            (Act::Shutdown { .. }, Some(d)) if d.is_resident() && d.state != DomainState::Suspended => {
                self.go(vm, work, Step::Destroying { then: Ok(Done::Ok) }, Op::Destroy { vm: vm.clone() });
            }
            (Act::Shutdown { .. }, Some(d)) => {
                let why = format!("shutting {vm} down: it is half of a move ({:?})", d.part);
                self.finish(work, Err(failure(FailureKind::Tool, why)));
            }
            (Act::AbortReceive { .. }, Some(d)) if d.part == Part::Resident => {
                let why = format!("aborting the reception of {vm}: it is no incoming domain, it lives here");
                self.finish(work, Err(failure(FailureKind::Tool, why)));
            }
            (Act::Shutdown { .. } | Act::AbortReceive { .. }, _) => {
                self.go(vm, work, Step::Destroying { then: Ok(Done::Ok) }, Op::Destroy { vm: vm.clone() });
            }
            (Act::Send { rate_bytes_s, permit: signed }, Some(d)) => match (&taken.permit, d.state) {
                (Some(permit), DomainState::Running) if d.is_resident() => {
                    if let Some(mut note) = self.notes.get(vm).cloned()
                        && let Some(guest) = &mut note.guest
                    {
                        guest.r#move = Some(permit.r#move);
                        self.keep(note);
                    }
                    let op = Op::Send { permit: permit.clone(), signed: signed.clone(), rate_bytes_s: *rate_bytes_s };
                    let step =
                        Step::Streaming { stage: Stage::Preparing, bytes: 0, listening: false, cancelled: false };
                    self.go(vm, work, step, op);
                }
                // It may be suspended because an earlier process of this agent has sent it: then the target may hold
                // it, and only an order may let it run here again.
                _ => {
                    let why = format!("sending {vm}: it must run, and is {:?}, {:?}", d.state, d.part);
                    self.finish(work, Err(failure(FailureKind::Stream, why)));
                }
            },
            (Act::Send { .. }, None) => {
                self.finish(work, Err(failure(FailureKind::NoDomain, format!("sending {vm}: it is not here"))));
            }
            _ => self.finish(work, Err(failure(FailureKind::Tool, format!("{vm}: this order needs no look")))),
        }
    }

    fn create(&mut self, vm: &VmId, work: Work) {
        match self.notes.get(vm).cloned() {
            Some(Note { guest: Some(guest), .. }) => {
                self.hold_until_let(vm, work.under.clone());
                let guest = Guest { held: work.under.clone(), ..guest };
                self.go(vm, work, Step::Creating, Op::Create { guest });
            }
            _ => self.finish(work, Err(failure(FailureKind::Tool, format!("starting {vm}: its note is gone")))),
        }
    }

    fn prepare(&mut self, vm: &VmId, work: Work, order: Order) {
        let (spec, disks, files) = match order.act {
            Act::Start { vm, disks } => (vm, disks, true),
            Act::Receive { vm, disks, .. } => (vm, disks, false),
            _ => return,
        };
        // Nothing is left of what was to be destroyed before.
        self.stuck.remove(vm);
        let r#move = work.r#move();
        let guest = Guest { spec, disks, epoch: order.epoch, received: None, held: None, r#move };
        // As the order's begin left it.
        self.keep(Note { vm: vm.clone(), floor: order.epoch, order: order.id, guest: Some(guest.clone()) });
        self.go(vm, work, Step::Preparing, Op::Prepare { guest, files });
    }

    fn stream_ended(&mut self, vm: &VmId, work: Work, result: OpResult, listening: bool, now_ms: u64) {
        let Cause::Order(taken) = &work.cause else { return };
        let id = taken.order.id;
        match (result, taken.permit.as_ref()) {
            (Ok(Completion::Sent { bytes, total_ms }), _) => self.finish(work, Ok(Done::Sent { bytes, total_ms })),
            (Ok(Completion::Received { bytes, stopped_ms }), Some(_)) => {
                if let Some(mut note) = self.notes.get(vm).cloned()
                    && let Some(guest) = &mut note.guest
                {
                    guest.received = Some(Received { order: id, stopped_ms, bytes });
                    self.keep(note);
                }
                if !listening {
                    self.outcome(id, Ok(Done::Ok));
                }
                self.report_wanted = true;
            }
            (Ok(_), _) => {
                self.finish(work, Err(failure(FailureKind::Stream, format!("{vm}: the stream ended strangely"))))
            }
            (Err(why), _) if matches!(taken.order.act, Act::Receive { .. }) => {
                // Once listening, the order has its outcome; the end of the stream shows at the source.
                self.report_wanted = true;
                self.undo(vm, work, why);
            }
            (Err(why), _) => {
                // A guest that may run elsewhere by now stays as it is: without a lease until the server orders its resumption, and
                // when its end is ordered already for good.
                if self.ends_by_order(vm) || !self.may_let_run(&work, now_ms) {
                    self.finish(work, Err(why));
                } else {
                    self.hold_until_let(vm, work.under.clone());
                    self.go(vm, work, Step::Resuming { then: Err(why) }, Op::Resume { vm: vm.clone() });
                }
            }
        }
    }

    /// Whether an order that ends the guest here waits.
    fn ends_by_order(&self, vm: &VmId) -> bool {
        let ends = |t: &Taken| matches!(t.order.act, Act::Release { .. } | Act::Destroy { .. });
        self.waiting.values().any(|t| &t.vm == vm && ends(t))
    }

    /// Whether a guest that this work has made or brought back may run: a newer lease than that of the begin says nothing of before.
    fn may_let_run(&self, work: &Work, now_ms: u64) -> bool {
        self.leased(now_ms) && work.under == self.lease.under()
    }

    /// Notes, before a guest is made or brought back, that it is held until it is let run.
    pub(super) fn hold_until_let(&mut self, vm: &VmId, under: Option<String>) {
        if let Some(mut note) = self.notes.get(vm).cloned()
            && let Some(guest) = &mut note.guest
        {
            guest.held = under;
            self.keep(note);
        }
    }

    /// Takes back what a start or a reception had made.
    fn undo(&mut self, vm: &VmId, work: Work, why: Failure) {
        self.go(vm, work, Step::Destroying { then: Err(why) }, Op::Destroy { vm: vm.clone() });
    }

    fn detach(&mut self, vm: &VmId, work: Work, then: Result<Done, Failure>) {
        let disks = self.disks(vm);
        if disks.is_empty() {
            self.forget_guest(vm);
            self.finish(work, then);
        } else {
            self.go(vm, work, Step::Detaching { then }, Op::Detach { disks });
        }
    }
}
