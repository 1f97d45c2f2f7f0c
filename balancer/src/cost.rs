//! What a move is expected to cost.
//!
//! Owns: the model of pre-copy. Live migration sends memory in rounds: while a round is sent, a share λ = dirty
//! rate / link rate of it is dirtied and must be sent again, so after n more rounds M·(1−λⁿ⁺¹)/(1−λ) was sent
//! (Clark et al., NSDI 2005; Akoush et al., MASCOTS 2010), and what the last round dirtied is sent while the guest stands still.

use crate::plan::Cost;
use crate::policy::{Learnt, Policy};
use crate::snapshot::Vm;

/// Rounds after the first that Xen's pre-copy makes at most (libxl 4.17 stops after 5 in all).
const ROUNDS_MORE: i32 = 4;

/// Suspending, the last handshake and devices at the target, milliseconds, before anything was learnt.
const DOWNTIME_LEAST_MS: f64 = 300.0;

/// How much the newest measurement counts in what was learnt.
const LEARN: f64 = 0.1;

/// Predicts the cost of moving a VM over a link of so many bytes a second.
pub fn predict(vm: &Vm, link_bytes_s: f64, policy: &Policy) -> Cost {
    let bytes = vm.memory_mib as f64 * 1_048_576.0;
    let lambda = vm.dirty_bytes_s / link_bytes_s;
    let rounds = if (lambda - 1.0).abs() < 1e-9 {
        f64::from(ROUNDS_MORE + 1)
    } else {
        (1.0 - lambda.powi(ROUNDS_MORE + 1)) / (1.0 - lambda)
    };
    // A guest cannot dirty more than all its memory in a round, so no round is longer than the first.
    let sent = bytes * rounds.min(f64::from(ROUNDS_MORE + 1)) * policy.learnt.sent;
    let last = bytes * lambda.min(1.0).powi(ROUNDS_MORE + 1);
    let brownout_ms = sent / link_bytes_s * 1000.0 * policy.learnt.time;
    let downtime_ms = (last / link_bytes_s * 1000.0 + DOWNTIME_LEAST_MS) * policy.learnt.downtime;
    let weights = &policy.cost;
    let score = vm.priority
        * (weights.per_gib * sent / (1024.0 * 1_048_576.0)
            + weights.per_brownout_s * brownout_ms / 1000.0
            + weights.per_downtime_s * downtime_ms / 1000.0);
    Cost { sent_mib: sent / 1_048_576.0, brownout_ms, downtime_ms, score }
}

/// What a finished move took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Sent over the wire, MiB.
    pub sent_mib: f64,
    /// From the first byte to the guest running at the target, milliseconds.
    pub total_ms: f64,
    /// How long the guest stood still, milliseconds.
    pub downtime_ms: f64,
}

impl Learnt {
    /// Learns from a finished move: `predicted` was made with `self`.
    #[must_use]
    pub fn after(self, predicted: &Cost, measured: &Measured) -> Self {
        let step = |now: f64, predicted: f64, measured: f64| {
            let ratio = measured / predicted;
            // One odd move (a switch rebooting) must not spoil the factor: a step is at most tenfold.
            if ratio.is_finite() && ratio > 0.0 { now * ratio.clamp(0.1, 10.0).powf(LEARN) } else { now }
        };
        Self {
            sent: step(self.sent, predicted.sent_mib, measured.sent_mib),
            time: step(self.time, predicted.brownout_ms, measured.total_ms),
            downtime: step(self.downtime, predicted.downtime_ms, measured.downtime_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(memory_mib: u64, dirty_bytes_s: f64) -> Vm {
        Vm { dirty_bytes_s, ..Vm::new("a".parse().expect("a name"), memory_mib, 1) }
    }

    #[test]
    fn follows_the_formula() {
        let policy = Policy::default();
        let quiet = predict(&vm(1024, 0.0), 125e6, &policy);
        assert!((quiet.sent_mib - 1024.0).abs() < 1e-9);
        assert!((quiet.brownout_ms - 8589.9).abs() < 0.1, "{quiet:?}");
        let half = predict(&vm(1024, 62.5e6), 125e6, &policy);
        assert!((half.sent_mib - 1024.0 * (1.0 - 0.5f64.powi(5)) / 0.5).abs() < 1e-6);
        assert!((half.downtime_ms - (8589.93 / 32.0 + 300.0)).abs() < 0.1, "{half:?}");
        let wild = predict(&vm(1024, 1e12), 125e6, &policy);
        assert!(wild.sent_mib <= 5.0 * 1024.0 && wild.score.is_finite());
    }

    #[test]
    fn learns_the_true_ratio() {
        let mut policy = Policy::default();
        let guest = vm(1024, 10e6);
        for _ in 0..200 {
            let predicted = predict(&guest, 125e6, &policy);
            let measured = Measured { sent_mib: 2000.0, total_ms: 30_000.0, downtime_ms: 900.0 };
            policy.learnt = policy.learnt.after(&predicted, &measured);
        }
        let now = predict(&guest, 125e6, &policy);
        assert!((now.sent_mib - 2000.0).abs() < 1.0, "{now:?}");
        assert!((now.downtime_ms - 900.0).abs() < 1.0, "{now:?}");
    }
}
