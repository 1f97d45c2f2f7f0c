//! One plan from one snapshot.
//!
//! Owns: the order of the phases. Never does: any phase's own work.

use crate::draft::Draft;
use crate::forecast::{Expected, expect};
use crate::model::{Model, VmNo};
use crate::must::settle;
use crate::pack::{pack, power_off};
use crate::plan::{Plan, Reason};
use crate::policy::{Goal, Policy};
use crate::schedule::schedule;
use crate::search::descend;
use crate::snapshot::{Snapshot, Vm};
use crate::stays::{broken, remedies, stays};
use crate::swap::swap;
use proto::VmId;
use std::collections::HashMap;

/// Swaps in one plan at most, a limit on time.
const SWAPS_MAX: usize = 64;

/// Plans moves. The same input gives the same plan, in whatever order hosts and VMs are listed.
///
/// A snapshot or policy that fails its check gives a plan without moves whose `refused` says what is wrong.
pub fn plan(snapshot: &Snapshot, policy: &Policy) -> Plan {
    match snapshot.check().and_then(|()| policy.check()) {
        Ok(()) => think(Model::new(snapshot, policy)),
        Err(defect) => Plan { refused: Some(defect), ..frame(snapshot.at_ms, policy) },
    }
}

/// Plans from a model as the snapshot has it.
pub(crate) fn think(mut start: Model<'_>) -> Plan {
    let before = start.score();
    let (model, draft, moves) = loop {
        let mut model = start.clone();
        let mut draft = Draft::new(&model);
        improve(&mut model, &mut draft);
        let optional = optional(&model, &draft);
        if !optional.is_empty() && start.survives(start.policy.spare_hosts) && !model.survives(model.policy.spare_hosts)
        {
            // Moves that only make things nicer may not cost the room kept for failures.
            start.hold(&optional);
            continue;
        }
        match schedule(&model, &draft) {
            Ok(moves) => break (model, draft, moves),
            // Each time fewer VMs are free to move, so this ends.
            Err(stuck) => start.hold(&stuck),
        }
    };
    let after = model.score();
    let stays = stays(&model, &draft, start.concerned());
    Plan {
        moves,
        score_before: before.total(),
        score_after: after.total(),
        before,
        after,
        remedies: remedies(&model, &stays),
        stays,
        broken: broken(&model),
        power_off: if model.policy.goal == Goal::Pack { power_off(&model) } else { Vec::new() },
        ..frame(model.at_ms, model.policy)
    }
}

/// Displaced VMs whose moves need not be. What makes room is needed when anything is.
fn optional(model: &Model<'_>, draft: &Draft) -> Vec<VmNo> {
    let displaced = model.displaced();
    let must = |v: &VmNo| matches!(draft.reasons[*v], Some(Reason::Drain | Reason::Rule { .. } | Reason::Group { .. }));
    let any = displaced.iter().any(must);
    let needed = |v: &VmNo| must(v) || (any && matches!(draft.reasons[*v], Some(Reason::Room { .. })));
    displaced.into_iter().filter(|v| !needed(v)).collect()
}

fn improve(model: &mut Model<'_>, draft: &mut Draft) {
    settle(model, draft);
    descend(model, draft);
    if model.policy.goal == Goal::Pack {
        pack(model, draft);
        return;
    }
    for _ in 0..SWAPS_MAX {
        if !swap(model, draft) {
            return;
        }
        descend(model, draft);
    }
}

fn frame(at_ms: u64, policy: &Policy) -> Plan {
    Plan { made_ms: at_ms, expires_ms: at_ms.saturating_add(policy.expires_ms), ..Plan::default() }
}

/// Plans again and again: keeps what was expected of each VM whose history has not changed, so that a plan after a small change is quick.
///
/// It gives the very plans that [`plan`] gives.
#[derive(Debug, Clone, Default)]
pub struct Planner {
    known: HashMap<VmId, (u64, Expected)>,
}

impl Planner {
    /// As [`plan`].
    pub fn plan(&mut self, snapshot: &Snapshot, policy: &Policy) -> Plan {
        if let Err(defect) = snapshot.check().and_then(|()| policy.check()) {
            return Plan { refused: Some(defect), ..frame(snapshot.at_ms, policy) };
        }
        let mut known = HashMap::with_capacity(snapshot.vms.len());
        let model = Model::with_expectations(snapshot, policy, |vm| {
            let print = fingerprint(vm, snapshot.sample_ms, policy.horizon_ms);
            let kept = self.known.get(&vm.id).filter(|(of, _)| *of == print).map(|(_, expected)| *expected);
            let expected = kept.unwrap_or_else(|| expect(vm, snapshot.sample_ms, policy.horizon_ms));
            known.insert(vm.id.clone(), (print, expected));
            expected
        });
        let plan = think(model);
        self.known = known;
        plan
    }
}

/// A hash of all that an expectation depends on (FNV-1a over words; a chance of 2⁻⁶⁴ that a change is missed).
fn fingerprint(vm: &Vm, sample_ms: u64, horizon_ms: u64) -> u64 {
    let words = [sample_ms, horizon_ms, vm.cpu_cores.to_bits()].into_iter();
    let history = vm.cpu_history.iter().map(|x| u64::from(x.to_bits()));
    words
        .chain(history)
        .fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23))
}
