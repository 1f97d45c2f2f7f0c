//! What is measured: overload, imbalance, energy and site of each host; 0 is ideal.
//!
//! Owns: what each of them counts. Never does: say what is allowed (see `rules`), which of them decides (see `levels`), count the cost of moving
//! (see `cost`; the search takes it off).
//!
//! The score is a sum over hosts, so a move changes two terms only and is weighed in constant time, and its gain means the
//! same in a rack of three and of ten thousand:
//!
//! ```text
//! overload  = OVERLOAD · (o + o²) · priority · size      o = (p95 of expected use / capacity − enter)⁺
//! imbalance = Σ_r weight_r · size_r · (use_r/capacity_r − mean_r)² + (goal pack) HOST when it runs anything
//! energy    = energy · watts + site · (1 − green) · flexible use
//! size_r    = capacity_r / mean capacity_r
//! ```

use crate::levels::Levels;
use crate::model::{CPU, HostEntry, HostNo, MEMORY, Model, RESOURCES, Sums, VmNo};
use crate::policy::Goal;
use crate::snapshot::HostState;

/// One host of mean capacity one point over its threshold counts 1.01.
const OVERLOAD: f64 = 100.0;

/// Between two hosts with room, goal pack takes the fuller one; too little to move a VM for.
const FULLER: f64 = 1e-5;

/// What the score is measured against; the same for one snapshot however VMs are placed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scale {
    /// Mean capacity of usable hosts.
    mean_capacity: [f64; RESOURCES],
    /// Share in use, if all were even.
    mean_use: [f64; RESOURCES],
    weights: [f64; RESOURCES],
    /// Deviations above the mean of a normal distribution for the policy's quantile.
    pub(crate) z: f64,
    energy: f64,
    site: f64,
    /// What a host that runs something counts: above 0 for goal pack.
    running: f64,
}

impl Scale {
    pub(crate) fn of(model: &Model<'_>) -> Self {
        let policy = model.policy;
        let mut capacity = [0.0; RESOURCES];
        let mut used = [0.0; RESOURCES];
        let mut hosts = 0.0;
        for host in model.hosts.iter().filter(|host| host.host.state != HostState::Unusable) {
            if host.host.state == HostState::Active {
                hosts += 1.0;
            }
            for r in 0..RESOURCES {
                capacity[r] += if host.host.state == HostState::Active { host.capacity[r] } else { 0.0 };
                used[r] += host.sums.load[r];
            }
        }
        let weights = match policy.goal {
            Goal::Spread => [policy.weights.cpu, policy.weights.memory, policy.weights.network, policy.weights.io],
            Goal::Pack | Goal::Quiet => [0.0; RESOURCES],
        };
        Self {
            mean_capacity: capacity.map(|c| if hosts > 0.0 { (c / hosts).max(1e-9) } else { 1.0 }),
            mean_use: std::array::from_fn(|r| if capacity[r] > 0.0 { used[r] / capacity[r] } else { 0.0 }),
            weights,
            z: normal_quantile(policy.quantile),
            energy: policy.energy_weight,
            site: policy.site_weight,
            running: if policy.goal == Goal::Pack { crate::pack::HOST } else { 0.0 },
        }
    }

    /// One host's part of the score with these sums.
    pub(crate) fn host(&self, host: &HostEntry<'_>, sums: &Sums) -> Levels {
        let mut score = Levels::default();
        let over = self.expected_share(host, sums) - host.thresholds.enter;
        if over > 0.0 {
            let priority = if sums.load[CPU] > 0.0 { sums.priority_load / sums.load[CPU] } else { 1.0 };
            score.overload = OVERLOAD * (over + over * over) * priority * host.capacity[CPU] / self.mean_capacity[CPU];
        }
        // A host that is emptied is neither filled nor judged.
        if host.host.state == HostState::Active {
            for r in 0..RESOURCES {
                if self.weights[r] > 0.0 && host.capacity[r] > 0.0 {
                    let off = sums.load[r] / host.capacity[r] - self.mean_use[r];
                    score.imbalance += self.weights[r] * host.capacity[r] / self.mean_capacity[r] * off * off;
                }
            }
        }
        if self.running > 0.0 && sums.vms > 0 {
            // The small part prefers one full host to two half full ones.
            let used = (sums.load[CPU] / host.capacity[CPU]).min(1.0);
            score.imbalance += self.running + FULLER * (1.0 - used * used);
        }
        if self.energy > 0.0 && sums.vms > 0 {
            let used = (sums.load[CPU] / host.capacity[CPU]).min(1.0);
            score.energy =
                self.energy * host.host.watts.map_or(0.0, |watts| watts.idle + (watts.full - watts.idle) * used);
        }
        score.energy += self.site * (1.0 - host.green) * sums.flexible_load / self.mean_capacity[CPU];
        score
    }

    /// Processor use at the policy's quantile, share of the host's capacity. Loads of VMs are taken as independent of one another.
    pub(crate) fn expected_share(&self, host: &HostEntry<'_>, sums: &Sums) -> f64 {
        (sums.load[CPU] + self.z * sums.cpu_variance.sqrt()) / host.capacity[CPU]
    }

    /// A host's processors or memory beside the mean host's, whichever is less.
    pub(crate) fn size(&self, host: &HostEntry<'_>) -> f64 {
        (host.capacity[CPU] / self.mean_capacity[CPU]).min(host.capacity[MEMORY] / self.mean_capacity[MEMORY])
    }

    /// How hot a host is: its mean use over the resources that count, by weight, and its overload.
    pub(crate) fn heat(&self, host: &HostEntry<'_>) -> f64 {
        let (mut heat, mut weights) = (0.0, 0.0);
        for r in 0..RESOURCES {
            if host.capacity[r] > 0.0 {
                // Processor always counts a little, so that goals without imbalance still tell hot from cold.
                let weight = self.weights[r] + if r == CPU { 0.001 } else { 0.0 };
                heat += weight * sums_share(host, r);
                weights += weight;
            }
        }
        let over = (self.expected_share(host, &host.sums) - host.thresholds.enter).max(0.0);
        heat / weights.max(1e-9) + OVERLOAD * over
    }

    /// How good a target a host is, lower is better: cold for a goal that spreads, full but with room for goal pack.
    pub(crate) fn target_order(&self, host: &HostEntry<'_>) -> f64 {
        if self.running == 0.0 {
            return self.heat(host);
        }
        let share = self.expected_share(host, &host.sums);
        match host.sums.vms {
            0 => 1.0,
            _ if share < host.ceiling() => 1.0 - share / host.ceiling(),
            _ => 2.0 + share,
        }
    }

    /// The resource whose use at the source is furthest above that at the target, with both shares.
    pub(crate) fn widest_gap(&self, from: &HostEntry<'_>, to: &HostEntry<'_>) -> (f64, f64) {
        let gap = |r: usize| self.weights[r] * (sums_share(from, r) - sums_share(to, r));
        let widest = (0..RESOURCES).max_by(|&a, &b| gap(a).total_cmp(&gap(b)).then(b.cmp(&a))).unwrap_or(CPU);
        (sums_share(from, widest), sums_share(to, widest))
    }
}

fn sums_share(host: &HostEntry<'_>, r: usize) -> f64 {
    if host.capacity[r] > 0.0 { host.sums.load[r] / host.capacity[r] } else { 0.0 }
}

impl Model<'_> {
    /// The whole score, preferences with it, cost of moving without.
    pub(crate) fn score(&self) -> Levels {
        let mut score = Levels::default();
        for host in &self.hosts {
            score += self.scale.host(host, &host.sums);
        }
        score.imbalance += crate::rules::PREFERENCE * self.preferences_broken();
        score
    }

    /// How much the score falls when these VMs go from one host, where they all are, to another.
    pub(crate) fn gain(&self, vms: &[VmNo], from: HostNo, to: HostNo) -> Levels {
        self.release(vms, from) + self.intake(vms, to)
    }

    /// The source's part of the gain: how much the score of a host falls when these VMs, which it has, are gone.
    pub(crate) fn release(&self, vms: &[VmNo], from: HostNo) -> Levels {
        let host = &self.hosts[from];
        let less = vms.iter().fold(host.sums, |sums, &v| sums.without(&self.vms[v]));
        self.scale.host(host, &host.sums) - self.scale.host(host, &less)
    }

    /// The target's part of the gain, with the change of preferences; seldom above 0.
    pub(crate) fn intake(&self, vms: &[VmNo], to: HostNo) -> Levels {
        let host = &self.hosts[to];
        let more = vms.iter().fold(host.sums, |sums, &v| sums.with(&self.vms[v]));
        let preferences: f64 = vms.iter().map(|&v| self.preference_change(v, to, vms)).sum();
        let mut gain = self.scale.host(host, &host.sums) - self.scale.host(host, &more);
        gain.imbalance -= crate::rules::PREFERENCE * preferences;
        gain
    }

    /// Whether a host is expected above its threshold, with what it is expected at.
    pub(crate) fn overload(&self, h: HostNo) -> Option<f64> {
        let host = &self.hosts[h];
        let expected = self.scale.expected_share(host, &host.sums);
        (expected > host.thresholds.enter).then_some(expected)
    }
}

/// The quantile function of the standard normal distribution: Acklam's rational approximation, error below 1.2e-9 relative.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 5] =
        [-5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 4] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];
    let poly = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, k| sum * x + k);
    if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        poly(&C, q) / (poly(&D, q) * q + 1.0)
    } else if p <= 1.0 - 0.02425 {
        let q = p - 0.5;
        let r = q * q;
        poly(&A, r) * q / (poly(&B, r) * r + 1.0)
    } else {
        -normal_quantile(1.0 - p)
    }
}

#[cfg(test)]
mod tests {
    use super::normal_quantile;

    #[test]
    fn quantiles() {
        for (p, z) in [(0.5, 0.0), (0.9, 1.2815515655), (0.95, 1.644853627), (0.99, 2.326347874), (0.999, 3.090232306)]
        {
            assert!((normal_quantile(p) - z).abs() < 1e-8, "{p}");
            assert!((normal_quantile(1.0 - p) + z).abs() < 1e-8, "1 - {p}");
        }
    }
}
