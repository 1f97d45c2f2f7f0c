//! Every pair of rules, strict and preferred, on the same VMs: what is planned, and what of it does not hold against what.

use crate::rack::{policy, snapshot};
use balancer::{Ask, HostSelector, Plan, Rule, VmSelector, plan};
use expect_test::expect;

const RACK: &str = "
    a 8G 4c: web 1G 1c, mail 1G 0.5c
    b 8G 4c: db 1G 1c
    c 8G 4c
";

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Together,
    Apart,
    On,
    Off,
}

/// A rule on these VMs and, when it is about hosts, this host; `!` marks it strict.
fn rule(kind: Kind, strict: bool, vms: [&str; 2], host: &str) -> Rule {
    let vms =
        VmSelector { names: vms.iter().map(|vm| vm.parse().expect("a good name")).collect(), ..VmSelector::default() };
    let hosts = HostSelector { names: [host.parse().expect("a good name")].into(), ..HostSelector::default() };
    let (word, ask) = match kind {
        Kind::Together => ("together".to_owned(), Ask::Together { vms }),
        Kind::Apart => ("apart".to_owned(), Ask::Apart { vms }),
        Kind::On => (format!("on {host}"), Ask::On { vms, hosts }),
        Kind::Off => (format!("off {host}"), Ask::Off { vms, hosts }),
    };
    Rule { name: format!("{word}{}", if strict { "!" } else { "?" }), strict, ask }
}

/// Where all are when all moves are done, and what does not hold.
fn told(plan: &Plan) -> String {
    assert!(plan.refused.is_none(), "{:?}", plan.refused);
    let mut rack = snapshot(RACK);
    for step in &plan.moves {
        for vm in rack.vms.iter_mut().filter(|vm| vm.id == step.vm) {
            vm.host = Some(step.to.clone());
        }
    }
    let on = |host: &str| {
        let here = rack.vms.iter().filter(|vm| vm.host.as_ref().is_some_and(|at| at.as_str() == host));
        here.map(|vm| vm.id.to_string()).collect::<Vec<_>>().join("+")
    };
    let places = ["a", "b", "c"].map(|host| format!("{:11}", on(host))).join("| ");
    let broken = plan.broken.iter().map(|rule| {
        let vms = rule.vms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let against = rule.against.join(", ");
        format!("{} fails for {vms}{}{against}", rule.rule, if against.is_empty() { "" } else { " against " })
    });
    format!("{places}| {}", broken.collect::<Vec<_>>().join("; ")).trim_end().to_owned()
}

#[test]
fn every_pair_of_rules() {
    let kinds: Vec<(Kind, bool)> = [Kind::Together, Kind::Apart, Kind::On, Kind::Off]
        .into_iter()
        .flat_map(|kind| [(kind, true), (kind, false)])
        .collect();
    let mut table = String::new();
    for (i, &(first, first_strict)) in kinds.iter().enumerate() {
        for &(second, second_strict) in &kinds[i..] {
            let about_hosts = |kind| matches!(kind, Kind::On | Kind::Off);
            // Two rules on VMs of one kind share one VM; two on hosts name two hosts.
            let vms = if first == second && !about_hosts(first) { ["db", "mail"] } else { ["web", "db"] };
            let host = if about_hosts(first) { "b" } else { "a" };
            let mut rules = vec![rule(first, first_strict, ["web", "db"], "a"), rule(second, second_strict, vms, host)];
            if rules[0].name == rules[1].name {
                rules[1].name += "2";
            }
            let name = format!("{} {}", rules[0].name, rules[1].name);
            let made = plan(&snapshot(RACK), &policy(rules.clone()));
            // Which of the two stands first in the file changes only the order in which they are named.
            rules.reverse();
            assert_eq!(made.after, plan(&snapshot(RACK), &policy(rules)).after, "{name}");
            table += &format!("{name:22} {}\n", told(&made));
        }
    }
    expect![[r#"
        together! together!2   web+mail+db|            |            |
        together! together?    web+mail+db|            |            |
        together! apart!       web        | db         | mail       | together! fails for db against apart!
        together! apart?       mail       | web+db     |            | apart? fails for db web against together!
        together! on a!        web+db     | mail       |            |
        together! on a?        web+db     | mail       |            |
        together! off a!       mail       | web+db     |            |
        together! off a?       mail       | web+db     |            |
        together? together?2              | web+mail+db|            |
        together? apart!       web        | db         | mail       | together? fails for db against apart!
        together? apart?       web        | db         | mail       | together? fails for db against apart?
        together? on a!        web+db     | mail       |            |
        together? on a?        web+db     |            | mail       |
        together? off a!       mail       | web+db     |            |
        together? off a?       mail       | web+db     |            |
        apart! apart!2         web        | db         | mail       |
        apart! apart?          web        | db         | mail       |
        apart! on a!           web        | db         | mail       | on a! fails for db against apart!
        apart! on a?           web        | db         | mail       | on a? fails for db against apart!
        apart! off a!          mail       | db         | web        |
        apart! off a?          mail       | db         | web        |
        apart? apart?2         web        | db         | mail       |
        apart? on a!           web+db     | mail       |            | apart? fails for db web against on a!
        apart? on a?           web        | db         | mail       | on a? fails for db against apart?
        apart? off a!          mail       | db         | web        |
        apart? off a?          mail       | db         | web        |
        on a! on b!            web        | db         | mail       | on a! fails for db against on b!; on b! fails for web against on a!
        on a! on b?            web+db     | mail       |            | on b? fails for db web against on a!
        on a! off b!           web+db     | mail       |            |
        on a! off b?           web+db     | mail       |            |
        on a? on b?            web        | db         | mail       | on a? fails for db against on b?; on b? fails for web against on a?
        on a? off b!           web+db     | mail       |            |
        on a? off b?           web+db     |            | mail       |
        off a! off b!          mail       |            | web+db     |
        off a! off b?          mail       |            | web+db     |
        off a? off b?          mail       |            | web+db     |
    "#]].assert_eq(&table);
}
