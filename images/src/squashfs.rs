//! Writes dom0's image: a squashfs (Linux, Documentation/filesystems/squashfs.rst), compressed by zstd.
//!
//! Owns: the bytes. The same entries give the same bytes: owner root, time zero, no extended attributes.

use crate::cpio::{Entry, Tree};
use crate::{BuildError, run};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Writes the file system. `work` is a directory for the files in between, which are removed at the end.
///
/// # Errors
/// A file that cannot be read or written; a device, which a system with devtmpfs needs none of; mksquashfs (package
/// `squashfs-tools`) missing or failing.
pub fn write(tree: &Tree, out: &Path, work: &Path) -> Result<(), BuildError> {
    let root = work.join("squashfs-root");
    if root.exists() {
        fs::remove_dir_all(&root).map_err(BuildError::file("clearing", &root))?;
    }
    make_directory(&root)?;
    for (path, entry) in tree.iter() {
        let at = root.join(path);
        match entry {
            Entry::Directory => make_directory(&at)?,
            Entry::File(data, program) => {
                fs::write(&at, data).map_err(BuildError::file("writing", &at))?;
                mode(&at, if *program { 0o755 } else { 0o644 })?;
            }
            Entry::Link(target) => symlink(target, &at).map_err(BuildError::file("linking", &at))?,
            Entry::Device(..) => {
                let err = std::io::Error::other("is a device, and an image has none");
                return Err(BuildError::file("writing", &at)(err));
            }
        }
    }
    // Over a file that is there mksquashfs would ask for -noappend; `out` is new.
    run(Command::new("mksquashfs").arg(&root).arg(out).args([
        "-quiet",
        "-no-progress",
        "-no-xattrs",
        "-all-root",
        "-comp",
        "zstd",
        "-mkfs-time",
        "0",
        "-all-time",
        "0",
    ]))?;
    fs::remove_dir_all(&root).map_err(BuildError::file("clearing", &root))
}

fn make_directory(at: &Path) -> Result<(), BuildError> {
    fs::create_dir(at).map_err(BuildError::file("making", at))?;
    mode(at, 0o755)
}

fn mode(at: &Path, mode: u32) -> Result<(), BuildError> {
    fs::set_permissions(at, fs::Permissions::from_mode(mode)).map_err(BuildError::file("setting the mode of", at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        let work = tempfile::tempdir().expect("a directory");
        let mut tree = Tree::default();
        tree.put("usr/bin/a", Entry::File(b"hello\n".to_vec(), true));
        tree.put("etc/b", Entry::File(vec![7; 300_000], false));
        tree.put("bin", Entry::Link("usr/bin".into()));
        let image = |name: &str| {
            let out = work.path().join(name);
            write(&tree, &out, work.path()).expect("mksquashfs runs; `make setup` installs it");
            fs::read(out).expect("it is there")
        };
        let one = image("one");
        // Times of files are in seconds: the second is made within another one.
        let second =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let began = second();
        while second() == began {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(one == image("two"), "two images of the same entries differ");
        assert_eq!(one[..4], *b"hsqs");
        let listed =
            Command::new("unsquashfs").arg("-lln").arg(work.path().join("one")).output().expect("unsquashfs runs");
        let listed = String::from_utf8_lossy(&listed.stdout);
        let line = |name: &str| {
            let line = listed.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {listed}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("usr/bin/a"), "-rwxr-xr-x 0/0 6 1970-01-01 00:00 squashfs-root/usr/bin/a");
        assert_eq!(line("etc/b"), "-rw-r--r-- 0/0 300000 1970-01-01 00:00 squashfs-root/etc/b");
        assert!(!work.path().join("squashfs-root").exists());
    }

    #[test]
    fn a_device_is_refused() {
        let work = tempfile::tempdir().expect("a directory");
        let mut tree = Tree::default();
        tree.put("dev/console", Entry::Device(5, 1));
        let err = write(&tree, &work.path().join("image"), work.path()).expect_err("a device");
        assert!(err.to_string().ends_with("dev/console: is a device, and an image has none"), "{err}");
    }
}
