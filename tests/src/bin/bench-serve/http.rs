//! HTTP: clients that fetch the image again and again, each over a connection of its own.
//!
//! What is received is thrown away in the kernel (MSG_TRUNC), so that the clients cost little beside the server. Before, one
//! client fetches the whole and compares it.

use super::field::{Client, join};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{MsgFlags, recv};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Thrown away at once, bytes.
const TAKE_BYTES: usize = 1 << 20;
/// A client that gets nothing for so long is an error, not a figure.
const HANG: Duration = Duration::from_secs(60);

/// A connection to a server from one of the client's addresses.
pub(super) struct Fetch {
    stream: TcpStream,
    host: SocketAddr,
}

impl Fetch {
    pub(super) fn connect(from: Ipv4Addr, to: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            socket.connect(to).await?.into_std()
        });
        let stream = stream.with_context(|| format!("connecting from {from} to {to}"))?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(HANG))?;
        Ok(Self { stream, host: to })
    }

    /// Over a connection that is there.
    pub(super) fn over(stream: TcpStream, host: SocketAddr) -> Self {
        Self { stream, host }
    }

    /// Asks for a path; the length of what comes, and its first part.
    pub(super) fn begin(&mut self, path: &str) -> Result<(u64, Vec<u8>)> {
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host)?;
        let mut head = Vec::new();
        let mut part = [0; 4096];
        let end = loop {
            let count = self.stream.read(&mut part).context("waiting for an answer")?;
            ensure!(count > 0, "the connection was closed before the answer to {path}");
            head.extend_from_slice(&part[..count]);
            if let Some(at) = head.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let rest = head.split_off(end);
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{path} was answered by {head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        Ok((length.with_context(|| format!("no length for {path}: {head}"))?, rest))
    }

    /// Takes some of what comes, and throws it away.
    pub(super) fn discard(&mut self, left: u64, into: &mut [u8]) -> Result<u64> {
        let most = into.len().min(usize::try_from(left)?);
        match recv(self.stream.as_raw_fd(), &mut into[..most], MsgFlags::MSG_TRUNC).context("receiving")? {
            0 => bail!("the connection was closed with {left} bytes left"),
            count => Ok(count as u64),
        }
    }

    /// The whole body.
    pub(super) fn whole(&mut self, path: &str) -> Result<Vec<u8>> {
        let (length, mut body) = self.begin(path)?;
        let left = length - body.len() as u64;
        Read::by_ref(&mut self.stream).take(left).read_to_end(&mut body)?;
        ensure!(body.len() as u64 == length, "{path}: {} of {length} bytes", body.len());
        Ok(body)
    }
}

/// Bytes a second to so many clients at once, and bytes in all.
pub(super) fn load(
    client: &Client,
    addresses: &[Ipv4Addr],
    (to, path): &(SocketAddr, String),
    time: Duration,
) -> Result<(f64, u64)> {
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let mut threads = Vec::new();
    for &from in addresses {
        let (to, path, stop, total) = (*to, path.clone(), stop.clone(), total.clone());
        threads.push(client.thread(move || {
            let mut fetch = Fetch::connect(from, to)?;
            let mut nowhere = vec![0; TAKE_BYTES];
            while !stop.load(Ordering::Relaxed) {
                let (length, first) = fetch.begin(&path)?;
                let mut left = length - first.len() as u64;
                total.fetch_add(first.len() as u64, Ordering::Relaxed);
                while left > 0 && !stop.load(Ordering::Relaxed) {
                    let count = fetch.discard(left, &mut nowhere)?;
                    left -= count;
                    total.fetch_add(count, Ordering::Relaxed);
                }
            }
            Ok(())
        })?);
    }
    std::thread::sleep(time);
    let (bytes, took) = (total.load(Ordering::Relaxed), began.elapsed());
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().try_for_each(join)?;
    Ok((bytes as f64 / took.as_secs_f64(), bytes))
}
