//! A rollout on a real machine: a release that works comes to it, and one that does not goes away again by itself.

use super::Trial;
use super::ha::await_usable;
use crate::machine::Firmware;
use crate::process::run;
use crate::rack::{hardware, refusal};
use anyhow::{Context, Result, ensure};
use images::cpio::{Entry, Tree};
use images::dom0::{IMAGE, UNIFIED, WANTED};
use images::release::{FileEntry, Manifest, manifest};
use proto::HostId;
use proto::api::Refusal;
use proto::release::{PoolView, ReleaseId, RolloutPhase};
use proto::view::{BootStepKind, HostState, HostView};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The machine's place.
const PLACE: u8 = 1;
/// Its pool meanwhile, so that the rack's other machines have what they had.
const POOL: &str = "trying";
/// By when a machine must be well with what is expected to work, and what is not: emulation is slow, and the broken one has to be booted once.
const DEADLINE: &str = "20m";
const DEADLINE_BROKEN: &str = "3m";
/// What the release says that does not work.
const BROKEN_SAYS: &str = "a release without an agent";

pub(super) fn rolls_out_and_back(trial: &mut Trial) -> Result<()> {
    let host = ready(trial)?;
    let first = trial.rack.operator.rack()?.pools.into_iter().next().context("there is a pool")?.release;
    tsubame(trial, &["pool", "create", POOL, "--release", first.as_str()])?;
    tsubame(trial, &["host", "pool", host.as_str(), POOL])?;
    let view = shown(trial, &host)?;
    ensure!(view.release.as_ref() == Some(&first) && !view.outdated, "it runs {:?}, not {first}", view.release);

    let second = import(trial, "works", |dir, manifest| {
        // A longer image, which is the same file system: what comes behind its end counts for nothing but the digest.
        let mut image = fs::read(dir.join(IMAGE))?;
        image.extend([0; 4096]);
        let wanted = format!("{} {}\n", digest(&image), image.len());
        put(dir, manifest, IMAGE, image)?;
        overlay(dir, manifest, WANTED, Entry::File(wanted.into_bytes(), false))
    })?;
    let began_ms = trial.rack.operator.rack()?.at_ms;
    rollout(trial, &second, DEADLINE)?;
    await_phase(trial, RolloutPhase::Done)?;
    let view = trial.rack.await_host(&host, HostState::Active)?;
    ensure!(view.release.as_ref() == Some(&second) && !view.outdated, "it runs {:?}", view.release);
    ensure!(pool(trial)?.previous.as_ref() == Some(&first), "what it ran before is not remembered");
    let bytes = fs::metadata(trial.with.release.join(IMAGE))?.len() + 4096;
    let image = view.boot.iter().find(|step| step.step == BootStepKind::Image).map(|step| step.bytes);
    ensure!(image == Some(bytes), "it fetched an image of {image:?} bytes, the second release's has {bytes}");
    let words = trial.rack.machine(PLACE)?.shell("cat /etc/tsubame/words", &trial.rack.guard)?;
    ensure!(words.contains(&format!("tsubame.release={second}")), "dom0 was told {words:?}");
    say(trial, began_ms, "it runs the second release, and the pool has it")?;

    let broken = import(trial, "broken", |dir, manifest| {
        // It starts the machine anew before anything was fetched, and does so each time.
        let init = format!(
            "#!/bin/sh\nexport PATH=/usr/bin:/usr/sbin\nmount -t devtmpfs dev /dev\necho '{BROKEN_SAYS}' >/dev/console\nsleep 2\nreboot -f\n"
        );
        overlay(dir, manifest, "init", Entry::File(init.into_bytes(), true))
    })?;
    let began_ms = trial.rack.operator.rack()?.at_ms;
    rollout(trial, &broken, DEADLINE_BROKEN)?;
    refused_as_used(trial, &broken)?;
    await_phase(trial, RolloutPhase::RolledBack)?;
    ensure!(pool(trial)?.release == second, "the pool has {}", pool(trial)?.release);
    say(trial, began_ms, "rolled back")?;
    await_release(trial, &host, &second)?;
    await_usable(trial, &host)?;
    say(trial, began_ms, "the machine runs the second release again")?;
    let tried = trial.rack.machine(PLACE)?.console().contains(BROKEN_SAYS);
    ensure!(tried, "it never was in the release that does not work");

    // Nothing uses it any more; what is used stays.
    tsubame(trial, &["release", "gc"])?;
    let left: Vec<ReleaseId> = trial.rack.operator.rack()?.releases.into_iter().map(|r| r.id).collect();
    ensure!(!left.contains(&broken) && left.contains(&first) && left.contains(&second), "left are {left:?}");
    refused_as_used(trial, &second)?;
    // It has the others' release again from its next boot on.
    tsubame(trial, &["host", "pool", host.as_str(), "default"])?;
    ensure!(shown(trial, &host)?.outdated, "it runs another release than its pool has, and is not said to");
    tsubame(trial, &["pool", "delete", POOL])?;
    refused_as_used(trial, &second)
}

/// Sees that the machine is on and let in, whatever cases came before.
fn ready(trial: &mut Trial) -> Result<HostId> {
    if trial.rack.operator.token().is_none() {
        trial.rack.set_up()?;
    }
    if trial.rack.machine(PLACE).is_err() {
        trial.rack.power_on(&hardware(PLACE, Firmware::Bios))?;
    }
    let host = trial.rack.machine(PLACE)?.id();
    trial.rack.guard.wait("the host to be heard of", || Ok(trial.rack.operator.accept(&host).ok()))?;
    await_usable(trial, &host)?;
    Ok(host)
}

fn tsubame(trial: &mut Trial, words: &[&str]) -> Result<String> {
    run(trial.tsubame()?.args(words))
}

fn rollout(trial: &mut Trial, release: &ReleaseId, deadline: &str) -> Result<()> {
    let line = format!("pool rollout {POOL} {release} --canary 1 --deadline {deadline} --healthy 2s --no-wait");
    tsubame(trial, &line.split(' ').collect::<Vec<_>>()).map(drop)
}

fn pool(trial: &Trial) -> Result<PoolView> {
    let pools = trial.rack.operator.rack()?.pools;
    pools.into_iter().find(|pool| pool.name.as_str() == POOL).context("there is the pool")
}

fn shown(trial: &Trial, host: &HostId) -> Result<HostView> {
    trial.rack.operator.host(host)?.context("the host is shown")
}

fn refused_as_used(trial: &Trial, release: &ReleaseId) -> Result<()> {
    match trial.rack.operator.delete_release(release) {
        Err(err) if matches!(refusal(&err), Some(Refusal::ReleaseInUse { .. })) => Ok(()),
        other => anyhow::bail!("release {release} is in use, and to delete it was answered by {other:?}"),
    }
}

fn say(trial: &Trial, began_ms: u64, what: &str) -> Result<()> {
    let at_ms = trial.rack.operator.rack()?.at_ms;
    println!("        {:.1} s: {what}", at_ms.saturating_sub(began_ms) as f64 / 1000.0);
    Ok(())
}

/// The machine ends with each start anew, as QEMU is told; its owner switches it on again.
fn keep_on(trial: &mut Trial) -> Result<()> {
    if !trial.rack.machine(PLACE)?.runs() {
        trial.rack.power_off(PLACE)?;
        trial.rack.power_on(&hardware(PLACE, Firmware::Bios))?;
    }
    Ok(())
}

fn await_phase(trial: &mut Trial, phase: RolloutPhase) -> Result<()> {
    let guard = trial.rack.guard.clone();
    guard.wait(&format!("the rollout to be {phase}"), || {
        keep_on(trial)?;
        let rollout = pool(trial)?.rollout.context("there is a rollout")?;
        let other = matches!(rollout.phase, RolloutPhase::Done | RolloutPhase::Stopped | RolloutPhase::RolledBack);
        ensure!(!other || rollout.phase == phase, "it is {}: {}", rollout.phase, rollout.note);
        Ok((rollout.phase == phase).then_some(()))
    })
}

fn await_release(trial: &mut Trial, host: &HostId, release: &ReleaseId) -> Result<()> {
    let guard = trial.rack.guard.clone();
    let since_ms = trial.rack.operator.rack()?.at_ms;
    guard.wait(&format!("{host} to run {release} again"), || {
        keep_on(trial)?;
        let view = shown(trial, host)?;
        // What was known of it before its failed boots is no news.
        let joined =
            view.boot.iter().any(|s| s.step == BootStepKind::Join && s.at_ms > since_ms && s.took_ms.is_some());
        let there = joined && view.state == HostState::Active && view.release.as_ref() == Some(release);
        Ok(there.then_some(()))
    })
}

/// Makes another release of the rack's own, and imports it by the command.
fn import(trial: &mut Trial, name: &str, change: impl FnOnce(&Path, &mut Manifest) -> Result<()>) -> Result<ReleaseId> {
    let (from, dir) = (trial.with.release.clone(), trial.rack.dir().join(name));
    fs::create_dir_all(&dir)?;
    let mut manifest = manifest(&from).with_context(|| format!("{} has no manifest", from.display()))?;
    // Its signature covers another initrd.
    manifest.files.remove(UNIFIED);
    for file in manifest.files.keys() {
        fs::copy(from.join(file), dir.join(file)).with_context(|| format!("copying {file}"))?;
    }
    name.clone_into(&mut manifest.name);
    change(&dir, &mut manifest)?;
    fs::write(dir.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    let said = tsubame(trial, &["-o", "json", "release", "import", &dir.display().to_string()])?;
    serde_json::from_str(&said).with_context(|| format!("what `tsubame release import` printed: {said}"))
}

/// Has the initrd end with a further archive, which the kernel unpacks over what came before.
fn overlay(dir: &Path, manifest: &mut Manifest, path: &str, entry: Entry) -> Result<()> {
    let mut tree = Tree::default();
    tree.put(path, entry);
    let mut initrd = fs::read(dir.join("initrd"))?;
    // An archive that is not compressed begins at a multiple of four (Linux init/initramfs.c).
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend(tree.archive()?);
    put(dir, manifest, "initrd", initrd)
}

fn put(dir: &Path, manifest: &mut Manifest, name: &str, bytes: Vec<u8>) -> Result<()> {
    let path: PathBuf = dir.join(name);
    fs::write(&path, &bytes).with_context(|| format!("writing {}", path.display()))?;
    let entry = FileEntry { sha256: digest(&bytes), size: bytes.len() as u64 };
    manifest.files.insert(name.to_owned(), entry).with_context(|| format!("a release of hosts has {name}"))?;
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
