//! Moves, with ping and counter as judges.

use super::Trial;
use crate::ping::{EVERY, Pinger};
use crate::rack::Guest;
use anyhow::{Result, bail, ensure};
use proto::view::{HostState, MovePhase, MoveView, VmPhase};
use proto::{HostId, MoveId};

pub(super) fn moves_by_itself(trial: &mut Trial) -> Result<()> {
    let pingers =
        trial.guests.iter().map(|g| Pinger::start(&trial.rack.network, g.address)).collect::<Result<Vec<_>>>()?;
    let host = trial.rack.machine(2)?.id();
    trial.rack.operator.accept(&host)?;
    trial.rack.await_host(&host, HostState::Active)?;
    let moved = trial.rack.guard.wait("a VM to move by itself", || {
        let moves = trial.rack.operator.rack()?.moves;
        if let Some(failed) = moves.iter().find(|m| m.phase == MovePhase::Aborted) {
            bail!("move {} was called off: {:?}", failed.id, failed.failure);
        }
        Ok(moves.into_iter().find(|m| m.target == host && m.phase == MovePhase::Done))
    })?;
    // Others may follow; what is planned ends before the next case.
    quiet(trial)?;
    for (guest, pinger) in trial.guests.clone().iter().zip(pingers) {
        let answers = pinger.stop()?;
        println!(
            "        {}: {} pings, {} lost, longest silence {} ms",
            guest.name,
            answers.asked.len(),
            answers.lost(),
            answers.longest_gap().as_millis()
        );
        trial.rack.await_counting(guest)?;
        runs_once(trial, guest, 0)?;
    }
    ensure!(!moved.reason.is_empty(), "the move has no reason");
    println!("        {}: {}", moved.vm, moved.reason);
    print_move(&moved);
    Ok(())
}

pub(super) fn there_and_back(trial: &mut Trial) -> Result<()> {
    let guest = trial.guest(0)?;
    for _ in 0..2 {
        quiet(trial)?;
        let pinger = Pinger::start(&trial.rack.network, guest.address)?;
        let before = trial.rack.await_counting(&guest)?;
        let (id, _, target) = ask_move(trial, &guest)?;
        let moved = await_move(trial, id)?;
        let after = trial.rack.await_counting(&guest)?;
        let answers = pinger.stop()?;
        ensure!(moved.phase == MovePhase::Done, "the move was called off: {:?}", moved.failure);
        ensure!(after > before, "it counted to {before}, after the move to {after}");
        ensure!(moved.target == target, "it went to {}, not to {target}", moved.target);
        runs_once(trial, &guest, before)?;
        print_move(&moved);
        println!(
            "        by ping: stood still for {} ms at most, of {} pings {} were lost",
            answers.longest_gap().saturating_sub(EVERY).as_millis(),
            answers.asked.len(),
            answers.lost()
        );
    }
    Ok(())
}

/// Asks for a move of a guest to another host.
pub(super) fn ask_move(trial: &Trial, guest: &Guest) -> Result<(MoveId, HostId, HostId)> {
    trial.ask("a move to be taken on", || {
        let source = trial.owner(&guest.name)?;
        let target = trial.host_other_than(&source)?;
        Ok((trial.rack.operator.migrate(&guest.name, Some(&target))?, source, target))
    })
}

/// Waits until a move has ended, either way.
pub(super) fn await_move(trial: &Trial, id: MoveId) -> Result<MoveView> {
    trial.rack.guard.wait(&format!("move {id} to end"), || {
        // The server may be on its way up again.
        let Ok(m) = trial.rack.operator.r#move(id) else { return Ok(None) };
        Ok(matches!(m.phase, MovePhase::Done | MovePhase::Aborted).then_some(m))
    })
}

/// Waits until nothing moves and every VM runs.
pub(super) fn quiet(trial: &Trial) -> Result<()> {
    trial.rack.guard.wait("all moves to end and all VMs to run", || {
        let Ok(view) = trial.rack.operator.rack() else { return Ok(None) };
        let ended = view.moves.iter().all(|m| matches!(m.phase, MovePhase::Done | MovePhase::Aborted));
        Ok((ended && view.vms.iter().all(|vm| vm.phase == VmPhase::Running)).then_some(()))
    })
}

fn print_move(m: &MoveView) {
    let shown = |ms: Option<u64>| ms.map_or("?".to_owned(), |ms| format!("{ms} ms"));
    println!(
        "        move {} of {} to {}: {} in all, stood still for {} as the agents say, {:.1} MB",
        m.id,
        m.vm,
        m.target,
        shown(m.total_ms),
        shown(m.downtime_ms),
        m.bytes as f64 / 1e6
    );
}

/// The guest runs once, counts on, and is where its record says.
pub(super) fn runs_once(trial: &Trial, guest: &Guest, counted: u64) -> Result<()> {
    trial.rack.await_vm(&guest.name, VmPhase::Running)?;
    let after = trial.rack.await_counting(guest)?;
    ensure!(after > counted, "{} had counted to {counted} and is at {after}: its memory was lost", guest.name);
    // The planner may move it at any time: what was seen counts when its record was the same before and after.
    trial.rack.guard.wait("the guest to rest while it is looked for", || {
        let record = || trial.rack.operator.vm(&guest.name).map(|vm| (vm.phase, vm.owner, vm.epoch));
        let before = record()?;
        let runs = trial.runs_on(&guest.name)?;
        if before.0 != VmPhase::Running || record()? != before {
            return Ok(None);
        }
        ensure!(before.1.as_slice() == runs, "{} belongs on {:?}, and Xen runs it on {runs:?}", guest.name, before.1);
        Ok(Some(()))
    })
}
