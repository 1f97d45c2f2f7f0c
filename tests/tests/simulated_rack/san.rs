//! A SAN that is not the server's: controllers that switch hosts off, a person who does it where they do not, and the SAN away for all.
//!
//! Owns: what controllers and the person do to the physical world, and their faults. Never does: say that a host is off that is not.

use crate::host::Stand;
use crate::rack::{Due, Rack, Scale, vm};
use proto::DiskId;
use proto::agent::Secret;
use proto::heartbeat;
use proto::power::{BmcKind, PowerState, SetBmc};
use proto::view::FenceStep;
use rack::event::{Command, Event};
use rack::policy::{ExternalDisk, Storage};
use rack::power::{PowerAnswer, PowerFailure, PowerOp, PowerWhy};
use std::collections::BTreeMap;

/// Every so manieth host has no controller.
const WITHOUT: usize = 4;
/// How often the person looks, milliseconds.
const LOOKS_MS: (u64, u64) = (2_000, 20_000);

/// Kinds that every set of runs on a SAN must have had.
pub(crate) const KINDS: [&str; 4] = [SWITCHED_OFF, BY_PERSON, UNREACHED, AWAY];
const SWITCHED_OFF: &str = "hosts switched off by their controllers";
const BY_PERSON: &str = "hosts switched off by a person, who said so";
const UNREACHED: &str = "controllers that did it and could not say so, or did not do it";
const AWAY: &str = "times that the SAN was away for all";

/// Where the disks are: one for each VM and the heartbeats.
pub(crate) fn storage(scale: Scale) -> Storage {
    if !scale.san {
        return Storage::Own { portal: ([10, 77, 0, 1], 3260).into() };
    }
    let names = (0..scale.vms).map(|n| (format!("{}-0", vm(n)), 64));
    let disks = names.chain([(heartbeat::DISK.to_owned(), heartbeat::DISK_MIB)]).map(|(name, size_mib)| {
        let target = format!("iqn.2001-05.com.example:{name}");
        let (user, secret) = ("tsubame".to_owned(), Secret("0123456789abcd".to_owned()));
        let portal = ([10, 9, 0, 5], 3260).into();
        (name.parse().expect("a name"), ExternalDisk { portal, target, lun: 0, user, secret, size_mib })
    });
    Storage::External { disks: disks.collect() }
}

/// What is there before anybody asks, MiB.
pub(crate) fn disks(scale: Scale) -> BTreeMap<DiskId, u64> {
    match storage(scale) {
        Storage::Own { .. } => BTreeMap::new(),
        Storage::External { disks } => disks.into_iter().map(|(name, disk)| (name, disk.size_mib)).collect(),
    }
}

impl Rack {
    /// All hosts but some get controllers.
    pub(crate) fn set_controllers(&mut self) {
        for at in (0..self.hosts.len()).filter(|at| at % WITHOUT != 0) {
            let request = SetBmc {
                kind: BmcKind::Ipmi,
                address: Some(format!("10.9.9.{at}")),
                user: "admin".to_owned(),
                password: Some(Secret("secret".to_owned())),
                trust: None,
                system: None,
            };
            self.command(Command::SetBmc { host: self.hosts[at].id.clone(), request });
        }
    }

    /// A controller was told something; it may fail, after it has done it or before.
    pub(crate) fn controller(&mut self, run: u64, job: u64, host: usize, op: PowerOp) {
        let fails = self.faults && self.random.permille(300);
        if op == PowerOp::Off && (!fails || self.random.permille(500)) && self.hosts[host].stand != Stand::Off {
            self.counts.add(SWITCHED_OFF);
            self.power_cut(host, 60_000);
        }
        if fails {
            self.counts.add(UNREACHED);
        }
        // Who asked is gone, and the next process counts its jobs anew.
        if run != self.server.run {
            return;
        }
        let state = if self.hosts[host].stand == Stand::Off { PowerState::Off } else { PowerState::On };
        let result = match fails {
            true => Err(PowerFailure { why: PowerWhy::Unreached, text: "no answer".to_owned() }),
            false => Ok(PowerAnswer { state, certificate: None }),
        };
        let id = self.hosts[host].id.clone();
        self.server_event(None, |_| Event::PowerDone { job, host: id, result });
    }

    /// Where a host's fence waits, a person takes its power away and says so.
    pub(crate) fn person(&mut self) {
        let view = self.server.view(self.now_ms);
        let waits = view.iter().flat_map(|view| &view.hosts).filter(|host| host.fence == Some(FenceStep::Power));
        for id in waits.map(|host| host.id.clone()).collect::<Vec<_>>() {
            let Some(host) = self.hosts.iter().position(|h| h.id == id) else { continue };
            // Where there is a controller a person comes only now and then.
            if host % WITHOUT != 0 && self.random.permille(900) {
                continue;
            }
            if self.hosts[host].stand != Stand::Off {
                self.power_cut(host, 60_000);
            }
            self.counts.add(BY_PERSON);
            self.command(Command::ConfirmOff { host: id });
        }
        self.after(LOOKS_MS.0, LOOKS_MS.1, Due::Person);
    }

    /// Nobody reaches the SAN for a while, the server neither.
    pub(crate) fn san_away(&mut self, ms: u64) {
        self.note(|| format!("THE SAN IS AWAY FOR {ms} ms"));
        self.counts.add(AWAY);
        self.blind_until_ms = self.now_ms + ms;
        for host in 0..self.hosts.len() {
            self.world.set_storage(&self.hosts[host].id, false);
        }
        self.after(ms, ms + 1, Due::SanBack);
    }

    pub(crate) fn san_back(&mut self) {
        self.blind_until_ms = 0;
        for host in 0..self.hosts.len() {
            self.world.set_storage(&self.hosts[host].id, true);
        }
    }
}
