//! The lease under which guests may run, and Xen's watchdog.
//!
//! Owns: whether the lease is valid, holding every guest when it is not, letting them go on, when the watchdog is petted. Never does: write
//! the slot (that is `heartbeat`), or decide whose a guest is.
//!
//! ```text
//!  none ──a write came back──> valid ──lease_ms from its start──> lapsed: look, note what runs, pause all, look again …
//!                                ^                                   │
//!                                └── a write came back: what was held under the same user goes on
//! ```
//! A fence cuts the user under which the slot is written too, and ends only when the slot has long been quiet after that: a write that comes
//! back under it says that no fence has ended meanwhile. Guests held under another user wait for an order; so do all on a SAN, where nobody
//! can be cut off. The watchdog is petted while the lease is valid, or while
//! Xen says that nothing runs: an agent that can see to neither has its host reset.

use super::{Agent, AgentAction, JobFor, Work};
use crate::hypervisor::{Completion, Op, OpResult};
use proto::VmId;
use proto::agent::{Act, DomainState, FailureKind, Heartbeat, LeaseState};
use serde::{Deserialize, Serialize};

/// How often a host whose lease has lapsed is looked at for guests that run, milliseconds.
const LOOK_MS: u64 = 1_000;
/// The watchdog is petted so many times as often as it needs.
const PETS: u64 = 5;

/// What a restarted agent must know of the lease, kept in /run/tsubame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLease {
    /// Where the slot is written.
    pub heartbeat: Heartbeat,
    /// Until when the lease is valid, on the agent's clock.
    pub until_ms: u64,
    /// How often it was had again after a lapse.
    #[serde(default)]
    pub terms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Lease {
    /// As the server told last.
    heartbeat: Option<Heartbeat>,
    /// Whether it has been handed to who writes.
    begun: bool,
    until_ms: Option<u64>,
    /// How often it was had again after a lapse.
    terms: u64,
    /// As told when a write last gave the lease: what runs, runs under that account.
    written: Option<Heartbeat>,
    /// Next look at a host whose lease has lapsed.
    look_at_ms: u64,
    /// When nothing was last seen to run, since the lease lapsed.
    still_ms: Option<u64>,
    pet_at_ms: u64,
}

impl Lease {
    pub(super) fn of(kept: Option<KeptLease>) -> Self {
        let terms = kept.as_ref().map_or(0, |kept| kept.terms);
        let (heartbeat, until_ms) = kept.map(|kept| (kept.heartbeat, kept.until_ms)).unzip();
        Self { written: heartbeat.clone(), heartbeat, until_ms, terms, ..Self::default() }
    }

    pub(super) fn state(&self, now_ms: u64) -> LeaseState {
        match self.until_ms {
            None => LeaseState::None,
            Some(until) if now_ms <= until => LeaseState::Valid,
            Some(_) => LeaseState::Lapsed,
        }
    }

    /// The CHAP user under which the slot is written.
    pub(super) fn user(&self) -> Option<String> {
        self.heartbeat.as_ref().map(|heartbeat| heartbeat.access.user.clone())
    }

    /// What guests are held under: what was held under the same goes on when the lease is valid again. That is the CHAP user, where a fence cuts
    /// that one; where it cannot, each lapse is the end of something.
    pub(super) fn under(&self) -> Option<String> {
        self.heartbeat.as_ref().map(|heartbeat| self.named(heartbeat))
    }

    /// The same of what was written under last. What was told since, and has not been written under, says nothing of what runs: by then all may
    /// have been taken away.
    fn ran_under(&self) -> Option<String> {
        self.written.as_ref().map(|heartbeat| self.named(heartbeat))
    }

    fn named(&self, Heartbeat { access, cuttable, .. }: &Heartbeat) -> String {
        if *cuttable { access.user.clone() } else { format!("{} {}", access.user, self.terms) }
    }

    /// When something is to be done at the latest.
    pub(super) fn wake_ms(&self) -> u64 {
        match self.until_ms {
            // The moment after the last valid one.
            Some(until) => self.pet_at_ms.min(self.look_at_ms.max(until.saturating_add(1))),
            None => u64::MAX,
        }
    }
}

impl Agent {
    /// The server says where the slot is.
    pub(super) fn told_heartbeat(&mut self, given: Option<Heartbeat>) {
        if let Some(new) = given
            && self.lease.heartbeat.as_ref() != Some(&new)
        {
            // What was ordered before the old grant was cut may be void by now. What is still wanted is said again.
            if self.lease.user().is_some_and(|user| user != new.access.user) {
                self.waiting.clear();
            }
            if let Some(old) = &self.lease.heartbeat {
                // What is valid counts from a write's beginning, by the length that holds now.
                let shorter_ms = old.lease_ms.saturating_sub(new.lease_ms);
                if let Some(until_ms) = self.lease.until_ms.as_mut().filter(|_| shorter_ms > 0) {
                    *until_ms = until_ms.saturating_sub(shorter_ms);
                    let (until_ms, terms) = (*until_ms, self.lease.terms);
                    // An agent that is restarted takes what runs to run under the account that is kept.
                    let access = self.lease.written.as_ref().unwrap_or(old).access.clone();
                    let heartbeat = Heartbeat { access, ..new.clone() };
                    self.actions.push(AgentAction::KeepLease(KeptLease { heartbeat, until_ms, terms }));
                }
                // Xen's timer still runs by the old length.
                if old.watchdog_ms != new.watchdog_ms {
                    self.lease.pet_at_ms = 0;
                }
            }
            self.lease.heartbeat = Some(new);
            self.lease.begun = false;
        }
    }

    /// A write to the slot has come back.
    pub(super) fn renewed(&mut self, user: &str, begun_ms: u64, now_ms: u64) {
        let Some(heartbeat) = self.lease.heartbeat.clone().filter(|h| h.access.user == user) else { return };
        let before = self.lease.state(now_ms);
        // By the length that holds now: the write may have been told behind an answer that has shortened it.
        let until_ms = begun_ms.saturating_add(heartbeat.lease_ms);
        let until_ms = self.lease.until_ms.map_or(until_ms, |before| before.max(until_ms));
        self.lease.until_ms = Some(until_ms);
        if before == LeaseState::Lapsed && self.leased(now_ms) {
            self.lease.terms += 1;
            // Nobody cuts this host off from its storage: what was ordered before the lapse may be void by now, and no account is a new one to tell.
            if !heartbeat.cuttable {
                self.waiting.clear();
            }
        }
        // One that came too late gives no lease, and says nothing of what ran before.
        if self.leased(now_ms) {
            self.lease.written = Some(heartbeat.clone());
            let terms = self.lease.terms;
            self.actions.push(AgentAction::KeepLease(KeptLease { heartbeat, until_ms, terms }));
        }
        if before != self.lease.state(now_ms) {
            self.report_wanted = true;
        }
        self.let_go(now_ms);
    }

    /// Whether an order of this kind may be begun: none that lets a guest run without a lease.
    pub(super) fn may_begin(&self, act: &Act, now_ms: u64) -> bool {
        match act {
            Act::Start { .. }
            | Act::Unpause { .. }
            | Act::Receive { .. }
            | Act::Send { .. }
            | Act::Activate { .. }
            | Act::AbortSend { .. } => self.leased(now_ms),
            Act::Shutdown { .. }
            | Act::Destroy { .. }
            | Act::Pause { .. }
            | Act::Release { .. }
            | Act::AbortReceive { .. }
            | Act::Console { .. }
            | Act::Reboot { .. } => true,
        }
    }

    pub(super) fn leased(&self, now_ms: u64) -> bool {
        self.lease.state(now_ms) == LeaseState::Valid
    }

    /// What time brings: the watchdog, and the look at a host whose lease has lapsed.
    pub(super) fn see_to_lease(&mut self, now_ms: u64) {
        if let Some(heartbeat) = self.lease.heartbeat.clone().filter(|_| !self.lease.begun) {
            self.lease.begun = true;
            self.actions.push(AgentAction::Heartbeat(heartbeat));
        }
        let state = self.lease.state(now_ms);
        if state == LeaseState::Valid {
            self.lease.still_ms = None;
            self.lease.look_at_ms = 0;
        } else if state == LeaseState::Lapsed && now_ms >= self.lease.look_at_ms {
            self.lease.look_at_ms = now_ms + LOOK_MS;
            self.report_wanted |= self.lease.still_ms.is_none();
            if !self.holds() {
                self.run(JobFor::Look, Op::Survey);
            }
        }
        let Some(watchdog_ms) = self.lease.heartbeat.as_ref().map(|h| h.watchdog_ms) else { return };
        let every_ms = watchdog_ms / PETS;
        let still = self.lease.still_ms.is_some_and(|at| now_ms.saturating_sub(at) <= LOOK_MS + every_ms);
        if now_ms >= self.lease.pet_at_ms && state != LeaseState::None {
            // One that is not petted now is so at the next tick that finds nothing running.
            self.lease.pet_at_ms = now_ms + every_ms;
            if state == LeaseState::Valid || still {
                self.actions.push(AgentAction::Pet { timeout_s: watchdog_ms / 1000 });
            }
        }
    }

    fn holds(&self) -> bool {
        self.jobs.values().any(|job| matches!(job, JobFor::Look | JobFor::Hold))
    }

    /// A look at the host whose lease has lapsed: what runs is noted, then everything is paused.
    pub(super) fn looked_to_hold(&mut self, result: OpResult, now_ms: u64) {
        if self.leased(now_ms) {
            return self.let_go(now_ms);
        }
        let seen = result.ok().and_then(|c| if let Completion::Survey(survey) = c { Some(survey) } else { None });
        // Without a look, all that may run.
        let runs = |vm: &VmId| {
            seen.as_ref().is_none_or(|survey| {
                let runs = |d: &crate::hypervisor::SeenDomain| d.state == DomainState::Running || d.reboots;
                survey.domains.iter().any(|d| d.vm == *vm && d.is_resident() && runs(d))
            })
        };
        // What was held before stays held under that.
        let under = self.lease.ran_under();
        let notes: Vec<_> = self.notes.values().filter(|n| runs(&n.vm)).cloned().collect();
        for mut note in notes {
            if let Some(guest) = &mut note.guest
                && guest.held.is_none()
            {
                guest.held.clone_from(&under);
                self.keep(note);
            }
        }
        self.run(JobFor::Hold, Op::Hold);
    }

    /// Everything was paused, or not.
    pub(super) fn held(&mut self, result: &OpResult, now_ms: u64) {
        match result {
            Ok(Completion::Held { running: 0 }) => {
                self.report_wanted |= self.lease.still_ms.is_none();
                self.lease.still_ms = Some(now_ms);
                // Petted at once: what time is left was spent on the look.
                self.lease.pet_at_ms = now_ms;
            }
            _ => self.lease.still_ms = None,
        }
        if self.leased(now_ms) {
            self.let_go(now_ms);
        }
    }

    /// Something was done to a guest while there is no lease: it is looked at anew.
    pub(super) fn look_soon(&mut self) {
        self.lease.look_at_ms = 0;
    }

    /// The lease is valid: what was held under it goes on.
    fn let_go(&mut self, now_ms: u64) {
        if !self.leased(now_ms) || self.holds() {
            return;
        }
        let under = self.lease.under();
        let held =
            self.notes.values().filter(|n| n.guest.as_ref().is_some_and(|g| g.held.is_some() && g.held == under));
        // One that is being made is let run by that work.
        let held = held.filter(|n| !self.works.get(&n.vm).is_some_and(Work::makes));
        for vm in held.map(|n| n.vm.clone()).collect::<Vec<_>>() {
            let under_way = self.jobs.values().any(|job| *job == JobFor::LetGo(vm.clone()));
            if !under_way {
                self.run(JobFor::LetGo(vm.clone()), Op::Unpause { vm });
            }
        }
    }

    /// A guest goes on, or is gone: either way nobody holds it. Another failure is tried again when the slot is next written.
    pub(super) fn let_gone(&mut self, vm: &VmId, result: &OpResult, now_ms: u64) {
        let over = result.as_ref().map_or_else(|why| why.kind == FailureKind::NoDomain, |_| true);
        if self.leased(now_ms) && over {
            self.not_held(vm);
            self.report_wanted = true;
        }
    }

    pub(super) fn not_held(&mut self, vm: &VmId) {
        if let Some(mut note) = self.notes.get(vm).cloned()
            && let Some(guest) = &mut note.guest
            && guest.held.take().is_some()
        {
            self.keep(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AgentEvent, Guest, Note};
    use super::*;
    use crate::hypervisor::{Job, SeenDomain, Survey};
    use proto::agent::{DiskAccess, Part, ReportAnswer, Secret};
    use proto::vm::{Boot, VmSpec};
    use proto::{Epoch, OrderId};

    fn vm() -> VmId {
        "web".parse().expect("good")
    }

    fn heartbeat(user: &str) -> Heartbeat {
        let access = DiskAccess {
            disk: "tsubame-heartbeat".parse().expect("good"),
            portal: ([10, 77, 0, 1], 3260).into(),
            target: "iqn.x:tsubame-heartbeat".into(),
            lun: 1,
            user: user.into(),
            secret: Secret("s".into()),
        };
        Heartbeat { access, slot: 3, write_ms: 3_000, lease_ms: 20_000, watchdog_ms: 15_000, cuttable: true }
    }

    fn note() -> Note {
        let boot = Boot::Disk { loader: "0".repeat(64) };
        let spec = VmSpec { name: vm(), memory_mib: 64, vcpus: 1, boot, disks: vec![], vifs: vec![] };
        let guest = Guest { spec, disks: vec![], epoch: Epoch(1), received: None, held: None, r#move: None };
        Note { vm: vm(), floor: Epoch(1), order: OrderId(1), guest: Some(guest) }
    }

    /// An agent with one guest, whose lease under `u1` ends at 20 s.
    fn leased() -> Agent {
        Agent::new(
            "boot".into(),
            vec![note()],
            Some(KeptLease { heartbeat: heartbeat("u1"), until_ms: 20_000, terms: 0 }),
        )
    }

    fn renewed(user: &str, begun_ms: u64) -> AgentEvent {
        AgentEvent::Renewed { user: user.into(), begun_ms }
    }

    fn begun(actions: &[AgentAction], op: &Op) -> Option<Job> {
        actions
            .iter()
            .find_map(|a| if let AgentAction::Do { job, op: o } = a { (o == op).then_some(*job) } else { None })
    }

    fn petted(actions: &[AgentAction]) -> bool {
        actions.iter().any(|a| matches!(a, AgentAction::Pet { timeout_s: 15 }))
    }

    fn seen(state: DomainState, reboots: bool) -> SeenDomain {
        SeenDomain {
            vm: vm(),
            domid: 1,
            state,
            reboots,
            part: Part::Resident,
            memory_mib: 64,
            cpu_ns: 0,
            net_rx_bytes: 0,
            net_tx_bytes: 0,
            disk_read_bytes: 0,
            disk_write_bytes: 0,
        }
    }

    /// Lets the lease lapse and the guest be held; what the agent did in the end.
    fn lapse(agent: &mut Agent) -> Vec<AgentAction> {
        lapse_on(agent, "u1")
    }

    /// The same; under what the guest is held is given.
    fn lapse_on(agent: &mut Agent, under: &str) -> Vec<AgentAction> {
        let first = agent.apply(AgentEvent::Tick, 1_000);
        assert!(petted(&first) && first.iter().any(|a| matches!(a, AgentAction::Heartbeat(_))));
        agent.apply(AgentEvent::Tick, 19_999);
        assert_eq!(agent.apply(AgentEvent::Tick, 20_000).iter().filter(|a| petted(std::slice::from_ref(a))).count(), 0);
        let lapsed = agent.apply(AgentEvent::Tick, 20_001);
        // A report may have begun a look of its own: the newest is the one for the lease.
        let looks = lapsed
            .iter()
            .filter_map(|a| if let AgentAction::Do { job, op: Op::Survey } = a { Some(*job) } else { None });
        let survey = Survey { domains: vec![seen(DomainState::Running, false)], ..Survey::default() };
        let mut after = Vec::new();
        for job in looks.collect::<Vec<_>>() {
            after.extend(agent.apply(AgentEvent::Done { job, result: Ok(Completion::Survey(survey.clone())) }, 20_002));
        }
        let kept = after.iter().position(|a| matches!(a, AgentAction::KeepNote(n) if n.guest.as_ref().is_some_and(|g| g.held.as_deref() == Some(under))));
        let paused = after.iter().position(|a| matches!(a, AgentAction::Do { op: Op::Hold, .. }));
        assert!(kept.expect("it is noted") < paused.expect("all are paused"), "noted before it is paused");
        // Something ran when it was last looked at: the watchdog is left to run down.
        assert!(!petted(&agent.apply(AgentEvent::Tick, 23_500)));
        let job = begun(&after, &Op::Hold).expect("all are paused");
        agent.apply(AgentEvent::Done { job, result: Ok(Completion::Held { running: 0 }) }, 23_600)
    }

    #[test]
    fn a_lapse_holds_every_guest_and_the_same_user_lets_it_go() {
        let mut agent = leased();
        assert!(petted(&lapse(&mut agent)), "nothing runs, so the host may live");
        // One that began before the lapse and came back late is of no use.
        assert_eq!(begun(&agent.apply(renewed("u1", 3_000), 23_700), &Op::Unpause { vm: vm() }), None);
        let back = agent.apply(renewed("u1", 23_000), 23_800);
        let job = begun(&back, &Op::Unpause { vm: vm() }).expect("it goes on");
        agent.apply(AgentEvent::Done { job, result: Ok(Completion::Done) }, 23_900);
        assert_eq!(agent.note(&vm()).and_then(|n| n.guest.clone()).and_then(|g| g.held), None);
    }

    #[test]
    fn where_nobody_can_be_cut_off_the_same_user_lets_nothing_go_either() {
        let on_san = Heartbeat { cuttable: false, ..heartbeat("u1") };
        let kept = KeptLease { heartbeat: on_san, until_ms: 20_000, terms: 0 };
        let mut agent = Agent::new("boot".into(), vec![note()], Some(kept));
        let held = lapse_on(&mut agent, "u1 0");
        assert!(petted(&held));
        let back = agent.apply(renewed("u1", 23_000), 23_800);
        assert_eq!(begun(&back, &Op::Unpause { vm: vm() }), None);
        // Nor does an agent that was restarted meanwhile.
        let kept = back
            .iter()
            .rev()
            .find_map(|a| if let AgentAction::KeepLease(kept) = a { Some(kept.clone()) } else { None });
        let mut note = note();
        note.guest.as_mut().expect("it has one").held = Some("u1 0".into());
        let mut again = Agent::new("boot".into(), vec![note], kept);
        assert_eq!(begun(&again.apply(renewed("u1", 26_000), 26_800), &Op::Unpause { vm: vm() }), None);
        assert!(agent.may_begin(&Act::Unpause { vm: vm() }, 23_900), "but the server may say so");
    }

    #[test]
    fn a_lease_that_is_told_to_be_shorter_ends_sooner() {
        let long = Heartbeat { lease_ms: 600_000, watchdog_ms: 300_000, ..heartbeat("u1") };
        let kept = KeptLease { heartbeat: long, until_ms: 600_000, terms: 0 };
        let mut agent = Agent::new("boot".into(), vec![note()], Some(kept));
        let told = |heartbeat: Heartbeat| {
            AgentEvent::Answer(ReportAnswer { report_ms: 2_000, heartbeat: Some(heartbeat), ..ReportAnswer::default() })
        };
        agent.apply(AgentEvent::Tick, 1_000);
        let shortened = agent.apply(told(heartbeat("u1")), 1_100);
        let kept = KeptLease { heartbeat: heartbeat("u1"), until_ms: 20_000, terms: 0 };
        assert!(shortened.contains(&AgentAction::KeepLease(kept)));
        assert!(petted(&shortened), "Xen's timer is set anew at once");
        assert!(agent.leased(20_000) && !agent.leased(20_001));
        // Under another account as well: what runs still runs under the one before.
        let shorter = agent.apply(told(Heartbeat { lease_ms: 15_000, ..heartbeat("u2") }), 1_150);
        let kept =
            KeptLease { heartbeat: Heartbeat { lease_ms: 15_000, ..heartbeat("u1") }, until_ms: 15_000, terms: 0 };
        assert!(shorter.contains(&AgentAction::KeepLease(kept)));
        agent.apply(told(heartbeat("u1")), 1_160);
        agent.apply(renewed("u1", 0), 1_170);
        assert!(agent.leased(20_000) && !agent.leased(20_001));
        // Longer again: from the next write on.
        let lengthened = agent.apply(told(Heartbeat { lease_ms: 60_000, ..heartbeat("u1") }), 1_200);
        assert!(!lengthened.iter().any(|a| matches!(a, AgentAction::KeepLease(_) | AgentAction::Pet { .. })));
        assert!(!agent.leased(20_001));
        agent.apply(renewed("u1", 3_000), 3_100);
        assert!(agent.leased(63_000));
    }

    #[test]
    fn another_user_lets_nothing_go_and_no_order_begins_without_a_lease() {
        let mut agent = leased();
        lapse(&mut agent);
        let start = Act::Unpause { vm: vm() };
        assert!(!agent.may_begin(&start, 23_700) && agent.may_begin(&Act::Destroy { vm: vm() }, 23_700));
        let answer = ReportAnswer {
            seen: vec![],
            orders: vec![],
            report_ms: 2_000,
            heartbeat: Some(heartbeat("u2")),
            ..ReportAnswer::default()
        };
        let told = agent.apply(AgentEvent::Answer(answer), 23_700);
        assert!(told.contains(&AgentAction::Heartbeat(heartbeat("u2"))));
        assert_eq!(begun(&agent.apply(renewed("u1", 23_700), 23_800), &Op::Unpause { vm: vm() }), None, "the old user");
        assert_eq!(begun(&agent.apply(renewed("u2", 23_700), 23_900), &Op::Unpause { vm: vm() }), None);
        assert!(agent.may_begin(&start, 23_900), "but the server may say so");
    }

    /// The host was fenced and has another account, under which it has not written yet: whatever a look says, nothing is held under that one.
    #[test]
    fn a_look_before_the_first_write_under_another_user_takes_no_guest_over() {
        let failed = || crate::agent::failure(FailureKind::Tool, "looking at the host: Cannot allocate memory");
        let reboots = Survey { domains: vec![seen(DomainState::Shutdown, true)], ..Survey::default() };
        // It stood paused by order when the lease lapsed, or was held; it then shut itself down in order to start again, or the look fails.
        let mut let_go = Vec::new();
        for (by_order, look) in [(false, Ok(reboots)), (false, Err(failed())), (true, Err(failed()))] {
            let fails = look.is_err();
            let mut agent = leased();
            lapse(&mut agent);
            if by_order {
                agent.not_held(&vm());
            }
            // It is cleared away by order, and that waits for sessions that are dead.
            let destroy = proto::agent::Order { id: OrderId(9), epoch: Epoch(2), act: Act::Destroy { vm: vm() } };
            let orders = if look.is_err() { vec![destroy] } else { vec![] };
            let heartbeat = Some(heartbeat("u2"));
            let answer = ReportAnswer { report_ms: 2_000, orders, heartbeat, ..ReportAnswer::default() };
            agent.apply(AgentEvent::Answer(answer), 70_000);
            agent.apply(AgentEvent::Tick, 71_001);
            let jobs = |agent: &Agent, wanted: &[JobFor]| -> Vec<Job> {
                agent.jobs.iter().filter(|(_, of)| wanted.contains(of)).map(|(job, _)| *job).collect()
            };
            for job in jobs(&agent, &[JobFor::Look, JobFor::Report]) {
                let result = look.clone().map(Completion::Survey);
                agent.apply(AgentEvent::Done { job, result }, 71_002);
            }
            for job in jobs(&agent, &[JobFor::Hold]) {
                agent.apply(AgentEvent::Done { job, result: Ok(Completion::Held { running: 0 }) }, 71_003);
            }
            let back = agent.apply(renewed("u2", 71_900), 72_000);
            assert!(agent.leased(72_000));
            let remade = !by_order && agent.may_remake(&vm());
            if remade || begun(&back, &Op::Unpause { vm: vm() }).is_some() {
                let_go.push((by_order, fails));
            }
        }
        assert_eq!(let_go, []);
    }

    /// The slot was written under the longer lease, the server has shortened it, and only then is the agent told of the write.
    #[test]
    fn a_write_that_is_told_late_does_not_bring_back_a_longer_lease() {
        let long = Heartbeat { lease_ms: 600_000, ..heartbeat("u1") };
        let kept = KeptLease { heartbeat: long, until_ms: 600_000, terms: 0 };
        let mut agent = Agent::new("boot".into(), vec![note()], Some(kept));
        let short = Some(heartbeat("u1"));
        agent.apply(
            AgentEvent::Answer(ReportAnswer { report_ms: 2_000, heartbeat: short, ..ReportAnswer::default() }),
            3_002,
        );
        // Begun at 3,000, and in the queue behind the answer.
        agent.apply(renewed("u1", 3_000), 3_003);
        assert!(agent.leased(23_000) && !agent.leased(24_000));
    }

    /// Restarts an agent with what it has kept, and lets it look in vain; whether the guest, which stands paused by order, is let go under `u2`.
    fn is_let_go_after_restart(agent: &Agent, kept: KeptLease) -> bool {
        let notes = vec![agent.note(&vm()).cloned().expect("it has one")];
        let mut again = Agent::new("boot".into(), notes, Some(kept));
        let answer = ReportAnswer { report_ms: 2_000, heartbeat: Some(heartbeat("u2")), ..ReportAnswer::default() };
        again.apply(AgentEvent::Tick, 200_000);
        again.apply(AgentEvent::Answer(answer), 200_001);
        for (wanted, held) in [(JobFor::Look, false), (JobFor::Hold, true)] {
            let jobs: Vec<Job> = again.jobs.iter().filter(|(_, of)| **of == wanted).map(|(job, _)| *job).collect();
            for job in jobs {
                let why = crate::agent::failure(FailureKind::Tool, "looking at the host: Cannot allocate memory");
                let result = if held { Ok(Completion::Held { running: 0 }) } else { Err(why) };
                again.apply(AgentEvent::Done { job, result }, 200_002);
            }
        }
        begun(&again.apply(renewed("u2", 200_500), 200_600), &Op::Unpause { vm: vm() }).is_some()
    }

    /// What is kept is the account that was written under when the lease was valid, so that a restarted agent knows what ran under it.
    #[test]
    fn an_account_that_gave_no_lease_yet_is_not_kept() {
        let told = |lease_ms| {
            let heartbeat = Some(Heartbeat { lease_ms, ..heartbeat("u2") });
            AgentEvent::Answer(ReportAnswer { report_ms: 2_000, heartbeat, ..ReportAnswer::default() })
        };
        // The first write under it comes back too late; or the lease becomes shorter before there is one.
        let cases = [
            [(told(20_000), 70_000), (renewed("u2", 71_000), 95_000)],
            [(told(20_000), 70_000), (told(15_000), 71_000)],
        ];
        for events in cases {
            let mut agent = leased();
            lapse(&mut agent);
            agent.not_held(&vm());
            let mut kept = KeptLease { heartbeat: heartbeat("u1"), until_ms: 20_000, terms: 0 };
            for (event, now_ms) in events {
                for action in agent.apply(event, now_ms) {
                    if let AgentAction::KeepLease(new) = action {
                        kept = new;
                    }
                }
            }
            assert!(!is_let_go_after_restart(&agent, kept.clone()), "{kept:?}");
        }
    }
}
