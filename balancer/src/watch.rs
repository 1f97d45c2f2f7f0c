//! When to plan at once: a host became overloaded, or one joined.
//!
//! Owns: the memory of the last samples of each host. Never does: plan, ask what time it is.
//!
//! ```text
//!            `samples` of the last `of` above `enter`
//!   calm ----------------------------------------------> overloaded
//!        <----------------------------------------------
//!            `samples` of the last `of` below `leave`
//! ```
//! Between the two thresholds a host stays what it is, so that load which swings around one of them triggers once.

use crate::policy::{Policy, Thresholds};
use crate::snapshot::{HostState, Snapshot};
use proto::HostId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Watches the hosts of a rack. A caller may keep it over restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    hosts: BTreeMap<HostId, Watched>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Watched {
    sampled_ms: u64,
    /// Samples above `enter`, the newest in the lowest bit.
    above: u64,
    /// Samples below `leave`.
    below: u64,
    overloaded: bool,
}

/// A reason to plan now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "trigger", rename_all = "snake_case")]
pub enum Trigger {
    /// A host became overloaded.
    Overloaded {
        /// Which.
        host: HostId,
        /// Share of its processors in use now.
        share: f64,
    },
    /// A host is no longer overloaded; nothing need be planned for it.
    Relieved {
        /// Which.
        host: HostId,
    },
    /// A host takes VMs that did not before.
    Joined {
        /// Which.
        host: HostId,
    },
}

impl Watch {
    /// Takes a snapshot as a sample of each host whose `every_ms` has passed. Hosts of the first snapshot ever do not count as joined.
    pub fn observe(&mut self, snapshot: &Snapshot, policy: &Policy) -> Vec<Trigger> {
        let first = self.hosts.is_empty();
        let mut used: HashMap<&HostId, f64> = HashMap::new();
        for vm in &snapshot.vms {
            if let Some(host) = &vm.host {
                *used.entry(host).or_default() += vm.cpu_cores;
            }
        }
        let mut triggers = Vec::new();
        let mut kept = BTreeMap::new();
        for host in snapshot.hosts.iter().filter(|host| host.state == HostState::Active) {
            let known = self.hosts.remove(&host.id);
            if known.is_none() && !first {
                triggers.push(Trigger::Joined { host: host.id.clone() });
            }
            let of = policy.thresholds_for.iter().find(|of| of.hosts.selects(&host.id, &host.labels));
            let thresholds = of.map_or(policy.thresholds, |of| of.thresholds);
            let share = used.get(&host.id).copied().unwrap_or(0.0) / host.cpu_cores;
            let mut watched = known.unwrap_or_default();
            let was = watched.overloaded;
            if watched.sampled_ms == 0 || snapshot.at_ms >= watched.sampled_ms.saturating_add(thresholds.every_ms) {
                watched.sample(share, &thresholds);
                watched.sampled_ms = snapshot.at_ms;
            }
            match (was, watched.overloaded) {
                (false, true) => triggers.push(Trigger::Overloaded { host: host.id.clone(), share }),
                (true, false) => triggers.push(Trigger::Relieved { host: host.id.clone() }),
                _ => {}
            }
            kept.insert(host.id.clone(), watched);
        }
        self.hosts = kept;
        triggers.sort_by(|a, b| a.host().cmp(b.host()));
        triggers
    }
}

impl Trigger {
    fn host(&self) -> &HostId {
        match self {
            Self::Overloaded { host, .. } | Self::Relieved { host } | Self::Joined { host } => host,
        }
    }
}

impl Watched {
    fn sample(&mut self, share: f64, thresholds: &Thresholds) {
        let window = u64::MAX >> (64 - thresholds.of.clamp(1, 64));
        self.above = (self.above << 1 | u64::from(share > thresholds.enter)) & window;
        self.below = (self.below << 1 | u64::from(share < thresholds.leave)) & window;
        let enough = |bits: u64| bits.count_ones() >= thresholds.samples;
        self.overloaded = if self.overloaded { !enough(self.below) } else { enough(self.above) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Host, Vm};

    fn rack(at_ms: u64, cores: f64) -> Snapshot {
        let id: HostId = "a".parse().expect("a name");
        let mut vm = Vm::new("web".parse().expect("a name"), 1024, 4);
        (vm.host, vm.cpu_cores) = (Some(id.clone()), cores);
        Snapshot { at_ms, hosts: vec![Host::new(id, 8192, 4.0)], vms: vec![vm], ..Snapshot::default() }
    }

    /// Letters for what a series of shares triggers: `!` overloaded, `.` relieved.
    fn told(shares: &[f64]) -> String {
        let mut watch = Watch::default();
        let policy = Policy::default();
        let mut text = String::new();
        for (i, share) in shares.iter().enumerate() {
            let triggers = watch.observe(&rack(5_000 * (i as u64 + 1), share * 4.0), &policy);
            text.push(match triggers.first() {
                Some(Trigger::Overloaded { .. }) => '!',
                Some(Trigger::Relieved { .. }) => '.',
                Some(Trigger::Joined { .. }) => '+',
                None => '-',
            });
        }
        text
    }

    #[test]
    fn three_of_five() {
        assert_eq!(told(&[1.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0]), "-------");
        assert_eq!(told(&[1.0, 0.5, 1.0, 0.5, 1.0]), "----!");
        assert_eq!(told(&[1.0, 1.0, 1.0, 0.8, 0.8, 0.8, 0.8, 0.5, 0.5, 0.5]), "--!------.");
    }

    #[test]
    fn kept_over_restarts() {
        let policy = Policy::default();
        let shares = [1.0, 1.0, 0.5, 1.0, 0.8, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0];
        let (mut watch, mut restarted) = (Watch::default(), Watch::default());
        for (i, share) in shares.iter().enumerate() {
            let stored = serde_json::to_string(&restarted).expect("numbers are JSON");
            restarted = serde_json::from_str(&stored).expect("what was written can be read");
            let now = rack(5_000 * (i as u64 + 1), share * 4.0);
            assert_eq!(restarted.observe(&now, &policy), watch.observe(&now, &policy), "sample {i}");
        }
    }

    #[test]
    fn a_label_has_its_own_frequency_thresholds_and_history() {
        let thresholds = Thresholds { enter: 0.4, leave: 0.3, samples: 1, of: 1, every_ms: 60_000 };
        let labels: BTreeMap<_, _> = [("kind".to_owned(), "small".to_owned())].into();
        let hosts = crate::policy::HostSelector { labels: labels.clone(), ..Default::default() };
        let policy =
            Policy { thresholds_for: vec![crate::policy::ThresholdsFor { hosts, thresholds }], ..Policy::default() };
        let mut watch = Watch::default();
        let mut told = |at_ms: u64, share: f64| {
            let mut now = rack(at_ms, share * 4.0);
            now.hosts[0].labels = labels.clone();
            watch.observe(&now, &policy).len()
        };
        // One sample above 0.4 is enough, and after it none counts for a minute.
        assert_eq!((told(1_000, 0.5), told(6_000, 0.1), told(60_999, 0.1), told(61_000, 0.1)), (1, 0, 0, 1));
    }

    #[test]
    fn samples_that_come_too_soon_do_not_count() {
        let mut watch = Watch::default();
        let policy = Policy::default();
        let told: Vec<_> = (1..10).flat_map(|i| watch.observe(&rack(1_000 * i, 4.0), &policy)).collect();
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn a_host_that_joins() {
        let mut watch = Watch::default();
        let policy = Policy::default();
        assert!(watch.observe(&rack(5_000, 1.0), &policy).is_empty());
        let mut more = rack(10_000, 1.0);
        more.hosts.push(Host::new("b".parse().expect("a name"), 8192, 4.0));
        let joined = vec![Trigger::Joined { host: "b".parse().expect("a name") }];
        assert_eq!(watch.observe(&more, &policy), joined);
        assert!(watch.observe(&more, &policy).is_empty());
    }
}
