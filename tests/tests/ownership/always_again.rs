//! Whether the VM can always come to run again: from every state there is a way, without a further fault, to one where it
//! runs on the host that the record says, can write, and nothing is under way.
//!
//! Stateright checks "eventually" on states that have no successor only; this is the stronger question, asked backwards
//! over all transitions that are no faults.

use super::state::State;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// Transitions as pairs of hashes, where they lead to first; on shelves, so that threads seldom meet.
pub(crate) struct Seen {
    back: Vec<Mutex<Vec<(u64, u64)>>>,
    runs: Mutex<HashSet<u64>>,
    all: Mutex<HashSet<u64>>,
}

const SHELVES: usize = 64;

impl Default for Seen {
    fn default() -> Self {
        let back = (0..SHELVES).map(|_| Mutex::default()).collect();
        Self { back, runs: Mutex::default(), all: Mutex::default() }
    }
}

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

impl Seen {
    pub(crate) fn note(&self, from: &State, to: &State, fault: bool) {
        let (from, print) = (hash(from), hash(to));
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(print);
        if to.runs_as_recorded() {
            self.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(print);
        }
        if !fault {
            let shelf = &self.back[print as usize % SHELVES];
            shelf.lock().unwrap_or_else(PoisonError::into_inner).push((print, from));
        }
    }

    /// The hashes of states from which there is no such way.
    pub(crate) fn lost(&self) -> HashSet<u64> {
        let lock =
            |shelf: &Mutex<Vec<(u64, u64)>>| std::mem::take(&mut *shelf.lock().unwrap_or_else(PoisonError::into_inner));
        let mut back: Vec<Vec<(u64, u64)>> = self.back.iter().map(lock).collect();
        back.iter_mut().for_each(|shelf| shelf.sort_unstable());
        let mut found = self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut next: Vec<u64> = found.iter().copied().collect();
        while let Some(to) = next.pop() {
            let shelf = &back[to as usize % SHELVES];
            let first = shelf.partition_point(|edge| edge.0 < to);
            for (_, from) in shelf[first..].iter().take_while(|edge| edge.0 == to) {
                if found.insert(*from) {
                    next.push(*from);
                }
            }
        }
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|print| !found.contains(print)).copied().collect()
    }

    pub(crate) fn is_in(lost: &HashSet<u64>, state: &State) -> bool {
        lost.contains(&hash(state))
    }
}
