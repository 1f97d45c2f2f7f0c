//! What must be true of the physical world, whatever server and agents believe.
//!
//! At every moment: a VM runs on one host at most and one host at most can write to its disk; no two machines have one
//! address; a guest's memory is that with which it was created, carried on by every move, unless its host lost power,
//! it crashed, or an operator had it stopped. When the faults have ended: every VM is where and what it was asked to be.

use crate::faults::Counts;
use crate::host::Host;
use crate::rack::Rack;
use crate::server::{serves, settled};
use hostagent::hypervisor::sim::World;
use proto::agent::{DomainState, Part};
use proto::view::{HostView, MovePhase, VmPhase};
use proto::{DiskId, HostId, Mac, VmId};
use rack::event::Command;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Lease, watchdog and what Xen takes to reset, after the last write of a slot: no host may be fenced before.
const FENCED_MS: u64 = 39_000;

/// Nothing is amiss with a host, but that on a SAN a person would be needed.
fn quiet_note(host: &HostView) -> bool {
    host.note.is_empty() || host.note.starts_with("its disks are on a SAN")
}

#[derive(Default)]
pub(crate) struct Oracle {
    /// VMs whose making was acknowledged.
    made: BTreeSet<VmId>,
    /// VMs whose making was asked for, but not answered.
    perhaps_made: BTreeSet<VmId>,
    /// VMs that an operator has had stopped or started since: they may end so or so.
    handled: BTreeSet<VmId>,
    /// Whose memory a VM had when it was last seen to run.
    lineage: BTreeMap<VmId, u64>,
    /// VMs that may run with new memory: the old was lost or given up.
    may_begin_anew: BTreeSet<VmId>,
    /// The server was restored from a backup: what a fence was amid is decided anew, by what the hosts have.
    restored: bool,
    /// VMs whose guest stood still and was cut from a disk after that, and was not seen to run since.
    cut_off: BTreeSet<VmId>,
    addresses: BTreeMap<Ipv4Addr, Mac>,
    /// On a SAN: hosts with a session under which a guest has written to a disk. What dom0 still holds of that may land until it ends.
    wrote: BTreeSet<(DiskId, HostId)>,
    /// The world as it was looked at last.
    looked: u64,
}

/// What a run was good for.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) moves_done: usize,
    pub(crate) vms: usize,
    pub(crate) server_crashes: u64,
    pub(crate) fences: usize,
    /// Hosts that failed: lost their power, or were reset by their watchdog.
    pub(crate) failures: u64,
    pub(crate) counts: Counts,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.moves_done += other.moves_done;
        self.vms += other.vms;
        self.server_crashes += other.server_crashes;
        self.fences += other.fences;
        self.failures += other.failures;
        self.counts.merge(&other.counts);
    }
}

impl Oracle {
    pub(crate) fn asked(&mut self, command: &Command) {
        match command {
            // Heard or not: from now on the old memory may go.
            Command::DestroyVm { vm } | Command::ShutdownVm { vm } | Command::StartVm { vm } => {
                self.handled.insert(vm.clone());
                self.may_begin_anew.insert(vm.clone());
            }
            _ => {}
        }
    }

    pub(crate) fn answered(&mut self, command: &Command, ok: bool) {
        if let (Command::CreateVm(request), true) = (command, ok) {
            self.made.insert(request.name.clone());
        }
    }

    pub(crate) fn not_answered(&mut self, command: &Command) {
        if let Command::CreateVm(request) = command {
            self.perhaps_made.insert(request.name.clone());
        }
    }

    pub(crate) fn leased(&mut self, mac: Mac, address: Ipv4Addr) {
        let holder = *self.addresses.entry(address).or_insert(mac);
        assert_eq!(holder, mac, "{address} was leased to both");
    }

    /// The server was restored from a backup.
    pub(crate) fn restored(&mut self) {
        self.restored = true;
    }

    /// The server has fenced a host: what it has there is free.
    pub(crate) fn fenced(&mut self, world: &World, host: &HostId, now_ms: u64) {
        // A slot's counter is the moment of its write.
        let written_ms = world.slots().values().filter(|slot| slot.host == *host).map(|slot| slot.counter).max();
        if let Some(written_ms) = written_ms {
            let ms = now_ms - written_ms;
            assert!(ms >= FENCED_MS, "at {now_ms}: {host} was fenced, and wrote its slot {ms} ms ago");
        }
        let there = world.domains(host).iter().inspect(|domain| {
            assert_ne!(domain.state, DomainState::Running, "at {now_ms}: {host} was fenced, and runs {}", domain.vm);
        });
        let there: Vec<VmId> = there.map(|domain| domain.vm.clone()).collect();
        self.lost_with_host(&there);
    }

    /// The memory of these is gone.
    pub(crate) fn lost_with_host(&mut self, vms: &[VmId]) {
        self.may_begin_anew.extend(vms.iter().cloned());
    }

    /// Looks at the physical world.
    pub(crate) fn look(&mut self, world: &World, hosts: &[Host], san: bool, now_ms: u64) {
        if std::mem::replace(&mut self.looked, world.changes()) == world.changes() {
            return;
        }
        let mut running: BTreeMap<&VmId, &HostId> = BTreeMap::new();
        let mut writing: BTreeMap<&DiskId, &HostId> = BTreeMap::new();
        for host in hosts {
            // A fence that the old server was amid: the new one gives up a guest that was cut from a disk. It may even have been let go on
            // meanwhile, where the way to the slot was not yet cut.
            let granted = |disk: &DiskId| world.granted(disk).contains_key(&host.id);
            let cut = world.domains(&host.id).iter().filter(|d| self.restored && !d.disks.iter().all(granted));
            self.cut_off.extend(cut.map(|d| d.vm.clone()));
            for domain in world.domains(&host.id).iter().filter(|d| d.state == DomainState::Running) {
                if let Some(other) = running.insert(&domain.vm, &host.id) {
                    panic!("at {now_ms}: {} runs on {other} and on {}", domain.vm, host.id);
                }
                for disk in domain.disks.iter().filter(|disk| world.reaches(&host.id, disk)) {
                    let other = writing.insert(disk, &host.id);
                    assert_eq!(other, None, "at {now_ms}: {disk} is written by {} as well", host.id);
                    if san {
                        self.wrote.insert((disk.clone(), host.id.clone()));
                    }
                }
                match self.lineage.insert(domain.vm.clone(), domain.lineage) {
                    Some(before) if before != domain.lineage => {
                        let may = self.may_begin_anew.remove(&domain.vm) || self.cut_off.remove(&domain.vm);
                        assert!(may, "at {now_ms}: {} runs with new memory, and the old was not lost", domain.vm);
                    }
                    _ if domain.disks.iter().all(granted) => drop(self.cut_off.remove(&domain.vm)),
                    _ => {}
                }
            }
        }
        self.wrote.retain(|(disk, host)| world.reaches(host, disk));
        for (disk, host) in &self.wrote {
            let other = writing.get(disk).filter(|other| **other != host);
            assert_eq!(other, None, "at {now_ms}: {disk} is written, and {host} may still hold writes of before");
        }
    }

    /// Whether nothing is under way any more, as the server shows it.
    pub(crate) fn quiet(rack: &Rack) -> bool {
        let Some(view) = rack.server.view(rack.now_ms) else { return false };
        view.hosts.len() == rack.hosts.len()
            && view.hosts.iter().all(|h| serves(h.state))
            // Every host has its lease, and no guest is held any more.
            && view.hosts.iter().all(quiet_note)
            && view.vms.iter().all(|vm| vm.phase != VmPhase::Running || vm.domain == Some(DomainState::Running))
            && view.vms.iter().all(|vm| settled(vm.phase) && !(vm.run && vm.phase == VmPhase::Stopped))
            && view.moves.iter().all(|m| matches!(m.phase, MovePhase::Done | MovePhase::Aborted))
    }

    /// What must be true in the end.
    pub(crate) fn judge(&self, rack: &Rack) -> Tally {
        let view = rack.server.view(rack.now_ms).expect("the server is up in the end");
        for host in &view.hosts {
            assert!(serves(host.state) && quiet_note(host), "{} is {:?}: {}", host.id, host.state, host.note);
        }
        for m in &view.moves {
            let ended = matches!(m.phase, MovePhase::Done | MovePhase::Aborted);
            assert!(ended, "move {} of {} is still {:?}", m.id, m.vm, m.phase);
        }
        let names: BTreeSet<&VmId> = view.vms.iter().map(|vm| &vm.spec.name).collect();
        for vm in &self.made {
            assert!(names.contains(vm), "{vm} was acknowledged and is gone");
        }
        for vm in &view.vms {
            let name = &vm.spec.name;
            assert!(self.made.contains(name) || self.perhaps_made.contains(name), "nobody asked for {name}");
            let domains: Vec<_> = rack
                .hosts
                .iter()
                .flat_map(|h| rack.world.domains(&h.id).iter().map(move |d| (&h.id, d)))
                .filter(|(_, d)| d.vm == *name)
                .collect();
            let kept = rack.server.kept_vm(name).expect("what is shown is kept");
            assert_eq!(
                (kept.epoch, &kept.owner),
                (vm.epoch, &vm.owner),
                "{name}: the store says otherwise than the view"
            );
            match vm.phase {
                VmPhase::Running => {
                    let [(host, domain)] = domains[..] else {
                        panic!("{name} is to run, and there are {} domains of it: {domains:?}", domains.len());
                    };
                    assert_eq!((domain.state, domain.part), (DomainState::Running, Part::Resident), "{name} on {host}");
                    assert_eq!(vm.owner.as_ref(), Some(host), "{name} runs elsewhere than at its owner");
                    let noted = rack.hosts.iter().find(|h| h.id == *host).and_then(|h| h.notes.get(name));
                    let epoch = noted.and_then(|note| note.guest.as_ref()).map(|guest| guest.epoch);
                    assert_eq!(epoch, Some(vm.epoch), "{name} runs under another epoch");
                }
                VmPhase::Stopped => {
                    assert!(self.handled.contains(name), "{name} was to run and is stopped: {}", vm.note);
                    assert!(domains.is_empty(), "{name} is stopped, and there is {domains:?}");
                }
                phase => panic!("{name} ends as {phase:?}: {}", vm.note),
            }
        }
        Tally {
            moves_done: rack.server.moves(),
            vms: view.vms.len(),
            server_crashes: rack.server.crashes,
            fences: rack.server.fences(),
            failures: rack.failures(),
            counts: rack.counts.clone(),
        }
    }
}
