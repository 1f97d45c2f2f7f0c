//! Reading the heartbeat disk: four times a second from the file behind it, or every second from the SAN's device.
//!
//! Owns: that reading. Never does: judge who lives; the rack does, and fences nobody for a reading that failed.

use crate::rack_task::{Clock, Handle};
use nix::libc;
use proto::heartbeat::{DISK_MIB, SLOT_BYTES, Slot};
use rack::event::Event;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// From the cut of a host to the reading that confirms it at most so long passes.
const EVERY: Duration = Duration::from_millis(250);
/// The same where each reading goes over the network.
const EVERY_OF_DEVICE: Duration = Duration::from_secs(1);
/// What a direct read must be aligned to (open(2), O_DIRECT): the largest block of any disk.
const ALIGNMENT: usize = 4096;

/// Reads until `stop` turns true.
pub async fn watch(file: PathBuf, clock: Clock, rack: Handle, mut stop: watch::Receiver<bool>) {
    let is_device = std::fs::metadata(&file).is_ok_and(|meta| meta.file_type().is_block_device());
    let mut every = tokio::time::interval(if is_device { EVERY_OF_DEVICE } else { EVERY });
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.wait_for(|&stop| stop) => return,
        }
        let read_mono_ms = clock.now().mono_ms;
        let path = file.clone();
        // What it reads from may hang for as long as the SAN is away.
        let reading =
            tokio::task::spawn_blocking(move || if is_device { read_device(&path) } else { std::fs::read(path) });
        match reading.await.unwrap_or_else(|lost| Err(io::Error::other(lost))) {
            Ok(bytes) => rack.tell(Event::Heartbeats { read_mono_ms, slots: slots(&bytes) }),
            Err(err) => rack.tell(Event::HeartbeatsUnread {
                why: format!("heartbeats cannot be read from {}: {err}", file.display()),
                gone: err.kind() == io::ErrorKind::NotFound,
            }),
        }
    }
}

/// Reads a device past this machine's own cache, which would show the same for ever: hosts write beside it.
fn read_device(path: &Path) -> io::Result<Vec<u8>> {
    let length = usize::try_from(DISK_MIB << 20).map_err(io::Error::other)?;
    let device = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut room = vec![0; length + ALIGNMENT];
    let from = room.as_ptr().align_offset(ALIGNMENT);
    let aligned = room.get_mut(from..from + length).ok_or(io::ErrorKind::OutOfMemory)?;
    let mut read = 0;
    while read < length {
        match device.read_at(&mut aligned[read..], read as u64)? {
            0 => return Err(io::Error::other(format!("it has {read} bytes, expected {length} or more"))),
            more => read += more,
        }
    }
    Ok(aligned.to_vec())
}

fn slots(bytes: &[u8]) -> Vec<(u32, Slot)> {
    (0..).zip(bytes.chunks_exact(SLOT_BYTES)).filter_map(|(at, bytes)| Some((at, Slot::decode(bytes)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_by_their_place() {
        let slot = Slot { host: "h525400aabb01".parse().expect("a name"), boot: "b".to_owned(), counter: 7 };
        let mut bytes = vec![0; 3 * SLOT_BYTES + 5];
        bytes[SLOT_BYTES..2 * SLOT_BYTES].copy_from_slice(&slot.encode());
        assert_eq!(slots(&bytes), [(1, slot)]);
    }

    #[test]
    fn a_device_is_read_past_the_cache_and_whole() {
        // Any file system with O_DIRECT will do: the alignment is what a device asks for.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on a disk");
        let path = dir.path().join("device");
        let slot = Slot { host: "h525400aabb01".parse().expect("a name"), boot: "b".to_owned(), counter: 7 };
        let mut bytes = vec![0; (DISK_MIB << 20) as usize];
        bytes[SLOT_BYTES..2 * SLOT_BYTES].copy_from_slice(&slot.encode());
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(slots(&read_device(&path).expect("read")), [(1, slot)]);
        std::fs::write(&path, &bytes[SLOT_BYTES..]).expect("written");
        let short = read_device(&path).expect_err("it is too short").to_string();
        assert!(short.contains("4190208 bytes"), "{short}");
    }
}
