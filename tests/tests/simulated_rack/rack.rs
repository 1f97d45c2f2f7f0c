//! The whole simulated rack: server, hosts, the network between them, an operator, and faults, on one clock.
//!
//! Owns: time and order. A message is delayed, and with it dropped, doubled and overtaken at random while faults last.
//! Never does: look away: after every step of the physical world the oracle looks at it.

use crate::faults::{Counts, LOST_POWER, RESET, RESTORED};
use crate::host::{Host, MEMORY_MIB, Stand, inventory};
use crate::oracle::Oracle;
use crate::random::Random;
use crate::san;
use crate::server::{Asker, Out, Server, release};
use hostagent::agent::{AgentAction, AgentEvent};
use hostagent::hypervisor::sim::{Costs, World};
use proto::agent::{JoinRequest, Report, ReportAnswer};
use proto::api::{Balance, CreateVm, MigrateVm};
use proto::release::{PoolId, StartRollout};
use proto::{DiskId, HostId, VmId};
use rack::dhcp::{BootRequest, MessageKind};
use rack::effect::{Answer, JoinDecision, Reply, StorageOp};
use rack::event::{Caller, Command, Entropy, Event, ScriptKind};
use rack::power::PowerOp;
use rack::record::Way;
use rack::recovery::FoundDisk;
use rack::release::id_of;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Where the clock begins: anything but zero, so that zero is seen to mean nothing.
const BEGIN_MS: u64 = 1_000_000;
const TICK_MS: u64 = 200;
/// The slots are read with every so manieth tick.
const READ_TICKS: u64 = 5;

/// How large a run is, and how hard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) hosts: u8,
    pub(crate) vms: u64,
    /// Messages lost, said twice, and held up until others have overtaken them, in a thousand.
    pub(crate) lost_permille: u64,
    pub(crate) doubled_permille: u64,
    pub(crate) late_permille: u64,
    /// From one fault to the next.
    pub(crate) fault_every_ms: (u64, u64),
    /// From one wish of the operator's to the next.
    pub(crate) wish_every_ms: (u64, u64),
    /// Of the faults that may be the server's death, so many in a thousand are.
    pub(crate) server_dies_permille: u64,
    /// Of those, so many in a thousand take the store with them.
    pub(crate) store_lost_permille: u64,
    /// The disks are on a SAN that nobody can be cut off.
    pub(crate) san: bool,
}

/// Something that is to happen.
pub(crate) enum Due {
    Tick,
    /// A report reaches the server.
    Report {
        host: usize,
        boots: u64,
        report: Box<Report>,
    },
    /// An answer reaches the agent.
    Answer {
        host: usize,
        boots: u64,
        answer: ReportAnswer,
    },
    Join {
        host: usize,
        boots: u64,
    },
    Joined {
        host: usize,
        boots: u64,
    },
    Boot {
        host: usize,
        boots: u64,
    },
    AgentStarts {
        host: usize,
        boots: u64,
    },
    PowerOn {
        host: usize,
    },
    ServerStarts,
    Job {
        disk: DiskId,
        job: u64,
        op: StorageOp,
    },
    Link {
        a: HostId,
        b: HostId,
    },
    /// The path to the storage is mended.
    Storage {
        host: usize,
    },
    AgentGoesOn {
        host: usize,
        boots: u64,
    },
    /// A host's wall clock is right again.
    ClockRight {
        host: usize,
    },
    /// A host makes guests as fast as ever.
    Fast {
        host: usize,
        boots: u64,
    },
    Operator,
    /// A controller does what it was told by this process of the server, or does not.
    Power {
        run: u64,
        job: u64,
        host: usize,
        op: PowerOp,
    },
    /// A person looks whether any host waits for one.
    Person,
    /// The SAN is there again, for all.
    SanBack,
    Fault,
}

pub(crate) struct Rack {
    pub(crate) now_ms: u64,
    pub(crate) scale: Scale,
    pub(crate) counts: Counts,
    pub(crate) random: Random,
    pub(crate) server: Server,
    pub(crate) hosts: Vec<Host>,
    pub(crate) world: World,
    pub(crate) oracle: Oracle,
    queue: BTreeMap<(u64, u64), Due>,
    queued: u64,
    pub(crate) faults: bool,
    pub(crate) operator_stays: bool,
    /// The server dies amid the next event.
    pub(crate) server_dies: bool,
    asked: BTreeMap<u64, Command>,
    ticks: u64,
    /// What the storage has, and how large, MiB.
    disks: BTreeMap<DiskId, u64>,
    /// The server's machine and its store are lost with its next death.
    pub(crate) store_lost: bool,
    /// The server cannot read the SAN until then.
    pub(crate) blind_until_ms: u64,
    /// For how long it was found out what happened since a backup.
    pub(crate) surveyed_ms: u64,
    trace: Vec<String>,
}

impl Rack {
    pub(crate) fn new(seed: u64, scale: Scale) -> Self {
        let mut rack = Self {
            now_ms: BEGIN_MS,
            scale,
            counts: Counts::default(),
            random: Random::new(seed),
            server: Server::new(BEGIN_MS, san::storage(scale)),
            hosts: (0..scale.hosts).map(Host::new).collect(),
            world: World::new(Costs::default()),
            oracle: Oracle::default(),
            queue: BTreeMap::new(),
            queued: 0,
            faults: false,
            operator_stays: false,
            server_dies: false,
            asked: BTreeMap::new(),
            ticks: 0,
            disks: san::disks(scale),
            store_lost: false,
            blind_until_ms: 0,
            surveyed_ms: 0,
            trace: Vec::new(),
        };
        for host in 0..rack.hosts.len() {
            rack.world.add_host(rack.hosts[host].id.clone(), MEMORY_MIB);
            rack.after(1, 5_000, Due::PowerOn { host });
        }
        rack.after(0, 1, Due::Tick);
        if scale.san {
            rack.world.open_to_all();
            rack.after(0, 1, Due::Person);
        }
        rack
    }

    /// Hosts that failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.counts.of(LOST_POWER)
    }

    /// Has the operator make all VMs, and then go on asking for moves, drains and rollouts.
    pub(crate) fn operator_comes(&mut self) {
        self.command(Command::AddRelease { manifest: release(2) });
        if self.scale.san {
            self.set_controllers();
        }
        for n in 0..self.scale.vms {
            let request = CreateVm { memory_mib: Some(64 + 32 * (n % 3)), start: true, ..CreateVm::new(vm(n), "tiny") };
            self.command(Command::CreateVm(request));
            let dirty = self.random.between(0, 3_000_000);
            self.world.set_dirty(&vm(n), dirty);
        }
        self.operator_stays = true;
        self.after(500, 2_000, Due::Operator);
    }

    /// Lets time pass until `until_ms`, or until `enough` says so after a tick.
    pub(crate) fn run(&mut self, until_ms: u64, enough: impl Fn(&Self) -> bool) {
        while self.now_ms < until_ms {
            let wakes = self.hosts.iter().filter(|h| !h.stopped).filter_map(|h| h.agent.as_ref());
            let wake = wakes.map(|agent| agent.wake_ms()).min();
            let queued = self.queue.keys().next().map(|&(at, _)| at);
            let next = [wake, queued, self.world.next_ms()].into_iter().flatten().min().unwrap_or(until_ms);
            self.now_ms = next.clamp(self.now_ms, until_ms);
            let mut physical = false;
            for (_, id, event) in self.world.step(self.now_ms) {
                physical = true;
                if let Some(host) = self.hosts.iter().position(|h| h.id == id) {
                    self.tell(host, event);
                }
            }
            for (id, vms) in self.world.resets() {
                if let Some(host) = self.hosts.iter().position(|h| h.id == id) {
                    self.oracle.lost_with_host(&vms);
                    self.counts.add(RESET);
                    self.note(|| format!("XEN RESETS HOST {host}"));
                    self.power_cut(host, 30_000);
                }
            }
            let mut tick = false;
            while let Some((&(at, n), _)) = self.queue.first_key_value()
                && at <= self.now_ms
            {
                if let Some(due) = self.queue.remove(&(at, n)) {
                    tick |= matches!(due, Due::Tick);
                    physical |= matches!(
                        due,
                        Due::Job { .. } | Due::Fault | Due::PowerOn { .. } | Due::Power { .. } | Due::Person
                    );
                    self.happen(due);
                }
            }
            for host in 0..self.hosts.len() {
                let h = &self.hosts[host];
                if !h.stopped && h.agent.as_ref().is_some_and(|agent| agent.wake_ms() <= self.now_ms) {
                    self.tell(host, AgentEvent::Tick);
                }
            }
            self.deliver();
            if physical {
                self.oracle.look(&self.world, &self.hosts, self.scale.san, self.now_ms);
            }
            if tick && enough(self) {
                return;
            }
        }
    }

    pub(crate) fn after(&mut self, low_ms: u64, high_ms: u64, due: Due) {
        let at = self.now_ms + self.random.between(low_ms, high_ms);
        self.queued += 1;
        self.queue.insert((at, self.queued), due);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.trace.len() >= 20_000 {
            self.trace.drain(..10_000);
        }
        let line = format!("{:>9} {}", self.now_ms, text());
        self.trace.push(line);
    }

    /// The last of what happened, for a failure's report.
    pub(crate) fn last(&self, lines: usize) -> String {
        self.trace[self.trace.len().saturating_sub(lines)..].join("\n")
    }

    /// Whether anything is lost between a host and the server that takes both to speak.
    fn cut_off(&self, host: usize) -> bool {
        self.hosts[host].mute_until_ms.max(self.hosts[host].deaf_until_ms) > self.now_ms
    }

    /// A message on its way: perhaps lost, perhaps twice, at a pace of its own.
    fn send(&mut self, host: usize, due: impl Fn() -> Due) {
        let copies = match self.faults {
            true if self.random.permille(self.scale.lost_permille) => 0,
            true if self.random.permille(self.scale.doubled_permille) => 2,
            _ => 1,
        };
        match copies {
            0 => self.counts.add("messages lost"),
            2 => self.counts.add("messages said twice"),
            _ => {}
        }
        for _ in 0..copies {
            let said = matches!(due(), Due::Report { .. });
            let h = &self.hosts[host];
            if (if said { h.mute_until_ms } else { h.deaf_until_ms }) <= self.now_ms {
                let late = self.faults && self.random.permille(self.scale.late_permille);
                if late {
                    self.counts.add("messages held up until others overtook them");
                }
                self.after(1, if late { 3_000 } else { 8 }, due());
            }
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Tick => {
                self.server_event(None, |_| Event::Tick);
                self.ticks += 1;
                self.surveyed_ms += if self.server.surveying() { TICK_MS } else { 0 };
                if self.ticks.is_multiple_of(READ_TICKS) && self.blind_until_ms <= self.now_ms {
                    let slots = self.world.slots().iter().map(|(at, slot)| (*at, slot.clone())).collect();
                    let read_mono_ms = self.now_ms;
                    self.server_event(None, |_| Event::Heartbeats { read_mono_ms, slots });
                }
                self.after(TICK_MS, TICK_MS + 1, Due::Tick);
            }
            Due::PowerOn { host } => {
                let h = &mut self.hosts[host];
                if h.stand == Stand::Off {
                    h.stand = Stand::Firmware;
                    let boots = h.boots;
                    self.world.power_on(&self.hosts[host].id);
                    self.note(|| format!("host {host} has power"));
                    self.after(3_000, 9_000, Due::Boot { host, boots });
                }
            }
            Due::Boot { host, boots } => self.boot(host, boots),
            Due::Join { host, boots } => self.join(host, boots),
            Due::Joined { host, boots } => {
                let h = &mut self.hosts[host];
                if let (true, Stand::Joining { nonce, .. }) = (h.boots == boots, &h.stand) {
                    h.stand = Stand::Up { nonce: nonce.clone() };
                    h.issued_ms = self.now_ms;
                    h.start_agent();
                    self.tell(host, AgentEvent::Connected);
                }
            }
            Due::AgentStarts { host, boots } => {
                if self.hosts[host].boots == boots && self.hosts[host].agent.is_none() {
                    self.hosts[host].start_agent();
                    self.tell(host, AgentEvent::Connected);
                }
            }
            Due::Report { host, boots, report } => {
                let (id, key) = (self.hosts[host].id.clone(), self.hosts[host].key.clone());
                if self.hosts[host].boots == boots {
                    let asker = Asker::Report { host, boots };
                    let (issued_ms, from) = (self.hosts[host].issued_ms, self.hosts[host].address);
                    let caller = Caller { key, issued_ms, from };
                    self.server_event(Some(asker), |reply| Event::Report { reply, host: id, caller, report: *report });
                }
            }
            Due::Answer { host, boots, answer } => {
                if self.hosts[host].boots == boots {
                    self.tell(host, AgentEvent::Answer(answer));
                }
            }
            Due::ServerStarts => {
                if !self.server.is_up() {
                    self.note(|| "the server starts".to_owned());
                    self.restore_perhaps();
                    let found = self.found();
                    self.server.start(self.now_ms, || found);
                    for host in 0..self.hosts.len() {
                        self.tell(host, AgentEvent::Connected);
                    }
                }
            }
            Due::Job { disk, job, op } => {
                self.perform(&op);
                self.server.job_ended(&disk);
                // The storage is real and may fail for reasons of its own; the work was done all the same, or not.
                let fails = self.faults && self.random.permille(20);
                if fails {
                    self.counts.add("storage jobs failed");
                }
                let result = if fails { Err("the disk is sulking".to_owned()) } else { Ok(()) };
                self.server_event(None, |_| Event::StorageDone { job, result });
            }
            Due::Link { a, b } => self.world.set_link(&a, &b, true),
            Due::Storage { host } => self.world.set_storage(&self.hosts[host].id, true),
            Due::ClockRight { host } => self.world.set_clock(&self.hosts[host].id, 0),
            Due::Fast { host, boots } => {
                if self.hosts[host].boots == boots {
                    self.world.set_slow(&self.hosts[host].id, 0);
                }
            }
            Due::AgentGoesOn { host, boots } => {
                if self.hosts[host].boots == boots {
                    self.agent_goes_on(host);
                }
            }
            Due::Operator => self.operator(),
            Due::Power { run, job, host, op } => self.controller(run, job, host, op),
            Due::Person => self.person(),
            Due::SanBack => self.san_back(),
            Due::Fault => self.fault(),
        }
    }

    /// Gives the server an event, amid which it may die.
    pub(crate) fn server_event(&mut self, asker: Option<Asker>, event: impl FnOnce(rack::event::ReplyTo) -> Event) {
        let dies = std::mem::take(&mut self.server_dies) && self.server.is_up();
        let crash = if dies { Some(&mut self.random) } else { None };
        self.server.ask(asker, event, self.now_ms, crash);
        if let Some(at) = self.server.crashed_at.take() {
            self.counts.add(at);
        }
        for host in std::mem::take(&mut self.server.fenced) {
            self.oracle.fenced(&self.world, &host, self.now_ms);
        }
        if dies {
            self.server_died();
        }
    }

    fn server_died(&mut self) {
        self.note(|| "THE SERVER DIES".to_owned());
        // What was under way in the storage is done or not; a command that was not answered may have been heard or not.
        let jobs: Vec<_> =
            self.queue.iter().filter(|(_, due)| matches!(due, Due::Job { .. })).map(|(&k, _)| k).collect();
        for key in jobs {
            if let Some(Due::Job { op, .. }) = self.queue.remove(&key)
                && self.random.permille(500)
            {
                self.perform(&op);
            }
        }
        for (_, command) in std::mem::take(&mut self.asked) {
            self.oracle.not_answered(&command);
        }
        self.after(500, 12_000, Due::ServerStarts);
    }

    /// The server's store was lost: it starts from what was put by, on another machine.
    fn restore_perhaps(&mut self) {
        if !std::mem::take(&mut self.store_lost) {
            return;
        }
        let entropy = Entropy(self.random.bytes());
        if let Some(age_ms) = self.server.restore(self.now_ms, entropy) {
            self.counts.add(RESTORED);
            self.oracle.restored();
            self.note(|| format!("THE SERVER IS RESTORED from a backup {age_ms} ms old"));
        }
    }

    fn found(&self) -> Vec<FoundDisk> {
        let ways = |disk: &DiskId| {
            let way = |user: &String| Way { user: user.clone(), secret: proto::agent::Secret(String::new()) };
            self.world.granted(disk).iter().map(|(host, user)| (host.clone(), way(user))).collect()
        };
        self.disks
            .iter()
            .map(|(disk, &size_mib)| FoundDisk { disk: disk.clone(), size_mib, ways: ways(disk) })
            .collect()
    }

    fn perform(&mut self, op: &StorageOp) {
        match op {
            StorageOp::Grant { disk, host, user, .. } => self.world.grant(disk, host, user),
            StorageOp::Cut { disk, host } => self.world.cut(disk, host),
            StorageOp::Create { disk, size_mib }
            | StorageOp::Clone { disk, size_mib, .. }
            | StorageOp::Grow { disk, size_mib } => {
                self.disks.insert(disk.clone(), *size_mib);
            }
            StorageOp::Delete { disk } => drop(self.disks.remove(disk)),
            StorageOp::Attach { disk, .. } => {
                assert!(self.disks.contains_key(disk), "{disk} is served and is not there")
            }
        }
    }

    /// What the server has let out since.
    fn deliver(&mut self) {
        for (disk, job, op) in self.server.jobs_to_begin() {
            debug_assert_eq!(&disk, op.disk());
            let slow = self.faults && self.random.permille(50);
            self.after(2, if slow { 4_000 } else { 60 }, Due::Job { disk, job, op });
        }
        for out in std::mem::take(&mut self.server.out) {
            match out {
                Out::Report { host, boots, answer: Ok(answer) } => {
                    for order in &answer.orders {
                        self.note(|| format!("to {host}: {} {:?} {:?}", order.id, order.epoch, order.act));
                    }
                    self.send(host, || Due::Answer { host, boots, answer: answer.clone() });
                }
                Out::Report { host, answer: Err(why), .. } => self.note(|| format!("host {host}: no report: {why:?}")),
                Out::Join { host, boots, decision } => match decision {
                    JoinDecision::Issue { .. } => self.send(host, || Due::Joined { host, boots }),
                    JoinDecision::Waiting => {}
                    JoinDecision::Refused(why) => {
                        // It belongs to an older boot, or is to boot again: a machine does that by itself.
                        self.note(|| format!("host {host} is refused: {why:?}"));
                        if self.hosts[host].boots == boots {
                            self.power_cut(host, 30_000);
                        }
                    }
                },
                Out::Power { run, job, host, op } => {
                    if let Some(host) = self.hosts.iter().position(|h| h.id == host) {
                        self.after(50, 3_000, Due::Power { run, job, host, op });
                    }
                }
                Out::Operator { asked, answer } => {
                    if let Some(command) = self.asked.remove(&asked) {
                        self.note(|| format!("operator: {command:?}: {answer:?}"));
                        let ok = matches!(answer, Ok(Reply::Accepted(_) | Reply::Plan(_)));
                        self.oracle.answered(&command, ok);
                    }
                }
            }
        }
    }

    fn boot(&mut self, host: usize, boots: u64) {
        if self.hosts[host].boots != boots || self.hosts[host].stand != Stand::Firmware {
            return;
        }
        match self.address_and_script(host) {
            Some((nonce, release, address)) if !self.cut_off(host) => {
                let h = &mut self.hosts[host];
                h.key = format!("key-{host}-{boots}");
                h.stand = Stand::Joining { nonce, address };
                h.release = release;
                h.address = address;
                self.after(5_000, 15_000, Due::Join { host, boots });
            }
            // As a ROM does: again.
            _ => self.after(2_000, 8_000, Due::Boot { host, boots }),
        }
    }

    /// The address, and of the script the nonce and the release.
    fn address_and_script(&mut self, host: usize) -> Option<(String, String, Ipv4Addr)> {
        let (mac, now_ms) = (self.hosts[host].mac, self.now_ms);
        let mut request = BootRequest::plain(mac, 1, MessageKind::Discover);
        (request.architectures, request.user_class) = (vec![0], Some(b"iPXE".to_vec()));
        let discover = request.clone();
        let offer = self.server.ask_now(|reply| Event::Dhcp { reply, request: discover }, now_ms)?;
        let Answer::Dhcp(Some(offer)) = offer else { return None };
        // yiaddr, RFC 2131 §2.
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(&offer.packet[16..20]).ok()?);
        request.kind = MessageKind::Request;
        (request.requested, request.server) = (Some(address), Some(Ipv4Addr::new(10, 77, 0, 1)));
        let ack = self.server.ask_now(|reply| Event::Dhcp { reply, request }, now_ms)?;
        assert!(matches!(ack, Answer::Dhcp(Some(_))), "an address that was offered is not given");
        self.oracle.leased(mac, address);
        let entropy = Entropy(self.random.bytes());
        let kind = ScriptKind::IpxeBios;
        let script = self.server.ask_now(|reply| Event::Script { reply, mac, from: address, kind, entropy }, now_ms)?;
        let Answer::Script(Ok(script)) = script else { return None };
        let word = |name: &str| {
            let (_, rest) = script.split_once(name).expect("a script names its nonce and its release");
            rest.split_whitespace().next().map(str::to_owned)
        };
        Some((word("tsubame.join=")?, word("tsubame.release=")?, address))
    }

    fn join(&mut self, host: usize, boots: u64) {
        let h = &self.hosts[host];
        let Stand::Joining { nonce, address } = h.stand.clone() else { return };
        if h.boots != boots {
            return;
        }
        let inventory = inventory(h.mac, h.release.clone());
        let request = JoinRequest { host: h.id.clone(), nonce, csr_pem: "CSR".to_owned(), inventory };
        let key = h.key.clone();
        if !self.cut_off(host) {
            let asker = Asker::Join { host, boots };
            self.server_event(Some(asker), |reply| Event::Join { reply, request, key, from: address });
        }
        self.after(1_500, 2_500, Due::Join { host, boots });
    }

    pub(crate) fn tell(&mut self, host: usize, event: AgentEvent) {
        let now_ms = self.now_ms;
        if self.hosts[host].stopped {
            return self.hosts[host].waiting.push(event);
        }
        let Some(agent) = self.hosts[host].agent.as_mut() else { return };
        let actions = agent.apply(event, now_ms);
        for action in actions {
            if let Some(left) = &mut self.hosts[host].dies_after {
                if *left == 0 {
                    return self.agent_dies(host);
                }
                *left -= 1;
            }
            match action {
                AgentAction::KeepNote(note) => drop(self.hosts[host].notes.insert(note.vm.clone(), note)),
                AgentAction::DropNote(vm) => drop(self.hosts[host].notes.remove(&vm)),
                AgentAction::Do { job, op } => self.world.begin(&self.hosts[host].id, job, op, now_ms),
                AgentAction::Heartbeat(given) => {
                    let Host { id, stand: Stand::Up { nonce }, .. } = &self.hosts[host] else { continue };
                    self.world.heartbeat(id, given, nonce, now_ms);
                }
                AgentAction::KeepLease(lease) => self.hosts[host].lease = Some(lease),
                AgentAction::Reboot => return self.starts_anew(host),
                AgentAction::KeepTerm(term) => self.hosts[host].term = term,
                AgentAction::Pet { timeout_s } => self.world.pet(&self.hosts[host].id, timeout_s, now_ms),
                AgentAction::Post(report) => {
                    let boots = self.hosts[host].boots;
                    self.send(host, || Due::Report { host, boots, report: Box::new(report.clone()) });
                }
            }
        }
    }

    pub(crate) fn command(&mut self, command: Command) {
        if !self.server.is_up() {
            return;
        }
        self.queued += 1;
        let asked = self.queued;
        self.asked.insert(asked, command.clone());
        self.oracle.asked(&command);
        self.server_event(Some(Asker::Operator(asked)), |reply| Event::Operator { reply, command });
    }

    /// To one of the two releases, tried by a few.
    fn rollout(&mut self) -> Command {
        let request = StartRollout {
            to: id_of(&release(1 + self.random.next() % 2)),
            canary: 1 + self.random.below(3) as u32,
            deadline_s: self.random.between(30, 120),
            healthy_s: 2,
            at_once: 1 + self.random.below(4) as u32,
            reboot: true,
        };
        Command::StartRollout { pool: PoolId::default(), request }
    }

    fn operator(&mut self) {
        if !self.operator_stays {
            // Who goes leaves nothing going on that lasts the longer the more hosts there are.
            return match self.server.is_up() {
                true => self.command(Command::StopRollout { pool: PoolId::default() }),
                false => self.after(500, 2_000, Due::Operator),
            };
        }
        let vm = vm(self.random.next() % self.scale.vms);
        let host = self.hosts[self.random.below(self.hosts.len())].id.clone();
        let to = (self.random.permille(700)).then(|| host.clone());
        let command = match self.random.below(21) {
            20 => self.rollout(),
            0 | 1 => Command::DrainHost { host },
            2..5 => Command::UndrainHost { host },
            5 => Command::Balance(Balance { dry_run: false }),
            6 => Command::DestroyVm { vm },
            7 => Command::ShutdownVm { vm },
            8..11 => Command::StartVm { vm },
            _ => Command::MigrateVm { vm, request: MigrateVm { to } },
        };
        self.command(command);
        let (low_ms, high_ms) = self.scale.wish_every_ms;
        self.after(low_ms, high_ms, Due::Operator);
    }
}

pub(crate) fn vm(n: u64) -> VmId {
    format!("vm-{n}").parse().expect("a name")
}
