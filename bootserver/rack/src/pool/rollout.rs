//! One rollout: a release comes to a pool's hosts, first to a few.
//!
//! Owns: its life cycle, as a function of what is seen of the hosts and of the time. Never does: input or output; what is to be done comes out
//! as [`Deed`]s. All that must outlive the server is in [`Rollout`]: asked again with the same, it says the same.
//!
//! ```text
//! begin --> Canary --all canaries run it and are healthy--> Rolling --no host that is up runs another--> Done
//!             |                                               +-- a host is not back in its time, or stop --> Stopped
//!             +-- the deadline, no canary left, or stop --> Back --no canary that is up runs it--> RolledBack
//!                                                             ^-------- a canary comes up with it late ----+
//! a turn of a host:  drained --> empty, told to start anew --> up with the release --> healthy: next one's turn
//! ```
//! From Canary there is one way on, so that what was promoted is never rolled back by itself, nor the other way round. The pool's release changes
//! with the step to Rolling, in one commit. Deadlines are on the wall's clock, as they outlive the server: a wall clock that is set forward
//! ends them early, which costs a rollback and no guest.

use proto::HostId;
use proto::release::{ReleaseId, RolloutPhase, StartRollout};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A rollout, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// To which release.
    pub to: ReleaseId,
    /// From which.
    pub from: ReleaseId,
    /// How far it is.
    pub phase: RolloutPhase,
    /// When it began, Unix milliseconds.
    pub began_ms: u64,
    /// How long canaries together, and afterwards each host, may take, seconds.
    pub deadline_s: u64,
    /// How long a host must be healthy, seconds.
    pub healthy_s: u64,
    /// Hosts at a time, 1 or more.
    pub at_once: usize,
    /// Hosts are drained and started anew by it.
    pub reboot: bool,
    /// Who tries it first.
    pub canaries: Vec<Canary>,
    /// Whose turn it is.
    pub turns: Vec<Turn>,
    /// Why it ended or turned back; empty before.
    pub why: String,
    /// An operator has said that hosts that are to go back are left alone.
    pub left: bool,
}

/// A host that tries it first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Which.
    pub host: HostId,
    /// Why this one.
    pub why: String,
}

/// A host whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Which.
    pub host: HostId,
    /// It was set draining for this, and is used again afterwards.
    pub drained: bool,
    /// The boot that it was told to end.
    pub boot: Option<String>,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// What it is at, a few words.
    pub at: String,
}

/// What is seen of a host of the pool that was let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What its newest joined boot runs.
    pub runs: Option<ReleaseId>,
    /// That boot.
    pub boot: Option<String>,
    /// It reports.
    pub up: bool,
    /// How long it has been healthy, milliseconds; absent while it is not.
    pub healthy_ms: Option<u64>,
    /// VMs that may run there.
    pub vms: usize,
    /// A VM is on its way there or away.
    pub moves: bool,
    /// It is to be emptied and given nothing new.
    pub draining: bool,
    /// Its agent knows how to start the machine anew.
    pub reboots: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Empty a host.
    Drain(HostId),
    /// Use it again.
    Undrain(HostId),
    /// Tell it to start anew. Said again until it has.
    Reboot {
        /// Which host.
        host: HostId,
        /// The boot that is to end.
        boot: String,
    },
    /// Cut its power and switch it on again, if that can be done: it was told to start anew, and is not heard of since.
    Cycle(HostId),
    /// The pool's hosts boot this from now on.
    Promote(ReleaseId),
    /// For the log.
    Info(String),
    /// For the log, worth a look.
    Warn(String),
}

impl Rollout {
    /// Chooses the canaries: of the hosts that are up and run another release, those with the fewest VMs, then by id.
    ///
    /// # Errors
    /// What was expected, when there is no host to try it.
    pub fn begin(
        request: StartRollout,
        from: ReleaseId,
        seen: &BTreeMap<HostId, Seen>,
        now_ms: u64,
    ) -> Result<Self, String> {
        let mut fit: Vec<_> = seen.iter().filter(|(_, s)| s.up && s.runs.as_ref() != Some(&request.to)).collect();
        fit.sort_by_key(|(id, s)| (s.vms, *id));
        let count = usize::try_from(request.canary).unwrap_or(usize::MAX);
        if count > 0 && fit.is_empty() {
            return Err("a pool with a host that reports and runs another release; with canary 0 the pool takes it \
                        untried"
                .to_owned());
        }
        let why = |s: &Seen| match s.vms {
            0 => "runs no VM".to_owned(),
            1 => "runs 1 VM; none has fewer".to_owned(),
            n => format!("runs {n} VMs; none has fewer"),
        };
        let canaries = fit.into_iter().take(count).map(|(id, s)| Canary { host: id.clone(), why: why(s) }).collect();
        Ok(Self {
            to: request.to,
            from,
            phase: RolloutPhase::Canary,
            began_ms: now_ms,
            deadline_s: request.deadline_s,
            healthy_s: request.healthy_s,
            at_once: usize::try_from(request.at_once).unwrap_or(1).max(1),
            reboot: request.reboot,
            canaries,
            turns: Vec::new(),
            why: String::new(),
            left: false,
        })
    }

    /// Nothing more is done by itself, save that a canary that comes up late goes back.
    pub fn ended(&self) -> bool {
        matches!(self.phase, RolloutPhase::Done | RolloutPhase::Stopped | RolloutPhase::RolledBack)
    }

    /// Whether a host is one of its canaries.
    pub fn tries(&self, host: &HostId) -> bool {
        self.canaries.iter().any(|canary| canary.host == *host)
    }

    /// Whether a host has a part in it now.
    pub fn concerns(&self, host: &HostId) -> bool {
        self.tries(host) && self.phase != RolloutPhase::Rolling || self.turns.iter().any(|turn| turn.host == *host)
    }

    /// Until when something must have happened, Unix milliseconds.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        match self.phase {
            RolloutPhase::Canary => Some(self.began_ms.saturating_add(self.deadline_s * 1000)),
            RolloutPhase::Rolling => self.turns.iter().map(|turn| self.turn_deadline_ms(turn)).min(),
            _ => None,
        }
    }

    fn turn_deadline_ms(&self, turn: &Turn) -> u64 {
        turn.since_ms.saturating_add(self.deadline_s * 1000)
    }

    /// Takes the steps that can be taken now.
    pub fn step(&mut self, seen: &BTreeMap<HostId, Seen>, now_ms: u64) -> Vec<Deed> {
        let mut deeds = Vec::new();
        match self.phase {
            RolloutPhase::Canary => self.step_canary(seen, now_ms, &mut deeds),
            RolloutPhase::Rolling => self.step_rolling(seen, now_ms, &mut deeds),
            RolloutPhase::Back => self.step_back(seen, now_ms, &mut deeds),
            RolloutPhase::RolledBack if self.reboot && !self.left && self.one_runs_it(seen) => {
                self.phase = RolloutPhase::Back;
                deeds.push(Deed::Warn("a canary has come up late with the release and goes back".to_owned()));
            }
            RolloutPhase::Done | RolloutPhase::Stopped | RolloutPhase::RolledBack => {}
        }
        deeds
    }

    /// Ends it by hand: canaries go back; what was promoted stays, and no further host changes.
    pub fn stop(&mut self, why: &str, seen: &BTreeMap<HostId, Seen>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        match self.phase {
            RolloutPhase::Canary => self.turn_back(why.to_owned(), seen, &mut deeds),
            RolloutPhase::Rolling => self.end(RolloutPhase::Stopped, why.to_owned(), &mut deeds),
            RolloutPhase::Back => {
                self.left = self.one_runs_it(seen);
                self.end(RolloutPhase::RolledBack, self.why.clone(), &mut deeds);
            }
            RolloutPhase::Done | RolloutPhase::Stopped | RolloutPhase::RolledBack => {}
        }
        deeds
    }

    fn step_canary(&mut self, seen: &BTreeMap<HostId, Seen>, now_ms: u64, deeds: &mut Vec<Deed>) {
        let asked = !self.canaries.is_empty();
        self.canaries.retain(|canary| seen.contains_key(&canary.host));
        if asked && self.canaries.is_empty() {
            return self.turn_back("its canaries were removed".to_owned(), seen, deeds);
        }
        let to = self.to.clone();
        let waited = self.canaries.iter().find_map(|canary| {
            let why = self.lacks(seen.get(&canary.host), &to)?;
            Some(format!("{} {why}", canary.host))
        });
        let Some(waited) = waited else {
            self.end_turns(deeds);
            self.phase = RolloutPhase::Rolling;
            deeds.push(Deed::Promote(self.to.clone()));
            return deeds.push(Deed::Info(format!(
                "its {} canaries are healthy: all hosts boot {} from now on",
                self.canaries.len(),
                self.to
            )));
        };
        if now_ms >= self.began_ms.saturating_add(self.deadline_s * 1000) {
            return self.turn_back(format!("after {} s {waited}", self.deadline_s), seen, deeds);
        }
        let canaries: Vec<HostId> = self.canaries.iter().map(|canary| canary.host.clone()).collect();
        self.take_turns(canaries, &to, seen, now_ms, deeds);
    }

    fn step_rolling(&mut self, seen: &BTreeMap<HostId, Seen>, now_ms: u64, deeds: &mut Vec<Deed>) {
        let to = self.to.clone();
        let behind: Vec<HostId> = by_vms(seen, |s| s.up && s.runs.as_ref() != Some(&to));
        if !self.reboot {
            let why = match behind.len() {
                0 => String::new(),
                n => format!("{n} hosts take it when they are next started anew"),
            };
            return self.end(RolloutPhase::Done, why, deeds);
        }
        let late = self
            .turns
            .iter()
            .find(|turn| now_ms >= self.turn_deadline_ms(turn) && self.lacks(seen.get(&turn.host), &to).is_some());
        if let Some(turn) = late {
            let lacks = self.lacks(seen.get(&turn.host), &to).unwrap_or_default();
            let why = format!("after {} s {} {lacks}", self.deadline_s, turn.host);
            return self.end(RolloutPhase::Stopped, why, deeds);
        }
        self.take_turns(behind, &to, seen, now_ms, deeds);
        if self.turns.is_empty() {
            self.end(RolloutPhase::Done, String::new(), deeds);
        }
    }

    fn step_back(&mut self, seen: &BTreeMap<HostId, Seen>, now_ms: u64, deeds: &mut Vec<Deed>) {
        let from = self.from.clone();
        let to_go: Vec<HostId> = self
            .canaries
            .iter()
            .filter(|canary| seen.get(&canary.host).is_some_and(|s| s.up && s.runs.as_ref() == Some(&self.to)))
            .map(|canary| canary.host.clone())
            .collect();
        if self.reboot {
            self.take_turns(to_go.clone(), &from, seen, now_ms, deeds);
        }
        let more = to_go.iter().any(|host| self.turns.iter().all(|turn| turn.host != *host));
        // The last that went down on its way back boots the old release when it comes: nobody waits for it. Another has its turn only when it
        // has come, or its time is over.
        let waits = self
            .turns
            .iter()
            .any(|turn| seen.get(&turn.host).is_some_and(|s| s.up) || more && now_ms < self.turn_deadline_ms(turn));
        if !waits {
            self.end(RolloutPhase::RolledBack, self.why.clone(), deeds);
        }
    }

    fn one_runs_it(&self, seen: &BTreeMap<HostId, Seen>) -> bool {
        self.canaries
            .iter()
            .any(|canary| seen.get(&canary.host).is_some_and(|s| s.up && s.runs.as_ref() == Some(&self.to)))
    }

    /// What a host lacks of being healthy with a release; `None` when nothing.
    fn lacks(&self, seen: Option<&Seen>, release: &ReleaseId) -> Option<String> {
        let Some(seen) = seen else { return Some("is gone".to_owned()) };
        let healthy_ms = self.healthy_s * 1000;
        match (&seen.runs, seen.healthy_ms) {
            (Some(runs), Some(ms)) if runs == release && seen.up && ms >= healthy_ms => None,
            (Some(runs), Some(ms)) if runs == release && seen.up => {
                Some(format!("has been healthy for {} s of {}", ms / 1000, self.healthy_s))
            }
            (Some(runs), None) if runs == release && seen.up => Some("has joined but has no valid lease".to_owned()),
            _ if !seen.up => Some("does not report".to_owned()),
            _ if seen.vms > 0 && seen.draining => Some(format!("still has {} VMs", seen.vms)),
            _ if !seen.reboots && self.reboot => {
                Some("has not started anew: its agent is too old to be told, so reboot it by hand".to_owned())
            }
            _ => Some("has not started anew".to_owned()),
        }
    }

    /// Goes on with the hosts whose turn it is, and begins with others while there is room.
    fn take_turns(
        &mut self,
        waiting: Vec<HostId>,
        release: &ReleaseId,
        seen: &BTreeMap<HostId, Seen>,
        now_ms: u64,
        deeds: &mut Vec<Deed>,
    ) {
        let mut turns = std::mem::take(&mut self.turns);
        turns.retain(|turn| {
            // Whoever was removed needs nothing more.
            let Some(s) = seen.get(&turn.host) else { return false };
            let over = self.lacks(Some(s), release).is_none();
            if over {
                if turn.drained {
                    deeds.push(Deed::Undrain(turn.host.clone()));
                }
                deeds.push(Deed::Info(format!("{} runs {release} and is healthy", turn.host)));
            }
            !over
        });
        if self.reboot {
            for host in waiting {
                let runs_it = seen.get(&host).is_none_or(|s| !s.up || s.runs.as_ref() == Some(release));
                if turns.len() < self.at_once && !runs_it && turns.iter().all(|turn| turn.host != host) {
                    turns.push(Turn { host, drained: false, boot: None, since_ms: now_ms, at: String::new() });
                }
            }
        }
        for turn in &mut turns {
            if let Some(s) = seen.get(&turn.host) {
                self.advance(turn, s, release, deeds);
            }
        }
        self.turns = turns;
    }

    /// The next step of one host's turn.
    fn advance(&self, turn: &mut Turn, s: &Seen, release: &ReleaseId, deeds: &mut Vec<Deed>) {
        let runs_it = s.runs.as_ref() == Some(release);
        if turn.boot.is_some() && turn.boot != s.boot && !runs_it {
            // It came up with what it was sent before its turn.
            turn.boot = None;
        }
        turn.at = if runs_it {
            if s.up { "has joined; is it healthy?" } else { "has joined, but does not report" }.to_owned()
        } else if let Some(boot) = &turn.boot {
            if s.up {
                deeds.push(Deed::Reboot { host: turn.host.clone(), boot: boot.clone() });
                "is told to start anew"
            } else {
                "starts anew"
            }
            .to_owned()
        } else if !s.up {
            "does not report".to_owned()
        } else if !s.draining {
            turn.drained = true;
            deeds.push(Deed::Drain(turn.host.clone()));
            "is being emptied".to_owned()
        } else if s.vms > 0 || s.moves {
            format!("is being emptied: {} VMs left", s.vms)
        } else if !s.reboots {
            "is empty; its agent is too old to be told, so reboot it by hand".to_owned()
        } else if let Some(boot) = &s.boot {
            turn.boot = Some(boot.clone());
            deeds.push(Deed::Reboot { host: turn.host.clone(), boot: boot.clone() });
            "is told to start anew".to_owned()
        } else {
            "has not joined".to_owned()
        };
    }

    fn turn_back(&mut self, why: String, seen: &BTreeMap<HostId, Seen>, deeds: &mut Vec<Deed>) {
        // It may hang in the release that does not work, and hears nothing there. It was empty when it was told.
        let away = |turn: &&Turn| turn.boot.is_some() && seen.get(&turn.host).is_some_and(|s| !s.up);
        let hang: Vec<Deed> = self.turns.iter().filter(away).map(|turn| Deed::Cycle(turn.host.clone())).collect();
        self.end_turns(deeds);
        self.phase = RolloutPhase::Back;
        deeds.push(Deed::Warn(format!("goes back to {}: {why}", self.from)));
        deeds.extend(hang);
        self.why = why;
    }

    fn end(&mut self, phase: RolloutPhase, why: String, deeds: &mut Vec<Deed>) {
        self.end_turns(deeds);
        self.phase = phase;
        deeds.push(match phase {
            RolloutPhase::Done if why.is_empty() => Deed::Info(format!("done: all hosts that are up run {}", self.to)),
            RolloutPhase::Done => Deed::Info(format!("done: {why}")),
            RolloutPhase::RolledBack => Deed::Warn(format!("rolled back to {}: {why}", self.from)),
            _ => Deed::Warn(format!("{phase}: {why}")),
        });
        self.why = why;
    }

    fn end_turns(&mut self, deeds: &mut Vec<Deed>) {
        for turn in std::mem::take(&mut self.turns) {
            if turn.drained {
                deeds.push(Deed::Undrain(turn.host));
            }
        }
    }

    /// One sentence on where it stands; `name` is what an operator calls a host.
    pub(crate) fn note(&self, name: &dyn Fn(&HostId) -> String) -> String {
        let turns = || {
            let each = self.turns.iter().map(|turn| format!("{} {}", name(&turn.host), turn.at));
            each.collect::<Vec<_>>().join("; ")
        };
        match self.phase {
            RolloutPhase::Canary if self.turns.is_empty() => "waits for its canaries".to_owned(),
            RolloutPhase::Canary | RolloutPhase::Rolling => turns(),
            RolloutPhase::Back if !self.turns.is_empty() => format!("{}; {}", self.why, turns()),
            _ => self.why.clone(),
        }
    }
}

/// Hosts that are so, those with the fewest VMs first.
fn by_vms(seen: &BTreeMap<HostId, Seen>, is: impl Fn(&Seen) -> bool) -> Vec<HostId> {
    let mut found: Vec<_> = seen.iter().filter(|(_, s)| is(s)).collect();
    found.sort_by_key(|(id, s)| (s.vms, *id));
    found.into_iter().map(|(id, _)| id.clone()).collect()
}
