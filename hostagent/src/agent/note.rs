//! What the agent must still know after it was restarted, kept as `/run/tsubame/vms/NAME.json`: in RAM, as long-lived as the
//! Xen under it.
//!
//! Owns: the note's form. Never does: reading or writing files.

use proto::agent::DiskAccess;
use proto::vm::VmSpec;
use proto::{Epoch, MoveId, OrderId, VmId};
use serde::{Deserialize, Serialize};

/// What is known of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Which.
    pub vm: VmId,
    /// The highest epoch ever ordered here; an order under a lower one is refused, also after the guest has left.
    pub floor: Epoch,
    /// The highest order ever begun here; a lower one was overtaken, and is void.
    pub order: OrderId,
    /// The guest that is here or on its way; none once it has left.
    pub guest: Option<Guest>,
}

/// A guest of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// What it is.
    pub spec: VmSpec,
    /// How its disks are reached, in the order of `spec.disks`.
    pub disks: Vec<DiskAccess>,
    /// The epoch it was created or activated under, or that its move began under.
    pub epoch: Epoch,
    /// Present when it came by a move and may be activated: its memory is here whole, and it cannot run at the source by
    /// itself. Written before the server is told; taken out once it runs.
    pub received: Option<Received>,
    /// Present while it is paused for want of a lease, or made and not let run yet: the CHAP user under which the lease was. Written
    /// before it is paused or made.
    #[serde(default)]
    pub held: Option<String>,
    /// The move by which it was sent last, or came. Written before a stream begins.
    pub r#move: Option<MoveId>,
}

/// A guest that is here whole, and paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// By which order.
    pub order: OrderId,
    /// When it stopped at the source, milliseconds on this host's clock since boot.
    pub stopped_ms: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}
