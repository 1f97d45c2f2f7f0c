//! TFTP: first-stage boot loaders from memory.
//!
//! Owns: which names there are, sockets, how many transfers run at once, and telling the rack how far each is. Never does:
//! join a path, or take a file. What is sent when is in [`session`]; why not async-tftp is in docs/design/0002-tftp.md.

mod session;

use crate::rack_task::Handle;
use bytes::Bytes;
use rack::event::{BootFile, Event};
use session::{BLOCK_BYTES_MAX, Next, Piece, Request, Session, error};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// A client that says nothing for so long is sent the same again.
const TRY: Duration = Duration::from_secs(1);
/// Transfers of one address. EDK2 asks for the size first, and asks again from another port.
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

/// The server.
pub struct Tftp {
    socket: UdpSocket,
    loaders: Loaders,
    rack: Option<Handle>,
    transfers: JoinSet<()>,
    /// Who is served; a client that asks again from the same port has given up what it asked for before.
    served: HashMap<SocketAddr, AbortHandle>,
}

impl Tftp {
    /// Opens port 69 of our own address (needs CAP_NET_BIND_SERVICE).
    pub async fn open(server: Ipv4Addr, loaders: Loaders, rack: Handle) -> io::Result<Self> {
        Ok(Self::on(UdpSocket::bind((server, 69)).await?, loaders, Some(rack)))
    }

    fn on(socket: UdpSocket, loaders: Loaders, rack: Option<Handle>) -> Self {
        Self { socket, loaders, rack, transfers: JoinSet::new(), served: HashMap::new() }
    }

    /// Serves until the future is dropped.
    pub async fn serve(mut self) {
        let mut packet = [0; 1500];
        loop {
            // Each branch only waits: nothing is lost when another comes first.
            tokio::select! {
                received = self.socket.recv_from(&mut packet) => match received {
                    Ok((length, client)) => self.asked(&packet[..length], client).await,
                    Err(err) => {
                        // Of an answer that was sent before; or the interface is down, and may come back.
                        tracing::debug!(%err, "receiving TFTP");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
                Some(ended) = self.transfers.join_next_with_id() => {
                    let id = ended.map_or_else(|err| err.id(), |(id, ())| id);
                    self.served.retain(|_, transfer| transfer.id() != id);
                }
            }
        }
    }

    async fn asked(&mut self, packet: &[u8], client: SocketAddr) {
        let read = match session::request(packet) {
            Request::Read(read) => read,
            Request::Write => return self.refuse(client, 2, "nothing can be written").await,
            Request::Wrong => return self.refuse(client, 4, "only mode octet is known").await,
            Request::Other => return,
        };
        let name = rack::names::tftp_file(&read.name);
        let Some(content) = self.loaders.get(&name).cloned() else {
            tracing::info!(%client, name, "TFTP: no such file");
            return self.refuse(client, 1, "no such file").await;
        };
        if let Some(before) = self.served.remove(&client) {
            before.abort();
        }
        let of_address = self.served.keys().filter(|other| other.ip() == client.ip()).count();
        if of_address >= PER_ADDRESS_MAX || self.served.len() >= TRANSFERS_MAX {
            tracing::info!(%client, name, "TFTP: too many transfers");
            return self.refuse(client, 0, "too many transfers, try again later").await;
        }
        tracing::debug!(%client, name, "TFTP");
        let own = self.socket.local_addr().map(|at| at.ip());
        let (session, rack) = (Session::new(&read, content), self.rack.clone());
        let transfer = self.transfers.spawn(async move {
            let result = async { transfer(socket(own?, client).await?, session, client.ip(), rack).await };
            if let Err(err) = result.await {
                tracing::debug!(%client, %err, "TFTP: a transfer ended");
            }
        });
        self.served.insert(client, transfer);
    }

    async fn refuse(&self, client: SocketAddr, code: u8, text: &str) {
        // It asks again if this is lost.
        let _ = self.socket.send_to(&error(code, text), client).await;
    }
}

/// A transfer has a port of its own (RFC 1350 §4).
async fn socket(own: IpAddr, client: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(client).await?;
    Ok(socket)
}

async fn transfer(socket: UdpSocket, mut session: Session, client: IpAddr, rack: Option<Handle>) -> io::Result<()> {
    let (mut packet, mut out) = ([0; 516], [0; BLOCK_BYTES_MAX + 4]);
    let mut told = Instant::now();
    tell(rack.as_ref(), client, &session);
    let mut heard = Instant::now();
    // Moved on when it strikes, and not for every packet.
    let mut again = std::pin::pin!(sleep_until(heard + TRY));
    loop {
        while let Some(piece) = session.next() {
            match piece {
                Piece::Oack(oack) => socket.send(oack).await?,
                Piece::Data { number, data } => {
                    out[..2].copy_from_slice(&[0, 3]);
                    out[2..4].copy_from_slice(&number.to_be_bytes());
                    out[4..4 + data.len()].copy_from_slice(data);
                    socket.send(&out[..4 + data.len()]).await?
                }
            };
        }
        let next = tokio::select! {
            length = socket.recv(&mut packet) => {
                heard = Instant::now();
                session.heard(&packet[..length?])
            }
            () = &mut again => {
                let waited = heard.elapsed() >= TRY;
                if waited {
                    heard = Instant::now();
                }
                again.as_mut().reset(heard + TRY);
                if waited { session.silent() } else { Next::Go }
            }
        };
        if next == Next::Done || told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tell(rack.as_ref(), client, &session);
        }
        if next != Next::Go {
            return Ok(());
        }
    }
}

fn tell(rack: Option<&Handle>, client: IpAddr, session: &Session) {
    if let (Some(rack), IpAddr::V4(to)) = (rack, client) {
        let (bytes, bytes_total) = session.progress();
        rack.tell(Event::Served { to, file: BootFile::Loader, bytes, bytes_total });
    }
}

#[cfg(test)]
mod tests;
