//! Points at which a test has this server die by SIGKILL, to see what becomes of the moves that it was amid.
//!
//! Owns: when. With the feature `crash-points` only, which no release is built with; without it nothing of this is in the program. A point is
//! armed from outside: its name is written to the file that `TSUBAME_CRASH_AT` names. It strikes once, as the file goes first.
//!
//! A point is a step of a move and a moment. The steps are the move's record as it is about to be kept: its phase, and whether an order of that
//! phase has been given. The moments are `before-commit`, `committed` (durable, and nothing that relies on it let out) and `let-out`.

use rack::record::Change;

/// The moves' steps in one batch of changes.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    #[cfg(feature = "crash-points")]
    names: Vec<String>,
}

impl Steps {
    /// What is in these changes.
    #[cfg(feature = "crash-points")]
    pub(crate) fn of(changes: &[Change]) -> Self {
        use proto::view::MovePhase;
        use rack::record::Record;
        let name = |change: &Change| {
            let Some(Record::Move(record)) = &change.to else { return None };
            let phase = format!("{:?}", record.view.phase).to_lowercase();
            let told = match record.view.phase {
                MovePhase::Preparing | MovePhase::Activating => record.target_order.is_some(),
                MovePhase::Copying | MovePhase::Releasing => record.source_order.is_some(),
                _ => false,
            };
            let step = if record.sent && record.view.phase == MovePhase::Copying { "-sent" } else { "-told" };
            Some(if told { phase + step } else { phase })
        };
        Self { names: changes.iter().filter_map(name).collect() }
    }

    /// Dies here, if one of these steps is armed for this moment.
    #[cfg(feature = "crash-points")]
    pub(crate) fn point(&self, moment: &str) {
        use nix::sys::signal::{Signal, kill};
        let Some(file) = std::env::var_os("TSUBAME_CRASH_AT").filter(|_| !self.names.is_empty()) else { return };
        let armed = std::fs::read_to_string(&file).unwrap_or_default();
        for name in self.names.iter().map(|step| format!("{step}.{moment}")) {
            tracing::debug!(name, "crash point");
            if armed.trim() == name {
                // One that stays would strike again after the restart.
                std::fs::remove_file(&file).expect("a crash point's file can be removed");
                tracing::warn!(name, "crash point: killed by SIGKILL");
                let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
                // The signal may take a moment: nothing is to happen meanwhile.
                loop {
                    std::thread::park();
                }
            }
        }
    }

    /// Nothing.
    #[cfg(not(feature = "crash-points"))]
    #[inline(always)]
    pub(crate) fn of(_: &[Change]) -> Self {
        Self::default()
    }

    /// Nothing.
    #[cfg(not(feature = "crash-points"))]
    #[inline(always)]
    pub(crate) fn point(&self, _: &str) {}
}
