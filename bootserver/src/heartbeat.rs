//! Reading the heartbeat disk: four times a second, from the file behind it.
//!
//! Owns: that reading. Never does: judge who lives; the rack does. A reading that fails is told to nobody, so nobody is fenced for it.

use crate::rack_task::{Clock, Handle};
use proto::heartbeat::{SLOT_BYTES, Slot};
use rack::event::Event;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// From the cut of a host to the reading that confirms it at most so long passes.
const EVERY: Duration = Duration::from_millis(250);

/// Reads until `stop` turns true.
pub async fn watch(file: PathBuf, clock: Clock, rack: Handle, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.wait_for(|&stop| stop) => return,
        }
        let read_mono_ms = clock.now().mono_ms;
        match tokio::fs::read(&file).await {
            Ok(bytes) => {
                said = false;
                rack.tell(Event::Heartbeats { read_mono_ms, slots: slots(&bytes) });
            }
            // It is made with the first start of the server.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) if said => tracing::debug!(file = %file.display(), %err, "reading heartbeats"),
            Err(err) => {
                said = true;
                tracing::error!(file = %file.display(), %err, "heartbeats cannot be read: no host can be fenced meanwhile");
            }
        }
    }
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
}
