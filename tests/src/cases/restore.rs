//! The server's record is lost, and a backup that is older than the last move takes over the rack as it runs.

use super::Trial;
use super::ha::ready;
use super::moves::{ask_move, await_move, quiet, runs_once};
use crate::operator::PASSWORD;
use crate::ping::Pinger;
use crate::process::run;
use anyhow::{Context, Result, ensure};
use proto::view::{MovePhase, VmPhase};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A guest that stands still for so long was held for want of a lease.
const LEASE: Duration = Duration::from_secs(20);
/// What is the storage's, and lives on.
const STORAGES: [&str; 2] = ["disks", "tgtd.log"];

pub(super) fn old_backup_takes_over(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    quiet(trial)?;
    let guest = trial.guest(0)?;
    let counted = trial.rack.await_counting(&guest)?;
    let uptime_s = trial.rack.uptime_s(&guest)?;
    trial.oracle.listen(&trial.rack.operator)?;
    let heard_seq = trial.oracle.heard_seq();
    run(trial.tsubame()?.args(["backup", "now"]))?;
    let aside = trial.rack.dir().join("elsewhere");
    fs::create_dir(&aside)?;
    let backup = newest(&trial.rack.appliance.state().join("backups"), &aside)?;

    // What the backup does not know.
    let (id, _, target) = ask_move(trial, &guest)?;
    let moved = await_move(trial, id)?;
    ensure!(moved.phase == MovePhase::Done, "the move was called off: {:?}", moved.failure);
    quiet(trial)?;
    let before = trial.rack.operator.vm(&guest.name)?;

    trial.oracle.listen(&trial.rack.operator)?;
    let pinger = Pinger::start(&trial.rack.network, guest.address)?;
    trial.rack.appliance.kill()?;
    let lost = Instant::now();
    let state = trial.rack.appliance.state().to_owned();
    lose(&state, &aside)?;
    let said = trial.rack.appliance.restore(&backup)?;
    println!("        {}", said.trim());
    trial.rack.start_server()?;
    // Sessions are not in a backup.
    trial.rack.operator.log_in(PASSWORD)?;
    trial.oracle.rewound_to(heard_seq);
    let view = trial.rack.guard.wait("the restored server to know where the guest runs", || {
        let vm = trial.rack.operator.vm(&guest.name)?;
        Ok((vm.phase == VmPhase::Running && vm.owner.as_ref() == Some(&target)).then_some(vm))
    })?;
    let took = lost.elapsed();
    let silence = pinger.stop()?.longest_gap();
    println!(
        "        taken over {:.1} s after the old server was killed; the longest silence of {} was {} ms",
        took.as_secs_f64(),
        guest.name,
        silence.as_millis()
    );
    ensure!(view.epoch == before.epoch, "{} had epoch {} and has {}", guest.name, before.epoch, view.epoch);
    ensure!(silence < LEASE, "{} stood still for {} ms", guest.name, silence.as_millis());
    ensure!(trial.rack.uptime_s(&guest)? > uptime_s, "{} was booted anew", guest.name);
    quiet(trial)?;
    for guest in trial.guests.clone() {
        runs_once(trial, &guest, 0)?;
    }
    runs_once(trial, &guest, counted)?;
    // What is ordered from now on is of the new term.
    let (id, ..) = ask_move(trial, &guest)?;
    let moved = await_move(trial, id)?;
    ensure!(moved.phase == MovePhase::Done, "the move was called off: {:?}", moved.failure);
    runs_once(trial, &guest, counted)
}

/// The newest backup, copied away from the state that is to be lost.
fn newest(backups: &Path, aside: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(backups)? {
        let entry = entry?;
        found.push((entry.metadata()?.modified()?, entry.path()));
    }
    let (_, newest) = found.into_iter().max().context("no backup was made")?;
    let copy = aside.join(newest.file_name().context("a backup has a name")?);
    fs::copy(&newest, &copy)?;
    Ok(copy)
}

/// Takes the state away, all but what is the storage's. The server must not run.
fn lose(state: &Path, aside: &Path) -> Result<()> {
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        if !STORAGES.iter().any(|name| entry.file_name() == *name) {
            run(Command::new("mv").arg("--").arg(entry.path()).arg(aside))?;
        }
    }
    Ok(())
}
