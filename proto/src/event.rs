//! The event log: every transition of the rack, in order, durable and bounded.

use crate::ids::{Epoch, HostId, MoveId, VmId};
use serde::{Deserialize, Serialize};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogEvent {
    /// Rises by one with every event, over restarts.
    pub seq: u64,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// How much it matters.
    pub level: Level,
    /// What it is about.
    pub topic: Topic,
    /// One sentence for a person.
    pub text: String,
    /// The host concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// The VM concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// The move concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#move: Option<MoveId>,
    /// The epoch under which the VM is the host's from here on; only where the owner changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Level {
    /// As it should be.
    Info,
    /// Worth a look.
    Warning,
    /// Needs a person.
    Error,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Topic {
    /// Leases and offers.
    Dhcp,
    /// A machine on its way up.
    Boot,
    /// Joining, accepting, losing a host.
    Host,
    /// A VM's life.
    Vm,
    /// A move of a VM.
    Move,
    /// Disks and targets.
    Storage,
    /// The server itself.
    Server,
    /// What an operator did.
    Operator,
}
