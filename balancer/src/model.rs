//! The snapshot in dense form: hosts and VMs by number, with sums per host kept as VMs change places.
//!
//! Owns: who is where while a plan is being thought out, and the sums that rules and score read. Hosts and VMs
//! are numbered in the order of their ids, so the order of the input changes nothing. Never does: decide what is
//! good (see `score`) or allowed (see `rules`).

use crate::forecast::{Expected, expect};
use crate::policy::{Policy, Thresholds};
use crate::rules::RuleBook;
use crate::score::Scale;
use crate::snapshot::{Host, HostState, Snapshot, Vm};
use proto::HostId;
use std::collections::HashMap;

/// Resources that imbalance is about.
pub(crate) const RESOURCES: usize = 4;
/// Place of the processor among them.
pub(crate) const CPU: usize = 0;
/// Place of memory among them.
pub(crate) const MEMORY: usize = 1;

/// A host's number.
pub(crate) type HostNo = usize;
/// A VM's number.
pub(crate) type VmNo = usize;

/// The rack while a plan is thought out.
#[derive(Debug, Clone)]
pub(crate) struct Model<'a> {
    pub(crate) at_ms: u64,
    pub(crate) sample_ms: u64,
    pub(crate) policy: &'a Policy,
    pub(crate) hosts: Vec<HostEntry<'a>>,
    pub(crate) vms: Vec<VmEntry<'a>>,
    pub(crate) rules: RuleBook,
    pub(crate) scale: Scale,
}

/// A host and its sums.
#[derive(Debug, Clone)]
pub(crate) struct HostEntry<'a> {
    pub(crate) host: &'a Host,
    pub(crate) thresholds: Thresholds,
    /// Share kept free, 0 to 1.
    pub(crate) slack: f64,
    /// Kept lightly loaded.
    pub(crate) light: bool,
    /// Capacity by resource.
    pub(crate) capacity: [f64; RESOURCES],
    /// Green score of its site, 0 to 1.
    pub(crate) green: f64,
    /// Memory of VMs on their way away from here, which is free only when they are gone, MiB.
    pub(crate) reserved_mib: u64,
    pub(crate) sums: Sums,
    /// VMs here, in no order.
    pub(crate) vms: Vec<VmNo>,
}

/// What a host's VMs come to together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sums {
    /// Expected use by resource.
    pub(crate) load: [f64; RESOURCES],
    /// Variance of the expected processor use, cores².
    pub(crate) cpu_variance: f64,
    /// Exact, MiB.
    pub(crate) memory_mib: u64,
    /// Processor use times priority.
    pub(crate) priority_load: f64,
    /// Processor use of flexible VMs.
    pub(crate) flexible_load: f64,
    pub(crate) vms: u32,
}

/// A VM, where it is and where it was.
#[derive(Debug, Clone)]
pub(crate) struct VmEntry<'a> {
    pub(crate) vm: &'a Vm,
    /// Where it runs by the snapshot.
    pub(crate) home: Option<HostNo>,
    /// Where it is in this thought.
    pub(crate) place: Option<HostNo>,
    /// Planned for in vain: it and others stand in each other's way.
    pub(crate) held: bool,
    /// Its place among the VMs of its host.
    slot: usize,
    pub(crate) load: [f64; RESOURCES],
    pub(crate) cpu_variance: f64,
    pub(crate) cost: crate::plan::Cost,
}

impl<'a> Model<'a> {
    /// Reads a checked snapshot.
    pub(crate) fn new(snapshot: &'a Snapshot, policy: &'a Policy) -> Self {
        Self::with_expectations(snapshot, policy, |vm| expect(vm, snapshot.sample_ms, policy.horizon_ms))
    }

    /// As `new`, with expectations made elsewhere.
    pub(crate) fn with_expectations(
        snapshot: &'a Snapshot,
        policy: &'a Policy,
        mut expected: impl FnMut(&'a Vm) -> Expected,
    ) -> Self {
        let mut hosts: Vec<HostEntry<'a>> =
            snapshot.hosts.iter().map(|host| HostEntry::new(host, snapshot, policy)).collect();
        hosts.sort_by(|a, b| a.host.id.cmp(&b.host.id));
        let number: HashMap<&str, HostNo> = hosts.iter().enumerate().map(|(i, h)| (h.host.id.as_str(), i)).collect();
        let mut given: Vec<&'a Vm> = snapshot.vms.iter().collect();
        given.sort_by(|a, b| a.id.cmp(&b.id));
        let mut vms: Vec<VmEntry<'a>> = Vec::with_capacity(given.len());
        for vm in given {
            let find = |id: &Option<HostId>| id.as_ref().and_then(|id| number.get(id.as_str()).copied());
            let (runs, goes) = (find(&vm.host), find(&vm.moving_to));
            if let (Some(runs), Some(goes)) = (runs, goes)
                && runs != goes
            {
                hosts[runs].reserved_mib += vm.memory_mib;
            }
            let home = goes.or(runs);
            let rate = home.map_or(125e6, |h| hosts[h].host.migration_bytes_s);
            vms.push(VmEntry::new(vm, home, expected(vm), crate::cost::predict(vm, rate, policy)));
        }
        let rules = RuleBook::new(policy, &hosts, &vms);
        let mut model = Self {
            at_ms: snapshot.at_ms,
            sample_ms: snapshot.sample_ms,
            policy,
            hosts,
            vms,
            rules,
            scale: Scale::default(),
        };
        for v in 0..model.vms.len() {
            if let Some(home) = model.vms[v].home {
                model.put(v, home);
            }
        }
        model.scale = Scale::of(&model);
        model.choose_light_hosts();
        model
    }

    /// Puts a VM that is nowhere on a host.
    pub(crate) fn put(&mut self, v: VmNo, to: HostNo) {
        let vm = &mut self.vms[v];
        debug_assert!(vm.place.is_none(), "{} is somewhere already", vm.vm.id);
        vm.place = Some(to);
        vm.slot = self.hosts[to].vms.len();
        self.hosts[to].vms.push(v);
        self.hosts[to].sums = self.hosts[to].sums.with(vm);
        self.rules.arrived(v, to);
    }

    /// Takes a VM off its host.
    pub(crate) fn take(&mut self, v: VmNo) -> Option<HostNo> {
        let from = self.vms[v].place.take()?;
        let slot = self.vms[v].slot;
        self.hosts[from].vms.swap_remove(slot);
        if let Some(&moved) = self.hosts[from].vms.get(slot) {
            self.vms[moved].slot = slot;
        }
        self.hosts[from].sums = self.hosts[from].sums.without(&self.vms[v]);
        self.rules.left(v, from);
        Some(from)
    }

    /// Moves a VM; back where it was if called with the answer.
    pub(crate) fn shift(&mut self, v: VmNo, to: HostNo) -> Option<HostNo> {
        let from = self.take(v);
        self.put(v, to);
        from
    }

    /// Leaves VMs where they are from now on.
    pub(crate) fn hold(&mut self, vms: &[VmNo]) {
        for &v in vms {
            self.vms[v].held = true;
        }
    }

    /// VMs whose place is not where the snapshot has them, by number.
    pub(crate) fn displaced(&self) -> Vec<VmNo> {
        (0..self.vms.len()).filter(|&v| self.vms[v].home.is_some() && self.vms[v].place != self.vms[v].home).collect()
    }

    /// The least loaded active hosts are those kept light, so that keeping them so costs least.
    fn choose_light_hosts(&mut self) {
        let mut order: Vec<HostNo> =
            (0..self.hosts.len()).filter(|&h| self.hosts[h].host.state == HostState::Active).collect();
        let busy = |h: &HostNo| {
            let host = &self.hosts[*h];
            (host.sums.load[CPU] / host.capacity[CPU]).max(host.sums.load[MEMORY] / host.capacity[MEMORY].max(1.0))
        };
        order.sort_by(|a, b| busy(a).total_cmp(&busy(b)).then(a.cmp(b)));
        for &h in order.iter().take(self.policy.light_hosts as usize) {
            self.hosts[h].light = true;
        }
    }
}

impl<'a> HostEntry<'a> {
    fn new(host: &'a Host, snapshot: &Snapshot, policy: &Policy) -> Self {
        let of = policy.thresholds_for.iter().find(|of| of.hosts.selects(&host.id, &host.labels));
        let slack = policy.slack.iter().filter(|s| s.hosts.selects(&host.id, &host.labels)).map(|s| s.share);
        Self {
            host,
            thresholds: of.map_or(policy.thresholds, |of| of.thresholds),
            slack: slack.fold(0.0, f64::max),
            light: false,
            capacity: [host.cpu_cores, host.memory_mib as f64, host.net_bytes_s, host.io_bytes_s],
            green: crate::green::score_of(host.site.as_deref(), snapshot, policy),
            reserved_mib: 0,
            sums: Sums::default(),
            vms: Vec::new(),
        }
    }

    /// Memory that no VM has, MiB.
    pub(crate) fn free_mib(&self) -> u64 {
        self.host.memory_mib.saturating_sub(self.sums.memory_mib + self.reserved_mib)
    }

    /// The most of its processors that it may be brought to, share: what is kept free is taken off.
    pub(crate) fn ceiling(&self) -> f64 {
        self.thresholds.leave.min(1.0 - self.slack)
    }

    /// Memory that a VM may still have here, MiB: what is kept free is taken off.
    pub(crate) fn room_mib(&self) -> u64 {
        let usable = (self.host.memory_mib as f64 * (1.0 - self.slack)).floor() as u64;
        usable.saturating_sub(self.sums.memory_mib + self.reserved_mib)
    }
}

impl<'a> VmEntry<'a> {
    fn new(vm: &'a Vm, home: Option<HostNo>, expected: Expected, cost: crate::plan::Cost) -> Self {
        let most = f64::from(vm.vcpus.max(1));
        Self {
            vm,
            home,
            place: None,
            held: false,
            slot: 0,
            load: [expected.mean.min(most), vm.memory_mib as f64, vm.net_bytes_s, vm.io_bytes_s],
            cpu_variance: expected.deviation.powi(2),
            cost,
        }
    }
}

impl Sums {
    /// The sums with one VM more.
    pub(crate) fn with(mut self, vm: &VmEntry<'_>) -> Self {
        for r in 0..RESOURCES {
            self.load[r] += vm.load[r];
        }
        self.cpu_variance += vm.cpu_variance;
        self.memory_mib += vm.vm.memory_mib;
        self.priority_load += vm.load[CPU] * vm.vm.priority;
        self.flexible_load += if vm.vm.flexible { vm.load[CPU] } else { 0.0 };
        self.vms += 1;
        self
    }

    /// The sums with one VM less. An empty host's sums are exactly zero, whatever was rounded before.
    pub(crate) fn without(mut self, vm: &VmEntry<'_>) -> Self {
        if self.vms <= 1 {
            return Self::default();
        }
        for r in 0..RESOURCES {
            self.load[r] = (self.load[r] - vm.load[r]).max(0.0);
        }
        self.cpu_variance = (self.cpu_variance - vm.cpu_variance).max(0.0);
        self.memory_mib -= vm.vm.memory_mib;
        self.priority_load = (self.priority_load - vm.load[CPU] * vm.vm.priority).max(0.0);
        self.flexible_load = (self.flexible_load - if vm.vm.flexible { vm.load[CPU] } else { 0.0 }).max(0.0);
        self.vms -= 1;
        self
    }
}
