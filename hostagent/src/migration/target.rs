//! The target's end of a stream.
//!
//! Owns: the migration port while a permit is live, `xl migrate-receive`, holding READY back. Never does: letting the guest run.

use super::{ANSWER_S, Answer, READ_BYTES, XL_ENDS_S, broke, line, tune, within};
use crate::crash;
use crate::frame::{self, Frame, Note};
use crate::hypervisor::xl::{Xl, can_be_done_again, kill, orphan};
use crate::hypervisor::{Completion, OpResult, Progress};
use crate::identity::common_name;
use crate::permit;
use crate::stats::uptime_ms;
use proto::agent::{Permit, SignedPermit, Stage};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes at once, so that one that dawdles does not keep the source out.
const HANDSHAKES_MAX: usize = 8;

/// What xl migrate-receive says first (tools/xl/xl.h, migrate_receiver_banner), without the final zero.
const BANNER: &[u8] = b"xl migration receiver ready, send binary domain data.\n";
/// What it says when the guest is here whole (migrate_receiver_ready), with the final zero.
const READY: &[u8] = b"domain received, ready to unpause\0";

/// Awaits the guest; see [`crate::hypervisor::Op::Receive`]. `cancel` ends it as a failure.
pub async fn receive(
    xl: &Arc<Xl>,
    permit: &Permit,
    cancel: oneshot::Receiver<()>,
    progress: impl Fn(Progress),
) -> OpResult {
    let mut begun = false;
    let result = tokio::select! {
        result = whole(xl, permit, &progress, &mut begun) => result,
        _ = cancel => Err("called off".to_owned()),
    };
    match result {
        Ok(done) => Ok(done),
        Err(why) => {
            // Whatever came of it must not stay: its xl has been killed or has ended.
            if begun && let Err(e) = xl.destroy(&permit.vm).await {
                tracing::error!(vm = %permit.vm, error = e.detail, "an incoming domain may be left");
            }
            Err(broke("receiving", &permit.vm, why))
        }
    }
}

async fn whole(
    xl: &Arc<Xl>,
    permit: &Permit,
    progress: &impl Fn(Progress),
    begun: &mut bool,
) -> Result<Completion, String> {
    orphan::none_left(&["migrate-receive"]).await;
    let port = permit.target_port;
    let listener = listen(port).map_err(|e| format!("listening on port {port}: {e}"))?;
    crash::point("receive.listening");
    progress(Progress { stage: Stage::Listening, bytes: 0 });
    let left_ms = permit.expires_ms.saturating_sub(xl.identity().clock.unix_ms());
    let accepting = tokio::time::timeout(Duration::from_millis(left_ms), accept(xl, permit, &listener));
    let stream = accepting.await.map_err(|_| "its permit ended before the stream came".to_owned())??;
    drop(listener);
    *begun = true;
    crash::point("receive.let-in");

    let mut command = Command::new("xl");
    command.args(["migrate-receive", "-e"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command.stderr(Xl::said_file(&permit.vm).map_err(|e| format!("keeping what xl says: {e}"))?);
    let mut child = command.spawn().map_err(|e| format!("starting xl migrate-receive: {e}"))?;
    can_be_done_again(&child);
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else { return Err("xl has no pipes".to_owned()) };
    progress(Progress { stage: Stage::Copying, bytes: 0 });
    let mut reception = Reception { stream, bytes: 0, stopped_ms: None };
    match reception.run(&mut child, stdin, stdout, progress).await {
        Ok(()) => {
            let stopped_ms = reception.stopped_ms.unwrap_or_else(uptime_ms);
            Ok(Completion::Received { bytes: reception.bytes, stopped_ms })
        }
        Err(why) => {
            let why = format!("{why}; xl: {}", xl.said(&permit.vm));
            let note = Note::Failed { why: why.chars().take(300).collect() };
            let _ = within(2, frame::write_note(&mut reception.stream, &note)).await;
            // Its pipes are closed: it destroys what it made, and ends.
            if within(XL_ENDS_S, child.wait()).await.is_err() {
                kill(&mut child).await;
            }
            Err(why)
        }
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.listen(16)
}

/// The first connection that shows the permit.
async fn accept(xl: &Arc<Xl>, permit: &Permit, listener: &TcpListener) -> Result<TlsStream<TcpStream>, String> {
    let config = xl.identity().server().map_err(|e| e.to_string())?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut handshakes: JoinSet<Result<TlsStream<TcpStream>, String>> = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => {
                let (tcp, from) = accepted.map_err(|e| format!("accepting on port {}: {e}", permit.target_port))?;
                let (acceptor, xl, permit) = (acceptor.clone(), xl.clone(), permit.clone());
                handshakes.spawn(async move {
                    let shaken = within(ANSWER_S, handshake(&xl, &permit, &acceptor, tcp)).await;
                    shaken.and_then(|r| r).map_err(|why| format!("{from}: {why}"))
                });
            }
            Some(shaken) = handshakes.join_next() => match shaken {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(why)) => tracing::warn!(vm = %permit.vm, why, "a connection to the migration port was refused"),
                Err(e) => tracing::error!(%e, "a handshake's task"),
            },
        }
    }
}

async fn handshake(
    xl: &Xl,
    permit: &Permit,
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    tune(&tcp).map_err(|e| format!("preparing the connection: {e}"))?;
    let mut stream = acceptor.accept(tcp).await.map_err(|e| format!("TLS: {e}"))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
    let peer = certificate.map(common_name).ok_or("no certificate")?.map_err(|e| e.to_string())?;
    let shown = line(&mut stream).await.map_err(|e| format!("reading the permit: {e}"))?;
    let signed: Result<SignedPermit, _> = serde_json::from_str(&shown);
    let identity = xl.identity();
    let checked = signed.map_err(|e| e.to_string()).and_then(|signed| {
        let now_ms = identity.clock.unix_ms();
        permit::check(&signed, permit, &peer, &identity.ca.key, now_ms).map_err(|e| e.to_string())
    });
    let answer = match &checked {
        Ok(()) => Answer { ok: true, why: String::new() },
        Err(why) => Answer { ok: false, why: why.clone() },
    };
    let mut text = serde_json::to_vec(&answer).map_err(|e| e.to_string())?;
    text.push(b'\n');
    stream.write_all(&text).await.map_err(|e| format!("answering: {e}"))?;
    stream.flush().await.map_err(|e| format!("answering: {e}"))?;
    checked.map(|()| stream).map_err(|why| format!("the permit that {peer} shows: {why}"))
}

struct Reception {
    stream: TlsStream<TcpStream>,
    bytes: u64,
    stopped_ms: Option<u64>,
}

impl Reception {
    /// Until the guest is here whole and the source has said its word.
    async fn run(
        &mut self,
        child: &mut Child,
        mut stdin: ChildStdin,
        mut stdout: ChildStdout,
        progress: &impl Fn(Progress),
    ) -> Result<(), String> {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let (bytes, stopped_ms) = (&mut self.bytes, &mut self.stopped_ms);
        let feeding = async {
            let mut shown = Instant::now();
            loop {
                match frame::read(&mut reader).await {
                    Ok(Some(Frame::Stream(part))) => {
                        stdin.write_all(&part).await.map_err(|e| format!("writing to xl migrate-receive: {e}"))?;
                        *bytes += part.len() as u64;
                        crash::point("receive.copying");
                        if shown.elapsed() >= Duration::from_millis(500) {
                            shown = Instant::now();
                            let stage = if stopped_ms.is_some() { Stage::Stopped } else { Stage::Copying };
                            progress(Progress { stage, bytes: *bytes });
                        }
                    }
                    Ok(Some(Frame::Note(Note::Stopped { ago_ms }))) => {
                        *stopped_ms = Some(uptime_ms().saturating_sub(ago_ms));
                        tracing::info!(bytes = *bytes, "the guest stands still at the source");
                        crash::point("receive.stopped");
                        progress(Progress { stage: Stage::Stopped, bytes: *bytes });
                    }
                    Ok(Some(Frame::Note(Note::Frozen))) => return Ok(()),
                    Ok(Some(Frame::Note(other))) => return Err(format!("the source says {other:?}")),
                    Ok(None) => return Err("the source closed the connection".to_owned()),
                    Err(e) => return Err(super::lost("reading from the source", &e)),
                }
            }
        };
        let answering = async {
            let mut said = Vec::new();
            let mut buffer = vec![0; READ_BYTES.min(4096)];
            let mut passed = 0;
            while said.len() < BANNER.len() + READY.len() {
                let n = stdout.read(&mut buffer).await.map_err(|e| format!("reading from xl migrate-receive: {e}"))?;
                if n == 0 {
                    return Err("xl migrate-receive ended before the guest was whole".to_owned());
                }
                said.extend_from_slice(&buffer[..n]);
                // Only the banner goes to the source; READY is held back.
                let banner = &said[passed.min(said.len())..said.len().min(BANNER.len())];
                if !banner.is_empty() {
                    frame::write_stream(&mut writer, banner)
                        .await
                        .map_err(|e| format!("writing to the source: {e}"))?;
                    writer.flush().await.map_err(|e| format!("writing to the source: {e}"))?;
                    passed += banner.len();
                }
            }
            if said != [BANNER, READY].concat() {
                let strange = said.escape_ascii().to_string();
                return Err(format!("xl migrate-receive says {strange:?}: not as Xen 4.17 speaks"));
            }
            // It would destroy its copy when this agent's pipes end; all that it has left to do is to wait.
            crash::point("receive.whole");
            kill(child).await;
            crash::point("receive.held");
            tracing::info!("the guest is here whole; READY is held back");
            frame::write_note(&mut writer, &Note::Ready).await.map_err(|e| format!("writing to the source: {e}"))
        };
        tokio::pin!(feeding);
        tokio::select! {
            fed = &mut feeding => return fed.and(Err("the source says its word before it was asked".to_owned())),
            answered = answering => answered?,
        }
        within(ANSWER_S, feeding).await?
    }
}
