//! Backups of the server.

use super::table::{Align, Column, age, bytes, columns};
use proto::view::RackView;

const COLUMNS: [Column; 3] = [("BACKUP", Align::Left), ("AGE", Align::Right), ("SIZE", Align::Right)];

/// All that there are, newest first, and what is wrong with them.
pub(crate) fn list(view: &RackView, width: Option<u16>) -> String {
    let rows = view.backups.files.iter();
    let rows = rows.map(|file| vec![file.name.clone(), age(file.taken_ms, view.at_ms), bytes(file.bytes)]);
    let mut text = columns(&COLUMNS, rows.collect(), "there is no backup", width);
    text += &format!("on the server, in {}\n", view.backups.directory);
    if let Some(trouble) = trouble(view) {
        text += &format!("{trouble}\n");
    }
    text
}

/// What is wrong with the backups, if anything.
pub(crate) fn trouble(view: &RackView) -> Option<String> {
    let backups = &view.backups;
    match (&backups.failure, backups.late) {
        (Some(why), _) => Some(format!("the last was not taken: {why}")),
        (None, true) => Some(match backups.files.first() {
            Some(newest) => format!("late: the newest is {} old", age(newest.taken_ms, view.at_ms)),
            None => "late: there is none".to_owned(),
        }),
        (None, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::rack;
    use super::*;
    use expect_test::expect;
    use proto::view::{BackupFile, BackupView};

    #[test]
    fn tables() {
        let mut view = rack();
        let taken_ms = view.at_ms - 7_200_000;
        let file = BackupFile { name: "tsubame-1.backup".to_owned(), taken_ms, bytes: 40_960 };
        view.backups =
            BackupView { directory: "/b".to_owned(), files: vec![file], late: true, ..BackupView::default() };
        expect![[r#"
            BACKUP            AGE                    SIZE
            tsubame-1.backup   2h               40.00 KiB
            on the server, in /b
            late: the newest is 2h old
        "#]]
        .assert_eq(&list(&view, None));
        view.backups.failure = Some("the disk is full".to_owned());
        assert_eq!(trouble(&view).as_deref(), Some("the last was not taken: the disk is full"));
    }
}
