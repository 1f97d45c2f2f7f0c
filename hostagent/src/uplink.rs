//! The one connection to the server: reports go up, orders come down.
//!
//! Owns: the HTTP/2 connection over mutual TLS 1.3, holding it, renewing the certificate. Never does: knowing what a report says.
//!
//! A report is sent the moment there is one; the server answers an older one of this host then, so of the few streams open at most one is
//! held. When the connection breaks it is made anew after a pause that doubles up to [`PAUSE_MS_MAX`], with jitter so that a rack of hosts does not
//! come back in step. A host whose certificate ended while the server was away asks to join anew, with the key of its boot: the server knows it.

use crate::agent::AgentEvent;
use crate::identity::{self, Clock, Identity, IdentityError};
use crate::join::{Join, Joined};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::agent::{Report, ReportAnswer};
use proto::host::Inventory;
use rustls::ClientConfig;
use rustls::pki_types::{IpAddr, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// The longest pause between two attempts to connect.
pub const PAUSE_MS_MAX: u64 = 5_000;
const PAUSE_MS_MIN: u64 = 200;
/// The longest answer: orders for every VM of a host, with their secrets.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// A connection, a short question.
const ANSWER_S: u64 = 15;
/// A report's answer may be held; far beyond any `hold_ms`, the server is taken for gone.
const HELD_S: u64 = 120;
/// Reports open at once: the held one, and those that overtake it.
const REPORTS_MAX: usize = 8;

/// Why the server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// No connection.
    #[error("connecting to {to}: {why}")]
    Connect {
        /// Where.
        to: SocketAddrV4,
        /// Why.
        why: String,
    },
    /// A question without a good answer.
    #[error("{method} https://{to}{path}: {why}")]
    Ask {
        /// Where.
        to: SocketAddrV4,
        /// How.
        method: Method,
        /// What.
        path: String,
        /// Why.
        why: String,
    },
    /// TLS.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// One HTTP/2 connection to the server.
pub struct Connection {
    to: SocketAddrV4,
    sender: http2::SendRequest<Full<Bytes>>,
    clock: Arc<Clock>,
}

impl Connection {
    /// Connects; the server must show a certificate of the pinned CA for its address.
    ///
    /// # Errors
    /// When there is no such server.
    pub async fn open(to: SocketAddrV4, config: ClientConfig, clock: &Arc<Clock>) -> Result<Self, UplinkError> {
        let opening = async {
            let tcp = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
            tcp.set_nodelay(true).map_err(|e| e.to_string())?;
            let name = ServerName::IpAddress(IpAddr::V4((*to.ip()).into()));
            let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| format!("TLS: {e}"))?;
            let mut http = http2::Builder::new(TokioExecutor::new());
            // A server that vanished without a word is noticed though reports are held.
            http.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(5)).keep_alive_while_idle(true);
            http.keep_alive_timeout(Duration::from_secs(10));
            let (sender, connection) = http.handshake(TokioIo::new(tls)).await.map_err(|e| format!("HTTP/2: {e}"))?;
            tokio::spawn(connection);
            Ok(sender)
        };
        let opened = tokio::time::timeout(Duration::from_secs(ANSWER_S), opening).await;
        let sender = opened.unwrap_or_else(|_| Err(format!("nothing within {ANSWER_S} s")));
        let sender = sender.map_err(|why: String| UplinkError::Connect { to, why })?;
        Ok(Self { to, sender, clock: clock.clone() })
    }

    /// Asks.
    ///
    /// # Errors
    /// When the answer is not 200 with the JSON expected, or does not come in time.
    pub async fn get<A: DeserializeOwned>(&mut self, path: &str) -> Result<A, UplinkError> {
        self.ask(Method::GET, path, Bytes::new(), ANSWER_S).await
    }

    /// Sends JSON and asks.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        path: &str,
        question: &Q,
    ) -> Result<A, UplinkError> {
        let limit_s = if path == "/v1/report" { HELD_S } else { ANSWER_S };
        let body = serde_json::to_vec(question).map_err(|e| self.failed(&Method::POST, path, e))?;
        self.ask(Method::POST, path, body.into(), limit_s).await
    }

    async fn ask<A: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        limit_s: u64,
    ) -> Result<A, UplinkError> {
        let asking = async {
            self.sender.ready().await.map_err(|e| e.to_string())?;
            let request = Request::builder()
                .method(method.clone())
                .uri(format!("https://{}{path}", self.to))
                .header("content-type", "application/json")
                .body(Full::new(body));
            let request = request.map_err(|e| e.to_string())?;
            let answer = self.sender.send_request(request).await.map_err(|e| e.to_string())?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|e| e.to_string())?.to_bytes();
            if let Some(date) = headers.get("date").and_then(|d| identity::http_date_ms(d.to_str().ok()?)) {
                self.clock.authentic(date);
            }
            if status != StatusCode::OK {
                let text = String::from_utf8_lossy(&body);
                return Err(format!("{status}: {}", text.chars().take(300).collect::<String>()));
            }
            serde_json::from_slice(&body).map_err(|e| format!("an answer that cannot be read: {e}"))
        };
        let asked = tokio::time::timeout(Duration::from_secs(limit_s), asking).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("nothing within {limit_s} s")));
        asked.map_err(|why: String| self.failed(&method, path, why))
    }

    fn failed(&self, method: &Method, path: &str, why: impl std::fmt::Display) -> UplinkError {
        UplinkError::Ask { to: self.to, method: method.clone(), path: path.to_owned(), why: why.to_string() }
    }

    fn again(&self) -> Self {
        Self { to: self.to, sender: self.sender.clone(), clock: self.clock.clone() }
    }
}

/// Reports for ever: each new value of `reports` at once, and answers as events.
pub async fn run(
    server: SocketAddrV4,
    mut join: Join,
    mut joined: Joined,
    inventory: Inventory,
    identities: watch::Sender<Arc<Identity>>,
    mut reports: watch::Receiver<Option<Report>>,
    events: mpsc::Sender<AgentEvent>,
) {
    let mut pause_ms = PAUSE_MS_MIN;
    loop {
        let error = match open(server, &joined.identity).await {
            Ok(connection) => {
                // Whatever is newest counts as unsent; the agent is asked for a newer one as well.
                reports.mark_changed();
                if events.send(AgentEvent::Connected).await.is_err() {
                    return;
                }
                let began = tokio::time::Instant::now();
                let error = hold(connection, &join, &mut joined, &identities, &mut reports, &events).await;
                if began.elapsed() > Duration::from_secs(10) {
                    pause_ms = PAUSE_MS_MIN;
                }
                error
            }
            Err(e) => e,
        };
        tracing::warn!(%error, pause_ms, "no connection to the server");
        tokio::time::sleep(Duration::from_millis(jitter(pause_ms))).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        if joined.identity.ends_ms() <= joined.identity.clock.unix_ms() {
            tracing::warn!("the certificate has ended; joining anew");
            joined = join.until_accepted(&inventory).await;
            identities.send_replace(joined.identity.clone());
        }
    }
}

async fn open(server: SocketAddrV4, identity: &Identity) -> Result<Connection, UplinkError> {
    Connection::open(server, identity.client(&[b"h2"])?, &identity.clock).await
}

/// One connection, until it breaks.
async fn hold(
    mut connection: Connection,
    join: &Join,
    joined: &mut Joined,
    identities: &watch::Sender<Arc<Identity>>,
    reports: &mut watch::Receiver<Option<Report>>,
    events: &mpsc::Sender<AgentEvent>,
) -> UplinkError {
    let mut open: JoinSet<Result<ReportAnswer, UplinkError>> = JoinSet::new();
    loop {
        let now_ms = joined.identity.clock.unix_ms();
        let renew = tokio::time::sleep(Duration::from_millis(joined.renew_at_ms.saturating_sub(now_ms)));
        tokio::select! {
            changed = reports.changed(), if open.len() < REPORTS_MAX => {
                if changed.is_err() {
                    return connection.failed(&Method::POST, "/v1/report", "the agent is ending");
                }
                let report = reports.borrow_and_update().clone();
                if let Some(report) = report {
                    let mut connection = connection.again();
                    open.spawn(async move { connection.post("/v1/report", &report).await });
                }
            }
            Some(answered) = open.join_next() => match answered {
                Ok(Ok(answer)) => {
                    if events.send(AgentEvent::Answer(answer)).await.is_err() {
                        return connection.failed(&Method::POST, "/v1/report", "the agent is ending");
                    }
                }
                Ok(Err(e)) => return e,
                Err(e) => return connection.failed(&Method::POST, "/v1/report", e),
            },
            () = renew => match join.renew(&mut connection).await {
                Ok(renewed) => {
                    *joined = renewed;
                    identities.send_replace(joined.identity.clone());
                    tracing::info!("certificate renewed");
                }
                Err(e) => {
                    joined.renew_at_ms = joined.identity.clock.unix_ms() + 30_000;
                    tracing::warn!(error = %e, "the certificate was not renewed");
                }
            },
        }
    }
}

/// Between half and the whole.
fn jitter(ms: u64) -> u64 {
    let mut byte = [0];
    // Without randomness the whole.
    let drawn = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    let part = if drawn.is_ok() { u64::from(byte[0]) } else { 255 };
    ms / 2 + ms * part / 510
}
