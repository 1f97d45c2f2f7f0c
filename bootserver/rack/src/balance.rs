//! Placing and balancing: the rack as the planner sees it, and what is made of its plans.
//!
//! Owns: the snapshot, when plans are made, and which of their moves begin now. Never does: plan.
//! Only moves that wait for no other begin; whatever follows is planned anew from how things are then.

#[cfg(test)]
mod tests;

use crate::Rack;
use crate::event::Now;
use crate::record::{HostRecord, VmRecord};
use crate::vm::{HISTORY_MAX, SAMPLE_MS};
use balancer::{HostState as Takes, Placement, Reason, Rejection, Snapshot};
use proto::api::{Balance, Refusal, Rejected};
use proto::event::Topic;
use proto::view::{MovePhase, PlanView, PlannedMove, Stay, VmPhase};
use proto::vm::overhead_mib;
use proto::{HostId, VmId};

/// After a host came or a move ended, loads are let settle for so long, milliseconds.
const SETTLE_MS: u64 = 2_000;
/// While a host that is drained still has VMs, a plan is made anew after this, milliseconds: what kept one there may be over.
const DRAIN_AGAIN_MS: u64 = 10_000;
/// What a stay's sentence may say, characters.
const WHY_CHARS_MAX: usize = 300;

/// When the planner runs.
#[derive(Default)]
pub(crate) struct Balancing {
    due_mono_ms: Option<u64>,
    ran_mono_ms: Option<u64>,
    /// When it last ran for a drain that stood still alone.
    drains_mono_ms: u64,
    watch: balancer::Watch,
    watched_mono_ms: u64,
}

impl Rack {
    /// Something changed that a plan may follow from.
    pub(crate) fn balance_soon(&mut self, now: Now) {
        let drains = self.hosts.values().any(|host| host.draining);
        if self.policy.balance_ms > 0 || drains {
            let at = now.mono_ms + SETTLE_MS;
            self.balancing.due_mono_ms = Some(self.balancing.due_mono_ms.map_or(at, |due| due.min(at)));
        }
    }

    pub(crate) fn balance_tick(&mut self, now: Now) {
        self.watch_load(now);
        let every_ms = self.policy.balance_ms;
        let ran = *self.balancing.ran_mono_ms.get_or_insert(now.mono_ms);
        let periodic = every_ms > 0 && now.mono_ms.saturating_sub(ran) >= every_ms;
        let due = periodic || self.balancing.due_mono_ms.is_some_and(|due| due <= now.mono_ms);
        if due {
            (self.balancing.due_mono_ms, self.balancing.ran_mono_ms) = (None, Some(now.mono_ms));
        } else {
            let looked = self.balancing.drains_mono_ms.max(ran);
            if now.mono_ms.saturating_sub(looked) < DRAIN_AGAIN_MS || !self.drain_stands_still() {
                return;
            }
            self.balancing.drains_mono_ms = now.mono_ms;
        }
        // What a drain needs is no reason to even out the load.
        let begins = |reason: &Reason| due || matches!(reason, Reason::Drain | Reason::Room { .. });
        if let Err(refusal) = self.carry_out(begins, now) {
            self.warn_seldom(Topic::Server, now, refusal.to_string());
        }
    }

    /// Whether a host that is drained has VMs that could move, and none does.
    fn drain_stands_still(&self) -> bool {
        let can_move = |vm: &VmId| self.vms.get(vm).is_some_and(|record| record.phase == VmPhase::Running);
        let stands = |host: &HostRecord| {
            host.draining && self.moves_of(&host.id).next().is_none() && self.vms_of(&host.id).iter().any(can_move)
        };
        self.hosts.values().any(stands)
    }

    /// Plans, and begins what may begin now.
    pub(crate) fn balance(&mut self, request: Balance, now: Now) -> Result<PlanView, Refusal> {
        if request.dry_run { self.make_plan(now).map(|plan| shown(&plan)) } else { self.carry_out(|_| true, now) }
    }

    fn make_plan(&self, now: Now) -> Result<balancer::Plan, Refusal> {
        let plan = balancer::plan(&self.snapshot(now), &self.planners_policy());
        match &plan.refused {
            Some(defect) => Err(Refusal::Unavailable { detail: format!("no plan could be made: {defect}") }),
            None => Ok(plan),
        }
    }

    fn carry_out(&mut self, begins: impl Fn(&Reason) -> bool, now: Now) -> Result<PlanView, Refusal> {
        let plan = self.make_plan(now)?;
        for step in plan.moves.iter().filter(|step| step.after.is_empty() && begins(&step.reason)) {
            // Hosts that are busy with another stream take their turn when that has ended.
            let _ = self.begin_move(&step.vm, &step.to, step.reason.to_string(), now);
        }
        Ok(shown(&plan))
    }

    /// The operator's policy, with what the moves that are remembered took beside what was predicted, oldest first.
    fn planners_policy(&self) -> balancer::Policy {
        let mut policy = self.policy.balancing.clone();
        for ended in self.moves.values().filter(|m| m.view.phase == MovePhase::Done) {
            let view = &ended.view;
            let (Some(total_ms), Some(downtime_ms)) = (view.total_ms, view.downtime_ms) else { continue };
            let (Some(vm), Some(host)) = (self.vms.get(&view.vm), self.hosts.get(&view.source)) else { continue };
            let predicted =
                balancer::predict(&planners_vm(vm, None), self.planners_host(host).migration_bytes_s, &policy);
            let measured = balancer::Measured {
                sent_mib: view.bytes as f64 / 1_048_576.0,
                total_ms: total_ms as f64,
                downtime_ms: downtime_ms as f64,
            };
            policy.learnt = policy.learnt.after(&predicted, &measured);
        }
        policy
    }

    /// Looks for hosts that have become overloaded, and plans at once for them.
    fn watch_load(&mut self, now: Now) {
        let every_ms = self.policy.balancing.thresholds.every_ms;
        if self.policy.balance_ms == 0 || now.mono_ms.saturating_sub(self.balancing.watched_mono_ms) < every_ms {
            return;
        }
        self.balancing.watched_mono_ms = now.mono_ms;
        let snapshot = self.snapshot(now);
        for trigger in self.balancing.watch.observe(&snapshot, &self.policy.balancing) {
            // A host that joined is planned for when it is accepted; one that is relieved asks for nothing.
            let balancer::Trigger::Overloaded { host, share } = trigger else { continue };
            let text = format!("{host} is overloaded: {:.0} % of its processors are in use", share * 100.0);
            self.warn(Topic::Host, now, text, |e| e.host = Some(host.clone()));
            self.balance_soon(now);
        }
    }

    /// Chooses where a VM is to start.
    pub(crate) fn place(&self, vm: &VmId, now: Now) -> Result<HostId, Refusal> {
        let record = self.vm_or_refuse(vm)?;
        let wanted = planners_vm(record, None);
        placed(vm, balancer::place(&self.snapshot(now), &self.planners_policy(), &wanted))
    }

    /// Chooses where a VM that has run before is to start again: not where its start has failed since. What is kept free is kept for this, and is given
    /// where there is no other room.
    pub(crate) fn place_again(&self, vm: &VmId, now: Now) -> Result<HostId, Refusal> {
        let wanted = planners_vm(self.vm_or_refuse(vm)?, None);
        let mut snapshot = self.snapshot(now);
        for host in &mut snapshot.hosts {
            if self.failed_to_start(vm, &host.id) {
                host.state = Takes::Unusable;
            }
        }
        let policy = self.planners_policy();
        let at = |policy: &balancer::Policy| placed(vm, balancer::place(&snapshot, policy, &wanted));
        at(&policy).or_else(|_| at(&policy.without_reserves()))
    }

    /// Chooses where a running VM is to move, or checks the choice that was made.
    pub(crate) fn place_for_move(
        &self,
        vm: &VmId,
        source: &HostId,
        target: Option<&HostId>,
        now: Now,
    ) -> Result<HostId, Refusal> {
        let record = self.vm_or_refuse(vm)?;
        let mut snapshot = self.snapshot(now);
        for host in &mut snapshot.hosts {
            if host.id == *source || target.is_some_and(|target| host.id != *target) {
                host.state = Takes::Unusable;
            }
            let busy = |m: &crate::record::MoveRecord| !m.ended() && m.view.target == host.id;
            if target.is_none() && self.moves.values().any(busy) {
                host.state = Takes::Unusable;
            }
        }
        let wanted = planners_vm(record, self.hosts.get(source));
        // It makes the rack no fuller. The planner, which sees the host that it leaves, keeps room for failures.
        let policy = balancer::Policy { spare_hosts: 0, ..self.planners_policy() };
        let mut found = placed(vm, balancer::place(&snapshot, &policy, &wanted));
        if let Err(Refusal::NoPlace { rejected, .. }) = &mut found {
            rejected.retain(|r| r.host != *source && target.is_none_or(|target| r.host == *target));
        }
        found
    }

    /// The rack as the planner sees it.
    pub(crate) fn snapshot(&self, now: Now) -> Snapshot {
        let hosts = self.hosts.values().filter(|host| host.accepted && host.inventory.is_some());
        let hosts: Vec<_> = hosts.map(|host| self.planners_host(host)).collect();
        let known = |id: &HostId| hosts.iter().any(|host| host.id == *id);
        let vms = self.vms.values().filter(|vm| holds_memory(vm.phase)).filter_map(|record| {
            let owner = record.owner.clone().filter(known)?;
            let mut vm = planners_vm(record, self.hosts.get(&owner));
            vm.busy = self.phase_shown(record) != VmPhase::Running || record.doing.is_some();
            if let Some(moves) = record.r#move.and_then(|id| self.moves.get(&id))
                && matches!(moves.view.phase, MovePhase::Preparing | MovePhase::Copying)
            {
                vm.moving_to = Some(moves.view.target.clone()).filter(known);
            }
            if let Some(domain) = self.live.get(&owner).and_then(|live| live.domain(&record.spec.name)) {
                vm.cpu_cores = domain.cpu_cores;
                vm.net_bytes_s = domain.net_rx_bytes_s + domain.net_tx_bytes_s;
                vm.io_bytes_s = domain.disk_read_bytes_s + domain.disk_write_bytes_s;
            }
            if let Some(guest) = self.guests.get(&record.spec.name) {
                vm.cpu_history = guest.history.iter().copied().take(HISTORY_MAX).collect();
            }
            vm.host = Some(owner);
            Some(vm)
        });
        let vms = vms.collect();
        Snapshot { at_ms: now.unix_ms, sample_ms: SAMPLE_MS, hosts, vms }
    }

    fn planners_host(&self, record: &HostRecord) -> balancer::Host {
        let report = self.live.get(&record.id).and_then(|live| live.report.as_ref());
        let (all_mib, dom0_mib, threads) =
            record.inventory.as_ref().map_or((0, 0, 1), |i| (i.memory_mib, i.dom0_mib, i.cpu.threads.max(1)));
        // What is free and what guests have, as Xen counts it; before the first report, what the inventory leaves.
        let memory_mib = match report {
            Some(report) => {
                let used = report.domains.iter().fold(0_u64, |sum, domain| {
                    let vcpus = self.vms.get(&domain.vm).map_or(1, |record| record.spec.vcpus);
                    sum.saturating_add(domain.memory_mib).saturating_add(overhead_mib(domain.memory_mib, vcpus))
                });
                report.stats.memory_free_mib.saturating_add(used)
            }
            None => all_mib.saturating_sub(dom0_mib),
        };
        let mut host = balancer::Host::new(record.id.clone(), memory_mib.min(1 << 40), f64::from(threads));
        host.state = match (self.usable(&record.id), record.draining) {
            (true, false) => Takes::Active,
            (true, true) => Takes::Draining,
            (false, _) => Takes::Unusable,
        };
        if let Some(inventory) = &record.inventory {
            host.cpu_features.clone_from(&inventory.cpu.features);
        }
        host.labels.clone_from(&record.labels);
        host.site = record.labels.get("site").cloned();
        if self.policy.migration_rate_bytes_s > 0 {
            host.migration_bytes_s = host.migration_bytes_s.min(self.policy.migration_rate_bytes_s as f64);
        }
        let live = |end: fn(&proto::view::MoveView) -> &HostId| {
            let count = self.moves.values().filter(|m| !m.ended() && *end(&m.view) == record.id).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        host.moves_in = live(|view| &view.target);
        host.moves_out = live(|view| &view.source);
        host
    }
}

/// Whether a VM in this phase may hold memory on its owner.
fn holds_memory(phase: VmPhase) -> bool {
    !matches!(phase, VmPhase::Creating | VmPhase::Stopped | VmPhase::Deleting | VmPhase::Failed)
}

fn planners_vm(record: &VmRecord, seen_on: Option<&HostRecord>) -> balancer::Vm {
    let spec = &record.spec;
    let mut vm = balancer::Vm::new(spec.name.clone(), spec.needed_mib(), spec.vcpus);
    vm.moved = record.moved;
    // What its host has, its guest may have seen.
    if let Some(inventory) = seen_on.and_then(|host| host.inventory.as_ref()) {
        vm.cpu_features.clone_from(&inventory.cpu.features);
    }
    vm
}

fn placed(vm: &VmId, found: Result<Placement, Vec<Rejection>>) -> Result<HostId, Refusal> {
    match found {
        Ok(placement) => Ok(placement.host),
        Err(rejections) => {
            let rejected = rejections.into_iter().map(|r| Rejected { why: r.why.to_string(), host: r.host }).collect();
            Err(Refusal::NoPlace { vm: vm.clone(), rejected })
        }
    }
}

fn shown(plan: &balancer::Plan) -> PlanView {
    PlanView {
        moves: plan
            .moves
            .iter()
            .map(|step| PlannedMove {
                vm: step.vm.clone(),
                source: step.from.clone(),
                target: step.to.clone(),
                reason: step.reason.to_string(),
            })
            .collect(),
        score_before: plan.score_before,
        score_after: plan.score_after,
        stays: plan
            .stays
            .iter()
            .map(|stay| Stay { vm: stay.vm.clone(), why: stay.why.to_string().chars().take(WHY_CHARS_MAX).collect() })
            .collect(),
    }
}
