//! Rules that cannot hold together.
//!
//! Owns: finding, for a rule that does not hold, the rules that stand against it whatever room there is: strict ones, and for a preferred rule other
//! preferred ones too. Never does: look at load or at memory in use.

use crate::model::{HostNo, Model, VmNo};
use crate::rules::Kind;
use std::collections::BTreeSet;

impl Model<'_> {
    /// Rules that contradict rule `r`, by name in order; empty when nothing but room is lacking.
    pub(crate) fn against(&self, r: usize) -> Vec<String> {
        let mut against = BTreeSet::new();
        let rule = &self.rules.rules[r];
        match &rule.kind {
            Kind::Only(allowed) => {
                for &v in &rule.vms {
                    against.extend(self.no_common_host(r, allowed, v));
                }
                let apart = self.overlapping(r, 1).filter(|&o| matches!(self.rules.rules[o].kind, Kind::Apart));
                against.extend(apart.filter(|&o| {
                    let vms = &self.rules.rules[o].vms;
                    self.matching(vms, Some(r)) < vms.len()
                }));
            }
            Kind::Apart => {
                for o in self.overlapping(r, 2).filter(|&o| matches!(self.rules.rules[o].kind, Kind::Together)) {
                    against.insert(o);
                }
                if self.matching(&rule.vms, None) < rule.vms.len() {
                    let only = self.overlapping(r, 1).filter(|&o| matches!(self.rules.rules[o].kind, Kind::Only(_)));
                    against.extend(only);
                }
            }
            Kind::Together => {
                against.extend(self.overlapping(r, 2).filter(|&o| matches!(self.rules.rules[o].kind, Kind::Apart)));
                let only: Vec<usize> =
                    self.overlapping(r, 1).filter(|&o| matches!(self.rules.rules[o].kind, Kind::Only(_))).collect();
                let common = (0..self.hosts.len()).any(|h| rule.vms.iter().all(|&v| self.may_ever(v, h)));
                if !common {
                    against.extend(only);
                }
            }
        }
        against.remove(&r);
        against.into_iter().map(|o| self.rules.rules[o].name.clone()).collect()
    }

    /// Strict rules on hosts that leave a VM, or one that is kept together with it, no host that rule `r` allows.
    fn no_common_host(&self, r: usize, allowed: &[bool], v: VmNo) -> BTreeSet<usize> {
        let unit = &self.rules.units[self.rules.unit_of[v]];
        let fit: Vec<HostNo> =
            (0..self.hosts.len()).filter(|&h| allowed[h] && unit.iter().all(|&u| self.rules.fits(u, h))).collect();
        let others: BTreeSet<usize> = unit
            .iter()
            .flat_map(|&u| self.rules.of_vm[u].iter().copied())
            .filter(|&o| o != r && self.may_stand_against(o, r))
            .collect();
        let allows = |o: usize, h: HostNo| match &self.rules.rules[o].kind {
            Kind::Only(allowed) => allowed[h],
            _ => true,
        };
        if fit.iter().any(|&h| others.iter().all(|&o| allows(o, h))) {
            return BTreeSet::new();
        }
        let alone: BTreeSet<usize> = others.iter().copied().filter(|&o| !fit.iter().any(|&h| allows(o, h))).collect();
        let only = |o: &usize| matches!(self.rules.rules[*o].kind, Kind::Only(_));
        let mut found: BTreeSet<usize> =
            if alone.is_empty() { others.iter().copied().filter(only).collect() } else { alone };
        if unit.len() > 1 {
            found.extend(others.iter().copied().filter(|&o| matches!(self.rules.rules[o].kind, Kind::Together)));
        }
        found
    }

    /// A preferred rule gives way to a strict one, so it is no reason why that does not hold.
    fn may_stand_against(&self, o: usize, r: usize) -> bool {
        self.rules.rules[o].strict || !self.rules.rules[r].strict
    }

    /// Other rules that may stand against rule `r` and share so many VMs with it.
    fn overlapping(&self, r: usize, least: usize) -> impl Iterator<Item = usize> {
        let mine: BTreeSet<VmNo> = self.rules.rules[r].vms.iter().copied().collect();
        (0..self.rules.rules.len()).filter(move |&o| {
            let other = &self.rules.rules[o];
            o != r && self.may_stand_against(o, r) && other.vms.iter().filter(|v| mine.contains(v)).count() >= least
        })
    }

    /// How many of these VMs can be on hosts of their own at the same time, by strict rules and by one more (augmenting paths).
    fn matching(&self, vms: &[VmNo], by: Option<usize>) -> usize {
        let mut holder: Vec<Option<VmNo>> = vec![None; self.hosts.len()];
        vms.iter().filter(|&&v| self.augment(v, by, &mut holder, &mut vec![false; self.hosts.len()])).count()
    }

    fn augment(&self, v: VmNo, by: Option<usize>, holder: &mut [Option<VmNo>], seen: &mut [bool]) -> bool {
        let allows = |h: HostNo| match by.map(|r| &self.rules.rules[r]) {
            Some(rule) => !rule.vms.contains(&v) || matches!(&rule.kind, Kind::Only(allowed) if allowed[h]),
            None => true,
        };
        for h in 0..self.hosts.len() {
            if seen[h] || !self.may_ever(v, h) || !allows(h) {
                continue;
            }
            seen[h] = true;
            if holder[h].is_none_or(|other| self.augment(other, by, holder, seen)) {
                holder[h] = Some(v);
                return true;
            }
        }
        false
    }
}
