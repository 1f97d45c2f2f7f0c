//! The rack as the planner sees it: one picture, complete, with the time in it.
//!
//! Owns: hosts and VMs as data, and the check at the border ([`Snapshot::check`]): what passes it has no
//! NaN, no negative amount, no VM on a host that is not there, no name twice. Never does: decisions.

use proto::{HostId, VmId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The rack at one moment. Order of hosts and VMs means nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// When this was so, Unix milliseconds.
    #[serde(default)]
    pub at_ms: u64,
    /// Time between two values of every history, milliseconds; 0 when there are no histories.
    #[serde(default)]
    pub sample_ms: u64,
    /// All hosts that VMs may be on, those not usable too when they have VMs.
    pub hosts: Vec<Host>,
    /// All VMs that run or are to run.
    #[serde(default)]
    pub vms: Vec<Vm>,
}

/// A physical machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Whether it takes VMs.
    #[serde(default)]
    pub state: HostState,
    /// Memory for guests, MiB: all that Xen has, less dom0 and Xen itself.
    pub memory_mib: u64,
    /// Processor capacity for guests, cores.
    pub cpu_cores: f64,
    /// Network capacity, bytes a second each way. 1 Gbit/s when not given.
    #[serde(default = "gigabit")]
    pub net_bytes_s: f64,
    /// Disk capacity, bytes a second over the storage network. 1 Gbit/s when not given.
    #[serde(default = "gigabit")]
    pub io_bytes_s: f64,
    /// What a migration stream gets, bytes a second. 1 Gbit/s when not given.
    #[serde(default = "gigabit")]
    pub migration_bytes_s: f64,
    /// Processor features that guests see.
    #[serde(default)]
    pub cpu_features: BTreeSet<String>,
    /// Networks (bridges) that are there.
    #[serde(default)]
    pub networks: BTreeSet<String>,
    /// Storages that it reaches.
    #[serde(default)]
    pub storages: BTreeSet<String>,
    /// Where it stands; hosts without one are together at one unnamed site.
    #[serde(default)]
    pub site: Option<String>,
    /// Labels, for rules, thresholds and groups.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The virtual cluster that it belongs to now.
    #[serde(default)]
    pub group: Option<String>,
    /// Streams that come in now, of moves under way.
    #[serde(default)]
    pub moves_in: u32,
    /// Streams that go out now.
    #[serde(default)]
    pub moves_out: u32,
    /// Watts when idle and when all cores work; for energy and packing.
    #[serde(default)]
    pub watts: Option<Watts>,
}

/// What a host draws.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watts {
    /// Running no guest.
    pub idle: f64,
    /// All cores at work.
    pub full: f64,
}

/// Whether a host takes VMs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// Accepted and healthy.
    #[default]
    Active,
    /// To be emptied; takes nothing new.
    Draining,
    /// Takes nothing and gives nothing: lost, refused, not accepted, switched off.
    Unusable,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// Its id.
    pub id: VmId,
    /// Where it runs; absent when it is to be placed.
    #[serde(default)]
    pub host: Option<HostId>,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Virtual processors: it can use no more cores than this.
    pub vcpus: u32,
    /// Processor use now, cores.
    #[serde(default)]
    pub cpu_cores: f64,
    /// Processor use before now, cores, oldest first, every `sample_ms`; may be empty.
    #[serde(default)]
    pub cpu_history: Vec<f32>,
    /// Network, both ways together, bytes a second.
    #[serde(default)]
    pub net_bytes_s: f64,
    /// Disk, read and written, bytes a second.
    #[serde(default)]
    pub io_bytes_s: f64,
    /// How fast it dirties memory, bytes a second.
    #[serde(default)]
    pub dirty_bytes_s: f64,
    /// How much its overload and its moves weigh; 1 is ordinary.
    #[serde(default = "one")]
    pub priority: f64,
    /// Labels, for rules.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Processor features that the guest has seen since it started.
    #[serde(default)]
    pub cpu_features: BTreeSet<String>,
    /// Networks that it is connected to.
    #[serde(default)]
    pub networks: BTreeSet<String>,
    /// Storages that its disks are on.
    #[serde(default)]
    pub storages: BTreeSet<String>,
    /// The virtual cluster that it belongs to.
    #[serde(default)]
    pub group: Option<String>,
    /// Not to be moved for balance; only to empty a draining host.
    #[serde(default)]
    pub excluded: bool,
    /// Never to be moved at all, not even for a drain.
    #[serde(default)]
    pub pinned: bool,
    /// A move or another change of it is under way: it is left alone.
    #[serde(default)]
    pub busy: bool,
    /// Where it is being moved to now: it is planned for as if it were there, and its memory is kept at both hosts.
    #[serde(default)]
    pub moving_to: Option<HostId>,
    /// May follow green energy to another site.
    #[serde(default)]
    pub flexible: bool,
    /// Its last move, for the cool-down.
    #[serde(default)]
    pub moved: Option<Moved>,
}

/// A VM's last move and the rest it was given; kept by the caller over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// When it ended, Unix milliseconds.
    pub at_ms: u64,
    /// How long it then rests, milliseconds.
    pub rest_ms: u64,
}

impl Host {
    /// An active host with 1 Gbit/s links and nothing special about it.
    pub fn new(id: HostId, memory_mib: u64, cpu_cores: f64) -> Self {
        Self {
            id,
            state: HostState::Active,
            memory_mib,
            cpu_cores,
            net_bytes_s: gigabit(),
            io_bytes_s: gigabit(),
            migration_bytes_s: gigabit(),
            cpu_features: BTreeSet::new(),
            networks: BTreeSet::new(),
            storages: BTreeSet::new(),
            site: None,
            labels: BTreeMap::new(),
            group: None,
            moves_in: 0,
            moves_out: 0,
            watts: None,
        }
    }
}

impl Vm {
    /// An idle VM with no needs beyond memory, not placed yet.
    pub fn new(id: VmId, memory_mib: u64, vcpus: u32) -> Self {
        Self {
            id,
            host: None,
            memory_mib,
            vcpus,
            cpu_cores: 0.0,
            cpu_history: Vec::new(),
            net_bytes_s: 0.0,
            io_bytes_s: 0.0,
            dirty_bytes_s: 0.0,
            priority: one(),
            labels: BTreeMap::new(),
            cpu_features: BTreeSet::new(),
            networks: BTreeSet::new(),
            storages: BTreeSet::new(),
            group: None,
            excluded: false,
            pinned: false,
            busy: false,
            moving_to: None,
            flexible: false,
            moved: None,
        }
    }
}

/// What is wrong with a snapshot or policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{path}: {found}; expected {expected}")]
pub struct Defect {
    /// Where, such as `vms[web-1].memory_mib`.
    pub path: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

impl Snapshot {
    /// Checks what the planner relies on.
    ///
    /// # Errors
    /// The first defect, in the order of the file.
    pub fn check(&self) -> Result<(), Defect> {
        let mut hosts = BTreeSet::new();
        for host in &self.hosts {
            let at = |field: &str| format!("hosts[{}].{field}", host.id);
            if !hosts.insert(&host.id) {
                return Err(defect(at("id"), "the same id twice", "each host once"));
            }
            for (field, value) in [
                ("cpu_cores", host.cpu_cores),
                ("net_bytes_s", host.net_bytes_s),
                ("io_bytes_s", host.io_bytes_s),
                ("migration_bytes_s", host.migration_bytes_s),
            ] {
                positive(value, || at(field))?;
            }
            within(host.memory_mib, || at("memory_mib"))?;
            if let Some(watts) = host.watts {
                amount(watts.idle, || at("watts.idle"))?;
                amount(watts.full, || at("watts.full"))?;
            }
        }
        let mut vms = BTreeSet::new();
        for vm in &self.vms {
            let at = |field: &str| format!("vms[{}].{field}", vm.id);
            if !vms.insert(&vm.id) {
                return Err(defect(at("id"), "the same id twice", "each VM once"));
            }
            for (field, host) in [("host", &vm.host), ("moving_to", &vm.moving_to)] {
                if let Some(host) = host.as_ref().filter(|host| !hosts.contains(host)) {
                    return Err(defect(at(field), &format!("host \"{host}\""), "the id of a host of this snapshot"));
                }
            }
            within(vm.memory_mib, || at("memory_mib"))?;
            for (field, value) in [
                ("cpu_cores", vm.cpu_cores),
                ("net_bytes_s", vm.net_bytes_s),
                ("io_bytes_s", vm.io_bytes_s),
                ("dirty_bytes_s", vm.dirty_bytes_s),
                ("priority", vm.priority),
            ] {
                amount(value, || at(field))?;
            }
            for (i, &value) in vm.cpu_history.iter().enumerate() {
                amount(f64::from(value), || at(&format!("cpu_history[{i}]")))?;
            }
        }
        if self.sample_ms == 0 && self.vms.iter().any(|vm| !vm.cpu_history.is_empty()) {
            return Err(defect("sample_ms".into(), "0", "the milliseconds between two values of cpu_history"));
        }
        Ok(())
    }
}

/// No machine of this century has an exbibyte; sums of amounts below it cannot overflow.
const MIB_MAX: u64 = 1 << 40;

/// More than any rate or count that is measured; sums of squares of it stay finite.
const AMOUNT_MAX: f64 = 1e18;

fn within(mib: u64, path: impl FnOnce() -> String) -> Result<(), Defect> {
    if mib <= MIB_MAX { Ok(()) } else { Err(defect(path(), &mib.to_string(), "at most 2^40 MiB")) }
}

fn amount(value: f64, path: impl FnOnce() -> String) -> Result<(), Defect> {
    let good = (0.0..=AMOUNT_MAX).contains(&value);
    if good { Ok(()) } else { Err(defect(path(), &value.to_string(), "a finite number, 0 or more")) }
}

fn positive(value: f64, path: impl FnOnce() -> String) -> Result<(), Defect> {
    let good = value > 0.0 && value <= AMOUNT_MAX;
    if good { Ok(()) } else { Err(defect(path(), &value.to_string(), "a finite number above 0")) }
}

pub(crate) fn defect(path: String, found: &str, expected: &str) -> Defect {
    Defect { path, found: found.to_owned(), expected: expected.to_owned() }
}

fn gigabit() -> f64 {
    125e6
}

fn one() -> f64 {
    1.0
}
