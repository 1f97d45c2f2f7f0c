//! What the agent can ask of a host, and what comes back: operations as data.
//!
//! Owns: the operations, their completions, what a survey shows. Never does: anything by itself. There are two that carry
//! operations out: [`xl`] on a real host and, for tests only, the physical model `sim` (feature `sim`). Both keep one `contract`.
//!
//! An operation is begun with a [`Job`] number and ends with exactly one completion of that number, however long it
//! takes. Operations run side by side; the agent never begins two on one VM, save [`Op::Cancel`] and [`Op::Survey`].
//! Every operation is idempotent: when the end state is already there, it succeeds.

use crate::agent::Guest;
use proto::VmId;
use proto::agent::{DiskAccess, DomainState, Failure, Part, Permit, SignedPermit, Stage};

#[cfg(any(test, feature = "sim"))]
pub mod contract;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod xl;

/// Number of one operation begun by one agent process; never used twice by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job(pub u64);

/// One operation on the host.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Look at everything. Completes as [`Completion::Survey`].
    Survey,
    /// Log in to the disks and wait for their devices; fetch the boot files unless `files` is false; see that the
    /// bridges exist. A failure leaves whatever was logged in; [`Op::Detach`] tidies up.
    Prepare {
        /// What is to run.
        guest: Guest,
        /// Whether boot files are needed: not for a guest that arrives with its memory.
        files: bool,
    },
    /// Create the domain; it stands paused. Fails with [`proto::agent::FailureKind::NoMemory`] when the host has not enough.
    Create {
        /// What is to run; prepared.
        guest: Guest,
    },
    /// Ask the guest to shut down; completes when asked. The survey shows when it is so.
    AskShutdown {
        /// The VM.
        vm: VmId,
    },
    /// Take every domain of this VM away, whatever its state or part.
    Destroy {
        /// The VM.
        vm: VmId,
    },
    /// Pause. Fails with `NoDomain` unless it is resident, with `Tool` when it neither runs nor is paused.
    Pause {
        /// The VM.
        vm: VmId,
    },
    /// Let it run. Fails as [`Op::Pause`] does, and while an earlier agent's creation of it is under way.
    Unpause {
        /// The VM.
        vm: VmId,
    },
    /// Pause every domain but dom0 that runs, whatever it is. Completes as [`Completion::Held`].
    Hold,
    /// Log out of these disks.
    Detach {
        /// The disks.
        disks: Vec<DiskAccess>,
    },
    /// Send the guest's stream. Progress: `Copying`, `Stopped`.
    ///
    /// Completes as [`Completion::Sent`] once the guest stands suspended with *nobody left who would resume it by
    /// himself*, and the target was told so. A failure promises the opposite: the target was never told, and will
    /// never say that it has received the guest; whether the guest runs must be seen to by [`Op::Resume`] and [`Op::Unpause`].
    Send {
        /// What the permit says.
        permit: Permit,
        /// The permit as it is shown to the target.
        signed: SignedPermit,
        /// Most bytes a second; 0 for no limit.
        rate_bytes_s: u64,
    },
    /// Await one stream under this permit, no longer than it is valid. Progress: `Listening` once a stream would be
    /// taken, then `Copying`, `Stopped`. Completes as [`Completion::Received`] when the guest is here whole,
    /// paused, as an incoming domain, and the source has said that it cannot run there again by itself. A failure
    /// leaves no domain of this move behind.
    Receive {
        /// Leave for the stream; prepared.
        permit: Permit,
    },
    /// End a `Send` or `Receive` that is under way as a failure, unless it has just completed. Completes as `Done`
    /// at once; the other job completes by itself.
    Cancel {
        /// Which.
        job: Job,
    },
    /// Let a received guest run under its own name. Succeeds when it is so.
    Activate {
        /// The VM.
        vm: VmId,
    },
    /// See that the guest is here: resume it when it is suspended, so that it stands paused; give it back its name; leave it when it runs.
    Resume {
        /// The VM.
        vm: VmId,
    },
    /// The end of the console log.
    Console {
        /// The VM.
        vm: VmId,
        /// Most bytes, from the end.
        bytes_max: u32,
    },
}

/// How an operation ended well.
#[derive(Debug, Clone, PartialEq)]
pub enum Completion {
    /// Done; nothing to add.
    Done,
    /// What was seen.
    Survey(Survey),
    /// All was paused that could be.
    Held {
        /// Domains that run all the same.
        running: usize,
    },
    /// A stream was sent.
    Sent {
        /// Its bytes.
        bytes: u64,
        /// Milliseconds from the first byte to the target's word.
        total_ms: u64,
    },
    /// A guest was received.
    Received {
        /// Bytes of the stream.
        bytes: u64,
        /// When the guest stopped at the source, on this host's own clock (the agent's `now_ms`).
        stopped_ms: u64,
    },
    /// The end of a console log.
    Console {
        /// What is not UTF-8 is replaced.
        text: String,
    },
}

/// How far a `Send` or `Receive` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub stage: Stage,
    /// Bytes of the stream so far.
    pub bytes: u64,
}

/// Ends of operations; a failure names what was attempted, on what, and what the tool said.
pub type OpResult = Result<Completion, Failure>;

/// Everything on the host at one moment. Counters rise from the domain's or the host's start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// Every domain but dom0.
    pub domains: Vec<SeenDomain>,
    /// Processor time of all domains, dom0's with it, nanoseconds.
    pub cpu_ns: u64,
    /// Memory not given to any domain, MiB.
    pub memory_free_mib: u64,
    /// dom0's own used memory, MiB.
    pub dom0_used_mib: u64,
    /// The agent's resident memory, KiB.
    pub agent_rss_kib: u64,
    /// The agent's processor time, nanoseconds.
    pub agent_cpu_ns: u64,
    /// Bytes received on hardware interfaces.
    pub net_rx_bytes: u64,
    /// Bytes sent on hardware interfaces.
    pub net_tx_bytes: u64,
}

/// One domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDomain {
    /// Which VM, by its name without xl's suffixes.
    pub vm: VmId,
    /// Xen's number.
    pub domid: u32,
    /// What it is doing.
    pub state: DomainState,
    /// It shut itself down in order to start again.
    pub reboots: bool,
    /// By the suffix of its name.
    pub part: Part,
    /// MiB.
    pub memory_mib: u64,
    /// Processor time, nanoseconds.
    pub cpu_ns: u64,
    /// Bytes that the guest received.
    pub net_rx_bytes: u64,
    /// Bytes that the guest sent.
    pub net_tx_bytes: u64,
    /// Bytes that the guest read from its disks.
    pub disk_read_bytes: u64,
    /// Bytes that the guest wrote to its disks.
    pub disk_write_bytes: u64,
}

impl Op {
    /// The VM that the operation is about, or none for a survey, a hold, a cancel and a log-out.
    pub fn vm(&self) -> Option<&VmId> {
        match self {
            Self::Prepare { guest, .. } | Self::Create { guest } => Some(&guest.spec.name),
            Self::AskShutdown { vm }
            | Self::Destroy { vm }
            | Self::Pause { vm }
            | Self::Unpause { vm }
            | Self::Activate { vm }
            | Self::Resume { vm }
            | Self::Console { vm, .. } => Some(vm),
            Self::Send { permit, .. } | Self::Receive { permit } => Some(&permit.vm),
            Self::Survey | Self::Hold | Self::Detach { .. } | Self::Cancel { .. } => None,
        }
    }
}
