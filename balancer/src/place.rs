//! Where a VM is to start.
//!
//! Owns: the choice among the hosts that may take it. Never does: move others to make room.

use crate::groups::keeps_slack;
use crate::levels::Worth;
use crate::model::{HostNo, Model};
use crate::plan::{Placement, Refusal, Rejection};
use crate::policy::Policy;
use crate::snapshot::{Snapshot, Vm};

/// Chooses a host for a VM that runs nowhere: the one where the score rises least. Its `host` is not looked at; when the snapshot has a VM of the same
/// id, `vm` takes its place.
///
/// # Errors
/// For every host, in the order of ids, why it may not take the VM. Empty when there is no host.
pub fn place(snapshot: &Snapshot, policy: &Policy, vm: &Vm) -> Result<Placement, Vec<Rejection>> {
    let mut with = snapshot.clone();
    with.vms.retain(|other| other.id != vm.id);
    let mut new = Vm { host: None, moving_to: None, ..vm.clone() };
    if new.cpu_cores == 0.0 && new.cpu_history.is_empty() {
        new.cpu_cores = usual_share(snapshot) * f64::from(new.vcpus);
    }
    with.vms.push(new);
    if let Err(defect) = with.check().and_then(|()| policy.check()) {
        let rejected = |host: &crate::snapshot::Host| Rejection {
            host: host.id.clone(),
            why: Refusal::Input { defect: defect.clone() },
        };
        return Err(with.hosts.iter().map(rejected).collect());
    }
    let mut model = Model::new(&with, policy);
    let Some(v) = model.vms.iter().position(|entry| entry.vm.id == vm.id) else { return Err(Vec::new()) };
    let mut rejections = Vec::new();
    let mut fitting: Vec<(Worth, HostNo)> = Vec::new();
    for h in 0..model.hosts.len() {
        match model
            .admit(&[v], h)
            .and_then(|()| unit_allows(&model, v, h))
            .and_then(|()| group_allows(&model, v))
            .and_then(|()| crate::spare::admit(&mut model, v, h))
        {
            Ok(()) => fitting.push((Worth::of(model.intake(&[v], h), 0.0), h)),
            Err(why) => rejections.push(Rejection { host: model.hosts[h].host.id.clone(), why }),
        }
    }
    let Some(&(_, best)) = fitting.iter().max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))) else {
        return Err(rejections);
    };
    let host = &model.hosts[best];
    let after = host.sums.with(&model.vms[v]);
    Ok(Placement {
        host: host.host.id.clone(),
        expected: model.scale.expected_share(host, &after),
        free_mib: host.free_mib() - vm.memory_mib,
        choices: fitting.len(),
    })
}

/// What VMs here use of each virtual processor; a VM of which nothing is known is taken to be like the others.
fn usual_share(snapshot: &Snapshot) -> f64 {
    let vcpus: f64 = snapshot.vms.iter().map(|vm| f64::from(vm.vcpus)).sum();
    if vcpus > 0.0 { snapshot.vms.iter().map(|vm| vm.cpu_cores).sum::<f64>() / vcpus } else { 0.0 }
}

/// A group takes no VM into its slack.
fn group_allows(model: &Model<'_>, v: usize) -> Result<(), Refusal> {
    match model.slack_group(model.vms[v].vm.group.as_deref()) {
        Some(group) if !keeps_slack(model, group, model.hosts_of(&group.name), Some(v)) => {
            Err(Refusal::Slack { share: group.slack })
        }
        _ => Ok(()),
    }
}

/// A VM that is kept together with others starts where they run.
fn unit_allows(model: &Model<'_>, v: usize, h: HostNo) -> Result<(), Refusal> {
    let unit = &model.rules.units[model.rules.unit_of[v]];
    if unit.iter().all(|&other| model.vms[other].place.is_none_or(|place| place == h)) {
        return Ok(());
    }
    let keeps = |r: &&usize| {
        let rule = &model.rules.rules[**r];
        rule.strict && matches!(rule.kind, crate::rules::Kind::Together)
    };
    let rule = model.rules.of_vm[v].iter().find(keeps).map(|&r| model.rules.rules[r].name.clone()).unwrap_or_default();
    Err(Refusal::Rule { rule })
}
