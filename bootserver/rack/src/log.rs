//! The event log: what happened, in order, durable and bounded.

use crate::Rack;
use crate::event::Now;
use crate::table::Table;
use proto::event::{Level, LogEvent, Topic};
use std::collections::BTreeMap;

/// The newest that are always kept.
pub(crate) const EVENTS_KEPT: usize = 10_000;
/// The oldest are removed so many at once, that removing is rare.
const EVENTS_REMOVED_AT_ONCE: usize = 500;
/// The longest text, characters: parts of it come from the network.
const TEXT_CHARS_MAX: usize = 500;
/// What anybody on the network can cause is written once in this time per topic, milliseconds.
const SELDOM_MS: u64 = 60_000;

/// What goes on failing for one reason is written once in this time, milliseconds.
const REPEATED_MS: u64 = 3_600_000;

/// The log.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) table: Table<LogEvent>,
    last_seq: u64,
    seldom: BTreeMap<Topic, u64>,
    /// What goes on failing, and when it was last written.
    repeated: BTreeMap<(Topic, String), u64>,
}

impl Log {
    pub(crate) fn load(&mut self, version: u64, event: LogEvent) {
        self.last_seq = self.last_seq.max(event.seq);
        self.table.load(version, event);
    }

    fn add(&mut self, mut event: LogEvent) {
        self.last_seq += 1;
        event.seq = self.last_seq;
        if event.text.len() > TEXT_CHARS_MAX {
            event.text = event.text.chars().take(TEXT_CHARS_MAX).collect();
        }
        self.table.put(event);
        if self.table.len() > EVENTS_KEPT + EVENTS_REMOVED_AT_ONCE {
            let old: Vec<u64> = self.table.iter().map(|(seq, _)| *seq).take(EVENTS_REMOVED_AT_ONCE).collect();
            for seq in old {
                self.table.remove(&seq);
            }
        }
    }
}

impl Rack {
    /// Events after `after`, oldest first, `limit` at most.
    pub fn events(&self, after: u64, limit: usize) -> Vec<LogEvent> {
        self.log.table.range_after(&after).take(limit).cloned().collect()
    }

    pub(crate) fn info(&mut self, topic: Topic, now: Now, text: String, about: impl FnOnce(&mut LogEvent)) {
        self.write(Level::Info, topic, now, text, about);
    }

    pub(crate) fn warn(&mut self, topic: Topic, now: Now, text: String, about: impl FnOnce(&mut LogEvent)) {
        self.write(Level::Warning, topic, now, text, about);
    }

    pub(crate) fn error(&mut self, topic: Topic, now: Now, text: String, about: impl FnOnce(&mut LogEvent)) {
        self.write(Level::Error, topic, now, text, about);
    }

    /// For what anybody on the network can cause as often as they like.
    pub(crate) fn warn_seldom(&mut self, topic: Topic, now: Now, text: String) {
        if self.log.seldom.get(&topic).is_none_or(|&at| now.mono_ms.saturating_sub(at) >= SELDOM_MS) {
            self.log.seldom.insert(topic, now.mono_ms);
            self.warn(topic, now, text, |_| ());
        }
    }

    /// For what is tried again and again until it comes right: it must not drive all else out of the log. Whether it was written.
    pub(crate) fn warn_repeated(
        &mut self,
        topic: Topic,
        now: Now,
        text: String,
        about: impl FnOnce(&mut LogEvent),
    ) -> bool {
        self.log.repeated.retain(|_, at| now.mono_ms.saturating_sub(*at) < REPEATED_MS);
        if self.log.repeated.contains_key(&(topic, text.clone())) {
            return false;
        }
        self.log.repeated.insert((topic, text.clone()), now.mono_ms);
        self.warn(topic, now, text, about);
        true
    }

    /// What begins so goes on no more: should it fail again, that is news.
    pub(crate) fn came_right(&mut self, topic: Topic, begin: &str) {
        self.log.repeated.retain(|(of, text), _| *of != topic || !text.starts_with(begin));
    }

    fn write(&mut self, level: Level, topic: Topic, now: Now, text: String, about: impl FnOnce(&mut LogEvent)) {
        let (host, vm, r#move, epoch) = (None, None, None, None);
        let mut event = LogEvent { seq: 0, at_ms: now.unix_ms, level, topic, text, host, vm, r#move, epoch };
        about(&mut event);
        self.log.add(event);
        self.version += 1;
    }
}
