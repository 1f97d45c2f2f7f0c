//! The boot server's shell, simulated: the real rack, a store that keeps what was committed, storage jobs that take their
//! time, and crashes at every point between an event and its last effect.
//!
//! ```text
//! event ─> Rack::apply ─┬─> commits ─┬─> other effects, one by one ─┬─>
//!             crash:    ^            ^                              ^
//! ```

use crate::random::Random;
use proto::agent::{JoinRefusal, ReportAnswer};
use proto::api::Refusal;
use proto::release::{Manifest, ReleaseFile};
use proto::view::{HostState, MovePhase, VmPhase};
use proto::{DiskId, HostId, MoveId, Term, VmId};
use rack::Rack;
use rack::effect::{Answer, Effect, JoinDecision, Reply, StorageOp};
use rack::event::{Entropy, Event, Now, ReplyTo};
use rack::policy::{Dom0, Ha, JoinMode, Policy, Serves, Storage, Subnet, Template};
use rack::power::PowerOp;
use rack::record::{Fence, HostRecord, Key, Kind, Loaded, Record};
use rack::recovery::{FoundDisk, begin_term};
use rack::release::DOM0_ROLES;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

/// What leaves the server for somebody.
pub(crate) enum Out {
    Report {
        host: usize,
        boots: u64,
        answer: Result<ReportAnswer, JoinRefusal>,
    },
    Join {
        host: usize,
        boots: u64,
        decision: JoinDecision,
    },
    Operator {
        asked: u64,
        answer: Result<Reply, Refusal>,
    },
    /// A controller is told something by this process.
    Power {
        run: u64,
        job: u64,
        host: HostId,
        op: PowerOp,
    },
}

/// Who waits for an answer.
#[derive(Clone, Copy)]
pub(crate) enum Asker {
    Report { host: usize, boots: u64 },
    Join { host: usize, boots: u64 },
    Operator(u64),
}

/// What the store holds: version and text of each record.
type Records = BTreeMap<Key, (u64, String)>;

pub(crate) struct Server {
    /// None while it is down.
    rack: Option<Rack>,
    policy: Policy,
    store: Records,
    asked: BTreeMap<ReplyTo, Asker>,
    replies: u64,
    /// Which process it is; storage jobs of an earlier one have nobody to report to.
    pub(crate) run: u64,
    jobs: BTreeMap<DiskId, VecDeque<(u64, StorageOp)>>,
    /// Disks whose first job is under way.
    at_work: BTreeSet<DiskId>,
    pub(crate) out: Vec<Out>,
    /// The newest copy of the store that was put by, and when.
    backup: Option<(Records, u64)>,
    pub(crate) restores: u64,
    pub(crate) crashes: u64,
    /// The step at which it has crashed just now.
    pub(crate) crashed_at: Option<&'static str>,
    /// The wall clock of its machine is wrong by so much.
    pub(crate) clock_off_ms: i64,
    /// How often a host was fenced, and which hosts were just now.
    fences: usize,
    pub(crate) fenced: Vec<HostId>,
    /// Moves that were done.
    moved: BTreeSet<MoveId>,
}

impl Server {
    pub(crate) fn new(now_ms: u64, storage: Storage) -> Self {
        let mut server = Self {
            rack: None,
            policy: policy(storage),
            store: BTreeMap::new(),
            asked: BTreeMap::new(),
            replies: 0,
            run: 0,
            jobs: BTreeMap::new(),
            at_work: BTreeSet::new(),
            out: Vec::new(),
            backup: None,
            restores: 0,
            crashes: 0,
            crashed_at: None,
            clock_off_ms: 0,
            fences: 0,
            fenced: Vec::new(),
            moved: BTreeSet::new(),
        };
        server.start(now_ms, Vec::new);
        server
    }

    pub(crate) fn is_up(&self) -> bool {
        self.rack.is_some()
    }

    /// Starts from what was kept. `found` is what the storage has.
    pub(crate) fn start(&mut self, now_ms: u64, found: impl FnOnce() -> Vec<FoundDisk>) {
        let now = self.now(now_ms);
        let (mut rack, effects) =
            Rack::restore(self.policy.clone(), self.records(), now).expect("what was kept fits together");
        let told = if rack.surveying() { rack.apply(Event::StorageFound(found()), now) } else { Vec::new() };
        self.run += 1;
        self.rack = Some(rack);
        self.carry_out(effects, None);
        self.carry_out(told, None);
    }

    fn records(&self) -> Vec<Loaded> {
        let mut records = Vec::new();
        for kind in Kind::ALL {
            for (key, (version, text)) in self.store.iter().filter(|(key, _)| key.kind == kind) {
                let record: Record = serde_json::from_str(text).expect("what was written can be read");
                records.push(Loaded { key: key.clone(), version: *version, record });
            }
        }
        records
    }

    /// Puts a copy of the store by.
    pub(crate) fn back_up(&mut self, now_ms: u64) {
        self.backup = Some((self.store.clone(), now_ms));
    }

    /// The store is lost, and what was put by takes its place; how old that is. Only while the server is down.
    pub(crate) fn restore(&mut self, now_ms: u64, entropy: Entropy) -> Option<u64> {
        let (store, backup_ms) = self.backup.clone().filter(|_| !self.is_up())?;
        self.store = store;
        self.restores += 1;
        let change = begin_term(&self.records(), backup_ms, now_ms, entropy);
        let Some(Record::Term(mut record)) = change.to else { panic!("a term is a record") };
        // Time begins anew in every run here, so what a machine's clock gives to the term is given by the count.
        record.term = Term(record.term.0 + self.restores * 1_000_000_000_000);
        let text = serde_json::to_string(&Record::Term(record)).expect("a record is JSON");
        self.store.insert(change.key, (change.expect + 1, text));
        Some(now_ms - backup_ms)
    }

    /// Whether what happened since a backup is still being found out.
    pub(crate) fn surveying(&self) -> bool {
        self.rack.as_ref().is_some_and(Rack::surveying)
    }

    /// Its process is gone: what it knew beyond the store, its connections, its jobs.
    pub(crate) fn crash(&mut self) {
        self.rack = None;
        self.crashes += 1;
        self.asked.clear();
        self.jobs.clear();
        self.at_work.clear();
    }

    /// Asks; without an answer when the server is down. `None` for who is told to be nobody.
    pub(crate) fn ask(
        &mut self,
        asker: Option<Asker>,
        event: impl FnOnce(ReplyTo) -> Event,
        now_ms: u64,
        crash: Option<&mut Random>,
    ) -> Option<ReplyTo> {
        self.replies += 1;
        let reply = ReplyTo(self.replies);
        let now = self.now(now_ms);
        let rack = self.rack.as_mut()?;
        let effects = rack.apply(event(reply), now);
        if let Some(asker) = asker {
            self.asked.insert(reply, asker);
        }
        match crash {
            Some(random) => {
                // Before the commit nothing has happened, after it anything may have been let out.
                self.crashed_at = Some("deaths of the server before a commit");
                if !random.permille(300) {
                    let others = effects.iter().filter(|effect| !matches!(effect, Effect::Commit(_))).count();
                    let upto = random.below(others + 1);
                    self.crashed_at = Some(match upto {
                        _ if upto == others => "deaths of the server after all effects",
                        0 => "deaths of the server after a commit, before the first effect",
                        _ => "deaths of the server amid effects",
                    });
                    self.carry_out(effects, Some(upto));
                }
                self.crash();
            }
            None => self.carry_out(effects, None),
        }
        Some(reply)
    }

    /// An answer that came at once to a question nobody else waits for, as of DHCP.
    pub(crate) fn ask_now(&mut self, event: impl FnOnce(ReplyTo) -> Event, now_ms: u64) -> Option<Answer> {
        self.replies += 1;
        let reply = ReplyTo(self.replies);
        let now = self.now(now_ms);
        let mut effects = self.rack.as_mut()?.apply(event(reply), now);
        let mine = effects.iter().position(|e| matches!(e, Effect::Answer { to, .. } if *to == reply));
        let mine = mine.map(|at| effects.remove(at));
        self.carry_out(effects, None);
        mine.map(|effect| match effect {
            Effect::Answer { answer, .. } => answer,
            _ => unreachable!("it was found as an answer"),
        })
    }

    /// Commits all, then lets out the first `upto` of the rest.
    fn carry_out(&mut self, effects: Vec<Effect>, upto: Option<usize>) {
        let mut let_out = 0;
        for effect in effects {
            let other = match effect {
                Effect::Commit(change) => {
                    assert_eq!(let_out, 0, "a commit after an effect that may rely on it");
                    let version = self.store.get(&change.key).map_or(0, |(version, _)| *version);
                    assert_eq!(version, change.expect, "{:?} is at another version", change.key);
                    match change.to {
                        Some(record) => {
                            if let Record::Host(host) = &record
                                && host.fence == Some(Fence::Done)
                                && self.kept_host(&change.key).is_none_or(|before| before.fence != host.fence)
                            {
                                self.fences += 1;
                                self.fenced.push(host.id.clone());
                            }
                            if let Record::Move(record) = &record
                                && record.view.phase == MovePhase::Done
                            {
                                self.moved.insert(record.view.id);
                            }
                            let text = serde_json::to_string(&record).expect("a record is JSON");
                            self.store.insert(change.key, (version + 1, text));
                        }
                        None => drop(self.store.remove(&change.key)),
                    }
                    continue;
                }
                other => other,
            };
            if upto.is_some_and(|upto| let_out >= upto) {
                return;
            }
            let_out += 1;
            match other {
                Effect::Answer { to, answer } => self.answer(to, answer),
                Effect::Storage { job, op } => {
                    self.jobs.entry(op.disk().clone()).or_default().push_back((job, op));
                }
                Effect::Power { job, host, op, .. } => self.out.push(Out::Power { run: self.run, job, host, op }),
                Effect::Commit(_) => {}
            }
        }
    }

    fn answer(&mut self, to: ReplyTo, answer: Answer) {
        let Some(asker) = self.asked.remove(&to) else { return };
        self.out.push(match (asker, answer) {
            (Asker::Report { host, boots }, Answer::Report(answer)) => Out::Report { host, boots, answer },
            (Asker::Join { host, boots }, Answer::Join(decision)) => Out::Join { host, boots, decision },
            (Asker::Operator(asked), Answer::Operator(answer)) => Out::Operator { asked, answer },
            (_, answer) => panic!("a question of one kind got the answer {answer:?}"),
        });
    }

    /// Storage jobs that may begin: in order for each disk, side by side for several.
    pub(crate) fn jobs_to_begin(&mut self) -> Vec<(DiskId, u64, StorageOp)> {
        let mut begin = Vec::new();
        for (disk, queue) in &mut self.jobs {
            if !self.at_work.contains(disk)
                && let Some((job, op)) = queue.pop_front()
            {
                self.at_work.insert(disk.clone());
                begin.push((disk.clone(), job, op));
            }
        }
        self.jobs.retain(|_, queue| !queue.is_empty());
        begin
    }

    pub(crate) fn job_ended(&mut self, disk: &DiskId) {
        self.at_work.remove(disk);
    }

    /// How often a host was fenced.
    pub(crate) fn fences(&self) -> usize {
        self.fences
    }

    /// How many moves were done.
    pub(crate) fn moves(&self) -> usize {
        self.moved.len()
    }

    /// What an operator would see.
    pub(crate) fn view(&self, now_ms: u64) -> Option<proto::view::RackView> {
        self.rack.as_ref().map(|rack| rack.view(self.now(now_ms)))
    }

    /// The world's one clock is every clock, but for the wall clock of this machine.
    fn now(&self, now_ms: u64) -> Now {
        Now { mono_ms: now_ms, unix_ms: now_ms.saturating_add_signed(self.clock_off_ms) }
    }

    fn kept_host(&self, key: &Key) -> Option<HostRecord> {
        match serde_json::from_str(&self.store.get(key)?.1).expect("what was written can be read") {
            Record::Host(record) => Some(record),
            other => panic!("under a host's key there is {other:?}"),
        }
    }

    /// Who owns a VM by the records that were kept, whether or not the server is up.
    pub(crate) fn kept_vm(&self, vm: &VmId) -> Option<rack::record::VmRecord> {
        let key = Key { kind: Kind::Vm, name: vm.to_string() };
        match serde_json::from_str(&self.store.get(&key)?.1).expect("what was written can be read") {
            Record::Vm(record) => Some(record),
            other => panic!("under a VM's key there is {other:?}"),
        }
    }
}

/// Whether a host is up as the server sees it.
pub(crate) fn serves(state: HostState) -> bool {
    matches!(state, HostState::Active | HostState::Draining)
}

/// Whether a VM is on its way to nowhere else.
pub(crate) fn settled(phase: VmPhase) -> bool {
    matches!(phase, VmPhase::Running | VmPhase::Stopped | VmPhase::Failed | VmPhase::Paused)
}

/// A release for hosts.
pub(crate) fn release(version: u64) -> Manifest {
    let file = ReleaseFile { sha256: format!("{version:064x}"), bytes: 1 };
    let files = DOM0_ROLES.map(|role| (role.to_owned(), file.clone())).into();
    Manifest { name: "dom0".to_owned(), version, files, ..Manifest::default() }
}

fn policy(storage: Storage) -> Policy {
    let template = Template {
        boot: proto::vm::Boot::Kernel { kernel: "a".repeat(64), initrd: None, cmdline: "quiet".to_owned() },
        memory_mib: 96,
        vcpus: 1,
        disk_mib: 64,
        disk_image: false,
        bridge: "xenbr0".to_owned(),
    };
    Policy {
        subnet: Subnet {
            serves: Serves::Full,
            network: Ipv4Addr::new(10, 77, 0, 0),
            prefix: 16,
            server: Ipv4Addr::new(10, 77, 0, 1),
            pool: (Ipv4Addr::new(10, 77, 1, 0), Ipv4Addr::new(10, 77, 1, 255)),
            reservations: BTreeMap::new(),
            gateway: None,
            dns: Vec::new(),
            lease_s: 3600,
            boot_port: 8080,
            agent_port: 7443,
            ca_digest: "c".repeat(43),
        },
        relayed: Vec::new(),
        join: JoinMode::All,
        accept: Vec::new(),
        release: release(1),
        guests: Vec::new(),
        release_keep_ms: 0,
        dom0: Dom0 { xen_args: "dom0_mem=512M,max:512M".to_owned(), kernel_args: String::new() },
        templates: BTreeMap::from([("tiny".to_owned(), template)]),
        report_ms: 1000,
        lost_ms: 15_000,
        balance_ms: 20_000,
        migration_rate_bytes_s: 0,
        iqn_prefix: "iqn.2026-11.org.tsubame".to_owned(),
        storage,
        migration_port: 8002,
        boots_at_once: usize::MAX,
        ha: Ha::default(),
        balancing: Default::default(),
    }
}
