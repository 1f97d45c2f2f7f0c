//! The best places for so many instances and so much memory moved.
//!
//! Owns: the search within limits. Never does: order (see `order`).
//!
//! ```text
//! descend: the best single move, again and again, until none helps or the limits are reached
//! improve: for each moved instance: send it home, make the best single moves that the limits now allow;
//!          keep that if it is better; and let pairs change places where that helps. Until a round brings too little.
//! ```
//! hbal stops where no single move helps. The second phase starts there: with the same number moved it chooses others and other places.

use super::order::order;
use super::score::State;
use super::{Cluster, GanetiPlan};

/// What a plan may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most distinct instances moved.
    pub instances: usize,
    /// Most memory moved, MiB.
    pub mib: u64,
    /// Candidates looked at after the descent, at most: a bound on time that does not depend on the machine.
    pub effort: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { instances: usize::MAX, mib: u64::MAX, effort: 40_000_000 }
    }
}

/// A change below this is rounding.
const LEAST: f64 = 1e-9;

/// Plans by hbal's score within limits. The same cluster gives the same plan.
pub fn plan(cluster: &Cluster, limits: &Limits) -> GanetiPlan {
    let start = State::new(cluster);
    let score_before = start.score();
    let mut search = Search::new(start.clone(), *limits);
    if !search.state.nodes.is_empty() {
        search.descend();
        search.improve();
    }
    let goal = search.state.place.clone();
    let mut now = start;
    let steps = order(&mut now, &goal);
    now.sum_up();
    let away = || (0..cluster.instances.len()).filter(|&i| now.place[i] != now.home[i]);
    GanetiPlan {
        score_before,
        score_after: now.score(),
        moved: away().count(),
        moved_mib: away().map(|i| cluster.instances[i].memory_mib).sum(),
        steps,
    }
}

struct Search<'a> {
    state: State<'a>,
    movable: Vec<usize>,
    limits: Limits,
    moved: usize,
    moved_mib: u64,
    effort: u64,
}

impl<'a> Search<'a> {
    fn new(state: State<'a>, limits: Limits) -> Self {
        let movable = (0..state.place.len())
            .filter(|&i| state.place[i].is_some() && state.cluster.instances[i].movable)
            .collect();
        Self { state, movable, limits, moved: 0, moved_mib: 0, effort: 0 }
    }

    fn mib(&self, i: usize) -> u64 {
        self.state.cluster.instances[i].memory_mib
    }

    fn at_home(&self, i: usize) -> bool {
        self.state.place[i] == self.state.home[i]
    }

    /// Whether the limits allow one more away from home.
    fn may_leave(&self, i: usize) -> bool {
        !self.at_home(i) || (self.moved < self.limits.instances && self.moved_mib + self.mib(i) <= self.limits.mib)
    }

    fn shift(&mut self, i: usize, to: usize) {
        let was = self.at_home(i);
        self.state.shift(i, to);
        match (was, self.at_home(i)) {
            (true, false) => (self.moved, self.moved_mib) = (self.moved + 1, self.moved_mib + self.mib(i)),
            (false, true) => (self.moved, self.moved_mib) = (self.moved - 1, self.moved_mib - self.mib(i)),
            _ => {}
        }
    }

    /// The best single move that the limits allow: instance, node, estimated change.
    fn best_move(&mut self) -> Option<(usize, usize, f64)> {
        let mut best: Option<(usize, usize, f64)> = None;
        let mut bound = -LEAST;
        for &i in &self.movable {
            if !self.may_leave(i) {
                continue;
            }
            let Some(from) = self.state.place[i] else { continue };
            self.effort += self.state.nodes.len() as u64;
            for to in 0..self.state.nodes.len() {
                if to == from {
                    continue;
                }
                let change = self.state.estimate(i, from, to);
                if change < bound && self.state.allows(i, to) {
                    bound = change;
                    best = Some((i, to, change));
                }
            }
        }
        best
    }

    fn descend(&mut self) {
        while let Some((i, to, _)) = self.best_move() {
            self.shift(i, to);
        }
        self.state.sum_up();
        self.effort = 0;
    }

    fn improve(&mut self) {
        let mut score = self.state.score();
        while self.effort < self.limits.effort {
            self.exchange();
            self.replace();
            self.state.sum_up();
            let now = self.state.score();
            if now > score - 1e-6 {
                return;
            }
            score = now;
        }
    }

    /// Sends each moved instance home in turn and fills the room in the limits by the best moves.
    fn replace(&mut self) {
        let away: Vec<usize> = self.movable.iter().copied().filter(|&i| !self.at_home(i)).collect();
        for i in away {
            let (Some(place), Some(home)) = (self.state.place[i], self.state.home[i]) else { continue };
            if place == home || !self.state.allows(i, home) || self.effort >= self.limits.effort {
                continue;
            }
            let before = self.state.score();
            self.shift(i, home);
            let mut undo = vec![(i, place)];
            for _ in 0..2 {
                let Some((j, to, _)) = self.best_move() else { break };
                undo.extend(self.state.place[j].map(|from| (j, from)));
                self.shift(j, to);
            }
            if self.state.score() > before - LEAST {
                for (j, from) in undo.into_iter().rev() {
                    self.shift(j, from);
                }
            }
        }
    }

    /// Lets pairs change places where that helps, until none does.
    fn exchange(&mut self) {
        let mut again = true;
        while again && self.effort < self.limits.effort {
            again = false;
            for x in 0..self.movable.len() {
                let i = self.movable[x];
                let mut best: Option<(usize, f64)> = None;
                let Some(a) = self.state.place[i] else { continue };
                self.effort += self.movable.len() as u64;
                for &j in &self.movable {
                    let Some(b) = self.state.place[j].filter(|&b| b != a) else { continue };
                    if !self.may_swap(i, a, j, b) {
                        continue;
                    }
                    let change = self.state.estimate_swap(i, a, j, b);
                    if change < best.map_or(-LEAST, |(_, least)| least) && self.state.allows_swap(i, a, j, b) {
                        best = Some((j, change));
                    }
                }
                if let Some((j, _)) = best
                    && let Some(b) = self.state.place[j]
                {
                    self.shift(i, b);
                    self.shift(j, a);
                    again = true;
                }
            }
        }
    }

    /// Whether the limits allow two instances to change places.
    fn may_swap(&self, i: usize, a: usize, j: usize, b: usize) -> bool {
        let (mut moved, mut mib) = (self.moved as i64, self.moved_mib as i64);
        for (v, from, to) in [(i, a, b), (j, b, a)] {
            let step = i64::from(self.state.home[v] != Some(to)) - i64::from(self.state.home[v] != Some(from));
            moved += step;
            mib += step * self.mib(v) as i64;
        }
        moved <= self.limits.instances.try_into().unwrap_or(i64::MAX)
            && mib <= self.limits.mib.try_into().unwrap_or(i64::MAX)
    }
}
