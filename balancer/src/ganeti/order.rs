//! An order of moves in which each step is one that hbal would allow.

use super::score::State;

/// Brings `now` to `goal`, step by step; instances that stand in each other's way go over a third node. Those that cannot be brought are left
/// where they are: `now` is what the steps lead to.
pub(super) fn order(now: &mut State<'_>, goal: &[Option<usize>]) -> Vec<(usize, usize)> {
    let mut waiting: Vec<usize> = (0..goal.len()).filter(|&i| now.place[i] != goal[i]).collect();
    let mut steps = Vec::with_capacity(waiting.len());
    let mut detours = vec![false; goal.len()];
    loop {
        let before = waiting.len();
        waiting.retain(|&i| {
            let Some(to) = goal[i].filter(|&to| now.allows(i, to)) else { return true };
            now.shift(i, to);
            steps.push((i, to));
            false
        });
        if waiting.is_empty() {
            return steps;
        }
        if waiting.len() < before {
            continue;
        }
        // All are stuck. The smallest goes aside to the node with most room.
        let smallest =
            waiting.iter().copied().filter(|&i| !detours[i]).min_by_key(|&i| (now.cluster.instances[i].memory_mib, i));
        let Some(i) = smallest else { return steps };
        detours[i] = true;
        let aside = (0..now.nodes.len()).filter(|&h| now.place[i] != Some(h) && now.allows(i, h));
        if let Some(to) = aside.max_by(|&a, &b| now.free_mib[a].total_cmp(&now.free_mib[b]).then(b.cmp(&a))) {
            now.shift(i, to);
            steps.push((i, to));
        }
    }
}
