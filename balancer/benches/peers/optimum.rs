//! How far from the optimum: exact by mixed integer programming on small racks, lower bounds on large ones.

use crate::scale::{Random, cpu_seconds, rack, settle};
use balancer::{Agreed, Goal, Host, Policy, Snapshot, Thresholds, Vm, plan, respond};
use good_lp::{Expression, ProblemVariables, Solution, SolverModel, constraint, microlp, variable};
use proto::HostId;
use std::collections::HashMap;

const ENTER: f64 = 0.9;

pub(crate) fn run(_long: bool) {
    println!("## 3. Beside the optimum\n");
    println!("Small racks, 4 hosts and 10 VMs, optimum by MILP (microlp); overload in cores above 90 %:\n");
    println!(
        "| seed | overload before | optimum | ours | fewest moves for that | ours | fewest hosts | ours | first responder: overload | moves |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    let (mut gaps, mut moves_more, mut hosts_more) = (Vec::new(), 0, 0);
    for seed in 1..=12 {
        let small = small(seed);
        let quiet = Policy { goal: Goal::Quiet, ..policy() };
        let made = plan(&small, &quiet);
        let ours = overload(&settle(&small, &made));
        let best = least_overload(&small);
        let fewest = fewest_moves(&small, ours.max(best));
        let packed = running(&settle(&small, &plan(&small, &Policy { goal: Goal::Pack, ..policy() })));
        let least = fewest_hosts(&small);
        let heard: Vec<_> = small.hosts.iter().map(|host| host.id.clone()).collect();
        let agreed = respond(&small, &quiet, &heard);
        println!(
            "| {seed} | {:.2} | {best:.2} | {ours:.2} | {fewest} | {} | {least} | {packed} | {:.2} | {} |",
            overload(&small),
            made.moves.len(),
            overload(&carried_out(&small, &agreed)),
            agreed.len()
        );
        gaps.push(ours - best);
        moves_more += made.moves.len() - fewest.min(made.moves.len());
        hosts_more += packed - least.min(packed);
    }
    let optimal = gaps.iter().filter(|gap| **gap < 1e-6).count();
    println!(
        "\noverload optimal on {optimal} of {}; {moves_more} moves and {hosts_more} hosts more than needed in all\n",
        gaps.len()
    );
    large();
    peaks();
}

fn carried_out(rack: &Snapshot, agreed: &[Agreed]) -> Snapshot {
    let mut rack = rack.clone();
    for step in agreed {
        for vm in rack.vms.iter_mut().filter(|vm| vm.id == step.vm) {
            vm.host = Some(step.to.clone());
        }
    }
    rack
}

/// Bounds: the busiest host is at least as busy as all hosts together, and as the largest VM makes the largest host; overload is at least what all
/// hosts together lack; at least so many of the largest hosts are needed for all demand, by processor or by memory.
fn peaks() {
    println!(
        "Large racks, goals spread and pack, beside lower bounds; processor use in shares:\n\n| hosts/VMs | busiest before | at least | ours | overload at least | ours | hosts at least | ours |\n|---|---|---|---|---|---|---|---|"
    );
    for hosts in [100, 1000] {
        let mut rack = rack(hosts, hosts * 10, 7);
        rack.vms.iter_mut().for_each(|vm| vm.cpu_history.clear());
        let demand: f64 = rack.vms.iter().map(|vm| vm.cpu_cores).sum();
        let capacity: f64 = rack.hosts.iter().map(|host| host.cpu_cores).sum();
        let largest = |all: &mut dyn Iterator<Item = f64>| all.fold(0.0, f64::max);
        let item = largest(&mut rack.vms.iter().map(|vm| vm.cpu_cores))
            / largest(&mut rack.hosts.iter().map(|host| host.cpu_cores));
        let spread = settle(&rack, &plan(&rack, &policy()));
        let packed = settle(&rack, &plan(&rack, &Policy { goal: Goal::Pack, ..policy() }));
        let memory: u64 = rack.vms.iter().map(|vm| vm.memory_mib).sum();
        let by_cpu = hosts_for(demand, rack.hosts.iter().map(|host| ENTER * host.cpu_cores));
        let by_memory = hosts_for(memory as f64, rack.hosts.iter().map(|host| host.memory_mib as f64));
        println!(
            "| {hosts}/{} | {:.3} | {:.3} | {:.3} | {:.2} | {:.2} | {} | {} |",
            hosts * 10,
            busiest(&rack),
            (demand / capacity).max(item),
            busiest(&spread),
            (demand - ENTER * capacity).max(0.0),
            overload(&spread),
            by_cpu.max(by_memory),
            running(&packed)
        );
    }
    println!();
}

/// How many of the largest of these capacities it takes.
fn hosts_for(demand: f64, capacities: impl Iterator<Item = f64>) -> usize {
    let mut capacities: Vec<f64> = capacities.collect();
    capacities.sort_by(|a, b| b.total_cmp(a));
    let mut left = demand;
    let needed = capacities.iter().take_while(|capacity| {
        let more = left > 1e-9;
        left -= **capacity;
        more
    });
    needed.count()
}

/// Bounds: each hot host must lose at least so many VMs, whichever, and so many GiB (the linear relaxation of the choice).
fn large() {
    println!(
        "Large racks, goal quiet, beside lower bounds:\n\n| hosts/VMs | hot hosts | moves at least | ours | GiB at least | ours | overload left | CPU s |\n|---|---|---|---|---|---|---|---|"
    );
    for hosts in [100, 1000] {
        let mut rack = rack(hosts, hosts * 10, 7);
        for vm in &mut rack.vms {
            vm.cpu_history.clear();
            vm.cpu_cores = (vm.cpu_cores * 2.2).min(f64::from(vm.vcpus));
        }
        let (mut hot, mut vms, mut gib) = (0, 0, 0.0);
        for host in &rack.hosts {
            let mut here: Vec<(f64, f64)> = rack
                .vms
                .iter()
                .filter(|vm| vm.host.as_ref() == Some(&host.id))
                .map(|vm| (vm.cpu_cores, vm.memory_mib as f64 / 1024.0))
                .collect();
            let over = here.iter().map(|vm| vm.0).sum::<f64>() - ENTER * host.cpu_cores;
            if over <= 1e-9 {
                continue;
            }
            hot += 1;
            here.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut left = over;
            vms += here
                .iter()
                .take_while(|vm| {
                    let more = left > 1e-9;
                    left -= vm.0;
                    more
                })
                .count();
            here.sort_by(|a, b| (b.0 / b.1).total_cmp(&(a.0 / a.1)));
            let mut left = over;
            for (cores, size) in here {
                gib += size * (left / cores).clamp(0.0, 1.0);
                left -= cores;
            }
        }
        let begun = cpu_seconds();
        let made = plan(&rack, &Policy { goal: Goal::Quiet, ..policy() });
        let seconds = cpu_seconds() - begun;
        let sizes: HashMap<_, _> = rack.vms.iter().map(|vm| (&vm.id, vm.memory_mib)).collect();
        let moved: u64 = made.moves.iter().map(|step| sizes[&step.vm]).sum();
        println!(
            "| {hosts}/{} | {hot} | {vms} | {} | {gib:.0} | {:.0} | {:.2} | {seconds:.2} |",
            hosts * 10,
            made.moves.len(),
            moved as f64 / 1024.0,
            overload(&settle(&rack, &made))
        );
    }
    println!();
}

fn policy() -> Policy {
    Policy { thresholds: Thresholds { enter: ENTER, leave: ENTER, ..Thresholds::default() }, ..Policy::default() }
}

fn small(seed: u64) -> Snapshot {
    let mut random = Random(seed);
    let mut rack = Snapshot::default();
    for h in 0..4 {
        rack.hosts.push(Host::new(format!("h{h}").parse().expect("a name"), 8192, 8.0));
    }
    let mut free = [8192u64; 4];
    for v in 0..10 {
        let mut vm = Vm::new(format!("v{v}").parse().expect("a name"), 512 * (1 + (random.next() * 5.0) as u64), 8);
        vm.cpu_cores = (random.next() * 40.0).round() / 10.0;
        let wanted = (random.next() * 2.0) as usize;
        let h = (wanted..4).find(|&h| free[h] >= vm.memory_mib).expect("8 GiB each is enough");
        free[h] -= vm.memory_mib;
        vm.host = Some(rack.hosts[h].id.clone());
        rack.vms.push(vm);
    }
    rack
}

fn overload(rack: &Snapshot) -> f64 {
    let load = load(rack);
    rack.hosts
        .iter()
        .map(|host| (load.get(&Some(host.id.clone())).copied().unwrap_or(0.0) - ENTER * host.cpu_cores).max(0.0))
        .sum()
}

/// The greatest share of its processors that a host uses.
fn busiest(rack: &Snapshot) -> f64 {
    let load = load(rack);
    let share = |host: &Host| load.get(&Some(host.id.clone())).copied().unwrap_or(0.0) / host.cpu_cores;
    rack.hosts.iter().map(share).fold(0.0, f64::max)
}

fn load(rack: &Snapshot) -> HashMap<Option<HostId>, f64> {
    let mut load = HashMap::new();
    for vm in &rack.vms {
        *load.entry(vm.host.clone()).or_default() += vm.cpu_cores;
    }
    load
}

fn running(rack: &Snapshot) -> usize {
    rack.hosts.iter().filter(|host| rack.vms.iter().any(|vm| vm.host.as_ref() == Some(&host.id))).count()
}

/// Assignment variables, overload variables and the constraints they share.
struct Assignment {
    variables: ProblemVariables,
    on: Vec<Vec<good_lp::Variable>>,
    over: Vec<good_lp::Variable>,
    used: Vec<good_lp::Variable>,
}

impl Assignment {
    fn new(rack: &Snapshot) -> Self {
        let mut variables = ProblemVariables::new();
        let on =
            rack.vms.iter().map(|_| rack.hosts.iter().map(|_| variables.add(variable().binary())).collect()).collect();
        let over = rack.hosts.iter().map(|_| variables.add(variable().min(0.0))).collect();
        let used = rack.hosts.iter().map(|_| variables.add(variable().binary())).collect();
        Self { variables, on, over, used }
    }

    fn total_overload(&self) -> Expression {
        self.over.iter().copied().sum()
    }

    fn moves(&self, rack: &Snapshot) -> Expression {
        let mut moves = Expression::from(0.0);
        for (v, vm) in rack.vms.iter().enumerate() {
            for (h, host) in rack.hosts.iter().enumerate() {
                if vm.host.as_ref() != Some(&host.id) {
                    moves += self.on[v][h];
                }
            }
        }
        moves
    }

    /// The least value of an objective; no more than so much overload, when given.
    fn solve(self, rack: &Snapshot, objective: Expression, most: Option<f64>) -> f64 {
        let total = self.total_overload();
        let mut problem = self.variables.minimise(objective.clone()).using(microlp);
        for on in &self.on {
            problem = problem.with(constraint!(on.iter().copied().sum::<Expression>() == 1.0));
        }
        for (h, host) in rack.hosts.iter().enumerate() {
            let mut memory = Expression::from(0.0);
            let mut load = Expression::from(0.0);
            for (v, vm) in rack.vms.iter().enumerate() {
                memory += self.on[v][h] * (vm.memory_mib as f64);
                load += self.on[v][h] * vm.cpu_cores;
            }
            problem = problem.with(constraint!(memory <= self.used[h] * (host.memory_mib as f64)));
            problem = problem.with(constraint!(load - self.over[h] <= ENTER * host.cpu_cores));
        }
        if let Some(most) = most {
            problem = problem.with(constraint!(total <= most + 1e-6));
        }
        let solution = problem.solve().expect("the present placement is a solution");
        solution.eval(objective)
    }
}

fn least_overload(rack: &Snapshot) -> f64 {
    let assignment = Assignment::new(rack);
    let objective = assignment.total_overload();
    assignment.solve(rack, objective, None)
}

fn fewest_moves(rack: &Snapshot, most: f64) -> usize {
    let assignment = Assignment::new(rack);
    let objective = assignment.moves(rack);
    assignment.solve(rack, objective, Some(most)).round() as usize
}

fn fewest_hosts(rack: &Snapshot) -> usize {
    let assignment = Assignment::new(rack);
    let objective = assignment.used.iter().copied().sum();
    let most = overload(rack).min(least_overload(rack));
    assignment.solve(rack, objective, Some(most)).round() as usize
}
