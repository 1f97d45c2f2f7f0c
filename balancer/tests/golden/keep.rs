//! What is kept free: light hosts, slack, thresholds of their own.

use crate::rack::{check, snapshot};
use balancer::{Goal, Group, HostSelector, Policy, Slack, Thresholds, ThresholdsFor, Vm, place, share_out};
use expect_test::expect;

fn ssd() -> HostSelector {
    HostSelector { labels: [("disk".to_owned(), "ssd".to_owned())].into(), ..HostSelector::default() }
}

#[test]
fn a_host_is_kept_lightly_loaded() {
    let rack = "
        a 8G 4c: web 2G 1c, db 2G 1c
        b 8G 4c: mail 2G 1c, dns 2G 0.5c
        c 8G 4c: one 4G 0.2c
    ";
    check(
        rack,
        &Policy { goal: Goal::Quiet, light_hosts: 1, ..Policy::default() },
        expect![[r#"
        1. db: a -> b, a host is kept lightly loaded
        score 0.0000 -> 0.0000
    "#]],
    );
    check(
        rack,
        &Policy { light_hosts: 1, ..Policy::default() },
        expect![[r#"
        1. db: a -> c, a host is kept lightly loaded
        score 0.1079 -> 0.0704
    "#]],
    );
}

#[test]
fn slack_is_not_planned_into() {
    let rack = "
        a 8G 4c: web 4G 2c, db 4G 1c
        b 8G 4c label=disk:ssd: mail 2G 0.1c
    ";
    check(
        rack,
        &Policy::default(),
        expect![[r#"
        1. db: a -> b, load becomes more even: source at 75 %, target at 2 %
        score 0.4034 -> 0.0409
    "#]],
    );
    check(
        rack,
        &Policy { slack: vec![Slack { hosts: ssd(), share: 0.5 }], ..Policy::default() },
        expect![[r#"
        score 0.4034 -> 0.4034
    "#]],
    );
    let vm = Vm::new("new".parse().expect("a name"), 4096, 1);
    let tight = Policy { slack: vec![Slack { hosts: ssd(), share: 0.5 }], ..Policy::default() };
    let refused = place(&snapshot(rack), &tight, &vm).expect_err("a is full and b keeps half free");
    expect![[r#"
        a has 0 MiB free of the 4096 MiB needed
        b keeps 50 % free
    "#]]
    .assert_eq(&refused.iter().map(|r| format!("{r}\n")).collect::<String>());
}

#[test]
fn slack_is_of_processors_too() {
    let rack = "
        a 8G 4c: web 1G 2c, db 1G 1.9c
        b 8G 4c label=disk:ssd: mail 1G 1c
    ";
    check(
        rack,
        &Policy { goal: Goal::Quiet, slack: vec![Slack { hosts: ssd(), share: 0.5 }], ..Policy::default() },
        expect![[r#"
            1. mail: b -> a, makes room for db
            2. db: a -> b, its host is expected at 98 % of its processors, above 90 %
            web stays: its host is expected at 98 % of its processors, above 90 %, but other moves settle it
            score 8.0625 -> 0.0000
        "#]],
    );
}

#[test]
fn a_group_keeps_slack_as_a_whole() {
    let group = |slack: f64| Group { name: "shop".to_owned(), share: 1.0, hosts_min: 1, hosts_max: 9, slack };
    let rack = "
        a 8G 4c group=shop: web 4G 1c group=shop
        b 8G 4c group=shop: db 3G 0.5c group=shop
        c 8G 4c group=shop
        d 8G 4c
    ";
    let pack = |slack: f64| Policy { goal: Goal::Pack, groups: vec![group(slack)], ..Policy::default() };
    check(
        rack,
        &pack(0.0),
        expect![[r#"
        1. web: a -> b, its host can then be switched off
        a may be switched off
        c may be switched off
        d may be switched off
        score 1.0000 -> 0.5000
    "#]],
    );
    check(
        rack,
        &pack(0.5),
        expect![[r#"
        1. web: a -> b, its host can then be switched off
        a may be switched off
        d may be switched off
        score 1.0000 -> 0.5000
    "#]],
    );
    let mut new = Vm::new("new".parse().expect("a name"), 6144, 1);
    new.group = Some("shop".to_owned());
    assert!(place(&snapshot(rack), &pack(0.4), &new).is_ok());
    let refused = place(&snapshot(rack), &pack(0.5), &new).expect_err("13 GiB are more than half of 24");
    expect![[r#"
        a has 4096 MiB free of the 6144 MiB needed
        b has 5120 MiB free of the 6144 MiB needed
        c keeps 50 % free
        d belongs to no group
    "#]]
    .assert_eq(&refused.iter().map(|r| format!("{r}\n")).collect::<String>());
    let full = rack.replace("c 8G 4c group=shop", "c 8G 4c").replace("db 3G 0.5c", "db 6G 0.5c");
    let lent = |slack: f64| share_out(&snapshot(&full), &pack(slack)).len();
    assert_eq!((lent(0.0), lent(0.5)), (0, 1), "10 GiB need two hosts of 8 GiB, or three when half is kept free");
}

#[test]
fn a_label_has_thresholds_of_its_own() {
    let rack = "
        a 8G 4c label=disk:ssd: web 2G 1.5c, db 2G 1c
        b 8G 4c
    ";
    let own = Thresholds { enter: 0.5, leave: 0.4, ..Thresholds::default() };
    let policy = Policy {
        goal: Goal::Quiet,
        thresholds_for: vec![ThresholdsFor { hosts: ssd(), thresholds: own }],
        ..Policy::default()
    };
    check(
        rack,
        &policy,
        expect![[r#"
        1. db: a -> b, its host is expected at 62 % of its processors, above 50 %
        web stays: its host is expected at 62 % of its processors, above 50 %, but other moves settle it
        score 14.0625 -> 0.0000
    "#]],
    );
    check(
        rack,
        &Policy { goal: Goal::Quiet, ..Policy::default() },
        expect![[r#"
        score 0.0000 -> 0.0000
    "#]],
    );
}
