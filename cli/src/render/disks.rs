//! Disks.

use super::names;
use super::table::{Align, Column, columns, mib};
use proto::view::RackView;

const COLUMNS: [Column; 5] = [
    ("DISK", Align::Left),
    ("SIZE", Align::Right),
    ("STATE", Align::Left),
    ("VM", Align::Left),
    ("REACHED BY", Align::Left),
];

/// All disks.
pub(crate) fn list(view: &RackView, width: Option<u16>) -> String {
    let rows = view.disks.iter().map(|d| {
        let granted: Vec<_> = d.granted.iter().map(|host| names::host(view, host)).collect();
        vec![
            d.name.to_string(),
            mib(d.size_mib),
            if d.ready { "ready" } else { "not ready" }.to_owned(),
            d.vm.as_ref().map_or_else(String::new, ToString::to_string),
            granted.join(", "),
        ]
    });
    columns(&COLUMNS, rows.collect(), "no disk was made yet", width)
}

#[cfg(test)]
mod tests {
    use super::super::sample::rack;
    use super::*;
    use expect_test::expect;

    #[test]
    fn tables() {
        expect![[r#"
            DISK       SIZE  STATE      VM     REACHED BY
            db-0      2 GiB  not ready
            web-1-0  64 MiB  ready      web-1  node-1, h525400aabb03
        "#]]
        .assert_eq(&list(&rack(), None));
        expect![[r#"
            no disk was made yet
        "#]]
        .assert_eq(&list(&RackView::default(), None));
    }
}
