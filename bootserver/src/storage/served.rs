//! Disks that we serve from files, whoever does the serving: tgtd or the kernel.
//!
//! Owns: the order of each job's steps, and when the grants beside a disk are written. Never does: speak to what serves; that is [`Served`].
//!
//! ```text
//! Create/Clone -> file -> exported      Grant -> noted -> what it replaces unbound -> bound
//! Delete <- file <- note <- withdrawn   Cut   -> cut -> forgotten
//! ```

use super::ledger::{Grant, Ledger};
use super::{Files, StorageError, file};
use proto::DiskId;
use rack::effect::StorageOp;

/// What serves files as disks. Whatever is so already is success.
pub(super) trait Served {
    /// The files.
    fn files(&self) -> &Files;
    /// Sees that a disk is served.
    async fn export(&self, disk: &DiskId) -> Result<(), StorageError>;
    /// Sees that a disk is served to nobody.
    async fn withdraw(&self, disk: &DiskId) -> Result<(), StorageError>;
    /// Lets a host reach a disk.
    async fn bind(&self, disk: &DiskId, grant: &Grant) -> Result<(), StorageError>;
    /// Takes a grant's ways in away, but for what a remaining grant needs. What came in by them may stay.
    async fn unbind(&self, disk: &DiskId, grant: &Grant, remaining: &Ledger) -> Result<(), StorageError>;
    /// Takes a grant's ways in away, and ends what came in by them: no write of it lands after this.
    async fn cut(&self, disk: &DiskId, grant: &Grant, remaining: &Ledger) -> Result<(), StorageError>;
}

/// Does one job. Doing it again does no harm.
pub(super) async fn perform<S: Served>(served: &S, op: &StorageOp) -> Result<(), StorageError> {
    let files = served.files();
    match op {
        StorageOp::Create { disk, size_mib } => {
            if !files.path(disk).exists() {
                // Whatever is served by that name, and whoever was let in to it, is of a disk that was lost.
                served.withdraw(disk).await?;
                Ledger::remove(&files.directory, disk)?;
            }
            files.create(disk, *size_mib)?;
            served.export(disk).await
        }
        StorageOp::Clone { disk, from, size_mib } => {
            files.copy(disk, from, *size_mib).await?;
            served.export(disk).await
        }
        StorageOp::Grow { disk, size_mib } => {
            // Its size is read when it is first served, by tgtd as by the kernel: so it is served anew.
            files.grow(disk, *size_mib)?;
            served.withdraw(disk).await?;
            attach(served, disk).await
        }
        StorageOp::Attach { disk, .. } => attach(served, disk).await,
        StorageOp::Delete { disk } => {
            served.withdraw(disk).await?;
            Ledger::remove(&files.directory, disk)?;
            files.remove(disk)
        }
        StorageOp::Grant { disk, host, initiator, address, user, secret } => {
            let grant =
                Grant { initiator: initiator.clone(), address: *address, user: user.clone(), secret: secret.clone() };
            let mut ledger = Ledger::load(&files.directory, disk)?;
            let before = ledger.grants.insert(host.clone(), grant.clone());
            save(files, disk, &ledger).await?;
            if let Some(before) = before.filter(|before| *before != grant) {
                served.unbind(disk, &before, &ledger).await?;
            }
            served.export(disk).await?;
            served.bind(disk, &grant).await
        }
        StorageOp::Cut { disk, host } => {
            let mut ledger = Ledger::load(&files.directory, disk)?;
            let Some(grant) = ledger.grants.remove(host) else { return Ok(()) };
            served.cut(disk, &grant, &ledger).await?;
            // Forgotten last: a cut that was interrupted is found and done again.
            save(files, disk, &ledger).await
        }
    }
}

/// Keeps the grants, on a thread that may wait for the disk: guests write to it as well.
async fn save(files: &Files, disk: &DiskId, ledger: &Ledger) -> Result<(), StorageError> {
    let (directory, name, ledger) = (files.directory.clone(), disk.clone(), ledger.clone());
    let saving = tokio::task::spawn_blocking(move || ledger.save(&directory, &name)).await;
    saving.map_err(|lost| file("writing the grants in", &files.directory)(lost.into()))?
}

/// Serves a disk that was made earlier, with the grants that were in force. What was started anew knows none.
async fn attach<S: Served>(served: &S, disk: &DiskId) -> Result<(), StorageError> {
    let files = served.files();
    files.size(disk)?;
    served.export(disk).await?;
    for grant in Ledger::load(&files.directory, disk)?.grants.values() {
        served.bind(disk, grant).await?;
    }
    Ok(())
}
