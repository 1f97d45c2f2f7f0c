//! One file that holds all of dom0's boot: Xen's EFI binary with its configuration, dom0's kernel and its initrd as sections (Xen
//! docs/misc/efi.pandoc, "Unified Xen kernel image"). A signature over it is a signature over all four.
//!
//! ```text
//! ImageBase ── .text … .pad ── SizeOfImage │ .config │ .kernel │ .ramdisk │ the new SizeOfImage
//!                              as it was     each from a multiple of SectionAlignment
//! ```
//! Owns: where each section goes, and that it went there. Never does: sign; `keys` does.

use crate::{BuildError, run};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Layout of a PE32+ binary (Microsoft PE/COFF, "Optional Header").
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    image_base: u64,
    section_alignment: u64,
    size_of_image: u64,
    /// Name, address from the base, bytes in memory, place in the file, bytes in the file.
    sections: Vec<Section>,
    /// Offset in the file of the time of the build.
    time_at: usize,
    /// Offset in the file of the checksum, which firmware does not look at.
    checksum_at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    name: String,
    address: u64,
    file_at: u64,
    file_bytes: u64,
}

/// Puts Xen, its configuration, dom0's kernel and initrd into one file.
///
/// # Errors
/// A file that cannot be read or written; an EFI binary that is none; objcopy (package `binutils`) missing, failing, or placing a section
/// elsewhere than it was told.
pub fn build(xen: &Path, configuration: &Path, kernel: &Path, initrd: &Path, out: &Path) -> Result<(), BuildError> {
    let read = |path: &Path| fs::read(path).map_err(BuildError::file("reading", path));
    let parts = [(".config", configuration), (".kernel", kernel), (".ramdisk", initrd)];
    let contents = parts.iter().map(|(_, file)| read(file)).collect::<Result<Vec<_>, _>>()?;
    let layout = parse(&read(xen)?).map_err(|why| other("reading", xen, why))?;
    let lengths: Vec<u64> = contents.iter().map(|bytes| bytes.len() as u64).collect();
    let (addresses, end) = layout.places(&lengths);
    let mut command = Command::new("objcopy");
    for ((name, file), address) in parts.iter().zip(&addresses) {
        command
            .arg("--add-section")
            .arg(format!("{name}={}", file.display()))
            .arg("--change-section-vma")
            .arg(format!("{name}={:#x}", layout.image_base + address))
            .arg("--set-section-flags")
            .arg(format!("{name}=alloc,load,readonly,data"));
    }
    run(command.arg(xen).arg(out))?;
    let mut bytes = read(out)?;
    let made = parse(&bytes).map_err(|why| other("reading", out, why))?;
    if made.size_of_image != end {
        let why = format!("SizeOfImage is {:#x}, expected {end:#x}", made.size_of_image);
        return Err(other("checking", out, why));
    }
    for (((name, _), content), address) in parts.iter().zip(&contents).zip(&addresses) {
        let there = made.sections.iter().find(|s| s.name == *name && s.address == *address);
        let same = there.is_some_and(|s| s.content(&bytes).is_some_and(|held| held.starts_with(content)));
        if !same {
            return Err(other("checking", out, format!("section {name} is not at {address:#x} as it was given")));
        }
    }
    // objcopy writes the present there.
    bytes[made.time_at..made.time_at + 4].fill(0);
    bytes[made.checksum_at..made.checksum_at + 4].fill(0);
    fs::write(out, bytes).map_err(BuildError::file("writing", out))
}

fn other(doing: &'static str, path: &Path, why: String) -> BuildError {
    BuildError::file(doing, path)(std::io::Error::other(why))
}

impl Layout {
    /// Addresses from the base for sections of these lengths behind all that is there, and where the image ends then.
    fn places(&self, lengths: &[u64]) -> (Vec<u64>, u64) {
        // What Xen reserves behind its last section counts, so it is the header's word and not the sections' that says where it ends.
        let mut at = self.size_of_image.next_multiple_of(self.section_alignment);
        let mut addresses = Vec::new();
        for length in lengths {
            addresses.push(at);
            at = (at + length).next_multiple_of(self.section_alignment);
        }
        (addresses, at)
    }
}

impl Section {
    fn content<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        let at = usize::try_from(self.file_at).ok()?;
        file.get(at..at.checked_add(usize::try_from(self.file_bytes).ok()?)?)
    }
}

/// Reads the headers. `Err` says what is not as in a 64-bit EFI binary.
fn parse(file: &[u8]) -> Result<Layout, String> {
    let number = |at: usize, bytes: usize| -> Result<u64, String> {
        let part = file.get(at..at + bytes).ok_or_else(|| format!("ends before byte {}", at + bytes))?;
        Ok(part.iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte)))
    };
    let place = |at: usize| -> Result<usize, String> {
        usize::try_from(number(at, 4)?).map_err(|_| "has an offset beyond any file".to_owned())
    };
    if file.get(..2) != Some(b"MZ") {
        return Err("is no EFI binary: it does not begin with MZ".to_owned());
    }
    let coff = place(0x3c)?.saturating_add(4);
    if file.get(coff - 4..coff) != Some(b"PE\0\0") {
        return Err("is no EFI binary: it has no PE header".to_owned());
    }
    let (count, optional_bytes) = (number(coff + 2, 2)?, number(coff + 16, 2)?);
    let optional = coff + 20;
    if number(optional, 2)? != 0x20b {
        return Err("is no 64-bit EFI binary (PE32+)".to_owned());
    }
    let section_alignment = number(optional + 32, 4)?;
    if !section_alignment.is_power_of_two() {
        return Err(format!("has SectionAlignment {section_alignment:#x}, expected a power of two"));
    }
    let table = optional + usize::try_from(optional_bytes).unwrap_or_default();
    let mut sections = Vec::new();
    for at in (0..usize::try_from(count).unwrap_or_default()).map(|n| table + 40 * n) {
        let name = file.get(at..at + 8).ok_or("ends within its table of sections")?;
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let (address, file_bytes, file_at) = (number(at + 12, 4)?, number(at + 16, 4)?, number(at + 20, 4)?);
        sections.push(Section { name, address, file_at, file_bytes });
    }
    Ok(Layout {
        image_base: number(optional + 24, 8)?,
        section_alignment,
        size_of_image: number(optional + 56, 4)?,
        sections,
        time_at: coff + 4,
        checksum_at: optional + 64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of an EFI binary with one section.
    fn headers(section_alignment: u32, size_of_image: u32) -> Vec<u8> {
        let mut file = vec![0; 0x200];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &0x40u32.to_le_bytes());
        put(0x40, b"PE\0\0");
        put(0x44, &0x8664u16.to_le_bytes());
        put(0x46, &1u16.to_le_bytes());
        put(0x54, &0xf0u16.to_le_bytes());
        put(0x58, &0x20bu16.to_le_bytes());
        put(0x58 + 24, &0xffff_82d0_4000_0000u64.to_le_bytes());
        put(0x58 + 32, &section_alignment.to_le_bytes());
        put(0x58 + 56, &size_of_image.to_le_bytes());
        put(0x148, b".text\0\0\0");
        put(0x148 + 12, &0x1000u32.to_le_bytes());
        put(0x148 + 16, &0x10u32.to_le_bytes());
        put(0x148 + 20, &0x1f0u32.to_le_bytes());
        file
    }

    #[test]
    fn sections_go_behind_the_real_end() {
        let layout = parse(&headers(0x20_0000, 0x100_0000)).expect("headers");
        assert_eq!(layout.image_base, 0xffff_82d0_4000_0000);
        assert_eq!(layout.sections[0].content(&headers(0x1000, 0)).map(<[u8]>::len), Some(0x10));
        assert_eq!(layout.places(&[1, 0x20_0000, 0x20_0001]), (vec![0x100_0000, 0x120_0000, 0x140_0000], 0x180_0000));
        let layout = parse(&headers(0x1000, 0x1001)).expect("headers");
        assert_eq!(layout.places(&[5]), (vec![0x2000], 0x3000), "an end that is not aligned");
    }

    #[test]
    fn what_is_no_efi_binary_is_refused() {
        let good = headers(0x1000, 0x2000);
        let said = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut file = good.clone();
            change(&mut file);
            parse(&file).map_or_else(|why| why, |_| "taken".to_owned())
        };
        assert_eq!(said(&|_| ()), "taken");
        assert_eq!(said(&|f| f.clear()), "is no EFI binary: it does not begin with MZ");
        assert_eq!(said(&|f| f[0x40] = 0), "is no EFI binary: it has no PE header");
        assert_eq!(said(&|f| f[0x3c..0x40].fill(0xff)), "is no EFI binary: it has no PE header");
        assert_eq!(said(&|f| f[0x59] = 1), "is no 64-bit EFI binary (PE32+)");
        assert_eq!(said(&|f| f[0x58 + 32] = 3), "has SectionAlignment 0x1003, expected a power of two");
        assert_eq!(said(&|f| f.truncate(0x150)), "ends before byte 344");
        for end in 0..good.len() {
            let _ = parse(&good[..end]);
        }
    }
}
