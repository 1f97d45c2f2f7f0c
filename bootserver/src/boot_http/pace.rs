//! How fast boot files go out in all, so that a boot storm leaves room for disks and migrations on the same link.
//!
//! Never does: read a clock. Who has a piece to send is told how long to wait first; as each has but one piece at a time,
//! the rate is shared evenly, and a client that takes nothing uses none of it.

use std::time::Duration;

/// May go out at once after a pause.
const BURST: Duration = Duration::from_millis(20);

/// A rate, and up to when it is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Bytes a second; 0 for no limit.
    rate_bytes_s: u64,
    /// From the server's start.
    used_until: Duration,
}

impl Pace {
    pub(super) fn new(rate_bytes_s: u64) -> Self {
        Self { rate_bytes_s, used_until: Duration::ZERO }
    }

    /// How long to wait, at this time from the server's start, before a piece of so many bytes is sent.
    pub(super) fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        if self.rate_bytes_s == 0 {
            return Duration::ZERO;
        }
        let begins = self.used_until.max(now.saturating_sub(BURST));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate_bytes_s);
        self.used_until = begins + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        begins.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_limit() {
        assert_eq!(Pace::new(0).take(u64::MAX, Duration::ZERO), Duration::ZERO);
    }

    proptest! {
        /// Whoever asks when, no more goes out in any time than rate, burst and the piece begun allow.
        #[test]
        fn never_faster(rate in 1_000u64..1_000_000_000, pieces in proptest::collection::vec((0u64..200_000, 0u64..50), 1..100)) {
            let (mut pace, mut now, mut sent) = (Pace::new(rate), Duration::ZERO, 0);
            for (bytes, pause_ms) in pieces {
                now += Duration::from_millis(pause_ms);
                now += pace.take(bytes, now);
                let allowed = (now + BURST).as_secs_f64() * rate as f64;
                prop_assert!(sent as f64 <= allowed * 1.000_001 + 1.0, "{sent} of {allowed}");
                sent += bytes;
            }
        }
    }
}
