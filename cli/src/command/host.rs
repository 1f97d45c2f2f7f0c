//! `tsubame host`.

use super::{conclude, open, power, rack_view, say};
use crate::args::{HostCommand, HostRef, LabelChange, host_id};
use crate::client::Server;
use crate::fault::Fault;
use crate::goal::{Goal, find_host};
use crate::output::Output;
use crate::render::hosts;
use crate::session::Environment;
use proto::HostId;
use proto::api::{Accepted, ConsoleText, DescribeHost, HostList, Refusal, RegisterHost};
use proto::release::SetPool;
use proto::view::RackView;

pub(super) fn run(environment: &Environment, command: HostCommand, out: Output) -> Result<(), Fault> {
    match command {
        HostCommand::List => {
            let doing = "listing hosts";
            let view = rack_view(&open(doing, environment)?, doing)?;
            out.show(&view.hosts, |width| hosts::list(&view, width))
        }
        HostCommand::Show(HostRef { host }) => {
            let doing = format!("showing host {host}");
            let view = rack_view(&open(&doing, environment)?, &doing)?;
            let id = resolve(&view, &doing, &host)?;
            let shown = find_host(&view, &id).ok_or_else(|| no_host(&doing, id))?;
            out.show(shown, |width| hosts::show(&view, shown, width))
        }
        HostCommand::Log(HostRef { host }) => {
            let doing = format!("reading the log of host {host}");
            let server = open(&doing, environment)?;
            let id = resolve(&rack_view(&server, &doing)?, &doing, &host)?;
            let log: ConsoleText = server.get(&doing, &format!("/v1/hosts/{id}/log"))?;
            out.show(&log, |_| log.text.clone())
        }
        HostCommand::Accept { host: HostRef { host }, wait } => {
            let doing = format!("accepting host {host}");
            let server = open(&doing, environment)?;
            let view = rack_view(&server, &doing)?;
            let id = resolve(&view, &doing, &host)?;
            let goal = Goal::host_active(&id, &view);
            let accepted = server.post_empty(&doing, &format!("/v1/hosts/{id}/accept"))?;
            conclude(&server, (&doing, &accepted), &goal, &wait, out, |view| {
                let host = find_host(view, &id)?;
                Some((host.clone(), format!("host {} is active\n", host.name)))
            })
        }
        HostCommand::Drain { host: HostRef { host }, wait } => {
            let doing = format!("draining host {host}");
            let server = open(&doing, environment)?;
            let id = resolve(&rack_view(&server, &doing)?, &doing, &host)?;
            let accepted = server.post_empty(&doing, &format!("/v1/hosts/{id}/drain"))?;
            let goal = Goal::HostEmpty { host: id.clone() };
            conclude(&server, (&doing, &accepted), &goal, &wait, out, |view| {
                let host = find_host(view, &id)?;
                Some((host.clone(), format!("host {} is empty\n", host.name)))
            })
        }
        HostCommand::Undrain(HostRef { host }) => {
            let doing = format!("undraining host {host}");
            let (server, id) = locate(environment, &doing, &host)?;
            let accepted = server.post_empty(&doing, &format!("/v1/hosts/{id}/undrain"))?;
            say(out, &accepted, &doing)
        }
        HostCommand::ConfirmOff { host: HostRef { host }, it_is_off } => {
            let doing = format!("confirming that host {host} is off");
            if it_is_off != host {
                return Err(Fault::Usage(format!(
                    "{doing}: --it-is-off is {it_is_off:?}, expected {host:?} once more: if it has power all the same, its VMs run twice"
                )));
            }
            let (server, id) = locate(environment, &doing, &host)?;
            let accepted = server.post_empty(&doing, &format!("/v1/hosts/{id}/confirm-off"))?;
            say(out, &accepted, &doing)
        }
        HostCommand::Remove(HostRef { host }) => {
            let doing = format!("removing host {host}");
            let (server, id) = locate(environment, &doing, &host)?;
            let accepted: Accepted = server.delete(&doing, &format!("/v1/hosts/{id}"))?;
            say(out, &accepted, &doing)
        }
        HostCommand::Import { file, replace } => {
            let doing = format!("importing hosts from {}", file.display());
            let text = if file.as_os_str() == "-" {
                std::io::read_to_string(std::io::stdin())
            } else {
                std::fs::read_to_string(&file)
            };
            let text =
                text.map_err(|source| Fault::File { doing: "reading", path: file.display().to_string(), source })?;
            let server = open(&doing, environment)?;
            let accepted = server.post(&doing, "/v1/hosts/list", &HostList { text, replace })?;
            say(out, &accepted, &doing)
        }
        HostCommand::Rename { host: HostRef { host }, name } => {
            let doing = format!("renaming host {host}");
            let (server, id) = locate(environment, &doing, &host)?;
            let request = DescribeHost { name: Some(name), labels: None };
            let accepted = server.post(&doing, &format!("/v1/hosts/{id}/describe"), &request)?;
            say(out, &accepted, &doing)
        }
        HostCommand::Label { host: HostRef { host }, labels: changes } => {
            let doing = format!("labelling host {host}");
            let server = open(&doing, environment)?;
            let view = rack_view(&server, &doing)?;
            let id = resolve(&view, &doing, &host)?;
            let mut labels = find_host(&view, &id).ok_or_else(|| no_host(&doing, id.clone()))?.labels.clone();
            for LabelChange { key, value } in changes {
                match value {
                    Some(value) => labels.insert(key, value),
                    None => labels.remove(&key),
                };
            }
            let request = DescribeHost { name: None, labels: Some(labels) };
            let accepted = server.post(&doing, &format!("/v1/hosts/{id}/describe"), &request)?;
            say(out, &accepted, &doing)
        }
        HostCommand::Power { host: HostRef { host }, what, network, wait } => {
            power::switch(environment, &host, what, network, &wait, out)
        }
        HostCommand::Bmc(args) => power::bmc(environment, args, out),
        HostCommand::Pool { host: HostRef { host }, pool } => {
            let doing = format!("putting host {host} into pool {pool}");
            let (server, id) = locate(environment, &doing, &host)?;
            let accepted = server.post(&doing, &format!("/v1/hosts/{id}/pool"), &SetPool { pool })?;
            say(out, &accepted, &doing)
        }
        HostCommand::Add { mac, name } => {
            let doing = format!("adding host {mac}");
            let server = open(&doing, environment)?;
            let accepted = server.post(&doing, "/v1/hosts", &RegisterHost { mac, name })?;
            say(out, &accepted, &doing)
        }
    }
}

fn locate(environment: &Environment, doing: &str, given: &str) -> Result<(Server, HostId), Fault> {
    let server = open(doing, environment)?;
    let id = resolve(&rack_view(&server, doing)?, doing, given)?;
    Ok((server, id))
}

/// The host that was meant. What the view does not know is left for the server to refuse, if it could be an id.
///
/// # Errors
/// `Refused` when it can be no host's, `Usage` when it is the name of several.
pub(super) fn resolve(view: &RackView, doing: &str, given: &str) -> Result<HostId, Fault> {
    let id = host_id(given);
    let by_id = |id: &HostId| find_host(view, id).is_some();
    if let Some(id) = id.clone().filter(by_id) {
        return Ok(id);
    }
    let named: Vec<_> = view.hosts.iter().filter(|h| h.name == given || given.parse() == Ok(h.mac)).collect();
    match (named.as_slice(), id) {
        ([host], _) => Ok(host.id.clone()),
        ([], Some(id)) => Ok(id),
        ([], None) => Err(Fault::Refused { doing: doing.to_owned(), message: format!("there is no host {given:?}") }),
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|h| h.id.as_str()).collect();
            Err(Fault::Usage(format!("{doing}: several hosts have that name: {}; give an id", ids.join(", "))))
        }
    }
}

fn no_host(doing: &str, host: HostId) -> Fault {
    Fault::Refused { doing: doing.to_owned(), message: Refusal::NoHost { host }.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{host_id as sample_id, rack};

    #[test]
    fn a_host_is_found_by_id_name_and_address() {
        let mut view = rack();
        for given in ["h525400aabb01", "node-1", "52:54:00:AA:bb:01"] {
            assert_eq!(resolve(&view, "x", given).expect(given), sample_id(1), "{given}");
        }
        assert_eq!(resolve(&view, "x", "nobody").expect("the server is to refuse it").as_str(), "nobody");
        assert_eq!(resolve(&view, "x", "No Host").expect_err("no id").exit_code(), 1);
        view.hosts[1].name = "node-1".into();
        assert_eq!(resolve(&view, "x", "node-1").expect_err("two of them").exit_code(), 2);
    }
}
