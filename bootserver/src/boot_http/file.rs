//! The files that are served: found by their whole path, streamed in chunks through the page cache.

use super::range::{Part, part};
use crate::config::files::ServedFile;
use crate::rack_task::Handle;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rack::event::{BootFile, Event};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warp::Reply;

/// Read and sent at once; two of these are in memory for each connection.
const CHUNK_BYTES: usize = 128 * 1024;
/// The rack is told at most this often of each file.
const TELL_EVERY: Duration = Duration::from_millis(250);

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
    pub(super) async fn respond(&self, head: bool, headers: &HeaderMap, progress: Progress) -> warp::reply::Response {
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
                Ok(file) => warp::reply::stream(chunks(file, first, length, progress.of(self.bytes))).into_response(),
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
    progress: Progress,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    let state = (Arc::new(file), first, length, progress);
    stream::try_unfold(state, |(file, at, left, mut progress)| async move {
        if left == 0 {
            return Ok(None);
        }
        let reader = file.clone();
        let read = move || {
            let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)];
            reader.read_exact_at(&mut chunk, at)?;
            Ok::<_, io::Error>(Bytes::from(chunk))
        };
        let chunk = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        let sent = chunk.len() as u64;
        progress.tell(at + sent);
        Ok(Some((chunk, (file, at + sent, left - sent, progress))))
    })
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
