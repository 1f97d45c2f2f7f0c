//! What becomes of a guest that crashes, and how long a start waits after one that ended before long.

use super::*;
use crate::Rack;
use crate::record::Loaded;
use proto::agent::{Act, Failure, FailureKind};
use proto::view::VmView;
use proto::vm::{OnCrash, Restart};

impl One {
    fn vm(&self, name: &str) -> VmView {
        let view = self.bench.rack.view(self.bench.now);
        view.vms.into_iter().find(|v| v.spec.name == vm(name)).expect("it is there")
    }

    /// A VM that runs and is left stopped if it crashes; the survey that shows it.
    fn running_until_it_crashes(&mut self, name: &str) -> DomainSurvey {
        let shown = self.running(name);
        let restart = Restart { on_crash: OnCrash::Stop, ..Restart::default() };
        self.command(Command::SetRestart { vm: vm(name), restart }).expect("it is there");
        shown
    }

    /// A server that knows what this one has kept.
    fn restart(&mut self) {
        let (rack, mut kept) = (&mut self.bench.rack, Vec::new());
        for id in rack.hosts.ids() {
            rack.hosts.edit(&id);
        }
        for id in rack.leases.table.ids() {
            rack.leases.table.edit(&id);
        }
        for id in rack.disks.ids() {
            rack.disks.edit(&id);
        }
        for id in rack.vms.ids() {
            rack.vms.edit(&id);
        }
        rack.counters.edit(&());
        rack.hosts.commit(&mut kept);
        rack.leases.table.commit(&mut kept);
        rack.disks.commit(&mut kept);
        rack.vms.commit(&mut kept);
        rack.counters.commit(&mut kept);
        let loaded = |effect| match effect {
            Effect::Commit(c) => Some(Loaded { key: c.key, version: c.expect + 1, record: c.to? }),
            _ => None,
        };
        let kept = kept.into_iter().filter_map(loaded).collect();
        let (rack, effects) = Rack::restore(policy(), kept, self.bench.now).expect("what was kept");
        self.bench.rack = rack;
        self.storage(effects);
        self.report(vec![], vec![]);
    }

    /// A report without the guest, and what a tick brings about then.
    fn without(&mut self) {
        self.report(vec![], vec![]);
        let tick = self.bench.apply(Event::Tick);
        self.storage(tick);
    }

    /// Lets so much time pass that a guest that is to run is started again.
    fn wait(&mut self) {
        (0..5).for_each(|_| self.without());
    }

    /// The guest crashes and is taken away.
    fn crash(&mut self, shown: &DomainSurvey) {
        let crashed = DomainSurvey { state: DomainState::Crashed, ..shown.clone() };
        let destroy = order(&self.report(vec![crashed], vec![])).expect("it is to go");
        assert!(matches!(destroy.act, Act::Destroy { .. }));
        self.report(vec![], vec![destroy.id]);
        assert_eq!(self.vm(shown.vm.as_str()).phase, VmPhase::Stopped);
    }
}

#[test]
fn a_crashed_guest_is_left_stopped_where_that_is_wanted() {
    let mut one = One::new();
    let mut shown = one.running_until_it_crashes("a");
    shown.state = DomainState::Crashed;
    let destroy = order(&one.report(vec![shown.clone()], vec![])).expect("told");
    // What its destruction says in between is not what is to be told of it.
    one.seq += 1;
    let failure = Failure { kind: FailureKind::Timeout, detail: "still there".to_owned() };
    let outcomes = vec![OrderOutcome { id: destroy.id, result: Err(failure) }];
    let report = Report { domains: vec![shown], outcomes, ..alive(&one.boot, one.seq) };
    let effects = one.bench.report(mac(1), "k", report).1;
    let destroy = order(&one.storage(effects)).expect("told again");
    let effects = one.report(vec![], vec![destroy.id]);
    assert_eq!(acts(&effects), "storage: Cut a-0 from h525400aabb01\n");
    for restarted in [false, true] {
        if restarted {
            one.restart();
        }
        one.wait();
        let shown = one.vm("a");
        assert_eq!((shown.phase, shown.run), (VmPhase::Stopped, false), "{restarted}");
        assert_eq!(shown.note, "a has crashed on h525400aabb01; it is not started again by itself");
    }
    // What it is to do at the next crash does not start it.
    one.command(Command::SetRestart { vm: vm("a"), restart: Restart::default() }).expect("it is there");
    one.wait();
    assert_eq!(one.phase("a"), Some(VmPhase::Stopped));
    let start = order(&one.command(Command::StartVm { vm: vm("a") }).expect("it is stopped")).expect("told");
    let shown = domain("a", start.epoch.0, DomainState::Running, Part::Resident);
    one.report(vec![shown], vec![start.id]);
    assert_eq!((one.vm("a").phase, one.vm("a").note.as_str()), (VmPhase::Running, ""));
}

/// Its host could not start it anew, as it had asked for: that is no crash of the guest, though it is shown as one.
#[test]
fn a_guest_that_could_not_start_itself_anew_is_started() {
    let mut one = One::new();
    let shown = one.running_until_it_crashes("a");
    one.crash(&DomainSurvey { reboots: true, ..shown });
    assert!(one.vm("a").run);
    one.wait();
    assert_eq!(one.phase("a"), Some(VmPhase::Starting));
}

#[test]
fn each_start_waits_twice_as_long_until_one_has_run_well() {
    let mut one = One::new();
    let mut shown = one.running("a");
    // How long it runs until it crashes, milliseconds, and how long its next start waits, seconds.
    let short = [5, 10, 20, 40, 80, 160, 300, 300].map(|waits_s| (1_500, waits_s));
    let anew = [(60_000, 5), (1_500, 10), (58_500, 20), (60_000, 5), (1_500, 10)];
    for (at, (runs_ms, waits_s)) in short.into_iter().chain(anew).enumerate() {
        for _ in 1..runs_ms / 1500 {
            one.report(vec![shown.clone()], vec![]);
        }
        let crashed_ms = one.bench.now.mono_ms + 1500;
        one.crash(&shown);
        loop {
            one.without();
            let waited_ms = one.bench.now.mono_ms - crashed_ms;
            let is_due = waited_ms >= waits_s * 1000;
            let due = if is_due { VmPhase::Starting } else { VmPhase::Stopped };
            assert_eq!(one.phase("a"), Some(due), "crash {at}, {waited_ms} ms after it");
            if is_due {
                break;
            }
        }
        let start = order(&one.report(vec![], vec![])).expect("told");
        shown.epoch = Some(start.epoch);
        one.report(vec![shown.clone()], vec![start.id]);
        assert_eq!(one.phase("a"), Some(VmPhase::Running));
    }
}

/// Its host lets it live several times before it shows that as a crash: together that may look like a good run.
#[test]
fn one_that_starts_itself_in_a_circle_waits_longer_each_time() {
    let mut one = One::new();
    let mut shown = one.running("a");
    for waits_ms in [5_000, 10_000, 20_000] {
        for _ in 0..60 {
            one.report(vec![shown.clone()], vec![]);
        }
        let crashed_ms = one.bench.now.mono_ms + 1500;
        one.crash(&DomainSurvey { reboots: true, ..shown.clone() });
        assert_eq!(one.bench.rack.guests[&vm("a")].again_mono_ms, Some(crashed_ms + waits_ms));
        while one.phase("a") != Some(VmPhase::Starting) {
            one.without();
        }
        let start = order(&one.report(vec![], vec![])).expect("told");
        shown.epoch = Some(start.epoch);
        one.report(vec![shown.clone()], vec![start.id]);
    }
}
