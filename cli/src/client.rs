//! Asks the operators' API over HTTPS and turns every answer into a value or a fault.
//!
//! Owns: one connection pool to one server, trusting one CA. Never does: retrying, following redirects, going through a
//! proxy (the appliance is on the operator's own network, and a proxy would see nothing but the tunnel).

use crate::fault::Fault;
use crate::session::{Access, CaSource};
use crate::trust;
use crate::url::ServerUrl;
use proto::agent::Secret;
use proto::api::{ApiError, Refusal};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, RequestBuilder};

/// How long one request may take from name to last byte. A console's text comes from a host over its next report.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that is silent for so long is opened anew: the connection may be dead.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A boot server.
pub(crate) struct Server {
    /// Where it is.
    pub(crate) url: ServerUrl,
    agent: Agent,
    token: Option<Secret>,
}

/// The body of `GET /v1/stream`.
pub(crate) type StreamBody = Box<dyn Read>;

impl Server {
    /// Makes ready to ask as a session. Fetches the certificate first when only its fingerprint is known.
    ///
    /// # Errors
    /// `Unpinned` or `Untrusted` when no CA is known, `NotLoggedIn` when there is no session.
    pub(crate) fn with_session(doing: &str, access: Access) -> Result<Self, Fault> {
        let Some(token) = access.token else {
            let why = format!("there is no session at {}", access.url);
            return Err(Fault::NotLoggedIn { doing: doing.to_owned(), why });
        };
        let ca = match access.ca {
            Some(CaSource::Certificate(ca)) => ca,
            Some(CaSource::Pin(pin)) => trust::find_ca(&access.url, Some(pin))?,
            None => {
                let shown = trust::Fingerprint::of(&trust::find_ca(&access.url, None)?);
                let why = format!(
                    "TSUBAME_CA is not set, and {} is no server logged in to; it shows a CA with the sha256 {shown}",
                    access.url
                );
                return Err(Fault::Untrusted { url: access.url.to_string(), why });
            }
        };
        Ok(Self::new(access.url, ca, Some(token)))
    }

    /// Makes ready to ask, trusting `ca` alone.
    pub(crate) fn new(url: ServerUrl, ca: CertificateDer<'static>, token: Option<Secret>) -> Self {
        let roots = RootCerts::Specific(Arc::new(vec![Certificate::from_der(&ca).to_owned()]));
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("tsubame/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .build();
        Self { url, agent: config.new_agent(), token }
    }

    /// `GET path`.
    pub(crate) fn get<T: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<T, Fault> {
        let asked = self.dress(self.agent.get(self.at(path)));
        self.read(doing, asked.call().map_err(|e| self.no_answer(doing, e, false))?)
    }

    /// `POST path` with a body.
    pub(crate) fn post<T: DeserializeOwned>(&self, doing: &str, path: &str, body: &impl Serialize) -> Result<T, Fault> {
        let asked = self.dress(self.agent.post(self.at(path)));
        let json = serde_json::to_vec(body).expect("the API's requests are plain data with text keys");
        let sent = asked.content_type("application/json").send(json.as_slice());
        self.read(doing, sent.map_err(|e| self.no_answer(doing, e, true))?)
    }

    /// `POST path` with bytes as they are.
    pub(crate) fn post_bytes<T: DeserializeOwned>(&self, doing: &str, path: &str, bytes: &[u8]) -> Result<T, Fault> {
        let asked = self.dress(self.agent.post(self.at(path)));
        let sent = asked.content_type("application/octet-stream").send(bytes);
        self.read(doing, sent.map_err(|e| self.no_answer(doing, e, true))?)
    }

    /// `POST path` where the path says it all.
    pub(crate) fn post_empty<T: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<T, Fault> {
        let asked = self.dress(self.agent.post(self.at(path)));
        self.read(doing, asked.send_empty().map_err(|e| self.no_answer(doing, e, true))?)
    }

    /// `DELETE path`.
    pub(crate) fn delete<T: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<T, Fault> {
        let asked = self.dress(self.agent.delete(self.at(path)));
        self.read(doing, asked.call().map_err(|e| self.no_answer(doing, e, true))?)
    }

    /// Opens `GET /v1/stream` for `longest` at most. `None` when this server has no event stream there.
    pub(crate) fn stream(&self, doing: &str, longest: Option<Duration>) -> Result<Option<StreamBody>, Fault> {
        let answer = self
            .dress(self.agent.get(self.at("/v1/stream")))
            .header("accept", "text/event-stream")
            .config()
            .timeout_global(None)
            .timeout_connect(Some(longest.map_or(CONNECT_TIMEOUT, |l| l.min(CONNECT_TIMEOUT))))
            .timeout_recv_response(Some(longest.map_or(STREAM_SILENCE_MAX, |l| l.min(STREAM_SILENCE_MAX))))
            .timeout_recv_body(longest)
            .timeout_per_read(Some(STREAM_SILENCE_MAX))
            .build()
            .call()
            .map_err(|e| self.no_answer(doing, e, false))?;
        match answer.status() {
            StatusCode::OK if answer.body().mime_type() == Some("text/event-stream") => {
                Ok(Some(Box::new(answer.into_body().into_reader())))
            }
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(None),
            _ => self.read::<serde::de::IgnoredAny>(doing, answer).map(|_| None),
        }
    }

    /// The fault of an answer that makes no sense.
    pub(crate) fn nonsense(&self, doing: &str, why: String) -> Fault {
        Fault::NotTsubame { doing: doing.to_owned(), url: self.url.to_string(), why }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn dress<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {}", token.0)),
            None => request,
        }
    }

    fn read<T: DeserializeOwned>(&self, doing: &str, mut answer: Response<Body>) -> Result<T, Fault> {
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|e| self.no_answer(doing, e, status.is_success()))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| self.nonsense(doing, e.to_string()));
        }
        Err(refusal(doing, &body).unwrap_or_else(|| self.nonsense(doing, format!("HTTP status {status}"))))
    }

    fn no_answer(&self, doing: &str, error: ureq::Error, may_be_done: bool) -> Fault {
        let url = self.url.to_string();
        if let Some(tls) = tls_error(&error) {
            let why = match tls {
                rustls::Error::InvalidCertificate(e) => format!(
                    "its certificate does not hold under the CA that was pinned ({e}). Either this is another server, or its CA was made anew: ask the boot server for its fingerprint and log in with --ca-sha256"
                ),
                other => format!("TLS failed: {other}"),
            };
            return Fault::Untrusted { url, why };
        }
        let doing = doing.to_owned();
        match error {
            // Before or while connecting nothing was sent.
            ureq::Error::HostNotFound => {
                Fault::Unreached { doing, url, why: "there is no such host".into(), unsure: false }
            }
            ureq::Error::ConnectionFailed | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                Fault::Unreached { doing, url, why: "no connection in time".into(), unsure: false }
            }
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                Fault::Unreached { doing, url, why: e.to_string(), unsure: false }
            }
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let why = "it closed the connection without an answer".into();
                Fault::Unreached { doing, url, why, unsure: may_be_done }
            }
            ureq::Error::Protocol(e) => Fault::NotTsubame { doing, url, why: e.to_string() },
            other => Fault::Unreached { doing, url, why: other.to_string(), unsure: may_be_done },
        }
    }
}

fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(e) => Some(e),
        ureq::Error::Io(e) => e.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    }
}

/// The fault that a refusal's body stands for; `None` when it is no refusal.
fn refusal(doing: &str, body: &[u8]) -> Option<Fault> {
    /// What is read of a refusal that a newer server knows and this program does not.
    #[derive(serde::Deserialize)]
    struct Sentence {
        message: String,
    }
    let doing = doing.to_owned();
    match serde_json::from_slice::<ApiError>(body) {
        Ok(ApiError { refusal: Refusal::NotLoggedIn, message }) => Some(Fault::NotLoggedIn { doing, why: message }),
        Ok(ApiError { message, .. }) => Some(Fault::Refused { doing, message }),
        Err(_) => {
            serde_json::from_slice::<Sentence>(body).ok().map(|Sentence { message }| Fault::Refused { doing, message })
        }
    }
}
