//! The picture that page, command and metrics see, made from one state.

use crate::Rack;
use crate::event::Now;
use crate::ha::is_heartbeat;
use proto::HostId;
use proto::agent::DomainState;
use proto::view::{DiskView, HostState, HostView, MoveView, RackView, VmLoad, VmPhase, VmView};
use std::collections::BTreeMap;

/// Ended moves that are shown.
const MOVES_SHOWN: usize = 50;
/// Events that are shown.
const EVENTS_SHOWN: usize = 100;

impl Rack {
    /// Rises with every change of what [`Rack::view`] shows; asking costs nothing.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The present picture, for page, command and metrics.
    pub fn view(&self, now: Now) -> RackView {
        let mut vms_of: BTreeMap<&HostId, Vec<_>> = BTreeMap::new();
        for vm in self.vms.values() {
            if let Some(owner) = &vm.owner
                && !matches!(vm.phase, VmPhase::Stopped | VmPhase::Creating | VmPhase::Deleting)
            {
                vms_of.entry(owner).or_default().push(vm.spec.name.clone());
            }
        }
        let hosts = self.hosts.values().map(|record| {
            let live = self.live.get(&record.id);
            let state = self.host_state(record);
            HostView {
                id: record.id.clone(),
                name: record.name.clone(),
                state,
                since_ms: live.and_then(|l| l.state).map_or(now.unix_ms, |(_, since_ms)| since_ms),
                mac: record.mac,
                address: self.leases.address_of(record.mac),
                firmware: record.firmware,
                inventory: record.inventory.clone(),
                stats: live
                    .filter(|_| matches!(state, HostState::Active | HostState::Draining))
                    .and_then(|l| l.report.as_ref())
                    .map(|report| report.stats.clone()),
                boot: record.steps.clone(),
                note: self.host_note(record, state),
                stalled: live.is_some_and(|l| l.stall.is_some()),
                vms: vms_of.remove(&record.id).unwrap_or_default(),
                labels: record.labels.clone(),
                fence: self.fence_shown(record),
                fence_at_ms: self.fence_at_ms(record, now),
                power: self.power_shown(record),
                pool: record.pool.clone(),
                release: self.runs_release(record),
                outdated: self.outdated(record),
            }
        });
        let vms = self.vms.values().map(|record| {
            let name = &record.spec.name;
            let domain = record.owner.as_ref().and_then(|h| self.live.get(h)).and_then(|live| live.domain(name));
            VmView {
                spec: record.spec.clone(),
                phase: self.phase_shown(record),
                owner: record.owner.clone(),
                epoch: record.epoch,
                domain: domain.map(|d| d.state),
                since_ms: record.since_ms,
                r#move: record.r#move,
                load: domain
                    .filter(|d| d.state == DomainState::Running)
                    .map(|d| VmLoad {
                        cpu_cores: d.cpu_cores,
                        net_rx_bytes_s: d.net_rx_bytes_s,
                        net_tx_bytes_s: d.net_tx_bytes_s,
                        disk_read_bytes_s: d.disk_read_bytes_s,
                        disk_write_bytes_s: d.disk_write_bytes_s,
                    })
                    .unwrap_or_default(),
                note: self.vm_note(record, now),
                restart: record.restart,
                run: record.run,
            }
        });
        let disks = self.disks.values().filter(|record| !is_heartbeat(&record.name)).map(|record| DiskView {
            name: record.name.clone(),
            size_mib: record.size_mib,
            vm: record.vm.clone(),
            granted: record.grants.keys().cloned().collect(),
            ready: record.ready,
            note: record.failure.clone(),
        });
        let mut ended = 0;
        let moves = self.moves.values().rev().filter(|record| {
            ended += usize::from(record.ended());
            !record.ended() || ended <= MOVES_SHOWN
        });
        RackView {
            version: self.version,
            at_ms: now.unix_ms,
            hosts: hosts.collect(),
            vms: vms.collect(),
            disks: disks.collect(),
            moves: moves.map(|record| self.move_shown(record)).collect::<Vec<MoveView>>(),
            events: self.log.table.values().rev().take(EVENTS_SHOWN).cloned().collect(),
            templates: self.policy.templates.keys().cloned().collect(),
            ha: self.ha_shown(),
            expected: u32::try_from(self.expected.len()).unwrap_or(u32::MAX),
            releases: self.releases_shown(),
            pools: self.pools_shown(),
            backups: self.backups.clone(),
        }
    }

    fn host_note(&self, record: &crate::record::HostRecord, state: HostState) -> String {
        let live = self.live.get(&record.id);
        match state {
            HostState::Registered => "has not been seen yet; power it on".to_owned(),
            HostState::Waiting => "waits to be accepted".to_owned(),
            HostState::Refused => {
                "was refused: only machines registered beforehand are let in; accept it or register it".to_owned()
            }
            HostState::Lost => self.lost_note(record),
            HostState::Booting => live.and_then(|l| l.stall.clone()).unwrap_or_default(),
            HostState::Active | HostState::Draining if live.is_none_or(|l| l.report.is_none()) => {
                "has not reported since the server started".to_owned()
            }
            HostState::Active | HostState::Draining if live.is_some_and(|l| l.silent) => {
                "does not report, but writes its heartbeat: its VMs run".to_owned()
            }
            HostState::Active | HostState::Draining if !self.leased(&record.id) => {
                "has no lease on the heartbeat disk: it may run no VM".to_owned()
            }
            _ => self.fence_warning(record).unwrap_or_default(),
        }
    }
}
