//! A guest's stream from host to host, between two `xl` that know nothing of it.
//!
//! ```text
//!  source                                                        target
//!  xl migrate -s ""  ── carry ── agent ══ TLS 1.3, frames ══ agent ── xl migrate-receive
//!                        stream ──────────────────────────────>
//!            guest suspended: Stopped ────────────────────────>
//!                                                              READY seen: its xl is killed, the guest stays, paused
//!                        <──────────────────────────── Ready
//!  its xl is killed, the guest stays, suspended
//!                      Frozen ────────────────────────────────>  noted, then told to the server
//! ```
//! Owns: both ends of a stream. Never does: deciding where a guest runs. [`source`] and [`target`] are the two ends.
//!
//! Why xl is killed at both ends. Left alive, the source's xl takes the end of its pipe for a failure and *resumes the guest*, and the target's takes it for a
//! failure and *destroys its copy*: an agent that dies after the owner has changed would then make the guest run twice, or nowhere. xl has nothing
//! left to do by then that an agent cannot: READY is written after everything was received and the devices are there
//! (tools/xl/xl_migrate.c, migrate_receive), and is not even sent to the source. What remains is a suspended guest here and a paused one
//! there; each waits for an order, whatever dies. Until `Frozen` was sent every fault ends with xl resuming the guest at the source.

pub mod source;
pub mod target;

use crate::agent::failure;
use proto::agent::{Failure, FailureKind};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

/// The most that is read at once.
const READ_BYTES: usize = 128 * 1024;

/// A handshake, a note that answers one.
const ANSWER_S: u64 = 15;

/// How long xl may take to clean up after its stream was closed.
const XL_ENDS_S: u64 = 90;

/// A permit's line.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// What the target says to a permit.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
}

/// A peer that no longer answers is noticed within about ten seconds, in either direction.
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &4)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &2)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &10_000)?;
    Ok(())
}

/// One line, without its end.
async fn line<R: AsyncRead + Unpin>(from: &mut R) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        match from.read_u8().await? {
            b'\n' => break,
            _ if bytes.len() == LINE_BYTES_MAX => return Err(std::io::ErrorKind::InvalidData.into()),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

/// A stream's failure: what was attempted, on what, and why.
fn broke(what: &str, vm: &impl Display, why: impl Display) -> Failure {
    failure(FailureKind::Stream, format!("{what} {vm}: {why}"))
}

/// A connection's fault, in few words: rustls explains an end without `close_notify` at length, and it is the usual end of a killed peer.
fn lost(what: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => format!("{what}: the connection has ended"),
        _ => format!("{what}: {error}"),
    }
}

async fn within<T>(seconds: u64, what: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(Duration::from_secs(seconds), what).await.map_err(|_| format!("no answer within {seconds} s"))
}
