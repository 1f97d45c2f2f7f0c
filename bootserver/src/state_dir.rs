//! The state directory: what is in it, and that one server alone uses it.
//!
//! ```text
//! STATE/                  0700
//!   lock                  held (flock) while a server runs
//!   store.sqlite          every record (store), with -wal and -shm beside it
//!   backups/              backups, unless the configuration names another directory (backup)
//!   restore.part          what is to be the store, as long as a restore has not ended (backup)
//!   ca.pem                CA's key and certificate, 0600 (ca)
//!   server.pem            our TLS key and certificate, 0600; made anew when names change or it grows old (ca)
//!   operator/             password (argon2), set-up code and sessions (sha256 of each), 0600 (operators::session)
//!   disks/                disks of guests (storage)
//! ```

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Left free on its file system for the store of records, whose next commit must not fail, bytes.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("{doing} {path}: {err}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        err: io::Error,
    },
    /// Another server has it.
    #[error("another bootserver uses {path}; stop it first, or name another state directory")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A directory's lock; given up when dropped, also by a crash.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] Flock<File>); // held, never read

/// Makes the directory if need be and locks it.
pub fn lock(state: &Path) -> Result<Lock, StateError> {
    hold(state, "lock", FlockArg::LockExclusiveNonblock)
}

/// Makes a directory if need be, and waits until nobody else has its lock of this name.
pub fn wait_for(dir: &Path, name: &str) -> Result<Lock, StateError> {
    hold(dir, name, FlockArg::LockExclusive)
}

fn hold(dir: &Path, name: &str, how: FlockArg) -> Result<Lock, StateError> {
    make(dir)?;
    let path = dir.join(name);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(|err| StateError::Io { doing: "opening", path: path.clone(), err })?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Lock(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StateError::InUse { path: dir.to_owned() }),
        Err((_, err)) => Err(StateError::Io { doing: "locking", path, err: err.into() }),
    }
}

/// Makes a directory that only its owner may enter.
pub fn make(dir: &Path) -> Result<(), StateError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|err| StateError::Io { doing: "making directory", path: dir.to_owned(), err })
}

/// Bytes that are free on a directory's file system, for who may not use what is reserved for root.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = statvfs(dir)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Removes a file; that it is gone already is success.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|err| if err.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(err) })
}

/// Makes durable what was made, named or removed in a directory.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Puts a file in place as a whole, durably, readable by its owner only.
pub fn write(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let part = path.with_extension("part");
    let put = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        sync(path.parent().unwrap_or(Path::new(".")))
    };
    put().map_err(|err| StateError::Io { doing: "writing", path: path.to_owned(), err })
}

/// A file's text; `None` when it is not there.
pub fn read(path: &Path) -> Result<Option<String>, StateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(StateError::Io { doing: "reading", path: path.to_owned(), err }),
    }
}

/// Does a test on a small file system, in a mount namespace of a thread's own; `size` is tmpfs's.
#[cfg(test)]
pub(crate) fn on_small_file_system(size: &'static str, test: impl FnOnce(&Path) + Send + 'static) {
    use nix::mount::{MsFlags, mount};
    assert!(nix::unistd::geteuid().is_root(), "this test needs root, for a mount of its own");
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().to_owned();
    let tried = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a namespace");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
        mount_small(&root, size);
        test(&root);
    });
    tried.join().expect("what it had to show");
}

/// Mounts another within such a test.
#[cfg(test)]
pub(crate) fn mount_small(at: &Path, size: &str) {
    use nix::mount::{MsFlags, mount};
    let size = format!("size={size}");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("mounted");
}
