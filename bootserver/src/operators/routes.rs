//! The operators' API as one table: from it come both the dispatch and the OpenAPI document.
//!
//! The table is that of docs/design/0001-the-road.md; a test compares them.

use super::host_list;
use http::Method;
use proto::api::{
    About, Accepted, Balance, ConsoleText, CreateDisk, CreateVm, DescribeHost, GrowDisk, HostList, Login, MigrateVm,
    Refusal, RegisterHost, Session, Setup,
};
use proto::event::LogEvent;
use proto::power::{OrderPower, PowerView, SetBmc};
use proto::release::{
    CollectReleases, Collected, CreatePool, FileProgress, Manifest, MissingFiles, SetPool, StartRollout,
};
use proto::view::{BackupFile, PlanView, RackView};
use proto::vm::Restart;
use rack::event::Command;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

/// An OpenAPI document, as far as its schema is told.
#[derive(ToSchema)]
#[schema(value_type = Object)]
#[allow(dead_code)] // it is there for its schema
struct Document(serde_json::Value);

/// The methods in use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Delete => Method::DELETE,
        }
    }
}

/// One path and method.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) verb: Verb,
    /// With `{id}` for the one part that varies.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) body: Option<Type>,
    pub(super) answer: Type,
    pub(super) act: Act,
}

/// What a route does.
#[derive(Clone, Copy)]
pub(super) enum Act {
    About,
    Setup,
    Login,
    Logout,
    Rack,
    Stream,
    Events,
    HostLog,
    OpenApi,
    /// Announces a release.
    Missing,
    /// A part of a release's file, as it is.
    File,
    /// Adds an announced release.
    Import,
    Backup,
    /// Asks the rack.
    Command(fn(&Given<'_>) -> Result<Command, Refusal>),
}

impl Act {
    /// Whether it is for those who are not logged in.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::About | Self::Setup | Self::Login)
    }
}

/// A type with its schema.
#[derive(Clone, Copy)]
pub(super) struct Type {
    pub(super) name: fn() -> Cow<'static, str>,
    pub(super) schema: fn() -> RefOr<Schema>,
    pub(super) others: fn(&mut Vec<(String, RefOr<Schema>)>),
    /// It is an array of these.
    pub(super) many: bool,
}

const fn of<T: ToSchema>() -> Type {
    Type { name: T::name, schema: T::schema, others: T::schemas, many: false }
}

/// Stands for what may hold a password.
pub(super) const NOT_SHOWN: &str = "(not shown)";

/// What a request gives a command.
pub(super) struct Given<'a> {
    pub(super) id: &'a str,
    pub(super) body: &'a [u8],
}

impl Given<'_> {
    pub(super) fn id<T: FromStr<Err: Display>>(&self) -> Result<T, Refusal> {
        self.id.parse().map_err(|err: T::Err| Refusal::BadValue {
            field: "the name in the path".to_owned(),
            given: self.id.chars().take(80).collect(),
            expected: err.to_string(),
        })
    }

    /// An empty body is an empty object.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let body = if self.body.is_empty() { b"{}" } else { self.body };
        serde_json::from_slice(body).map_err(|err| {
            let text = String::from_utf8_lossy(body);
            // Neither its beginning nor what is said of a value may show a secret.
            let (given, wrong) = if text.contains("password") {
                (NOT_SHOWN.to_owned(), format!("line {}, column {}", err.line(), err.column()))
            } else {
                (text.chars().take(80).collect(), err.to_string())
            };
            Refusal::BadValue { field: "the body".to_owned(), given, expected: format!("other JSON: {wrong}") }
        })
    }
}

/// Finds the route of a request, and the part of the path that varies.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Option<(&'static Route, &'a str)> {
    ROUTES
        .iter()
        .find_map(|route| if route.verb.method() == method { Some((route, fits(route.path, path)?)) } else { None })
}

fn fits<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    match template.split_once("{id}") {
        None => (template == path).then_some(""),
        Some((before, after)) => {
            let id = path.strip_prefix(before)?.strip_suffix(after)?;
            (!id.is_empty() && !id.contains('/')).then_some(id)
        }
    }
}

const fn route(verb: Verb, path: &'static str, summary: &'static str, answer: Type, act: Act) -> Route {
    Route { verb, path, summary, body: None, answer, act }
}

const fn command(
    verb: Verb,
    path: &'static str,
    summary: &'static str,
    to: fn(&Given<'_>) -> Result<Command, Refusal>,
) -> Route {
    route(verb, path, summary, of::<Accepted>(), Act::Command(to))
}

impl Route {
    const fn takes<T: ToSchema>(self) -> Self {
        Self { body: Some(of::<T>()), ..self }
    }
}

use Verb::{Delete, Get, Post};

/// All routes.
pub(super) static ROUTES: [Route; 47] = [
    route(Get, "/v1/about", "The server's version, and whether it was set up.", of::<About>(), Act::About),
    route(Post, "/v1/setup", "Choose the password by the set-up code.", of::<Session>(), Act::Setup).takes::<Setup>(),
    route(Post, "/v1/login", "Log in.", of::<Session>(), Act::Login).takes::<Login>(),
    route(Post, "/v1/logout", "End this session.", of::<Accepted>(), Act::Logout),
    route(Get, "/v1/rack", "The rack at this moment.", of::<RackView>(), Act::Rack),
    route(
        Get,
        "/v1/stream",
        "The rack, as server-sent events named `rack`, at once and on every change.",
        of::<RackView>(),
        Act::Stream,
    ),
    route(
        Get,
        "/v1/events",
        "The event log after a number, oldest first.",
        Type { many: true, ..of::<LogEvent>() },
        Act::Events,
    ),
    command(Post, "/v1/hosts", "Register a machine before it is seen.", |r| Ok(Command::RegisterHost(r.body()?)))
        .takes::<RegisterHost>(),
    command(Post, "/v1/hosts/list", "Name machines that are let in when they come.", |r| {
        let HostList { text, replace } = r.body()?;
        Ok(Command::ListHosts { hosts: host_list::parse(&text)?, replace })
    })
    .takes::<HostList>(),
    command(Post, "/v1/hosts/{id}/describe", "Give a host another name or other labels.", |r| {
        Ok(Command::DescribeHost { host: r.id()?, request: r.body()? })
    })
    .takes::<DescribeHost>(),
    command(Post, "/v1/hosts/{id}/accept", "Let a waiting machine in.", |r| Ok(Command::AcceptHost { host: r.id()? })),
    command(Post, "/v1/hosts/{id}/drain", "Empty a host, and give it nothing new.", |r| {
        Ok(Command::DrainHost { host: r.id()? })
    }),
    command(Post, "/v1/hosts/{id}/undrain", "Use a host again.", |r| Ok(Command::UndrainHost { host: r.id()? })),
    command(
        Post,
        "/v1/hosts/{id}/confirm-off",
        "Say of a host whose fence waits for its power that it has none.",
        |r| Ok(Command::ConfirmOff { host: r.id()? }),
    ),
    route(
        Get,
        "/v1/hosts/{id}/log",
        "The end of what dom0's kernel and daemons said.",
        of::<ConsoleText>(),
        Act::HostLog,
    ),
    command(Delete, "/v1/hosts/{id}", "Remove a host.", |r| Ok(Command::RemoveHost { host: r.id()? })),
    command(Post, "/v1/hosts/{id}/bmc", "Say how a host's power is switched.", |r| {
        Ok(Command::SetBmc { host: r.id()?, request: r.body()? })
    })
    .takes::<SetBmc>(),
    command(Delete, "/v1/hosts/{id}/bmc", "Forget how a host's power is switched.", |r| {
        Ok(Command::ForgetBmc { host: r.id()? })
    }),
    command(Post, "/v1/hosts/{id}/power", "Switch a host's power.", |r| {
        Ok(Command::OrderPower { host: r.id()?, request: r.body()? })
    })
    .takes::<OrderPower>(),
    route(
        Get,
        "/v1/hosts/{id}/power",
        "A host's power, as its management controller says now.",
        of::<PowerView>(),
        Act::Command(|r| Ok(Command::AskPower { host: r.id()? })),
    ),
    command(Post, "/v1/vms", "Make a VM from a template.", |r| Ok(Command::CreateVm(r.body()?))).takes::<CreateVm>(),
    command(Post, "/v1/vms/{id}/start", "Start a VM.", |r| Ok(Command::StartVm { vm: r.id()? })),
    command(Post, "/v1/vms/{id}/shutdown", "Ask a VM to shut down.", |r| Ok(Command::ShutdownVm { vm: r.id()? })),
    command(Post, "/v1/vms/{id}/destroy", "Stop a VM at once, as by its power switch.", |r| {
        Ok(Command::DestroyVm { vm: r.id()? })
    }),
    command(Post, "/v1/vms/{id}/pause", "Pause a VM.", |r| Ok(Command::PauseVm { vm: r.id()? })),
    command(Post, "/v1/vms/{id}/resume", "Let a paused VM go on.", |r| Ok(Command::ResumeVm { vm: r.id()? })),
    command(Delete, "/v1/vms/{id}", "Delete a stopped VM and its disks.", |r| Ok(Command::DeleteVm { vm: r.id()? })),
    command(Post, "/v1/vms/{id}/migrate", "Move a running VM to another host.", |r| {
        Ok(Command::MigrateVm { vm: r.id()?, request: r.body()? })
    })
    .takes::<MigrateVm>(),
    command(Post, "/v1/vms/{id}/ha", "Say in which order a VM is started again after its host has failed.", |r| {
        Ok(Command::SetRestart { vm: r.id()?, restart: r.body()? })
    })
    .takes::<Restart>(),
    route(
        Get,
        "/v1/vms/{id}/console",
        "The end of a guest's console log.",
        of::<ConsoleText>(),
        Act::Command(|r| Ok(Command::Console { vm: r.id()? })),
    ),
    command(Post, "/v1/disks", "Make a disk.", |r| Ok(Command::CreateDisk(r.body()?))).takes::<CreateDisk>(),
    command(Post, "/v1/disks/{id}/grow", "Grow a disk.", |r| {
        Ok(Command::GrowDisk { disk: r.id()?, request: r.body()? })
    })
    .takes::<GrowDisk>(),
    command(Delete, "/v1/disks/{id}", "Delete a disk that no VM has.", |r| Ok(Command::DeleteDisk { disk: r.id()? })),
    route(
        Post,
        "/v1/balance",
        "Plan moves that even out load, and carry them out unless it is a dry run.",
        of::<PlanView>(),
        Act::Command(|r| Ok(Command::Balance(r.body()?))),
    )
    .takes::<Balance>(),
    command(Post, "/v1/thaw", "Say of a frozen rack that the hosts which vanished are dead: each is fenced.", |_| {
        Ok(Command::Thaw)
    }),
    route(
        Post,
        "/v1/releases/missing",
        "Announce a release: which of its files are to be sent.",
        of::<MissingFiles>(),
        Act::Missing,
    )
    .takes::<Manifest>(),
    route(
        Post,
        "/v1/releases/files/{id}",
        "Send a part of an announced file, named by its sha256: up to 1 MiB, in order.",
        of::<FileProgress>(),
        Act::File,
    ),
    route(
        Post,
        "/v1/releases",
        "Add an announced release, all of whose files were sent.",
        of::<Accepted>(),
        Act::Import,
    )
    .takes::<Manifest>(),
    command(Delete, "/v1/releases/{id}", "Delete a release that nothing uses.", |r| {
        Ok(Command::DeleteRelease { release: r.id()? })
    }),
    route(
        Post,
        "/v1/releases/collect",
        "Delete the releases that nothing uses.",
        of::<Collected>(),
        Act::Command(|r| Ok(Command::CollectReleases(r.body()?))),
    )
    .takes::<CollectReleases>(),
    command(Post, "/v1/pools", "Make a pool of hosts.", |r| Ok(Command::CreatePool(r.body()?))).takes::<CreatePool>(),
    command(Delete, "/v1/pools/{id}", "Delete a pool without hosts.", |r| Ok(Command::DeletePool { pool: r.id()? })),
    command(Post, "/v1/pools/{id}/rollout", "Bring a release to a pool: first to a few hosts, then to all.", |r| {
        Ok(Command::StartRollout { pool: r.id()?, request: r.body()? })
    })
    .takes::<StartRollout>(),
    command(Post, "/v1/pools/{id}/stop", "Stop a pool's rollout: canaries go back, what was promoted stays.", |r| {
        Ok(Command::StopRollout { pool: r.id()? })
    }),
    command(Post, "/v1/hosts/{id}/pool", "Put a host into another pool.", |r| {
        let SetPool { pool } = r.body()?;
        Ok(Command::SetPool { host: r.id()?, pool })
    })
    .takes::<SetPool>(),
    route(Post, "/v1/backups", "Take a backup of the server's record and keys now.", of::<BackupFile>(), Act::Backup),
    route(Get, "/v1/openapi.json", "This document.", of::<Document>(), Act::OpenApi),
];

#[cfg(test)]
mod tests {
    use super::*;
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    use std::collections::BTreeSet;

    /// The table of the design document, its shorthands spelt out.
    fn designed() -> BTreeSet<String> {
        let text = include_str!("../../../docs/design/0001-the-road.md");
        let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
        let mut all = BTreeSet::new();
        for call in cells.filter(|cell| cell.contains(" /v1/")).flat_map(|cell| cell.split(';')) {
            let (verb, paths) = call.trim().split_once(' ').expect("a method, then paths");
            for path in paths.split(", ") {
                let path = path.trim().split('?').next().unwrap_or_default();
                match path.split_once('{').map(|(before, ends)| (before, ends.trim_end_matches('}'))) {
                    None => all.extend([format!("{verb} {path}")]),
                    Some((before, ends)) => all.extend(ends.split(',').map(|end| format!("{verb} {before}{end}"))),
                }
            }
        }
        all.into_iter().map(|call| call.replace("/ID", "/{id}")).collect()
    }

    #[test]
    fn the_table_is_that_of_the_design() {
        let ours: BTreeSet<String> = ROUTES.iter().map(|r| format!("{} {}", r.verb.method(), r.path)).collect();
        assert_eq!(ours, designed());
        assert!(ours.len() > 20);
    }

    #[test]
    fn finding() {
        let found = |method: Method, path| find(&method, path).map(|(route, id)| (route.path, id));
        assert_eq!(found(GET, "/v1/rack"), Some(("/v1/rack", "")));
        assert_eq!(found(POST, "/v1/vms/web-1/migrate"), Some(("/v1/vms/{id}/migrate", "web-1")));
        assert_eq!(found(DELETE, "/v1/vms/web-1"), Some(("/v1/vms/{id}", "web-1")));
        for (method, path) in [
            (POST, "/v1/rack"),
            (GET, "/v1/vms/web-1"),
            (DELETE, "/v1/vms/"),
            (DELETE, "/v1/vms/a/b"),
            (POST, "/v1/vms//start"),
            (GET, "/v1/rack/"),
        ] {
            assert_eq!(found(method, path), None, "{path}");
        }
    }
}
