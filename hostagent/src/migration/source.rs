//! The source's end of a stream.
//!
//! Owns: `xl migrate`, the connection to the target, the rate. Never does: resuming by itself a guest whose target was told `Frozen`.

use super::{ANSWER_S, Answer, READ_BYTES, XL_ENDS_S, broke, line, tune, within};
use crate::agent::failure;
use crate::frame::{self, Frame, Note};
use crate::hypervisor::xl::{RUN, Xl, can_be_done_again, exe, kill, orphan};
use crate::hypervisor::{Completion, OpResult, Progress};
use crate::identity::common_name;
use crate::{carry, crash};
use proto::VmId;
use proto::agent::{DomainState, Failure, FailureKind, Permit, SignedPermit, Stage};
use rustls::pki_types::{IpAddr, ServerName};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixListener, unix::pipe};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Sends the guest; see [`crate::hypervisor::Op::Send`]. `cancel` ends it as a failure.
pub async fn send(
    xl: &Arc<Xl>,
    permit: &Permit,
    signed: &SignedPermit,
    rate_bytes_s: u64,
    cancel: oneshot::Receiver<()>,
    progress: impl Fn(Progress),
) -> OpResult {
    let vm = &permit.vm;
    none_left(vm).await;
    let domid = xl.resident(vm)?;
    let stream = connect(xl, permit, signed).await?;
    crash::point("send.let-in");
    let (reader, writer) = tokio::io::split(stream);
    let socket = socket(vm);
    let (mut child, transport) = start(vm, domid, &socket).await.inspect_err(|_| {
        // Nobody comes to it any more.
        let _ = std::fs::remove_file(&socket);
    })?;
    let begun = Instant::now();
    progress(Progress { stage: Stage::Copying, bytes: 0 });

    let sent = AtomicU64::new(0);
    let (freeze, frozen) = oneshot::channel();
    let Transport { mut from_xl, mut to_xl, agent: held } = transport;
    let pump = Pump { xl, domid, rate_bytes_s, sent: &sent, progress: &progress }.run(&mut from_xl, writer, frozen);
    let stopping = async {
        tokio::select! {
            // The target's word first: when xl has ended as well, it ended because it was killed below.
            biased;
            ready = listen(reader, &mut to_xl) => ready,
            ended = child.wait() => Err(format!("xl migrate ended early ({ended:?}): {}", xl.said(vm))),
            _ = cancel => Err("called off".to_owned()),
        }?;
        tracing::info!(%vm, ms = begun.elapsed().as_millis() as u64, "the target holds the guest");
        crash::point("send.held-there");
        if xl.state(domid) != Some(DomainState::Suspended) {
            return Err("the target is ready, but the guest is not suspended here".to_owned());
        }
        // From here on nobody at this host would resume the guest but by order.
        kill(&mut child).await;
        if xl.state(domid) != Some(DomainState::Suspended) {
            return Err("the guest did not stay suspended when xl ended".to_owned());
        }
        crash::point("send.frozen");
        let _ = freeze.send(());
        Ok(())
    };
    let result: Result<(), String> = {
        tokio::pin!(pump);
        tokio::pin!(stopping);
        tokio::select! {
            biased;
            stopped = &mut stopping => match stopped {
                // Whether or not the word gets through: it may have, so the guest stays as it is until an order comes.
                Ok(()) => {
                    if let Err(why) = pump.await {
                        tracing::warn!(%vm, why, "the word may not have reached the target");
                    }
                    Ok(())
                }
                Err(why) => Err(why),
            },
            ended = &mut pump => match ended {
                Ok(()) => Err("the stream ended before the target was ready".to_owned()),
                // A pipe or connection that broke: the target may have said why just before.
                Err(why) => match within(2, &mut stopping).await {
                    Ok(Err(said)) => Err(format!("{why}; {said}")),
                    Ok(Ok(())) | Err(_) => Err(why),
                },
            },
        }
    };
    // xl resumes a guest that stands still as soon as its pipes end. Whether this one may run is for the agent to say: it may have no lease.
    if result.is_err() && xl.state(domid) == Some(DomainState::Suspended) {
        kill(&mut child).await;
    }
    drop((from_xl, to_xl, held));
    let _ = std::fs::remove_file(&socket);
    match result {
        Ok(()) => {
            let total_ms = begun.elapsed().as_millis() as u64;
            Ok(Completion::Sent { bytes: sent.load(Ordering::Relaxed), total_ms })
        }
        Err(why) => {
            // Its pipes are closed: xl ends, and its guest runs on if it ran.
            if within(XL_ENDS_S, child.wait()).await.is_err() {
                kill(&mut child).await;
            }
            Err(broke("sending", vm, why))
        }
    }
}

/// Waits until no `xl` of an earlier agent sends this guest any more.
pub async fn none_left(vm: &VmId) {
    orphan::none_left(&["migrate", &carry_command(vm)]).await;
}

/// Where the agent awaits the carry of a VM's stream: one at a time.
fn socket(vm: &VmId) -> PathBuf {
    Path::new(RUN).join(format!("carry-{vm}.sock"))
}

/// What xl starts as its transport. Nothing else in its arguments names the VM.
fn carry_command(vm: &VmId) -> String {
    format!("exec {} carry {}", exe().display(), socket(vm).display())
}

/// The guest by its number: xl takes a name of digits for one.
fn arguments(vm: &VmId, domid: u16) -> [String; 6] {
    ["migrate", "-e", "-s", "", &domid.to_string(), &carry_command(vm)].map(str::to_owned)
}

async fn connect(xl: &Xl, permit: &Permit, signed: &SignedPermit) -> Result<TlsStream<TcpStream>, Failure> {
    let vm = &permit.vm;
    let identity = xl.identity();
    let config = identity.client(&[]).map_err(|e| failure(FailureKind::Tool, e.to_string()))?;
    let address = (permit.target_address, permit.target_port);
    let opening = async {
        let tcp = TcpStream::connect(address).await.map_err(|e| format!("connecting to {address:?}: {e}"))?;
        tune(&tcp).map_err(|e| format!("preparing the connection: {e}"))?;
        let name = ServerName::IpAddress(IpAddr::V4(permit.target_address.into()));
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, tcp).await.map_err(|e| format!("TLS with {address:?}: {e}"))?;
        let peer = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(common_name);
        match peer {
            Some(Ok(host)) if host == permit.target => {}
            other => return Err(format!("{address:?} is not {}: {other:?}", permit.target)),
        }
        let mut text = serde_json::to_vec(signed).map_err(|e| e.to_string())?;
        text.push(b'\n');
        stream.write_all(&text).await.map_err(|e| format!("showing the permit: {e}"))?;
        stream.flush().await.map_err(|e| format!("showing the permit: {e}"))?;
        let answer = line(&mut stream).await.map_err(|e| format!("awaiting the answer to the permit: {e}"))?;
        match serde_json::from_str::<Answer>(&answer) {
            Ok(Answer { ok: true, .. }) => Ok(stream),
            Ok(Answer { why, .. }) => Err(format!("{} refuses: {why}", permit.target)),
            Err(e) => Err(format!("{} answers strangely: {e}", permit.target)),
        }
    };
    within(ANSWER_S, opening).await.and_then(|r| r).map_err(|why| broke("sending", vm, why))
}

struct Transport {
    from_xl: pipe::Receiver,
    to_xl: pipe::Sender,
    /// Until this is dropped, carry waits.
    agent: tokio::net::UnixStream,
}

async fn start(vm: &VmId, domid: u16, socket: &Path) -> Result<(Child, Transport), Failure> {
    let failed = |what: &str, e: std::io::Error| broke("sending", vm, format!("{what}: {e}"));
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(|e| failed("making carry's socket", e))?;
    let mut command = Command::new("xl");
    command.args(arguments(vm, domid)).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Xl::said_file(vm).map_err(|e| failed("keeping what xl says", e))?);
    let mut child = command.spawn().map_err(|e| failed("starting xl migrate", e))?;
    can_be_done_again(&child);
    let accepted = tokio::select! {
        accepted = listener.accept() => accepted.map_err(|e| failed("awaiting carry", e)),
        ended = child.wait() => {
            Err(broke("sending", vm, format!("xl migrate ended at once ({ended:?}): {}", Xl::said_in(vm))))
        }
        () = tokio::time::sleep(Duration::from_secs(60)) => Err(broke("sending", vm, "carry was not started in 60 s")),
    };
    let agent = match accepted {
        Ok((agent, _)) => agent,
        Err(why) => {
            kill(&mut child).await;
            return Err(why);
        }
    };
    let taken = async {
        // Readiness may be announced too early: then it is awaited again.
        let (input, output): (OwnedFd, OwnedFd) =
            agent.async_io(tokio::io::Interest::READABLE, || carry::take(&agent)).await?;
        Ok((pipe::Receiver::from_owned_fd(input)?, pipe::Sender::from_owned_fd(output)?))
    };
    let taken: std::io::Result<_> = taken.await;
    match taken {
        Ok((from_xl, to_xl)) => Ok((child, Transport { from_xl, to_xl, agent })),
        Err(e) => {
            kill(&mut child).await;
            Err(failed("taking xl's stream", e))
        }
    }
}

/// From the target: bytes for xl until `Ready`.
async fn listen(mut reader: ReadHalf<TlsStream<TcpStream>>, to_xl: &mut pipe::Sender) -> Result<(), String> {
    loop {
        match frame::read(&mut reader).await {
            Ok(Some(Frame::Stream(bytes))) => {
                to_xl.write_all(&bytes).await.map_err(|e| format!("writing to xl migrate: {e}"))?;
            }
            Ok(Some(Frame::Note(Note::Ready))) => return Ok(()),
            Ok(Some(Frame::Note(Note::Failed { why }))) => return Err(format!("the target: {why}")),
            Ok(Some(Frame::Note(other))) => return Err(format!("the target says {other:?}")),
            Ok(None) => return Err("the target closed the connection".to_owned()),
            Err(e) => return Err(super::lost("reading from the target", &e)),
        }
    }
}

struct Pump<'a, P> {
    xl: &'a Arc<Xl>,
    domid: u16,
    rate_bytes_s: u64,
    sent: &'a AtomicU64,
    progress: &'a P,
}

impl<P: Fn(Progress)> Pump<'_, P> {
    /// From xl to the target, with a note as soon as the guest stands still; ends well after `Frozen` was written.
    async fn run(
        self,
        from_xl: &mut pipe::Receiver,
        mut to: WriteHalf<TlsStream<TcpStream>>,
        mut frozen: oneshot::Receiver<()>,
    ) -> Result<(), String> {
        let lost = |e: std::io::Error| super::lost("writing to the target", &e);
        let mut changes = self.xl.changes();
        let mut buffer = vec![0; READ_BYTES];
        let mut bucket = Bucket::new(self.rate_bytes_s);
        let mut stopped = false;
        let mut ended = false;
        let mut shown = Instant::now();
        loop {
            tokio::select! {
                read = from_xl.read(&mut buffer), if !ended => match read {
                    // xl killed, or dead: which of both, `listen` and the child's end tell.
                    Ok(0) => ended = true,
                    Ok(n) => {
                        bucket.take(n).await;
                        frame::write_stream(&mut to, &buffer[..n]).await.map_err(lost)?;
                        // The target's xl acts on the last bytes of a record: they must not rest in a buffer.
                        to.flush().await.map_err(lost)?;
                        let bytes = self.sent.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
                        crash::point("send.copying");
                        if shown.elapsed() >= Duration::from_millis(500) {
                            shown = Instant::now();
                            let stage = if stopped { Stage::Stopped } else { Stage::Copying };
                            (self.progress)(Progress { stage, bytes });
                        }
                    }
                    Err(e) => return Err(format!("reading from xl migrate: {e}")),
                },
                _ = changes.changed(), if !stopped => {
                    let seen = Instant::now();
                    if self.xl.state(self.domid) == Some(DomainState::Suspended) {
                        stopped = true;
                        tracing::info!(domid = self.domid, bytes = self.sent.load(Ordering::Relaxed), "the guest stands still");
                        let ago_ms = seen.elapsed().as_millis() as u64;
                        frame::write_note(&mut to, &Note::Stopped { ago_ms }).await.map_err(lost)?;
                        crash::point("send.stopped");
                        (self.progress)(Progress { stage: Stage::Stopped, bytes: self.sent.load(Ordering::Relaxed) });
                    }
                }
                word = &mut frozen => return match word {
                    Ok(()) => {
                        frame::write_note(&mut to, &Note::Frozen).await.map_err(lost)?;
                        crash::point("send.word-given");
                        to.shutdown().await.map_err(lost)
                    }
                    Err(_) => Err("given up".to_owned()),
                },
            }
        }
    }
}

/// A limit of bytes a second, with bursts of a tenth of a second.
struct Bucket {
    bytes_s: u64,
    free_at: Instant,
}

impl Bucket {
    fn new(bytes_s: u64) -> Self {
        Self { bytes_s, free_at: Instant::now() }
    }

    async fn take(&mut self, bytes: usize) {
        if self.bytes_s == 0 {
            return;
        }
        let now = Instant::now();
        let burst = Duration::from_millis(100);
        self.free_at = self.free_at.max(now.checked_sub(burst).unwrap_or(now));
        self.free_at += Duration::from_secs_f64(bytes as f64 / self.bytes_s as f64);
        tokio::time::sleep_until(self.free_at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What xl is told, and whose it is taken for after a restart of the agent.
    #[test]
    fn a_guest_is_sent_by_its_number_and_known_by_its_carry() {
        let name = |name: &str| -> VmId { name.parse().expect("good") };
        for (vm, domid) in [("web", 7), ("4", 7), ("007", 8), ("migrate", 9), ("migrate-receive", 10)] {
            let told = arguments(&name(vm), domid);
            let carry = format!("exec {} carry /run/tsubame/carry-{vm}.sock", exe().display());
            assert_eq!(told, ["migrate", "-e", "-s", "", &domid.to_string(), &carry]);
            let line = [&["xl".to_owned()], &told[..]].concat().join("\0") + "\0";
            for other in ["web", "4", "7", "007", "migrate", "migrate-receive", "we"] {
                let taken = orphan::is_xl(line.as_bytes(), &["migrate", &carry_command(&name(other))]);
                assert_eq!(taken, vm == other, "{vm} for {other}");
            }
            assert!(!orphan::is_xl(line.as_bytes(), &["migrate-receive"]), "{vm}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept() {
        let begun = Instant::now();
        let mut bucket = Bucket::new(1_000_000);
        for _ in 0..100 {
            bucket.take(100_000).await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        assert!((9.8..=10.1).contains(&seconds), "10 MB at 1 MB/s took {seconds} s");
        let begun = Instant::now();
        Bucket::new(0).take(usize::MAX).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
