//! The agent protocol: join, report, order.
//!
//! ```text
//! agent                                    server (port 7443, TLS 1.3)
//!   POST /v1/join         JoinRequest   ->   JoinAnswer       no client certificate
//!   GET  /v1/join/{key}                 ->   JoinAnswer       asked until Accepted
//!   POST /v1/report       Report        ->   ReportAnswer     host certificate; held open
//!   POST /v1/renew        Renew         ->   JoinAnswer       host certificate
//! ```
//! A report is answered at once when there are orders, else held until one comes, a newer report of the
//! same host comes, or `hold_ms` has passed. An order is repeated in every answer until a report carries
//! its outcome; the agent does each order id once and remembers the outcome.

use crate::host::Inventory;
use crate::ids::{DiskId, Epoch, HostId, MoveId, OrderId, Term, VmId};
use crate::vm::VmSpec;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// A text that must not be logged: a CHAP secret, a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A machine asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who it was booted as (`tsubame.host=`).
    pub host: HostId,
    /// The one-time nonce of this boot (`tsubame.join=`).
    pub nonce: String,
    /// Certificate signing request, PEM; its key never leaves the machine's memory.
    pub csr_pem: String,
    /// What the machine is.
    pub inventory: Inventory,
}

/// What the server says to a join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JoinAnswer {
    /// Not accepted yet: ask again in `retry_ms`.
    Waiting {
        /// Milliseconds.
        retry_ms: u64,
    },
    /// Let in.
    Accepted {
        /// The host's certificate and the CA's, PEM.
        certificate_pem: String,
        /// When to renew, milliseconds from now.
        renew_ms: u64,
    },
    /// Turned away; asking again is of no use until an operator acts.
    Refused {
        /// Why.
        refusal: JoinRefusal,
    },
}

/// Why a join is turned away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JoinRefusal {
    /// The nonce was used by another key: a copied join.
    NonceUsed,
    /// The nonce is none that this server gave to that host.
    NonceUnknown,
    /// Only machines registered beforehand are let in, and this is none.
    NotKnown,
    /// Another machine with this identity is active.
    AlreadyActive,
    /// An operator has removed it.
    Removed,
    /// The signing request cannot be read or its signature is wrong.
    BadCsr,
}

impl fmt::Display for JoinRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NonceUsed => "its nonce was used by another key",
            Self::NonceUnknown => "its nonce is none that this server gave to that host",
            Self::NotKnown => "only machines registered beforehand are let in",
            Self::AlreadyActive => "another machine with this identity is active",
            Self::Removed => "an operator has removed it",
            Self::BadCsr => "its signing request cannot be read, or its signature is wrong",
        })
    }
}

/// Asks for a new certificate for the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// Certificate signing request, PEM.
    pub csr_pem: String,
}

/// What an agent says, every `report_ms` and whenever an order ends or a domain changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which boot of the host, the join's nonce. A report of an older boot is refused.
    pub boot: String,
    /// Rises with every report of this agent process.
    pub seq: u64,
    /// Milliseconds this host has been up.
    pub uptime_ms: u64,
    /// The host's load.
    pub stats: HostStats,
    /// Every domain but dom0, as Xen shows it now. Complete: what is not here does not exist.
    pub domains: Vec<DomainSurvey>,
    /// Outcomes not yet acknowledged by the server (`ReportAnswer::seen`).
    pub outcomes: Vec<OrderOutcome>,
    /// Orders accepted and still under way.
    pub underway: Vec<OrderProgress>,
    /// How its lease stands; without a valid one no guest runs.
    #[serde(default)]
    pub lease: LeaseState,
    /// The highest term that the agent was ever told.
    #[serde(default)]
    pub term: Term,
    /// What the server asked for by [`ReportAnswer::survey`]; absent while anything that was ordered before is still under way.
    #[serde(default)]
    pub survey: Option<Box<HostSurvey>>,
}

/// What a host knows, said to a server whose record is that of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostSurvey {
    /// Every guest that is here, as its orders told.
    pub guests: Vec<KnownGuest>,
    /// What the machine is.
    pub inventory: Option<Inventory>,
}

/// A guest that an agent was told to make or to receive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownGuest {
    /// What it is.
    pub spec: VmSpec,
    /// The highest epoch under which anything was ordered of it here.
    pub floor: Epoch,
    /// The move by which it was sent last, or came.
    pub r#move: Option<MoveId>,
    /// It came by that move, is here whole, and has not run here.
    pub received: bool,
}

/// A host's lease, counted from the start of the last write to its slot that came back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// None yet under this boot.
    #[default]
    None,
    /// Guests may run.
    Valid,
    /// Over: every guest is held paused.
    Lapsed,
}

/// What the server answers to a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAnswer {
    /// Outcomes that the server has made durable; the agent need not repeat them.
    pub seen: Vec<OrderId>,
    /// What to do. Repeated until its outcome was seen.
    pub orders: Vec<Order>,
    /// How often to report, milliseconds, 1000 or more.
    pub report_ms: u64,
    /// Where to write that it is alive; absent while it is not granted.
    #[serde(default)]
    pub heartbeat: Option<Heartbeat>,
    /// The server's term. An answer of a lower one than the agent knows is of a server whose place another has taken, and counts for nothing.
    #[serde(default)]
    pub term: Term,
    /// The server's record is that of a backup: say what is here.
    #[serde(default)]
    pub survey: bool,
}

/// A host's slot on the heartbeat disk, and the times that go with it. A new user means that what was granted before was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// How the disk is reached.
    pub access: DiskAccess,
    /// Which slot, counted from 0; see [`crate::heartbeat`].
    pub slot: u32,
    /// Milliseconds between two writes.
    pub write_ms: u64,
    /// How long a lease is valid from the start of a write, milliseconds.
    pub lease_ms: u64,
    /// After how long unpetted Xen's watchdog resets the host, milliseconds, whole seconds.
    pub watchdog_ms: u64,
    /// Whether a host whose guests were taken from it can no longer write here. Otherwise a write after a lapse says nothing of them.
    #[serde(default = "cuttable")]
    pub cuttable: bool,
}

fn cuttable() -> bool {
    true
}

/// A host's load, since the report before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostStats {
    /// Processor time of all domains, cores (0 to threads).
    pub cpu_cores: f64,
    /// Memory not given to any domain, MiB.
    pub memory_free_mib: u64,
    /// dom0's own used memory, MiB.
    pub dom0_used_mib: u64,
    /// The agent's resident memory, KiB.
    pub agent_rss_kib: u64,
    /// The agent's processor time, cores.
    pub agent_cpu_cores: f64,
    /// Bytes a second received on hardware interfaces.
    pub net_rx_bytes_s: f64,
    /// Bytes a second sent on hardware interfaces.
    pub net_tx_bytes_s: f64,
}

/// One domain as Xen shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainSurvey {
    /// Which VM; from its domain name, without xl's suffixes.
    pub vm: VmId,
    /// Xen's number for it.
    pub domid: u32,
    /// The epoch it was created or activated under, as the agent recorded it; absent when unknown
    /// (a domain that this agent's memory does not know).
    pub epoch: Option<Epoch>,
    /// What it is doing.
    pub state: DomainState,
    /// It has asked to be started anew. Where its host cannot do that `state` is `Crashed`, so that it is done elsewhere.
    #[serde(default)]
    pub reboots: bool,
    /// Its role in a move, if any.
    pub part: Part,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Processor time since the report before, cores.
    pub cpu_cores: f64,
    /// Bytes a second that the guest received, over all vifs.
    pub net_rx_bytes_s: f64,
    /// Bytes a second that the guest sent.
    pub net_tx_bytes_s: f64,
    /// Bytes a second that the guest read from its disks.
    pub disk_read_bytes_s: f64,
    /// Bytes a second that the guest wrote to its disks.
    pub disk_write_bytes_s: f64,
}

/// A domain's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DomainState {
    /// Running or blocked.
    Running,
    /// Paused by the toolstack.
    Paused,
    /// Shut down with reason suspend: the state at the end of a migration's sending.
    Suspended,
    /// Shut down by itself.
    Shutdown,
    /// Crashed.
    Crashed,
    /// Being taken down.
    Dying,
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Shutdown => "shut down",
            Self::Crashed => "crashed",
            Self::Dying => "dying",
        })
    }
}

/// A domain's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Part {
    /// An ordinary domain.
    Resident,
    /// Being received; never ran here (xl's `--incoming`).
    Incoming,
    /// Sent away; must not run here again without an order (xl's `--migratedaway`).
    MigratedAway,
}

/// An order from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number; the agent does each number once.
    pub id: OrderId,
    /// The VM's epoch under which this is right. An agent that knows a higher one refuses.
    pub epoch: Epoch,
    /// What to do.
    pub act: Act,
}

/// What an order asks for. Every act is idempotent: when the end state is already there, it succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Act {
    /// Log in to the disks, fetch the boot files, create the domain and run it.
    Start {
        /// The VM.
        vm: VmSpec,
        /// How to reach its disks, in the order of `vm.disks`.
        disks: Vec<DiskAccess>,
    },
    /// Ask the guest to shut down. Ends when the domain is gone and its disks are logged out; after
    /// `timeout_ms` it ends as failed and nothing was forced.
    Shutdown {
        /// The VM.
        vm: VmId,
        /// Milliseconds.
        timeout_ms: u64,
    },
    /// Take the domain away now, whatever its state or part, and log out of its disks.
    Destroy {
        /// The VM.
        vm: VmId,
    },
    /// Pause.
    Pause {
        /// The VM.
        vm: VmId,
    },
    /// Unpause.
    Unpause {
        /// The VM.
        vm: VmId,
    },
    /// Target of a move: log in to the disks, make all ready, and await the stream of `permit`. Ends when
    /// ready to receive; the reception itself is reported by `Stage`.
    Receive {
        /// The move.
        permit: Permit,
        /// The VM.
        vm: VmSpec,
        /// How to reach its disks.
        disks: Vec<DiskAccess>,
    },
    /// Source of a move: send the stream to the target. Ends when the target has received it whole, or
    /// failed with the guest running here again.
    Send {
        /// The signed permit, presented to the target as it is.
        permit: SignedPermit,
        /// Most bytes a second; 0 for no limit.
        rate_bytes_s: u64,
    },
    /// Target: the owner has changed; give GO, let the guest run under the order's epoch.
    Activate {
        /// The move.
        r#move: MoveId,
        /// The VM.
        vm: VmId,
    },
    /// Source: the owner has changed; let xl end as migrated, remove the domain, log out of its disks.
    Release {
        /// The move.
        r#move: MoveId,
        /// The VM.
        vm: VmId,
    },
    /// Source: the move is off. Stop sending, and see that the guest runs here (resume it when it
    /// is suspended or renamed). Ends when it runs.
    AbortSend {
        /// The move.
        r#move: MoveId,
        /// The VM.
        vm: VmId,
    },
    /// Target: the move is off. Destroy what was received and log out of its disks.
    AbortReceive {
        /// The move.
        r#move: MoveId,
        /// The VM.
        vm: VmId,
    },
    /// The end of the guest's console log.
    Console {
        /// The VM.
        vm: VmId,
        /// Most bytes to return, from the end.
        bytes_max: u32,
    },
    /// Start the machine anew. Refused while there is any domain but dom0, or another order is under way. Given only to agents whose
    /// inventory names a release: older ones cannot read it.
    Reboot {
        /// The boot that is to end, as in [`Report::boot`]; any other refuses.
        boot: String,
    },
}

/// How a host reaches one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskAccess {
    /// The disk.
    pub disk: DiskId,
    /// The portal, usually port 3260.
    pub portal: SocketAddr,
    /// iSCSI target name.
    pub target: String,
    /// LUN; tgt's first disk is LUN 1.
    pub lun: u32,
    /// CHAP user.
    pub user: String,
    /// CHAP secret, 12 to 16 bytes (RFC 7143 §9.2.1 asks for 96 bits or more).
    pub secret: Secret,
}

/// Leave for one stream from one host to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// The move.
    pub r#move: MoveId,
    /// The VM.
    pub vm: VmId,
    /// The VM's epoch before the move.
    pub epoch: Epoch,
    /// Who may send.
    pub source: HostId,
    /// Who may receive.
    pub target: HostId,
    /// Where the target listens.
    pub target_address: Ipv4Addr,
    /// The target's migration port.
    pub target_port: u16,
    /// Unix milliseconds after which it is void.
    pub expires_ms: u64,
}

/// A permit and the server's signature on its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPermit {
    /// The permit as JSON, the very bytes that were signed.
    pub permit_json: String,
    /// ECDSA P-256 / SHA-256 signature by the CA key, ASN.1 DER, base64.
    pub signature: String,
}

/// Where an order under way stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderProgress {
    /// The order.
    pub id: OrderId,
    /// What is being done.
    pub stage: Stage,
    /// Bytes moved so far, where that means something.
    pub bytes: u64,
}

/// Steps within an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Stage {
    /// Logging in to disks, fetching files.
    Preparing,
    /// A receiver that is ready and has no stream yet.
    Listening,
    /// Memory is being copied.
    Copying,
    /// The guest stands still; the last pages and devices follow.
    Stopped,
    /// Whole at the target, paused: READY is held.
    Received,
    /// Anything else.
    Working,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderOutcome {
    /// The order.
    pub id: OrderId,
    /// Done, or why not.
    pub result: Result<Done, Failure>,
}

/// A success, with what was learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
pub enum Done {
    /// Nothing to add.
    Ok,
    /// A stream was sent whole and the target holds it.
    Sent {
        /// Bytes of the stream.
        bytes: u64,
        /// Milliseconds from the first byte to the target's READY.
        total_ms: u64,
    },
    /// A received guest runs.
    Activated {
        /// Milliseconds from the source's suspension, as the stream showed it, to the guest running here.
        downtime_ms: u64,
    },
    /// The end of a console log.
    Console {
        /// Its text, with what is not UTF-8 replaced.
        text: String,
    },
}

/// Why an order was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What was attempted, on what, and what the tool said; one line, at most 500 bytes.
    pub detail: String,
}

/// Kinds of failure that the server acts on differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureKind {
    /// The agent knows a higher epoch.
    StaleEpoch,
    /// Not enough memory on the host.
    NoMemory,
    /// A disk could not be reached.
    Disk,
    /// No such domain here.
    NoDomain,
    /// The stream broke before the target held the guest whole.
    Stream,
    /// The permit does not fit.
    Permit,
    /// Time ran out.
    Timeout,
    /// Anything else that Xen or a tool refused.
    Tool,
}
