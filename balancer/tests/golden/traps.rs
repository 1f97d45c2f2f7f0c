//! Racks made to mislead a planner.

use crate::rack::{apart, check, on, policy, together};
use balancer::{Goal, Policy};
use expect_test::expect;

#[test]
fn two_that_can_only_swap() {
    let rack = "
        a 8G 8c: warm 4G 4c, hot 4G 4c
        b 8G 8c: cool 4G 1c, calm 4G 1c
        c 4G 1c
    ";
    check(
        rack,
        &Policy::default(),
        expect![[r#"
            1. calm: b -> c, makes room for hot
            2. hot: a -> b, its host is expected at 100 % of its processors, above 90 % (after 1)
            3. calm: c -> a, makes room for hot (after 1, 2)
            warm stays: its host is expected at 100 % of its processors, above 90 %, but other moves settle it
            score 16.2313 -> 0.3049
        "#]],
    );
    let without_a_third_host = "
        a 8G 8c: warm 4G 4c, hot 4G 4c
        b 8G 8c: cool 4G 1c, calm 4G 1c
    ";
    check(
        without_a_third_host,
        &Policy::default(),
        expect![[r#"
            hot stays: its host is expected at 100 % of its processors, above 90 %, but it and others stand in each other's way with no room to pass
            warm stays: its host is expected at 100 % of its processors, above 90 %, but it and others stand in each other's way with no room to pass
            score 11.2812 -> 11.2812
        "#]],
    );
}

#[test]
fn a_drain_that_needs_a_chain_of_three() {
    let rack = "
        a 4G 4c draining: big 4G 1c
        b 4G 4c: three 3G 1c
        c 3G 4c: two 2G 1c
        d 2G 4c: one 1G 1c
        e 1G 4c
    ";
    check(
        rack,
        &Policy { goal: Goal::Quiet, ..Policy::default() },
        expect![[r#"
        1. one: d -> e, makes room for two
        2. two: c -> d, makes room for three (after 1)
        3. three: b -> c, makes room for big (after 2)
        4. big: a -> b, its host is being emptied (after 3)
        score 0.0000 -> 0.0000
    "#]],
    );
}

#[test]
fn a_drain_that_is_impossible() {
    let rack = "
        a 8G 4c draining: big 6G 1c, held 1G 1c pinned, odd 1G 0c feature=avx512
        b 8G 4c: full 4G 1c
    ";
    check(
        rack,
        &Policy::default(),
        expect![[r#"
        big stays: its host is being emptied, but no host may take it: b has 4096 MiB free of the 6144 MiB needed
        held stays: its host is being emptied, but it is pinned
        odd stays: its host is being emptied, but no host may take it: b lacks CPU features that the guest has seen: avx512
        to be possible: 2048 MiB more for big on b
        to be possible: held let go
        to be possible: another host or other rules for odd
        score 0.7500 -> 0.7500
    "#]],
    );
}

#[test]
fn a_drain_is_asked_for_before_it_is_begun() {
    let rack = crate::rack::snapshot("a 4G 4c: web 2G 1c\nb 4G 4c: db 3G 1c\nc 2G 4c");
    let ask = |host: &str| {
        let answer = balancer::drain(&rack, &Policy::default(), &host.parse().expect("a name"));
        format!("{}\n{}", if answer.possible { "possible" } else { "impossible" }, crate::rack::show(&answer.plan))
    };
    expect![[r#"
        possible
        1. web: a -> c, its host is being emptied
        score 0.0000 -> 0.0000
    "#]]
    .assert_eq(&ask("a"));
    expect![[r#"
        possible
        1. web: a -> c, makes room for db
        2. db: b -> a, its host is being emptied (after 1)
        score 0.0000 -> 0.0000
    "#]]
    .assert_eq(&ask("b"));
    expect![[r#"
        possible
        score 0.0000 -> 0.0000
    "#]]
    .assert_eq(&ask("c"));
}

#[test]
fn a_new_host_without_the_features() {
    let rack = "
        a 8G 4c feature=avx: web 1G 2c feature=avx, db 1G 2c feature=avx
        b 8G 4c
    ";
    check(
        rack,
        &Policy::default(),
        expect![[r#"
        db stays: its host is expected at 100 % of its processors, above 90 %, but no host may take it: b lacks CPU features that the guest has seen: avx
        web stays: its host is expected at 100 % of its processors, above 90 %, but no host may take it: b lacks CPU features that the guest has seen: avx
        score 11.5156 -> 11.5156
    "#]],
    );
}

#[test]
fn a_resting_and_an_excluded_vm() {
    let rack = "
        a 8G 2c: tired 1G 1c rests=5000, fixed 1G 1c excluded
        b 8G 4c
    ";
    check(
        rack,
        &Policy::default(),
        expect![[r#"
        fixed stays: its host is expected at 100 % of its processors, above 90 %, but it is excluded from balancing
        tired stays: its host is expected at 100 % of its processors, above 90 %, but it was moved not long ago and rests until 1004000 ms
        score 7.7934 -> 7.7934
    "#]],
    );
}

#[test]
fn rules_that_contradict_each_other() {
    let rack = "
        a 8G 4c label=disk:ssd: web 1G 1c, db 1G 1c
        b 8G 4c
        c 8G 4c
    ";
    let both = policy(vec![together("pair", true, &["web", "db"]), apart("split", true, &["web", "db"])]);
    check(
        rack,
        &both,
        expect![[r#"
        db stays: rule "split" does not hold for it, but these rules cannot hold together: pair, split
        web stays: rule "split" does not hold for it, but these rules cannot hold together: pair, split
        strict rule "split" does not hold for db, web, against pair
        score 0.1875 -> 0.1875
    "#]],
    );
    let nowhere = policy(vec![on("north", true, &["web"], &["a"]), on("south", true, &["web"], &["b"])]);
    check(
        rack,
        &nowhere,
        expect![[r#"
        1. db: a -> b, load becomes more even: source at 50 %, target at 0 %
        web stays: rule "south" does not hold for it, but these rules cannot hold together: north, south
        strict rule "south" does not hold for web, against north
        score 0.1875 -> 0.0469
    "#]],
    );
    let crowded = policy(vec![apart("split", true, &["web", "db"]), on("both-a", true, &["web", "db"], &["a"])]);
    check(
        rack,
        &crowded,
        expect![[r#"
        db stays: rule "split" does not hold for it, but these rules cannot hold together: both-a, split
        web stays: rule "split" does not hold for it, but these rules cannot hold together: both-a, split
        strict rule "split" does not hold for db, web, against both-a
        score 0.1875 -> 0.1875
    "#]],
    );
}

#[test]
fn preferred_gives_way_to_strict() {
    let rack = "
        a 8G 4c: web 1G 1c
        b 8G 4c: db 1G 1c
    ";
    let rules = policy(vec![together("near", false, &["web", "db"]), on("db-b", true, &["db"], &["b"])]);
    check(
        rack,
        &rules,
        expect![[r#"
            1. web: a -> b, rule "near" asks for it
            db stays: rule "near" does not hold for it, but other moves settle it
            score 0.5000 -> 0.1406
        "#]],
    );
    let rules = policy(vec![together("near", false, &["web", "db"]), apart("far", true, &["web", "db"])]);
    check(
        rack,
        &rules,
        expect![[r#"
        db stays: rule "near" does not hold for it, but these rules cannot hold together: far, near
        preferred rule "near" does not hold for db, against far
        score 0.5000 -> 0.5000
    "#]],
    );
}

#[test]
fn a_pair_kept_together_moves_as_one() {
    let rack = "
        a 8G 4c: web 1G 1.5c, db 1G 1.5c, mail 1G 1.5c
        b 8G 4c
    ";
    check(
        rack,
        &policy(vec![together("pair", true, &["web", "db"])]),
        expect![[r#"
        1. mail: a -> b, its host is expected at 112 % of its processors, above 90 %
        db stays: its host is expected at 112 % of its processors, above 90 %, but other moves settle it
        web stays: its host is expected at 112 % of its processors, above 90 %, but other moves settle it
        score 28.2305 -> 0.0742
    "#]],
    );
}

#[test]
fn files_that_make_no_sense() {
    let mut rack = crate::rack::snapshot("a 8G 4c: web 1G 1c");
    rack.vms[0].cpu_cores = f64::NAN;
    expect![[r#"
        refused: vms[web].cpu_cores: NaN; expected a finite number, 0 or more
        score 0.0000 -> 0.0000
    "#]]
    .assert_eq(&crate::rack::show(&balancer::plan(&rack, &Policy::default())));
    rack.vms[0].cpu_cores = 1.0;
    rack.vms[0].host = Some("b".parse().expect("a name"));
    expect![[r#"
        refused: vms[web].host: host "b"; expected the id of a host of this snapshot
        score 0.0000 -> 0.0000
    "#]]
    .assert_eq(&crate::rack::show(&balancer::plan(&rack, &Policy::default())));
}
