//! What holds for every rack and every plan.

mod execute;
mod order;
mod racks;
mod reasons;

use balancer::{Goal, Host, HostState, Planner, Policy, Snapshot, Vm, place, plan};
use execute::{execute, settled};
use proptest::prelude::*;
use racks::{cases, policies, racks};

/// Plans until nothing is left to do. One is enough unless VMs that stood in each other's way come free by it.
const ROUNDS_MAX: usize = 8;

/// Whether each host's VMs fit on the others, the largest first into the largest hole.
fn survives(rack: &Snapshot) -> bool {
    let used = |host: &Host| {
        rack.vms.iter().filter(|vm| vm.host.as_ref() == Some(&host.id)).map(|vm| vm.memory_mib).sum::<u64>()
    };
    rack.hosts.iter().all(|failed| {
        let mut holes: Vec<u64> =
            rack.hosts.iter().filter(|h| h.id != failed.id).map(|h| h.memory_mib - used(h)).collect();
        let mut lost: Vec<u64> =
            rack.vms.iter().filter(|vm| vm.host.as_ref() == Some(&failed.id)).map(|vm| vm.memory_mib).collect();
        lost.sort_unstable_by(|a, b| b.cmp(a));
        lost.into_iter().all(|mib| {
            holes.sort_unstable();
            holes.last_mut().filter(|hole| **hole >= mib).map(|hole| *hole -= mib).is_some()
        })
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_step_of_every_execution_is_allowed(rack in racks(), policy in policies(), order in any::<u64>()) {
        let made = plan(&rack, &policy);
        execute(&rack, &policy, &made, order).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn plans_carried_out_come_to_rest(rack in racks(), policy in policies()) {
        let policy = Policy { moves_max: None, move_mib_max: None, ..policy };
        let (mut rack, mut told) = (rack, String::new());
        for _ in 0..ROUNDS_MAX {
            let made = plan(&rack, &policy);
            if made.moves.is_empty() {
                return Ok(());
            }
            told += &made.moves.iter().map(|step| format!("{step}\n")).collect::<String>();
            told += &format!("{} -> {}\n", made.score_before, made.score_after);
            rack = settled(&rack, &made);
        }
        prop_assert!(false, "moves without end:\n{told}");
    }

    #[test]
    fn order_of_input_changes_nothing(rack in racks(), policy in policies(), turn in 0usize..8) {
        let mut other = rack.clone();
        other.hosts.reverse();
        let turn = turn.min(other.vms.len());
        other.vms.rotate_left(turn);
        prop_assert_eq!(plan(&rack, &policy), plan(&other, &policy));
    }

    #[test]
    fn what_is_remembered_changes_nothing(rack in racks(), other in racks(), policy in policies()) {
        let mut planner = Planner::default();
        for rack in [&rack, &other, &rack] {
            prop_assert_eq!(planner.plan(rack, &policy), plan(rack, &policy));
        }
    }

    #[test]
    fn room_for_failures_is_not_spent_on_balance(rack in racks()) {
        let policy = Policy { spare_hosts: 1, ..Policy::default() };
        let mut rack = rack;
        rack.hosts.iter_mut().for_each(|host| host.state = HostState::Active);
        if survives(&rack) {
            prop_assert!(survives(&settled(&rack, &plan(&rack, &policy))));
        }
    }

    #[test]
    fn limits_are_kept(rack in racks(), policy in policies(), most in 0usize..4) {
        let made = plan(&rack, &Policy { moves_max: Some(most), ..policy });
        let mut moved: Vec<_> = made.moves.iter().map(|step| &step.vm).collect();
        moved.sort();
        moved.dedup();
        prop_assert!(moved.len() <= most, "{:#?}", made.moves);
    }

    #[test]
    fn more_memory_never_costs_a_place(rack in racks(), more in 1u64..8192, mib in 16u64..9000, which in any::<prop::sample::Index>()) {
        prop_assume!(!rack.hosts.is_empty());
        let vm = Vm::new("newcomer".parse().expect("a name"), mib, 1);
        let mut bigger = rack.clone();
        let grown = which.index(bigger.hosts.len());
        bigger.hosts[grown].memory_mib += more;
        if place(&rack, &Policy::default(), &vm).is_ok() {
            prop_assert!(place(&bigger, &Policy::default(), &vm).is_ok());
        }
    }

    #[test]
    fn a_further_host_never_costs_a_drain(rack in racks()) {
        let policy = Policy { goal: Goal::Quiet, ..Policy::default() };
        let stuck = |rack: &Snapshot| {
            let after = settled(rack, &plan(rack, &policy));
            let drains = |vm: &&Vm| after.hosts.iter().any(|h| Some(&h.id) == vm.host.as_ref() && h.state == HostState::Draining);
            after.vms.iter().filter(drains).count()
        };
        let mut bigger = rack.clone();
        bigger.hosts.push(Host::new("zz-new".parse().expect("a name"), 1 << 20, 64.0));
        prop_assert!(stuck(&bigger) <= stuck(&rack));
    }

    #[test]
    fn nan_is_refused(rack in racks(), bad in prop::sample::select(vec![f64::NAN, f64::INFINITY, -1.0]), field in 0usize..4) {
        let mut rack = rack;
        rack.vms.push(Vm::new("odd".parse().expect("a name"), 16, 1));
        let vm = &mut rack.vms[0];
        match field {
            0 => vm.cpu_cores = bad,
            1 => vm.net_bytes_s = bad,
            2 => vm.dirty_bytes_s = bad,
            _ => rack.hosts[0].cpu_cores = bad,
        }
        let made = plan(&rack, &Policy::default());
        prop_assert!(made.refused.is_some() && made.moves.is_empty());
    }
}
