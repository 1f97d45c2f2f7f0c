//! Sites and their green scores: E = S·W·T, sun, wind and temperature, from sensors or a weather forecast.
//!
//! Owns: what a site's energy is worth over the horizon. Never does: move VMs; the score weighs it against cost.

use crate::policy::{Policy, Site};
use crate::snapshot::Snapshot;

/// A site's score now and over the policy's horizon, 0 to 1: the mean of sun · wind · temperature at each step. A series that is
/// not given counts as 1, one that is too short goes on with its last value.
pub(crate) fn score(site: &Site, steps: usize) -> f64 {
    let at = |series: &[f64], i: usize| series.get(i).or(series.last()).copied().unwrap_or(1.0);
    let steps = steps.max(1);
    let sum: f64 = (0..steps).map(|i| at(&site.sun, i) * at(&site.wind, i) * at(&site.temperature, i)).sum();
    sum / steps as f64
}

/// Score of a host's site; 0 for a site that the policy does not know: nothing is promised of its energy.
pub(crate) fn score_of(site: Option<&str>, snapshot: &Snapshot, policy: &Policy) -> f64 {
    let steps = policy.horizon_ms.checked_div(snapshot.sample_ms).map_or(1, |n| (n as usize).clamp(1, 10_000));
    policy.sites.iter().find(|known| Some(known.name.as_str()) == site).map_or(0.0, |known| score(known, steps))
}
