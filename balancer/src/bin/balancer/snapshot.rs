//! `balancer plan` and `balancer explain` on a snapshot of the rack.

use crate::args::{ExplainArgs, Output, PlanArgs};
use crate::read::{CommandError, defect, parse, text};
use balancer::{Plan, Policy, Refusal, Snapshot, plan, read_sites, why_not};
use serde::Serialize;
use std::path::Path;

pub(crate) fn run(file: &Path, args: &PlanArgs) -> Result<(), CommandError> {
    let (snapshot, mut policy) = read(file, args.policy.as_deref())?;
    add_sites(&mut policy, args.sites.as_deref(), snapshot.at_ms, &snapshot)?;
    let limited = Policy {
        moves_max: args.max_vms.or(policy.moves_max),
        move_mib_max: args.max_mib.or(policy.move_mib_max),
        ..policy
    };
    let plan = plan(&snapshot, &limited);
    if args.output == Output::Table {
        table(&plan)
    } else {
        show(args.output, &plan)?
    }
    Ok(())
}

pub(crate) fn explain(args: &ExplainArgs) -> Result<(), CommandError> {
    let (snapshot, mut policy) = read(&args.snapshot, args.policy.as_deref())?;
    add_sites(&mut policy, args.sites.as_deref(), snapshot.at_ms, &snapshot)?;
    if !snapshot.vms.iter().any(|vm| vm.id == args.vm) {
        let expected = "the id of a VM of the snapshot".to_owned();
        return Err(CommandError::Unknown {
            path: args.snapshot.clone(),
            what: format!("no VM {}", args.vm),
            expected,
        });
    }
    let plan = plan(&snapshot, &policy);
    let hosts = why_not(&snapshot, &policy, &args.vm);
    if args.output != Output::Table {
        let moves: Vec<_> = plan.moves.iter().filter(|step| step.vm == args.vm).collect();
        let stays: Vec<_> = plan.stays.iter().filter(|stay| stay.vm == args.vm).collect();
        return show(args.output, &serde_json::json!({ "moves": moves, "stays": stays, "hosts": hosts }));
    }
    let mut said = false;
    for step in plan.moves.iter().filter(|step| step.vm == args.vm) {
        println!("{step}");
        println!(
            "  gain {:.5}, cost {:.5}: {:.0} MiB sent in {:.1} s, stands still {:.0} ms",
            step.gain,
            step.cost.score,
            step.cost.sent_mib,
            step.cost.brownout_ms / 1000.0,
            step.cost.downtime_ms
        );
        said = true;
    }
    for stay in plan.stays.iter().filter(|stay| stay.vm == args.vm) {
        println!("{stay}");
        said = true;
    }
    if !said {
        println!("{} stays: no rule and no overload concerns it, and no move of it is worth its cost", args.vm);
    }
    for option in hosts {
        match (option.refusal, option.gain) {
            (Some(Refusal::Input { defect }), _) => println!("  {}: {defect}", option.host),
            (Some(refusal), _) => println!("  {} {refusal}", option.host),
            (None, Some(gain)) => {
                println!("  {} could take it: gain {:.5}, cost {:.5}", option.host, gain.total(), option.cost);
            }
            (None, None) => println!("  {} has it", option.host),
        }
    }
    Ok(())
}

pub(crate) fn read(file: &Path, policy: Option<&Path>) -> Result<(Snapshot, Policy), CommandError> {
    let snapshot: Snapshot = parse(file)?;
    snapshot.check().map_err(|err| defect(file, err))?;
    let Some(path) = policy else { return Ok((snapshot, Policy::default())) };
    let policy: Policy = parse(path)?;
    policy.check().map_err(|err| defect(path, err))?;
    Ok((snapshot, policy))
}

/// Reads sites' series from a file; they take the place of the policy's sites of the same names.
pub(crate) fn add_sites(
    policy: &mut Policy,
    file: Option<&Path>,
    from_ms: u64,
    snapshot: &Snapshot,
) -> Result<(), CommandError> {
    let Some(path) = file else { return Ok(()) };
    let read = read_sites(&text(path)?, from_ms, snapshot.sample_ms)
        .map_err(|err| CommandError::Line { path: path.to_owned(), err })?;
    policy.sites.retain(|site| read.iter().all(|other| other.name != site.name));
    policy.sites.extend(read);
    Ok(())
}

fn table(plan: &Plan) {
    let width = |column: fn(&balancer::Move) -> &str| {
        plan.moves.iter().map(|step| column(step).len()).max().unwrap_or(0).max(4)
    };
    let (vm, from, to) = (width(|s| s.vm.as_str()), width(|s| s.from.as_str()), width(|s| s.to.as_str()));
    if !plan.moves.is_empty() {
        println!("{:>4}  {:vm$}  {:from$}  {:to$}  {:>6}  {:>9}  why", "no", "vm", "from", "to", "after", "MiB sent");
    }
    for (i, step) in plan.moves.iter().enumerate() {
        let after = step.after.last().map_or("-".to_owned(), |last| (last + 1).to_string());
        let after = if step.after.len() > 1 { format!("{after}+{}", step.after.len() - 1) } else { after };
        println!(
            "{:>4}  {:vm$}  {:from$}  {:to$}  {after:>6}  {:>9.0}  {}",
            i + 1,
            step.vm,
            step.from,
            step.to,
            step.cost.sent_mib,
            step.reason
        );
    }
    for line in plan.stays.iter().map(ToString::to_string).chain(plan.broken.iter().map(ToString::to_string)) {
        println!("{line}");
    }
    for line in plan.power_off.iter().map(ToString::to_string).chain(plan.remedies.iter().map(ToString::to_string)) {
        println!("{line}");
    }
    println!("moves: {}, score {:.4} -> {:.4}", plan.moves.len(), plan.score_before, plan.score_after);
}

pub(crate) fn show(output: Output, what: &impl Serialize) -> Result<(), CommandError> {
    let text = match output {
        Output::Yaml => serde_yaml::to_string(what).map_err(|err| CommandError::Show { why: err.to_string() })?,
        _ => serde_json::to_string_pretty(what).map_err(|err| CommandError::Show { why: err.to_string() })? + "\n",
    };
    print!("{text}");
    Ok(())
}
