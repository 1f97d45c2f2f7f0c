//! CloudSim's own policies: overload by threshold or local regression, minimum migration time, power-aware best fit decreasing (Beloglazov and
//! Buyya 2012; PowerVmAllocationPolicyMigrationAbstract).

use crate::cloudsim::{Cloud, STEP_S};
use std::collections::HashSet;

/// When a host is overloaded.
#[derive(Clone, Copy)]
pub(crate) enum Detect {
    /// Asked for more than this share.
    Threshold(f64),
    /// A line through the last ten samples, times this, reaches 1.
    Regression(f64),
}

/// Who is where while a decision is thought out.
struct Thought<'a> {
    cloud: &'a Cloud,
    detect: Detect,
    guests: Vec<Vec<usize>>,
    wants: Vec<f64>,
    asked: Vec<f64>,
    capped: Vec<f64>,
}

pub(crate) fn decide(cloud: &Cloud, detect: Detect) -> Vec<(usize, usize)> {
    let mut thought = Thought::new(cloud, detect);
    let over: Vec<usize> = (0..cloud.hosts.len()).filter(|&h| thought.is_over(h)).collect();
    let mut leaving = Vec::new();
    for &h in &over {
        while let Some(v) = thought.quickest(h) {
            leaving.push(v);
            thought.remove(v, h);
            if !thought.is_over(h) {
                break;
            }
        }
    }
    let excluded: HashSet<usize> = over.iter().copied().collect();
    let mut moves = Vec::new();
    thought.sort(&mut leaving);
    for v in leaving {
        if let Some(to) = thought.find(v, &excluded) {
            thought.add(v, to);
            moves.push((v, to));
        }
    }
    moves.extend(thought.underused(&over));
    moves
}

impl<'a> Thought<'a> {
    fn new(cloud: &'a Cloud, detect: Detect) -> Self {
        let wants: Vec<f64> = cloud.vms.iter().map(|vm| vm.wants(cloud.now)).collect();
        let guests: Vec<Vec<usize>> = cloud.hosts.iter().map(|host| host.guests.clone()).collect();
        let sum = |f: &dyn Fn(usize, usize) -> f64| {
            guests.iter().enumerate().map(|(h, vms)| vms.iter().map(|&v| f(h, v)).sum()).collect()
        };
        let asked = sum(&|_, v| wants[v]);
        let capped = sum(&|h, v| wants[v].min(cloud.hosts[h].pe));
        Self { cloud, detect, guests, wants, asked, capped }
    }

    fn add(&mut self, v: usize, h: usize) {
        self.guests[h].push(v);
        self.asked[h] += self.wants[v];
        self.capped[h] += self.wants[v].min(self.cloud.hosts[h].pe);
    }

    fn remove(&mut self, v: usize, h: usize) {
        self.guests[h].retain(|&g| g != v);
        self.asked[h] -= self.wants[v];
        self.capped[h] -= self.wants[v].min(self.cloud.hosts[h].pe);
    }

    fn used(&self, h: usize) -> f64 {
        if self.guests[h].is_empty() { 0.0 } else { self.capped[h].min(self.cloud.hosts[h].total) }
    }

    fn is_over(&self, h: usize) -> bool {
        let above = |share: f64| self.asked[h] / self.cloud.hosts[h].total > share;
        match self.detect {
            Detect::Threshold(share) => above(share),
            Detect::Regression(safety) => {
                let longest = self.guests[h].iter().map(|&v| self.cloud.vms[v].history.len()).max().unwrap_or(0);
                if longest < 10 {
                    return above(0.7);
                }
                let at = |i: usize| {
                    let share =
                        |&v: &usize| self.cloud.vms[v].history.get(i).map_or(0.0, |u| u * self.cloud.vms[v].mips);
                    self.guests[h].iter().map(share).sum::<f64>() / self.cloud.hosts[h].total
                };
                let y: Vec<f64> = (0..10).rev().map(at).collect();
                let mean = y.iter().sum::<f64>() / 10.0;
                let slope = y.iter().enumerate().map(|(i, y)| (i as f64 - 4.5) * (y - mean)).sum::<f64>() / 82.5;
                let ram = self.guests[h].iter().map(|&v| self.cloud.vms[v].ram).fold(0.0, f64::max);
                let ahead = (ram / (1_000_000.0 / 16_000.0) / STEP_S).ceil();
                let predicted = mean - slope * 5.5 + slope * (10.0 + ahead);
                predicted * safety >= 1.0
            }
        }
    }

    fn quickest(&self, h: usize) -> Option<usize> {
        self.guests[h].iter().copied().min_by(|&a, &b| self.cloud.vms[a].ram.total_cmp(&self.cloud.vms[b].ram))
    }

    fn sort(&self, vms: &mut [usize]) {
        vms.sort_by(|&a, &b| self.wants[b].total_cmp(&self.wants[a]));
    }

    /// The host whose power rises least.
    fn find(&mut self, v: usize, excluded: &HashSet<usize>) -> Option<usize> {
        let mut best: Option<(f64, usize)> = None;
        for h in 0..self.guests.len() {
            let host = &self.cloud.hosts[h];
            if excluded.contains(&h) || host.pe < self.wants[v] || host.total - self.used(h) < self.wants[v] {
                continue;
            }
            let rise = host.power(self.used(h) + self.wants[v]) - host.power(host.used);
            if best.is_some_and(|(least, _)| rise >= least) {
                continue;
            }
            if self.used(h) != 0.0 {
                self.add(v, h);
                let over = self.is_over(h);
                self.guests[h].pop();
                self.asked[h] -= self.wants[v];
                self.capped[h] -= self.wants[v].min(host.pe);
                if over {
                    continue;
                }
            }
            best = Some((rise, h));
        }
        best.map(|(_, h)| h)
    }

    /// Empties hosts from the least used one while all their VMs find places.
    fn underused(&mut self, over: &[usize]) -> Vec<(usize, usize)> {
        let off: Vec<usize> = (0..self.guests.len()).filter(|&h| self.cloud.hosts[h].used == 0.0).collect();
        let mut not_source: HashSet<usize> = over.iter().chain(&off).copied().collect();
        let mut not_target = not_source.clone();
        let mut moves = Vec::new();
        loop {
            let share = |h: usize| self.cloud.hosts[h].used / self.cloud.hosts[h].total;
            let mut least: Option<usize> = None;
            for h in (0..self.guests.len()).filter(|h| !not_source.contains(h) && !self.guests[*h].is_empty()) {
                if share(h) < least.map_or(1.0, share) {
                    least = Some(h);
                }
            }
            let Some(from) = least else { return moves };
            not_source.insert(from);
            not_target.insert(from);
            let mut leaving = self.guests[from].clone();
            self.sort(&mut leaving);
            let mut found = Vec::new();
            for &v in &leaving {
                let Some(to) = self.find(v, &not_target) else { break };
                self.add(v, to);
                found.push((v, to));
            }
            if found.len() < leaving.len() {
                for (v, to) in found.drain(..) {
                    self.remove(v, to);
                }
            }
            not_source.extend(found.iter().map(|&(_, to)| to));
            moves.extend(found);
        }
    }
}
