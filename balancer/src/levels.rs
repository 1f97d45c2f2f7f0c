//! The objective's order: expected overload, then imbalance, then energy and site, less the cost of moving.
//!
//! Owns: which of two changes is better, and which change is worth making. Hard rules stand above all of this: what they forbid is never asked here (see
//! `rules`). Never does: measure (see `score`).
//!
//! A lower level is looked at only between changes that are equal in the level above, to a resolution: an overload smaller by less than
//! [`OVERLOAD_STEP`] and a rack more even by less than [`EVEN_STEP`] are no reason to pay more. What moving costs is taken off imbalance and energy, never
//! off overload. No change is made that raises overload, and none that raises imbalance for the sake of energy.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Sub};

/// A tenth of a point of a host of mean capacity over its threshold.
pub(crate) const OVERLOAD_STEP: f64 = 0.1;

/// A host of mean capacity one point further off the mean than ten points.
const EVEN_STEP: f64 = 0.002;

/// A gain must be above this, so that rounding never moves a VM.
pub(crate) const GAIN_LEAST: f64 = 1e-7;

/// What rounding may make of no change.
const ROUNDING: f64 = 1e-9;

/// A score, or a change of one, by level; 0 is ideal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Levels {
    /// Expected overload: 100 for a host of mean capacity a whole capacity over its threshold, and its square, weighted by priority.
    pub overload: f64,
    /// Squared distance of each host from the rack's mean by resource, broken preferences, and for goal pack the hosts that run.
    pub imbalance: f64,
    /// Watts by the policy's weight, and flexible load at sites that are not green.
    pub energy: f64,
}

impl Levels {
    /// All levels together: a number to show, not to decide by.
    pub fn total(&self) -> f64 {
        self.overload + self.imbalance + self.energy
    }

    /// Whether a change that brings this much is worth what it costs.
    pub(crate) fn is_worth(&self, cost: f64) -> bool {
        if self.overload < -ROUNDING {
            return false;
        }
        // Overload by less than a step is worth what it is, beside the cost. A cost below 0, of a VM that comes home, is no gain in evenness.
        let even = self.overload + self.imbalance;
        self.overload >= OVERLOAD_STEP
            || even - cost.max(0.0) > GAIN_LEAST
            || (self.imbalance >= -ROUNDING && even + self.energy - cost > GAIN_LEAST)
    }
}

/// A change with its cost, in the order of the objective: the better is the greater.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Worth {
    relief: f64,
    even: f64,
    net: f64,
}

impl Worth {
    pub(crate) fn of(gain: Levels, cost: f64) -> Self {
        let even = gain.overload + gain.imbalance;
        Self {
            relief: (gain.overload / OVERLOAD_STEP).floor(),
            even: ((even - cost.max(0.0)) / EVEN_STEP).floor(),
            net: even + gain.energy - cost,
        }
    }

    pub(crate) fn total_cmp(&self, other: &Self) -> Ordering {
        self.relief.total_cmp(&other.relief).then(self.even.total_cmp(&other.even)).then(self.net.total_cmp(&other.net))
    }
}

impl Add for Levels {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            overload: self.overload + other.overload,
            imbalance: self.imbalance + other.imbalance,
            energy: self.energy + other.energy,
        }
    }
}

impl Sub for Levels {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            overload: self.overload - other.overload,
            imbalance: self.imbalance - other.imbalance,
            energy: self.energy - other.energy,
        }
    }
}

impl AddAssign for Levels {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gain(overload: f64, imbalance: f64, energy: f64) -> Levels {
        Levels { overload, imbalance, energy }
    }

    #[test]
    fn worth_it_or_not() {
        for (gain, cost, worth) in [
            (gain(0.2, -9.0, -9.0), 9.0, true),  // overload, whatever else
            (gain(0.05, 0.0, 0.0), 0.01, true),  // a little overload, more than it costs
            (gain(0.05, 0.0, 0.0), 0.06, false), // a little overload, less than it costs
            (gain(-0.01, 9.0, 9.0), 0.0, false), // nothing is worth more overload
            (gain(0.0, 0.2, -9.0), 0.1, true),   // evenness, whatever the energy
            (gain(0.0, 0.1, 0.0), 0.1, false),   // no more than it costs
            (gain(0.0, -0.01, 9.0), 0.0, false), // no energy is worth less evenness
            (gain(0.0, 0.0, 0.2), 0.1, true),    // energy, more than it costs
            (gain(0.0, 0.05, 0.06), 0.1, true),  // the two together, more than they cost
            (gain(0.0, 0.0, 0.05), 0.1, false),  // less than it costs
            (gain(0.0, 0.0, 0.0), 0.0, false),   // nothing
        ] {
            assert_eq!(gain.is_worth(cost), worth, "{gain:?} for {cost}");
        }
    }

    fn any_gain() -> impl Strategy<Value = (Levels, f64)> {
        (-50.0..50.0, -50.0..50.0, -1e6..1e6, 0.0..1e3).prop_map(|(o, i, e, cost)| (gain(o, i, e), cost))
    }

    proptest! {
        /// A step more in a level outweighs anything below it.
        #[test]
        fn upper_levels_decide((a, a_cost) in any_gain(), (b, b_cost) in any_gain(), equal in 0usize..2) {
            let b = if equal > 0 { Levels { overload: a.overload, ..b } } else { b };
            let (x, y) = (Worth::of(a, a_cost), Worth::of(b, b_cost));
            let even = (a.imbalance - a_cost) - (b.imbalance - b_cost);
            if a.overload > b.overload + OVERLOAD_STEP {
                prop_assert_eq!(x.total_cmp(&y), Ordering::Greater);
            } else if a.overload == b.overload && even > EVEN_STEP {
                prop_assert_eq!(x.total_cmp(&y), Ordering::Greater);
            }
            prop_assert_eq!(x.total_cmp(&y), y.total_cmp(&x).reverse());
        }
    }
}
