//! Fences and freezes, step by step. What happens when things fail at random is in `model`.

mod san;

use crate::effect::{Answer, Effect, StorageOp};
use crate::event::{Command, Event, Now, ReplyTo};
use crate::policy::Policy;
use crate::power::PowerOp;
use crate::record::{Key, Loaded, Record};
use crate::testing::{Bench, acts, alive, domain, mac, policy};
use crate::{Rack, ha};
use expect_test::expect;
use proto::agent::{
    Act, DomainState, DomainSurvey, Done, Failure, FailureKind, HostStats, LeaseState, OrderOutcome, Part, Report,
};
use proto::api::CreateVm;
use proto::heartbeat::Slot;
use proto::view::{FenceStep, HostView, VmPhase, VmView};
use proto::vm::{Priority, Restart, overhead_mib};
use proto::{HostId, OrderId};
use std::collections::BTreeMap;

/// What a host has for guests, MiB.
const MEMORY_MIB: u64 = 4096;

/// One host as it is.
struct Host {
    boot: String,
    /// It reports and writes its slot.
    alive: bool,
    lease: LeaseState,
    domains: Vec<DomainSurvey>,
    done: Vec<OrderId>,
    /// Every start of a guest fails there.
    breaks: bool,
    failed: Vec<OrderId>,
    beat: u64,
    /// The CHAP user of its heartbeat, as it was told last.
    user: Option<String>,
}

/// Some hosts, a storage that does what it is told, and a store.
struct Few {
    bench: Bench,
    policy: Policy,
    hosts: Vec<Host>,
    store: BTreeMap<Key, (u64, Record)>,
    /// Cuts are not confirmed.
    sulks: bool,
    /// Nobody reads the slots.
    blind: bool,
    /// What controllers are at.
    jobs: Vec<(u64, HostId, PowerOp)>,
    /// No host does what it is told.
    deaf: bool,
    /// Whose report it is that waits for its answer.
    reports: BTreeMap<ReplyTo, usize>,
    seq: u64,
    /// What was done, by seconds since `zero`.
    log: Vec<String>,
    zero: Now,
}

fn id(at: usize) -> HostId {
    HostId::of(mac(u8::try_from(at + 1).expect("few")))
}

impl Few {
    fn new(hosts: usize) -> Self {
        Self::of(hosts, policy())
    }

    fn of(hosts: usize, policy: Policy) -> Self {
        let mut bench = Bench::new(policy.clone());
        let zero = bench.now;
        let hosts = (0..hosts).map(|at| {
            let number = u8::try_from(at + 1).expect("few");
            let boot = bench.boot(mac(number), &format!("k{at}"), number);
            let (domains, done, failed) = (Vec::new(), Vec::new(), Vec::new());
            let lease = LeaseState::Valid;
            Host { boot, alive: true, lease, domains, done, breaks: false, failed, beat: 0, user: None }
        });
        let hosts = hosts.collect();
        let (store, jobs, log) = (BTreeMap::new(), Vec::new(), Vec::new());
        let (sulks, blind, deaf, reports) = (false, false, false, BTreeMap::new());
        let mut all = Self { bench, policy, hosts, store, sulks, blind, jobs, deaf, reports, seq: 0, log, zero };
        all.restart();
        all.pass(5);
        all
    }

    fn apply(&mut self, event: Event) {
        let effects = self.bench.apply(event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Commit(change) => match change.to {
                    Some(record) => drop(self.store.insert(change.key, (change.expect + 1, record))),
                    None => drop(self.store.remove(&change.key)),
                },
                Effect::Storage { op: StorageOp::Cut { .. }, .. } if self.sulks => {}
                Effect::Storage { job, op } => {
                    if let StorageOp::Cut { disk, host } = &op {
                        self.note(format!("{disk} cut from {host}"));
                    }
                    self.apply(Event::StorageDone { job, result: Ok(()) });
                }
                Effect::Answer { to, answer: Answer::Report(Ok(answer)) } => {
                    let at = self.reports.remove(&to).expect("one of them has asked");
                    for order in answer.orders {
                        self.obey(at, order);
                    }
                }
                Effect::Power { job, host, op, .. } => self.jobs.push((job, host, op)),
                Effect::Answer { .. } => {}
            }
        }
    }

    fn obey(&mut self, at: usize, order: proto::agent::Order) {
        let host = &mut self.hosts[at];
        if !host.alive || self.deaf || host.done.contains(&order.id) {
            return;
        }
        host.done.push(order.id);
        match order.act {
            Act::Start { .. } if host.breaks => host.failed.push(order.id),
            Act::Start { vm, .. } => {
                let shown = domain(vm.name.as_str(), order.epoch.0, DomainState::Running, Part::Resident);
                host.domains.push(DomainSurvey { memory_mib: vm.memory_mib, ..shown });
                self.note(format!("{} starts on {at} under epoch {}", vm.name, order.epoch));
            }
            Act::Destroy { vm } => {
                let before = host.domains.len();
                host.domains.retain(|d| d.vm != vm || d.epoch.is_none_or(|epoch| epoch > order.epoch));
                let what = if host.domains.len() < before { "destroyed" } else { "logged out" };
                self.note(format!("{vm} is {what} on {at}"));
            }
            Act::Unpause { vm } => {
                let held = host.domains.iter_mut().filter(|d| d.vm == vm);
                held.for_each(|d| d.state = DomainState::Running);
            }
            other => panic!("{other:?}"),
        }
    }

    fn note(&mut self, text: String) {
        let at_s = (self.bench.now.mono_ms - self.zero.mono_ms) / 1000;
        self.log.push(format!("{at_s} s: {text}\n"));
    }

    /// Lets so many seconds pass.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.bench.after(1000);
            for at in 0..self.hosts.len() {
                let host = &mut self.hosts[at];
                if !host.alive {
                    continue;
                }
                host.beat += u64::from(host.lease == LeaseState::Valid);
                self.seq += 1;
                let failure = || Failure { kind: FailureKind::Tool, detail: "no bridge".to_owned() };
                let result = |id| if host.failed.contains(id) { Err(failure()) } else { Ok(Done::Ok) };
                let outcomes = host.done.iter().map(|id| OrderOutcome { id: *id, result: result(id) }).collect();
                let (domains, lease) = (host.domains.clone(), host.lease);
                let used: u64 = domains.iter().map(|d| d.memory_mib + overhead_mib(d.memory_mib, 1)).sum();
                let stats = HostStats { memory_free_mib: MEMORY_MIB - used, ..HostStats::default() };
                let report = Report { domains, outcomes, lease, stats, ..alive(&host.boot, self.seq) };
                let (mac, key) = (mac(u8::try_from(at + 1).expect("few")), format!("k{at}"));
                let (reply, effects) = self.bench.report(mac, &key, report);
                self.reports.insert(reply, at);
                let user = self.bench.rack.heartbeat_of(&id(at)).map(|h| h.access.user);
                self.hosts[at].user = user.or(self.hosts[at].user.take());
                self.carry_out(effects);
            }
            if !self.blind {
                self.read();
            }
            self.apply(Event::Tick);
        }
    }

    fn read(&mut self) {
        let slots = self.hosts.iter().enumerate().filter(|(_, host)| host.beat > 0).filter_map(|(at, host)| {
            let slot = self.bench.rack.hosts.get(&id(at))?.slot?;
            Some((slot, Slot { host: id(at), boot: host.boot.clone(), counter: host.beat }))
        });
        let slots = slots.collect();
        self.apply(Event::Heartbeats { read_mono_ms: self.bench.now.mono_ms, slots });
    }

    fn restart(&mut self) {
        let records = match self.store.is_empty() {
            // What the fixture did before it had a store.
            true => {
                let mut effects = Vec::new();
                let rack = &mut self.bench.rack;
                for host in rack.hosts.ids() {
                    rack.hosts.edit(&host);
                }
                for lease in rack.leases.table.ids() {
                    rack.leases.table.edit(&lease);
                }
                rack.hosts.commit(&mut effects);
                rack.leases.table.commit(&mut effects);
                effects
                    .into_iter()
                    .filter_map(|e| match e {
                        Effect::Commit(c) => Some(Loaded { key: c.key, version: c.expect + 1, record: c.to? }),
                        _ => None,
                    })
                    .inspect(|l| drop(self.store.insert(l.key.clone(), (l.version, l.record.clone()))))
                    .collect()
            }
            false => self
                .store
                .iter()
                .map(|(key, (version, record))| Loaded { key: key.clone(), version: *version, record: record.clone() })
                .collect(),
        };
        let (rack, effects) = Rack::restore(self.policy.clone(), records, self.bench.now).expect("what was kept");
        self.bench.rack = rack;
        self.jobs.clear();
        self.carry_out(effects);
    }

    fn command(&mut self, command: Command) {
        let (_, effects) = self.bench.ask(|reply| Event::Operator { reply, command });
        self.carry_out(effects);
    }

    /// A VM on the host that is the only one with a lease meanwhile.
    fn run(&mut self, name: &str, at: usize, restart: Restart, memory_mib: u64) {
        for (other, host) in self.hosts.iter_mut().enumerate() {
            host.lease = if other == at { LeaseState::Valid } else { LeaseState::Lapsed };
        }
        self.pass(1);
        self.command(Command::CreateVm(CreateVm {
            memory_mib: Some(memory_mib),
            start: true,
            restart,
            ..CreateVm::new(name.parse().expect("a name"), "tiny")
        }));
        self.pass(3);
        self.hosts.iter_mut().for_each(|host| host.lease = LeaseState::Valid);
        self.pass(1);
        assert_eq!((self.vm(name).phase, self.vm(name).owner), (VmPhase::Running, Some(id(at))), "{name}");
    }

    /// The host was switched on again, and has nothing of before.
    fn boot_anew(&mut self, at: usize) {
        let number = u8::try_from(at + 1).expect("few");
        let (boot, effects) = self.bench.boots(mac(number), &format!("k{at}"), number + 100);
        self.carry_out(effects);
        let host = &mut self.hosts[at];
        *host =
            Host { boot, alive: true, domains: Vec::new(), done: Vec::new(), failed: Vec::new(), user: None, ..*host };
    }

    /// From here on what happens is noted.
    fn begin(&mut self) {
        self.log.clear();
        self.zero = self.bench.now;
    }

    fn vm(&self, name: &str) -> VmView {
        let vms = self.bench.rack.view(self.bench.now).vms;
        vms.into_iter().find(|vm| vm.spec.name.as_str() == name).expect("it is shown")
    }

    fn host(&self, at: usize) -> HostView {
        self.bench.rack.view(self.bench.now).hosts.into_iter().find(|host| host.id == id(at)).expect("it is shown")
    }

    fn kill(&mut self, at: usize, seconds: u64) {
        self.hosts[at].alive = false;
        self.pass(seconds);
    }

    fn frozen(&self) -> bool {
        self.bench.rack.view(self.bench.now).ha.frozen.is_some()
    }
}

#[test]
fn a_dead_hosts_vms_start_elsewhere_once_it_is_fenced() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    all.begin();
    all.hosts[0].alive = false;
    all.pass(16);
    assert_eq!(all.host(0).fence, Some(FenceStep::Waiting));
    let fence_ms = policy().ha.fence_ms;
    assert_eq!(all.host(0).fence_at_ms, Some(all.zero.unix_ms + fence_ms));
    assert_eq!((all.vm("a").phase, all.vm("a").run), (VmPhase::Unknown, true));
    all.pass(44);
    expect![[r#"
        45 s: a-0 cut from h525400aabb01
        45 s: tsubame-heartbeat cut from h525400aabb01
        46 s: a starts on 1 under epoch 3
    "#]]
    .assert_eq(&all.log.concat());
    assert_eq!((all.host(0).fence, all.host(0).fence_at_ms), (Some(FenceStep::Done), None));
    assert_eq!(all.vm("a").phase, VmPhase::Running);
}

#[test]
fn nothing_starts_before_the_cut_is_confirmed() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    (all.sulks, all.hosts[0].alive) = (true, false);
    all.begin();
    all.pass(300);
    assert_eq!(all.host(0).fence, Some(FenceStep::Cutting));
    assert_eq!((all.log.concat().as_str(), all.vm("a").owner), ("", Some(id(0))));
}

#[test]
fn the_wait_is_full_again_after_a_restart_and_who_is_blind_fences_nobody() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    all.hosts[0].alive = false;
    all.pass(40);
    all.restart();
    all.begin();
    all.pass(44);
    assert_eq!(all.host(0).fence, Some(FenceStep::Waiting));
    all.blind = true;
    all.pass(200);
    assert_eq!((all.host(0).fence, all.log.concat().as_str()), (Some(FenceStep::Waiting), ""));
    all.blind = false;
    all.sulks = true;
    all.pass(1);
    assert_eq!(all.host(0).fence, Some(FenceStep::Cutting));
    // The intent is kept: a server that comes back amid the fence goes on with it, after a full wait.
    all.sulks = false;
    all.restart();
    all.begin();
    all.pass(44);
    assert_eq!(all.vm("a").owner, Some(id(0)));
    all.pass(5);
    assert_eq!(all.vm("a").phase, VmPhase::Running);
    assert_ne!(all.vm("a").owner, Some(id(0)));
}

#[test]
fn a_write_that_was_under_way_amid_the_cut_begins_the_wait_anew() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    all.hosts[0].alive = false;
    all.sulks = true;
    all.pass(46);
    assert_eq!(all.host(0).fence, Some(FenceStep::Cutting));
    // It was alive after all; then its way is cut.
    all.hosts[0].beat += 1;
    all.read();
    all.sulks = false;
    all.begin();
    all.restart_storage();
    all.pass(44);
    assert_eq!(all.vm("a").owner, Some(id(0)), "{}", all.log.concat());
    all.pass(5);
    assert_ne!(all.vm("a").owner, Some(id(0)));
}

impl Few {
    /// Jobs that were withheld fail, and are asked for again.
    fn restart_storage(&mut self) {
        for job in 1..10_000 {
            let effects = self.bench.apply(Event::StorageDone { job, result: Err("it was away".to_owned()) });
            self.carry_out(effects);
        }
    }
}

#[test]
fn a_storage_that_was_started_anew_is_given_every_disk_and_grant() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart::default(), 96);
    let effects = all.bench.apply(Event::StorageAnew);
    let (mut attached, mut granted) = (0, 0);
    for effect in &effects {
        match effect {
            Effect::Storage { op: StorageOp::Attach { .. }, .. } => attached += 1,
            Effect::Storage { op: StorageOp::Grant { .. }, .. } => granted += 1,
            _ => {}
        }
    }
    // The heartbeat disk, for both hosts, and the VM's, for its host.
    assert_eq!((attached, granted), (2, 3), "{effects:?}");
}

#[test]
fn a_heartbeat_disk_that_is_lost_is_said_and_made_anew() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart::default(), 96);
    let blind = |all: &Few| all.bench.rack.view(all.bench.now).ha.blind;
    let unread = |all: &mut Few, gone| all.bench.apply(Event::HeartbeatsUnread { why: "no".to_owned(), gone });
    assert_eq!(acts(&unread(&mut all, false)), "", "it is there: nothing is made over it");
    assert!(blind(&all).is_some_and(|why| why.contains("not noticed")));
    all.read();
    assert_eq!(blind(&all), None);

    let effects = unread(&mut all, true);
    let told: String = effects.iter().filter_map(|e| Some(format!("{:?}\n", op(e)?))).collect();
    assert!(told.contains("Create") && told.contains(proto::heartbeat::DISK), "{told}");
    assert!(!unread(&mut all, true).iter().any(|effect| op(effect).is_some()), "once is enough");
    let job = effects.iter().find_map(|e| if let Effect::Storage { job, .. } = e { Some(*job) } else { None });
    let made = all.bench.apply(Event::StorageDone { job: job.expect("told"), result: Ok(()) });
    let granted = |effect: &&Effect| matches!(op(effect), Some(StorageOp::Grant { .. }));
    assert_eq!(made.iter().filter(granted).count(), 2, "both hosts reach the new one as they did the old");
    assert!(blind(&all).is_some(), "until it is read");
    all.read();
    assert_eq!(blind(&all), None);
}

/// The new one says nothing of who wrote the old: a host that the server does not hear otherwise may have had its lease all the while.
#[test]
fn after_a_heartbeat_disk_was_made_anew_each_silence_is_waited_out_in_full() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    all.begin();
    all.blind = true;
    let effects = all.bench.apply(Event::HeartbeatsUnread { why: "no".to_owned(), gone: true });
    all.hosts[0].alive = false;
    all.pass(60);
    all.carry_out(effects);
    all.blind = false;
    all.pass(40);
    assert_eq!(all.vm("a").owner, Some(id(0)), "{}", all.log.concat());
    all.pass(10);
    assert_ne!(all.vm("a").owner, Some(id(0)), "{}", all.log.concat());
}

fn op(effect: &Effect) -> Option<&StorageOp> {
    if let Effect::Storage { op, .. } = effect { Some(op) } else { None }
}

#[test]
fn what_goes_on_failing_is_said_once_an_hour() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart::default(), 96);
    let effects = all.bench.apply(Event::StorageAnew);
    let mut said = 0;
    let mut failing = effects;
    for _ in 0..800 {
        let jobs = failing.iter().filter_map(|e| match e {
            Effect::Storage { job, op: StorageOp::Attach { disk, .. } } if disk.as_str() == "a-0" => Some(*job),
            _ => None,
        });
        let jobs: Vec<u64> = jobs.collect();
        for job in jobs {
            let before = all.bench.rack.events(0, usize::MAX).len();
            all.bench.apply(Event::StorageDone { job, result: Err("no such file".to_owned()) });
            said += all.bench.rack.events(0, usize::MAX).len() - before;
        }
        all.bench.after(5000);
        failing = all.bench.apply(Event::Tick);
    }
    assert_eq!(said, 2, "of failures every 5 s for 4,000 s");
}

#[test]
fn a_fenced_host_that_is_back_is_cleared_and_used_again() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart::default(), 96);
    let before = all.hosts[0].user.clone();
    all.hosts[0].alive = false;
    all.pass(60);
    assert_eq!(all.vm("a").owner, Some(id(1)));
    all.begin();
    // Its guest stands there still, held, as its lease is over.
    (all.hosts[0].alive, all.hosts[0].lease) = (true, LeaseState::Lapsed);
    all.hosts[0].domains[0].state = DomainState::Paused;
    all.pass(3);
    expect![[r#"
        1 s: a is destroyed on 0
    "#]]
    .assert_eq(&all.log.concat());
    assert_eq!(all.host(0).fence, None);
    assert_ne!(all.hosts[0].user, before, "its way to the heartbeat disk is a new one");
    assert!(!all.bench.rack.usable(&id(0)));
    all.hosts[0].lease = LeaseState::Valid;
    all.pass(2);
    assert!(all.bench.rack.usable(&id(0)));
}

#[test]
fn many_hosts_at_once_freeze_the_rack() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    all.run("b", 1, Restart::default(), 96);
    all.begin();
    (all.hosts[0].alive, all.hosts[1].alive) = (false, false);
    all.pass(300);
    assert!(all.frozen());
    assert_eq!(all.log.concat(), "", "nothing was cut or started");
    assert_eq!((all.host(0).fence, all.host(0).fence_at_ms), (Some(FenceStep::Waiting), None));
    // Enough are back.
    all.hosts[0].alive = true;
    all.pass(1);
    assert!(!all.frozen());
    all.pass(60);
    assert_eq!((all.vm("a").owner, all.vm("b").phase), (Some(id(0)), VmPhase::Running));
    assert_ne!(all.vm("b").owner, Some(id(1)), "one alone is dead");
}

#[test]
fn who_returns_last_has_the_time_that_the_first_had() {
    let mut all = Few::new(3);
    for (vm, host) in [("a", 0), ("b", 1), ("c", 2)] {
        all.run(vm, host, Restart::default(), 96);
    }
    all.begin();
    // The server's own cable: nobody is heard, and each is back in its own time.
    all.hosts.iter_mut().for_each(|host| host.alive = false);
    all.pass(100);
    assert!(all.frozen());
    for at in 0..3 {
        all.hosts[at].alive = true;
        all.pass(15);
    }
    assert!(!all.frozen());
    all.pass(60);
    assert_eq!(all.log.concat(), "", "nothing was cut or started anew");
}

#[test]
fn one_that_comes_and_goes_keeps_no_dead_one() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    all.run("b", 1, Restart::default(), 96);
    all.hosts[0].alive = false;
    let mut froze = 0;
    for _ in 0..5 {
        all.hosts[1].alive = false;
        all.pass(20);
        froze += u32::from(all.frozen());
        all.hosts[1].alive = true;
        all.pass(20);
    }
    assert!(froze > 1, "it froze {froze} times");
    assert_eq!((all.vm("a").phase, all.vm("b").owner), (VmPhase::Running, Some(id(1))));
    assert_ne!(all.vm("a").owner, Some(id(0)));
}

#[test]
fn many_are_placed_bit_by_bit_and_the_first_first() {
    let mut all = Few::new(2);
    let names: Vec<String> = (0..40).map(|n| format!("v{n:02}")).collect();
    for (n, name) in names.iter().enumerate() {
        let priority = if n % 2 == 0 { Priority::Low } else { Priority::High };
        all.run(name, 0, Restart { priority, delay_s: 0, ..Restart::default() }, 32);
    }
    all.deaf = true;
    all.hosts[0].alive = false;
    let starting = |all: &Few| {
        let vms = all.bench.rack.view(all.bench.now).vms;
        let begun = vms.into_iter().filter(|vm| vm.phase == VmPhase::Starting);
        begun.map(|vm| vm.restart.priority).collect::<Vec<_>>()
    };
    let (mut most, mut before, mut seconds) = (0, Vec::new(), 0);
    while before.len() < names.len() {
        all.pass(1);
        seconds += 1;
        assert!(seconds < 60, "{} of them start", before.len());
        let now = starting(&all);
        most = most.max(now.len() - before.len());
        let high = now.iter().filter(|priority| **priority == Priority::High).count();
        assert!(high == now.len() || high == names.len() / 2, "one of low priority goes before: {now:?}");
        before = now;
    }
    // A second here has one tick, with something before it and after.
    assert!(most <= 2 * crate::vm::PLACEMENTS_PER_TICK as usize, "{most} at once");
}

#[test]
fn of_two_hosts_that_fail_together_the_first_vms_go_first() {
    let mut all = Few::new(7);
    all.run("low", 0, Restart { priority: Priority::Low, delay_s: 0, ..Restart::default() }, 3000);
    all.run("high", 1, Restart { priority: Priority::High, delay_s: 0, ..Restart::default() }, 3000);
    for at in 2..6 {
        all.run(&format!("other-{at}"), at, Restart::default(), 3000);
    }
    all.begin();
    all.kill(0, 2);
    all.kill(1, 44);
    assert_eq!((all.vm("low").phase, all.vm("high").phase), (VmPhase::Stopped, VmPhase::Unknown));
    expect!["waits for the fence of h525400aabb02, whose VMs go first"].assert_eq(&all.vm("low").note);
    all.pass(20);
    assert_eq!((all.vm("high").phase, all.vm("high").owner), (VmPhase::Running, Some(id(6))));
    assert!(all.vm("low").note.contains("no host can take low"), "{}", all.vm("low").note);
}

#[test]
fn a_host_that_is_never_fenced_is_not_waited_for() {
    let mut all = Few::new(8);
    all.run("high", 1, Restart { priority: Priority::High, delay_s: 0, ..Restart::default() }, 4000);
    all.run("low", 0, Restart { priority: Priority::Low, delay_s: 0, ..Restart::default() }, 96);
    for at in 2..8 {
        all.run(&format!("other-{at}"), at, Restart::default(), 1024);
    }
    // It crashes on a host that is drained, and fits nowhere else: nothing runs there when that goes.
    all.command(Command::DrainHost { host: id(1) });
    all.hosts[1].domains[0].state = DomainState::Crashed;
    all.pass(60);
    assert_eq!((all.vm("high").phase, all.vm("high").run), (VmPhase::Stopped, true), "{}", all.vm("high").note);
    all.kill(1, 100);
    all.kill(0, 60);
    assert_eq!(all.host(1).fence, None);
    assert_eq!(all.vm("low").phase, VmPhase::Running, "{}", all.vm("low").note);
}

#[test]
fn of_many_without_a_place_none_keeps_another_from_its_turn() {
    let mut all = Few::new(2);
    // Fits, and comes last.
    all.run("z", 0, Restart { priority: Priority::Low, delay_s: 0, ..Restart::default() }, 32);
    all.run("other", 1, Restart::default(), 3800);
    let many = 6 * 5 * crate::vm::PLACEMENTS_PER_TICK;
    for n in 0..many {
        all.command(Command::CreateVm(CreateVm {
            memory_mib: Some(2048),
            ..CreateVm::new(format!("v{n:03}").parse().expect("a name"), "tiny")
        }));
    }
    let names: Vec<_> = all.bench.rack.vms.ids().into_iter().filter(|vm| vm.as_str().starts_with('v')).collect();
    for vm in &names {
        all.bench.rack.vms.edit(vm).expect("it is there").run = true;
    }
    all.kill(0, 50 + 60);
    assert!(names.iter().all(|vm| all.vm(vm.as_str()).phase == VmPhase::Stopped), "they fit nowhere");
    assert_eq!(all.vm("z").phase, VmPhase::Running, "{}", all.vm("z").note);
}

#[test]
fn who_waits_with_its_host_keeps_nobody_elsewhere() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart { priority: Priority::High, delay_s: 3600, ..Restart::default() }, 96);
    all.run("b", 1, Restart::default(), 96);
    all.kill(0, 60);
    assert_eq!(all.vm("a").phase, VmPhase::Stopped);
    all.hosts[1].domains[0].state = DomainState::Crashed;
    all.pass(30);
    assert_eq!(all.vm("b").phase, VmPhase::Running, "{}", all.vm("b").note);
}

#[test]
fn an_operator_thaws() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    all.run("b", 1, Restart::default(), 96);
    (all.hosts[0].alive, all.hosts[1].alive) = (false, false);
    all.pass(20);
    assert!(all.frozen());
    all.command(Command::Thaw);
    assert!(!all.frozen());
    all.pass(15);
    assert_eq!(all.vm("a").owner, Some(id(0)), "their leases are waited out all the same");
    all.pass(15);
    assert_eq!((all.vm("a").owner, all.vm("b").owner), (Some(id(2)), Some(id(2))));
}

#[test]
fn what_a_failed_host_had_needs_room_before_another_may_fail() {
    let mut all = Few::new(3);
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        all.run(name, at, Restart::default(), 2000);
    }
    let borne = |all: &Few| all.bench.rack.view(all.bench.now).ha.failures_borne;
    all.begin();
    all.pass(5);
    assert_eq!(borne(&all), 1);
    all.hosts[0].alive = false;
    all.pass(25);
    assert_eq!((borne(&all), all.vm("a").owner), (0, Some(id(0))), "it is yet to be fenced");
}

#[test]
fn who_goes_first_and_who_fits() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart { priority: Priority::Low, delay_s: 0, ..Restart::default() }, 1024);
    all.run("b", 0, Restart { priority: Priority::Never, delay_s: 0, ..Restart::default() }, 128);
    all.run("c", 0, Restart { priority: Priority::High, delay_s: 10, ..Restart::default() }, 512);
    all.run("d", 0, Restart { priority: Priority::High, delay_s: 0, ..Restart::default() }, 512);
    all.run("e", 1, Restart::default(), 2560);
    assert_eq!(all.bench.rack.view(all.bench.now).ha.failures_borne, 0);
    all.begin();
    all.hosts[0].alive = false;
    all.pass(50);
    expect!["waits 6 s more: it is started no sooner after its host was fenced"].assert_eq(&all.vm("c").note);
    expect!["waits for c, which goes first and is held back for 6 s more"].assert_eq(&all.vm("a").note);
    all.pass(10);
    let starts: Vec<&str> = all.log.iter().filter(|l| l.contains("starts")).map(String::as_str).collect();
    expect![[r#"
        46 s: d starts on 1 under epoch 3
        56 s: c starts on 1 under epoch 3
    "#]]
    .assert_eq(&starts.concat());
    assert_eq!(all.vm("a").phase, VmPhase::Stopped);
    assert!(all.vm("a").note.contains("no host can take a"), "{}", all.vm("a").note);
    assert_eq!((all.vm("b").phase, all.vm("b").run), (VmPhase::Stopped, false));
}

#[test]
fn a_delay_outlives_the_server_and_is_set_anew() {
    for (anew, started) in [(None, 107..=112), (Some(5), 57..=62)] {
        let mut all = Few::new(2);
        all.run("a", 0, Restart { priority: Priority::High, delay_s: 60, ..Restart::default() }, 96);
        all.begin();
        all.hosts[0].alive = false;
        all.pass(50);
        all.restart();
        all.pass(2);
        assert!(all.vm("a").note.contains("it is started no sooner after its host was fenced"), "{}", all.vm("a").note);
        if let Some(delay_s) = anew {
            let restart = Restart { priority: Priority::Low, delay_s, ..Restart::default() };
            all.command(Command::SetRestart { vm: "a".parse().expect("a name"), restart });
            assert_eq!(all.vm("a").restart, restart);
        }
        while all.vm("a").phase != VmPhase::Running {
            all.pass(1);
        }
        let seconds = (all.bench.now.mono_ms - all.zero.mono_ms) / 1000;
        assert!(started.contains(&seconds), "with {anew:?} it runs after {seconds} s");
    }
}

#[test]
fn an_empty_host_that_goes_is_no_failure() {
    let mut all = Few::new(3);
    all.command(Command::DrainHost { host: id(0) });
    all.hosts[0].alive = false;
    all.hosts[1].alive = false;
    all.begin();
    all.pass(100);
    assert!(!all.frozen());
    assert_eq!((all.host(0).fence, all.log.concat().as_str()), (None, ""));
    all.command(Command::RemoveHost { host: id(0) });
    assert_eq!(all.bench.rack.hosts.len(), 2);
    assert!(ha::is_heartbeat(&all.bench.rack.disks.ids()[0]) && all.bench.rack.view(all.bench.now).disks.is_empty());
}

#[test]
fn room_that_is_kept_for_a_failure_is_given_in_one() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart::default(), 96);
    all.bench.rack.policy.balancing.spare_hosts = 1;
    all.kill(0, 60);
    assert_eq!((all.vm("a").phase, all.vm("a").owner), (VmPhase::Running, Some(id(1))));
    // A guest that crashes has its own again.
    all.hosts[1].domains[0].state = DomainState::Crashed;
    all.pass(2);
    assert_ne!(all.vm("a").phase, VmPhase::Running);
    all.pass(60);
    assert_eq!(all.vm("a").phase, VmPhase::Running, "{}", all.vm("a").note);
}

#[test]
fn a_host_on_which_it_does_not_start_does_not_keep_a_vm() {
    for broken in [1, 2] {
        let mut all = Few::new(3);
        all.run("a", 0, Restart::default(), 96);
        all.hosts[broken].breaks = true;
        all.kill(0, 90);
        assert_eq!(all.vm("a").owner, Some(id(3 - broken)), "{}", all.vm("a").note);
        // When both do not they are tried in turns.
        all.hosts[3 - broken].breaks = true;
        all.hosts[3 - broken].domains[0].state = DomainState::Crashed;
        all.pass(120);
        all.hosts[broken].breaks = false;
        all.pass(600);
        assert_eq!((all.vm("a").phase, all.vm("a").owner), (VmPhase::Running, Some(id(broken))));
    }
}

#[test]
fn never_and_the_delay_hold_however_the_host_went() {
    let mut all = Few::new(2);
    all.run("n", 0, Restart { priority: Priority::Never, delay_s: 0, ..Restart::default() }, 96);
    all.run("d", 0, Restart { priority: Priority::High, delay_s: 60, ..Restart::default() }, 96);
    all.run("w", 0, Restart { priority: Priority::High, delay_s: 60, ..Restart::default() }, 96);
    // Up again before its fence was due.
    all.kill(0, 5);
    all.boot_anew(0);
    all.pass(30);
    assert_eq!((all.vm("n").phase, all.vm("n").run), (VmPhase::Stopped, false));
    assert!(all.vm("n").note.contains("not started again by itself"), "{}", all.vm("n").note);
    assert_eq!((all.vm("d").phase, all.vm("d").run), (VmPhase::Stopped, true));
    let never = Restart { priority: Priority::Never, delay_s: 0, ..Restart::default() };
    all.command(Command::SetRestart { vm: "w".parse().expect("a name"), restart: never });
    all.pass(60);
    assert_eq!((all.vm("d").phase, all.vm("w").phase), (VmPhase::Running, VmPhase::Stopped), "{}", all.vm("d").note);
}

#[test]
fn a_delay_ends_with_a_start() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart { priority: Priority::High, delay_s: 3600, ..Restart::default() }, 96);
    all.kill(0, 60);
    assert_eq!(all.vm("a").phase, VmPhase::Stopped);
    all.command(Command::StartVm { vm: "a".parse().expect("a name") });
    all.pass(10);
    all.hosts[1].domains[0].state = DomainState::Crashed;
    all.pass(60);
    assert_eq!(all.vm("a").phase, VmPhase::Running, "{}", all.vm("a").note);
}

#[test]
fn what_is_left_of_a_deleted_vm_goes_when_its_host_is_back() {
    let mut all = Few::new(2);
    all.run("a", 0, Restart::default(), 96);
    all.run("n", 0, Restart { priority: Priority::Never, delay_s: 0, ..Restart::default() }, 96);
    all.kill(0, 60);
    let named = |name: &str| name.parse().expect("a name");
    all.command(Command::DestroyVm { vm: named("a") });
    all.pass(5);
    all.begin();
    // The other runs nowhere, whatever its dead host said last.
    for name in ["a", "n"] {
        all.command(Command::DeleteVm { vm: named(name) });
    }
    all.pass(5);
    assert!(all.bench.rack.view(all.bench.now).vms.is_empty());
    all.hosts[0].alive = true;
    all.pass(10);
    let destroyed: Vec<&str> = all.log.iter().filter(|l| l.contains("destroyed")).map(String::as_str).collect();
    expect![[r#"
        6 s: a is destroyed on 0
        6 s: n is destroyed on 0
    "#]]
    .assert_eq(&destroyed.concat());
}
