//! Columns, times and sizes.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use std::time::{Duration, UNIX_EPOCH};

/// A column's heading and whether numbers stand in it.
pub(crate) type Column = (&'static str, Align);

/// Which side of its column a value stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// The narrowest that the last column is made; a terminal narrower than that breaks lines by itself.
const SENTENCE_COLUMNS_MIN: u16 = 24;

/// Rows under headings. With a width (a terminal's) the last column's long texts are broken within it; without, never.
/// `none` stands where there are no rows.
pub(crate) fn columns(headings: &[Column], rows: Vec<Vec<String>>, none: &str, width: Option<u16>) -> String {
    if rows.is_empty() {
        return format!("{none}\n");
    }
    let mut table = bare(width);
    table.set_header(headings.iter().map(|&(name, align)| cell(name, align)));
    for row in rows {
        table.add_row(row.iter().zip(headings).map(|(text, &(_, align))| cell(&plain(text), align)));
    }
    finish(table)
}

/// Names and values, one a line; those without a value are left out.
pub(crate) fn fields(pairs: &[(&str, String)], width: Option<u16>) -> String {
    let mut table = bare(width);
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([cell(name, Align::Left), cell(&plain(value), Align::Left)]);
    }
    finish(table)
}

fn bare(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match width {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table
}

fn cell(text: &str, align: Align) -> Cell {
    let alignment = match align {
        Align::Left => CellAlignment::Left,
        Align::Right => CellAlignment::Right,
    };
    Cell::new(text).set_alignment(alignment)
}

fn finish(mut table: Table) -> String {
    let last = table.column_count().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        // A name that is broken cannot be copied: only the last column, the one with sentences, gives way.
        column.set_constraint(match at == last {
            true => ColumnConstraint::LowerBoundary(Width::Fixed(SENTENCE_COLUMNS_MIN)),
            false => ColumnConstraint::ContentWidth,
        });
    }
    table.trim_fmt().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Without control characters, each of which could drive a terminal; line ends become spaces.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { ' ' } else { c }).filter(|c| !is_unsafe(*c)).collect()
}

/// Whether a terminal may do something on it that is not writing: controls (C0, DEL, C1) and the marks that turn the
/// direction of writing.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How long from `then_ms` to `now_ms`, in its largest unit: `12s`, `3m`, `5h`, `9d`.
pub(crate) fn age(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5_999 => format!("{}m", seconds / 60),
        6_000..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A span of milliseconds: `85 ms`, `1.2 s`, `49 s`, `12 min`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..=999 => format!("{ms} ms"),
        1_000..=9_999 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..=599_999 => format!("{} s", ms / 1000),
        _ => format!("{} min", ms / 60_000),
    }
}

/// Unix milliseconds as `2026-11-21 04:50:02` (UTC). Times after the year 9999 are shown as its last second.
pub(crate) fn time(unix_ms: u64) -> String {
    /// 9999-12-31 23:59:59, the last that RFC 3339 can write.
    const LAST_S: u64 = 253_402_300_799;
    let at = UNIX_EPOCH + Duration::from_secs((unix_ms / 1000).min(LAST_S));
    humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").replace('Z', "")
}

/// MiB in its largest exact unit: `512 MiB`, `2 GiB`, `1.5 GiB` where a tenth says it.
pub(crate) fn mib(size: u64) -> String {
    let tenfold = size.saturating_mul(10);
    if size >= 1024 && tenfold.is_multiple_of(1024) {
        let tenths = tenfold / 1024;
        if tenths.is_multiple_of(10) {
            format!("{} GiB", tenths / 10)
        } else {
            format!("{}.{} GiB", tenths / 10, tenths % 10)
        }
    } else {
        format!("{size} MiB")
    }
}

/// Bytes, rounded: `96.0 MiB`. Nothing for none.
pub(crate) fn bytes(count: u64) -> String {
    if count == 0 { String::new() } else { indicatif::BinaryBytes(count).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_for_numbers() {
        assert_eq!([age(5_000, 1), age(0, 99_999), age(0, 100_000), age(0, 6_000_000)], ["0s", "99s", "1m", "1h"]);
        assert_eq!([span(85), span(1_290), span(49_000), span(720_000)], ["85 ms", "1.2 s", "49 s", "12 min"]);
        assert_eq!([mib(96), mib(1024), mib(1536), mib(1100)], ["96 MiB", "1 GiB", "1.5 GiB", "1100 MiB"]);
        assert_eq!([time(0), time(1_795_236_602_123)], ["1970-01-01 00:00:00", "2026-11-21 04:50:02"]);
    }

    proptest! {
        #[test]
        fn nothing_that_drives_a_terminal_gets_through(text: String, width in proptest::option::of(0u16..200)) {
            let shown = columns(&[("A", Align::Left), ("B", Align::Right)], vec![vec![text, "1".into()]], "", width);
            prop_assert!(shown.chars().all(|c| c == '\n' || !is_unsafe(c)), "{shown:?}");
        }

        #[test]
        fn any_number_has_words(n: u64, m: u64) {
            let words = [age(n, m), span(n), time(n), mib(n / 10), bytes(n)];
            prop_assert!(words.iter().all(|w| w.len() < 40));
        }
    }
}
