//! What an operator asks for, and how the server says no.

use crate::ids::{DiskId, HostId, Mac, MoveId, VmId};
use crate::power::BmcKind;
use crate::release::{PoolId, ReleaseId};
use crate::view::{HostState, VmPhase};
use crate::vm::Restart;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Makes a VM from a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateVm {
    /// Its name.
    pub name: VmId,
    /// Which template.
    pub template: String,
    /// Memory, MiB; the template's when absent.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Virtual processors; the template's when absent.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// Size of its disk, MiB; the template's when absent. Never less than the template's image.
    #[serde(default)]
    pub disk_mib: Option<u64>,
    /// Address of its interface; made from the name when absent.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Appended to the template's kernel command line.
    #[serde(default)]
    pub cmdline: String,
    /// Whether to start it at once.
    #[serde(default)]
    pub start: bool,
    /// In which order it is started again after its host has failed.
    #[serde(default)]
    pub restart: Restart,
}

impl CreateVm {
    /// A VM as its template says, which is not started.
    pub fn new(name: VmId, template: &str) -> Self {
        Self {
            name,
            template: template.to_owned(),
            memory_mib: None,
            vcpus: None,
            disk_mib: None,
            mac: None,
            cmdline: String::new(),
            start: false,
            restart: Restart::default(),
        }
    }
}

/// Asks for a move.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrateVm {
    /// Where to; the planner chooses when absent.
    #[serde(default)]
    pub to: Option<HostId>,
}

/// Makes a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateDisk {
    /// Its name.
    pub name: DiskId,
    /// Size, MiB.
    pub size_mib: u64,
    /// Disk or template image to copy from.
    #[serde(default)]
    pub from: Option<String>,
}

/// Grows a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrowDisk {
    /// The new size, MiB; larger than now.
    pub size_mib: u64,
}

/// Registers a machine before it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisterHost {
    /// The address it boots from.
    pub mac: Mac,
    /// A name for it.
    #[serde(default)]
    pub name: Option<String>,
}

/// Machines to be let in when they come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostList {
    /// CSV with a line of headings, or YAML: a list of mappings. Headings and keys: mac, uuid, serial, name, labels; of the first three one or
    /// more. Labels are `key=value`, in CSV several with a space between, in YAML a mapping. Of the management controller: in CSV bmc (its kind),
    /// bmc_address, bmc_user, bmc_password, bmc_trust, bmc_system; in YAML a mapping `bmc` as `SetBmc`.
    pub text: String,
    /// Forget those that earlier lists named by UUID or serial number and that have not come.
    #[serde(default)]
    pub replace: bool,
}

/// Gives a host another name or other labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DescribeHost {
    /// Its name; as it is when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// All its labels; as they are when absent.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Asks for a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Balance {
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// First use: the set-up code and a password of the operator's choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Setup {
    /// The one-time code that the server printed.
    pub code: String,
    /// 10 to 200 characters.
    pub password: String,
}

/// Log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Login {
    /// The operator's password.
    pub password: String,
}

/// A session. The page has it as a cookie as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// For `Authorization: Bearer`.
    pub token: String,
    /// Unix milliseconds.
    pub expires_ms: u64,
}

/// Whether the server was set up; readable without a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct About {
    /// The server's version.
    pub version: String,
    /// Whether the first password has yet to be chosen.
    pub needs_setup: bool,
}

/// What was done or begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Accepted {
    /// Done, durably.
    Done,
    /// Begun; the VM's view shows how it goes.
    Begun,
    /// A move has begun.
    Moving {
        /// The move.
        r#move: MoveId,
    },
}

/// A guest's console, or a host's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConsoleText {
    /// The end of its log.
    pub text: String,
}

/// An error's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiError {
    /// For a program.
    pub refusal: Refusal,
    /// For a person; the refusal's own sentence.
    pub message: String,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self { message: refusal.to_string(), refusal }
    }
}

/// Why the server does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Refusal {
    /// No such host.
    NoHost {
        /// As given.
        host: HostId,
    },
    /// No such VM.
    NoVm {
        /// As given.
        vm: VmId,
    },
    /// No such disk.
    NoDisk {
        /// As given.
        disk: DiskId,
    },
    /// No such template.
    NoTemplate {
        /// As given.
        template: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// The name is taken.
    NameTaken {
        /// The name.
        name: String,
    },
    /// The address is another VM's or host's.
    MacTaken {
        /// The address.
        mac: Mac,
    },
    /// The host is in no state for that.
    HostIs {
        /// Which.
        host: HostId,
        /// Its state.
        state: HostState,
    },
    /// The host is being fenced, or was and has not been heard since.
    HostFenced {
        /// Which.
        host: HostId,
    },
    /// The VM is in no state for that.
    VmIs {
        /// Which.
        vm: VmId,
        /// Its phase.
        phase: VmPhase,
    },
    /// A move is under way that this would disturb.
    MoveUnderWay {
        /// The move.
        r#move: MoveId,
    },
    /// No host can take the VM.
    NoPlace {
        /// Which.
        vm: VmId,
        /// Each host with the reason.
        rejected: Vec<Rejected>,
    },
    /// The VM is there already.
    AlreadyThere {
        /// Which.
        vm: VmId,
        /// Where.
        host: HostId,
    },
    /// The disk belongs to a VM.
    DiskInUse {
        /// Which.
        disk: DiskId,
        /// Whose.
        vm: VmId,
    },
    /// The host still runs VMs.
    HostHasVms {
        /// Which.
        host: HostId,
        /// How many.
        count: usize,
    },
    /// No such release.
    NoRelease {
        /// As given.
        release: ReleaseId,
    },
    /// No such pool.
    NoPool {
        /// As given.
        pool: PoolId,
    },
    /// The release is used, so it stays.
    ReleaseInUse {
        /// Which.
        release: ReleaseId,
        /// By what, a few words each.
        by: Vec<String>,
    },
    /// The pool still has hosts.
    PoolInUse {
        /// Which.
        pool: PoolId,
        /// How many.
        hosts: u32,
    },
    /// A rollout is under way that this would disturb.
    RolloutUnderWay {
        /// The pool whose.
        pool: PoolId,
    },
    /// A value is out of range.
    BadValue {
        /// Which.
        field: String,
        /// What was given.
        given: String,
        /// What was expected.
        expected: String,
    },
    /// No session, or it has ended.
    NotLoggedIn,
    /// The password or the set-up code is wrong.
    WrongPassword,
    /// Too many attempts.
    TooManyAttempts {
        /// Seconds to wait.
        retry_s: u64,
    },
    /// The server was set up before.
    AlreadySetUp,
    /// The server cannot do it now.
    Unavailable {
        /// What is the matter.
        detail: String,
    },
    /// Nobody has said how the host's power is switched.
    NoBmc {
        /// Which.
        host: HostId,
    },
    /// The host's management controller cannot do that.
    BmcCannot {
        /// Which host.
        host: HostId,
        /// Its protocol.
        kind: BmcKind,
        /// What it cannot do, as a verb and what belongs to it.
        what: String,
    },
    /// Another order to switch the host's power is under way.
    PowerUnderWay {
        /// Which.
        host: HostId,
    },
    /// No such path, or not by that method.
    NoSuchPath,
    /// The host did not do it.
    HostFailed {
        /// Which.
        host: HostId,
        /// What it said.
        detail: String,
    },
}

/// A host that cannot take a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rejected {
    /// Which.
    pub host: HostId,
    /// Why, one sentence.
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHost { host } => write!(f, "there is no host {host}"),
            Self::NoVm { vm } => write!(f, "there is no VM {vm}"),
            Self::NoDisk { disk } => write!(f, "there is no disk {disk}"),
            Self::NoTemplate { template, known } => {
                write!(f, "there is no template {template:?}; known: {}", known.join(", "))
            }
            Self::NameTaken { name } => write!(f, "the name {name} is taken"),
            Self::MacTaken { mac } => write!(f, "the address {mac} is taken"),
            Self::HostIs { host, state } => write!(f, "host {host} is {state}, so this cannot be done"),
            Self::HostFenced { host } => {
                write!(f, "host {host} is being fenced; its VMs start elsewhere by themselves")
            }
            Self::VmIs { vm, phase } => write!(f, "VM {vm} is {phase}, so this cannot be done"),
            Self::MoveUnderWay { r#move } => write!(f, "move {} is under way; wait until it has ended", r#move),
            Self::NoPlace { vm, rejected } => {
                write!(f, "no host can take {vm}")?;
                for r in rejected {
                    write!(f, "; {}: {}", r.host, r.why)?;
                }
                Ok(())
            }
            Self::AlreadyThere { vm, host } => write!(f, "VM {vm} is on {host} already"),
            Self::DiskInUse { disk, vm } => write!(f, "disk {disk} belongs to VM {vm}"),
            Self::HostHasVms { host, count } => write!(f, "host {host} still has {count} VMs"),
            Self::NoRelease { release } => write!(f, "there is no release {release}"),
            Self::NoPool { pool } => write!(f, "there is no pool {pool}"),
            Self::ReleaseInUse { release, by } => write!(f, "release {release} is used by {}", by.join(", ")),
            Self::PoolInUse { pool, hosts } => write!(f, "pool {pool} still has {hosts} hosts; put them into another"),
            Self::RolloutUnderWay { pool } => {
                write!(f, "a rollout of pool {pool} is under way; wait until it has ended, or stop it")
            }
            Self::BadValue { field, given, expected } => {
                write!(f, "{field} is {given:?}, expected {expected}")
            }
            Self::NotLoggedIn => f.write_str("not logged in"),
            Self::WrongPassword => f.write_str("the password or code is wrong"),
            Self::TooManyAttempts { retry_s } => write!(f, "too many attempts; try again in {retry_s} s"),
            Self::AlreadySetUp => f.write_str("the server was set up before; log in instead"),
            Self::Unavailable { detail } => write!(f, "the server cannot do this now: {detail}"),
            Self::NoBmc { host } => {
                write!(f, "nobody has said how the power of {host} is switched; `tsubame host bmc` does that")
            }
            Self::BmcCannot { host, kind, what } => {
                write!(f, "the power of {host} is switched by {kind}, which cannot {what}")
            }
            Self::PowerUnderWay { host } => {
                write!(f, "another order for the power of {host} is under way; wait until it has ended")
            }
            Self::NoSuchPath => f.write_str("there is nothing at this path, or not by this method"),
            Self::HostFailed { host, detail } => write!(f, "host {host} did not do it: {detail}"),
        }
    }
}

impl std::error::Error for Refusal {}
