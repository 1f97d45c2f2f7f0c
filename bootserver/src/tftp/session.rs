//! One TFTP transfer: what a request means, and what is sent when (RFC 1350, 2347 to 2349, 7440).
//!
//! Never does: read a clock or touch a socket; the shell says what came and when it has waited long enough.
//!
//! ```text
//! RRQ with options ──> OACK ──ACK 0──┐
//! RRQ without ──> DATA 1 ──ACK 1──┐  │
//!                                 v  v
//!                     a window of DATA ──ACK──> the next window … the last block ──ACK──> done
//!                          ^  └── lost ──┘                   ERROR, or too many tries ──> ended
//! ```
//! Until the first ACK nobody knows whether the client is where it says it is: it is sent at most three times what came
//! from it, but for the first block without options, which has a length of its own.

use bytes::Bytes;
use std::fmt::Write;
use std::ops::Range;

/// Ethernet's 1,500 bytes less the headers of IP (20), UDP (8) and TFTP (4): never a fragment.
pub(super) const BLOCK_BYTES_MAX: usize = 1468;
/// RFC 7440; EDK2 asks for 4.
const WINDOW_BLOCKS_MAX: u64 = 64;
/// Before a client has answered, bytes sent for each that came.
const UNPROVEN_FACTOR: usize = 3;
/// Times that the same is sent.
pub(super) const TRIES_MAX: u32 = 5;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Read(Read),
    Write,
    /// Nothing that begins a transfer; not answered.
    Other,
    /// The words do not end, or the mode is not octet.
    Wrong,
}

/// A request for a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// As it came, but for what is no UTF-8.
    pub(super) name: String,
    /// All these are options asked for, within their bounds.
    block_bytes: Option<usize>,
    window_blocks: Option<u64>,
    size: bool,
    /// Of the packet.
    bytes: usize,
}

/// Reads what came to port 69.
pub(super) fn request(packet: &[u8]) -> Request {
    match packet {
        [0, 1, words @ ..] => read(words, packet.len()).map_or(Request::Wrong, Request::Read),
        [0, 2, ..] => Request::Write,
        _ => Request::Other,
    }
}

fn read(words: &[u8], bytes: usize) -> Option<Read> {
    let mut words = words.strip_suffix(&[0]).unwrap_or(words).split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let name = words.next()?.into_owned();
    if !words.next()?.eq_ignore_ascii_case("octet") {
        return None;
    }
    let mut read = Read { name, bytes, ..Read::default() };
    // What is not understood is not acknowledged (RFC 2347).
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        let number = value.parse::<u64>().ok();
        match (option.to_ascii_lowercase().as_str(), number) {
            ("blksize", Some(asked @ 8..=65_464)) => {
                read.block_bytes = Some(usize::try_from(asked).unwrap_or(BLOCK_BYTES_MAX).min(BLOCK_BYTES_MAX));
            }
            ("windowsize", Some(asked @ 1..=65_535)) => read.window_blocks = Some(asked.min(WINDOW_BLOCKS_MAX)),
            ("tsize", Some(_)) => read.size = true,
            _ => {}
        }
    }
    Some(read)
}

/// An ERROR.
pub(super) fn error(code: u8, text: &str) -> Vec<u8> {
    [&[0, 5, 0, code], text.as_bytes(), &[0]].concat()
}

/// A transfer.
#[derive(Debug, Clone)]
pub(super) struct Session {
    content: Bytes,
    block_bytes: usize,
    window_blocks: u64,
    oack: Option<Vec<u8>>,
    /// Blocks that have come; the last block is `last`.
    acked: u64,
    last: u64,
    /// To be sent.
    queue: Range<u64>,
    oack_due: bool,
    /// Whether an ACK has come, and until then bytes that may yet be sent.
    proven: bool,
    allowance_bytes: usize,
    tries: u32,
    /// The last ACK for which a window was sent again.
    again_for: Option<u64>,
}

/// After something was heard, or nothing for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// There is something in [`Session::next`], perhaps.
    Go,
    /// The whole file has come.
    Done,
    /// The client has given up, or is given up.
    Ended,
}

/// A packet to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Oack(&'a [u8]),
    Data { number: u16, data: &'a [u8] },
}

impl Session {
    /// Takes a request for this content.
    pub(super) fn new(read: &Read, content: Bytes) -> Self {
        let mut oack = String::new();
        // Writing to a String does not fail.
        if read.size {
            let _ = write!(oack, "tsize\0{}\0", content.len());
        }
        if let Some(block_bytes) = read.block_bytes {
            let _ = write!(oack, "blksize\0{block_bytes}\0");
        }
        if let Some(window_blocks) = read.window_blocks {
            let _ = write!(oack, "windowsize\0{window_blocks}\0");
        }
        let block_bytes = read.block_bytes.unwrap_or(512);
        let oack = (!oack.is_empty()).then(|| [&[0, 6], oack.as_bytes()].concat());
        let mut session = Self {
            last: (content.len() / block_bytes) as u64 + 1,
            content,
            block_bytes,
            window_blocks: read.window_blocks.unwrap_or(1),
            oack_due: oack.is_some(),
            oack,
            acked: 0,
            queue: 1..1,
            proven: false,
            allowance_bytes: read.bytes * UNPROVEN_FACTOR,
            tries: 1,
            again_for: None,
        };
        if session.oack.is_none() {
            // One block whatever the window, and never again before it is acknowledged.
            session.queue = 1..2;
            session.allowance_bytes = session.block_bytes + 4;
        }
        session
    }

    /// The next packet to send now.
    pub(super) fn next(&mut self) -> Option<Piece<'_>> {
        if std::mem::take(&mut self.oack_due) {
            let oack = self.oack.as_deref()?;
            if !self.proven {
                self.allowance_bytes = self.allowance_bytes.checked_sub(oack.len())?;
            }
            return Some(Piece::Oack(oack));
        }
        let number = self.queue.next()?;
        let data = self.block(number);
        if !self.proven {
            self.allowance_bytes = self.allowance_bytes.checked_sub(data.len() + 4)?;
        }
        // Block numbers go round (RFC 7440 leaves it open; all clients known do).
        Some(Piece::Data { number: number as u16, data: &self.content[data] })
    }

    fn block(&self, number: u64) -> Range<usize> {
        let at = |number: u64| {
            usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(self.block_bytes).min(self.content.len())
        };
        at(number - 1)..at(number)
    }

    /// Something came from the client.
    pub(super) fn heard(&mut self, packet: &[u8]) -> Next {
        let ack = match packet {
            [0, 4, high, low, ..] => u16::from_be_bytes([*high, *low]),
            [0, 5, ..] => return Next::Ended,
            _ => return Next::Go,
        };
        let sent = self.queue.start - 1;
        let further = u64::from(ack.wrapping_sub(self.acked as u16));
        let first = !self.proven && self.oack.is_some();
        if further > sent.saturating_sub(self.acked) || (further == 0 && !first) {
            // Of a block that was never sent, or long past. But the same ACK again, within windows, says that the first block of
            // one was lost: it is sent again once, or each ACK on the way would double all that follows.
            if further == 0 && self.window_blocks > 1 && self.proven && self.again_for != Some(self.acked) {
                self.again_for = Some(self.acked);
                self.window();
            }
            return Next::Go;
        }
        (self.proven, self.tries) = (true, 1);
        self.acked += further;
        if self.acked == self.last {
            return Next::Done;
        }
        self.window();
        Next::Go
    }

    /// Nothing came for as long as a client is given.
    pub(super) fn silent(&mut self) -> Next {
        if self.tries >= TRIES_MAX {
            return Next::Ended;
        }
        self.tries += 1;
        if self.proven {
            self.window();
        } else if self.oack.is_some() {
            self.oack_due = true;
        }
        Next::Go
    }

    fn window(&mut self) {
        self.queue = self.acked + 1..(self.acked + self.window_blocks).min(self.last) + 1;
    }

    /// Bytes that have come, and all.
    pub(super) fn progress(&self) -> (u64, u64) {
        let all = self.content.len() as u64;
        (all.min(self.acked * self.block_bytes as u64), all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn rrq(words: &[&str]) -> Vec<u8> {
        let mut packet = vec![0, 1];
        for word in words {
            packet.extend(word.as_bytes());
            packet.push(0);
        }
        packet
    }

    fn open(words: &[&str], bytes: usize) -> Session {
        match request(&rrq(words)) {
            Request::Read(read) => Session::new(&read, Bytes::from(vec![7; bytes])),
            other => panic!("{other:?}"),
        }
    }

    fn ack(number: u16) -> [u8; 4] {
        let [high, low] = number.to_be_bytes();
        [0, 4, high, low]
    }

    /// What leaves now.
    fn out(session: &mut Session) -> String {
        let mut said = Vec::new();
        while let Some(piece) = session.next() {
            said.push(match piece {
                Piece::Oack(oack) => format!("OACK {}", String::from_utf8_lossy(&oack[2..]).replace('\0', " ").trim()),
                Piece::Data { number, data } => format!("{number}:{}", data.len()),
            });
        }
        said.join(", ")
    }

    fn check(session: &mut Session, packets: &[&[u8]], expect: Expect) {
        let mut said = vec![out(session)];
        for packet in packets {
            let next = session.heard(packet);
            said.push(format!("{next:?} {}", out(session)));
        }
        expect.assert_eq(&said.join("\n"));
    }

    #[test]
    fn requests() {
        let check = |packet: &[u8], expect: Expect| expect.assert_eq(&format!("{:?}", request(packet)));
        check(
            &rrq(&["a\u{ff}", "OCTET", "BLKSIZE", "65464", "windowsize", "65535", "tsize", "0", "timeout", "1"]),
            expect![[
                r#"Read(Read { name: "aÿ", block_bytes: Some(1468), window_blocks: Some(64), size: true, bytes: 61 })"#
            ]],
        );
        check(
            b"\0\x01rom\xff\0octet\0blksize\0nine\0windowsize\x000\0odd",
            expect![[r#"Read(Read { name: "rom�", block_bytes: None, window_blocks: None, size: false, bytes: 42 })"#]],
        );
        check(&rrq(&["a", "netascii"]), expect!["Wrong"]);
        check(&rrq(&["a"]), expect!["Wrong"]);
        check(&[0, 2, b'a'], expect!["Write"]);
        check(&ack(1), expect!["Other"]);
        check(&[], expect!["Other"]);
    }

    #[test]
    fn transfers() {
        // Without options; 1,024 bytes end by an empty block.
        check(
            &mut open(&["f", "octet"], 1024),
            &[&ack(1), &ack(1), &ack(2), &ack(3)],
            expect![[r#"
                1:512
                Go 2:512
                Go 
                Go 3:0
                Done "#]],
        );
        let windows = ["f", "octet", "tsize", "0", "blksize", "1000", "windowsize", "3"];
        check(
            &mut open(&windows, 5500),
            &[&ack(0), &ack(3), &ack(6)],
            expect![[r#"
                OACK tsize 5500 blksize 1000 windowsize 3
                Go 1:1000, 2:1000, 3:1000
                Go 4:1000, 5:1000, 6:500
                Done "#]],
        );
        // Block 2 is lost; then the first of a window, which is said twice and sent again once; then a stray ACK.
        check(
            &mut open(&windows, 5500),
            &[&ack(0), &ack(1), &ack(1), &ack(1), &ack(9), &ack(4), &[0, 5, 0, 8]],
            expect![[r#"
                OACK tsize 5500 blksize 1000 windowsize 3
                Go 1:1000, 2:1000, 3:1000
                Go 2:1000, 3:1000, 4:1000
                Go 2:1000, 3:1000, 4:1000
                Go 
                Go 
                Go 5:1000, 6:500
                Ended "#]],
        );
    }

    #[test]
    fn silence() {
        let mut session = open(&["f", "octet", "blksize", "1000"], 1500);
        out(&mut session);
        session.heard(&ack(0));
        let mut said = vec![out(&mut session)];
        while session.silent() == Next::Go {
            said.push(out(&mut session));
        }
        assert_eq!(said, ["1:1000"; TRIES_MAX as usize]);
    }

    #[test]
    fn numbers_go_round() {
        let mut session = open(&["f", "octet", "blksize", "8", "windowsize", "64"], 1 << 20);
        out(&mut session);
        let mut next = session.heard(&ack(0));
        let mut blocks = 0u64;
        while next == Next::Go {
            let mut newest = 0;
            while let Some(Piece::Data { number, .. }) = session.next() {
                (newest, blocks) = (number, blocks + 1);
            }
            next = session.heard(&ack(newest));
        }
        assert_eq!((next, blocks), (Next::Done, (1 << 17) + 1));
    }

    proptest! {
        /// Whoever forges an address makes us send it no more than three times what it costs, whatever is asked and however
        /// long is waited; only a request without any option gets one block of 512 bytes.
        #[test]
        fn nobody_is_flooded(words in proptest::collection::vec("[a-z0-9]{0,6}|blksize|windowsize|tsize|[0-9]{1,5}", 0..8)) {
            let packet = rrq(&[&["f", "octet"], &words.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
            if let Request::Read(read) = request(&packet) {
                let mut session = Session::new(&read, Bytes::from(vec![7; 100_000]));
                let (mut bytes, mut data) = (0, false);
                loop {
                    while let Some(piece) = session.next() {
                        bytes += match piece {
                            Piece::Oack(oack) => oack.len(),
                            Piece::Data { data: block, .. } => { data = true; block.len() + 4 }
                        };
                    }
                    if session.silent() == Next::Ended { break }
                }
                prop_assert!(bytes <= if data { 516 } else { 3 * packet.len() }, "{bytes} bytes for {}", packet.len());
            }
        }

        /// A client that loses packets has the whole in the end, unless it loses all of five tries.
        #[test]
        fn whole_in_the_end(bytes in 0usize..20_000, block in 8usize..1468, window in 1u64..65, losses in proptest::collection::vec(0u8..4, 0..64)) {
            let (block, window) = (block.to_string(), window.to_string());
            let mut session = open(&["f", "octet", "blksize", &block, "windowsize", &window], bytes);
            let (mut got, mut last, mut losses, mut in_vain) = (0, 0u16, losses.into_iter(), 0);
            out(&mut session);
            let mut next = session.heard(&ack(0));
            for _ in 0..100_000 {
                if next == Next::Done { break }
                while let Some(Piece::Data { number, data }) = session.next() {
                    let lost = in_vain < TRIES_MAX - 2 && losses.next() == Some(0);
                    if !lost && number == last.wrapping_add(1) {
                        (last, got) = (number, got + data.len());
                    }
                }
                let before = session.acked;
                next = session.heard(&ack(last));
                if session.acked > before {
                    in_vain = 0;
                } else if next == Next::Go && session.queue.is_empty() {
                    in_vain += 1;
                    prop_assert_eq!(session.silent(), Next::Go);
                }
            }
            prop_assert_eq!((next, got), (Next::Done, bytes));
        }
    }
}
