//! Reads server-sent events out of bytes as they come.
//!
//! Owns: the event stream format (WHATWG HTML §9.2.6): lines ended by LF, CR or CRLF, a byte order mark at the start,
//! comments, fields `event` and `data`. `id` and `retry` are of no use here: a new connection always begins
//! with the whole view. Never does: input or output, decoding of the data.

use std::mem;
use thiserror::Error;

/// Most bytes that one event may have; a rack's view is some KiB per host.
pub(crate) const EVENT_BYTES_MAX: usize = 64 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its type; `message` when the stream names none.
    pub(crate) name: String,
    /// Its data lines joined by LF.
    pub(crate) data: String,
}

/// The stream sends an event without end.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an event of more than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct EventTooLong;

/// What has been read of a stream.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    name: String,
    data: String,
    has_data: bool,
    after_cr: bool,
    past_first_line: bool,
}

impl SseParser {
    /// Takes the next bytes and gives the events that they complete. What is not UTF-8 is replaced.
    ///
    /// # Errors
    /// `EventTooLong`; the stream is of no use afterwards.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, EventTooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let lf_of_crlf = mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if lf_of_crlf => {}
                b'\r' | b'\n' => events.extend(self.end_line()),
                _ if self.line.len() + self.data.len() >= EVENT_BYTES_MAX => return Err(EventTooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let bytes = mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let first = !mem::replace(&mut self.past_first_line, true);
        let line = if first { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<SseEvent> {
        let name = mem::take(&mut self.name);
        let data = mem::take(&mut self.data);
        let name = if name.is_empty() { "message".to_owned() } else { name };
        mem::take(&mut self.has_data).then_some(SseEvent { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(input: &str, expect: Expect) {
        let events = SseParser::default().feed(input.as_bytes()).expect("short");
        expect.assert_eq(&events.iter().map(|e| format!("{}={:?}\n", e.name, e.data)).collect::<String>());
    }

    #[test]
    fn events() {
        check(
            "event: rack\ndata: {}\n\n",
            expect![[r#"
            rack="{}"
        "#]],
        );
        check(
            "event:rack\r\ndata:a\r\ndata: b\r\n\r\ndata:  c\r\r",
            expect![[r#"
            rack="a\nb"
            message=" c"
        "#]],
        );
        check(
            ": keep-alive\n\n\nevent: rack\n\ndata\n\ndata: unfinished",
            expect![[r#"
            message=""
        "#]],
        );
        check(
            "\u{feff}id: 4\nretry: 1\ndata: x\nnonsense\n\n",
            expect![[r#"
            message="x"
        "#]],
        );
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            bytes in proptest::collection::vec(
                prop_oneof![3 => any::<u8>(), 5 => prop::sample::select(b"\r\n: daetvn".to_vec())], 0..300),
            cut in 1usize..20,
        ) {
            let whole = SseParser::default().feed(&bytes);
            let mut parser = SseParser::default();
            let pieces: Result<Vec<_>, _> = bytes.chunks(cut).map(|piece| parser.feed(piece)).collect();
            prop_assert_eq!(whole, pieces.map(|p| p.concat()));
        }

        #[test]
        fn what_is_sent_is_read(name in "[a-z]{1,10}", lines in proptest::collection::vec("[^\r\n]{0,20}", 1..5)) {
            let text: String = std::iter::once(format!("event: {name}\n"))
                .chain(lines.iter().map(|l| format!("data: {l}\n"))).chain(["\n".to_owned()]).collect();
            let events = SseParser::default().feed(text.as_bytes());
            prop_assert_eq!(events, Ok(vec![SseEvent { name, data: lines.join("\n") }]));
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::default();
        let mebibyte = vec![b'x'; 1 << 20];
        let refused = (0..=64).find_map(|_| parser.feed(&mebibyte).err());
        assert_eq!(refused, Some(EventTooLong));
    }
}
