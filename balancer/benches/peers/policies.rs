//! CloudSim's own policies: overload by threshold, interquartile range, median absolute deviation or local regression, minimum migration time,
//! power-aware best fit decreasing (Beloglazov and Buyya 2012; PowerVmAllocationPolicyMigrationAbstract and those after it).

use crate::cloudsim::{Cloud, HISTORY, STEP_S};
use std::collections::HashSet;

/// When a host is overloaded.
#[derive(Clone, Copy)]
pub(crate) enum Detect {
    /// Asked for more than this share.
    Threshold(f64),
    /// Asked for more than 1 less so many interquartile ranges of its history.
    QuartileRange(f64),
    /// Asked for more than 1 less so many median absolute deviations of its history.
    MedianDeviation(f64),
    /// A line through the last ten samples, times this, reaches 1.
    Regression(f64),
}

/// What is asked of a host before its history is long enough for any of them to judge it by.
const FALLBACK: f64 = 0.7;

/// Samples that range and deviation need; the regression needs ten.
const SAMPLES_LEAST: usize = 12;

/// Who is where while a decision is thought out.
struct Thought<'a> {
    cloud: &'a Cloud,
    detect: Detect,
    guests: Vec<Vec<usize>>,
    wants: Vec<f64>,
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
        Self { cloud, detect, guests, wants }
    }

    fn add(&mut self, v: usize, h: usize) {
        self.guests[h].push(v);
    }

    fn remove(&mut self, v: usize, h: usize) {
        self.guests[h].retain(|&g| g != v);
    }

    fn used(&self, h: usize) -> f64 {
        let host = &self.cloud.hosts[h];
        self.guests[h].iter().map(|&v| self.wants[v].min(host.pe)).sum::<f64>().min(host.total)
    }

    /// What guests ask for, share of the host.
    fn asked(&self, h: usize) -> f64 {
        self.guests[h].iter().map(|&v| self.wants[v]).sum::<f64>() / self.cloud.hosts[h].total
    }

    fn is_over(&self, h: usize) -> bool {
        let above = |share: f64| self.asked(h) > share;
        match self.detect {
            Detect::Threshold(share) => above(share),
            Detect::QuartileRange(safety) => above(self.tolerated(h, safety, quartile_range)),
            Detect::MedianDeviation(safety) => above(self.tolerated(h, safety, median_deviation)),
            Detect::Regression(safety) => {
                let newest_first = self.history(h);
                if newest_first.len() < 10 {
                    return above(FALLBACK);
                }
                let line = Line::through(newest_first[..10].iter().rev().copied());
                let ram = self.guests[h].iter().map(|&v| self.cloud.vms[v].ram).fold(0.0, f64::max);
                let ahead = (ram / (1_000_000.0 / 16_000.0) / STEP_S).ceil();
                line.at(10.0 + ahead) * safety >= 1.0
            }
        }
    }

    /// The share that a host may be asked for, by how much its history varies.
    fn tolerated(&self, h: usize, safety: f64, spread: fn(Vec<f64>) -> f64) -> f64 {
        let history = self.history(h);
        if history.len() < SAMPLES_LEAST { FALLBACK } else { 1.0 - safety * spread(history) }
    }

    /// What the guests that a host has now asked for before, wherever they were then: shares of the host, newest first, without the zeros at the end.
    fn history(&self, h: usize) -> Vec<f64> {
        let mut shares = vec![0.0; HISTORY];
        for &v in &self.guests[h] {
            let vm = &self.cloud.vms[v];
            for (share, used) in shares.iter_mut().zip(&vm.history) {
                *share += used * vm.mips / self.cloud.hosts[h].total;
            }
        }
        let longest = shares.iter().rposition(|share| *share != 0.0).map_or(1, |last| last + 1);
        shares.truncate(longest);
        shares
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

/// A straight line by least squares, summed as Apache Commons Math's SimpleRegression does.
struct Line {
    intercept: f64,
    slope: f64,
}

impl Line {
    /// Through these values at 1, 2, 3, …
    fn through(values: impl Iterator<Item = f64>) -> Self {
        let (mut n, mut x_mean, mut y_mean, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (i, y) in values.enumerate() {
            let x = i as f64 + 1.0;
            if i == 0 {
                (x_mean, y_mean) = (x, y);
            } else {
                let (dx, dy, part) = (x - x_mean, y - y_mean, n / (1.0 + n));
                (xx, xy) = (xx + dx * dx * part, xy + dx * dy * part);
                (x_mean, y_mean) = (x_mean + dx / (1.0 + n), y_mean + dy / (1.0 + n));
            }
            n += 1.0;
        }
        let slope = xy / xx;
        Self { intercept: y_mean - slope * x_mean, slope }
    }

    fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// CloudSim's MathUtil.iqr.
fn quartile_range(mut data: Vec<f64>) -> f64 {
    data.sort_by(f64::total_cmp);
    let quartile = |share: f64| data[(share * (data.len() as f64 + 1.0)).round() as usize - 1];
    quartile(0.75) - quartile(0.25)
}

/// CloudSim's MathUtil.mad.
fn median_deviation(data: Vec<f64>) -> f64 {
    let middle = median(data.clone());
    median(data.into_iter().map(|x| (middle - x).abs()).collect())
}

fn median(mut data: Vec<f64>) -> f64 {
    data.sort_by(f64::total_cmp);
    let (low, high) = (data[(data.len() - 1) / 2], data[data.len() / 2]);
    low + (high - low) / 2.0
}
