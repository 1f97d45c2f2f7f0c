//! VMs from their making to what is left on their disks; page and command on the way.

use super::Trial;
use super::moves::runs_once;
use crate::appliance::{OWN_DISK_ADDRESS, OWN_DISK_MAC};
use crate::process::run;
use crate::rack::Guest;
use anyhow::{Context, Result, ensure};
use proto::VmId;
use proto::api::CreateVm;
use proto::view::{HostView, VmPhase};
use std::process::Command;

/// So many guests that evening out over two hosts moves one of them at least.
const GUESTS: u8 = 3;
/// And so many that a host's failure is more than one guest's: each boots again in every case after it.
const GUESTS_THAT_FAIL: usize = 2;

pub(super) fn vms_answer(trial: &mut Trial) -> Result<()> {
    for number in 1..=GUESTS {
        let guest = Guest::number(number)?;
        trial.rack.create_guest(&guest)?;
        trial.guests.push(guest);
    }
    for guest in &trial.guests {
        trial.rack.await_vm(&guest.name, VmPhase::Running)?;
    }
    for guest in &trial.guests {
        let counted = trial.rack.await_counting(guest)?;
        let pinger = crate::ping::Pinger::start(&trial.rack.network, guest.address)?;
        trial
            .rack
            .guard
            .wait(&format!("{} to answer a ping", guest.name), || Ok((pinger.answered() > 0).then_some(())))?;
        pinger.stop()?;
        println!("        {} counts, {counted} so far, and answers ping", guest.name);
    }
    Ok(())
}

pub(super) fn pause_shutdown_start(trial: &mut Trial) -> Result<()> {
    let guest = trial.guest(0)?;
    let (rack, vm) = (&trial.rack, &guest.name);
    rack.operator.vm_do(vm, "pause")?;
    rack.await_vm(vm, VmPhase::Paused)?;
    ensure!(trial.runs_on(vm)?.is_empty(), "{vm} is paused and runs");
    rack.operator.vm_do(vm, "resume")?;
    rack.await_vm(vm, VmPhase::Running)?;
    let before = rack.await_counting(&guest)?;
    rack.operator.vm_do(vm, "shutdown")?;
    rack.await_vm(vm, VmPhase::Stopped)?;
    ensure!(trial.runs_on(vm)?.is_empty(), "{vm} is stopped and runs");
    rack.operator.vm_do(vm, "start")?;
    rack.await_vm(vm, VmPhase::Running)?;
    let after = rack.await_counting(&guest)?;
    ensure!(after >= before, "{vm} counted to {before} before its shutdown and to {after} after");
    Ok(())
}

/// As when somebody types `reboot` in it: its agent makes it anew, and the server, who sees it gone meanwhile, gives it no second life.
pub(super) fn starts_itself_anew(trial: &mut Trial) -> Result<()> {
    let guest = trial.guest(0)?;
    let (rack, before) = (&trial.rack, trial.rack.operator.vm(&guest.name)?);
    let counted = rack.await_counting(&guest)?;
    let machine = rack.machine_of(&trial.owner(&guest.name)?)?;
    // While there is no such domain, and when the kernel writes amid the answer, it is no number.
    let domain =
        || -> Result<Option<u32>> { Ok(machine.shell(&format!("xl domid {}", guest.name), &rack.guard)?.parse().ok()) };
    let number = rack.guard.wait("the guest's domain to be found", domain)?;
    machine.shell(&format!("xl reboot {}", guest.name), &rack.guard)?;
    rack.guard.wait("the guest to be another domain", || Ok(domain()?.filter(|&now| now != number)))?;
    rack.await_counting(&guest)?;
    let after = rack.operator.vm(&guest.name)?;
    ensure!((after.epoch, &after.owner) == (before.epoch, &before.owner), "{} was started by the server", guest.name);
    runs_once(trial, &guest, counted)
}

/// Nobody hands it a kernel: Debian's grub for PVH guests finds kernel and menu on the VM's own disk, a clone of the template's.
pub(super) fn own_disk(trial: &mut Trial) -> Result<()> {
    let rack = &trial.rack;
    let guest = Guest { name: "own-disk".parse()?, address: OWN_DISK_ADDRESS };
    rack.operator.create_vm(&CreateVm {
        mac: Some(OWN_DISK_MAC.parse()?),
        start: true,
        ..CreateVm::new(guest.name.clone(), "own-disk")
    })?;
    rack.await_vm(&guest.name, VmPhase::Running)?;
    let counted = rack.await_counting(&guest)?;
    println!("        {} counts, {counted} so far, at the address that its DHCP client was given", guest.name);
    remove(trial, &guest.name)
}

pub(super) fn command_agrees(trial: &mut Trial) -> Result<()> {
    let said = run(trial.tsubame()?.args(["-o", "json", "host", "list"]))?;
    let hosts: Vec<HostView> = serde_json::from_str(&said).context("what `tsubame host list` printed")?;
    let listed: Vec<_> = hosts.into_iter().map(|h| (h.id, h.state)).collect();
    let shown: Vec<_> = trial.rack.operator.rack()?.hosts.into_iter().map(|h| (h.id, h.state)).collect();
    ensure!(listed == shown, "the command lists {listed:?}, the API {shown:?}");
    Ok(())
}

pub(super) fn page(trial: &mut Trial) -> Result<()> {
    let mut node = Command::new("node");
    node.current_dir(&trial.with.web)
        .arg("tests/live.mjs")
        .arg(format!("https://{}", trial.rack.page))
        .arg("set up already")
        .args(["--password", crate::operator::PASSWORD, "--hosts", "2", "--accept", "0"])
        .args(["--template", "tiny", "--migrate", "--timeout", "600"])
        .arg("--shots")
        .arg(trial.with.keep.join("page"));
    let said = run(&mut node)?;
    for line in said.lines() {
        println!("        {line}");
    }
    ensure!(said.contains("\"seen\":\"all\""), "the page's test did not come to its end");
    // No later case looks at what it has made, and each would wait for it to boot.
    let mut made: Vec<_> = trial.rack.operator.rack()?.vms.into_iter().map(|vm| vm.spec.name).collect();
    made.retain(|name| trial.guests.iter().all(|guest| guest.name != *name));
    made.iter().try_for_each(|vm| remove(trial, vm))
}

/// Takes a VM's power away, if it has any, and deletes it with its disk.
fn remove(trial: &mut Trial, vm: &VmId) -> Result<()> {
    if trial.rack.operator.vm(vm)?.phase != VmPhase::Stopped {
        trial.ask("the VM to be destroyed", || trial.rack.operator.vm_do(vm, "destroy"))?;
        trial.rack.await_vm(vm, VmPhase::Stopped)?;
    }
    // Afterwards the log tells of no such VM.
    trial.oracle.listen(&trial.rack.operator)?;
    trial.rack.operator.delete_vm(vm)?;
    trial.rack.guard.wait("the VM to be deleted", || {
        Ok(trial.rack.operator.rack()?.vms.iter().all(|left| left.spec.name != *vm).then_some(()))
    })
}

/// After this, hosts fail.
pub(super) fn disks_are_whole_before_failures(trial: &mut Trial) -> Result<()> {
    disks_are_whole(trial)?;
    let rest = trial.guests.split_off(GUESTS_THAT_FAIL.min(trial.guests.len()));
    rest.iter().try_for_each(|guest| remove(trial, &guest.name))
}

pub(super) fn disks_are_whole(trial: &mut Trial) -> Result<()> {
    // A failure of a host may have left one on its way.
    for guest in &trial.guests {
        trial.rack.await_vm(&guest.name, VmPhase::Running)?;
    }
    // One that has only begun to boot may not heed a shutdown.
    for guest in &trial.guests {
        trial.rack.await_counting(guest)?;
    }
    for guest in &trial.guests {
        trial.ask("a shutdown to be taken on", || trial.rack.operator.vm_do(&guest.name, "shutdown"))?;
    }
    for guest in &trial.guests {
        let view = trial.rack.await_vm(&guest.name, VmPhase::Stopped)?;
        let disk = view.spec.disks.first().with_context(|| format!("{} has no disk", guest.name))?;
        let file = trial.rack.disk_file(disk.as_str())?;
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let summary = images::counter::verify(&bytes)?;
        ensure!(summary.last > 0, "{} has written nothing", guest.name);
        ensure!(summary.wrong.is_empty(), "{}: wrong slots (slot, expected, found): {:?}", guest.name, summary.wrong);
        println!("        {} wrote up to {}, each number once, none missing", guest.name, summary.last);
    }
    Ok(())
}
