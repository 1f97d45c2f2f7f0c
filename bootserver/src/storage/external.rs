//! Disks on a SAN of others: declared in the configuration, there already, and never changed from here.
//!
//! Owns: which disks are declared, and saying of everything else that it is not ours to do. Never does: let in or cut anybody. Hosts
//! log in with the credentials declared; who may no longer is without power, and the rack sees to that.

use super::StorageError;
use proto::DiskId;
use rack::effect::StorageOp;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is declared.
#[derive(Debug, Clone)]
pub struct ExternalConfig {
    /// Disks, the heartbeat disk with them.
    pub disks: BTreeSet<DiskId>,
    /// Device or file by which this machine reads the heartbeat disk.
    pub heartbeats: PathBuf,
}

/// The SAN, as far as we know it.
#[derive(Debug, Clone)]
pub struct External {
    config: ExternalConfig,
}

impl External {
    /// Looks whether this machine can read the heartbeat disk: without it no host's failure is ever certain.
    pub fn start(config: ExternalConfig) -> Result<Self, StorageError> {
        std::fs::File::open(&config.heartbeats)
            .map_err(super::file("opening the heartbeat disk", &config.heartbeats))?;
        Ok(Self { config })
    }

    /// Says whether a job is done already, as it is for a disk that is declared.
    pub fn perform(&self, op: &StorageOp) -> Result<(), StorageError> {
        let disk = op.disk();
        let what = match op {
            StorageOp::Attach { .. } | StorageOp::Grant { .. } if self.config.disks.contains(disk) => return Ok(()),
            StorageOp::Attach { .. } | StorageOp::Grant { .. } => "reached: the configuration no longer declares it",
            StorageOp::Create { .. } | StorageOp::Clone { .. } => "made",
            StorageOp::Grow { .. } => "grown",
            StorageOp::Delete { .. } => "deleted",
            StorageOp::Cut { .. } => "taken from a host",
        };
        Err(StorageError::Others { disk: disk.clone(), what })
    }

    /// Where the heartbeat disk is read.
    pub fn heartbeats(&self) -> &Path {
        &self.config.heartbeats
    }
}
