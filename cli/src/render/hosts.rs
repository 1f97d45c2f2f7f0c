//! Machines.

use super::names;
use super::table::{Align, Column, age, bytes, columns, fields, mib, span, time};
use proto::view::{BootStep, BootStepKind, FenceStep, HostView, RackView};

const COLUMNS: [Column; 10] = [
    ("HOST", Align::Left),
    ("STATE", Align::Left),
    ("FOR", Align::Right),
    ("ADDRESS", Align::Left),
    ("FIRMWARE", Align::Left),
    ("CPU", Align::Right),
    ("MEMORY FREE", Align::Right),
    ("VMS", Align::Right),
    ("RELEASE", Align::Left),
    ("NOTE", Align::Left),
];

/// All machines.
pub(crate) fn list(view: &RackView, width: Option<u16>) -> String {
    let rows = view.hosts.iter().map(|h| {
        vec![
            h.name.clone(),
            state(h),
            age(h.since_ms, view.at_ms),
            h.address.map_or_else(String::new, |a| a.to_string()),
            h.firmware.map_or_else(String::new, |f| names::firmware(f).to_owned()),
            cpu(h),
            memory(h),
            h.vms.len().to_string(),
            release(view, h),
            h.note.clone(),
        ]
    });
    columns(&COLUMNS, rows.collect(), "no machine was seen yet", width)
}

/// One machine with its newest boot.
pub(crate) fn show(view: &RackView, host: &HostView, width: Option<u16>) -> String {
    let now_ms = view.at_ms;
    let mut pairs = vec![
        ("Host", host.name.clone()),
        ("Id", host.id.to_string()),
        ("State", format!("{}, for {}", state(host), age(host.since_ms, now_ms))),
        ("Fence", fence(host, now_ms)),
        ("Note", host.note.clone()),
        ("MAC", host.mac.to_string()),
        ("Address", host.address.map_or_else(String::new, |a| a.to_string())),
        ("Firmware", host.firmware.map_or_else(String::new, |f| names::firmware(f).to_owned())),
        ("Pool", host.pool.to_string()),
        ("Release", release(view, host)),
        ("VMs", host.vms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        ("Labels", host.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ")),
    ];
    pairs.extend(host.power.iter().flat_map(super::power::pairs));
    if let Some(i) = &host.inventory {
        pairs.extend([
            ("Product", i.product.clone()),
            ("Serial", i.serial.clone()),
            ("UUID", i.uuid.clone()),
            ("Processor", format!("{}, {} threads", i.cpu.model, i.cpu.threads)),
            ("Memory", format!("{}, dom0 {}", mib(i.memory_mib), mib(i.dom0_mib))),
            ("Xen", i.xen.clone()),
            ("Agent", i.agent.clone()),
            ("Image", i.image.clone()),
        ]);
        for nic in &i.nics {
            let speed = nic.speed_mbit.map_or_else(String::new, |s| format!(", {s} Mbit/s"));
            let link = if nic.link { "link" } else { "no link" };
            pairs.push(("Interface", format!("{} {}, {link}{speed}", nic.mac, nic.driver)));
        }
    }
    if let Some(hardware) = host.inventory.as_ref().map(|i| &i.hardware) {
        pairs.push(("BIOS", hardware.firmware.clone()));
        for m in &hardware.modules {
            let speed = if m.speed_mts == 0 { String::new() } else { format!(", {} MT/s", m.speed_mts) };
            pairs.push((
                "Module",
                format!("{} {}{speed}, {} {} {}", m.slot, mib(m.size_mib), m.maker, m.part, m.serial),
            ));
        }
        for d in &hardware.disks {
            let table = if d.partitioned { "has partitions" } else { "no partition table" };
            pairs.push(("Local disk", format!("{} {}, {} {}, {table}", d.name, mib(d.size_mib), d.model, d.serial)));
        }
        if let Some(bmc) = &hardware.bmc {
            let address = bmc.address.map_or_else(|| "address unknown".to_owned(), |a| a.to_string());
            pairs.push(("BMC", format!("{}, {address}", bmc.by)));
        }
    }
    if let Some(s) = &host.stats {
        pairs.extend([
            ("CPU used", cpu(host)),
            ("Memory free", mib(s.memory_free_mib)),
            ("dom0 uses", mib(s.dom0_used_mib)),
            ("Agent uses", format!("{} KiB, {:.3} cores", s.agent_rss_kib, s.agent_cpu_cores)),
            ("Network", format!("{}/s in, {}/s out", rate(s.net_rx_bytes_s), rate(s.net_tx_bytes_s))),
        ]);
    }
    let mut text = fields(&pairs, width);
    if !host.boot.is_empty() {
        text.push('\n');
        text.push_str(&boot(&host.boot, width));
    }
    text
}

fn boot(steps: &[BootStep], width: Option<u16>) -> String {
    const COLUMNS: [Column; 4] =
        [("BOOT STEP", Align::Left), ("BEGAN", Align::Left), ("TOOK", Align::Right), ("SENT", Align::Right)];
    let rows = steps.iter().map(|s| {
        let took = s.took_ms.map_or_else(|| "under way".to_owned(), span);
        let sent = match s.took_ms {
            None if s.bytes_total > 0 => {
                let percent = (u128::from(s.bytes) * 100 / u128::from(s.bytes_total)).min(100);
                format!("{} of {}, {percent} %", bytes(s.bytes), bytes(s.bytes_total)).trim_start().to_owned()
            }
            _ => bytes(s.bytes),
        };
        let sent = if s.again > 0 {
            format!("{sent}, asked {} times", s.again + 1).trim_start_matches(", ").to_owned()
        } else {
            sent
        };
        vec![step(s.step).to_owned(), time(s.at_ms), took, sent]
    });
    columns(&COLUMNS, rows.collect(), "", width)
}

fn step(step: BootStepKind) -> &'static str {
    match step {
        BootStepKind::Dhcp => "dhcp",
        BootStepKind::Loader => "loader",
        BootStepKind::Script => "script",
        BootStepKind::Xen => "xen",
        BootStepKind::Kernel => "kernel",
        BootStepKind::Initrd => "initrd",
        BootStepKind::Linux => "linux",
        BootStepKind::Image => "image",
        BootStepKind::Start => "start",
        BootStepKind::Join => "join",
    }
}

/// What it runs.
fn release(view: &RackView, host: &HostView) -> String {
    let Some(id) = &host.release else { return String::new() };
    let known = view.releases.iter().find(|release| release.id == *id);
    let title = known.map_or_else(|| id.to_string(), |release| release.manifest.title());
    if host.outdated { format!("{title}, outdated") } else { title }
}

/// Cores in use of those there are.
fn cpu(host: &HostView) -> String {
    match (&host.stats, &host.inventory) {
        (Some(s), Some(i)) => format!("{:.1}/{}", s.cpu_cores, i.cpu.threads),
        (Some(s), None) => format!("{:.1}", s.cpu_cores),
        (None, Some(i)) => format!("-/{}", i.cpu.threads),
        (None, None) => String::new(),
    }
}

fn memory(host: &HostView) -> String {
    match (&host.stats, &host.inventory) {
        (Some(s), Some(i)) => format!("{}/{} MiB", s.memory_free_mib, i.memory_mib),
        (Some(s), None) => format!("{} MiB", s.memory_free_mib),
        (None, Some(i)) => format!("-/{} MiB", i.memory_mib),
        (None, None) => String::new(),
    }
}

/// Bytes a second. What is below one, or no number, is 0.
pub(crate) fn rate(bytes_s: f64) -> String {
    // A float becomes an integer by saturating, so neither a negative one nor a NaN can go wrong.
    let whole = bytes_s as u64;
    if whole == 0 { "0 B".to_owned() } else { bytes(whole) }
}

/// How far it is fenced, in words.
fn fence(host: &HostView, now_ms: u64) -> String {
    let left = host.fence_at_ms.map(|at| at.saturating_sub(now_ms)).filter(|&left| left > 0);
    let left = left.map_or_else(String::new, |left| format!(", {} more", span(left)));
    match host.fence {
        None => String::new(),
        Some(FenceStep::Waiting) => format!("its lease and watchdog are waited out{left}"),
        Some(FenceStep::Power) => format!("it must have no power before its VMs start elsewhere; see the note{left}"),
        Some(FenceStep::Cutting) => format!("it is being cut off its disks{left}"),
        Some(FenceStep::Done) => "done: it can write nowhere, and its VMs run elsewhere".to_owned(),
    }
}

/// Its state, and how far it is fenced.
fn state(host: &HostView) -> String {
    let state = host.state;
    match host.fence {
        None | Some(FenceStep::Waiting) => state.to_string(),
        Some(FenceStep::Power | FenceStep::Cutting) => format!("{state}, fencing"),
        Some(FenceStep::Done) => format!("{state}, fenced"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::rack;
    use super::*;
    use expect_test::expect;

    #[test]
    fn tables() {
        let view = rack();
        expect![[r#"
            HOST           STATE    FOR  ADDRESS     FIRMWARE    CPU   MEMORY FREE  VMS  RELEASE           NOTE
            node-1         active   42s  10.77.0.51  UEFI      0.4/2  800/1536 MiB    1  dom0-1, outdated
            h525400aabb02  booting  42s  10.77.0.52  UEFI                             0
            h525400aabb03  waiting  42s  10.77.0.53  UEFI                             0                    waits to be accepted: [31mtsubame host accept h525400aabb03
        "#]].assert_eq(&list(&view, None));
        expect![[r#"
            HOST           STATE    FOR  ADDRESS     FIRMWARE    CPU   MEMORY FREE  VMS  RELEASE           NOTE
            node-1         active   42s  10.77.0.51  UEFI      0.4/2  800/1536 MiB    1  dom0-1, outdated
            h525400aabb02  booting  42s  10.77.0.52  UEFI                             0
            h525400aabb03  waiting  42s  10.77.0.53  UEFI                             0                    waits to be accepted:
                                                                                                           [31mtsubame host
                                                                                                           accept h525400aabb03
        "#]]
        .assert_eq(&list(&view, Some(80)));
        expect![[r#"
            Host         node-1
            Id           h525400aabb01
            State        active, for 42s
            MAC          52:54:00:aa:bb:01
            Address      10.77.0.51
            Firmware     UEFI
            Pool         default
            Release      dom0-1, outdated
            VMs          web-1
            Labels       zone=a
            Product      QEMU Standard PC
            Serial       S1
            UUID         00000000-0000-4000-8000-000000000001
            Processor    QEMU Virtual CPU, 2 threads
            Memory       1.5 GiB, dom0 512 MiB
            Xen          4.17.7
            Agent        0.1.0
            Image        dom0-1
            Interface    52:54:00:aa:bb:01 virtio_net, link, 1000 Mbit/s
            CPU used     0.4/2
            Memory free  800 MiB
            dom0 uses    181 MiB
            Agent uses   5120 KiB, 0.004 cores
            Network      2.00 KiB/s in, 0 B/s out
        "#]]
        .assert_eq(&show(&view, &view.hosts[0], None));
        expect![[r#"
            Host      h525400aabb02
            Id        h525400aabb02
            State     booting, for 42s
            MAC       52:54:00:aa:bb:02
            Address   10.77.0.52
            Firmware  UEFI
            Pool      default

            BOOT STEP  BEGAN                     TOOK                          SENT
            dhcp       2026-11-21 04:49:53      85 ms
            loader     2026-11-21 04:49:54      1.2 s       1.00 MiB, asked 3 times
            image      2026-11-21 04:49:58  under way  20.00 MiB of 70.00 MiB, 28 %
        "#]]
        .assert_eq(&show(&view, &view.hosts[1], None));
        expect![[r#"
            no machine was seen yet
        "#]]
        .assert_eq(&list(&RackView::default(), None));
    }
}
