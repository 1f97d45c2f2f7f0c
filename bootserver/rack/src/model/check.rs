//! What must hold: at every moment, and when the faults have ended.

use super::World;
use crate::record::Fence;
use proto::agent::{DomainState, Part};
use proto::view::{HostState, MovePhase, VmPhase};
use proto::{DiskId, HostId, VmId};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// What must hold at every moment.
    pub(super) fn check(&mut self) {
        self.check_fences();
        self.check_called_off();
        let mut running: BTreeMap<&VmId, Vec<&HostId>> = BTreeMap::new();
        for host in &self.hosts {
            for (vm, domain) in &host.domains {
                if domain.state == DomainState::Running {
                    running.entry(vm).or_default().push(&host.id);
                }
            }
        }
        for (vm, hosts) in running {
            assert!(hosts.len() <= 1, "{vm} runs on {hosts:?}");
        }
        let mut addresses = BTreeSet::new();
        for lease in self.rack.leases.table.values() {
            assert!(addresses.insert(lease.address), "{} is leased twice", lease.address);
        }
        for vm in &self.acknowledged {
            assert!(self.rack.vms.contains(vm), "{vm} was acknowledged and is gone");
        }
    }

    /// What must hold when the faults have ended and all had time to settle.
    pub(super) fn check_end(&mut self) {
        let view = self.rack.view(self.now);
        for host in &view.hosts {
            assert!(matches!(host.state, HostState::Active | HostState::Draining), "{} is {:?}", host.id, host.state);
        }
        for (id, live) in &self.rack.live {
            let orders: Vec<_> = live.orders.iter().map(|given| &given.order).collect();
            assert!(orders.is_empty(), "{id} has yet to do {orders:?}");
        }
        assert_eq!(self.rack.live_moves().count(), 0, "{:?}", view.moves);
        self.moves_done += view.moves.iter().filter(|m| m.phase == MovePhase::Done).count();
        for vm in &view.vms {
            let name = &vm.spec.name;
            let record = self.rack.vms.get(name).expect("it is shown");
            let domains: Vec<_> =
                self.hosts.iter().filter_map(|host| host.domains.get(name).map(|domain| (&host.id, domain))).collect();
            let reached: BTreeSet<HostId> =
                vm.spec.disks.iter().flat_map(|disk: &DiskId| self.disks.reached_by(disk)).collect();
            match vm.phase {
                VmPhase::Running | VmPhase::Paused => {
                    let [(host, domain)] = domains.as_slice() else {
                        panic!("{name} is {:?} and has {} domains", vm.phase, domains.len());
                    };
                    assert_eq!((Some(*host), domain.epoch), (vm.owner.as_ref(), vm.epoch), "{name}");
                    assert_eq!(domain.part, Part::Resident);
                    let state = if vm.phase == VmPhase::Running { DomainState::Running } else { DomainState::Paused };
                    assert_eq!(domain.state, state, "{name}");
                    assert_eq!(reached.iter().collect::<Vec<_>>(), [*host], "{name}");
                }
                VmPhase::Stopped => {
                    assert!(!record.run, "{name} is to run and does not: {}", vm.note);
                    assert!(domains.is_empty() && reached.is_empty(), "{name}: {} domains, {reached:?}", domains.len());
                }
                VmPhase::Failed => assert!(domains.is_empty(), "{name}"),
                phase => panic!("{name} is still {phase:?}: {}", vm.note),
            }
        }
    }

    /// A move that was called off leaves the guest running where it was, if it is there at all, and nothing at the target.
    fn check_called_off(&mut self) {
        for record in self.rack.moves.values() {
            let view = &record.view;
            if view.phase != MovePhase::Aborted || !self.called_off.insert(view.id) {
                continue;
            }
            let domain = |id: &HostId| {
                let host = self.hosts.iter().find(|host| host.id == *id)?;
                host.domains.get(&view.vm).filter(|domain| domain.epoch == record.epoch)
            };
            // A host that was fenced is cleared when it is back, by what it shows.
            let fenced = |host: &HostId| {
                let boot = self.rack.hosts.get(host).and_then(|record| record.boot.as_ref());
                boot.is_some_and(|boot| self.fenced_boots.contains(&boot.nonce))
            };
            if let Some(domain) = domain(&view.source).filter(|_| !fenced(&view.source)) {
                let suspended = domain.state == DomainState::Suspended || domain.part != Part::Resident;
                assert!(!suspended, "move {} was called off, and {} stands still", view.id, view.vm);
            }
            if !fenced(&view.target) && self.rack.reporting(&view.target) && self.hosts.iter().all(|host| !host.cut_off)
            {
                let left = domain(&view.target).is_some_and(|domain| domain.part == Part::Incoming);
                assert!(!left, "move {} was called off, and its target still holds {}", view.id, view.vm);
            }
        }
    }

    /// A host that is fenced reaches no disk and runs nothing.
    fn check_fences(&mut self) {
        for record in self.rack.hosts.values() {
            if record.fence != Some(Fence::Done) {
                self.fenced.remove(&record.id);
                continue;
            }
            self.fences += usize::from(self.fenced.insert(record.id.clone()));
            self.fenced_boots.extend(record.boot.as_ref().map(|boot| boot.nonce.clone()));
            assert!(!self.disks.any_reached_by(&record.id), "{} is fenced and reaches a disk", record.id);
            let host = self.hosts.iter().find(|host| host.id == record.id).expect("it is one of them");
            let runs = host.domains.iter().find(|(_, domain)| domain.state == DomainState::Running);
            assert!(runs.is_none(), "{} is fenced and runs {:?}", record.id, runs.map(|(vm, _)| vm));
        }
    }
}
