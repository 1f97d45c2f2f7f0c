//! Writes initramfs archives: cpio "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Owns: the bytes. The same entries give the same bytes: owner root, time zero, inodes counted in order.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// A file system to be, by path without a leading `/`. Directories above an entry come by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file's content and whether it can be executed.
    File(Vec<u8>, bool),
    /// A symbolic link's target.
    Link(String),
    /// A character device: major, minor.
    Device(u32, u32),
}

impl Tree {
    /// Puts an entry, in the place of an older one at that path.
    pub fn put(&mut self, path: &str, entry: Entry) {
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Whether there is an entry.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// All entries in the order of their paths: a directory before what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// The archive. A file above 4 GiB is an error: the format has no place for it.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        for (inode, (path, entry)) in self.entries.iter().enumerate() {
            let (mode, data, device): (u32, &[u8], (u32, u32)) = match entry {
                Entry::Directory => (0o040_755, b"", (0, 0)),
                Entry::File(data, false) => (0o100_644, data, (0, 0)),
                Entry::File(data, true) => (0o100_755, data, (0, 0)),
                Entry::Link(target) => (0o120_777, target.as_bytes(), (0, 0)),
                Entry::Device(major, minor) => (0o020_600, b"", (*major, *minor)),
            };
            record(&mut out, inode + 1, path, mode, data, device)?;
        }
        record(&mut out, 0, "TRAILER!!!", 0, b"", (0, 0))?;
        Ok(out)
    }
}

fn record(out: &mut Vec<u8>, inode: usize, path: &str, mode: u32, data: &[u8], device: (u32, u32)) -> io::Result<()> {
    let size = u32::try_from(data.len()).map_err(|_| io::Error::other(format!("{path} is above 4 GiB")))?;
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let name_bytes = path.len() + 1;
    write!(
        out,
        "070701{inode:08X}{mode:08X}{:08X}{:08X}{links:08X}{:08X}{size:08X}{:08X}{:08X}{:08X}{:08X}{name_bytes:08X}{:08X}",
        0, 0, 0, 0, 0, device.0, device.1, 0
    )?;
    out.extend(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend(data);
    pad(out);
    Ok(())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn busybox_reads_it_back() {
        let mut tree = Tree::default();
        tree.put("usr/bin/a", Entry::File(b"hello\n".to_vec(), true));
        tree.put("bin", Entry::Link("usr/bin".into()));
        tree.put("dev/console", Entry::Device(5, 1));
        let mut cpio = Command::new("busybox")
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("busybox runs; the package busybox-static must be installed");
        let archive = tree.archive().expect("small files fit");
        cpio.stdin.take().expect("piped").write_all(&archive).expect("it reads all");
        let out = cpio.wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "bin\ndev\ndev/console\nusr\nusr/bin\nusr/bin/a\n");
        assert_eq!(archive, tree.archive().expect("again"), "the same entries give the same bytes");
    }
}
