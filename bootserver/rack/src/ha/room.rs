//! Admission control: how many host failures the rack can bear.
//!
//! Owns: asking the planner for that number, and the warning when it is nought. Never does: refuse a VM; whoever starts one more sees the number fall.

use super::may_run_in;
use crate::Rack;
use crate::event::Now;
use crate::record::VmRecord;
use balancer::{HostState as Takes, Room, failures_borne, room_mib};
use proto::HostId;
use proto::event::Topic;
use proto::view::VmPhase;
use proto::vm::Priority;
use std::collections::BTreeMap;

impl Rack {
    /// Reckons anew how many failures can be borne, and says when it becomes none.
    pub(crate) fn reckon_room(&mut self, now: Now) {
        let snapshot = self.snapshot(now);
        let mut rooms: BTreeMap<&HostId, Room> = snapshot
            .hosts
            .iter()
            .filter(|host| host.state != Takes::Unusable)
            .map(|host| (&host.id, Room { free_mib: host.memory_mib, vms_mib: Vec::new() }))
            .collect();
        for vm in &snapshot.vms {
            if let Some(room) = vm.host.as_ref().and_then(|host| rooms.get_mut(host)) {
                room.free_mib = room.free_mib.saturating_sub(vm.memory_mib);
                room.vms_mib.push(vm.memory_mib);
            }
        }
        for host in snapshot.hosts.iter().filter(|host| host.state == Takes::Draining) {
            // Its VMs need room if it fails, and it has none for others'.
            if let Some(room) = rooms.get_mut(&host.id) {
                room.free_mib = 0;
            }
        }
        let mut nowhere_mib = self.nowhere_mib(|host| rooms.contains_key(host));
        // One that fits on no host at all says so itself, and takes room from nobody.
        let largest_mib = rooms.values().map(Room::all_mib).max();
        nowhere_mib.retain(|mib| largest_mib.is_some_and(|largest| *mib <= largest));
        let rooms: Vec<Room> = rooms.into_values().collect();
        let borne = failures_borne(&rooms, &nowhere_mib);
        let room = (borne, if borne == 0 { 0 } else { room_mib(&rooms, &nowhere_mib) });
        let before = self.ha.room.replace(room);
        if before == Some(room) {
            return;
        }
        self.version += 1;
        if borne == 0 && before.is_some_and(|(borne, _)| borne > 0) {
            let text = "no host may fail any more: not all VMs would fit on the others".to_owned();
            self.warn_repeated(Topic::Server, now, text, |_| ());
        }
    }

    /// MiB of each VM that is to run and needs room on one of the hosts that are there: its own has failed, or may have, or it has found no place.
    fn nowhere_mib(&self, is_there: impl Fn(&HostId) -> bool) -> Vec<u64> {
        let is_lost = |record: &VmRecord| {
            let starts_again = may_run_in(record.phase) && record.restart.priority != Priority::Never;
            starts_again && !record.owner.as_ref().is_some_and(&is_there)
        };
        let nowhere = self.vms.values().filter(|r| r.run && (r.phase == VmPhase::Stopped || is_lost(r)));
        nowhere.map(|record| record.spec.needed_mib()).collect()
    }
}
