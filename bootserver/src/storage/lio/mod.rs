//! Disks as files, each behind an iSCSI target of its own, served by this machine's kernel (LIO, by configfs).
//!
//! Owns: the targets of our prefix and their backstores. Never does: touch what another has configured there. The kernel
//! serves on while the boot server restarts; after a restart of the machine all is made anew from files and grants.
//!
//! ```text
//! Create/Clone -> file                     Grant -> backstore -> target -> LUN 1 -> ACL: name, user, secret, LUN
//! Delete <- file <- all of it removed      Cut   -> secret gone -> LUN gone -> sessions gone
//! ```
//! docs/design/0014-storage-kinds.md says why a cut goes in this order, and what the kernel does at each step.

mod configfs;
mod tree;

use super::ledger::{Grant, Ledger};
use super::served::Served;
use super::{Files, StorageError};
use proto::DiskId;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tree::Tree;

/// A call of the kernel that has not come back after this has failed; it is then asked for again by the rack.
pub(super) const DEADLINE: Duration = Duration::from_secs(25);
/// What the kernel needs; Debian's has them all. LIO wants crc32c even where no digest is used.
const MODULES: [&str; 4] = ["target_core_mod", "target_core_file", "iscsi_target_mod", "crc32c"];

/// Where to serve disks.
#[derive(Debug, Clone)]
pub struct LioConfig {
    /// The disks.
    pub files: Files,
    /// Where the kernel listens for initiators.
    pub portal: SocketAddr,
    /// Prefix of target names.
    pub iqn_prefix: String,
}

/// Disks that the kernel serves.
#[derive(Debug, Clone)]
pub struct Lio {
    config: LioConfig,
    tree: Tree,
}

impl Lio {
    /// Takes up what the kernel serves already, or readies it to serve.
    pub async fn start(config: LioConfig) -> Result<Self, StorageError> {
        config.files.make_directory()?;
        let lio = Self { tree: Tree::new(&config), config };
        // On this thread: all others have given up what loading a module takes (`privileges`).
        ready(&lio.tree, lio.config.portal)?;
        Ok(lio)
    }

    /// Initiators that are logged in to a disk.
    pub async fn sessions(&self, disk: &DiskId) -> Result<Vec<String>, StorageError> {
        let (tree, name) = (self.tree.clone(), disk.clone());
        self.ask(format!("reading the sessions of disk {disk}"), move || tree.sessions(&name)).await
    }

    /// Serves none of our disks any more.
    pub async fn stop(&self) -> Result<(), StorageError> {
        let tree = self.tree.clone();
        self.ask("withdrawing every disk", move || tree.withdraw_all()).await
    }

    /// Has the kernel do something on a thread that may wait for it.
    async fn ask<T: Send + 'static>(
        &self,
        doing: impl Into<String>,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let work = tokio::task::spawn_blocking(work);
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(Ok(done)) => done,
            Ok(Err(lost)) => Err(StorageError::Kernel { what: format!("{}: {lost}", doing.into()) }),
            Err(_) => Err(StorageError::Stuck { doing: doing.into() }),
        }
    }
}

impl Served for Lio {
    fn files(&self) -> &Files {
        &self.config.files
    }

    async fn export(&self, disk: &DiskId) -> Result<(), StorageError> {
        let (tree, name, path) = (self.tree.clone(), disk.clone(), self.files().path(disk));
        let bytes = self.files().size(disk)?;
        self.ask(format!("serving disk {disk}"), move || tree.export(&name, &path, bytes)).await
    }

    async fn withdraw(&self, disk: &DiskId) -> Result<(), StorageError> {
        let (tree, name) = (self.tree.clone(), disk.clone());
        self.ask(format!("withdrawing disk {disk}"), move || tree.withdraw(&name)).await
    }

    async fn bind(&self, disk: &DiskId, grant: &Grant) -> Result<(), StorageError> {
        let (tree, name, grant) = (self.tree.clone(), disk.clone(), grant.clone());
        self.ask(format!("letting {} reach disk {disk}", grant.initiator), move || tree.bind(&name, &grant)).await
    }

    /// The kernel has no way in that could be taken without ending what came by it.
    async fn unbind(&self, disk: &DiskId, grant: &Grant, remaining: &Ledger) -> Result<(), StorageError> {
        self.cut(disk, grant, remaining).await
    }

    async fn cut(&self, disk: &DiskId, grant: &Grant, _remaining: &Ledger) -> Result<(), StorageError> {
        let (tree, name, initiator) = (self.tree.clone(), disk.clone(), grant.initiator.clone());
        let doing = format!("cutting {initiator} off disk {disk}");
        self.ask(doing, move || tree.cut(&name, &initiator)).await
    }
}

/// Sees that the kernel can serve, and that the portal is free or its own.
fn ready(tree: &Tree, portal: SocketAddr) -> Result<(), StorageError> {
    if !Path::new(configfs::ROOT).exists() {
        for module in MODULES {
            run("modprobe", &[module])?;
        }
    }
    if !Path::new(configfs::ROOT).exists() {
        run("mount", &["-t", "configfs", "configfs", "/sys/kernel/config"])?;
    }
    let serves = tree.ready()?;
    // The kernel would say so only when the first disk is made.
    if !serves && let Err(err) = std::net::TcpListener::bind(portal) {
        let what = format!("listening on {portal}: {err}; end the program that does, or set another storage.portal");
        return Err(StorageError::Kernel { what });
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), StorageError> {
    let failed = |said: String| StorageError::Kernel {
        what: format!("{program} {}: {said}; this needs a kernel with LIO, or storage.kind: tgt", arguments.join(" ")),
    };
    let output = Command::new(program).args(arguments).output().map_err(|err| failed(err.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(failed(said.trim().to_owned())) }
}
