//! The rack against a small model of hosts and storage, with faults of every kind at random, from a printed seed.
//!
//! What must hold at every moment: a VM runs on one host at most, an address is leased once, a commit is a compare-and-set
//! that fits. When the faults have ended: every move has ended, every VM that is to run runs exactly once, under its
//! epoch, at its owner, and nothing that was acknowledged is gone.
//! `TSUBAME_SEED=n` repeats one run, `TSUBAME_SEEDS=n` sets how many there are.

mod check;
mod host;
mod storage;

use crate::Rack;
use crate::dhcp::{BootRequest, MessageKind};
use crate::effect::{Answer, Effect, JoinDecision, Reply};
use crate::event::{Caller, Command, Entropy, Event, Now, ReplyTo, ScriptKind};
use crate::policy::Policy;
use crate::record::{Key, Kind, Loaded, Record};
use crate::testing::{inventory, policy};
use host::{Host, Stand};
use proto::agent::{DomainState, JoinRequest, LeaseState};
use proto::api::{Accepted, CreateVm, MigrateVm};
use proto::heartbeat::Slot;
use proto::{HostId, MoveId, VmId};
use std::collections::{BTreeMap, BTreeSet};
use storage::Disks;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

struct World {
    random: Random,
    policy: Policy,
    rack: Rack,
    store: BTreeMap<Key, (u64, String)>,
    hosts: Vec<Host>,
    disks: Disks,
    /// What stands on the heartbeat disk.
    slots: BTreeMap<u32, Slot>,
    now: Now,
    next_reply: u64,
    /// Commands that were sent, by the reply they await.
    asked: BTreeMap<ReplyTo, Command>,
    /// VMs whose making was acknowledged and whose removal was not asked for.
    acknowledged: BTreeSet<VmId>,
    joins: BTreeMap<ReplyTo, usize>,
    answers: BTreeMap<ReplyTo, Answer>,
    faults: bool,
    moves_done: usize,
    /// Hosts that are seen to be fenced; boots of hosts that ever were.
    fenced: BTreeSet<HostId>,
    fenced_boots: BTreeSet<String>,
    fences: usize,
    /// Moves that were seen to be called off.
    called_off: BTreeSet<MoveId>,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64, hosts: u8) -> Self {
        let mut policy = policy();
        policy.balance_ms = 30_000;
        policy.report_ms = 1000;
        let now = Now { mono_ms: 5_000, unix_ms: 1_800_000_000_000 };
        let (rack, effects) = Rack::restore(policy.clone(), Vec::new(), now).expect("an empty rack");
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            policy,
            rack,
            store: BTreeMap::new(),
            hosts: (0..hosts).map(|i| Host::new(proto::Mac([0x52, 0x54, 0, 0, 0, i]))).collect(),
            disks: Disks::default(),
            slots: BTreeMap::new(),
            now,
            next_reply: 0,
            asked: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            joins: BTreeMap::new(),
            answers: BTreeMap::new(),
            faults: true,
            moves_done: 0,
            fenced: BTreeSet::new(),
            fenced_boots: BTreeSet::new(),
            fences: 0,
            called_off: BTreeSet::new(),
            trace: Vec::new(),
        };
        world.carry_out(effects, false);
        for host in &mut world.hosts {
            host.power(true);
        }
        world
    }

    fn note(&mut self, text: String) {
        if self.trace.len() > 4000 {
            self.trace.drain(..2000);
        }
        self.trace.push(format!("{:>8} {text}", self.now.mono_ms));
    }

    fn reply(&mut self) -> ReplyTo {
        self.next_reply += 1;
        ReplyTo(self.next_reply)
    }

    /// Gives the rack an event as the shell does: commits, then the rest; the server may die before, between and amid.
    fn apply(&mut self, event: Event) {
        let effects = self.rack.apply(event, self.now);
        let dies = self.faults && self.random.one_in(400);
        if dies && self.random.one_in(3) {
            return self.restart_server();
        }
        self.carry_out(effects, dies);
        if dies {
            self.restart_server();
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>, dies: bool) {
        let mut commits_over = false;
        for effect in effects {
            match effect {
                Effect::Commit(change) => {
                    assert!(!commits_over, "a commit after what may rely on it");
                    let version = self.store.get(&change.key).map_or(0, |(version, _)| *version);
                    assert_eq!(version, change.expect, "{:?}", change.key);
                    match change.to {
                        Some(record) => {
                            let text = serde_json::to_string(&record).expect("records can be written");
                            self.store.insert(change.key, (version + 1, text));
                        }
                        None => {
                            self.store.remove(&change.key);
                        }
                    }
                }
                rest => {
                    commits_over = true;
                    if dies && self.random.one_in(2) {
                        return;
                    }
                    match rest {
                        Effect::Storage { job, op } => self.disks.queue.push_back((job, op)),
                        Effect::Answer { to, answer } => self.answered(to, answer),
                        // No host here has a controller.
                        Effect::Commit(_) | Effect::Power { .. } => {}
                    }
                }
            }
        }
    }

    fn answered(&mut self, to: ReplyTo, answer: Answer) {
        if let Some(command) = self.asked.remove(&to) {
            let ok = matches!(&answer, Answer::Operator(Ok(_)));
            self.note(format!("operator {command:?}: {}", if ok { "ok".to_owned() } else { format!("{answer:?}") }));
            if let (Command::CreateVm(request), Answer::Operator(Ok(Reply::Accepted(Accepted::Begun)))) =
                (command, answer)
            {
                self.acknowledged.insert(request.name);
            }
            return;
        }
        let waiting = self.hosts.iter().position(|host| host.waits_for == Some(to));
        match (answer, waiting) {
            (Answer::Report(answer), Some(at)) => {
                let lost = self.faults && self.random.one_in(30);
                let host = &mut self.hosts[at];
                host.waits_for = None;
                if let Ok(answer) = answer
                    && !lost
                    && !host.cut_off
                {
                    for order in &answer.orders {
                        self.trace.push(format!("         {} told {} {:?}", host.id, order.id, order.act));
                    }
                    host.take(answer.orders, &answer.seen);
                    host.take_heartbeat(answer.heartbeat);
                }
            }
            (answer, _) => {
                self.answers.insert(to, answer);
            }
        }
    }

    fn restart_server(&mut self) {
        self.note("SERVER RESTARTS".to_owned());
        // What storage was told may have been done or not.
        while let Some((_, op)) = self.disks.next(0) {
            if self.random.one_in(2) {
                let _ = self.disks.perform(&op);
            }
        }
        self.asked.clear();
        self.answers.clear();
        self.joins.clear();
        for host in &mut self.hosts {
            host.waits_for = None;
        }
        let away_ms = self.random.next() % 20_000;
        self.now.unix_ms += away_ms;
        self.now.mono_ms += away_ms;
        let mut records = Vec::new();
        for kind in Kind::ALL {
            for (key, (version, text)) in self.store.iter().filter(|(key, _)| key.kind == kind) {
                let record: Record = serde_json::from_str(text).expect("records can be read");
                records.push(Loaded { key: key.clone(), version: *version, record });
            }
        }
        let (rack, effects) =
            Rack::restore(self.policy.clone(), records, self.now).expect("what was kept fits together");
        self.rack = rack;
        self.carry_out(effects, false);
    }

    fn boot(&mut self, at: usize) {
        let (mac, stand) = (self.hosts[at].mac, self.hosts[at].stand.clone());
        match stand {
            Stand::Off => {}
            Stand::Firmware => {
                let mut request = BootRequest::plain(mac, 1, MessageKind::Discover);
                request.architectures = vec![0];
                request.user_class = Some(b"iPXE".to_vec());
                let reply = self.reply();
                self.apply(Event::Dhcp { reply, request: request.clone() });
                let Some(Answer::Dhcp(Some(offer))) = self.answers.remove(&reply) else { return };
                let address =
                    std::net::Ipv4Addr::new(offer.packet[16], offer.packet[17], offer.packet[18], offer.packet[19]);
                request.kind = MessageKind::Request;
                (request.requested, request.server) = (Some(address), Some(self.policy.subnet.server));
                let reply = self.reply();
                self.apply(Event::Dhcp { reply, request });
                if !matches!(self.answers.remove(&reply), Some(Answer::Dhcp(Some(_)))) {
                    return;
                }
                let mut entropy = [0; 32];
                entropy.iter_mut().for_each(|byte| *byte = (self.random.next() & 255) as u8);
                let reply = self.reply();
                let kind = ScriptKind::IpxeBios;
                self.apply(Event::Script { reply, mac, from: address, kind, entropy: Entropy(entropy) });
                let Some(Answer::Script(Ok(script))) = self.answers.remove(&reply) else { return };
                let nonce =
                    script.split("tsubame.join=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a nonce");
                let host = &mut self.hosts[at];
                host.key = format!("key-{}-{}", host.id, self.next_reply);
                host.booted_ms = self.now.mono_ms;
                host.stand = Stand::Joining { nonce: nonce.to_owned() };
            }
            Stand::Joining { nonce } => {
                let reply = self.reply();
                self.joins.insert(reply, at);
                let request = JoinRequest {
                    host: self.hosts[at].id.clone(),
                    nonce: nonce.clone(),
                    csr_pem: "CSR".to_owned(),
                    inventory: inventory(),
                };
                let from = self.rack.leases.address_of(mac).expect("it booted by its lease");
                let key = self.hosts[at].key.clone();
                self.apply(Event::Join { reply, request, key, from });
                match self.answers.remove(&reply) {
                    Some(Answer::Join(JoinDecision::Issue { host, .. })) => {
                        assert_eq!(host, self.hosts[at].id);
                        self.note(format!("{host} joined"));
                        self.hosts[at].stand = Stand::Up { nonce };
                        self.hosts[at].changed = true;
                    }
                    Some(Answer::Join(JoinDecision::Refused(why))) => panic!("{mac} was refused: {why:?}"),
                    _ => {}
                }
            }
            Stand::Up { nonce } => {
                let host = &mut self.hosts[at];
                let due = host.changed || self.now.mono_ms - host.reported_ms >= 1000;
                if !due || host.waits_for.is_some() && !host.changed {
                    return;
                }
                let report = host.report(self.now.mono_ms, &nonce);
                let (id, key) = (host.id.clone(), host.key.clone());
                let reply = self.reply();
                self.hosts[at].waits_for = Some(reply);
                let from = self.rack.leases.address_of(self.hosts[at].mac).expect("it booted by its lease");
                let caller = Caller { key, issued_ms: self.hosts[at].booted_ms, from };
                self.apply(Event::Report { reply, host: id, caller, report });
            }
        }
    }

    fn streams(&mut self) {
        for at in 0..self.hosts.len() {
            for vm in self.hosts[at].sending.keys().cloned().collect::<Vec<_>>() {
                let stream = &self.hosts[at].sending[&vm];
                let (id, target) = (stream.permit.r#move, stream.permit.target.clone());
                let other = self.hosts.iter().position(|host| {
                    host.id == target
                        && host.listening.get(&vm).is_some_and(|s| s.permit.r#move == id && s.permit == stream.permit)
                });
                let breaks = self.faults && self.random.one_in(40);
                match other {
                    Some(other) if !breaks => {
                        if let Some(stream) = self.hosts[at].sending.get_mut(&vm) {
                            stream.bytes += 1000;
                            let whole = stream.bytes > 8000;
                            if whole {
                                self.note(format!("{vm} received by {target}"));
                                self.hosts[at].sending_ends(&vm, true);
                                self.hosts[other].reception_ends(&vm, true);
                            }
                        }
                    }
                    _ => {
                        self.hosts[at].sending_ends(&vm, false);
                        if let Some(other) = other {
                            self.hosts[other].reception_ends(&vm, false);
                        }
                    }
                }
            }
        }
    }

    fn command(&mut self) {
        let vm: VmId = format!("vm{}", self.random.below(5)).parse().expect("a name");
        let host = self.hosts[self.random.below(self.hosts.len())].id.clone();
        let command = match self.random.below(15) {
            0..4 => Command::CreateVm(CreateVm { start: self.random.one_in(2), ..CreateVm::new(vm, "tiny") }),
            4 | 5 => Command::StartVm { vm },
            6 => Command::ShutdownVm { vm },
            7 => Command::DestroyVm { vm },
            8 => Command::PauseVm { vm },
            9 => Command::ResumeVm { vm },
            10 => {
                self.acknowledged.remove(&vm);
                Command::DeleteVm { vm }
            }
            11 => Command::DrainHost { host },
            12 => Command::UndrainHost { host },
            13 => Command::MigrateVm { vm, request: MigrateVm { to: Some(host).filter(|_| self.random.one_in(2)) } },
            _ => Command::MigrateVm { vm, request: MigrateVm::default() },
        };
        let reply = self.reply();
        self.asked.insert(reply, command.clone());
        self.apply(Event::Operator { reply, command });
    }

    fn fault(&mut self) {
        let at = self.random.below(self.hosts.len());
        let kind = self.random.below(11);
        self.note(format!("fault {kind} at {}", self.hosts[at].id));
        match kind {
            0 => self.hosts[at].power(false),
            1 => self.hosts[at].power(true),
            2 | 3 => self.hosts[at].restart_agent(),
            4 => self.hosts[at].cut_off ^= true,
            10 => self.hosts[at].stopped = true,
            7 => self.hosts[at].slow ^= true,
            8 => (self.hosts[at].cut_off, self.hosts[at].slow) = (true, true),
            5 | 6 => {
                // A guest ends by itself.
                let state = if kind == 5 { DomainState::Crashed } else { DomainState::Shutdown };
                let host = &mut self.hosts[at];
                let resident = host
                    .domains
                    .iter_mut()
                    .filter(|(vm, domain)| domain.state == DomainState::Running && !host.sending.contains_key(*vm));
                if let Some((_, domain)) = resident.last() {
                    domain.state = state;
                    host.changed = true;
                }
            }
            _ => self.restart_server(),
        }
    }

    fn step(&mut self) {
        let ms = 50 + self.random.next() % 200;
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.apply(Event::Tick);
        for host in &mut self.hosts {
            let written = host.live_on(self.now.mono_ms, &self.disks);
            self.slots.extend(written);
        }
        if self.random.one_in(4) {
            let slots = self.slots.iter().map(|(at, slot)| (*at, slot.clone())).collect();
            self.apply(Event::Heartbeats { read_mono_ms: self.now.mono_ms, slots });
        }
        for at in 0..self.hosts.len() {
            if self.hosts[at].cut_off || self.hosts[at].stopped {
                continue;
            }
            if self.hosts[at].stand == Stand::Off && self.random.one_in(50) {
                self.hosts[at].power(true);
            }
            if self.random.one_in(2) {
                self.boot(at);
            }
        }
        for at in 0..self.hosts.len() {
            let ids: Vec<_> = self.hosts[at].queue.keys().copied().collect();
            let pace = if self.hosts[at].slow && self.faults { 80 } else { 3 };
            // Without a lease an agent begins nothing.
            let leased = self.hosts[at].lease(self.now.mono_ms) == LeaseState::Valid;
            if !ids.is_empty() && leased && !self.hosts[at].stopped && self.random.one_in(pace) {
                let id = ids[self.random.below(ids.len())];
                let luck = if self.faults { self.random.next() } else { 1 };
                let (host, disks) = (&mut self.hosts[at], &self.disks);
                host.work(id, disks, luck);
            }
        }
        self.streams();
        let pick = self.random.below(64);
        if let Some((job, op)) = self.disks.next(pick) {
            let fails = self.faults && self.random.one_in(25);
            let result = if fails { Err("the disk is sulking".to_owned()) } else { self.disks.perform(&op) };
            self.note(format!("storage {op:?}: {result:?}"));
            self.apply(Event::StorageDone { job, result });
        }
        if self.faults {
            if self.random.one_in(8) {
                self.command();
            }
            if self.random.one_in(60) {
                self.fault();
            }
        }
        self.check();
    }
}

/// One run; how many moves were brought to their end, and how many hosts fenced.
fn run(seed: u64) -> (usize, usize) {
    let mut world = World::new(seed, 3 + (seed % 2) as u8);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..3000 {
            world.step();
        }
        world.faults = false;
        world.note("faults end".to_owned());
        for host in &mut world.hosts {
            (host.cut_off, host.stopped) = (false, false);
            if host.stand == Stand::Off {
                host.power(true);
            }
        }
        for host in world.hosts.iter().map(|host| host.id.clone()).collect::<Vec<_>>() {
            let reply = world.reply();
            world.apply(Event::Operator { reply, command: Command::UndrainHost { host } });
        }
        for _ in 0..6000 {
            world.step();
        }
        world.check_end();
    }));
    if let Err(panic) = outcome {
        let from = world.trace.len().saturating_sub(150);
        eprintln!("seed {seed}, {} ms; what led to it:\n{}", world.now.mono_ms, world.trace[from..].join("\n"));
        eprintln!("seed {seed}: repeat with TSUBAME_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
    (world.moves_done, world.fences)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, expected a number")))
}

#[test]
fn whatever_fails_every_vm_runs_once() {
    let seeds = match setting("TSUBAME_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + setting("TSUBAME_SEEDS").unwrap_or(40),
    };
    let many = seeds.end - seeds.start >= 20;
    let (moves, fences) = seeds.map(run).fold((0, 0), |(moves, fences), (m, f)| (moves + m, fences + f));
    println!("{moves} moves were brought to their end, {fences} hosts fenced");
    assert!(!many || moves > 20, "only {moves} moves were brought to their end: the model tests too little");
    assert!(!many || fences > 20, "only {fences} hosts were fenced: the model tests too little");
}
