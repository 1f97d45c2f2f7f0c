//! Runs in the test guest: `guest-counter DISK PAGE` writes rising numbers to the disk, each durable before the next,
//! and says in PAGE how far it is.

use images::counter::{RING_OFFSET, Record, SLOT_BYTES, SLOTS, decode, encode, offset};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Fast enough that a move of a second shows in dozens of records, slow enough for an emulated rack.
const PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, disk, page] = arguments.as_slice() else {
        eprintln!("usage: guest-counter DISK PAGE");
        return ExitCode::from(2);
    };
    match count(Path::new(disk), Path::new(page)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("guest-counter: counting on {disk}: {err}");
            ExitCode::FAILURE
        }
    }
}

fn count(disk: &Path, page: &Path) -> io::Result<()> {
    let disk = OpenOptions::new().read(true).write(true).open(disk)?;
    let boot = boot()?;
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut number = newest(&disk)?;
    println!("guest-counter: going on after {number}");
    let mut said = Instant::now();
    loop {
        number += 1;
        let uptime = uptime()?;
        disk.write_all_at(&encode(&Record { number, boot, uptime }), offset(number))?;
        disk.sync_data()?;
        if said.elapsed() > Duration::from_millis(500) {
            said = Instant::now();
            // Renamed into place, so that a reader never sees half a line.
            let beside = page.with_extension("new");
            let (name, uptime_s, available_kib) = (name.trim(), uptime.as_secs_f64(), available_kib()?);
            let line = format!("{name} counter {number} uptime {uptime_s:.2} available {available_kib}\n");
            fs::write(&beside, line)?;
            fs::rename(&beside, page)?;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Drawn anew by the kernel at each boot.
fn boot() -> io::Result<u64> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).map_err(|err| io::Error::other(format!("boot_id is {id:?}: {err}")))
}

/// Of all that the guest can read, the clock that neither a migration nor a set date turns back.
fn uptime() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split(' ').next().and_then(|word| word.parse().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| io::Error::other(format!("/proc/uptime is {text:?}")))
}

/// Memory that could be had, KiB: a guest that loses some with each move dies of it in the end (proc(5), MemAvailable).
fn available_kib() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    line.and_then(|number| number.parse().ok()).ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))
}

fn newest(disk: &File) -> io::Result<u64> {
    let mut newest = 0;
    let mut sector = [0; SLOT_BYTES];
    for slot in 0..SLOTS {
        disk.read_exact_at(&mut sector, RING_OFFSET + slot * SLOT_BYTES as u64)?;
        newest = newest.max(decode(&sector).map_or(0, |record| record.number));
    }
    Ok(newest)
}
