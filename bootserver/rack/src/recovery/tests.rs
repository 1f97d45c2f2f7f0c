use super::*;
use crate::effect::{Answer, Effect, StorageOp};
use crate::event::{Command, Event, ReplyTo};
use crate::power::PowerOp;
use crate::testing::{Bench, alive, answer_to, domain, inventory, ipmi, ipxe, mac, policy};
use proto::agent::{DomainState, JoinRefusal, KnownGuest, Part, ReportAnswer};
use proto::api::CreateVm;
use proto::power::{OrderPower, PowerVerb};
use proto::view::VmPhase;
use proto::vm::{Boot, Priority, Restart, VmSpec};

const FROM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 60);

/// A rack of one host and VM `a`, restored from a backup that was taken before anything ran; and the host's nonce.
fn restored() -> (Bench, String) {
    restored_after(|_| ())
}

/// What was done before the backup.
fn restored_after(before: impl FnOnce(&mut Bench)) -> (Bench, String) {
    let mut bench = Bench::new(policy());
    let mut kept: BTreeMap<Key, Loaded> = BTreeMap::new();
    let mut keep = |effects: &[Effect]| {
        for effect in effects {
            if let Effect::Commit(Change { key, expect, to: Some(record) }) = effect {
                let loaded = Loaded { key: key.clone(), version: expect + 1, record: record.clone() };
                kept.insert(key.clone(), loaded);
            }
        }
    };
    let boot = bench.boot(mac(1), "k1", 1);
    let create = Command::CreateVm(CreateVm { start: true, ..CreateVm::new("a".parse().expect("a name"), "tiny") });
    keep(&bench.ask(|reply| Event::Operator { reply, command: create }).1);
    before(&mut bench);
    // What the boot has brought about is in the next commit of each record.
    for table in [bench.rack.hosts.values().cloned().map(Record::Host).collect::<Vec<_>>()] {
        for record in table {
            let Record::Host(host) = &record else { continue };
            let key = Key { kind: Kind::Host, name: host.id.to_string() };
            kept.insert(key.clone(), Loaded { key, version: 1, record });
        }
    }
    let mut records: Vec<Loaded> = kept.into_values().collect();
    records.sort_by_key(|loaded| loaded.key.kind);
    let backup_ms = bench.now.unix_ms;
    bench.after(600_000);
    let change = begin_term(&records, backup_ms, bench.now.unix_ms, Entropy([7; 32]));
    let to = change.to.expect("a term");
    records.push(Loaded { key: change.key, version: change.expect + 1, record: to });
    let (rack, _) = Rack::restore(policy(), records, bench.now).expect("it fits together");
    bench.rack = rack;
    (bench, boot)
}

fn spec(name: &str) -> VmSpec {
    let disks = vec![format!("{name}-0").parse().expect("a name")];
    let boot = Boot::Disk { loader: "0".repeat(64) };
    VmSpec { name: name.parse().expect("a name"), memory_mib: 96, vcpus: 1, boot, disks, vifs: vec![] }
}

/// The host tells of these guests, each under epoch 3.
fn survey(bench: &mut Bench, boot: &str, key: &str, issued_ms: u64, vms: &[&str]) -> (ReplyTo, Vec<Effect>) {
    let guest = |name: &&str| KnownGuest { spec: spec(name), floor: Epoch(3), r#move: None, received: false };
    let heard = HostSurvey { guests: vms.iter().map(guest).collect(), inventory: Some(inventory()) };
    let domains = vms.iter().map(|name| domain(name, 3, DomainState::Running, Part::Resident)).collect();
    let (term, survey) = (bench.rack.term(), Some(Box::new(heard)));
    let report = Report { domains, term, survey, ..alive(boot, 9) };
    let (host, caller) = (HostId::of(mac(1)), Caller { key: key.to_owned(), issued_ms, from: FROM });
    bench.ask(|reply| Event::Report { reply, host, caller, report })
}

fn found(disks: &[&str]) -> Vec<FoundDisk> {
    let way = Way { user: "as before".to_owned(), secret: Secret("s".to_owned()) };
    let ways = BTreeMap::from([(HostId::of(mac(1)), way)]);
    disks
        .iter()
        .map(|disk| FoundDisk { disk: disk.parse().expect("a name"), size_mib: 64, ways: ways.clone() })
        .collect()
}

fn answer(asked: (ReplyTo, Vec<Effect>)) -> Result<ReportAnswer, JoinRefusal> {
    match answer_to(asked.0, asked.1) {
        Some(Answer::Report(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_runs_is_taken_over_and_nothing_is_done_before_it_is_known() {
    let (mut bench, boot) = restored();
    let effects = bench.apply(Event::StorageFound(found(&["a-0", "b-0", "c-0"])));
    let touches =
        |effect: &Effect| matches!(effect, Effect::Storage { op, .. } if !matches!(op, StorageOp::Attach { .. }));
    assert!(!effects.iter().any(touches), "nothing is made, granted or cut");
    let refused = bench.operator(Command::StartVm { vm: "a".parse().expect("a name") });
    assert!(refused.is_err_and(|why| why.to_string().contains("h525400aabb01")), "who is awaited is named");
    let (_, effects) = survey(&mut bench, &boot, "k1", 0, &["a", "b"]);
    assert!(!effects.iter().any(touches), "nor afterwards: both run on");
    let view = bench.rack.view(bench.now);
    for name in ["a", "b"] {
        let vm = view.vms.iter().find(|vm| vm.spec.name.as_str() == name).expect("it has a record");
        let expected = (VmPhase::Running, Some(HostId::of(mac(1))), Epoch(3));
        assert_eq!((vm.phase, vm.owner.clone(), vm.epoch), expected, "{name}");
    }
    assert_eq!(view.disks.iter().filter(|disk| disk.ready).count(), 3, "the disk of nobody is kept");
    // From here on every number is above the term.
    let term = bench.rack.term().0;
    assert!(bench.rack.order_number().0 > term && bench.rack.next_epoch(Epoch(3)).0 > term);
    let address = bench.rack.leases.address_of(mac(1));
    assert_eq!(address, Some(FROM), "the host has the address that it reports from");
}

#[test]
fn a_boot_that_the_backup_does_not_know_is_let_in_by_a_certificate_from_after_it() {
    let (mut bench, _) = restored();
    bench.apply(Event::StorageFound(found(&["a-0"])));
    let backup_ms = bench.rack.terms.get(&()).expect("a term").backup_ms;
    let early = survey(&mut bench, "other", "k2", backup_ms - 60_000, &["a"]);
    assert_eq!(answer(early), Err(JoinRefusal::AlreadyActive), "an earlier boot");
    survey(&mut bench, "other", "k2", backup_ms + 60_000, &["a"]);
    assert!(!bench.rack.surveying(), "it was heard");
    let again = survey(&mut bench, "third", "k3", backup_ms + 60_000, &["a"]);
    assert_eq!(answer(again), Err(JoinRefusal::AlreadyActive), "a boot that is known in this term stands");
}

#[test]
fn a_host_that_was_removed_after_a_restore_stays_out() {
    let (mut bench, boot) = restored();
    bench.apply(Event::StorageFound(found(&["a-0"])));
    let backup_ms = bench.rack.terms.get(&()).expect("a term").backup_ms;
    survey(&mut bench, &boot, "k1", backup_ms + 60_000, &[]);
    bench.operator(Command::RemoveHost { host: HostId::of(mac(1)) }).expect("it runs nothing");
    let again = survey(&mut bench, &boot, "k1", backup_ms + 60_000, &[]);
    assert_eq!(answer(again), Err(JoinRefusal::Removed));
    assert!(bench.rack.hosts.get(&HostId::of(mac(1))).is_none());
}

#[test]
fn two_vms_with_one_address_are_told_of_and_hold_up_no_start() {
    let (mut bench, boot) = restored();
    bench.apply(Event::StorageFound(found(&["a-0", "b-0"])));
    let taken = bench.rack.vms.get(&"a".parse().expect("a name")).expect("it is kept").spec.vifs.clone();
    assert!(!taken.is_empty());
    let as_a = VmSpec { vifs: taken.clone(), ..spec("b") };
    let heard = HostSurvey {
        guests: vec![KnownGuest { spec: as_a, floor: Epoch(3), r#move: None, received: false }],
        inventory: Some(inventory()),
    };
    let domains = vec![domain("b", 3, DomainState::Running, Part::Resident)];
    let report = Report { domains, term: bench.rack.term(), survey: Some(Box::new(heard)), ..alive(&boot, 9) };
    bench.report(mac(1), "k1", report);
    assert!(bench.rack.events(0, 1000).iter().any(|event| event.text.contains("both have the address")));
    let number = |kind, name: &str| Key { kind, name: name.to_owned() };
    let load = |record: Record, key: Key| Loaded { key, version: 1, record };
    let mut kept: Vec<Loaded> = Vec::new();
    kept.extend(bench.rack.disks.values().map(|r| load(Record::Disk(r.clone()), number(Kind::Disk, r.name.as_str()))));
    kept.extend(bench.rack.vms.values().map(|r| load(Record::Vm(r.clone()), number(Kind::Vm, r.spec.name.as_str()))));
    let (mut again, _) = Rack::restore(policy(), kept, bench.now).expect("the server starts again");
    // One of them goes: the other has it still, and nobody else gets it.
    let a: proto::VmId = "a".parse().expect("a name");
    let before = again.vms.get(&a).expect("it is there").spec.clone();
    again.forget_macs(&a, &before);
    assert_eq!(again.vm_macs.get(&taken[0].mac).map(|vm| vm.as_str()), Some("b"));
}

#[test]
fn a_vm_whose_disk_is_gone_is_not_started_and_one_that_runs_nowhere_has_a_new_epoch() {
    for (disks, phase) in [(&["a-0"][..], VmPhase::Stopped), (&[][..], VmPhase::Failed)] {
        let (mut bench, boot) = restored();
        if let Some(disk) = bench.rack.disks.edit(&"a-0".parse().expect("a name")) {
            (disk.ready, disk.doing) = (true, None);
        }
        bench.apply(Event::StorageFound(found(disks)));
        survey(&mut bench, &boot, "k1", 0, &[]);
        let vm = &bench.rack.view(bench.now).vms[0];
        assert!(vm.phase == phase || phase == VmPhase::Stopped && vm.phase == VmPhase::Starting, "{:?}", vm.phase);
        assert!(vm.epoch.0 >= bench.rack.term().0);
    }
}

#[test]
fn a_vm_that_no_host_has_any_more_is_started_as_its_restart_says() {
    for (restart, run) in [
        (Restart { priority: Priority::Never, ..Restart::default() }, false),
        (Restart { delay_s: 30, ..Restart::default() }, true),
    ] {
        let (mut bench, boot) = restored();
        if let Some(disk) = bench.rack.disks.edit(&"a-0".parse().expect("a name")) {
            (disk.ready, disk.doing) = (true, None);
        }
        if let Some(vm) = bench.rack.vms.edit(&"a".parse().expect("a name")) {
            (vm.owner, vm.phase, vm.restart) = (Some(HostId::of(mac(1))), VmPhase::Running, restart);
        }
        bench.apply(Event::StorageFound(found(&["a-0"])));
        survey(&mut bench, &boot, "k1", 0, &[]);
        let vm = &bench.rack.view(bench.now).vms[0];
        assert_eq!((vm.phase, vm.run), (VmPhase::Stopped, run), "{restart}");
        assert!(run != vm.note.contains("not started again by itself"), "{}", vm.note);
    }
}

#[test]
fn no_address_is_given_anew_while_those_given_after_the_backup_may_be_held() {
    let (mut bench, boot) = restored();
    bench.apply(Event::StorageFound(found(&["a-0"])));
    survey(&mut bench, &boot, "k1", 0, &[]);
    assert_eq!(bench.lease(mac(9), ipxe), None, "not for a lease time");
    assert!(bench.after(3_601_000).lease(mac(9), ipxe).is_some());
}

#[test]
fn a_server_whose_place_was_taken_does_nothing_any_more() {
    let mut bench = Bench::new(policy());
    let boot = bench.boot(mac(1), "k1", 1);
    let report = Report { term: Term(9), ..alive(&boot, 1) };
    bench.report(mac(1), "k1", report);
    assert!(bench.rack.frozen());
    let create = Command::CreateVm(CreateVm::new("a".parse().expect("a name"), "tiny"));
    for command in [create, Command::Thaw] {
        assert!(bench.operator(command).is_err_and(|why| why.to_string().contains("term 9")));
    }
    for _ in 0..10 {
        bench.after(1000).apply(Event::Tick);
    }
    let said = bench.rack.events(0, 1000).iter().filter(|event| event.text.contains("frozen")).count();
    assert_eq!(said, 0, "it says once why");
    let ha = bench.rack.view(bench.now).ha;
    assert!(ha.superseded && ha.standing_by.is_some_and(|why| why.contains("term 9")));
    bench.apply(Event::BackedUp(proto::view::BackupView { every_s: 60, ..Default::default() }));
    assert!(!bench.rack.view(bench.now).backups.late, "no backup is taken of an old record");
}

#[test]
fn power_is_not_switched_by_what_a_backup_says() {
    let host = HostId::of(mac(1));
    let off =
        || Command::OrderPower { host: host.clone(), request: OrderPower { verb: PowerVerb::Off, network: false } };
    let (mut bench, _) = restored_after(|bench| {
        bench.operator(Command::SetBmc { host: host.clone(), request: ipmi() }).expect("a controller");
        bench.operator(off()).expect("it runs nothing");
    });
    let switched = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Power { op: PowerOp::Off, .. }));
    for _ in 0..5 {
        let effects = bench.after(1000).apply(Event::Tick);
        assert!(!switched(&effects), "the order may have been done long ago");
    }
    bench.apply(Event::StorageFound(found(&["a-0"])));
    let refusal = bench.operator(off()).expect_err("it has not said what it runs");
    assert!(refusal.to_string().contains("awaited: h525400aabb01"), "{refusal}");
    // One that says nothing may be known to a person to be of no use.
    for _ in 0..20 {
        bench.after(1000).apply(Event::Tick);
    }
    bench.operator(off()).expect("it is silent");
}

#[test]
fn a_heartbeat_disk_that_was_lost_is_made_anew_before_the_survey_ends() {
    let (mut bench, boot) = restored();
    let name: DiskId = proto::heartbeat::DISK.parse().expect("a name");
    let disk = bench.rack.disks.get(&"a-0".parse().expect("a name")).expect("it is kept").clone();
    bench.rack.disks.put(DiskRecord { name: name.clone(), vm: None, ready: true, doing: None, ..disk });
    let effects = bench.apply(Event::StorageFound(found(&["a-0"])));
    let made = effects.iter().find_map(|effect| match effect {
        Effect::Storage { job, op: StorageOp::Create { disk, .. } } if *disk == name => Some(*job),
        _ => None,
    });
    bench.apply(Event::StorageDone { job: made.expect("it is being made"), result: Ok(()) });
    survey(&mut bench, &boot, "k1", 0, &["a"]);
    let read_mono_ms = bench.now.mono_ms;
    bench.apply(Event::Heartbeats { read_mono_ms, slots: Vec::new() });
    bench.apply(Event::Tick);
    assert!(!bench.rack.surveying(), "{:?}", bench.rack.survey_note());
}

/// What the hosts of these tests would say, and what the storage does.
struct Amid {
    bench: Bench,
    seq: u64,
    /// Jobs fail for want of the disk.
    lost: bool,
}

impl Amid {
    fn done(&mut self, effects: Vec<Effect>) -> Vec<proto::agent::Order> {
        let mut told = Vec::new();
        for effect in effects {
            match effect {
                Effect::Storage { job, op } => {
                    let gone = self.lost && op.disk().as_str() != proto::heartbeat::DISK;
                    let result = if gone { Err("no such file".to_owned()) } else { Ok(()) };
                    let more = self.bench.apply(Event::StorageDone { job, result });
                    told.extend(self.done(more));
                }
                Effect::Answer { answer: Answer::Report(Ok(answer)), .. } => told.extend(answer.orders),
                _ => {}
            }
        }
        told
    }

    /// A host reports with these guests, each under epoch 3; what the hosts are told.
    fn report(
        &mut self,
        number: u8,
        boot: &str,
        key: &str,
        vms: &[&str],
        ended: &[proto::OrderId],
    ) -> Vec<proto::agent::Order> {
        self.seq += 1;
        self.bench.after(1000);
        let guest = |name: &&str| KnownGuest { spec: spec(name), floor: Epoch(3), r#move: None, received: false };
        let heard = HostSurvey { guests: vms.iter().map(guest).collect(), inventory: Some(inventory()) };
        let domains = vms.iter().map(|name| domain(name, 3, DomainState::Paused, Part::Resident)).collect();
        let outcomes =
            ended.iter().map(|id| proto::agent::OrderOutcome { id: *id, result: Ok(proto::agent::Done::Ok) });
        let (term, survey) = (self.bench.rack.term(), self.bench.rack.surveying().then(|| Box::new(heard)));
        let report = Report { domains, outcomes: outcomes.collect(), term, survey, ..alive(boot, self.seq) };
        let host = HostId::of(mac(number));
        let from = Ipv4Addr::new(10, 77, 0, 60 + number);
        let caller = Caller { key: key.to_owned(), issued_ms: self.bench.now.unix_ms, from };
        let effects = self.bench.ask(|reply| Event::Report { reply, host, caller, report }).1;
        let mut told = self.done(effects);
        let effects = self.bench.apply(Event::Tick);
        told.extend(self.done(effects));
        told
    }
}

fn found_of(disk: &str, hosts: &[u8]) -> FoundDisk {
    let way = |number: &u8| {
        let way = Way { user: format!("{number} as before"), secret: Secret("s".to_owned()) };
        (HostId::of(mac(*number)), way)
    };
    FoundDisk { disk: disk.parse().expect("a name"), size_mib: 64, ways: hosts.iter().map(way).collect() }
}

#[test]
fn a_vm_that_ran_on_when_its_disk_was_lost_fails_with_the_reason() {
    let (bench, boot) = restored();
    let mut all = Amid { bench, seq: 10, lost: true };
    if let Some(disk) = all.bench.rack.disks.edit(&"a-0".parse().expect("a name")) {
        (disk.ready, disk.doing) = (true, None);
    }
    // The state was lost with the disks in it; the guest is there still.
    let effects = all.bench.apply(Event::StorageFound(Vec::new()));
    all.done(effects);
    let mut ended = Vec::new();
    let mut there: &[&str] = &["a"];
    for _ in 0..120 {
        for order in all.report(1, &boot, "k1", there, &ended) {
            if matches!(order.act, proto::agent::Act::Destroy { .. }) {
                there = &[];
            }
            ended.push(order.id);
        }
    }
    assert!(!all.bench.rack.surveying() && there.is_empty());
    let vm = all.bench.rack.view(all.bench.now).vms.remove(0);
    assert!(vm.note.contains("disk a-0 is not on the storage"), "{:?}, {:?}", vm.phase, vm.note);
    assert_eq!(vm.phase, VmPhase::Failed);
}

#[test]
fn a_host_that_was_fenced_amid_the_survey_and_is_back_is_heard_whatever_the_backup_says_of_moves() {
    for moves in [false, true] {
        let (bench, boot) = restored();
        let mut all = Amid { bench, seq: 10, lost: false };
        let (a, host): (proto::VmId, _) = ("a".parse().expect("a name"), HostId::of(mac(1)));
        if moves {
            // The backup was taken amid a move of a.
            let id = proto::MoveId(1);
            let mut record =
                crate::record::MoveRecord::begun(id, a.clone(), (host.clone(), HostId::of(mac(3))), Epoch(2), 0);
            record.view.phase = proto::view::MovePhase::Copying;
            all.bench.rack.moves.put(record);
            all.bench.rack.set_owner(&a, &host, Epoch(2));
            let record = all.bench.rack.vms.edit(&a).expect("it is there");
            (record.phase, record.r#move) = (VmPhase::Moving, Some(id));
        }
        // After it b was made there.
        let beats = proto::heartbeat::DISK;
        let found = vec![found_of("a-0", &[1]), found_of("b-0", &[1]), found_of(beats, &[1, 2])];
        let effects = all.bench.apply(Event::StorageFound(found));
        all.done(effects);
        // The first host can be reached by nobody for a minute. The second lives, and has yet to report.
        for counter in 1..60 {
            all.bench.after(1000);
            let slot = |number: u8, counter| Slot { host: HostId::of(mac(number)), boot: "b".to_owned(), counter };
            let slots = vec![(0, slot(1, 7)), (1, slot(2, counter))];
            let read_mono_ms = all.bench.now.mono_ms;
            let effects = all.bench.apply(Event::Heartbeats { read_mono_ms, slots });
            all.done(effects);
            let effects = all.bench.apply(Event::Tick);
            all.done(effects);
        }
        let fence = |all: &Amid| all.bench.rack.hosts.get(&host).expect("it is there").fence;
        assert_eq!(fence(&all), Some(Fence::Done));
        // It is back, and says what it has, before the other does.
        for _ in 0..3 {
            all.report(1, &boot, "k1", &["b"], &[]);
        }
        assert!(all.bench.rack.surveying());
        all.report(2, "second", "k2", &[], &[]);
        assert!(!all.bench.rack.surveying(), "{:?}", all.bench.rack.survey_note());
        let known = all.bench.rack.vms.contains(&"b".parse().expect("a name"));
        assert!(known, "moves {moves}: b is lost, though its host has told of it; its fence is {:?}", fence(&all));
    }
}

#[test]
fn a_heartbeat_disk_that_was_lost_is_made_anew_also_after_a_restart_amid() {
    let (mut bench, _) = restored();
    let name: DiskId = proto::heartbeat::DISK.parse().expect("a name");
    let disk = bench.rack.disks.get(&"a-0".parse().expect("a name")).expect("it is kept").clone();
    // The server was started again while it was being made.
    bench.rack.disks.put(DiskRecord {
        name: name.clone(),
        vm: None,
        ready: false,
        doing: Some(DiskDoing::Create),
        ..disk
    });
    let mut all = Amid { bench, seq: 10, lost: false };
    let effects = all.bench.apply(Event::StorageFound(found(&["a-0"])));
    all.done(effects);
    // The host is dead.
    for _ in 0..200 {
        all.bench.after(1000);
        if all.bench.rack.disks.get(&name).is_some_and(|disk| disk.ready) {
            let read_mono_ms = all.bench.now.mono_ms;
            let effects = all.bench.apply(Event::Heartbeats { read_mono_ms, slots: Vec::new() });
            all.done(effects);
        }
        let effects = all.bench.apply(Event::Tick);
        all.done(effects);
    }
    assert!(!all.bench.rack.surveying(), "{:?}", all.bench.rack.survey_note());
}
