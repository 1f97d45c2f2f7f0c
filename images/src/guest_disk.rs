//! The guest's own disk: what Debian's grub for PVH guests boots, as a Debian installed on it would be booted.
//!
//! ```text
//! 0       partition table
//! 1 MiB   the counter's ring (counter.rs), outside any file system
//! 4 MiB   ext2: /boot/grub/grub.cfg, /boot/vmlinuz, /boot/initrd
//! ```
//! Owns: the disk's bytes, the same for the same kernel and initrd.

use crate::counter::{RING_OFFSET, SLOT_BYTES, SLOTS};
use crate::{BuildError, run};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Where the file system begins, bytes.
pub const FILES_OFFSET: u64 = 4 << 20;
const _: () = assert!(FILES_OFFSET >= RING_OFFSET + SLOTS * SLOT_BYTES as u64, "the ring is below the file system");

/// Room beside the kernel and the initrd, for a newer kernel.
const SPARE_BYTES: u64 = 8 << 20;
const SECTOR_BYTES: u64 = 512;
/// A fixed identity: a random one would differ from build to build.
const UUID: &str = "74737562-616d-4500-8000-677565737431";

/// A guest that boots its own disk gets its address by DHCP: nobody can hand it a command line.
const GRUB_CFG: &str = "set timeout=0
linux /boot/vmlinuz console=hvc0 quiet guest.ip=dhcp
initrd /boot/initrd
boot
";

/// Writes the disk image. `work` is a directory for files in between; they are removed at the end.
///
/// # Errors
/// A file that cannot be read or written; mke2fs or debugfs (package `e2fsprogs`) missing or failing.
pub fn build(kernel: &Path, initrd: &Path, disk: &Path, work: &Path) -> Result<(), BuildError> {
    let size = |path: &Path| fs::metadata(path).map(|m| m.len()).map_err(BuildError::file("reading", path));
    let bytes = (size(kernel)? + size(initrd)? + SPARE_BYTES).next_multiple_of(1 << 20);
    let (files, menu, script) = (work.join("guest.ext2"), work.join("guest.grub"), work.join("guest.debugfs"));
    fs::write(&menu, GRUB_CFG).map_err(BuildError::file("writing", &menu))?;
    let contents = [(kernel, "boot/vmlinuz"), (initrd, "boot/initrd"), (&menu, "boot/grub/grub.cfg")];
    make_files(&files, bytes, &contents, &script)?;
    put_together(&files, bytes, disk).map_err(BuildError::file("writing", disk))?;
    for path in [&files, &menu, &script] {
        fs::remove_file(path).map_err(BuildError::file("clearing", path))?;
    }
    Ok(())
}

/// Makes the file system without mounting it: needs no root and leaves no time of access behind.
fn make_files(image: &Path, bytes: u64, contents: &[(&Path, &str)], script: &Path) -> Result<(), BuildError> {
    File::create(image).and_then(|f| f.set_len(bytes)).map_err(BuildError::file("making", image))?;
    // Both tools take this for the present.
    const NOW: (&str, &str) = ("E2FSPROGS_FAKE_TIME", "1");
    run(Command::new("mke2fs")
        .env(NOW.0, NOW.1)
        .args(["-q", "-F", "-t", "ext2", "-b", "1024", "-m", "0", "-N", "64", "-L", "guest", "-U", UUID])
        .args(["-O", "none,filetype,sparse_super", "-E", &format!("hash_seed={UUID},lazy_itable_init=0")])
        .arg(image))?;
    let mut commands = String::from("mkdir boot\nmkdir boot/grub\n");
    for (from, to) in contents {
        commands.push_str(&format!("write \"{}\" {to}\n", from.display()));
    }
    fs::write(script, commands).map_err(BuildError::file("writing", script))?;
    run(Command::new("debugfs").env(NOW.0, NOW.1).arg("-w").arg("-f").arg(script).arg(image))?;
    // debugfs ends well whatever failed within it.
    for (from, to) in contents {
        let dumped = Command::new("debugfs").arg("-R").arg(format!("cat {to}")).arg(image).output();
        let dumped = dumped.map_err(BuildError::file("reading back", image))?.stdout;
        if dumped != fs::read(from).map_err(BuildError::file("reading", from))? {
            return Err(BuildError::file("writing", image)(io::Error::other(format!("{to} is not there as a whole"))));
        }
    }
    Ok(())
}

fn put_together(files: &Path, bytes: u64, disk: &Path) -> io::Result<()> {
    let out = File::create(disk)?;
    out.write_all_at(&partition_table(FILES_OFFSET, bytes), 0)?;
    out.write_all_at(&fs::read(files)?, FILES_OFFSET)?;
    out.sync_all()
}

/// A master boot record with one Linux partition, by sector numbers alone.
fn partition_table(start: u64, bytes: u64) -> [u8; SECTOR_BYTES as usize] {
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR_BYTES).expect("a guest's disk image is far below 2 TiB");
    let mut record = [0; SECTOR_BYTES as usize];
    let entry = &mut record[446..462];
    // Cylinders, heads and sectors out of range: readers take the sector numbers that follow.
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = 0x83;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&sectors(start).to_le_bytes());
    entry[12..16].copy_from_slice(&sectors(bytes).to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_kernel_and_initrd_give_the_same_disk() {
        let work = tempfile::tempdir().expect("a directory");
        let path = |name: &str| work.path().join(name);
        fs::write(path("k"), vec![7; 300_000]).expect("written");
        fs::write(path("i"), vec![9; 100_001]).expect("written");
        build(&path("k"), &path("i"), &path("one"), work.path()).expect("mke2fs and debugfs run: package e2fsprogs");
        build(&path("k"), &path("i"), &path("two"), work.path()).expect("again");
        let (one, two) = (fs::read(path("one")).expect("read"), fs::read(path("two")).expect("read"));
        assert!(one == two, "two builds differ");
        assert_eq!(crate::counter::verify(&one).expect("large enough").last, 0, "the ring is empty");
        let files = path("files");
        fs::write(&files, &one[FILES_OFFSET as usize..]).expect("written");
        run(Command::new("e2fsck").args(["-f", "-n"]).arg(&files)).expect("a whole file system");
        // Both builds may lie in one second; so look that no time of theirs is in it at all.
        let shown =
            Command::new("debugfs").args(["-R", "stat boot/vmlinuz"]).arg(&files).output().expect("runs").stdout;
        assert_eq!(String::from_utf8_lossy(&shown).matches("time: 0x00000001:").count(), 4);
    }
}
