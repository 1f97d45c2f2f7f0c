//! Fewest hosts: empty the ones that others can take over, and say which may be switched off.
//!
//! Owns: which hosts are emptied. Never does: relieve overload (the descent has done that), empty a host halfway.
//!
//! Hosts are tried from the cheapest to empty to the dearest. Each VM goes to the fullest host that it leaves below its leave threshold at the
//! policy's quantile; when one VM finds no place, the whole host stays as it is. A host must save more than its moves cost.

use crate::draft::Draft;
use crate::forecast::DAY_MS;
use crate::groups::keeps_slack;
use crate::levels::Levels;
use crate::model::{CPU, HostEntry, HostNo, Model, VmNo};
use crate::plan::{PowerOff, Reason};
use crate::search::{keeps_room, movable, step_cost};
use crate::snapshot::HostState;

/// What an emptied host is worth in the unit of the score, the energy that the policy weighs not counted.
pub(crate) const HOST: f64 = 0.5;

/// How much a host of mean capacity is kept for its size, beside the share of it that is in use.
const SIZE: f64 = 1.0;

/// Empties hosts until no further one can be.
pub(crate) fn pack(model: &mut Model<'_>, draft: &mut Draft) {
    let mut sources: Vec<(f64, HostNo)> =
        (0..model.hosts.len()).filter(|&h| is_running(model, h)).map(|h| (expense(model, h), h)).collect();
    sources.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut targets: Vec<HostNo> = sources.iter().map(|&(_, h)| h).collect();
    for (_, from) in sources {
        let mark = draft.mark();
        targets.retain(|&h| h != from);
        sort_fullest_first(model, &mut targets);
        if is_running(model, from) && !empty(model, draft, from, &targets) {
            draft.back_to(model, mark);
            targets.push(from);
        }
    }
}

fn is_running(model: &Model<'_>, h: HostNo) -> bool {
    model.hosts[h].host.state == HostState::Active && !model.hosts[h].vms.is_empty()
}

/// What emptying a host would cost, and what it could have taken in; endless when one of its VMs may not go.
fn expense(model: &Model<'_>, h: HostNo) -> f64 {
    let cost = |&v: &VmNo| if movable(model, v).is_ok() { step_cost(model, v) } else { f64::INFINITY };
    // Load is a part of it: what is taken off must find room elsewhere. So is size: the largest hosts are the fewest.
    model.hosts[h].vms.iter().map(cost).sum::<f64>()
        + model.scale.expected_share(&model.hosts[h], &model.hosts[h].sums)
        + SIZE * model.scale.size(&model.hosts[h])
}

fn sort_fullest_first(model: &Model<'_>, hosts: &mut [HostNo]) {
    let share = |h: HostNo| model.scale.expected_share(&model.hosts[h], &model.hosts[h].sums);
    hosts.sort_by(|&a, &b| share(b).total_cmp(&share(a)).then(a.cmp(&b)));
}

fn empty(model: &mut Model<'_>, draft: &mut Draft, from: HostNo, targets: &[HostNo]) -> bool {
    let mut vms = model.hosts[from].vms.clone();
    vms.sort_by(|&a, &b| model.vms[b].load[CPU].total_cmp(&model.vms[a].load[CPU]).then(a.cmp(&b)));
    let cost: f64 = vms.iter().map(|&v| step_cost(model, v)).sum();
    let mut gain = Levels::default();
    for v in vms {
        if model.vms[v].place != Some(from) {
            continue; // went with its unit
        }
        let unit = model.rules.units[model.rules.unit_of[v]].clone();
        if unit.iter().any(|&u| movable(model, u).is_err() || model.vms[u].place != Some(from))
            || !draft.allows(model, &unit)
        {
            return false;
        }
        let fits = |h: &&HostNo| model.admit(&unit, **h).is_ok() && keeps_room(model, &unit, **h);
        let Some(&to) = targets.iter().find(fits) else { return false };
        gain += model.gain(&unit, from, to);
        for u in unit {
            draft.shift(model, u, to, Reason::Pack, 0.0);
        }
    }
    gain.is_worth(cost)
}

/// Hosts that run nothing when all moves are done, less those that are kept for failures and for light load. Each is needed again when
/// the demand of the same time yesterday is more than the hosts before it may take.
pub(crate) fn power_off(model: &Model<'_>) -> Vec<PowerOff> {
    let kept = (model.policy.spare_hosts + model.policy.light_hosts) as usize;
    let active = || model.hosts.iter().filter(|host| host.host.state == HostState::Active);
    let takes = |host: &HostEntry<'_>| host.capacity[CPU] * host.ceiling();
    let mut room: f64 = active().filter(|host| !host.vms.is_empty()).map(takes).sum();
    let demand = demand_ahead(model);
    let mut off: Vec<PowerOff> = Vec::new();
    for (i, host) in active().filter(|host| host.vms.is_empty()).enumerate() {
        if i >= kept && slack_without(model, host, &off) {
            let needed = demand.iter().position(|&cores| cores > room);
            let wake_ms = needed.map(|step| model.at_ms.saturating_add((step as u64 + 1) * model.sample_ms));
            off.push(PowerOff { host: host.host.id.clone(), wake_ms });
        }
        room += takes(host);
    }
    off
}

/// Whether a host's group keeps its slack without it and without those that are switched off already.
fn slack_without(model: &Model<'_>, host: &HostEntry<'_>, off: &[PowerOff]) -> bool {
    let Some(group) = model.slack_group(host.host.group.as_deref()) else { return true };
    let gone = |h: &HostNo| {
        let id = &model.hosts[*h].host.id;
        *id == host.host.id || off.iter().any(|other| other.host == *id)
    };
    keeps_slack(model, group, model.hosts_of(&group.name).filter(|h| !gone(h)), None)
}

/// Cores that all VMs together are expected to use at each sample of the coming day: what each used at that time yesterday, and what it is expected to
/// use anyway where nothing was recorded. Empty when no VM has a day of history.
fn demand_ahead(model: &Model<'_>) -> Vec<f64> {
    let day = DAY_MS.checked_div(model.sample_ms).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if day == 0 || !model.vms.iter().any(|entry| entry.vm.cpu_history.len() >= day) {
        return Vec::new();
    }
    let mut demand = vec![0.0; day];
    for entry in &model.vms {
        let history = &entry.vm.cpu_history;
        for (step, sum) in demand.iter_mut().enumerate() {
            let yesterday = (history.len() + step + 1).checked_sub(day).and_then(|i| history.get(i));
            *sum += yesterday.map_or(entry.load[CPU], |&cores| f64::from(cores));
        }
    }
    demand
}
