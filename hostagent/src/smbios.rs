//! The SMBIOS table (DMTF DSP0134 3.7): memory modules and the management controller.
//!
//! Owns: taking the table apart. Never does: read it, or believe it; whatever it says of its lengths, nothing is read beyond its end.

use proto::host::{Bmc, MemoryModule};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// §7.18, §7.39, §7.43.
const MEMORY_DEVICE: u8 = 17;
const IPMI_DEVICE: u8 = 38;
const HOST_INTERFACE: u8 = 42;
/// More than any machine has; a table has 64 KiB at most.
const STRUCTURES_MAX: usize = 8192;
/// §7.43.1 and DSP0270 §8.2: the protocol "Redfish over IP".
const REDFISH: u8 = 4;

/// One structure: its formatted part, and the texts behind it.
struct Structure<'a> {
    kind: u8,
    formatted: &'a [u8],
    texts: Vec<&'a [u8]>,
}

impl Structure<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.formatted.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.formatted.get(at..at + 2)?.try_into().ok()?))
    }

    fn dword(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.formatted.get(at..at + 4)?.try_into().ok()?))
    }

    /// The text whose number, counted from 1, stands at `at`.
    fn text(&self, at: usize) -> String {
        let number = usize::from(self.byte(at).unwrap_or(0));
        let text = number.checked_sub(1).and_then(|index| self.texts.get(index)).copied().unwrap_or_default();
        String::from_utf8_lossy(text).trim().to_owned()
    }
}

/// §6.1: each has its kind, the length of its formatted part, a handle, and its texts, ended by an empty one.
fn structures(mut table: &[u8]) -> Vec<Structure<'_>> {
    let mut all = Vec::new();
    while let [kind, length, _, _, ..] = *table {
        let length = usize::from(length);
        if length < 4 || length > table.len() || all.len() >= STRUCTURES_MAX {
            break;
        }
        let (formatted, mut rest) = table.split_at(length);
        let mut texts = Vec::new();
        while let Some(end) = rest.iter().position(|&byte| byte == 0) {
            let text = &rest[..end];
            rest = &rest[end + 1..];
            if text.is_empty() {
                break;
            }
            texts.push(text);
        }
        // Without any text there are two zeros all the same.
        if texts.is_empty() {
            rest = rest.strip_prefix(&[0]).unwrap_or(rest);
        }
        all.push(Structure { kind, formatted, texts });
        table = rest;
    }
    all
}

/// Memory modules in their places' order.
pub fn modules(table: &[u8]) -> Vec<MemoryModule> {
    let module = |s: &Structure<'_>| {
        let size_mib = match s.word(0x0c)? {
            0 | 0xffff => return None,
            // Too large for the field: in MiB, without the highest bit.
            0x7fff => u64::from(s.dword(0x1c)? & 0x7fff_ffff),
            kib if kib & 0x8000 != 0 => u64::from(kib & 0x7fff) / 1024,
            mib => u64::from(mib),
        };
        Some(MemoryModule {
            slot: s.text(0x10),
            size_mib,
            speed_mts: u32::from(s.word(0x15).filter(|&speed| speed != 0xffff).unwrap_or(0)),
            maker: s.text(0x17),
            serial: s.text(0x18),
            part: s.text(0x1a),
        })
    };
    structures(table).iter().filter(|s| s.kind == MEMORY_DEVICE).filter_map(module).collect()
}

/// The management controller; by Redfish where it has an address, else by IPMI.
pub fn bmc(table: &[u8]) -> Option<Bmc> {
    let all = structures(table);
    let redfish = all.iter().filter(|s| s.kind == HOST_INTERFACE).find_map(redfish_address);
    let ipmi = all.iter().find(|s| s.kind == IPMI_DEVICE).map(|s| match s.byte(4) {
        Some(1) => "KCS",
        Some(2) => "SMIC",
        Some(3) => "BT",
        Some(4) => "SSIF",
        _ => "IPMI",
    });
    match (redfish, ipmi) {
        (Some(address), _) => Some(Bmc { by: "Redfish".to_owned(), address: Some(address) }),
        (None, Some(by)) => Some(Bmc { by: by.to_owned(), address: None }),
        (None, None) => None,
    }
}

/// §7.43: the interface's own data, then records of protocols; of Redfish's the service's address (DSP0270 table 4), if it is fixed.
fn redfish_address(structure: &Structure<'_>) -> Option<IpAddr> {
    let own = usize::from(structure.byte(5)?);
    let mut records = usize::from(structure.byte(6 + own)?);
    let mut at = 7 + own;
    while records > 0 {
        let (protocol, length) = (structure.byte(at)?, usize::from(structure.byte(at + 1)?));
        let data = structure.formatted.get(at + 2..at + 2 + length)?;
        if protocol == REDFISH {
            let bytes: [u8; 16] = data.get(52..68)?.try_into().ok()?;
            let address = match data[51] {
                1 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
                2 => IpAddr::V6(Ipv6Addr::from(bytes)),
                _ => return None,
            };
            return Some(address).filter(|address| !address.is_unspecified());
        }
        at += 2 + length;
        records -= 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn structure(kind: u8, formatted: &[u8], texts: &[&str]) -> Vec<u8> {
        let mut all = vec![kind, u8::try_from(formatted.len() + 4).expect("short"), 0, 0];
        all.extend(formatted);
        for text in texts {
            all.extend(text.bytes().chain([0]));
        }
        if texts.is_empty() {
            all.push(0);
        }
        all.push(0);
        all
    }

    fn module(size: u16, extended: u32) -> Vec<u8> {
        let mut formatted = vec![0; 0x28 - 4];
        formatted[0x0c - 4..0x0e - 4].copy_from_slice(&size.to_le_bytes());
        (formatted[0x10 - 4], formatted[0x17 - 4], formatted[0x18 - 4], formatted[0x1a - 4]) = (1, 2, 3, 4);
        formatted[0x15 - 4..0x17 - 4].copy_from_slice(&3200u16.to_le_bytes());
        formatted[0x1c - 4..0x20 - 4].copy_from_slice(&extended.to_le_bytes());
        structure(17, &formatted, &["DIMM_A1", "Micron", "1234", "36ASF "])
    }

    fn redfish() -> Vec<u8> {
        let mut data = vec![0; 91];
        data[51] = 1;
        data[52..56].copy_from_slice(&[169, 254, 3, 1]);
        let mut formatted = vec![0x40, 2, 0, 0, 1, 4, 91];
        formatted.extend(data);
        structure(42, &formatted, &[])
    }

    #[test]
    fn a_server() {
        let mut table = structure(0, &[1, 2], &["BIOS"]);
        table.extend(module(16384, 0));
        table.extend(module(0, 0));
        table.extend(module(0x7fff, 65536));
        table.extend(structure(38, &[1, 0x20], &[]));
        table.extend(structure(127, &[], &[]));
        let sizes: Vec<u64> = modules(&table).iter().map(|m| m.size_mib).collect();
        assert_eq!(sizes, [16384, 65536]);
        expect![[r#"
            MemoryModule {
                slot: "DIMM_A1",
                size_mib: 16384,
                speed_mts: 3200,
                maker: "Micron",
                part: "36ASF",
                serial: "1234",
            }
        "#]]
        .assert_debug_eq(&modules(&table)[0]);
        assert_eq!(bmc(&table), Some(Bmc { by: "KCS".to_owned(), address: None }));
        table.extend(redfish());
        let address = Some(IpAddr::from([169, 254, 3, 1]));
        assert_eq!(bmc(&table), Some(Bmc { by: "Redfish".to_owned(), address }));
    }

    #[test]
    fn a_table_cut_anywhere_or_with_any_byte_changed() {
        let mut whole = module(16384, 0);
        whole.extend(structure(38, &[1, 0x20], &[]));
        whole.extend(redfish());
        for at in 0..whole.len() {
            let _ = (modules(&whole[..at]), bmc(&whole[..at]));
            for value in [0, 1, 3, 127, 255] {
                let mut changed = whole.clone();
                changed[at] = value;
                assert!(modules(&changed).len() <= whole.len() / 4);
                let _ = bmc(&changed);
            }
        }
        assert_eq!((modules(&[]), bmc(&[])), (Vec::new(), None));
    }
}
