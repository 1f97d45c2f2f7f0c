//! Which part of a file a request wants (RFC 9110 §14).

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it, status 200.
    Whole,
    /// From the first to the last byte named, status 206.
    Bytes {
        /// First.
        first: u64,
        /// Last, with it.
        last: u64,
    },
    /// Nothing, status 416.
    Unsatisfiable,
}

/// Reads a `Range` header. What is not understood, and several ranges at once, mean the whole (§14.2 allows it).
pub(super) fn part(range: Option<&str>, bytes: u64) -> Part {
    let Some(spec) = range.and_then(|r| r.trim().strip_prefix("bytes=")) else { return Part::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Part::Whole };
    let number = |text: &str| -> Option<u64> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
    };
    let (first, last) = match (first.trim().is_empty(), last.trim().is_empty()) {
        (false, true) => match number(first) {
            Some(first) => (first, u64::MAX),
            None => return Part::Whole,
        },
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last),
            _ => return Part::Whole,
        },
        (true, false) => match number(last) {
            Some(0) => return Part::Unsatisfiable,
            Some(count) => (bytes.saturating_sub(count), u64::MAX),
            None => return Part::Whole,
        },
        (true, true) => return Part::Whole,
    };
    if first >= bytes { Part::Unsatisfiable } else { Part::Bytes { first, last: last.min(bytes - 1) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        for (range, wanted) in [
            ("bytes=0-0", Part::Bytes { first: 0, last: 0 }),
            ("bytes=5-", Part::Bytes { first: 5, last: 9 }),
            ("bytes=5-99", Part::Bytes { first: 5, last: 9 }),
            ("bytes=-3", Part::Bytes { first: 7, last: 9 }),
            ("bytes=-99", Part::Bytes { first: 0, last: 9 }),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=7-5", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=1-2", Part::Whole),
        ] {
            assert_eq!(part(Some(range), 10), wanted, "{range}");
        }
        assert_eq!(part(None, 10), Part::Whole);
        assert_eq!(part(Some("bytes=0-"), 0), Part::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn never_beyond_the_end(range in "(bytes=)?[0-9]{0,22}-?[0-9,]{0,22}", bytes in 0u64..1000) {
            if let Part::Bytes { first, last } = part(Some(&range), bytes) {
                prop_assert!(first <= last && last < bytes);
            }
        }
    }
}
