//! Moves that must be: off hosts that are emptied, into the right group, to where strict rules hold.
//!
//! Owns: which units must go, and ejection chains when memory is tight: to make room for a unit another VM goes elsewhere, for which in turn
//! another may have to go, three deep. Never does: weigh whether a move is worth it; these are.

use crate::draft::Draft;
use crate::levels::{Levels, Worth};
use crate::model::{HostNo, Model, VmNo};
use crate::plan::{Reason, Why};
use crate::rules::{Kind, fits};
use crate::search::movable;
use crate::snapshot::HostState;

/// How many VMs may make way for one another in a chain.
const CHAIN_MAX: usize = 3;

/// Trials for one unit, a limit on time: beyond it a unit that may have had a place is said to have none.
const TRIALS_MAX: u32 = 20_000;

/// Makes all moves that must be, as far as they can be.
pub(crate) fn settle(model: &mut Model<'_>, draft: &mut Draft) {
    for (reason, units) in [leavers(model), strangers(model)].into_iter().flatten().collect::<Vec<_>>() {
        place_unit(model, draft, units, &reason);
    }
    for r in 0..model.rules.rules.len() {
        if model.rules.rules[r].strict {
            repair(model, draft, r);
        }
    }
    lighten(model, draft);
}

/// Whether a VM may be moved when it must: neither pinned nor busy nor without a way.
///
/// # Errors
/// Why not.
pub(crate) fn removable(model: &Model<'_>, v: VmNo) -> Result<(), Why> {
    match movable(model, v) {
        Err(why @ (Why::Pinned | Why::Busy | Why::NoWay)) => Err(why),
        _ => Ok(()),
    }
}

type Demands = Vec<(Reason, usize)>;

/// Units with a VM on a draining host, largest first.
fn leavers(model: &Model<'_>) -> Demands {
    let mut units: Vec<usize> = (0..model.vms.len())
        .filter(|&v| model.vms[v].place.is_some_and(|h| model.hosts[h].host.state == HostState::Draining))
        .map(|v| model.rules.unit_of[v])
        .collect();
    units.sort_unstable();
    units.dedup();
    units.sort_by_key(|&unit| (std::cmp::Reverse(model.unit_mib(unit)), unit));
    units.into_iter().map(|unit| (Reason::Drain, unit)).collect()
}

/// Units with a VM on a usable host of another group.
fn strangers(model: &Model<'_>) -> Demands {
    let strange = |v: VmNo| {
        let vm = model.vms[v].vm;
        model.vms[v]
            .place
            .is_some_and(|h| model.hosts[h].host.state == HostState::Active && model.hosts[h].host.group != vm.group)
    };
    let wanted = (0..model.vms.len()).filter(|&v| strange(v));
    wanted
        .map(|v| (Reason::Group { group: model.vms[v].vm.group.clone().unwrap_or_default() }, model.rules.unit_of[v]))
        .collect()
}

/// Makes one strict rule hold.
fn repair(model: &mut Model<'_>, draft: &mut Draft, r: usize) {
    let reason = Reason::Rule { rule: model.rules.rules[r].name.clone() };
    for v in model.rules.wrong(r, &model.vms) {
        // What went before may have settled this one.
        if !model.rules.wrong(r, &model.vms).contains(&v) {
            continue;
        }
        if matches!(model.rules.rules[r].kind, Kind::Apart) && keeper(model, r, v) == v {
            continue;
        }
        place_unit(model, draft, model.rules.unit_of[v], &reason);
    }
}

/// Of the VMs of a rule on one host, the one that stays there: one that cannot be moved, else the largest.
fn keeper(model: &Model<'_>, r: usize, v: VmNo) -> VmNo {
    let here = model.rules.rules[r].vms.iter().copied().filter(|&w| model.vms[w].place == model.vms[v].place);
    here.max_by_key(|&w| (removable(model, w).is_err(), model.vms[w].vm.memory_mib, std::cmp::Reverse(w))).unwrap_or(v)
}

/// Brings hosts that are to be lightly loaded below their share.
fn lighten(model: &mut Model<'_>, draft: &mut Draft) {
    for h in (0..model.hosts.len()).filter(|&h| model.hosts[h].light).collect::<Vec<_>>() {
        let mut here = model.hosts[h].vms.clone();
        here.sort_by_key(|&v| (model.vms[v].vm.memory_mib, v));
        for v in here {
            if !model.is_heavy(h) {
                break;
            }
            if movable(model, v).is_ok() {
                place_unit(model, draft, model.rules.unit_of[v], &Reason::Light);
            }
        }
    }
}

impl Model<'_> {
    fn is_heavy(&self, h: HostNo) -> bool {
        let host = &self.hosts[h];
        let share = |r: usize| host.sums.load[r] / host.capacity[r].max(1e-9);
        share(crate::model::CPU).max(share(crate::model::MEMORY)) > self.policy.light_share
    }

    pub(crate) fn unit_mib(&self, unit: usize) -> u64 {
        self.rules.units[unit].iter().map(|&v| self.vms[v].vm.memory_mib).sum()
    }
}

/// Brings a unit to the best host that may take it whole, if need be by a chain. Whether it is there.
pub(crate) fn place_unit(model: &mut Model<'_>, draft: &mut Draft, unit: usize, reason: &Reason) -> bool {
    let mut trials = TRIALS_MAX;
    chain(model, draft, unit, reason, CHAIN_MAX, &mut Vec::new(), &mut trials)
}

/// As `place_unit`; `closed` are hosts that earlier links of the chain count on.
fn chain(
    model: &mut Model<'_>,
    draft: &mut Draft,
    unit: usize,
    reason: &Reason,
    depth: usize,
    closed: &mut Vec<HostNo>,
    trials: &mut u32,
) -> bool {
    let vms = model.rules.units[unit].clone();
    let makes_way = matches!(reason, Reason::Room { .. });
    let may_go = |v: &VmNo| if makes_way { movable(model, *v).is_ok() } else { removable(model, *v).is_ok() };
    let first = model.vms[vms[0]].place;
    let together = vms.iter().all(|&v| model.vms[v].place == first);
    // A unit that is together must leave; one that is scattered may meet where some of it is, and those that cannot move say where.
    let stuck: Vec<HostNo> = vms.iter().filter(|v| !may_go(v)).filter_map(|&v| model.vms[v].place).collect();
    if (together && !stuck.is_empty()) || !draft.allows(model, &vms) {
        return false;
    }
    let targets: Vec<HostNo> = (0..model.hosts.len())
        .filter(|h| !closed.contains(h) && stuck.iter().all(|s| s == h))
        .filter(|&h| !together || first != Some(h))
        .filter(|&h| vms.iter().all(|&v| model.rules.fits(v, h)))
        .collect();
    let mut best: Option<(Levels, HostNo)> = None;
    for &to in &targets {
        *trials = trials.saturating_sub(1);
        if model.admit(&vms, to).is_ok() {
            let gain = model.gain_from_all(&vms, to);
            if best.is_none_or(|(most, _)| Worth::of(gain, 0.0).total_cmp(&Worth::of(most, 0.0)).is_gt()) {
                best = Some((gain, to));
            }
        }
    }
    if let Some((gain, to)) = best {
        go(model, draft, &vms, to, reason, gain);
        return true;
    }
    if depth == 0 {
        return false;
    }
    let mut tight: Vec<(u64, HostNo)> = targets.iter().map(|&h| (model.lacking_mib(&vms, h), h)).collect();
    tight.sort_unstable();
    for (lacks_mib, to) in tight {
        closed.push(to);
        let mark = draft.mark();
        if make_room(model, draft, &vms, to, lacks_mib, depth, closed, trials)
            && model.admit(&vms, to).is_ok()
            && draft.allows(model, &vms)
        {
            closed.pop();
            let gain = model.gain_from_all(&vms, to);
            go(model, draft, &vms, to, reason, gain);
            return true;
        }
        draft.back_to(model, mark);
        closed.pop();
        if *trials == 0 {
            return false;
        }
    }
    false
}

/// Sends VMs away from `to` until `vms` may come: those that strict rules keep apart from them, then the smallest one that is
/// large enough, else the largest ones. Whether that was enough is for the caller to ask; shifts made are on the draft's trail.
#[allow(clippy::too_many_arguments)] // the chain's state, which is nobody else's
fn make_room(
    model: &mut Model<'_>,
    draft: &mut Draft,
    vms: &[VmNo],
    to: HostNo,
    lacks_mib: u64,
    depth: usize,
    closed: &mut Vec<HostNo>,
    trials: &mut u32,
) -> bool {
    let reason = Reason::Room { vm: model.vms[vms[0]].vm.id.clone() };
    let mut here: Vec<VmNo> = model.hosts[to].vms.iter().copied().filter(|v| !vms.contains(v)).collect();
    here.sort_by_key(|&v| (model.vms[v].vm.memory_mib, v));
    let rivals: Vec<VmNo> = here.iter().copied().filter(|&w| vms.iter().any(|&v| model.apart(v, w))).collect();
    for w in rivals {
        if !chain(model, draft, model.rules.unit_of[w], &reason, depth - 1, closed, trials) {
            return false;
        }
    }
    let enough = |model: &Model<'_>| model.admit(vms, to).is_ok();
    if enough(model) {
        return true;
    }
    if lacks_mib == 0 {
        return false;
    }
    for w in here.iter().copied().filter(|&w| model.unit_mib(model.rules.unit_of[w]) >= lacks_mib).collect::<Vec<_>>() {
        let mark = draft.mark();
        if chain(model, draft, model.rules.unit_of[w], &reason, depth - 1, closed, trials) && enough(model) {
            return true;
        }
        draft.back_to(model, mark);
        if *trials == 0 {
            return false;
        }
    }
    let mut left = CHAIN_MAX;
    for w in here.into_iter().rev() {
        if left == 0 || enough(model) {
            break;
        }
        if model.vms[w].place == Some(to)
            && chain(model, draft, model.rules.unit_of[w], &reason, depth - 1, closed, trials)
        {
            left -= 1;
        }
    }
    enough(model)
}

fn go(model: &mut Model<'_>, draft: &mut Draft, vms: &[VmNo], to: HostNo, reason: &Reason, gain: Levels) {
    for &v in vms {
        if model.vms[v].place != Some(to) {
            draft.shift(model, v, to, reason.clone(), gain.total());
        }
    }
}

impl Model<'_> {
    /// How much memory a host lacks for these VMs, MiB.
    pub(crate) fn lacking_mib(&self, vms: &[VmNo], to: HostNo) -> u64 {
        let needs: u64 =
            vms.iter().filter(|&&v| self.vms[v].place != Some(to)).map(|&v| self.vms[v].vm.memory_mib).sum();
        needs.saturating_sub(self.hosts[to].room_mib())
    }

    /// How much the score falls when these VMs go to a host from wherever they are.
    pub(crate) fn gain_from_all(&mut self, vms: &[VmNo], to: HostNo) -> Levels {
        let mut gain = Levels::default();
        let mut back = Vec::with_capacity(vms.len());
        for &v in vms {
            let Some(from) = self.vms[v].place.filter(|&from| from != to) else { continue };
            gain += self.gain(&[v], from, to);
            self.shift(v, to);
            back.push((v, from));
        }
        for (v, from) in back.into_iter().rev() {
            self.shift(v, from);
        }
        gain
    }

    /// Whether a VM may be on a host were it empty: what VM and host are, and strict rules on the two alone.
    pub(crate) fn may_ever(&self, v: VmNo, h: HostNo) -> bool {
        let holds = |r: &usize| match &self.rules.rules[*r].kind {
            Kind::Only(allowed) if self.rules.rules[*r].strict => allowed[h],
            _ => true,
        };
        fits(self.vms[v].vm, self.hosts[h].host).is_ok()
            && self.vms[v].vm.memory_mib <= self.hosts[h].host.memory_mib
            && self.rules.of_vm[v].iter().all(holds)
    }
}
