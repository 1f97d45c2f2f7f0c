//! Hard and preferred rules: may this VM be on that host, and how many preferences does a place break.
//!
//! Owns: every rule, each in one place. [`fits`] is what VM and host alone decide; [`Model::admit`] adds what depends on
//! who else is there. Search, drain, placement, first responder and explanation all ask here.
//! Never does: weigh load (see `score`), pick places.
//!
//! VMs that a strict rule keeps together form a *unit*: they are planned as one and cross one after another, so the
//! rule is judged when the last has arrived.

use crate::model::{HostEntry, HostNo, Model, VmEntry, VmNo};
use crate::plan::Refusal;
use crate::policy::{Ask, Policy};
use crate::snapshot::{Host, HostState, Vm};
use std::collections::{BTreeSet, HashMap};

/// What one broken preference counts in the score: as much as one host wholly out of balance by 70 points.
pub(crate) const PREFERENCE: f64 = 0.5;

/// A unit's number.
pub(crate) type UnitNo = usize;

/// The policy's rules resolved to numbers, and how many VMs of each rule are on each host.
#[derive(Debug, Clone)]
pub(crate) struct RuleBook {
    pub(crate) rules: Vec<Resolved>,
    /// Rules that concern each VM.
    pub(crate) of_vm: Vec<Vec<usize>>,
    /// VMs of each unit, in order.
    pub(crate) units: Vec<Vec<VmNo>>,
    pub(crate) unit_of: Vec<UnitNo>,
    /// Whether VMs of a class fit hosts of a class; classes hold what [`fits`] looks at.
    fits: Vec<Vec<bool>>,
    vm_class: Vec<usize>,
    host_class: Vec<usize>,
    /// For each rule that counts: VMs of it by host.
    counts: Vec<HashMap<HostNo, u32>>,
}

/// A rule by numbers.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) name: String,
    pub(crate) strict: bool,
    pub(crate) vms: Vec<VmNo>,
    pub(crate) kind: Kind,
}

/// What a resolved rule asks; `Off` has become `Only` on the other hosts.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Together,
    Apart,
    Only(Vec<bool>),
}

/// Whether a VM may be on a host by what the two are; who else is there plays no part.
///
/// # Errors
/// The first rule that forbids it.
pub(crate) fn fits(vm: &Vm, host: &Host) -> Result<(), Refusal> {
    if host.state != HostState::Active {
        return Err(Refusal::State { state: host.state });
    }
    if vm.group != host.group {
        return Err(Refusal::Group { group: host.group.clone() });
    }
    let lacks = |wanted: &BTreeSet<String>, there: &BTreeSet<String>| wanted.difference(there).cloned().collect();
    if !vm.cpu_features.is_subset(&host.cpu_features) {
        return Err(Refusal::CpuFeatures { lacks: lacks(&vm.cpu_features, &host.cpu_features) });
    }
    if !vm.networks.is_subset(&host.networks) {
        return Err(Refusal::Networks { lacks: lacks(&vm.networks, &host.networks) });
    }
    if !vm.storages.is_subset(&host.storages) {
        return Err(Refusal::Storages { lacks: lacks(&vm.storages, &host.storages) });
    }
    Ok(())
}

impl Model<'_> {
    /// Whether a host may take these VMs beside those that it has; VMs of the list that are there already count as there.
    ///
    /// # Errors
    /// The first rule that forbids it.
    pub(crate) fn admit(&self, vms: &[VmNo], to: HostNo) -> Result<(), Refusal> {
        for &v in vms {
            if !self.rules.fits(v, to) {
                fits(self.vms[v].vm, self.hosts[to].host)?;
            }
        }
        self.admit_memory(vms, to)?;
        for &v in vms {
            self.admit_rules(v, to)?;
        }
        Ok(())
    }

    /// Whether the memory of these VMs is free on a host, with what is kept free there.
    ///
    /// # Errors
    /// [`Refusal::Memory`], or what keeps the memory from being used.
    pub(crate) fn admit_memory(&self, vms: &[VmNo], to: HostNo) -> Result<(), Refusal> {
        let host = &self.hosts[to];
        let needs_mib: u64 =
            vms.iter().filter(|&&v| self.vms[v].place != Some(to)).map(|&v| self.vms[v].vm.memory_mib).sum();
        let free_mib = host.free_mib();
        if needs_mib > free_mib {
            return Err(Refusal::Memory { needs_mib, free_mib });
        }
        if needs_mib > host.room_mib() {
            return Err(Refusal::Slack { share: host.slack });
        }
        if host.light && needs_mib > 0 {
            let cpu: f64 = vms.iter().map(|&v| self.vms[v].load[crate::model::CPU]).sum();
            let memory = (host.sums.memory_mib + needs_mib) as f64 / host.capacity[crate::model::MEMORY];
            let cpu = (host.sums.load[crate::model::CPU] + cpu) / host.capacity[crate::model::CPU];
            if memory.max(cpu) > self.policy.light_share {
                return Err(Refusal::Light);
            }
        }
        Ok(())
    }

    /// Whether strict rules let a VM be on a host beside those that are there.
    ///
    /// # Errors
    /// [`Refusal::Rule`]
    pub(crate) fn admit_rules(&self, v: VmNo, to: HostNo) -> Result<(), Refusal> {
        for &r in &self.rules.of_vm[v] {
            let rule = &self.rules.rules[r];
            if rule.strict && !self.rules.holds_at(r, v, to, self.vms[v].place) {
                return Err(Refusal::Rule { rule: rule.name.clone() });
            }
        }
        Ok(())
    }

    /// How much more (or less) preferred rules are broken when a VM goes from where it is to a host, its `mates` going with it.
    ///
    /// `Only` counts VMs out of place, `Apart` pairs on one host, `Together` pairs on two hosts divided by the VMs beside one: a function
    /// of where everything is, so that a sum of changes around a circle is nothing.
    pub(crate) fn preference_change(&self, v: VmNo, to: HostNo, mates: &[VmNo]) -> f64 {
        let place = self.vms[v].place;
        let mut change = 0.0;
        for &r in &self.rules.of_vm[v] {
            let rule = &self.rules.rules[r];
            if rule.strict {
                continue;
            }
            let others = |h: HostNo| {
                let with = mates
                    .iter()
                    .filter(|&&m| m != v && self.vms[m].place == Some(h) && self.rules.of_vm[m].contains(&r))
                    .count();
                f64::from(self.rules.count(r, h)) - f64::from(u8::from(place == Some(h))) - with as f64
            };
            let broken = |h: HostNo| match &rule.kind {
                Kind::Only(allowed) => f64::from(u8::from(!allowed[h])),
                Kind::Apart => others(h),
                Kind::Together => -others(h) / (rule.vms.len() as f64 - 1.0).max(1.0),
            };
            change += broken(to) - place.map_or(0.0, broken);
        }
        change
    }

    /// How much preferred rules are broken in all, as [`Model::preference_change`] counts it.
    pub(crate) fn preferences_broken(&self) -> f64 {
        let mut broken = 0.0;
        for (r, rule) in self.rules.rules.iter().enumerate().filter(|(_, rule)| !rule.strict) {
            let pairs = |n: f64| n * (n - 1.0) / 2.0;
            let together: f64 = self.rules.counts[r].values().map(|&n| pairs(f64::from(n))).sum();
            let placed: u32 = self.rules.counts[r].values().sum();
            broken += match &rule.kind {
                Kind::Only(allowed) => {
                    self.rules.counts[r].iter().filter(|(h, _)| !allowed[**h]).map(|(_, &n)| f64::from(n)).sum()
                }
                Kind::Apart => together,
                Kind::Together => (pairs(f64::from(placed)) - together) / (rule.vms.len() as f64 - 1.0).max(1.0),
            };
        }
        broken
    }

    /// Rules broken now: their number, and the VMs that they do not hold for.
    pub(crate) fn broken_rules(&self) -> Vec<(usize, Vec<VmNo>)> {
        let mut broken = Vec::new();
        for r in 0..self.rules.rules.len() {
            let wrong = self.rules.wrong(r, &self.vms);
            if !wrong.is_empty() {
                broken.push((r, wrong));
            }
        }
        broken
    }
}

impl RuleBook {
    pub(crate) fn new(policy: &Policy, hosts: &[HostEntry<'_>], vms: &[VmEntry<'_>]) -> Self {
        let mut rules = Vec::with_capacity(policy.rules.len());
        let mut of_vm = vec![Vec::new(); vms.len()];
        for (r, rule) in policy.rules.iter().enumerate() {
            let (selector, kind) = match &rule.ask {
                Ask::Together { vms } => (vms, Kind::Together),
                Ask::Apart { vms } => (vms, Kind::Apart),
                Ask::On { vms, hosts: on } => {
                    (vms, Kind::Only(hosts.iter().map(|h| on.selects(&h.host.id, &h.host.labels)).collect()))
                }
                Ask::Off { vms, hosts: off } => {
                    (vms, Kind::Only(hosts.iter().map(|h| !off.selects(&h.host.id, &h.host.labels)).collect()))
                }
            };
            let mut members: Vec<VmNo> =
                selector.names.iter().filter_map(|id| vms.binary_search_by(|v| v.vm.id.cmp(id)).ok()).collect();
            if !selector.labels.is_empty() {
                members.extend((0..vms.len()).filter(|&v| selector.selects(&vms[v].vm.id, &vms[v].vm.labels)));
                members.sort_unstable();
                members.dedup();
            }
            for &v in &members {
                of_vm[v].push(r);
            }
            rules.push(Resolved { name: rule.name.clone(), strict: rule.strict, vms: members, kind });
        }
        let (units, unit_of) = units(&rules, vms.len());
        let (fits, vm_class, host_class) = classes(hosts, vms);
        let counts = vec![HashMap::new(); rules.len()];
        Self { rules, of_vm, units, unit_of, fits, vm_class, host_class, counts }
    }

    /// [`fits`], from the table.
    pub(crate) fn fits(&self, v: VmNo, h: HostNo) -> bool {
        self.fits[self.vm_class[v]][self.host_class[h]]
    }

    /// Host classes that a VM fits, and the class of each host.
    pub(crate) fn host_class(&self, h: HostNo) -> usize {
        self.host_class[h]
    }

    /// How many host classes there are.
    pub(crate) fn host_classes(&self) -> usize {
        self.host_class.iter().max().map_or(0, |most| most + 1)
    }

    /// Whether a VM fits the hosts of a class.
    pub(crate) fn fits_class(&self, v: VmNo, class: usize) -> bool {
        self.fits[self.vm_class[v]][class]
    }

    fn count(&self, r: usize, h: HostNo) -> u32 {
        self.counts[r].get(&h).copied().unwrap_or(0)
    }

    /// Whether a rule would hold for a VM on a host. A strict `Together` always holds for one VM alone: its unit moves as one.
    fn holds_at(&self, r: usize, v: VmNo, to: HostNo, place: Option<HostNo>) -> bool {
        let rule = &self.rules[r];
        debug_assert!(rule.vms.contains(&v));
        match &rule.kind {
            Kind::Only(allowed) => allowed[to],
            Kind::Apart => self.count(r, to) <= u32::from(place == Some(to)),
            Kind::Together => true,
        }
    }

    /// VMs for which a rule does not hold where they are.
    pub(crate) fn wrong(&self, r: usize, vms: &[VmEntry<'_>]) -> Vec<VmNo> {
        let rule = &self.rules[r];
        let placed = rule.vms.iter().copied().filter_map(|v| vms[v].place.map(|h| (v, h)));
        match &rule.kind {
            Kind::Only(allowed) => placed.filter(|&(_, h)| !allowed[h]).map(|(v, _)| v).collect(),
            Kind::Apart => placed.filter(|&(_, h)| self.count(r, h) > 1).map(|(v, _)| v).collect(),
            Kind::Together => {
                // Those outside the place where most are; the lowest number breaks a tie.
                let most = self.counts[r].iter().map(|(&h, &n)| (n, std::cmp::Reverse(h))).max();
                let Some((_, std::cmp::Reverse(most))) = most else { return Vec::new() };
                placed.filter(|&(_, h)| h != most).map(|(v, _)| v).collect()
            }
        }
    }

    pub(crate) fn arrived(&mut self, v: VmNo, h: HostNo) {
        for &r in &self.of_vm[v] {
            *self.counts[r].entry(h).or_insert(0) += 1;
        }
    }

    pub(crate) fn left(&mut self, v: VmNo, h: HostNo) {
        for &r in &self.of_vm[v] {
            if let Some(n) = self.counts[r].get_mut(&h) {
                *n -= 1;
                if *n == 0 {
                    self.counts[r].remove(&h);
                }
            }
        }
    }
}

/// Joins VMs that strict rules keep together; all others are units of their own.
fn units(rules: &[Resolved], vms: usize) -> (Vec<Vec<VmNo>>, Vec<UnitNo>) {
    let mut root: Vec<usize> = (0..vms).collect();
    fn find(root: &mut [usize], mut v: usize) -> usize {
        while root[v] != v {
            root[v] = root[root[v]];
            v = root[v];
        }
        v
    }
    for rule in rules.iter().filter(|rule| rule.strict && matches!(rule.kind, Kind::Together)) {
        for pair in rule.vms.windows(2) {
            let (a, b) = (find(&mut root, pair[0]), find(&mut root, pair[1]));
            root[a.max(b)] = a.min(b);
        }
    }
    let mut units: Vec<Vec<VmNo>> = Vec::with_capacity(vms);
    let mut unit_of = vec![0; vms];
    for v in 0..vms {
        let first = find(&mut root, v);
        if first == v {
            unit_of[v] = units.len();
            units.push(vec![v]);
        } else {
            unit_of[v] = unit_of[first];
            units[unit_of[first]].push(v);
        }
    }
    (units, unit_of)
}

type Classes = (Vec<Vec<bool>>, Vec<usize>, Vec<usize>);

/// VMs that `fits` cannot tell apart share a class, so do hosts: the table is small however big the rack.
fn classes(hosts: &[HostEntry<'_>], vms: &[VmEntry<'_>]) -> Classes {
    let mut vm_first: Vec<&Vm> = Vec::new();
    let mut seen = HashMap::new();
    let vm_class = vms
        .iter()
        .map(|entry| {
            let vm = entry.vm;
            *seen.entry((&vm.cpu_features, &vm.networks, &vm.storages, &vm.group)).or_insert_with(|| {
                vm_first.push(vm);
                vm_first.len() - 1
            })
        })
        .collect();
    let mut host_first: Vec<&Host> = Vec::new();
    let mut seen = HashMap::new();
    let host_class = hosts
        .iter()
        .map(|entry| {
            let host = entry.host;
            let key = (host.state, &host.cpu_features, &host.networks, &host.storages, &host.group, &host.site);
            *seen.entry(key).or_insert_with(|| {
                host_first.push(host);
                host_first.len() - 1
            })
        })
        .collect();
    let fits = vm_first.iter().map(|vm| host_first.iter().map(|host| fits(vm, host).is_ok()).collect()).collect();
    (fits, vm_class, host_class)
}
