//! Redfish (DMTF DSP0266 1.x), as far as power needs it: one system's PowerState, its reset action, its boot override.
//!
//! Owns: requests and what their answers mean. Every request is by HTTPS with basic authentication (13.3.4.3), so that no session is left
//! behind on a controller that has room for a few. Only paths on the same controller are followed, and no redirect is.

use super::tls::{self, Pin};
use super::{Limits, quoted, within};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_MATCH};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use proto::agent::Secret;
use proto::power::PowerState;
use rack::power::{PowerFailure, PowerWhy, Trust, host_and_port};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PORT: u16 = 443;
/// A system of many parts is described in some tens of kilobytes.
const BODY_BYTES_MAX: usize = 1 << 20;
const SYSTEMS: &str = "/redfish/v1/Systems";

/// A controller that is asked by Redfish.
pub(super) struct Redfish<'a> {
    address: &'a str,
    host: &'a str,
    port: u16,
    user: &'a str,
    password: &'a Secret,
    authorization: HeaderValue,
    trust: Trust,
    system: Option<&'a str>,
    limits: Limits,
    connection: Option<SendRequest<Full<Bytes>>>,
    certificate: Option<String>,
    /// Of the system, once it was found.
    path: Option<String>,
}

/// What is read of a ComputerSystem (DSP0268).
#[derive(Debug, Deserialize)]
struct System {
    #[serde(rename = "PowerState")]
    power_state: Option<String>,
    #[serde(rename = "Boot", default)]
    boot: Boot,
    #[serde(rename = "Actions", default)]
    actions: Actions,
}

#[derive(Debug, Default, Deserialize)]
struct Boot {
    #[serde(rename = "BootSourceOverrideTarget@Redfish.AllowableValues")]
    targets: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
struct Actions {
    #[serde(rename = "#ComputerSystem.Reset")]
    reset: Option<Reset>,
}

#[derive(Debug, Deserialize)]
struct Reset {
    target: String,
    #[serde(rename = "ResetType@Redfish.AllowableValues")]
    allowed: Option<Vec<String>>,
    #[serde(rename = "@Redfish.ActionInfo")]
    info: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ActionInfo {
    #[serde(rename = "Parameters", default)]
    parameters: Vec<Parameter>,
}

#[derive(Debug, Deserialize)]
struct Parameter {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "AllowableValues")]
    allowed: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Collection {
    #[serde(rename = "Members", default)]
    members: Vec<Link>,
}

#[derive(Debug, Deserialize)]
struct Link {
    #[serde(rename = "@odata.id")]
    id: String,
}

/// An answer that was read whole.
struct Answer {
    status: StatusCode,
    etag: Option<HeaderValue>,
    body: Bytes,
}

impl<'a> Redfish<'a> {
    pub(super) fn new(
        address: &'a str,
        user: &'a str,
        password: &'a Secret,
        trust: &Trust,
        system: Option<&'a str>,
        limits: Limits,
    ) -> Result<Self, PowerFailure> {
        let unable = |what: &str| {
            let text = format!("BMC {address:?} (redfish): {what}");
            PowerFailure { why: PowerWhy::Unable, text }
        };
        let (host, port) = host_and_port(address).ok_or_else(|| unable("that is no address; set another"))?;
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.0)));
        // Base64 is text for a header.
        let mut authorization = HeaderValue::from_str(&basic).map_err(|err| unable(&err.to_string()))?;
        authorization.set_sensitive(true);
        Ok(Self {
            address,
            host,
            port: port.unwrap_or(PORT),
            user,
            password,
            authorization,
            trust: trust.clone(),
            system,
            limits,
            connection: None,
            certificate: None,
            path: None,
        })
    }

    pub(super) async fn state(&mut self) -> Result<PowerState, PowerFailure> {
        Ok(match self.look("asking whether the machine is on").await?.0.power_state.as_deref() {
            Some("On") => PowerState::On,
            Some("Off") => PowerState::Off,
            // PoweringOn, PoweringOff, Paused: neither yet.
            _ => PowerState::Unknown,
        })
    }

    pub(super) async fn switch(&mut self, on: bool) -> Result<(), PowerFailure> {
        let doing = if on { "switching on" } else { "switching off" };
        let wanted: &[&str] = if on { &["On", "ForceOn"] } else { &["ForceOff"] };
        let (system, _) = self.look(doing).await?;
        let Some(reset) = system.actions.reset else {
            return Err(self.failure(PowerWhy::Unable, &format!("{doing}: this system has no action to reset it")));
        };
        let allowed = match (reset.allowed, reset.info) {
            (Some(allowed), _) => Some(allowed),
            (None, Some(info)) => {
                let info: ActionInfo = self.get(doing, &info).await?.0;
                info.parameters.into_iter().find(|p| p.name == "ResetType").and_then(|p| p.allowed)
            }
            (None, None) => None,
        };
        let fits = |kind: &&&str| allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|a| a == **kind));
        let Some(kind) = wanted.iter().find(fits) else {
            let allowed = allowed.unwrap_or_default().join(", ");
            let what =
                format!("{doing}: it offers no {}, but {:?}", wanted.join(" nor "), quoted(&allowed, self.password));
            return Err(self.failure(PowerWhy::Unable, &what));
        };
        let answer = self.send(doing, Method::POST, &reset.target, Some(json!({ "ResetType": kind })), None).await?;
        self.good(doing, &reset.target, answer).map(drop)
    }

    pub(super) async fn boot_from_network_once(&mut self) -> Result<(), PowerFailure> {
        let doing = "setting the next boot to the network";
        let (system, etag) = self.look(doing).await?;
        if system.boot.targets.as_ref().is_some_and(|targets| !targets.iter().any(|target| target == "Pxe")) {
            let targets = quoted(&system.boot.targets.unwrap_or_default().join(", "), self.password);
            return Err(self.failure(PowerWhy::Unable, &format!("{doing}: it offers no Pxe, but {targets:?}")));
        }
        let Some(path) = self.path.clone() else { return Err(self.failure(PowerWhy::Unable, doing)) };
        let boot = json!({ "Boot": { "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe" } });
        let answer = self.send(doing, Method::PATCH, &path, Some(boot), etag).await?;
        self.good(doing, &path, answer).map(drop)
    }

    /// sha256 of what it showed last.
    pub(super) fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    pub(super) fn failure(&self, why: PowerWhy, what: &str) -> PowerFailure {
        PowerFailure { why, text: format!("BMC {} (redfish): {what}", self.address) }
    }

    /// The system as it is now.
    async fn look(&mut self, doing: &str) -> Result<(System, Option<HeaderValue>), PowerFailure> {
        let path = match &self.path {
            Some(path) => path.clone(),
            None => self.find(doing).await?,
        };
        let system = self.get(doing, &path).await?;
        self.path = Some(path);
        Ok(system)
    }

    /// The only system, or that of the given Id: the last part of its path.
    async fn find(&mut self, doing: &str) -> Result<String, PowerFailure> {
        let (Collection { members }, _) = self.get(doing, SYSTEMS).await?;
        let id = |link: &Link| link.id.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let found = match self.system {
            Some(system) => members.iter().find(|link| id(link) == system),
            None => members.first().filter(|_| members.len() == 1),
        };
        if let Some(found) = found {
            return Ok(found.id.clone());
        }
        let known: Vec<String> = members.iter().map(id).take(20).collect();
        let known = quoted(&known.join(", "), self.password);
        let what = match self.system {
            Some(system) => format!("{doing}: it has no system {system:?}, but {known}"),
            None => format!("{doing}: it has {} systems; say which one by its Id: {known}", members.len()),
        };
        Err(self.failure(PowerWhy::Unable, &what))
    }

    async fn get<T: for<'de> Deserialize<'de>>(
        &mut self,
        doing: &str,
        path: &str,
    ) -> Result<(T, Option<HeaderValue>), PowerFailure> {
        let answer = self.send(doing, Method::GET, path, None, None).await?;
        let Answer { etag, body, .. } = self.good(doing, path, answer)?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok((value, etag)),
            Err(err) => {
                let what = format!(
                    "{doing}: what it says at {} is not what Redfish asks for: {err}",
                    quoted(path, self.password)
                );
                Err(self.failure(PowerWhy::Unreached, &quoted(&what, self.password)))
            }
        }
    }

    /// An answer that says yes.
    fn good(&self, doing: &str, path: &str, answer: Answer) -> Result<Answer, PowerFailure> {
        let status = answer.status;
        if status.is_success() {
            return Ok(answer);
        }
        let (user, path) = (self.user, quoted(path, self.password));
        let said = quoted(&said_in(&answer.body), self.password);
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let (why, what) = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
                PowerWhy::Login,
                format!("it does not let {user:?} in ({status}); set the right user and password{said}"),
            ),
            busy if is_for_now(busy) => (PowerWhy::Unreached, format!("it cannot now ({status}){said}")),
            _ => (PowerWhy::Unable, format!("it answered {status} to {path}{said}")),
        };
        Err(self.failure(why, &format!("{doing}: {what}")))
    }

    async fn send(
        &mut self,
        doing: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        etag: Option<HeaderValue>,
    ) -> Result<Answer, PowerFailure> {
        // What it names may be anything; the password goes to this controller alone.
        if !path.starts_with('/') || path.starts_with("//") {
            let what = format!("{doing}: it names {:?}, which is no path of its own", quoted(path, self.password));
            return Err(self.failure(PowerWhy::Unable, &what));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.authority());
        request = request.header(AUTHORIZATION, self.authorization.clone());
        request = request.header("OData-Version", "4.0").header("Accept", "application/json");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(etag) = etag {
            request = request.header(IF_MATCH, etag);
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|err| self.failure(PowerWhy::Unable, &format!("{doing}: {err}")))?;
        match within(self.limits, self.exchange(doing, request)).await {
            Some(answer) => answer,
            None => {
                self.connection = None;
                let s = self.limits.request.as_secs();
                let what = format!("{doing}: no answer within {s} s; see whether the controller hangs");
                Err(self.failure(PowerWhy::Unreached, &what))
            }
        }
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_owned() };
        if self.port == PORT { host } else { format!("{host}:{}", self.port) }
    }

    async fn exchange(&mut self, doing: &str, request: Request<Full<Bytes>>) -> Result<Answer, PowerFailure> {
        let mut connection = match self.connection.take() {
            Some(open) => open,
            None => self.connect(doing).await?,
        };
        // One that the controller has closed meanwhile is no use.
        if connection.ready().await.is_err() {
            connection = self.connect(doing).await?;
        }
        let broken = |this: &Self, err: &dyn std::fmt::Display| {
            this.failure(PowerWhy::Unreached, &format!("{doing}: the connection broke: {err}"))
        };
        let response = connection.send_request(request).await.map_err(|err| broken(self, &err))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|err| broken(self, &err))?;
        self.connection = Some(connection);
        Ok(Answer { status: head.status, etag: head.headers.get(ETAG).cloned(), body: body.to_bytes() })
    }

    async fn connect(&mut self, doing: &str) -> Result<SendRequest<Full<Bytes>>, PowerFailure> {
        let (host, port) = (self.host, self.port);
        let stream = TcpStream::connect((host, port)).await.map_err(|err| {
            let what = format!(
                "{doing}: it cannot be reached on TCP port {port}: {err}; see that the address is right, that the controller has power, and that Redfish is switched on there"
            );
            self.failure(PowerWhy::Unreached, &what)
        })?;
        let no_tls = |this: &Self, err: &dyn std::fmt::Display| {
            let what = format!("{doing}: TLS on port {port}: {err}; see that Redfish is served by HTTPS there");
            this.failure(PowerWhy::Unreached, &what)
        };
        let pin = Pin::new(self.trust.clone());
        let config = tls::config(pin.clone()).map_err(|err| no_tls(self, &err))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|err| no_tls(self, &err))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let stream = connected.map_err(|err| match (&self.trust, pin.shown()) {
            (Trust::Pinned(pinned), Some(shown)) if pinned != shown => {
                let what = format!(
                    "{doing}: it shows another certificate than the one that is trusted: sha256 {shown}, not {pinned}. It was told nothing. If the certificate was changed on purpose, trust the new one"
                );
                self.failure(PowerWhy::Certificate, &what)
            }
            _ => no_tls(self, &err),
        })?;
        self.certificate = pin.shown().map(str::to_owned);
        // For the rest of this job it is to be the same.
        if let (Trust::First, Some(shown)) = (&self.trust, pin.shown()) {
            self.trust = Trust::Pinned(shown.to_owned());
        }
        let (sender, serving) = handshake(TokioIo::new(stream)).await.map_err(|err| no_tls(self, &err))?;
        // Ends with the sender, or with the controller; how it ended shows in the answer that was waited for.
        tokio::spawn(serving);
        Ok(sender)
    }
}

/// Whether a refusal is one that ends by itself: a controller that is busy, or whose own service is being started (RFC 9110, 15).
fn is_for_now(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            true
        }
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        other => other.is_server_error(),
    }
}

/// The message of an error response (DSP0266, 8.6).
fn said_in(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let error = &body["error"];
    let extended = error["@Message.ExtendedInfo"][0]["Message"].as_str();
    extended.or_else(|| error["message"].as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        for (body, said) in [
            (r#"{"error":{"code":"x","message":"general","@Message.ExtendedInfo":[{"Message":"exact"}]}}"#, "exact"),
            (r#"{"error":{"message":"general","@Message.ExtendedInfo":[{"MessageId":"x"}]}}"#, "general"),
            (r#"{"error":"x"}"#, ""),
            ("<html>", ""),
            ("[]", ""),
        ] {
            assert_eq!(said_in(body.as_bytes()), said, "{body}");
        }
    }

    #[test]
    fn statuses() {
        for (status, for_now) in [
            (400, false),
            (404, false),
            (405, false),
            (408, true),
            (409, true),
            (425, true),
            (429, true),
            (500, true),
            (501, false),
            (502, true),
            (503, true),
            (504, true),
        ] {
            assert_eq!(is_for_now(StatusCode::from_u16(status).expect("a status")), for_now, "{status}");
        }
    }

    /// As HPE's and Dell's controllers and sushy-emulator say it, cut to what is read and something that is not.
    #[test]
    fn systems() {
        let system = |text: &str| serde_json::from_str::<System>(text).expect("a system");
        let one = system(
            r##"{"@odata.id":"/redfish/v1/Systems/1","PowerState":"On","Boot":{"BootSourceOverrideTarget":"None",
            "BootSourceOverrideTarget@Redfish.AllowableValues":["None","Pxe"]},"Actions":{"#ComputerSystem.Reset":{
            "ResetType@Redfish.AllowableValues":["On","ForceOff"],"target":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"}}}"##,
        );
        assert_eq!(one.power_state.as_deref(), Some("On"));
        assert_eq!(one.boot.targets, Some(vec!["None".to_owned(), "Pxe".to_owned()]));
        assert_eq!(one.actions.reset.expect("an action").allowed.expect("values").len(), 2);
        let bare = system(r#"{"PowerState":null}"#);
        assert!(bare.power_state.is_none() && bare.actions.reset.is_none() && bare.boot.targets.is_none());
    }
}
