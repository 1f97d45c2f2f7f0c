//! The files of releases on disk, each under its sha256.
//!
//! Owns: that what stands under a digest has that digest and was made durable before it got its name; room on the disk. Never does: know which
//! release a file is of; serve one that is not whole.
//!
//! ```text
//! STATE/releases/incoming/SHA256   grows by appended parts; gone after a restart
//!        | whole: read through, its digest right, synced
//!        v rename, directory synced
//! STATE/releases/files/SHA256      never changes; removed when no release names it
//! ```

use crate::config::files::{ServedFile, hex};
use crate::state_dir;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Read at once, bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// Why a file was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system said no.
    #[error("{doing} {}: {err}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        err: io::Error,
    },
    /// The disk would be full.
    #[error(
        "{} has {} MiB free, and {} MiB more are needed with {} MiB left over; delete releases or make room",
        path.display(), free >> 20, (needed + (1 << 20) - 1) >> 20, reserve >> 20
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes to come.
        needed: u64,
        /// Bytes to be left.
        reserve: u64,
    },
    /// What came is not what was announced. Nothing of it is kept.
    #[error("the file's sha256 is {found}, expected {expected}")]
    Digest {
        /// As announced.
        expected: String,
        /// As it came.
        found: String,
    },
    /// A part does not follow what is here.
    #[error("a part begins at byte {given}, expected {expected}")]
    Offset {
        /// Where it was said to begin.
        given: u64,
        /// What is here.
        expected: u64,
    },
    /// More came than was announced. Nothing of it is kept.
    #[error("the file has {found} bytes or more, expected {expected}")]
    TooLong {
        /// As announced.
        expected: u64,
        /// What came.
        found: u64,
    },
}

/// The files of a state directory. One of these at a time.
#[derive(Debug)]
pub struct Files {
    files: PathBuf,
    incoming: PathBuf,
    reserve_bytes: u64,
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |err| FileError::Io { doing, path, err }
}

impl Files {
    /// Opens the directory, and clears away what had not come whole.
    pub fn open(state: &Path, reserve_bytes: u64) -> Result<Self, FileError> {
        let dir = state.join("releases");
        let (files, incoming) = (dir.join("files"), dir.join("incoming"));
        match fs::remove_dir_all(&incoming) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(io("clearing", &incoming)(err)),
            _ => {}
        }
        for dir in [&files, &incoming] {
            fs::create_dir_all(dir).map_err(io("making", dir))?;
        }
        Ok(Self { files, incoming, reserve_bytes })
    }

    /// Where a file is, whether it is there or not. `sha256` has been checked to be 64 hexadecimal digits.
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.files.join(sha256)
    }

    /// Whether a file is here, whole.
    pub fn has(&self, sha256: &str, bytes: u64) -> bool {
        fs::metadata(self.path(sha256)).is_ok_and(|meta| meta.is_file() && meta.len() == bytes)
    }

    /// Bytes of a file that are here, whole or not.
    pub fn have(&self, sha256: &str, bytes: u64) -> u64 {
        if self.has(sha256, bytes) {
            return bytes;
        }
        fs::metadata(self.incoming.join(sha256)).map_or(0, |meta| meta.len())
    }

    /// Whether so many bytes more may come.
    pub fn room_for(&self, needed: u64) -> Result<(), FileError> {
        let free = state_dir::free_bytes(&self.files).map_err(io("asking for the room on", &self.files))?;
        if free < needed.saturating_add(self.reserve_bytes) {
            let (path, reserve) = (self.files.clone(), self.reserve_bytes);
            return Err(FileError::NoRoom { path, free, needed, reserve });
        }
        Ok(())
    }

    /// Copies a file in whose digest was taken before.
    pub fn copy(&self, from: &ServedFile) -> Result<(), FileError> {
        if self.has(&from.sha256, from.bytes) {
            return Ok(());
        }
        self.room_for(from.bytes)?;
        let part = self.incoming.join(&from.sha256);
        let copied = fs::copy(&from.path, &part).map(drop).map_err(io("copying", &from.path));
        self.keep_or_clear(&part, copied.and_then(|()| self.finish(&from.sha256)))
    }

    /// Appends a part that begins at `offset`. Returns how many bytes are here, and whether that is the whole.
    pub fn append(&self, sha256: &str, bytes: u64, offset: u64, data: &[u8]) -> Result<(u64, bool), FileError> {
        if self.has(sha256, bytes) {
            return Ok((bytes, true));
        }
        let part = self.incoming.join(sha256);
        let have = fs::metadata(&part).map_or(0, |meta| meta.len());
        if have != offset {
            return Err(FileError::Offset { given: offset, expected: have });
        }
        let found = have + data.len() as u64;
        if found > bytes {
            return self.keep_or_clear(&part, Err(FileError::TooLong { expected: bytes, found }));
        }
        let append = || {
            self.room_for(data.len() as u64)?;
            let mut file =
                OpenOptions::new().create(true).append(true).mode(0o600).open(&part).map_err(io("opening", &part))?;
            file.write_all(data).map_err(io("writing", &part))?;
            if found < bytes {
                return Ok((found, false));
            }
            self.finish(sha256)?;
            Ok((found, true))
        };
        self.keep_or_clear(&part, append())
    }

    /// A failure leaves nothing of a file.
    fn keep_or_clear<T>(&self, part: &Path, result: Result<T, FileError>) -> Result<T, FileError> {
        if result.is_err() {
            // The error that is told is the first one.
            let _ = fs::remove_file(part);
        }
        result
    }

    /// Reads what came back from the disk, and gives it its name.
    fn finish(&self, sha256: &str) -> Result<(), FileError> {
        let (part, path) = (self.incoming.join(sha256), self.path(sha256));
        let mut file = File::open(&part).map_err(io("opening", &part))?;
        file.sync_all().map_err(io("writing", &part))?;
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk).map_err(io("reading", &part))? {
                0 => break,
                n => hasher.update(&chunk[..n]),
            }
        }
        let found = hex(&hasher.finalize());
        if found != sha256 {
            return Err(FileError::Digest { expected: sha256.to_owned(), found });
        }
        fs::rename(&part, &path).map_err(io("naming", &path))?;
        state_dir::sync(&self.files).map_err(io("writing", &self.files))
    }

    /// Removes all files but these, whole or not. What cannot be removed stays until the next time.
    pub fn sweep(&self, keep: &BTreeSet<String>) -> Result<usize, FileError> {
        let mut removed = 0;
        for dir in [&self.files, &self.incoming] {
            for entry in fs::read_dir(dir).map_err(io("reading", dir))? {
                let entry = entry.map_err(io("reading", dir))?;
                let named = entry.file_name().to_str().is_some_and(|name| keep.contains(name));
                if !named && fs::remove_file(entry.path()).is_ok() {
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn digest(content: &[u8]) -> String {
        hex(&Sha256::digest(content))
    }

    fn files() -> (TempDir, Files) {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::open(dir.path(), 0).expect("opened");
        (dir, files)
    }

    fn nothing_incoming(files: &Files) {
        assert_eq!(fs::read_dir(&files.incoming).expect("there").count(), 0);
    }

    #[test]
    fn parts_make_a_whole() {
        let (dir, files) = files();
        let content = b"some content of a file";
        let (sha256, bytes) = (digest(content), content.len() as u64);
        assert_eq!(files.append(&sha256, bytes, 0, &content[..10]).expect("a part"), (10, false));
        assert!(!files.path(&sha256).exists(), "what is half here has no name");
        assert_eq!(files.have(&sha256, bytes), 10);
        let err = files.append(&sha256, bytes, 5, &content[5..]).expect_err("not where it ends");
        assert_eq!(err.to_string(), "a part begins at byte 5, expected 10");
        // That changed nothing.
        assert_eq!(files.append(&sha256, bytes, 10, &content[10..]).expect("the rest"), (bytes, true));
        assert_eq!(fs::read(files.path(&sha256)).expect("read"), content);
        // What comes again changes nothing.
        assert_eq!(files.append(&sha256, bytes, 0, b"other").expect("known"), (bytes, true));
        nothing_incoming(&files);
        let again = Files::open(dir.path(), 0).expect("opened");
        assert!(again.has(&sha256, bytes));
    }

    #[test]
    fn what_is_not_as_announced_leaves_nothing() {
        let (dir, files) = files();
        let sha256 = digest(b"right");
        let err = files.append(&sha256, 5, 0, b"wrong").expect_err("another digest");
        assert!(matches!(err, FileError::Digest { .. }), "{err}");
        nothing_incoming(&files);
        let err = files.append(&sha256, 5, 0, b"right and more").expect_err("too long");
        assert!(matches!(err, FileError::TooLong { .. }), "{err}");
        nothing_incoming(&files);
        files.append(&sha256, 5, 0, b"rig").expect("a part");
        // A restart forgets what had not come whole.
        let files = Files::open(dir.path(), 0).expect("opened");
        nothing_incoming(&files);
        assert!(!files.has(&sha256, 5));
        // A copy that changed since its digest was taken is no copy of it.
        let from = dir.path().join("from");
        fs::write(&from, "right").expect("written");
        let served = ServedFile::digest(&from).expect("a digest");
        fs::write(&from, "wrong").expect("written");
        let err = files.copy(&served).expect_err("changed");
        assert!(matches!(err, FileError::Digest { .. }), "{err}");
        nothing_incoming(&files);
        fs::write(&from, "right").expect("written");
        files.copy(&served).expect("copied");
        assert!(files.has(&sha256, 5));
    }

    #[test]
    fn what_is_named_stays() {
        let (_dir, files) = files();
        let keep = [b"a".as_slice(), b"b"].map(digest);
        for content in [b"a".as_slice(), b"b", b"c"] {
            files.append(&digest(content), 1, 0, content).expect("whole");
        }
        files.append(&digest(b"dd"), 2, 0, b"d").expect("a part");
        assert_eq!(files.sweep(&keep.clone().into()).expect("swept"), 2);
        assert!(keep.iter().all(|sha256| files.has(sha256, 1)));
        nothing_incoming(&files);
    }

    /// A file system of 1 MiB, in a mount namespace of this thread's own.
    #[test]
    fn a_full_disk_is_told_and_nothing_is_left() {
        state_dir::on_small_file_system("1m", |state| {
            let content = vec![7; 2 << 20];
            let (sha256, bytes) = (digest(&content), content.len() as u64);
            // By reckoning, before anything is written.
            let files = Files::open(state, 256 << 10).expect("opened");
            let err = files.room_for(bytes).expect_err("too much");
            assert!(err.to_string().contains("2 MiB more are needed with 0 MiB left over"), "{err}");
            files.append(&sha256, bytes, 0, &content[..512 << 10]).expect("there is room for this");
            let err = files.append(&sha256, bytes, 512 << 10, &content[512 << 10..]).expect_err("and not for that");
            assert!(matches!(err, FileError::NoRoom { .. }), "{err}");
            nothing_incoming(&files);
            // And by the system's own word, where the reckoning was overtaken.
            let others = state.join("others");
            fs::write(&others, vec![1; 900 << 10]).expect("others write as well");
            let part = files.incoming.join(&sha256);
            let written = fs::write(&part, &content).map_err(io("writing", &part));
            let err = files.keep_or_clear(&part, written).expect_err("no space left");
            assert!(err.to_string().contains("No space left on device"), "{err}");
            nothing_incoming(&files);
            fs::remove_file(&others).expect("removed");
            files.append(&digest(b"small"), 5, 0, b"small").expect("there is room again");
        });
    }
}
