//! Orders, refusals, trying again, asking; and that no password is seen.

use super::*;
use crate::event::{Command, Event};
use crate::record::{Key, Kind, Loaded, Record};
use crate::testing::{BMC_PASSWORD, Bench, alive, ipmi, mac, policy};
use proto::agent::Secret;
use proto::api::Accepted;
use proto::power::{OrderPower, SetBmc};
use proto::vm::VmSpec;

fn redfish() -> SetBmc {
    SetBmc { kind: BmcKind::Redfish, ..ipmi() }
}

/// A rack with one host that is up, and the power jobs that were given out.
struct Powered {
    bench: Bench,
    host: HostId,
    jobs: Vec<(u64, PowerOp)>,
}

impl Powered {
    fn with(bmc: SetBmc) -> Self {
        let mut bench = Bench::new(policy());
        let nonce = bench.boot(mac(1), "k1", 1);
        let host = HostId::of(mac(1));
        let (_, _) = bench.report(mac(1), "k1", alive(&nonce, 1));
        let mut powered = Self { bench, host, jobs: Vec::new() };
        powered.ask(Command::SetBmc { host: powered.host.clone(), request: bmc }).expect("it may be set");
        // What it says when it is asked for the first time.
        powered.ends(Ok(PowerState::On));
        powered
    }

    fn take(&mut self, effects: Vec<Effect>) -> Option<Answer> {
        let mut answer = None;
        for effect in effects {
            match effect {
                Effect::Power { job, op, .. } => self.jobs.push((job, op)),
                Effect::Answer { answer: told, .. } => answer = Some(told),
                _ => {}
            }
        }
        answer
    }

    fn ask(&mut self, command: Command) -> Result<Accepted, Refusal> {
        let (_, effects) = self.bench.ask(|reply| Event::Operator { reply, command });
        match self.take(effects) {
            Some(Answer::Operator(Ok(Reply::Accepted(accepted)))) => Ok(accepted),
            Some(Answer::Operator(Err(refusal))) => Err(refusal),
            other => panic!("answered by {other:?}"),
        }
    }

    fn order(&mut self, verb: PowerVerb) -> Result<Accepted, Refusal> {
        self.ask(Command::OrderPower { host: self.host.clone(), request: OrderPower { verb, network: false } })
    }

    fn tick(&mut self, ms: u64) {
        let effects = self.bench.after(ms).apply(Event::Tick);
        self.take(effects);
    }

    /// The one job under way ends.
    fn ends(&mut self, result: Result<PowerState, PowerWhy>) -> PowerOp {
        assert_eq!(self.jobs.len(), 1, "{:?}", self.jobs);
        let (job, op) = self.jobs.remove(0);
        let result = match result {
            Ok(state) => Ok(PowerAnswer { state, certificate: Some("c".repeat(64)) }),
            Err(why) => Err(PowerFailure { why, text: "BMC 10.9.9.9: no".to_owned() }),
        };
        let host = self.host.clone();
        let effects = self.bench.apply(Event::PowerDone { job, host, result });
        self.take(effects);
        op
    }

    fn view(&self) -> PowerView {
        let view = self.bench.rack.view(self.bench.now);
        view.hosts.into_iter().find(|h| h.id == self.host).and_then(|h| h.power).expect("it has a controller")
    }

    fn stage(&self) -> PowerStage {
        self.view().order.expect("an order").stage
    }

    /// The same rack after a restart of the server.
    fn restarted(&mut self) {
        let record = Record::Host(self.bench.rack.hosts.get(&self.host).expect("it is there").clone());
        let text = serde_json::to_string(&record).expect("plain data");
        let key = Key { kind: Kind::Host, name: self.host.to_string() };
        let record = serde_json::from_str(&text).expect("as it was written");
        let kept = vec![Loaded { key, version: 1, record }];
        let (rack, effects) = Rack::restore(policy(), kept, self.bench.now).expect("what was kept");
        self.bench.rack = rack;
        self.jobs.clear();
        self.take(effects);
        self.tick(1000);
    }

    /// A VM that this host runs by its record.
    fn give_vm(&mut self) {
        let rack = &mut self.bench.rack;
        rack.vms.put(crate::record::VmRecord {
            spec: VmSpec {
                name: "web".parse().expect("a name"),
                memory_mib: 96,
                vcpus: 1,
                boot: proto::vm::Boot::Kernel { kernel: "a".repeat(64), initrd: None, cmdline: String::new() },
                disks: Vec::new(),
                vifs: Vec::new(),
            },
            owner: Some(self.host.clone()),
            epoch: proto::Epoch(1),
            phase: proto::view::VmPhase::Running,
            r#move: None,
            doing: None,
            order: None,
            run: true,
            since_ms: 0,
            note: String::new(),
            moved: None,
            restart: Default::default(),
            delayed_until_ms: None,
            crashed_on: None,
        });
        rack.owned.entry(self.host.clone()).or_default().insert("web".parse().expect("a name"));
    }
}

#[test]
fn an_order_is_kept_done_and_logged() {
    let mut one = Powered::with(ipmi());
    assert!(one.bench.rack.usable(&one.host));
    assert_eq!(one.order(PowerVerb::Off), Ok(Accepted::Begun));
    assert_eq!((one.stage(), one.jobs.len()), (PowerStage::Doing, 1));
    assert!(!one.bench.rack.usable(&one.host), "nothing is placed where the power is about to go");
    assert_eq!(one.order(PowerVerb::Off), Ok(Accepted::Begun), "asked again");
    assert_eq!(one.order(PowerVerb::On), Err(Refusal::PowerUnderWay { host: one.host.clone() }));
    assert_eq!(one.ends(Ok(PowerState::Off)), PowerOp::Off);
    assert_eq!((one.stage(), one.view().state), (PowerStage::Done, PowerState::Off));
    assert!(!one.bench.rack.usable(&one.host), "it is off, though it has reported a moment ago");
    let log: Vec<String> = one.bench.rack.events(0, 1000).into_iter().map(|e| e.text).collect();
    for said in ["power off was ordered", "power off is done"] {
        assert!(log.iter().any(|line| line.contains(said)), "{said}: {log:?}");
    }
}

#[test]
fn a_host_with_guests_is_not_switched_off() {
    let mut one = Powered::with(ipmi());
    one.give_vm();
    for verb in [PowerVerb::Off, PowerVerb::Cycle] {
        assert_eq!(one.order(verb), Err(Refusal::HostHasVms { host: one.host.clone(), count: 1 }));
    }
    assert_eq!(one.order(PowerVerb::On), Ok(Accepted::Begun), "that hurts nobody");
    one.ends(Ok(PowerState::On));
    // Being fenced it is left alone; once that is done its guests are elsewhere.
    let fence =
        |one: &mut Powered, fence| one.bench.rack.hosts.edit(&one.host).expect("it is there").fence = Some(fence);
    fence(&mut one, crate::record::Fence::Cutting);
    assert_eq!(one.order(PowerVerb::Off), Err(Refusal::HostFenced { host: one.host.clone() }));
    fence(&mut one, crate::record::Fence::Done);
    assert_eq!(one.order(PowerVerb::Off), Ok(Accepted::Begun));
}

/// Between two tries a guest has begun to run there: the second try is not made.
#[test]
fn a_guest_that_came_meanwhile_ends_the_order() {
    let mut one = Powered::with(ipmi());
    assert_eq!(one.order(PowerVerb::Off), Ok(Accepted::Begun));
    one.ends(Err(PowerWhy::Unreached));
    one.give_vm();
    one.tick(2000);
    assert_eq!((one.stage(), one.jobs.len()), (PowerStage::Failed, 0));
    assert!(one.view().order.expect("an order").cause.contains("still has 1 VMs"));
}

#[test]
fn what_cannot_be_reached_is_tried_five_times() {
    let mut one = Powered::with(ipmi());
    assert_eq!(one.order(PowerVerb::On), Ok(Accepted::Begun));
    for wait_ms in [2000, 4000, 8000, 16_000] {
        one.ends(Err(PowerWhy::Unreached));
        assert_eq!(one.stage(), PowerStage::Asked);
        one.tick(wait_ms - 1);
        assert!(one.jobs.is_empty(), "before {wait_ms} ms are over");
        one.tick(1000);
        assert_eq!(one.stage(), PowerStage::Doing);
    }
    one.ends(Err(PowerWhy::Unreached));
    let order = one.view().order.expect("an order");
    assert_eq!((order.stage, order.tries, order.cause.as_str()), (PowerStage::Failed, 5, "BMC 10.9.9.9: no"));
    assert_eq!(one.order(PowerVerb::On), Ok(Accepted::Begun), "a new one may be given");
}

#[test]
fn what_no_trying_mends_ends_at_once() {
    for why in [PowerWhy::Login, PowerWhy::Certificate, PowerWhy::Unable] {
        let mut one = Powered::with(ipmi());
        assert_eq!(one.order(PowerVerb::On), Ok(Accepted::Begun));
        one.ends(Err(why));
        assert_eq!(one.stage(), PowerStage::Failed, "{why:?}");
        // Asking by itself would lock the account.
        one.tick(3_600_000);
        assert!(one.jobs.is_empty(), "{why:?}");
        assert!(one.view().failing_since_ms.is_some());
    }
}

#[test]
fn a_cycle_is_off_confirmed_then_on() {
    let mut one = Powered::with(ipmi());
    assert_eq!(one.order(PowerVerb::Cycle), Ok(Accepted::Begun));
    assert_eq!(one.ends(Ok(PowerState::Off)), PowerOp::Off);
    assert!(matches!(one.ends(Ok(PowerState::On)), PowerOp::On { network: None, .. }));
    assert_eq!(one.stage(), PowerStage::Done);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut one = Powered::with(ipmi());
    assert_eq!(one.order(PowerVerb::Cycle), Ok(Accepted::Begun));
    one.restarted();
    assert_eq!(one.ends(Ok(PowerState::Off)), PowerOp::Off, "told again: it asks what is so first");
    one.restarted();
    assert!(matches!(one.ends(Ok(PowerState::On)), PowerOp::On { .. }), "it is not switched off a second time");
    assert_eq!((one.stage(), one.view().order.expect("an order").ended_ms.is_some()), (PowerStage::Done, true));
}

#[test]
fn tries_are_counted_over_restarts() {
    let mut one = Powered::with(ipmi());
    assert_eq!(one.order(PowerVerb::On), Ok(Accepted::Begun));
    for _ in 1..TRIES_MAX {
        one.restarted();
    }
    one.ends(Err(PowerWhy::Unreached));
    assert_eq!(one.stage(), PowerStage::Failed);
}

#[test]
fn controllers_are_asked_now_and_then() {
    let mut one = Powered::with(ipmi());
    one.tick(ASK_MS - 1000);
    assert!(one.jobs.is_empty());
    one.tick(1000);
    assert_eq!(one.ends(Err(PowerWhy::Unreached)), PowerOp::State);
    let since = one.view().failing_since_ms;
    assert!(since.is_some() && one.view().state == PowerState::Unknown);
    one.tick(ASK_FAILING_MS);
    one.ends(Err(PowerWhy::Unreached));
    assert_eq!(one.view().failing_since_ms, since, "since the first time");
    one.tick(ASK_FAILING_MS);
    one.ends(Ok(PowerState::Off));
    let view = one.view();
    assert_eq!((view.state, view.failing_since_ms, view.failure.as_str()), (PowerState::Off, None, ""));
}

#[test]
fn no_more_controllers_are_asked_at_once_than_is_modest() {
    let mut one = Powered::with(ipmi());
    for n in 10..40 {
        let request = proto::api::RegisterHost { mac: mac(n), name: None };
        one.ask(Command::RegisterHost(request)).expect("a new one");
        one.ask(Command::SetBmc { host: HostId::of(mac(n)), request: ipmi() }).expect("it may be set");
    }
    assert_eq!(one.jobs.len(), ASKED_AT_ONCE);
    for n in 10..40 {
        let order = OrderPower { verb: PowerVerb::On, network: true };
        let begun = one.ask(Command::OrderPower { host: HostId::of(mac(n)), request: order });
        assert_eq!(begun, Ok(Accepted::Begun));
    }
    assert_eq!(one.jobs.len(), JOBS_AT_ONCE);
}

#[test]
fn the_first_certificate_is_the_one() {
    let mut one = Powered::with(redfish());
    assert_eq!(one.view().trust, "c".repeat(64));
    let trust = |one: &Powered| match &one.bench.rack.hosts.get(&one.host).expect("it is there").bmc {
        Some(Bmc::Redfish { trust, .. }) => trust.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(trust(&one), Trust::Pinned("c".repeat(64)));
    // The same controller with another password keeps its pin; another one does not.
    let request = SetBmc { password: Some(Secret("other".to_owned())), ..redfish() };
    one.ask(Command::SetBmc { host: one.host.clone(), request }).expect("it may be set");
    assert_eq!(trust(&one), Trust::Pinned("c".repeat(64)));
    let request = SetBmc { address: Some("10.9.9.10".to_owned()), ..redfish() };
    one.ask(Command::SetBmc { host: one.host.clone(), request }).expect("it may be set");
    assert_eq!(trust(&one), Trust::First);
    for (given, kept) in [("any", Trust::Any), (&"AB:".repeat(32)[..95], Trust::Pinned("ab".repeat(32)))] {
        let request = SetBmc { trust: Some(given.to_owned()), ..redfish() };
        one.ask(Command::SetBmc { host: one.host.clone(), request }).expect("it may be set");
        assert_eq!(trust(&one), kept);
    }
}

#[test]
fn a_machine_that_is_only_woken() {
    let wake = SetBmc { kind: BmcKind::Wake, address: None, user: String::new(), password: None, ..ipmi() };
    let mut bench = Bench::new(policy());
    bench.operator(Command::RegisterHost(proto::api::RegisterHost { mac: mac(1), name: None })).expect("a new one");
    let mut one = Powered { bench, host: HostId::of(mac(1)), jobs: Vec::new() };
    one.ask(Command::SetBmc { host: one.host.clone(), request: wake }).expect("it may be set");
    assert!(one.jobs.is_empty(), "nobody answers");
    assert_eq!(one.view().address, "10.77.0.255");
    for verb in [PowerVerb::Off, PowerVerb::Cycle] {
        assert!(matches!(one.order(verb), Err(Refusal::BmcCannot { kind: BmcKind::Wake, .. })));
    }
    assert!(one.bench.rack.make_certainly_off(&one.host, one.bench.now).is_err());
    assert_eq!(one.order(PowerVerb::On), Ok(Accepted::Begun));
    let op = one.ends(Ok(PowerState::Unknown));
    assert_eq!(op, PowerOp::On { network: None, mac: mac(1), broadcast: Ipv4Addr::new(10, 77, 0, 255) });
    assert_eq!(one.stage(), PowerStage::Done);
}

/// What a fence asks for goes over an operator's order and over guests, and is confirmed only by the controller.
#[test]
fn certainly_off() {
    let mut one = Powered::with(ipmi());
    one.give_vm();
    assert_eq!(one.bench.rack.certainly_off(&one.host), CertainlyOff::NotAsked);
    one.order(PowerVerb::On).expect("it may");
    one.bench.rack.make_certainly_off(&one.host, one.bench.now).expect("it has a controller");
    one.bench.rack.make_certainly_off(&one.host, one.bench.now).expect("it has a controller");
    let effects = one.bench.rack.flush();
    one.take(effects);
    // The order that was overtaken ends, and means nothing any more.
    let (overtaken, _) = one.jobs.remove(0);
    let host = one.host.clone();
    let result = Ok(PowerAnswer { state: PowerState::On, certificate: None });
    one.bench.apply(Event::PowerDone { job: overtaken, host, result });
    assert_eq!(one.bench.rack.certainly_off(&one.host), CertainlyOff::UnderWay);
    one.restarted();
    assert_eq!(one.bench.rack.certainly_off(&one.host), CertainlyOff::UnderWay);
    assert_eq!(one.ends(Ok(PowerState::Off)), PowerOp::Off);
    let at_ms = one.bench.now.unix_ms;
    assert_eq!(one.bench.rack.certainly_off(&one.host), CertainlyOff::Confirmed { at_ms });
    one.bench.rack.make_certainly_off(&one.host, one.bench.now).expect("it has a controller");
    let effects = one.bench.rack.flush();
    one.take(effects);
    one.ends(Err(PowerWhy::Login));
    assert!(matches!(one.bench.rack.certainly_off(&one.host), CertainlyOff::Failed { .. }));
}

#[test]
fn what_may_be_a_controller() {
    let field = |request: SetBmc| match bmc_of(request, None, None) {
        Err(Refusal::BadValue { field, given, .. }) => {
            assert!(!given.contains("hunter2"), "{given}");
            field
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(field(SetBmc { address: Some("-oops".to_owned()), ..ipmi() }), "address");
    assert_eq!(field(SetBmc { address: None, ..ipmi() }), "address");
    assert_eq!(field(SetBmc { user: String::new(), ..ipmi() }), "user");
    assert_eq!(field(SetBmc { user: "x".repeat(17), ..ipmi() }), "user");
    assert_eq!(field(SetBmc { user: "a:b".to_owned(), ..redfish() }), "user");
    assert_eq!(field(SetBmc { password: None, ..ipmi() }), "password");
    assert_eq!(field(SetBmc { password: Some(Secret("hunter2".repeat(3))), ..ipmi() }), "password");
    assert_eq!(field(SetBmc { password: Some(Secret("hunter2\n".to_owned())), ..redfish() }), "password");
    assert_eq!(field(SetBmc { trust: Some("any".to_owned()), ..ipmi() }), "trust, system");
    assert_eq!(field(SetBmc { trust: Some("abc".to_owned()), ..redfish() }), "trust");
    assert_eq!(field(SetBmc { kind: BmcKind::Wake, ..ipmi() }), "user");
    let told = Some(std::net::IpAddr::from([10, 1, 2, 3]));
    let kept = bmc_of(SetBmc { address: None, ..ipmi() }, None, told).expect("the inventory told it");
    assert!(matches!(&kept, Bmc::Ipmi { address, .. } if address == "10.1.2.3"));
    let again = bmc_of(SetBmc { address: None, password: None, ..ipmi() }, Some(&kept), told);
    assert_eq!(again, Ok(kept.clone()), "the password is kept");
    let other = SetBmc { user: "root".to_owned(), password: None, ..ipmi() };
    assert!(bmc_of(other, Some(&kept), told).is_err(), "a password is for one account");
}

#[test]
fn a_password_is_in_the_record_alone() {
    let mut one = Powered::with(redfish());
    one.order(PowerVerb::Off).expect("it may");
    one.ends(Err(PowerWhy::Login));
    let seen = format!("{:?} {:?}", one.bench.rack.view(one.bench.now), one.bench.rack.events(0, 1000));
    let (_, effects) = one.bench.ask(|reply| Event::Operator {
        reply,
        command: Command::OrderPower {
            host: one.host.clone(),
            request: OrderPower { verb: PowerVerb::On, network: false },
        },
    });
    for text in [seen, format!("{effects:?}")] {
        assert!(!text.contains(BMC_PASSWORD), "{text}");
    }
    let kept = one.bench.rack.hosts.get(&one.host).and_then(|record| record.bmc.clone()).expect("it is kept");
    let kept = serde_json::to_string(&kept).expect("plain data");
    assert!(kept.contains(BMC_PASSWORD), "the store must have it");
}
