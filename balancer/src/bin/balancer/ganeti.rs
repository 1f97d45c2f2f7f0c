//! `balancer plan --ganeti`.

use crate::args::{Output, PlanArgs};
use crate::read::{CommandError, text, write};
use balancer::ganeti::{Cluster, Limits, plan};
use std::path::Path;

pub(crate) fn run(file: &Path, args: &PlanArgs) -> Result<(), CommandError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |err| CommandError::Line { path, err }
    };
    let mut cluster = Cluster::parse(&text(file)?).map_err(wrong(file))?;
    if let Some(util) = &args.util {
        cluster.add_load(&text(util)?).map_err(wrong(util))?;
    }
    let mut limits = Limits::default();
    limits.instances = args.max_vms.unwrap_or(limits.instances);
    limits.mib = args.max_mib.unwrap_or(limits.mib);
    let plan = plan(&cluster, &limits);
    if let Some(path) = &args.commands {
        write(path, &plan.commands(&cluster))?;
    }
    let figures = serde_json::json!({
        "score_before": plan.score_before,
        "score_after": plan.score_after,
        "moved": plan.moved,
        "moved_mib": plan.moved_mib,
        "steps": plan.steps.len(),
    });
    match args.output {
        Output::Table => {
            if args.commands.is_none() {
                print!("{}", plan.commands(&cluster));
            }
            println!(
                "score {:.8} -> {:.8}, {} instances and {} MiB moved",
                plan.score_before, plan.score_after, plan.moved, plan.moved_mib
            );
        }
        Output::Json => println!("{figures:#}"),
        Output::Yaml => print!("{}", serde_yaml::to_string(&figures).unwrap_or_else(|err| format!("# {err}\n"))),
    }
    Ok(())
}
