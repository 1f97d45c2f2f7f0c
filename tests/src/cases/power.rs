//! A machine without power is switched on by command through a real controller, boots from the network, joins, and is switched off.

use super::Trial;
use crate::bmc::{self, Bmc};
use crate::board::Board;
use crate::machine::Firmware;
use crate::network::SERVER;
use crate::process::run;
use crate::rack::hardware;
use anyhow::{Context, Result, bail, ensure};
use proto::HostId;
use proto::power::{BmcKind, PowerStage, PowerState, PowerView};
use proto::view::HostState;
use std::fs;
use std::net::SocketAddr;

/// Its place in the rack: no other case has a machine there.
const PLACE: u8 = 7;
/// The account's password in a file, as `tsubame host bmc --password-file` takes it.
const PASSWORD_FILE: &str = "bmc-password";

pub(super) fn bmc_switches(trial: &mut Trial) -> Result<()> {
    if trial.rack.operator.token().is_none() {
        trial.rack.set_up()?;
    }
    let hardware = hardware(PLACE, Firmware::Bios);
    let (host, dir) = (hardware.id(), trial.rack.dir().join("board"));
    let tap = format!("tap{PLACE}");
    trial.rack.network.plug_in(&tap)?;
    let namespace = trial.rack.network.handle().try_clone()?;
    let board = Board::new(&hardware, &namespace, &dir)?;
    fs::write(trial.rack.dir().join(PASSWORD_FILE), format!("{}\n", bmc::PASSWORD))?;
    // Both on the machine that the server is on, as far as addresses go.
    let (certificate, digest) = bmc::self_signed()?;
    trial.oracle.listen(&trial.rack.operator)?;
    let heard_seq = trial.oracle.heard_seq();
    let guard = &trial.rack.guard;
    let ipmi = Bmc::ipmi(&dir, SocketAddr::from((SERVER, 623)), &board.control, Some(&namespace), guard)?;
    let at = SocketAddr::from((SERVER, 443));
    let redfish = Bmc::redfish(&dir, at, &board.control, &["m7"], &certificate, Some(&namespace), guard)?;

    run(trial.tsubame()?.args(["host", "add", &hardware.mac().to_string(), "--name", "powered"]))?;
    // Let in before it comes, and drained, or the planner would give it VMs.
    trial.rack.operator.accept(&host)?;
    run(trial.tsubame()?.args(["host", "drain", "powered", "--no-wait"]))?;
    by_ipmi(trial, &host, &board)?;
    by_redfish(trial, &host, &board, &digest)?;

    // What was seen of it: every order in the log, the password nowhere.
    let events = trial.rack.operator.events(heard_seq)?;
    for said in [
        "power on was ordered, to boot from the network",
        "power on is done",
        "power cycle is done",
        "power off is done",
    ] {
        ensure!(events.iter().any(|event| event.text.contains(said)), "the log does not say {said:?}");
    }
    let log = fs::read_to_string(trial.rack.dir().join("bootserver.log"))?;
    let view = serde_json::to_string(&trial.rack.operator.rack()?)?;
    let shown = serde_json::to_string(&events)?;
    for (what, text) in [("log", log), ("view", view), ("event log", shown)] {
        ensure!(!text.contains(bmc::PASSWORD), "the {what} shows the controller's password");
    }
    drop((ipmi, redfish, board));
    run(trial.tsubame()?.args(["host", "remove", "powered"]))?;
    trial.rack.network.unplug(&tap)
}

/// On without the network: it waits for a disk that it has not. On from the network: it boots and joins. Off.
fn by_ipmi(trial: &mut Trial, host: &HostId, board: &Board) -> Result<()> {
    set_bmc(trial, &["--kind", "ipmi", "--address", &SERVER.to_string()])?;
    let view = known(trial)?;
    ensure!((view.kind, view.state) == (BmcKind::Ipmi, PowerState::Off), "it is {view:?}");
    ensure!(!board.runs(), "it runs before it was switched on");

    power(trial, &["on"])?;
    ensure!(board.runs(), "the controller says that it is on, and no QEMU runs");
    ensure!(board.told() == ["power 1"], "the controller was told {:?}", board.told());
    trial
        .rack
        .guard
        .wait("its firmware to find no disk", || Ok(board.console().contains("No bootable device").then_some(())))?;
    let state = trial.rack.operator.host(host)?.context("it was registered")?.state;
    ensure!(state == HostState::Registered, "it is {state:?}, and was not told to boot from the network");
    power(trial, &["off"])?;
    ensure!(!board.runs(), "the controller says that it is off, and its QEMU runs");

    power(trial, &["on", "--network"])?;
    await_joined(trial, host, board)?;
    ensure!(known(trial)?.state == PowerState::On, "a host that reports is said to be off");
    power(trial, &["off"])?;
    ensure!(!board.runs(), "the controller says that it is off, and its QEMU runs");
    let told = ["power 1", "power 0", "boot pxe", "power 1", "power 0"];
    ensure!(board.told() == told, "the controller was told {:?}", board.told());
    trial.rack.guard.wait("the host to be seen to be gone", || {
        let view = trial.rack.operator.host(host)?.context("it is known")?;
        Ok((view.state == HostState::Lost && view.note.contains("switched off")).then_some(()))
    })
}

/// The same machine by another protocol: on, a cycle from the network amid its life, off.
fn by_redfish(trial: &mut Trial, host: &HostId, board: &Board, digest: &str) -> Result<()> {
    set_bmc(trial, &["--kind", "redfish", "--address", &SERVER.to_string()])?;
    let view = known(trial)?;
    ensure!((view.kind, view.state) == (BmcKind::Redfish, PowerState::Off), "it is {view:?}");
    ensure!(view.trust == digest, "it trusts {}, and was shown {digest}", view.trust);
    power(trial, &["on"])?;
    ensure!(board.runs(), "the controller says that it is on, and no QEMU runs");
    power(trial, &["cycle", "--network"])?;
    await_joined(trial, host, board)?;
    power(trial, &["off"])?;
    ensure!(!board.runs(), "the controller says that it is off, and its QEMU runs");
    let told = board.told();
    let ours = &told[told.len() - 5..];
    ensure!(ours == ["power 1", "power 0", "boot pxe", "power 1", "power 0"], "the controller was told {ours:?}");
    Ok(())
}

fn set_bmc(trial: &mut Trial, args: &[&str]) -> Result<()> {
    let file = trial.rack.dir().join(PASSWORD_FILE);
    let mut command = trial.tsubame()?;
    command.args(["host", "bmc", "powered", "--user", bmc::USER, "--password-file"]).arg(file).args(args);
    run(&mut command).map(drop)
}

fn power(trial: &mut Trial, args: &[&str]) -> Result<()> {
    run(trial.tsubame()?.args(["host", "power", "powered"]).args(args)).map(drop)?;
    let view = status(trial)?;
    let order = view.order.context("an order was given")?;
    ensure!(order.stage == PowerStage::Done, "the command has ended, and its order is {order:?}");
    Ok(())
}

fn status(trial: &mut Trial) -> Result<PowerView> {
    let said = run(trial.tsubame()?.args(["-o", "json", "host", "power", "powered", "status"]))?;
    serde_json::from_str(&said).context("what `tsubame host power status` printed")
}

/// The same once the controller has answered: a question that got no answer in time says nothing of the machine.
fn known(trial: &mut Trial) -> Result<PowerView> {
    let guard = trial.rack.guard.clone();
    guard.wait("the controller to say whether the machine is on", || {
        Ok(Some(status(trial)?).filter(|view| view.state != PowerState::Unknown))
    })
}

/// Waits until it reports.
fn await_joined(trial: &Trial, host: &HostId, board: &Board) -> Result<()> {
    trial.rack.guard.wait("the machine to boot from the network and to join", || {
        if !board.runs() {
            bail!("it has switched itself off");
        }
        let view = trial.rack.operator.host(host)?.context("it was registered")?;
        Ok((view.state == HostState::Draining && view.note.is_empty()).then_some(()))
    })
}
