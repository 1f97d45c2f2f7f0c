//! What the rack wants done. The shell does these in order; a batch's commits are made durable together,
//! before any other effect of that batch is let out.

use crate::dhcp::DhcpReply;
use crate::event::ReplyTo;
use crate::power::{Bmc, PowerOp};
use crate::record::Change;
use proto::agent::{JoinRefusal, ReportAnswer, Secret};
use proto::api::{Accepted, ConsoleText, Refusal};
use proto::power::PowerView;
use proto::release::Collected;
use proto::view::PlanView;
use proto::{DiskId, HostId};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One thing to do.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // most are commits, and each is moved once
pub enum Effect {
    /// Make durable. If that fails the shell stops the server: what is in memory is then not true.
    Commit(Change),
    /// Answer a question.
    Answer {
        /// Whose.
        to: ReplyTo,
        /// With what.
        answer: Answer,
    },
    /// Have the storage do something, then say [`crate::event::Event::StorageDone`]. Jobs on one disk
    /// are done in the order given, jobs on several disks side by side.
    Storage {
        /// Its number, unique within one run of the server.
        job: u64,
        /// What.
        op: StorageOp,
    },
    /// Have a host's management controller do something, then say [`crate::event::Event::PowerDone`]. The rack gives a host one job at a
    /// time, and bounds how many there are in all.
    Power {
        /// Its number, unique within one run of the server.
        job: u64,
        /// Whose.
        host: HostId,
        /// Which controller.
        bmc: Bmc,
        /// What.
        op: PowerOp,
    },
}

/// Answers, each to its question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To a DHCP packet; `None` to stay silent.
    Dhcp(Option<DhcpReply>),
    /// To a request for a boot script.
    Script(Result<String, ScriptRefusal>),
    /// To a join, a poll or a renewal.
    Join(JoinDecision),
    /// To a report; `Err` when the host is not let in (any more). The shell signs: in every `Act::Send` it fills
    /// in `permit.signature` over `permit.permit_json`, which the rack leaves empty, as it holds no key.
    Report(Result<ReportAnswer, JoinRefusal>),
    /// To an operator.
    Operator(Result<Reply, Refusal>),
}

/// A good answer to an operator.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Done or begun.
    Accepted(Accepted),
    /// A plan, carried out or not.
    Plan(PlanView),
    /// A console.
    Console(ConsoleText),
    /// A host's power, as its controller has just said.
    Power(PowerView),
    /// Releases that were removed.
    Collected(Collected),
}

/// Why there is no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptRefusal {
    /// The machine never asked for an address here.
    #[error("no lease for {mac}: the machine must first get its address from this server")]
    NoLease {
        /// The address it named.
        mac: proto::Mac,
    },
    /// The request came from another address than its lease.
    #[error("{mac} has the lease {lease}, but asked from {from}")]
    OtherAddress {
        /// The address it named.
        mac: proto::Mac,
        /// Its lease.
        lease: Ipv4Addr,
        /// Where it asked from.
        from: Ipv4Addr,
    },
    /// More strangers than are kept wait to be accepted.
    #[error("too many machines wait to be accepted; register this one, or remove others")]
    TooManyUnknown,
}

/// What becomes of a join.
#[derive(Debug, Clone)]
pub enum JoinDecision {
    /// Ask again later.
    Waiting,
    /// The shell issues a certificate for this host from this signing request.
    Issue {
        /// Common name.
        host: HostId,
        /// The request.
        csr_pem: String,
        /// Its address, put into the certificate.
        address: Ipv4Addr,
    },
    /// Turned away.
    Refused(JoinRefusal),
}

/// What storage is asked to do. Each is idempotent: when it is so already, it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageOp {
    /// Make a disk of zeros and its target, reachable by nobody.
    Create {
        /// Which.
        disk: DiskId,
        /// MiB.
        size_mib: u64,
    },
    /// Make a disk as a copy, grown to the size, and its target.
    Clone {
        /// Which.
        disk: DiskId,
        /// From a template's image by file name, or from a disk.
        from: CloneSource,
        /// MiB, no less than the source's.
        size_mib: u64,
    },
    /// After a restart of the server: see that the target of a disk made earlier is there, over its data as it
    /// is, reachable by those only who are granted it. Fails when the data is gone.
    Attach {
        /// Which.
        disk: DiskId,
        /// MiB.
        size_mib: u64,
    },
    /// Grow a disk.
    Grow {
        /// Which.
        disk: DiskId,
        /// MiB.
        size_mib: u64,
    },
    /// Remove target and data.
    Delete {
        /// Which.
        disk: DiskId,
    },
    /// Let one more host log in. Other hosts' grants stay.
    Grant {
        /// Which disk.
        disk: DiskId,
        /// Which host.
        host: HostId,
        /// Initiator name it must use: the target's name with the host's id in place of the disk's, which is how the
        /// agent knows it.
        initiator: String,
        /// Address it must come from.
        address: Ipv4Addr,
        /// CHAP user; unlike any used before, for this disk or another.
        user: String,
        /// CHAP secret, 12 to 16 bytes.
        secret: Secret,
    },
    /// Take the grants of a host away, cut its connections, and end only when its session is gone and none
    /// raced in. After that no write of it can land.
    Cut {
        /// Which disk.
        disk: DiskId,
        /// Which host.
        host: HostId,
    },
}

impl StorageOp {
    /// The disk that it is about.
    pub fn disk(&self) -> &DiskId {
        match self {
            Self::Create { disk, .. }
            | Self::Clone { disk, .. }
            | Self::Attach { disk, .. }
            | Self::Grow { disk, .. }
            | Self::Delete { disk }
            | Self::Grant { disk, .. }
            | Self::Cut { disk, .. } => disk,
        }
    }
}

/// What a disk is copied from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloneSource {
    /// A template's disk image, by the template's name.
    Template(String),
    /// Another disk.
    Disk(DiskId),
}
