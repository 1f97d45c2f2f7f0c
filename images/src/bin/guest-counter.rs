//! Runs in the test guest: `guest-counter DISK PAGE` writes rising numbers to the disk, each durable before the next,
//! and says in PAGE how far it is.

use images::counter::{RING_OFFSET, SLOT_BYTES, SLOTS, decode, encode, offset};
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
    let mut number = newest(&disk)?;
    println!("guest-counter: going on after {number}");
    let mut said = Instant::now();
    loop {
        number += 1;
        disk.write_all_at(&encode(number), offset(number))?;
        disk.sync_data()?;
        if said.elapsed() > Duration::from_millis(500) {
            said = Instant::now();
            let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            // Renamed into place, so that a reader never sees half a line.
            let beside = page.with_extension("new");
            fs::write(
                &beside,
                format!("{} counter {number} uptime {}\n", name.trim(), uptime.split(' ').next().unwrap_or("?")),
            )?;
            fs::rename(&beside, page)?;
        }
        std::thread::sleep(PAUSE);
    }
}

fn newest(disk: &File) -> io::Result<u64> {
    let mut newest = 0;
    let mut sector = [0; SLOT_BYTES];
    for slot in 0..SLOTS {
        disk.read_exact_at(&mut sector, RING_OFFSET + slot * SLOT_BYTES as u64)?;
        newest = newest.max(decode(&sector).unwrap_or(0));
    }
    Ok(newest)
}
