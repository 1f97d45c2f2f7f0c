//! Forty machines switched on together behind one link of a gigabit a second.
//!
//! Each is a scripted client in a namespace of its own: DHCP as a ROM, the loader by TFTP, the script, and what it names by
//! HTTP; a script that says wait is obeyed. Beside it, what one plain TCP stream gets of the same link.

use super::field::{CARD, Client, Field, SERVER, join};
use super::http::Fetch;
use super::side::{Parts, Running, Side};
use super::{dhcp, tftp};
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use tests::network::{BRIDGE, inside};
use tests::process::run;

const MACHINES: usize = 40;
/// EDK2's.
const WINDOW: u16 = 4;
/// What the plain stream carries.
const PLAIN_BYTES: u64 = 512 << 20;
const HANG: Duration = Duration::from_secs(300);
/// What a gigabit a second carries of TCP's payload: 1,448 bytes in each frame of 1,514, as tc counts them.
pub(super) const LINK_BYTES_S: f64 = 125e6 * 1448.0 / 1514.0;

/// What one storm was.
pub(super) struct Storm {
    pub(super) bytes: u64,
    /// From power-on to each machine's last byte, in order of time.
    pub(super) took: Vec<Duration>,
    /// How often a machine was told to wait.
    pub(super) waits: u64,
    pub(super) plain_bytes_s: f64,
    pub(super) cpu: Duration,
    pub(super) peak_bytes: u64,
}

/// The machines, made once.
pub(super) fn machines(field: &Field) -> Result<Vec<Arc<Client>>> {
    (1..=MACHINES).map(|number| Ok(Arc::new(field.client(number, &[])?))).collect()
}

/// One storm.
pub(super) fn measure(field: &Field, parts: &Parts, machines: &[Arc<Client>]) -> Result<Storm> {
    let tc = |args: &[&str]| run(Command::new("tc").args(["-n", field.network.name(), "qdisc"]).args(args)).map(drop);
    tc(&["replace", "dev", BRIDGE, "root", "tbf", "rate", "1gbit", "burst", "256k", "latency", "50ms"])?;
    let plain_bytes_s = plain(field, &machines[0])?;
    let server = Running::start(Side::Ours, parts, field, "")?;
    server.forget_peak()?;
    let before = server.cost()?;
    let (_, image) = parts.url(Side::Ours, "dom0.squashfs")?;
    let power = Arc::new(Barrier::new(machines.len() + 1));
    let mut threads = Vec::new();
    for (number, machine) in machines.iter().enumerate() {
        let (power, own, image) = (power.clone(), machine.clone(), image.clone());
        threads.push(machine.thread(move || {
            power.wait();
            let began = Instant::now();
            let (bytes, waits) = boot(&own, number, &image).with_context(|| format!("machine {number}"))?;
            Ok((began.elapsed(), bytes, waits))
        })?);
    }
    power.wait();
    let mut storm = Storm { bytes: 0, took: Vec::new(), waits: 0, plain_bytes_s, cpu: Duration::ZERO, peak_bytes: 0 };
    for thread in threads {
        let (took, bytes, waits) = join(thread)?;
        storm.took.push(took);
        storm.bytes += bytes;
        storm.waits += waits;
    }
    storm.took.sort();
    let after = server.cost()?;
    (storm.cpu, storm.peak_bytes) = (after.cpu - before.cpu, after.peak_bytes);
    tc(&["del", "dev", BRIDGE, "root"])?;
    Ok(storm)
}

/// Bytes a second of one TCP stream over the same link, with nothing behind it.
fn plain(field: &Field, machine: &Client) -> Result<f64> {
    let at = SocketAddr::from((SERVER, 9));
    let listener = inside(field.network.handle(), move || Ok(TcpListener::bind(at)?))?;
    machine.ip(&format!("address add 10.64.0.9/12 dev {CARD}\n"))?;
    let send = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let piece = vec![0; 1 << 20];
        for _ in 0..PLAIN_BYTES >> 20 {
            stream.write_all(&piece)?;
        }
        Ok(())
    });
    let took = join(machine.thread(move || {
        let stream = TcpStream::connect(at)?;
        let (mut left, mut nowhere, mut began) = (PLAIN_BYTES, vec![0; 1 << 20], None);
        let mut fetch = Fetch::over(stream, at);
        while left > 0 {
            left -= fetch.discard(left, &mut nowhere)?;
            began.get_or_insert_with(Instant::now);
        }
        Ok(began.context("something came")?.elapsed())
    })?)?;
    join(send)?;
    machine.ip(&format!("address del 10.64.0.9/12 dev {CARD}\n"))?;
    Ok(PLAIN_BYTES as f64 / took.as_secs_f64())
}

/// A machine's way up: bytes of files that came, and how often it was told to wait.
fn boot(machine: &Client, number: usize, image: &str) -> Result<(u64, u64)> {
    let mac = [0x52, 0x54, 0, 0xdd, 0, u8::try_from(number)?];
    let own = dhcp::one(mac)?;
    machine.ip(&format!("address replace {own}/12 dev {CARD}\n"))?;
    let loader = tftp::fetch(own, SocketAddr::from((SERVER, 69)), WINDOW)?;
    let mut bytes = loader.bytes.len() as u64;
    let name = mac.map(|byte| format!("{byte:02x}")).join("-");
    let (to, path, began) = (SocketAddr::from((SERVER, 8080)), format!("/boot/{name}.ipxe"), Instant::now());
    let mut waits = 0;
    let mut nowhere = vec![0; 1 << 20];
    loop {
        ensure!(began.elapsed() < HANG, "it is told to wait for ever");
        // iPXE has a connection for each file.
        let script = String::from_utf8(Fetch::connect(own, to)?.whole(&path)?)?;
        let files: Vec<&str> = script.split_whitespace().filter(|word| word.contains("/b/")).collect();
        if files.is_empty() {
            let seconds = script.lines().find_map(|line| line.strip_prefix("sleep ")?.parse().ok());
            let Some(seconds) = seconds else { bail!("a script that neither boots nor waits: {script}") };
            waits += 1;
            std::thread::sleep(Duration::from_secs(seconds));
            continue;
        }
        // Its initrd fetches the image; what Linux takes to start is left out.
        for url in files.into_iter().chain([image]) {
            let path = url.find("/b/").map(|at| &url[at..]).context("it holds /b/")?;
            let mut fetch = Fetch::connect(own, to)?;
            let (length, first) = fetch.begin(path)?;
            let mut left = length - first.len() as u64;
            while left > 0 {
                left -= fetch.discard(left, &mut nowhere)?;
            }
            bytes += length;
        }
        return Ok((bytes, waits));
    }
}
