//! Files that are served: found, measured and digested once. They must not change while the server runs; who serves
//! one checks its length again.

use proto::release::{BuiltManifest, ReleaseFile};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A file and what it was when the configuration was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedFile {
    /// Where it is.
    pub path: PathBuf,
    /// sha256, 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub bytes: u64,
}

impl ServedFile {
    /// Reads a file through.
    pub fn digest(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; 256 * 1024];
        let mut bytes = 0;
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                n => {
                    hasher.update(&chunk[..n]);
                    bytes += n as u64;
                }
            }
        }
        Ok(Self { path: path.to_owned(), sha256: hex(&hasher.finalize()), bytes })
    }

    /// As a release names it.
    pub fn named(&self) -> ReleaseFile {
        ReleaseFile { sha256: self.sha256.clone(), bytes: self.bytes }
    }
}

/// Reads what a release says of itself, in `manifest.json`; `None` when it has none.
pub(super) fn built_manifest(release: &Path) -> io::Result<Option<BuiltManifest>> {
    match std::fs::read(release.join("manifest.json")) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Hexadecimal digits in lower case.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
