//! Where a VM starts.

use crate::rack::{apart, policy, snapshot};
use balancer::{Policy, Vm, place};
use expect_test::{Expect, expect};

fn check(rack: &str, policy: &Policy, vm: &Vm, expected: Expect) {
    let text = match place(&snapshot(rack), policy, vm) {
        Ok(placement) => placement.to_string(),
        Err(rejections) => rejections.iter().map(|rejection| format!("{rejection}\n")).collect(),
    };
    expected.assert_eq(&text);
}

fn vm(memory_mib: u64) -> Vm {
    Vm::new("new".parse().expect("a name"), memory_mib, 1)
}

#[test]
fn the_coldest_that_fits() {
    let rack = "
        a 8G 4c: web 2G 1c
        b 8G 4c
        c 2G 4c
    ";
    check(
        rack,
        &Policy::default(),
        &vm(1024),
        expect!["b suits best of 3 hosts: 0 % of its processors will be in use and 7168 MiB free"],
    );
    check(
        rack,
        &Policy::default(),
        &vm(3072),
        expect!["b suits best of 2 hosts: 0 % of its processors will be in use and 5120 MiB free"],
    );
    check(
        rack,
        &Policy::default(),
        &vm(9216),
        expect![[r#"
        a has 6144 MiB free of the 9216 MiB needed
        b has 8192 MiB free of the 9216 MiB needed
        c has 2048 MiB free of the 9216 MiB needed
    "#]],
    );
    check("", &Policy::default(), &vm(1), expect![""]);
}

#[test]
fn every_rule_says_no_in_its_own_words() {
    let rack = "
        a 8G 4c draining
        b 8G 4c unusable
        c 1G 4c feature=avx net=lan storage=san
        d 8G 4c net=lan storage=san
        e 8G 4c feature=avx storage=san
        f 8G 4c feature=avx net=lan
        g 8G 4c feature=avx net=lan storage=san group=lent
        h 8G 4c feature=avx net=lan storage=san: old 1G 0c
    ";
    let mut new = vm(2048);
    new.cpu_features.insert("avx".into());
    new.networks.insert("lan".into());
    new.storages.insert("san".into());
    check(
        rack,
        &policy(vec![apart("split", true, &["old", "new"])]),
        &new,
        expect![[r#"
        a is being emptied
        b is not usable
        c has 1024 MiB free of the 2048 MiB needed
        d lacks CPU features that the guest has seen: avx
        e is not on network lan
        f does not reach storage san
        g belongs to group "lent"
        h is forbidden by rule "split"
    "#]],
    );
}

#[test]
fn room_is_kept_for_a_host_that_fails() {
    let rack = "
        a 4G 4c: one 2G 0c
        b 4G 4c
    ";
    let policy = Policy { spare_hosts: 1, ..Policy::default() };
    check(
        rack,
        &policy,
        &vm(2048),
        expect!["b suits best of 2 hosts: 0 % of its processors will be in use and 2048 MiB free"],
    );
    check(
        rack,
        &policy,
        &vm(2049),
        expect![[r#"
        a has 2048 MiB free of the 2049 MiB needed
        b would leave too little room if 1 host failed
    "#]],
    );
}
