//! One machine, several network cards: which host a card that asks belongs to.
//!
//! Owns: the comparison of machine identifiers (option 97), and the rule. Never does: merge two machines on the strength of
//! an identifier alone; boards are sold with the same one in all of them.
//!
//! A card is a host's own when that host was let in and its agent said that the card is in it (inventory), unless the
//! identifier says otherwise. All cards of a host then share its record and its address, so that it does not matter from
//! which of them the ROM, the loader and dom0 ask.

use super::BootRequest;
use crate::Rack;
use crate::record::HostRecord;
use proto::{HostId, Mac};

/// A SMBIOS system UUID, whichever way round: ROMs send the first three fields little-endian, as SMBIOS has them, iPXE as
/// RFC 4122 does, and old versions of either the other way. Of the two readings the smaller stands for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineId([u8; 16]);

/// UUIDs that makers leave in: all zeros, all ones, and AMI's sample.
const PLACEHOLDERS: [u128; 3] = [0, u128::MAX, 0x0300_0200_0400_0500_0006_0007_0008_0009];

impl MachineId {
    fn new(uuid: [u8; 16]) -> Option<Self> {
        let mut other = uuid;
        other[..4].reverse();
        other[4..6].reverse();
        other[6..8].reverse();
        let placeholder = |bytes| PLACEHOLDERS.contains(&u128::from_be_bytes(bytes));
        (!placeholder(uuid) && !placeholder(other)).then(|| Self(uuid.min(other)))
    }

    /// From option 97: a type, which is 0, and 16 bytes (RFC 4578 §2.3).
    pub(crate) fn of_option(value: &[u8]) -> Option<Self> {
        match value {
            [0, uuid @ ..] => Self::new(uuid.try_into().ok()?),
            _ => None,
        }
    }

    /// From an inventory's text, as `12345678-1234-1234-1234-123456789abc`.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|&c| c != '-').collect();
        let hexadecimal = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let uuid = if hexadecimal { u128::from_str_radix(&digits, 16).ok()? } else { return None };
        Self::new(uuid.to_be_bytes())
    }
}

impl HostRecord {
    /// Whether its agent said that this card is in it, and `machine` does not say otherwise.
    fn holds(&self, mac: Mac, machine: Option<MachineId>) -> bool {
        let Some(inventory) = self.inventory.as_ref().filter(|_| self.accepted) else { return false };
        let own = MachineId::of_text(&inventory.uuid);
        inventory.nics.iter().any(|nic| nic.mac == mac) && (machine.is_none() || own.is_none() || machine == own)
    }
}

impl Rack {
    /// The host that a card belongs to, or would be.
    pub(crate) fn host_of(&self, mac: Mac) -> HostId {
        self.cards.get(&mac).filter(|host| self.hosts.contains(host)).cloned().unwrap_or_else(|| HostId::of(mac))
    }

    /// The card under which the host's lease stands: that by which it was first known.
    pub(crate) fn first_card(&self, mac: Mac) -> Mac {
        self.hosts.get(&self.host_of(mac)).map_or(mac, |host| host.mac)
    }

    /// Finds out to which host a card belongs that asks for an address.
    pub(crate) fn recognise(&mut self, request: &BootRequest) {
        let mac = request.mac;
        // A host known by this card itself keeps it; a record of a mere passer-by does not count.
        let settled = |host: &HostRecord| host.accepted || host.registered || host.joined();
        if self.vm_macs.contains_key(&mac) || self.hosts.get(&HostId::of(mac)).is_some_and(settled) {
            self.cards.remove(&mac);
            return;
        }
        let machine = request.machine_id.as_deref().and_then(MachineId::of_option);
        let mut holders = self.hosts.values().filter(|host| host.holds(mac, machine));
        let (holder, another) = (holders.next(), holders.next());
        // A host that is up through another card is not booting from this one, unless its identifier says that it is.
        let fits = |host: &&HostRecord| machine.is_some() && has_machine(host) || !self.present(&host.id);
        match holder.filter(|_| another.is_none()).filter(fits).map(|host| host.id.clone()) {
            Some(host) => {
                self.cards.insert(mac, host);
            }
            None => {
                self.cards.remove(&mac);
            }
        }
    }
}

fn has_machine(host: &HostRecord) -> bool {
    host.inventory.as_ref().is_some_and(|inventory| MachineId::of_text(&inventory.uuid).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_either_way_round() {
        let text = MachineId::of_text("00112233-4455-6677-8899-aabbccddeeff");
        assert!(text.is_some());
        let option = |uuid: u128| MachineId::of_option(&[&[0][..], &uuid.to_be_bytes()].concat());
        assert_eq!(option(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), text, "as iPXE sends it");
        assert_eq!(option(0x3322_1100_5544_7766_8899_aabb_ccdd_eeff), text, "as a ROM sends it");
        assert_ne!(option(0x0011_2233_4455_6677_8899_aabb_ccdd_eefe), text);
        for nobodys in [0, u128::MAX, 0x0002_0003_0004_0005_0006_0007_0008_0009] {
            assert_eq!(option(nobodys), None, "{nobodys:032x}");
        }
        assert_eq!(MachineId::of_option(&[1; 17]), None, "not of type 0");
        assert_eq!(MachineId::of_option(&[0; 9]), None);
        assert_eq!(MachineId::of_text("Not Specified"), None);
    }
}
