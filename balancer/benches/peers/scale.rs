//! Time and memory on large racks, one core, whole plans: forecasts, rules, search, schedule, reasons.

use balancer::{Ask, Host, Planner, Policy, Rule, Snapshot, Vm, VmSelector, plan};

/// A random number that is the same every time (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Hosts of three kinds, ten VMs to a host, four fifths of them on the first half; a day of history each, at 5 minutes.
pub(crate) fn rack(hosts: usize, vms: usize, seed: u64) -> Snapshot {
    let mut random = Random(seed);
    let mut rack = Snapshot { at_ms: 1_800_000_000_000, sample_ms: 300_000, ..Snapshot::default() };
    for i in 0..hosts {
        let (gib, cores) = [(128, 32.0), (256, 64.0), (96, 24.0)][(random.next() * 3.0) as usize];
        let mut host = Host::new(format!("host{i:05}").parse().expect("a name"), gib * 1024, cores);
        host.cpu_features = ["aes", "avx"].into_iter().map(str::to_owned).collect();
        if random.next() < 0.5 {
            host.cpu_features.insert("avx512".into());
        }
        rack.hosts.push(host);
    }
    let mut free: Vec<u64> = rack.hosts.iter().map(|host| host.memory_mib).collect();
    for i in 0..vms {
        let gib = [1, 2, 4, 8, 16][(random.next() * random.next() * 5.0) as usize];
        let h = loop {
            let half = if random.next() < 0.8 { 0.0 } else { 0.5 };
            let h = ((half + random.next() * 0.5) * hosts as f64) as usize;
            if free[h] >= gib * 1024 {
                break h;
            }
        };
        free[h] -= gib * 1024;
        let mut vm = Vm::new(format!("vm{i:06}").parse().expect("a name"), gib * 1024, (gib / 2).max(1) as u32);
        vm.host = Some(rack.hosts[h].id.clone());
        let level = random.next() * f64::from(vm.vcpus) * 0.8;
        vm.cpu_history = (0..288).map(|_| (level * (0.7 + 0.6 * random.next())) as f32).collect();
        vm.cpu_cores = level;
        vm.net_bytes_s = random.next() * 5e6;
        vm.io_bytes_s = random.next() * 5e6;
        vm.dirty_bytes_s = random.next() * 10e6;
        if rack.hosts[h].cpu_features.contains("avx512") && random.next() < 0.1 {
            vm.cpu_features.insert("avx512".into());
        }
        rack.vms.push(vm);
    }
    rack
}

/// For every hundred VMs a strict pair apart, a strict pair together and a preferred trio apart.
pub(crate) fn rules(rack: &Snapshot) -> Policy {
    let mut policy = Policy::default();
    for (i, group) in rack.vms.chunks(100).enumerate().filter(|(_, group)| group.len() == 100) {
        let named = |range: std::ops::Range<usize>| VmSelector {
            names: group[range].iter().map(|vm| vm.id.clone()).collect(),
            ..VmSelector::default()
        };
        policy.rules.push(Rule { name: format!("apart{i}"), strict: true, ask: Ask::Apart { vms: named(0..2) } });
        policy.rules.push(Rule { name: format!("together{i}"), strict: true, ask: Ask::Together { vms: named(2..4) } });
        policy.rules.push(Rule { name: format!("trio{i}"), strict: false, ask: Ask::Apart { vms: named(4..7) } });
    }
    policy
}

pub(crate) fn run(_long: bool) {
    println!("## 2. Scale, one core, with rules and forecast\n");
    println!(
        "| hosts/VMs | plan, CPU s | moves | score | again after a change, CPU ms | resident, MiB |\n|---|---|---|---|---|---|"
    );
    let mut times = Vec::new();
    for hosts in [100, 316, 1_000, 3_162, 10_000] {
        let vms = hosts * 10;
        let rack = rack(hosts, vms, 1);
        let policy = rules(&rack);
        let repeats = if hosts <= 1_000 { 3 } else { 1 };
        let mut seconds: Vec<f64> = (0..repeats)
            .map(|_| {
                let begun = cpu_seconds();
                assert!(plan(&rack, &policy).refused.is_none());
                cpu_seconds() - begun
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let seconds = seconds[seconds.len() / 2];
        let mut planner = Planner::default();
        let made = planner.plan(&rack, &policy);
        let mut after = settle(&rack, &made);
        // The caller plans again when things are calm, then a VM grows hot.
        planner.plan(&after, &policy);
        let mut again: Vec<f64> = (0..5)
            .map(|i| {
                let vm = &mut after.vms[i * 7 + 11];
                vm.cpu_cores = f64::from(vm.vcpus);
                vm.cpu_history.extend([vm.cpu_cores as f32; 3]);
                let begun = cpu_seconds();
                planner.plan(&after, &policy);
                (cpu_seconds() - begun) * 1000.0
            })
            .collect();
        again.sort_by(f64::total_cmp);
        println!(
            "| {hosts}/{vms} | {seconds:.3} | {} | {:.1} -> {:.1} | {:.0} | {:.0} |",
            made.moves.len(),
            made.score_before,
            made.score_after,
            again[2],
            resident_mib()
        );
        times.push(((hosts as f64).ln(), seconds.ln()));
    }
    let n = times.len() as f64;
    let (x, y) = (times.iter().map(|t| t.0).sum::<f64>() / n, times.iter().map(|t| t.1).sum::<f64>() / n);
    let slope =
        times.iter().map(|t| (t.0 - x) * (t.1 - y)).sum::<f64>() / times.iter().map(|t| (t.0 - x).powi(2)).sum::<f64>();
    println!("\ntime grows with hosts to the power of {slope:.2}\n");
}

/// The rack when all moves are done.
pub(crate) fn settle(rack: &Snapshot, plan: &balancer::Plan) -> Snapshot {
    let mut rack = rack.clone();
    let to: std::collections::HashMap<_, _> =
        plan.moves.iter().map(|step| (step.vm.clone(), step.to.clone())).collect();
    for vm in &mut rack.vms {
        if let Some(host) = to.get(&vm.id) {
            vm.host = Some(host.clone());
        }
    }
    rack
}

/// CPU time of this process's main thread, seconds (proc(5): schedstat, its first field in nanoseconds).
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux has it");
    stat.split(' ').next().unwrap_or_default().parse::<f64>().expect("a number") / 1e9
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
