//! Points at which a test has this agent die by SIGKILL, to see what becomes of what it was amid.
//!
//! Owns: when. With the feature `crash-points` only, which no image but the tests' own is built with; without it nothing of this is in the
//! program. A point is armed from outside: its name is written to [`ARMED`]. It strikes once, as the file goes first.

use std::fmt::Display;

/// Where the name of the point stands that is to strike.
#[cfg(feature = "crash-points")]
pub(crate) const ARMED: &str = "/run/tsubame/crash-at";

/// Dies here, if this point is armed.
#[cfg(feature = "crash-points")]
pub(crate) fn point(name: impl Display) {
    use nix::sys::signal::{Signal, kill};
    let name = name.to_string();
    tracing::debug!(name, "crash point");
    if std::fs::read_to_string(ARMED).is_ok_and(|armed| armed.trim() == name) {
        // One that stays would strike again after the restart.
        std::fs::remove_file(ARMED).expect("a crash point's file can be removed");
        tracing::warn!(name, "crash point: killed by SIGKILL");
        let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
        // The signal may take a moment: nothing is to happen meanwhile.
        loop {
            std::thread::park();
        }
    }
}

/// Nothing.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn point(_: impl Display) {}
