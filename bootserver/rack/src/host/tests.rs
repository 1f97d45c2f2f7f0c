//! Machines on their way up, and what they are told.

use crate::dhcp::{BootRequest, MessageKind};
use crate::effect::{Answer, Effect, JoinDecision, ScriptRefusal, StorageOp};
use crate::event::{BootFile, Command, Entropy, Event, ListedHost, ScriptKind};
use crate::host::UNKNOWN_HOSTS_MAX;
use crate::policy::{AcceptRule, JoinMode, Policy};
use crate::record::{Key, Kind, Loaded, Record};
use crate::testing::{Bench, alive, answer_to, ipxe, mac, nonce, policy, yiaddr};
use expect_test::{Expect, expect};
use proto::agent::{Act, JoinRefusal, JoinRequest, ReportAnswer};
use proto::api::{CreateVm, DescribeHost, Refusal, RegisterHost};
use proto::host::Inventory;
use proto::view::{BootStepKind, HostState};
use proto::{HostId, Mac};
use std::net::Ipv4Addr;

fn with_join(join: JoinMode) -> Policy {
    Policy { join, ..policy() }
}

fn state(bench: &Bench, mac: Mac) -> Option<HostState> {
    bench.rack.view(bench.now).hosts.iter().find(|host| host.mac == mac).map(|host| host.state)
}

fn refused(decision: JoinDecision) -> JoinRefusal {
    match decision {
        JoinDecision::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn answered(answer: Option<Answer>) -> Option<Result<ReportAnswer, JoinRefusal>> {
    answer.map(|answer| match answer {
        Answer::Report(answer) => answer,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_lease_is_durable_before_its_ack() {
    let mut bench = Bench::new(policy());
    let mut request = BootRequest::plain(mac(1), 1, MessageKind::Discover);
    ipxe(&mut request);
    let (_, offered) = bench.ask(|reply| Event::Dhcp { reply, request: request.clone() });
    let lease = |effect: &Effect| matches!(effect, Effect::Commit(change) if change.key.kind == Kind::Lease);
    assert!(!offered.iter().any(lease), "an offer is not kept");
    let offer = bench.dhcp(request.clone()).expect("an offer");
    request.kind = MessageKind::Request;
    (request.requested, request.server) = (Some(yiaddr(&offer)), Some(bench.rack.policy.subnet.server));
    let (_, acked) = bench.ask(|reply| Event::Dhcp { reply, request });
    let commit = acked.iter().position(lease).expect("a commit");
    let answer = acked.iter().position(|e| matches!(e, Effect::Answer { .. })).expect("an answer");
    assert!(commit < answer);
}

#[test]
fn a_guest_gets_a_lease_and_no_host_is_made_of_it() {
    let mut bench = Bench::new(policy());
    assert!(bench.lease(mac(9), |request| request.class = Some(b"udhcp 1.35.0".to_vec())).is_some());
    assert_eq!(state(&bench, mac(9)), None);
}

#[test]
fn a_boot_is_timed_step_by_step() {
    let mut bench = Bench::new(with_join(JoinMode::Manual));
    let rom = |request: &mut BootRequest| request.architectures = vec![0];
    let mut discover = BootRequest::plain(mac(1), 1, MessageKind::Discover);
    rom(&mut discover);
    bench.dhcp(discover);
    let address = bench.after(120).lease(mac(1), rom).expect("an address");
    let serve = |bench: &mut Bench, file, ms| {
        bench.apply(Event::Served { to: address, file, bytes: 10, bytes_total: 100 });
        bench.after(ms).apply(Event::Served { to: address, file, bytes: 100, bytes_total: 100 });
    };
    serve(&mut bench, BootFile::Loader, 300);
    assert_eq!(bench.after(1000).lease(mac(1), ipxe), Some(address), "ROM and iPXE share a lease");
    let nonce = nonce(&bench.after(200).script(mac(1), address, 1).expect("a script"));
    serve(&mut bench, BootFile::Xen, 50);
    serve(&mut bench, BootFile::Kernel, 70);
    serve(&mut bench, BootFile::Initrd, 60);
    bench.after(4_000);
    serve(&mut bench, BootFile::Image, 900);
    bench.after(12_000).join(mac(1), address, &nonce, "k");
    bench.after(5_000).operator(Command::AcceptHost { host: HostId::of(mac(1)) }).expect("accepted");
    let view = bench.rack.view(bench.now);
    let began = view.hosts[0].boot[0].at_ms;
    let steps: Vec<_> = view.hosts[0]
        .boot
        .iter()
        .map(|s| format!("{:?} at {} took {:?}", s.step, s.at_ms - began, s.took_ms))
        .collect();
    expect![[r#"
        Dhcp at 0 took Some(120)
        Loader at 120 took Some(300)
        Script at 420 took Some(1200)
        Xen at 1620 took Some(50)
        Kernel at 1670 took Some(70)
        Initrd at 1740 took Some(60)
        Linux at 1800 took Some(4000)
        Image at 5800 took Some(900)
        Start at 6700 took Some(12000)
        Join at 18700 took Some(5000)"#]]
    .assert_eq(&steps.join("\n"));
    // A new start from power-on begins a new time line.
    bench.after(60_000).lease(mac(1), rom);
    let view = bench.rack.view(bench.now);
    assert_eq!(view.hosts[0].boot.iter().map(|s| s.step).collect::<Vec<_>>(), [BootStepKind::Dhcp]);
}

/// What the operator is told of the boot of the first machine.
fn stall(bench: &mut Bench, after_ms: u64) -> String {
    bench.after(after_ms).apply(Event::Tick);
    let host = bench.rack.view(bench.now).hosts.swap_remove(0);
    assert_eq!(host.stalled, !host.note.is_empty(), "{}", host.note);
    host.note.split(':').next().unwrap_or_default().to_owned()
}

#[test]
fn a_boot_that_stands_still_says_why_once_and_goes_on() {
    let mut bench = Bench::new(with_join(JoinMode::Manual));
    let rom = |request: &mut BootRequest| request.architectures = vec![0];
    bench.operator(Command::RegisterHost(RegisterHost { mac: mac(1), name: None })).expect("registered");
    let address = bench.lease(mac(1), rom).expect("an address");
    assert_eq!(stall(&mut bench, 29_000), "");
    assert_eq!(stall(&mut bench, 1_000), "no TFTP request came after the offer");
    stall(&mut bench, 60_000);
    let told = bench.rack.events(0, 100).iter().filter(|event| event.text.contains("stands still")).count();
    assert_eq!(told, 1);
    bench.apply(Event::Served { to: address, file: BootFile::Loader, bytes: 10, bytes_total: 100 });
    assert_eq!(stall(&mut bench, 1_000), "");
    assert_eq!(stall(&mut bench, 30_000), "the loader stopped on its way");
    // Its firmware asks for the same file again and again.
    for _ in 0..5 {
        for bytes in [10, 100] {
            bench.apply(Event::Served { to: address, file: BootFile::Loader, bytes, bytes_total: 100 });
        }
    }
    assert_eq!(stall(&mut bench, 1_000), "it asked for the same loader 5 times");
    assert_eq!(bench.rack.view(bench.now).hosts[0].boot[1].again, 4);
    // A new beginning, by iPXE.
    bench.after(61_000).lease(mac(1), ipxe);
    assert_eq!(stall(&mut bench, 1_000), "");
    let nonce = nonce(&bench.script(mac(1), address, 1).expect("a script"));
    assert_eq!(stall(&mut bench, 45_000), "it has its script and fetches no image");
    bench.apply(Event::Served { to: address, file: BootFile::Image, bytes: 100, bytes_total: 100 });
    assert_eq!(stall(&mut bench, 239_000), "");
    assert_eq!(stall(&mut bench, 1_000), "its image was sent and its agent never called");
    bench.join(mac(1), address, &nonce, "k");
    bench.after(600_000).apply(Event::Tick);
    let host = bench.rack.view(bench.now).hosts.swap_remove(0);
    assert_eq!((host.stalled, host.note.as_str()), (false, "waits to be accepted"), "that is the operator's to end");
}

#[test]
fn a_loader_that_does_not_start_is_noticed_over_several_beginnings() {
    let mut bench = Bench::new(policy());
    let rom = |request: &mut BootRequest| request.architectures = vec![7];
    for round in 1..=4 {
        assert_eq!(stall_of(&bench), "", "round {round}");
        let address = bench.after(5_000).lease(mac(1), rom).expect("an address");
        bench.apply(Event::Served { to: address, file: BootFile::Loader, bytes: 100, bytes_total: 100 });
        bench.after(1_000).apply(Event::Tick);
    }
    expect!["it fetched its loader 4 times and began anew each time: Secure Boot refuses it, or it is a quirk of its firmware"]
        .assert_eq(&stall_of(&bench));
}

fn stall_of(bench: &Bench) -> String {
    bench.rack.view(bench.now).hosts.pop().map(|host| host.note).unwrap_or_default()
}

#[test]
fn strangers_that_stand_still_do_not_fill_the_log() {
    let mut bench = Bench::new(with_join(JoinMode::Manual));
    for last in 1..40 {
        let mut discover = BootRequest::plain(mac(last), 1, MessageKind::Discover);
        ipxe(&mut discover);
        bench.dhcp(discover);
    }
    bench.after(20_000).apply(Event::Tick);
    assert!(bench.rack.view(bench.now).hosts.iter().all(|host| host.stalled));
    assert_eq!(bench.rack.events(0, 1000).iter().filter(|event| event.text.contains("stands still")).count(), 1);
}

/// Commits as a store keeps them.
#[derive(Default)]
struct Kept(std::collections::BTreeMap<Key, (u64, Option<Record>)>);

impl Kept {
    fn keep(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Commit(change) = effect {
                self.0.insert(change.key.clone(), (change.expect + 1, change.to.clone()));
            }
        }
    }

    fn ask(&mut self, bench: &mut Bench, event: impl FnOnce(crate::event::ReplyTo) -> Event) -> Answer {
        let (asked, effects) = bench.ask(event);
        self.keep(&effects);
        answer_to(asked, effects).expect("this is answered at once")
    }

    /// A machine up to its script: its address and nonce.
    fn script(&mut self, bench: &mut Bench, mac: Mac) -> (Ipv4Addr, String) {
        let mut request = BootRequest::plain(mac, 1, MessageKind::Discover);
        ipxe(&mut request);
        let offer = self.ask(bench, |reply| Event::Dhcp { reply, request: request.clone() });
        let Answer::Dhcp(Some(offer)) = offer else { panic!("an offer") };
        let from = yiaddr(&offer);
        request.kind = MessageKind::Request;
        (request.requested, request.server) = (Some(from), Some(bench.rack.policy.subnet.server));
        self.ask(bench.after(50), |reply| Event::Dhcp { reply, request });
        let (kind, entropy) = (ScriptKind::IpxeBios, Entropy([1; 32]));
        let script = self.ask(bench.after(50), |reply| Event::Script { reply, mac, from, kind, entropy });
        let Answer::Script(Ok(script)) = script else { panic!("a script") };
        (from, nonce(&script))
    }

    fn restart(self, bench: &mut Bench, policy: Policy) {
        let loaded = |(key, (version, record)): (_, (_, Option<_>))| Some(Loaded { key, version, record: record? });
        let records = self.0.into_iter().filter_map(loaded).collect();
        bench.rack = crate::Rack::restore(policy, records, bench.now).expect("what was kept").0;
    }
}

#[test]
fn a_time_line_outlives_the_server() {
    let (mut bench, mut kept) = (Bench::new(with_join(JoinMode::Manual)), Kept::default());
    let (address, _) = kept.script(&mut bench, mac(1));
    let served = |bytes| Event::Served { to: address, file: BootFile::Xen, bytes, bytes_total: 100 };
    kept.keep(&bench.after(50).apply(served(10)));
    let began = bench.now.unix_ms;
    kept.restart(bench.after(9_000), with_join(JoinMode::Manual));
    bench.apply(served(100));
    let boot = bench.rack.view(bench.now).hosts.swap_remove(0).boot;
    let xen = boot.last().expect("a step");
    assert_eq!(boot.len(), 3, "{boot:?}");
    assert_eq!((xen.at_ms, xen.took_ms, xen.bytes), (began, Some(9_000), 100));
}

#[test]
fn new_rules_let_in_who_waits_and_a_list_outlives_the_server() {
    let (mut bench, mut kept) = (Bench::new(with_join(JoinMode::Manual)), Kept::default());
    let (from, nonce) = kept.script(&mut bench, mac(1));
    let inventory = crate::testing::inventory();
    let request = JoinRequest { host: HostId::of(mac(1)), nonce, csr_pem: "CSR".to_owned(), inventory };
    let decision = kept.ask(&mut bench, |reply| Event::Join { reply, request, key: "k".to_owned(), from });
    assert!(matches!(decision, Answer::Join(JoinDecision::Waiting)));
    let command = Command::ListHosts { hosts: vec![listed(2, "S1")], replace: false };
    kept.ask(&mut bench, |reply| Event::Operator { reply, command });
    let rule = AcceptRule { cpu: Some("x".to_owned()), ..AcceptRule::default() };
    kept.restart(&mut bench, Policy { accept: vec![rule], ..with_join(JoinMode::Manual) });
    assert_ne!(state(&bench, mac(1)), Some(HostState::Waiting));
    let decision = bench.answer(|reply| Event::JoinPoll { reply, key: "k".to_owned() });
    assert!(matches!(decision, Answer::Join(JoinDecision::Issue { .. })));
    assert_eq!(bench.rack.view(bench.now).expected, 1);
}

/// Takes a machine as far as its join.
fn join_as(bench: &mut Bench, last: u8, change: impl FnOnce(&mut Inventory)) -> Option<HostState> {
    let address = bench.lease(mac(last), ipxe).expect("an address");
    let nonce = nonce(&bench.script(mac(last), address, last).expect("a script"));
    let mut inventory = crate::testing::inventory();
    change(&mut inventory);
    let request = JoinRequest { host: HostId::of(mac(last)), nonce, csr_pem: "CSR".to_owned(), inventory };
    bench.answer(|reply| Event::Join { reply, request, key: format!("k{last}"), from: address });
    state(bench, mac(last))
}

fn listed(line: usize, serial: &str) -> ListedHost {
    let labels = [("row".to_owned(), "a".to_owned())].into();
    ListedHost { line, serial: serial.to_owned(), name: Some("r-{serial}".to_owned()), labels, ..ListedHost::default() }
}

#[test]
fn machines_of_a_list_are_let_in_when_they_come() {
    let mut bench = Bench::new(with_join(JoinMode::Manual));
    // One waits already.
    assert_eq!(join_as(&mut bench, 1, |i| i.serial = "S1".to_owned()), Some(HostState::Waiting));
    let by_mac = ListedHost { line: 4, mac: Some(mac(3)), name: Some("third".to_owned()), ..ListedHost::default() };
    let hosts = vec![listed(2, "s1"), listed(3, "S2"), by_mac];
    bench.operator(Command::ListHosts { hosts, replace: false }).expect("a good list");
    assert_eq!(bench.rack.view(bench.now).expected, 1);
    assert_eq!(
        join_as(&mut bench, 2, |i| i.serial = " S2 ".to_owned()),
        Some(HostState::Booting),
        "let in; it has yet to report"
    );
    assert_eq!(join_as(&mut bench, 3, |_| ()), Some(HostState::Booting));
    assert_eq!(join_as(&mut bench, 4, |i| i.serial = "S2".to_owned()), Some(HostState::Waiting), "it came already");
    let view = bench.rack.view(bench.now);
    let shown: Vec<_> = view.hosts.iter().map(|h| format!("{} {:?}", h.name, h.labels)).collect();
    expect![[r#"
        r-S1 {"row": "a"}
        r-S2 {"row": "a"}
        third {}
        h525400aabb04 {}"#]]
    .assert_eq(&shown.join("\n"));
    assert_eq!(view.expected, 0);
}

#[test]
fn a_list_is_taken_whole_or_not_at_all() {
    let mut bench = Bench::new(policy());
    let list = |hosts| Command::ListHosts { hosts, replace: true };
    let mut check = |host: ListedHost, expected: Expect| {
        let refusal = bench.operator(list(vec![listed(2, "S1"), host])).expect_err("a bad list");
        expected.assert_eq(&refusal.to_string());
        assert_eq!(bench.rack.view(bench.now).expected, 0);
    };
    check(
        ListedHost { line: 3, ..ListedHost::default() },
        expect![[r#"line 3, uuid, serial is "", expected a MAC, a UUID or a serial number that is the machine's own"#]],
    );
    check(
        listed(3, "To be filled by O.E.M."),
        expect![[
            r#"line 3, uuid, serial is "To be filled by O.E.M.", expected a MAC, a UUID or a serial number that is the machine's own"#
        ]],
    );
    check(
        ListedHost { uuid: "ffffffff-ffff-ffff-ffff-ffffffffffff".to_owned(), ..listed(3, "") },
        expect![[
            r#"line 3, uuid, serial is "ffffffff-ffff-ffff-ffff-ffffffffffff", expected a MAC, a UUID or a serial number that is the machine's own"#
        ]],
    );
    check(
        ListedHost { mac: Some(Mac([1; 6])), ..listed(3, "S2") },
        expect![[r#"line 3, mac is "01:01:01:01:01:01", expected a machine's own address, and none of a VM"#]],
    );
    check(
        ListedHost { name: Some("\u{7}".to_owned()), ..listed(3, "S2") },
        expect![[r#"line 3, name is "\u{7}", expected 1 to 63 characters"#]],
    );
    check(
        ListedHost { labels: [("a=".to_owned(), "b".to_owned())].into(), ..listed(3, "S2") },
        expect![[
            r#"line 3, labels is "a==b", expected names and values of 1 to 63 characters, none of them control characters, and no = in a name"#
        ]],
    );
    bench.operator(list(vec![listed(1, "S1"), listed(2, "S2")])).expect("a good list");
    bench.operator(list(vec![listed(1, "S3")])).expect("another in its place");
    assert_eq!(bench.rack.view(bench.now).expected, 1);
}

#[test]
fn a_list_names_each_machine_once() {
    let mut bench = Bench::new(policy());
    let by_mac = |line, last, name: &str| ListedHost {
        line,
        mac: Some(mac(last)),
        name: Some(name.to_owned()),
        ..ListedHost::default()
    };
    let mut check = |hosts, expected: Expect| {
        let refusal = bench.operator(Command::ListHosts { hosts, replace: false }).expect_err("a bad list");
        expected.assert_eq(&refusal.to_string());
        assert_eq!(bench.rack.view(bench.now).hosts.len(), 0);
    };
    check(
        vec![by_mac(2, 1, "a"), by_mac(3, 1, "b")],
        expect![[r#"line 3, mac is "52:54:00:aa:bb:01", expected another than that of line 2"#]],
    );
    check(
        vec![by_mac(2, 1, "a"), by_mac(3, 2, "a")],
        expect![[r#"line 3, name is "a", expected a name that is free"#]],
    );
}

#[test]
fn machines_are_let_in_by_what_they_are() {
    let rule = AcceptRule { memory_mib: Some(4000), ..AcceptRule::default() };
    let labels = [("size".to_owned(), "large".to_owned())].into();
    let second =
        AcceptRule { product: Some("QE*".to_owned()), name: Some("q{n}".to_owned()), labels, ..AcceptRule::default() };
    let mut bench = Bench::new(Policy { accept: vec![rule, second], ..with_join(JoinMode::Known) });
    assert_eq!(join_as(&mut bench, 1, |i| i.memory_mib = 8192), Some(HostState::Booting));
    assert_eq!(join_as(&mut bench, 2, |i| i.memory_mib = 1), Some(HostState::Booting));
    assert_eq!(join_as(&mut bench, 3, |i| i.memory_mib = 2), Some(HostState::Booting));
    let other = |i: &mut Inventory| (i.memory_mib, i.product) = (1, "Other".to_owned());
    assert_eq!(join_as(&mut bench, 4, other), Some(HostState::Refused));
    let names: Vec<_> = bench.rack.view(bench.now).hosts.into_iter().map(|h| h.name).collect();
    assert_eq!(names, ["h525400aabb01", "q1", "q2", "h525400aabb04"]);
    let host = HostId::of(mac(1));
    let describe = |name: &str| Command::DescribeHost {
        host: host.clone(),
        request: DescribeHost {
            name: Some(name.to_owned()),
            labels: Some([("row".to_owned(), "b".to_owned())].into()),
        },
    };
    assert_eq!(bench.operator(describe("q2")).err(), Some(Refusal::NameTaken { name: "q2".to_owned() }));
    bench.operator(describe("first")).expect("a good name");
    let view = bench.rack.view(bench.now);
    assert_eq!((view.hosts[0].name.as_str(), view.hosts[0].labels["row"].as_str()), ("first", "b"));
}

#[test]
fn scripts_only_to_the_lease_and_the_same_for_a_retry() {
    let mut bench = Bench::new(policy());
    let other = "10.77.0.7".parse().expect("an address");
    assert!(matches!(bench.script(mac(1), other, 1), Err(ScriptRefusal::NoLease { .. })));
    let address = bench.lease(mac(1), ipxe).expect("an address");
    assert!(matches!(bench.script(mac(1), other, 1), Err(ScriptRefusal::OtherAddress { .. })));
    let first = bench.script(mac(1), address, 1).expect("a script");
    assert_eq!(bench.after(59_000).script(mac(1), address, 2), Ok(first.clone()), "a retry");
    assert_ne!(bench.after(2_000).script(mac(1), address, 3), Ok(first), "a new boot");
}

#[test]
fn joins() {
    let mut bench = Bench::new(with_join(JoinMode::All));
    let address = bench.lease(mac(1), ipxe).expect("an address");
    let first = nonce(&bench.script(mac(1), address, 1).expect("a script"));
    let elsewhere = "10.77.0.98".parse().expect("an address");
    assert_eq!(refused(bench.join(mac(1), address, "wrong", "k1")), JoinRefusal::NonceUnknown);
    assert_eq!(refused(bench.join(mac(1), elsewhere, &first, "k1")), JoinRefusal::NonceUnknown);
    assert_eq!(refused(bench.join(mac(2), address, &first, "k1")), JoinRefusal::NonceUnknown);
    let JoinDecision::Issue { csr_pem, address: named, .. } = bench.join(mac(1), address, &first, "k1") else {
        panic!("it is let in")
    };
    assert_eq!((csr_pem.as_str(), named), ("CSR of k1", address));
    assert!(matches!(bench.join(mac(1), address, &first, "k1"), JoinDecision::Issue { .. }), "a retry");
    assert_eq!(refused(bench.join(mac(1), address, &first, "k2")), JoinRefusal::NonceUsed);
    bench.report(mac(1), "k1", alive(&first, 1));
    assert_eq!(refused(bench.join(mac(1), address, "wrong", "k2")), JoinRefusal::AlreadyActive);

    // A script alone changes nothing for the boot that runs; the join of the newer boot ends it.
    let second = nonce(&bench.after(61_000).script(mac(1), address, 2).expect("a script"));
    let (asked, effects) = bench.report(mac(1), "k1", alive(&first, 2));
    assert_eq!(answered(answer_to(asked, effects)), None, "held");
    assert!(matches!(bench.join(mac(1), address, &second, "k3"), JoinDecision::Issue { .. }));
    let (asked, effects) = bench.report(mac(1), "k1", alive(&first, 3));
    assert_eq!(answered(answer_to(asked, effects)), Some(Err(JoinRefusal::AlreadyActive)));
    let (asked, effects) = bench.report(mac(1), "k3", alive(&first, 4));
    assert_eq!(answered(answer_to(asked, effects)), Some(Err(JoinRefusal::NonceUnknown)), "an older boot's report");
    let (asked, effects) = bench.report(mac(1), "k3", alive(&second, 1));
    assert_eq!(answered(answer_to(asked, effects)), None, "held");
    assert_eq!(state(&bench, mac(1)), Some(HostState::Active));
}

#[test]
fn who_is_let_in() {
    let poll = |bench: &mut Bench| match bench.answer(|reply| Event::JoinPoll { reply, key: "k".to_owned() }) {
        Answer::Join(decision) => decision,
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::new(with_join(JoinMode::Manual));
    bench.boot(mac(1), "k", 1);
    assert_eq!(state(&bench, mac(1)), Some(HostState::Waiting));
    assert!(matches!(poll(&mut bench), JoinDecision::Waiting));
    bench.operator(Command::AcceptHost { host: HostId::of(mac(1)) }).expect("accepted");
    assert!(matches!(poll(&mut bench), JoinDecision::Issue { .. }));

    let mut bench = Bench::new(with_join(JoinMode::Known));
    bench.boot(mac(1), "k", 1);
    assert_eq!(refused(poll(&mut bench)), JoinRefusal::NotKnown);
    assert_eq!(state(&bench, mac(1)), Some(HostState::Refused));
    bench.operator(Command::RegisterHost(RegisterHost { mac: mac(1), name: Some("one".to_owned()) })).expect("new");
    assert!(matches!(poll(&mut bench), JoinDecision::Issue { .. }), "registered after all");

    // Removed: its certificate is good for nothing, and it is a stranger when it boots again.
    bench.operator(Command::RemoveHost { host: HostId::of(mac(1)) }).expect("removed");
    let (asked, effects) = bench.report(mac(1), "k", alive("x", 1));
    assert_eq!(answered(answer_to(asked, effects)), Some(Err(JoinRefusal::Removed)));
    assert!(matches!(refused(poll(&mut bench)), JoinRefusal::NonceUnknown));
}

#[test]
fn reports_are_held_until_there_is_something_to_say() {
    let mut bench = Bench::new(policy());
    let boot = bench.boot(mac(1), "k", 1);
    let (first, effects) = bench.report(mac(1), "k", alive(&boot, 1));
    assert!(answer_to(first, effects).is_none());
    let (second, effects) = bench.after(500).report(mac(1), "k", alive(&boot, 2));
    let answer = answered(answer_to(first, effects)).expect("overtaken").expect("let in");
    assert!(answer.orders.is_empty());
    let effects = bench.after(1999).apply(Event::Tick);
    assert!(answer_to(second, effects).is_none());
    let effects = bench.after(1).apply(Event::Tick);
    assert!(answer_to(second, effects).is_some(), "report_ms is over");

    // An order goes out in the same breath in which its last condition is met.
    let (third, _) = bench.report(mac(1), "k", alive(&boot, 3));
    let create = CreateVm { start: true, ..CreateVm::new("a".parse().expect("a name"), "tiny") };
    let (_, effects) = bench.ask(|reply| Event::Operator { reply, command: Command::CreateVm(create) });
    let job = |effects: &[Effect]| {
        effects.iter().find_map(|e| match e {
            Effect::Storage { job, op } => Some((*job, op.clone())),
            _ => None,
        })
    };
    let (create, op) = job(&effects).expect("the disk is made");
    assert!(matches!(op, StorageOp::Create { size_mib: 64, .. }));
    let effects = bench.apply(Event::StorageDone { job: create, result: Ok(()) });
    let (grant, op) = job(&effects).expect("the host is let to the disk");
    assert!(matches!(op, StorageOp::Grant { .. }));
    let effects = bench.apply(Event::StorageDone { job: grant, result: Ok(()) });
    let answer = answered(answer_to(third, effects)).expect("answered at once").expect("let in");
    assert!(matches!(answer.orders.as_slice(), [order] if matches!(order.act, Act::Start { .. })));

    // Said again only when the agent does not show it, and not at once.
    let (fourth, effects) = bench.after(100).report(mac(1), "k", alive(&boot, 4));
    assert!(answer_to(fourth, effects).is_none());
    let effects = bench.after(1000).apply(Event::Tick);
    assert!(answered(answer_to(fourth, effects)).is_some_and(|a| a.is_ok_and(|a| a.orders.len() == 1)));
    let (late, effects) = bench.report(mac(1), "k", alive(&boot, 2));
    assert!(answered(answer_to(late, effects)).is_some_and(|a| a.is_ok_and(|a| a.orders.is_empty())), "overtaken");
}

#[test]
fn a_silent_host_is_lost_and_comes_back() {
    let mut bench = Bench::new(policy());
    let boot = bench.boot(mac(1), "k", 1);
    bench.report(mac(1), "k", alive(&boot, 1));
    bench.after(15_000).apply(Event::Tick);
    assert_eq!(state(&bench, mac(1)), Some(HostState::Active));
    bench.after(1).apply(Event::Tick);
    assert_eq!(state(&bench, mac(1)), Some(HostState::Lost));
    bench.after(1000).lease(mac(1), ipxe);
    assert_eq!(state(&bench, mac(1)), Some(HostState::Booting), "it asks for an address");
    bench.report(mac(1), "k", alive(&boot, 20));
    assert_eq!(state(&bench, mac(1)), Some(HostState::Active));
}

#[test]
fn a_boot_that_joins_and_never_reports_is_lost_as_well() {
    let mut bench = Bench::new(policy());
    let boot = bench.boot(mac(1), "k", 1);
    assert!(bench.rack.present(&HostId::of(mac(1))), "from its join on");
    bench.after(15_001).apply(Event::Tick);
    assert!(!bench.rack.present(&HostId::of(mac(1))));
    bench.report(mac(1), "k", alive(&boot, 1));
    bench.apply(Event::Tick);
    assert_eq!(state(&bench, mac(1)), Some(HostState::Active));
}

/// Each way to let in a machine that has waited for longer than a silent host is missed.
#[test]
fn who_has_waited_is_there_when_it_is_let_in() {
    let one = HostId::of(mac(1));
    let by_mac = || ListedHost { line: 1, mac: Some(mac(1)), ..ListedHost::default() };
    for way in [
        Command::AcceptHost { host: one.clone() },
        Command::ListHosts { hosts: vec![by_mac()], replace: false },
        Command::ListHosts { hosts: vec![listed(1, "S1")], replace: false },
    ] {
        let mut bench = Bench::new(with_join(JoinMode::Manual));
        assert_eq!(join_as(&mut bench, 1, |i| i.serial = "S1".to_owned()), Some(HostState::Waiting));
        bench.after(100_000).apply(Event::Tick);
        bench.operator(way.clone()).expect("let in");
        bench.after(1000).apply(Event::Tick);
        assert!(bench.rack.present(&one), "{way:?}");
        // Let in once more by a list: no sign of life.
        bench
            .after(15_000)
            .operator(Command::ListHosts { hosts: vec![by_mac()], replace: false })
            .expect("a good list");
        bench.apply(Event::Tick);
        assert!(!bench.rack.present(&one), "{way:?}");
    }
}

#[test]
fn strangers_are_bounded_and_known_machines_served() {
    let mut policy = policy();
    policy.subnet.prefix = 16;
    policy.subnet.pool.1 = "10.77.200.0".parse().expect("an address");
    let mut bench = Bench::new(policy);
    bench.boot(mac(1), "k", 1);
    let stranger = |n: usize| Mac([2, 1, 0, 0, (n >> 8) as u8, n as u8]);
    let served = (0..2 * UNKNOWN_HOSTS_MAX).filter(|&n| bench.lease(stranger(n), ipxe).is_some()).count();
    assert_eq!(served, UNKNOWN_HOSTS_MAX);
    assert!(bench.lease(mac(1), ipxe).is_some(), "it was let in");
    assert!(bench.rack.events(0, 10_000).len() < UNKNOWN_HOSTS_MAX * 2 + 20, "the log is not flooded");
    assert!(bench.after(601_000).lease(stranger(9999), ipxe).is_some(), "the stalest is forgotten");
}

#[test]
fn the_log_keeps_the_newest() {
    let mut bench = Bench::new(policy());
    for n in 0..11_000 {
        bench.rack.info(proto::event::Topic::Server, bench.now, format!("{n}"), |_| ());
        bench.rack.flush();
    }
    let events = bench.rack.events(0, usize::MAX);
    assert!((crate::log::EVENTS_KEPT..=crate::log::EVENTS_KEPT + 500).contains(&events.len()));
    assert_eq!(events.last().map(|e| e.text.as_str()), Some("10999"));
    assert_eq!(bench.rack.events(events[5].seq, 2), events[6..8]);
}

#[test]
fn hosts_are_registered_once() {
    let mut bench = Bench::new(policy());
    let mut check = |mac: Mac, name: Option<&str>, expect: Expect| {
        let request = RegisterHost { mac, name: name.map(str::to_owned) };
        let answer = bench.operator(Command::RegisterHost(request)).map(|_| ());
        expect.assert_eq(&answer.err().map_or("done".to_owned(), |refusal: Refusal| refusal.to_string()));
    };
    check(mac(1), Some("one"), expect!["done"]);
    check(mac(1), None, expect!["the address 52:54:00:aa:bb:01 is taken"]);
    check(mac(2), Some("one"), expect!["the name one is taken"]);
    check(
        mac(2),
        Some("a\nb"),
        expect![[r#"name is "a\nb", expected 1 to 63 characters, none of them control characters"#]],
    );
    check(Mac([1, 0, 0, 0, 0, 0]), None, expect!["the address 01:00:00:00:00:00 is taken"]);
}

#[test]
fn every_record_can_be_read_again() {
    let mut bench = Bench::new(policy());
    let boot = bench.boot(mac(1), "k", 1);
    let (_, effects) = bench.report(mac(1), "k", alive(&boot, 1));
    for effect in effects {
        if let Effect::Commit(change) = effect {
            let record = change.to.expect("nothing is removed here");
            let text = serde_json::to_string(&record).expect("written");
            assert_eq!(serde_json::from_str::<Record>(&text).expect("read"), record);
        }
    }
}

#[test]
fn a_host_that_vms_wait_for_boots_before_others() {
    let mut bench = Bench::new(Policy { boots_at_once: 1, ..policy() });
    let waits = |script: Result<String, ScriptRefusal>| script.expect("a script").contains("Waiting to boot");
    let addresses: Vec<_> = (1..=3).map(|n| bench.lease(mac(n), ipxe).expect("a lease")).collect();
    let fetched = |bench: &mut Bench, at: usize, bytes| {
        let (to, file) = (addresses[at], BootFile::Image);
        bench.apply(Event::Served { to, file, bytes, bytes_total: 100 });
    };
    assert!(!waits(bench.script(mac(1), addresses[0], 1)));
    assert!(waits(bench.script(mac(2), addresses[1], 2)));
    bench.operator(Command::RegisterHost(RegisterHost { mac: mac(3), name: None })).expect("registered");
    assert!(waits(bench.script(mac(3), addresses[2], 3)));
    fetched(&mut bench, 0, 99);
    assert!(waits(bench.script(mac(3), addresses[2], 3)), "the first is not done");
    fetched(&mut bench, 0, 100);
    assert!(waits(bench.script(mac(2), addresses[1], 2)), "the known one goes first");
    assert!(!waits(bench.script(mac(3), addresses[2], 3)));
}
