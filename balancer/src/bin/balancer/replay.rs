//! `balancer replay`: recorded load through a policy.

use crate::args::{Output, ReplayArgs};
use crate::read::{CommandError, defect};
use crate::snapshot::{add_sites, read, show};

pub(crate) fn run(args: &ReplayArgs) -> Result<(), CommandError> {
    let (snapshot, mut policy) = read(&args.snapshot, args.policy.as_deref())?;
    let samples = snapshot.vms.iter().map(|vm| vm.cpu_history.len()).max().unwrap_or(0) as u64;
    let first_ms = snapshot.at_ms.saturating_sub(samples.saturating_sub(1) * snapshot.sample_ms);
    add_sites(&mut policy, args.sites.as_deref(), first_ms, &snapshot)?;
    let done = balancer::replay(&snapshot, &policy, args.every).map_err(|err| defect(&args.snapshot, err))?;
    if args.output != Output::Table {
        return show(args.output, &done);
    }
    for step in &done.moves {
        println!("{:>14}  {}: {} -> {}, {}", step.at_ms, step.vm, step.from, step.to, step.why);
    }
    println!(
        "{} samples, {} plans, {} moves, {} MiB moved",
        done.samples,
        done.plans,
        done.moves.len(),
        done.moved_mib
    );
    println!("                     with plans   without");
    println!("overload, host-s   {:>12.0} {:>9.0}", done.overload_host_s, done.overload_host_s_without);
    println!("unserved, core-s   {:>12.0} {:>9.0}", done.unserved_core_s, done.unserved_core_s_without);
    println!("running, host-s    {:>12.0}", done.running_host_s);
    Ok(())
}
