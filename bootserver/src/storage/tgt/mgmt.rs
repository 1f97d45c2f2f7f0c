//! tgtd's management socket: one request, one answer, then it closes.
//!
//! Owns: the bytes of tgt 1.0's `struct tgtadm_req` and `tgtadm_rsp` (usr/tgtadm.h, native endian and padding of
//! x86-64). Spoken directly rather than through tgtadm, since tgtadm takes CHAP secrets on its command line, where
//! every user of the machine can read them, and costs a process for each of the dozen requests of a move.

use std::fmt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Where tgtd keeps its sockets (usr/tgtadm.h, TGT_IPC_DIR).
pub(super) const SOCKET_DIR: &str = "/var/run/tgtd";
/// Size of `struct tgtadm_req` on x86-64.
const REQUEST_BYTES: usize = 120;
/// tgtd drops a request with more text than this (usr/mgmt.c, MAX_MGT_BUFSIZE).
const TEXT_BYTES_MAX: usize = 8192;
/// Far above any answer of tgtd about 10,000 targets.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// tgtd answers from one thread that never blocks for long; silence means that it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// `enum tgtadm_op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    New = 0,
    Delete = 1,
    Show = 2,
    Bind = 3,
    Unbind = 4,
}

/// `enum tgtadm_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    System = 0,
    Target = 1,
    Device = 2,
    Connection = 6,
    Account = 7,
}

/// What is asked; fields that a request does not need stay as [`Request::new`] sets them.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) mode: Mode,
    pub(super) op: Op,
    /// Target; -1 for all.
    pub(super) tid: i32,
    /// Session.
    pub(super) sid: u64,
    pub(super) lun: u64,
    /// Connection.
    pub(super) cid: u32,
    pub(super) force: bool,
    /// `key=value,…`
    pub(super) text: String,
}

impl Request {
    pub(super) fn new(mode: Mode, op: Op) -> Self {
        Self { mode, op, tid: -1, sid: 0, lun: u64::MAX, cid: 0, force: false, text: String::new() }
    }

    fn bytes(&self) -> Vec<u8> {
        // tgtadm sends its text with the closing NUL, and tgtd relies on it.
        let text_bytes = if self.text.is_empty() { 0 } else { self.text.len() + 1 };
        let total_bytes = u32::try_from(REQUEST_BYTES + text_bytes).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(REQUEST_BYTES + text_bytes);
        bytes.extend((self.mode as u32).to_ne_bytes());
        bytes.extend((self.op as u32).to_ne_bytes());
        let mut lld = [0; 64];
        lld[..5].copy_from_slice(b"iscsi");
        bytes.extend(lld);
        bytes.extend(total_bytes.to_ne_bytes());
        bytes.extend(self.tid.to_ne_bytes());
        bytes.extend(self.sid.to_ne_bytes());
        bytes.extend(self.lun.to_ne_bytes());
        bytes.extend(self.cid.to_ne_bytes());
        let (host_no, device_type, ac_dir, pack) = (0_u32, 0_u32, 0_u32, 0_u32);
        for word in [host_no, device_type, ac_dir, pack, u32::from(self.force)] {
            bytes.extend(word.to_ne_bytes());
        }
        debug_assert_eq!(bytes.len(), REQUEST_BYTES);
        if text_bytes > 0 {
            bytes.extend(self.text.as_bytes());
            bytes.push(0);
        }
        bytes
    }
}

/// `enum tgtadm_errno`, as far as it is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// No such target.
    NoTarget,
    /// No such session.
    NoSession,
    /// No such connection.
    NoConnection,
    /// The target number is taken.
    TargetExist,
    /// The LUN is there.
    LunExist,
    /// The access rule is there.
    AclExist,
    /// No such access rule.
    AclNoexist,
    /// The account is there.
    UserExist,
    /// No such account.
    NoUser,
    /// Another, by its number.
    Other(u32),
}

impl Code {
    fn of(number: u32) -> Self {
        match number {
            4 => Self::NoTarget,
            6 => Self::NoSession,
            7 => Self::NoConnection,
            9 => Self::TargetExist,
            10 => Self::LunExist,
            12 => Self::AclExist,
            13 => Self::AclNoexist,
            14 => Self::UserExist,
            15 => Self::NoUser,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTarget => f.write_str("no such target"),
            Self::NoSession => f.write_str("no such session"),
            Self::NoConnection => f.write_str("no such connection"),
            Self::TargetExist => f.write_str("the target is there already"),
            Self::LunExist => f.write_str("the LUN is there already"),
            Self::AclExist => f.write_str("the access rule is there already"),
            Self::AclNoexist => f.write_str("no such access rule"),
            Self::UserExist => f.write_str("the account is there already"),
            Self::NoUser => f.write_str("no such account"),
            Self::Other(number) => write!(f, "tgtadm error {number}"),
        }
    }
}

/// Why tgtd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum MgmtError {
    /// It cannot be reached.
    #[error("tgtd at {path} cannot be reached: {err}")]
    Unreachable {
        /// Its socket.
        path: String,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// It refused.
    #[error("tgtd refused: {0}")]
    Refused(Code),
    /// The request is longer than it takes.
    #[error("a request of {bytes} bytes is longer than the {TEXT_BYTES_MAX} that tgtd takes")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl MgmtError {
    /// Whether tgtd has ended: nobody listens at its socket any more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Unreachable { err, .. } if err.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// The way to one tgtd.
#[derive(Debug, Clone)]
pub(super) struct Mgmt {
    path: String,
}

impl Mgmt {
    pub(super) fn new(control_port: u16) -> Self {
        Self { path: format!("{SOCKET_DIR}/socket.{control_port}") }
    }

    /// Asks and returns the answer's text, empty for most requests.
    pub(super) async fn ask(&self, request: Request) -> Result<String, MgmtError> {
        if request.text.len() >= TEXT_BYTES_MAX {
            return Err(MgmtError::TooLong { bytes: request.text.len() });
        }
        let unreachable = |err| MgmtError::Unreachable { path: self.path.clone(), err };
        let (code, text) = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(&request))
            .await
            .map_err(|_| unreachable(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")))?
            .map_err(unreachable)?;
        if code == 0 { Ok(text) } else { Err(MgmtError::Refused(Code::of(code))) }
    }

    async fn exchange(&self, request: &Request) -> io::Result<(u32, String)> {
        let mut socket = UnixStream::connect(&self.path).await?;
        socket.write_all(&request.bytes()).await?;
        let code = socket.read_u32_le().await?;
        let total_bytes = socket.read_u32_le().await? as usize;
        // The length counts the header of 8 bytes too.
        let text_bytes = total_bytes.saturating_sub(8);
        if text_bytes > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an answer of {text_bytes} bytes")));
        }
        let mut text = vec![0; text_bytes];
        socket.read_exact(&mut text).await?;
        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        text.truncate(end);
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_tgts_layout() {
        let request = Request {
            tid: 7,
            sid: 9,
            lun: 1,
            cid: 3,
            force: true,
            text: "a=b".into(),
            ..Request::new(Mode::Account, Op::Bind)
        };
        let bytes = request.bytes();
        assert_eq!(bytes.len(), 124);
        assert_eq!(bytes[..8], [7, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(&bytes[8..14], b"iscsi\0");
        assert_eq!(bytes[72..84], [124, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!((bytes[88], bytes[96], bytes[116]), (1, 3, 1));
        assert_eq!(&bytes[120..], b"a=b\0");
    }
}
