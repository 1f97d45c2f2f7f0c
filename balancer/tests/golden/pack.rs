//! Fewest hosts, and fewest moves.

use crate::rack::check;
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
