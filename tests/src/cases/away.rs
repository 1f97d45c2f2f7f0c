//! No boot server for a long time: guests do not notice, and what was switched on meanwhile comes up when it is back.

use super::Trial;
use super::ha::{await_usable, place_of, ready};
use super::moves::runs_once;
use crate::machine::Firmware;
use crate::ping::Pinger;
use crate::rack::hardware;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Without a word an hour.
const AWAY_S: u64 = 3_600;
/// No guest may stand still as long as a lease: it would have been held for want of one.
const LEASE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Seconds from the environment, as `make` hands them on: an empty one is none.
pub(super) fn seconds(name: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(name).ok().filter(|text| !text.is_empty()) {
        None => Ok(otherwise),
        Some(text) => text.parse().with_context(|| format!("{name}={text:?}: a whole number of seconds was expected")),
    }
}

/// The server is stopped; its storage is not. One host without guests loses its power meanwhile and is switched on again; QEMU's BIOS gives up
/// after one round of asking, so it is switched on once more when the server is back.
pub(super) fn hour_without_server(trial: &mut Trial) -> Result<()> {
    let away = Duration::from_secs(seconds("SERVER_AWAY_S", AWAY_S)?);
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let owner = before.owner.clone().context("it runs")?;
    let empty = trial.host_other_than(&owner)?;
    let place = place_of(trial, &empty)?;
    let uptime_s = trial.rack.uptime_s(&guest)?;
    let mut counted = trial.rack.await_counting(&guest)?;
    let first = counted;
    let pinger = Pinger::start(&trial.rack.network, guest.address)?;
    let stopped = Instant::now();
    trial.rack.appliance.kill()?;
    trial.rack.power_off(place)?;
    trial.rack.power_on(&hardware(place, Firmware::Bios))?;
    while stopped.elapsed() < away {
        std::thread::sleep(LOOK_EVERY.min(away.saturating_sub(stopped.elapsed())));
        counted = trial.rack.await_counting(&guest)?;
    }
    let silence = pinger.stop()?.longest_gap();
    println!(
        "        {} counted {} numbers in the {} s without a server; its longest silence was {} ms",
        guest.name,
        counted - first,
        stopped.elapsed().as_secs(),
        silence.as_millis()
    );
    ensure!(silence < LEASE, "{} stood still for {} ms", guest.name, silence.as_millis());
    trial.rack.start_server()?;
    let back = Instant::now();
    trial.rack.power_off(place)?;
    trial.rack.power_on(&hardware(place, Firmware::Bios))?;
    await_usable(trial, &empty)?;
    println!(
        "        {empty}, switched on meanwhile and once more, is used {:.1} s after the server's return",
        back.elapsed().as_secs_f64()
    );
    let view = trial.rack.operator.vm(&guest.name)?;
    ensure!((view.epoch, &view.owner) == (before.epoch, &before.owner), "{} was moved or started anew", guest.name);
    ensure!(trial.rack.uptime_s(&guest)? > uptime_s, "{} was booted anew", guest.name);
    runs_once(trial, &guest, counted)
}
