//! The test guest's counter on its disk: how it is laid out, and what a disk says of lost, late or doubled writes.
//!
//! From 1 MiB on there is a ring of 4,096 records of one sector each. Record `n` is written to slot `n mod 4096`,
//! with fsync before record `n + 1` is begun, so on a good disk the slots hold the newest 4,096 numbers and nothing
//! else: a lost write leaves an older number in its slot, and a late write of a host that was cut off too. Two guests
//! that both count write the same numbers; but each record says in which boot and when it was made, and from one
//! number to the next that time never goes back, and no boot comes again after another has followed it.

use std::time::Duration;

/// Where the ring begins, bytes.
pub const RING_OFFSET: u64 = 1 << 20;
/// Slots in the ring.
pub const SLOTS: u64 = 4096;
/// Bytes in a slot: a sector, the unit that a disk writes whole.
pub const SLOT_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"tsubame2";

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// From 1 on.
    pub number: u64,
    /// Drawn by the guest's kernel when it boots; a migrated guest keeps it.
    pub boot: u64,
    /// Since that boot.
    pub uptime: Duration,
}

/// A record's bytes. Of the time, whole milliseconds are kept.
pub fn encode(record: &Record) -> [u8; SLOT_BYTES] {
    let uptime_ms = u64::try_from(record.uptime.as_millis()).unwrap_or(u64::MAX);
    let words = [record.number, record.boot, uptime_ms];
    let mut sector = [0; SLOT_BYTES];
    sector[..8].copy_from_slice(MAGIC);
    for (place, word) in sector[8..].chunks_exact_mut(8).zip(words.into_iter().chain([checksum(words)])) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    sector
}

/// The record in a slot; none in an empty or torn one.
pub fn decode(sector: &[u8]) -> Option<Record> {
    let word = |at: usize| Some(u64::from_le_bytes(sector.get(at..at + 8)?.try_into().ok()?));
    let words = [word(8)?, word(16)?, word(24)?];
    let [number, boot, uptime_ms] = words;
    let whole = sector.get(..8)? == MAGIC && word(32)? == checksum(words);
    whole.then_some(Record { number, boot, uptime: Duration::from_millis(uptime_ms) })
}

/// Where a record is written, bytes from the disk's start.
pub fn offset(number: u64) -> u64 {
    RING_OFFSET + number % SLOTS * SLOT_BYTES as u64
}

/// FNV-1a over the words: tells a torn sector, not an enemy.
fn checksum(words: [u64; 3]) -> u64 {
    let bytes = words.into_iter().flat_map(u64::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterSummary {
    /// The newest number; 0 on an empty disk (the first record is number 1).
    pub last: u64,
    /// Slots that hold another number than they must: (slot, expected, found). Lost and late writes, torn sectors.
    pub wrong: Vec<(u64, u64, Option<u64>)>,
    /// Numbers whose record is older than that of the number before, or of a boot that another boot had followed:
    /// two guests were counting.
    pub doubled: Vec<u64>,
    /// Boots of the guest that the ring's records are of.
    pub boots: usize,
    /// The longest time between two records of one boot, by the guest's own clock.
    pub longest_pause: Duration,
}

impl CounterSummary {
    /// Whether no write was lost, late or doubled.
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty() && self.doubled.is_empty()
    }
}

/// A disk is too small to hold the ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the disk has {bytes} bytes, the counter's ring ends at {}", RING_OFFSET + SLOTS * SLOT_BYTES as u64)]
pub struct TooSmall {
    /// Its size.
    pub bytes: usize,
}

/// Reads the whole ring back: the last 4,096 records. The disk must not be written meanwhile, or its newest slot may
/// be ahead by one.
pub fn verify(disk: &[u8]) -> Result<CounterSummary, TooSmall> {
    let start = RING_OFFSET as usize;
    let ring = disk.get(start..start + SLOTS as usize * SLOT_BYTES).ok_or(TooSmall { bytes: disk.len() })?;
    let found: Vec<Option<Record>> = ring.chunks_exact(SLOT_BYTES).map(decode).collect();
    let last = found.iter().flatten().map(|record| record.number).max().unwrap_or(0);
    let first = last.saturating_sub(SLOTS - 1).max(1);
    let mut summary =
        CounterSummary { last, wrong: Vec::new(), doubled: Vec::new(), boots: 0, longest_pause: Duration::ZERO };
    let mut boots: Vec<u64> = Vec::new();
    let mut before: Option<Record> = None;
    for number in first..=last {
        let slot = number % SLOTS;
        let record = match found[slot as usize] {
            Some(record) if record.number == number => record,
            other => {
                summary.wrong.push((slot, number, other.map(|record| record.number)));
                continue;
            }
        };
        if boots.last() == Some(&record.boot) {
            match before.map(|before| record.uptime.checked_sub(before.uptime)) {
                Some(Some(pause)) => summary.longest_pause = summary.longest_pause.max(pause),
                Some(None) => summary.doubled.push(number),
                None => {}
            }
        } else if boots.contains(&record.boot) {
            summary.doubled.push(number);
            continue;
        } else {
            boots.push(record.boot);
        }
        before = Some(record);
    }
    summary.boots = boots.len();
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of one boot, one every 20 ms, as (number, boot, milliseconds).
    fn counted(numbers: impl IntoIterator<Item = u64>) -> impl Iterator<Item = (u64, u64, u64)> {
        numbers.into_iter().map(|number| (number, 7, number * 20))
    }

    fn disk(records: impl IntoIterator<Item = (u64, u64, u64)>) -> Vec<u8> {
        let mut disk = vec![0; 4 << 20];
        for (number, boot, ms) in records {
            let at = offset(number) as usize;
            let record = Record { number, boot, uptime: Duration::from_millis(ms) };
            disk[at..at + SLOT_BYTES].copy_from_slice(&encode(&record));
        }
        disk
    }

    fn summary(records: impl IntoIterator<Item = (u64, u64, u64)>) -> CounterSummary {
        verify(&disk(records)).expect("large enough")
    }

    #[test]
    fn a_good_disk_has_the_newest_records_and_nothing_else() {
        for last in [0, 1, 17, SLOTS - 1, SLOTS, 3 * SLOTS + 5] {
            let found = summary(counted(1..=last));
            assert_eq!((found.last, found.is_good(), found.boots), (last, true, usize::from(last > 0)));
        }
        assert_eq!(verify(&[0; 100]), Err(TooSmall { bytes: 100 }));
    }

    #[test]
    fn a_lost_a_late_and_a_torn_write_are_seen() {
        let lost = summary(counted((1..=10_000).filter(|&n| n != 9_000)));
        assert_eq!(lost.wrong, [(9_000 % SLOTS, 9_000, Some(9_000 - SLOTS))]);
        let late = summary(counted((1..=10_000).chain([9_500 - SLOTS])));
        assert_eq!(late.wrong, [(9_500 % SLOTS, 9_500, Some(9_500 - SLOTS))]);
        let mut torn = disk(counted(1..=100));
        torn[offset(50) as usize + 8] ^= 1;
        assert_eq!(verify(&torn).expect("large enough").wrong, [(50, 50, None)]);
    }

    #[test]
    fn two_guests_that_count_are_seen() {
        // Both copies of a migrated guest run on from number 100; the second is behind and stops earlier.
        let copies = counted(1..=200).chain((100..=150).map(|n| (n, 7, n * 20 + 5_000)));
        assert_eq!(summary(copies).doubled, [151]);
        // It was started elsewhere (boot 8) while the old one still ran.
        let stale = counted(1..=100).chain((101..=120).map(|n| (n, 8, n))).chain(counted(110..=112));
        assert_eq!(summary(stale).doubled, [110, 111, 112]);
    }

    #[test]
    fn a_pause_and_a_reboot_are_no_fault() {
        let paused = summary((1..=100).map(|n| (n, 7, if n > 60 { n * 20 + 700 } else { n * 20 })));
        assert_eq!((paused.is_good(), paused.longest_pause.as_millis()), (true, 720));
        let rebooted = summary(counted(1..=100).chain((101..=120).map(|n| (n, 8, n))));
        assert_eq!((rebooted.is_good(), rebooted.boots), (true, 2));
    }
}
