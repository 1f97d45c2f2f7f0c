//! Two VMs that change places, when no single move helps.
//!
//! Owns: pairs between the hottest and the coldest hosts. Never does: order the two moves; when there is room for neither copy, the schedule
//! takes a third host or gives the pair up.

use crate::draft::Draft;
use crate::levels::{Levels, Worth};
use crate::model::{HostNo, Model, VmNo};
use crate::plan::Reason;
use crate::search::{Cold, keeps_room, movable, reason, step_cost};
use crate::snapshot::HostState;

/// Hosts looked at on either side.
const HOSTS: usize = 12;

/// Makes the best swap; `false` when none helps.
pub(crate) fn swap(model: &mut Model<'_>, draft: &mut Draft) -> bool {
    let cold = Cold::new(model);
    let mut order: Vec<HostNo> =
        (0..model.hosts.len()).filter(|&h| model.hosts[h].host.state == HostState::Active).collect();
    order.sort_by_key(|&h| (cold.key[h], h));
    let hottest: Vec<HostNo> = order.iter().rev().take(HOSTS).copied().collect();
    let coldest: Vec<HostNo> = order.iter().take(HOSTS).copied().collect();
    let free = |model: &Model<'_>, h: HostNo| {
        let mut vms: Vec<VmNo> = model.hosts[h].vms.clone();
        vms.sort_unstable();
        vms.retain(|&v| model.rules.units[model.rules.unit_of[v]].len() == 1 && movable(model, v).is_ok());
        vms
    };
    let mut best: Option<(Levels, Worth, VmNo, HostNo, VmNo, HostNo)> = None;
    for &a in &hottest {
        let on_a = free(model, a);
        for &b in coldest.iter().filter(|&&b| cold.key[b] < cold.key[a]) {
            for &v in &on_a {
                for &w in &free(model, b) {
                    if !model.rules.fits(v, b) || !model.rules.fits(w, a) {
                        continue;
                    }
                    let cost = step_cost(model, v) + step_cost(model, w);
                    let ruled = !model.rules.of_vm[v].is_empty() || !model.rules.of_vm[w].is_empty();
                    if !ruled && model.overload(a).is_none() && cold.score[a] + cold.score[b] <= cost {
                        continue;
                    }
                    let gain = gain(model, v, a, w, b);
                    let worth = Worth::of(gain, cost);
                    if gain.is_worth(cost)
                        && best.is_none_or(|best| worth.total_cmp(&best.1).is_gt())
                        && draft.allows(model, &[v, w])
                        && admits(model, v, a, w, b)
                    {
                        best = Some((gain, worth, v, a, w, b));
                    }
                }
            }
        }
    }
    let Some((gain, _, v, a, w, b)) = best else { return false };
    let why = reason(model, a, b, &[v]);
    draft.shift(model, v, b, why, gain.total());
    draft.shift(model, w, a, Reason::Room { vm: model.vms[v].vm.id.clone() }, 0.0);
    true
}

fn gain(model: &Model<'_>, v: VmNo, a: HostNo, w: VmNo, b: HostNo) -> Levels {
    let (on_a, on_b) = (&model.hosts[a], &model.hosts[b]);
    let (x, y) = (&model.vms[v], &model.vms[w]);
    let before = model.scale.host(on_a, &on_a.sums) + model.scale.host(on_b, &on_b.sums);
    let after =
        model.scale.host(on_a, &on_a.sums.without(x).with(y)) + model.scale.host(on_b, &on_b.sums.without(y).with(x));
    let preferences = model.swap_preference(v, a, w, b);
    let mut gain = before - after;
    gain.imbalance -= crate::rules::PREFERENCE * preferences;
    gain
}

impl Model<'_> {
    /// As `preference_change`, for both: a rule that has the two of them sees one of each on either host before and after.
    fn swap_preference(&self, v: VmNo, a: HostNo, w: VmNo, b: HostNo) -> f64 {
        let shared =
            self.rules.of_vm[v].iter().any(|r| !self.rules.rules[*r].strict && self.rules.of_vm[w].contains(r));
        // Rare: both in one preferred rule. No swap is better than a sum that is not what will be.
        if shared { 1.0 } else { self.preference_change(v, b, &[]) + self.preference_change(w, a, &[]) }
    }
}

/// Whether rules and thresholds allow each where the other was. Leaves the model as it was.
fn admits(model: &mut Model<'_>, v: VmNo, a: HostNo, w: VmNo, b: HostNo) -> bool {
    model.take(v);
    model.take(w);
    let mut good = model.admit(&[v], b).is_ok() && keeps_room(model, &[v], b);
    model.put(v, b);
    good = good && model.admit(&[w], a).is_ok();
    model.take(v);
    model.put(v, a);
    model.put(w, b);
    good
}
