//! What an initiator and its target say to each other on one connection (RFC 7143), as far as writes go.
//!
//! Owns: PDUs in two byte streams, the log-in, which write each answer is to. Never does: judge; believe that a command was done before
//! the target says so.
//!
//! ```text
//! initiator: Login… ─────────────> Command(write, ITT) ─ Data-Out… ──────> …
//! target:    <─ Login response: 0, full feature   <─ Response(ITT): it has landed
//! ```

use anyhow::{Context, Result, ensure};
use std::collections::{HashMap, HashSet};

/// A header (RFC 7143, 11.2.1), bytes.
const BHS_BYTES: usize = 48;
/// The longest PDU that is believed to be one; open-iscsi and tgt agree on far less.
const PDU_BYTES_MAX: usize = 1 << 20;
/// What a log-in may say, bytes.
const LOGIN_BYTES_MAX: usize = 64 << 10;

/// Who has logged in where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// InitiatorName.
    pub initiator: String,
    /// TargetName.
    pub target: String,
    /// The CHAP user; empty without CHAP.
    pub user: String,
    /// When the target let it in, Unix nanoseconds.
    pub at_ns: u64,
}

/// A write command that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Logical unit.
    pub lun: u64,
    /// First block; none where the blocks are named in the data (UNMAP).
    pub lba: Option<u64>,
    /// How many blocks.
    pub blocks: u32,
    /// When it came, Unix nanoseconds.
    pub came_ns: u64,
}

/// What a connection was heard to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The log-in has succeeded.
    Login(Login),
    /// A write has come, by its task tag.
    Write(u32, Command),
    /// The write of this tag was answered at this time: it has landed.
    Landed(u32, u64),
}

/// One connection.
#[derive(Debug, Default)]
pub struct Connection {
    initiator: Half,
    target: Half,
    /// What both have said before full feature phase, as `key=value`.
    keys: HashMap<String, String>,
    full_feature: bool,
    /// A log-in request was read and its answer was not: how to read on is not known yet.
    asked: bool,
    /// Writes under way, by task tag.
    writes: HashSet<u32>,
}

#[derive(Debug, Default)]
struct Half {
    bytes: Vec<u8>,
    /// When the newest of them came.
    at_ns: u64,
}

struct Pdu {
    header: [u8; BHS_BYTES],
    data: Vec<u8>,
}

impl Connection {
    /// Bytes that the target has received, in order.
    pub fn from_initiator(&mut self, bytes: &[u8], at_ns: u64) -> Result<Vec<Heard>> {
        self.initiator.bytes.extend(bytes);
        self.initiator.at_ns = at_ns;
        let mut heard = Vec::new();
        self.read_initiator(&mut heard)?;
        Ok(heard)
    }

    /// Bytes that the target has sent, in order.
    pub fn from_target(&mut self, bytes: &[u8], at_ns: u64) -> Result<Vec<Heard>> {
        self.target.bytes.extend(bytes);
        self.target.at_ns = at_ns;
        let mut heard = Vec::new();
        while let Some(pdu) = self.target.pdu(self.digests())? {
            self.answered(&pdu, at_ns, &mut heard)?;
        }
        self.read_initiator(&mut heard)?;
        Ok(heard)
    }

    fn read_initiator(&mut self, heard: &mut Vec<Heard>) -> Result<()> {
        while !self.asked {
            let Some(pdu) = self.initiator.pdu(self.digests())? else { break };
            let came_ns = self.initiator.at_ns;
            match pdu.opcode() {
                LOGIN => {
                    self.note(&pdu.data)?;
                    self.asked = true;
                }
                COMMAND if pdu.header[1] & WRITES != 0 => {
                    let Some((lba, blocks)) = written(&pdu.header[32..]) else { continue };
                    ensure!(self.writes.insert(pdu.tag()), "a task tag is used twice at once: the stream was misread");
                    heard.push(Heard::Write(pdu.tag(), Command { lun: lun(&pdu.header[8..16]), lba, blocks, came_ns }));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn answered(&mut self, pdu: &Pdu, at_ns: u64, heard: &mut Vec<Heard>) -> Result<()> {
        match pdu.opcode() {
            LOGIN_RESPONSE => {
                self.asked = false;
                self.note(&pdu.data)?;
                let (status, on_to_full_feature) = (pdu.header[36], pdu.header[1] & 0x83 == 0x83);
                if status == 0 && on_to_full_feature {
                    self.full_feature = true;
                    let key = |name: &str| self.keys.get(name).cloned();
                    heard.push(Heard::Login(Login {
                        initiator: key("InitiatorName").context("a log-in without InitiatorName")?,
                        target: key("TargetName").unwrap_or_default(),
                        user: key("CHAP_N").unwrap_or_default(),
                        at_ns,
                    }));
                }
            }
            RESPONSE if self.writes.remove(&pdu.tag()) => heard.push(Heard::Landed(pdu.tag(), at_ns)),
            _ => {}
        }
        Ok(())
    }

    /// Keys of a log-in. Both sides may say CHAP_N; the initiator's comes first, as mutual CHAP answers it.
    fn note(&mut self, data: &[u8]) -> Result<()> {
        for pair in data.split(|&byte| byte == 0).filter(|pair| !pair.is_empty()) {
            let text = String::from_utf8_lossy(pair);
            let Some((key, value)) = text.split_once('=') else { continue };
            if key != "CHAP_N" || !self.keys.contains_key(key) {
                self.keys.insert(key.to_owned(), value.to_owned());
            }
        }
        let bytes: usize = self.keys.iter().map(|(key, value)| key.len() + value.len()).sum();
        ensure!(bytes <= LOGIN_BYTES_MAX, "a log-in of {bytes} bytes");
        Ok(())
    }

    /// Digests of header and data (RFC 7143, 13.1), which follow each in full feature phase where they were agreed on.
    fn digests(&self) -> [usize; 2] {
        let agreed = |key: &str| self.full_feature && self.keys.get(key).is_some_and(|value| value == "CRC32C");
        ["HeaderDigest", "DataDigest"].map(|key| if agreed(key) { 4 } else { 0 })
    }
}

const COMMAND: u8 = 0x01;
const LOGIN: u8 = 0x03;
const RESPONSE: u8 = 0x21;
const LOGIN_RESPONSE: u8 = 0x23;
const REJECT: u8 = 0x3f;
/// The W flag of a command.
const WRITES: u8 = 0x20;

impl Half {
    fn pdu(&mut self, [header_digest, data_digest]: [usize; 2]) -> Result<Option<Pdu>> {
        let Some(header) = self.bytes.get(..BHS_BYTES) else { return Ok(None) };
        let header: [u8; BHS_BYTES] = header.try_into().context("as long as that")?;
        let known = [0x00..=0x06, 0x10..=0x10, 0x20..=0x26, 0x31..=0x32, REJECT..=REJECT];
        let opcode = header[0] & 0x3f;
        ensure!(
            known.iter().any(|range| range.contains(&opcode)),
            "no PDU begins with {opcode:#04x}: the stream was misread"
        );
        let data = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let begin = BHS_BYTES + usize::from(header[4]) * 4 + header_digest;
        let end = begin + data.next_multiple_of(4) + if data > 0 { data_digest } else { 0 };
        ensure!(end <= PDU_BYTES_MAX, "a PDU of {end} bytes: the stream was misread");
        if self.bytes.len() < end {
            return Ok(None);
        }
        let data = self.bytes[begin..begin + data].to_vec();
        self.bytes.drain(..end);
        Ok(Some(Pdu { header, data }))
    }
}

impl Pdu {
    fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    fn tag(&self) -> u32 {
        u32::from_be_bytes([self.header[16], self.header[17], self.header[18], self.header[19]])
    }
}

/// A LUN of the peripheral or flat kind (SAM-5, 4.7).
fn lun(bytes: &[u8]) -> u64 {
    u64::from(bytes[0] & 0x3f) << 8 | u64::from(bytes[1])
}

/// First block and count of a command that carries data to the target (SBC-3); none for those that change no block. What is not known
/// counts as a write without a place: better one too many.
fn written(cdb: &[u8]) -> Option<(Option<u64>, u32)> {
    let word = |at: usize| u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]]);
    let half = |at: usize| u32::from(u16::from_be_bytes([cdb[at], cdb[at + 1]]));
    match cdb[0] {
        // MODE SELECT, SEND DIAGNOSTIC, LOG SELECT, PERSISTENT RESERVE OUT.
        0x15 | 0x55 | 0x1d | 0x4c | 0x5f => None,
        // WRITE (10), with VERIFY, WRITE SAME (10).
        0x2a | 0x2e | 0x41 => Some((Some(word(2).into()), half(7))),
        0xaa | 0xae => Some((Some(word(2).into()), word(6))),
        // WRITE (16), with VERIFY, WRITE SAME (16), COMPARE AND WRITE.
        0x8a | 0x8e | 0x93 => Some((Some(u64::from(word(2)) << 32 | u64::from(word(6))), word(10))),
        0x89 => Some((Some(u64::from(word(2)) << 32 | u64::from(word(6))), u32::from(cdb[13]))),
        _ => Some((None, 0)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn pdu(opcode: u8, flags: u8, tag: u32, data: &[u8], digests: [usize; 2]) -> Vec<u8> {
        let mut bytes = vec![0; BHS_BYTES];
        (bytes[0], bytes[1]) = (opcode, flags);
        bytes[5..8].copy_from_slice(&u32::try_from(data.len()).expect("short").to_be_bytes()[1..]);
        bytes[16..20].copy_from_slice(&tag.to_be_bytes());
        bytes.extend(vec![0xcc; digests[0]]);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if !data.is_empty() {
            bytes.extend(vec![0xcc; digests[1]]);
        }
        bytes
    }

    fn write(tag: u32, cdb: &[u8], data: &[u8], digests: [usize; 2]) -> Vec<u8> {
        let mut bytes = pdu(COMMAND, 0x80 | WRITES, tag, data, digests);
        bytes[9] = 1;
        bytes[32..32 + cdb.len()].copy_from_slice(cdb);
        bytes
    }

    pub(crate) fn login_request() -> Vec<u8> {
        pdu(LOGIN | 0x40, 0x87, 0, b"InitiatorName=iqn.x:h1\0TargetName=iqn.x:d\0CHAP_N=u-7\0", [0; 2])
    }

    pub(crate) fn login_answer() -> Vec<u8> {
        pdu(LOGIN_RESPONSE, 0x87, 0, b"", [0; 2])
    }

    pub(crate) fn write_command(tag: u32, lba: u8) -> Vec<u8> {
        write(tag, &[0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0], b"", [0; 2])
    }

    pub(crate) fn write_answer(tag: u32) -> Vec<u8> {
        pdu(RESPONSE, 0x80, tag, b"", [0; 2])
    }

    fn logged_in(digest: &str) -> Connection {
        let mut it = Connection::default();
        let asked = b"InitiatorName=iqn.x:h1\0TargetName=iqn.x:d\0";
        assert_eq!(it.from_initiator(&pdu(LOGIN | 0x40, 0x81, 0, asked, [0; 2]), 1).expect("read"), []);
        it.from_target(&pdu(LOGIN_RESPONSE, 0x00, 0, b"AuthMethod=CHAP\0", [0; 2]), 2).expect("read");
        it.from_initiator(&pdu(LOGIN | 0x40, 0x87, 0, b"CHAP_N=u-7\0CHAP_R=0x1\0", [0; 2]), 3).expect("read");
        let said = format!("HeaderDigest={digest}\0DataDigest={digest}\0");
        let heard = it.from_target(&pdu(LOGIN_RESPONSE, 0x87, 0, said.as_bytes(), [0; 2]), 4).expect("read");
        let (initiator, target, user) = ("iqn.x:h1".into(), "iqn.x:d".into(), "u-7".into());
        assert_eq!(heard, [Heard::Login(Login { initiator, target, user, at_ns: 4 })]);
        it
    }

    #[test]
    fn writes_and_their_answers_however_the_bytes_come() {
        for (digest, digests) in [("None", [0; 2]), ("CRC32C", [4; 2])] {
            let mut it = logged_in(digest);
            let ten = [0x2a, 0, 0, 0, 8, 0, 0, 0, 3, 0];
            let sixteen = [0x8a, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0];
            let mut bytes = write(5, &ten, b"abcde", digests);
            bytes.extend(pdu(0x05, 0x80, 5, b"data-out", digests));
            bytes.extend(write(6, &sixteen, b"", digests));
            bytes.extend(write(7, &[0x5f], b"reserve", digests));
            bytes.extend(pdu(COMMAND, 0xc0, 8, b"", digests));
            let mut heard = Vec::new();
            for byte in bytes {
                heard.extend(it.from_initiator(&[byte], 9).expect("read"));
            }
            let at = |lba, blocks| Command { lun: 1, lba: Some(lba), blocks, came_ns: 9 };
            assert_eq!(heard, [Heard::Write(5, at(0x800, 3)), Heard::Write(6, at(0x1_0000_0002, 9))]);
            let mut answers = pdu(RESPONSE, 0x80, 6, b"", digests);
            answers.extend(pdu(RESPONSE, 0x80, 8, b"a read", digests));
            answers.extend(pdu(RESPONSE, 0x80, 5, b"", digests));
            let heard = it.from_target(&answers, 20).expect("read");
            assert_eq!(heard, [Heard::Landed(6, 20), Heard::Landed(5, 20)]);
        }
    }

    #[test]
    fn what_is_no_pdu_is_an_error_and_not_silence() {
        let mut it = logged_in("None");
        assert!(it.from_initiator(&[0x17; BHS_BYTES], 1).is_err());
        let mut long = pdu(COMMAND, 0x80, 1, b"", [0; 2]);
        long[5] = 0xff;
        assert!(logged_in("None").from_initiator(&long, 1).is_err());
        assert_eq!(written(&[0x42; 16]), Some((None, 0)), "UNMAP names its blocks in the data");
        let mut it = logged_in("None");
        let one = write(5, &[0x2a, 0, 0, 0, 8, 0, 0, 0, 3, 0], b"", [0; 2]);
        assert!(it.from_initiator(&[one.clone(), one].concat(), 1).is_err(), "one tag for two writes");
    }

    #[test]
    fn a_refused_log_in_is_none() {
        let mut it = Connection::default();
        it.from_initiator(&pdu(LOGIN | 0x40, 0x87, 0, b"InitiatorName=iqn.x:h1\0", [0; 2]), 1).expect("read");
        let mut refused = pdu(LOGIN_RESPONSE, 0x87, 0, b"", [0; 2]);
        refused[36] = 2;
        assert_eq!(it.from_target(&refused, 2).expect("read"), []);
    }
}
