//! The model's state: one VM, two hosts, the record, the storage's access lists, and the clocks of the host under suspicion.
//!
//! Owns: what is modelled, the guards and the bounds. Never does: a transition (`server`, `host`).
//!
//! Host 0 may fall silent: it has a lease, a watchdog and a heartbeat. Host 1 is always heard, but may crash and boot anew.

/// A host: 0 or 1.
pub(crate) type HostNo = usize;
/// Ticks. One stands for 10 s: the lease is two, watchdog and trigger together two (19 s, rounded up), the wait four.
pub(crate) const LEASE: u8 = 2;
pub(crate) const WATCHDOG: u8 = 2;
pub(crate) const WAIT: u8 = LEASE + WATCHDOG;

/// Each is on in the protocol; a test switches one off and sees what it prevents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guards {
    /// The agent refuses orders under a lower epoch than it knows.
    pub(crate) epoch_check: bool,
    /// Nothing told to an earlier boot of a host counts in a later one.
    pub(crate) rejoin_floor: bool,
    /// The target runs the guest only after the owner has changed in the store.
    pub(crate) run_after_commit: bool,
    /// A fence removes the host from the disks' access lists.
    pub(crate) cut: bool,
    /// Guests are held, or the host reset, when the lease lapses.
    pub(crate) lease: bool,
    /// A guest whose stream failed goes on only under a valid lease.
    pub(crate) lease_to_resume: bool,
    /// A guest that took long to be made runs only under the lease that its making was begun under.
    pub(crate) lease_to_run: bool,
    /// The end of a move does nothing to a guest that was sent or came by another, and an order that was overtaken by a later one is void.
    pub(crate) by_number: bool,
}

impl Guards {
    pub(crate) const ALL: Self = Self {
        epoch_check: true,
        rejoin_floor: true,
        run_after_commit: true,
        cut: true,
        lease: true,
        lease_to_resume: true,
        lease_to_run: true,
        by_number: true,
    };
}

/// How much may happen in one run. Loss, delay and reordering are not bounded: what is not delivered is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub(crate) moves: u8,
    pub(crate) host_crashes: u8,
    pub(crate) agent_restarts: u8,
    pub(crate) server_restarts: u8,
    /// Fences begun.
    pub(crate) fences: u8,
}

/// What a host has of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Domain {
    None,
    Runs,
    /// Paused for want of a lease, or just made; the lease was under this heartbeat account.
    Held(u8),
    /// Being made, and run when that is done, lease or not: without `lease_to_run`.
    Made,
    /// Suspended by a move: sent, or being sent.
    Suspended,
    /// Awaited by a move.
    Incoming,
    /// Here whole, paused, noted.
    Received,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Start,
    Receive,
    Send,
    Activate,
    Release,
    AbortSend,
    AbortReceive,
    Destroy,
}

pub(crate) const KINDS: [Kind; 8] = [
    Kind::Start,
    Kind::Receive,
    Kind::Send,
    Kind::Activate,
    Kind::Release,
    Kind::AbortSend,
    Kind::AbortReceive,
    Kind::Destroy,
];

/// An order. `of` is the epoch of a Start or Destroy and the move of all others: the same order said again is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Order {
    pub(crate) kind: Kind,
    pub(crate) of: u8,
}

/// A set of orders, one bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Orders(u64);

impl Orders {
    fn bit(order: Order) -> u64 {
        1 << (order.kind as u32 * 8 + u32::from(order.of))
    }
    pub(crate) fn add(&mut self, order: Order) {
        self.0 |= Self::bit(order);
    }
    pub(crate) fn has(self, order: Order) -> bool {
        self.0 & Self::bit(order) != 0
    }
    pub(crate) fn all(self) -> impl Iterator<Item = Order> {
        let at = |bit: u32| Order { kind: KINDS[bit as usize / 8], of: (bit % 8) as u8 };
        (0..64).filter(move |bit| self.0 >> bit & 1 == 1).map(at)
    }
}

/// Orders in the order of their numbers. The oldest are lost beyond the room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Told([Option<Order>; 8]);

impl Told {
    /// Said for the first time, it has the highest number; said again, that which it had.
    pub(crate) fn add(&mut self, order: Order) {
        if !self.has(order) {
            if self.0[7].is_some() {
                self.0.rotate_left(1);
                self.0[7] = None;
            }
            let free = self.0.iter_mut().find(|at| at.is_none()).expect("room was made");
            *free = Some(order);
        }
    }
    pub(crate) fn has(&self, order: Order) -> bool {
        self.0.contains(&Some(order))
    }
    pub(crate) fn all(&self) -> impl Iterator<Item = Order> {
        self.0.into_iter().flatten()
    }
    /// It was begun: what has a lower number is void.
    pub(crate) fn overtake(&mut self, order: Order) {
        let lower = self.0.iter().position(|at| *at == Some(order)).unwrap_or(0);
        self.0.rotate_left(lower);
        self.0[8 - lower..].fill(None);
    }
}

/// What a report says: the survey and the outcomes at the moment it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Report {
    pub(crate) domain: Domain,
    pub(crate) epoch: u8,
    /// The move of what was received.
    pub(crate) of: u8,
    pub(crate) done: Orders,
    /// Orders that found nothing, or failed.
    pub(crate) failed: Orders,
    pub(crate) leased: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) up: bool,
    pub(crate) domain: Domain,
    /// The note's epoch of the guest, and the highest ever ordered.
    pub(crate) epoch: u8,
    pub(crate) floor: u8,
    /// The move that the guest was sent by last, or came by.
    pub(crate) of: u8,
    /// `xl migrate` lives, and would let the guest go on if its pipe ends.
    pub(crate) sending: bool,
    /// Logged in to the VM's disk: what it writes lands.
    pub(crate) session: bool,
    /// By this agent process; gone when it restarts.
    pub(crate) done: Orders,
    pub(crate) failed: Orders,
    /// Told to this agent process: delivered any number of times, in any order, or never.
    pub(crate) told: Told,
    /// A report under way; a newer one replaces it.
    pub(crate) report: Option<Report>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Running,
    Moving,
    Unknown,
    Stopping,
    Stopped,
    Starting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Preparing,
    Copying,
    Committing,
    Activating,
    Releasing,
    Aborting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Move {
    pub(crate) no: u8,
    pub(crate) step: Step,
    pub(crate) source: HostNo,
    /// The VM's epoch when it began.
    pub(crate) epoch: u8,
    /// Aborting: who is still to clear.
    pub(crate) source_clears: bool,
    pub(crate) target_clears: bool,
}

impl Move {
    pub(crate) fn target(&self) -> HostNo {
        1 - self.source
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fence {
    None,
    Cutting,
    Done,
}

/// What the store holds. Each change of it is one transaction, durable before what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) owner: HostNo,
    pub(crate) epoch: u8,
    pub(crate) phase: Phase,
    pub(crate) r#move: Option<Move>,
    /// Of host 0.
    pub(crate) fence: Fence,
    /// Ways to the disk that are being taken.
    pub(crate) cutting: [bool; 2],
    /// The heartbeat account of host 0 is being taken.
    pub(crate) heartbeat_cutting: bool,
    /// The epochs at which the moves so far began.
    pub(crate) begun: [u8; 4],
}

/// Host 0's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Clocks {
    /// Left of the lease.
    pub(crate) lease: u8,
    /// Left until the watchdog has reset the host.
    pub(crate) watchdog: u8,
    /// A write of the slot is under way since so long.
    pub(crate) write: Option<u8>,
    /// The slot has moved and the server has not read it.
    pub(crate) moved: bool,
    /// Without a sign of life for so long, as the server sees it.
    pub(crate) quiet: u8,
    /// The heartbeat account that the agent has.
    pub(crate) account: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) record: Record,
    pub(crate) hosts: [Host; 2],
    /// The account by which the storage lets each host reach the disk; 0 is none.
    pub(crate) granted: [u8; 2],
    /// The account by which host 0 may write its slot; 0 is none.
    pub(crate) heartbeat: u8,
    pub(crate) clocks: Clocks,
    /// Domains that are to be destroyed as stale, and under which epoch; the server's memory.
    pub(crate) orphan: [u8; 2],
    pub(crate) left: Bounds,
    /// An order destroyed a guest that the record says is to run there.
    pub(crate) killed: bool,
}

/// More moves than there can be.
pub(crate) const NO_MOVE: u8 = 7;

/// The account of a start under an epoch, and of a reception by a move.
pub(crate) fn start_account(epoch: u8) -> u8 {
    epoch
}
pub(crate) fn move_account(no: u8) -> u8 {
    16 + no
}

impl State {
    /// The VM runs on `owner` under epoch 1.
    pub(crate) fn first(bounds: Bounds, owner: HostNo) -> Self {
        let none = Host {
            up: true,
            domain: Domain::None,
            epoch: 0,
            floor: 0,
            of: NO_MOVE,
            sending: false,
            session: false,
            done: Orders::default(),
            failed: Orders::default(),
            told: Told::default(),
            report: None,
        };
        let mut hosts = [none; 2];
        hosts[owner] = Host { domain: Domain::Runs, epoch: 1, floor: 1, session: true, ..none };
        let mut granted = [0; 2];
        granted[owner] = start_account(1);
        // The start that made it run may be under way still, once more.
        hosts[owner].told.add(Order { kind: Kind::Start, of: 1 });
        hosts[owner].done.add(Order { kind: Kind::Start, of: 1 });
        Self {
            record: Record {
                owner,
                epoch: 1,
                phase: Phase::Running,
                r#move: None,
                fence: Fence::None,
                cutting: [false; 2],
                heartbeat_cutting: false,
                begun: [0; 4],
            },
            hosts,
            granted,
            heartbeat: 1,
            clocks: Clocks { lease: LEASE, watchdog: WATCHDOG, write: None, moved: false, quiet: 0, account: 1 },
            orphan: [0; 2],
            left: bounds,
            killed: false,
        }
    }

    /// The epoch that an order carries.
    pub(crate) fn epoch_of(&self, order: Order) -> u8 {
        let begun = || self.record.begun[usize::from(order.of)];
        match order.kind {
            Kind::Start | Kind::Destroy => order.of,
            Kind::Activate | Kind::Release => begun() + 1,
            Kind::Receive | Kind::Send | Kind::AbortSend | Kind::AbortReceive => begun(),
        }
    }

    pub(crate) fn leased(&self, host: HostNo) -> bool {
        host == 1 || self.clocks.lease > 0
    }

    pub(crate) fn runs(&self, host: HostNo) -> bool {
        self.hosts[host].domain == Domain::Runs
    }

    /// Where the record says, able to write, and nothing under way.
    pub(crate) fn runs_as_recorded(&self) -> bool {
        let owner = self.record.owner;
        let settled = self.record.phase == Phase::Running && self.record.r#move.is_none();
        settled && self.runs(owner) && self.hosts[owner].session && self.granted[owner] != 0
    }
}
