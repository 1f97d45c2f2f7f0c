//! Disks that we serve from files, whoever does the serving: tgtd or the kernel.
//!
//! Owns: the order of each job's steps, and when the grants beside a disk are written. Never does: speak to what serves; that is [`Served`].
//!
//! ```text
//! Create/Clone -> file                  Grant -> noted -> what it replaces unbound -> exported -> bound
//! Delete <- file <- note <- withdrawn   Cut   -> cut -> forgotten
//! ```
//! A disk that was just made is not served: nobody is let in, and what serves may be away for a moment.

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
            let size_mib = *size_mib;
            // What may still be served of one that was lost goes when there is another to take its place.
            waiting(files, disk, move |files, disk| files.prepare(disk, size_mib)).await?;
            forget_lost(served, disk).await?;
            waiting(files, disk, |files, disk| files.put(disk)).await
        }
        StorageOp::Clone { disk, from, size_mib } => {
            forget_lost(served, disk).await?;
            files.copy(disk, from, *size_mib).await
        }
        StorageOp::Grow { disk, size_mib } => {
            // Its size is read when it is first served, by tgtd as by the kernel: so it is served anew.
            let size_mib = *size_mib;
            waiting(files, disk, move |files, disk| files.grow(disk, size_mib)).await?;
            served.withdraw(disk).await?;
            attach(served, disk).await
        }
        StorageOp::Attach { disk, .. } => attach(served, disk).await,
        StorageOp::Delete { disk } => {
            served.withdraw(disk).await?;
            waiting(files, disk, |files, disk| {
                Ledger::remove(&files.directory, disk)?;
                files.remove(disk)
            })
            .await
        }
        StorageOp::Grant { disk, host, initiator, address, user, secret } => {
            let grant =
                Grant { initiator: initiator.clone(), address: *address, user: user.clone(), secret: secret.clone() };
            let mut ledger = load(files, disk).await?;
            let before = ledger.grants.insert(host.clone(), grant.clone());
            save(files, disk, &ledger).await?;
            if let Some(before) = before.filter(|before| *before != grant) {
                served.unbind(disk, &before, &ledger).await?;
            }
            served.export(disk).await?;
            served.bind(disk, &grant).await
        }
        StorageOp::Cut { disk, host } => {
            let mut ledger = load(files, disk).await?;
            let Some(grant) = ledger.grants.remove(host) else { return Ok(()) };
            served.cut(disk, &grant, &ledger).await?;
            // Forgotten last: a cut that was interrupted is found and done again.
            save(files, disk, &ledger).await
        }
    }
}

/// Before a disk is made: whatever is served by its name, and whoever was let in to it, is of a disk that was lost.
async fn forget_lost<S: Served>(served: &S, disk: &DiskId) -> Result<(), StorageError> {
    let files = served.files();
    if files.path(disk).exists() {
        return Ok(());
    }
    served.withdraw(disk).await?;
    waiting(files, disk, |files, disk| Ledger::remove(&files.directory, disk)).await
}

async fn load(files: &Files, disk: &DiskId) -> Result<Ledger, StorageError> {
    waiting(files, disk, |files, disk| Ledger::load(&files.directory, disk)).await
}

async fn save(files: &Files, disk: &DiskId, ledger: &Ledger) -> Result<(), StorageError> {
    let ledger = ledger.clone();
    waiting(files, disk, move |files, disk| ledger.save(&files.directory, disk)).await
}

/// Works on a disk's files, on a thread that may wait for what they are on: guests write to it as well.
async fn waiting<T: Send + 'static>(
    files: &Files,
    disk: &DiskId,
    work: impl FnOnce(&Files, &DiskId) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let (theirs, name) = (files.clone(), disk.clone());
    let worked = tokio::task::spawn_blocking(move || work(&theirs, &name)).await;
    worked.map_err(|lost| file("working on the files of", &files.path(disk))(lost.into()))?
}

/// Serves a disk that was made earlier, with the grants that were in force. What was started anew knows none.
async fn attach<S: Served>(served: &S, disk: &DiskId) -> Result<(), StorageError> {
    let files = served.files();
    files.size(disk)?;
    served.export(disk).await?;
    for grant in load(files, disk).await?.grants.values() {
        served.bind(disk, grant).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proto::agent::Secret;
    use rack::effect::CloneSource;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// Serves nothing, and keeps what it was asked for.
    struct Asked(Files, Mutex<Vec<String>>);

    impl Asked {
        fn note(&self, what: &str, disk: &DiskId) -> Result<(), StorageError> {
            self.1.lock().expect("not poisoned").push(format!("{what} {disk}"));
            Ok(())
        }
    }

    impl Served for Asked {
        fn files(&self) -> &Files {
            &self.0
        }

        async fn export(&self, disk: &DiskId) -> Result<(), StorageError> {
            self.note("export", disk)
        }

        async fn withdraw(&self, disk: &DiskId) -> Result<(), StorageError> {
            self.note("withdraw", disk)
        }

        async fn bind(&self, disk: &DiskId, _: &Grant) -> Result<(), StorageError> {
            self.note("bind", disk)
        }

        async fn unbind(&self, disk: &DiskId, _: &Grant, _: &Ledger) -> Result<(), StorageError> {
            self.note("unbind", disk)
        }

        async fn cut(&self, disk: &DiskId, _: &Grant, _: &Ledger) -> Result<(), StorageError> {
            self.note("cut", disk)
        }
    }

    fn disk() -> DiskId {
        "web-0".parse().expect("a name")
    }

    /// What is asked for by a job on a disk that a host was let in to, and whether that host still is.
    async fn check(op: StorageOp, lost: bool, expect: Expect) {
        let state = tempfile::tempdir().expect("a directory");
        let template = state.path().join("template");
        std::fs::write(&template, "a template's").expect("written");
        let templates = BTreeMap::from([("web".to_owned(), template)]);
        let asked = Asked(Files { directory: state.path().join("disks"), templates }, Mutex::default());
        asked.files().make_directory().expect("made");
        let grant = StorageOp::Grant {
            disk: disk(),
            host: "ha".parse().expect("a name"),
            initiator: "iqn.x:ha".to_owned(),
            address: [127, 0, 0, 1].into(),
            user: "ha-1".to_owned(),
            secret: Secret("0123456789ab".to_owned()),
        };
        for before in [StorageOp::Create { disk: disk(), size_mib: 1 }, grant] {
            perform(&asked, &before).await.expect("done");
        }
        if lost {
            std::fs::remove_file(asked.files().path(&disk())).expect("removed");
        }
        asked.1.lock().expect("not poisoned").clear();
        perform(&asked, &op).await.expect("done");
        let ledger = Ledger::load(&asked.files().directory, &disk()).expect("read");
        let (asked, let_in) = (asked.1.into_inner().expect("not poisoned"), ledger.grants.len());
        expect.assert_eq(&format!("{}; let in: {let_in}", asked.join(", ")));
    }

    #[tokio::test]
    async fn what_a_job_asks_for() {
        let create = StorageOp::Create { disk: disk(), size_mib: 1 };
        let clone = StorageOp::Clone { disk: disk(), from: CloneSource::Template("web".to_owned()), size_mib: 1 };
        check(create.clone(), false, expect!["; let in: 1"]).await;
        check(clone.clone(), false, expect!["; let in: 1"]).await;
        check(create, true, expect!["withdraw web-0; let in: 0"]).await;
        check(clone, true, expect!["withdraw web-0; let in: 0"]).await;
        let grow = StorageOp::Grow { disk: disk(), size_mib: 2 };
        check(grow, false, expect!["withdraw web-0, export web-0, bind web-0; let in: 1"]).await;
        check(StorageOp::Delete { disk: disk() }, false, expect!["withdraw web-0; let in: 0"]).await;
    }
}
