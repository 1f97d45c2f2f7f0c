//! What the operator wants: goal, thresholds, rules, reserves, limits.
//!
//! Owns: the policy as data and its check. Never does: look at a snapshot; a rule that names a VM which is
//! not there is no defect here (the plan says so instead).

use crate::snapshot::{Defect, defect};
use proto::{HostId, VmId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How to plan. `Policy::default()` spreads load by expected use and has no rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What a good rack looks like.
    pub goal: Goal,
    /// What counts how much in imbalance.
    pub weights: Weights,
    /// When a host is overloaded.
    pub thresholds: Thresholds,
    /// Other thresholds for some hosts; the first that selects a host holds.
    pub thresholds_for: Vec<ThresholdsFor>,
    /// Which quantile of expected load must fit, 0.5 to 0.999.
    pub quantile: f64,
    /// How far ahead load is looked at, milliseconds: about as long as a move should pay off.
    pub horizon_ms: u64,
    /// Affinity and anti-affinity.
    pub rules: Vec<Rule>,
    /// How many hosts may fail at once such that the VMs of these still fit on the rest.
    pub spare_hosts: u32,
    /// How many hosts to keep lightly loaded.
    pub light_hosts: u32,
    /// A lightly loaded host's greatest share of memory and of expected processor use, 0 to 1.
    pub light_share: f64,
    /// Shares kept free on hosts; the greatest that selects a host holds.
    pub slack: Vec<Slack>,
    /// Most VMs moved by one plan.
    pub moves_max: Option<usize>,
    /// Most guest memory moved by one plan, MiB.
    pub move_mib_max: Option<u64>,
    /// Streams that one host may receive at a time, 1 or more.
    pub streams_in_max: u32,
    /// Streams that one host may send at a time, 1 or more.
    pub streams_out_max: u32,
    /// How long a plan may be used, milliseconds.
    pub expires_ms: u64,
    /// What a move costs, in the unit of the score.
    pub cost: CostWeights,
    /// What past moves taught about predictions.
    pub learnt: Learnt,
    /// How long a VM rests after a move.
    pub rest: Rest,
    /// Virtual clusters.
    pub groups: Vec<Group>,
    /// Sites and their green scores.
    pub sites: Vec<Site>,
    /// What one watt is worth beside imbalance; 0 when energy does not count.
    pub energy_weight: f64,
    /// What a full step of site score (0 to 1) is worth for a flexible VM, in the unit of the score.
    pub site_weight: f64,
}

/// What a good rack looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Even load on all hosts.
    #[default]
    Spread,
    /// Fewest hosts.
    Pack,
    /// Fewest moves: only what a rule, an overload or a drain asks for.
    Quiet,
}

/// What counts how much in imbalance; 0 leaves a resource out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// Processor.
    pub cpu: f64,
    /// Memory.
    pub memory: f64,
    /// Network.
    pub network: f64,
    /// Disk.
    pub io: f64,
}

/// When a host is overloaded, in shares of its processor capacity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Above this it becomes overloaded.
    pub enter: f64,
    /// Below this it is no longer overloaded, and may take VMs up to it. At most `enter`.
    pub leave: f64,
    /// So many samples …
    pub samples: u32,
    /// … of the last so many must be above `enter`.
    pub of: u32,
    /// Time between samples, milliseconds.
    pub every_ms: u64,
}

/// Thresholds of the hosts selected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdsFor {
    /// Which hosts.
    pub hosts: HostSelector,
    /// Their thresholds.
    pub thresholds: Thresholds,
}

/// Selects hosts: those named, and those that carry all the labels when any are given. Nothing given, nothing selected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostSelector {
    /// By id.
    pub names: BTreeSet<HostId>,
    /// By label.
    pub labels: BTreeMap<String, String>,
}

/// Selects VMs, as [`HostSelector`] does hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmSelector {
    /// By id.
    pub names: BTreeSet<VmId>,
    /// By label.
    pub labels: BTreeMap<String, String>,
}

/// A rule on where VMs may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, unique.
    pub name: String,
    /// Whether it may never be broken, or only counts in the score.
    #[serde(default)]
    pub strict: bool,
    /// What it asks.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What a rule asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// All on one host.
    Together {
        /// Which.
        vms: VmSelector,
    },
    /// No two on one host.
    Apart {
        /// Which.
        vms: VmSelector,
    },
    /// Only on these hosts.
    On {
        /// Which VMs.
        vms: VmSelector,
        /// Where.
        hosts: HostSelector,
    },
    /// Never on these hosts.
    Off {
        /// Which VMs.
        vms: VmSelector,
        /// Where not.
        hosts: HostSelector,
    },
}

/// A share kept free on each host selected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// Which hosts.
    pub hosts: HostSelector,
    /// Share of memory and of processor capacity, 0 to 1.
    pub share: f64,
}

/// What a move costs, in the unit of the score, for a VM of priority 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CostWeights {
    /// Each GiB sent.
    pub per_gib: f64,
    /// Each second that the guest is slowed while its memory is copied.
    pub per_brownout_s: f64,
    /// Each second that the guest stands still.
    pub per_downtime_s: f64,
}

/// What past moves taught: measured over predicted, 1 before anything was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Learnt {
    /// Bytes sent.
    pub sent: f64,
    /// Time taken.
    pub time: f64,
    /// Downtime.
    pub downtime: f64,
}

/// How long a VM rests after a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rest {
    /// After a first move, milliseconds.
    pub first_ms: u64,
    /// The longest rest, milliseconds.
    pub most_ms: u64,
    /// A move within this time after a rest doubles the rest, milliseconds.
    pub again_ms: u64,
}

/// A virtual cluster: VMs with this `group` run on hosts with this `group`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its claim to hosts beside the other groups' claims, above 0.
    #[serde(default = "one")]
    pub share: f64,
    /// Fewest hosts.
    #[serde(default)]
    pub hosts_min: usize,
    /// Most hosts.
    #[serde(default = "many")]
    pub hosts_max: usize,
    /// Share of the memory and of the processors of all its hosts together that is kept free, 0 to 0.99: it is lent hosts for that, takes no new VM
    /// beyond it, and keeps hosts on for it.
    #[serde(default)]
    pub slack: f64,
}

/// A site with its green score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Sun, 0 to 1, now and then every `sample_ms` of the snapshot: from a sensor or a weather forecast (`read_sites` reads their files). In a replay
    /// from the first sample on.
    #[serde(default)]
    pub sun: Vec<f64>,
    /// Wind, 0 to 1.
    #[serde(default)]
    pub wind: Vec<f64>,
    /// Temperature as a factor for cooling, 0 (all energy goes into cooling) to 1 (free cooling).
    #[serde(default)]
    pub temperature: Vec<f64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            goal: Goal::Spread,
            weights: Weights::default(),
            thresholds: Thresholds::default(),
            thresholds_for: Vec::new(),
            quantile: 0.95,
            horizon_ms: 30 * 60_000,
            rules: Vec::new(),
            spare_hosts: 0,
            light_hosts: 0,
            light_share: 0.25,
            slack: Vec::new(),
            moves_max: None,
            move_mib_max: None,
            streams_in_max: 1,
            streams_out_max: 1,
            expires_ms: 5 * 60_000,
            cost: CostWeights::default(),
            learnt: Learnt::default(),
            rest: Rest::default(),
            groups: Vec::new(),
            sites: Vec::new(),
            energy_weight: 0.0,
            site_weight: 0.0,
        }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { cpu: 1.0, memory: 0.5, network: 0.25, io: 0.25 }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { enter: 0.9, leave: 0.75, samples: 3, of: 5, every_ms: 5_000 }
    }
}

impl Default for CostWeights {
    /// One GiB without haste costs what 1 % of one host's capacity is worth when it is moved from a host
    /// 20 points above average to one 20 points below.
    fn default() -> Self {
        Self { per_gib: 0.002, per_brownout_s: 0.0001, per_downtime_s: 0.002 }
    }
}

impl Default for Learnt {
    fn default() -> Self {
        Self { sent: 1.0, time: 1.0, downtime: 1.0 }
    }
}

impl Default for Rest {
    fn default() -> Self {
        Self { first_ms: 10 * 60_000, most_ms: 24 * 3_600_000, again_ms: 60 * 60_000 }
    }
}

impl HostSelector {
    /// Whether it selects a host with this id and these labels.
    pub fn selects(&self, id: &HostId, labels: &BTreeMap<String, String>) -> bool {
        self.names.contains(id) || carries(labels, &self.labels)
    }
}

impl VmSelector {
    /// Whether it selects a VM with this id and these labels.
    pub fn selects(&self, id: &VmId, labels: &BTreeMap<String, String>) -> bool {
        self.names.contains(id) || carries(labels, &self.labels)
    }
}

fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Policy {
    /// The same with nothing kept free: for a VM that starts again after a failure, which is what room is kept for.
    #[must_use]
    pub fn without_reserves(&self) -> Self {
        let groups = self.groups.iter().map(|group| Group { slack: 0.0, ..group.clone() }).collect();
        Self { spare_hosts: 0, light_hosts: 0, slack: Vec::new(), groups, ..self.clone() }
    }

    /// Checks what the planner relies on.
    ///
    /// # Errors
    /// The first defect.
    pub fn check(&self) -> Result<(), Defect> {
        share("quantile", self.quantile, 0.5, 0.999)?;
        share("light_share", self.light_share, 0.0, 1.0)?;
        for (path, value) in [
            ("weights.cpu", self.weights.cpu),
            ("weights.memory", self.weights.memory),
            ("weights.network", self.weights.network),
            ("weights.io", self.weights.io),
            ("cost.per_gib", self.cost.per_gib),
            ("cost.per_brownout_s", self.cost.per_brownout_s),
            ("cost.per_downtime_s", self.cost.per_downtime_s),
            ("learnt.sent", self.learnt.sent),
            ("learnt.time", self.learnt.time),
            ("learnt.downtime", self.learnt.downtime),
            ("energy_weight", self.energy_weight),
            ("site_weight", self.site_weight),
        ] {
            share(path, value, 0.0, 1e6)?;
        }
        thresholds("thresholds", &self.thresholds)?;
        for (i, of) in self.thresholds_for.iter().enumerate() {
            thresholds(&format!("thresholds_for[{i}].thresholds"), &of.thresholds)?;
        }
        for (i, slack) in self.slack.iter().enumerate() {
            share(&format!("slack[{i}].share"), slack.share, 0.0, 1.0)?;
        }
        for (path, value) in [("streams_in_max", self.streams_in_max), ("streams_out_max", self.streams_out_max)] {
            if value == 0 {
                return Err(defect(path.into(), "0", "1 or more"));
            }
        }
        let mut names = BTreeSet::new();
        for (i, rule) in self.rules.iter().enumerate() {
            if !names.insert(&rule.name) {
                return Err(defect(format!("rules[{i}].name"), &format!("{:?} again", rule.name), "each name once"));
            }
        }
        let mut names = BTreeSet::new();
        for (i, group) in self.groups.iter().enumerate() {
            if !names.insert(&group.name) {
                return Err(defect(format!("groups[{i}].name"), &format!("{:?} again", group.name), "each name once"));
            }
            share(&format!("groups[{i}].share"), group.share, 1e-6, 1e6)?;
            share(&format!("groups[{i}].slack"), group.slack, 0.0, 0.99)?;
            if group.hosts_min > group.hosts_max {
                let found = format!("{} above hosts_max {}", group.hosts_min, group.hosts_max);
                return Err(defect(format!("groups[{i}].hosts_min"), &found, "at most hosts_max"));
            }
        }
        for (i, site) in self.sites.iter().enumerate() {
            for (field, series) in [("sun", &site.sun), ("wind", &site.wind), ("temperature", &site.temperature)] {
                for (j, &value) in series.iter().enumerate() {
                    share(&format!("sites[{i}].{field}[{j}]"), value, 0.0, 1.0)?;
                }
            }
        }
        Ok(())
    }
}

fn thresholds(path: &str, given: &Thresholds) -> Result<(), Defect> {
    share(&format!("{path}.enter"), given.enter, 0.0, 10.0)?;
    share(&format!("{path}.leave"), given.leave, 0.0, 10.0)?;
    if given.leave > given.enter {
        return Err(defect(format!("{path}.leave"), &given.leave.to_string(), "at most `enter`"));
    }
    if given.samples == 0 || given.samples > given.of || given.of > 64 {
        let found = format!("{} of {}", given.samples, given.of);
        return Err(defect(format!("{path}.samples"), &found, "1 or more, at most `of`, which is at most 64"));
    }
    Ok(())
}

fn share(path: &str, value: f64, least: f64, most: f64) -> Result<(), Defect> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(defect(path.to_owned(), &value.to_string(), &format!("a number from {least} to {most}")))
    }
}

fn one() -> f64 {
    1.0
}

fn many() -> usize {
    usize::MAX
}
