//! `tsubame host power` and `tsubame host bmc`.

use super::host::resolve;
use super::login::read_secret;
use super::{conclude, open, rack_view, say};
use crate::args::{BmcArgs, BmcWord, HostRef, PowerWord, WaitArgs};
use crate::fault::Fault;
use crate::goal::{Goal, find_host};
use crate::output::Output;
use crate::render::power;
use crate::session::Environment;
use proto::agent::Secret;
use proto::api::Accepted;
use proto::power::{OrderPower, PowerVerb, PowerView, SetBmc};

pub(super) fn switch(
    environment: &Environment,
    host: &str,
    what: PowerWord,
    network: bool,
    wait: &WaitArgs,
    out: Output,
) -> Result<(), Fault> {
    let verb = match what {
        PowerWord::On => PowerVerb::On,
        PowerWord::Off => PowerVerb::Off,
        PowerWord::Cycle => PowerVerb::Cycle,
        PowerWord::Status => return status(environment, host, out),
    };
    let doing = format!("switching the power of {host} {verb}");
    let server = open(&doing, environment)?;
    let view = rack_view(&server, &doing)?;
    let id = resolve(&view, &doing, host)?;
    let goal = Goal::power(&id, &view);
    let accepted = server.post(&doing, &format!("/v1/hosts/{id}/power"), &OrderPower { verb, network })?;
    if accepted == Accepted::Done {
        return say(out, &accepted, &doing);
    }
    conclude(&server, (&doing, &accepted), &goal, wait, out, |view| {
        let host = find_host(view, &id)?;
        Some((host.power.clone(), format!("power of {}: {verb} is done\n", host.name)))
    })
}

fn status(environment: &Environment, host: &str, out: Output) -> Result<(), Fault> {
    let doing = format!("asking for the power of {host}");
    let server = open(&doing, environment)?;
    let view = rack_view(&server, &doing)?;
    let id = resolve(&view, &doing, host)?;
    let shown: PowerView = server.get(&doing, &format!("/v1/hosts/{id}/power"))?;
    out.show(&shown, |width| power::show(&shown, width))
}

pub(super) fn bmc(environment: &Environment, args: BmcArgs, out: Output) -> Result<(), Fault> {
    let HostRef { host } = &args.host;
    let doing = format!("setting how the power of {host} is switched");
    let server = open(&doing, environment)?;
    let id = resolve(&rack_view(&server, &doing)?, &doing, host)?;
    let path = format!("/v1/hosts/{id}/bmc");
    let Some(kind) = args.kind.filter(|_| !args.forget) else {
        let accepted: Accepted = server.delete(&doing, &path)?;
        return say(out, &accepted, &doing);
    };
    // Nobody needs one to wake a machine, unless its card asks for it.
    let needs = !args.keep_password && (kind != BmcWord::Wake || args.password_file.is_some());
    let password = match needs {
        true => Some(Secret(read_secret(args.password_file.as_deref(), "Password of the controller: ")?)),
        false => None,
    };
    let request = SetBmc {
        kind: kind.into(),
        address: args.address,
        user: args.user,
        password,
        trust: args.trust,
        system: args.system,
    };
    let accepted = server.post(&doing, &path, &request)?;
    say(out, &accepted, &doing)
}
