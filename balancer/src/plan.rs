//! What the planner answers: moves in order with their schedule, and who stays, each with its reason.
//!
//! Owns: the answer as data and its sentences. Never does: decisions.
//!
//! A plan leaves nothing to its executor's taste: move `i` may start as soon as every move in
//! `moves[i].after` has ended well; if one of these failed, it may not start and a new plan is due. Moves without
//! such an order between them may run side by side.

use crate::levels::Levels;
use crate::snapshot::{Defect, HostState};
use proto::{HostId, VmId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// An ordered plan of moves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In order: each is feasible when those before it are done.
    pub moves: Vec<Move>,
    /// Score of the snapshot, all levels together; 0 is ideal.
    pub score_before: f64,
    /// Score when all moves are done. Above `score_before` only when something above it in the order asked for that: a drain, a rule, an overload.
    pub score_after: f64,
    /// Score of the snapshot by level, the first decides.
    pub before: Levels,
    /// Score by level when all moves are done.
    pub after: Levels,
    /// VMs that a rule, an overload or a drain concerns and that stay.
    pub stays: Vec<Stay>,
    /// Rules that do not hold when all moves are done.
    pub broken: Vec<BrokenRule>,
    /// What would make possible what is not.
    pub remedies: Vec<Remedy>,
    /// Hosts that may be switched off when all moves are done (goal pack).
    pub power_off: Vec<PowerOff>,
    /// Snapshot or policy could not be used, so nothing is planned.
    pub refused: Option<Defect>,
    /// When the snapshot was taken, Unix milliseconds.
    pub made_ms: u64,
    /// From then on the plan is void, Unix milliseconds.
    pub expires_ms: u64,
}

/// One move of one VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Which VM.
    pub vm: VmId,
    /// From here.
    pub from: HostId,
    /// To there.
    pub to: HostId,
    /// Why.
    pub reason: Reason,
    /// Places in `Plan::moves` of the moves that must have ended first; all smaller than this move's own place.
    pub after: Vec<usize>,
    /// How much the score falls by it, cost not yet taken off; negative when it only makes room.
    pub gain: f64,
    /// What it is expected to cost.
    pub cost: Cost,
}

/// What a move is expected to cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Sent over the wire, MiB.
    pub sent_mib: f64,
    /// How long memory is copied while the guest runs, milliseconds.
    pub brownout_ms: f64,
    /// How long the guest stands still, milliseconds.
    pub downtime_ms: f64,
    /// All of it in the unit of the score.
    pub score: f64,
}

/// Why a VM moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum Reason {
    /// Its host is expected to be overloaded.
    Overload {
        /// Expected processor use of the host at the policy's quantile, share of its capacity.
        expected: f64,
        /// The host's threshold.
        threshold: f64,
    },
    /// Its host is being emptied.
    Drain,
    /// It makes a rule hold.
    Rule {
        /// Which.
        rule: String,
    },
    /// Load becomes more even.
    Balance {
        /// Busiest resource's share in use at the source before.
        from: f64,
        /// The same resource's share at the target before.
        to: f64,
    },
    /// It makes room for another VM that must move there.
    Room {
        /// For whom.
        vm: VmId,
    },
    /// Its host can be switched off when it is empty.
    Pack,
    /// One of the hosts is to be kept lightly loaded.
    Light,
    /// The other site has more green energy.
    Green {
        /// Score of the source's site, 0 to 1.
        from: f64,
        /// Score of the target's site.
        to: f64,
    },
    /// Its host was lent to another group or is given back.
    Group {
        /// The VM's group.
        group: String,
    },
}

/// A VM that stays although something concerns it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stay {
    /// Which.
    pub vm: VmId,
    /// What concerns it.
    pub concern: Concern,
    /// Why it stays.
    pub why: Why,
}

/// What concerns a VM that stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "concern", rename_all = "snake_case")]
pub enum Concern {
    /// Its host is expected to be overloaded.
    Overload {
        /// Expected use, share of capacity.
        expected: f64,
        /// The host's threshold.
        threshold: f64,
    },
    /// Its host is being emptied.
    Drain,
    /// A rule does not hold for it.
    Rule {
        /// Which.
        rule: String,
    },
}

/// Why a VM stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// It is pinned.
    Pinned,
    /// It is excluded from balancing.
    Excluded,
    /// A change of it is under way.
    Busy,
    /// It was moved not long ago.
    Resting {
        /// Until then, Unix milliseconds.
        until_ms: u64,
    },
    /// No host may take it.
    NoHost {
        /// Each host's reason, one host for each kind of reason.
        rejections: Vec<Rejection>,
    },
    /// There is a better place for it, but it and others stand in each other's way and there is no third host to pass.
    NoWay,
    /// A move would cost more than it brings.
    NotWorth {
        /// What the best move would bring, in the unit of the score.
        gain: f64,
        /// What it would cost.
        cost: f64,
    },
    /// Another VM's move already settles the concern.
    Settled,
    /// The plan's limit of moves or of memory was reached.
    Limit,
    /// The rules that concern it cannot hold together.
    Contradiction {
        /// The rules, by name.
        rules: Vec<String>,
    },
}

/// A host that may not take a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// Which host.
    pub host: HostId,
    /// Why.
    pub why: Refusal,
}

/// Why a host may not take a VM: each is one hard rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// It takes no VMs.
    State {
        /// What it is.
        state: HostState,
    },
    /// Too little memory.
    Memory {
        /// The VM needs this, MiB.
        needs_mib: u64,
        /// The host has this free, MiB.
        free_mib: u64,
    },
    /// It lacks processor features that the guest has seen.
    CpuFeatures {
        /// Which.
        lacks: BTreeSet<String>,
    },
    /// It lacks networks.
    Networks {
        /// Which.
        lacks: BTreeSet<String>,
    },
    /// It does not reach storages.
    Storages {
        /// Which.
        lacks: BTreeSet<String>,
    },
    /// A strict rule forbids it.
    Rule {
        /// Which.
        rule: String,
    },
    /// It belongs to another group.
    Group {
        /// The host's group.
        group: Option<String>,
    },
    /// A share of it is kept free.
    Slack {
        /// Share kept free.
        share: f64,
    },
    /// It is kept lightly loaded.
    Light,
    /// Too little room would be left if hosts failed.
    SpareHosts {
        /// So many must be able to fail.
        spare_hosts: u32,
    },
    /// Its streams are all in use.
    Streams,
    /// Snapshot or policy cannot be used.
    Input {
        /// What is wrong.
        defect: Defect,
    },
    /// It would be overloaded.
    Overload {
        /// Expected processor use with the VM, share of capacity.
        expected: f64,
        /// The most it may take.
        threshold: f64,
    },
}

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokenRule {
    /// Which.
    pub rule: String,
    /// Whether it may never be broken.
    pub strict: bool,
    /// VMs that it does not hold for.
    pub vms: Vec<VmId>,
    /// Strict rules that contradict it, by name; empty when only room is lacking.
    pub against: Vec<String>,
}

/// What would make possible what is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "remedy", rename_all = "snake_case")]
pub enum Remedy {
    /// A host with at least this much memory free that the VM may be on.
    Memory {
        /// Which VM has no place.
        vm: VmId,
        /// How much memory is lacking, on the best of the hosts that it may be on, MiB.
        lacks_mib: u64,
        /// That host.
        on: HostId,
    },
    /// No host is such that the VM may be on it, however empty: other hosts or other rules are needed.
    OtherHost {
        /// Which VM has no place.
        vm: VmId,
    },
    /// The VM must be freed of what holds it: unpinned, or its change under way ended.
    Release {
        /// Which VM.
        vm: VmId,
    },
}

/// A host that may be switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerOff {
    /// Which.
    pub host: HostId,
    /// When expected load makes it needed again, Unix milliseconds; absent when not in sight.
    pub wake_ms: Option<u64>,
}

/// Where a VM is to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// There.
    pub host: HostId,
    /// Expected processor use there with the VM, share of capacity.
    pub expected: f64,
    /// Memory free there after it, MiB.
    pub free_mib: u64,
    /// How many hosts could have taken it.
    pub choices: usize,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}, {}", self.vm, self.from, self.to, self.reason)
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} suits best of {}: {} of its processors will be in use and {} MiB free",
            self.host,
            count(self.choices, "host"),
            percent(self.expected),
            self.free_mib
        )
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { vm, lacks_mib, on } => write!(f, "to be possible: {lacks_mib} MiB more for {vm} on {on}"),
            Self::OtherHost { vm } => write!(f, "to be possible: another host or other rules for {vm}"),
            Self::Release { vm } => write!(f, "to be possible: {vm} let go"),
        }
    }
}

impl fmt::Display for PowerOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wake_ms {
            Some(ms) => write!(f, "{} may be switched off until {ms} ms", self.host),
            None => write!(f, "{} may be switched off", self.host),
        }
    }
}

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vms = self.vms.iter().map(VmId::as_str).collect::<Vec<_>>().join(", ");
        let kind = if self.strict { "strict" } else { "preferred" };
        write!(f, "{kind} rule {:?} does not hold for {vms}", self.rule)?;
        if self.against.is_empty() { Ok(()) } else { write!(f, ", against {}", self.against.join(", ")) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overload { expected, threshold } => {
                write!(
                    f,
                    "its host is expected at {} of its processors, above {}",
                    percent(*expected),
                    percent(*threshold)
                )
            }
            Self::Drain => f.write_str("its host is being emptied"),
            Self::Rule { rule } => write!(f, "rule {rule:?} asks for it"),
            Self::Balance { from, to } => {
                write!(f, "load becomes more even: source at {}, target at {}", percent(*from), percent(*to))
            }
            Self::Room { vm } => write!(f, "makes room for {vm}"),
            Self::Pack => f.write_str("its host can then be switched off"),
            Self::Light => f.write_str("a host is kept lightly loaded"),
            Self::Green { from, to } => write!(f, "its site's green score is {from:.2}, the other site's {to:.2}"),
            Self::Group { group } => write!(f, "it goes to a host of its group {group:?}"),
        }
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overload { expected, threshold } => {
                write!(
                    f,
                    "its host is expected at {} of its processors, above {}",
                    percent(*expected),
                    percent(*threshold)
                )
            }
            Self::Drain => f.write_str("its host is being emptied"),
            Self::Rule { rule } => write!(f, "rule {rule:?} does not hold for it"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("it is pinned"),
            Self::Excluded => f.write_str("it is excluded from balancing"),
            Self::Busy => f.write_str("a change of it is under way"),
            Self::Resting { until_ms } => write!(f, "it was moved not long ago and rests until {until_ms} ms"),
            Self::NoHost { rejections } if rejections.is_empty() => f.write_str("there is no other host"),
            Self::NoHost { rejections } => {
                f.write_str("no host may take it: ")?;
                join(f, rejections, "; ")
            }
            Self::NoWay => f.write_str("it and others stand in each other's way with no room to pass"),
            Self::NotWorth { gain, cost } => write!(f, "a move would bring {gain:.5} and cost {cost:.5}"),
            Self::Settled => f.write_str("other moves settle it"),
            Self::Limit => f.write_str("the plan's limit was reached"),
            Self::Contradiction { rules } => write!(f, "these rules cannot hold together: {}", rules.join(", ")),
        }
    }
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stays: {}, but {}", self.vm, self.concern, self.why)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.host, self.why)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::State { state: HostState::Draining } => f.write_str("is being emptied"),
            Self::State { .. } => f.write_str("is not usable"),
            Self::Memory { needs_mib, free_mib } => write!(f, "has {free_mib} MiB free of the {needs_mib} MiB needed"),
            Self::CpuFeatures { lacks } => write!(f, "lacks CPU features that the guest has seen: {}", list(lacks)),
            Self::Networks { lacks } => write!(f, "is not on network {}", list(lacks)),
            Self::Storages { lacks } => write!(f, "does not reach storage {}", list(lacks)),
            Self::Rule { rule } => write!(f, "is forbidden by rule {rule:?}"),
            Self::Group { group: Some(group) } => write!(f, "belongs to group {group:?}"),
            Self::Group { group: None } => f.write_str("belongs to no group"),
            Self::Slack { share } => write!(f, "keeps {} free", percent(*share)),
            Self::Light => f.write_str("is kept lightly loaded"),
            Self::SpareHosts { spare_hosts } => {
                write!(f, "would leave too little room if {} failed", count(*spare_hosts as usize, "host"))
            }
            Self::Streams => f.write_str("has other moves under way"),
            Self::Input { defect } => write!(f, "is not looked at: {defect}"),
            Self::Overload { expected, threshold } => {
                write!(f, "would be at {} of its processors, above {}", percent(*expected), percent(*threshold))
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn join(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display], by: &str) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(by)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}
