//! What is kept: the records whose loss would matter. Loads, surveys and views are not among them.

use crate::effect::CloneSource;
use crate::pool::Rollout;
use crate::power::{Bmc, PowerOrder};
use proto::agent::Secret;
use proto::event::LogEvent;
use proto::host::{Firmware, Inventory};
use proto::release::{Manifest, PoolId, ReleaseId};
use proto::view::{BootStep, MovePhase, MoveView, VmPhase};
use proto::vm::{Restart, VmSpec};
use proto::{DiskId, Epoch, HostId, Mac, MoveId, OrderId, Term, VmId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// A change to one record, as a compare-and-set. Several commit together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which record.
    pub key: Key,
    /// The version it must have now; 0 when it must not be there.
    pub expect: u64,
    /// What it becomes, at version `expect + 1`; `None` removes it.
    pub to: Option<Record>,
}

/// Names a record: its kind and its name within the kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Table.
    pub kind: Kind,
    /// Name, such as a host's id; for numbers, decimal padded with zeros to 20 digits so that text order is number order.
    pub name: String,
}

/// Kinds of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // named as the records are
pub enum Kind {
    Lease,
    Quarantine,
    Expected,
    Release,
    Pool,
    Host,
    Disk,
    Vm,
    Move,
    Log,
    Counters,
    Term,
}

impl Kind {
    /// All kinds, in the order in which they are loaded.
    pub const ALL: [Self; 12] = [
        Self::Lease,
        Self::Quarantine,
        Self::Expected,
        Self::Release,
        Self::Pool,
        Self::Host,
        Self::Disk,
        Self::Vm,
        Self::Move,
        Self::Log,
        Self::Counters,
        Self::Term,
    ];

    /// The kind's name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Quarantine => "quarantine",
            Self::Expected => "expected",
            Self::Release => "release",
            Self::Pool => "pool",
            Self::Host => "host",
            Self::Disk => "disk",
            Self::Vm => "vm",
            Self::Move => "move",
            Self::Log => "log",
            Self::Counters => "counters",
            Self::Term => "term",
        }
    }
}

/// A record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[allow(missing_docs, clippy::large_enum_variant)] // named as the records are; kept boxed nowhere, moved seldom
pub enum Record {
    Lease(LeaseRecord),
    Quarantine(QuarantineRecord),
    Expected(ExpectedRecord),
    Release(ReleaseRecord),
    Pool(PoolRecord),
    Host(HostRecord),
    Disk(DiskRecord),
    Vm(VmRecord),
    Move(MoveRecord),
    Log(LogEvent),
    Counters(Counters),
    Term(TermRecord),
}

/// A record as it was loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Which.
    pub key: Key,
    /// Its version, 1 or more.
    pub version: u64,
    /// Its content.
    pub record: Record,
}

/// Numbers that must rise over restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Orders up to this number may have been given out. Raised by blocks.
    pub orders: OrderId,
    /// The newest move.
    pub moves: MoveId,
    /// The highest epoch of a VM that was deleted: a new VM, perhaps of the same name, begins there, since hosts
    /// remember which epochs they have seen.
    #[serde(default)]
    pub epochs: Epoch,
    /// The most grants of a disk that was deleted: a new disk, perhaps of the same name, goes on from there.
    #[serde(default)]
    pub grants: u64,
}

/// That this record was restored from a backup; see [`crate::recovery`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermRecord {
    /// Above every number that was given before.
    pub term: Term,
    /// When the backup was taken, Unix milliseconds.
    pub backup_ms: u64,
    /// When it was restored, Unix milliseconds.
    pub restored_ms: u64,
    /// For secrets of what is found.
    pub seed: Secret,
    /// What hosts and storage have is not known yet.
    pub surveying: bool,
    /// Hosts that were removed since: no certificate of before lets them in.
    #[serde(default)]
    pub removed: BTreeSet<HostId>,
}

/// A CHAP account by which a host logs in to a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The user.
    pub user: String,
    /// The secret.
    pub secret: Secret,
}

/// An address given to a machine, RFC 2131.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// To whom.
    pub mac: Mac,
    /// Which.
    pub address: Ipv4Addr,
    /// Unix milliseconds; written well ahead so that a renewal is not a write each time.
    pub expires_ms: u64,
}

/// An address that a machine found in use by another, and that is given to nobody for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// Which.
    pub address: Ipv4Addr,
    /// Until when, Unix milliseconds.
    pub until_ms: u64,
}

/// A machine of a list that is known by what it is, and has not come yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedRecord {
    /// Counted from 1.
    pub id: u64,
    /// SMBIOS system UUID; empty when not given.
    pub uuid: String,
    /// SMBIOS serial number; empty when not given. Of the two, what is given must fit.
    pub serial: String,
    /// Template of its name.
    pub name: Option<String>,
    /// Labels that it gets.
    pub labels: BTreeMap<String, String>,
    /// Its management controller.
    #[serde(default)]
    pub bmc: Option<Bmc>,
}

/// A release that was imported; its files are in the shell's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// Its id.
    pub id: ReleaseId,
    /// What is in it.
    pub manifest: Manifest,
    /// When it was imported, Unix milliseconds.
    pub imported_ms: u64,
    /// Since when nothing uses it, Unix milliseconds.
    pub unused_ms: Option<u64>,
}

/// A pool of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Its name.
    pub name: PoolId,
    /// What its hosts boot.
    pub release: ReleaseId,
    /// What they booted before.
    pub previous: Option<ReleaseId>,
    /// What the configuration named when it was read last; of the pool `default`.
    pub configured: Option<ReleaseId>,
    /// The rollout under way, or the last one.
    pub rollout: Option<Rollout>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its id.
    pub id: HostId,
    /// The operator's name for it.
    pub name: String,
    /// The address it boots from.
    pub mac: Mac,
    /// How it starts.
    pub firmware: Option<Firmware>,
    /// An operator or a rule has let it in, for this and later boots.
    pub accepted: bool,
    /// Registered before it was seen.
    pub registered: bool,
    /// To be emptied and given nothing new.
    pub draining: bool,
    /// The boot that has joined or may join: nonce, key once used, CHAP seed.
    pub boot: Option<BootRecord>,
    /// A boot newer than one that has joined: it takes that one's place when it joins itself.
    #[serde(default)]
    pub next_boot: Option<BootRecord>,
    /// What it is.
    pub inventory: Option<Inventory>,
    /// The newest boot, step by step.
    pub steps: Vec<BootStep>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its slot on the heartbeat disk.
    #[serde(default)]
    pub slot: Option<u32>,
    /// Its VMs are being or have been taken from it, until it is heard again.
    #[serde(default)]
    pub fence: Option<Fence>,
    /// Its management controller, with the way in.
    #[serde(default)]
    pub bmc: Option<Bmc>,
    /// The newest order to switch its power.
    #[serde(default)]
    pub power: Option<PowerOrder>,
    /// The pool that it is in.
    #[serde(default)]
    pub pool: PoolId,
    /// On a SAN: by whose word it is certain, since its fence began, that it has no power.
    #[serde(default)]
    pub off: Option<OffBy>,
    /// Its controller said that it had no power when it had: no fence believes that one until it is set anew.
    #[serde(default)]
    pub bmc_doubted: bool,
}

/// How far a host is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fence {
    /// All its ways to the storage are being cut; on a SAN, where nobody can, its power is.
    Cutting,
    /// They are cut and its lease is over; its VMs are free to be started elsewhere.
    Done,
}

/// Who said that a host which is being fenced has no power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffBy {
    /// Its management controller, after it was told to switch it off.
    Controller,
    /// An operator.
    Person,
}

/// One boot of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// One-time nonce on its command line.
    pub nonce: String,
    /// sha256 of the public key that used the nonce; nobody else's join is heard after.
    pub key: Option<String>,
    /// The signing request of that key, kept until it is accepted.
    pub csr_pem: Option<String>,
    /// From which CHAP secrets of this boot are derived.
    pub chap_seed: Secret,
    /// The release that its script names.
    #[serde(default)]
    pub release: Option<ReleaseId>,
    /// The term in which it was handed out or taken over.
    #[serde(default)]
    pub term: Term,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// Its name.
    pub name: DiskId,
    /// MiB.
    pub size_mib: u64,
    /// Its VM.
    pub vm: Option<VmId>,
    /// Whether data and target were made.
    pub ready: bool,
    /// What is being done to it; repeated after a restart until it is so.
    #[serde(default)]
    pub doing: Option<DiskDoing>,
    /// Hosts that may have a way in.
    pub grants: BTreeMap<HostId, Grant>,
    /// Grants ever given, so that a CHAP user is never used twice for one disk.
    #[serde(default)]
    pub granted: u64,
    /// Accounts of grants that a restored server found on the storage: their secrets cannot be derived.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<HostId, Way>,
    /// Why it could not be made: then it never is, and only its removal is left.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
}

/// What is being done to a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskDoing {
    /// Made of zeros.
    Create,
    /// Copied.
    Clone(CloneSource),
    /// Grown to so many MiB.
    Grow(u64),
    /// Removed.
    Delete,
}

/// A host's way to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The VM's epoch under which it was given.
    pub epoch: Epoch,
    /// Which grant of this disk it is, counted from 1.
    pub number: u64,
    /// It is being taken away; what may follow waits until the storage has confirmed that.
    #[serde(default)]
    pub cutting: bool,
}

/// A VM: who owns it, under which epoch, and how far the present step is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmRecord {
    /// What it is to be.
    pub spec: VmSpec,
    /// Who may run it.
    pub owner: Option<HostId>,
    /// Rises by one with every change of owner.
    pub epoch: Epoch,
    /// What is to be or is being done.
    pub phase: VmPhase,
    /// The move under way.
    pub r#move: Option<MoveId>,
    /// What its owner is being told to do.
    #[serde(default)]
    pub doing: Option<VmDoing>,
    /// The order by which it was told; absent while it is being prepared, and once it was done.
    pub order: Option<OrderId>,
    /// It is to run: set by a start, cleared by a shutdown or a destroy, and when the guest turns itself off or stays crashed.
    #[serde(default)]
    pub run: bool,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// A sentence on what went wrong last.
    pub note: String,
    /// Its last move, and how long it rests from it.
    #[serde(default)]
    pub moved: Option<balancer::Moved>,
    /// In which order it is started again after its host has failed, and whether after a crash.
    #[serde(default)]
    pub restart: Restart,
    /// Its host has failed, and until then it is not started again, Unix milliseconds.
    #[serde(default)]
    pub delayed_until_ms: Option<u64>,
    /// Where its guest has crashed, if it is left stopped for that.
    #[serde(default)]
    pub crashed_on: Option<HostId>,
}

/// What a VM's owner is being told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // named as the acts are
pub enum VmDoing {
    Start,
    Shutdown,
    Destroy,
    Pause,
    Unpause,
}

/// A move: its view, and the orders under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MoveRecord {
    /// What an operator sees of it.
    pub view: MoveView,
    /// The VM's epoch before the move.
    pub epoch: Epoch,
    /// Order to the source under way.
    pub source_order: Option<OrderId>,
    /// Order to the target under way; in `Copying` that of the reception.
    pub target_order: Option<OrderId>,
    /// The source has said that it sent all.
    #[serde(default)]
    pub sent: bool,
}

impl MoveRecord {
    /// One of which nothing is done yet.
    pub fn begun(id: MoveId, vm: VmId, (source, target): (HostId, HostId), epoch: Epoch, began_ms: u64) -> Self {
        let view = MoveView {
            id,
            vm,
            source,
            target,
            reason: String::new(),
            phase: MovePhase::Preparing,
            stage: None,
            bytes: 0,
            began_ms,
            ended_ms: None,
            total_ms: None,
            downtime_ms: None,
            failure: None,
        };
        Self { view, epoch, source_order: None, target_order: None, sent: false }
    }

    /// Whether nothing more is to be done.
    pub fn ended(&self) -> bool {
        matches!(self.view.phase, MovePhase::Done | MovePhase::Aborted)
    }
}
