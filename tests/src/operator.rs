//! The operators' API as tests use it: its types, over HTTPS, by a session.

use crate::https::{self, Answer, Trust};
use anyhow::{Context, Result, anyhow};
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderValue};
use proto::api::{
    About, Accepted, ApiError, Balance, ConsoleText, CreateVm, Login, MigrateVm, Refusal, Session, Setup,
};
use proto::event::LogEvent;
use proto::release::ReleaseId;
use proto::view::{HostView, MoveView, PlanView, RackView, VmView};
use proto::{HostId, MoveId, VmId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::{SocketAddr, TcpStream};

/// The password that test racks get.
pub const PASSWORD: &str = "the virtual rack's own";

/// The server said no.
#[derive(Debug)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// Its reason.
    pub refusal: Refusal,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused with {}: {}", self.status, self.refusal)
    }
}

impl std::error::Error for Refused {}

/// A logged-in operator.
#[derive(Clone)]
pub struct Operator {
    trust: Trust,
    address: SocketAddr,
    token: Option<String>,
}

impl Operator {
    /// An operator without a session.
    pub fn stranger(trust: Trust, address: SocketAddr) -> Self {
        Self { trust, address, token: None }
    }

    /// Whether the server was set up.
    pub fn about(&self) -> Result<About> {
        self.get("/v1/about")
    }

    /// Chooses the first password.
    pub fn set_up(&mut self, code: &str, password: &str) -> Result<()> {
        let session: Session =
            self.ask(Method::POST, "/v1/setup", &Setup { code: code.to_owned(), password: password.to_owned() })?;
        self.token = Some(session.token);
        Ok(())
    }

    /// Logs in.
    pub fn log_in(&mut self, password: &str) -> Result<()> {
        let session: Session = self.ask(Method::POST, "/v1/login", &Login { password: password.to_owned() })?;
        self.token = Some(session.token);
        Ok(())
    }

    /// The session's token, for the command.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The rack now.
    pub fn rack(&self) -> Result<RackView> {
        self.get("/v1/rack")
    }

    /// A host, once it is known.
    pub fn host(&self, host: &HostId) -> Result<Option<HostView>> {
        Ok(self.rack()?.hosts.into_iter().find(|h| h.id == *host))
    }

    /// A VM.
    pub fn vm(&self, vm: &VmId) -> Result<VmView> {
        let rack = self.rack()?;
        rack.vms.into_iter().find(|v| v.spec.name == *vm).ok_or_else(|| anyhow!("the rack shows no VM {vm}"))
    }

    /// A move.
    pub fn r#move(&self, id: MoveId) -> Result<MoveView> {
        let rack = self.rack()?;
        rack.moves.into_iter().find(|m| m.id == id).ok_or_else(|| anyhow!("the rack shows no move {id}"))
    }

    /// The end of what a host's dom0 said.
    pub fn host_log(&self, host: &HostId) -> Result<String> {
        Ok(self.get::<ConsoleText>(&format!("/v1/hosts/{host}/log"))?.text)
    }

    /// Lets a host in.
    pub fn accept(&self, host: &HostId) -> Result<Accepted> {
        self.ask(Method::POST, &format!("/v1/hosts/{host}/accept"), &())
    }

    /// Makes a VM.
    pub fn create_vm(&self, request: &CreateVm) -> Result<Accepted> {
        self.ask(Method::POST, "/v1/vms", request)
    }

    /// Does one of start, shutdown, destroy, pause, resume with a VM.
    pub fn vm_do(&self, vm: &VmId, what: &str) -> Result<Accepted> {
        self.ask(Method::POST, &format!("/v1/vms/{vm}/{what}"), &())
    }

    /// Removes a VM.
    pub fn delete_vm(&self, vm: &VmId) -> Result<Accepted> {
        self.ask(Method::DELETE, &format!("/v1/vms/{vm}"), &())
    }

    /// Deletes a release.
    pub fn delete_release(&self, release: &ReleaseId) -> Result<Accepted> {
        self.ask(Method::DELETE, &format!("/v1/releases/{release}"), &())
    }

    /// Moves a VM.
    pub fn migrate(&self, vm: &VmId, to: Option<&HostId>) -> Result<MoveId> {
        let request = MigrateVm { to: to.cloned() };
        match self.ask(Method::POST, &format!("/v1/vms/{vm}/migrate"), &request)? {
            Accepted::Moving { r#move } => Ok(r#move),
            other => Err(anyhow!("asked for a move, the server answered {other:?}")),
        }
    }

    /// Evens out the load.
    pub fn balance(&self, dry_run: bool) -> Result<PlanView> {
        self.ask(Method::POST, "/v1/balance", &Balance { dry_run })
    }

    /// Events after a number, oldest first.
    pub fn events(&self, after: u64) -> Result<Vec<LogEvent>> {
        self.get(&format!("/v1/events?after={after}&limit=1000"))
    }

    fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A> {
        self.exchange(Method::GET, path, String::new())
    }

    fn ask<A: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<A> {
        let body = serde_json::to_string(body)?;
        self.exchange(method, path, if body == "null" { String::new() } else { body })
    }

    fn exchange<A: DeserializeOwned>(&self, method: Method, path: &str, body: String) -> Result<A> {
        let what = format!("{method} {path}");
        let Answer { status, body } = self.raw(method, path, body)?;
        if !(200..300).contains(&status) {
            let error: ApiError = serde_json::from_str(&body).with_context(|| format!("{what}: {status}: {body}"))?;
            return Err(anyhow!(Refused { status, refusal: error.refusal }).context(what));
        }
        serde_json::from_str(&body).with_context(|| format!("{what}: {body}"))
    }

    /// One request as it is.
    pub fn raw(&self, method: Method, path: &str, body: String) -> Result<Answer> {
        let stream = TcpStream::connect(self.address)
            .with_context(|| format!("connecting to the boot server, {}", self.address))?;
        let mut request = https::request(method, path, &self.address.to_string(), body)?;
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
        }
        https::tls(&self.trust, stream, self.address.ip(), request)
    }
}
