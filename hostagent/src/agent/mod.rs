//! What the agent does, as a pure function: events and time in, actions out.
//!
//! Owns: which orders are waiting, under way and done; the notes on guests; the roles in moves; when to report. Never does:
//! input or output, waiting, reading a clock. The shell feeds it, and so does the simulated rack.
//!
//! ```text
//!               order                      every order begins with a look at the host
//!                 │
//!   Start ────> look ──> clear ──> prepare ──> create, paused ──> unpause ──────> Ok
//!   Receive ──> look ──> clear ──> prepare ──> listening: Ok ──> streaming ──> received (noted) ──> told
//!   Activate ─> activate ──────────────────────────────────────────────────────> Activated
//!   Send ─────> look ──> streaming ──> Sent                          (guest suspended until told what next)
//!                            └─fails──> resume, paused ──> unpause ────────────> Failure
//!   AbortSend ───(cancel)──> resume, paused ──> unpause ──> Ok
//!   Release ──> detach ──> destroy ──> Ok
//!   AbortReceive (cancel)──> destroy ──> detach ──> Ok
//! ```
//! One order at a time acts on a VM; others wait, by number. One that was overtaken by a higher is void: numbers rise, also over restarts of
//! either side. An order that ends a move cancels the stream, and finds nothing to do where the guest was sent, or came, by another move.
//! A reception that only listens gives way to a later order which needs its guest's place or its port. What takes long to make or to resume
//! is let run only under the lease that it was begun under: after another anything may have been taken away.
//!
//! What a source may do by itself: resume its guest after a `Send` that failed, because that failure promises that the target
//! never heard the word without which it tells nobody that it has received. After `Sent` the guest stands
//! still until `Release` or `AbortSend`, whatever dies meanwhile.

mod lease;
mod note;
mod orders;
mod reboot;
mod report;
mod term;
#[cfg(test)]
mod tests;

pub use lease::KeptLease;
pub use note::{Guest, Note, Received};
pub use orders::{ORDERS_WAITING_MAX, POLL_MS};

use crate::hypervisor::{Completion, Job, Op, OpResult, Progress, Survey};
use lease::Lease;
use orders::{Remade, Taken, Work};
use proto::agent::{Act, Failure, FailureKind, Heartbeat, OrderOutcome, Report, ReportAnswer};
use proto::host::Inventory;
use proto::{OrderId, Term, VmId};
use std::collections::{BTreeMap, BTreeSet};

/// Order numbers remembered as done. A server has far fewer orders in the air to one host.
pub const ORDERS_DONE_MAX: usize = 4096;

/// VMs that left this host whose epochs are remembered.
pub const FLOORS_MAX: usize = 4096;

/// What happens to the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentEvent {
    /// Time has passed; needed at [`Agent::wake_ms`], harmless at any time.
    Tick,
    /// The server answered a report.
    Answer(ReportAnswer),
    /// A stream moved on.
    Progress {
        /// Which operation.
        job: Job,
        /// How far.
        progress: Progress,
    },
    /// An operation has ended.
    Done {
        /// Which.
        job: Job,
        /// How.
        result: OpResult,
    },
    /// Some domain came, went or changed its state. May be said too often.
    DomainsChanged,
    /// A connection to the server was made anew: tell it everything.
    Connected,
    /// A write to the slot has come back.
    Renewed {
        /// Under which CHAP user it was written.
        user: String,
        /// The write's beginning, on the clock of `now_ms`. How long its lease is, is what the server says by now.
        begun_ms: u64,
    },
}

/// What the agent wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentAction {
    /// Write the note to /run/tsubame before going on.
    KeepNote(Note),
    /// Remove the note.
    DropNote(VmId),
    /// Begin an operation.
    Do {
        /// Its number, for [`AgentEvent::Done`].
        job: Job,
        /// What.
        op: Op,
    },
    /// Send a report. A newer one replaces one that was not sent yet.
    Post(Report),
    /// Write this slot from now on, in place of any other.
    Heartbeat(Heartbeat),
    /// Keep for an agent that is restarted.
    KeepLease(KeptLease),
    /// Keep for an agent that is restarted, before going on.
    KeepTerm(Term),
    /// Arm Xen's watchdog, or wind it up again.
    Pet {
        /// After so long without another the host is reset, seconds.
        timeout_s: u64,
    },
    /// Start the machine anew, now.
    Reboot,
}

/// The agent's state.
#[derive(Debug)]
pub struct Agent {
    boot: String,
    notes: BTreeMap<VmId, Note>,
    waiting: BTreeMap<OrderId, Taken>,
    works: BTreeMap<VmId, Work>,
    jobs: BTreeMap<Job, JobFor>,
    job_next: u64,
    outcomes: BTreeMap<OrderId, OrderOutcome>,
    /// Guests that wait to be made anew, and could not be: when it is tried again.
    unmade: BTreeMap<VmId, u64>,
    /// Guests that wanted to start again, when they last did.
    remade: BTreeMap<VmId, Remade>,
    /// Guests whose destruction took too long: the next is tried without their disks, for whose answer Xen may wait.
    stuck: BTreeSet<VmId>,
    done: BTreeSet<OrderId>,
    seq: u64,
    report_ms: u64,
    report_at_ms: u64,
    report_wanted: bool,
    reported: Option<(u64, Survey)>,
    lease: Lease,
    rule: term::Rule,
    actions: Vec<AgentAction>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum JobFor {
    Work(VmId),
    Console(OrderId),
    Reboot(OrderId),
    Report,
    /// The lease has lapsed: a look at what runs, then the pause of everything.
    Look,
    Hold,
    /// A guest that was held goes on.
    LetGo(VmId),
    /// Nobody waits for its end.
    Nobody,
}

impl Agent {
    /// An agent of this boot (the join's nonce) which finds these notes and this lease; none after a boot of the host, its own after a
    /// restart.
    pub fn new(boot: String, notes: Vec<Note>, lease: Option<KeptLease>) -> Self {
        Self {
            boot,
            notes: notes.into_iter().map(|n| (n.vm.clone(), n)).collect(),
            waiting: BTreeMap::new(),
            works: BTreeMap::new(),
            jobs: BTreeMap::new(),
            job_next: 1,
            outcomes: BTreeMap::new(),
            unmade: BTreeMap::new(),
            remade: BTreeMap::new(),
            stuck: BTreeSet::new(),
            done: BTreeSet::new(),
            seq: 0,
            report_ms: 2_000,
            report_at_ms: 0,
            report_wanted: true,
            reported: None,
            lease: Lease::of(lease),
            rule: term::Rule::default(),
            actions: Vec::new(),
        }
    }

    /// The same, knowing the highest term that it was told before its restart, and what the machine is.
    #[must_use]
    pub fn knowing(mut self, term: Term, inventory: Option<Inventory>) -> Self {
        self.rule = term::Rule::of(term, inventory);
        self
    }

    /// Applies one event at `now_ms`: milliseconds since the host was started, which never step back and go on over a
    /// restart of the agent. Actions are to be carried out in their order.
    pub fn apply(&mut self, event: AgentEvent, now_ms: u64) -> Vec<AgentAction> {
        match event {
            AgentEvent::Tick => {}
            AgentEvent::Answer(answer) => self.answered(answer),
            AgentEvent::Progress { job, progress } => self.progressed(job, progress),
            AgentEvent::Done { job, result } => self.ended(job, result, now_ms),
            AgentEvent::DomainsChanged | AgentEvent::Connected => self.report_wanted = true,
            AgentEvent::Renewed { user, begun_ms } => self.renewed(&user, begun_ms, now_ms),
        }
        self.see_to_lease(now_ms);
        self.work_deadlines(now_ms);
        self.begin_waiting(now_ms);
        self.report_if_due(now_ms);
        std::mem::take(&mut self.actions)
    }

    /// When the next [`AgentEvent::Tick`] is needed at the latest, on the clock of `now_ms`.
    pub fn wake_ms(&self) -> u64 {
        self.works.values().filter_map(Work::deadline_ms).fold(self.report_at_ms, u64::min).min(self.lease.wake_ms())
    }

    /// What is known of a VM.
    pub fn note(&self, vm: &VmId) -> Option<&Note> {
        self.notes.get(vm)
    }

    fn answered(&mut self, answer: ReportAnswer) {
        if !self.rules(&answer) {
            return;
        }
        for id in answer.seen {
            self.outcomes.remove(&id);
        }
        self.report_ms = answer.report_ms.clamp(1_000, 60_000);
        self.told_heartbeat(answer.heartbeat);
        for order in answer.orders {
            let known = self.done.contains(&order.id)
                || self.waiting.contains_key(&order.id)
                || self.works.values().any(|w| w.order_id() == Some(order.id))
                || self.jobs.values().any(|j| [JobFor::Console(order.id), JobFor::Reboot(order.id)].contains(j));
            // Beyond the bound an order is passed over: the server repeats it.
            if known {
                continue;
            }
            if let Act::Reboot { boot } = &order.act {
                self.told_to_reboot(order.id, boot);
            } else if self.waiting.len() < ORDERS_WAITING_MAX {
                match Taken::read(order) {
                    Ok(taken) => drop(self.waiting.insert(taken.id(), taken)),
                    Err((id, why)) => self.outcome(id, Err(why)),
                }
            }
        }
    }

    fn ended(&mut self, job: Job, result: OpResult, now_ms: u64) {
        match self.jobs.remove(&job) {
            Some(JobFor::Report) => self.post(result, now_ms),
            Some(JobFor::Console(id)) => {
                let result = result.map(|c| match c {
                    Completion::Console { text } => proto::agent::Done::Console { text },
                    _ => proto::agent::Done::Ok,
                });
                self.outcome(id, result);
            }
            Some(JobFor::Reboot(id)) => self.looked_to_reboot(id, result),
            Some(JobFor::Work(vm)) => {
                if let Ok(Completion::Survey(survey)) = &result {
                    self.look(survey, now_ms);
                }
                self.look_soon();
                self.advance(&vm, result, now_ms);
            }
            Some(JobFor::Look) => self.looked_to_hold(result, now_ms),
            Some(JobFor::Hold) => self.held(&result, now_ms),
            Some(JobFor::LetGo(vm)) => self.let_gone(&vm, &result, now_ms),
            Some(JobFor::Nobody) | None => {}
        }
    }

    /// Begins an operation.
    fn run(&mut self, purpose: JobFor, op: Op) -> Job {
        let job = Job(self.job_next);
        self.job_next += 1;
        self.jobs.insert(job, purpose);
        self.actions.push(AgentAction::Do { job, op });
        job
    }

    fn outcome(&mut self, id: OrderId, result: Result<proto::agent::Done, Failure>) {
        self.outcomes.insert(id, OrderOutcome { id, result });
        self.done.insert(id);
        if self.done.len() > ORDERS_DONE_MAX {
            self.done.pop_first();
        }
        self.report_wanted = true;
    }

    fn keep(&mut self, note: Note) {
        self.actions.push(AgentAction::KeepNote(note.clone()));
        self.notes.insert(note.vm.clone(), note);
    }

    /// The guest has left; only the epoch under which it did is kept.
    fn forget_guest(&mut self, vm: &VmId) {
        let Some(note) = self.notes.get(vm) else { return };
        if note.guest.is_some() {
            let note = Note { guest: None, ..note.clone() };
            self.keep(note);
        }
        let left: Vec<_> = self.notes.values().filter(|n| n.guest.is_none()).map(|n| (n.floor, n.vm.clone())).collect();
        if left.len() > FLOORS_MAX
            && let Some((_, vm)) = left.into_iter().min()
        {
            self.notes.remove(&vm);
            self.actions.push(AgentAction::DropNote(vm));
        }
    }
}

/// A failure, its text cut to the 500 bytes that the protocol allows and to one line.
pub fn failure(kind: FailureKind, detail: impl Into<String>) -> Failure {
    let mut detail: String = detail.into().split_whitespace().collect::<Vec<_>>().join(" ");
    if detail.len() > 500 {
        let cut = (0..=497).rev().find(|&i| detail.is_char_boundary(i)).unwrap_or(0);
        detail.truncate(cut);
        detail.push('…');
    }
    Failure { kind, detail }
}
