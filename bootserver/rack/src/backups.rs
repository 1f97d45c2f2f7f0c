//! Backups as page and command show them, and the warning when they are late or fail.
//!
//! Never does: take one, or know what is in one.

use crate::Rack;
use crate::event::Now;
use proto::event::Topic;
use proto::view::BackupView;

impl Rack {
    /// The shell says which backups there are.
    pub(crate) fn backed_up(&mut self, backups: BackupView, now: Now) {
        let late = self.backups.late;
        if let Some(why) = backups.failure.clone().filter(|_| backups.failure != self.backups.failure) {
            self.error(Topic::Server, now, format!("no backup was taken: {why}"), |_| ());
        }
        self.backups = BackupView { late, ..backups };
        self.version += 1;
        self.look_at_backups(now);
    }

    /// Says when the newest backup has become too old, and when it no longer is.
    pub(crate) fn look_at_backups(&mut self, now: Now) {
        if self.superseded.is_some() {
            return; // none is taken any more
        }
        let BackupView { every_s, files, late: before, .. } = &self.backups;
        // One from the future was stamped by a clock that was wrong.
        let newest = files.iter().find(|file| file.taken_ms <= now.unix_ms);
        let newest_ms = newest.map_or(0, |file| file.taken_ms);
        let late = *every_s > 0 && now.unix_ms.saturating_sub(newest_ms) > every_s.saturating_mul(2_000);
        if late == *before {
            return;
        }
        let text = match newest {
            Some(newest) => format!("the newest backup, {}, is older than it may be", newest.name),
            None => "there is no backup".to_owned(),
        };
        self.backups.late = late;
        self.version += 1;
        if late {
            self.warn(Topic::Server, now, text, |_| ());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::Event;
    use crate::testing::{Bench, policy};
    use proto::view::{BackupFile, BackupView};

    #[test]
    fn late_and_failed_backups_are_told_once() {
        let mut bench = Bench::new(policy());
        let taken_ms = bench.now.unix_ms;
        let file = BackupFile { name: "tsubame-1.backup".to_owned(), taken_ms, bytes: 9 };
        let view = BackupView { every_s: 60, keep: 3, files: vec![file], ..BackupView::default() };
        bench.apply(Event::BackedUp(view.clone()));
        let told = |bench: &Bench, what: &str| {
            bench.rack.view(bench.now).events.iter().filter(|event| event.text.contains(what)).count()
        };
        for _ in 0..3 {
            bench.after(59_000).apply(Event::Tick);
        }
        assert!(bench.rack.view(bench.now).backups.late);
        assert_eq!(told(&bench, "is older than it may be"), 1);
        for _ in 0..2 {
            let failure = Some("the disk is full".to_owned());
            bench.apply(Event::BackedUp(BackupView { failure, ..view.clone() }));
        }
        assert_eq!(told(&bench, "the disk is full"), 1);
        let stamped = |taken_ms: u64| BackupFile { taken_ms, ..view.files[0].clone() };
        let (ahead, late) = (stamped(bench.now.unix_ms + 7_200_000), view.files[0].clone());
        bench.apply(Event::BackedUp(BackupView { files: vec![ahead, late], ..view.clone() }));
        assert!(bench.rack.view(bench.now).backups.late, "one from the future is none");
        let file = stamped(bench.now.unix_ms);
        bench.apply(Event::BackedUp(BackupView { files: vec![file], ..view }));
        let shown = bench.rack.view(bench.now).backups;
        assert!(!shown.late && shown.failure.is_none());
    }
}
