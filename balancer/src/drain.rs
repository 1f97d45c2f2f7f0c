//! Whether a host can be emptied, before it is told to.
//!
//! Owns: the question. Never does: plan by rules of its own; a draining host in a snapshot is emptied by every plan.

use crate::plan::{Concern, Plan};
use crate::planner::plan;
use crate::policy::{Goal, Policy};
use crate::snapshot::{HostState, Snapshot};
use proto::HostId;

/// A drain thought through.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Drain {
    /// Whether the host would be empty when all moves are done.
    pub possible: bool,
    /// The moves that empty it and no others; its `stays` say who cannot go and why, its `remedies` what would make it possible.
    pub plan: Plan,
}

/// Plans to empty one host, and nothing else that is not asked for. A host that is not in the snapshot is empty already.
pub fn drain(snapshot: &Snapshot, policy: &Policy, host: &HostId) -> Drain {
    let mut now = snapshot.clone();
    for entry in now.hosts.iter_mut().filter(|entry| entry.id == *host) {
        entry.state = HostState::Draining;
    }
    let plan = plan(&now, &Policy { goal: Goal::Quiet, ..policy.clone() });
    let stays_there =
        |vm: &proto::VmId| now.vms.iter().any(|entry| entry.id == *vm && entry.host.as_ref() == Some(host));
    let possible = plan.refused.is_none()
        && !plan.stays.iter().any(|stay| stay.concern == Concern::Drain && stays_there(&stay.vm));
    Drain { possible, plan }
}
