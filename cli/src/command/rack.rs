//! `tsubame status`, `move list`, `balance`, `thaw` and `backup`.

use super::rack_view;
use crate::client::Server;
use crate::fault::Fault;
use crate::output::Output;
use crate::render::{backups as copies, moves, status as screen};
use proto::api::{About, Accepted, Balance};
use proto::view::{BackupFile, PlanView};

pub(super) fn status(server: &Server, out: Output) -> Result<(), Fault> {
    let doing = "asking for the rack";
    let about: About = server.get(doing, "/v1/about")?;
    let view = rack_view(server, doing)?;
    out.show(&view, |width| screen::show(&server.url.to_string(), &about, &view, width))
}

pub(super) fn moves(server: &Server, out: Output) -> Result<(), Fault> {
    let view = rack_view(server, "listing moves")?;
    out.show(&view.moves, |width| moves::list(&view, width))
}

pub(super) fn thaw(server: &Server, out: Output) -> Result<(), Fault> {
    let accepted: Accepted = server.post_empty("thawing the rack", "/v1/thaw")?;
    out.show(&accepted, |_| "thawed: the hosts that vanished are being fenced\n".to_owned())
}

pub(super) fn backup_now(server: &Server, out: Output) -> Result<(), Fault> {
    let taken: BackupFile = server.post_empty("taking a backup", "/v1/backups")?;
    out.show(&taken, |_| format!("taken: {}, {} bytes, on the server\n", taken.name, taken.bytes))
}

pub(super) fn backups(server: &Server, out: Output) -> Result<(), Fault> {
    let view = rack_view(server, "listing backups")?;
    out.show(&view.backups, |width| copies::list(&view, width))
}

pub(super) fn balance(server: &Server, dry_run: bool, out: Output) -> Result<(), Fault> {
    let doing = if dry_run { "planning moves" } else { "balancing" };
    // Before the moves begin: the names of hosts that the plan speaks of.
    let view = rack_view(server, doing)?;
    let plan: PlanView = server.post(doing, "/v1/balance", &Balance { dry_run })?;
    out.show(&plan, |width| moves::plan(&view, &plan, width))
}
