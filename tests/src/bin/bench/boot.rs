//! Power-on to joined: from the network under BIOS and UEFI, and with Xen, kernel and image handed over by QEMU.
//!
//! The last is what a boot costs without any network boot: the ratio shows what we add.

use super::{median, ratio};
use anyhow::{Context, Result, ensure};
use hyper::Method;
use proto::agent::HostStats;
use proto::view::{BootStepKind, HostState, HostView};
use proto::{HostId, Mac};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tests::appliance::{Appliance, Parts};
use tests::https;
use tests::machine::{Direct, Firmware, Hardware};
use tests::network::{BRIDGE, inside};
use tests::process::run;
use tests::rack::{VirtualRack, hardware};

/// Reports of a host that its agent's cost is taken from.
const REPORTS: usize = 9;

pub(super) fn measure(rack: &mut VirtualRack, parts: &Parts, rounds: u32) -> Result<()> {
    let (mut bios, mut uefi, mut direct) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let first = hardware(1, Firmware::Bios);
        bios.push(boot(rack, &first, "BIOS")?);
        // The same machine with the same arguments, which only its script knows.
        let handed = handed_over(rack, first.mac(), &parts.release)?;
        direct.push(boot(rack, &Hardware { direct: Some(handed), ..first }, "by QEMU")?);
        uefi.push(boot(rack, &hardware(2, Firmware::Uefi), "UEFI")?);
    }
    println!("\nPower-on to joined, median of {rounds}");
    let direct = median("Xen, kernel and image handed over by QEMU", direct)?;
    let bios = median("BIOS, its card's iPXE", bios)?;
    let uefi = median("UEFI, OVMF's own PXE client", uefi)?;
    ratio("BIOS to handed over", bios, direct);
    ratio("UEFI to handed over", uefi, direct);
    Ok(())
}

/// Boots a machine until it is active, prints what its agent says of it, and switches it off.
fn boot(rack: &mut VirtualRack, hardware: &Hardware, how: &str) -> Result<Duration> {
    let since_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let began = Instant::now();
    let host = rack.power_on(hardware)?;
    let view = joined(rack, &host, since_ms)?;
    let took = began.elapsed();
    println!("{how:<8} {host}: joined after {:.2} s", took.as_secs_f64());
    for step in view.boot {
        let took = step.took_ms.map_or("under way".to_owned(), |ms| format!("{:.2} s", ms as f64 / 1000.0));
        println!("           {:<8} {took}", tests::story::name(step.step));
    }
    let (stats, cores) = at_rest(rack, &host)?;
    println!(
        "           dom0 uses {} MiB; the agent {} KiB and {cores:.4} cores at rest",
        stats.dom0_used_mib, stats.agent_rss_kib
    );
    rack.power_off(hardware.number)?;
    Ok(took)
}

/// A host's newest load and its agent's processor time, the median of many reports: the first ones tell of its start.
fn at_rest(rack: &VirtualRack, host: &HostId) -> Result<(HostStats, f64)> {
    let mut seen: Vec<HostStats> = Vec::new();
    let newest = rack.guard.wait("reports of the host's load", || {
        if let Some(stats) = rack.operator.host(host)?.and_then(|h| h.stats).filter(|s| s.dom0_used_mib > 0)
            && seen.last() != Some(&stats)
        {
            seen.push(stats);
        }
        Ok((seen.len() >= REPORTS).then(|| seen.last().cloned()).flatten())
    })?;
    let mut cores: Vec<f64> = seen.iter().map(|stats| stats.agent_cpu_cores).collect();
    cores.sort_by(f64::total_cmp);
    Ok((newest, cores.get(cores.len() / 2).copied().unwrap_or_default()))
}

/// Waits until a host is active by a boot that joined after `since_ms`.
fn joined(rack: &VirtualRack, host: &HostId, since_ms: u64) -> Result<HostView> {
    rack.guard.wait(&format!("host {host} to join"), || {
        let Some(view) = rack.operator.host(host)? else { return Ok(None) };
        let now = view.boot.iter().any(|s| s.step == BootStepKind::Join && s.at_ms >= since_ms && s.took_ms.is_some());
        Ok((now && view.state == HostState::Active).then_some(view))
    })
}

/// What the script of a machine that is switched off would have it boot, as files and arguments.
fn handed_over(rack: &VirtualRack, mac: Mac, release: &Path) -> Result<Direct> {
    let view = rack.operator.host(&HostId::of(mac))?.context("the machine was booted before")?;
    let lease = view.address.context("a machine that was booted has a lease")?;
    let path = format!("/boot/{}.ipxe", mac.to_string().replace(':', "-"));
    let script = as_the_machine(rack, lease, &path)?;
    let mut lines = script.lines().filter_map(|line| {
        let (what, rest) = line.strip_suffix(" || goto again")?.split_once(' ')?;
        let (url, args) = rest.split_once(' ').unwrap_or((rest, ""));
        let file = release.join(url.rsplit('/').next()?);
        matches!(what, "kernel" | "module").then(|| (file, args.to_owned()))
    });
    let (xen, xen_args) = lines.next().with_context(|| format!("no Xen in the script of {mac}: {script}"))?;
    let direct = Direct { xen, xen_args, modules: lines.collect() };
    ensure!(direct.modules.len() == 2, "kernel and image expected in the script of {mac}: {script}");
    Ok(direct)
}

/// Asks as the machine would: its script is given to its own address only.
fn as_the_machine(rack: &VirtualRack, lease: Ipv4Addr, path: &str) -> Result<String> {
    let change = |what: &str| {
        let address = format!("{lease}/32");
        run(Command::new("ip").args(["-n", rack.network.name(), "address", what, &address, "dev", BRIDGE])).map(drop)
    };
    change("add")?;
    let to = Appliance::boot_address();
    let answer = inside(rack.network.handle(), move || from_address(lease, to))
        .and_then(|stream| https::plain(stream, https::request(Method::GET, path, &to.to_string(), String::new())?));
    change("del")?;
    let answer = answer?;
    ensure!(answer.status == 200, "{path} was answered by {}: {}", answer.status, answer.body);
    Ok(answer.body)
}

fn from_address(own: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((own, 0).into())?;
        let stream = socket.connect(to).await.with_context(|| format!("connecting from {own} to {to}"))?;
        Ok(stream.into_std()?)
    })
}
