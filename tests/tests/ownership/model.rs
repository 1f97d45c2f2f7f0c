//! The transitions by name, and what must always hold.
//!
//! Owns: the list of actions and the properties. Never does: a transition itself.

use super::always_again::Seen;
use super::state::{Bounds, Fence, Guards, HostNo, Kind, Order, State, Step};
use stateright::{Model, Property};
use std::fmt;

pub(crate) const ONE_HOST: &str = "never two hosts execute the VM";
pub(crate) const NO_LATE_WRITE: &str = "no write of a host lands after its fence or its cut is confirmed";
pub(crate) const NOT_KILLED: &str = "no order destroys a guest where the record wants it";

pub(crate) const RUNS_AGAIN: &str = "the VM can always come to run again";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    BeginMove,
    Abort,
    Step,
    Cut(HostNo),
    Tell(HostNo),
    Hear(HostNo),
    Answer,
    BeginStart(HostNo),
    BeginFence,
    EndFence,
    SlotRead,
    ServerRestarts,
    Begin(HostNo, Order),
    Made(HostNo),
    Suspend(HostNo),
    Freeze(HostNo),
    Received(HostNo),
    StreamFails(HostNo),
    Post(HostNo),
    AgentRestarts(HostNo),
    Crash(HostNo),
    Join(HostNo),
    Hold,
    LetGo,
    Pet,
    WriteBegins,
    WriteLands,
    Tick,
}

/// The protocol with these guards, within these bounds, from a VM that runs on `owner`.
pub(crate) struct Ownership {
    pub(crate) guards: Guards,
    pub(crate) bounds: Bounds,
    pub(crate) owner: HostNo,
    /// All transitions, for the question whether the VM can always run again.
    pub(crate) seen: Option<Seen>,
    /// States from which it cannot: a second run shows the way to one.
    pub(crate) lost: std::collections::HashSet<u64>,
}

impl Ownership {
    pub(crate) fn new(guards: Guards, bounds: Bounds, owner: HostNo) -> Self {
        Self { guards, bounds, owner, seen: None, lost: Default::default() }
    }

    pub(crate) fn with_all_seen(self) -> Self {
        Self { seen: Some(Seen::default()), ..self }
    }

    fn note(&self, from: &State, to: &State) {
        // A fence is no fault, but what a fault is answered by.
        let fault = Bounds { fences: 0, ..from.left } != Bounds { fences: 0, ..to.left };
        if let Some(seen) = &self.seen {
            seen.note(from, to, fault);
        }
    }
}

impl Model for Ownership {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.bounds, self.owner)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        use Action::*;
        actions.extend([BeginMove, Abort, Step, Answer, BeginFence, EndFence, SlotRead, ServerRestarts, LetGo]);
        // Where no fence is within the bounds time stands still: the lease is valid and nobody is judged by his silence.
        if self.bounds.fences > 0 {
            actions.extend([Hold, Pet, WriteBegins, WriteLands, Tick]);
        }
        // A host that has booted anew needs a lease before it runs anything, also where time stands still.
        if self.bounds.host_crashes > 0 {
            actions.extend([WriteBegins, WriteLands]);
        }
        for at in [0, 1] {
            actions.extend([
                Cut(at),
                Tell(at),
                Hear(at),
                BeginStart(at),
                Made(at),
                Suspend(at),
                Freeze(at),
                Received(at),
            ]);
            actions.extend([StreamFails(at), Post(at), AgentRestarts(at), Crash(at), Join(at)]);
            actions.extend(state.hosts[at].told.all().map(|order| Begin(at, order)));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = *before;
        let guards = self.guards;
        let may = match action {
            Action::BeginMove => state.begin_move(),
            Action::Abort => state.abort(),
            Action::Step => state.step(),
            Action::Cut(at) => state.cut(at, guards.cut),
            Action::Tell(at) => state.tell(at),
            Action::Hear(at) => state.hear(at),
            Action::Answer => state.answer(guards),
            Action::BeginStart(at) => state.begin_start(at),
            Action::BeginFence => state.begin_fence(),
            Action::EndFence => state.end_fence(),
            Action::SlotRead => state.slot_read(),
            Action::ServerRestarts => state.server_restarts(),
            Action::Begin(at, order) => state.begin(at, order, guards),
            Action::Made(at) => state.made(at),
            Action::Suspend(at) => state.suspend(at),
            Action::Freeze(at) => state.freeze(at),
            Action::Received(at) => state.received(at, guards),
            Action::StreamFails(at) => state.stream_fails(at, guards.lease_to_resume),
            Action::Post(at) => state.post(at),
            Action::AgentRestarts(at) => state.agent_restarts(at, guards.lease_to_resume),
            Action::Crash(at) => state.crash(at),
            Action::Join(at) => state.join(at, guards.rejoin_floor),
            Action::Hold => guards.lease && state.hold(),
            Action::LetGo => state.let_go(),
            Action::Pet => state.pet(),
            Action::WriteBegins => state.write_begins(),
            Action::WriteLands => state.write_lands(),
            Action::Tick => state.tick(guards.lease),
        };
        if !may || state == *before {
            return None;
        }
        self.note(before, &state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOST, |_, state: &State| !(state.runs(0) && state.runs(1))),
            Property::always(NO_LATE_WRITE, |_, state: &State| {
                let writes = |at: HostNo| state.runs(at) && state.hosts[at].session;
                let fenced = state.record.fence == Fence::Done && state.hosts[0].up && writes(0);
                let left = state.record.r#move.is_some_and(|m| m.step == Step::Activating && writes(m.source));
                !fenced && !left
            }),
            Property::always(NOT_KILLED, |_, state: &State| !state.killed),
            Property::always(RUNS_AGAIN, |model: &Self, state| !Seen::is_in(&model.lost, state)),
        ]
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |at: &HostNo| ["A", "B"][*at];
        match self {
            Self::BeginMove => write!(f, "the server begins a move"),
            Self::Abort => write!(f, "the server calls the move off"),
            Self::Step => write!(f, "the server takes its next step"),
            Self::Cut(at) => write!(f, "the storage confirms that {} is cut", host(at)),
            Self::Tell(at) => write!(f, "the server sends {} its orders", host(at)),
            Self::Hear(at) => write!(f, "the server hears {}'s report", host(at)),
            Self::Answer => write!(f, "A gets a new way to the heartbeat disk, and its orders"),
            Self::BeginStart(at) => write!(f, "the server makes {} the owner, to start the VM there", host(at)),
            Self::BeginFence => write!(f, "the server begins to fence A"),
            Self::EndFence => write!(f, "the server confirms the fence of A"),
            Self::SlotRead => write!(f, "the server reads that A's slot has moved"),
            Self::ServerRestarts => write!(f, "the server is killed and restarted"),
            Self::Begin(at, order) => write!(f, "{} carries out {order}", host(at)),
            Self::Made(at) => write!(f, "{} has made the guest at last, and lets it run", host(at)),
            Self::Suspend(at) => write!(f, "the guest is suspended on {} for the last pages", host(at)),
            Self::Freeze(at) => {
                write!(f, "{} is told that all was received, and lets nobody resume the guest", host(at))
            }
            Self::Received(at) => write!(f, "{} has the guest whole", host(at)),
            Self::StreamFails(at) => write!(f, "the stream from {} breaks", host(at)),
            Self::Post(at) => write!(f, "{} sends a report", host(at)),
            Self::AgentRestarts(at) => write!(f, "the agent of {} is killed and restarted", host(at)),
            Self::Crash(at) => write!(f, "{} crashes", host(at)),
            Self::Join(at) => write!(f, "{} has booted anew and joins", host(at)),
            Self::Hold => write!(f, "A holds its guest, as its lease has lapsed"),
            Self::LetGo => write!(f, "A lets its guest run under the lease that is valid"),
            Self::Pet => write!(f, "A pets its watchdog"),
            Self::WriteBegins => write!(f, "A begins to write its slot"),
            Self::WriteLands => write!(f, "A's write of its slot comes back"),
            Self::Tick => write!(f, "10 s pass"),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Start | Kind::Destroy => write!(f, "{:?} under epoch {}", self.kind, self.of),
            kind => write!(f, "{kind:?} of move {}", self.of + 1),
        }
    }
}
