//! Every host's answer to one VM.
//!
//! Owns: the list an operator asks for with `balancer explain`. Never does: plan.

use crate::levels::Levels;
use crate::model::Model;
use crate::plan::Refusal;
use crate::policy::Policy;
use crate::search::keeps_room;
use crate::snapshot::Snapshot;
use proto::{HostId, VmId};
use serde::{Deserialize, Serialize};

/// What one host would be for a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostOption {
    /// Which host.
    pub host: HostId,
    /// Why it may not take the VM.
    pub refusal: Option<Refusal>,
    /// How much the score would fall with the VM there, by level; absent at the host that has it and where it may not go.
    pub gain: Option<Levels>,
    /// What the move would cost, in the unit of the score.
    pub cost: f64,
}

/// Asks every host, in the order of ids, about one VM of the snapshot. Empty when there is no such VM.
pub fn why_not(snapshot: &Snapshot, policy: &Policy, vm: &VmId) -> Vec<HostOption> {
    if let Err(defect) = snapshot.check().and_then(|()| policy.check()) {
        let refused = |host: &crate::snapshot::Host| HostOption {
            host: host.id.clone(),
            refusal: Some(Refusal::Input { defect: defect.clone() }),
            gain: None,
            cost: 0.0,
        };
        return snapshot.hosts.iter().map(refused).collect();
    }
    let model = Model::new(snapshot, policy);
    let Ok(v) = model.vms.binary_search_by(|entry| entry.vm.id.cmp(vm)) else { return Vec::new() };
    let entry = &model.vms[v];
    let option = |h: usize| {
        let here = entry.place == Some(h);
        let refusal = match model.admit(&[v], h) {
            _ if here => None,
            Ok(()) if !keeps_room(&model, &[v], h) => Some(model.would_overload(&[v], h)),
            answer => answer.err(),
        };
        let gain = entry.place.filter(|_| !here && refusal.is_none()).map(|from| model.gain(&[v], from, h));
        HostOption {
            host: model.hosts[h].host.id.clone(),
            refusal,
            gain,
            cost: if here { 0.0 } else { entry.cost.score },
        }
    };
    (0..model.hosts.len()).map(option).collect()
}
