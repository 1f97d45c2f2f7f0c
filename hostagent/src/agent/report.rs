//! When the agent reports, and what.
//!
//! Owns: the report's clock, the rates between two reports. Never does: deciding on orders.

use super::orders::Work;
use super::{Agent, AgentAction, JobFor};
use crate::hypervisor::{Completion, Op, OpResult, SeenDomain, Survey};
use proto::agent::{DomainState, DomainSurvey, HostStats, OrderOutcome, OrderProgress, Part, Report, Stage};

/// Of the outcomes in one report, bytes.
const OUTCOMES_BYTES_MAX: usize = 512 << 10;

impl Agent {
    /// A report begins with a fresh survey; one at a time.
    pub(super) fn report_if_due(&mut self, now_ms: u64) {
        let due = self.report_wanted || now_ms >= self.report_at_ms;
        if due && !self.jobs.values().any(|j| *j == JobFor::Report) {
            self.report_wanted = false;
            self.survey_begins();
            self.report_at_ms = now_ms + self.report_ms;
            self.run(JobFor::Report, Op::Survey);
        }
    }

    pub(super) fn post(&mut self, result: OpResult, now_ms: u64) {
        // Without a survey there is no report: one that lacks domains would say that they do not exist.
        let Ok(Completion::Survey(survey)) = result else { return };
        self.look(&survey, now_ms);
        self.seq += 1;
        let (before_ms, before) = self.reported.take().unwrap_or_else(|| (now_ms, survey.clone()));
        let report = Report {
            boot: self.boot.clone(),
            seq: self.seq,
            uptime_ms: now_ms,
            stats: stats(&before, &survey, now_ms - before_ms),
            domains: (survey.domains.iter().map(|d| self.survey_domain(d, &before, now_ms, now_ms - before_ms)))
                .chain(self.remade(&survey))
                .collect(),
            outcomes: self.outcomes_that_fit(),
            underway: self.underway(),
            lease: self.lease.state(now_ms),
            term: self.rule.term(),
            survey: self.host_survey(),
        };
        // Rates over too short a time are noise: reports in quick succession share a beginning.
        self.reported = Some(if now_ms - before_ms >= 500 { (now_ms, survey) } else { (before_ms, before) });
        self.actions.push(AgentAction::Post(report));
    }

    /// The server takes 1 MiB: what does not fit goes when these were seen. One always goes; none is longer than a console's 64 KiB, escaped.
    fn outcomes_that_fit(&self) -> Vec<OrderOutcome> {
        let mut bytes = 0;
        let fits = |outcome: &&OrderOutcome| {
            let first = bytes == 0;
            bytes += serde_json::to_vec(outcome).map_or(0, |text| text.len());
            first || bytes <= OUTCOMES_BYTES_MAX
        };
        self.outcomes.values().take_while(fits).cloned().collect()
    }

    /// Guests that are being made anew, as they shut themselves down in order to start again: they are here, though Xen has no domain of them
    /// for a while. Their memory is theirs.
    fn remade<'a>(&'a self, survey: &'a Survey) -> impl Iterator<Item = DomainSurvey> + 'a {
        let remade = self.works.values().filter_map(Work::remakes);
        let gone = remade.filter(|guest| survey.domains.iter().all(|d| d.vm != guest.spec.name));
        gone.map(|guest| DomainSurvey {
            vm: guest.spec.name.clone(),
            domid: 0,
            epoch: Some(guest.epoch),
            state: DomainState::Dying,
            reboots: true,
            part: Part::Resident,
            memory_mib: guest.spec.memory_mib,
            cpu_cores: 0.0,
            net_rx_bytes_s: 0.0,
            net_tx_bytes_s: 0.0,
            disk_read_bytes_s: 0.0,
            disk_write_bytes_s: 0.0,
        })
    }

    /// What a domain does, as the server is to see it.
    fn state(&self, seen: &SeenDomain, now_ms: u64) -> DomainState {
        match seen.state {
            // It has not ended, but waits to be made anew: for a lease, and for the server where it may not or cannot go on by itself.
            DomainState::Shutdown if seen.reboots => {
                let by_itself = self.may_remake(&seen.vm) && !self.unmade.contains_key(&seen.vm);
                if self.leased(now_ms) && !by_itself { DomainState::Crashed } else { DomainState::Dying }
            }
            state => state,
        }
    }

    fn survey_domain(&self, seen: &SeenDomain, before: &Survey, now_ms: u64, ms: u64) -> DomainSurvey {
        let was = before.domains.iter().find(|d| d.domid == seen.domid && d.vm == seen.vm);
        let rate = |count: fn(&SeenDomain) -> u64| was.map_or(0.0, |was| per_s(count(was), count(seen), ms));
        let guest = self.notes.get(&seen.vm).and_then(|n| n.guest.as_ref());
        DomainSurvey {
            vm: seen.vm.clone(),
            domid: seen.domid,
            epoch: guest.map(|g| g.epoch),
            state: self.state(seen, now_ms),
            reboots: seen.reboots,
            part: seen.part,
            memory_mib: seen.memory_mib,
            cpu_cores: rate(|d| d.cpu_ns) / 1e9,
            net_rx_bytes_s: rate(|d| d.net_rx_bytes),
            net_tx_bytes_s: rate(|d| d.net_tx_bytes),
            disk_read_bytes_s: rate(|d| d.disk_read_bytes),
            disk_write_bytes_s: rate(|d| d.disk_write_bytes),
        }
    }

    fn underway(&self) -> Vec<OrderProgress> {
        let mut all: Vec<_> = self.works.values().filter_map(|w| w.progress()).collect();
        all.extend(self.waiting.keys().map(|&id| OrderProgress { id, stage: Stage::Working, bytes: 0 }));
        all.extend(self.notes.values().filter_map(|n| {
            let received = n.guest.as_ref()?.received?;
            Some(OrderProgress { id: received.order, stage: Stage::Received, bytes: received.bytes })
        }));
        all.sort_by_key(|p| p.id);
        // A received guest that is being activated or removed is shown by the order that does it, and by its own.
        all.dedup_by_key(|p| p.id);
        all
    }
}

fn stats(before: &Survey, now: &Survey, ms: u64) -> HostStats {
    HostStats {
        cpu_cores: per_s(before.cpu_ns, now.cpu_ns, ms) / 1e9,
        memory_free_mib: now.memory_free_mib,
        dom0_used_mib: now.dom0_used_mib,
        agent_rss_kib: now.agent_rss_kib,
        agent_cpu_cores: per_s(before.agent_cpu_ns, now.agent_cpu_ns, ms) / 1e9,
        net_rx_bytes_s: per_s(before.net_rx_bytes, now.net_rx_bytes, ms),
        net_tx_bytes_s: per_s(before.net_tx_bytes, now.net_tx_bytes, ms),
    }
}

/// A counter that went back was begun anew: nothing is known of the time between.
fn per_s(before: u64, now: u64, ms: u64) -> f64 {
    if ms == 0 { 0.0 } else { now.saturating_sub(before) as f64 * 1000.0 / ms as f64 }
}

impl SeenDomain {
    /// Whether it may be run, paused and sent: the guest itself, not a half of a move.
    pub fn is_resident(&self) -> bool {
        self.part == Part::Resident
    }
}
