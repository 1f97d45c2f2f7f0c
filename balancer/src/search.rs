//! Steepest descent from the hottest host.
//!
//! Owns: which VMs go where for overload, preference, balance and green energy. Never does: ask for a move that [`Model::admit`] refuses;
//! order the moves (see `schedule`).
//!
//! The hottest host is asked for its best move among all its units and the coldest hosts of each class that may take them; when there is none
//! it is set aside. When all are set aside after changes, all are asked again; the search ends when a whole round changed nothing, so the
//! result is a state where none of these moves helps, and planning again finds nothing to do.

use crate::draft::Draft;
use crate::levels::{Levels, OVERLOAD_STEP, Worth};
use crate::model::{HostNo, Model, VmNo};
use crate::plan::{Reason, Why};
use crate::policy::Goal;
use crate::snapshot::HostState;
use std::collections::BTreeSet;

/// Targets looked at in each host class: the coldest so many. A rack up to this size is searched wholly.
const COLDEST: usize = 24;

/// What a sum may be off, so that the order in which loads were added decides nothing.
const ROUNDING: f64 = 1e-9;

/// Rounds at most; a limit on time, never reached by what was measured (2 to 5).
const ROUNDS_MAX: usize = 40;

/// Moves in one descent at most, for each VM; each lowers the score, so only rounding could come near it.
const MOVES_EACH_MAX: usize = 50;

/// A move of a unit that was found good.
#[derive(Debug, Clone, Copy)]
struct Found {
    unit: usize,
    to: HostNo,
    gain: Levels,
    /// Gain less cost, in the order of the objective.
    worth: Worth,
}

/// Descends until no move helps.
pub(crate) fn descend(model: &mut Model<'_>, draft: &mut Draft) {
    let mut cold = Cold::new(model);
    let mut moves_left = model.vms.len() * MOVES_EACH_MAX;
    for _ in 0..ROUNDS_MAX {
        let mut waiting: BTreeSet<(u64, HostNo)> =
            (0..model.hosts.len()).filter(|&h| gives(model, h)).map(|h| (cold.key[h], h)).collect();
        let mut changed = false;
        while let Some((_, from)) = waiting.pop_last() {
            let Some(found) = best_move(model, draft, &cold, from) else { continue };
            let reason = reason(model, from, found.to, &model.rules.units[found.unit]);
            for v in model.rules.units[found.unit].clone() {
                draft.shift(model, v, found.to, reason.clone(), found.gain.total());
            }
            changed = true;
            moves_left -= 1;
            if moves_left == 0 {
                return;
            }
            let was = cold.key[found.to];
            cold.update(model, from);
            cold.update(model, found.to);
            if waiting.remove(&(was, found.to)) {
                waiting.insert((cold.key[found.to], found.to));
            }
            waiting.insert((cold.key[from], from));
        }
        if !changed {
            return;
        }
    }
}

/// Whether VMs may leave a host for balance.
fn gives(model: &Model<'_>, h: HostNo) -> bool {
    model.hosts[h].host.state == HostState::Active && !model.hosts[h].vms.is_empty()
}

/// Whether a VM may be moved for balance.
///
/// # Errors
/// Why not.
pub(crate) fn movable(model: &Model<'_>, v: VmNo) -> Result<(), Why> {
    let vm = model.vms[v].vm;
    if vm.pinned {
        return Err(Why::Pinned);
    }
    if vm.busy || vm.moving_to.is_some() {
        return Err(Why::Busy);
    }
    if model.vms[v].held {
        return Err(Why::NoWay);
    }
    if vm.excluded {
        return Err(Why::Excluded);
    }
    match crate::cooldown::resting_until(vm, model.at_ms) {
        Some(until_ms) => Err(Why::Resting { until_ms }),
        None => Ok(()),
    }
}

fn best_move(model: &Model<'_>, draft: &mut Draft, cold: &Cold, from: HostNo) -> Option<Found> {
    let mut best: Option<Found> = None;
    let mut seen = BTreeSet::new();
    let coldest = |class: &BTreeSet<(u64, HostNo)>| {
        class.iter().take(COLDEST + 1).map(|&(_, to)| cold.score[to]).fold(0.0, f64::max)
    };
    let ceiling = cold.classes.iter().map(coldest).fold(0.0, f64::max);
    for &v in &model.hosts[from].vms {
        let unit = model.rules.unit_of[v];
        let vms = &model.rules.units[unit];
        if vms.len() > 1 && !seen.insert(unit) {
            continue;
        }
        if vms.iter().any(|&v| model.vms[v].place != Some(from) || movable(model, v).is_err())
            || !draft.allows(model, vms)
        {
            continue;
        }
        let cost: f64 = vms.iter().map(|&v| step_cost(model, v)).sum();
        let free_to_choose = vms.iter().all(|&v| model.rules.of_vm[v].is_empty());
        let release = model.release(vms, from);
        // No host's part of the score is below 0, so a target brings at most what it has now; what overload brings is asked no price for.
        let most = release.total();
        let free_to_choose = free_to_choose && release.overload < OVERLOAD_STEP;
        if free_to_choose && most + ceiling < cost {
            continue;
        }
        for class in (0..cold.classes.len()).filter(|&class| vms.iter().all(|&v| model.rules.fits_class(v, class))) {
            let mut looked_at = 0;
            for &(_, to) in &cold.classes[class] {
                if to == from {
                    continue;
                }
                looked_at += 1;
                if looked_at > COLDEST {
                    break;
                }
                if free_to_choose && most + cold.score[to] < cost {
                    continue;
                }
                let gain = release + model.intake(vms, to);
                let back: f64 =
                    vms.iter().filter(|&&v| model.vms[v].home == Some(to)).map(|&v| model.vms[v].cost.score).sum();
                let found = Found { unit, to, gain, worth: Worth::of(gain, cost - back) };
                if gain.is_worth(cost - back)
                    && best.is_none_or(|best| better(&found, &best))
                    && model.admit(vms, to).is_ok()
                    && keeps_room(model, vms, to)
                {
                    best = Some(found);
                }
            }
        }
    }
    best
}

/// What moving a VM adds to the plan's cost: nothing when it is moved anyway.
pub(crate) fn step_cost(model: &Model<'_>, v: VmNo) -> f64 {
    if model.vms[v].place == model.vms[v].home { model.vms[v].cost.score } else { 0.0 }
}

/// Lower numbers win a tie, so that the order in which VMs are looked at plays no part.
fn better(a: &Found, b: &Found) -> bool {
    a.worth.total_cmp(&b.worth).then((b.unit, b.to).cmp(&(a.unit, a.to))).is_gt()
}

/// A move for balance may not heat its target above its leave threshold, or the target would ask for help at once, nor into its slack.
pub(crate) fn keeps_room(model: &Model<'_>, vms: &[VmNo], to: HostNo) -> bool {
    let target = &model.hosts[to];
    let after = vms.iter().fold(target.sums, |sums, &v| sums.with(&model.vms[v]));
    model.scale.expected_share(target, &after) <= target.ceiling() + ROUNDING
        || model.scale.expected_share(target, &after) <= model.scale.expected_share(target, &target.sums)
}

pub(crate) fn reason(model: &Model<'_>, from: HostNo, to: HostNo, vms: &[VmNo]) -> Reason {
    let (source, target) = (&model.hosts[from], &model.hosts[to]);
    if let Some(expected) = model.overload(from) {
        return Reason::Overload { expected, threshold: source.thresholds.enter };
    }
    for &v in vms {
        for &r in &model.rules.of_vm[v] {
            if !model.rules.rules[r].strict && model.preference_change(v, to, vms) < 0.0 {
                return Reason::Rule { rule: model.rules.rules[r].name.clone() };
            }
        }
    }
    if model.policy.site_weight > 0.0 && target.green > source.green && vms.iter().any(|&v| model.vms[v].vm.flexible) {
        return Reason::Green { from: source.green, to: target.green };
    }
    if model.policy.goal == Goal::Pack {
        return Reason::Pack;
    }
    let (from, to) = model.scale.widest_gap(source, target);
    Reason::Balance { from, to }
}

/// Hosts of each class that take VMs, the best targets first.
pub(crate) struct Cold {
    classes: Vec<BTreeSet<(u64, HostNo)>>,
    /// Each host's place in its class.
    order: Vec<u64>,
    /// Each host's heat in an order that integers share.
    pub(crate) key: Vec<u64>,
    /// Each host's part of the score.
    pub(crate) score: Vec<f64>,
}

impl Cold {
    pub(crate) fn new(model: &Model<'_>) -> Self {
        let mut cold = Self {
            classes: vec![BTreeSet::new(); model.rules.host_classes()],
            key: vec![0; model.hosts.len()],
            score: vec![0.0; model.hosts.len()],
            order: vec![0; model.hosts.len()],
        };
        for h in 0..model.hosts.len() {
            cold.update(model, h);
        }
        cold
    }

    pub(crate) fn update(&mut self, model: &Model<'_>, h: HostNo) {
        // Heat is 0 or more, and the bits of such numbers are ordered as they are.
        let key = model.scale.heat(&model.hosts[h]).max(0.0).to_bits();
        let order = model.scale.target_order(&model.hosts[h]).max(0.0).to_bits();
        if model.hosts[h].host.state == HostState::Active {
            let class = &mut self.classes[model.rules.host_class(h)];
            class.remove(&(self.order[h], h));
            class.insert((order, h));
        }
        self.order[h] = order;
        self.key[h] = key;
        self.score[h] = model.scale.host(&model.hosts[h], &model.hosts[h].sums).total();
    }
}
