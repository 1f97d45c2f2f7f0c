//! From where VMs should be to an order of moves that is feasible at every step.
//!
//! Owns: the order, what may run side by side, and detours when VMs stand in each other's way. A VM's memory is taken at both hosts while it moves.
//! Never does: choose destinations, force a move that cannot be ordered.
//!
//! ```text
//! pass: try each move in order of worth  --fits--> append, apply
//!   | none fitted
//!   +-> one stuck VM over a third host    --fits--> append, apply; its second half stays in the pass
//!         | none
//!         +-> say who is stuck: the planner plans again without them
//! ```

use crate::draft::Draft;
use crate::model::{HostNo, Model, VmNo};
use crate::plan::{Move, Reason};
use std::collections::HashMap;

/// One move by numbers.
#[derive(Debug, Clone, Copy)]
struct Step {
    v: VmNo,
    from: HostNo,
    to: HostNo,
}

/// Orders the displaced VMs of `goal`.
///
/// # Errors
/// VMs that stand in each other's way and cannot be brought to their places.
pub(crate) fn schedule(goal: &Model<'_>, draft: &Draft) -> Result<Vec<Move>, Vec<VmNo>> {
    let mut waiting = goal.displaced();
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let mut now = goal.clone();
    for &v in &waiting {
        if let Some(home) = now.vms[v].home {
            now.shift(v, home);
        }
    }
    let start = now.hosts.iter().map(|host| host.sums.memory_mib + host.reserved_mib).collect();
    waiting.sort_by(|&a, &b| {
        let worth = |v: VmNo| {
            (draft.reasons[v].as_ref().map_or(9, urgency), -draft.gains[v] / goal.vms[v].vm.memory_mib.max(1) as f64)
        };
        let ((a_urgency, a_gain), (b_urgency, b_gain)) = (worth(a), worth(b));
        a_urgency.cmp(&b_urgency).then(a_gain.total_cmp(&b_gain)).then(a.cmp(&b))
    });
    let mut steps: Vec<Step> = Vec::with_capacity(waiting.len());
    let mut detours = vec![false; goal.vms.len()];
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|&v| {
            let (Some(from), Some(to)) = (now.vms[v].place, goal.vms[v].place) else { return false };
            if now.admit(&[v], to).is_err() {
                return true;
            }
            now.shift(v, to);
            steps.push(Step { v, from, to });
            false
        });
        if waiting.len() == before && !detour(&mut now, &waiting, &mut detours, &mut steps) {
            return Err(waiting);
        }
    }
    let after = dependencies(&now, start, &steps);
    Ok(steps.iter().zip(after).map(|(step, after)| describe(goal, draft, step, after)).collect())
}

/// What is urgent goes first.
fn urgency(reason: &Reason) -> u8 {
    match reason {
        Reason::Room { .. } | Reason::Drain => 0,
        Reason::Rule { .. } | Reason::Group { .. } => 1,
        Reason::Overload { .. } => 2,
        Reason::Balance { .. } | Reason::Light | Reason::Pack | Reason::Green { .. } => 3,
    }
}

/// Sends one waiting VM to a third host for the time being, each VM once at most.
fn detour(now: &mut Model<'_>, waiting: &[VmNo], detours: &mut [bool], steps: &mut Vec<Step>) -> bool {
    for &v in waiting.iter().filter(|&&v| !detours[v]).copied().collect::<Vec<_>>().iter() {
        let Some(from) = now.vms[v].place else { continue };
        let third = (0..now.hosts.len()).filter(|&h| h != from && now.admit(&[v], h).is_ok());
        if let Some(to) = third.max_by_key(|&h| (now.hosts[h].room_mib(), std::cmp::Reverse(h))) {
            detours[v] = true;
            now.shift(v, to);
            steps.push(Step { v, from, to });
            return true;
        }
    }
    false
}

/// For each step the earlier steps that must have ended. Any execution that keeps to them is feasible, in whatever order the rest runs:
/// memory that an earlier step may still take counts as taken, memory counts as freed only when the step that frees it is waited for.
fn dependencies(model: &Model<'_>, start_mib: Vec<u64>, steps: &[Step]) -> Vec<Vec<usize>> {
    let mut arrivals: HashMap<HostNo, Vec<usize>> = HashMap::new();
    let mut departures: HashMap<HostNo, Vec<usize>> = HashMap::new();
    let mut taken = start_mib;
    let mut last_of: HashMap<VmNo, usize> = HashMap::new();
    let mut all = Vec::with_capacity(steps.len());
    for (j, step) in steps.iter().enumerate() {
        let mut after: Vec<usize> = last_of.insert(step.v, j).into_iter().collect();
        let host = &model.hosts[step.to];
        taken[step.to] += model.vms[step.v].vm.memory_mib;
        let most = host.room_mib() + host.sums.memory_mib + host.reserved_mib;
        let leavers = departures.get(&step.to).map_or(&[][..], Vec::as_slice);
        let mut still = taken[step.to];
        for &i in leavers {
            if still <= most {
                break;
            }
            still = still.saturating_sub(model.vms[steps[i].v].vm.memory_mib);
            after.push(i);
        }
        after.extend(leavers.iter().copied().filter(|&i| model.apart(steps[i].v, step.v)));
        for (lanes, there) in [
            (model.policy.streams_in_max as usize, arrivals.entry(step.to).or_default()),
            (model.policy.streams_out_max as usize, departures.entry(step.from).or_default()),
        ] {
            after.extend(there.len().checked_sub(lanes).map(|i| there[i]));
            there.push(j);
        }
        after.sort_unstable();
        after.dedup();
        all.push(after);
    }
    all
}

impl Model<'_> {
    /// Whether a strict rule keeps two VMs apart.
    pub(crate) fn apart(&self, a: VmNo, b: VmNo) -> bool {
        self.rules.of_vm[a].iter().any(|r| {
            let rule = &self.rules.rules[*r];
            rule.strict && matches!(rule.kind, crate::rules::Kind::Apart) && self.rules.of_vm[b].contains(r)
        })
    }
}

fn describe(goal: &Model<'_>, draft: &Draft, step: &Step, after: Vec<usize>) -> Move {
    let entry = &goal.vms[step.v];
    let there = entry.place == Some(step.to);
    let reason = match (&draft.reasons[step.v], there) {
        (Some(reason), _) => reason.clone(),
        (None, _) => Reason::Room { vm: entry.vm.id.clone() },
    };
    Move {
        vm: entry.vm.id.clone(),
        from: goal.hosts[step.from].host.id.clone(),
        to: goal.hosts[step.to].host.id.clone(),
        reason,
        after,
        gain: if there { draft.gains[step.v] } else { 0.0 },
        cost: entry.cost,
    }
}
