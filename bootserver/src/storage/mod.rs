//! The shared storage that guests' disks are on, of one of three kinds.
//!
//! Owns: what all kinds promise, and which of them is served. Never does: decide who may reach a disk; the rack says so in
//! [`StorageOp`]s. What each promises is tried by `contract`, which all of them pass.
//!
//! ```text
//!             +-> Tgt       disks as files, served by a tgtd that outlives the boot server
//! StorageOp --+-> Lio       disks as files, served by this machine's kernel (configfs)
//!             +-> External  a SAN that is there already: nothing is made and nobody is cut; a fence is the host's power
//! ```
//! docs/design/0003-tgt.md and 0014-storage-kinds.md say what each taught us.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod disk;
mod external;
mod ledger;
mod lio;
mod served;
mod tgt;

pub use disk::{Files, path_in};
pub use external::{External, ExternalConfig};
pub use lio::{Lio, LioConfig};
pub use tgt::{MgmtError, Tgt, TgtConfig};

use proto::DiskId;
use rack::effect::StorageOp;
use rack::recovery::FoundDisk;
use served::Served;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The LUN of a disk that we serve. tgt makes LUN 0 a controller, and all kinds have the same.
pub(crate) const LUN: u32 = 1;

/// Which kind, and where.
#[derive(Debug, Clone)]
pub enum StorageConfig {
    /// tgtd, started by us.
    Tgt(TgtConfig),
    /// This machine's kernel.
    Lio(LioConfig),
    /// A SAN of others.
    External(ExternalConfig),
}

/// The storage. Cheap to clone; jobs on one disk must come one after another.
#[derive(Debug, Clone)]
pub enum Storage {
    /// Served by tgtd.
    Tgt(Tgt),
    /// Served by the kernel.
    Lio(Lio),
    /// Served by others.
    External(External),
}

impl Storage {
    /// Takes up what is served already, or starts to.
    pub async fn start(config: StorageConfig) -> Result<Self, StorageError> {
        Ok(match config {
            StorageConfig::Tgt(config) => Self::Tgt(Tgt::start(config).await?),
            StorageConfig::Lio(config) => Self::Lio(Lio::start(config).await?),
            StorageConfig::External(config) => Self::External(External::start(config)?),
        })
    }

    /// Does one job. Doing it again does no harm.
    pub async fn perform(&self, op: &StorageOp) -> Result<(), StorageError> {
        match self {
            Self::Tgt(tgt) => served::perform(tgt, op).await,
            Self::Lio(lio) => served::perform(lio, op).await,
            Self::External(external) => external.perform(op),
        }
    }

    /// Waits until what serves the disks has ended and been started anew. The new one knows no disk. Neither the kernel nor a SAN ends
    /// without us or beyond us: for ever with these.
    pub async fn started_anew(&self) {
        match self {
            Self::Tgt(tgt) => tgt.started_anew().await,
            Self::Lio(_) | Self::External(_) => std::future::pending().await,
        }
    }

    /// Where the server itself reads the heartbeat disk: its file, or a device by which this machine reaches it.
    pub fn heartbeats(&self) -> PathBuf {
        // A name of letters and a dash.
        let disk: DiskId = proto::heartbeat::DISK.parse().expect("the heartbeat disk's name is a disk's");
        match self {
            Self::Tgt(tgt) => tgt.files().path(&disk),
            Self::Lio(lio) => lio.files().path(&disk),
            Self::External(external) => external.heartbeats().to_owned(),
        }
    }

    /// Every disk whose data is there, and who is let in to it: what a server must know whose own record is old.
    pub fn found(&self) -> Result<Vec<FoundDisk>, StorageError> {
        match self {
            Self::Tgt(tgt) => tgt.files().found(),
            Self::Lio(lio) => lio.files().found(),
            // Who may reach its disks only the SAN knows.
            Self::External(external) => Err(StorageError::Unknown { heartbeats: external.heartbeats().to_owned() }),
        }
    }

    /// Stops serving: every guest loses its disks. Only for a rack that is taken down whole; a SAN is left as it is.
    pub async fn stop(&self) -> Result<(), StorageError> {
        match self {
            Self::Tgt(tgt) => tgt.stop().await,
            Self::Lio(lio) => lio.stop().await,
            Self::External(_) => Ok(()),
        }
    }

    /// Names of the initiators that are logged in to a disk now: the fence's own evidence. A SAN shows us none.
    pub async fn sessions(&self, disk: &DiskId) -> Result<Vec<String>, StorageError> {
        match self {
            Self::Tgt(tgt) => Ok(tgt.sessions(disk).await?.into_iter().map(|(initiator, _)| initiator).collect()),
            Self::Lio(lio) => lio.sessions(disk).await,
            Self::External(_) => Err(StorageError::Others { disk: disk.clone(), what: "shown who is logged in to" }),
        }
    }
}

/// Why the storage did not do something.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file could not be made, copied, grown or removed.
    #[error("{doing} {}: {err}", path.display())]
    File {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// The grants beside a disk cannot be read.
    #[error("the grants in {} cannot be read ({err}); restore the file from a backup or delete the disk", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        err: serde_json::Error,
    },
    /// No randomness for a secret.
    #[error("drawing a secret for disk {disk}: {err}")]
    Random {
        /// For which disk.
        disk: DiskId,
        /// What the system said.
        err: getrandom::Error,
    },
    /// tgtd refused or could not be reached.
    #[error("{doing}: {err}")]
    Mgmt {
        /// What was attempted, and for which disk.
        doing: String,
        /// What tgtd said.
        #[source]
        err: MgmtError,
    },
    /// tgtd cannot be started.
    #[error("starting tgtd on {portal} with control port {control_port}: {what}; its log is {}", log.display())]
    Start {
        /// Where it was to listen.
        portal: SocketAddr,
        /// Its control port.
        control_port: u16,
        /// What went wrong.
        what: String,
        /// Its log.
        log: PathBuf,
    },
    /// The kernel cannot serve.
    #[error("serving disks by this machine's kernel: {what}")]
    Kernel {
        /// What went wrong, and what to do.
        what: String,
    },
    /// The kernel does not come to an end with something.
    #[error("the kernel has not ended {doing} after {} s; `dmesg` may say why", crate::storage::lio::DEADLINE.as_secs())]
    Stuck {
        /// What was attempted, on what.
        doing: String,
    },
    /// A disk or template is not there.
    #[error("there is no {what} {name} to copy from")]
    NoSource {
        /// Template or disk.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A disk cannot be made smaller.
    #[error("disk {disk} has {have_mib} MiB; it cannot be made {want_mib} MiB")]
    Shrink {
        /// Which.
        disk: DiskId,
        /// Its size.
        have_mib: u64,
        /// What was asked.
        want_mib: u64,
    },
    /// A host's session did not go away.
    #[error("disk {disk}: the session of {initiator}, or its login, outlasts its being cut; it is tried again")]
    StillThere {
        /// Which disk.
        disk: DiskId,
        /// Whose session.
        initiator: String,
    },
    /// The record is that of a backup, and the SAN cannot be asked.
    #[error(
        "the record was restored from a backup, and who has reached the SAN of {} since cannot be known: this server cannot take over a \
         running rack; boot all hosts anew under a new state", heartbeats.display()
    )]
    Unknown {
        /// Where the heartbeat disk is.
        heartbeats: PathBuf,
    },
    /// The disk is on a SAN that is not ours to change.
    #[error("disk {disk} is on a SAN that is not the appliance's: it cannot be {what} from here")]
    Others {
        /// Which disk.
        disk: DiskId,
        /// What was asked.
        what: &'static str,
    },
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |err| StorageError::File { doing, path, err }
}
