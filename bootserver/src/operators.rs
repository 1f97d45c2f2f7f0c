//! The operators' endpoint: the API of docs/design/0001-the-road.md over HTTPS, and the page.
//!
//! Owns: sessions, the rule against requests forged by other sites, statuses. Never does: decide; commands go to the
//! rack, reading is done from its view.
//!
//! A session counts by `Authorization: Bearer`, or by its cookie; the cookie alone counts for GET only, otherwise
//! `x-tsubame: 1` must be with it, which another site's page cannot send.

mod host_list;
mod openapi;
mod page;
mod routes;
mod session;

pub use openapi::document;
pub use session::{Sessions, new_setup_code};

use crate::backup::Asker;
use crate::body;
use crate::connections::{Limits, Peer};
use crate::host_logs::HostLogs;
use crate::rack_task::{Clock, Handle, Shown, Stopping};
use crate::releases;
use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use proto::api::{About, Accepted, ApiError, ConsoleText, Login, Refusal, Session, Setup};
use proto::release::PART_BYTES_MAX;
use rack::effect::{Answer, Reply as RackReply};
use rack::event::{Command, Event};
use routes::{Act, Given, Route};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use warp::path::FullPath;
use warp::{Filter, Reply};

/// Tabs and commands of a few operators; one tab has one connection by h2.
pub const LIMITS: Limits = Limits {
    connections_max: 256,
    connections_per_address_max: 64,
    head_timeout: Duration::from_secs(60),
    streams_max: 64,
};
const BODY_BYTES_MAX: usize = 64 << 10;
/// A console comes from its host over the host's next report.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(45);
/// A comment this often keeps a quiet stream alive; the page takes a line for dead after 40 s, the command after 30 s.
const STREAM_ALIVE: Duration = Duration::from_secs(10);
const EVENTS_MAX: usize = 1000;
const COOKIE: &str = "tsubame_session";

/// What the endpoint knows.
pub struct Operators {
    /// Who is logged in.
    pub sessions: Sessions,
    /// The rack.
    pub rack: Handle,
    /// What hosts say while they boot and later.
    pub logs: HostLogs,
    /// The time, for sessions.
    pub clock: Clock,
    /// Where releases' files go.
    pub releases: releases::Handle,
    /// Takes backups.
    pub backup: Asker,
}

/// One request, read.
struct Asked {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    peer: Peer,
    body: Bytes,
}

/// The service as a warp filter; each request carries a [`Peer`].
pub fn filter(
    operators: Arc<Operators>,
) -> impl Filter<Extract = (warp::reply::Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    let query = warp::query::raw().or_else(|_| async { Ok::<_, warp::Rejection>((String::new(),)) });
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Peer>())
        .and(warp::body::stream())
        .and_then(move |method, path: FullPath, query, headers, peer, body| {
            let operators = operators.clone();
            async move {
                let path = path.as_str().to_owned();
                let mut response =
                    operators.answer(Asked { method, path, query, headers, peer, body: Bytes::new() }, body).await;
                page::guard(&mut response);
                Ok::<_, Infallible>(response)
            }
        })
}

impl Operators {
    async fn answer<B: Buf>(
        self: &Arc<Self>,
        mut asked: Asked,
        body: impl Stream<Item = Result<B, warp::Error>>,
    ) -> warp::reply::Response {
        if !asked.path.starts_with("/v1/") {
            return page::file(&asked.method, &asked.path).unwrap_or_else(|| refused(Refusal::NoSuchPath));
        }
        let Some((route, id)) = routes::find(&asked.method, &asked.path) else {
            return refused(Refusal::NoSuchPath);
        };
        let id = id.to_owned();
        // Who is not logged in is told so before a body is read for them.
        let token = match self.token(&asked) {
            None if !route.act.is_open() => return refused(Refusal::NotLoggedIn),
            token => token,
        };
        let bytes_max = if matches!(route.act, Act::File) { PART_BYTES_MAX } else { BODY_BYTES_MAX };
        asked.body = match body::read(body, bytes_max).await {
            Ok(body) => body,
            Err(status) => {
                let mut response = refused(Refusal::BadValue {
                    field: "the body".to_owned(),
                    given: "one too long or too slow".to_owned(),
                    expected: format!("at most {bytes_max} bytes, within 15 s"),
                });
                *response.status_mut() = status;
                return response;
            }
        };
        match self.act(route, &id, &asked, token).await {
            Ok(response) => response,
            Err(refusal) => refused(refusal),
        }
    }

    async fn act(
        self: &Arc<Self>,
        route: &Route,
        id: &str,
        asked: &Asked,
        token: Option<String>,
    ) -> Result<warp::reply::Response, Refusal> {
        let given = Given { id, body: &asked.body };
        let (from, now_ms) = (asked.peer.address.ip(), self.clock.now().unix_ms);
        match route.act {
            Act::About => Ok(json(&About {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                needs_setup: self.sessions.needs_setup(),
            })),
            Act::Setup => {
                let Setup { code, password } = given.body()?;
                let session = self.sessions.setup(&code, &password, from, now_ms).await?;
                tracing::info!(%from, "the password was chosen");
                Ok(begun(&session))
            }
            Act::Login => {
                let Login { password } = given.body()?;
                let session = self.sessions.login(&password, from, now_ms).await;
                if session == Err(Refusal::WrongPassword) {
                    tracing::warn!(%from, "a wrong password");
                }
                Ok(begun(&session?))
            }
            Act::Logout => {
                self.sessions.logout(&token.unwrap_or_default())?;
                let mut response = json(&Accepted::Done);
                set_cookie(&mut response, "", 0);
                Ok(response)
            }
            Act::Rack => Ok(raw_json(self.rack.fresh().await.map_err(stopping)?.json().as_bytes())),
            Act::Stream => {
                let views = self.rack.watch();
                let first = self.rack.fresh().await.map_err(stopping)?;
                Ok(self.stream(token.unwrap_or_default(), first, views))
            }
            Act::Events => {
                let (after, limit) = log_range(&asked.query)?;
                Ok(json(&self.rack.log(after, limit).await.map_err(stopping)?))
            }
            Act::HostLog => {
                let host = given.id()?;
                let view = self.rack.fresh().await.map_err(stopping)?;
                if !view.view.hosts.iter().any(|known| known.id == host) {
                    return Err(Refusal::NoHost { host });
                }
                Ok(json(&ConsoleText { text: self.logs.text(&host) }))
            }
            Act::OpenApi => Ok(json(&document())),
            Act::Missing => Ok(json(&self.releases.missing(given.body()?).await?)),
            Act::File => {
                let sha256 = given.id.to_owned();
                Ok(json(&self.releases.part(sha256, offset(&asked.query)?, asked.body.clone()).await?))
            }
            Act::Import => Ok(json(&self.releases.add(given.body()?).await?)),
            Act::Backup => match self.backup.now().await {
                Ok(file) => Ok(json(&file)),
                Err(detail) => Err(Refusal::Unavailable { detail }),
            },
            Act::Command(to) => self.command(to(&given)?).await,
        }
    }

    async fn command(&self, command: Command) -> Result<warp::reply::Response, Refusal> {
        let asking = self.rack.ask(|reply| Event::Operator { reply, command });
        let Ok(answer) = tokio::time::timeout(COMMAND_TIME_MAX, asking).await else {
            let detail = format!("no answer within {} s", COMMAND_TIME_MAX.as_secs());
            return Err(Refusal::Unavailable { detail });
        };
        let Answer::Operator(reply) = answer.map_err(stopping)? else {
            return Err(Refusal::Unavailable { detail: "the rack's answer does not fit the question".to_owned() });
        };
        Ok(match reply? {
            RackReply::Accepted(accepted) => json(&accepted),
            RackReply::Plan(plan) => json(&plan),
            RackReply::Console(console) => json(&console),
            RackReply::Power(power) => json(&power),
            RackReply::Collected(collected) => json(&collected),
        })
    }

    /// A view at once and every newer one, for as long as the session lasts. As the first has all in it that was acknowledged before, whoever
    /// has just changed something sees it.
    fn stream(
        self: &Arc<Self>,
        token: String,
        first: Arc<Shown>,
        views: watch::Receiver<Arc<Shown>>,
    ) -> warp::reply::Response {
        let state = (self.clone(), token, views, first.view.version);
        let newer = stream::unfold(state, |(operators, token, mut views, than)| async move {
            let shown = loop {
                views.changed().await.ok()?;
                let shown = views.borrow_and_update().clone();
                if shown.view.version > than {
                    break shown;
                }
            };
            let live = operators.sessions.is_live(&token, operators.clock.now().unix_ms);
            let than = shown.view.version;
            live.then_some((shown, (operators, token, views, than)))
        });
        let events = stream::once(async { first })
            .chain(newer)
            .map(|shown| Ok::<_, Infallible>(warp::sse::Event::default().event("rack").data(&*shown.json())));
        let mut response =
            warp::sse::reply(warp::sse::keep_alive().interval(STREAM_ALIVE).stream(events)).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The live session that a request shows, if any.
    fn token(&self, asked: &Asked) -> Option<String> {
        let text = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let cookie = || {
            let ours = asked.method == Method::GET || text("x-tsubame") == Some("1");
            let cookies = asked.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut pairs =
                cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token).filter(|_| ours)
        };
        let now_ms = self.clock.now().unix_ms;
        bearer.or_else(cookie).filter(|token| self.sessions.is_live(token, now_ms)).map(str::to_owned)
    }
}

/// `after` and `limit` of a query.
fn log_range(query: &str) -> Result<(u64, usize), Refusal> {
    let (mut after, mut limit) = (0, 100);
    for (name, value) in
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        let bad = |expected: &str| Refusal::BadValue {
            field: name.chars().take(40).collect(),
            given: value.chars().take(40).collect(),
            expected: expected.to_owned(),
        };
        match name {
            "after" => after = value.parse().map_err(|_| bad("a number of an event"))?,
            "limit" => {
                limit = value.parse().ok().filter(|n| (1..=EVENTS_MAX).contains(n)).ok_or_else(|| bad("1 to 1000"))?
            }
            _ => return Err(bad("only after and limit")),
        }
    }
    Ok((after, limit))
}

/// `offset` of a query; 0 when absent.
fn offset(query: &str) -> Result<u64, Refusal> {
    let given = query.strip_prefix("offset=").or_else(|| query.is_empty().then_some("0"));
    given.and_then(|given| given.parse().ok()).ok_or_else(|| Refusal::BadValue {
        field: "the query".to_owned(),
        given: query.chars().take(40).collect(),
        expected: "offset=N, the byte at which this part begins".to_owned(),
    })
}

fn stopping(stopping: Stopping) -> Refusal {
    Refusal::Unavailable { detail: stopping.to_string() }
}

fn begun(session: &Session) -> warp::reply::Response {
    let mut response = json(session);
    set_cookie(&mut response, &session.token, session::SESSION_MS / 1000);
    response
}

fn set_cookie(response: &mut warp::reply::Response, token: &str, age_s: u64) {
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age={age_s}");
    // A token is base64url.
    let value = HeaderValue::from_str(&cookie).expect("base64url and punctuation make a header's value");
    response.headers_mut().insert(header::SET_COOKIE, value);
}

fn json<T: Serialize>(answer: &T) -> warp::reply::Response {
    match serde_json::to_vec(answer) {
        Ok(bytes) => raw_json(&bytes),
        Err(err) => refused(Refusal::Unavailable { detail: err.to_string() }),
    }
}

fn raw_json(bytes: &[u8]) -> warp::reply::Response {
    let mut response = bytes.to_vec().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refused(refusal: Refusal) -> warp::reply::Response {
    let status = status(&refusal);
    let retry = match &refusal {
        Refusal::TooManyAttempts { retry_s } => Some(*retry_s),
        _ => None,
    };
    let mut response = json(&ApiError::from(refusal));
    *response.status_mut() = status;
    if let Some(retry_s) = retry {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_s));
    }
    response
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NoHost { .. }
        | Refusal::NoVm { .. }
        | Refusal::NoDisk { .. }
        | Refusal::NoTemplate { .. }
        | Refusal::NoRelease { .. }
        | Refusal::NoPool { .. }
        | Refusal::NoSuchPath => StatusCode::NOT_FOUND,
        Refusal::NotLoggedIn | Refusal::WrongPassword => StatusCode::UNAUTHORIZED,
        Refusal::BadValue { .. } => StatusCode::BAD_REQUEST,
        Refusal::TooManyAttempts { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::HostFailed { .. } => StatusCode::BAD_GATEWAY,
        Refusal::NameTaken { .. }
        | Refusal::MacTaken { .. }
        | Refusal::HostIs { .. }
        | Refusal::HostFenced { .. }
        | Refusal::VmIs { .. }
        | Refusal::MoveUnderWay { .. }
        | Refusal::NoPlace { .. }
        | Refusal::AlreadyThere { .. }
        | Refusal::DiskInUse { .. }
        | Refusal::HostHasVms { .. }
        | Refusal::NoBmc { .. }
        | Refusal::BmcCannot { .. }
        | Refusal::PowerUnderWay { .. }
        | Refusal::ReleaseInUse { .. }
        | Refusal::PoolInUse { .. }
        | Refusal::RolloutUnderWay { .. }
        | Refusal::AlreadySetUp => StatusCode::CONFLICT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_the_log() {
        assert_eq!(log_range(""), Ok((0, 100)));
        assert_eq!(log_range("after=5&limit=1000"), Ok((5, 1000)));
        for bad in ["after=-1", "limit=0", "limit=1001", "limit", "since=1", "after=99999999999999999999999"] {
            assert!(matches!(log_range(bad), Err(Refusal::BadValue { .. })), "{bad}");
        }
    }
}
