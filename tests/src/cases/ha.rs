//! Hosts that die, stand still or are cut off, with VMs on them: each VM runs elsewhere, once, and its disk is whole.

use super::Trial;
use super::moves::quiet;
use crate::machine::Firmware;
use crate::ping::{Answers, Pinger};
use crate::rack::{Guest, hardware};
use anyhow::{Context, Result, ensure};
use proto::HostId;
use proto::view::{FenceStep, HostState, VmPhase, VmView};
use serde_json::json;
use std::time::{Duration, Instant};

/// Places in the rack that these cases need a machine in.
pub(super) const PLACES: [u8; 2] = [1, 2];

/// Sees that there are two hosts that may run VMs, and that every guest runs; whatever cases came before.
pub(super) fn ready(trial: &mut Trial) -> Result<()> {
    if trial.rack.operator.token().is_none() {
        trial.rack.set_up()?;
    }
    for place in PLACES {
        if trial.rack.machine(place).is_err() {
            trial.rack.power_on(&hardware(place, Firmware::Bios))?;
        }
    }
    for place in PLACES {
        let host = trial.rack.machine(place)?.id();
        trial.rack.guard.wait("the host to be heard of", || Ok(trial.rack.operator.accept(&host).ok()))?;
        await_usable(trial, &host)?;
    }
    if trial.guests.is_empty() {
        let guest = Guest::number(1)?;
        trial.rack.create_guest(&guest)?;
        trial.guests.push(guest);
    }
    for guest in &trial.guests {
        if trial.rack.operator.vm(&guest.name)?.phase == VmPhase::Stopped {
            // It may be on its way already.
            let _ = trial.rack.operator.vm_do(&guest.name, "start");
        }
    }
    for guest in &trial.guests {
        trial.rack.await_vm(&guest.name, VmPhase::Running)?;
        trial.rack.await_counting(guest)?;
    }
    quiet(trial)
}

/// Waits until a host reports, has its lease, and is not fenced.
pub(super) fn await_usable(trial: &Trial, host: &HostId) -> Result<()> {
    trial.rack.guard.wait(&format!("host {host} to have its lease"), || {
        let Some(view) = trial.rack.operator.host(host)? else { return Ok(None) };
        Ok((view.state == HostState::Active && view.note.is_empty() && view.fence.is_none()).then_some(()))
    })
}

/// Waits until a VM runs elsewhere, under a higher epoch.
pub(super) fn await_elsewhere(trial: &Trial, guest: &Guest, before: &VmView) -> Result<HostId> {
    let view = trial.rack.guard.wait(&format!("{} to run elsewhere", guest.name), || {
        let view = trial.rack.operator.vm(&guest.name)?;
        let elsewhere = view.phase == VmPhase::Running && view.owner != before.owner;
        Ok((elsewhere && view.epoch > before.epoch).then_some(view))
    })?;
    view.owner.context("what runs has an owner")
}

/// From the fault to the end of the guest's longest silence.
fn silence_after(answers: &Answers, fault: Instant) -> Result<Duration> {
    let mut answered: Vec<Instant> = answers.asked.iter().filter_map(|(_, answered)| *answered).collect();
    answered.sort();
    let longest = answered.windows(2).max_by_key(|pair| pair[1] - pair[0]);
    let end = longest.context("the guest has never answered")?[1];
    end.checked_duration_since(fault).context("the guest's longest silence was before the fault")
}

fn say_events(trial: &Trial, since_ms: u64) -> Result<()> {
    for event in trial.rack.operator.rack()?.events.iter().rev().filter(|e| e.at_ms >= since_ms) {
        println!("        {:>5.1} s: {}", (event.at_ms - since_ms) as f64 / 1000.0, event.text);
    }
    Ok(())
}

/// It runs on one host by Xen's own list, and goes on from what it had written.
pub(super) fn runs_once_from_its_disk(trial: &Trial, guest: &Guest, counted: u64) -> Result<()> {
    let after = trial.rack.await_counting(guest)?;
    ensure!(after >= counted, "{} had counted to {counted} on its disk and is at {after}", guest.name);
    let owner = trial.owner(&guest.name)?;
    let runs = trial.runs_on(&guest.name)?;
    ensure!(runs == [owner.clone()], "{} belongs on {owner}, and Xen runs it on {runs:?}", guest.name);
    Ok(())
}

pub(super) fn host_dies(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let dead = before.owner.clone().context("it runs")?;
    let place = place_of(trial, &dead)?;
    let counted = trial.rack.await_counting(&guest)?;
    let pinger = Pinger::start(&trial.rack.network, guest.address)?;
    let (died, died_ms) = (Instant::now(), unix_ms());
    trial.rack.power_off(place)?;
    let owner = await_elsewhere(trial, &guest, &before)?;
    let after = trial.rack.await_counting(&guest)?;
    let silence = silence_after(&pinger.stop()?, died)?;
    say_events(trial, died_ms)?;
    println!("        {} answers ping on {owner} {:.1} s after the death of {dead}", guest.name, silence.as_secs_f64());
    ensure!(after >= counted, "{} had counted to {counted} on its disk and is at {after}", guest.name);
    let view = trial.rack.operator.host(&dead)?.context("the host is shown")?;
    ensure!(view.fence == Some(FenceStep::Done), "{dead} is {:?}, {:?}", view.state, view.fence);
    // Back with power it is empty, and used again by itself.
    trial.rack.power_on(&hardware(place, Firmware::Bios))?;
    await_usable(trial, &dead)?;
    runs_once_from_its_disk(trial, &guest, after)
}

pub(super) fn agent_stands_still(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let host = before.owner.clone().context("it runs")?;
    let counted = trial.rack.await_counting(&guest)?;
    let machine = trial.rack.machine_of(&host)?;
    // A reset is to be a reset, as on real hardware; else QEMU ends.
    machine.qmp("set-action", &json!({ "reboot": "reset" }))?;
    let said_before = machine.console_bytes();
    let pinger = Pinger::start(&trial.rack.network, guest.address)?;
    let (stopped, stopped_ms) = (Instant::now(), unix_ms());
    signal_agent(trial, &host, "STOP")?;
    trial.rack.guard.wait("Xen's watchdog to reset the host", || {
        Ok(machine.has_said_since(said_before, "watchdog rebooting machine").then_some(()))
    })?;
    println!(
        "        Xen's watchdog reset {host} {:.1} s after its agent was stopped",
        stopped.elapsed().as_secs_f64()
    );
    let view = trial.rack.guard.wait(&format!("{} to run anew", guest.name), || {
        let view = trial.rack.operator.vm(&guest.name)?;
        Ok((view.phase == VmPhase::Running && view.epoch > before.epoch).then_some(view))
    })?;
    trial.rack.await_counting(&guest)?;
    let silence = silence_after(&pinger.stop()?, stopped)?;
    say_events(trial, stopped_ms)?;
    println!(
        "        {} answers ping on {} {:.1} s after the agent was stopped",
        guest.name,
        view.owner.context("what runs has an owner")?,
        silence.as_secs_f64()
    );
    await_usable(trial, &host)?;
    runs_once_from_its_disk(trial, &guest, counted)
}

pub(super) fn host_is_cut_off(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let host = before.owner.clone().context("it runs")?;
    let place = place_of(trial, &host)?;
    let counted = trial.rack.await_counting(&guest)?;
    let pinger = Pinger::start(&trial.rack.network, guest.address)?;
    let (cut, cut_ms) = (Instant::now(), unix_ms());
    trial.rack.cable(place, false)?;
    let state_there = || state_by_xl(trial, &host, &guest);
    trial
        .rack
        .guard
        .wait(&format!("{host} to hold {}", guest.name), || Ok(state_there()?.filter(|state| state.contains('p'))))?;
    println!("        {host} holds {} {:.1} s after its cable was pulled", guest.name, cut.elapsed().as_secs_f64());
    let owner = await_elsewhere(trial, &guest, &before)?;
    let after = trial.rack.await_counting(&guest)?;
    let silence = silence_after(&pinger.stop()?, cut)?;
    say_events(trial, cut_ms)?;
    println!(
        "        {} answers ping on {owner} {:.1} s after the cable was pulled",
        guest.name,
        silence.as_secs_f64()
    );
    let held = state_there()?.with_context(|| format!("{} is no longer on {host}", guest.name))?;
    ensure!(held.contains('p'), "{} runs on {owner}, and is {held} on {host}", guest.name);
    let (healed, healed_ms) = (Instant::now(), unix_ms());
    trial.rack.cable(place, true)?;
    trial.rack.guard.wait(&format!("what is left of {} on {host} to go", guest.name), || {
        Ok(state_there()?.is_none().then_some(()))
    })?;
    await_usable(trial, &host)?;
    say_events(trial, healed_ms)?;
    println!(
        "        {host} is cleared and used again {:.1} s after its cable was back",
        healed.elapsed().as_secs_f64()
    );
    ensure!(after >= counted, "{} had counted to {counted} on its disk and is at {after}", guest.name);
    runs_once_from_its_disk(trial, &guest, after)
}

/// A VM's state on a host as xl shows it; none when it is not there. By the serial console: it needs no cable.
pub(super) fn state_by_xl(trial: &Trial, host: &HostId, guest: &Guest) -> Result<Option<String>> {
    let domains = trial.domains(trial.rack.machine_of(host)?)?;
    Ok(domains.into_iter().find_map(|(name, state)| (name == guest.name.as_str()).then_some(state)))
}

/// The agent itself has no argument; what else is of its program, as the sender of dom0's log, has.
pub(super) fn signal_agent(trial: &Trial, host: &HostId, signal: &str) -> Result<()> {
    let line = format!(
        "for p in $(pidof hostagent); do [ $(tr '\\0' '\\n' </proc/$p/cmdline | wc -l) = 1 ] && kill -{signal} $p; done"
    );
    trial.rack.machine_of(host)?.shell(&line, &trial.rack.guard).map(drop)
}

pub(super) fn place_of(trial: &Trial, host: &HostId) -> Result<u8> {
    let is = |place: &u8| trial.rack.machine(*place).is_ok_and(|machine| machine.id() == *host);
    (1..=9).find(is).with_context(|| format!("no machine is host {host}"))
}

fn unix_ms() -> u64 {
    // A clock before 1970 would show itself elsewhere.
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}
