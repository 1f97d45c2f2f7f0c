//! What a VM's processor use is expected to be, by the forecaster that has been best for this very VM.
//!
//! Owns: the forecasters, their past errors, the choice. Never does: keep histories; a [`Tracker`] is fed sample by sample and holds a few
//! numbers, so a caller may keep it, over restarts too, instead of the history.
//!
//! All forecasters run side by side on each series. Each one's forecast is held against what came `ahead` samples later; old errors fade. The one
//! with the smallest mean error forecasts, and its mean squared error is the variance of the expectation. No one forecaster is right for
//! all: on PlanetLab's VMs a slow average is best, on business VMs the last value (see the forecast benchmark).

use crate::snapshot::Vm;
use serde::{Deserialize, Serialize};

/// Forecasts from simple exponential smoothing with these shares of the newest sample; 1 is the last value.
const SMOOTHING: [f64; 6] = [1.0, 0.5, 0.25, 0.1, 0.05, 0.02];

/// Forecasters: smoothing, and damped Holt (Gardner and McKenzie 1985) in the last place.
const FORECASTERS: usize = SMOOTHING.len() + 1;
const HOLT: usize = SMOOTHING.len();
const HOLT_LEVEL: f64 = 0.4;
const HOLT_TREND: f64 = 0.2;
const HOLT_DAMPING: f64 = 0.95;

/// How much of past errors is left after a sample.
const FADE: f64 = 0.985;

/// Farthest sample ahead on which forecasters are judged.
const AHEAD_MAX: usize = 12;

/// Milliseconds of a day, the season that machines used by people have.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// Expected use over the horizon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// Mean, in the unit of the samples.
    pub mean: f64,
    /// Standard deviation of samples around it.
    pub deviation: f64,
}

/// One series' forecasters with their past errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tracker {
    ahead: usize,
    samples: u64,
    level: [f64; FORECASTERS],
    trend: f64,
    /// Forecasts of the last samples, a ring of `ahead`.
    past: Vec<[f64; FORECASTERS]>,
    error: [f64; FORECASTERS],
    square: [f64; FORECASTERS],
    weight: f64,
}

impl Tracker {
    /// A tracker that forecasts so many samples ahead, 1 to 12; more counts as 12.
    pub fn new(ahead: usize) -> Self {
        let ahead = ahead.clamp(1, AHEAD_MAX);
        Self {
            ahead,
            samples: 0,
            level: [0.0; FORECASTERS],
            trend: 0.0,
            past: vec![[0.0; FORECASTERS]; ahead],
            error: [0.0; FORECASTERS],
            square: [0.0; FORECASTERS],
            weight: 0.0,
        }
    }

    /// Takes the next sample.
    pub fn observe(&mut self, sample: f64) {
        let slot = (self.samples % self.ahead as u64) as usize;
        if self.samples == 0 {
            self.level = [sample; FORECASTERS];
        } else {
            if self.samples >= self.ahead as u64 {
                self.weight = self.weight * FADE + 1.0;
                for f in 0..FORECASTERS {
                    let off = sample - self.past[slot][f];
                    self.error[f] = self.error[f] * FADE + off.abs();
                    self.square[f] = self.square[f] * FADE + off * off;
                }
            }
            for (level, share) in self.level.iter_mut().zip(SMOOTHING) {
                *level += share * (sample - *level);
            }
            let before = self.level[HOLT];
            let expected = before + HOLT_DAMPING * self.trend;
            self.level[HOLT] = expected + HOLT_LEVEL * (sample - expected);
            self.trend = HOLT_TREND * (self.level[HOLT] - before) + (1.0 - HOLT_TREND) * HOLT_DAMPING * self.trend;
        }
        self.past[slot] = self.forecasts();
        self.samples += 1;
    }

    fn forecasts(&self) -> [f64; FORECASTERS] {
        let mut all = self.level;
        let damped = HOLT_DAMPING * (1.0 - HOLT_DAMPING.powi(self.ahead as i32)) / (1.0 - HOLT_DAMPING);
        all[HOLT] = (self.level[HOLT] + damped * self.trend).max(0.0);
        all
    }

    /// What is expected `ahead` samples from now. Before anything could be judged, the last value, with a deviation of half of it.
    pub fn expected(&self) -> Expected {
        if self.weight == 0.0 {
            let mean = self.level[0];
            return Expected { mean, deviation: if self.samples > 1 { mean / 2.0 } else { 0.0 } };
        }
        let best = self.best();
        Expected { mean: self.forecasts()[best], deviation: (self.square[best] / self.weight).sqrt() }
    }

    /// The mean absolute error of the forecaster that is best so far; `None` before anything could be judged.
    pub fn past_error(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.error[self.best()] / self.weight)
    }

    /// The best forecaster's name, for explanations.
    pub fn best_name(&self) -> &'static str {
        ["last value", "EWMA 0.5", "EWMA 0.25", "EWMA 0.1", "EWMA 0.05", "EWMA 0.02", "damped Holt"][self.best()]
    }

    fn best(&self) -> usize {
        let mut best = 0;
        for f in 1..FORECASTERS {
            if self.error[f] < self.error[best] {
                best = f;
            }
        }
        best
    }
}

/// Expects what a VM's history says of the middle of the horizon.
pub(crate) fn expect(vm: &Vm, sample_ms: u64, horizon_ms: u64) -> Expected {
    if vm.cpu_history.is_empty() || sample_ms == 0 {
        return Expected { mean: vm.cpu_cores, deviation: 0.0 };
    }
    let ahead = (horizon_ms / sample_ms / 2).clamp(1, AHEAD_MAX as u64) as usize;
    let mut tracker = Tracker::new(ahead);
    for &sample in &vm.cpu_history {
        tracker.observe(f64::from(sample));
    }
    tracker.observe(vm.cpu_cores);
    seasonal(vm, sample_ms, ahead, &tracker).unwrap_or_else(|| tracker.expected())
}

/// The mean of the same time on the days before, if over the newest quarter of a day that was clearly better than the best forecaster.
fn seasonal(vm: &Vm, sample_ms: u64, ahead: usize, tracker: &Tracker) -> Option<Expected> {
    let period = usize::try_from(DAY_MS / sample_ms).ok().filter(|&p| p >= 4)?;
    let n = vm.cpu_history.len();
    if n < 2 * period {
        return None;
    }
    let at = |i: usize| {
        let days = (1..=3).take_while(|day| day * period <= i);
        let (sum, days) =
            days.fold((0.0, 0.0), |(sum, n), day| (sum + f64::from(vm.cpu_history[i - day * period]), n + 1.0));
        sum / days
    };
    let held_out = n - period / 4..n;
    let off = |i: usize| f64::from(vm.cpu_history[i]) - at(i);
    let count = held_out.len() as f64;
    let error = held_out.clone().map(|i| off(i).abs()).sum::<f64>() / count;
    // A tie goes to the simpler one.
    if error > 0.9 * tracker.past_error()? {
        return None;
    }
    let square = held_out.map(|i| off(i).powi(2)).sum::<f64>() / count;
    Some(Expected { mean: at(n + ahead.min(period)), deviation: square.sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ahead: usize, series: impl IntoIterator<Item = f64>) -> Tracker {
        let mut tracker = Tracker::new(ahead);
        series.into_iter().for_each(|sample| tracker.observe(sample));
        tracker
    }

    /// Noise from -1 to 1, the same each time.
    fn noise(i: u64) -> f64 {
        let mut x = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((x >> 40) as f64) / f64::from(1 << 23) - 1.0
    }

    #[test]
    fn each_series_gets_its_own() {
        assert_eq!(after(3, (0..300).map(|i| if i < 150 { 1.0 } else { 3.0 })).best_name(), "last value");
        assert!(after(3, (0..300).map(|i| 2.0 + noise(i))).best_name().starts_with("EWMA 0.0"));
        assert_eq!(after(6, (0..300).map(|i| 0.01 * i as f64)).best_name(), "damped Holt");
    }

    #[test]
    fn knows_its_own_error() {
        let calm = after(3, std::iter::repeat_n(2.0, 100)).expected();
        assert_eq!((calm.mean, calm.deviation), (2.0, 0.0));
        let noisy = after(3, (0..2000).map(|i| 2.0 + noise(i))).expected();
        assert!((noisy.mean - 2.0).abs() < 0.2, "{noisy:?}");
        // Uniform noise from -1 to 1 deviates by 1/√3.
        assert!((noisy.deviation - 0.577).abs() < 0.08, "{noisy:?}");
        assert_eq!(after(1, []).expected(), Expected::default());
    }

    #[test]
    fn kept_over_restarts() {
        let series: Vec<f64> = (0..200).map(|i| 2.0 + noise(i)).collect();
        let mut restarted = after(3, series[..120].iter().copied());
        let stored = serde_json::to_string(&restarted).expect("numbers are JSON");
        restarted = serde_json::from_str(&stored).expect("what was written can be read");
        series[120..].iter().for_each(|sample| restarted.observe(*sample));
        let whole = after(3, series.iter().copied());
        assert!((restarted.expected().mean - whole.expected().mean).abs() < 1e-9);
        assert!((restarted.expected().deviation - whole.expected().deviation).abs() < 1e-9);
    }

    #[test]
    fn a_day_is_seen_when_it_comes_back() {
        let hour = |i: usize| if i % 24 < 8 { 0.1f32 } else { 2.0 };
        let mut vm = Vm::new("a".parse().expect("a name"), 1, 4);
        vm.cpu_history = (0..24 * 5 + 7).map(hour).collect();
        vm.cpu_cores = 0.1;
        // It is the eighth hour of the night, and the day is about to begin.
        let expected = expect(&vm, 3_600_000, 2 * 3_600_000);
        assert!((expected.mean - 2.0).abs() < 0.01, "{expected:?}");
    }
}
