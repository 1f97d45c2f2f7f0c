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
#[derive(Clone)]
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
        let mut rooms: Vec<Room> = rooms.into_values().collect();
        let borne = failures_borne(&mut rooms);
        let room = (borne, if borne == 0 { 0 } else { room_mib(&rooms) });
        let before = self.ha.room.replace(room);
        if before == Some(room) {
            return;
        }
        self.version += 1;
        if borne == 0 && before.is_some_and(|(borne, _)| borne > 0) {
            let text = "no host may fail any more: not all VMs would fit on the others".to_owned();
            self.warn(Topic::Server, now, text, |_| ());
        }
    }
}

/// The most hosts that may fail, those that are worst to lose, so that all their VMs fit on the others by memory. What is worst is tried in two
/// ways, the fullest hosts and the largest; VMs are put, largest first, where most is free. So it errs to the safe side where memory is
/// in small pieces.
fn failures_borne(rooms: &mut [Room]) -> u32 {
    let (mut low, mut high) = (0, rooms.len().saturating_sub(1));
    while low < high {
        let count = (low + high).div_ceil(2);
        if bears_worst(rooms, count) { low = count } else { high = count - 1 }
    }
    // A rack of empty hosts bears the loss of all but one.
    u32::try_from(low).unwrap_or(u32::MAX)
}

/// The largest VM, MiB, put where most is free, with which one host may still fail.
fn room_mib(rooms: &[Room]) -> u64 {
    let Some(freest) = (0..rooms.len()).max_by_key(|&at| rooms[at].free_mib) else { return 0 };
    let (mut low, mut high) = (0, rooms[freest].free_mib);
    while low < high {
        let mib = low + (high - low).div_ceil(2);
        let mut with = rooms.to_vec();
        with[freest].free_mib -= mib;
        with[freest].vms_mib.push(mib);
        if bears_worst(&mut with, 1) { low = mib } else { high = mib - 1 }
    }
    low
}

fn bears_worst(rooms: &mut [Room], count: usize) -> bool {
    let used = |room: &Room| room.vms_mib.iter().sum::<u64>();
    [used as fn(&Room) -> u64, |room| room.free_mib + room.vms_mib.iter().sum::<u64>()].into_iter().all(|worst| {
        rooms.sort_by_key(|room| std::cmp::Reverse(worst(room)));
        bears(&rooms[..count], &rooms[count..])
    })
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
    fn rooms(hosts: &[&str]) -> Vec<Room> {
        let rooms = hosts.iter().map(|host| {
            let (free, vms) = host.split_once(':').expect("free:vms");
            let number = |text: &str| text.parse().expect("a number");
            Room { free_mib: number(free), vms_mib: vms.split(',').filter(|v| !v.is_empty()).map(number).collect() }
        });
        rooms.collect()
    }

    fn check(hosts: &[&str], expected: u32) {
        assert_eq!(failures_borne(&mut rooms(hosts)), expected, "{hosts:?}");
    }

    #[test]
    fn room_for_one_more() {
        for (hosts, expected) in [
            (&[][..], 0),
            (&["100:"], 0),
            (&["100:", "80:"], 80),
            (&["100:", "100:20"], 80),
            (&["50:50", "50:50"], 0),
            (&["90:10", "90:10", "90:10"], 90),
        ] {
            assert_eq!(room_mib(&rooms(hosts)), expected, "{hosts:?}");
        }
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
