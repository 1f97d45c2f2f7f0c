//! Admission control: how many host failures the rack can bear.
//!
//! Owns: that number, and the warning before it is nought. Never does: refuse a VM; whoever starts one more sees the number fall.

use crate::Rack;
use crate::event::Now;
use balancer::HostState as Takes;
use proto::HostId;
use proto::event::Topic;
use std::collections::{BTreeMap, BinaryHeap};

/// A host's memory, MiB, and what its VMs need of it.
struct Room {
    free_mib: u64,
    vms_mib: Vec<u64>,
}

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
        let borne = failures_borne(rooms.into_values().collect());
        let before = self.ha.borne.replace(borne);
        if before == Some(borne) {
            return;
        }
        self.version += 1;
        if borne == 0 && before.is_some() {
            let text = "no host may fail any more: not all VMs would fit on the others".to_owned();
            self.warn(Topic::Server, now, text, |_| ());
        }
    }
}

/// The most hosts that may fail, those that are worst to lose, so that all their VMs fit on the others by memory. What is worst is tried in two
/// ways, the fullest hosts and the largest; VMs are put, largest first, where most is free. So it errs to the safe side where memory is
/// in small pieces.
fn failures_borne(mut rooms: Vec<Room>) -> u32 {
    let used = |room: &Room| room.vms_mib.iter().sum::<u64>();
    let (mut low, mut high) = (0, rooms.len().saturating_sub(1));
    while low < high {
        let count = (low + high).div_ceil(2);
        let mut fits = true;
        for worst in [used as fn(&Room) -> u64, |room| room.free_mib + room.vms_mib.iter().sum::<u64>()] {
            rooms.sort_by_key(|room| std::cmp::Reverse(worst(room)));
            fits &= bears(&rooms[..count], &rooms[count..]);
        }
        if fits { low = count } else { high = count - 1 }
    }
    // A rack of empty hosts bears the loss of all but one.
    u32::try_from(low).unwrap_or(u32::MAX)
}

fn bears(failed: &[Room], left: &[Room]) -> bool {
    let mut free: BinaryHeap<u64> = left.iter().map(|room| room.free_mib).collect();
    let mut vms: Vec<u64> = failed.iter().flat_map(|room| room.vms_mib.iter().copied()).collect();
    vms.sort_unstable_by_key(|mib| std::cmp::Reverse(*mib));
    vms.into_iter().all(|mib| match free.pop() {
        Some(most) if most >= mib => {
            free.push(most - mib);
            true
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts as `free:vm,vm`.
    fn check(hosts: &[&str], expected: u32) {
        let rooms = hosts.iter().map(|host| {
            let (free, vms) = host.split_once(':').expect("free:vms");
            let number = |text: &str| text.parse().expect("a number");
            Room { free_mib: number(free), vms_mib: vms.split(',').filter(|v| !v.is_empty()).map(number).collect() }
        });
        assert_eq!(failures_borne(rooms.collect()), expected, "{hosts:?}");
    }

    #[test]
    fn failures() {
        check(&[], 0);
        check(&["100:"], 0);
        check(&["100:", "100:"], 1);
        check(&["100:50"], 0);
        check(&["50:50", "50:50"], 1);
        check(&["40:60", "50:50"], 0);
        check(&["50:50", "50:50", "50:50"], 1);
        check(&["90:10", "90:10", "90:10", "90:10"], 3);
        // Room in pieces: the one VM of 60 fits nowhere.
        check(&["40:60", "50:", "50:"], 0);
        // The largest host is worse to lose than the fullest.
        check(&["1000:10", "5:20", "5:20"], 0);
    }
}
