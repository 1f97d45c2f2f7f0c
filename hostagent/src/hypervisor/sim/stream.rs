//! Migration streams of the model.
//!
//! Owns: a stream's phases and what a break in each leaves behind, as read in Xen 4.17's xl_migrate.c and arranged by
//! `migration`'s rule that nobody is left at the source who would resume a guest which the target may run.
//!
//! | break while | source | target |
//! |---|---|---|
//! | copying, as when the guest ends by itself | is as it was | destroyed (by xl) |
//! | stopped | suspended, the agent may resume it | destroyed (by the agent; by xl when the stream is not whole) |
//! | stopped, source's agent killed | resumed (by xl) | the same |
//! | stopped, READY seen, target's agent killed | suspended, the agent may resume it | orphan: incoming, paused |
//! | told (`Sent` there, the word on the wire) | suspended | destroyed; an orphan when its agent was killed |

use super::{Due, World};
use crate::agent::{AgentEvent, failure};
use crate::hypervisor::{Completion, Job, Progress};
use proto::agent::{DomainState, Failure, FailureKind, Part, Permit, Stage};
use proto::{HostId, MoveId, VmId};

/// Pre-copy ends after this many rounds (Xen tools/libs/guest/xg_sr_save.c, SPP_MAX_ITERATIONS) …
const ROUNDS_MAX: u32 = 5;
/// … or when this few pages are dirty (SPP_TARGET_DIRTY_COUNT).
const DIRTY_PAGES_FEW: u64 = 50;
const PAGE_BYTES: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Listening,
    Copying,
    Stopped,
    /// The stream is whole, READY was seen at the target, the source does not know it yet.
    Ready,
    /// The source has said its word and completed; the target has not heard it yet.
    Told,
}

#[derive(Debug)]
pub(super) struct Stream {
    permit: Permit,
    receiver: (u64, Job),
    sender: Option<(u64, Job)>,
    phase: Phase,
    /// Raised whenever the future that was planned is void.
    turn: u64,
    /// Falls silent: at the next turn it breaks.
    broken: bool,
    begun_ms: u64,
    stopped_ms: u64,
    bytes: u64,
    last_bytes: u64,
    rate_bytes_ms: u64,
}

impl World {
    pub(super) fn receive(&mut self, id: &HostId, agent: u64, job: Job, permit: Permit) {
        if let Some(old) = self.streams.remove(&permit.r#move) {
            let (agent, job) = old.receiver;
            self.end(id, agent, job, Err(stream_failure("replaced by another reception")));
        }
        let r#move = permit.r#move;
        let off_ms = self.clock_off_ms.get(id).copied().unwrap_or_default();
        self.push(permit.expires_ms.saturating_add_signed(-off_ms), Due::PermitEnds { r#move, job });
        let stream = Stream {
            permit,
            receiver: (agent, job),
            sender: None,
            phase: Phase::Listening,
            turn: 0,
            broken: false,
            begun_ms: 0,
            stopped_ms: 0,
            bytes: 0,
            last_bytes: 0,
            rate_bytes_ms: 1,
        };
        self.streams.insert(r#move, stream);
        self.progress(id, agent, job, Stage::Listening, 0);
    }

    pub(super) fn permit_ends(&mut self, r#move: MoveId, job: Job) {
        let waits = |s: &Stream| s.phase == Phase::Listening && s.receiver.1 == job;
        if self.streams.get(&r#move).is_some_and(waits)
            && let Some(stream) = self.streams.remove(&r#move)
        {
            let (agent, job) = stream.receiver;
            self.end(&stream.permit.target, agent, job, Err(stream_failure("the permit ended before a stream came")));
        }
    }

    pub(super) fn send(&mut self, id: &HostId, agent: u64, job: Job, permit: &Permit, rate_bytes_s: u64) {
        let fits = |s: &Stream| s.phase == Phase::Listening && s.permit == *permit && permit.source == *id;
        let linked = !self.cut_links.contains(&(id.clone(), permit.target.clone()));
        let listening = self.hosts.get(&permit.target).is_some_and(|h| h.powered)
            && self.streams.get(&permit.r#move).is_some_and(fits);
        let Some(domain) = self.domain_mut(id, &permit.vm).cloned() else {
            let why = format!("{}: no such domain on {id}", permit.vm);
            return self.end(id, agent, job, Err(failure(FailureKind::NoDomain, why)));
        };
        if !linked || !listening {
            return self.end(id, agent, job, Err(stream_failure("the target does not take the stream")));
        }
        let (target, vm) = (permit.target.clone(), permit.vm.clone());
        let put = self.put(
            &target,
            vm.clone(),
            domain.memory_mib,
            domain.disks.clone(),
            domain.lineage,
            Part::Incoming,
            DomainState::Paused,
        );
        if let Err(why) = put {
            if let Some(stream) = self.streams.remove(&permit.r#move) {
                let (agent, job) = stream.receiver;
                self.end(&target, agent, job, Err(why.clone()));
            }
            return self.end(id, agent, job, Err(why));
        }
        let link = self.costs.link_bytes_ms;
        let rate = if rate_bytes_s == 0 { link } else { link.min((rate_bytes_s / 1000).max(1)) };
        let dirty = self.dirty.get(&vm).copied().unwrap_or(100);
        let (bytes, last_bytes) = precopy(domain.memory_mib << 20, dirty, rate);
        let now_ms = self.now_ms;
        let Some(stream) = self.streams.get_mut(&permit.r#move) else { return };
        stream.sender = Some((agent, job));
        stream.phase = Phase::Copying;
        stream.turn += 1;
        stream.begun_ms = now_ms;
        (stream.bytes, stream.last_bytes, stream.rate_bytes_ms) = (bytes, last_bytes, rate);
        let (receiver, turn) = (stream.receiver, stream.turn);
        self.progress(id, agent, job, Stage::Copying, 0);
        self.progress(&target, receiver.0, receiver.1, Stage::Copying, 0);
        self.push(now_ms + bytes / rate, Due::Stream { r#move: permit.r#move, turn });
    }

    /// The stream's next step, unless it was voided.
    pub(super) fn stream_turn(&mut self, r#move: MoveId, turn: u64) {
        let now_ms = self.now_ms;
        let Some(stream) = self.streams.get_mut(&r#move).filter(|s| s.turn == turn) else { return };
        if stream.broken {
            return self.break_stream(r#move, None);
        }
        let (source, target, vm) =
            (stream.permit.source.clone(), stream.permit.target.clone(), stream.permit.vm.clone());
        let (sender, receiver) = (stream.sender, stream.receiver);
        let (latency_ms, phase) = (self.costs.latency_ms, stream.phase);
        // Who has shut down for another reason cannot be suspended (Xen libxl_dom_suspend.c).
        if phase == Phase::Copying && self.has_ended(&source, &vm) {
            return self.break_stream(r#move, None);
        }
        let Some(stream) = self.streams.get_mut(&r#move) else { return };
        let next_ms = match phase {
            Phase::Listening => return,
            Phase::Copying => {
                stream.phase = Phase::Stopped;
                stream.stopped_ms = now_ms;
                stream.bytes += stream.last_bytes;
                let (bytes, rest_ms) = (stream.bytes, stream.last_bytes / stream.rate_bytes_ms);
                if let Some(d) = self.domain_mut(&source, &vm) {
                    d.state = DomainState::Suspended;
                }
                self.changed(&source);
                if let Some((agent, job)) = sender {
                    self.progress(&source, agent, job, Stage::Stopped, bytes);
                }
                self.progress(&target, receiver.0, receiver.1, Stage::Stopped, bytes);
                rest_ms + self.costs.devices_ms
            }
            Phase::Stopped => {
                stream.phase = Phase::Ready;
                latency_ms
            }
            Phase::Ready => {
                // The source ends xl, says its word and is done with it.
                stream.phase = Phase::Told;
                let (bytes, total_ms) = (stream.bytes, now_ms - stream.begun_ms);
                if let Some((agent, job)) = sender {
                    self.end(&source, agent, job, Ok(Completion::Sent { bytes, total_ms }));
                }
                latency_ms
            }
            Phase::Told => {
                let (bytes, stopped_ms) = (stream.bytes, stream.stopped_ms);
                self.streams.remove(&r#move);
                return self.end(&target, receiver.0, receiver.1, Ok(Completion::Received { bytes, stopped_ms }));
            }
        };
        self.push(now_ms + next_ms, Due::Stream { r#move, turn });
    }

    fn has_ended(&self, host: &HostId, vm: &VmId) -> bool {
        let ended = |state| matches!(state, DomainState::Shutdown | DomainState::Crashed);
        self.domains(host).iter().any(|d| d.vm == *vm && ended(d.state))
    }

    /// A stream breaks. `dead` is an end whose agent (or power) is gone.
    fn break_stream(&mut self, r#move: MoveId, dead: Option<&HostId>) {
        let Some(stream) = self.streams.remove(&r#move) else { return };
        let Permit { source, target, vm, .. } = &stream.permit;
        let why = stream_failure("the stream broke");
        if matches!(stream.phase, Phase::Stopped | Phase::Ready) && dead == Some(source) {
            // xl finds its pipe closed and resumes the guest; an agent that lives has killed it before.
            if let Some(d) = self.domain_mut(source, vm).filter(|d| d.state == DomainState::Suspended) {
                d.state = DomainState::Running;
            }
            self.changed(source);
        }
        let orphan = dead == Some(target) && matches!(stream.phase, Phase::Ready | Phase::Told);
        if !orphan {
            if let Some(host) = self.hosts.get_mut(target) {
                host.domains.retain(|d| d.vm != *vm || d.part != Part::Incoming);
            }
            self.changed(target);
        }
        if let Some((agent, job)) = stream.sender.filter(|_| stream.phase != Phase::Told) {
            self.end(source, agent, job, Err(why.clone()));
        }
        let (agent, job) = stream.receiver;
        self.end(target, agent, job, Err(why));
    }

    pub(super) fn cancel(&mut self, id: &HostId, agent: u64, job: Job) {
        let ours = |s: &Stream| {
            (s.permit.target == *id && s.receiver == (agent, job))
                || (s.permit.source == *id && s.sender == Some((agent, job)) && s.phase != Phase::Told)
        };
        let found = self.streams.iter().find(|(_, s)| ours(s)).map(|(&m, _)| m);
        if let Some(r#move) = found {
            self.break_stream(r#move, None);
        }
    }

    pub(super) fn drop_streams_of(&mut self, id: &HostId, power: bool) {
        let of: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, s)| s.permit.target == *id || (s.permit.source == *id && s.sender.is_some()))
            .map(|(&m, s)| (m, s.phase, s.permit.source == *id))
            .collect();
        for (r#move, phase, source) in of {
            // The source has said its word: it is on the wire, and the target hears it.
            if source && phase == Phase::Told {
                continue;
            }
            if power {
                self.silence(r#move, Some(id));
            } else {
                self.break_stream(r#move, Some(id));
            }
        }
    }

    pub(super) fn silence_streams(&mut self, a: &HostId, b: &HostId) {
        let between = |s: &Stream| {
            let ends = [&s.permit.source, &s.permit.target];
            s.sender.is_some() && ends.contains(&a) && ends.contains(&b)
        };
        let of: Vec<_> = self.streams.iter().filter(|(_, s)| between(s)).map(|(&m, _)| m).collect();
        for r#move in of {
            self.silence(r#move, None);
        }
    }

    /// Nothing more comes through; each end that is left gives up after a while.
    fn silence(&mut self, r#move: MoveId, gone: Option<&HostId>) {
        let Some(stream) = self.streams.get_mut(&r#move) else { return };
        if stream.phase == Phase::Listening && gone == Some(&stream.permit.target) {
            self.streams.remove(&r#move);
            return;
        }
        stream.broken = true;
        stream.turn += 1;
        let turn = stream.turn;
        self.push(self.now_ms + self.costs.silence_ms, Due::Stream { r#move, turn });
    }

    fn progress(&mut self, host: &HostId, agent: u64, job: Job, stage: Stage, bytes: u64) {
        self.tell(host, agent, AgentEvent::Progress { job, progress: Progress { stage, bytes } });
    }
}

/// Bytes sent while the guest runs, and bytes left for when it stands still.
fn precopy(memory_bytes: u64, dirty_bytes_ms: u64, rate_bytes_ms: u64) -> (u64, u64) {
    let (mut sent, mut left) = (0, memory_bytes);
    for _ in 0..ROUNDS_MAX {
        sent += left;
        left = (left / rate_bytes_ms * dirty_bytes_ms).min(memory_bytes);
        if left < DIRTY_PAGES_FEW * PAGE_BYTES {
            break;
        }
    }
    (sent, left)
}

fn stream_failure(what: &str) -> Failure {
    failure(FailureKind::Stream, what)
}
