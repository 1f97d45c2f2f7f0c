//! The agent's tasks.
//!
//! | task | owns | ends |
//! |---|---|---|
//! | agent | the pure agent, the notes' files | with the process |
//! | uplink | the connection to the server | with the process |
//! | watcher, a thread | a XenStore connection with watches | with the process |
//! | heartbeat, a task and a program | the slot on the heartbeat disk | when another access is given |
//! | one per operation | that operation | by itself; a cancel ends streams |
//!
//! Owns: feeding the agent and carrying out its actions, in order. Never does: deciding. Every queue is bounded: events wait at 256, of reports
//! only the newest is kept.

use crate::agent::{Agent, AgentAction, AgentEvent, KeptLease, Note};
use crate::boot::Boot;
use crate::heartbeat::Writer;
use crate::hypercall::Hypercalls;
use crate::hypervisor::xl::{RUN, Xl};
use crate::identity::Clock;
use crate::join::{Join, write_secret};
use crate::stats::uptime_ms;
use crate::xenstore::XenStore;
use crate::{crash, inventory, uplink};
use proto::agent::Report;
use proto::{Term, VmId};
use std::error::Error;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const EVENTS_MAX: usize = 256;

/// Runs the agent of this boot, for ever.
///
/// # Errors
/// When this is not dom0, or the agent's memory cannot be read or written: init starts it again.
pub async fn run(boot: Boot) -> Result<(), Box<dyn Error>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(notes_dir())?;
    let mut calls = Hypercalls::open()?;
    let inventory = inventory::take(Path::new("/"), &calls.physinfo()?);
    let notes = read_notes()?;
    tracing::info!(host = %boot.host, version = inventory.agent, notes = notes.len(), "agent");

    let clock = Arc::new(Clock::default());
    let mut join = begin_join(&boot, &clock).await;
    let joined = join.until_accepted(&inventory).await;
    tracing::info!("joined");

    let (events, mut waiting) = mpsc::channel(EVENTS_MAX);
    let (changed, changes) = watch::channel(0);
    let (identities, identity) = watch::channel(joined.identity.clone());
    let (reports, newest) = watch::channel(None);
    let watcher = events.clone();
    std::thread::Builder::new()
        .name("xenstore".into())
        .stack_size(64 << 10)
        .spawn(move || watch_domains(&changed, &watcher))?;
    let known = inventory.clone();
    let xl = Arc::new(Xl::new(boot.clone(), identity, changes, events.clone())?);
    let writer = Writer::new(boot.host.clone(), boot.nonce.clone(), events.clone());
    let mut shell = Shell { xl, writer, calls, reports };
    let up = uplink::run(boot.server, join, joined, inventory, identities, newest, events);
    tokio::pin!(up);

    let mut agent = Agent::new(boot.nonce, notes, read_lease()).knowing(read_term()?, Some(known));
    loop {
        let wake = Duration::from_millis(agent.wake_ms().saturating_sub(uptime_ms()));
        let event = tokio::select! {
            event = waiting.recv() => event.ok_or("the event queue is closed")?,
            () = tokio::time::sleep(wake) => AgentEvent::Tick,
            () = &mut up => return Err("the uplink has ended".into()),
        };
        for action in agent.apply(event, uptime_ms()) {
            shell.act(action)?;
        }
    }
}

/// What actions are carried out with.
struct Shell {
    xl: Arc<Xl>,
    writer: Writer,
    calls: Hypercalls,
    reports: watch::Sender<Option<Report>>,
}

impl Shell {
    fn act(&mut self, action: AgentAction) -> Result<(), Box<dyn Error>> {
        match action {
            // A note that cannot be kept ends the process: what follows relies on it.
            AgentAction::KeepNote(note) => {
                let what = match &note.guest {
                    Some(guest) if guest.received.is_some() => "received",
                    Some(_) => "guest",
                    None => "floor",
                };
                crash::point(format_args!("note.{what}.before"));
                write_secret(&note_path(&note.vm), &serde_json::to_vec(&note)?)?;
                crash::point(format_args!("note.{what}.kept"));
            }
            AgentAction::DropNote(vm) => fs::remove_file(note_path(&vm))?,
            AgentAction::Do { job, op } => self.xl.begin(job, op),
            AgentAction::Post(report) => drop(self.reports.send_replace(Some(report))),
            AgentAction::Heartbeat(heartbeat) => self.writer.begin(heartbeat),
            AgentAction::KeepLease(lease) => write_secret(&lease_path(), &serde_json::to_vec(&lease)?)?,
            AgentAction::Reboot => {
                tracing::info!("starting anew, as ordered");
                // Returns only when it failed; the server sees that this boot goes on.
                if let Err(error) = std::process::Command::new("reboot").arg("-f").status() {
                    tracing::error!(%error, "reboot -f");
                }
            }
            // As with a note: an old server must not be heard again after a restart.
            AgentAction::KeepTerm(term) => write_secret(&term_path(), &serde_json::to_vec(&term)?)?,
            AgentAction::Pet { timeout_s } => {
                // Not petted is what a host gets whose agent cannot: its guests go on elsewhere.
                if let Err(error) = self.calls.pet(u32::try_from(timeout_s)?) {
                    tracing::error!(%error, "petting the watchdog");
                }
            }
        }
        Ok(())
    }
}

async fn begin_join(boot: &Boot, clock: &Arc<Clock>) -> Join {
    let mut last = String::new();
    loop {
        match Join::begin(boot, clock, Path::new(RUN)).await {
            Ok(join) => return join,
            Err(e) => {
                let now = e.to_string();
                if now != last {
                    tracing::warn!(error = now, "join");
                    last = now;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Xen's word on domains that came, went or shut down, by XenStore (docs/misc/xenstore.txt, special watches).
fn watch_domains(changed: &watch::Sender<u64>, events: &mpsc::Sender<AgentEvent>) {
    loop {
        let watching = XenStore::open().and_then(|mut store| {
            store.watch("@introduceDomain")?;
            store.watch("@releaseDomain")?;
            loop {
                store.wait()?;
                changed.send_modify(|n| *n += 1);
                // When the queue is full, what fills it leads to a look as well.
                if let Err(mpsc::error::TrySendError::Closed(_)) = events.try_send(AgentEvent::DomainsChanged) {
                    return Ok(());
                }
            }
        });
        match watching {
            Ok(()) => return,
            Err::<(), _>(error) => tracing::error!(%error, "watching for domains"),
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn notes_dir() -> PathBuf {
    Path::new(RUN).join("vms")
}

fn note_path(vm: &VmId) -> PathBuf {
    notes_dir().join(format!("{vm}.json"))
}

fn lease_path() -> PathBuf {
    Path::new(RUN).join("lease.json")
}

fn term_path() -> PathBuf {
    Path::new(RUN).join("term.json")
}

/// The highest term told; 0 after a boot. One that cannot be read is an error, as with a note.
fn read_term() -> Result<Term, Box<dyn Error>> {
    match fs::read(term_path()) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| format!("reading the kept term: {e}").into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Term(0)),
        Err(e) => Err(format!("reading the kept term: {e}").into()),
    }
}

/// The lease as it was kept; none after a boot. One that cannot be read is none: the server tells where the slot is, and guests are held until then.
fn read_lease() -> Option<KeptLease> {
    let text = fs::read(lease_path()).ok()?;
    serde_json::from_slice(&text).inspect_err(|error| tracing::error!(%error, "reading the kept lease")).ok()
}

/// Every note. One that cannot be read is an error: to forget a guest's epoch is worse than not to run.
fn read_notes() -> Result<Vec<Note>, Box<dyn Error>> {
    let mut notes = Vec::new();
    for entry in fs::read_dir(notes_dir())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let note = serde_json::from_slice(&fs::read(&path)?);
            notes.push(note.map_err(|e| format!("reading {}: {e}", path.display()))?);
        }
    }
    Ok(notes)
}
