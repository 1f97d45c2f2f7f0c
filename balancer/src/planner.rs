//! One plan from one snapshot.
//!
//! Owns: the order of the phases. Never does: any phase's own work.

use crate::model::Model;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::schedule::schedule;
use crate::search::{Draft, descend};
use crate::snapshot::Snapshot;

/// Plans moves. The same input gives the same plan, in whatever order hosts and VMs are listed.
///
/// A snapshot or policy that fails its check gives a plan without moves whose `refused` says what is wrong.
pub fn plan(snapshot: &Snapshot, policy: &Policy) -> Plan {
    let frame = Plan {
        made_ms: snapshot.at_ms,
        expires_ms: snapshot.at_ms.saturating_add(policy.expires_ms),
        ..Plan::default()
    };
    if let Err(defect) = snapshot.check().and_then(|()| policy.check()) {
        return Plan { refused: Some(defect), ..frame };
    }
    let mut model = Model::new(snapshot, policy);
    let score_before = model.score();
    let mut draft = Draft::new(&model);
    descend(&mut model, &mut draft);
    let moves = schedule(&mut model, &mut draft);
    Plan { moves, score_before, score_after: model.score(), ..frame }
}
