//! Rollouts: the pure life cycle under everything that hosts may do, and the rack's part in it, restarted at every step.

use super::{Deed, Rollout, Seen};
use crate::Rack;
use crate::effect::{Answer, Effect, Reply};
use crate::event::{Command, Entropy, Event, ScriptKind};
use crate::record::{Key, Loaded, Record};
use crate::testing::{Bench, alive, answer_to, ipmi, mac, policy, release};
use expect_test::expect;
use proptest::prelude::*;
use proto::HostId;
use proto::agent::{Act, Report};
use proto::api::Refusal;
use proto::power::PowerVerb;
use proto::release::{
    CollectReleases, CreatePool, Manifest, PoolId, PoolView, ReleaseId, RolloutPhase, StartRollout, default_healthy_s,
};
use proto::view::HostView;
use std::collections::{BTreeMap, BTreeSet};

fn id(digit: char) -> ReleaseId {
    digit.to_string().repeat(12).parse().expect("an id")
}

fn host(number: u8) -> HostId {
    HostId::of(mac(number))
}

fn request(canary: u32) -> StartRollout {
    StartRollout { to: id('b'), canary, deadline_s: 600, healthy_s: 60, at_once: 1, reboot: true }
}

fn up(vms: usize) -> Seen {
    Seen {
        runs: Some(id('a')),
        boot: Some("boot-0".to_owned()),
        up: true,
        healthy_ms: Some(1_000_000),
        vms,
        moves: false,
        draining: false,
        reboots: true,
    }
}

#[test]
fn canaries_are_those_with_the_fewest_vms() {
    let lost = Seen { up: false, ..up(0) };
    let new = Seen { runs: Some(id('b')), ..up(0) };
    let seen: BTreeMap<_, _> =
        [up(2), up(1), lost, new, up(0)].into_iter().zip(1..).map(|(seen, n)| (host(n), seen)).collect();
    let rollout = Rollout::begin(request(2), id('a'), &seen, 0).expect("there are hosts");
    let chosen: Vec<_> = rollout.canaries.iter().map(|c| (c.host.clone(), c.why.as_str())).collect();
    assert_eq!(chosen, [(host(5), "runs no VM"), (host(2), "runs 1 VM; none has fewer")]);
    let all = Rollout::begin(request(9), id('a'), &seen, 0).expect("there are hosts");
    assert_eq!(all.canaries.len(), 3, "neither one that is lost nor one that runs it");
    assert!(Rollout::begin(request(1), id('a'), &BTreeMap::new(), 0).is_err());
}

/// Hosts that do what they are told, or not, as they like.
struct World {
    seen: BTreeMap<HostId, Seen>,
    pool: ReleaseId,
    rollout: Rollout,
    now_ms: u64,
    promoted: usize,
    drained: BTreeSet<HostId>,
    boots: usize,
    /// Told to start anew.
    told: BTreeSet<HostId>,
}

#[derive(Debug, Clone)]
enum Happens {
    Time(u32),
    /// A host's VMs go, one by one.
    Empties(u8),
    /// It starts anew and joins with what it would boot now.
    Boots(u8),
    /// It goes down, and has not joined.
    Down(u8),
    /// It has joined, and is not healthy.
    Sick(u8),
    Removed(u8),
    Stop,
    /// The server is restarted: what is not kept is gone.
    Restart,
    /// The answer to a commit was lost: the step is taken again from what was kept.
    Again,
}

fn happens() -> impl Strategy<Value = Happens> {
    let host = 1u8..5;
    prop_oneof![
        6 => (1u32..90_000).prop_map(Happens::Time),
        4 => host.clone().prop_map(Happens::Empties),
        4 => host.clone().prop_map(Happens::Boots),
        1 => host.clone().prop_map(Happens::Down),
        1 => host.clone().prop_map(Happens::Sick),
        1 => host.prop_map(Happens::Removed).no_shrink(),
        1 => Just(Happens::Stop),
        2 => Just(Happens::Restart),
        1 => Just(Happens::Again),
    ]
}

impl World {
    fn wanted(&self, host: &HostId) -> ReleaseId {
        let tries = self.rollout.phase == RolloutPhase::Canary && self.rollout.tries(host);
        if tries { self.rollout.to.clone() } else { self.pool.clone() }
    }

    fn step(&mut self) {
        let before = self.rollout.phase;
        let deeds = self.rollout.step(&self.seen, self.now_ms);
        self.carry_out(before, deeds);
    }

    fn carry_out(&mut self, before: RolloutPhase, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Drain(host) => {
                    assert!(self.drained.insert(host.clone()), "{host} is drained twice");
                    if let Some(seen) = self.seen.get_mut(&host) {
                        seen.draining = true;
                    }
                }
                Deed::Undrain(host) => {
                    let ours = self.drained.remove(&host);
                    // What is said of one that was removed means nothing.
                    if let Some(seen) = self.seen.get_mut(&host) {
                        assert!(ours, "{host} was drained by somebody else");
                        seen.draining = false;
                    }
                }
                Deed::Reboot { host, boot } => {
                    let seen = &self.seen[&host];
                    assert!(seen.up && seen.vms == 0 && !seen.moves && seen.draining, "{seen:?}");
                    assert_eq!(seen.boot.as_ref(), Some(&boot));
                    self.told.insert(host);
                }
                Deed::Cycle(host) => {
                    let seen = &self.seen[&host];
                    assert!(!seen.up && self.rollout.phase == RolloutPhase::Back, "{seen:?}");
                    assert!(self.told.contains(&host), "it may have VMs");
                }
                Deed::Promote(release) => {
                    assert_eq!((before, &release), (RolloutPhase::Canary, &id('b')));
                    for canary in &self.rollout.canaries {
                        let seen = &self.seen[&canary.host];
                        assert!(seen.up && seen.runs == Some(id('b')) && seen.healthy_ms >= Some(60_000));
                    }
                    self.pool = release;
                    self.promoted += 1;
                }
                Deed::Info(_) | Deed::Warn(_) => {}
            }
        }
        use RolloutPhase::{Back, Canary, Done, RolledBack, Rolling, Stopped};
        let after = self.rollout.phase;
        let legal = before == after
            || matches!((before, after), (Canary, Rolling | Back) | (Rolling, Done | Stopped))
            || matches!((before, after), (Back, RolledBack) | (RolledBack, Back) | (Canary, RolledBack));
        assert!(legal, "{before} -> {after}");
        // Never both.
        let back = matches!(after, Back | RolledBack);
        assert_eq!(self.pool == id('b'), self.promoted == 1);
        assert!(!back || self.promoted == 0);
        assert!(self.rollout.turns.len() <= self.rollout.at_once);
        if self.rollout.ended() {
            assert_eq!(self.rollout.turns, []);
            let left: Vec<_> = self.drained.iter().filter(|host| self.seen.contains_key(*host)).collect();
            assert!(left.is_empty(), "still drained: {left:?}");
        }
    }

    fn happens(&mut self, what: &Happens) {
        let wanted: BTreeMap<HostId, ReleaseId> =
            self.seen.keys().map(|host| (host.clone(), self.wanted(host))).collect();
        let boot = format!("boot-{}", self.boots);
        match what {
            Happens::Time(ms) => {
                self.now_ms += u64::from(*ms);
                for seen in self.seen.values_mut() {
                    seen.healthy_ms = seen.healthy_ms.map(|before| before + u64::from(*ms));
                }
            }
            Happens::Empties(n) => {
                if let Some(seen) = self.seen.get_mut(&host(*n)).filter(|seen| seen.draining) {
                    seen.vms = seen.vms.saturating_sub(1);
                }
            }
            Happens::Boots(n) => {
                if let Some(seen) = self.seen.get_mut(&host(*n)) {
                    self.boots += 1;
                    (seen.runs, seen.boot) = (wanted.get(&host(*n)).cloned(), Some(boot));
                    (seen.up, seen.healthy_ms, seen.vms) = (true, Some(0), 0);
                }
            }
            Happens::Down(n) => {
                if let Some(seen) = self.seen.get_mut(&host(*n)) {
                    (seen.up, seen.healthy_ms) = (false, None);
                }
            }
            Happens::Sick(n) => {
                if let Some(seen) = self.seen.get_mut(&host(*n)) {
                    seen.healthy_ms = None;
                }
            }
            Happens::Removed(n) => {
                self.seen.remove(&host(*n));
                self.drained.remove(&host(*n));
            }
            Happens::Stop => {
                let before = self.rollout.phase;
                let deeds = self.rollout.stop("by hand", &self.seen);
                self.carry_out(before, deeds);
            }
            Happens::Restart => {
                let kept = serde_json::to_string(&self.rollout).expect("it can be written");
                self.rollout = serde_json::from_str(&kept).expect("it can be read");
                for seen in self.seen.values_mut() {
                    // How long it was healthy is not kept.
                    seen.healthy_ms = seen.healthy_ms.map(|_| 0);
                }
            }
            Happens::Again => {
                let (mut twice, seen) = (self.rollout.clone(), self.seen.clone());
                let first = twice.step(&seen, self.now_ms);
                let again = self.rollout.clone().step(&seen, self.now_ms);
                assert_eq!(first, again, "the same from the same");
            }
        }
        self.step();
    }

    /// Nothing fails any more: each host does at once what it is told.
    fn settle(&mut self) {
        for _ in 0..200 {
            for n in 1..5 {
                self.happens(&Happens::Empties(n));
                let turn = self.rollout.turns.iter().find(|turn| turn.host == host(n));
                let down = self.seen.get(&host(n)).is_some_and(|seen| !seen.up || seen.healthy_ms.is_none());
                if turn.is_some_and(|turn| turn.boot.is_some() && turn.boot == self.seen[&host(n)].boot) || down {
                    self.happens(&Happens::Boots(n));
                }
            }
            self.happens(&Happens::Time(61_000));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// It always ends, all hosts run what the pool has, nobody stays drained for it; and never both promoted and rolled back.
    #[test]
    fn it_ends_one_way(canary in 0u32..4, at_once in 1u32..3, events in proptest::collection::vec(happens(), 0..80)) {
        let seen: BTreeMap<_, _> = (1..5).map(|n| (host(n), up(usize::from(n) - 1))).collect();
        let request = StartRollout { at_once, ..request(canary) };
        let rollout = Rollout::begin(request, id('a'), &seen, 0).expect("there are hosts");
        let mut world = World {
            seen, pool: id('a'), rollout, now_ms: 0, promoted: 0, drained: BTreeSet::new(), boots: 1, told: BTreeSet::new(),
        };
        world.step();
        for what in &events {
            world.happens(what);
        }
        world.settle();
        prop_assert!(world.rollout.ended(), "{:?}", world.rollout);
        let stops = events.iter().any(|what| matches!(what, Happens::Stop));
        if !stops && world.rollout.phase != RolloutPhase::Stopped {
            for (host, seen) in &world.seen {
                prop_assert_eq!(seen.runs.as_ref(), Some(&world.pool), "{} {:?}", host, world.rollout);
            }
        }
    }
}

#[test]
fn canaries_go_back_in_turns() {
    let on_b = || Seen { runs: Some(id('b')), draining: true, ..up(0) };
    let mut seen = BTreeMap::from([(host(1), up(0)), (host(2), up(0)), (host(3), up(0))]);
    let mut rollout = Rollout::begin(request(3), id('a'), &seen, 0).expect("hosts");
    seen.extend([(host(1), on_b()), (host(2), on_b())]);
    rollout.stop("an operator", &seen);
    let told = |deeds: Vec<Deed>| deeds.iter().filter(|deed| matches!(deed, Deed::Reboot { .. })).count();
    let first = (0..9).map(|s| told(rollout.step(&seen, s * 1_000))).sum::<usize>();
    assert!(first > 0 && rollout.turns.len() == 1, "one at a time");
    let gone = rollout.turns[0].host.clone();
    seen.insert(gone.clone(), Seen { up: false, ..on_b() });
    assert_eq!((20..90).map(|s| told(rollout.step(&seen, s * 1_000))).sum::<usize>(), 0, "it is not back");
    assert_eq!(rollout.phase, RolloutPhase::Back);
    seen.insert(gone, Seen { boot: Some("new".to_owned()), ..up(0) });
    assert!((100..110).map(|s| told(rollout.step(&seen, s * 1_000))).sum::<usize>() > 0, "the next");
}

#[test]
fn without_reboots_it_waits_for_people() {
    let mut seen = BTreeMap::from([(host(1), up(0)), (host(2), up(0))]);
    let mut rollout = Rollout::begin(StartRollout { reboot: false, ..request(1) }, id('a'), &seen, 0).expect("hosts");
    assert_eq!(rollout.step(&seen, 1_000), []);
    seen.insert(host(1), Seen { runs: Some(id('b')), boot: Some("b".to_owned()), ..up(0) });
    assert!(rollout.step(&seen, 2_000).contains(&Deed::Promote(id('b'))));
    rollout.step(&seen, 3_000);
    assert_eq!(
        (rollout.phase, rollout.why.as_str()),
        (RolloutPhase::Done, "1 hosts take it when they are next started anew")
    );
}

/// A rack whose store is real as far as records go, and hosts that boot when told.
struct Few {
    bench: Bench,
    store: BTreeMap<Key, (u64, Record)>,
    boots: BTreeMap<u8, String>,
    keys: u8,
    seq: u64,
    /// The server is restarted every few seconds.
    restarts: bool,
    /// Orders to start anew that hosts have heard.
    told: BTreeSet<u8>,
    /// These come up with no agent.
    broken: BTreeSet<u8>,
}

impl Few {
    fn new(hosts: u8, restarts: bool) -> Self {
        let mut bench = Bench::new(policy());
        let (rack, effects) = Rack::restore(policy(), Vec::new(), bench.now).expect("an empty rack");
        bench.rack = rack;
        let (store, boots) = (BTreeMap::new(), BTreeMap::new());
        let (told, broken) = (BTreeSet::new(), BTreeSet::new());
        let mut few = Self { bench, store, boots, keys: 0, seq: 0, restarts, told, broken };
        few.keep(effects);
        for number in 1..=hosts {
            few.boot(number);
        }
        few.pass(2_000);
        few
    }

    fn keep(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut rest = Vec::new();
        for effect in effects {
            let Effect::Commit(change) = effect else {
                rest.push(effect);
                continue;
            };
            assert_eq!(self.store.get(&change.key).map_or(0, |(version, _)| *version), change.expect);
            match change.to {
                Some(record) => drop(self.store.insert(change.key, (change.expect + 1, record))),
                None => drop(self.store.remove(&change.key)),
            }
        }
        rest
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.bench.apply(event);
        let mut rest = self.keep(effects);
        // The heartbeat disk and its grants.
        let jobs: Vec<u64> =
            rest.iter().filter_map(|e| if let Effect::Storage { job, .. } = e { Some(*job) } else { None }).collect();
        for job in jobs {
            rest.extend(self.apply(Event::StorageDone { job, result: Ok(()) }));
        }
        rest
    }

    fn restart(&mut self) {
        let loaded = self.store.iter().map(|(key, (version, record))| Loaded {
            key: key.clone(),
            version: *version,
            record: record.clone(),
        });
        let mut loaded: Vec<_> = loaded.collect();
        loaded.sort_by_key(|l| l.key.clone());
        let (rack, effects) = Rack::restore(policy(), loaded, self.bench.now).expect("it fits together");
        self.bench.rack = rack;
        let rest = self.keep(effects);
        for effect in rest {
            if let Effect::Storage { job, .. } = effect {
                self.apply(Event::StorageDone { job, result: Ok(()) });
            }
        }
    }

    /// The whole way up; a broken one fetches its script and is not heard again.
    fn boot(&mut self, number: u8) -> String {
        self.told.remove(&number);
        self.boots.remove(&number);
        self.keys += 1;
        // Beyond the time in which a script fetched again is the same boot.
        self.pass_quietly(61_000);
        let address = self.lease(number);
        let key = self.keys;
        let (reply, effects) = self.bench.ask(|reply| Event::Script {
            reply,
            mac: mac(number),
            from: address,
            kind: ScriptKind::IpxeBios,
            entropy: Entropy([key; 32]),
        });
        let rest = self.keep(effects);
        let Some(Answer::Script(Ok(script))) = answer_to(reply, rest) else { panic!("no script") };
        let named = script.split("tsubame.release=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a release");
        if self.broken.contains(&number) && named != self.configured().as_str() {
            return named.to_owned();
        }
        let nonce = crate::testing::nonce(&script);
        let mut inventory = crate::testing::inventory();
        inventory.release = named.to_owned();
        let request = proto::agent::JoinRequest {
            host: host(number),
            nonce: nonce.clone(),
            csr_pem: "CSR".to_owned(),
            inventory,
        };
        let (_, effects) =
            self.bench.ask(|reply| Event::Join { reply, request, key: format!("k{key}"), from: address });
        self.keep(effects);
        self.boots.insert(number, format!("{nonce} k{key}"));
        named.to_owned()
    }

    fn lease(&mut self, number: u8) -> std::net::Ipv4Addr {
        let mut request = crate::dhcp::BootRequest::plain(mac(number), 7, crate::dhcp::MessageKind::Discover);
        crate::testing::ipxe(&mut request);
        let ask = |few: &mut Self, request: crate::dhcp::BootRequest| {
            let (reply, effects) = few.bench.ask(|reply| Event::Dhcp { reply, request });
            let rest = few.keep(effects);
            match answer_to(reply, rest) {
                Some(Answer::Dhcp(Some(answer))) => crate::testing::yiaddr(&answer),
                other => panic!("{other:?}"),
            }
        };
        let address = ask(self, request.clone());
        request.kind = crate::dhcp::MessageKind::Request;
        (request.requested, request.server) = (Some(address), Some(crate::testing::subnet().server));
        ask(self, request)
    }

    fn configured(&self) -> ReleaseId {
        crate::release::id_of(&policy().release)
    }

    /// Hosts that are up report; those that are told start anew.
    fn pass(&mut self, ms: u64) {
        for second in 0..ms.div_ceil(1000) {
            self.pass_quietly(1_000);
            let told: Vec<u8> = self.told.iter().copied().collect();
            for number in told {
                self.boot(number);
            }
            if self.restarts && second % 4 == 3 {
                self.restart();
            }
        }
    }

    fn pass_quietly(&mut self, ms: u64) {
        for _ in 0..ms / 1000 {
            self.bench.after(1000);
            let rest = self.apply(Event::Tick);
            self.heed(&rest);
            let up: Vec<(u8, String)> = self.boots.iter().map(|(n, boot)| (*n, boot.clone())).collect();
            for (number, boot) in up {
                self.seq += 1;
                let (nonce, key) = boot.split_once(' ').expect("both");
                let report: Report = alive(nonce, self.seq);
                let (_, effects) = self.bench.report(mac(number), key, report);
                let rest = self.keep(effects);
                self.heed(&rest);
            }
        }
    }

    /// Hosts hear what they are told.
    fn heed(&mut self, effects: &[Effect]) {
        let answers = effects.iter().filter_map(|effect| match effect {
            Effect::Answer { answer: Answer::Report(Ok(answer)), .. } => Some(&answer.orders),
            _ => None,
        });
        for order in answers.flatten() {
            if let Act::Reboot { boot } = &order.act {
                // One that is on its way up hears nothing.
                let meant = self.boots.iter().find(|(_, b)| b.starts_with(boot.as_str())).map(|(number, _)| *number);
                self.told.extend(meant);
            }
        }
    }

    fn operator(&mut self, command: Command) -> Result<Reply, Refusal> {
        let (reply, effects) = self.bench.ask(|reply| Event::Operator { reply, command });
        let rest = self.keep(effects);
        match answer_to(reply, rest) {
            Some(Answer::Operator(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn import(&mut self, manifest: &Manifest) -> ReleaseId {
        self.operator(Command::AddRelease { manifest: manifest.clone() }).expect("a good one");
        crate::release::id_of(manifest)
    }

    fn start(&mut self, to: &ReleaseId, canary: u32) -> Result<Reply, Refusal> {
        let request = StartRollout { to: to.clone(), canary, deadline_s: 600, healthy_s: 5, at_once: 1, reboot: true };
        self.operator(Command::StartRollout { pool: PoolId::default(), request })
    }

    fn pool(&self) -> PoolView {
        self.bench.rack.view(self.bench.now).pools.into_iter().next().expect("the default one")
    }

    fn host(&self, number: u8) -> HostView {
        let hosts = self.bench.rack.view(self.bench.now).hosts;
        hosts.into_iter().find(|h| h.id == host(number)).expect("it is there")
    }

    fn phase(&self) -> Option<RolloutPhase> {
        self.pool().rollout.map(|rollout| rollout.phase)
    }

    fn log(&self) -> String {
        let events = self.bench.rack.events(0, 10_000);
        let told = events.iter().filter(|e| e.text.contains("rollout") || e.text.contains("release"));
        told.map(|e| format!("{}\n", e.text)).collect()
    }
}

fn rolled_out(restarts: bool) -> Few {
    let mut few = Few::new(3, restarts);
    let first = few.configured();
    assert_eq!(few.host(1).release, Some(first.clone()));
    let second = few.import(&release("dom0", 2));
    few.start(&second, 1).expect("a rollout");
    for _ in 0..400 {
        if few.phase() == Some(RolloutPhase::Done) {
            break;
        }
        few.pass(1_000);
    }
    assert_eq!(few.phase(), Some(RolloutPhase::Done), "{:?}\n{}", few.pool(), few.log());
    let pool = few.pool();
    assert_eq!((&pool.release, pool.previous.as_ref(), pool.outdated), (&second, Some(&first), 0));
    for number in 1..=3 {
        let view = few.host(number);
        assert_eq!((view.release.as_ref(), view.outdated), (Some(&second), false));
        assert_eq!(view.state, proto::view::HostState::Active, "used again");
    }
    few
}

#[test]
fn a_canary_is_healthy_and_all_follow() {
    let few = rolled_out(false);
    expect![[r#"
        release a5e321b6a095: dom0-2 was imported, a release for hosts
        rollout of pool default to dom0-2 (a5e321b6a095) begins; first h525400aabb01 (runs no VM)
        rollout of pool default: its 1 canaries are healthy: all hosts boot a5e321b6a095 from now on
        rollout of pool default: h525400aabb02 runs a5e321b6a095 and is healthy
        rollout of pool default: h525400aabb03 runs a5e321b6a095 and is healthy
        rollout of pool default: done: all hosts that are up run a5e321b6a095
    "#]]
    .assert_eq(&few.log());
}

#[test]
fn a_host_that_an_operator_drains_as_well_stays_drained() {
    let mut few = Few::new(3, false);
    let second = few.import(&release("dom0", 2));
    few.start(&second, 1).expect("a rollout");
    while few.host(1).state != proto::view::HostState::Draining {
        few.pass(1_000);
    }
    few.operator(Command::DrainHost { host: host(1) }).expect("drained already");
    while few.phase() != Some(RolloutPhase::Done) {
        few.pass(1_000);
    }
    assert_eq!(few.host(1).state, proto::view::HostState::Draining, "it is the operator's to use again");
    assert_eq!(few.host(2).state, proto::view::HostState::Active);
}

#[test]
fn the_server_is_restarted_again_and_again_during_a_rollout() {
    // Healthy time begins anew with each restart, so here it must be none.
    let mut few = Few::new(2, true);
    let second = few.import(&release("dom0", 2));
    let request =
        StartRollout { to: second.clone(), canary: 1, deadline_s: 3600, healthy_s: 0, at_once: 1, reboot: true };
    few.operator(Command::StartRollout { pool: PoolId::default(), request }).expect("a rollout");
    for _ in 0..600 {
        if few.phase() == Some(RolloutPhase::Done) {
            break;
        }
        few.pass(4_000);
    }
    assert_eq!(few.phase(), Some(RolloutPhase::Done), "{:?}\n{}", few.pool(), few.log());
    assert_eq!(few.pool().outdated, 0);
}

#[test]
fn a_canary_that_does_not_come_back_ends_it() {
    for restarts in [false, true] {
        let mut few = Few::new(2, restarts);
        let (first, second) = (few.configured(), few.import(&release("dom0", 2)));
        few.broken.insert(1);
        few.start(&second, 1).expect("a rollout");
        for _ in 0..200 {
            few.pass(1_000);
            if !few.boots.contains_key(&1) {
                break;
            }
        }
        assert!(!few.boots.contains_key(&1), "it was told to start anew, and is away");
        let refused = few.operator(Command::DeleteRelease { release: second.clone() });
        assert!(matches!(refused, Err(Refusal::ReleaseInUse { .. })), "{refused:?}");
        few.pass(700_000);
        assert_eq!(few.phase(), Some(RolloutPhase::RolledBack), "{}", few.log());
        assert_eq!((&few.pool().release, few.pool().previous), (&first, None));
        // The next boot gets the old one, and nothing uses the new one any more.
        assert_eq!(few.boot(1), first.as_str());
        few.pass(10_000);
        assert_eq!(few.host(1).release, Some(first));
        assert_eq!(few.host(1).state, proto::view::HostState::Active, "used again");
        few.operator(Command::DeleteRelease { release: second }).expect("nothing uses it");
    }
}

#[test]
fn one_that_hangs_is_started_anew_by_its_controller() {
    let mut few = Few::new(2, false);
    let second = few.import(&release("dom0", 2));
    few.broken.insert(1);
    few.operator(Command::SetBmc { host: host(1), request: ipmi() }).expect("set");
    few.start(&second, 1).expect("a rollout");
    few.pass(700_000);
    assert_eq!(few.phase(), Some(RolloutPhase::RolledBack), "{}", few.log());
    let order = few.host(1).power.and_then(|power| power.order).expect("an order");
    assert_eq!((order.verb, order.network), (PowerVerb::Cycle, true));
    // The other one has none; it was not told anything.
    assert_eq!(few.host(2).power, None);
}

#[test]
fn what_is_asked_for_within_a_boot_is_of_its_release() {
    let mut few = Few::new(1, false);
    let (first, second) = (few.configured(), few.import(&release("dom0", 2)));
    few.pass_quietly(61_000);
    let from = few.lease(1);
    let named = |few: &mut Few, kind: ScriptKind, byte: u8| {
        let entropy = Entropy([byte; 32]);
        let (reply, effects) = few.bench.ask(|reply| Event::Script { reply, mac: mac(1), from, kind, entropy });
        let rest = few.keep(effects);
        let Some(Answer::Script(Ok(text))) = answer_to(reply, rest) else { panic!("no script") };
        let release = text.split("tsubame.release=").nth(1).and_then(|rest| rest.split_whitespace().next());
        release.map(str::to_owned)
    };
    // The script of a machine under UEFI names files alone, and what is asked for later names the release.
    assert_eq!(named(&mut few, ScriptKind::IpxeUefi, 101), None);
    few.start(&second, 0).expect("untried");
    assert_eq!(few.pool().release, second);
    for (ms, byte) in [(1_000, 102), (90_000, 103)] {
        few.pass_quietly(ms);
        assert_eq!(named(&mut few, ScriptKind::XenCfg, byte).as_deref(), Some(first.as_str()));
        assert_eq!(named(&mut few, ScriptKind::Words, byte + 10).as_deref(), Some(first.as_str()));
    }
    // A script is a boot of its own.
    assert_eq!(named(&mut few, ScriptKind::IpxeBios, 120).as_deref(), Some(second.as_str()));
    assert_eq!(named(&mut few, ScriptKind::Words, 121).as_deref(), Some(second.as_str()));
}

#[test]
fn commands_are_refused_for_a_reason() {
    let mut few = Few::new(1, false);
    let (first, second) = (few.configured(), few.import(&release("dom0", 2)));
    let default = PoolId::default();
    let nowhere: PoolId = "nowhere".parse().expect("a name");
    let unknown = id('f');
    let mut guest = release("guest", 1);
    guest.kind = proto::release::ReleaseKind::Guest;
    let guest = few.import(&guest);
    let mut lacking = release("dom0", 3);
    lacking.files.remove("vmlinuz");
    let start = |to: &ReleaseId| StartRollout { to: to.clone(), ..request(1) };
    let mut told = String::new();
    for command in [
        Command::AddRelease { manifest: lacking },
        Command::AddRelease { manifest: Manifest::default() },
        Command::DeleteRelease { release: unknown.clone() },
        Command::DeleteRelease { release: first.clone() },
        Command::StartRollout { pool: nowhere.clone(), request: start(&second) },
        Command::StartRollout { pool: default.clone(), request: start(&unknown) },
        Command::StartRollout { pool: default.clone(), request: start(&guest) },
        Command::StartRollout { pool: default.clone(), request: start(&first) },
        Command::StartRollout { pool: default.clone(), request: StartRollout { deadline_s: 1, ..start(&second) } },
        Command::StopRollout { pool: default.clone() },
        Command::CreatePool(CreatePool { name: default.clone(), release: first.clone() }),
        Command::DeletePool { pool: default.clone() },
        Command::SetPool { host: host(9), pool: default.clone() },
        Command::SetPool { host: host(1), pool: nowhere.clone() },
    ] {
        let refused = few.operator(command).expect_err("it is refused");
        told += &format!("{refused}\n");
    }
    few.start(&second, 1).expect("a rollout");
    for command in [
        Command::StartRollout { pool: default.clone(), request: start(&second) },
        Command::DeleteRelease { release: second.clone() },
    ] {
        told += &format!("{}\n", few.operator(command).expect_err("it is refused"));
    }
    few.operator(Command::CreatePool(CreatePool { name: "spare".parse().expect("a name"), release: first }))
        .expect("made");
    let moved = few.operator(Command::SetPool { host: host(1), pool: "spare".parse().expect("a name") });
    told += &format!("{}\n", moved.expect_err("it is a canary"));
    few.operator(Command::StopRollout { pool: default }).expect("stopped");
    few.operator(Command::SetPool { host: host(1), pool: "spare".parse().expect("a name") }).expect("moved");
    told += &format!(
        "{}\n",
        few.operator(Command::DeletePool { pool: "spare".parse().expect("a name") }).expect_err("used")
    );
    expect![[r#"
        files is "dom0.squashfs, initrd, xen, xen.efi", expected vmlinuz among them
        name is "", expected 1 to 63 of letters, digits, '.', '_', '+' and '-', not beginning with '.'
        there is no release ffffffffffff
        release a375c0d79861 is used by the configuration, pool default, host h525400aabb01
        there is no pool nowhere
        there is no release ffffffffffff
        release is "guest-1 (5ed97024e314)", expected one for hosts, not for guests
        to is "dom0-1 (a375c0d79861)", expected another release than the pool has
        deadline_s is "1", expected 30 to 86400
        the server cannot do this now: no rollout of pool default is under way
        the name default is taken
        pool default still has 1 hosts; put them into another
        there is no host h525400aabb09
        there is no pool nowhere
        a rollout of pool default is under way; wait until it has ended, or stop it
        release a5e321b6a095 is used by the rollout of pool default
        a rollout of pool default is under way; wait until it has ended, or stop it
        pool spare still has 1 hosts; put them into another
    "#]]
    .assert_eq(&told);
}

#[test]
fn what_the_configuration_names_is_followed_until_an_operator_decides() {
    let mut few = Few::new(1, false);
    let second = release("dom0", 2);
    let loaded = |few: &Few| {
        let records = few.store.iter();
        let records = records.map(|(key, (version, record))| Loaded {
            key: key.clone(),
            version: *version,
            record: record.clone(),
        });
        records.collect::<Vec<_>>()
    };
    let restarted = |few: &mut Few, manifest: &Manifest| {
        let policy = crate::policy::Policy { release: manifest.clone(), ..policy() };
        let (rack, effects) = Rack::restore(policy, loaded(few), few.bench.now).expect("it fits together");
        few.bench.rack = rack;
        few.keep(effects);
    };
    restarted(&mut few, &second);
    assert_eq!(few.pool().release, crate::release::id_of(&second));
    assert!(few.host(1).outdated);
    let third = few.import(&release("dom0", 3));
    few.start(&third, 0).expect("at once");
    few.pass(1_000);
    assert_eq!(few.pool().release, third);
    restarted(&mut few, &release("dom0", 4));
    assert_eq!(few.pool().release, third, "an operator's choice stays");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is done in whatever order: what a pool points at or a host runs or boots is there.
    #[test]
    fn nothing_in_use_is_collected(acts in proptest::collection::vec((0u8..9, 1u64..6, 1u8..4), 1..40)) {
        let mut few = Few::new(3, false);
        let pools: Vec<PoolId> = ["default", "a", "b"].iter().map(|name| name.parse().expect("a name")).collect();
        for (act, version, number) in acts {
            let manifest = release("dom0", version);
            let to = crate::release::id_of(&manifest);
            let pool = pools[usize::from(number) - 1].clone();
            match act {
                0 | 1 => drop(few.import(&manifest)),
                2 => drop(few.operator(Command::DeleteRelease { release: to })),
                3 => drop(few.operator(Command::CollectReleases(CollectReleases::default()))),
                4 => drop(few.operator(Command::StartRollout {
                    pool,
                    request: StartRollout { to, canary: number.into(), deadline_s: 60, healthy_s: 1, at_once: 2, reboot: version % 2 == 0 },
                })),
                5 => drop(few.operator(Command::CreatePool(CreatePool { name: pool, release: to }))),
                6 => drop(few.operator(Command::SetPool { host: host(number), pool })),
                7 => drop(few.boot(number)),
                _ => few.pass(number as u64 * 5_000),
            }
            if version == 5 && act % 2 == 0 {
                few.restart();
            }
            let view = few.bench.rack.view(few.bench.now);
            let there: BTreeSet<&ReleaseId> = view.releases.iter().map(|r| &r.id).collect();
            for pool in &view.pools {
                prop_assert!(there.contains(&pool.release));
                prop_assert!(pool.previous.as_ref().is_none_or(|previous| there.contains(previous)));
                if let Some(rollout) = pool.rollout.as_ref().filter(|r| !matches!(r.phase, RolloutPhase::Done | RolloutPhase::Stopped | RolloutPhase::RolledBack)) {
                    prop_assert!(there.contains(&rollout.to));
                }
            }
            for host in &view.hosts {
                prop_assert!(host.release.as_ref().is_none_or(|release| there.contains(release)), "{}", host.id);
            }
            for record in few.bench.rack.hosts.values() {
                for boot in [&record.boot, &record.next_boot].into_iter().flatten() {
                    prop_assert!(boot.release.as_ref().is_none_or(|release| there.contains(release)));
                }
            }
        }
        prop_assert_eq!(default_healthy_s(), 60);
    }
}
