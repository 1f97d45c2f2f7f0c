//! The rack on one screen.

use super::table::{age, bytes, fields, mib, span};
use super::{backups, events, names};
use proto::api::About;
use proto::event::Level;
use proto::view::{HaView, MovePhase, RackView};
use std::collections::BTreeMap;
use std::fmt::Display;

/// How many of the newest warnings and errors are shown.
const TROUBLES_MAX: usize = 5;

/// Counts, what is under way, and what needs a person.
pub(crate) fn show(url: &str, about: &About, view: &RackView, width: Option<u16>) -> String {
    let hosts = count(view.hosts.iter().map(|h| h.state));
    let vms = count(view.vms.iter().map(|vm| vm.phase));
    let mut pairs = vec![
        ("Server", format!("{url}, version {}", about.version)),
        ("Hosts", format!("{}{hosts}", view.hosts.len())),
        ("VMs", format!("{}{vms}", view.vms.len())),
        ("Disks", view.disks.len().to_string()),
        ("Templates", view.templates.join(", ")),
        ("Spare", spare(&view.ha)),
    ];
    if let Some(newest) = view.backups.files.first() {
        pairs.push(("Backup", format!("{} ago", age(newest.taken_ms, view.at_ms))));
    }
    if let Some(trouble) = backups::trouble(view) {
        pairs.push(("Backup", trouble));
    }
    if view.expected > 0 {
        pairs.push(("Expected", format!("{} machines of a list that have not come yet", view.expected)));
    }
    if let Some(why) = &view.ha.frozen {
        pairs.push(("Frozen", format!("{why} (tsubame thaw)")));
    }
    if let Some(why) = &view.ha.blind {
        pairs.push(("Blind", why.clone()));
    }
    if let Some(why) = &view.ha.standing_by {
        pairs.push(("Standing by", why.clone()));
    }
    for m in view.moves.iter().filter(|m| !matches!(m.phase, MovePhase::Done | MovePhase::Aborted)) {
        let (source, target) = (names::host(view, &m.source), names::host(view, &m.target));
        let elapsed = span(view.at_ms.saturating_sub(m.began_ms));
        let sent = if m.bytes == 0 { String::new() } else { format!(", {}", bytes(m.bytes)) };
        let phase = names::move_phase(m.phase);
        pairs.push(("Moving", format!("{} {source} -> {target}: {phase}{sent}, for {elapsed}", m.vm)));
    }
    for host in view.hosts.iter().filter(|h| !h.note.is_empty()) {
        pairs.push(("Note", format!("host {}: {}", host.name, host.note)));
    }
    for vm in view.vms.iter().filter(|vm| !vm.note.is_empty()) {
        pairs.push(("Note", format!("VM {}: {}", vm.spec.name, vm.note)));
    }
    let mut text = fields(&pairs, width);
    let troubles: Vec<_> = view.events.iter().filter(|e| e.level > Level::Info).take(TROUBLES_MAX).collect();
    if !troubles.is_empty() {
        text.push('\n');
        text.extend(troubles.into_iter().rev().map(events::line));
    }
    text
}

/// How many hosts may fail, and how far it is from there to none.
fn spare(ha: &HaView) -> String {
    match ha.failures_borne {
        0 => "no host may fail: not all VMs would fit on the others".to_owned(),
        1 => format!("1 host may fail, also with one more VM of {} or less", mib(ha.room_mib)),
        n => format!("{n} hosts may fail"),
    }
}

/// `: 2 active, 1 lost`, in the order of the states; nothing for none.
fn count<S: Ord + Display>(states: impl Iterator<Item = S>) -> String {
    let mut counts = BTreeMap::<S, usize>::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    let words: Vec<_> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::sample::rack;
    use super::*;
    use expect_test::expect;

    #[test]
    fn screens() {
        let about = About { version: "0.1.0".into(), needs_setup: false };
        expect![[r#"
            Server     https://10.77.0.1:8443, version 0.1.0
            Hosts      3: 1 booting, 1 waiting, 1 active
            VMs        2: 1 moving, 1 failed
            Disks      2
            Templates  debian, tiny
            Spare      no host may fail: not all VMs would fit on the others
            Moving     web-1 node-1 -> h525400aabb03: copying, 48.00 MiB, for 12 s
            Note       host h525400aabb03: waits to be accepted: [31mtsubame host accept h525400aabb03
            Note       VM db: no host has 4 GiB free

            2026-11-21 04:49:03  warning  dhcp      the pool has 3 addresses left
            2026-11-21 04:49:05  error    vm        VM db was not started: no host has 4 GiB free
        "#]]
        .assert_eq(&show("https://10.77.0.1:8443", &about, &rack(), None));
        expect![[r#"
            Server  https://10.77.0.1:8443, version 0.1.0
            Hosts   0
            VMs     0
            Disks   0
            Spare   no host may fail: not all VMs would fit on the others
        "#]]
        .assert_eq(&show("https://10.77.0.1:8443", &about, &RackView::default(), None));
    }
}
