//! Two agents and a written-out server on the physical model: every order, and every cut of a move.

use super::{Agent, AgentAction, AgentEvent, KeptLease, Note};
use crate::hypervisor::sim::{Costs, World};
use expect_test::{Expect, expect};
use proto::agent::{
    Act, DiskAccess, DomainState, Heartbeat, Order, OrderOutcome, Permit, Report, ReportAnswer, Secret, SignedPermit,
};
use proto::vm::{Boot, VmSpec};
use proto::{DiskId, Epoch, HostId, MoveId, OrderId, Term, VmId};
use std::collections::BTreeMap;
use std::fmt::Write;

struct Host {
    agent: Agent,
    notes: BTreeMap<VmId, Note>,
    report: Option<Report>,
    outcomes: Vec<OrderOutcome>,
    reboots: usize,
}

struct Rack {
    world: World,
    hosts: BTreeMap<HostId, Host>,
    now_ms: u64,
    order_next: u64,
}

fn host(name: &str) -> HostId {
    name.parse().expect("a test's name is good")
}

fn vm() -> VmId {
    "web".parse().expect("a test's name is good")
}

fn disk() -> DiskId {
    "web-0".parse().expect("a test's name is good")
}

fn access(user: &str) -> DiskAccess {
    DiskAccess {
        disk: disk(),
        portal: ([10, 0, 0, 1], 3260).into(),
        target: "iqn.x:web-0".into(),
        lun: 1,
        user: user.into(),
        secret: Secret("s".into()),
    }
}

/// One that never ends; what a lease does is tested in [`super::lease`].
fn lease() -> KeptLease {
    let heartbeat = Heartbeat {
        access: access("beat"),
        slot: 0,
        write_ms: 3_000,
        lease_ms: 20_000,
        watchdog_ms: 15_000,
        cuttable: true,
    };
    KeptLease { heartbeat, until_ms: u64::MAX, terms: 0 }
}

fn spec() -> VmSpec {
    VmSpec {
        name: vm(),
        memory_mib: 1024,
        vcpus: 1,
        boot: Boot::Disk { loader: "0".repeat(64) },
        disks: vec![disk()],
        vifs: vec![],
    }
}

fn permit() -> Permit {
    Permit {
        r#move: MoveId(9),
        vm: vm(),
        epoch: Epoch(1),
        source: host("a"),
        target: host("b"),
        target_address: [10, 0, 0, 3].into(),
        target_port: 7444,
        expires_ms: 600_000,
    }
}

fn start() -> Act {
    Act::Start { vm: spec(), disks: vec![access("a1")] }
}

fn receive() -> Act {
    Act::Receive { permit: permit(), vm: spec(), disks: vec![access("b2")] }
}

fn send() -> Act {
    let permit_json = serde_json::to_string(&permit()).expect("a permit is plain data");
    Act::Send { permit: SignedPermit { permit_json, signature: String::new() }, rate_bytes_s: 0 }
}

impl Rack {
    fn new() -> Self {
        Self::at(Costs::default())
    }

    fn at(costs: Costs) -> Self {
        let mut world = World::new(costs);
        world.grant(&disk(), &host("a"), "a1");
        world.grant(&disk(), &host("b"), "b2");
        let mut hosts = BTreeMap::new();
        for name in ["a", "b"] {
            world.add_host(host(name), 4096);
            let agent = Agent::new("boot".into(), vec![], Some(lease()));
            hosts
                .insert(host(name), Host { agent, notes: BTreeMap::new(), report: None, outcomes: vec![], reboots: 0 });
        }
        Self { world, hosts, now_ms: 0, order_next: 1 }
    }

    fn feed(&mut self, id: &HostId, event: AgentEvent) {
        let Some(h) = self.hosts.get_mut(id) else { return };
        for action in h.agent.apply(event, self.now_ms) {
            match action {
                AgentAction::KeepNote(note) => drop(h.notes.insert(note.vm.clone(), note)),
                AgentAction::DropNote(vm) => drop(h.notes.remove(&vm)),
                AgentAction::Do { job, op } => self.world.begin(id, job, op, self.now_ms),
                AgentAction::Heartbeat(_)
                | AgentAction::KeepLease(_)
                | AgentAction::KeepTerm(_)
                | AgentAction::Pet { .. } => {}
                AgentAction::Reboot => h.reboots += 1,
                AgentAction::Post(report) => {
                    h.outcomes.extend(
                        report
                            .outcomes
                            .iter()
                            .filter(|o| !h.outcomes.iter().any(|k| k.id == o.id))
                            .cloned()
                            .collect::<Vec<_>>(),
                    );
                    h.report = Some(report);
                }
            }
        }
        assert_eq!(self.world.doubled(), vec![], "at {} ms", self.now_ms);
    }

    /// Gives an order as the server does: in an answer, repeated, with what was seen.
    fn order(&mut self, on: &str, epoch: u64, act: Act) -> OrderId {
        let id = OrderId(self.order_next);
        self.order_next += 1;
        let order = Order { id, epoch: Epoch(epoch), act };
        let orders = vec![order.clone(), order];
        let answer =
            ReportAnswer { seen: vec![], orders, report_ms: 2_000, heartbeat: None, ..ReportAnswer::default() };
        self.feed(&host(on), AgentEvent::Answer(answer));
        id
    }

    /// Lets time pass until `until` holds or `ms` are over.
    fn run(&mut self, ms: u64, until: impl Fn(&Self) -> bool) -> bool {
        let end = self.now_ms + ms;
        while self.now_ms < end && !until(self) {
            let wakes = self.hosts.values().map(|h| h.agent.wake_ms()).chain(self.world.next_ms());
            self.now_ms = wakes.min().unwrap_or(end).clamp(self.now_ms, end);
            for (_, id, event) in self.world.step(self.now_ms) {
                self.feed(&id, event);
            }
            for id in self.hosts.keys().cloned().collect::<Vec<_>>() {
                self.feed(&id, AgentEvent::Tick);
            }
        }
        until(self)
    }

    fn outcome(&self, on: &str, id: OrderId) -> Option<&OrderOutcome> {
        self.hosts.get(&host(on))?.outcomes.iter().find(|o| o.id == id)
    }

    fn done(&mut self, on: &str, epoch: u64, act: Act) -> String {
        let id = self.order(on, epoch, act);
        self.run(60_000, |r| r.outcome(on, id).is_some());
        match self.outcome(on, id).map(|o| &o.result) {
            Some(Ok(done)) => format!("{done:?}"),
            Some(Err(f)) => format!("{:?}: {}", f.kind, f.detail),
            None => "no outcome".into(),
        }
    }

    fn restart_agent(&mut self, on: &str) {
        self.restart_agent_with(on, lease());
    }

    fn restart_agent_with(&mut self, on: &str, lease: KeptLease) {
        self.world.kill_agent(&host(on));
        if let Some(h) = self.hosts.get_mut(&host(on)) {
            h.agent = Agent::new("boot".into(), h.notes.values().cloned().collect(), Some(lease));
        }
    }

    /// The agent goes on with another lease.
    fn restart_lease(&mut self, on: &str, lease: KeptLease) {
        self.hosts.get_mut(&host(on)).expect("there").agent.lease = super::lease::Lease::of(Some(lease));
    }

    fn show(&self) -> String {
        let mut text = String::new();
        for (id, h) in &self.hosts {
            let _ = write!(text, "{id}:");
            for d in self.world.domains(id) {
                let epoch = h.notes.get(&d.vm).and_then(|n| n.guest.as_ref()).map(|g| g.epoch.0);
                let _ = write!(text, " {:?} {:?} epoch {epoch:?} memory {}", d.part, d.state, d.lineage);
            }
            let writes = self.world.writers(&disk()).contains(id);
            let _ = writeln!(text, "{}", if writes { ", writes" } else { "" });
        }
        text
    }

    fn received(&self) -> bool {
        let stage = |r: &Report| r.underway.iter().any(|p| p.stage == proto::agent::Stage::Received);
        self.hosts[&host("b")].report.as_ref().is_some_and(stage)
    }

    /// A guest runs on `a`, `b` listens.
    fn moving(&mut self) -> OrderId {
        assert_eq!(self.done("a", 1, start()), "Ok");
        assert_eq!(self.done("b", 1, receive()), "Ok");
        self.order("a", 1, send())
    }
}

#[test]
fn a_move() {
    let mut r = Rack::new();
    let sent = r.moving();
    assert!(r.run(60_000, |r| r.received() && r.outcome("a", sent).is_some()));
    let mut log = format!("{:?}\n{}", r.outcome("a", sent).map(|o| &o.result), r.show());
    let _ = writeln!(log, "{}", r.done("b", 2, Act::Activate { r#move: MoveId(9), vm: vm() }));
    log += &r.show();
    let _ = writeln!(log, "{}", r.done("a", 2, Act::Release { r#move: MoveId(9), vm: vm() }));
    log += &r.show();
    let _ = writeln!(log, "{}", r.done("a", 1, start()));
    let _ = writeln!(log, "{}", r.done("b", 2, Act::Activate { r#move: MoveId(9), vm: vm() }));
    expect![[r#"
        Some(Ok(Sent { bytes: 1074718724, total_ms: 9851 }))
        a: Resident Suspended epoch Some(1) memory 1
        b: Incoming Paused epoch Some(1) memory 1
        Activated { downtime_ms: 85 }
        a: Resident Suspended epoch Some(1) memory 1
        b: Resident Running epoch Some(2) memory 1, writes
        Ok
        a:
        b: Resident Running epoch Some(2) memory 1, writes
        StaleEpoch: web: ordered under epoch 1, but epoch 2 is known here
        Activated { downtime_ms: 0 }
    "#]]
    .assert_eq(&log);
}

/// Runs a move until `when`, does `fault`, lets things settle, then has the server abort; shows both states.
fn check_cut(when: impl Fn(&Rack) -> bool, fault: impl Fn(&mut Rack), expect: &Expect) {
    let mut r = Rack::new();
    let sent = r.moving();
    assert!(r.run(60_000, &when), "the moment of the fault came");
    fault(&mut r);
    r.run(30_000, |_| false);
    let outcome = r.outcome("a", sent).map(|o| o.result.clone().map_err(|f| f.kind));
    let mut log = format!("send {outcome:?}, received {}\n{}", r.received(), r.show());
    let _ = writeln!(log, "abort: {}", r.done("a", 1, Act::AbortSend { r#move: MoveId(9), vm: vm() }));
    let _ = writeln!(log, "abort: {}", r.done("b", 1, Act::AbortReceive { r#move: MoveId(9), vm: vm() }));
    log += &r.show();
    assert_eq!(r.world.running(&vm()), vec![host("a")]);
    expect.assert_eq(&log);
}

fn state_is(r: &Rack, state: DomainState) -> bool {
    r.world.domains(&host("a")).iter().any(|d| d.state == state)
}

fn copying(r: &Rack) -> bool {
    r.world.domains(&host("b")).iter().any(|_| true)
}

fn stopped(r: &Rack) -> bool {
    state_is(r, DomainState::Suspended)
}

#[test]
fn cuts_before_the_owner_changes() {
    let resumed = expect![[r#"
        send Some(Err(Stream)), received false
        a: Resident Running epoch Some(1) memory 1, writes
        b:
        abort: Ok
        abort: Ok
        a: Resident Running epoch Some(1) memory 1, writes
        b:
    "#]];
    let unheard = expect![[r#"
        send None, received false
        a: Resident Running epoch Some(1) memory 1, writes
        b:
        abort: Ok
        abort: Ok
        a: Resident Running epoch Some(1) memory 1, writes
        b:
    "#]];
    for when in [copying as fn(&Rack) -> bool, stopped] {
        check_cut(when, |r| r.world.set_link(&host("a"), &host("b"), false), &resumed);
        check_cut(when, |r| r.restart_agent("b"), &resumed);
        check_cut(when, |r| r.restart_agent("a"), &unheard);
    }
    // Held at the target: the source stands still until it is told, whatever restarts.
    let held = expect![[r#"
        send Some(Ok(Sent { bytes: 1074718724, total_ms: 9851 })), received true
        a: Resident Suspended epoch Some(1) memory 1
        b: Incoming Paused epoch Some(1) memory 1
        abort: Ok
        abort: Ok
        a: Resident Running epoch Some(1) memory 1, writes
        b:
    "#]];
    check_cut(Rack::received, |r| r.restart_agent("a"), &held);
    check_cut(Rack::received, |r| r.restart_agent("b"), &held);
}

#[test]
fn an_agent_restarted_after_receiving_still_activates() {
    let mut r = Rack::new();
    r.moving();
    assert!(r.run(60_000, Rack::received));
    r.restart_agent("b");
    r.restart_agent("a");
    // The server repeats what has no outcome: a suspended guest must not run by it.
    assert!(r.done("a", 1, send()).starts_with("Stream: sending web: it must run, and is Suspended"));
    assert!(r.done("b", 2, Act::Activate { r#move: MoveId(9), vm: vm() }).starts_with("Activated"));
    assert_eq!(r.done("a", 2, Act::Release { r#move: MoveId(9), vm: vm() }), "Ok");
    assert_eq!(r.world.running(&vm()), vec![host("b")]);
}

#[test]
fn orders_on_one_host() {
    let mut r = Rack::new();
    let mut log = String::new();
    let mut say = |r: &mut Rack, what: &str, epoch, act| {
        let end = r.done("a", epoch, act);
        let _ = writeln!(log, "{what}: {end}; {}", r.show().lines().next().unwrap_or_default());
    };
    let name = vm;
    say(&mut r, "pause nothing", 1, Act::Pause { vm: name() });
    say(&mut r, "start", 1, start());
    say(&mut r, "start again", 1, start());
    say(&mut r, "pause", 1, Act::Pause { vm: name() });
    say(&mut r, "unpause", 1, Act::Unpause { vm: name() });
    say(&mut r, "console", 1, Act::Console { vm: name(), bytes_max: 100 });
    r.world.set_stubborn(&vm(), true);
    say(&mut r, "shutdown, stubborn", 1, Act::Shutdown { vm: name(), timeout_ms: 5_000 });
    r.world.set_stubborn(&vm(), false);
    say(&mut r, "shutdown", 1, Act::Shutdown { vm: name(), timeout_ms: 5_000 });
    say(&mut r, "shutdown again", 1, Act::Shutdown { vm: name(), timeout_ms: 5_000 });
    say(&mut r, "start", 3, start());
    say(&mut r, "pause, old epoch", 2, Act::Pause { vm: name() });
    say(&mut r, "destroy", 3, Act::Destroy { vm: name() });
    r.world.cut(&disk(), &host("a"));
    say(&mut r, "start, disk refused", 3, start());
    r.world.grant(&disk(), &host("a"), "a1");
    let mut big = spec();
    big.memory_mib = 8192;
    say(&mut r, "start, too big", 3, Act::Start { vm: big, disks: vec![access("a1")] });
    expect![[r#"
        pause nothing: NoDomain: web: no such domain on a; a:
        start: Ok; a: Resident Running epoch Some(1) memory 1, writes
        start again: Ok; a: Resident Running epoch Some(1) memory 1, writes
        pause: Ok; a: Resident Paused epoch Some(1) memory 1
        unpause: Ok; a: Resident Running epoch Some(1) memory 1, writes
        console: Console { text: "web domid 1\n" }; a: Resident Running epoch Some(1) memory 1, writes
        shutdown, stubborn: Timeout: shutting web down: it has not, and nothing was forced; a: Resident Running epoch Some(1) memory 1, writes
        shutdown: Ok; a:
        shutdown again: Ok; a:
        start: Ok; a: Resident Running epoch Some(3) memory 2, writes
        pause, old epoch: StaleEpoch: web: ordered under epoch 2, but epoch 3 is known here; a: Resident Running epoch Some(3) memory 2, writes
        destroy: Ok; a:
        start, disk refused: Disk: web-0: a may not log in as a1; a:
        start, too big: NoMemory: web: needs 8192 MiB, 4096 MiB are free on a; a:
    "#]]
    .assert_eq(&log);
}

#[test]
fn a_guest_that_reboots_is_made_anew() {
    let mut r = Rack::new();
    assert_eq!(r.done("a", 1, start()), "Ok");
    r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
    assert!(r.run(10_000, |r| r.world.domains(&host("a")).iter().any(|d| d.lineage == 2)));
    r.world.guest_ends(&host("a"), &vm(), DomainState::Crashed, false);
    r.run(10_000, |_| false);
    assert!(state_is(&r, DomainState::Crashed), "the server decides on a crash");
}

/// One that does nothing else holds up what else is to be made, and nobody sees it: the server has it wait, longer each time.
#[test]
fn a_guest_that_reboots_in_a_circle_is_told_of() {
    for (life_ms, lives, ends) in [(5_000, 4, true), (5_000, 3, false), (70_000, 20, false)] {
        let mut r = Rack::new();
        assert_eq!(r.done("a", 1, start()), "Ok");
        for _ in 0..lives {
            assert!(r.run(20_000, |r| !r.world.running(&vm()).is_empty()), "{life_ms}: {}", r.show());
            r.run(life_ms, |_| false);
            r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
        }
        r.run(10_000, |_| false);
        let shown = &r.hosts[&host("a")].report.as_ref().expect("it reports").domains;
        assert_eq!((shown[0].state == DomainState::Crashed, shown[0].reboots), (ends, ends), "{life_ms}");
        assert_eq!(r.world.running(&vm()).is_empty(), ends, "{life_ms}");
        // Without the server it goes on all the same, once a minute.
        assert!(r.run(70_000, |r| !r.world.running(&vm()).is_empty()), "{life_ms}: {}", r.show());
        assert_eq!(r.done("a", 2, start()), "Ok", "and begins a new row when it was started anew");
        r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
        assert!(r.run(10_000, |r| !r.world.running(&vm()).is_empty()), "{life_ms}: {}", r.show());
    }
}

/// However long that takes, it is here; and who is to be destroyed meanwhile is not made.
#[test]
fn a_guest_that_is_made_anew_is_reported_until_it_runs() {
    let mut r = Rack::at(Costs { create_ms: 100_000, ..Costs::default() });
    let id = r.order("a", 1, start());
    assert!(r.run(200_000, |r| r.outcome("a", id).is_some()));
    let shown = |r: &Rack| {
        let report = r.hosts[&host("a")].report.as_ref().expect("it reports");
        report.domains.iter().map(|d| (d.state, d.epoch, d.memory_mib)).collect::<Vec<_>>()
    };
    r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
    r.run(50_000, |_| false);
    assert!(r.world.domains(&host("a")).is_empty());
    assert_eq!(shown(&r), [(DomainState::Dying, Some(Epoch(1)), 1024)]);
    assert!(r.run(200_000, |r| !r.world.running(&vm()).is_empty()));
    r.run(5_000, |_| false);
    assert_eq!(shown(&r), [(DomainState::Running, Some(Epoch(1)), 1024)]);
    r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
    // The order comes before the domain is made, which would take longer than is waited for.
    assert!(r.run(10_000, |r| !r.hosts[&host("a")].agent.works.is_empty()));
    assert_eq!(r.done("a", 1, Act::Destroy { vm: vm() }), "Ok");
    assert!(r.world.domains(&host("a")).is_empty());
}

/// What it needs is fetched before what is left of it goes, so that it can be tried again with nobody's help.
#[test]
fn a_guest_that_cannot_be_made_anew_stays_and_is_tried_again() {
    let mut r = Rack::new();
    assert_eq!(r.done("a", 1, start()), "Ok");
    let user = r.world.granted(&disk())[&host("a")].clone();
    r.world.cut(&disk(), &host("a"));
    r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
    r.run(30_000, |_| false);
    assert_eq!(r.world.domains(&host("a")).len(), 1);
    let report = r.hosts[&host("a")].report.as_ref().expect("it reports");
    assert_eq!(report.domains[0].state, DomainState::Crashed, "the server may have it made elsewhere");
    assert!(report.seq < 40, "reports and tries in a circle: {}", report.seq);
    r.world.grant(&disk(), &host("a"), &user);
    assert!(r.run(60_000, |r| !r.world.running(&vm()).is_empty()), "{}", r.show());
    r.run(5_000, |_| false);
    assert!(state_is(&r, DomainState::Running));
}

/// What it has under way may wait for a session that is dead: the next destruction lets go of the disks first.
#[test]
fn a_guest_that_is_too_long_in_going_is_destroyed_without_its_disks() {
    let mut r = Rack::new();
    let destroy = || Act::Destroy { vm: vm() };
    assert_eq!(r.done("a", 1, start()), "Ok");
    r.world.set_stuck(&vm(), true);
    assert_eq!(r.done("a", 1, destroy()), "Timeout: destroying web: still there");
    assert_eq!(r.done("a", 1, destroy()), "Ok");
    assert!(r.world.domains(&host("a")).is_empty());
    // The same when it was to be made anew: that is tried again, and again, and the server is told.
    assert_eq!(r.done("a", 1, start()), "Ok");
    r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
    r.run(30_000, |_| false);
    let report = r.hosts[&host("a")].report.as_ref().expect("it reports");
    assert_eq!(report.domains[0].state, DomainState::Crashed);
    r.world.set_stuck(&vm(), false);
    assert!(r.run(10_000, |r| !r.world.running(&vm()).is_empty()), "{}", r.show());
    r.world.set_stuck(&vm(), true);
    r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
    let tried = |r: &Rack| r.hosts[&host("a")].agent.unmade.contains_key(&vm());
    assert!(r.run(10_000, tried));
    assert_eq!(r.done("a", 1, destroy()), "Ok");
    assert!(r.world.domains(&host("a")).is_empty());
}

/// On a SAN nothing else ends what was ordered before a lapse.
#[test]
fn an_order_that_waited_through_a_lapse_is_said_again_or_void() {
    let runs = |r: &Rack| !r.world.running(&vm()).is_empty();
    for (cuttable, goes_on) in [(true, true), (false, false)] {
        let mut r = Rack::new();
        let lapsed =
            |until_ms| KeptLease { heartbeat: Heartbeat { cuttable, ..lease().heartbeat }, until_ms, terms: 0 };
        r.restart_agent_with("a", lapsed(1));
        r.run(100, |_| false);
        r.order("a", 1, start());
        assert!(!r.run(10_000, runs), "not without a lease");
        r.feed(&host("a"), AgentEvent::Renewed { user: "beat".into(), begun_ms: 200_000 });
        assert_eq!(r.run(60_000, runs), goes_on, "{cuttable}");
    }
}

/// What runs under an earlier epoch has lost its disks to whoever ordered the start.
#[test]
fn a_start_clears_away_what_runs_under_another_epoch() {
    let mut r = Rack::new();
    assert_eq!(r.done("a", 1, start()), "Ok");
    assert_eq!(r.done("a", 2, start()), "Ok");
    assert!(r.world.domains(&host("a")).iter().all(|d| d.lineage == 2), "{}", r.show());
}

#[test]
fn outcomes_go_as_many_as_the_server_takes() {
    let mut r = Rack::new();
    assert_eq!(r.done("a", 1, start()), "Ok");
    let text = "\u{1}".repeat(64 << 10);
    let agent = &mut r.hosts.get_mut(&host("a")).expect("there").agent;
    let ids = (100..108).map(OrderId);
    ids.clone().for_each(|id| agent.outcome(id, Ok(proto::agent::Done::Console { text: text.clone() })));
    let mut seen = Vec::new();
    for _ in 0..8 {
        r.run(3_000, |_| false);
        let report = r.hosts[&host("a")].report.clone().expect("it reports");
        assert!(serde_json::to_vec(&report).expect("plain data").len() < 1 << 20);
        let ended: Vec<OrderId> = report.outcomes.iter().map(|outcome| outcome.id).collect();
        seen.extend(ended.iter().copied().filter(|id| id.0 >= 100));
        let answer = ReportAnswer { seen: ended, report_ms: 2_000, ..ReportAnswer::default() };
        r.feed(&host("a"), AgentEvent::Answer(answer));
    }
    assert_eq!(seen, ids.collect::<Vec<_>>(), "each goes once");
}

#[test]
fn an_abort_ends_a_stream_under_way() {
    let mut r = Rack::new();
    let sent = r.moving();
    assert!(r.run(60_000, copying));
    assert_eq!(r.done("a", 1, Act::AbortSend { r#move: MoveId(9), vm: vm() }), "Ok");
    assert!(r.outcome("a", sent).is_some_and(|o| o.result.is_err()));
    assert_eq!(r.done("b", 1, Act::AbortReceive { r#move: MoveId(9), vm: vm() }), "Ok");
    assert_eq!(r.world.running(&vm()), vec![host("a")]);
    assert!(r.world.domains(&host("b")).is_empty());
}

/// Its move was called off while this host heard nothing: the next order here tells, long before its permit ends.
#[test]
fn a_reception_that_only_listens_gives_way_to_a_later_order() {
    let other: VmId = "db".parse().expect("a test's name is good");
    let listens = |r: &Rack| r.hosts[&host("b")].agent.works.contains_key(&vm());
    let again = Permit { r#move: MoveId(10), ..permit() };
    let elsewhere = Permit { vm: other.clone(), ..again.clone() };
    for (act, stays) in [
        (start(), false),
        (Act::Receive { permit: again, vm: spec(), disks: vec![access("b2")] }, true),
        (Act::Receive { permit: elsewhere, vm: VmSpec { name: other, disks: vec![], ..spec() }, disks: vec![] }, false),
    ] {
        let act = if let Act::Start { vm, .. } = act { Act::Start { vm, disks: vec![access("b2")] } } else { act };
        let mut r = Rack::new();
        assert_eq!(r.done("b", 1, receive()), "Ok");
        assert!(!r.run(5_000, |r| !listens(r)), "it awaits the stream");
        assert_eq!(r.done("b", 1, act.clone()), "Ok", "{act:?}");
        r.run(5_000, |_| false);
        assert_eq!(listens(&r), stays, "{act:?}");
        // What streams already is left alone.
        let mut r = Rack::new();
        r.moving();
        assert!(r.run(60_000, copying));
        r.order("b", 1, act.clone());
        assert!(r.run(60_000, Rack::received), "{act:?}");
    }
}

/// What is ordered once more, late, of a move that is over does nothing to the next one.
#[test]
fn the_end_of_an_earlier_move_does_nothing_to_a_later_one() {
    let early = MoveId(8);
    let runs = |r: &Rack| !r.world.running(&vm()).is_empty();
    for restarted in [false, true] {
        let mut r = Rack::new();
        let sent = r.moving();
        assert!(r.run(60_000, copying));
        // It waits for the stream, and does not end it.
        assert_eq!(r.done("b", 1, Act::AbortReceive { r#move: early, vm: vm() }), "Ok");
        assert!(r.run(60_000, |r| r.received() && r.outcome("a", sent).is_some()));
        if restarted {
            r.restart_agent("a");
            r.restart_agent("b");
        }
        assert_eq!(r.done("a", 1, Act::AbortSend { r#move: early, vm: vm() }), "Ok");
        assert_eq!(r.done("a", 1, Act::Release { r#move: early, vm: vm() }), "Ok");
        assert_eq!(r.done("b", 1, Act::AbortReceive { r#move: early, vm: vm() }), "Ok");
        assert_eq!(r.done("a", 1, start()), "Ok");
        assert!(!runs(&r) && state_is(&r, DomainState::Suspended), "{}", r.show());
        assert!(r.done("b", 2, Act::Activate { r#move: MoveId(9), vm: vm() }).starts_with("Activated"));
        assert_eq!(r.done("a", 2, Act::Release { r#move: MoveId(9), vm: vm() }), "Ok");
        assert_eq!(r.done("b", 2, Act::Release { r#move: early, vm: vm() }), "Ok");
        assert_eq!(r.world.running(&vm()), vec![host("b")]);
    }
}

/// Ordered before the guest was made, and heard by the next process of the agent only.
#[test]
fn a_late_destruction_spares_a_guest_that_was_made_since() {
    let mut r = Rack::new();
    let order = Order { id: OrderId(1), epoch: Epoch(1), act: Act::Destroy { vm: vm() } };
    assert_eq!(r.done("a", 1, Act::Destroy { vm: vm() }), "Ok");
    assert_eq!(r.done("a", 1, start()), "Ok");
    r.restart_agent("a");
    let answer = ReportAnswer {
        seen: vec![],
        orders: vec![order],
        report_ms: 2_000,
        heartbeat: None,
        ..ReportAnswer::default()
    };
    r.feed(&host("a"), AgentEvent::Answer(answer));
    assert!(!r.run(10_000, |r| r.world.running(&vm()).is_empty()));
    assert_eq!(r.done("a", 1, Act::Destroy { vm: vm() }), "Ok");
    assert!(r.world.domains(&host("a")).is_empty());
}

/// A creation that outlives the lease: the guest runs under that one only, were it twice as long away.
#[test]
fn a_guest_that_is_made_when_the_lease_has_lapsed_runs_under_that_lease_only() {
    let runs = |r: &Rack| !r.world.running(&vm()).is_empty();
    let lease = |user: &str, cuttable, until_ms| KeptLease {
        heartbeat: Heartbeat { access: access(user), cuttable, ..lease().heartbeat },
        until_ms,
        terms: 0,
    };
    // The lease lapses at 20 s, the guest is made at 30 s, and a lease is there again before or after that; or the agent is restarted.
    for (back_ms, user, cuttable, restarts, goes_on) in [
        (25_000, "beat", true, false, true),
        (40_000, "beat", true, false, true),
        (40_000, "beat", true, true, true),
        (25_000, "other", true, false, false),
        (40_000, "other", true, false, false),
        (40_000, "other", true, true, false),
        // On a SAN a lapse ends what was before it.
        (25_000, "beat", false, false, false),
        (40_000, "beat", false, false, false),
        (40_000, "beat", false, true, false),
    ] {
        let mut r = Rack::at(Costs { create_ms: 30_000, ..Costs::default() });
        r.restart_agent_with("a", lease("beat", cuttable, 20_000));
        r.order("a", 1, start());
        assert!(!r.run(back_ms, runs), "{back_ms} {user}: {}", r.show());
        if restarts {
            r.restart_agent_with("a", lease("beat", cuttable, 20_000));
        }
        let heartbeat = Some(lease(user, cuttable, 0).heartbeat);
        let answer =
            ReportAnswer { seen: vec![], orders: vec![], report_ms: 2_000, heartbeat, ..ReportAnswer::default() };
        r.feed(&host("a"), AgentEvent::Answer(answer));
        r.feed(&host("a"), AgentEvent::Renewed { user: user.into(), begun_ms: 200_000 });
        assert_eq!(r.run(40_000, runs), goes_on, "{back_ms} {user} {restarts}: {}", r.show());
        assert!(!goes_on || r.hosts[&host("a")].notes[&vm()].guest.as_ref().is_some_and(|g| g.held.is_none()));
        // The server, who knows whose it is, may say so.
        if !goes_on {
            assert_eq!(r.done("a", 1, Act::Unpause { vm: vm() }), "Ok");
            assert!(runs(&r));
        }
    }
}

/// The guest stands still at its source and the stream breaks: by then it may run elsewhere.
#[test]
fn a_broken_stream_resumes_nothing_without_a_lease_or_before_an_ordered_end() {
    let runs = |r: &Rack| !r.world.running(&vm()).is_empty();
    let lapses = |r: &mut Rack| {
        let until_ms = r.now_ms - 1;
        r.restart_lease("a", KeptLease { until_ms, ..lease() });
    };
    let ends = |r: &mut Rack| {
        r.order("a", 2, Act::Destroy { vm: vm() });
    };
    for before in [&lapses as &dyn Fn(&mut Rack), &ends] {
        let mut r = Rack::new();
        r.moving();
        assert!(r.run(60_000, stopped));
        before(&mut r);
        r.world.set_link(&host("a"), &host("b"), false);
        assert!(!r.run(30_000, runs), "{}", r.show());
    }
}

/// A resumption that outlives the lease, after a stream that broke or by order: the guest runs under that lease only.
#[test]
fn a_guest_that_is_resumed_when_the_lease_has_lapsed_runs_under_that_lease_only() {
    let runs = |r: &Rack| !r.world.running(&vm()).is_empty();
    for ordered in [false, true] {
        for (user, goes_on) in [("beat", true), ("other", false)] {
            let mut r = Rack::at(Costs { resume_ms: 30_000, ..Costs::default() });
            r.moving();
            assert!(r.run(60_000, stopped));
            let until_ms = r.now_ms + 15_000;
            r.restart_lease("a", KeptLease { until_ms, ..lease() });
            if ordered {
                r.order("a", 1, Act::AbortSend { r#move: MoveId(9), vm: vm() });
            } else {
                r.world.set_link(&host("a"), &host("b"), false);
            }
            assert!(!r.run(60_000, runs), "{ordered} {user}: {}", r.show());
            assert!(state_is(&r, DomainState::Paused), "it was resumed, and stands still: {}", r.show());
            let heartbeat = Some(Heartbeat { access: access(user), ..lease().heartbeat });
            let answer =
                ReportAnswer { seen: vec![], orders: vec![], report_ms: 2_000, heartbeat, ..ReportAnswer::default() };
            r.feed(&host("a"), AgentEvent::Answer(answer));
            r.feed(&host("a"), AgentEvent::Renewed { user: user.into(), begun_ms: 900_000 });
            assert_eq!(r.run(40_000, runs), goes_on, "{ordered} {user}: {}", r.show());
        }
    }
}

/// An order that waited while the host was fenced is of no use when it has a lease again, unless it is said again.
#[test]
fn what_waited_for_a_lease_is_void_under_another() {
    for (user, begins) in [("beat", true), ("other", false)] {
        let mut r = Rack::new();
        assert_eq!(r.done("a", 1, start()), "Ok");
        assert_eq!(r.done("a", 1, Act::Pause { vm: vm() }), "Ok");
        let until_ms = r.now_ms - 1;
        r.restart_lease("a", KeptLease { until_ms, ..lease() });
        let order = r.order("a", 1, Act::Unpause { vm: vm() });
        r.run(5_000, |_| false);
        let heartbeat = Some(Heartbeat { access: access(user), ..lease().heartbeat });
        let answer =
            ReportAnswer { seen: vec![], orders: vec![], report_ms: 2_000, heartbeat, ..ReportAnswer::default() };
        r.feed(&host("a"), AgentEvent::Answer(answer));
        r.feed(&host("a"), AgentEvent::Renewed { user: user.into(), begun_ms: 900_000 });
        assert_eq!(r.run(20_000, |r| r.outcome("a", order).is_some()), begins, "{}", r.show());
        assert_eq!(!r.world.running(&vm()).is_empty(), begins);
    }
}

#[test]
fn a_machine_is_started_anew_only_when_it_is_empty_and_meant() {
    let mut r = Rack::new();
    let reboot = |boot: &str| Act::Reboot { boot: boot.to_owned() };
    let reboots = |r: &Rack| r.hosts[&host("a")].reboots;
    assert_eq!(r.done("a", 1, start()), "Ok");
    assert_eq!(r.done("a", 0, reboot("boot")), "Tool: starting anew: web is here, of 1 domains");
    assert_eq!(r.done("a", 1, Act::Destroy { vm: vm() }), "Ok");
    assert_eq!(r.done("a", 0, reboot("older")), "Tool: starting anew: the order is for another boot of this host");
    // What is being begun is no time for it either.
    r.order("a", 2, start());
    let said = r.done("a", 0, reboot("boot"));
    assert!(said == "Tool: starting anew: 1 orders are under way" || said.contains("web is here"), "{said}");
    assert_eq!(reboots(&r), 0);
    r.run(60_000, |r| r.hosts[&host("a")].report.as_ref().is_some_and(|report| !report.domains.is_empty()));
    assert_eq!(r.done("a", 2, Act::Destroy { vm: vm() }), "Ok");
    // The same order twice is done once.
    assert_eq!(r.done("a", 0, reboot("boot")), "Ok");
    assert_eq!(reboots(&r), 1);
}

/// A server that was restored from a backup is heard from its first answer on, and its predecessor no more.
#[test]
fn the_highest_term_rules_and_is_told_what_is_here() {
    let mut r = Rack::new();
    let sent = r.moving();
    assert!(r.run(60_000, copying));
    let waits = r.order("a", 1, Act::Shutdown { vm: vm(), timeout_ms: 1_000 });
    for on in ["a", "b"] {
        let answer = ReportAnswer { report_ms: 2_000, term: Term(7), survey: true, ..ReportAnswer::default() };
        r.feed(&host(on), AgentEvent::Answer(answer));
    }
    let told = |r: &Rack, on: &str| r.hosts[&host(on)].report.as_ref().and_then(|report| report.survey.clone());
    assert!(r.run(60_000, |r| told(r, "a").is_some() && told(r, "b").is_some()));
    assert!(r.outcome("a", sent).is_some_and(|o| o.result.is_err()), "the stream was ended");
    assert_eq!(r.outcome("a", waits), None, "what had not begun is given up");
    assert_eq!(r.world.running(&vm()), vec![host("a")]);
    let guests = told(&r, "a").expect("told").guests;
    assert_eq!(guests.iter().map(|g| (&g.spec.name, g.received)).collect::<Vec<_>>(), [(&vm(), false)]);
    // The old server's order counts for nothing; that of the new one does.
    let destroy = |id, term| ReportAnswer {
        orders: vec![Order { id: OrderId(id), epoch: Epoch(1), act: Act::Destroy { vm: vm() } }],
        report_ms: 2_000,
        term: Term(term),
        ..ReportAnswer::default()
    };
    r.feed(&host("a"), AgentEvent::Answer(destroy(900, 6)));
    assert!(!r.run(10_000, |r| r.world.running(&vm()).is_empty()));
    r.feed(&host("a"), AgentEvent::Answer(destroy(901, 7)));
    assert!(r.run(10_000, |r| r.world.running(&vm()).is_empty()));
}

/// Its guest had shut itself down in order to start again when the lease lapsed; the host was fenced, and the VM runs elsewhere.
#[test]
fn a_guest_that_wanted_to_start_again_before_a_fence_is_not_made_anew_after_it() {
    let mut r = Rack::new();
    let diskless = || VmSpec { disks: vec![], ..spec() };
    assert_eq!(r.done("a", 1, Act::Start { vm: diskless(), disks: vec![] }), "Ok");
    let until_ms = r.now_ms - 1;
    r.restart_lease("a", KeptLease { until_ms, ..lease() });
    r.world.guest_ends(&host("a"), &vm(), DomainState::Shutdown, true);
    r.run(50_000, |_| false);
    assert_eq!(r.done("b", 2, Act::Start { vm: diskless(), disks: vec![] }), "Ok");
    // It is given another account, and logs in with it: seconds.
    let heartbeat = Some(Heartbeat { access: access("other"), ..lease().heartbeat });
    r.feed(&host("a"), AgentEvent::Answer(ReportAnswer { report_ms: 2_000, heartbeat, ..ReportAnswer::default() }));
    r.run(3_000, |_| false);
    r.feed(&host("a"), AgentEvent::Renewed { user: "other".into(), begun_ms: 900_000 });
    r.run(30_000, |_| false);
    assert_eq!(r.world.running(&vm()), vec![host("b")]);
}
