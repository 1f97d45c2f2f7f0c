//! What would have happened: recorded load through a policy.
//!
//! Owns: the replay. Never does: read files. Each VM's `cpu_history` is what was recorded; placement starts as the snapshot has it, plans
//! are carried out at once, and the same load is also played without any plan, to compare.

use crate::cooldown::after_move;
use crate::planner::Planner;
use crate::policy::Policy;
use crate::snapshot::{Defect, HostState, Snapshot, Vm};
use proto::{HostId, VmId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Samples played.
    pub samples: usize,
    /// Plans that had moves.
    pub plans: usize,
    /// Moves, in order.
    pub moves: Vec<Replayed>,
    /// Guest memory moved, MiB.
    pub moved_mib: u64,
    /// Core-seconds above hosts' capacity, with the plans.
    pub unserved_core_s: f64,
    /// The same without any plan.
    pub unserved_core_s_without: f64,
    /// Host-seconds above the host's threshold, with the plans.
    pub overload_host_s: f64,
    /// The same without any plan.
    pub overload_host_s_without: f64,
    /// Host-seconds in which a host ran any VM, with the plans.
    pub running_host_s: f64,
}

/// A move of a replay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replayed {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Which VM.
    pub vm: VmId,
    /// From here.
    pub from: HostId,
    /// To there.
    pub to: HostId,
    /// Why, a sentence.
    pub why: String,
}

/// Plays the recorded load; a plan is made every so many samples (0 counts as 1). `at_ms` of the snapshot is the time of the newest sample.
///
/// # Errors
/// What is wrong with snapshot or policy.
pub fn replay(snapshot: &Snapshot, policy: &Policy, every: usize) -> Result<Replay, Defect> {
    snapshot.check()?;
    policy.check()?;
    let samples = snapshot.vms.iter().map(|vm| vm.cpu_history.len()).max().unwrap_or(0);
    let mut done = Replay { samples, ..Replay::default() };
    let mut now = snapshot.clone();
    let still = snapshot.clone();
    let mut planner = Planner::default();
    let seconds = snapshot.sample_ms as f64 / 1000.0;
    for i in 0..samples {
        now.at_ms = snapshot.at_ms.saturating_sub((samples - 1 - i) as u64 * snapshot.sample_ms);
        let mut load = Vec::with_capacity(now.vms.len());
        for (vm, recorded) in now.vms.iter_mut().zip(&snapshot.vms) {
            // A VM recorded for less time is idle before.
            let missing = samples - recorded.cpu_history.len();
            let seen = (i + 1).saturating_sub(missing);
            vm.cpu_cores = seen.checked_sub(1).map_or(0.0, |last| f64::from(recorded.cpu_history[last]));
            vm.cpu_history = recorded.cpu_history[..seen.saturating_sub(1)].to_vec();
            load.push(vm.cpu_cores);
        }
        let (unserved, overload) = strain(&still.vms, &load, &still, policy);
        done.unserved_core_s_without += unserved * seconds;
        done.overload_host_s_without += overload * seconds;
        let (unserved, overload) = strain(&now.vms, &load, &now, policy);
        done.unserved_core_s += unserved * seconds;
        done.overload_host_s += overload * seconds;
        let running =
            now.hosts.iter().filter(|host| now.vms.iter().any(|vm| vm.host.as_ref() == Some(&host.id))).count();
        done.running_host_s += running as f64 * seconds;
        if i % every.max(1) == 0 {
            carry_out(&mut now, &seen_at(policy, i), &mut planner, &mut done);
        }
    }
    Ok(done)
}

/// The policy with what its sites' series say from a sample on.
fn seen_at(policy: &Policy, sample: usize) -> Cow<'_, Policy> {
    if policy.sites.is_empty() {
        return Cow::Borrowed(policy);
    }
    let mut then = policy.clone();
    for series in then.sites.iter_mut().flat_map(|site| [&mut site.sun, &mut site.wind, &mut site.temperature]) {
        // The newest value holds on.
        series.drain(..sample.min(series.len().saturating_sub(1)));
    }
    Cow::Owned(then)
}

fn carry_out(now: &mut Snapshot, policy: &Policy, planner: &mut Planner, done: &mut Replay) {
    let plan = planner.plan(now, policy);
    done.plans += usize::from(!plan.moves.is_empty());
    for step in plan.moves {
        for vm in now.vms.iter_mut().filter(|vm| vm.id == step.vm) {
            vm.host = Some(step.to.clone());
            vm.moved = Some(after_move(vm.moved, now.at_ms, &policy.rest));
            done.moved_mib += vm.memory_mib;
        }
        done.moves.push(Replayed {
            at_ms: now.at_ms,
            vm: step.vm,
            from: step.from,
            to: step.to,
            why: step.reason.to_string(),
        });
    }
}

/// Cores above capacity, and hosts above their threshold.
fn strain(vms: &[Vm], load: &[f64], rack: &Snapshot, policy: &Policy) -> (f64, f64) {
    let mut used: HashMap<&HostId, f64> = HashMap::new();
    for (vm, cores) in vms.iter().zip(load) {
        if let Some(host) = &vm.host {
            *used.entry(host).or_default() += cores;
        }
    }
    let usable = rack.hosts.iter().filter(|host| host.state != HostState::Unusable);
    usable.fold((0.0, 0.0), |(unserved, overload), host| {
        let used = used.get(&host.id).copied().unwrap_or(0.0);
        let of = policy.thresholds_for.iter().find(|of| of.hosts.selects(&host.id, &host.labels));
        let enter = of.map_or(policy.thresholds.enter, |of| of.thresholds.enter);
        (unserved + (used - host.cpu_cores).max(0.0), overload + f64::from(u8::from(used > enter * host.cpu_cores)))
    })
}
