//! The event log, a line each.

use super::names;
use super::table::{plain, time};
use proto::event::LogEvent;

/// One event as a line. Times are UTC.
pub(crate) fn line(event: &LogEvent) -> String {
    let (level, topic) = (names::level(event.level), names::topic(event.topic));
    format!("{}  {level:<7}  {topic:<8}  {}\n", time(event.at_ms), plain(&event.text))
}

#[cfg(test)]
mod tests {
    use super::super::sample::rack;
    use super::*;
    use expect_test::expect;

    #[test]
    fn lines() {
        expect![[r#"
            2026-11-21 04:49:03  warning  dhcp      the pool has 3 addresses left
            2026-11-21 04:49:04  info     boot      host node-1 fetches dom0's image
            2026-11-21 04:49:05  error    vm        VM db was not started: no host has 4 GiB free
        "#]]
        .assert_eq(&rack().events.iter().rev().map(line).collect::<String>());
    }
}
