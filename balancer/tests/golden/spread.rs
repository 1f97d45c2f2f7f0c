//! Load made even.

use crate::rack::check;
use balancer::Policy;
use expect_test::expect;

#[test]
fn one_host_has_it_all() {
    let rack = "
        a 8G 4c: web 2G 1c, db 2G 1c, mail 2G 1c
        b 8G 4c
    ";
    check(
        rack,
        &Policy::default(),
        expect![[r#"
        1. db: a -> b, load becomes more even: source at 75 %, target at 0 %
        score 0.4219 -> 0.0469
    "#]],
    );
}

#[test]
fn of_equal_hosts_the_first_by_name() {
    let rack = "
        c 8G 4c
        b 8G 4c
        d 8G 4c
        a 8G 4c: web 2G 1c, db 2G 1c
    ";
    check(
        rack,
        &Policy::default(),
        expect![[r#"
        1. db: a -> b, load becomes more even: source at 50 %, target at 0 %
        score 0.2812 -> 0.0938
    "#]],
    );
}

#[test]
fn nothing_to_do() {
    check(
        "",
        &Policy::default(),
        expect![[r#"
        score 0.0000 -> 0.0000
    "#]],
    );
    check(
        "a 8G 4c: web 2G 1c, db 2G 3c",
        &Policy::default(),
        expect![[r#"
            db stays: its host is expected at 100 % of its processors, above 90 %, but there is no other host
            web stays: its host is expected at 100 % of its processors, above 90 %, but there is no other host
            score 11.0000 -> 11.0000
        "#]],
    );
    check(
        "a 8G 4c: web 2G 1c\nb 8G 4c: db 2G 1c",
        &Policy::default(),
        expect![[r#"
        score 0.0000 -> 0.0000
    "#]],
    );
    check(
        "a 8G 4c: web 2G 0c\nb 8G 4c",
        &Policy::default(),
        expect![[r#"
        score 0.0156 -> 0.0156
    "#]],
    );
}
