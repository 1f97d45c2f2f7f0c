//! What the operator's policy does to where VMs start, and when plans are made. Plans themselves are tested in `balancer/`.

use crate::effect::{Answer, Effect};
use crate::event::{Command, Event};
use crate::policy::{Balancing, Policy};
use crate::testing::{Bench, alive, domain, mac, policy};
use balancer::{Ask, HostSelector, Rule, VmSelector};
use proto::HostId;
use proto::agent::{Act, DomainState, Done, OrderOutcome, Part, Report};
use proto::api::CreateVm;

fn create(name: &str) -> CreateVm {
    CreateVm { start: true, ..CreateVm::new(name.parse().expect("a name"), "tiny") }
}

/// Two hosts that report; VMs `a` and `b` are to start where the rules let them.
fn started(rules: Vec<Rule>) -> [Option<HostId>; 2] {
    let mut bench = Bench::new(Policy { balancing: Balancing { rules, ..Balancing::default() }, ..policy() });
    let boots = [bench.boot(mac(1), "k1", 1), bench.boot(mac(2), "k2", 2)];
    bench.report(mac(1), "k1", alive(&boots[0], 1));
    bench.report(mac(2), "k2", alive(&boots[1], 1));
    for name in ["a", "b"] {
        let (_, effects) = bench.ask(|reply| Event::Operator { reply, command: Command::CreateVm(create(name)) });
        for effect in effects {
            if let Effect::Storage { job, .. } = effect {
                bench.apply(Event::StorageDone { job, result: Ok(()) });
            }
        }
    }
    let owners: Vec<_> = bench.rack.view(bench.now).vms.into_iter().map(|vm| vm.owner).collect();
    owners.try_into().expect("two VMs")
}

fn rule(ask: Ask) -> Vec<Rule> {
    vec![Rule { name: "r".to_owned(), strict: true, ask }]
}

#[test]
fn rules_say_where_a_vm_starts() {
    let vms = |names: [&str; 2]| VmSelector {
        names: names.iter().map(|name| name.parse().expect("a name")).collect(),
        ..VmSelector::default()
    };
    for last in [1, 2] {
        let only = HostId::of(mac(last));
        let hosts = HostSelector { names: [only.clone()].into(), ..HostSelector::default() };
        let owners = started(rule(Ask::On { vms: vms(["a", "b"]), hosts }));
        assert_eq!(owners, [Some(only.clone()), Some(only)]);
    }
    let [a, b] = started(rule(Ask::Apart { vms: vms(["a", "b"]) }));
    assert!(a.is_some() && b.is_some() && a != b, "{a:?} {b:?}");
    let [a, b] = started(rule(Ask::Together { vms: vms(["a", "b"]) }));
    assert!(a.is_some() && a == b, "{a:?} {b:?}");
}

#[test]
fn an_overloaded_host_is_planned_for_at_once() {
    let mut bench = Bench::new(Policy { balance_ms: 86_400_000, ..policy() });
    let boots = [bench.boot(mac(1), "k1", 1), bench.boot(mac(2), "k2", 2)];
    let loaded = |seq: u64, cores: f64| {
        let mut report = alive(&boots[0], seq);
        report.domains = ["a", "b"].map(|vm| domain(vm, 1, DomainState::Running, Part::Resident)).into();
        report.domains.iter_mut().for_each(|domain| domain.cpu_cores = cores);
        report
    };
    bench.report(mac(1), "k1", alive(&boots[0], 1));
    for name in ["a", "b"] {
        let on = Rule {
            name: "here".to_owned(),
            strict: true,
            ask: Ask::On {
                vms: VmSelector { names: [name.parse().expect("a name")].into(), ..VmSelector::default() },
                hosts: HostSelector { names: [HostId::of(mac(1))].into(), ..HostSelector::default() },
            },
        };
        bench.rack.policy.balancing.rules = vec![on];
        let (_, effects) = bench.ask(|reply| Event::Operator { reply, command: Command::CreateVm(create(name)) });
        for effect in effects {
            if let Effect::Storage { job, .. } = effect {
                for effect in bench.apply(Event::StorageDone { job, result: Ok(()) }) {
                    if let Effect::Storage { job, .. } = effect {
                        bench.apply(Event::StorageDone { job, result: Ok(()) });
                    }
                }
            }
        }
    }
    bench.rack.policy.balancing.rules.clear();
    let (mut seq, mut outcomes) = (1, Vec::new());
    // What the log says after so many seconds of this load.
    let mut pass = |bench: &mut Bench, seconds: u64, cores: f64| {
        for _ in 0..seconds {
            seq += 1;
            let mut effects = bench.after(1000).apply(Event::Tick);
            let report = Report { outcomes: std::mem::take(&mut outcomes), ..loaded(seq, cores) };
            effects.extend(bench.report(mac(1), "k1", report).1);
            // Both start as they are told; a move is only to begin.
            outcomes = starts(&effects);
            bench.report(mac(2), "k2", alive(&boots[1], seq));
        }
        let said: Vec<String> = bench.rack.events(0, usize::MAX).into_iter().map(|event| event.text).collect();
        (said, bench.rack.moves.values().count())
    };
    let (calm, before) = pass(&mut bench, 60, 0.5);
    assert!(!calm.iter().any(|said| said.contains("overloaded")), "{calm:?}");
    let (hot, moves) = pass(&mut bench, 60, 1.95);
    let times = hot.iter().filter(|said| said.contains("is overloaded: 98 % of its processors")).count();
    assert_eq!(times, 1, "load that stays triggers once: {hot:?}");
    assert!(moves > before, "nothing was moved: {hot:?}");
}

fn starts(effects: &[Effect]) -> Vec<OrderOutcome> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Answer { answer: Answer::Report(Ok(answer)), .. } => Some(&answer.orders),
        _ => None,
    });
    let starts = answers.flatten().filter(|order| matches!(order.act, Act::Start { .. }));
    starts.map(|order| OrderOutcome { id: order.id, result: Ok(Done::Ok) }).collect()
}
