//! Room kept for host failures.
//!
//! Owns: whether the VMs of the fullest hosts, if these failed, would fit on the rest, by memory, largest first. Never does: say who would
//! go where (that is planned when it happens).

use crate::model::{HostNo, Model, VmNo};
use crate::plan::Refusal;
use crate::snapshot::HostState;

impl Model<'_> {
    /// Whether so many hosts may fail: each single host together with the fullest others.
    pub(crate) fn survives(&self, failures: u32) -> bool {
        if failures == 0 {
            return true;
        }
        let mut order: Vec<HostNo> =
            (0..self.hosts.len()).filter(|&h| self.hosts[h].host.state == HostState::Active).collect();
        order.sort_by_key(|&h| (std::cmp::Reverse(self.hosts[h].sums.memory_mib), h));
        let fullest = &order[..order.len().min(failures as usize - 1)];
        order.iter().all(|&h| {
            let mut failed: Vec<HostNo> = fullest.iter().copied().filter(|&f| f != h).collect();
            failed.push(h);
            if failed.len() < failures as usize {
                failed.extend(order.iter().copied().find(|o| !failed.contains(o)));
            }
            self.rest_takes(&failed, &order)
        })
    }

    fn rest_takes(&self, failed: &[HostNo], active: &[HostNo]) -> bool {
        let mut vms: Vec<u64> =
            failed.iter().flat_map(|&h| &self.hosts[h].vms).map(|&v| self.vms[v].vm.memory_mib).collect();
        vms.sort_unstable_by(|a, b| b.cmp(a));
        let mut free: std::collections::BinaryHeap<u64> =
            active.iter().filter(|h| !failed.contains(h)).map(|&h| self.hosts[h].free_mib()).collect();
        // Worst fit: the largest VM into the largest hole; when it does not fit there, it fits nowhere.
        vms.into_iter().all(|mib| match free.pop() {
            Some(most) if most >= mib => {
                free.push(most - mib);
                true
            }
            _ => false,
        })
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
