//! A small model of a machine and its agent: what it holds survives an agent's restart, nothing survives a boot.

use super::storage::Disks;
use crate::event::ReplyTo;
use proto::agent::{
    Act, DiskAccess, DomainState, DomainSurvey, Done, Failure, FailureKind, Heartbeat, HostStats, LeaseState, Order,
    OrderOutcome, OrderProgress, Part, Permit, Report, Stage,
};
use proto::heartbeat::Slot;
use proto::{Epoch, HostId, Mac, MoveId, OrderId, VmId};
use std::collections::{BTreeMap, BTreeSet};

/// Xen's watchdog, as the policy of the tests has it.
const WATCHDOG_MS: u64 = 15_000;

pub(super) struct Domain {
    pub(super) state: DomainState,
    pub(super) part: Part,
    pub(super) epoch: Epoch,
    pub(super) memory_mib: u64,
    /// Whole, and by which move and order.
    received: Option<(MoveId, OrderId)>,
}

/// Half of a stream.
pub(super) struct Stream {
    pub(super) order: OrderId,
    pub(super) permit: Permit,
    pub(super) bytes: u64,
}

/// How far the machine is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stand {
    Off,
    /// Has power; has yet to get its address and script.
    Firmware,
    /// Booted with this nonce, asks to join.
    Joining {
        nonce: String,
    },
    /// Let in, reports.
    Up {
        nonce: String,
    },
}

pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) mac: Mac,
    pub(super) stand: Stand,
    pub(super) key: String,
    pub(super) booted_ms: u64,
    /// Packets between it and the server are lost.
    pub(super) cut_off: bool,
    /// Its agent takes its time.
    pub(super) slow: bool,
    pub(super) domains: BTreeMap<VmId, Domain>,
    floors: BTreeMap<VmId, Epoch>,
    pub(super) queue: BTreeMap<OrderId, Order>,
    done: BTreeSet<OrderId>,
    outcomes: BTreeMap<OrderId, OrderOutcome>,
    pub(super) sending: BTreeMap<VmId, Stream>,
    pub(super) listening: BTreeMap<VmId, Stream>,
    seq: u64,
    pub(super) reported_ms: u64,
    pub(super) changed: bool,
    /// The report that waits for its answer.
    pub(super) waits_for: Option<ReplyTo>,
    /// Where it writes its heartbeat, what it wrote last, and until when that lets guests run.
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) beat: u64,
    lease_until_ms: Option<u64>,
    /// Guests that it paused for want of a lease.
    held: BTreeSet<VmId>,
    /// Its agent stands still, and with it whatever pets the watchdog.
    pub(super) stopped: bool,
}

fn failure(kind: FailureKind, detail: &str) -> Failure {
    Failure { kind, detail: detail.to_owned() }
}

impl Host {
    pub(super) fn new(mac: Mac) -> Self {
        Self {
            id: HostId::of(mac),
            mac,
            stand: Stand::Off,
            key: String::new(),
            booted_ms: 0,
            cut_off: false,
            slow: false,
            domains: BTreeMap::new(),
            floors: BTreeMap::new(),
            queue: BTreeMap::new(),
            done: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            sending: BTreeMap::new(),
            listening: BTreeMap::new(),
            seq: 0,
            reported_ms: 0,
            changed: false,
            waits_for: None,
            heartbeat: None,
            beat: 0,
            lease_until_ms: None,
            held: BTreeSet::new(),
            stopped: false,
        }
    }

    /// The answer says where to write; a new user means that what was before was cut.
    pub(super) fn take_heartbeat(&mut self, given: Option<Heartbeat>) {
        let Some(given) = given else { return };
        if self.heartbeat.as_ref().is_some_and(|before| before.access.user != given.access.user) {
            // Whoever was held for want of the old lease waits to be told.
            self.held.clear();
        }
        self.heartbeat = Some(given);
    }

    /// Writes its slot, if it can, and does what its lease says; what now stands in the slot.
    pub(super) fn live_on(&mut self, now_ms: u64, disks: &Disks) -> Option<(u32, Slot)> {
        let Stand::Up { nonce } = &self.stand else { return None };
        let nonce = nonce.clone();
        let given = self.heartbeat.clone().filter(|_| !self.cut_off && !self.stopped);
        let lets_in = |h: &Heartbeat| disks.lets_in(&h.access.disk, &self.id, &h.access.user, &h.access.secret.0);
        let written = given.filter(lets_in).map(|h| {
            self.beat += 1;
            self.lease_until_ms = Some(now_ms + h.lease_ms);
            for vm in std::mem::take(&mut self.held) {
                if let Some(d) = self.domains.get_mut(&vm).filter(|d| d.state == DomainState::Paused) {
                    d.state = DomainState::Running;
                    self.changed = true;
                }
            }
            (h.slot, Slot { host: self.id.clone(), boot: nonce, counter: self.beat })
        });
        let over_ms = now_ms.saturating_sub(self.lease_until_ms.unwrap_or(now_ms));
        if self.stopped && over_ms >= WATCHDOG_MS {
            self.power(true);
        } else if over_ms > 0 && !self.stopped {
            for (vm, d) in self.domains.iter_mut().filter(|(_, d)| d.state == DomainState::Running) {
                d.state = DomainState::Paused;
                self.held.insert(vm.clone());
                self.changed = true;
            }
        }
        written
    }

    pub(super) fn lease(&self, now_ms: u64) -> LeaseState {
        match self.lease_until_ms {
            None => LeaseState::None,
            Some(until) if now_ms <= until => LeaseState::Valid,
            Some(_) => LeaseState::Lapsed,
        }
    }

    pub(super) fn power(&mut self, on: bool) {
        *self = Self {
            stand: if on { Stand::Firmware } else { Stand::Off },
            cut_off: self.cut_off,
            slow: self.slow,
            ..Self::new(self.mac)
        };
    }

    /// The agent's process ends and starts again: notes are kept, what it was at is not.
    pub(super) fn restart_agent(&mut self) {
        self.queue.clear();
        self.done.clear();
        self.outcomes.clear();
        for (vm, _) in std::mem::take(&mut self.listening) {
            self.domains.retain(|name, d| *name != vm || d.part != Part::Incoming || d.received.is_some());
        }
        self.sending.clear(); // the stream breaks before its end, so the guest was never suspended
        self.waits_for = None;
        self.changed = true;
    }

    pub(super) fn take(&mut self, orders: Vec<Order>, seen: &[OrderId]) {
        for id in seen {
            self.outcomes.remove(id);
        }
        for order in orders {
            let at_it = self.sending.values().chain(self.listening.values()).any(|stream| stream.order == order.id);
            if !self.done.contains(&order.id) && !at_it {
                self.queue.entry(order.id).or_insert(order);
            }
        }
    }

    pub(super) fn end(&mut self, id: OrderId, result: Result<Done, Failure>) {
        self.done.insert(id);
        self.outcomes.insert(id, OrderOutcome { id, result });
        self.changed = true;
    }

    pub(super) fn report(&mut self, now_ms: u64, nonce: &str) -> Report {
        self.seq += 1;
        self.reported_ms = now_ms;
        self.changed = false;
        let domains = self.domains.iter().map(|(vm, d)| DomainSurvey {
            vm: vm.clone(),
            domid: 1,
            epoch: Some(d.epoch),
            state: d.state,
            reboots: false,
            part: d.part,
            memory_mib: d.memory_mib,
            cpu_cores: 0.5,
            net_rx_bytes_s: 0.0,
            net_tx_bytes_s: f64::NAN,
            disk_read_bytes_s: 0.0,
            disk_write_bytes_s: 0.0,
        });
        let domains: Vec<_> = domains.collect();
        let waiting = self.queue.keys().map(|&id| OrderProgress { id, stage: Stage::Working, bytes: 0 });
        let sends = self.sending.values().map(|s| OrderProgress { id: s.order, stage: Stage::Copying, bytes: s.bytes });
        let listens = self.listening.values().map(|s| OrderProgress { id: s.order, stage: Stage::Listening, bytes: 0 });
        let received = self.domains.values().filter_map(|d| d.received);
        let received = received.map(|(_, id)| OrderProgress { id, stage: Stage::Received, bytes: 1 << 20 });
        let used = domains.iter().map(|d| d.memory_mib).sum::<u64>();
        Report {
            boot: nonce.to_owned(),
            seq: self.seq,
            uptime_ms: now_ms - self.booted_ms,
            stats: HostStats { memory_free_mib: 4096_u64.saturating_sub(used), ..HostStats::default() },
            domains,
            outcomes: self.outcomes.values().cloned().collect(),
            underway: waiting.chain(sends).chain(listens).chain(received).collect(),
            lease: self.lease(now_ms),
            term: proto::Term(0),
            survey: None,
        }
    }

    fn reaches(&self, disks: &Disks, wanted: &[DiskAccess]) -> bool {
        wanted.iter().all(|access| disks.lets_in(&access.disk, &self.id, &access.user, &access.secret.0))
    }

    /// Does one order that it has taken. `luck` is drawn anew each time.
    pub(super) fn work(&mut self, id: OrderId, disks: &Disks, luck: u64) {
        let Some(order) = self.queue.get(&id).cloned() else { return };
        let vm = match &order.act {
            Act::Reboot { .. } => unreachable!("there is one release, and so no rollout"),
            Act::Start { vm, .. } | Act::Receive { vm, .. } => vm.name.clone(),
            Act::Send { permit, .. } => {
                serde_json::from_str::<Permit>(&permit.permit_json).expect("the rack writes permits as JSON").vm
            }
            Act::Shutdown { vm, .. }
            | Act::Destroy { vm }
            | Act::Pause { vm }
            | Act::Unpause { vm }
            | Act::Activate { vm, .. }
            | Act::Release { vm, .. }
            | Act::AbortSend { vm, .. }
            | Act::AbortReceive { vm, .. }
            | Act::Console { vm, .. } => vm.clone(),
        };
        self.queue.remove(&id);
        let floor = self.floors.entry(vm.clone()).or_default();
        if order.epoch < *floor {
            return self.end(id, Err(failure(FailureKind::StaleEpoch, "stale")));
        }
        *floor = order.epoch;
        let result = self.act(&vm, &order, disks, luck);
        match result {
            Some(result) => self.end(id, result),
            None => self.changed = true,
        }
    }

    fn act(&mut self, vm: &VmId, order: &Order, disks: &Disks, luck: u64) -> Option<Result<Done, Failure>> {
        let ok = Some(Ok(Done::Ok));
        let no_domain = Some(Err(failure(FailureKind::NoDomain, "no such domain")));
        let tool = Some(Err(failure(FailureKind::Tool, "the tool failed")));
        let here = self.domains.get_mut(vm);
        match &order.act {
            Act::Start { vm: spec, disks: wanted } => match here {
                Some(d)
                    if d.part == Part::Resident
                        && d.epoch == order.epoch
                        && matches!(d.state, DomainState::Running | DomainState::Paused) =>
                {
                    ok
                }
                _ => {
                    self.domains.remove(vm);
                    if !self.reaches(disks, wanted) {
                        return Some(Err(failure(FailureKind::Disk, "login failed")));
                    }
                    if luck.is_multiple_of(12) {
                        return tool;
                    }
                    let domain = Domain {
                        state: DomainState::Running,
                        part: Part::Resident,
                        epoch: order.epoch,
                        memory_mib: spec.memory_mib,
                        received: None,
                    };
                    self.domains.insert(vm.clone(), domain);
                    ok
                }
            },
            Act::Shutdown { .. } if luck.is_multiple_of(4) => {
                Some(Err(failure(FailureKind::Timeout, "it did not shut down")))
            }
            Act::Shutdown { .. } | Act::Destroy { .. } | Act::Release { .. } => {
                self.domains.remove(vm);
                self.sending.remove(vm);
                self.listening.remove(vm);
                ok
            }
            Act::Pause { .. } | Act::Unpause { .. } => match here {
                Some(d) if d.part == Part::Resident => {
                    let pause = matches!(order.act, Act::Pause { .. });
                    d.state = if pause { DomainState::Paused } else { DomainState::Running };
                    ok
                }
                _ => no_domain,
            },
            Act::Receive { permit, vm: spec, disks: wanted } => {
                match here {
                    Some(d) if d.received.map(|(id, _)| id) == Some(permit.r#move) => return ok,
                    Some(d) if d.part != Part::Incoming => return tool,
                    _ => {}
                }
                if !self.reaches(disks, wanted) {
                    return Some(Err(failure(FailureKind::Disk, "login failed")));
                }
                let domain = Domain {
                    state: DomainState::Paused,
                    part: Part::Incoming,
                    epoch: order.epoch,
                    memory_mib: spec.memory_mib,
                    received: None,
                };
                self.domains.insert(vm.clone(), domain);
                let stream = Stream { order: order.id, permit: permit.clone(), bytes: 0 };
                self.listening.insert(vm.clone(), stream);
                ok
            }
            Act::Send { permit, .. } => match here {
                Some(d) if d.state == DomainState::Running && d.part == Part::Resident => {
                    let permit = serde_json::from_str(&permit.permit_json).expect("read above");
                    self.sending.insert(vm.clone(), Stream { order: order.id, permit, bytes: 0 });
                    None
                }
                Some(_) => Some(Err(failure(FailureKind::Stream, "it does not run"))),
                None => no_domain,
            },
            Act::Activate { r#move, .. } => match here {
                Some(d) if d.received.map(|(id, _)| id) == Some(*r#move) => {
                    if luck.is_multiple_of(8) {
                        return tool;
                    }
                    *d = Domain {
                        state: DomainState::Running,
                        part: Part::Resident,
                        epoch: order.epoch,
                        received: None,
                        ..*d
                    };
                    Some(Ok(Done::Activated { downtime_ms: 7 }))
                }
                Some(d) if d.received.is_none() && d.part == Part::Resident && d.epoch == order.epoch => {
                    Some(Ok(Done::Activated { downtime_ms: 0 }))
                }
                _ => no_domain,
            },
            Act::AbortSend { .. } => {
                self.sending.remove(vm);
                match self.domains.get_mut(vm) {
                    Some(_) if luck.is_multiple_of(8) => tool,
                    Some(d) => {
                        (d.state, d.part) = (DomainState::Running, Part::Resident);
                        ok
                    }
                    None => no_domain,
                }
            }
            Act::AbortReceive { .. } => match here {
                Some(d) if d.part == Part::Resident => tool,
                _ => {
                    self.domains.remove(vm);
                    self.listening.remove(vm);
                    ok
                }
            },
            Act::Reboot { .. } => unreachable!("it is about no VM"),
            Act::Console { .. } => Some(Ok(Done::Console { text: "hello".to_owned() })),
        }
    }

    /// The stream to this host ended: with the guest whole, or with nothing.
    pub(super) fn reception_ends(&mut self, vm: &VmId, whole: bool) {
        let Some(stream) = self.listening.remove(vm) else { return };
        if whole {
            if let Some(d) = self.domains.get_mut(vm) {
                d.received = Some((stream.permit.r#move, stream.order));
            }
        } else {
            self.domains.remove(vm);
        }
        self.changed = true;
    }

    /// The stream from this host ended.
    pub(super) fn sending_ends(&mut self, vm: &VmId, whole: bool) {
        let Some(stream) = self.sending.remove(vm) else { return };
        if whole {
            if let Some(d) = self.domains.get_mut(vm) {
                (d.state, d.part) = (DomainState::Suspended, Part::MigratedAway);
            }
            self.end(stream.order, Ok(Done::Sent { bytes: stream.bytes, total_ms: 5 }));
        } else {
            self.end(stream.order, Err(failure(FailureKind::Stream, "the stream broke")));
        }
    }
}
