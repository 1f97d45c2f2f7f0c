//! Secure Boot with keys of one's own, and an image that is cut on its way.

use super::Trial;
use super::ha::PLACES;
use crate::machine::Firmware;
use crate::rack::hardware;
use anyhow::{Context, Result, ensure};
use proto::view::{BootStepKind, HostState};
use std::fs;
use std::path::Path;

/// Its place in the rack.
const PLACE: u8 = 3;
/// The image takes six seconds at this rate, so that there is a middle to cut it in also on a busy machine, Mbit/s.
const RATE_MBIT: u64 = 20;
/// Of the dom0 release's files this alone is signed.
const UNIFIED: &str = "unified.efi";

/// A machine whose firmware takes our signature only refuses Xen's own loader, which has none, and a unified image of which a byte was changed after it
/// was signed.
pub(super) fn refuses_what_is_altered(trial: &mut Trial) -> Result<()> {
    if trial.rack.operator.token().is_none() {
        trial.rack.set_up()?;
    }
    // The others have no part in this, and their emulation would take the processor from it.
    for place in PLACES {
        if trial.rack.machine(place).is_ok() {
            trial.rack.power_off(place)?;
        }
    }
    let altered = trial.rack.dir().join("altered");
    alter(&trial.with.release, &altered)?;
    let text = fs::read_to_string(trial.rack.appliance.config())?;
    let (release, other) = (trial.with.release.display().to_string(), altered.display().to_string());
    ensure!(text.contains(&format!("release: {release}\n")), "the configuration names another release");
    restart(trial, &text.replace(&format!("release: {release}\n"), &format!("release: {other}\n")))?;
    let variables = Some(trial.with.keys.join("variables.fd"));
    trial.rack.power_on(&crate::machine::Hardware { variables, ..hardware(PLACE, Firmware::Uefi) })?;
    trial.rack.guard.wait("the altered image to be refused", || {
        let console = trial.rack.machine(PLACE)?.console();
        ensure!(!console.contains("EFI loader"), "Xen was started:\n{console}");
        Ok(console.contains("Boot failed, trying again").then_some(()))
    })?;
    let console = trial.rack.machine(PLACE)?.console();
    ensure!(
        console.contains("Trying the signed image"),
        "Xen's loader without a signature was not refused first:\n{console}"
    );
    // From here on it is the release that was signed; what is altered has the same names, so nothing else differs.
    restart(trial, &format!("{}boot: {{ rate_mbit: {RATE_MBIT} }}\n", text))
}

/// It takes the signed one by itself; the server is killed as it sends the image, and the image is gone on with where it was.
pub(super) fn takes_what_is_signed_and_goes_on_after_a_cut(trial: &mut Trial) -> Result<()> {
    let host = trial.rack.machine(PLACE)?.id();
    let (came, total) = trial.rack.guard.wait("the image to be on its way", || {
        let Some(view) = trial.rack.operator.host(&host)? else { return Ok(None) };
        let image = view.boot.iter().find(|step| step.step == BootStepKind::Image);
        Ok(image.filter(|step| step.bytes > 0).map(|step| (step.bytes, step.bytes_total)))
    })?;
    trial.rack.appliance.kill()?;
    ensure!(came < total, "it was fetched before it could be cut");
    trial.rack.guard.wait("the cut to be noticed", || {
        Ok(trial.rack.machine(PLACE)?.console().contains("bytes are here; again in").then_some(()))
    })?;
    trial.rack.start_server()?;
    trial.rack.await_host(&host, HostState::Waiting)?;
    let console = trial.rack.machine(PLACE)?.console();
    let said = console.lines().find(|line| line.contains("bytes are here; again in")).unwrap_or_default();
    let had = said.split("; ").nth(1).and_then(|part| part.split(' ').next()).and_then(|word| word.parse::<u64>().ok());
    println!("        {}", said.trim());
    ensure!(had.is_some_and(|had| had > 0 && had < total), "nothing had come before the cut: {said}");
    let fetched = console.lines().find(|line| line.contains("fetched and verified")).context("it says how it went")?;
    println!("        {}", fetched.trim());
    trial.rack.operator.accept(&host)?;
    trial.rack.await_host(&host, HostState::Active)?;
    let guard = &trial.rack.guard;
    let enforces = "od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-* 2>/dev/null || dmesg | grep -i 'secure boot'";
    println!("        dom0 sees: {}", trial.rack.machine(PLACE)?.shell(enforces, guard)?);
    trial.rack.power_off(PLACE)
}

/// The same release with one byte of the unified image's configuration changed.
fn alter(release: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(release)? {
        let entry = entry?;
        if entry.file_name() != "manifest.json" && entry.file_name() != UNIFIED {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    let signed = release.join(UNIFIED);
    let mut bytes =
        fs::read(&signed).with_context(|| format!("reading {}; `tests/make/image` makes it", signed.display()))?;
    let marker = b"dom0_mem=512M";
    let at = bytes.windows(marker.len()).position(|part| part == marker).context("its configuration is within it")?;
    bytes[at + marker.len() - 2] = b'3';
    fs::write(to.join(UNIFIED), bytes)?;
    Ok(())
}

fn restart(trial: &mut Trial, configuration: &str) -> Result<()> {
    trial.rack.appliance.kill()?;
    fs::write(trial.rack.appliance.config(), configuration)?;
    trial.rack.start_server().map(drop)
}
