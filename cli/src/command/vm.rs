//! `tsubame vm`.

use super::{conclude, host, open, rack_view, say};
use crate::args::{CreateVmArgs, VmCommand, VmRef, VmWait, WaitArgs};
use crate::client::Server;
use crate::fault::Fault;
use crate::goal::{Goal, find_vm};
use crate::output::{self, Output};
use crate::render::{moves, names, vms};
use crate::session::Environment;
use proto::VmId;
use proto::api::{Accepted, ConsoleText, CreateVm, MigrateVm, Refusal};
use proto::view::{RackView, VmPhase, VmView};
use proto::vm::Restart;

pub(super) fn run(environment: &Environment, command: VmCommand, out: Output) -> Result<(), Fault> {
    match command {
        VmCommand::List => {
            let doing = "listing VMs";
            let view = rack_view(&open(doing, environment)?, doing)?;
            out.show(&view.vms, |width| vms::list(&view, width))
        }
        VmCommand::Show(VmRef { vm }) => {
            let doing = format!("showing VM {vm}");
            let view = rack_view(&open(&doing, environment)?, &doing)?;
            let shown = known(&view, &vm, &doing)?;
            out.show(shown, |width| vms::show(&view, shown, width))
        }
        VmCommand::Create(args) => create(environment, args, out),
        VmCommand::Start(VmWait { vm, wait }) => {
            let order = Order { doing: format!("starting VM {vm}"), verb: "start", want: VmPhase::Running };
            order.give(environment, &vm, &wait, out)
        }
        VmCommand::Shutdown(VmWait { vm, wait }) => {
            let order = Order { doing: format!("shutting down VM {vm}"), verb: "shutdown", want: VmPhase::Stopped };
            order.give(environment, &vm, &wait, out)
        }
        VmCommand::Destroy(VmWait { vm, wait }) => {
            let order = Order { doing: format!("destroying VM {vm}"), verb: "destroy", want: VmPhase::Stopped };
            order.give(environment, &vm, &wait, out)
        }
        VmCommand::Pause(VmWait { vm, wait }) => {
            let order = Order { doing: format!("pausing VM {vm}"), verb: "pause", want: VmPhase::Paused };
            order.give(environment, &vm, &wait, out)
        }
        VmCommand::Resume(VmWait { vm, wait }) => {
            let order = Order { doing: format!("resuming VM {vm}"), verb: "resume", want: VmPhase::Running };
            order.give(environment, &vm, &wait, out)
        }
        VmCommand::Ha { vm: VmRef { vm }, priority, restart_delay, on_crash } => {
            let doing = format!("saying how VM {vm} is started again");
            let server = open(&doing, environment)?;
            let view = rack_view(&server, &doing)?;
            let before = known(&view, &vm, &doing)?.restart;
            let restart = Restart {
                priority: priority.map_or(before.priority, Into::into),
                delay_s: restart_delay.unwrap_or(before.delay_s),
                on_crash: on_crash.map_or(before.on_crash, Into::into),
            };
            let accepted: Accepted = server.post(&doing, &format!("/v1/vms/{vm}/ha"), &restart)?;
            out.show(&accepted, |_| format!("VM {vm} is started again after its host has failed: {restart}\n"))
        }
        VmCommand::Migrate { vm: VmRef { vm }, to, wait } => migrate(environment, &vm, to, &wait, out),
        VmCommand::Delete(VmWait { vm, wait }) => {
            let doing = format!("deleting VM {vm}");
            let server = open(&doing, environment)?;
            let goal = Goal::vm(&vm, None, &rack_view(&server, &doing)?);
            let accepted: Accepted = server.delete(&doing, &format!("/v1/vms/{vm}"))?;
            conclude(&server, (&doing, &accepted), &goal, &wait, out, |_| {
                Some((&accepted, format!("VM {vm} is deleted\n")))
            })
        }
        VmCommand::Console(VmRef { vm }) => {
            let doing = format!("reading the console of VM {vm}");
            let server = open(&doing, environment)?;
            let console: ConsoleText = server.get(&doing, &format!("/v1/vms/{vm}/console"))?;
            out.show(&console, |_| {
                // Into a file it goes as the guest wrote it; on a terminal the guest must not write as it likes.
                let mut text = if output::is_terminal() { vms::console(&console.text) } else { console.text.clone() };
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text
            })
        }
    }
}

/// An order that a path names and that leads to a phase.
struct Order {
    doing: String,
    verb: &'static str,
    want: VmPhase,
}

impl Order {
    fn give(&self, environment: &Environment, vm: &VmId, wait: &WaitArgs, out: Output) -> Result<(), Fault> {
        let server = open(&self.doing, environment)?;
        let goal = Goal::vm(vm, Some(self.want), &rack_view(&server, &self.doing)?);
        let accepted = server.post_empty(&self.doing, &format!("/v1/vms/{vm}/{}", self.verb))?;
        conclude(&server, (&self.doing, &accepted), &goal, wait, out, |view| result(view, vm))
    }
}

fn create(environment: &Environment, args: CreateVmArgs, out: Output) -> Result<(), Fault> {
    let CreateVmArgs {
        name,
        template,
        memory,
        vcpus,
        disk,
        mac,
        cmdline,
        start,
        priority,
        restart_delay,
        on_crash,
        wait,
    } = args;
    let doing = format!("creating VM {name}");
    let server = open(&doing, environment)?;
    let restart = Restart { priority: priority.into(), delay_s: restart_delay, on_crash: on_crash.into() };
    let (memory_mib, disk_mib) = (memory, disk);
    let body = CreateVm { name: name.clone(), template, memory_mib, vcpus, disk_mib, mac, cmdline, start, restart };
    let accepted: Accepted = server.post(&doing, "/v1/vms", &body)?;
    let want = if start { VmPhase::Running } else { VmPhase::Stopped };
    let goal = Goal::Vm { vm: name.clone(), want: Some(want), before: None };
    conclude(&server, (&doing, &accepted), &goal, &wait, out, |view| result(view, &name))
}

fn migrate(
    environment: &Environment,
    vm: &VmId,
    to: Option<String>,
    wait: &WaitArgs,
    out: Output,
) -> Result<(), Fault> {
    let doing = match &to {
        Some(host) => format!("migrating VM {vm} to {host}"),
        None => format!("migrating VM {vm}"),
    };
    let server: Server = open(&doing, environment)?;
    let to = match to {
        Some(given) => Some(host::resolve(&rack_view(&server, &doing)?, &doing, &given)?),
        None => None,
    };
    let accepted: Accepted = server.post(&doing, &format!("/v1/vms/{vm}/migrate"), &MigrateVm { to })?;
    let Accepted::Moving { r#move: id } = accepted else {
        return say(out, &accepted, &doing);
    };
    conclude(&server, (&doing, &accepted), &Goal::MoveDone { id }, wait, out, |view| {
        let moved = view.moves.iter().find(|m| m.id == id)?;
        Some((moved.clone(), moves::done(view, moved)))
    })
}

fn known<'a>(view: &'a RackView, vm: &VmId, doing: &str) -> Result<&'a VmView, Fault> {
    let refused = || Fault::Refused { doing: doing.to_owned(), message: Refusal::NoVm { vm: vm.clone() }.to_string() };
    find_vm(view, vm).ok_or_else(refused)
}

fn result(view: &RackView, vm: &VmId) -> Option<(VmView, String)> {
    let shown = find_vm(view, vm)?;
    let on = match (shown.phase, &shown.owner) {
        (VmPhase::Running | VmPhase::Paused | VmPhase::Moving, Some(host)) => {
            format!(" on {}", names::host(view, host))
        }
        _ => String::new(),
    };
    Some((shown.clone(), format!("VM {vm} is {}{on}\n", shown.phase)))
}
