//! The agents' endpoint: join, report, renew, over mutual TLS 1.3.
//!
//! Owns: who may ask what ([`Call`]), and certificates for those whom the rack lets in. Never does: decide who that is.
//!
//! | path | needs | answer |
//! |---|---|---|
//! | POST /v1/join | nothing | JoinAnswer |
//! | GET /v1/join/KEY | nothing | JoinAnswer |
//! | POST /v1/report | host's certificate | ReportAnswer, held open; 403 with a JoinAnswer when it is let in no more |
//! | POST /v1/renew | host's certificate | JoinAnswer |
//!
//! Other statuses: 400 a body that cannot be read, 401 no certificate or one that has run out, 404 no such path,
//! 408 and 413 a body too slow or too long, 503 the server is stopping. Their body is one line of text.

use crate::body;
use crate::ca::{self, Ca, CaError, RENEW_MS, Subject};
use crate::connections::{Limits, Peer};
use crate::rack_task::{Handle, Stopping};
use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::{Method, StatusCode, header};
use proto::agent::{JoinAnswer, JoinRefusal, JoinRequest, Renew, Report};
use rack::effect::{Answer, JoinDecision};
use rack::event::{Caller, Event};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use warp::path::FullPath;
use warp::{Filter, Reply};

/// A thousand hosts, each with one connection and for a moment two.
pub const LIMITS: Limits = Limits {
    connections_max: 4096,
    connections_per_address_max: 16,
    head_timeout: Duration::from_secs(30),
    streams_max: 16,
};
/// An inventory and a signing request.
const JOIN_BYTES_MAX: usize = 64 << 10;
/// A host with a thousand guests, and consoles.
const REPORT_BYTES_MAX: usize = 1 << 20;
/// How soon a machine that waits to be accepted asks again, milliseconds.
const RETRY_MS: u64 = 1000;

/// What the endpoint knows.
pub struct Agents {
    /// Issues certificates.
    pub ca: Arc<Ca>,
    /// The rack.
    pub rack: Handle,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Join,
    Poll { key: String },
    Report,
    Renew,
}

impl Call {
    fn parse(method: &Method, path: &str) -> Option<Self> {
        let hex = |key: &str| key.len() == 64 && key.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match (method.as_str(), path) {
            ("POST", "/v1/join") => Some(Self::Join),
            ("POST", "/v1/report") => Some(Self::Report),
            ("POST", "/v1/renew") => Some(Self::Renew),
            ("GET", path) => {
                let key = path.strip_prefix("/v1/join/").filter(|key| hex(key))?;
                Some(Self::Poll { key: key.to_owned() })
            }
            _ => None,
        }
    }
}

/// Why there is no answer of the protocol.
struct Fault(StatusCode, String);

impl From<Stopping> for Fault {
    fn from(stopping: Stopping) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, stopping.to_string())
    }
}

/// The service as a warp filter; each request carries a [`Peer`].
pub fn filter(
    agents: Arc<Agents>,
) -> impl Filter<Extract = (warp::reply::Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    warp::method().and(warp::path::full()).and(warp::ext::get::<Peer>()).and(warp::body::stream()).and_then(
        move |method: Method, path: FullPath, peer: Peer, body| {
            let agents = agents.clone();
            async move { Ok::<_, Infallible>(agents.answer(&method, path.as_str(), &peer, body).await) }
        },
    )
}

impl Agents {
    async fn answer<B: Buf>(
        &self,
        method: &Method,
        path: &str,
        peer: &Peer,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> warp::reply::Response {
        match self.act(method, path, peer, body).await {
            Ok(response) => response,
            Err(Fault(status, why)) => {
                tracing::debug!(from = %peer.address, %method, path, %status, why, "an agent is told off");
                let mut response = format!("{why}\n").into_response();
                *response.status_mut() = status;
                response
            }
        }
    }

    async fn act<B: Buf>(
        &self,
        method: &Method,
        path: &str,
        peer: &Peer,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> Result<warp::reply::Response, Fault> {
        let Some(call) = Call::parse(method, path) else {
            return Err(Fault(StatusCode::NOT_FOUND, "no such path, or not by this method".to_owned()));
        };
        // Before the body: a stranger's megabyte is not worth reading.
        let subject = peer.certificate.as_ref().and_then(|der| ca::subject(der, OffsetDateTime::now_utc()));
        let known = || {
            let why = "a host's certificate is needed, and one that has not run out; join first".to_owned();
            subject.ok_or(Fault(StatusCode::UNAUTHORIZED, why))
        };
        let read = async |bytes_max| {
            let read = body::read(body, bytes_max).await;
            read.map_err(|status| Fault(status, format!("the body was not taken; it may have {bytes_max} bytes")))
        };
        match call {
            Call::Join => {
                let request: JoinRequest = json(&read(JOIN_BYTES_MAX).await?)?;
                let key = match ca::csr_key(&request.csr_pem) {
                    Ok(key) => key,
                    Err(err) => return Ok(bad_csr(peer, &err)),
                };
                let from = v4(peer);
                let answer = self.rack.ask(|reply| Event::Join { reply, request, key, from }).await?;
                self.joined(answer)
            }
            Call::Poll { key } => {
                let answer = self.rack.ask(|reply| Event::JoinPoll { reply, key }).await?;
                self.joined(answer)
            }
            Call::Renew => {
                let Subject { host, key, .. } = known()?;
                let Renew { csr_pem } = json(&read(JOIN_BYTES_MAX).await?)?;
                match ca::csr_key(&csr_pem) {
                    Ok(other) if other == key => {}
                    Ok(_) => {
                        let what = "it is for another key than the certificate's".to_owned();
                        return Ok(bad_csr(peer, &CaError::BadCsr { what }));
                    }
                    Err(err) => return Ok(bad_csr(peer, &err)),
                }
                let answer = self.rack.ask(|reply| Event::Renew { reply, host, key, csr_pem }).await?;
                self.joined(answer)
            }
            Call::Report => {
                let Subject { host, key, issued_ms } = known()?;
                let caller = Caller { key, issued_ms, from: v4(peer) };
                let report: Report = json(&read(REPORT_BYTES_MAX).await?)?;
                // Held until the rack answers. When the connection goes, this future is dropped, and the rack's
                // task sees that nobody waits any more.
                match self.rack.ask(|reply| Event::Report { reply, host, caller, report }).await? {
                    Answer::Report(Ok(answer)) => Ok(reply(StatusCode::OK, &answer)),
                    Answer::Report(Err(refusal)) => Ok(reply(StatusCode::FORBIDDEN, &JoinAnswer::Refused { refusal })),
                    _ => Err(misfit()),
                }
            }
        }
    }

    fn joined(&self, answer: Answer) -> Result<warp::reply::Response, Fault> {
        let Answer::Join(decision) = answer else { return Err(misfit()) };
        let answer = match decision {
            JoinDecision::Waiting => JoinAnswer::Waiting { retry_ms: RETRY_MS },
            JoinDecision::Refused(refusal) => JoinAnswer::Refused { refusal },
            JoinDecision::Issue { host, csr_pem, address } => {
                match self.ca.issue(&host, &csr_pem, address, OffsetDateTime::now_utc()) {
                    Ok(certificate_pem) => JoinAnswer::Accepted { certificate_pem, renew_ms: RENEW_MS },
                    Err(err) => {
                        tracing::warn!(%host, %err, "no certificate was issued");
                        JoinAnswer::Refused { refusal: JoinRefusal::BadCsr }
                    }
                }
            }
        };
        Ok(reply(StatusCode::OK, &answer))
    }
}

fn bad_csr(peer: &Peer, err: &CaError) -> warp::reply::Response {
    tracing::info!(from = %peer.address, %err, "a join is refused");
    reply(StatusCode::OK, &JoinAnswer::Refused { refusal: JoinRefusal::BadCsr })
}

fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Fault> {
    serde_json::from_slice(body)
        .map_err(|err| Fault(StatusCode::BAD_REQUEST, format!("the body is not what was expected: {err}")))
}

fn reply<T: Serialize>(status: StatusCode, answer: &T) -> warp::reply::Response {
    let mut response = warp::reply::json(answer).into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// The rack answered a question with another's answer: our fault, and the agent may ask again.
fn misfit() -> Fault {
    tracing::error!("the rack's answer does not fit the question");
    Fault(StatusCode::INTERNAL_SERVER_ERROR, "the server is at fault".to_owned())
}

fn v4(peer: &Peer) -> Ipv4Addr {
    match peer.address.ip() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let key = "0123456789abcdef".repeat(4);
        for (method, path, call) in [
            (Method::POST, "/v1/join".to_owned(), Some(Call::Join)),
            (Method::POST, "/v1/report".to_owned(), Some(Call::Report)),
            (Method::POST, "/v1/renew".to_owned(), Some(Call::Renew)),
            (Method::GET, format!("/v1/join/{key}"), Some(Call::Poll { key: key.clone() })),
            (Method::GET, format!("/v1/join/{}", key.to_uppercase()), None),
            (Method::GET, "/v1/join/".to_owned(), None),
            (Method::GET, "/v1/report".to_owned(), None),
            (Method::DELETE, "/v1/join".to_owned(), None),
            (Method::GET, "/v1/rack".to_owned(), None),
        ] {
            assert_eq!(Call::parse(&method, &path), call, "{method} {path}");
        }
    }
}
