//! TFTP: first-stage boot loaders from memory, by async-tftp.
//!
//! Owns: which names there are, how many transfers run at once, and telling the rack how far each is. Never does: join
//! a path, or take a file. Why async-tftp and under which limits is in docs/design/0002-tftp.md.

use crate::privileges;
use crate::rack_task::Handle;
use async_tftp::packet;
use async_tftp::server::{Handler, TftpServerBuilder};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::io::{AsyncRead, Sink};
use rack::event::{BootFile, Event};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Ethernet's 1,500 bytes less the headers of IP (20), UDP (8) and TFTP (4): never a fragment.
const BLOCK_BYTES_MAX: u16 = 1468;
/// RFC 7440; EDK2 asks for 4.
const WINDOW_BLOCKS_MAX: u16 = 64;
/// Each try waits this long; with the number of tries it bounds how long a client that has left takes up a transfer,
/// as async-tftp does not hear its ERROR.
const TRY: Duration = Duration::from_secs(1);
const RETRIES: u32 = 4;
/// Transfers of one address. EDK2 asks for the size first and lets that transfer lie, so one boot has two.
const PER_ADDRESS_MAX: usize = 4;
const TRANSFERS_MAX: usize = 256;
/// The largest loader, bytes; far above any, it bounds the memory they take.
const LOADER_BYTES_MAX: u64 = 16 << 20;
/// The rack is told at most this often of each transfer.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Loaders by name.
pub type Loaders = Arc<BTreeMap<String, Bytes>>;

/// Reads the loaders into memory.
pub fn load(files: &BTreeMap<String, PathBuf>) -> io::Result<Loaders> {
    let mut loaders = BTreeMap::new();
    for (name, path) in files {
        let about = |err: io::Error| io::Error::new(err.kind(), format!("{}: {err}", path.display()));
        let bytes = std::fs::metadata(path).map_err(about)?.len();
        if bytes > LOADER_BYTES_MAX {
            return Err(about(io::Error::other(format!("{bytes} bytes is more than a loader has"))));
        }
        loaders.insert(name.clone(), Bytes::from(std::fs::read(path).map_err(about)?));
    }
    Ok(Arc::new(loaders))
}

/// Opens port 69 of our own address, as long as we may.
pub fn open(server: Ipv4Addr) -> io::Result<UdpSocket> {
    UdpSocket::bind((server, 69))
}

/// Serves on it until the future is dropped or the socket fails.
pub async fn serve(socket: UdpSocket, loaders: Loaders, rack: Handle) -> io::Result<()> {
    let files = Files { loaders, transfers: Transfers::default(), rack: Some(rack) };
    serve_on(socket, files).await
}

/// async-tftp waits by async-io, not by tokio. On a thread of its own that drives async-io's reactor itself, no packet is handed from one
/// thread to another.
async fn serve_on(socket: UdpSocket, files: Files) -> io::Result<()> {
    let (mut end, ended) = oneshot::channel();
    let serving = move || {
        privileges::give_up_or_warn();
        let serving = async_io::block_on(async {
            match select(pin!(transfers(socket, files)), pin!(end.closed())).await {
                Either::Left((result, _)) => Some(result.map_err(io::Error::other)),
                Either::Right(((), _)) => None,
            }
        });
        // Nobody hears it only if nobody serves any more.
        let _ = serving.map(|result| end.send(result));
    };
    thread::Builder::new().name("tftp".to_owned()).spawn(serving)?;
    ended.await.unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))
}

async fn transfers(socket: UdpSocket, files: Files) -> Result<(), async_tftp::Error> {
    TftpServerBuilder::with_handler(files)
        .std_socket(socket)?
        .timeout(TRY)
        .max_send_retries(RETRIES)
        .block_size_limit(BLOCK_BYTES_MAX)
        .window_size_limit(WINDOW_BLOCKS_MAX)
        .ignore_client_timeout()
        .build()
        .await?
        .serve()
        .await
}

struct Files {
    loaders: Loaders,
    transfers: Transfers,
    rack: Option<Handle>,
}

impl Handler for Files {
    type Reader = Transfer;
    type Writer = Sink;

    async fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> Result<(Self::Reader, Option<u64>), packet::Error> {
        let name = rack::names::tftp_file(&path.to_string_lossy());
        let Some(content) = self.loaders.get(&name).cloned() else {
            tracing::info!(%client, name, "TFTP: no such file");
            return Err(packet::Error::FileNotFound);
        };
        let Some(place) = self.transfers.enter(client.ip()) else {
            tracing::info!(%client, name, "TFTP: too many transfers");
            return Err(packet::Error::Msg("too many transfers, try again later".to_owned()));
        };
        tracing::debug!(%client, name, "TFTP");
        let bytes = content.len() as u64;
        let transfer =
            Transfer { content, at: 0, client: client.ip(), rack: self.rack.clone(), told: None, _place: place };
        Ok((transfer, Some(bytes)))
    }

    async fn write_req_open(
        &mut self,
        _: &SocketAddr,
        _: &Path,
        _: Option<u64>,
    ) -> Result<Self::Writer, packet::Error> {
        Err(packet::Error::PermissionDenied)
    }
}

/// One transfer; dropped when it has ended.
struct Transfer {
    content: Bytes,
    at: usize,
    client: IpAddr,
    rack: Option<Handle>,
    told: Option<Instant>,
    _place: Place,
}

impl AsyncRead for Transfer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let rest = &self.content[self.at..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        let end = self.at == self.content.len();
        if count > 0 && (end || self.told.is_none_or(|at| at.elapsed() >= TELL_EVERY)) {
            self.told = Some(Instant::now());
            self.tell();
        }
        Poll::Ready(Ok(count))
    }
}

impl Transfer {
    fn tell(&self) {
        if let (Some(rack), IpAddr::V4(to)) = (&self.rack, self.client) {
            let (bytes, bytes_total) = (self.at as u64, self.content.len() as u64);
            rack.tell(Event::Served { to, file: BootFile::Loader, bytes, bytes_total });
        }
    }
}

/// Transfers under way by address.
#[derive(Clone, Default)]
struct Transfers(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct Place(Transfers, IpAddr);

impl Transfers {
    fn enter(&self, client: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = counts.get(&client).copied().unwrap_or(0);
        if of_client >= PER_ADDRESS_MAX || counts.values().sum::<usize>() >= TRANSFERS_MAX {
            return None;
        }
        counts.insert(client, of_client + 1);
        Some(Place(self.clone(), client))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
