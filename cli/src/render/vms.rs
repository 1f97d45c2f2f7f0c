//! Virtual machines.

use super::hosts::rate;
use super::names;
use super::table::{Align, Column, age, columns, fields, is_unsafe, mib};
use proto::view::{RackView, VmPhase, VmView};
use proto::vm::Boot;

const COLUMNS: [Column; 8] = [
    ("VM", Align::Left),
    ("PHASE", Align::Left),
    ("FOR", Align::Right),
    ("HOST", Align::Left),
    ("VCPUS", Align::Right),
    ("MEMORY", Align::Right),
    ("CPU", Align::Right),
    ("NOTE", Align::Left),
];

/// All VMs.
pub(crate) fn list(view: &RackView, width: Option<u16>) -> String {
    let rows = view.vms.iter().map(|vm| {
        vec![
            vm.spec.name.to_string(),
            phase(vm),
            age(vm.since_ms, view.at_ms),
            owner(view, vm),
            vm.spec.vcpus.to_string(),
            mib(vm.spec.memory_mib),
            format!("{:.2}", vm.load.cpu_cores),
            vm.note.clone(),
        ]
    });
    columns(&COLUMNS, rows.collect(), "no VM was made yet", width)
}

/// One VM.
pub(crate) fn show(view: &RackView, vm: &VmView, width: Option<u16>) -> String {
    let mut pairs = vec![
        ("VM", vm.spec.name.to_string()),
        ("Phase", format!("{}, for {}", vm.phase, age(vm.since_ms, view.at_ms))),
        ("Wanted", if vm.run { "running" } else { "stopped" }.to_owned()),
        ("Note", vm.note.clone()),
        ("Host", owner(view, vm)),
        ("Move", vm.r#move.map_or_else(String::new, |m| m.to_string())),
        ("Epoch", vm.epoch.to_string()),
        ("Memory", mib(vm.spec.memory_mib)),
        ("vCPUs", vm.spec.vcpus.to_string()),
        ("Restart", vm.restart.to_string()),
    ];
    match &vm.spec.boot {
        Boot::Kernel { kernel, initrd, cmdline } => pairs.extend([
            ("Kernel", kernel.clone()),
            ("Initrd", initrd.clone().unwrap_or_default()),
            ("Command line", cmdline.clone()),
        ]),
        Boot::Disk { loader } => pairs.push(("Loader", loader.clone())),
    }
    for disk in &vm.spec.disks {
        let size = view.disks.iter().find(|d| d.name == *disk).map_or_else(String::new, |d| mib(d.size_mib));
        pairs.push(("Disk", format!("{disk} {size}").trim_end().to_owned()));
    }
    for vif in &vm.spec.vifs {
        pairs.push(("Interface", format!("{} on {}", vif.mac, vif.bridge)));
    }
    if matches!(vm.phase, VmPhase::Running | VmPhase::Paused | VmPhase::Moving) {
        let load = &vm.load;
        pairs.extend([
            ("CPU used", format!("{:.2} cores", load.cpu_cores)),
            ("Network", format!("{}/s in, {}/s out", rate(load.net_rx_bytes_s), rate(load.net_tx_bytes_s))),
            ("Disks", format!("{}/s read, {}/s written", rate(load.disk_read_bytes_s), rate(load.disk_write_bytes_s))),
        ]);
    }
    fields(&pairs, width)
}

/// A console's text as a terminal may have it: lines and tabs stay, what could drive the terminal does not.
pub(crate) fn console(text: &str) -> String {
    text.chars().filter(|&c| c == '\n' || c == '\t' || !is_unsafe(c)).collect()
}

/// Its phase, and what it is to be where that is not the same.
fn phase(vm: &VmView) -> String {
    match vm.phase {
        VmPhase::Stopped if vm.run => format!("{}, to run", vm.phase),
        phase => phase.to_string(),
    }
}

fn owner(view: &RackView, vm: &VmView) -> String {
    vm.owner.as_ref().map_or_else(String::new, |host| names::host(view, host).to_owned())
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
            VM     PHASE   FOR  HOST    VCPUS  MEMORY   CPU  NOTE
            web-1  moving   1h  node-1      1  96 MiB  0.25
            db     failed   1h              1   4 GiB  0.00  no host has 4 GiB free
        "#]]
        .assert_eq(&list(&view, None));
        expect![[r#"
            VM            web-1
            Phase         moving, for 1h
            Wanted        running
            Host          node-1
            Move          8
            Epoch         1
            Memory        96 MiB
            vCPUs         1
            Restart       after those of high priority
            Kernel        abababababababababababababababababababababababababababababababab
            Initrd        cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
            Command line  console=hvc0 counter
            Disk          web-1-0 64 MiB
            Interface     52:54:00:aa:bb:10 on xenbr0
            CPU used      0.25 cores
            Network       0 B/s in, 0 B/s out
            Disks         0 B/s read, 4.00 KiB/s written
        "#]]
        .assert_eq(&show(&view, &view.vms[0], None));
        expect![[r#"
            VM         db
            Phase      failed, for 1h
            Wanted     running
            Note       no host has 4 GiB free
            Epoch      1
            Memory     4 GiB
            vCPUs      1
            Restart    after those of high priority
            Loader     efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef
            Disk       db-0 2 GiB
            Interface  52:54:00:aa:bb:10 on xenbr0
        "#]]
        .assert_eq(&show(&view, &view.vms[1], None));
        expect![[r#"
            no VM was made yet
        "#]]
        .assert_eq(&list(&RackView::default(), None));
    }

    #[test]
    fn a_guest_does_not_drive_the_terminal() {
        assert_eq!(console("login:\r\n\x1b[2J\u{9b}31mroot\t\u{202e}x\n"), "login:\n[2J31mroot\tx\n");
    }
}
