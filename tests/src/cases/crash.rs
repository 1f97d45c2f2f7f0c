//! Agents and server killed amid a move: the VM ends running exactly once.

use super::Trial;
use super::moves::{await_move, begin_move, print_move, quiet, runs_once};
use anyhow::{Result, ensure};
use proto::HostId;

pub(super) fn source_agent_dies(trial: &mut Trial) -> Result<()> {
    agent_dies(trial, |source, _| source)
}

pub(super) fn target_agent_dies(trial: &mut Trial) -> Result<()> {
    agent_dies(trial, |_, target| target)
}

fn agent_dies(trial: &Trial, whose: impl FnOnce(HostId, HostId) -> HostId) -> Result<()> {
    let guest = trial.guest(0)?;
    let counted = trial.rack.await_counting(&guest)?;
    let (id, source, target) = begin_move(trial, &guest)?;
    let victim = whose(source, target);
    let machine = trial.rack.machine_of(&victim)?;
    let before = machine.shell("pidof hostagent", &trial.rack.guard)?;
    ensure!(!before.is_empty(), "no agent runs on {victim}");
    // The oldest is the agent itself; its helpers are others of the same program.
    machine.shell("kill -9 $(pidof hostagent | tr ' ' '\\n' | sort -n | head -n 1)", &trial.rack.guard)?;
    let ended = await_move(trial, id)?;
    print_move(&ended);
    println!("        the agent of {victim} was killed; the move ended as {:?}: {:?}", ended.phase, ended.failure);
    quiet(trial)?;
    runs_once(trial, &guest, counted)
}

pub(super) fn server_dies(trial: &mut Trial) -> Result<()> {
    let guest = trial.guest(0)?;
    let counted = trial.rack.await_counting(&guest)?;
    let (id, ..) = begin_move(trial, &guest)?;
    let status = trial.rack.appliance.kill()?;
    ensure!(!status.success(), "SIGKILL ended it as {status}");
    let without = trial.rack.await_counting(&guest)?;
    ensure!(without > counted, "the guest stood still while no server ran");
    trial.rack.appliance.start_again()?;
    trial.rack.await_server()?;
    let ended = await_move(trial, id)?;
    print_move(&ended);
    println!("        the server was killed; the move ended as {:?}: {:?}", ended.phase, ended.failure);
    quiet(trial)?;
    runs_once(trial, &guest, counted)
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
    trial.rack.appliance.start_again()?;
    trial.rack.await_server()?;
    // A server that was started anew knows nothing of its load but by a report.
    trial.rack.guard.wait("a report of the host", || Ok(trial.rack.operator.host(&host)?.and_then(|h| h.stats)))?;
    runs_once(trial, &guest, counted)
}
