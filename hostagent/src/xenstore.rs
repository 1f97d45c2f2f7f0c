//! A small XenStore client over /dev/xen/xenbus.
//!
//! Owns: the wire's form (xen/include/public/io/xs_wire.h) and blocking requests. Never does: caching; knowing what paths mean.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

const PATH: &str = "/dev/xen/xenbus";
/// XENSTORE_PAYLOAD_MAX.
const PAYLOAD_BYTES_MAX: usize = 4096;
const HEAD_BYTES: usize = 16;

/// xsd_sockmsg_type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    Directory = 1,
    Read = 2,
    Watch = 4,
    TransactionStart = 6,
    TransactionEnd = 7,
    Write = 11,
}
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum XenStoreError {
    /// The device, or the wire.
    #[error("XenStore, {what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// XenStore refused, with its name for why, such as `ENOENT`.
    #[error("XenStore, {what}: {error}")]
    Refused {
        /// What was attempted.
        what: String,
        /// Its word.
        error: String,
    },
    /// An answer that is none.
    #[error("XenStore, {what}: an answer of kind {kind} and {bytes} bytes, which fits no request")]
    Strange {
        /// What was attempted.
        what: String,
        /// Its kind.
        kind: u32,
        /// Its length.
        bytes: u32,
    },
}

impl XenStoreError {
    /// Whether there is no such path.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error == "ENOENT")
    }

    fn is_again(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error == "EAGAIN")
    }
}

/// One connection. Requests are answered in turn; watch events come between.
#[derive(Debug)]
pub struct XenStore<S = File> {
    stream: S,
    request: u32,
    events: VecDeque<String>,
}

impl XenStore {
    /// Opens a connection.
    ///
    /// # Errors
    /// When not in a domain with xenfs and a XenStore.
    pub fn open() -> Result<Self, XenStoreError> {
        let stream = OpenOptions::new().read(true).write(true).open(PATH);
        let stream = stream.map_err(|source| XenStoreError::Io { what: format!("opening {PATH}"), source })?;
        Ok(Self::over(stream))
    }
}

impl<S: Read + Write> XenStore<S> {
    fn over(stream: S) -> Self {
        Self { stream, request: 0, events: VecDeque::new() }
    }

    /// The value at a path.
    ///
    /// # Errors
    /// `ENOENT` when there is none ([`XenStoreError::is_absent`]).
    pub fn read(&mut self, path: &str) -> Result<String, XenStoreError> {
        let bytes = self.ask(Kind::Read, 0, &[path.as_bytes(), b"\0"], path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The value at a path, or none.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn read_if(&mut self, path: &str) -> Result<Option<String>, XenStoreError> {
        match self.read(path) {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.is_absent() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The names below a path.
    ///
    /// # Errors
    /// `ENOENT` when there is no such path.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, XenStoreError> {
        let bytes = self.ask(Kind::Directory, 0, &[path.as_bytes(), b"\0"], path)?;
        Ok(strings(&bytes))
    }

    /// Writes one value.
    ///
    /// # Errors
    /// When refused.
    pub fn write(&mut self, path: &str, value: &str) -> Result<(), XenStoreError> {
        self.ask(Kind::Write, 0, &[path.as_bytes(), b"\0", value.as_bytes()], path).map(drop)
    }

    /// Writes several values as one transaction, tried again while others interfere.
    ///
    /// # Errors
    /// When refused; then nothing was written.
    pub fn write_all(&mut self, values: &[(String, String)]) -> Result<(), XenStoreError> {
        for _ in 0..20 {
            let id = self.ask(Kind::TransactionStart, 0, &[b"\0"], "a transaction")?;
            let id = strings(&id).first().and_then(|s| s.parse().ok()).unwrap_or(0);
            for (path, value) in values {
                if let Err(e) = self.ask(Kind::Write, id, &[path.as_bytes(), b"\0", value.as_bytes()], path) {
                    // Given up; that the store refuses even this changes nothing.
                    let _ = self.ask(Kind::TransactionEnd, id, &[b"F\0"], "a transaction");
                    return Err(e);
                }
            }
            match self.ask(Kind::TransactionEnd, id, &[b"T\0"], "a transaction") {
                Err(e) if e.is_again() => {}
                end => return end.map(drop),
            }
        }
        let error = "EAGAIN twenty times".to_owned();
        Err(XenStoreError::Refused { what: "a transaction".to_owned(), error })
    }

    /// Asks to be told of changes under a path; one event comes at once.
    ///
    /// # Errors
    /// When refused.
    pub fn watch(&mut self, path: &str) -> Result<(), XenStoreError> {
        self.ask(Kind::Watch, 0, &[path.as_bytes(), b"\0", path.as_bytes(), b"\0"], path).map(drop)
    }

    /// Waits for a watch to fire; the path that changed.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn wait(&mut self) -> Result<String, XenStoreError> {
        loop {
            if let Some(path) = self.events.pop_front() {
                return Ok(path);
            }
            let (kind, _, body) = self.receive("waiting for a watch")?;
            self.note_event(kind, &body);
        }
    }

    fn note_event(&mut self, kind: u32, body: &[u8]) {
        if kind == WATCH_EVENT
            && let Some(path) = strings(body).into_iter().next()
        {
            // One event stands for many: who waits looks at everything anyhow.
            if self.events.len() < 64 {
                self.events.push_back(path);
            }
        }
    }

    fn ask(&mut self, kind: Kind, transaction: u32, parts: &[&[u8]], on: &str) -> Result<Vec<u8>, XenStoreError> {
        let what = || format!("{kind:?} {on}");
        self.request = self.request.wrapping_add(1);
        let length: usize = parts.iter().map(|p| p.len()).sum();
        if length > PAYLOAD_BYTES_MAX {
            return Err(XenStoreError::Refused { what: what(), error: "E2BIG".to_owned() });
        }
        let mut message = Vec::with_capacity(HEAD_BYTES + length);
        for word in [kind as u32, self.request, transaction, length as u32] {
            message.extend(word.to_ne_bytes());
        }
        parts.iter().for_each(|p| message.extend_from_slice(p));
        self.stream.write_all(&message).map_err(|source| XenStoreError::Io { what: what(), source })?;
        loop {
            let (answer, request, body) = self.receive(&what())?;
            if answer == WATCH_EVENT {
                self.note_event(answer, &body);
            } else if request != self.request {
                // An answer to what a caller before gave up on.
            } else if answer == ERROR {
                let error = strings(&body).into_iter().next().unwrap_or_default();
                return Err(XenStoreError::Refused { what: what(), error });
            } else if answer == kind as u32 {
                return Ok(body);
            } else {
                return Err(XenStoreError::Strange { what: what(), kind: answer, bytes: body.len() as u32 });
            }
        }
    }

    fn receive(&mut self, what: &str) -> Result<(u32, u32, Vec<u8>), XenStoreError> {
        let io = |source| XenStoreError::Io { what: what.to_owned(), source };
        let mut head = [0; HEAD_BYTES];
        self.stream.read_exact(&mut head).map_err(io)?;
        let word = |i: usize| u32::from_ne_bytes(std::array::from_fn(|b| head[i * 4 + b]));
        let (kind, request, bytes) = (word(0), word(1), word(3));
        if bytes as usize > PAYLOAD_BYTES_MAX {
            return Err(XenStoreError::Strange { what: what.to_owned(), kind, bytes });
        }
        let mut body = vec![0; bytes as usize];
        self.stream.read_exact(&mut body).map_err(io)?;
        Ok((kind, request, body))
    }
}

/// Texts that each end with a zero byte; the last may lack it.
fn strings(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|&b| b == 0).map(|s| String::from_utf8_lossy(s).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    /// Answers that were written down beforehand.
    struct Script {
        answers: io::Cursor<Vec<u8>>,
        asked: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.answers.read(buf)
        }
    }

    impl Write for Script {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.asked.write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn message(kind: u32, request: u32, body: &[u8]) -> Vec<u8> {
        let mut m: Vec<u8> = [kind, request, 0, body.len() as u32].iter().flat_map(|w| w.to_ne_bytes()).collect();
        m.extend_from_slice(body);
        m
    }

    fn store(answers: Vec<u8>) -> XenStore<Script> {
        XenStore::over(Script { answers: io::Cursor::new(answers), asked: Vec::new() })
    }

    fn check(answers: &[Vec<u8>], ask: impl Fn(&mut XenStore<Script>) -> String, expect: Expect) {
        let mut s = store(answers.concat());
        let got = ask(&mut s);
        let asked = s.stream.asked.get(HEAD_BYTES..).unwrap_or_default().escape_ascii().to_string();
        expect.assert_eq(&format!("{got}\nasked {asked}\nevents {:?}", s.events));
    }

    #[test]
    fn requests() {
        check(
            &[message(15, 0, b"@releaseDomain\0tok\0"), message(2, 1, b"web")],
            |s| format!("{:?}", s.read("/local/domain/1/name").ok()),
            expect![[r#"
                Some("web")
                asked /local/domain/1/name\x00
                events ["@releaseDomain"]"#]],
        );
        check(
            &[message(16, 1, b"ENOENT\0")],
            |s| format!("{:?}", s.read_if("/x").ok()),
            expect![[r#"
                Some(None)
                asked /x\x00
                events []"#]],
        );
        check(
            &[message(1, 1, b"a\0bc\0")],
            |s| format!("{:?}", s.list("/x").ok()),
            expect![[r#"
                Some(["a", "bc"])
                asked /x\x00
                events []"#]],
        );
        check(
            &[message(16, 1, b"EACCES\0")],
            |s| s.write("/x", "1").map_or_else(|e| e.to_string(), |()| "written".into()),
            expect![[r#"
                XenStore, Write /x: EACCES
                asked /x\x001
                events []"#]],
        );
    }

    proptest! {
        #[test]
        fn no_answer_panics(answers in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = store(answers.clone()).read("/x");
            let _ = store(answers).wait();
        }
    }
}
