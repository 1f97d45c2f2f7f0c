//! TFTP: clients that fetch the loader again and again (RFC 1350, 2347 to 2349, 7440).

use super::field::{Client, join};
use super::side::LOADER;
use anyhow::{Context, Result, bail, ensure};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// As EDK2 asks.
const BLOCK_BYTES: usize = 1468;
/// Without an answer for so long a client says again what it said last.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u32 = 8;

/// One file: what came, the window that was agreed on, and how often something was lost.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) window: u16,
    pub(super) again: u32,
}

/// Fetches the loader.
pub(super) fn fetch(from: Ipv4Addr, to: SocketAddr, window: u16) -> Result<Fetched> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_read_timeout(Some(AGAIN))?;
    let mut said = vec![0, 1];
    let (block, wanted) = (BLOCK_BYTES.to_string(), window.to_string());
    let mut words = vec![LOADER, "octet", "tsize", "0", "blksize", &block];
    if window > 1 {
        words.extend(["windowsize", &wanted]);
    }
    for word in words {
        said.extend_from_slice(word.as_bytes());
        said.push(0);
    }
    let mut server = to;
    let mut fetched = Fetched { bytes: Vec::new(), window: 1, again: 0 };
    let (mut block_bytes, mut last, mut in_window, mut tries) = (512, 0u16, 0, 0);
    let mut packet = [0; 2048];
    socket.send_to(&said, server)?;
    loop {
        let (length, sender) = match socket.recv_from(&mut packet) {
            Ok(received) => received,
            Err(err) if matches!(err.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {
                (tries, fetched.again) = (tries + 1, fetched.again + 1);
                ensure!(tries < TRIES, "no answer to {TRIES} tries");
                socket.send_to(&said, server)?;
                continue;
            }
            Err(err) => return Err(err).context("receiving"),
        };
        tries = 0;
        match packet[..length] {
            [0, 6, ref options @ ..] => {
                server = sender;
                let words: Vec<_> = options.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
                for pair in words.chunks_exact(2) {
                    match pair[0].to_ascii_lowercase().as_str() {
                        "blksize" => block_bytes = pair[1].parse()?,
                        "windowsize" => fetched.window = pair[1].parse()?,
                        _ => {}
                    }
                }
                said = vec![0, 4, 0, 0];
                socket.send_to(&said, server)?;
            }
            [0, 3, high, low, ref data @ ..] => {
                server = sender;
                let number = u16::from_be_bytes([high, low]);
                let mut acknowledge = number == last.wrapping_add(1);
                if acknowledge {
                    fetched.bytes.extend_from_slice(data);
                    (last, in_window) = (number, in_window + 1);
                    let end = data.len() < block_bytes;
                    acknowledge = end || in_window == fetched.window;
                    if acknowledge {
                        in_window = 0;
                        said = vec![0, 4, high, low];
                        socket.send_to(&said, server)?;
                    }
                    if end {
                        return Ok(fetched);
                    }
                } else if number != last {
                    // One was lost: what came in order so far (RFC 7440 §4).
                    in_window = 0;
                    let [high, low] = last.to_be_bytes();
                    said = vec![0, 4, high, low];
                    socket.send_to(&said, server)?;
                }
            }
            [0, 5, ref error @ ..] => bail!("the server says {}", String::from_utf8_lossy(error)),
            _ => bail!("a packet that is no TFTP: {:?}", &packet[..length.min(8)]),
        }
    }
}

/// What clients got.
pub(super) struct Load {
    pub(super) bytes_s: f64,
    pub(super) bytes: u64,
    pub(super) window: u16,
    pub(super) again: u64,
}

/// Whole files to so many clients at once.
pub(super) fn load(
    client: &Client,
    addresses: &[Ipv4Addr],
    to: SocketAddr,
    window: u16,
    time: Duration,
) -> Result<Load> {
    let stop = Arc::new(AtomicBool::new(false));
    let (total, again) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let mut threads = Vec::new();
    for &from in addresses {
        let (stop, total, again) = (stop.clone(), total.clone(), again.clone());
        threads.push(client.thread(move || {
            let mut agreed = 1;
            while !stop.load(Ordering::Relaxed) {
                let fetched = fetch(from, to, window)?;
                total.fetch_add(fetched.bytes.len() as u64, Ordering::Relaxed);
                again.fetch_add(fetched.again.into(), Ordering::Relaxed);
                agreed = fetched.window;
            }
            Ok(agreed)
        })?);
    }
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    let mut agreed = 1;
    for thread in threads {
        agreed = join(thread)?;
    }
    // The last file of each is whole too.
    let (bytes, took) = (total.load(Ordering::Relaxed), began.elapsed());
    let again = again.load(Ordering::Relaxed);
    Ok(Load { bytes_s: bytes as f64 / took.as_secs_f64(), bytes, window: agreed, again })
}
