//! Operations on a real host: Xen's calls, XenStore, `xl` where it is needed, iscsiadm.
//!
//! Owns: what of the host the operations share (the way to Xen, names, cancels). Never does: deciding; remembering guests.

mod config;
pub mod orphan;
mod room;
mod survey;

pub use config::{is_interface, uuid};

use super::{Completion, Job, Op, OpResult, Progress};
use crate::agent::{AgentEvent, Guest, failure};
use crate::boot::Boot;
use crate::hypercall::{DomainInfo, Hypercalls};
use crate::identity::Identity;
use crate::xenstore::XenStore;
use crate::{crash, fetch, iscsi, migration, ram};
use proto::VmId;
use proto::agent::{DiskAccess, DomainState, Failure, FailureKind};
use room::Room;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

/// Everything of the agent that outlives its process, in RAM.
pub const RUN: &str = "/run/tsubame";
/// Boot files of guests: on the root, which is RAM as well, because /run is kept small.
const BLOBS: &str = "/var/lib/tsubame/blobs";
/// The helper beside this program, as images/ puts it.
const RESUME: &str = "/usr/lib/tsubame/domain-resume";
const CONSOLE_LOGS: &str = "/var/log/xen/console";
/// The logs of guests that are no longer here, bytes in all: beyond that the oldest go. /var/log has 16 MiB (images/dom0/init).
const OTHERS_LOGS_BYTES_MAX: u64 = 4 << 20;

/// xl takes seconds on an emulated host, and waits for devices up to 40 s (LIBXL_HOTPLUG_TIMEOUT).
const XL_S: u64 = 120;
/// From a destruction to Xen having no such domain.
const GONE_S: u64 = 60;

/// The host.
pub struct Xl {
    boot: Boot,
    identity: watch::Receiver<Arc<Identity>>,
    calls: Mutex<Hypercalls>,
    names: Mutex<Names>,
    changes: watch::Receiver<u64>,
    cancels: Mutex<BTreeMap<Job, oneshot::Sender<()>>>,
    fetching: tokio::sync::Mutex<()>,
    /// Boot files of guests that were prepared and are not made yet.
    awaited: Mutex<BTreeMap<VmId, Vec<String>>>,
    room: Room,
    events: mpsc::Sender<AgentEvent>,
}

struct Names {
    store: XenStore,
    /// Names as read; a name is written before a domain is and changed by nobody but this agent.
    known: BTreeMap<(u16, [u8; 16]), String>,
}

/// A lock that is held over a few calls to a device, and over no wait.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Xl {
    /// A host whose completions go to `events`. `changes` is raised whenever Xen announces a change of some domain.
    ///
    /// # Errors
    /// When this is not dom0 of Xen 4.17.
    pub fn new(
        boot: Boot,
        identity: watch::Receiver<Arc<Identity>>,
        changes: watch::Receiver<u64>,
        events: mpsc::Sender<AgentEvent>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let names = Names { store: XenStore::open()?, known: BTreeMap::new() };
        Ok(Self {
            boot,
            identity,
            calls: Mutex::new(Hypercalls::open()?),
            names: Mutex::new(names),
            changes,
            cancels: Mutex::new(BTreeMap::new()),
            fetching: tokio::sync::Mutex::new(()),
            awaited: Mutex::new(BTreeMap::new()),
            room: Room::new(),
            events,
        })
    }

    /// Begins an operation; its end comes as an event.
    pub fn begin(self: &Arc<Self>, job: Job, op: Op) {
        let xl = self.clone();
        let cancelled = match &op {
            Op::Cancel { job } => {
                if let Some(cancel) = lock(&self.cancels).remove(job) {
                    // One that has just completed hears nothing any more, as it should be.
                    let _ = cancel.send(());
                }
                None
            }
            Op::Send { .. } | Op::Receive { .. } => {
                let (cancel, cancelled) = oneshot::channel();
                lock(&self.cancels).insert(job, cancel);
                Some(cancelled)
            }
            _ => None,
        };
        tokio::spawn(async move {
            let quiet = matches!(op, Op::Survey | Op::Hold);
            let what = if quiet { String::new() } else { summary(&op) };
            let begun = tokio::time::Instant::now();
            let kind = kind(&op);
            crash::point(format_args!("{kind}.begin"));
            let result = xl.run(job, op, cancelled).await;
            crash::point(format_args!("{kind}.{}", if result.is_ok() { "done" } else { "failed" }));
            lock(&xl.cancels).remove(&job);
            let ms = begun.elapsed().as_millis() as u64;
            match &result {
                Err(e) => tracing::warn!(what, ms, kind = ?e.kind, why = e.detail, "failed"),
                Ok(_) if !quiet => tracing::info!(what, ms, "done"),
                Ok(_) => {}
            }
            // A closed channel means that the agent is ending.
            let _ = xl.events.send(AgentEvent::Done { job, result }).await;
        });
    }

    async fn run(self: &Arc<Self>, job: Job, op: Op, cancelled: Option<oneshot::Receiver<()>>) -> OpResult {
        let cancelled = cancelled.unwrap_or_else(|| oneshot::channel().1);
        let progress = |progress: Progress| {
            // A full queue loses a step that the next one makes good, but for `Listening`, which comes first.
            let _ = self.events.try_send(AgentEvent::Progress { job, progress });
        };
        match op {
            Op::Survey => return survey::survey(self).map(Completion::Survey).map_err(tool("looking at the host")),
            Op::Prepare { guest, files } => self.prepare(&guest, files).await?,
            Op::Create { guest } => self.create(&guest).await?,
            Op::AskShutdown { vm } => self.ask_shutdown(&vm)?,
            Op::Destroy { vm } => self.destroy(&vm).await?,
            Op::Pause { vm } => self.pause(&vm)?,
            Op::Unpause { vm } => self.unpause(&vm)?,
            Op::Hold => return self.hold().map(|running| Completion::Held { running }),
            Op::Detach { disks } => detach(&disks).await?,
            Op::Send { permit, signed, rate_bytes_s } => {
                return migration::source::send(self, &permit, &signed, rate_bytes_s, cancelled, progress).await;
            }
            Op::Receive { permit } => return migration::target::receive(self, &permit, cancelled, progress).await,
            Op::Cancel { .. } => {}
            Op::Activate { vm } => self.activate(&vm)?,
            Op::Resume { vm } => self.resume(&vm).await?,
            Op::Console { vm, bytes_max } => return console(&vm, bytes_max).map(|text| Completion::Console { text }),
        }
        Ok(Completion::Done)
    }

    /// As whom this host speaks.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.borrow().clone()
    }

    /// Raised whenever some domain has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        changes
    }

    /// What a domain is doing; none when Xen has no such domain.
    pub fn state(&self, domid: u16) -> Option<DomainState> {
        lock(&self.calls).domain(domid).ok().flatten().map(|d| survey::state(&d))
    }

    /// The number of a VM's resident domain.
    ///
    /// # Errors
    /// `NoDomain`.
    pub fn resident(&self, vm: &VmId) -> Result<u16, Failure> {
        self.find(vm, |name| name == vm.as_str()).map(|d| d.domid)
    }

    fn find(&self, vm: &VmId, fits: impl Fn(&str) -> bool) -> Result<DomainInfo, Failure> {
        let domains = lock(&self.calls).domains().map_err(tool("listing domains"))?;
        let mut names = lock(&self.names);
        let found = domains.into_iter().find(|d| names.name(d).is_some_and(|name| fits(&name)));
        found.ok_or_else(|| failure(FailureKind::NoDomain, format!("{vm}: no such domain on this host")))
    }

    async fn prepare(self: &Arc<Self>, guest: &Guest, files: bool) -> Result<(), Failure> {
        let vm = &guest.spec.name;
        for vif in &guest.spec.vifs {
            let bridge = format!("/sys/class/net/{}/bridge", vif.bridge);
            if !is_interface(&vif.bridge) || !Path::new(&bridge).exists() {
                let why = format!("preparing {vm}: this host has no bridge {:?}", vif.bridge);
                return Err(failure(FailureKind::Tool, why));
            }
        }
        let host = &self.boot.host;
        let login = async {
            for disk in &guest.disks {
                let failed = |e: iscsi::IscsiError| failure(FailureKind::Disk, format!("preparing {vm}: {e}"));
                let device = iscsi::login(host, disk).await.map_err(failed)?;
                tracing::info!(%vm, disk = %disk.disk, device = device.name, "disk is there");
            }
            Ok(())
        };
        let fetching = async {
            if !files {
                // A guest that arrives needs none to go on; it does when it starts itself anew while the server is away.
                let (xl, guest) = (self.clone(), guest.clone());
                tokio::spawn(async move {
                    if let Err(e) = xl.fetch(&guest).await {
                        tracing::warn!(vm = %guest.spec.name, why = e.detail, "its boot files are not kept here");
                    }
                });
                return Ok(());
            }
            self.await_files(guest);
            self.fetch(guest).await
        };
        // Both to their ends: a login that is dropped half-way is one whose session nobody knows of.
        let (logged_in, fetched) = tokio::join!(login, fetching);
        logged_in.and(fetched)
    }

    /// Its files stay until it is made or destroyed.
    fn await_files(&self, guest: &Guest) {
        let digests = fetch::digests(&guest.spec.boot).into_iter().map(str::to_owned).collect();
        lock(&self.awaited).insert(guest.spec.name.clone(), digests);
    }

    /// Has the files here that a guest boots from.
    async fn fetch(&self, guest: &Guest) -> Result<(), Failure> {
        let failed = |e: fetch::FetchError| failure(FailureKind::Tool, format!("preparing {}: {e}", guest.spec.name));
        // One at a time: guests that start together mostly want the same files, and the second then finds them.
        let _turn = self.fetching.lock().await;
        let spared = lock(&self.awaited).values().flatten().cloned().collect();
        fetch::boot_files(self.boot.boot, &blobs(), &guest.spec.boot, &spared).await.map_err(failed)
    }

    async fn create(&self, guest: &Guest) -> Result<(), Failure> {
        let vm = &guest.spec.name;
        let path = config_path(vm);
        orphan::none_left(&["create", path.as_str()]).await;
        if self.resident(vm).is_ok() {
            return Ok(());
        }
        // One that is made anew had what was left of it destroyed since it was prepared. What is there is not fetched again.
        self.await_files(guest);
        self.fetch(guest).await?;
        let _room = self.room.for_one(&guest.spec.boot, &blobs()).await;
        let free_mib = lock(&self.calls).physinfo().map_err(tool("asking for free memory"))?.free_pages / 256;
        let needed_mib = guest.spec.needed_mib();
        if free_mib < needed_mib {
            let why = format!("creating {vm}: needs {needed_mib} MiB with its tables, {free_mib} MiB are free");
            return Err(failure(FailureKind::NoMemory, why));
        }
        let text = config::render(guest, &blobs()).map_err(tool("creating"))?;
        fs::write(&path, text).map_err(tool("writing the domain's configuration"))?;
        // A log of an earlier life would be taken for this one's.
        let _ = fs::remove_file(console_path(vm, "--incoming"));
        let made = xl(vm, &["create", "-e", "-p", &path]).await;
        lock(&self.awaited).remove(vm);
        made
    }

    fn ask_shutdown(&self, vm: &VmId) -> Result<(), Failure> {
        let domid = self.resident(vm)?;
        // What libxl_domain_shutdown does for a guest with PV drivers.
        let path = format!("/local/domain/{domid}/control/shutdown");
        lock(&self.names).store.write(&path, "poweroff").map_err(tool("asking to shut down"))
    }

    /// Takes every domain of the VM away, known by name or by handle, whatever its part.
    ///
    /// # Errors
    /// When one is still there after a minute.
    pub async fn destroy(&self, vm: &VmId) -> Result<(), Failure> {
        // One that an earlier agent has begun to make may not show yet.
        orphan::none_left(&["create", config_path(vm).as_str()]).await;
        for domid in self.of(vm)? {
            xl(vm, &["destroy", &domid.to_string()]).await.or_else(|why| {
                // It may have gone by itself; what counts is below.
                if self.state(domid).is_none() { Ok(()) } else { Err(why) }
            })?;
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(GONE_S);
        while !self.of(vm)?.is_empty() {
            if tokio::time::Instant::now() >= deadline {
                let why = format!("destroying {vm}: still there after {GONE_S} s, a device may hold its memory");
                return Err(failure(FailureKind::Timeout, why));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        lock(&self.awaited).remove(vm);
        // Often there is none.
        let _ = fs::remove_file(config_path(vm));
        let _ = fs::remove_file(said_path(vm));
        self.prune_consoles()
    }

    /// The newest logs of guests that have left stay: one of them may tell why its guest has crashed.
    fn prune_consoles(&self) -> Result<(), Failure> {
        let domains = lock(&self.calls).domains().map_err(tool("listing domains"))?;
        let spared = |name: &str| {
            let vm = name.strip_prefix("guest-").and_then(|name| survey::read_name(name.strip_suffix(".log")?));
            vm.is_none_or(|(vm, _)| domains.iter().any(|d| d.handle == uuid(&vm)))
        };
        ram::keep_newest(Path::new(CONSOLE_LOGS), OTHERS_LOGS_BYTES_MAX, spared);
        Ok(())
    }

    fn of(&self, vm: &VmId) -> Result<Vec<u16>, Failure> {
        let uuid = uuid(vm);
        let domains = lock(&self.calls).domains().map_err(tool("listing domains"))?;
        Ok(domains.into_iter().filter(|d| d.handle == uuid).map(|d| d.domid).collect())
    }

    fn pause(&self, vm: &VmId) -> Result<(), Failure> {
        let domid = self.resident(vm)?;
        match self.state(domid) {
            Some(DomainState::Running) => lock(&self.calls).pause(domid).map_err(tool("pausing")),
            Some(DomainState::Paused) => Ok(()),
            other => Err(failure(FailureKind::Tool, format!("pausing {vm}: it is {other:?}"))),
        }
    }

    fn unpause(&self, vm: &VmId) -> Result<(), Failure> {
        let domid = self.resident(vm)?;
        if orphan::is_left(&["create", config_path(vm).as_str()]) {
            let why = format!("unpausing {vm}: an xl of an earlier agent still makes it");
            return Err(failure(FailureKind::Tool, why));
        }
        match self.state(domid) {
            Some(DomainState::Paused) => lock(&self.calls).unpause(domid).map_err(tool("unpausing")),
            Some(DomainState::Running) => Ok(()),
            other => Err(failure(FailureKind::Tool, format!("unpausing {vm}: it is {other:?}"))),
        }
    }

    /// By Xen's own list alone: no name, no XenStore and no tool is needed to stop a guest.
    fn hold(&self) -> Result<usize, Failure> {
        let mut calls = lock(&self.calls);
        let runs = |d: &DomainInfo| d.domid != 0 && survey::state(d) == DomainState::Running;
        let failed = tool("holding all guests");
        for domain in calls.domains().map_err(&failed)?.iter().filter(|d| runs(d)) {
            // One that went meanwhile is not in the list below.
            let _ = calls.pause(domain.domid);
        }
        Ok(calls.domains().map_err(&failed)?.iter().filter(|d| runs(d)).count())
    }

    /// Runs first, then renames: the name can wait, the guest cannot.
    fn activate(&self, vm: &VmId) -> Result<(), Failure> {
        let incoming = format!("{vm}--incoming");
        let domain = self.find(vm, |name| name == incoming || name == vm.as_str())?;
        if domain.paused() {
            lock(&self.calls).unpause(domain.domid).map_err(tool("unpausing"))?;
        }
        self.rename(&domain, vm)
    }

    fn rename(&self, domain: &DomainInfo, vm: &VmId) -> Result<(), Failure> {
        let mut names = lock(&self.names);
        names.known.remove(&(domain.domid, domain.handle));
        let dom = format!("/local/domain/{}", domain.domid);
        // As libxl__domain_rename: the domain's name, and that under its UUID.
        let mut values = vec![(format!("{dom}/name"), vm.to_string())];
        if let Some(path) = names.store.read_if(&format!("{dom}/vm")).map_err(tool("renaming"))? {
            values.push((format!("{path}/name"), vm.to_string()));
        }
        names.store.write_all(&values).map_err(tool("renaming"))
    }

    async fn resume(&self, vm: &VmId) -> Result<(), Failure> {
        migration::source::none_left(vm).await;
        let away = format!("{vm}--migratedaway");
        let domain = self.find(vm, |name| name == away || name == vm.as_str())?;
        if survey::state(&domain) == DomainState::Suspended {
            // Xen counts pauses: one that an earlier agent has paused already must not need two to go on.
            if !domain.paused() {
                lock(&self.calls).pause(domain.domid).map_err(tool("pausing before the resumption"))?;
            }
            run_tool(vm, Path::new(RESUME), &[&domain.domid.to_string()]).await?;
        }
        self.rename(&domain, vm)?;
        match self.state(domain.domid) {
            Some(DomainState::Running | DomainState::Paused) => Ok(()),
            other => Err(failure(FailureKind::Tool, format!("resuming {vm}: it is {other:?} after all"))),
        }
    }

    /// A file that takes what a tool says about a VM; begun anew.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn said_file(vm: &VmId) -> std::io::Result<Stdio> {
        File::create(said_path(vm)).map(Stdio::from)
    }

    /// The end of what the last tool said about a VM, on one line.
    pub fn said_in(vm: &VmId) -> String {
        let said = fs::read(said_path(vm)).unwrap_or_default();
        let tail = &said[said.len().saturating_sub(600)..];
        let text = String::from_utf8_lossy(tail).replace('\r', "\n");
        text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ")
    }

    /// As [`Self::said_in`].
    pub fn said(&self, vm: &VmId) -> String {
        Self::said_in(vm)
    }
}

impl Names {
    /// A domain's name; none while it has not been written.
    fn name(&mut self, domain: &DomainInfo) -> Option<String> {
        if domain.domid == 0 {
            return None;
        }
        let key = (domain.domid, domain.handle);
        if let Some(name) = self.known.get(&key) {
            return Some(name.clone());
        }
        let name = self.store.read_if(&format!("/local/domain/{}/name", domain.domid)).ok().flatten()?;
        self.known.insert(key, name.clone());
        Some(name)
    }

    fn forget_others(&mut self, domains: &[DomainInfo]) {
        self.known.retain(|key, _| domains.iter().any(|d| (d.domid, d.handle) == *key));
    }
}

async fn detach(disks: &[DiskAccess]) -> Result<(), Failure> {
    for disk in disks {
        let failed = |e: iscsi::IscsiError| failure(FailureKind::Disk, e.to_string());
        iscsi::logout(disk).await.map_err(failed)?;
    }
    Ok(())
}

fn blobs() -> PathBuf {
    PathBuf::from(BLOBS)
}

fn config_path(vm: &VmId) -> String {
    format!("{RUN}/{vm}.cfg")
}

fn said_path(vm: &VmId) -> PathBuf {
    Path::new(RUN).join(format!("{vm}.said"))
}

fn console_path(vm: &VmId, suffix: &str) -> PathBuf {
    Path::new(CONSOLE_LOGS).join(format!("guest-{vm}{suffix}.log"))
}

/// The end of the log that xenconsoled keeps. A guest that came by a move is logged under the name it came with.
fn console(vm: &VmId, bytes_max: u32) -> Result<String, Failure> {
    let path = |suffix| console_path(vm, suffix);
    let written = |p: &PathBuf| fs::metadata(p).and_then(|m| m.modified()).ok();
    let newest = [path(""), path("--incoming")].into_iter().filter(|p| p.exists()).max_by_key(written);
    let newest = newest.ok_or_else(|| failure(FailureKind::NoDomain, format!("{vm}: no console log here")))?;
    let failed = |e: std::io::Error| failure(FailureKind::Tool, format!("reading {}: {e}", newest.display()));
    let mut file = File::open(&newest).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(u64::from(bytes_max)))).map_err(failed)?;
    let mut text = Vec::new();
    file.take(u64::from(bytes_max)).read_to_end(&mut text).map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn xl(vm: &VmId, arguments: &[&str]) -> Result<(), Failure> {
    run_tool(vm, Path::new("xl"), arguments).await
}

/// Runs a tool to its end. One that outlives its time is killed.
async fn run_tool(vm: &VmId, program: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let what = format!("{} {}", program.display(), arguments.join(" "));
    let failed = |why: String| failure(FailureKind::Tool, format!("{what}: {why}"));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Xl::said_file(vm).map_err(|e| failed(format!("keeping what it says: {e}")))?);
    let mut child = command.spawn().map_err(|e| failed(format!("starting it: {e}")))?;
    can_be_done_again(&child);
    match tokio::time::timeout(Duration::from_secs(XL_S), child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("{status}: {}", Xl::said_in(vm)))),
        Ok(Err(e)) => Err(failed(format!("awaiting it: {e}"))),
        Err(_) => {
            kill(&mut child).await;
            Err(failure(FailureKind::Timeout, format!("{what}: no end after {XL_S} s: {}", Xl::said_in(vm))))
        }
    }
}

/// Where dom0's memory ends, this goes first: init protects all that it starts, and what can be done again is to be the one that dies.
pub fn can_be_done_again(child: &Child) {
    if let Some(pid) = child.id() {
        // One that has ended needs nothing.
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), "500");
    }
}

/// Kills a child and awaits its end.
pub async fn kill(child: &mut Child) {
    if let Err(e) = child.kill().await {
        tracing::error!(%e, "killing a child");
    }
}

/// This very program.
pub fn exe() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/sbin/hostagent"))
}

fn tool<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |e| failure(FailureKind::Tool, format!("{what}: {e}"))
}

fn summary(op: &Op) -> String {
    let name = kind(op);
    op.vm().map_or_else(|| name.to_owned(), |vm| format!("{name} {vm}"))
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Survey => "survey",
        Op::Prepare { .. } => "prepare",
        Op::Create { .. } => "create",
        Op::AskShutdown { .. } => "ask-shutdown",
        Op::Destroy { .. } => "destroy",
        Op::Pause { .. } => "pause",
        Op::Unpause { .. } => "unpause",
        Op::Hold => "hold",
        Op::Detach { .. } => "detach",
        Op::Send { .. } => "send",
        Op::Receive { .. } => "receive",
        Op::Cancel { .. } => "cancel",
        Op::Activate { .. } => "activate",
        Op::Resume { .. } => "resume",
        Op::Console { .. } => "console",
    }
}
