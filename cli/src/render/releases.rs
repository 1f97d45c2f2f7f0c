//! Releases and pools.

use super::names;
use super::table::{Align, Column, bytes, columns, fields, time};
use proto::release::{Collected, PoolView, ReleaseId, ReleaseView, RolloutPhase};
use proto::view::RackView;

const RELEASES: [Column; 7] = [
    ("RELEASE", Align::Left),
    ("NAME", Align::Left),
    ("FOR", Align::Left),
    ("SIZE", Align::Right),
    ("XEN", Align::Left),
    ("IMPORTED", Align::Left),
    ("USED BY", Align::Left),
];

const POOLS: [Column; 6] = [
    ("POOL", Align::Left),
    ("RELEASE", Align::Left),
    ("HOSTS", Align::Right),
    ("OUTDATED", Align::Right),
    ("ROLLOUT", Align::Left),
    ("NOTE", Align::Left),
];

/// All releases.
pub(crate) fn list(view: &RackView, width: Option<u16>) -> String {
    let rows = view.releases.iter().map(|release| {
        vec![
            release.id.to_string(),
            release.manifest.title(),
            release.manifest.kind.to_string(),
            bytes(release.manifest.bytes()),
            release.manifest.xen.clone(),
            time(release.imported_ms),
            release.used_by.join(", "),
        ]
    });
    columns(&RELEASES, rows.collect(), "no release was imported yet", width)
}

/// One release with its files.
pub(crate) fn show(release: &ReleaseView, width: Option<u16>) -> String {
    const FILES: [Column; 3] = [("FILE", Align::Left), ("SIZE", Align::Right), ("SHA256", Align::Left)];
    let manifest = &release.manifest;
    let mut text = fields(
        &[
            ("Release", release.id.to_string()),
            ("Name", manifest.title()),
            ("For", manifest.kind.to_string()),
            ("Xen", manifest.xen.clone()),
            ("Kernel", manifest.kernel.clone()),
            ("Built", manifest.built_ms.map_or_else(String::new, time)),
            ("Imported", time(release.imported_ms)),
            ("Used by", release.used_by.join(", ")),
        ],
        width,
    );
    let rows = manifest.files.iter().map(|(role, file)| vec![role.clone(), bytes(file.bytes), file.sha256.clone()]);
    text.push('\n');
    text.push_str(&columns(&FILES, rows.collect(), "", width));
    text
}

/// What was, or would be, removed.
pub(crate) fn collected(collected: &Collected, dry_run: bool) -> String {
    let ids: Vec<_> = collected.releases.iter().map(ReleaseId::as_str).collect();
    match (ids.is_empty(), dry_run) {
        (true, _) => "every release is used\n".to_owned(),
        (false, true) => format!("would be deleted: {}\n", ids.join(", ")),
        (false, false) => format!("deleted: {}\n", ids.join(", ")),
    }
}

/// Name and version, where the release is known.
pub(crate) fn title(view: &RackView, id: &ReleaseId) -> String {
    match view.releases.iter().find(|release| release.id == *id) {
        Some(release) => format!("{} ({id})", release.manifest.title()),
        None => id.to_string(),
    }
}

/// All pools.
pub(crate) fn pools(view: &RackView, width: Option<u16>) -> String {
    let rows = view.pools.iter().map(|pool| {
        let rollout = pool.rollout.as_ref();
        vec![
            pool.name.to_string(),
            title(view, &pool.release),
            pool.hosts.to_string(),
            pool.outdated.to_string(),
            rollout.map_or_else(String::new, |r| format!("{} to {}", r.phase, title(view, &r.to))),
            rollout.map_or_else(String::new, |r| r.note.clone()),
        ]
    });
    columns(&POOLS, rows.collect(), "there is no pool", width)
}

/// One pool with its rollout.
pub(crate) fn pool(view: &RackView, pool: &PoolView, width: Option<u16>) -> String {
    let mut pairs = vec![
        ("Pool", pool.name.to_string()),
        ("Release", title(view, &pool.release)),
        ("Before", pool.previous.as_ref().map_or_else(String::new, |id| title(view, id))),
        ("Hosts", format!("{}, {} of them outdated", pool.hosts, pool.outdated)),
    ];
    if let Some(rollout) = &pool.rollout {
        let hosts = |hosts: &[proto::release::RolloutHost]| {
            let each = hosts.iter().map(|host| format!("{} {}", names::host(view, &host.host), host.what));
            each.collect::<Vec<_>>().join("; ")
        };
        let until = rollout.deadline_ms.map_or_else(String::new, time);
        pairs.extend([
            ("Rollout", format!("{} to {}", rollout.phase, title(view, &rollout.to))),
            ("Began", time(rollout.began_ms)),
            ("Deadline", until),
            ("Canaries", hosts(&rollout.canaries)),
            ("Turns", if rollout.phase == RolloutPhase::Done { String::new() } else { hosts(&rollout.turns) }),
            ("Note", rollout.note.clone()),
        ]);
    }
    fields(&pairs, width)
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
            RELEASE       NAME    FOR       SIZE  XEN     IMPORTED             USED BY
            aaaaaaaaaaaa  dom0-2  dom0  2.00 MiB  4.17.5  2026-11-21 03:50:02  the rollout of pool default
            bbbbbbbbbbbb  dom0-1  dom0  2.00 MiB  4.17.5  2026-11-21 03:50:02  pool default
        "#]]
        .assert_eq(&list(&view, None));
        expect![[r#"
            Release   aaaaaaaaaaaa
            Name      dom0-2
            For       dom0
            Xen       4.17.5
            Kernel    6.1.140
            Imported  2026-11-21 03:50:02
            Used by   the rollout of pool default

            FILE      SIZE  SHA256
            xen   2.00 MiB  abababababababababababababababababababababababababababababababab
        "#]]
        .assert_eq(&show(&view.releases[0], None));
        expect![[r#"
            POOL     RELEASE                HOSTS  OUTDATED  ROLLOUT                          NOTE
            default  dom0-1 (bbbbbbbbbbbb)      3         1  canary to dom0-2 (aaaaaaaaaaaa)  node-1 is being emptied: 1 VMs left
        "#]].assert_eq(&pools(&view, None));
        expect![[r#"
            Pool      default
            Release   dom0-1 (bbbbbbbbbbbb)
            Hosts     3, 1 of them outdated
            Rollout   canary to dom0-2 (aaaaaaaaaaaa)
            Began     2026-11-21 04:49:02
            Deadline  2026-11-21 04:51:02
            Canaries  node-1 runs 1 VM; none has fewer
            Turns     node-1 is being emptied: 1 VMs left
            Note      node-1 is being emptied: 1 VMs left
        "#]]
        .assert_eq(&pool(&view, &view.pools[0], None));
        expect![[r#"
            no release was imported yet
        "#]]
        .assert_eq(&list(&RackView::default(), None));
    }
}
