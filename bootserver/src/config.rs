//! The operator's configuration: one YAML file, parsed once into what the rest of the server may trust.
//!
//! Owns: reading the file, every check of it, and the error that says where it is wrong. Never does: change anything on
//! the machine; `bootserver check` is this module alone. The form of the file is in docs/design/0001-the-road.md, of subnets in 0004-dhcp.md.
//!
//! ```text
//! text --serde--> form::Form (types, keys) --checks--> Config (ranges, overlaps, files, interface)
//! ```

mod check;
pub mod files;
mod form;
mod line;
mod storage;
mod subnets;

use crate::releases::Import;
use crate::storage::{ExternalConfig, Files, LioConfig, StorageConfig, TgtConfig};
use proto::DiskId;
use rack::policy::{ExternalDisk, Policy, Serves};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of store, CA, disks. May not be there yet.
    pub state: PathBuf,
    /// Interface on which DHCP is served.
    pub interface: String,
    /// What the rack must know. `subnet.ca_digest` is empty until the CA is loaded: [`Config::policy`] fills it in.
    policy: Policy,
    /// Releases to take in: first that of hosts, then one of each template's boot files.
    pub imports: Vec<Import>,
    /// First-stage loaders by the names they are asked for.
    pub loaders: BTreeMap<String, PathBuf>,
    /// Disk images of templates, by the template's name.
    pub template_images: BTreeMap<String, PathBuf>,
    /// Most bytes a second of boot files; 0 for no limit.
    pub boot_rate_bytes_s: u64,
    /// Where to listen.
    pub listen: Listen,
    /// What guests' disks are on.
    pub storage: Storage,
    /// Backups of the record and the keys.
    pub backup: crate::backup::Schedule,
}

/// Ports and addresses of our own services, other than DHCP (67) and TFTP (69).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Our address on the served network: TFTP, boot HTTP and agents listen there.
    pub address: Ipv4Addr,
    /// Plain HTTP for booting machines.
    pub boot_port: u16,
    /// TLS for agents.
    pub agent_port: u16,
    /// TLS for operators.
    pub operator: SocketAddr,
}

/// What guests' disks are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Which kind.
    pub kind: StorageKind,
    /// Stop serving with the server. Guests then lose their disks; for trials only.
    pub stop_with_server: bool,
}

/// Who serves the disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageKind {
    /// A tgtd of ours.
    Tgt {
        /// Where hosts reach it.
        portal: SocketAddr,
        /// Its control port, `tgtd -C`.
        control_port: u16,
    },
    /// This machine's kernel.
    Lio {
        /// Where hosts reach it.
        portal: SocketAddr,
    },
    /// A SAN that is there already.
    External {
        /// What is declared, the heartbeat disk with it.
        disks: BTreeMap<DiskId, ExternalDisk>,
        /// By which this machine reads the heartbeat disk.
        heartbeats: PathBuf,
    },
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Its line, counted from 1, if one can be named.
    pub line: Option<usize>,
    /// Path of the key, such as `subnet.pool`; empty when the text is no YAML or the message names it.
    pub key: String,
    /// What is wrong and what was expected.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Config {
    /// Reads and checks a file. Reads every file that is to be served, once, for its digest.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|err| ConfigError {
            file: file.to_owned(),
            line: None,
            key: String::new(),
            what: format!("cannot be read: {err}"),
        })?;
        check::check(file, &text)
    }

    /// Whether another server gives out the addresses of any subnet.
    pub fn is_a_proxy(&self) -> bool {
        self.policy.subnets().any(|subnet| subnet.serves == Serves::Proxy)
    }

    /// The storage's part; its disks are in `directory`, unless others have them.
    pub fn storage_config(&self, directory: PathBuf) -> StorageConfig {
        let files = Files { directory, templates: self.template_images.clone() };
        let iqn_prefix = self.policy.iqn_prefix.clone();
        match &self.storage.kind {
            StorageKind::Tgt { portal, control_port } => StorageConfig::Tgt(TgtConfig {
                files,
                log: self.state.join("tgtd.log"),
                portal: *portal,
                control_port: *control_port,
                iqn_prefix,
            }),
            StorageKind::Lio { portal } => StorageConfig::Lio(LioConfig { files, portal: *portal, iqn_prefix }),
            StorageKind::External { disks, heartbeats } => StorageConfig::External(ExternalConfig {
                disks: disks.keys().cloned().collect(),
                heartbeats: heartbeats.clone(),
            }),
        }
    }

    /// The rack's part, once the CA is known by the digest of its certificate (base64url of sha256, 43 characters).
    pub fn policy(&self, ca_digest: String) -> Policy {
        let mut policy = self.policy.clone();
        for subnet in &mut policy.relayed {
            subnet.ca_digest.clone_from(&ca_digest);
        }
        policy.subnet.ca_digest = ca_digest;
        policy
    }
}

#[cfg(test)]
mod tests;
