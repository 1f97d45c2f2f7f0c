//! Fewest hosts, and fewest moves.

use crate::rack::{check, show, snapshot};
use balancer::{Goal, Policy};
use expect_test::expect;

#[test]
fn the_lightest_hosts_are_emptied() {
    let rack = "
        a 8G 4c: web 2G 1c, db 2G 1c
        b 8G 4c: mail 1G 0.5c
        c 8G 4c: dns 1G 0.2c
        d 8G 4c
    ";
    check(
        rack,
        &Policy { goal: Goal::Pack, ..Policy::default() },
        expect![[r#"
            1. mail: b -> a, its host can then be switched off
            2. dns: c -> a, its host can then be switched off (after 1)
            b may be switched off
            c may be switched off
            d may be switched off
            score 1.5000 -> 0.5000
        "#]],
    );
    check(
        rack,
        &Policy { goal: Goal::Pack, spare_hosts: 1, ..Policy::default() },
        expect![[r#"
            1. mail: b -> a, its host can then be switched off
            2. dns: c -> a, its host can then be switched off (after 1)
            c may be switched off
            d may be switched off
            score 1.5000 -> 0.5000
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

#[test]
fn overload_wakes_a_host_only_when_no_other_has_room() {
    let pack = Policy { goal: Goal::Pack, ..Policy::default() };
    let rack = "
        a 8G 4c: web 1G 2c, db 1G 2c
        b 8G 4c: mail 1G 0.5c
        c 8G 4c
    ";
    check(
        rack,
        &pack,
        expect![[r#"
        1. db: a -> b, its host is expected at 100 % of its processors, above 90 %
        web stays: its host is expected at 100 % of its processors, above 90 %, but other moves settle it
        c may be switched off
        score 12.0000 -> 1.0000
    "#]],
    );
    let rack = "
        a 8G 4c: web 1G 2c, db 1G 2c
        b 8G 4c: mail 1G 2.5c
        c 8G 4c
    ";
    check(
        rack,
        &pack,
        expect![[r#"
        1. db: a -> c, its host is expected at 100 % of its processors, above 90 %
        web stays: its host is expected at 100 % of its processors, above 90 %, but other moves settle it
        score 12.0000 -> 1.5000
    "#]],
    );
}

#[test]
fn hosts_are_woken_for_the_demand_of_the_same_time_yesterday() {
    let mut rack = snapshot("a 64G 4c: v0 2G, v1 2G\nb 64G 4c: v2 2G\nc 64G 4c");
    rack.sample_ms = 3_600_000;
    rack.at_ms = 100 * 3_600_000;
    for vm in &mut rack.vms {
        // Two days: busy from the eighth hour to the sixteenth; it is midnight.
        vm.cpu_history = (0..48).map(|hour| if (8..16).contains(&(hour % 24)) { 1.8 } else { 0.1 }).collect();
        vm.cpu_cores = 0.1;
    }
    let plan = balancer::plan(&rack, &Policy { goal: Goal::Pack, ..Policy::default() });
    expect![[r#"
        1. v2: b -> a, its host can then be switched off
        b may be switched off until 388800000 ms
        c may be switched off
        score 1.0000 -> 0.5000
    "#]]
    .assert_eq(&show(&plan));
}
