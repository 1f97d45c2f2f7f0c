//! Virtual clusters: hosts lent and taken back by load, and a group moved as a whole to another site.
//!
//! Owns: which host belongs to which group. Never does: move VMs one by one; once a host's group has changed, the plan takes the VMs of the other group off
//! it, because a VM runs only on hosts of its group.
//!
//! Hosts are shared out as in Cluster-on-Demand (Chase et al., HPDC 2003): each group first gets its minimum, then what its load needs,
//! those with the largest claim for their share first; hosts that nobody needs stay where they are.

use crate::model::{CPU, HostNo, MEMORY, Model, VmNo};
use crate::plan::Plan;
use crate::planner::plan;
use crate::policy::{Ask, Goal, Group, HostSelector, Policy, Rule, VmSelector};
use crate::snapshot::{HostState, Snapshot};
use proto::HostId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A host that changes its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// Which.
    pub host: HostId,
    /// The group that gives it; `None` when it was in the pool.
    pub from: Option<String>,
    /// The group that gets it; `None` when it goes back to the pool.
    pub to: Option<String>,
}

/// Shares hosts out among the policy's groups. Empty when snapshot or policy fail their check, and when all have what they need.
pub fn share_out(snapshot: &Snapshot, policy: &Policy) -> Vec<Lent> {
    if policy.groups.is_empty() || snapshot.check().and_then(|()| policy.check()).is_err() {
        return Vec::new();
    }
    let model = Model::new(snapshot, policy);
    let mut has: BTreeMap<Option<&str>, Vec<HostNo>> = BTreeMap::new();
    for (h, host) in model.hosts.iter().enumerate().filter(|(_, host)| host.host.state == HostState::Active) {
        let known = host.host.group.as_deref().filter(|name| policy.groups.iter().any(|group| group.name == **name));
        if known.is_some() || host.host.group.is_none() {
            has.entry(known).or_default().push(h);
        }
    }
    let wanted = wanted(&model, has.values().map(Vec::len).sum());
    let mut lent = Vec::new();
    for (group, &want) in policy.groups.iter().zip(&wanted) {
        while has.get(&Some(group.name.as_str())).map_or(0, Vec::len) < want {
            let Some((from, h)) = giver(&model, &has, &wanted) else { break };
            has.entry(from).or_default().retain(|&other| other != h);
            has.entry(Some(group.name.as_str())).or_default().push(h);
            let to = Some(group.name.clone());
            lent.push(Lent { host: model.hosts[h].host.id.clone(), from: from.map(str::to_owned), to });
        }
        let mine = has.entry(Some(group.name.as_str())).or_default();
        mine.sort_by_key(|&h| (model.hosts[h].sums.memory_mib, h));
        while mine.len() > group.hosts_max {
            let h = mine.remove(0);
            lent.push(Lent { host: model.hosts[h].host.id.clone(), from: Some(group.name.clone()), to: None });
        }
    }
    lent
}

/// How many hosts each group is to have, of so many.
fn wanted(model: &Model<'_>, hosts: usize) -> Vec<usize> {
    let groups = &model.policy.groups;
    let active = || model.hosts.iter().filter(|host| host.host.state == HostState::Active);
    let n = (active().count() as f64).max(1.0);
    let mean = |r: usize| active().map(|host| host.capacity[r]).sum::<f64>() / n;
    let needs = |group: &Group| {
        let vms = model.vms.iter().filter(|entry| entry.vm.group.as_deref() == Some(group.name.as_str()));
        let (cpu, variance, memory) = vms.fold((0.0, 0.0, 0.0), |(cpu, variance, memory), entry| {
            (cpu + entry.load[CPU], variance + entry.cpu_variance, memory + entry.load[MEMORY])
        });
        let free = 1.0 - group.slack;
        let cpu =
            (cpu + model.scale.z * f64::sqrt(variance)) / (mean(CPU) * model.policy.thresholds.leave.clamp(0.01, free));
        cpu.max(memory / (mean(MEMORY) * free)).ceil() as usize
    };
    let mut given: Vec<usize> = groups.iter().map(|group| group.hosts_min).collect();
    let most: Vec<usize> = groups.iter().map(|group| needs(group).clamp(group.hosts_min, group.hosts_max)).collect();
    while given.iter().sum::<usize>() < hosts {
        // The group that has least for its claim comes next.
        let next = (0..groups.len()).filter(|&g| given[g] < most[g]).min_by(|&a, &b| {
            (given[a] as f64 / groups[a].share).total_cmp(&(given[b] as f64 / groups[b].share)).then(a.cmp(&b))
        });
        let Some(next) = next else { break };
        given[next] += 1;
    }
    given
}

/// Where a host comes from: the pool, else a group that has more than it is to have; the host with least on it.
fn giver<'a>(
    model: &'a Model<'_>,
    has: &BTreeMap<Option<&'a str>, Vec<HostNo>>,
    wanted: &[usize],
) -> Option<(Option<&'a str>, HostNo)> {
    let lightest = |hosts: &Vec<HostNo>| hosts.iter().copied().min_by_key(|&h| (model.hosts[h].sums.memory_mib, h));
    if let Some(h) = has.get(&None).and_then(lightest) {
        return Some((None, h));
    }
    let surplus = model.policy.groups.iter().zip(wanted).filter_map(|(group, &want)| {
        let name = Some(group.name.as_str());
        has.get(&name).filter(|hosts| hosts.len() > want).and_then(|hosts| Some((name, lightest(hosts)?)))
    });
    surplus.min_by_key(|&(_, h)| (model.hosts[h].sums.memory_mib, h))
}

/// Whether a group keeps its slack with these VMs on these hosts, by memory and by mean processor use.
pub(crate) fn keeps_slack(
    model: &Model<'_>,
    group: &Group,
    hosts: impl Iterator<Item = HostNo>,
    new: Option<VmNo>,
) -> bool {
    let (mut capacity, mut used) = ([0.0; 2], [0.0; 2]);
    for h in hosts {
        for (i, r) in [CPU, MEMORY].into_iter().enumerate() {
            capacity[i] += model.hosts[h].capacity[r];
            used[i] += model.hosts[h].sums.load[r];
        }
    }
    let more = |r: usize| new.map_or(0.0, |v| model.vms[v].load[r]);
    [CPU, MEMORY].into_iter().enumerate().all(|(i, r)| used[i] + more(r) <= capacity[i] * (1.0 - group.slack) + 1e-9)
}

impl Model<'_> {
    /// The policy's group of this name, when it keeps slack.
    pub(crate) fn slack_group(&self, name: Option<&str>) -> Option<&Group> {
        self.policy.groups.iter().find(|group| Some(group.name.as_str()) == name && group.slack > 0.0)
    }

    /// Active hosts of a group.
    pub(crate) fn hosts_of(&self, group: &str) -> impl Iterator<Item = HostNo> {
        (0..self.hosts.len()).filter(move |&h| {
            self.hosts[h].host.state == HostState::Active && self.hosts[h].host.group.as_deref() == Some(group)
        })
    }
}

/// A group's way to another site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relocation {
    /// Hosts of the other site that the group gets.
    pub lent: Vec<Lent>,
    /// The moves; all of the group's VMs, or none.
    pub plan: Plan,
    /// Whether the whole group gets there.
    pub possible: bool,
}

/// Plans to move a group as a whole to another site (VIOLIN; Ruth et al., ICAC 2006), onto hosts of its own there and as many from the pool as it takes.
/// When not all VMs find a place, none moves; the plan's stays say why.
pub fn relocate(snapshot: &Snapshot, policy: &Policy, group: &str, site: &str) -> Relocation {
    let there = |host: &crate::snapshot::Host| host.site.as_deref() == Some(site) && host.state == HostState::Active;
    let names: std::collections::BTreeSet<_> =
        snapshot.vms.iter().filter(|vm| vm.group.as_deref() == Some(group)).map(|vm| vm.id.clone()).collect();
    let rule = Rule {
        name: format!("group {group} to site {site}"),
        strict: true,
        ask: Ask::On {
            vms: VmSelector { names: names.clone(), ..VmSelector::default() },
            hosts: HostSelector {
                names: snapshot.hosts.iter().filter(|host| there(host)).map(|host| host.id.clone()).collect(),
                ..HostSelector::default()
            },
        },
    };
    let mut policy = Policy { goal: Goal::Quiet, moves_max: None, move_mib_max: None, ..policy.clone() };
    policy.rules.push(rule);
    let mut now = snapshot.clone();
    let mut pool: Vec<usize> =
        (0..now.hosts.len()).filter(|&h| there(&now.hosts[h]) && now.hosts[h].group.is_none()).collect();
    pool.sort_by(|&a, &b| {
        now.hosts[b].memory_mib.cmp(&now.hosts[a].memory_mib).then_with(|| now.hosts[a].id.cmp(&now.hosts[b].id))
    });
    let mut lent = Vec::new();
    loop {
        let made = plan(&now, &policy);
        let possible = made.refused.is_none() && made.broken.iter().all(|broken| !broken.strict);
        if possible {
            return Relocation { lent, plan: made, possible };
        }
        if pool.is_empty() {
            let nothing = Plan { moves: Vec::new(), score_after: made.score_before, after: made.before, ..made };
            return Relocation { lent: Vec::new(), plan: nothing, possible };
        }
        let h = pool.remove(0);
        now.hosts[h].group = Some(group.to_owned());
        lent.push(Lent { host: now.hosts[h].id.clone(), from: None, to: Some(group.to_owned()) });
    }
}
