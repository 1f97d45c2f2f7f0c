//! Whether a planned move may still start.
//!
//! Owns: the check against a fresh snapshot, by the rules of the plan. Never does: plan anew.

use crate::model::Model;
use crate::plan::{Plan, Refusal};
use crate::policy::Policy;
use crate::search::movable;
use crate::snapshot::{Snapshot, Vm};

/// Why a planned move may not start.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Stale {
    /// The plan's time is over.
    #[error("the plan expired at {expires_ms} ms; make a new one")]
    Expired {
        /// When, Unix milliseconds.
        expires_ms: u64,
    },
    /// The plan has no such move.
    #[error("the plan has no move {place}")]
    NoMove {
        /// Place in `Plan::moves`.
        place: usize,
    },
    /// The VM is gone, elsewhere, pinned or changing.
    #[error("{vm} is no longer on {from} and free to move")]
    Vm {
        /// Which.
        vm: proto::VmId,
        /// Where it was.
        from: proto::HostId,
    },
    /// The target may not take it now.
    #[error("{host} {why}")]
    Target {
        /// Which.
        host: proto::HostId,
        /// Why.
        why: Refusal,
    },
}

/// Checks move `place` of a plan against the rack as it is now, moves under way included (`Vm::moving_to`, `Host::moves_in` and `moves_out`).
/// That the moves in its `after` have ended is for the caller to know.
///
/// # Errors
/// Why it may not start; then a new plan is due.
pub fn revalidate(plan: &Plan, place: usize, now: &Snapshot, policy: &Policy) -> Result<(), Stale> {
    let step = plan.moves.get(place).ok_or(Stale::NoMove { place })?;
    if now.at_ms >= plan.expires_ms {
        return Err(Stale::Expired { expires_ms: plan.expires_ms });
    }
    let target = |why: Refusal| Stale::Target { host: step.to.clone(), why };
    now.check().and_then(|()| policy.check()).map_err(|defect| target(Refusal::Input { defect }))?;
    // A move of this very plan may have set the VM's rest: a VM that passes over a third host does not rest there.
    let awake = Snapshot { vms: now.vms.iter().map(|vm| Vm { moved: None, ..vm.clone() }).collect(), ..now.clone() };
    let model = Model::new(&awake, policy);
    let gone = || Stale::Vm { vm: step.vm.clone(), from: step.from.clone() };
    let v = model.vms.binary_search_by(|entry| entry.vm.id.cmp(&step.vm)).map_err(|_| gone())?;
    let free = match movable(&model, v) {
        Ok(()) | Err(crate::plan::Why::Excluded) => model.vms[v].vm.host.as_ref() == Some(&step.from),
        Err(_) => false,
    };
    if !free {
        return Err(gone());
    }
    let host = |id: &proto::HostId| model.hosts.binary_search_by(|entry| entry.host.id.cmp(id)).ok();
    let (Some(from), Some(to)) = (host(&step.from), host(&step.to)) else { return Err(gone()) };
    if model.hosts[to].host.moves_in >= policy.streams_in_max
        || model.hosts[from].host.moves_out >= policy.streams_out_max
    {
        return Err(target(Refusal::Streams));
    }
    model.admit(&[v], to).map_err(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::plan;
    use crate::snapshot::Host;

    #[test]
    fn each_way_to_be_stale() {
        let host = |name: &str| Host::new(name.parse().expect("a name"), 4096, 4.0);
        let vm = |name: &str| Vm {
            host: Some("a".parse().expect("a name")),
            cpu_cores: 2.0,
            ..Vm::new(name.parse().expect("a name"), 2048, 4)
        };
        let rack = Snapshot {
            at_ms: 1000,
            hosts: vec![host("a"), host("b")],
            vms: vec![vm("web"), vm("db")],
            ..Snapshot::default()
        };
        let policy = Policy::default();
        let made = plan(&rack, &policy);
        assert_eq!(made.moves.len(), 1, "{made:#?}");
        let check = |change: &dyn Fn(&mut Snapshot)| {
            let mut now = rack.clone();
            change(&mut now);
            revalidate(&made, 0, &now, &policy).map_err(|stale| stale.to_string())
        };
        let says = |text: &str| Err(text.to_owned());
        assert_eq!(check(&|_| ()), Ok(()));
        assert_eq!(check(&|now| now.at_ms += policy.expires_ms), says("the plan expired at 301000 ms; make a new one"));
        assert_eq!(check(&|now| now.vms.clear()), says("db is no longer on a and free to move"));
        assert_eq!(check(&|now| now.vms[1].pinned = true), says("db is no longer on a and free to move"));
        assert_eq!(check(&|now| now.hosts[1].moves_in = 1), says("b has other moves under way"));
        assert_eq!(check(&|now| now.hosts[1].memory_mib = 1024), says("b has 1024 MiB free of the 2048 MiB needed"));
        assert_eq!(check(&|now| now.hosts[1].state = crate::HostState::Draining), says("b is being emptied"));
        assert!(matches!(revalidate(&made, 1, &rack, &policy), Err(Stale::NoMove { place: 1 })));
    }
}
