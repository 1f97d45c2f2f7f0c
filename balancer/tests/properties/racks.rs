//! Racks and policies of all kinds, small enough for collisions to be the rule.

use crate::execute::settled;
use balancer::{Ask, Goal, Host, HostSelector, HostState, Plan, Policy, Rule, Slack, Snapshot, Vm, VmSelector, plan};
use proptest::collection::vec;
use proptest::prelude::*;

fn host(i: usize) -> impl Strategy<Value = Host> {
    let state =
        prop_oneof![12 => Just(HostState::Active), 2 => Just(HostState::Draining), 1 => Just(HostState::Unusable)];
    (2u64..9, 1u32..9, state, any::<bool>(), prop::sample::select(vec![None, None, None, Some("g")])).prop_map(
        move |(gib, cores, state, avx, group)| {
            let mut host = Host::new(format!("h{i}").parse().expect("a name"), gib * 1024, f64::from(cores));
            host.state = state;
            if avx {
                host.cpu_features.insert("avx".into());
                host.labels.insert("disk".into(), "ssd".into());
            }
            host.group = group.map(str::to_owned);
            host
        },
    )
}

fn vm(i: usize) -> impl Strategy<Value = (Vm, prop::sample::Index)> {
    let kind = prop_oneof![10 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    (1u64..7, 0u32..30, kind, any::<prop::sample::Index>(), 0u32..4).prop_map(
        move |(half_gib, tenths, kind, at, class)| {
            let mut vm = Vm::new(format!("v{i}").parse().expect("a name"), half_gib * 512, 4);
            vm.cpu_cores = f64::from(tenths) / 10.0;
            vm.pinned = kind == 1;
            vm.excluded = kind == 2;
            vm.busy = kind == 3;
            vm.labels.insert("class".into(), class.to_string());
            (vm, at)
        },
    )
}

/// A rack in which every VM fits where it is.
pub(crate) fn racks() -> impl Strategy<Value = Snapshot> {
    let hosts = (1usize..6).prop_flat_map(|n| (0..n).map(host).collect::<Vec<_>>());
    let vms = (0usize..14).prop_flat_map(|n| (0..n).map(vm).collect::<Vec<_>>());
    (hosts, vms).prop_map(|(hosts, vms)| {
        let mut rack = Snapshot { at_ms: 1_000_000, sample_ms: 0, hosts, vms: Vec::new() };
        let mut free: Vec<u64> = rack.hosts.iter().map(|host| host.memory_mib).collect();
        for (mut vm, at) in vms {
            let h = at.index(rack.hosts.len());
            if free[h] >= vm.memory_mib {
                free[h] -= vm.memory_mib;
                let host = &rack.hosts[h];
                vm.host = Some(host.id.clone());
                vm.group = host.group.clone();
                // What a guest has seen is what its host has.
                if vm.memory_mib.is_multiple_of(1024) {
                    vm.cpu_features = host.cpu_features.clone();
                }
                rack.vms.push(vm);
            }
        }
        rack
    })
}

fn class(n: u32) -> VmSelector {
    VmSelector { labels: [("class".to_owned(), n.to_string())].into(), ..VmSelector::default() }
}

fn rule() -> impl Strategy<Value = (bool, Ask)> {
    let hosts = || {
        prop_oneof![
            Just(HostSelector { labels: [("disk".to_owned(), "ssd".to_owned())].into(), ..HostSelector::default() }),
            Just(HostSelector {
                names: ["h0".parse().expect("a name"), "h1".parse().expect("a name")].into(),
                ..HostSelector::default()
            }),
        ]
    };
    let ask = prop_oneof![
        (0u32..4).prop_map(|n| Ask::Together { vms: class(n) }),
        (0u32..4).prop_map(|n| Ask::Apart { vms: class(n) }),
        (0u32..4, hosts()).prop_map(|(n, hosts)| Ask::On { vms: class(n), hosts }),
        (0u32..4, hosts()).prop_map(|(n, hosts)| Ask::Off { vms: class(n), hosts }),
    ];
    (any::<bool>(), ask)
}

/// Policies with up to three rules, so that every pair of kinds comes up.
pub(crate) fn policies() -> impl Strategy<Value = Policy> {
    let goal = prop::sample::select(vec![Goal::Spread, Goal::Spread, Goal::Quiet, Goal::Pack]);
    let slack = prop::sample::select(vec![0.0, 0.0, 0.1]);
    (vec(rule(), 0..4), goal, slack, 0u32..2, 1u32..3).prop_map(|(rules, goal, slack, spare_hosts, streams)| Policy {
        goal,
        rules: rules
            .into_iter()
            .enumerate()
            .map(|(i, (strict, ask))| Rule { name: format!("r{i}"), strict, ask })
            .collect(),
        slack: vec![Slack {
            hosts: HostSelector { labels: [("disk".to_owned(), "ssd".to_owned())].into(), ..HostSelector::default() },
            share: slack,
        }],
        spare_hosts,
        streams_in_max: streams,
        streams_out_max: 1,
        ..Policy::default()
    })
}

/// Whether nothing in the rack must move whatever it costs.
pub(crate) fn calm(snapshot: &Snapshot, policy: &Policy) -> bool {
    snapshot.hosts.iter().all(|host| host.state != HostState::Draining)
        && policy.light_hosts == 0
        && plan(&settled(snapshot, &Plan::default()), &Policy { moves_max: Some(0), ..policy.clone() })
            .broken
            .iter()
            .all(|rule| !rule.strict)
        && snapshot
            .vms
            .iter()
            .all(|vm| snapshot.hosts.iter().any(|host| Some(&host.id) == vm.host.as_ref() && host.group == vm.group))
}

/// How many cases each property is tried on: `PROPTEST_CASES`, or 400.
pub(crate) fn cases() -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig::with_cases(wanted.unwrap_or(400))
}
