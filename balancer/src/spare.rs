//! Room kept for host failures.
//!
//! Owns: whether the VMs of failed hosts would fit on the rest, by memory, and what follows from it. Never does: say who would go where
//! (that is planned when it happens).
//!
//! What is worst to lose is tried: of single hosts each, of several the fullest together and the largest together. VMs are put, largest first,
//! where most is free. So it errs to the safe side where memory is in small pieces.

use crate::model::{HostNo, Model, VmNo};
use crate::plan::Refusal;
use crate::snapshot::HostState;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A host's memory, and what its VMs need of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// MiB that VMs of other hosts may have; none where nothing may be started.
    pub free_mib: u64,
    /// MiB of each of its VMs.
    pub vms_mib: Vec<u64>,
}

/// Whether all VMs, with those that are nowhere, would fit on the other hosts if so many failed, those that are worst to lose.
pub(crate) fn bears(rooms: &[Room], nowhere_mib: &[u64], failures: usize) -> bool {
    if failures == 0 {
        return true;
    }
    let single = |failed: usize| rest_takes(rooms, nowhere_mib, |at| at == failed);
    if !(0..rooms.len()).all(single) {
        return false;
    }
    failures == 1
        || [Room::used_mib as fn(&Room) -> u64, Room::all_mib].into_iter().all(|worst| {
            let mut order: Vec<usize> = (0..rooms.len()).collect();
            order.sort_by_key(|&at| Reverse(worst(&rooms[at])));
            order.truncate(failures);
            rest_takes(rooms, nowhere_mib, |at| order.contains(&at))
        })
}

/// The most hosts that may fail so that all VMs fit on the others, those among them that are to run and are nowhere, as their host has failed.
/// A rack of empty hosts bears the loss of all but one.
pub fn failures_borne(rooms: &[Room], nowhere_mib: &[u64]) -> u32 {
    let (mut low, mut high) = (0, rooms.len().saturating_sub(1));
    while low < high {
        let count = (low + high).div_ceil(2);
        if bears(rooms, nowhere_mib, count) { low = count } else { high = count - 1 }
    }
    u32::try_from(low).unwrap_or(u32::MAX)
}

/// The largest VM, MiB, put where most is free, with which one host may still fail.
pub fn room_mib(rooms: &[Room], nowhere_mib: &[u64]) -> u64 {
    let Some(freest) = (0..rooms.len()).max_by_key(|&at| rooms[at].free_mib) else { return 0 };
    let (mut low, mut high) = (0, rooms[freest].free_mib);
    while low < high {
        let mib = low + (high - low).div_ceil(2);
        let mut with = rooms.to_vec();
        with[freest].free_mib -= mib;
        with[freest].vms_mib.push(mib);
        if bears(&with, nowhere_mib, 1) { low = mib } else { high = mib - 1 }
    }
    low
}

impl Room {
    fn used_mib(&self) -> u64 {
        self.vms_mib.iter().sum()
    }

    /// What there is for VMs, MiB.
    pub fn all_mib(&self) -> u64 {
        self.free_mib + self.used_mib()
    }
}

fn rest_takes(rooms: &[Room], nowhere_mib: &[u64], failed: impl Fn(usize) -> bool) -> bool {
    let (mut vms, mut free) = (nowhere_mib.to_vec(), Vec::with_capacity(rooms.len()));
    for (at, room) in rooms.iter().enumerate() {
        if failed(at) { vms.extend_from_slice(&room.vms_mib) } else { free.push(room.free_mib) }
    }
    vms.sort_unstable_by_key(|mib| Reverse(*mib));
    let mut free = BinaryHeap::from(free);
    // Worst fit: the largest VM into the largest hole; when it does not fit there, it fits nowhere.
    vms.into_iter().all(|mib| match free.pop() {
        Some(most) if most >= mib => {
            free.push(most - mib);
            true
        }
        _ => false,
    })
}

impl Model<'_> {
    /// Whether so many of the hosts that take VMs may fail.
    pub(crate) fn survives(&self, failures: u32) -> bool {
        let active = self.hosts.iter().filter(|entry| entry.host.state == HostState::Active);
        let rooms: Vec<Room> = active
            .map(|entry| Room {
                free_mib: entry.free_mib(),
                vms_mib: entry.vms.iter().map(|&v| self.vms[v].vm.memory_mib).collect(),
            })
            .collect();
        bears(&rooms, &[], failures as usize)
    }
}

/// Whether room for failures is left when a VM that is nowhere is put on a host. When there was too little before, it is no reason to refuse.
pub(crate) fn admit(model: &mut Model<'_>, v: VmNo, to: HostNo) -> Result<(), Refusal> {
    let failures = model.policy.spare_hosts;
    if failures == 0 || !model.survives(failures) {
        return Ok(());
    }
    model.put(v, to);
    let survives = model.survives(failures);
    model.take(v);
    if survives { Ok(()) } else { Err(Refusal::SpareHosts { spare_hosts: failures }) }
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
        check_beside(&[], hosts, expected);
    }

    fn check_beside(nowhere_mib: &[u64], hosts: &[&str], expected: u32) {
        assert_eq!(failures_borne(&rooms(hosts), nowhere_mib), expected, "{hosts:?} and {nowhere_mib:?}");
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
            assert_eq!(room_mib(&rooms(hosts), &[]), expected, "{hosts:?}");
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
        // What a failed host had takes its part first.
        check(&["50:50", "60:40", "90:10"], 2);
        check_beside(&[40], &["50:50", "60:40", "90:10"], 1);
        check_beside(&[60, 50], &["50:50", "60:40", "90:10"], 0);
        check_beside(&[100], &["90:10", "90:10", "90:10"], 0);
    }
}
