//! The rest that a VM is given after a move.
//!
//! Owns: how long a rest lasts; it doubles when the VM is moved again soon after one. Never does: keep state; the caller stores
//! [`Moved`] with the VM and hands it back, over restarts too.

use crate::policy::Rest;
use crate::snapshot::{Moved, Vm};

/// Until when a VM rests, Unix milliseconds; `None` when it does not.
pub fn resting_until(vm: &Vm, now_ms: u64) -> Option<u64> {
    vm.moved.map(|moved| moved.at_ms.saturating_add(moved.rest_ms)).filter(|&until| until > now_ms)
}

/// What to keep with a VM whose move ended at `now_ms`.
pub fn after_move(before: Option<Moved>, now_ms: u64, rest: &Rest) -> Moved {
    let soon = before.filter(|b| now_ms < b.at_ms.saturating_add(b.rest_ms).saturating_add(rest.again_ms));
    let rest_ms = soon.map_or(rest.first_ms, |b| b.rest_ms.saturating_mul(2).max(rest.first_ms));
    Moved { at_ms: now_ms, rest_ms: rest_ms.min(rest.most_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_when_soon() {
        let rest = Rest { first_ms: 10, most_ms: 35, again_ms: 50 };
        let first = after_move(None, 100, &rest);
        assert_eq!(first, Moved { at_ms: 100, rest_ms: 10 });
        let second = after_move(Some(first), 159, &rest);
        assert_eq!(second.rest_ms, 20);
        let third = after_move(Some(second), 200, &rest);
        assert_eq!(third.rest_ms, 35, "no longer than the longest");
        assert_eq!(after_move(Some(third), 1000, &rest).rest_ms, 10, "forgotten after a long calm");
        // A caller that stored it and was started anew goes on where it was.
        let stored = serde_json::to_string(&second).expect("numbers are JSON");
        let kept: Moved = serde_json::from_str(&stored).expect("what was written can be read");
        assert_eq!(after_move(Some(kept), 200, &rest), third);
        let vm = Vm { moved: Some(first), ..Vm::new("a".parse().expect("a name"), 1, 1) };
        assert_eq!((resting_until(&vm, 109), resting_until(&vm, 110)), (Some(110), None));
    }
}
