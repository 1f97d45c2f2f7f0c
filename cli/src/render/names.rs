//! Words for states, and names for hosts.

use proto::HostId;
use proto::agent::Stage;
use proto::event::{Level, Topic};
use proto::host::Firmware;
use proto::view::{MovePhase, RackView};

/// The operator's name for a host, or its id.
pub(crate) fn host<'a>(view: &'a RackView, id: &'a HostId) -> &'a str {
    view.hosts.iter().find(|h| h.id == *id).map_or(id.as_str(), |h| h.name.as_str())
}

pub(crate) fn move_phase(phase: MovePhase) -> &'static str {
    match phase {
        MovePhase::Preparing => "preparing",
        MovePhase::Copying => "copying",
        MovePhase::Committing => "committing",
        MovePhase::Activating => "activating",
        MovePhase::Releasing => "releasing",
        MovePhase::Done => "done",
        MovePhase::Aborting => "aborting",
        MovePhase::Aborted => "aborted",
    }
}

pub(crate) fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Preparing => "preparing",
        Stage::Listening => "listening",
        Stage::Copying => "copying",
        Stage::Stopped => "stopped",
        Stage::Received => "received",
        Stage::Working => "working",
    }
}

pub(crate) fn firmware(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Bios => "BIOS",
        Firmware::Uefi => "UEFI",
    }
}

pub(crate) fn level(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

pub(crate) fn topic(topic: Topic) -> &'static str {
    match topic {
        Topic::Dhcp => "dhcp",
        Topic::Boot => "boot",
        Topic::Host => "host",
        Topic::Vm => "vm",
        Topic::Move => "move",
        Topic::Storage => "storage",
        Topic::Server => "server",
        Topic::Operator => "operator",
    }
}
