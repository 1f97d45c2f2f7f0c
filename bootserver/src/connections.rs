//! TCP connections of the three HTTP services: accepting, limits, TLS, and handing requests on.
//!
//! Owns: how many connections there are, how long a client may dawdle, and who a request came from ([`Peer`]).
//! Never does: look at paths; that is the service's.

use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};

/// Who a request came from; an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Address and port.
    pub address: SocketAddr,
    /// The client's certificate, verified but for the time; `None` when it showed none.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What a service bears.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one address.
    pub connections_per_address_max: usize,
    /// For TLS's handshake, and for the head of each request, also while it idles between requests.
    pub head_timeout: Duration,
    /// Requests at once on one h2 connection.
    pub streams_max: u32,
}

/// A client that takes no byte for this long is cut off (TCP_USER_TIMEOUT), milliseconds.
const UNACKED_MS: u32 = 30_000;

/// How a connection ended that did not end well.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Accepts connections and has each held until `stop` turns true; then they are dropped as they are.
pub async fn serve<F>(
    name: &'static str,
    listener: TcpListener,
    limits: Limits,
    hold: impl Fn(TcpStream, SocketAddr) -> F,
    mut stop: watch::Receiver<bool>,
) where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let counts = Counts::default();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.wait_for(|&stop| stop) => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(err) => {
                // Out of file descriptors or memory: accepting again at once would only spin.
                tracing::warn!(service = name, %err, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (Ok(place), Some(count)) = (room.clone().try_acquire_owned(), counts.enter(address.ip(), limits)) else {
            tracing::debug!(service = name, %address, "too many connections, one is turned away");
            continue;
        };
        if let Err(err) = heed_silence(&stream) {
            tracing::debug!(service = name, %address, %err, "a connection that is gone already");
            continue;
        }
        let held = hold(stream, address);
        connections.spawn(async move {
            let _counted = (place, count);
            if let Err(err) = held.await {
                tracing::debug!(service = name, %address, %err, "connection ended");
            }
        });
    }
}

/// A client that is gone is noticed, and nothing small waits to be sent.
fn heed_silence(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKED_MS)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &15)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &5)?;
    Ok(())
}

/// How the TLS services hold a connection: by hyper, HTTP/1.1 or h2, each request carrying its [`Peer`].
pub fn tls<S>(
    acceptor: TlsAcceptor,
    limits: Limits,
    service: S,
) -> impl Fn(TcpStream, SocketAddr) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>
where
    S: Service<http::Request<hyper::body::Incoming>, Response = warp::reply::Response, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    move |stream, address| {
        let (acceptor, service) = (acceptor.clone(), service.clone());
        Box::pin(async move {
            let stream = tokio::time::timeout(limits.head_timeout, acceptor.accept(stream)).await??;
            let (_, session) = stream.get_ref();
            let certificate =
                session.peer_certificates().and_then(|chain| chain.first()).map(|c| c.clone().into_owned());
            let h2 = session.alpn_protocol() == Some(b"h2");
            let peer = Peer { address, certificate };
            let call = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(peer.clone());
                service.clone().call(request)
            });
            if h2 {
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(limits.streams_max)
                    .max_header_list_size(16 * 1024)
                    .keep_alive_interval(Duration::from_secs(20))
                    .keep_alive_timeout(Duration::from_secs(20))
                    .serve_connection(TokioIo::new(stream), call)
                    .await?;
            } else {
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(limits.head_timeout)
                    .max_buf_size(32 * 1024)
                    .serve_connection(TokioIo::new(stream), call)
                    .await?;
            }
            Ok(())
        })
    }
}

/// Connections by address.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct Counted(Counts, IpAddr);

impl Counts {
    fn enter(&self, address: IpAddr, limits: Limits) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= limits.connections_per_address_max {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), address))
    }
}

impl Drop for Counted {
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
