//! The files that are served: found by their whole path, and handed out piece by piece from the page cache.

use super::pace::Pace;
use super::range::{Part, part};
use super::{Body, Reply, text as text_reply};
use crate::config::files::ServedFile;
use crate::rack_task::Handle;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nix::libc;
use rack::event::{BootFile, Event};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sent in one turn.
const PIECE_BYTES: u64 = 256 * 1024;
/// The rack is told at most this often of each file.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// The pace of all files together.
#[derive(Clone)]
pub struct Pacer {
    pace: Arc<Mutex<Pace>>,
    begun: Instant,
}

impl Pacer {
    /// So many bytes a second in all; 0 for no limit.
    pub fn new(rate_bytes_s: u64) -> Self {
        Self { pace: Arc::new(Mutex::new(Pace::new(rate_bytes_s))), begun: Instant::now() }
    }

    /// Waits until a piece may go.
    async fn turn(&self, bytes: u64) {
        let wait = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.take(bytes, self.begun.elapsed())
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// All files by path.
#[derive(Default, Clone)]
pub struct Shelf(HashMap<String, Arc<Entry>>);

/// One file.
pub(super) struct Entry {
    path: PathBuf,
    bytes: u64,
    etag: HeaderValue,
    pub(super) kind: Option<BootFile>,
}

impl Shelf {
    /// Puts a file under a path. `kind` is what it means for a boot's progress.
    pub fn put(&mut self, at: String, file: &ServedFile, kind: Option<BootFile>) {
        // Hexadecimal digits in quotes always make a header's value.
        let etag = HeaderValue::from_str(&format!("\"{}\"", file.sha256)).expect("digits and quotes");
        self.0.insert(at, Arc::new(Entry { path: file.path.clone(), bytes: file.bytes, etag, kind }));
    }

    pub(super) fn find(&self, path: &str) -> Option<Arc<Entry>> {
        self.0.get(path).cloned()
    }
}

impl Entry {
    /// What a GET of it gets, or a HEAD.
    pub(super) async fn reply(&self, head: bool, asked: &HeaderMap, progress: Progress) -> Reply {
        let text = |name| asked.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let ours = self.etag.to_str().unwrap_or_default();
        let mut headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
            (header::ETAG, self.etag.clone()),
        ]);
        let names_ours = |list: &str| list.split(',').any(|tag| tag.trim() == ours || tag.trim() == "*");
        if text(header::IF_NONE_MATCH).is_some_and(names_ours) {
            return Reply { status: StatusCode::NOT_MODIFIED, headers, body: Body::None };
        }
        let mut range_is = |range: String| {
            // Numbers and punctuation always make a header's value.
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).expect("ASCII"));
        };
        let range = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|tag| tag.trim() == ours));
        let (status, at, end) = match part(range, self.bytes) {
            Part::Whole => (StatusCode::OK, 0, self.bytes),
            Part::Bytes { first, last } => {
                range_is(format!("bytes {first}-{last}/{}", self.bytes));
                (StatusCode::PARTIAL_CONTENT, first, last + 1)
            }
            Part::Unsatisfiable => {
                range_is(format!("bytes */{}", self.bytes));
                return Reply { status: StatusCode::RANGE_NOT_SATISFIABLE, headers, body: Body::Length(0) };
            }
        };
        if head {
            return Reply { status, headers, body: Body::Length(end - at) };
        }
        match self.open().await {
            Ok(file) => {
                let sending = Sending { file: Arc::new(file), at, end, progress: progress.of(self.bytes) };
                Reply { status, headers, body: Body::File(sending) }
            }
            Err(err) => {
                tracing::error!(path = %self.path.display(), %err, "a file that is to be served cannot be");
                text_reply(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n")
            }
        }
    }

    async fn open(&self) -> io::Result<File> {
        let (path, bytes) = (self.path.clone(), self.bytes);
        let open = move || {
            let file = File::open(path)?;
            if file.metadata()?.len() == bytes {
                Ok(file)
            } else {
                Err(io::Error::other("it has changed since it was taken in; import its release again"))
            }
        };
        tokio::task::spawn_blocking(open).await.map_err(io::Error::other)?
    }
}

/// A file, or a part of it, on its way out.
pub(super) struct Sending {
    file: Arc<File>,
    /// Up to here it is sent.
    at: u64,
    end: u64,
    progress: Progress,
}

/// What is to be sent next.
pub(super) struct Piece<'a> {
    pub(super) file: &'a File,
    /// From here.
    pub(super) at: u64,
    /// To here, without it.
    pub(super) end: u64,
}

impl Sending {
    /// Bytes that are still to be sent.
    pub(super) fn left(&self) -> u64 {
        self.end - self.at
    }

    /// The next piece, when its turn has come and it is in memory; `None` at the end.
    pub(super) async fn next(&mut self, pacer: &Pacer) -> io::Result<Option<Piece<'_>>> {
        let bytes = self.left().min(PIECE_BYTES);
        if bytes == 0 {
            return Ok(None);
        }
        pacer.turn(bytes).await;
        if !in_memory(&self.file, self.at, bytes)? {
            // From the disk: not on a thread that others wait for.
            let (file, at) = (self.file.clone(), self.at);
            let read = move || file.read_exact_at(&mut vec![0; PIECE_BYTES.min(bytes) as usize], at);
            tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        }
        Ok(Some(Piece { file: &self.file, at: self.at, end: self.at + bytes }))
    }

    /// It is sent up to here.
    pub(super) fn sent(&mut self, end: u64) {
        self.at = end;
        self.progress.tell(self.at);
    }
}

/// Whether a piece is in memory by its first and its last byte, and could be sent without the disk (preadv2(2), RWF_NOWAIT).
fn in_memory(file: &File, at: u64, bytes: u64) -> io::Result<bool> {
    for at in [at, at + bytes - 1] {
        let mut byte = 0u8;
        let into = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let offset = libc::off_t::try_from(at).map_err(io::Error::other)?;
        // SAFETY: `into` names one byte of ours, which lives over the call.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const into, 1, offset, libc::RWF_NOWAIT) };
        match read {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            1.. => {}
            _ => match io::Error::last_os_error() {
                err if err.raw_os_error() == Some(libc::EAGAIN) => return Ok(false),
                // A file system that cannot tell.
                err if err.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(true),
                err => return Err(err),
            },
        }
    }
    Ok(true)
}

/// How far one file is, told to the rack now and then.
pub(super) struct Progress {
    rack: Handle,
    to: Ipv4Addr,
    kind: Option<BootFile>,
    total: u64,
    told: Option<Instant>,
}

impl Progress {
    pub(super) fn new(rack: Handle, to: Ipv4Addr, kind: Option<BootFile>) -> Self {
        Self { rack, to, kind, total: 0, told: None }
    }

    fn of(self, total: u64) -> Self {
        Self { total, ..self }
    }

    fn tell(&mut self, bytes: u64) {
        let Some(file) = self.kind else { return };
        if bytes == self.total || self.told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            self.rack.tell(Event::Served { to: self.to, file, bytes, bytes_total: self.total });
        }
    }
}
