//! Who may fetch its boot files now, when more machines come up than the link serves at once.
//!
//! Owns: the places, and in which order those that wait get them. Never does: end a transfer. A machine that waits is in a
//! script that asks again; so nothing is held open for it, and who goes away is soon forgotten.
//!
//! ```text
//! asks ──a place is free, and nobody who waits goes first──> has a place ──its initrd has gone out──> gone, while Linux starts
//!   │  ^                                                       │  ^                                       │
//!   │  └── asks again ── waits <── no place                    │  └──── has a place, free or not <── fetches its image
//!   └────────────────────> │ has not asked for 20 s: forgotten ├── its image has gone out, or nothing fetched for 10 s ──> gone
//!                                                              └── a minute over: it goes on, its place is another's
//! ```
//! Who fetches its image is not held up: it is the nearest to its end. Those that ask wait for it.

use crate::event::Now;
use proto::HostId;
use std::collections::BTreeMap;

/// A machine that has fetched nothing for so long has no place any more, milliseconds.
const QUIET_MS: u64 = 10_000;
/// A place is one machine's for at most so long, milliseconds: slow ones go on, but keep nobody waiting.
const PLACE_MS_MAX: u64 = 60_000;
/// Longest time after which a machine asks again, seconds.
const AGAIN_S_MAX: u64 = 5;
/// One that waits and has not asked for so long is forgotten, milliseconds: four times what it was told.
const ASKED_MS_MAX: u64 = AGAIN_S_MAX * 4_000;

/// In which order machines go; of equals, who asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// VMs that are to run wait for this host.
    Awaited,
    /// It has been let in.
    Accepted,
    /// It was registered beforehand.
    Registered,
    /// Nobody knows it.
    Unknown,
}

/// There is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// How many go before it, those that fetch now with them.
    pub(crate) before: usize,
    /// When it is to ask again, seconds.
    pub(crate) again_s: u64,
}

#[derive(Clone, Copy)]
struct Place {
    since_mono_ms: u64,
    seen_mono_ms: u64,
}

#[derive(Clone, Copy)]
struct Waiting {
    rank: Rank,
    since_mono_ms: u64,
    asked_mono_ms: u64,
}

/// The places. Bounded by the hosts that are kept: only those are asked for.
#[derive(Default)]
pub(crate) struct Admission {
    places: BTreeMap<HostId, Place>,
    waiting: BTreeMap<HostId, Waiting>,
}

impl Admission {
    /// A host asks for its script; of `places` it gets one, or is told to wait.
    pub(crate) fn ask(&mut self, host: &HostId, rank: Rank, places: usize, now: Now) -> Result<(), Wait> {
        let mono_ms = now.mono_ms;
        self.places.retain(|_, place| {
            mono_ms.saturating_sub(place.seen_mono_ms) < QUIET_MS
                && mono_ms.saturating_sub(place.since_mono_ms) < PLACE_MS_MAX
        });
        self.waiting.retain(|_, waiting| mono_ms.saturating_sub(waiting.asked_mono_ms) < ASKED_MS_MAX);
        if let Some(place) = self.places.get_mut(host) {
            place.seen_mono_ms = mono_ms;
            return Ok(());
        }
        let asked = Waiting { rank, since_mono_ms: mono_ms, asked_mono_ms: mono_ms };
        let own = self.waiting.entry(host.clone()).or_insert(asked);
        (own.rank, own.asked_mono_ms) = (rank, mono_ms);
        let own = (own.rank, own.since_mono_ms, host);
        let first = self.waiting.iter().filter(|(id, w)| (w.rank, w.since_mono_ms, *id) < own).count();
        let before = self.places.len() + first;
        if before < places {
            self.waiting.remove(host);
            self.places.insert(host.clone(), Place { since_mono_ms: mono_ms, seen_mono_ms: mono_ms });
            return Ok(());
        }
        // The next in the queue ask every second, so that no place is empty for long; the rest seldom.
        let again_s = (1 + (before - places) / places.max(1)) as u64;
        Err(Wait { before, again_s: again_s.min(AGAIN_S_MAX) })
    }

    /// A host has fetched something; of its image it takes a place by that.
    pub(crate) fn fetched(&mut self, host: &HostId, image: bool, now: Now) {
        let mono_ms = now.mono_ms;
        if let Some(place) = self.places.get_mut(host) {
            place.seen_mono_ms = mono_ms;
        } else if image {
            self.places.insert(host.clone(), Place { since_mono_ms: mono_ms, seen_mono_ms: mono_ms });
        }
    }

    /// A host has all that it needs for now.
    pub(crate) fn done(&mut self, host: &HostId) {
        self.places.remove(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::Mac;

    fn host(number: u8) -> HostId {
        HostId::of(Mac([2, 0, 0, 0, 0, number]))
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn who_is_awaited_goes_first() {
        let mut admission = Admission::default();
        let mut ask = |number: u8, rank, ms| admission.ask(&host(number), rank, 1, at(ms));
        assert_eq!(ask(1, Rank::Unknown, 0), Ok(()));
        assert_eq!(ask(1, Rank::Unknown, 1), Ok(()), "the same script again");
        assert_eq!(ask(2, Rank::Unknown, 2), Err(Wait { before: 1, again_s: 1 }));
        assert_eq!(ask(3, Rank::Registered, 3), Err(Wait { before: 1, again_s: 1 }));
        assert_eq!(ask(4, Rank::Awaited, 4), Err(Wait { before: 1, again_s: 1 }));
        assert_eq!(ask(2, Rank::Unknown, 5), Err(Wait { before: 3, again_s: 3 }));
        admission.done(&host(1));
        let mut ask = |number: u8, rank, ms| admission.ask(&host(number), rank, 1, at(ms));
        assert_eq!(ask(2, Rank::Unknown, 6), Err(Wait { before: 2, again_s: 2 }), "its place is kept for others");
        assert_eq!(ask(4, Rank::Awaited, 7), Ok(()));
        assert_eq!(ask(3, Rank::Accepted, 8), Err(Wait { before: 1, again_s: 1 }));
    }

    #[test]
    fn who_is_silent_or_slow_keeps_nobody_waiting() {
        let mut admission = Admission::default();
        assert_eq!(admission.ask(&host(1), Rank::Unknown, 1, at(0)), Ok(()));
        admission.fetched(&host(1), false, at(5_000));
        assert!(admission.ask(&host(2), Rank::Unknown, 1, at(14_999)).is_err());
        assert_eq!(admission.ask(&host(2), Rank::Unknown, 1, at(15_000)), Ok(()), "the first is silent");
        for ms in (15_000..75_000).step_by(1000) {
            admission.fetched(&host(2), false, at(ms));
            assert!(admission.ask(&host(3), Rank::Unknown, 1, at(ms)).is_err());
        }
        assert_eq!(admission.ask(&host(3), Rank::Unknown, 1, at(75_000)), Ok(()), "the second is slow");
        // One that waited and went away is not waited for.
        assert!(admission.ask(&host(4), Rank::Awaited, 1, at(75_000)).is_err());
        admission.done(&host(3));
        assert!(admission.ask(&host(5), Rank::Unknown, 1, at(94_999)).is_err());
        assert_eq!(admission.ask(&host(5), Rank::Unknown, 1, at(95_000)), Ok(()));
    }

    #[test]
    fn who_fetches_its_image_counts_and_is_not_held_up() {
        let mut admission = Admission::default();
        assert_eq!(admission.ask(&host(1), Rank::Unknown, 1, at(0)), Ok(()));
        admission.done(&host(1));
        admission.fetched(&host(3), false, at(1));
        assert_eq!(admission.ask(&host(2), Rank::Unknown, 1, at(2)), Ok(()), "while Linux starts on the first");
        admission.fetched(&host(1), true, at(3));
        admission.done(&host(2));
        assert!(admission.ask(&host(3), Rank::Unknown, 1, at(4)).is_err(), "the first fetches its image");
        admission.done(&host(1));
        assert_eq!(admission.ask(&host(3), Rank::Unknown, 1, at(5)), Ok(()));
    }

    proptest! {
        /// Never more than the places; and whoever goes on asking has one in the end.
        #[test]
        fn all_get_a_place(places in 1usize..5, hosts in 1u8..30, lengths in proptest::collection::vec(100u64..8_000, 30)) {
            let mut admission = Admission::default();
            let mut next: BTreeMap<u64, Vec<(u8, bool)>> = BTreeMap::new();
            next.entry(0).or_default().extend((0..hosts).map(|number| (number, false)));
            let (mut fetching, mut done) = (0, 0);
            while let Some((ms, events)) = next.pop_first() {
                prop_assert!(ms < 1_000_000, "somebody waits for ever");
                for (number, fetched) in events {
                    if fetched {
                        admission.done(&host(number));
                        (fetching, done) = (fetching - 1, done + 1);
                        continue;
                    }
                    match admission.ask(&host(number), Rank::Unknown, places, at(ms)) {
                        Ok(()) => {
                            fetching += 1;
                            prop_assert!(fetching <= places);
                            next.entry(ms + lengths[usize::from(number)]).or_default().push((number, true));
                        }
                        Err(wait) => next.entry(ms + wait.again_s * 1000).or_default().push((number, false)),
                    }
                }
            }
            prop_assert_eq!(done, usize::from(hosts));
        }
    }
}
