//! The order of the objective: overload, then imbalance, then energy and site, less the cost of moving.

use crate::execute::settled;
use crate::racks::{calm, cases, policies, racks};
use balancer::{CostWeights, Plan, Policy, Site, Snapshot, Vm, Watts, Why, plan, why_not};
use proptest::prelude::*;

/// An overload smaller by less than this is no reason to pay more (`levels.rs`).
const OVERLOAD_STEP: f64 = 0.1;

/// What rounding may make of no change.
const ROUNDING: f64 = 1e-6;

/// Plans until nothing moves, as in `plans_carried_out_come_to_rest`.
const ROUNDS_MAX: usize = 8;

/// Racks at two sites with hosts that draw much and little, and flexible VMs.
fn green_racks() -> impl Strategy<Value = Snapshot> {
    (racks(), any::<u32>()).prop_map(|(mut rack, bits)| {
        for (i, host) in rack.hosts.iter_mut().enumerate() {
            let dear = bits >> i & 1 == 1;
            host.site = Some(if dear { "night" } else { "day" }.to_owned());
            host.watts = Some(if dear { Watts { idle: 300.0, full: 900.0 } } else { Watts { idle: 50.0, full: 90.0 } });
        }
        for (i, vm) in rack.vms.iter_mut().enumerate() {
            vm.flexible = bits >> (8 + i) & 1 == 1;
        }
        rack
    })
}

/// Policies without limits in which energy, site and cost may weigh a million times what evenness does.
fn greedy_policies() -> impl Strategy<Value = Policy> {
    let weight = || prop_oneof![Just(0.0), 0.0..1.0, 0.0..1e6];
    (policies(), weight(), weight(), weight()).prop_map(|(policy, energy_weight, site_weight, per_gib)| Policy {
        energy_weight,
        site_weight,
        cost: CostWeights { per_gib, ..CostWeights::default() },
        sites: vec![
            Site { name: "day".to_owned(), sun: vec![0.9], wind: vec![1.0], temperature: vec![1.0] },
            Site { name: "night".to_owned(), sun: vec![0.1], wind: vec![1.0], temperature: vec![1.0] },
        ],
        moves_max: None,
        move_mib_max: None,
        spare_hosts: 0,
        ..policy
    })
}

/// VMs of a rack at rest that were free to move alone: neither held, nor one of several that a strict rule keeps together.
fn free<'a>(rack: &'a Snapshot, policy: &'a Policy, last: &'a Plan) -> impl Iterator<Item = &'a Vm> {
    let bound = |vm: &Vm| {
        policy.rules.iter().any(|rule| match &rule.ask {
            balancer::Ask::Together { vms } => rule.strict && vms.selects(&vm.id, &vm.labels),
            _ => false,
        })
    };
    let no_way = |vm: &Vm| last.stays.iter().any(|stay| stay.vm == vm.id && stay.why == Why::NoWay);
    rack.vms.iter().filter(move |vm| !(vm.pinned || vm.busy || vm.excluded || bound(vm) || no_way(vm)))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_weight_below_keeps_an_overload_or_costs_evenness(rack in green_racks(), policy in greedy_policies()) {
        let mut rack = rack;
        for _ in 0..ROUNDS_MAX {
            let made = plan(&rack, &policy);
            if !made.moves.is_empty() {
                rack = settled(&rack, &made);
                continue;
            }
            for vm in free(&rack, &policy, &made) {
                let active = |host: &balancer::Host| Some(&host.id) == vm.host.as_ref() && host.state == balancer::HostState::Active;
                if !rack.hosts.iter().any(active) {
                    continue;
                }
                for option in why_not(&rack, &policy, &vm.id) {
                    let Some(gain) = option.gain else { continue };
                    prop_assert!(gain.overload < OVERLOAD_STEP, "{} could relieve its host: {option:?}", vm.id);
                    let even = gain.overload + gain.imbalance - option.cost;
                    prop_assert!(even < ROUNDING, "{} could make the rack more even: {option:?}", vm.id);
                }
            }
        }
    }

    #[test]
    fn no_level_rises_for_one_below_it(rack in green_racks(), policy in greedy_policies()) {
        let made = plan(&rack, &policy);
        if !calm(&rack, &policy) {
            return Ok(());
        }
        let (before, after) = (made.before, made.after);
        prop_assert!(after.overload <= before.overload + ROUNDING, "{made:#?}");
        let relieved = before.overload - after.overload >= OVERLOAD_STEP;
        let (even_before, even_after) = (before.overload + before.imbalance, after.overload + after.imbalance);
        prop_assert!(relieved || even_after <= even_before + ROUNDING, "{made:#?}");
        let evened = even_before - even_after > ROUNDING / 10.0;
        prop_assert!(relieved || evened || made.score_after <= made.score_before * (1.0 + 1e-12) + ROUNDING, "{made:#?}");
    }
}
