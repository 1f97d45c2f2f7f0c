//! Strict rules that cannot hold together.
//!
//! Owns: finding, for a rule that does not hold, the rules that stand against it whatever room there is. Never does: look at load or
//! at memory in use.

use crate::model::{HostNo, Model, VmNo};
use crate::rules::Kind;
use std::collections::BTreeSet;

impl Model<'_> {
    /// Strict rules that contradict rule `r`, by name in order; empty when nothing but room is lacking.
    pub(crate) fn against(&self, r: usize) -> Vec<String> {
        let mut against = BTreeSet::new();
        let rule = &self.rules.rules[r];
        match &rule.kind {
            Kind::Only(allowed) => {
                for &v in &rule.vms {
                    against.extend(self.no_common_host(r, allowed, v));
                }
            }
            Kind::Apart => {
                for o in self.overlapping(r, 2).filter(|&o| matches!(self.rules.rules[o].kind, Kind::Together)) {
                    against.insert(o);
                }
                if self.matching(&rule.vms) < rule.vms.len() {
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
            .filter(|&o| o != r && self.rules.rules[o].strict)
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

    /// Other strict rules that share so many VMs with rule `r`.
    fn overlapping(&self, r: usize, least: usize) -> impl Iterator<Item = usize> {
        let mine: BTreeSet<VmNo> = self.rules.rules[r].vms.iter().copied().collect();
        (0..self.rules.rules.len()).filter(move |&o| {
            let other = &self.rules.rules[o];
            o != r && other.strict && other.vms.iter().filter(|v| mine.contains(v)).count() >= least
        })
    }

    /// How many of these VMs can be on hosts of their own at the same time (augmenting paths).
    fn matching(&self, vms: &[VmNo]) -> usize {
        let mut holder: Vec<Option<VmNo>> = vec![None; self.hosts.len()];
        vms.iter().filter(|&&v| self.augment(v, &mut holder, &mut vec![false; self.hosts.len()])).count()
    }

    fn augment(&self, v: VmNo, holder: &mut [Option<VmNo>], seen: &mut [bool]) -> bool {
        for h in 0..self.hosts.len() {
            if seen[h] || !self.may_ever(v, h) {
                continue;
            }
            seen[h] = true;
            if holder[h].is_none_or(|other| self.augment(other, holder, seen)) {
                holder[h] = Some(v);
                return true;
            }
        }
        false
    }
}
