//! What a plan has decided so far, within its limits.
//!
//! Owns: why each VM left its home, the limits on moves, and the way back when a trial fails. Never does: choose.

use crate::model::{HostNo, Model, VmNo};
use crate::plan::Reason;

/// Decisions so far.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Why each VM left its home; `None` for those that did not.
    pub(crate) reasons: Vec<Option<Reason>>,
    /// What each move was expected to bring.
    pub(crate) gains: Vec<f64>,
    trail: Vec<Before>,
    moves: usize,
    mib: u64,
    moves_max: usize,
    mib_max: u64,
    /// A move was not made because of the limits.
    pub(crate) limited: bool,
}

/// How a VM was before a shift.
#[derive(Debug, Clone)]
struct Before {
    v: VmNo,
    place: HostNo,
    reason: Option<Reason>,
    gain: f64,
}

impl Draft {
    pub(crate) fn new(model: &Model<'_>) -> Self {
        let n = model.vms.len();
        Self {
            reasons: vec![None; n],
            gains: vec![0.0; n],
            trail: Vec::new(),
            moves: 0,
            mib: 0,
            moves_max: model.policy.moves_max.unwrap_or(usize::MAX),
            mib_max: model.policy.move_mib_max.unwrap_or(u64::MAX),
            limited: false,
        }
    }

    /// Whether the limits allow these VMs to be away from home too.
    pub(crate) fn allows(&mut self, model: &Model<'_>, vms: &[VmNo]) -> bool {
        let new = vms.iter().filter(|&&v| model.vms[v].place == model.vms[v].home);
        let (n, mib) = new.fold((0, 0), |(n, mib), &v| (n + 1, mib + model.vms[v].vm.memory_mib));
        let allowed = self.moves + n <= self.moves_max && self.mib + mib <= self.mib_max;
        self.limited |= !allowed;
        allowed
    }

    /// Moves a VM in the model and notes why.
    pub(crate) fn shift(&mut self, model: &mut Model<'_>, v: VmNo, to: HostNo, reason: Reason, gain: f64) {
        let Some(place) = model.vms[v].place else { return };
        self.trail.push(Before { v, place, reason: self.reasons[v].clone(), gain: self.gains[v] });
        let (was_away, is_away) = self.count(model, v, to);
        model.shift(v, to);
        match (was_away, is_away) {
            (false, true) => (self.reasons[v], self.gains[v]) = (Some(reason), gain),
            (true, false) => (self.reasons[v], self.gains[v]) = (None, 0.0),
            (true, true) => self.gains[v] += gain,
            (false, false) => {}
        }
    }

    /// A point to which [`Draft::back_to`] leads.
    pub(crate) fn mark(&self) -> usize {
        self.trail.len()
    }

    /// Takes back every shift since the mark.
    pub(crate) fn back_to(&mut self, model: &mut Model<'_>, mark: usize) {
        while self.trail.len() > mark {
            let Some(before) = self.trail.pop() else { return };
            self.count(model, before.v, before.place);
            model.shift(before.v, before.place);
            self.reasons[before.v] = before.reason;
            self.gains[before.v] = before.gain;
        }
    }

    fn count(&mut self, model: &Model<'_>, v: VmNo, to: HostNo) -> (bool, bool) {
        let mib = model.vms[v].vm.memory_mib;
        let (was_away, is_away) = (model.vms[v].place != model.vms[v].home, model.vms[v].home != Some(to));
        if was_away {
            (self.moves, self.mib) = (self.moves - 1, self.mib - mib);
        }
        if is_away {
            (self.moves, self.mib) = (self.moves + 1, self.mib + mib);
        }
        (was_away, is_away)
    }
}
