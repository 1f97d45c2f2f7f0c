//! Hearing reports and answering them: at once when there is something to do, else when there is, or after `report_ms`.

use super::{Held, Rack};
use crate::effect::Answer;
use crate::event::{Caller, Now, ReplyTo};
use proto::agent::{Heartbeat, JoinRefusal, LeaseState, Order, Report, ReportAnswer};
use proto::{HostId, OrderId};

/// The most domains and outcomes of one report that are read; Xen itself runs fewer domains than that on any host.
const LIST_MAX: usize = 4096;
/// An order that the agent does not show as under way is said again after this, milliseconds.
const SAY_AGAIN_MS: u64 = 1000;

impl Rack {
    /// An agent reports.
    pub(crate) fn report(&mut self, reply: ReplyTo, host: &HostId, caller: &Caller, mut report: Report, now: Now) {
        self.let_in_after_backup(host, caller, &report, now);
        if let Err(refusal) = self.may_report(host, &caller.key, &report) {
            return self.answer(reply, Answer::Report(Err(refusal)));
        }
        report.domains.truncate(LIST_MAX);
        report.outcomes.truncate(LIST_MAX);
        report.underway.truncate(LIST_MAX);
        make_finite(&mut report);
        let report_ms = self.policy.report_ms;
        let live = self.live(host);
        let older = live.report.as_ref().is_some_and(|last| {
            report.uptime_ms < last.uptime_ms || report.uptime_ms == last.uptime_ms && report.seq < last.seq
        });
        if older {
            // Overtaken on its way: what it shows is past, and the agent repeats what was not seen.
            let answer =
                ReportAnswer { report_ms, term: self.term(), survey: self.surveying(), ..ReportAnswer::default() };
            return self.answer(reply, Answer::Report(Ok(answer)));
        }
        let leased = report.lease == LeaseState::Valid;
        let first = live.report.as_ref().is_none_or(|last| (last.lease == LeaseState::Valid) != leased) || live.lost;
        live.seen_mono_ms = now.mono_ms;
        live.heard_mono_ms = Some(now.mono_ms);
        (live.silent, live.lost) = (false, false);
        if leased {
            (live.sign_mono_ms, live.signed) = (now.mono_ms, true);
        }
        let outcomes = std::mem::take(&mut report.outcomes);
        let (term, mut survey) = (report.term, report.survey.take());
        if let Some(survey) = &mut survey {
            survey.guests.truncate(LIST_MAX);
        }
        live.report = Some(report);
        let seen = outcomes.iter().map(|outcome| outcome.id).collect();
        if let Some(before) = live.held.replace(Held { reply, since_mono_ms: now.mono_ms, seen }) {
            // Of a host that reports just as often as it is answered, these are all the answers that it gets.
            let heartbeat = self.heartbeat_of(host);
            let answer = self.answer_of(before.seen, Vec::new(), heartbeat);
            self.answer(before.reply, Answer::Report(Ok(answer)));
        }
        if let Some(record) = self.hosts.get(host) {
            let mac = record.mac;
            self.address_heard(mac, caller.from, now);
            self.lease_on(mac, now);
        }
        self.to_answer.insert(host.clone());
        self.version += 1;
        self.heard_after_fence(host, now);
        self.keep_heartbeat(host, now);
        self.note_host_state(host, now);
        self.note_health(host, now);
        self.survey_heard(host, term, survey, now);
        if !self.orders_nothing() {
            for outcome in outcomes {
                self.order_ended(host, outcome, now);
            }
            self.surveyed(host, now);
        }
        if first {
            self.balance_soon(now);
        }
    }

    fn may_report(&self, host: &HostId, key: &str, report: &Report) -> Result<(), JoinRefusal> {
        self.let_in(host, key)?;
        let boot = self.hosts.get(host).and_then(|record| record.boot.as_ref());
        if boot.is_some_and(|boot| boot.nonce == report.boot) { Ok(()) } else { Err(JoinRefusal::NonceUnknown) }
    }

    /// The connection of a held report is gone.
    pub(crate) fn report_gone(&mut self, reply: ReplyTo, host: &HostId) {
        if let Some(live) = self.live.get_mut(host)
            && live.held.as_ref().is_some_and(|held| held.reply == reply)
        {
            live.held = None;
        }
    }

    /// Answers held reports that have something to carry or have waited long enough.
    pub(crate) fn answer_reports(&mut self, now: Now) {
        for host in std::mem::take(&mut self.to_answer) {
            if !self.live.get(&host).is_some_and(|live| self.report_is_due(live, now)) {
                continue;
            }
            if let Some(held) = self.live(&host).held.take() {
                self.answer_report(&host, held, now);
            }
        }
    }

    fn answer_of(&self, seen: Vec<OrderId>, orders: Vec<Order>, heartbeat: Option<Heartbeat>) -> ReportAnswer {
        let (report_ms, term, survey) = (self.policy.report_ms, self.term(), self.surveying());
        ReportAnswer { seen, orders, report_ms, heartbeat, term, survey }
    }

    fn report_is_due(&self, live: &super::Live, now: Now) -> bool {
        let Some(held) = &live.held else { return false };
        if now.mono_ms.saturating_sub(held.since_mono_ms) >= self.policy.report_ms {
            return true;
        }
        let under_way = live.report.as_ref().map(|report| report.underway.as_slice()).unwrap_or_default();
        live.orders.iter().any(|given| {
            let said_lately = given.said_mono_ms.is_some_and(|at| now.mono_ms.saturating_sub(at) < SAY_AGAIN_MS);
            !said_lately && !under_way.iter().any(|progress| progress.id == given.order.id)
        })
    }

    /// Answers a held report with all that the host has been told to do and has not said to be done.
    pub(crate) fn answer_report(&mut self, host: &HostId, held: Held, now: Now) {
        let live = self.live(host);
        for given in &mut live.orders {
            given.said_mono_ms = Some(now.mono_ms);
        }
        let orders = live.orders.iter().map(|given| given.order.clone()).collect();
        let heartbeat = self.heartbeat_of(host);
        let answer = self.answer_of(held.seen, orders, heartbeat);
        self.answer(held.reply, Answer::Report(Ok(answer)));
    }
}

/// A load that is no number, or less than nothing, is none: the planner must not meet it.
fn make_finite(report: &mut Report) {
    let fix = |value: &mut f64| {
        if !value.is_finite() || *value < 0.0 {
            *value = 0.0;
        }
    };
    let stats = &mut report.stats;
    for value in
        [&mut stats.cpu_cores, &mut stats.agent_cpu_cores, &mut stats.net_rx_bytes_s, &mut stats.net_tx_bytes_s]
    {
        fix(value);
    }
    for domain in &mut report.domains {
        for value in [
            &mut domain.cpu_cores,
            &mut domain.net_rx_bytes_s,
            &mut domain.net_tx_bytes_s,
            &mut domain.disk_read_bytes_s,
            &mut domain.disk_write_bytes_s,
        ] {
            fix(value);
        }
    }
}
