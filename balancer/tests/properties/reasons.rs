//! Who stays is told why, what was planned may start, and what two hosts agree on is allowed.

use crate::execute::{agreed_wrongs, settled};
use crate::racks::{cases, policies, racks};
use balancer::{HostState, Policy, Snapshot, Thresholds, Vm, plan, respond, revalidate};
use proptest::prelude::*;

/// Processor use of a host, share of its capacity; loads here have no history, so they are what is expected.
fn share(rack: &Snapshot, id: &proto::HostId) -> f64 {
    let used: f64 = rack.vms.iter().filter(|vm| vm.host.as_ref() == Some(id)).map(|vm| vm.cpu_cores).sum();
    rack.hosts.iter().filter(|host| host.id == *id).map(|host| used / host.cpu_cores).sum()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whom_something_concerns_moves_or_is_told_why_not(rack in racks(), policy in policies(), most in prop::option::of(0usize..3)) {
        let policy = Policy { moves_max: most, ..policy };
        let made = plan(&rack, &policy);
        let answered = |vm: &Vm| {
            made.moves.iter().any(|step| step.vm == vm.id) || made.stays.iter().any(|stay| stay.vm == vm.id)
        };
        for host in &rack.hosts {
            let here = rack.vms.iter().filter(|vm| vm.host.as_ref() == Some(&host.id));
            let hot = host.state == HostState::Active && share(&rack, &host.id) > policy.thresholds.enter + 1e-9;
            if hot || host.state == HostState::Draining {
                for vm in here {
                    prop_assert!(answered(vm), "{} on {} is not mentioned:\n{made:#?}", vm.id, host.id);
                }
            }
        }
        // What does not hold when all is done does not hold for VMs that are named, and those that stayed say why.
        for vm in made.broken.iter().flat_map(|rule| &rule.vms) {
            let vm = rack.vms.iter().find(|entry| entry.id == *vm).expect("rules name VMs of the rack");
            prop_assert!(answered(vm), "{} is not mentioned:\n{made:#?}", vm.id);
        }
    }

    #[test]
    fn a_plan_carried_out_one_by_one_stays_valid(rack in racks(), policy in policies()) {
        let made = plan(&rack, &policy);
        let mut now = rack.clone();
        for (place, step) in made.moves.iter().enumerate() {
            prop_assert_eq!(revalidate(&made, place, &now, &policy), Ok(()), "move {}\n{:#?}", place, made);
            for vm in now.vms.iter_mut().filter(|vm| vm.id == step.vm) {
                vm.host = Some(step.to.clone());
            }
            now.at_ms += 1;
        }
        prop_assert_eq!(now.vms, settled(&rack, &made).vms);
    }

    #[test]
    fn what_hosts_agree_on_is_allowed_and_heats_none(rack in racks(), policy in policies(), turn in 0usize..6) {
        let policy = Policy { thresholds: Thresholds { enter: 0.7, leave: 0.6, ..policy.thresholds }, ..policy };
        let mut heard: Vec<_> = rack.hosts.iter().map(|host| host.id.clone()).collect();
        heard.rotate_left(turn % rack.hosts.len());
        let agreed = respond(&rack, &policy, &heard);
        let mut now = rack.clone();
        for step in &agreed {
            prop_assert!(share(&now, &step.from) > policy.thresholds.enter - 1e-9, "{step:?}");
            for vm in now.vms.iter_mut().filter(|vm| vm.id == step.vm) {
                vm.host = Some(step.to.clone());
            }
            prop_assert!(share(&now, &step.to) <= policy.thresholds.leave + 1e-9, "{step:?}");
        }
        prop_assert_eq!(agreed_wrongs(&rack, &now, &policy), Vec::<String>::new());
    }
}
