//! Booting, waiting, being let in.

use super::Trial;
use crate::https::Answer;
use crate::machine::Firmware;
use crate::rack::hardware;
use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use proto::HostId;
use proto::agent::{JoinAnswer, JoinRefusal, JoinRequest, Report};
use proto::host;
use proto::view::{BootStepKind, HostState, HostView};

pub(super) fn bios_host_boots_and_waits(trial: &mut Trial) -> Result<()> {
    trial.rack.set_up()?;
    let host = trial.rack.power_on(&hardware(1, Firmware::Bios))?;
    let view = trial.rack.await_host(&host, HostState::Waiting)?;
    ensure!(view.firmware == Some(host::Firmware::Bios), "it booted by {:?}", view.firmware);
    let inventory = view.inventory.as_ref().context("a waiting host has shown its inventory")?;
    ensure!(inventory.serial == "V001", "its serial number is {:?}", inventory.serial);
    ensure!(inventory.xen.starts_with("4."), "its Xen is {:?}", inventory.xen);
    steps_are_timed(&view)?;
    // The kernel from its first line, init, and the agent.
    trial.rack.guard.wait("the server to show dom0's log", || {
        let log = trial.rack.operator.host_log(&host)?;
        Ok(["Linux version", "tsubame: network up", "hostagent: "].iter().all(|said| log.contains(said)).then_some(()))
    })
}

/// Every step was seen and timed, in order.
fn steps_are_timed(view: &HostView) -> Result<()> {
    let kinds: Vec<BootStepKind> = view.boot.iter().map(|step| step.step).collect();
    let mut sorted = kinds.clone();
    sorted.sort();
    ensure!(kinds == sorted, "the steps are out of order: {kinds:?}");
    use BootStepKind::{Dhcp, Image, Initrd, Join, Kernel, Linux, Script, Start, Xen};
    for needed in [Dhcp, Script, Xen, Kernel, Initrd, Linux, Image, Start, Join] {
        ensure!(kinds.contains(&needed), "step {needed:?} was not seen, but {kinds:?}");
    }
    for step in &view.boot {
        let took = step.took_ms.map_or("under way".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        println!("        {} {}: {took}", view.id, crate::story::name(step.step));
    }
    let untimed = view.boot.iter().find(|step| step.step < Join && step.took_ms.is_none());
    ensure!(untimed.is_none(), "a step has not ended, though a later one has begun: {untimed:?}");
    Ok(())
}

pub(super) fn not_accepted_gets_nothing(trial: &mut Trial) -> Result<()> {
    let host = first_host(trial)?;
    let nonce = nonce_of(trial, &host)?;
    // Without a certificate there is no report, whatever it says.
    let report = Report {
        boot: nonce,
        seq: 1,
        uptime_ms: 1,
        stats: Default::default(),
        domains: Vec::new(),
        outcomes: Vec::new(),
        underway: Vec::new(),
        lease: Default::default(),
        term: Default::default(),
        survey: None,
    };
    for path in ["/v1/report", "/v1/renew"] {
        let Answer { status, body } =
            trial.rack.agents_endpoint(Method::POST, path, serde_json::to_string(&report)?)?;
        ensure!(status == 401 || status == 403, "{path} without a certificate was answered by {status}: {body}");
        ensure!(!body.contains("orders"), "{path} without a certificate was told of orders: {body}");
    }
    // And an operator cannot have it run anything.
    let guest = crate::rack::Guest::number(9)?;
    trial.rack.create_guest(&guest)?;
    let view = trial.rack.guard.wait("the VM's disk to be made", || {
        let view = trial.rack.operator.vm(&guest.name)?;
        Ok((view.phase != proto::view::VmPhase::Creating).then_some(view))
    })?;
    ensure!(view.owner.is_none(), "a VM was given to {:?}, and no host is accepted", view.owner);
    let disks = trial.rack.operator.rack()?.disks;
    ensure!(disks.iter().all(|d| d.granted.is_empty()), "a disk was granted to a host: {disks:?}");
    trial.rack.operator.delete_vm(&guest.name)?;
    trial.rack.guard.wait("the VM to be deleted", || Ok(trial.rack.operator.rack()?.vms.is_empty().then_some(())))?;
    let view = trial.rack.operator.host(&host)?.context("the host is shown")?;
    ensure!(view.state == HostState::Waiting, "it is {:?}", view.state);
    let domains = trial.rack.machine(1)?.shell("xl list | tail -n +2 | wc -l", &trial.rack.guard)?;
    ensure!(domains == "1", "it has {domains} domains, dom0 with them");
    Ok(())
}

pub(super) fn accepted_becomes_active(trial: &mut Trial) -> Result<()> {
    let host = first_host(trial)?;
    trial.rack.operator.accept(&host)?;
    let view = trial.rack.await_host(&host, HostState::Active)?;
    let stats = trial.rack.guard.wait("its first report", || {
        Ok(trial.rack.operator.host(&host)?.and_then(|h| h.stats).filter(|s| s.dom0_used_mib > 0))
    })?;
    println!(
        "        {}: dom0 uses {} MiB, {} MiB are free for guests, the agent {} KiB",
        view.id, stats.dom0_used_mib, stats.memory_free_mib, stats.agent_rss_kib
    );
    ensure!(stats.dom0_used_mib < 400, "dom0 uses {} MiB of 512", stats.dom0_used_mib);
    Ok(())
}

pub(super) fn second_copy_is_refused(trial: &mut Trial) -> Result<()> {
    let host = first_host(trial)?;
    let view = trial.rack.operator.host(&host)?.context("the host is shown")?;
    let key = rcgen::KeyPair::generate()?;
    let csr_pem = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
    let request = JoinRequest {
        host: host.clone(),
        nonce: nonce_of(trial, &host)?,
        csr_pem,
        inventory: view.inventory.context("an active host has shown its inventory")?,
    };
    let Answer { status, body } =
        trial.rack.agents_endpoint(Method::POST, "/v1/join", serde_json::to_string(&request)?)?;
    let answer: JoinAnswer = serde_json::from_str(&body).with_context(|| format!("{status}: {body}"))?;
    match answer {
        JoinAnswer::Refused { refusal: JoinRefusal::NonceUsed | JoinRefusal::AlreadyActive } => {}
        other => bail!("a copied join was answered by {other:?}"),
    }
    let view = trial.rack.operator.host(&host)?.context("the host is shown")?;
    ensure!(view.state == HostState::Active, "the copy made the true host {:?}", view.state);
    Ok(())
}

pub(super) fn uefi_host_boots(trial: &mut Trial) -> Result<()> {
    let host = trial.rack.power_on(&hardware(2, Firmware::Uefi))?;
    let view = trial.rack.await_host(&host, HostState::Waiting)?;
    ensure!(view.firmware == Some(host::Firmware::Uefi), "it booted by {:?}", view.firmware);
    // OVMF's own client is no iPXE, so it needs the loader by TFTP.
    ensure!(view.boot.iter().any(|step| step.step == BootStepKind::Loader && step.bytes > 0), "no loader was sent");
    steps_are_timed(&view)
}

fn first_host(trial: &Trial) -> Result<HostId> {
    Ok(trial.rack.machine(1)?.id())
}

/// The one-time nonce of a host's boot, as a thief would read it off its console.
fn nonce_of(trial: &Trial, host: &HostId) -> Result<String> {
    let line = trial.rack.machine_of(host)?.shell("cat /etc/tsubame/words", &trial.rack.guard)?;
    let (_, rest) = line.split_once("tsubame.join=").with_context(|| format!("no nonce in {line:?}"))?;
    Ok(rest.split_whitespace().next().unwrap_or_default().to_owned())
}
