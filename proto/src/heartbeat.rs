//! The heartbeat disk: one slot for each host, in the manner of sanlock and SBD.
//!
//! Owns: the form of a slot. Never does: reading or writing the disk.

use crate::ids::HostId;

/// Bytes of a slot: a block of any disk, so that one write is one command.
pub const SLOT_BYTES: usize = 4096;
/// Slots of the disk, and so hosts of a rack.
pub const SLOTS: u32 = 1024;
/// Size of the disk, MiB.
pub const DISK_MIB: u64 = (SLOTS as u64 * SLOT_BYTES as u64) >> 20;
/// Its name among the disks.
pub const DISK: &str = "tsubame-heartbeat";

const HEAD: &str = "tsubame heartbeat 1";

/// What a host says in its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Whose it is.
    pub host: HostId,
    /// Which boot of it, the join's nonce.
    pub boot: String,
    /// Rises with every write of this boot.
    pub counter: u64,
}

impl Slot {
    /// As it is written: lines of text, the rest zeros.
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let boot: String = self.boot.chars().filter(|c| !c.is_control()).take(64).collect();
        let text = format!("{HEAD}\n{}\n{boot}\n{}\n", self.host, self.counter);
        let mut bytes = [0; SLOT_BYTES];
        // A host's name has at most 63 bytes and a boot 64 characters: it always fits.
        bytes.iter_mut().zip(text.as_bytes()).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads a slot; none when nothing was written yet, or only half of it can be seen.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|&b| b == 0)?;
        let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != HEAD {
            return None;
        }
        let slot = Self {
            host: lines.next()?.parse().ok()?,
            boot: lines.next()?.to_owned(),
            counter: lines.next()?.parse().ok()?,
        };
        lines.next().is_none().then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_as_it_was_written() {
        let slot = Slot {
            host: "h525400aabb01".parse().expect("a name"),
            boot: "AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            counter: u64::MAX,
        };
        let bytes = slot.encode();
        assert_eq!(Slot::decode(&bytes), Some(slot.clone()));
        assert_eq!(Slot::decode(&[0; SLOT_BYTES]), None, "never written");
        assert_eq!(Slot::decode(&bytes[..30]), None, "half of it");
        assert_eq!(Slot::decode(&[b'x'; SLOT_BYTES]), None);
        let long = Slot { boot: "ü\n".repeat(SLOT_BYTES), ..slot };
        assert_eq!(Slot::decode(&long.encode()).map(|s| s.boot.chars().count()), Some(64), "cut, not spilt");
        assert_eq!(DISK_MIB, 4);
    }
}
