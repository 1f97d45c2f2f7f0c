//! Carries a plan out as an executor might, and watches. Written from the documentation of `Plan`, with none of the planner's code.

use balancer::{Ask, HostState, Plan, Policy, Snapshot, Vm};
use proto::{HostId, VmId};
use std::collections::{BTreeMap, BTreeSet};

/// The rack when all moves are done.
pub(crate) fn settled(rack: &Snapshot, plan: &Plan) -> Snapshot {
    let mut rack = rack.clone();
    for step in &plan.moves {
        for vm in rack.vms.iter_mut().filter(|vm| vm.id == step.vm) {
            vm.host = Some(step.to.clone());
        }
    }
    rack
}

/// Starts and ends moves in an order drawn from `order`, as the plan allows it, and checks every state on the way.
pub(crate) fn execute(rack: &Snapshot, policy: &Policy, plan: &Plan, order: u64) -> Result<(), String> {
    let mut run = Run::new(rack, policy);
    let before = run.wrongs();
    let mut random = order | 1;
    let mut next = move |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n as u64) as usize
    };
    let (mut done, mut running) = (BTreeSet::new(), BTreeSet::new());
    while done.len() < plan.moves.len() {
        let ready: Vec<usize> = (0..plan.moves.len())
            .filter(|i| {
                !done.contains(i) && !running.contains(i) && plan.moves[*i].after.iter().all(|a| done.contains(a))
            })
            .collect();
        if let Some(late) = plan.moves.iter().enumerate().find(|(i, step)| step.after.iter().any(|a| a >= i)) {
            return Err(format!("move {} waits for a later one", late.0));
        }
        if !ready.is_empty() && (running.is_empty() || next(2) == 0) {
            let i = ready[next(ready.len())];
            let step = &plan.moves[i];
            run.start(&step.vm, &step.from, &step.to)
                .map_err(|why| format!("starting move {i} ({step}): {why}\n{plan:#?}"))?;
            running.insert(i);
        } else {
            let i = *running.iter().nth(next(running.len().max(1))).ok_or("nothing runs and nothing is ready")?;
            running.remove(&i);
            done.insert(i);
            run.end(&plan.moves[i].vm, &plan.moves[i].to);
        }
        run.streams(plan, &running, policy)?;
        let new: Vec<String> = run.wrongs().difference(&before).cloned().collect();
        if !new.is_empty() {
            return Err(format!("{new:?}\n{plan:#?}"));
        }
    }
    Ok(())
}

struct Run<'a> {
    rack: &'a Snapshot,
    policy: &'a Policy,
    at: BTreeMap<&'a VmId, HostId>,
    coming: BTreeMap<&'a VmId, HostId>,
}

impl<'a> Run<'a> {
    fn new(rack: &'a Snapshot, policy: &'a Policy) -> Self {
        let at = rack.vms.iter().filter_map(|vm| vm.host.clone().map(|host| (&vm.id, host))).collect();
        Self { rack, policy, at, coming: BTreeMap::new() }
    }

    fn vm(&self, id: &VmId) -> Result<&'a Vm, String> {
        self.rack.vms.iter().find(|vm| vm.id == *id).ok_or_else(|| format!("{id} is no VM"))
    }

    fn start(&mut self, id: &VmId, from: &HostId, to: &HostId) -> Result<(), String> {
        let vm = self.vm(id)?;
        let host = self.rack.hosts.iter().find(|host| host.id == *to).ok_or_else(|| format!("{to} is no host"))?;
        if self.at.get(id) != Some(from) || self.coming.contains_key(id) || from == to {
            return Err(format!("{id} is not at {from}, ready to go to {to}"));
        }
        if vm.pinned || vm.busy {
            return Err(format!("{id} is pinned or busy"));
        }
        let drains = self.rack.hosts.iter().any(|h| h.id == *from && h.state == HostState::Draining);
        let musts = drains || self.policy.rules.iter().any(|rule| rule.strict);
        if vm.excluded && !musts {
            return Err(format!("{id} is excluded"));
        }
        if host.state != HostState::Active || !vm.cpu_features.is_subset(&host.cpu_features) || vm.group != host.group {
            return Err(format!("{id} does not fit {to}"));
        }
        self.coming.insert(&vm.id, to.clone());
        Ok(())
    }

    fn end(&mut self, id: &VmId, to: &HostId) {
        self.coming.remove(id);
        if let Some(at) = self.at.get_mut(id) {
            *at = to.clone();
        }
    }

    fn streams(&self, plan: &Plan, running: &BTreeSet<usize>, policy: &Policy) -> Result<(), String> {
        for host in &self.rack.hosts {
            let into = running.iter().filter(|i| plan.moves[**i].to == host.id).count();
            let out = running.iter().filter(|i| plan.moves[**i].from == host.id).count();
            if into > policy.streams_in_max as usize || out > policy.streams_out_max as usize {
                return Err(format!("{} streams in and {} out at {}", into, out, host.id));
            }
        }
        Ok(())
    }

    /// What is wrong now: memory over capacity, strict rules broken. Both ends of a move have the VM's memory and the VM.
    fn wrongs(&self) -> BTreeSet<String> {
        let mut wrongs = BTreeSet::new();
        let here = |id: &VmId, host: &HostId| self.at.get(id) == Some(host) || self.coming.get(id) == Some(host);
        for host in &self.rack.hosts {
            let used: u64 = self.rack.vms.iter().filter(|vm| here(&vm.id, &host.id)).map(|vm| vm.memory_mib).sum();
            if used > host.memory_mib {
                wrongs.insert(format!("{} has {used} of {} MiB", host.id, host.memory_mib));
            }
            for rule in self.policy.rules.iter().filter(|rule| rule.strict) {
                let chosen = |vms: &balancer::VmSelector| {
                    let all =
                        self.rack.vms.iter().filter(|vm| here(&vm.id, &host.id) && vms.selects(&vm.id, &vm.labels));
                    all.map(|vm| &vm.id).collect::<Vec<_>>()
                };
                match &rule.ask {
                    Ask::Apart { vms } => {
                        let together = chosen(vms);
                        for (i, a) in together.iter().enumerate() {
                            wrongs.extend(
                                together[i + 1..]
                                    .iter()
                                    .map(|b| format!("{a} and {b} are both on {} against {}", host.id, rule.name)),
                            );
                        }
                    }
                    Ask::On { vms, hosts } if !hosts.selects(&host.id, &host.labels) => {
                        wrongs.extend(
                            chosen(vms).iter().map(|vm| format!("{vm} is on {} against {}", host.id, rule.name)),
                        );
                    }
                    Ask::Off { vms, hosts } if hosts.selects(&host.id, &host.labels) => {
                        wrongs.extend(
                            chosen(vms).iter().map(|vm| format!("{vm} is on {} against {}", host.id, rule.name)),
                        );
                    }
                    Ask::On { .. } | Ask::Off { .. } | Ask::Together { .. } => {}
                }
            }
        }
        wrongs
    }
}

/// What is wrong in a rack that was not wrong before.
pub(crate) fn agreed_wrongs(before: &Snapshot, after: &Snapshot, policy: &Policy) -> Vec<String> {
    let was = Run::new(before, policy).wrongs();
    Run::new(after, policy).wrongs().difference(&was).cloned().collect()
}
