//! One move, step by step, and how it is called off. What happens when things fail at random is in `model`.

use crate::effect::{Effect, Reply};
use crate::event::{Command, Event};
use crate::policy::Policy;
use crate::record::Fence;
use crate::testing::{Bench, acts, alive, domain, inventory, mac, policy, san};
use expect_test::{Expect, expect};
use proto::agent::{
    Act, DomainState, DomainSurvey, Done, Failure, FailureKind, LeaseState, Order, OrderOutcome, OrderProgress, Part,
    Permit, Report, Stage,
};
use proto::api::{Accepted, CreateVm, MigrateVm, Refusal};
use proto::view::{MovePhase, VmPhase};
use proto::vm::{Priority, Restart};
use proto::{HostId, OrderId};

/// Two hosts with one VM on the first, and what each host would report.
struct Two {
    bench: Bench,
    boots: [String; 2],
    domains: [Vec<DomainSurvey>; 2],
    underway: [Vec<OrderProgress>; 2],
    /// The second host's.
    lease: LeaseState,
    seq: u64,
}

fn outcome(order: &Order, result: Result<Done, FailureKind>) -> OrderOutcome {
    OrderOutcome { id: order.id, result: result.map_err(|kind| Failure { kind, detail: "it failed".to_owned() }) }
}

/// Every order to clear a guest away fails.
fn not_cleared(effects: &[Effect], kind: FailureKind) -> Vec<OrderOutcome> {
    let clears = |order: &&Order| matches!(order.act, Act::AbortReceive { .. } | Act::Destroy { .. });
    orders(effects).iter().filter(clears).map(|order| outcome(order, Err(kind))).collect()
}

impl Two {
    fn new(policy: Policy) -> Self {
        let mut bench = Bench::new(policy);
        let boots = [bench.boot(mac(1), "k1", 1), bench.boot(mac(2), "k2", 2)];
        let lease = LeaseState::Valid;
        let mut two = Self { bench, boots, domains: Default::default(), underway: Default::default(), lease, seq: 0 };
        two.report(0, vec![]);
        let create = CreateVm { start: true, ..CreateVm::new("a".parse().expect("a name"), "tiny") };
        let (_, mut effects) = two.bench.ask(|reply| Event::Operator { reply, command: Command::CreateVm(create) });
        while effects.iter().any(|effect| matches!(effect, Effect::Storage { .. })) {
            effects = two.storage(effects);
        }
        let start = orders(&effects).remove(0);
        two.domains[0] = vec![domain("a", 1, DomainState::Running, Part::Resident)];
        two.report(0, vec![outcome(&start, Ok(Done::Ok))]);
        two.report(1, vec![]);
        two
    }

    /// What a host says now.
    fn report(&mut self, host: usize, outcomes: Vec<OrderOutcome>) -> Vec<Effect> {
        self.seq += 1;
        self.bench.after(1100);
        let report = Report {
            domains: self.domains[host].clone(),
            underway: self.underway[host].clone(),
            outcomes,
            lease: [LeaseState::Valid, self.lease][host],
            ..alive(&self.boots[host], self.seq)
        };
        let (mac, key) = [(mac(1), "k1"), (mac(2), "k2")][host];
        self.bench.report(mac, key, report).1
    }

    /// Does all storage jobs among the effects; what came of the last.
    fn storage(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut last = Vec::new();
        for effect in effects {
            if let Effect::Storage { job, .. } = effect {
                last = self.bench.apply(Event::StorageDone { job, result: Ok(()) });
            }
        }
        last
    }

    /// A move whose target has the guest no more when it is to let it run.
    fn lose_at_target(&mut self) -> Vec<Effect> {
        let (receive, send) = self.copying();
        self.domains[0][0].state = DomainState::Suspended;
        self.report(0, vec![outcome(&send, Ok(Done::Sent { bytes: 4096, total_ms: 77 }))]);
        self.underway[1] = listening(receive.id, Stage::Received);
        let effects = self.report(1, vec![]);
        let activate = orders(&self.storage(effects)).remove(0);
        self.domains[1].clear();
        self.underway[1].clear();
        self.report(1, vec![outcome(&activate, Err(FailureKind::NoDomain))])
    }

    /// The same, and what its source still has is dying: the order to clear that away.
    fn lose_at_target_beside_a_leftover(&mut self) -> Order {
        let effects = self.lose_at_target();
        self.storage(effects);
        self.domains[0][0].state = DomainState::Dying;
        orders(&self.report(0, vec![])).remove(0)
    }

    fn migrate(&mut self) -> Vec<Effect> {
        let command = Command::MigrateVm { vm: "a".parse().expect("a name"), request: MigrateVm::default() };
        self.bench.ask(|reply| Event::Operator { reply, command }).1
    }

    /// A move has come so far that the target listens and the source is told to send: the target's order and the source's.
    fn copying(&mut self) -> (Order, Order) {
        let effects = self.migrate();
        let receive = orders(&self.storage(effects)).remove(0);
        self.domains[1] = vec![domain("a", 1, DomainState::Paused, Part::Incoming)];
        self.underway[1] = listening(receive.id, Stage::Listening);
        self.report(1, vec![outcome(&receive, Ok(Done::Ok))]);
        let send = orders(&self.report(0, vec![])).remove(0);
        (receive, send)
    }

    fn at(&self) -> String {
        let view = self.bench.rack.view(self.bench.now);
        let (vm, moves) = (&view.vms[0], &view.moves[0]);
        format!(
            "move {:?}, a {:?} at {:?} epoch {}",
            moves.phase,
            vm.phase,
            vm.owner.as_ref().map(HostId::as_str),
            vm.epoch
        )
    }

    fn check(&self, effects: &[Effect], expect: Expect) {
        expect.assert_eq(&format!("{}{}", acts(effects), self.at()));
    }
}

fn orders(effects: &[Effect]) -> Vec<Order> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Answer { answer: crate::effect::Answer::Report(Ok(answer)), .. } => Some(answer.orders.clone()),
        _ => None,
    });
    answers.flatten().collect()
}

fn listening(id: OrderId, stage: Stage) -> Vec<OrderProgress> {
    vec![OrderProgress { id, stage, bytes: 5 }]
}

#[test]
fn a_move_from_its_begin_to_its_end() {
    let mut two = Two::new(policy());
    let effects = two.migrate();
    two.check(
        &effects,
        expect![[r#"
            storage: Grant a-0 to h525400aabb02 as h525400aabb02-a-0-2-2
            move Preparing, a Moving at Some("h525400aabb01") epoch 1"#]],
    );
    let effects = two.storage(effects);
    two.check(
        &effects,
        expect![[r#"
        order under epoch 1: Receive
        move Preparing, a Moving at Some("h525400aabb01") epoch 1"#]],
    );
    let receive = orders(&effects).remove(0);
    let Act::Receive { permit, disks, .. } = &receive.act else { panic!("{receive:?}") };
    assert_eq!((permit.source.clone(), permit.target.clone()), (HostId::of(mac(1)), HostId::of(mac(2))));
    assert_eq!(disks[0].target, "iqn.2026-11.org.tsubame:a-0");
    // 16 characters; another boot of the host has other secrets for the very same grant.
    assert_eq!(disks[0].secret.0.len(), 16);
    let mut other = two.bench.rack.hosts.get(&HostId::of(mac(2))).expect("it is there").clone();
    other.boot.as_mut().expect("it has joined").chap_seed.0.push('x');
    let now = std::mem::replace(two.bench.rack.hosts.edit_unkept(&other.id).expect("it is there"), other.clone());
    let accesses = two.bench.rack.accesses(&"a".parse().expect("a name"), &other.id).expect("it was granted");
    assert_eq!(accesses[0].user, disks[0].user);
    assert_ne!(accesses[0].secret, disks[0].secret);
    *two.bench.rack.hosts.edit_unkept(&other.id).expect("it is there") = now;

    two.domains[1] = vec![domain("a", 1, DomainState::Paused, Part::Incoming)];
    two.underway[1] = listening(receive.id, Stage::Listening);
    let effects = two.report(1, vec![outcome(&receive, Ok(Done::Ok))]);
    two.check(
        &effects,
        expect![[r#"
        order under epoch 1: Send
        move Copying, a Moving at Some("h525400aabb01") epoch 1"#]],
    );
    let effects = two.report(0, vec![]);
    let send = orders(&effects).remove(0);
    let Act::Send { permit: signed, .. } = &send.act else { panic!("{send:?}") };
    assert_eq!(serde_json::from_str::<Permit>(&signed.permit_json).expect("JSON"), *permit, "the very same leave");
    assert_eq!(signed.signature, "", "the shell signs");

    // The source says that all is sent: that alone decides nothing.
    two.domains[0][0].state = DomainState::Suspended;
    let sent = outcome(&send, Ok(Done::Sent { bytes: 4096, total_ms: 77 }));
    let effects = two.report(0, vec![sent]);
    two.check(&effects, expect![[r#"move Copying, a Moving at Some("h525400aabb01") epoch 1"#]]);
    two.underway[1] = listening(receive.id, Stage::Received);
    let effects = two.report(1, vec![]);
    two.check(
        &effects,
        expect![[r#"
        storage: Cut a-0 from h525400aabb01
        move Committing, a Moving at Some("h525400aabb02") epoch 2"#]],
    );
    let effects = two.storage(effects);
    two.check(
        &effects,
        expect![[r#"
        order under epoch 2: Activate
        move Activating, a Moving at Some("h525400aabb02") epoch 2"#]],
    );
    let failed = orders(&effects).remove(0);
    // Nothing goes back any more: what fails is tried again, by another order.
    let effects = two.report(1, vec![outcome(&failed, Err(FailureKind::Tool))]);
    two.check(&effects, expect![[r#"move Activating, a Moving at Some("h525400aabb02") epoch 2"#]]);
    two.bench.after(1000).apply(Event::Tick);
    let activate = orders(&two.report(1, vec![])).remove(0);
    assert!(activate.id > failed.id && activate.act == failed.act);

    two.domains[1] = vec![domain("a", 2, DomainState::Running, Part::Resident)];
    two.underway[1].clear();
    let effects = two.report(1, vec![outcome(&activate, Ok(Done::Activated { downtime_ms: 250 }))]);
    two.check(&effects, expect![[r#"move Releasing, a Running at Some("h525400aabb02") epoch 2"#]]);
    let effects = two.report(0, vec![]);
    two.check(
        &effects,
        expect![[r#"
        order under epoch 2: Release
        move Releasing, a Running at Some("h525400aabb02") epoch 2"#]],
    );
    let release = orders(&effects).remove(0);
    two.domains[0].clear();
    let effects = two.report(0, vec![outcome(&release, Ok(Done::Ok))]);
    two.check(&effects, expect![[r#"move Done, a Running at Some("h525400aabb02") epoch 2"#]]);
    let done = two.bench.rack.view(two.bench.now).moves.remove(0);
    assert_eq!((done.bytes, done.downtime_ms, done.failure), (4096, Some(250), None));
    assert!(done.total_ms.is_some_and(|ms| ms >= 1100));
}

/// No host has failed, so what a failure of its host would mean for it does not hold.
#[test]
fn a_guest_that_its_move_has_lost_starts_again_at_once() {
    let mut two = Two::new(policy());
    let never = Restart { priority: Priority::Never, delay_s: 0, ..Restart::default() };
    two.bench.operator(Command::SetRestart { vm: "a".parse().expect("a name"), restart: never }).expect("set");
    two.lose_at_target();
    let vm = two.bench.rack.view(two.bench.now).vms.remove(0);
    assert_eq!(
        (vm.phase, vm.run, vm.note.as_str()),
        (VmPhase::Stopped, true, "a was lost on its way to h525400aabb02")
    );
}

#[test]
fn a_guest_that_its_move_has_lost_does_not_wait_for_a_source_that_cannot_be_cleared() {
    let mut two = Two::new(policy());
    let release = two.lose_at_target_beside_a_leftover();
    assert!(matches!(release.act, Act::Release { .. }), "{release:?}");
    let effects = two.report(0, vec![outcome(&release, Err(FailureKind::Tool))]);
    two.check(
        &effects,
        expect![[r#"
        storage: Grant a-0 to h525400aabb02 as h525400aabb02-a-0-3-3
        order under epoch 2: Destroy
        move Done, a Starting at Some("h525400aabb02") epoch 3"#]],
    );
    let effects = two.storage(effects);
    two.check(
        &effects,
        expect![[r#"
        order under epoch 3: Start
        move Done, a Starting at Some("h525400aabb02") epoch 3"#]],
    );
}

#[test]
fn a_guest_that_was_lost_with_its_source_does_not_wait_for_a_target_that_cannot_be_cleared() {
    for fenced in [false, true] {
        let mut two = Two::new(policy());
        two.copying();
        // The source is reset amid the copying, and is there again at once; or it is silent until it is fenced, and is there again after 90 s.
        two.domains[0].clear();
        if !fenced {
            let (boot, effects) = two.bench.boots(mac(1), "k1", 9);
            two.boots[0] = boot;
            two.storage(effects);
        }
        // What the target has received so far is dying, and Xen does not end it: every order to clear it away fails.
        two.domains[1][0].state = DomainState::Dying;
        two.underway[1].clear();
        let mut failed = Vec::new();
        for round in 0..300 {
            let mut effects = two.report(1, std::mem::take(&mut failed));
            if !fenced || round > 80 {
                effects.extend(two.report(0, vec![]));
            }
            let read_mono_ms = two.bench.now.mono_ms;
            effects.extend(two.bench.apply(Event::Heartbeats { read_mono_ms, slots: Vec::new() }));
            effects.extend(two.bench.apply(Event::Tick));
            failed = not_cleared(&effects, FailureKind::Tool);
            two.storage(effects);
        }
        let source = two.bench.rack.hosts.get(&HostId::of(mac(1))).expect("it is there");
        assert_eq!(source.fence, None, "fenced {fenced}: it reports again, and is not used");
        let view = two.bench.rack.view(two.bench.now);
        let (vm, phase) = (&view.vms[0], view.moves[0].phase);
        let expected = (MovePhase::Aborted, VmPhase::Starting, Some(HostId::of(mac(1))));
        assert_eq!((phase, vm.phase, vm.owner.clone()), expected, "fenced {fenced}: {}", vm.note);
    }
}

#[test]
fn a_vm_is_not_kept_on_a_host_that_cannot_clear_away_what_is_left_of_it() {
    let mut two = Two::new(policy());
    let release = two.lose_at_target_beside_a_leftover();
    // For this moment no other host can take it.
    two.lease = LeaseState::Lapsed;
    two.report(1, vec![]);
    let effects = two.report(0, vec![outcome(&release, Err(FailureKind::Tool))]);
    let mut failed = not_cleared(&effects, FailureKind::Tool);
    two.lease = LeaseState::Valid;
    for _ in 0..300 {
        let mut effects = two.report(0, std::mem::take(&mut failed));
        failed = not_cleared(&effects, FailureKind::Tool);
        effects.extend(two.report(1, vec![]));
        effects.extend(two.bench.apply(Event::Tick));
        two.storage(effects);
    }
    let vm = two.bench.rack.view(two.bench.now).vms.remove(0);
    let expected = (VmPhase::Starting, Some(HostId::of(mac(2))));
    assert_eq!((vm.phase, vm.owner), expected, "{:?}", vm.note);
}

#[test]
fn a_stream_that_breaks_calls_the_move_off() {
    let mut two = Two::new(policy());
    let (_, send) = two.copying();
    let effects = two.report(0, vec![outcome(&send, Err(FailureKind::Stream))]);
    two.check(
        &effects,
        expect![[r#"
        order under epoch 1: AbortSend
        order under epoch 1: AbortReceive
        move Aborting, a Moving at Some("h525400aabb01") epoch 1"#]],
    );
    let abort_receive = orders(&two.report(1, vec![]));
    let abort_send = orders(&effects);
    let mut all = abort_send.clone();
    all.extend(abort_receive.clone());
    let find = |act: fn(&Act) -> bool| all.iter().find(|order| act(&order.act)).expect("it is told").clone();
    let abort_receive = find(|act| matches!(act, Act::AbortReceive { .. }));
    let abort_send = find(|act| matches!(act, Act::AbortSend { .. }));
    // The guest cannot be woken at first: it is tried again, by another order.
    let effects = two.report(0, vec![outcome(&abort_send, Err(FailureKind::Tool))]);
    two.check(&effects, expect![[r#"move Aborting, a Moving at Some("h525400aabb01") epoch 1"#]]);
    two.bench.after(1000);
    two.bench.apply(Event::Tick);
    let effects = two.report(0, vec![]);
    let again = orders(&effects).remove(0);
    assert_ne!(again.id, abort_send.id);
    two.domains[1].clear();
    two.underway[1].clear();
    two.report(0, vec![outcome(&again, Ok(Done::Ok))]);
    let effects = two.report(1, vec![outcome(&abort_receive, Ok(Done::Ok))]);
    two.check(
        &effects,
        expect![[r#"
        storage: Cut a-0 from h525400aabb02
        move Aborting, a Moving at Some("h525400aabb01") epoch 1"#]],
    );
    let effects = two.storage(effects);
    two.check(&effects, expect![[r#"move Aborted, a Running at Some("h525400aabb01") epoch 1"#]]);
}

#[test]
fn what_may_not_be_moved() {
    let mut two = Two::new(policy());
    let check = |two: &mut Two, vm: &str, to: Option<HostId>, expect: Expect| {
        let command = Command::MigrateVm { vm: vm.parse().expect("a name"), request: MigrateVm { to } };
        let answer = two.bench.operator(command);
        expect.assert_eq(&match answer {
            Ok(Reply::Accepted(Accepted::Moving { r#move })) => format!("move {move}"),
            Ok(other) => format!("{other:?}"),
            Err(refusal) => refusal.to_string(),
        });
    };
    let [first, second, third] = [1, 2, 3].map(|n| HostId::of(mac(n)));
    check(&mut two, "b", None, expect!["there is no VM b"]);
    check(&mut two, "a", Some(third), expect!["there is no host h525400aabb03"]);
    check(&mut two, "a", Some(first.clone()), expect!["VM a is on h525400aabb01 already"]);
    // A host that lacks what the guest may have seen.
    two.bench.operator(Command::DrainHost { host: second.clone() }).expect("it is there");
    check(&mut two, "a", Some(second.clone()), expect!["host h525400aabb02 is draining, so this cannot be done"]);
    check(&mut two, "a", None, expect!["no host can take a; h525400aabb02: is being emptied"]);
    two.bench.operator(Command::UndrainHost { host: second.clone() }).expect("it is there");
    let record = two.bench.rack.hosts.edit_unkept(&HostId::of(mac(1))).expect("it is there");
    let mut better = inventory();
    better.cpu.features.insert("avx2".to_owned());
    record.inventory = Some(better);
    check(
        &mut two,
        "a",
        Some(second.clone()),
        expect!["no host can take a; h525400aabb02: lacks CPU features that the guest has seen: avx2"],
    );
    let record = two.bench.rack.hosts.edit_unkept(&HostId::of(mac(1))).expect("it is there");
    record.inventory = Some(inventory());
    // One that reports again while it is being fenced.
    for fenced in [&first, &second] {
        let fence = |two: &mut Two, fence| {
            two.bench.rack.hosts.edit_unkept(fenced).expect("it is there").fence = fence;
        };
        fence(&mut two, Some(Fence::Cutting));
        let now = two.bench.now;
        let begun = two.bench.rack.begin_move(&"a".parse().expect("a name"), &second, String::new(), now);
        assert_eq!(begun, Err(Refusal::HostFenced { host: fenced.clone() }));
        fence(&mut two, None);
    }
    check(&mut two, "a", Some(second), expect!["move 1"]);
    check(&mut two, "a", None, expect!["move 1 is under way; wait until it has ended"]);
}

#[test]
fn a_guest_that_is_held_is_let_go_on_before_it_moves() {
    let mut two = Two::new(policy());
    two.domains[0][0].state = DomainState::Paused;
    two.report(0, vec![]);
    two.bench.operator(Command::DrainHost { host: HostId::of(mac(1)) }).expect("it is there");
    let mut told = Vec::new();
    for _ in 0..20 {
        told.extend(two.report(0, vec![]));
        told.extend(two.report(1, vec![]));
    }
    let unpause = orders(&told).into_iter().find(|order| matches!(order.act, Act::Unpause { .. }));
    let unpause = unpause.expect("it is let go on");
    assert!(two.bench.rack.view(two.bench.now).moves.is_empty(), "it moves while it stands");
    two.domains[0][0].state = DomainState::Running;
    two.report(0, vec![outcome(&unpause, Ok(Done::Ok))]);
    two.bench.after(3000).apply(Event::Tick);
    two.check(&[], expect!["move Preparing, a Moving at Some(\"h525400aabb01\") epoch 1"]);
}

#[test]
fn draining_empties_a_host() {
    let mut two = Two::new(policy());
    two.bench.operator(Command::DrainHost { host: HostId::of(mac(1)) }).expect("it is there");
    two.bench.after(3000).apply(Event::Tick);
    let view = two.bench.rack.view(two.bench.now);
    assert_eq!(view.moves.iter().map(|m| (m.vm.as_str(), m.phase)).collect::<Vec<_>>(), [("a", MovePhase::Preparing)]);
    expect!["its host is being emptied"].assert_eq(&view.moves[0].reason);
    let removed = two.bench.operator(Command::RemoveHost { host: HostId::of(mac(1)) });
    assert!(matches!(removed, Err(Refusal::HostHasVms { count: 1, .. })));
}

#[test]
fn a_drain_goes_on_once_what_held_it_up_is_over() {
    let mut two = Two::new(Policy { balance_ms: 0, ..policy() });
    let fence = |two: &mut Two, fence| {
        two.bench.rack.hosts.edit_unkept(&HostId::of(mac(2))).expect("it is there").fence = fence;
    };
    // The only other host cannot take it when the plan is made.
    fence(&mut two, Some(Fence::Cutting));
    two.bench.operator(Command::DrainHost { host: HostId::of(mac(1)) }).expect("it is there");
    two.bench.after(3000).apply(Event::Tick);
    assert!(two.bench.rack.view(two.bench.now).moves.is_empty());
    fence(&mut two, None);
    for _ in 0..10 {
        two.report(0, vec![]);
        two.report(1, vec![]);
        two.bench.apply(Event::Tick);
    }
    two.check(&[], expect!["move Preparing, a Moving at Some(\"h525400aabb01\") epoch 1"]);
}

#[test]
fn a_target_without_a_lease_becomes_no_owner() {
    let mut two = Two::new(policy());
    let (receive, _) = two.copying();
    two.underway[1] = listening(receive.id, Stage::Received);
    two.lease = LeaseState::Lapsed;
    two.report(1, vec![]);
    two.check(&[], expect![[r#"move Aborting, a Moving at Some("h525400aabb01") epoch 1"#]]);
}

#[test]
fn on_a_san_the_source_lets_go_before_the_target_runs() {
    let mut two = Two::new(san());
    let effects = two.migrate();
    let effects = two.storage(effects);
    let receive = orders(&effects).remove(0);
    let Act::Receive { disks, .. } = &receive.act else { panic!("{receive:?}") };
    assert_eq!((disks[0].target.as_str(), disks[0].lun), ("iqn.2001-05.com.example:a-0", 3));
    two.domains[1] = vec![domain("a", 1, DomainState::Paused, Part::Incoming)];
    two.underway[1] = listening(receive.id, Stage::Listening);
    two.report(1, vec![outcome(&receive, Ok(Done::Ok))]);
    let send = orders(&two.report(0, vec![])).remove(0);
    two.domains[0] = vec![domain("a", 1, DomainState::Suspended, Part::MigratedAway)];
    two.underway[0] = listening(send.id, Stage::Working);
    two.underway[1] = listening(receive.id, Stage::Received);
    let effects = two.report(1, vec![]);
    two.check(&effects, expect![[r#"move Committing, a Moving at Some("h525400aabb02") epoch 2"#]]);
    two.underway[0].clear();
    let effects = two.report(0, vec![outcome(&send, Ok(Done::Ok))]);
    let release = orders(&effects).remove(0);
    assert!(matches!(release.act, Act::Release { .. }), "{release:?}");
    // However often the target asks: what the source holds may still be written by it.
    let effects = two.report(1, vec![]);
    two.check(&effects, expect![[r#"move Committing, a Moving at Some("h525400aabb02") epoch 2"#]]);
    two.domains[0].clear();
    two.report(0, vec![outcome(&release, Ok(Done::Ok))]);
    let effects = two.report(1, vec![]);
    assert!(matches!(orders(&effects).remove(0).act, Act::Activate { .. }));
}

/// The store is behind what was acknowledged: the host has the guest under a later epoch than the store knows, with its ways.
#[test]
fn a_host_that_knows_a_later_epoch_is_not_passed_over() {
    let mut two = Two::new(policy());
    let name: proto::VmId = "a".parse().expect("a name");
    let vm = two.bench.rack.vms.edit(&name).expect("it is there");
    (vm.phase, vm.run) = (VmPhase::Stopped, true);
    two.bench.rack.disks.edit(&"a-0".parse().expect("a name")).expect("it is there").grants.clear();
    two.domains[0] = vec![domain("a", 7, DomainState::Running, Part::Resident)];
    two.lease = LeaseState::Lapsed;
    two.report(1, vec![]);
    let mut failed = Vec::new();
    let mut started = false;
    for round in 0..60 {
        if round == 10 {
            two.lease = LeaseState::Valid;
        }
        let mut effects = two.report(0, std::mem::take(&mut failed));
        failed = not_cleared(&effects, FailureKind::StaleEpoch);
        let second = two.report(1, vec![]);
        started |= orders(&second).iter().any(|order| matches!(order.act, Act::Start { .. }));
        effects.extend(second);
        effects.extend(two.bench.apply(Event::Tick));
        started |= orders(&effects).iter().any(|order| matches!(order.act, Act::Start { .. }));
        let last = two.storage(effects);
        started |= orders(&last).iter().any(|order| matches!(order.act, Act::Start { .. }));
    }
    let vm = two.bench.rack.view(two.bench.now).vms.remove(0);
    assert!(!started, "a second one is started: {:?} {:?} {:?}", vm.phase, vm.owner, vm.note);
    assert_eq!(vm.phase, VmPhase::Failed, "{:?} {:?}", vm.owner, vm.note);
}
