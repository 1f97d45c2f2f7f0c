//! What an operator asks of VMs, and what happens to them unasked.

mod crash;

use crate::effect::{Answer, Effect, Reply, StorageOp};
use crate::event::{Command, Event};
use crate::testing::{Bench, acts, alive, answer_to, domain, mac, policy};
use expect_test::{Expect, expect};
use proto::agent::{DomainState, DomainSurvey, Done, Order, OrderOutcome, Part, Report};
use proto::api::{CreateDisk, CreateVm, GrowDisk, Refusal};
use proto::view::VmPhase;
use proto::{HostId, Mac, OrderId, VmId};

fn vm(name: &str) -> VmId {
    name.parse().expect("a name")
}

fn create(name: &str) -> CreateVm {
    CreateVm::new(vm(name), "tiny")
}

/// One host, the domains it shows, and the storage that does what it is told.
struct One {
    bench: Bench,
    boot: String,
    seq: u64,
}

impl One {
    fn new() -> Self {
        let mut bench = Bench::new(policy());
        let boot = bench.boot(mac(1), "k", 1);
        let mut one = Self { bench, boot, seq: 0 };
        one.report(vec![], vec![]);
        one
    }

    fn report(&mut self, domains: Vec<DomainSurvey>, outcomes: Vec<OrderId>) -> Vec<Effect> {
        self.seq += 1;
        self.bench.after(1500);
        let outcomes = outcomes.into_iter().map(|id| OrderOutcome { id, result: Ok(Done::Ok) }).collect();
        let report = Report { domains, outcomes, ..alive(&self.boot, self.seq) };
        let effects = self.bench.report(mac(1), "k", report).1;
        self.storage(effects)
    }

    /// Does storage jobs until there are none; all effects.
    fn storage(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut next = effects;
        while !next.is_empty() {
            let jobs: Vec<u64> = next
                .iter()
                .filter_map(|e| if let Effect::Storage { job, .. } = e { Some(*job) } else { None })
                .collect();
            all.append(&mut next);
            for job in jobs {
                next.extend(self.bench.apply(Event::StorageDone { job, result: Ok(()) }));
            }
        }
        all
    }

    fn command(&mut self, command: Command) -> Result<Vec<Effect>, Refusal> {
        let (asked, effects) = self.bench.ask(|reply| Event::Operator { reply, command });
        let refused = effects.iter().find_map(|effect| match effect {
            Effect::Answer { to, answer: Answer::Operator(Err(refusal)) } if *to == asked => Some(refusal.clone()),
            _ => None,
        });
        match refused {
            Some(refusal) => Err(refusal),
            None => Ok(self.storage(effects)),
        }
    }

    fn phase(&self, name: &str) -> Option<VmPhase> {
        self.bench.rack.view(self.bench.now).vms.iter().find(|v| v.spec.name == vm(name)).map(|v| v.phase)
    }

    /// A VM that runs; the survey that shows it.
    fn running(&mut self, name: &str) -> DomainSurvey {
        let effects = self.command(Command::CreateVm(CreateVm { start: true, ..create(name) })).expect("made");
        let start = order(&effects).expect("the start is told at once");
        let epoch = start.epoch.0;
        let shown = domain(name, epoch, DomainState::Running, Part::Resident);
        self.report(vec![shown.clone()], vec![start.id]);
        assert_eq!(self.phase(name), Some(VmPhase::Running));
        shown
    }
}

fn order(effects: &[Effect]) -> Option<Order> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Answer { answer: Answer::Report(Ok(answer)), .. } => answer.orders.last().cloned(),
        _ => None,
    })
}

#[test]
fn from_making_to_deleting() {
    let mut one = One::new();
    let check = |effects: &[Effect], expect: Expect| expect.assert_eq(&acts(effects));
    let effects = one.command(Command::CreateVm(create("a"))).expect("made");
    check(
        &effects,
        expect![[r#"
        storage: Create { disk: DiskId("a-0"), size_mib: 64 }
    "#]],
    );
    assert_eq!(one.phase("a"), Some(VmPhase::Stopped));
    let effects = one.command(Command::StartVm { vm: vm("a") }).expect("it is stopped");
    check(
        &effects,
        expect![[r#"
            storage: Grant a-0 to h525400aabb01 as h525400aabb01-a-0-1-1
            order under epoch 1: Start
        "#]],
    );
    let start = order(&effects).expect("told");
    let shown = domain("a", 1, DomainState::Running, Part::Resident);
    one.report(vec![shown.clone()], vec![start.id]);
    let effects = one.command(Command::PauseVm { vm: vm("a") }).expect("it runs");
    check(
        &effects,
        expect![[r#"
        order under epoch 1: Pause
    "#]],
    );
    one.report(vec![shown.clone()], vec![order(&effects).expect("told").id]);
    assert_eq!(one.phase("a"), Some(VmPhase::Paused));
    let effects = one.command(Command::ResumeVm { vm: vm("a") }).expect("it is paused");
    one.report(vec![shown.clone()], vec![order(&effects).expect("told").id]);
    let effects = one.command(Command::ShutdownVm { vm: vm("a") }).expect("it runs");
    check(
        &effects,
        expect![[r#"
        order under epoch 1: Shutdown
    "#]],
    );
    // Said to be done, but still shown: it is seen to.
    let effects = one.report(vec![shown], vec![order(&effects).expect("told").id]);
    assert_eq!(one.phase("a"), Some(VmPhase::Stopping));
    check(
        &effects,
        expect![[r#"
        order under epoch 1: Destroy
    "#]],
    );
    let effects = one.report(vec![], vec![order(&effects).expect("told").id]);
    check(
        &effects,
        expect![[r#"
        storage: Cut a-0 from h525400aabb01
    "#]],
    );
    assert_eq!(one.phase("a"), Some(VmPhase::Stopped));
    let effects = one.command(Command::DeleteVm { vm: vm("a") }).expect("it is stopped");
    check(
        &effects,
        expect![[r#"
        storage: Delete { disk: DiskId("a-0") }
    "#]],
    );
    let view = one.bench.rack.view(one.bench.now);
    assert!(view.vms.is_empty() && view.disks.is_empty());
    // A name used again goes on from there: hosts remember epochs, and no CHAP user comes twice.
    let effects = one.command(Command::CreateVm(CreateVm { start: true, ..create("a") })).expect("made");
    check(
        &effects,
        expect![[r#"
            storage: Create { disk: DiskId("a-0"), size_mib: 64 }
            storage: Grant a-0 to h525400aabb01 as h525400aabb01-a-0-2-2
            order under epoch 2: Start
        "#]],
    );
}

#[test]
fn a_shutdown_that_fails_leaves_it_running() {
    let mut one = One::new();
    let shown = one.running("a");
    let effects = one.command(Command::ShutdownVm { vm: vm("a") }).expect("it runs");
    let id = order(&effects).expect("told").id;
    one.seq += 1;
    let failure = proto::agent::Failure { kind: proto::agent::FailureKind::Timeout, detail: "still there".to_owned() };
    let report = Report {
        domains: vec![shown],
        outcomes: vec![OrderOutcome { id, result: Err(failure) }],
        ..alive(&one.boot, one.seq)
    };
    one.bench.report(mac(1), "k", report);
    let view = one.bench.rack.view(one.bench.now);
    assert_eq!((view.vms[0].phase, view.vms[0].note.as_str()), (VmPhase::Running, "still there"));
}

#[test]
fn what_ends_unasked() {
    // Crashed: taken away and started again, under a higher epoch, after a while.
    let mut one = One::new();
    let mut shown = one.running("a");
    shown.state = DomainState::Crashed;
    let effects = one.report(vec![shown.clone()], vec![]);
    let destroy = order(&effects).expect("told");
    one.report(vec![], vec![destroy.id]);
    assert_eq!(one.phase("a"), Some(VmPhase::Stopped));
    one.bench.after(6000);
    let tick = one.bench.apply(Event::Tick);
    one.storage(tick);
    assert_eq!(one.phase("a"), Some(VmPhase::Starting));
    let start = order(&one.report(vec![], vec![])).expect("told");
    assert_eq!(start.epoch.0, 2);

    // Shut down by itself: stays so, also if its host fails next. One that starts itself anew is said to be dying meanwhile.
    let mut one = One::new();
    let mut shown = one.running("a");
    shown.state = DomainState::Dying;
    for _ in 0..20 {
        assert!(order(&one.report(vec![shown.clone()], vec![])).is_none());
    }
    shown.state = DomainState::Shutdown;
    assert!(order(&one.report(vec![shown.clone()], vec![])).is_none(), "once is not enough");
    let destroy = order(&one.report(vec![shown.clone()], vec![])).expect("it has ended");
    assert!(!one.bench.rack.view(one.bench.now).vms[0].run);
    one.report(vec![], vec![destroy.id]);
    one.bench.after(600_000);
    one.bench.apply(Event::Tick);
    assert_eq!(one.phase("a"), Some(VmPhase::Stopped));
}

#[test]
fn domains_that_should_not_be_there() {
    let mut one = One::new();
    let shown = one.running("a");
    let check = |one: &mut One, stray: DomainSurvey, expect: Expect| {
        let effects = one.report(vec![shown.clone(), stray], vec![]);
        expect.assert_eq(&acts(&effects));
    };
    check(&mut one, domain("unknown", 1, DomainState::Running, Part::Resident), expect![[""]]);
    one.command(Command::CreateVm(create("b"))).expect("made");
    check(&mut one, domain("b", 0, DomainState::Running, Part::Resident), expect![[""]]);
    check(
        &mut one,
        domain("b", 0, DomainState::Paused, Part::Incoming),
        expect![[r#"
        order under epoch 0: Destroy
    "#]],
    );
}

#[test]
fn refusals() {
    let mut one = One::new();
    one.running("a");
    let mut check = |command: Command, expect: Expect| {
        let answer = one.command(command).map(|_| ());
        expect.assert_eq(&answer.err().map_or("done".to_owned(), |refusal| refusal.to_string()));
    };
    check(Command::StartVm { vm: vm("b") }, expect!["there is no VM b"]);
    check(Command::StartVm { vm: vm("a") }, expect!["VM a is running, so this cannot be done"]);
    check(Command::ResumeVm { vm: vm("a") }, expect!["VM a is running, so this cannot be done"]);
    check(Command::DeleteVm { vm: vm("a") }, expect!["VM a is running, so this cannot be done"]);
    check(Command::CreateVm(create("a")), expect!["the name a is taken"]);
    check(
        Command::CreateVm(CreateVm { template: "x".to_owned(), ..create("b") }),
        expect![[r#"there is no template "x"; known: tiny"#]],
    );
    check(
        Command::CreateVm(CreateVm { memory_mib: Some(1), ..create("b") }),
        expect![[r#"memory_mib is "1", expected 16 to 16777216"#]],
    );
    check(
        Command::CreateVm(CreateVm { vcpus: Some(65), ..create("b") }),
        expect![[r#"vcpus is "65", expected 1 to 64"#]],
    );
    check(
        Command::CreateVm(CreateVm { mac: Some(mac(1)), ..create("b") }),
        expect!["the address 52:54:00:aa:bb:01 is taken"],
    );
    check(
        Command::CreateVm(CreateVm { mac: Some(Mac([1, 0, 0, 0, 0, 0])), ..create("b") }),
        expect!["the address 01:00:00:00:00:00 is taken"],
    );
    check(
        Command::CreateVm(CreateVm { cmdline: "a\nb".to_owned(), ..create("b") }),
        expect![[r#"cmdline is "a\nb", expected printable ASCII, 2048 bytes or fewer"#]],
    );
    check(
        Command::CreateVm(create(&"x".repeat(62))),
        expect![[
            r#"name is "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", expected 61 characters or fewer for a VM with a disk"#
        ]],
    );
    check(Command::CreateVm(CreateVm { memory_mib: Some(9000), ..create("big") }), expect!["done"]);
    check(
        Command::StartVm { vm: vm("big") },
        expect!["no host can take big; h525400aabb01: has 4096 MiB free of the 9099 MiB needed"],
    );
    check(Command::DeleteDisk { disk: "a-0".parse().expect("a name") }, expect!["disk a-0 belongs to VM a"]);
    check(
        Command::GrowDisk { disk: "a-0".parse().expect("a name"), request: GrowDisk { size_mib: 65 } },
        expect!["VM a is running, so this cannot be done"],
    );
    check(
        Command::GrowDisk { disk: "big-0".parse().expect("a name"), request: GrowDisk { size_mib: 64 } },
        expect![[r#"size_mib is "64", expected more than 64"#]],
    );
    check(
        Command::GrowDisk { disk: "big-0".parse().expect("a name"), request: GrowDisk { size_mib: 65 } },
        expect!["done"],
    );
    let disk = |name: &str, from: Option<&str>| {
        let name = name.parse().expect("a name");
        Command::CreateDisk(CreateDisk { name, size_mib: 70, from: from.map(str::to_owned) })
    };
    check(disk("a-0", None), expect!["the name a-0 is taken"]);
    check(disk("d", Some("a-0")), expect!["disk a-0 belongs to VM a"]);
    check(disk("d", Some("big-0")), expect!["done"]);
    check(disk("e", Some("../x")), expect![[r#"from is "../x", expected a template with a disk image, or a disk"#]]);
    check(Command::DeleteDisk { disk: "d".parse().expect("a name") }, expect!["done"]);
    check(Command::RemoveHost { host: HostId::of(mac(1)) }, expect!["host h525400aabb01 still has 1 VMs"]);
}

#[test]
fn a_console_is_awaited_and_given_up() {
    let mut one = One::new();
    let shown = one.running("a");
    let ask =
        |one: &mut One| one.bench.ask(|reply| Event::Operator { reply, command: Command::Console { vm: vm("a") } });
    let (asked, effects) = ask(&mut one);
    let id = order(&effects).expect("told at once").id;
    assert!(answer_to(asked, effects).is_none());
    one.seq += 1;
    let outcomes = vec![OrderOutcome { id, result: Ok(Done::Console { text: "login:".to_owned() }) }];
    let report = Report { domains: vec![shown], outcomes, ..alive(&one.boot, one.seq) };
    let effects = one.bench.after(100).report(mac(1), "k", report).1;
    assert!(matches!(
        answer_to(asked, effects),
        Some(Answer::Operator(Ok(Reply::Console(console)))) if console.text == "login:"
    ));
    let (asked, _) = ask(&mut one);
    let effects = one.bench.after(10_000).apply(Event::Tick);
    assert!(matches!(answer_to(asked, effects), Some(Answer::Operator(Err(Refusal::HostFailed { .. })))));
}

#[test]
fn a_disk_is_not_written_to_and_does_not_go_while_it_is_copied() {
    let mut one = One::new();
    one.command(Command::CreateVm(create("a"))).expect("made");
    let copy = CreateDisk { name: "copy".parse().expect("a name"), size_mib: 64, from: Some("a-0".to_owned()) };
    let (_, effects) = one.bench.ask(|reply| Event::Operator { reply, command: Command::CreateDisk(copy) });
    let job = effects.iter().find_map(|effect| match effect {
        Effect::Storage { job, op: StorageOp::Clone { .. } } => Some(*job),
        _ => None,
    });
    let started = one.command(Command::StartVm { vm: vm("a") }).expect("taken on");
    let granted = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Storage { op: StorageOp::Grant { .. }, .. }))
    };
    assert!(!granted(&started) && one.phase("a") == Some(VmPhase::Starting));
    let done = one.bench.apply(Event::StorageDone { job: job.expect("a copy"), result: Ok(()) });
    let effects = [done, one.report(vec![], vec![])].concat();
    assert!(granted(&effects), "it starts when the copy has ended");
}

#[test]
fn a_disk_that_cannot_be_made_fails_the_vm() {
    let mut one = One::new();
    let (_, effects) = one.bench.ask(|reply| Event::Operator { reply, command: Command::CreateVm(create("a")) });
    let job = effects.iter().find_map(|effect| match effect {
        Effect::Storage { job, op: StorageOp::Create { .. } } => Some(*job),
        _ => None,
    });
    let job = job.expect("the disk is being made");
    one.bench.apply(Event::StorageDone { job, result: Err("no space left".to_owned()) });
    let view = one.bench.rack.view(one.bench.now);
    assert_eq!((view.vms[0].phase, view.vms[0].note.as_str()), (VmPhase::Failed, "a-0: no space left"));
    assert_eq!(view.disks[0].note, "a-0: no space left");
    let effects = one.bench.apply(Event::StorageAnew);
    let of_it = |effect: &Effect| matches!(effect, Effect::Storage { op, .. } if op.disk().as_str() == "a-0");
    assert!(!effects.iter().any(of_it), "there is nothing to serve, nor is it tried again");
    one.command(Command::DeleteVm { vm: vm("a") }).expect("it can be deleted");
    assert_eq!(one.phase("a"), None);
}
