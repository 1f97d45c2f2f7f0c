//! The storage away: from all hosts with the whole appliance, or from one host alone.

use super::Trial;
use super::away::seconds;
use super::ha::{
    PLACES, await_elsewhere, await_usable, place_of, ready, runs_once_from_its_disk, signal_agent, state_by_xl,
};
use crate::process::{Process, run};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use proto::heartbeat::{DISK, SLOT_BYTES, Slot};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the appliance is away, seconds, where `APPLIANCE_AWAY_S` names no other time: longer than lease, watchdog and fence together, so that a server which counted the time
/// of its own absence would fence everybody.
const AWAY_S: u64 = 75;

/// Boot server and storage are gone and come back: guests stand still meanwhile and run on, none is started anew; nor is a host reset, though its agent
/// is killed while it cannot write.
pub(super) fn appliance_is_away(trial: &mut Trial) -> Result<()> {
    let wanted = Duration::from_secs(seconds("APPLIANCE_AWAY_S", AWAY_S)?);
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let host = before.owner.clone().context("it runs")?;
    let counted = trial.rack.await_counting(&guest)?;
    let domain = |trial: &Trial| {
        let line = format!("xl domid {}", guest.name);
        trial.rack.machine_of(&host)?.shell(&line, &trial.rack.guard)
    };
    let number = domain(trial)?;
    let storage = tgtd(trial)?;
    let away = Instant::now();
    trial.rack.appliance.kill()?;
    storage.signal(Signal::SIGKILL);
    trial.rack.guard.wait(&format!("{host} to hold {}", guest.name), || {
        Ok(state_by_xl(trial, &host, &guest)?.filter(|state| state.contains('p')))
    })?;
    println!("        {host} holds {} {:.1} s after the appliance was gone", guest.name, away.elapsed().as_secs_f64());
    // Init starts another, which finds what is held: a write to the storage that is away holds up nobody's end.
    let said_before = trial.rack.machine_of(&host)?.console_bytes();
    signal_agent(trial, &host, "KILL")?;
    trial.rack.guard.wait(&format!("the agent of {host} to be started anew"), || {
        Ok(trial.rack.machine_of(&host)?.has_said_since(said_before, "starting it again in").then_some(()))
    })?;
    println!(
        "        its agent was killed, and ended {:.1} s after the appliance was gone",
        away.elapsed().as_secs_f64()
    );
    std::thread::sleep(wanted.saturating_sub(away.elapsed()));
    let (back, away) = (Instant::now(), away.elapsed());
    trial.rack.start_server()?;
    let after = trial.rack.await_counting(&guest)?;
    println!(
        "        the appliance was away for {:.1} s; {} counts on {:.1} s after its return",
        away.as_secs_f64(),
        guest.name,
        back.elapsed().as_secs_f64()
    );
    ensure!(after > counted, "{} had counted to {counted} and is at {after}", guest.name);
    let view = trial.rack.operator.vm(&guest.name)?;
    ensure!(
        (view.epoch, &view.owner) == (before.epoch, &before.owner),
        "{} was on {:?} under epoch {:?} and is on {:?} under {:?}",
        guest.name,
        before.owner,
        before.epoch,
        view.owner,
        view.epoch
    );
    ensure!(domain(trial)? == number, "{} was domain {number} and is another: it was started anew", guest.name);
    await_usable(trial, &host)?;
    runs_once_from_its_disk(trial, &guest, after)
}

/// The storage's server alone ends: it is started anew, and no guest is held for it.
pub(super) fn storage_ends(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let storage = tgtd(trial)?;
    let ended = Instant::now();
    storage.signal(Signal::SIGKILL);
    trial.rack.guard.wait("tgtd to be gone", || Ok((!storage.lives()).then_some(())))?;
    // What its page says of the time before may be two writes late.
    let counted = trial.rack.counted(&guest)?;
    let after = trial.rack.guard.wait(&format!("{} to have written on", guest.name), || {
        Ok(trial.rack.counted(&guest).ok().filter(|&now| now > counted + 2))
    })?;
    println!("        {} writes on {:.1} s after tgtd was killed", guest.name, ended.elapsed().as_secs_f64());
    let view = trial.rack.operator.vm(&guest.name)?;
    ensure!((view.epoch, view.owner) == (before.epoch, before.owner), "{} was started anew or moved", guest.name);
    for place in PLACES {
        await_usable(trial, &trial.rack.machine(place)?.id())?;
    }
    runs_once_from_its_disk(trial, &guest, after)
}

/// The file of the heartbeat disk is deleted, while hosts write on to what no name leads to any more: nobody's failure would be noticed. It is made anew,
/// hosts write the new one, and no guest is the worse for it.
pub(super) fn heartbeats_are_lost(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let counted = trial.rack.await_counting(&guest)?;
    trial.oracle.listen(&trial.rack.operator)?;
    let heard_seq = trial.oracle.heard_seq();
    let file = trial.rack.appliance.state().join(format!("disks/{DISK}.img"));
    let lost = Instant::now();
    fs::remove_file(&file).with_context(|| format!("deleting {}", file.display()))?;
    for said in ["a host that fails is not noticed", "heartbeats are read again"] {
        trial.rack.guard.wait(&format!("the log to say {said:?}"), || {
            let events = trial.rack.operator.events(heard_seq)?;
            Ok(events.iter().any(|event| event.text.contains(said)).then_some(()))
        })?;
    }
    for place in PLACES {
        let host = trial.rack.machine(place)?.id();
        trial.rack.guard.wait(&format!("{host} to write the new heartbeat disk"), || {
            let slots = fs::read(&file)?;
            let found = slots.chunks(SLOT_BYTES).filter_map(Slot::decode).any(|slot| slot.host == host);
            Ok(found.then_some(()))
        })?;
        await_usable(trial, &host)?;
        println!("        {host} writes the new one, {:.1} s after the old was deleted", lost.elapsed().as_secs_f64());
    }
    let after = trial.rack.await_counting(&guest)?;
    ensure!(after > counted, "{} had counted to {counted} and is at {after}", guest.name);
    let view = trial.rack.operator.vm(&guest.name)?;
    ensure!((view.epoch, view.owner) == (before.epoch, before.owner), "{} was started anew or moved", guest.name);
    runs_once_from_its_disk(trial, &guest, after)
}

/// One host reaches the server, but not the storage: it may not let guests run, and the server hears that from itself.
pub(super) fn storage_path_is_cut(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let host = before.owner.clone().context("it runs")?;
    let counted = trial.rack.await_counting(&guest)?;
    let address = trial.rack.operator.host(&host)?.and_then(|view| view.address).context("a host has an address")?;
    let cut = Instant::now();
    let rules = format!(
        "add table inet fault; add chain inet fault input {{ type filter hook input priority 0; }}; \
         add rule inet fault input ip saddr {address} tcp dport 3260 drop"
    );
    nft(trial, &rules)?;
    let owner = await_elsewhere(trial, &guest, &before)?;
    let after = trial.rack.await_counting(&guest)?;
    println!(
        "        {} counts on {owner} {:.1} s after {host} lost its way to the storage",
        guest.name,
        cut.elapsed().as_secs_f64()
    );
    ensure!(after >= counted, "{} had counted to {counted} on its disk and is at {after}", guest.name);
    ensure!(place_of(trial, &owner)? != place_of(trial, &host)?, "{} is still on {host}", guest.name);
    nft(trial, "delete table inet fault")?;
    await_usable(trial, &host)?;
    trial.rack.guard.wait(&format!("{host} to be rid of {}", guest.name), || {
        let state = state_by_xl(trial, &host, &guest)?;
        let runs = state.as_deref().is_some_and(super::runs);
        ensure!(!runs, "{} runs on {host} too: {state:?}", guest.name);
        Ok(state.is_none().then_some(()))
    })?;
    runs_once_from_its_disk(trial, &guest, after)
}

/// The storage's process: the one tgtd in the rack's namespace.
fn tgtd(trial: &Trial) -> Result<Process> {
    let pids = run(Command::new("ip").args(["netns", "pids", trial.rack.network.name()]))?;
    let is = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "tgtd");
    let pid = pids.lines().filter_map(|pid| pid.trim().parse().ok()).find(is);
    Process::of(pid.context("no tgtd runs in the rack's network")?)
}

pub(super) fn nft(trial: &Trial, rules: &str) -> Result<()> {
    run(Command::new("ip").args(["netns", "exec", trial.rack.network.name(), "nft", rules])).map(drop)
}
