//! One plan from one snapshot.
//!
//! Owns: the order of the phases. Never does: any phase's own work.

use crate::draft::Draft;
use crate::model::Model;
use crate::must::settle;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::schedule::schedule;
use crate::search::descend;
use crate::snapshot::Snapshot;
use crate::stays::{broken, remedies, stays};
use crate::swap::swap;

/// Swaps in one plan at most, a limit on time.
const SWAPS_MAX: usize = 64;

/// Plans moves. The same input gives the same plan, in whatever order hosts and VMs are listed.
///
/// A snapshot or policy that fails its check gives a plan without moves whose `refused` says what is wrong.
pub fn plan(snapshot: &Snapshot, policy: &Policy) -> Plan {
    match snapshot.check().and_then(|()| policy.check()) {
        Ok(()) => think(Model::new(snapshot, policy)),
        Err(defect) => Plan { refused: Some(defect), ..frame(snapshot.at_ms, policy) },
    }
}

/// Plans from a model as the snapshot has it.
pub(crate) fn think(mut start: Model<'_>) -> Plan {
    let score_before = start.score();
    let (model, draft, moves) = loop {
        let mut model = start.clone();
        let mut draft = Draft::new(&model);
        improve(&mut model, &mut draft);
        match schedule(&model, &draft) {
            Ok(moves) => break (model, draft, moves),
            // Each time fewer VMs are free to move, so this ends.
            Err(stuck) => start.hold(&stuck),
        }
    };
    let stays = stays(&model, &draft, start.concerned());
    Plan {
        moves,
        score_before,
        score_after: model.score(),
        remedies: remedies(&model, &stays),
        stays,
        broken: broken(&model),
        ..frame(model.at_ms, model.policy)
    }
}

fn improve(model: &mut Model<'_>, draft: &mut Draft) {
    settle(model, draft);
    descend(model, draft);
    for _ in 0..SWAPS_MAX {
        if !swap(model, draft) {
            return;
        }
        descend(model, draft);
    }
}

fn frame(at_ms: u64, policy: &Policy) -> Plan {
    Plan { made_ms: at_ms, expires_ms: at_ms.saturating_add(policy.expires_ms), ..Plan::default() }
}
