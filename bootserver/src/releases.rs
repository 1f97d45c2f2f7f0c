//! Releases in the shell: their files come in, are served, and go.
//!
//! Owns: one task through which all that changes files passes, so that none is removed while a release that needs it is being imported; what
//! is on the shelf of the boot service. Never does: decide which releases there are; that is the rack's, and only its word is durable.
//!
//! ```text
//! operator ── announce ──> which files are missing ── parts ──> files (verified) ── add ──> shelf, then the rack
//! rack's view changes ──> shelf of all its releases; files that no release names and nobody announced are removed
//! ```

pub mod files;

use crate::boot_http::Shelf;
use crate::config::files::ServedFile;
use crate::rack_task::{Handle as Rack, Stopping};
use bytes::Bytes;
use files::{FileError, Files};
use proto::api::{Accepted, Refusal};
use proto::release::{
    FILES_MAX, FileProgress, Manifest, MissingFile, MissingFiles, ReleaseId, ReleaseKind, ReleaseView,
};
use rack::effect::{Answer, Reply};
use rack::event::{BootFile, Command, Event};
use rack::release::{RELEASES_MAX, UNIFIED_ROLE, id_of};
use rack::script::file_path;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Questions that wait; whoever has more waits.
const QUEUE_MAX: usize = 16;
/// Files that are announced and not yet named by a release, at most.
const ANNOUNCED_MAX: usize = 4 * FILES_MAX;
/// An announced file of which nothing is heard for so long may go.
const ANNOUNCED_FOR: Duration = Duration::from_secs(3600);

/// A release of the configuration, its files where the operator has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// What is in it.
    pub manifest: Manifest,
    /// Its files by their role.
    pub files: BTreeMap<String, ServedFile>,
}

enum Ask {
    Missing(Manifest, oneshot::Sender<Result<MissingFiles, Refusal>>),
    Part { sha256: String, offset: u64, data: Bytes, answer: oneshot::Sender<Result<FileProgress, Refusal>> },
    Add(Manifest, oneshot::Sender<Result<Accepted, Refusal>>),
}

/// A way to the task.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Ask>);

impl Handle {
    /// Announces a release: which of its files are to be sent.
    pub async fn missing(&self, manifest: Manifest) -> Result<MissingFiles, Refusal> {
        self.ask(|answer| Ask::Missing(manifest, answer)).await
    }

    /// A part of an announced file.
    pub async fn part(&self, sha256: String, offset: u64, data: Bytes) -> Result<FileProgress, Refusal> {
        self.ask(|answer| Ask::Part { sha256, offset, data, answer }).await
    }

    /// Adds a release all of whose files are here.
    pub async fn add(&self, manifest: Manifest) -> Result<Accepted, Refusal> {
        self.ask(|answer| Ask::Add(manifest, answer)).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Ask) -> Result<T, Refusal> {
        let (answer, receiver) = oneshot::channel();
        self.0.send(ask(answer)).await.map_err(|_| stopping(Stopping))?;
        receiver.await.map_err(|_| stopping(Stopping))?
    }
}

fn stopping(stopping: Stopping) -> Refusal {
    Refusal::Unavailable { detail: stopping.to_string() }
}

struct Announced {
    bytes: u64,
    at: Instant,
}

/// The task.
pub struct Releases {
    files: Arc<Files>,
    rack: Rack,
    /// What is on the shelf beside releases.
    loader: Option<ServedFile>,
    asks: mpsc::Receiver<Ask>,
    shelf: watch::Sender<Arc<Shelf>>,
    announced: BTreeMap<String, Announced>,
    /// Those of the view that the shelf was made of last.
    shelved: BTreeSet<ReleaseId>,
}

/// Copies what the configuration names into the files, before there is a rack.
pub fn take_in(files: &Files, imports: &[Import]) -> Result<(), FileError> {
    imports.iter().flat_map(|import| import.files.values()).try_for_each(|file| files.copy(file))
}

impl Releases {
    /// Makes task, handle and shelf. The rack's task need not run yet.
    pub fn new(files: Files, rack: Rack, loader: Option<ServedFile>) -> (Self, Handle, watch::Receiver<Arc<Shelf>>) {
        let (sender, asks) = mpsc::channel(QUEUE_MAX);
        let (shelf, shown) = watch::channel(Arc::default());
        let (announced, shelved) = (BTreeMap::new(), BTreeSet::new());
        let mut releases = Self { files: Arc::new(files), rack, loader, asks, shelf, announced, shelved };
        let view = releases.rack.shown();
        releases.shelve_all(&view.view.releases);
        (releases, Handle(sender), shown)
    }

    /// Runs until `stop` turns true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.serve(&mut stop).await;
        // Why a rack has ended is for its own task to say.
        let _ = stop.wait_for(|&stop| stop).await;
    }

    /// As long as there is a rack.
    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) {
        let mut views = self.rack.watch();
        if self.follow().await.is_err() {
            return;
        }
        loop {
            let ask = tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => Some(ask),
                    None => return,
                },
                changed = views.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                _ = stop.wait_for(|&stop| stop) => return,
            };
            if let Some(ask) = ask {
                self.answer(ask).await;
                continue;
            }
            let other = {
                let releases = &views.borrow_and_update().view.releases;
                releases.len() != self.shelved.len()
                    || releases.iter().any(|release| !self.shelved.contains(&release.id))
            };
            if other && self.follow().await.is_err() {
                return;
            }
        }
    }

    /// Whoever asked may be gone.
    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Missing(manifest, answer) => drop(answer.send(self.missing(&manifest))),
            Ask::Part { sha256, offset, data, answer } => drop(answer.send(self.part(sha256, offset, data).await)),
            Ask::Add(manifest, answer) => drop(answer.send(self.add(manifest).await)),
        }
    }

    fn missing(&mut self, manifest: &Manifest) -> Result<MissingFiles, Refusal> {
        manifest.check()?;
        let known = self.rack.shown().view.releases.len();
        if known >= RELEASES_MAX && !self.shelved.contains(&id_of(manifest)) {
            let detail = format!("there are {known} releases, and no more are kept; delete some first");
            return Err(Refusal::Unavailable { detail });
        }
        self.announced.retain(|_, announced| announced.at.elapsed() < ANNOUNCED_FOR);
        let mut missing: BTreeMap<&String, MissingFile> = BTreeMap::new();
        for (role, file) in &manifest.files {
            let have = self.files.have(&file.sha256, file.bytes);
            if !self.files.has(&file.sha256, file.bytes) {
                let (role, sha256) = (role.clone(), file.sha256.clone());
                missing.insert(&file.sha256, MissingFile { role, sha256, have, bytes: file.bytes });
            }
        }
        let needed = missing.values().map(|file| file.bytes.saturating_sub(file.have)).fold(0, u64::saturating_add);
        self.files.room_for(needed).map_err(refusal)?;
        let new = manifest.files.values().filter(|file| !self.announced.contains_key(&file.sha256)).count();
        if self.announced.len() + new > ANNOUNCED_MAX {
            let detail = format!("{} files of other imports are awaited; end those first", self.announced.len());
            return Err(Refusal::Unavailable { detail });
        }
        let at = Instant::now();
        for file in manifest.files.values() {
            self.announced.insert(file.sha256.clone(), Announced { bytes: file.bytes, at });
        }
        Ok(MissingFiles { release: id_of(manifest), files: missing.into_values().collect() })
    }

    async fn part(&mut self, sha256: String, offset: u64, data: Bytes) -> Result<FileProgress, Refusal> {
        let Some(announced) = self.announced.get_mut(&sha256) else {
            return Err(Refusal::BadValue {
                field: "the file".to_owned(),
                given: sha256.chars().take(80).collect(),
                expected: "the sha256 of a file of a release that was announced before".to_owned(),
            });
        };
        announced.at = Instant::now();
        let (files, bytes) = (self.files.clone(), announced.bytes);
        let work = move || files.append(&sha256, bytes, offset, &data);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok((have, whole))) => Ok(FileProgress { have, whole }),
            Ok(Err(err)) => Err(refusal(err)),
            Err(err) => Err(Refusal::Unavailable { detail: err.to_string() }),
        }
    }

    async fn add(&mut self, manifest: Manifest) -> Result<Accepted, Refusal> {
        manifest.check()?;
        if let Some((role, _)) = manifest.files.iter().find(|(_, file)| !self.files.has(&file.sha256, file.bytes)) {
            return Err(Refusal::BadValue {
                field: "the release".to_owned(),
                given: manifest.title(),
                expected: format!("one whose files are here; {role} is missing"),
            });
        }
        // On the shelf first: a host may be sent to it as soon as the rack knows it.
        self.shelf.send_modify(|shelf| {
            let mut more = Shelf::clone(shelf);
            shelve(&mut more, &self.files, &manifest);
            *shelf = Arc::new(more);
        });
        let command = Command::AddRelease { manifest };
        let answer = self.rack.ask(|reply| Event::Operator { reply, command }).await.map_err(stopping)?;
        match answer {
            Answer::Operator(Ok(Reply::Accepted(accepted))) => {
                self.follow().await.map_err(stopping)?;
                Ok(accepted)
            }
            Answer::Operator(Err(refusal)) => Err(refusal),
            _ => Err(Refusal::Unavailable { detail: "the rack's answer does not fit the question".to_owned() }),
        }
    }

    /// The shelf has what the rack's releases name, and the disk no more than that and what is announced.
    async fn follow(&mut self) -> Result<(), Stopping> {
        let shown = self.rack.fresh().await?;
        let releases = &shown.view.releases;
        self.shelve_all(releases);
        let named = releases.iter().flat_map(|release| release.manifest.files.values()).map(|file| &file.sha256);
        let keep: BTreeSet<String> = named.chain(self.announced.keys()).cloned().collect();
        let files = self.files.clone();
        match tokio::task::spawn_blocking(move || files.sweep(&keep)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "files that no release names were removed"),
            Ok(Err(err)) => tracing::warn!(%err, "files that no release names could not be looked for"),
            Err(err) => tracing::warn!(%err, "files that no release names could not be looked for"),
        }
        Ok(())
    }

    fn shelve_all(&mut self, releases: &[ReleaseView]) {
        let mut shelf = Shelf::default();
        for release in releases {
            for (role, file) in &release.manifest.files {
                if !self.files.has(&file.sha256, file.bytes) {
                    tracing::error!(release = %release.id, role, "a release's file is not in the store; import it again");
                }
            }
            shelve(&mut shelf, &self.files, &release.manifest);
        }
        if let Some(loader) = &self.loader {
            shelf.put("/loader/ipxe.efi".to_owned(), loader, Some(BootFile::Loader));
        }
        self.shelf.send_replace(Arc::new(shelf));
        self.shelved = releases.iter().map(|release| release.id.clone()).collect();
    }
}

/// Puts a release's whole files where machines ask for them.
fn shelve(shelf: &mut Shelf, files: &Files, manifest: &Manifest) {
    for (role, file) in &manifest.files {
        if !files.has(&file.sha256, file.bytes) {
            continue;
        }
        let served = ServedFile { path: files.path(&file.sha256), sha256: file.sha256.clone(), bytes: file.bytes };
        match manifest.kind {
            ReleaseKind::Guest => shelf.put(format!("/blob/{}", file.sha256), &served, None),
            ReleaseKind::Dom0 => {
                let kind = match role.as_str() {
                    "xen" | "xen.efi" => Some(BootFile::Xen),
                    "vmlinuz" => Some(BootFile::Kernel),
                    "initrd" => Some(BootFile::Initrd),
                    "dom0.squashfs" => Some(BootFile::Image),
                    UNIFIED_ROLE => Some(BootFile::Unified),
                    _ => None,
                };
                shelf.put(file_path(role, file), &served, kind);
            }
        }
    }
}

fn refusal(err: FileError) -> Refusal {
    let bad =
        |field: &str, given: String, expected: String| Refusal::BadValue { field: field.to_owned(), given, expected };
    match err {
        FileError::Digest { expected, found } => bad("the file's sha256", found, expected),
        FileError::Offset { given, expected } => bad("offset", given.to_string(), expected.to_string()),
        FileError::TooLong { expected, found } => {
            bad("the file's size", format!("{found} bytes or more"), format!("{expected} bytes"))
        }
        err @ (FileError::Io { .. } | FileError::NoRoom { .. }) => Refusal::Unavailable { detail: err.to_string() },
    }
}
