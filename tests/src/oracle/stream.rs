//! TCP's two byte streams, put together again from segments.
//!
//! Owns: order, overlap, and noticing a hole. Never does: hand on what the receiver has not acknowledged, where that is asked for: it
//! may never have had it.

use super::capture::{FIN, Segment};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// What waits to be put in order or to be acknowledged, bytes; TCP's window is smaller.
const HELD_BYTES_MAX: usize = 64 << 20;

/// One direction.
#[derive(Debug)]
pub struct Stream {
    /// Number of the first byte.
    first: u32,
    /// Handed on so far, bytes.
    given: u64,
    held: BTreeMap<u64, (Vec<u8>, u64)>,
    held_bytes: usize,
    /// Where it ends, once that is known.
    end: Option<u64>,
    acked: u64,
}

impl Stream {
    /// Begins after its SYN.
    pub fn after(syn: &Segment) -> Self {
        let first = syn.seq.wrapping_add(1);
        Self { first, given: 0, held: BTreeMap::new(), held_bytes: 0, end: None, acked: 0 }
    }

    /// A segment of this direction.
    pub fn put(&mut self, segment: Segment) -> Result<()> {
        let at = self.place(segment.seq);
        if segment.flags & FIN != 0 {
            self.end = u64::try_from(at + segment.payload.len() as i64).ok();
        }
        let skip = usize::try_from(self.given as i64 - at).unwrap_or(0);
        let Some(rest) = segment.payload.get(skip..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
        let at = u64::try_from(at + skip as i64).context("a segment of before the beginning")?;
        // The first copy is the one that the receiver keeps; a longer one brings what is behind it.
        if self.held.get(&at).is_none_or(|(have, _)| have.len() < rest.len()) {
            self.held_bytes += rest.len();
            ensure!(self.held_bytes <= HELD_BYTES_MAX, "{HELD_BYTES_MAX} bytes of a stream wait for those before them");
            if let Some((had, _)) = self.held.insert(at, (rest.to_vec(), segment.at_ns)) {
                self.held_bytes -= had.len();
            }
        }
        Ok(())
    }

    /// The other side has said that it has all before this byte. What it has and we have not was lost to us: an error.
    pub fn acknowledged(&mut self, ack: u32) -> Result<()> {
        let Ok(upto) = u64::try_from(self.place(ack)) else { return Ok(()) };
        // A FIN counts as a byte.
        let upto = self.end.map_or(upto, |end| upto.min(end));
        let mut have = self.given;
        for (&at, (bytes, _)) in &self.held {
            if at > have {
                break;
            }
            have = have.max(at + bytes.len() as u64);
        }
        ensure!(upto <= have, "the capture lacks {} bytes that were received: a packet was lost to it", upto - have);
        self.acked = self.acked.max(upto);
        Ok(())
    }

    /// The next bytes in order, and when they came; with `acknowledged`, only those that were.
    pub fn take(&mut self, acknowledged: bool) -> Option<(Vec<u8>, u64)> {
        let (&at, _) = self.held.first_key_value()?;
        if at > self.given || (acknowledged && self.given >= self.acked) {
            return None;
        }
        let (mut bytes, at_ns) = self.held.remove(&at)?;
        self.held_bytes -= bytes.len();
        let skip = usize::try_from(self.given - at).ok()?.min(bytes.len());
        bytes.drain(..skip);
        if acknowledged {
            let wanted = usize::try_from(self.acked - self.given).ok()?;
            if wanted < bytes.len() {
                let rest = bytes.split_off(wanted);
                self.held_bytes += rest.len();
                self.held.insert(self.given + wanted as u64, (rest, at_ns));
            }
        }
        self.given += bytes.len() as u64;
        Some((bytes, at_ns))
    }

    /// Where a number lies, bytes from the beginning; numbers wrap, and the one nearest to what was handed on is meant.
    fn place(&self, number: u32) -> i64 {
        let here = self.first.wrapping_add(self.given as u32);
        self.given as i64 + i64::from(number.wrapping_sub(here) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::capture::SYN;

    fn segment(seq: u32, payload: &[u8], at_ns: u64) -> Segment {
        Segment { at_ns, from: (1, 1), to: (2, 2), seq, ack: None, flags: 0, payload: payload.to_vec() }
    }

    fn stream(seq: u32) -> Stream {
        Stream::after(&Segment { flags: SYN, ..segment(seq, b"", 0) })
    }

    fn all(stream: &mut Stream, acknowledged: bool) -> String {
        let parts = std::iter::from_fn(|| stream.take(acknowledged));
        parts.map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }

    #[test]
    fn order_overlap_and_wrapping_numbers() {
        let first = u32::MAX - 2;
        let mut it = stream(first.wrapping_sub(1));
        it.put(segment(first.wrapping_add(4), b"efg", 3)).expect("held");
        assert_eq!(all(&mut it, false), "");
        it.put(segment(first, b"abcd", 1)).expect("fits");
        it.put(segment(first, b"abcdef", 2)).expect("again, and more");
        assert_eq!(all(&mut it, false), "abcdefg");
        it.put(segment(first.wrapping_add(2), b"cdefghi", 4)).expect("overlaps");
        it.put(segment(first, b"abc", 5)).expect("old");
        assert_eq!(all(&mut it, false), "hi");
    }

    #[test]
    fn what_is_not_acknowledged_did_not_arrive() {
        let mut it = stream(99);
        it.put(segment(100, b"abcdef", 1)).expect("fits");
        assert_eq!(all(&mut it, true), "");
        it.acknowledged(104).expect("we have it");
        assert_eq!(all(&mut it, true), "abcd");
        it.put(Segment { flags: FIN, ..segment(106, b"g", 2) }).expect("the last");
        it.acknowledged(108).expect("the end counts as a byte");
        assert_eq!(all(&mut it, true), "efg");
    }

    #[test]
    fn a_hole_is_an_error_once_the_receiver_has_no_hole() {
        let mut it = stream(99);
        it.put(segment(100, b"ab", 1)).expect("fits");
        it.put(segment(104, b"ef", 2)).expect("held");
        it.acknowledged(102).expect("so far all is here");
        let said = it.acknowledged(106).expect_err("cd was received, and not by us").to_string();
        assert_eq!(said, "the capture lacks 4 bytes that were received: a packet was lost to it");
    }
}
