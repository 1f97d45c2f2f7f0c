//! The test guest's counter on its disk: how it is laid out, and what a disk says of lost or doubled writes.
//!
//! From 1 MiB on there is a ring of 4,096 records of one sector each. Record `n` is written to slot `n mod 4096`,
//! with fsync before record `n + 1` is begun, so on a good disk the slots hold the newest 4,096 numbers and nothing
//! else: a lost write leaves an older number in its slot, and a late write of a host that was cut off too.

/// Where the ring begins, bytes.
pub const RING_OFFSET: u64 = 1 << 20;
/// Slots in the ring.
pub const SLOTS: u64 = 4096;
/// Bytes in a slot: a sector, the unit that a disk writes whole.
pub const SLOT_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"tsubame1";

/// A record's bytes.
pub fn encode(number: u64) -> [u8; SLOT_BYTES] {
    let mut sector = [0; SLOT_BYTES];
    sector[..8].copy_from_slice(MAGIC);
    sector[8..16].copy_from_slice(&number.to_le_bytes());
    sector[16..24].copy_from_slice(&checksum(number).to_le_bytes());
    sector
}

/// The number in a slot; none in an empty or torn one.
pub fn decode(sector: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u64::from_le_bytes(sector.get(at..at + 8)?.try_into().ok()?));
    let number = word(8)?;
    (sector.get(..8)? == MAGIC && word(16)? == checksum(number)).then_some(number)
}

/// Where a record is written, bytes from the disk's start.
pub fn offset(number: u64) -> u64 {
    RING_OFFSET + number % SLOTS * SLOT_BYTES as u64
}

/// Fibonacci hashing's multiplier: any bit of the number changes many of the sum.
fn checksum(number: u64) -> u64 {
    (number ^ 0x7473_7562_616d_6531).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterSummary {
    /// The newest number; 0 on an empty disk (the first record is number 1).
    pub last: u64,
    /// Slots that hold another number than they must: (slot, expected, found).
    pub wrong: Vec<(u64, u64, Option<u64>)>,
}

/// A disk is too small to hold the ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the disk has {bytes} bytes, the counter's ring ends at {}", RING_OFFSET + SLOTS * SLOT_BYTES as u64)]
pub struct TooSmall {
    /// Its size.
    pub bytes: usize,
}

/// Reads the whole ring back. The disk must not be written meanwhile, or its newest slot may be ahead by one.
pub fn verify(disk: &[u8]) -> Result<CounterSummary, TooSmall> {
    let start = RING_OFFSET as usize;
    let ring = disk.get(start..start + SLOTS as usize * SLOT_BYTES).ok_or(TooSmall { bytes: disk.len() })?;
    let found: Vec<Option<u64>> = ring.chunks_exact(SLOT_BYTES).map(decode).collect();
    let last = found.iter().flatten().copied().max().unwrap_or(0);
    let first = last.saturating_sub(SLOTS - 1).max(1);
    let mut wrong = Vec::new();
    for number in first..=last {
        let slot = number % SLOTS;
        let found = found[slot as usize];
        if found != Some(number) {
            wrong.push((slot, number, found));
        }
    }
    Ok(CounterSummary { last, wrong })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut disk = vec![0; 4 << 20];
        for number in numbers {
            let at = offset(number) as usize;
            disk[at..at + SLOT_BYTES].copy_from_slice(&encode(number));
        }
        disk
    }

    #[test]
    fn a_good_disk_has_the_newest_records_and_nothing_else() {
        for last in [0, 1, 17, SLOTS - 1, SLOTS, 3 * SLOTS + 5] {
            assert_eq!(verify(&disk(1..=last)), Ok(CounterSummary { last, wrong: vec![] }));
        }
    }

    #[test]
    fn a_lost_write_and_a_late_write_are_seen() {
        let lost = verify(&disk((1..=10_000).filter(|&n| n != 9_000))).expect("large enough");
        assert_eq!(lost.wrong, [(9_000 % SLOTS, 9_000, Some(9_000 - SLOTS))]);
        let late = verify(&disk((1..=10_000).chain([9_500 - SLOTS]))).expect("large enough");
        assert_eq!(late.wrong, [(9_500 % SLOTS, 9_500, Some(9_500 - SLOTS))]);
        let mut torn = disk(1..=100);
        torn[offset(50) as usize + 8] ^= 1;
        assert_eq!(verify(&torn).expect("large enough").wrong, [(50, 50, None)]);
        assert_eq!(verify(&[0; 100]), Err(TooSmall { bytes: 100 }));
    }
}
