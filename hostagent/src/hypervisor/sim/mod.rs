//! One physical model of hosts, memory, links, disks and guests, for tests: what `xl` does, without Xen.
//!
//! Owns: what is true of the simulated world, and how long things take. Never does: deciding; being named by production. It is a
//! function of what was asked of it: no clock, no randomness; a test injects the faults.
//!
//! ```text
//!   begin(host, job, op, now) ──> effect and completion at now + cost     step(until) ──> what happened, in order
//! ```
//! What an operation does to the host happens even when the agent that asked for it is killed meanwhile, as with a child process; only
//! its completion is then lost. Streams are in [`stream`], with the table of what each cut leaves behind.

mod beat;
mod stream;

use super::{Completion, Job, Op, OpResult, SeenDomain, Survey};
use crate::agent::{AgentEvent, failure};
use beat::Beat;
use proto::agent::{DiskAccess, DomainState, FailureKind, Part};
use proto::heartbeat::Slot;
use proto::{DiskId, HostId, MoveId, VmId};
use std::collections::{BTreeMap, BTreeSet};
use stream::Stream;

/// How long things take, milliseconds, and how fast they go.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // each is named after its operation
pub struct Costs {
    pub survey_ms: u64,
    pub login_ms: u64,
    pub fetch_ms: u64,
    pub create_ms: u64,
    pub destroy_ms: u64,
    pub pause_ms: u64,
    /// From the asking to the guest's end.
    pub shutdown_ms: u64,
    pub resume_ms: u64,
    /// From a domain's change to the agent hearing of it.
    pub watch_ms: u64,
    pub connect_ms: u64,
    /// One way between two hosts.
    pub latency_ms: u64,
    /// From the last byte to READY: devices at the target.
    pub devices_ms: u64,
    /// Of a link that falls silent, until either end gives the stream up.
    pub silence_ms: u64,
    /// Bytes a millisecond of one stream, without a limit ordered.
    pub link_bytes_ms: u64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            survey_ms: 2,
            login_ms: 60,
            fetch_ms: 100,
            create_ms: 400,
            destroy_ms: 150,
            pause_ms: 1,
            shutdown_ms: 1_500,
            resume_ms: 50,
            watch_ms: 2,
            connect_ms: 5,
            latency_ms: 1,
            devices_ms: 80,
            silence_ms: 10_000,
            link_bytes_ms: 110_000,
        }
    }
}

/// A domain of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Xen's number.
    pub domid: u32,
    /// Which VM.
    pub vm: VmId,
    /// What it is doing.
    pub state: DomainState,
    /// It shut down in order to start again.
    pub reboots: bool,
    /// Its name's suffix.
    pub part: Part,
    /// MiB.
    pub memory_mib: u64,
    /// Whose memory it holds: a creation begins a new one, a stream carries it on.
    pub lineage: u64,
    /// Its disks.
    pub disks: Vec<DiskId>,
}

/// A host of the model.
#[derive(Debug)]
struct Host {
    powered: bool,
    memory_mib: u64,
    domains: Vec<Domain>,
    domid_next: u32,
    sessions: BTreeSet<DiskId>,
    /// Raised with every loss of power: what was begun before does not end after.
    boot: u64,
    /// Which agent process is alive; what an earlier one asked for is not told to it.
    agent: u64,
}

#[derive(Debug)]
enum Due {
    Effect { host: HostId, boot: u64, agent: u64, job: Job, op: Op },
    Tell { host: HostId, agent: u64, event: AgentEvent },
    GuestEnds { host: HostId, domid: u32 },
    Stream { r#move: MoveId, turn: u64 },
    PermitEnds { r#move: MoveId, job: Job },
    Beat { host: HostId, agent: u64, turn: u64 },
    Watchdog { host: HostId },
}

/// The whole model.
#[derive(Debug)]
pub struct World {
    costs: Costs,
    hosts: BTreeMap<HostId, Host>,
    /// Which hosts may log in to a disk, each by its user.
    grants: BTreeMap<DiskId, BTreeMap<HostId, String>>,
    /// It is a SAN that asks nobody whom it may let in.
    open: bool,
    streams: BTreeMap<MoveId, Stream>,
    cut_links: BTreeSet<(HostId, HostId)>,
    /// Bytes a millisecond that a VM dirties.
    dirty: BTreeMap<VmId, u64>,
    stubborn: BTreeSet<VmId>,
    /// VMs that wait for an answer of their storage, and go only when nobody is logged in to it any more.
    stuck: BTreeSet<VmId>,
    /// What a creation takes longer on a host, milliseconds.
    slow_ms: BTreeMap<HostId, u64>,
    /// Hosts whose wall clocks are wrong, and by how much.
    clock_off_ms: BTreeMap<HostId, i64>,
    /// Raised with every change of a domain or of a way to a disk.
    changes: u64,
    beats: BTreeMap<HostId, Beat>,
    slots: BTreeMap<u32, Slot>,
    resets: Vec<(HostId, Vec<VmId>)>,
    due: BTreeMap<(u64, u64), Due>,
    due_next: u64,
    lineage_next: u64,
    now_ms: u64,
    out: Vec<(u64, HostId, AgentEvent)>,
}

impl World {
    /// An empty world. Its clock serves as every host's `now_ms` and, as Unix milliseconds, for permits.
    pub fn new(costs: Costs) -> Self {
        Self {
            costs,
            hosts: BTreeMap::new(),
            grants: BTreeMap::new(),
            open: false,
            streams: BTreeMap::new(),
            cut_links: BTreeSet::new(),
            dirty: BTreeMap::new(),
            stubborn: BTreeSet::new(),
            stuck: BTreeSet::new(),
            slow_ms: BTreeMap::new(),
            clock_off_ms: BTreeMap::new(),
            changes: 0,
            beats: BTreeMap::new(),
            slots: BTreeMap::new(),
            resets: Vec::new(),
            due: BTreeMap::new(),
            due_next: 0,
            lineage_next: 1,
            now_ms: 0,
            out: Vec::new(),
        }
    }

    /// Racks a machine, switched on, with this much memory for guests.
    pub fn add_host(&mut self, id: HostId, memory_mib: u64) {
        let host = Host {
            powered: true,
            memory_mib,
            domains: Vec::new(),
            domid_next: 1,
            sessions: BTreeSet::new(),
            boot: 0,
            agent: 0,
        };
        self.hosts.insert(id, host);
    }

    /// Cuts the power: every domain, session and process of the host is gone.
    pub fn power_off(&mut self, id: &HostId) {
        let Some(host) = self.hosts.get_mut(id) else { return };
        self.changes += 1;
        host.powered = false;
        host.boot += 1;
        host.agent += 1;
        host.domains.clear();
        host.sessions.clear();
        host.domid_next = 1;
        self.beats_end(id);
        self.drop_streams_of(id, true);
    }

    /// Power is back, the host is empty, no agent runs yet: its test makes a new one.
    pub fn power_on(&mut self, id: &HostId) {
        if let Some(host) = self.hosts.get_mut(id) {
            host.powered = true;
        }
    }

    /// Kills the agent's process; the test makes a new agent from the notes. Its streams break, its other operations go on unheard.
    pub fn kill_agent(&mut self, id: &HostId) {
        let Some(host) = self.hosts.get_mut(id) else { return };
        host.agent += 1;
        self.drop_streams_of(id, false);
    }

    /// Cuts or mends the path between two hosts.
    pub fn set_link(&mut self, a: &HostId, b: &HostId, up: bool) {
        for pair in [(a.clone(), b.clone()), (b.clone(), a.clone())] {
            if up {
                self.cut_links.remove(&pair)
            } else {
                self.cut_links.insert(pair)
            };
        }
        if !up {
            self.silence_streams(a, b);
        }
    }

    /// How fast a VM dirties memory, bytes a second.
    pub fn set_dirty(&mut self, vm: &VmId, bytes_s: u64) {
        self.dirty.insert(vm.clone(), bytes_s / 1000);
    }

    /// Whether a VM ignores being asked to shut down.
    pub fn set_stubborn(&mut self, vm: &VmId, stubborn: bool) {
        mark(&mut self.stubborn, vm, stubborn);
    }

    /// Whether a VM waits for its storage, and cannot be destroyed while its host is logged in there.
    pub fn set_stuck(&mut self, vm: &VmId, stuck: bool) {
        mark(&mut self.stuck, vm, stuck);
    }

    /// How much longer a host takes to create a domain, milliseconds.
    pub fn set_slow(&mut self, host: &HostId, ms: u64) {
        self.slow_ms.insert(host.clone(), ms);
    }

    /// How wrong a host's wall clock is, milliseconds: permits end by it.
    pub fn set_clock(&mut self, host: &HostId, off_ms: i64) {
        self.clock_off_ms.insert(host.clone(), off_ms);
    }

    /// Rises whenever a domain or a way to a disk may have changed: who has looked since need not look again.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a host is logged in to a disk.
    pub fn reaches(&self, host: &HostId, disk: &DiskId) -> bool {
        self.hosts.get(host).is_some_and(|h| h.sessions.contains(disk))
    }

    /// The guest ends by itself.
    pub fn guest_ends(&mut self, host: &HostId, vm: &VmId, state: DomainState, reboots: bool) {
        if let Some(d) = self.domain_mut(host, vm) {
            d.state = state;
            d.reboots = reboots;
        }
        self.changed(host);
    }

    /// Has every host log in to every disk, whatever was granted or cut: a SAN that is not the server's.
    pub fn open_to_all(&mut self) {
        self.open = true;
    }

    /// Whether a host is let in.
    fn lets_in(&self, disk: &DiskAccess, host: &HostId) -> bool {
        self.open
            || self.grants.get(&disk.disk).and_then(|grants| grants.get(host)).is_some_and(|user| *user == disk.user)
    }

    /// Lets a host log in to a disk. The storage's part: the simulated rack calls it for `StorageOp::Grant`.
    pub fn grant(&mut self, disk: &DiskId, host: &HostId, user: &str) {
        self.grants.entry(disk.clone()).or_default().insert(host.clone(), user.to_owned());
    }

    /// Who may log in to a disk, and as whom.
    pub fn granted(&self, disk: &DiskId) -> BTreeMap<HostId, String> {
        self.grants.get(disk).cloned().unwrap_or_default()
    }

    /// Takes the grant away and ends the session: `StorageOp::Cut`.
    pub fn cut(&mut self, disk: &DiskId, host: &HostId) {
        self.changes += 1;
        if let Some(grants) = self.grants.get_mut(disk) {
            grants.remove(host);
        }
        if let Some(host) = self.hosts.get_mut(host) {
            host.sessions.remove(disk);
        }
    }

    /// Where a VM runs now. More than one is the fault that nothing may ever cause.
    pub fn running(&self, vm: &VmId) -> Vec<HostId> {
        let runs = |h: &Host| h.domains.iter().any(|d| &d.vm == vm && d.state == DomainState::Running);
        self.hosts.iter().filter(|(_, h)| runs(h)).map(|(id, _)| id.clone()).collect()
    }

    /// Every VM that runs on more than one host, with the hosts.
    pub fn doubled(&self) -> Vec<(VmId, Vec<HostId>)> {
        let vms: BTreeSet<_> = self.hosts.values().flat_map(|h| h.domains.iter().map(|d| d.vm.clone())).collect();
        vms.into_iter().map(|vm| (vm.clone(), self.running(&vm))).filter(|(_, hosts)| hosts.len() > 1).collect()
    }

    /// Hosts on which a running guest can write to this disk now.
    pub fn writers(&self, disk: &DiskId) -> Vec<HostId> {
        let writes = |d: &Domain| d.state == DomainState::Running && d.disks.contains(disk);
        let can = |h: &Host| h.sessions.contains(disk) && h.domains.iter().any(writes);
        self.hosts.iter().filter(|(_, h)| can(h)).map(|(id, _)| id.clone()).collect()
    }

    /// A host's domains.
    pub fn domains(&self, host: &HostId) -> &[Domain] {
        self.hosts.get(host).map_or(&[], |h| &h.domains)
    }

    /// When the next thing is due.
    pub fn next_ms(&self) -> Option<u64> {
        self.due.keys().next().map(|&(at, _)| at).into_iter().chain(self.out.first().map(|o| o.0)).min()
    }

    /// Begins an operation for the agent that is alive on this host.
    pub fn begin(&mut self, host: &HostId, job: Job, op: Op, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let Some(h) = self.hosts.get(host).filter(|h| h.powered) else { return };
        let (boot, agent) = (h.boot, h.agent);
        let c = &self.costs;
        let cost = match &op {
            Op::Survey | Op::Console { .. } => c.survey_ms,
            Op::Prepare { files, .. } => c.login_ms + if *files { c.fetch_ms } else { 0 },
            Op::Create { .. } => c.create_ms + self.slow_ms.get(host).copied().unwrap_or(0),
            Op::Destroy { .. } => c.destroy_ms,
            Op::AskShutdown { .. } | Op::Pause { .. } | Op::Unpause { .. } | Op::Activate { .. } => c.pause_ms,
            Op::Detach { .. } => c.login_ms,
            Op::Resume { .. } => c.resume_ms,
            Op::Cancel { .. } => 0,
            Op::Send { .. } | Op::Receive { .. } => c.connect_ms,
            Op::Hold => c.pause_ms,
        };
        // What an earlier agent has begun to make is made first.
        let made_ms = match &op {
            Op::Create { guest } => self.made_ms(host, &guest.spec.name),
            Op::Destroy { vm } => self.made_ms(host, vm),
            _ => None,
        };
        self.push((now_ms + cost).max(made_ms.unwrap_or(0)), Due::Effect { host: host.clone(), boot, agent, job, op });
    }

    /// When a VM that is being made on a host will have been.
    fn made_ms(&self, host: &HostId, vm: &VmId) -> Option<u64> {
        let boot = self.hosts.get(host)?.boot;
        let makes = |due: &Due| {
            matches!(due, Due::Effect { host: h, boot: b, op: Op::Create { guest }, .. }
                if h == host && *b == boot && guest.spec.name == *vm)
        };
        self.due.iter().filter(|(_, due)| makes(due)).map(|(&(at, _), _)| at).max()
    }

    /// Lets time pass up to and including `until_ms` and returns what agents are told, in order, each with its moment.
    /// To hand each over at its moment, step to [`Self::next_ms`] at most.
    pub fn step(&mut self, until_ms: u64) -> Vec<(u64, HostId, AgentEvent)> {
        while let Some((&(at, seq), _)) = self.due.iter().next()
            && at <= until_ms
        {
            self.now_ms = self.now_ms.max(at);
            match self.due.remove(&(at, seq)) {
                // What was begun before the host lost its power does not end after.
                Some(Due::Effect { host, boot, agent, job, op })
                    if self.hosts.get(&host).is_some_and(|h| h.powered && h.boot == boot) =>
                {
                    self.effect(&host, agent, job, op);
                }
                Some(Due::Effect { .. }) | None => {}
                Some(Due::Tell { host, agent, event }) => {
                    let hears = self.hosts.get(&host).is_some_and(|h| h.powered && h.agent == agent);
                    self.out.extend(hears.then_some((at, host, event)));
                }
                Some(Due::GuestEnds { host, domid }) => {
                    let domain =
                        self.hosts.get_mut(&host).and_then(|h| h.domains.iter_mut().find(|d| d.domid == domid));
                    if let Some(d) = domain.filter(|d| d.state == DomainState::Running) {
                        d.state = DomainState::Shutdown;
                        self.changed(&host);
                    }
                }
                Some(Due::Stream { r#move, turn }) => self.stream_turn(r#move, turn),
                Some(Due::PermitEnds { r#move, job }) => self.permit_ends(r#move, job),
                Some(Due::Beat { host, agent, turn }) => self.beat(&host, agent, turn),
                Some(Due::Watchdog { host }) => self.watchdog_ends(&host),
            }
        }
        self.now_ms = self.now_ms.max(until_ms);
        std::mem::take(&mut self.out)
    }

    fn push(&mut self, at_ms: u64, due: Due) {
        self.due_next += 1;
        self.due.insert((at_ms.max(self.now_ms), self.due_next), due);
    }

    fn tell(&mut self, host: &HostId, agent: u64, event: AgentEvent) {
        self.push(self.now_ms, Due::Tell { host: host.clone(), agent, event });
    }

    fn end(&mut self, host: &HostId, agent: u64, job: Job, result: OpResult) {
        self.tell(host, agent, AgentEvent::Done { job, result });
    }

    /// Xen announces a change to whichever agent lives.
    fn changed(&mut self, host: &HostId) {
        self.changes += 1;
        if let Some(h) = self.hosts.get(host) {
            let due = Due::Tell { host: host.clone(), agent: h.agent, event: AgentEvent::DomainsChanged };
            self.push(self.now_ms + self.costs.watch_ms, due);
        }
    }

    fn waits_for_disks(&self, host: &HostId, vm: &VmId) -> bool {
        let disks = self.domains(host).iter().filter(|d| &d.vm == vm).flat_map(|d| &d.disks);
        disks.into_iter().any(|disk| self.reaches(host, disk))
    }

    fn domain_mut(&mut self, host: &HostId, vm: &VmId) -> Option<&mut Domain> {
        self.hosts.get_mut(host)?.domains.iter_mut().find(|d| &d.vm == vm)
    }

    fn effect(&mut self, id: &HostId, agent: u64, job: Job, op: Op) {
        match op {
            Op::Send { permit, rate_bytes_s, .. } => return self.send(id, agent, job, &permit, rate_bytes_s),
            Op::Receive { permit } => return self.receive(id, agent, job, permit),
            Op::Cancel { job: stream } => self.cancel(id, agent, stream),
            _ => {
                let result = self.simple(id, op);
                return self.end(id, agent, job, result);
            }
        }
        self.end(id, agent, job, Ok(Completion::Done));
    }

    fn simple(&mut self, id: &HostId, op: Op) -> OpResult {
        let absent = |vm: &VmId| failure(FailureKind::NoDomain, format!("{vm}: no such domain on {id}"));
        match op {
            Op::Survey => return Ok(Completion::Survey(self.survey(id))),
            Op::Prepare { guest, .. } => self.login(id, &guest.disks)?,
            Op::Detach { disks } => {
                self.changes += 1;
                if let Some(host) = self.hosts.get_mut(id) {
                    host.sessions.retain(|s| !disks.iter().any(|d| d.disk == *s));
                }
            }
            Op::Create { guest } => {
                if self.domain_mut(id, &guest.spec.name).is_none() {
                    let lineage = self.lineage_next;
                    self.lineage_next += 1;
                    let disks = guest.spec.disks;
                    let part = Part::Resident;
                    let state = DomainState::Paused;
                    self.put(id, guest.spec.name, guest.spec.memory_mib, disks, lineage, part, state)?;
                }
            }
            Op::AskShutdown { vm } => {
                let domid = self.domain_mut(id, &vm).ok_or_else(|| absent(&vm))?.domid;
                if !self.stubborn.contains(&vm) {
                    let due = Due::GuestEnds { host: id.clone(), domid };
                    self.push(self.now_ms + self.costs.shutdown_ms, due);
                }
            }
            Op::Destroy { vm } => {
                if self.stuck.contains(&vm) && self.waits_for_disks(id, &vm) {
                    return Err(failure(FailureKind::Timeout, format!("destroying {vm}: still there")));
                }
                if let Some(host) = self.hosts.get_mut(id) {
                    host.domains.retain(|d| d.vm != vm);
                }
                self.changed(id);
            }
            Op::Pause { vm } => self.set_state(id, &vm, DomainState::Running, DomainState::Paused)?,
            Op::Unpause { vm } if self.made_ms(id, &vm).is_some() => {
                return Err(failure(FailureKind::Tool, format!("unpausing {vm}: an earlier agent still makes it")));
            }
            Op::Unpause { vm } => self.set_state(id, &vm, DomainState::Paused, DomainState::Running)?,
            Op::Activate { vm } => {
                let d = self.domain_mut(id, &vm).ok_or_else(|| absent(&vm))?;
                d.part = Part::Resident;
                d.state = DomainState::Running;
                self.changed(id);
            }
            Op::Resume { vm } => {
                let d = self.domain_mut(id, &vm).filter(|d| d.part != Part::Incoming).ok_or_else(|| absent(&vm))?;
                d.part = Part::Resident;
                if d.state == DomainState::Suspended {
                    d.state = DomainState::Paused;
                }
                let state = d.state;
                self.changed(id);
                if !matches!(state, DomainState::Running | DomainState::Paused) {
                    let why = format!("resuming {vm}: it is {state:?} after all");
                    return Err(failure(FailureKind::Tool, why));
                }
            }
            Op::Console { vm, .. } => {
                let d = self.domain_mut(id, &vm).ok_or_else(|| absent(&vm))?;
                return Ok(Completion::Console { text: format!("{vm} domid {}\n", d.domid) });
            }
            Op::Hold => {
                let running = self.hosts.get_mut(id).into_iter().flat_map(|h| &mut h.domains);
                running.filter(|d| d.state == DomainState::Running).for_each(|d| d.state = DomainState::Paused);
                self.changed(id);
                return Ok(Completion::Held { running: 0 });
            }
            Op::Send { .. } | Op::Receive { .. } | Op::Cancel { .. } => {}
        }
        Ok(Completion::Done)
    }

    /// Only a resident domain; one that is in the state already is left so.
    fn set_state(
        &mut self,
        id: &HostId,
        vm: &VmId,
        from: DomainState,
        to: DomainState,
    ) -> Result<(), proto::agent::Failure> {
        let resident = self.domain_mut(id, vm).filter(|d| d.part == Part::Resident);
        let d = resident.ok_or_else(|| failure(FailureKind::NoDomain, format!("{vm}: no such domain on {id}")))?;
        if d.state != from && d.state != to {
            return Err(failure(FailureKind::Tool, format!("making {vm} {to:?}: it is {:?}", d.state)));
        }
        d.state = to;
        self.changed(id);
        Ok(())
    }

    fn login(&mut self, id: &HostId, disks: &[DiskAccess]) -> Result<(), proto::agent::Failure> {
        self.changes += 1;
        for d in disks {
            if !self.lets_in(d, id) {
                return Err(failure(FailureKind::Disk, format!("{}: {id} may not log in as {}", d.disk, d.user)));
            }
            if let Some(host) = self.hosts.get_mut(id) {
                host.sessions.insert(d.disk.clone());
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // a domain's fields, once
    fn put(
        &mut self,
        id: &HostId,
        vm: VmId,
        memory_mib: u64,
        disks: Vec<DiskId>,
        lineage: u64,
        part: Part,
        state: DomainState,
    ) -> Result<(), proto::agent::Failure> {
        let free = self.free_mib(id);
        if free < memory_mib {
            let why = format!("{vm}: needs {memory_mib} MiB, {free} MiB are free on {id}");
            return Err(failure(FailureKind::NoMemory, why));
        }
        if let Some(host) = self.hosts.get_mut(id) {
            let domid = host.domid_next;
            host.domid_next += 1;
            host.domains.push(Domain { domid, vm, state, reboots: false, part, memory_mib, lineage, disks });
        }
        self.changed(id);
        Ok(())
    }

    fn free_mib(&self, id: &HostId) -> u64 {
        self.hosts.get(id).map_or(0, |h| h.memory_mib - h.domains.iter().map(|d| d.memory_mib).sum::<u64>())
    }

    fn survey(&self, id: &HostId) -> Survey {
        let seen = |d: &Domain| SeenDomain {
            vm: d.vm.clone(),
            domid: d.domid,
            state: d.state,
            reboots: d.reboots,
            part: d.part,
            memory_mib: d.memory_mib,
            // A fifth of a core, as long as the world has lasted: rates come out steady.
            cpu_ns: self.now_ms * 200_000,
            net_rx_bytes: self.now_ms,
            net_tx_bytes: self.now_ms,
            disk_read_bytes: 0,
            disk_write_bytes: self.now_ms,
        };
        let domains: Vec<_> = self.domains(id).iter().map(seen).collect();
        Survey {
            cpu_ns: self.now_ms * 200_000 * domains.len() as u64,
            memory_free_mib: self.free_mib(id),
            dom0_used_mib: 200,
            agent_rss_kib: 6_000,
            agent_cpu_ns: self.now_ms * 1_000,
            net_rx_bytes: self.now_ms,
            net_tx_bytes: self.now_ms,
            domains,
        }
    }
}

/// Sees that a VM is, or is not, among these.
fn mark(vms: &mut BTreeSet<VmId>, vm: &VmId, is: bool) {
    if is {
        vms.insert(vm.clone())
    } else {
        vms.remove(vm)
    };
}
