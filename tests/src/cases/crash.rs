//! Server and agents killed at every step of a move, each at a point of its own: the VM ends running exactly once, with its memory, and no
//! person is needed.
//!
//! The points are compiled in for tests only (bootserver/src/crash.rs, hostagent/src/crash.rs) and armed from here.

use super::Trial;
use super::ha::{PLACES, ready};
use super::moves::{quiet, runs_once};
use crate::machine::Machine;
use crate::ping::Pinger;
use crate::rack::{Guest, refusal};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use proto::HostId;
use proto::view::{MovePhase, MoveView, VmPhase};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

/// Where an agent looks for the point at which it is to die: hostagent/src/crash.rs.
const AGENTS_ARMED: &str = "/run/tsubame/crash-at";

/// Who is to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Server,
    Source,
    Target,
}

/// Where somebody dies.
#[derive(Debug, Clone, Copy)]
struct Point {
    whose: Whose,
    name: &'static str,
    /// What else dies before, so that the move is called off.
    provoked_by: Option<(Whose, &'static str)>,
}

const fn at(whose: Whose, name: &'static str) -> Point {
    Point { whose, name, provoked_by: None }
}

const fn called_off(whose: Whose, name: &'static str, by: (Whose, &'static str)) -> Point {
    Point { whose, name, provoked_by: Some(by) }
}

use Whose::{Server, Source, Target};

const SOURCE_DIES: (Whose, &str) = (Source, "send.copying");
const TARGET_DIES: (Whose, &str) = (Target, "receive.copying");

/// With less than this to be had the guest is started anew, KiB: Linux loses a network interface's receive buffers, 1 MiB, with each move
/// (docs/design/0013), and this one dies of twelve.
const AVAILABLE_KIB_MIN: i64 = 12 << 10;

/// In the order in which a move comes to them.
const POINTS: &[Point] = &[
    at(Server, "preparing.before-commit"),
    at(Server, "preparing.committed"),
    at(Server, "preparing.let-out"),
    at(Server, "preparing-told.before-commit"),
    at(Server, "preparing-told.committed"),
    at(Server, "preparing-told.let-out"),
    at(Target, "note.floor.before"),
    at(Target, "note.guest.before"),
    at(Target, "note.guest.kept"),
    at(Target, "prepare.begin"),
    at(Target, "prepare.done"),
    at(Target, "receive.begin"),
    at(Target, "receive.listening"),
    at(Server, "copying-told.before-commit"),
    at(Server, "copying-told.committed"),
    at(Server, "copying-told.let-out"),
    at(Source, "note.guest.kept"),
    at(Source, "send.begin"),
    at(Source, "send.let-in"),
    at(Target, "receive.let-in"),
    at(Source, "send.copying"),
    at(Target, "receive.copying"),
    at(Source, "send.stopped"),
    at(Target, "receive.stopped"),
    at(Target, "receive.whole"),
    at(Target, "receive.held"),
    at(Source, "send.held-there"),
    at(Source, "send.frozen"),
    at(Source, "send.word-given"),
    at(Source, "send.done"),
    at(Target, "receive.done"),
    at(Target, "note.received.before"),
    at(Target, "note.received.kept"),
    at(Server, "committing.before-commit"),
    at(Server, "committing.committed"),
    at(Server, "committing.let-out"),
    at(Server, "activating-told.before-commit"),
    at(Server, "activating-told.committed"),
    at(Server, "activating-told.let-out"),
    at(Target, "activate.begin"),
    at(Target, "activate.done"),
    at(Server, "releasing-told.before-commit"),
    at(Server, "releasing-told.committed"),
    at(Server, "releasing-told.let-out"),
    at(Source, "detach.begin"),
    at(Source, "detach.done"),
    at(Source, "destroy.begin"),
    at(Source, "destroy.done"),
    at(Server, "done.before-commit"),
    at(Server, "done.committed"),
    at(Server, "done.let-out"),
    called_off(Server, "aborting.before-commit", TARGET_DIES),
    called_off(Server, "aborting.committed", TARGET_DIES),
    called_off(Server, "aborting.let-out", TARGET_DIES),
    called_off(Source, "resume.begin", TARGET_DIES),
    called_off(Source, "resume.done", TARGET_DIES),
    called_off(Target, "receive.failed", SOURCE_DIES),
    called_off(Target, "destroy.begin", SOURCE_DIES),
    called_off(Target, "destroy.done", SOURCE_DIES),
    called_off(Server, "aborted.before-commit", TARGET_DIES),
    called_off(Server, "aborted.committed", TARGET_DIES),
    called_off(Server, "aborted.let-out", TARGET_DIES),
];

/// The most telling: memory on its way; the source's last word; the guest held at the target and nobody told; the change of owner durable and
/// nobody told.
const TELLING: &[(Whose, &str)] = &[
    (Target, "receive.copying"),
    (Source, "send.word-given"),
    (Target, "note.received.kept"),
    (Server, "committing.committed"),
];

/// All of them, or those that `POINTS` names: parts of names with commas between.
pub(super) fn every_point(trial: &mut Trial) -> Result<()> {
    let wanted = std::env::var("POINTS").unwrap_or_default();
    let is = |point: &&Point| wanted.is_empty() || wanted.split(',').any(|part| point.name.contains(part));
    let points: Vec<Point> = POINTS.iter().filter(is).copied().collect();
    ensure!(!points.is_empty(), "POINTS={wanted:?} names none");
    walk(trial, &points)
}

pub(super) fn telling_points(trial: &mut Trial) -> Result<()> {
    let is = |point: &&Point| point.provoked_by.is_none() && TELLING.contains(&(point.whose, point.name));
    let points: Vec<Point> = POINTS.iter().filter(is).copied().collect();
    ensure!(points.len() == TELLING.len(), "a telling point is none");
    walk(trial, &points)
}

fn walk(trial: &mut Trial, points: &[Point]) -> Result<()> {
    ready(trial)?;
    let mut wrong = Vec::new();
    for point in points {
        let name = format!("{:?} at {}", point.whose, point.name);
        // The next may be well all the same, and what is wrong with several tells more.
        match die_at(trial, point).and_then(|said| trial.oracle.judge(&trial.rack.operator).map(|_| said)) {
            Ok(said) => println!("        {name:<40} {said}"),
            Err(err) => {
                println!("        {name:<40} WRONG: {err:#}");
                wrong.push(name);
                disarm(trial)?;
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {} points: {}", wrong.len(), points.len(), wrong.join(", "));
    Ok(())
}

/// A move with a death in it, and how it ended.
fn die_at(trial: &mut Trial, point: &Point) -> Result<String> {
    quiet(trial)?;
    let guest = trial.guest(0)?;
    let mut counted = trial.rack.await_counting(&guest)?;
    let mut available_kib = trial.rack.available_kib(&guest)?;
    if available_kib < AVAILABLE_KIB_MIN {
        println!("        {} is started anew: {available_kib} KiB of its memory are left", guest.name);
        start_anew(trial, &guest)?;
        (counted, available_kib) = (trial.rack.await_counting(&guest)?, trial.rack.available_kib(&guest)?);
    }
    let uptime_s = trial.rack.uptime_s(&guest)?;
    let source = trial.owner(&guest.name)?;
    let target = trial.host_other_than(&source)?;
    let newest = trial.rack.operator.rack()?.moves.iter().map(|m| m.id).max();
    let victims: Vec<(Whose, &str)> = point.provoked_by.into_iter().chain([(point.whose, point.name)]).collect();
    for (whose, name) in &victims {
        match victim(*whose, &source, &target) {
            None => fs::write(trial.rack.appliance.crash_at(), name)?,
            Some(host) => {
                let line = format!("echo {name} > {AGENTS_ARMED}");
                trial.rack.machine_of(host)?.shell(&line, &trial.rack.guard).map(drop)?;
            }
        }
    }
    let pinger = Pinger::start(&trial.rack.network, guest.address)?;
    let (began, began_at) = (Instant::now(), [&source, &target].map(|host| console_bytes(trial, host)));
    match trial.ask("a move to be taken on", || trial.rack.operator.migrate(&guest.name, Some(&target))) {
        Ok(_) => {}
        // It died before it could answer; to refuse is to answer.
        Err(err) if refusal(&err).is_none() && victims.iter().any(|(whose, _)| *whose == Server) => {}
        Err(err) => return Err(err),
    }
    for (whose, name) in victims {
        match victim(whose, &source, &target) {
            None => server_died(trial)?,
            Some(host) => agent_died(trial, host, name, began_at[usize::from(whose == Target)])?,
        }
    }
    quiet(trial)?;
    runs_once(trial, &guest, counted)?;
    let after_s = trial.rack.uptime_s(&guest)?;
    ensure!(after_s > uptime_s, "{} was up for {uptime_s} s and is for {after_s} s: it was started anew", guest.name);
    let silence_ms = pinger.stop()?.longest_gap().as_millis();
    let moves = trial.rack.operator.rack()?.moves;
    let ended = match moves.iter().find(|m| Some(m.id) > newest) {
        None => "not begun".to_owned(),
        Some(MoveView { phase: MovePhase::Done, .. }) => "done".to_owned(),
        Some(m) => format!("called off ({})", m.failure.as_deref().unwrap_or("?")),
    };
    let place = if trial.owner(&guest.name)? == source { "source" } else { "target" };
    let (s, lost_kib) = (began.elapsed().as_secs_f64(), available_kib - trial.rack.available_kib(&guest)?);
    Ok(format!(
        "runs at the {place}, silent for {silence_ms} ms, {lost_kib} KiB of its memory lost, all quiet after {s:.1} s; the move: {ended}"
    ))
}

fn start_anew(trial: &Trial, guest: &Guest) -> Result<()> {
    for (what, phase) in [("shutdown", VmPhase::Stopped), ("start", VmPhase::Running)] {
        trial.ask("an order to be taken on", || trial.rack.operator.vm_do(&guest.name, what))?;
        trial.rack.await_vm(&guest.name, phase)?;
    }
    Ok(())
}

fn victim<'a>(whose: Whose, source: &'a HostId, target: &'a HostId) -> Option<&'a HostId> {
    match whose {
        Server => None,
        Source => Some(source),
        Target => Some(target),
    }
}

fn console_bytes(trial: &Trial, host: &HostId) -> usize {
    trial.rack.machine_of(host).map_or(0, Machine::console_bytes)
}

/// Waits until the server has died at its point, and starts it again.
fn server_died(trial: &mut Trial) -> Result<()> {
    let guard = trial.rack.guard.clone();
    let appliance = &mut trial.rack.appliance;
    let status = guard.wait("the server to die at its crash point", || appliance.has_ended())?;
    ensure!(status.signal() == Some(Signal::SIGKILL as i32), "the server ended by itself, {status}");
    println!("        the server answers {} ms after it was started again", trial.rack.start_server()?.as_millis());
    Ok(())
}

/// Waits until an agent has died at its point; init starts it again.
fn agent_died(trial: &Trial, host: &HostId, name: &str, began_at: usize) -> Result<()> {
    let machine = trial.rack.machine_of(host)?;
    trial.rack.guard.wait(&format!("the agent of {host} to die at {name}"), || {
        let has_said = |text| machine.has_said_since(began_at, text);
        Ok((has_said("killed by SIGKILL") && has_said(name)).then_some(()))
    })
}

/// What did not strike is not to strike amid the next.
fn disarm(trial: &mut Trial) -> Result<()> {
    if trial.rack.appliance.has_ended()?.is_some() {
        trial.rack.start_server()?;
    }
    // Often it is not there.
    let _ = fs::remove_file(trial.rack.appliance.crash_at());
    for place in PLACES {
        trial.rack.machine(place)?.shell(&format!("rm -f {AGENTS_ARMED}"), &trial.rack.guard)?;
    }
    Ok(())
}

/// The server was away for longer than a certificate lasts; here the host's clock says so. What is authentic sets the clock right again.
pub(super) fn certificate_ends(trial: &mut Trial) -> Result<()> {
    let guest = trial.guest(0)?;
    let counted = trial.rack.await_counting(&guest)?;
    let host = trial.owner(&guest.name)?;
    trial.rack.appliance.kill()?;
    let machine = trial.rack.machine_of(&host)?;
    machine.shell("date -s @$(( $(date +%s) + 100000 ))", &trial.rack.guard)?;
    trial.rack.guard.wait("the agent to join anew", || {
        Ok(machine.console().contains("the certificate has ended; joining anew").then_some(()))
    })?;
    trial.rack.start_server()?;
    // A server that was started anew knows nothing of its load but by a report.
    trial.rack.guard.wait("a report of the host", || Ok(trial.rack.operator.host(&host)?.and_then(|h| h.stats)))?;
    runs_once(trial, &guest, counted)
}
