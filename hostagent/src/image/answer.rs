//! The head of a server's answer (RFC 9110, RFC 9112), as far as it matters for one file.
//!
//! Owns: reading it. Never does: take a body whose place in the file is not certain.

/// Bytes of a head; a server of ours needs 300.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;
/// A server may have us wait for so long, seconds.
const AGAIN_S_MAX: u64 = 60;

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The file follows, from this byte to its end.
    Body {
        /// 0, or what was asked for.
        from: u64,
    },
    /// The server has no such file.
    Gone,
    /// Not now; ask again after so many seconds.
    Busy {
        /// 0 when it did not say.
        again_s: u64,
    },
    /// Anything else.
    Useless(String),
}

impl Answer {
    /// Reads a head without its empty line. `from` was asked for, of a file of `bytes`.
    pub(super) fn read(head: &str, from: u64, bytes: u64) -> Self {
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let code = match status.split(' ').collect::<Vec<_>>()[..] {
            [version, code, ..] if version.starts_with("HTTP/1.") => code,
            _ => return Self::Useless(format!("answered {:?}, which is no HTTP", short(status))),
        };
        let header = |name: &str| {
            lines.clone().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let length = header("content-length").and_then(|value| value.parse::<u64>().ok());
        match code {
            "200" if length == Some(bytes) => Self::Body { from: 0 },
            "200" => Self::Useless(format!("has a file of {}, expected {bytes} bytes", shown(length))),
            "206" => {
                let last = bytes.saturating_sub(1);
                match header("content-range") {
                    Some(range) if range == format!("bytes {from}-{last}/{bytes}") => Self::Body { from },
                    range => Self::Useless(format!("sent the part {range:?}, expected bytes {from}-{last}/{bytes}")),
                }
            }
            "404" | "410" => Self::Gone,
            "429" | "503" => {
                let again_s = header("retry-after").and_then(|value| value.parse().ok()).unwrap_or(0);
                Self::Busy { again_s: AGAIN_S_MAX.min(again_s) }
            }
            _ => Self::Useless(format!("answered {:?}", short(status))),
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

fn shown(length: Option<u64>) -> String {
    length.map_or_else(|| "unknown length".to_owned(), |bytes| format!("{bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads() {
        let read = |head: &str, from| match Answer::read(head, from, 1000) {
            Answer::Useless(why) => why,
            answer => format!("{answer:?}"),
        };
        for (head, from, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1000", 0, "Body { from: 0 }"),
            ("HTTP/1.1 200 OK\r\ncontent-length:1000", 300, "Body { from: 0 }"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 999", 0, "has a file of 999 bytes, expected 1000 bytes"),
            ("HTTP/1.1 200 OK", 0, "has a file of unknown length, expected 1000 bytes"),
            ("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 300-999/1000", 300, "Body { from: 300 }"),
            (
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-999/1000",
                300,
                "sent the part Some(\"bytes 0-999/1000\"), expected bytes 300-999/1000",
            ),
            ("HTTP/1.1 206 Partial Content", 300, "sent the part None, expected bytes 300-999/1000"),
            ("HTTP/1.1 404 Not Found\r\n", 0, "Gone"),
            ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7", 0, "Busy { again_s: 7 }"),
            ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 999999", 0, "Busy { again_s: 60 }"),
            ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: Fri, 31 Dec", 0, "Busy { again_s: 0 }"),
            ("HTTP/1.1 302 Found\r\nLocation: /elsewhere", 0, "answered \"HTTP/1.1 302 Found\""),
            ("SSH-2.0-x", 0, "answered \"SSH-2.0-x\", which is no HTTP"),
            ("", 0, "answered \"\", which is no HTTP"),
        ] {
            assert_eq!(read(head, from), wanted, "{head:?}");
        }
    }

    proptest! {
        /// Whatever is answered, a body is taken from the beginning or from where it was asked for.
        #[test]
        fn no_other_place(head in "(HTTP/1.1 20[06] x\r\n)?([Cc]ontent-([Ll]ength|[Rr]ange): ?(bytes )?[0-9]{0,4}(-[0-9]{0,4}/[0-9]{0,4})?\r\n){0,3}", from in 0u64..2000, bytes in 0u64..2000) {
            if let Answer::Body { from: begins } = Answer::read(&head, from, bytes) {
                prop_assert!(begins == 0 || begins == from);
            }
        }
    }
}
