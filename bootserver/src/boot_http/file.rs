//! The files that are served: found by their whole path, streamed in chunks through the page cache.

use super::pace::Pace;
use super::range::{Part, part};
use crate::config::files::ServedFile;
use crate::rack_task::Handle;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
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
use warp::Reply;

/// Read and sent at once; two of these are in memory for each connection.
const CHUNK_BYTES: usize = 128 * 1024;
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
    async fn turn(&self, bytes: usize) {
        let wait = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.take(bytes as u64, self.begun.elapsed())
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// All files by path.
#[derive(Default)]
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
    pub(super) async fn respond(
        &self,
        head: bool,
        headers: &HeaderMap,
        pacer: Pacer,
        progress: Progress,
    ) -> warp::reply::Response {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let ours = self.etag.to_str().unwrap_or_default();
        let names_ours = |list: &str| list.split(',').any(|tag| tag.trim() == ours || tag.trim() == "*");
        if text(header::IF_NONE_MATCH).is_some_and(names_ours) {
            return self.headers(StatusCode::NOT_MODIFIED, None, "".into_response());
        }
        let range = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|tag| tag.trim() == ours));
        let (status, first, last) = match part(range, self.bytes) {
            Part::Whole => (StatusCode::OK, 0, self.bytes.saturating_sub(1)),
            Part::Bytes { first, last } => (StatusCode::PARTIAL_CONTENT, first, last),
            Part::Unsatisfiable => {
                let mut response = self.headers(StatusCode::RANGE_NOT_SATISFIABLE, None, "".into_response());
                insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{}", self.bytes));
                return response;
            }
        };
        let length = if self.bytes == 0 { 0 } else { last - first + 1 };
        let body = if head {
            "".into_response()
        } else {
            match self.open().await {
                Ok(file) => {
                    warp::reply::stream(chunks(file, first, length, pacer, progress.of(self.bytes))).into_response()
                }
                Err(err) => {
                    tracing::error!(path = %self.path.display(), %err, "a file that is to be served cannot be");
                    let mut response = "the file cannot be read\n".into_response();
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    return response;
                }
            }
        };
        let mut response = self.headers(status, Some(length), body);
        if status == StatusCode::PARTIAL_CONTENT {
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", self.bytes));
        }
        response
    }

    fn headers(
        &self,
        status: StatusCode,
        length: Option<u64>,
        mut response: warp::reply::Response,
    ) -> warp::reply::Response {
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::ETAG, self.etag.clone());
        headers.remove(header::CONTENT_LENGTH);
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }

    async fn open(&self) -> io::Result<File> {
        let (path, bytes) = (self.path.clone(), self.bytes);
        let open = move || {
            let file = File::open(path)?;
            if file.metadata()?.len() == bytes {
                Ok(file)
            } else {
                Err(io::Error::other("it has changed since the server started; restart the server"))
            }
        };
        tokio::task::spawn_blocking(open).await.map_err(io::Error::other)?
    }
}

fn insert(response: &mut warp::reply::Response, name: header::HeaderName, value: &str) {
    // Numbers and punctuation always make a header's value.
    response.headers_mut().insert(name, HeaderValue::from_str(value).expect("ASCII"));
}

fn chunks(
    file: File,
    first: u64,
    length: u64,
    pacer: Pacer,
    progress: Progress,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    let state = (Arc::new(file), first, length, pacer, progress);
    stream::try_unfold(state, |(file, at, left, pacer, mut progress)| async move {
        if left == 0 {
            return Ok(None);
        }
        let bytes = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        pacer.turn(bytes).await;
        let chunk = match cached(&file, at, bytes)? {
            Some(chunk) => chunk,
            // From the disk: not on a thread that others wait for.
            None => {
                let reader = file.clone();
                let read = move || {
                    let mut chunk = vec![0; bytes];
                    reader.read_exact_at(&mut chunk, at)?;
                    Ok::<_, io::Error>(chunk)
                };
                tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??
            }
        };
        let chunk = Bytes::from(chunk);
        let sent = chunk.len() as u64;
        progress.tell(at + sent);
        Ok(Some((chunk, (file, at + sent, left - sent, pacer, progress))))
    })
}

/// What is to be read, as far as it is in memory (preadv2(2), RWF_NOWAIT); `None` when the disk must be asked. An image is
/// read once and served to a whole rack: handing each chunk to another thread cost more than reading it.
fn cached(file: &File, at: u64, bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let mut chunk = Vec::<u8>::with_capacity(bytes);
    let into = libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: bytes };
    let offset = libc::off_t::try_from(at).map_err(io::Error::other)?;
    // SAFETY: `into` names the vector's own memory, `bytes` long, and both live over the call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const into, 1, offset, libc::RWF_NOWAIT) };
    match usize::try_from(read) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => {
            // SAFETY: the kernel has written that many bytes, no more than there is room for.
            unsafe { chunk.set_len(read) };
            Ok(Some(chunk))
        }
        Err(_) => match io::Error::last_os_error() {
            // Not in memory, or a file system that cannot tell.
            err if matches!(err.raw_os_error(), Some(libc::EAGAIN | libc::EOPNOTSUPP)) => Ok(None),
            err => Err(err),
        },
    }
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
