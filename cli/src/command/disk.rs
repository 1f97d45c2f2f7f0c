//! `tsubame disk`.

use super::{conclude, open, rack_view, say};
use crate::args::DiskCommand;
use crate::fault::Fault;
use crate::goal::Goal;
use crate::output::Output;
use crate::render::disks;
use crate::render::table::mib;
use crate::session::Environment;
use proto::api::{Accepted, CreateDisk, GrowDisk};

pub(super) fn run(environment: &Environment, command: DiskCommand, out: Output) -> Result<(), Fault> {
    match command {
        DiskCommand::List => {
            let doing = "listing disks";
            let view = rack_view(&open(doing, environment)?, doing)?;
            out.show(&view.disks, |width| disks::list(&view, width))
        }
        DiskCommand::Create { name, size, from, wait } => {
            let doing = format!("creating disk {name}");
            let server = open(&doing, environment)?;
            let body = CreateDisk { name: name.clone(), size_mib: size, from };
            let accepted: Accepted = server.post(&doing, "/v1/disks", &body)?;
            let goal = Goal::DiskReady { disk: name.clone() };
            conclude(&server, (&doing, &accepted), &goal, &wait, out, |view| {
                let disk = view.disks.iter().find(|d| d.name == name)?;
                Some((disk.clone(), format!("disk {name} is ready, {}\n", mib(disk.size_mib))))
            })
        }
        DiskCommand::Grow { name, size } => {
            let doing = format!("growing disk {name} to {}", mib(size));
            let server = open(&doing, environment)?;
            let accepted = server.post(&doing, &format!("/v1/disks/{name}/grow"), &GrowDisk { size_mib: size })?;
            say(out, &accepted, &doing)
        }
        DiskCommand::Delete { name, wait } => {
            let doing = format!("deleting disk {name}");
            let server = open(&doing, environment)?;
            let accepted: Accepted = server.delete(&doing, &format!("/v1/disks/{name}"))?;
            let goal = Goal::DiskGone { disk: name.clone() };
            conclude(&server, (&doing, &accepted), &goal, &wait, out, |_| {
                Some((&accepted, format!("disk {name} is deleted\n")))
            })
        }
    }
}
