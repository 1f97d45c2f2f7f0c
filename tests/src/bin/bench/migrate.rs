//! Our moves beside plain `xl migrate`: the same two hosts, guest, disk server and ping.
//!
//! The sides take turns, each with the other's guest at rest beside it. The plain guest has Xen's own hotplug scripts, a disk
//! that both hosts are logged in to beforehand, and its stream goes over `nc`, without TLS. Its name starts with a capital, which no
//! VM of ours may have: so no agent takes it for one.

use super::{median, ratio};
use anyhow::{Context, Result, bail, ensure};
use proto::view::{HostState, MovePhase};
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tests::appliance::Parts;
use tests::machine::Firmware;
use tests::network::SERVER;
use tests::ping::{EVERY, Pinger};
use tests::process::run;
use tests::rack::{Guest, VirtualRack, hardware};

const TARGET: &str = "iqn.2026-11.org.tsubame.bench:plain";
const PLAIN: &str = "Plain";
const PORT: u16 = 7000;
const PLAIN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 150);

/// One migration.
struct Took {
    total: Duration,
    still: Duration,
}

pub(super) fn measure(rack: &mut VirtualRack, parts: &Parts, rounds: u32) -> Result<()> {
    for number in [1, 2] {
        rack.power_on(&hardware(number, Firmware::Bios))?;
    }
    for number in [1, 2] {
        rack.await_host(&rack.machine(number)?.id(), HostState::Active)?;
    }
    let guest = Guest::number(1)?;
    rack.run_guest(&guest)?;
    prepare_plain(rack, parts)?;
    let (mut our, mut others) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        our.push(ours(rack, &guest)?);
        others.push(plain(rack, round % 2 == 0)?);
    }
    println!("\nA guest of 96 MiB, median of {rounds}");
    let totals = |of: &[Took]| of.iter().map(|t| t.total).collect();
    let stills = |of: &[Took]| of.iter().map(|t| t.still).collect();
    let (our_total, our_still) = (median("ours: total", totals(&our))?, median("ours: still, by ping", stills(&our))?);
    let total = median("xl migrate over nc: total", totals(&others))?;
    let still = median("xl migrate over nc: still, by ping", stills(&others))?;
    ratio("total, ours to plain", our_total, total);
    ratio("still, ours to plain", our_still, still);
    Ok(())
}

fn ours(rack: &VirtualRack, guest: &Guest) -> Result<Took> {
    let source = rack.operator.vm(&guest.name)?.owner.context("a VM that runs has an owner")?;
    let hosts = rack.operator.rack()?.hosts;
    let target = hosts.into_iter().map(|h| h.id).find(|id| *id != source).context("there are two hosts")?;
    rack.await_counting(guest)?;
    let pinger = Pinger::start(&rack.network, guest.address)?;
    let began = Instant::now();
    let id = rack.operator.migrate(&guest.name, Some(&target))?;
    let ended = rack.guard.wait("the move to end", || {
        let m = rack.operator.r#move(id)?;
        Ok(matches!(m.phase, MovePhase::Done | MovePhase::Aborted).then_some(m))
    })?;
    let total = began.elapsed();
    rack.await_counting(guest)?;
    let answers = pinger.stop()?;
    ensure!(ended.phase == MovePhase::Done, "move {id} was called off: {:?}", ended.failure);
    let took = Took { total, still: answers.longest_gap().saturating_sub(EVERY) };
    println!("ours   to {target}: {:.2} s, still {:.2} s", took.total.as_secs_f64(), took.still.as_secs_f64());
    Ok(took)
}

/// A disk on the rack's own disk server, a login from both hosts, and the guest on machine 1.
fn prepare_plain(rack: &VirtualRack, parts: &Parts) -> Result<()> {
    let disk = rack.dir().join("plain.img");
    std::fs::File::create(&disk)?.set_len(64 << 20)?;
    let port = rack.tgt_control_port().to_string();
    let file = disk.to_str().context("the rack's directory is plain text")?;
    for args in [
        vec!["--op", "new", "--mode", "target", "--tid", "9000", "-T", TARGET],
        vec!["--op", "new", "--mode", "logicalunit", "--tid", "9000", "--lun", "1", "-b", file],
        vec!["--op", "bind", "--mode", "target", "--tid", "9000", "-I", "ALL"],
    ] {
        run(Command::new("tgtadm").args(["-C", &port, "--lld", "iscsi"]).args(args))?;
    }
    let device = format!("/dev/disk/by-path/ip-{SERVER}:3260-iscsi-{TARGET}-lun-1");
    for number in [1, 2] {
        sh(rack, number, &format!("iscsiadm -m discovery -t st -p {SERVER}"))?;
        sh(rack, number, &format!("iscsiadm -m node -T {TARGET} -p {SERVER} --login"))?;
        rack.guard.wait("the plain guest's disk", || Ok(sh(rack, number, &format!("test -e {device}")).ok()))?;
        sh(
            rack,
            number,
            "printf '#!/bin/sh\\nexec xl migrate-receive -e 2>/tmp/receive.log\\n' >/tmp/receive; chmod 755 /tmp/receive",
        )?;
    }
    for name in ["vmlinuz", "initrd"] {
        let digest = sha256(&parts.guest.join(name))?;
        sh(rack, 1, &format!("wget -q -O /tmp/{name} http://{SERVER}:8080/blob/{digest}"))?;
    }
    let config = [
        format!("name=\"{PLAIN}\""),
        "type=\"pvh\"".to_owned(),
        "memory=96".to_owned(),
        "vcpus=1".to_owned(),
        "kernel=\"/tmp/vmlinuz\"".to_owned(),
        "ramdisk=\"/tmp/initrd\"".to_owned(),
        format!("cmdline=\"console=hvc0 quiet guest.name=plain guest.ip={PLAIN_ADDRESS}/24\""),
        format!("disk=[\"format=raw,vdev=xvda,access=rw,target={device}\"]"),
        "vif=[\"mac=00:16:3e:00:00:96,bridge=xenbr0,script=vif-bridge\"]".to_owned(),
    ];
    for (at, line) in config.iter().enumerate() {
        sh(rack, 1, &format!("echo '{line}' {} /tmp/plain.cfg", if at == 0 { ">" } else { ">>" }))?;
    }
    sh(rack, 1, "xl create -e /tmp/plain.cfg")?;
    rack.await_counting(&plain_guest()?).map(drop)
}

fn plain(rack: &VirtualRack, there: bool) -> Result<Took> {
    let (from, to) = if there { (1, 2) } else { (2, 1) };
    let host = rack.machine(to)?.id();
    let address = rack.operator.host(&host)?.and_then(|h| h.address).context("an active host has an address")?;
    sh(rack, to, &format!("nc -l -p {PORT} -e /tmp/receive >/dev/null 2>&1 &"))?;
    rack.guard.wait("nc to listen", || Ok(sh(rack, to, &format!("netstat -ltn | grep -q :{PORT}")).ok()))?;
    let pinger = Pinger::start(&rack.network, PLAIN_ADDRESS)?;
    let began = Instant::now();
    let sent = sh(rack, from, &format!("xl migrate -s '' {PLAIN} 'nc {address} {PORT}' >/tmp/send.log 2>&1"));
    let total = began.elapsed();
    if let Err(err) = sent {
        let said = [sh(rack, from, "tail -n 8 /tmp/send.log"), sh(rack, to, "tail -n 8 /tmp/receive.log")];
        bail!("{err:#}: {said:?}");
    }
    rack.await_counting(&plain_guest()?)?;
    let answers = pinger.stop()?;
    let took = Took { total, still: answers.longest_gap().saturating_sub(EVERY) };
    println!("plain  to {host}: {:.2} s, still {:.2} s", took.total.as_secs_f64(), took.still.as_secs_f64());
    Ok(took)
}

fn plain_guest() -> Result<Guest> {
    Ok(Guest { name: "plain".parse()?, address: PLAIN_ADDRESS })
}

/// Runs a line in a host's shell; fails when the line does.
fn sh(rack: &VirtualRack, number: u8, line: &str) -> Result<String> {
    let (line, and) = (line, if line.ends_with('&') { "" } else { ";" });
    let said = rack.machine(number)?.shell(&format!("{line}{and} echo \"status=$?\""), &rack.guard)?;
    match said.rsplit_once("status=") {
        Some((said, "0")) => Ok(said.trim().to_owned()),
        _ => bail!("`{line}` on machine {number}: {said}"),
    }
}

fn sha256(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
