//! What an operator sees: one immutable picture of the rack, from which page, command and metrics read.

use crate::agent::{DomainState, HostStats, Stage};
use crate::event::LogEvent;
use crate::host::{Firmware, Inventory};
use crate::ids::{DiskId, Epoch, HostId, Mac, MoveId, VmId};
use crate::power::PowerView;
use crate::release::{PoolId, PoolView, ReleaseId, ReleaseView};
use crate::vm::{Restart, VmSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// The rack at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RackView {
    /// Rises with every change within one run of the server.
    pub version: u64,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// By id.
    pub hosts: Vec<HostView>,
    /// By name.
    pub vms: Vec<VmView>,
    /// By name.
    pub disks: Vec<DiskView>,
    /// Those under way and the newest 50 that ended, newest first.
    pub moves: Vec<MoveView>,
    /// The newest 100, newest first.
    pub events: Vec<LogEvent>,
    /// Names of templates that a VM can be made from.
    pub templates: Vec<String>,
    /// What becomes of VMs when hosts fail.
    #[serde(default)]
    pub ha: HaView,
    /// Machines that a list named by UUID or serial number and that have not come yet.
    #[serde(default)]
    pub expected: u32,
    /// Releases, by kind and name, the newest of a name first.
    #[serde(default)]
    pub releases: Vec<ReleaseView>,
    /// Pools, by name.
    #[serde(default)]
    pub pools: Vec<PoolView>,
    /// Backups of the server's record.
    #[serde(default)]
    pub backups: BackupView,
}

/// Backups of the server's record and keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupView {
    /// Where on the server they are.
    pub directory: String,
    /// Seconds from one to the next; 0 when they are taken on command only.
    pub every_s: u64,
    /// How many are kept.
    pub keep: u32,
    /// Those there are, newest first.
    pub files: Vec<BackupFile>,
    /// Why the last one was not taken.
    pub failure: Option<String>,
    /// The newest is older than twice the time from one to the next.
    pub late: bool,
}

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupFile {
    /// Its file's name.
    pub name: String,
    /// When it was taken, Unix milliseconds.
    pub taken_ms: u64,
    /// Its length.
    pub bytes: u64,
}

/// High availability, of the rack as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HaView {
    /// How many hosts, whichever they are, may fail and all VMs still fit on the others.
    pub failures_borne: u32,
    /// The largest VM, MiB, that can be started so that one host may still fail; 0 when none may.
    #[serde(default)]
    pub room_mib: u64,
    /// Why nothing is fenced or started by itself: too many hosts vanished together. Ended by their return or by an operator.
    pub frozen: Option<String>,
    /// Why no host that fails is noticed: the heartbeat disk cannot be read.
    #[serde(default)]
    pub blind: Option<String>,
    /// Why nothing is ordered of any host: the record is that of a backup and hosts are asked what they run, or another server has taken this
    /// one's place.
    #[serde(default)]
    pub standing_by: Option<String>,
    /// Whether it is that another server has taken this one's place, of which `standing_by` then tells.
    #[serde(default)]
    pub superseded: bool,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostView {
    /// Its id.
    pub id: HostId,
    /// The operator's name for it; the id until given one.
    pub name: String,
    /// Where it stands.
    pub state: HostState,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// The address it boots from.
    pub mac: Mac,
    /// Its lease.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<Ipv4Addr>,
    /// How it starts, once it has asked.
    pub firmware: Option<Firmware>,
    /// What it is, once its agent has called.
    pub inventory: Option<Inventory>,
    /// Its load, while active.
    pub stats: Option<HostStats>,
    /// The newest boot, step by step.
    pub boot: Vec<BootStep>,
    /// A sentence on what is wrong or awaited; empty when all is well.
    pub note: String,
    /// Its boot stands still; the note says why, likely.
    #[serde(default)]
    pub stalled: bool,
    /// VMs whose owner it is.
    pub vms: Vec<VmId>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How far the taking away of its VMs is; absent while it may run them.
    #[serde(default)]
    pub fence: Option<FenceStep>,
    /// When the wait of its fence is over if nothing is heard of it, Unix milliseconds; absent without a fence, once it is done, and
    /// while the rack is frozen.
    #[serde(default)]
    pub fence_at_ms: Option<u64>,
    /// Its power; absent while nobody has said how it is switched.
    #[serde(default)]
    pub power: Option<PowerView>,
    /// The pool that it is in.
    #[serde(default)]
    pub pool: PoolId,
    /// The release that its newest joined boot runs.
    #[serde(default)]
    pub release: Option<ReleaseId>,
    /// That is another than it would boot now.
    #[serde(default)]
    pub outdated: bool,
}

/// How far a host without a sign of life is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FenceStep {
    /// Its lease and its watchdog are waited out.
    Waiting,
    /// On a SAN, where nobody can be cut off: its power is being switched off, or a person must confirm that it has none.
    Power,
    /// Its ways to the storage are being cut.
    Cutting,
    /// It can write nowhere, and its guests stand still: its VMs run elsewhere.
    Done,
}

/// Where a machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HostState {
    /// Registered by an operator, never seen.
    Registered,
    /// Has asked for an address or a boot file.
    Booting,
    /// Its agent has called and waits to be accepted.
    Waiting,
    /// Accepted and reporting.
    Active,
    /// Active, but emptied and given nothing new.
    Draining,
    /// Was active, reports no more.
    Lost,
    /// Turned away.
    Refused,
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered => "registered",
            Self::Booting => "booting",
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Lost => "lost",
            Self::Refused => "refused",
        })
    }
}

/// One step of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BootStep {
    /// Which step.
    pub step: BootStepKind,
    /// When it began, Unix milliseconds.
    pub at_ms: u64,
    /// How long it took, milliseconds; absent while it is under way.
    pub took_ms: Option<u64>,
    /// Bytes sent so far.
    pub bytes: u64,
    /// Bytes there are to send; 0 when that means nothing.
    pub bytes_total: u64,
    /// How many times it was begun again, as when a file is asked for anew.
    #[serde(default)]
    pub again: u32,
}

/// Steps of a boot in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BootStepKind {
    /// DISCOVER to ACK.
    Dhcp,
    /// Boot loader by TFTP.
    Loader,
    /// iPXE script or xen.cfg.
    Script,
    /// Xen.
    Xen,
    /// dom0's kernel.
    Kernel,
    /// dom0's initrd, which fetches the image.
    Initrd,
    /// Initrd sent to the image's first byte: Xen and dom0's kernel start.
    Linux,
    /// dom0's image.
    Image,
    /// Image sent to the agent's first call: dom0 starts from it.
    Start,
    /// First call to acceptance.
    Join,
}

/// One VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmView {
    /// What it is to be.
    pub spec: VmSpec,
    /// What its record says.
    pub phase: VmPhase,
    /// Where it is, or last was.
    pub owner: Option<HostId>,
    /// Changes of owner so far.
    pub epoch: Epoch,
    /// What the owner's last survey showed.
    pub domain: Option<DomainState>,
    /// Since when it is in this phase, Unix milliseconds.
    pub since_ms: u64,
    /// A move under way.
    pub r#move: Option<MoveId>,
    /// Load by the newest report; zero when it does not run.
    pub load: VmLoad,
    /// A sentence on what is wrong; empty when all is well.
    pub note: String,
    /// In which order it is started again after its host has failed.
    #[serde(default)]
    pub restart: Restart,
    /// It is to run: while it does not, it is started as soon as it can be, and the note says what it waits for.
    #[serde(default)]
    pub run: bool,
}

/// A VM's load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmLoad {
    /// Cores.
    pub cpu_cores: f64,
    /// Bytes a second received.
    pub net_rx_bytes_s: f64,
    /// Bytes a second sent.
    pub net_tx_bytes_s: f64,
    /// Bytes a second read.
    pub disk_read_bytes_s: f64,
    /// Bytes a second written.
    pub disk_write_bytes_s: f64,
}

/// What a VM's record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum VmPhase {
    /// Its disks are being made.
    Creating,
    /// Runs nowhere.
    Stopped,
    /// Its owner was told to start it.
    Starting,
    /// Runs at its owner.
    Running,
    /// Paused at its owner by an operator.
    Paused,
    /// Runs at its owner and is being moved.
    Moving,
    /// Its owner was told to stop it.
    Stopping,
    /// Its disks are being removed.
    Deleting,
    /// Its owner is lost: it may still run there, so it runs nowhere else.
    Unknown,
    /// A person must look: the note says what is known.
    Failed,
}

impl fmt::Display for VmPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Moving => "moving",
            Self::Stopping => "stopping",
            Self::Deleting => "deleting",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        })
    }
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskView {
    /// Its name.
    pub name: DiskId,
    /// MiB.
    pub size_mib: u64,
    /// The VM that has it.
    pub vm: Option<VmId>,
    /// Hosts that may reach it now.
    pub granted: Vec<HostId>,
    /// Whether it is ready to use.
    pub ready: bool,
    /// Why it could not be made, if it could not.
    #[serde(default)]
    pub note: String,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MoveView {
    /// Its number.
    pub id: MoveId,
    /// The VM.
    pub vm: VmId,
    /// From here.
    pub source: HostId,
    /// To there.
    pub target: HostId,
    /// Why, one sentence.
    pub reason: String,
    /// Where it stands.
    pub phase: MovePhase,
    /// What the agents say they are doing.
    pub stage: Option<Stage>,
    /// Bytes sent so far.
    pub bytes: u64,
    /// When it began, Unix milliseconds.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Milliseconds from the first byte to the guest running at the target.
    pub total_ms: Option<u64>,
    /// Milliseconds that the guest stood still, as the agents measured it.
    pub downtime_ms: Option<u64>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// Where a move stands.
///
/// ```text
/// Preparing -> Copying -> Committing -> Activating -> Releasing -> Done
///     |           |
///     +-----------+--> Aborting -> Aborted        (owner never changed)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MovePhase {
    /// The target is getting disks and receiver ready.
    Preparing,
    /// Memory is on its way.
    Copying,
    /// The owner has changed in the store; the source's disk sessions are being cut.
    Committing,
    /// The target was told to let the guest run.
    Activating,
    /// It runs at the target; the source is clearing up.
    Releasing,
    /// Done.
    Done,
    /// It is off; both sides are clearing up.
    Aborting,
    /// It is off; the guest runs at the source.
    Aborted,
}

/// A plan of moves, for `balance --dry-run` and the page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlanView {
    /// In order.
    pub moves: Vec<PlannedMove>,
    /// Imbalance before, 0 is even.
    pub score_before: f64,
    /// Imbalance after.
    pub score_after: f64,
    /// VMs that a rule or overload concerns and that stay, with the reason.
    pub stays: Vec<Stay>,
}

/// A move that the planner proposes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedMove {
    /// The VM.
    pub vm: VmId,
    /// From here.
    pub source: HostId,
    /// To there.
    pub target: HostId,
    /// Why, one sentence.
    pub reason: String,
}

/// A VM that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stay {
    /// The VM.
    pub vm: VmId,
    /// Why, one sentence.
    pub why: String,
}
