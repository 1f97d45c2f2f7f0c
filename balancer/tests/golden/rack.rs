//! A rack in a few lines of text, and a plan in a few lines.
//!
//! ```text
//! a 8G 4c: web 2G 1.5c, db 4G 0.5c pinned
//! b 8G 4c draining feature=avx site=north label=disk:ssd
//! ```
//! A host, its memory in GiB and cores, words about it; after the colon its VMs, parted by commas, likewise.

use balancer::{Ask, Host, HostSelector, HostState, Plan, Policy, Rule, Snapshot, Vm, VmSelector};
use expect_test::Expect;
use std::fmt::Write;

/// Plans for a rack and compares what comes out.
pub(crate) fn check(rack: &str, policy: &Policy, expected: Expect) {
    expected.assert_eq(&show(&balancer::plan(&snapshot(rack), policy)));
}

/// Reads a rack. Panics on what it does not understand, for the test is wrong then.
pub(crate) fn snapshot(rack: &str) -> Snapshot {
    let mut snapshot = Snapshot { at_ms: 1_000_000, ..Snapshot::default() };
    for line in rack.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (about, vms) = line.split_once(": ").unwrap_or((line, ""));
        let host = host(about);
        for text in vms.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let mut vm = vm(text);
            vm.host = Some(host.id.clone()).filter(|id| id.as_str() != "nowhere");
            snapshot.vms.push(vm);
        }
        if host.id.as_str() != "nowhere" {
            snapshot.hosts.push(host);
        }
    }
    snapshot
}

fn host(text: &str) -> Host {
    let mut words = text.split_whitespace();
    let mut host = Host::new(words.next().expect("a name").parse().expect("a good name"), 0, 1.0);
    for word in words {
        match (word, word.split_once('=')) {
            ("draining", _) => host.state = HostState::Draining,
            ("unusable", _) => host.state = HostState::Unusable,
            (_, Some(("feature", name))) => drop(host.cpu_features.insert(name.to_owned())),
            (_, Some(("net", name))) => drop(host.networks.insert(name.to_owned())),
            (_, Some(("storage", name))) => drop(host.storages.insert(name.to_owned())),
            (_, Some(("site", name))) => host.site = Some(name.to_owned()),
            (_, Some(("group", name))) => host.group = Some(name.to_owned()),
            (_, Some(("label", pair))) => drop(host.labels.insert(key(pair).0, key(pair).1)),
            _ if word.ends_with('G') => host.memory_mib = gib(word),
            _ if word.ends_with('c') => host.cpu_cores = cores(word),
            _ => panic!("{word:?} says nothing about a host"),
        }
    }
    host
}

fn vm(text: &str) -> Vm {
    let mut words = text.split_whitespace();
    let mut vm = Vm::new(words.next().expect("a name").parse().expect("a good name"), 0, 64);
    for word in words {
        match (word, word.split_once('=')) {
            ("pinned", _) => vm.pinned = true,
            ("excluded", _) => vm.excluded = true,
            ("busy", _) => vm.busy = true,
            ("flexible", _) => vm.flexible = true,
            (_, Some(("feature", name))) => drop(vm.cpu_features.insert(name.to_owned())),
            (_, Some(("net", name))) => drop(vm.networks.insert(name.to_owned())),
            (_, Some(("storage", name))) => drop(vm.storages.insert(name.to_owned())),
            (_, Some(("group", name))) => vm.group = Some(name.to_owned()),
            (_, Some(("priority", number))) => vm.priority = number.parse().expect("a number"),
            (_, Some(("label", pair))) => drop(vm.labels.insert(key(pair).0, key(pair).1)),
            (_, Some(("rests", ms))) => {
                vm.moved = Some(balancer::Moved { at_ms: 999_000, rest_ms: ms.parse().expect("milliseconds") });
            }
            _ if word.ends_with('G') => vm.memory_mib = gib(word),
            _ if word.ends_with('c') => vm.cpu_cores = cores(word),
            _ => panic!("{word:?} says nothing about a VM"),
        }
    }
    vm
}

fn key(pair: &str) -> (String, String) {
    let (key, value) = pair.split_once(':').expect("key:value");
    (key.to_owned(), value.to_owned())
}

fn gib(word: &str) -> u64 {
    (word.trim_end_matches('G').parse::<f64>().expect("GiB") * 1024.0) as u64
}

fn cores(word: &str) -> f64 {
    word.trim_end_matches('c').parse().expect("cores")
}

/// A plan as text.
pub(crate) fn show(plan: &Plan) -> String {
    let mut text = String::new();
    for (i, step) in plan.moves.iter().enumerate() {
        let after = step.after.iter().map(|i| (i + 1).to_string()).collect::<Vec<_>>().join(", ");
        let after = if after.is_empty() { after } else { format!(" (after {after})") };
        writeln!(text, "{}. {step}{after}", i + 1).expect("a String takes all");
    }
    for stay in &plan.stays {
        writeln!(text, "{stay}").expect("a String takes all");
    }
    for broken in &plan.broken {
        writeln!(text, "{broken}").expect("a String takes all");
    }
    for off in &plan.power_off {
        writeln!(text, "{off}").expect("a String takes all");
    }
    for remedy in &plan.remedies {
        writeln!(text, "{remedy}").expect("a String takes all");
    }
    if let Some(defect) = &plan.refused {
        writeln!(text, "refused: {defect}").expect("a String takes all");
    }
    writeln!(text, "score {:.4} -> {:.4}", plan.score_before, plan.score_after).expect("a String takes all");
    text
}

/// A policy that has these rules.
pub(crate) fn policy(rules: Vec<Rule>) -> Policy {
    Policy { rules, ..Policy::default() }
}

pub(crate) fn together(name: &str, strict: bool, vms: &[&str]) -> Rule {
    Rule { name: name.to_owned(), strict, ask: Ask::Together { vms: named(vms) } }
}

pub(crate) fn apart(name: &str, strict: bool, vms: &[&str]) -> Rule {
    Rule { name: name.to_owned(), strict, ask: Ask::Apart { vms: named(vms) } }
}

pub(crate) fn on(name: &str, strict: bool, vms: &[&str], hosts: &[&str]) -> Rule {
    let names = hosts.iter().map(|host| host.parse().expect("a good name")).collect();
    Rule {
        name: name.to_owned(),
        strict,
        ask: Ask::On { vms: named(vms), hosts: HostSelector { names, ..HostSelector::default() } },
    }
}

fn named(vms: &[&str]) -> VmSelector {
    VmSelector { names: vms.iter().map(|vm| vm.parse().expect("a good name")).collect(), ..VmSelector::default() }
}
