//! hbal's score, kept up as instances move.
//!
//! Owns: the sums from which the score follows. Never does: say what is allowed.
//!
//! The score is Σ w·sd over eight metrics, plus 2 for each instance too many of an exclusion tag on a node and 1 for each node without free memory.
//! A standard deviation is concave in its variance, so `Σ w·Δvariance / (2·sd)` is never below the true change: [`State::estimate`] needs no
//! square root and what it calls an improvement is one.

use super::Cluster;
use std::collections::BTreeMap;

/// Metrics that moves change: memory reckoned, memory free, processors, spindles, and four loads. Disk does not change.
const METRICS: usize = 8;

/// hbal's weights (htools 3.0: free memory counts half by each of two reckonings, processors and spindles by two halves of one).
const WEIGHT: [f64; METRICS] = [0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const TAG: f64 = 2.0;
const NO_MEMORY: f64 = 1.0;

type Vector = [f64; METRICS];

/// Who is where, and the sums.
#[derive(Debug, Clone)]
pub(super) struct State<'a> {
    pub(super) cluster: &'a Cluster,
    /// Nodes that count: not offline. Numbers below are of this list.
    pub(super) nodes: Vec<usize>,
    /// Place of each instance in `nodes`; `None` when its node is offline.
    pub(super) home: Vec<Option<usize>>,
    pub(super) place: Vec<Option<usize>>,
    /// Metric values of each node.
    value: Vec<Vector>,
    /// What a unit of demand is worth on each node.
    scale: Vec<Vector>,
    demand: Vec<Vector>,
    sum: Vector,
    squares: Vector,
    slope: Vector,
    pub(super) free_mib: Vec<f64>,
    vcpus: Vec<f64>,
    /// Exclusion tags by number, of each instance, and how often each is on each node.
    tags: Vec<Vec<usize>>,
    tagged: Vec<BTreeMap<usize, u32>>,
    excess: f64,
    starved: f64,
    constant: f64,
}

impl<'a> State<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let nodes: Vec<usize> = (0..cluster.nodes.len()).filter(|&n| !cluster.nodes[n].offline).collect();
        let mut number = vec![None; cluster.nodes.len()];
        for (i, &n) in nodes.iter().enumerate() {
            number[n] = Some(i);
        }
        let mut tag_number = BTreeMap::new();
        let mut tags = Vec::with_capacity(cluster.instances.len());
        for instance in &cluster.instances {
            let numbers = instance.exclusion.iter().map(|tag| {
                let next = tag_number.len();
                *tag_number.entry(tag.as_str()).or_insert(next)
            });
            tags.push(numbers.collect::<Vec<usize>>());
        }
        let home: Vec<Option<usize>> = cluster.instances.iter().map(|instance| number[instance.node]).collect();
        let disk: Vec<f64> = nodes
            .iter()
            .map(|&n| &cluster.nodes[n])
            .map(|n| if n.disk_mib > 0.0 { n.disk_free_mib / n.disk_mib } else { 0.0 })
            .collect();
        let mut state = Self {
            cluster,
            home: home.clone(),
            place: home,
            value: vec![[0.0; METRICS]; nodes.len()],
            scale: vec![[1.0; METRICS]; nodes.len()],
            demand: cluster.instances.iter().map(demand).collect(),
            sum: [0.0; METRICS],
            squares: [0.0; METRICS],
            slope: [0.0; METRICS],
            free_mib: nodes.iter().map(|&n| cluster.nodes[n].free_mib).collect(),
            vcpus: nodes.iter().map(|&n| cluster.nodes[n].own_cpus).collect(),
            tagged: vec![BTreeMap::new(); nodes.len()],
            tags,
            excess: 0.0,
            starved: 0.0,
            constant: deviation(&disk),
            nodes,
        };
        state.fill();
        state
    }

    /// Sums up anew from where everything is.
    fn fill(&mut self) {
        for (h, &n) in self.nodes.iter().enumerate() {
            let node = &self.cluster.nodes[n];
            let spindles = (node.spindles * self.cluster.spindle_ratio).max(1e-9);
            self.scale[h] = [
                -1.0 / node.memory_mib,
                -1.0 / node.memory_mib,
                1.0 / node.cpus / node.speed,
                1.0 / spindles,
                1.0,
                1.0,
                1.0,
                1.0,
            ];
            self.value[h] = [
                (node.memory_mib - node.own_mib) / node.memory_mib,
                node.free_mib / node.memory_mib,
                node.own_cpus / node.cpus / node.speed,
                0.0,
                0.0,
                0.0,
                0.0,
                0.0,
            ];
        }
        for i in 0..self.place.len() {
            let Some(h) = self.place[i] else { continue };
            for k in 0..METRICS {
                // Free memory is the node's own word: its instances are in it already.
                if k != 1 {
                    self.value[h][k] += self.demand[i][k] * self.scale[h][k];
                }
            }
            self.vcpus[h] += self.cluster.instances[i].vcpus;
            for &tag in &self.tags[i] {
                *self.tagged[h].entry(tag).or_insert(0) += 1;
            }
        }
        self.excess = self.tagged.iter().flat_map(BTreeMap::values).map(|&n| f64::from(n) - 1.0).sum();
        self.starved = self.free_mib.iter().zip(&self.nodes).filter(|&(&free, _)| free <= 0.0).count() as f64;
        self.sum_up();
    }

    /// Sums and slopes anew from the nodes' values, so that rounding does not add up.
    pub(super) fn sum_up(&mut self) {
        self.sum = [0.0; METRICS];
        self.squares = [0.0; METRICS];
        for value in &self.value {
            for ((sum, squares), value) in self.sum.iter_mut().zip(&mut self.squares).zip(value) {
                *sum += value;
                *squares += value * value;
            }
        }
        self.slopes();
    }

    fn slopes(&mut self) {
        for (k, weight) in WEIGHT.iter().enumerate() {
            // A metric without spread (no spindles in use) is hbal's 0; any move that touches it must show in full.
            self.slope[k] = weight / (2.0 * self.variance(k).sqrt().max(1e-9));
        }
    }

    fn count(&self) -> f64 {
        self.nodes.len() as f64
    }

    fn variance(&self, k: usize) -> f64 {
        let n = self.count();
        (self.squares[k] / n - (self.sum[k] / n).powi(2)).max(0.0)
    }

    /// hbal's score of where everything is now.
    pub(super) fn score(&self) -> f64 {
        if self.nodes.is_empty() {
            return 0.0;
        }
        let spread: f64 = (0..METRICS).map(|k| WEIGHT[k] * self.variance(k).sqrt()).sum();
        spread + self.constant + TAG * self.excess + NO_MEMORY * self.starved
    }

    /// An upper bound on the change of the score when an instance goes from one node to another; negative is better.
    #[inline]
    pub(super) fn estimate(&self, i: usize, from: usize, to: usize) -> f64 {
        let (d, a, b) = (&self.demand[i], &self.value[from], &self.value[to]);
        let (sa, sb) = (&self.scale[from], &self.scale[to]);
        let each = 1.0 / self.count();
        let mut change = 0.0;
        for k in 0..METRICS {
            let (less, more) = (-d[k] * sa[k], d[k] * sb[k]);
            let squares = less * (2.0 * a[k] + less) + more * (2.0 * b[k] + more);
            let sum = less + more;
            change += self.slope[k] * each * (squares - sum * (2.0 * self.sum[k] + sum) * each);
        }
        if self.tags[i].is_empty() { change } else { change + self.tag_change(i, from, to) }
    }

    /// The same for two instances that change places.
    #[inline]
    pub(super) fn estimate_swap(&self, i: usize, a: usize, j: usize, b: usize) -> f64 {
        let each = 1.0 / self.count();
        let mut change = 0.0;
        for k in 0..METRICS {
            let d = self.demand[j][k] - self.demand[i][k];
            let (on_a, on_b) = (d * self.scale[a][k], -d * self.scale[b][k]);
            let squares = on_a * (2.0 * self.value[a][k] + on_a) + on_b * (2.0 * self.value[b][k] + on_b);
            let sum = on_a + on_b;
            change += self.slope[k] * each * (squares - sum * (2.0 * self.sum[k] + sum) * each);
        }
        if self.tags[i].is_empty() && self.tags[j].is_empty() {
            return change;
        }
        change + self.tag_change(i, a, b) + self.tag_change(j, b, a)
    }

    fn tag_change(&self, i: usize, from: usize, to: usize) -> f64 {
        let many = |h: usize, tag: &usize| self.tagged[h].get(tag).copied().unwrap_or(0);
        let change = |tag: &usize| f64::from(u8::from(many(to, tag) > 0)) - f64::from(u8::from(many(from, tag) > 1));
        TAG * self.tags[i].iter().map(change).sum::<f64>()
    }

    /// Moves an instance; slopes follow.
    pub(super) fn shift(&mut self, i: usize, to: usize) {
        let Some(from) = self.place[i] else { return };
        if from == to {
            return;
        }
        for (h, sign) in [(from, -1.0), (to, 1.0)] {
            for k in 0..METRICS {
                let before = self.value[h][k];
                let after = before + sign * self.demand[i][k] * self.scale[h][k];
                self.value[h][k] = after;
                self.sum[k] += after - before;
                self.squares[k] += after * after - before * before;
            }
            let was = self.free_mib[h] <= 0.0;
            self.free_mib[h] -= sign * self.cluster.instances[i].memory_mib as f64;
            self.starved += f64::from(u8::from(self.free_mib[h] <= 0.0)) - f64::from(u8::from(was));
            self.vcpus[h] += sign * self.cluster.instances[i].vcpus;
        }
        self.excess += self.tag_change(i, from, to) / TAG;
        for t in 0..self.tags[i].len() {
            let tag = self.tags[i][t];
            if let Some(n) = self.tagged[from].get_mut(&tag) {
                *n -= 1;
                if *n == 0 {
                    self.tagged[from].remove(&tag);
                }
            }
            *self.tagged[to].entry(tag).or_insert(0) += 1;
        }
        self.place[i] = Some(to);
        self.slopes();
    }

    /// Whether hbal itself would let an instance go to a node now: memory left, processors within the policy's ratio,
    /// no exclusion tag twice, same group, node neither drained nor offline.
    #[inline]
    pub(super) fn allows(&self, i: usize, to: usize) -> bool {
        self.free_mib[to] > self.cluster.instances[i].memory_mib as f64 && self.allows_beside_memory(i, to)
    }

    /// As [`State::allows`], memory left out.
    pub(super) fn allows_beside_memory(&self, i: usize, to: usize) -> bool {
        let node = &self.cluster.nodes[self.nodes[to]];
        let instance = &self.cluster.instances[i];
        !node.drained
            && self.vcpus[to] + instance.vcpus <= node.cpus * self.cluster.vcpu_ratio
            && self.tags[i].iter().all(|tag| !self.tagged[to].contains_key(tag))
            && self.place[i].is_none_or(|from| self.cluster.nodes[self.nodes[from]].group == node.group)
    }

    /// Whether two instances may be where the other is, once both have gone.
    pub(super) fn allows_swap(&self, i: usize, a: usize, j: usize, b: usize) -> bool {
        let (x, y) = (&self.cluster.instances[i], &self.cluster.instances[j]);
        let more = x.memory_mib as f64 - y.memory_mib as f64;
        let vcpus = x.vcpus - y.vcpus;
        let (na, nb) = (&self.cluster.nodes[self.nodes[a]], &self.cluster.nodes[self.nodes[b]]);
        let ratio = self.cluster.vcpu_ratio;
        let free = |from: usize, leaves: usize, comes: usize| {
            self.tags[comes].iter().all(|tag| {
                self.tagged[from].get(tag).copied().unwrap_or(0) <= u32::from(self.tags[leaves].contains(tag))
            })
        };
        na.group == nb.group
            && !na.drained
            && !nb.drained
            && self.free_mib[b] > more
            && self.free_mib[a] > -more
            && self.vcpus[b] + vcpus <= nb.cpus * ratio
            && self.vcpus[a] - vcpus <= na.cpus * ratio
            && free(b, j, i)
            && free(a, i, j)
    }
}

fn demand(instance: &super::Instance) -> Vector {
    let memory = instance.memory_mib as f64;
    let [cpu, memory_load, disk, net] = instance.load;
    [memory, memory, instance.vcpus, instance.spindles, cpu, memory_load, disk, net]
}

fn deviation(values: &[f64]) -> f64 {
    let n = (values.len() as f64).max(1.0);
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}
