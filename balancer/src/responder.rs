//! First responder: an overloaded host asks, hosts with room offer, the first offer that fits wins.
//!
//! Owns: the three sides of the talk, each a pure function of what one host knows of itself and of the message before it: [`ask`],
//! [`offer`], and the asker's choice, which is to take the first offer heard. Never does: look at a third host. The rules are those of the central plan.
//!
//! ```text
//! asker                      responder
//!   Help{wants, vms} ----->  below its thresholds and a VM fits?
//!            <-------------  Offer{vm}      the VM that relieves the asker best and leaves the responder below `leave`
//!   first Offer: move it
//! ```
//! This is the scheme of Lavender and Zacharski (Xen and the art of distributed virtual machine management, 2007). [`respond`] plays it for a whole
//! snapshot, so that it can be held beside the central plan.

use crate::model::{CPU, Model};
use crate::policy::Policy;
use crate::rules::Kind;
use crate::search::{keeps_room, movable};
use crate::snapshot::{Host, HostState, Snapshot, Vm};
use proto::{HostId, VmId};
use serde::{Deserialize, Serialize};

/// Talks in one play at most; each takes a VM off an overloaded host.
const TALKS_MAX: usize = 10_000;

/// An overloaded host's call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Help {
    /// Who asks.
    pub host: HostId,
    /// How much it would shed, cores at the policy's quantile.
    pub cores: f64,
    /// VMs that it would give.
    pub vms: Vec<Vm>,
}

/// An answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Who offers.
    pub host: HostId,
    /// The VM that it would take.
    pub vm: VmId,
}

/// A move agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Which VM.
    pub vm: VmId,
    /// From here.
    pub from: HostId,
    /// To there.
    pub to: HostId,
}

/// What a host says of itself: `None` when it is not overloaded or can give nothing.
pub fn ask(host: &Host, vms: &[Vm], now: &Snapshot, policy: &Policy) -> Option<Help> {
    let view = alone(host, vms, now);
    let model = Model::new(&view, policy);
    let expected = model.overload(0).filter(|_| host.state == HostState::Active)?;
    let kept_together = |v: usize| {
        let strict = |r: &usize| model.rules.rules[*r].strict && matches!(model.rules.rules[*r].kind, Kind::Together);
        model.rules.of_vm[v].iter().any(strict)
    };
    let give = (0..model.vms.len()).filter(|&v| movable(&model, v).is_ok() && !kept_together(v));
    let vms: Vec<Vm> = give.map(|v| model.vms[v].vm.clone()).collect();
    let cores = (expected - model.hosts[0].thresholds.enter) * host.cpu_cores;
    (!vms.is_empty()).then(|| Help { host: host.id.clone(), cores, vms })
}

/// What a host answers: `None` when it is near its own thresholds or none of the VMs may come.
pub fn offer(host: &Host, vms: &[Vm], help: &Help, now: &Snapshot, policy: &Policy) -> Option<Offer> {
    let mut view = alone(host, vms, now);
    let strangers = help.vms.iter().filter(|vm| !vms.iter().any(|own| own.id == vm.id));
    view.vms.extend(strangers.map(|vm| Vm { host: None, moving_to: None, ..vm.clone() }));
    let model = Model::new(&view, policy);
    let own = &model.hosts[0];
    if host.id == help.host || model.scale.expected_share(own, &own.sums) >= own.ceiling() {
        return None;
    }
    let fits =
        |v: &usize| model.vms[*v].place.is_none() && model.admit(&[*v], 0).is_ok() && keeps_room(&model, &[*v], 0);
    // The smallest VM that is enough, else the largest.
    let worth = |v: usize| {
        let load = model.vms[v].load[CPU];
        if load >= help.cores { (1, -load) } else { (0, load) }
    };
    let best = (0..model.vms.len()).filter(fits).max_by(|&a, &b| {
        let ((a_enough, a_load), (b_enough, b_load)) = (worth(a), worth(b));
        a_enough.cmp(&b_enough).then(a_load.total_cmp(&b_load)).then(b.cmp(&a))
    })?;
    Some(Offer { host: host.id.clone(), vm: model.vms[best].vm.id.clone() })
}

/// Plays the talk on a snapshot until no host asks or none answers. `heard` is the order in which hosts' offers arrive; hosts that are not in it are
/// not heard. A snapshot or policy that fails its check agrees on nothing.
pub fn respond(snapshot: &Snapshot, policy: &Policy, heard: &[HostId]) -> Vec<Agreed> {
    let mut agreed = Vec::new();
    if snapshot.check().and_then(|()| policy.check()).is_err() {
        return agreed;
    }
    let mut now = snapshot.clone();
    let mut deaf: Vec<HostId> = Vec::new();
    for _ in 0..TALKS_MAX {
        let mut calls: Vec<Help> = now
            .hosts
            .iter()
            .filter(|host| !deaf.contains(&host.id))
            .filter_map(|host| ask(host, &of(&now, host), &now, policy))
            .collect();
        calls.sort_by(|a, b| b.cores.total_cmp(&a.cores).then_with(|| a.host.cmp(&b.host)));
        let Some(help) = calls.into_iter().next() else { break };
        let first = heard.iter().find_map(|id| {
            let host = now.hosts.iter().find(|host| host.id == *id)?;
            offer(host, &of(&now, host), &help, &now, policy)
        });
        let Some(offer) = first else {
            deaf.push(help.host);
            continue;
        };
        for vm in now.vms.iter_mut().filter(|vm| vm.id == offer.vm) {
            vm.host = Some(offer.host.clone());
        }
        agreed.push(Agreed { vm: offer.vm, from: help.host, to: offer.host });
    }
    agreed
}

fn of(snapshot: &Snapshot, host: &Host) -> Vec<Vm> {
    snapshot.vms.iter().filter(|vm| vm.host.as_ref() == Some(&host.id)).cloned().collect()
}

/// A rack of one host.
fn alone(host: &Host, vms: &[Vm], now: &Snapshot) -> Snapshot {
    let own = vms.iter().map(|vm| Vm { moving_to: None, ..vm.clone() }).collect();
    Snapshot { at_ms: now.at_ms, sample_ms: now.sample_ms, hosts: vec![host.clone()], vms: own }
}
