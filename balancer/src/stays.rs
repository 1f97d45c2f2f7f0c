//! Who stays although something concerns it, and why.
//!
//! Owns: the reasons against. Never does: change the plan; it looks at where everything is when all moves are done.

use crate::draft::Draft;
use crate::model::{HostNo, Model, VmNo};
use crate::must::removable;
use crate::plan::{BrokenRule, Concern, Refusal, Rejection, Remedy, Stay, Why};
use crate::search::{keeps_room, movable, step_cost};
use crate::snapshot::HostState;
use proto::VmId;

/// Hosts looked at for one VM, the coldest first; a limit on time in large racks.
const HOSTS_MAX: usize = 64;

/// Rejections named for one VM: one for each kind.
const REJECTIONS_MAX: usize = 8;

/// A concern by numbers.
pub(crate) struct Concerned {
    v: VmNo,
    concern: Concern,
    /// Must move, rather than only should.
    must: bool,
    /// The rule, when it is one.
    rule: Option<usize>,
}

impl Model<'_> {
    /// VMs that a drain, a rule or an overload concerns where everything is now, each by the gravest only.
    pub(crate) fn concerned(&self) -> Vec<Concerned> {
        let mut all = Vec::new();
        for (h, host) in self.hosts.iter().enumerate() {
            if host.host.state == HostState::Draining {
                all.extend(host.vms.iter().map(|&v| Concerned { v, concern: Concern::Drain, must: true, rule: None }));
            } else if let Some(expected) = self.overload(h).filter(|_| host.host.state == HostState::Active) {
                let concern = Concern::Overload { expected, threshold: host.thresholds.enter };
                all.extend(host.vms.iter().map(|&v| Concerned {
                    v,
                    concern: concern.clone(),
                    must: false,
                    rule: None,
                }));
            }
        }
        for (r, vms) in self.broken_rules() {
            let rule = &self.rules.rules[r];
            let concern = Concern::Rule { rule: rule.name.clone() };
            all.extend(vms.iter().map(|&v| Concerned {
                v,
                concern: concern.clone(),
                must: rule.strict,
                rule: Some(r),
            }));
        }
        all.sort_by_key(|c| (c.v, !c.must, c.rule));
        all.dedup_by_key(|c| c.v);
        all
    }
}

/// Why those concerned before or now stay where they were.
pub(crate) fn stays(model: &Model<'_>, draft: &Draft, before: Vec<Concerned>) -> Vec<Stay> {
    let now = model.concerned();
    let mut all: Vec<(VmNo, Stay)> = Vec::new();
    let mut order: Vec<HostNo> = (0..model.hosts.len()).collect();
    order.sort_by(|&a, &b| {
        model.scale.heat(&model.hosts[a]).total_cmp(&model.scale.heat(&model.hosts[b])).then(a.cmp(&b))
    });
    for concerned in before {
        let still = now.binary_search_by_key(&concerned.v, |c| c.v).is_ok();
        if !still && model.vms[concerned.v].place == model.vms[concerned.v].home {
            all.push((concerned.v, Stay { vm: id(model, concerned.v), concern: concerned.concern, why: Why::Settled }));
        }
    }
    for concerned in now {
        if model.vms[concerned.v].place == model.vms[concerned.v].home {
            let why = why(model, draft, &concerned, &order);
            all.push((concerned.v, Stay { vm: id(model, concerned.v), concern: concerned.concern, why }));
        }
    }
    all.sort_by_key(|(v, _)| *v);
    all.into_iter().map(|(_, stay)| stay).collect()
}

fn id(model: &Model<'_>, v: VmNo) -> VmId {
    model.vms[v].vm.id.clone()
}

fn why(model: &Model<'_>, draft: &Draft, concerned: &Concerned, order: &[HostNo]) -> Why {
    let v = concerned.v;
    let unit = &model.rules.units[model.rules.unit_of[v]];
    for &u in unit {
        if let Err(why) = if concerned.must { removable(model, u) } else { movable(model, u) } {
            return why;
        }
    }
    if let Some(r) = concerned.rule {
        let mut rules = model.against(r);
        if !rules.is_empty() {
            rules.push(model.rules.rules[r].name.clone());
            rules.sort();
            return Why::Contradiction { rules };
        }
    }
    let Some(from) = model.vms[v].place else { return Why::NoHost { rejections: Vec::new() } };
    let mut rejections: Vec<Rejection> = Vec::new();
    let mut best: Option<f64> = None;
    for &to in order.iter().filter(|&&to| to != from).take(HOSTS_MAX) {
        let refused = match model.admit(unit, to) {
            Err(refusal) => Some(refusal),
            Ok(()) if !concerned.must && !keeps_room(model, unit, to) => Some(model.would_overload(unit, to)),
            Ok(()) => None,
        };
        match refused {
            None => {
                let here = unit.iter().all(|&u| model.vms[u].place == Some(from));
                let gain = model.gain(if here { unit } else { std::slice::from_ref(&v) }, from, to).total();
                best = Some(best.map_or(gain, |most| most.max(gain)));
            }
            Some(why) if rejections.len() < REJECTIONS_MAX && !rejections.iter().any(|r| same_kind(&r.why, &why)) => {
                rejections.push(Rejection { host: model.hosts[to].host.id.clone(), why });
            }
            Some(_) => {}
        }
    }
    match best {
        None => Why::NoHost { rejections },
        Some(_) if draft.limited => Why::Limit,
        Some(gain) => Why::NotWorth { gain, cost: unit.iter().map(|&u| step_cost(model, u)).sum() },
    }
}

fn same_kind(a: &Refusal, b: &Refusal) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

impl Model<'_> {
    pub(crate) fn would_overload(&self, vms: &[VmNo], to: HostNo) -> Refusal {
        let host = &self.hosts[to];
        let after = vms.iter().fold(host.sums, |sums, &v| sums.with(&self.vms[v]));
        Refusal::Overload { expected: self.scale.expected_share(host, &after), threshold: host.ceiling() }
    }
}

/// Rules that do not hold now, with those that stand against them.
pub(crate) fn broken(model: &Model<'_>) -> Vec<BrokenRule> {
    let describe = |(r, vms): (usize, Vec<VmNo>)| BrokenRule {
        rule: model.rules.rules[r].name.clone(),
        strict: model.rules.rules[r].strict,
        vms: vms.into_iter().map(|v| id(model, v)).collect(),
        against: model.against(r),
    };
    model.broken_rules().into_iter().map(describe).collect()
}

/// What would make the drains possible that are not.
pub(crate) fn remedies(model: &Model<'_>, stays: &[Stay]) -> Vec<Remedy> {
    let mut remedies = Vec::new();
    for stay in stays.iter().filter(|stay| stay.concern == Concern::Drain) {
        let Ok(v) = model.vms.binary_search_by(|entry| entry.vm.id.cmp(&stay.vm)) else { continue };
        let vm = stay.vm.clone();
        remedies.push(match stay.why {
            Why::Pinned | Why::Busy => Remedy::Release { vm },
            _ => {
                let may = (0..model.hosts.len()).filter(|&h| model.may_ever(v, h));
                match may.map(|h| (model.lacking_mib(&[v], h), h)).min() {
                    Some((lacks_mib, h)) if lacks_mib > 0 => {
                        Remedy::Memory { vm, lacks_mib, on: model.hosts[h].host.id.clone() }
                    }
                    _ => Remedy::OtherHost { vm },
                }
            }
        });
    }
    remedies
}
