//! Hosts whose disks are on a SAN: nobody can be cut off it.

use super::*;
use crate::power::{PowerAnswer, PowerFailure, PowerWhy};
use crate::testing::san;
use proto::agent::Secret;
use proto::api::Refusal;
use proto::event::Level;
use proto::power::{BmcKind, OrderPower, PowerState, PowerVerb, SetBmc};

/// What a controller does when it is told to switch off.
type Off = Result<(), PowerWhy>;

impl Few {
    fn ask(&mut self, command: Command) -> Result<(), String> {
        let (reply, effects) = self.bench.ask(|reply| Event::Operator { reply, command });
        let answer = crate::testing::answer_to(reply, effects.clone());
        self.carry_out(effects);
        match answer {
            Some(Answer::Operator(said)) => said.map(drop).map_err(|refusal: Refusal| refusal.to_string()),
            other => panic!("{other:?}"),
        }
    }

    fn confirm_off(&mut self, at: usize) -> Result<(), String> {
        self.ask(Command::ConfirmOff { host: id(at) })
    }

    /// The host gets a controller, which has answered once.
    fn give_bmc(&mut self, at: usize, kind: BmcKind) {
        let wake = kind == BmcKind::Wake;
        let request = SetBmc {
            kind,
            address: (!wake).then(|| format!("10.9.9.{at}")),
            user: if wake { String::new() } else { "admin".to_owned() },
            password: (!wake).then(|| Secret("secret".to_owned())),
            trust: None,
            system: None,
        };
        self.ask(Command::SetBmc { host: id(at), request }).expect("it may be set");
        self.controllers(Ok(()));
    }

    /// Every controller answers what it is at; what it does when it is to switch off is given, and one that cannot be reached says nothing.
    fn controllers(&mut self, off: Off) -> usize {
        let jobs = std::mem::take(&mut self.jobs);
        for (job, host, op) in &jobs {
            let state = if *op == PowerOp::Off { PowerState::Off } else { PowerState::On };
            // Of one that cannot be reached nothing is heard at all; another reason is the order's own.
            let result = match off.err().filter(|why| *why == PowerWhy::Unreached || *op == PowerOp::Off) {
                None => Ok(PowerAnswer { state, certificate: None }),
                Some(why) => Err(PowerFailure { why, text: "BMC 10.9.9.0: no".to_owned() }),
            };
            self.apply(Event::PowerDone { job: *job, host: host.clone(), result });
        }
        jobs.iter().filter(|(_, _, op)| *op == PowerOp::Off).count()
    }

    /// Lets time pass with controllers that answer; how often one was told to switch off.
    fn pass_with(&mut self, seconds: u64, off: Off) -> usize {
        let mut told = 0;
        for _ in 0..seconds {
            self.pass(1);
            told += self.controllers(off);
        }
        told
    }

    /// The host dies, and lets its lease and watchdog be waited out; its controller is told to switch off, and has not said what became of it.
    fn dies_and_bmc_is_told(&mut self) {
        self.hosts[0].alive = false;
        self.pass_with(44, Ok(()));
        self.pass(2);
        let told = self.jobs.iter().filter(|(_, host, op)| *op == PowerOp::Off && *host == id(0)).count();
        assert_eq!((told, self.host(0).fence), (1, Some(FenceStep::Power)));
    }

    fn phase(&self, name: &str) -> (VmPhase, Option<HostId>) {
        let vm = self.vm(name);
        (vm.phase, vm.owner)
    }

    fn said(&self, level: Level, part: &str) -> usize {
        let events = self.bench.rack.events(0, 10_000);
        events.iter().filter(|event| event.level == level && event.text.contains(part)).count()
    }

    /// The VM `a` runs on the first of three hosts.
    fn with_a() -> Self {
        let mut all = Self::of(3, san());
        all.run("a", 0, Restart::default(), 96);
        all.begin();
        all
    }

    fn a_runs_elsewhere(&self) {
        let (phase, owner) = self.phase("a");
        assert!(phase == VmPhase::Running && owner != Some(id(0)), "{phase:?} on {owner:?}: {}", self.vm("a").note);
        assert_eq!(self.host(0).fence, Some(FenceStep::Done));
    }

    fn a_waits(&self) {
        assert_eq!((self.phase("a").1, self.log.concat().as_str()), (Some(id(0)), ""), "nothing is started elsewhere");
    }
}

#[test]
fn without_a_bmc_a_dead_hosts_vms_wait_for_a_person_and_then_for_nobody() {
    let mut all = Few::with_a();
    assert!(all.host(0).note.contains("its VMs wait for a person"), "{}", all.host(0).note);
    assert!(all.confirm_off(0).expect_err("it lives").contains("has been silent for 0 s"));
    all.hosts[0].alive = false;
    all.pass(40);
    assert!(all.confirm_off(0).expect_err("its lease may be valid").contains("after 44 s of silence"));
    all.pass(60);
    assert_eq!((all.host(0).fence, all.host(0).fence_at_ms), (Some(FenceStep::Power), None));
    let command = format!("tsubame host confirm-off {0} --it-is-off {0}", id(0));
    assert!(all.host(0).note.contains(&command), "{}", all.host(0).note);
    assert_eq!(all.said(Level::Warning, &command), 1);
    assert!(all.vm("a").note.contains("until that host is off"), "{}", all.vm("a").note);
    // However long it takes, and whether the server is there or not.
    all.restart();
    all.pass(300);
    all.a_waits();
    all.confirm_off(0).expect("nothing speaks against it");
    all.confirm_off(0).expect("it is so already");
    all.pass(10);
    all.a_runs_elsewhere();
    assert_eq!(all.said(Level::Warning, "an operator says that"), 1);
}

#[test]
fn a_bmc_switches_a_silent_host_off_and_only_its_word_ends_the_fence() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Ipmi);
    assert_eq!(all.host(0).note, "");
    all.dies_and_bmc_is_told();
    // It takes its time.
    all.pass(200);
    assert!(all.host(0).note.contains("its BMC is to switch it off"), "{}", all.host(0).note);
    assert_eq!(all.ask(power(PowerVerb::On)).err(), Some(Refusal::HostFenced { host: id(0) }.to_string()));
    all.a_waits();
    all.controllers(Ok(()));
    all.pass(3);
    all.a_runs_elsewhere();
    expect![[r#"
        248 s: a starts on 1 under epoch 3
    "#]]
    .assert_eq(&all.log.concat());
}

fn power(verb: PowerVerb) -> Command {
    Command::OrderPower { host: id(0), request: OrderPower { verb, network: false } }
}

#[test]
fn a_bmc_that_cannot_be_reached_is_tried_on_and_a_person_is_told_once() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Redfish);
    all.hosts[0].alive = false;
    let told = all.pass_with(300, Err(PowerWhy::Unreached));
    assert_eq!(told, 5, "as often as any order");
    all.a_waits();
    assert_eq!(all.host(0).fence, Some(FenceStep::Power));
    assert_eq!(all.said(Level::Error, "needs a person, as its BMC did not switch it off"), 1);
    assert!(all.host(0).note.contains("confirm-off"), "{}", all.host(0).note);
    // It answers again: asked every two minutes.
    assert_eq!(all.pass_with(130, Ok(())), 1);
    all.a_runs_elsewhere();
}

#[test]
fn what_a_bmc_refuses_is_not_tried_for_ever_but_a_person_may_confirm_or_set_it_anew() {
    for by_person in [true, false] {
        let mut all = Few::with_a();
        all.give_bmc(0, BmcKind::Ipmi);
        all.hosts[0].alive = false;
        assert_eq!(all.pass_with(600, Err(PowerWhy::Login)), 1, "a wrong password locks the account");
        all.a_waits();
        if by_person {
            all.confirm_off(0).expect("its power was taken away");
        } else {
            all.give_bmc(0, BmcKind::Ipmi);
        }
        all.pass_with(10, Ok(()));
        all.a_runs_elsewhere();
    }
}

#[test]
fn a_machine_that_is_only_woken_needs_a_person() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Wake);
    assert!(all.host(0).note.contains("no BMC that can switch it off"), "{}", all.host(0).note);
    all.hosts[0].alive = false;
    assert_eq!(all.pass_with(200, Ok(())), 0);
    all.a_waits();
    all.confirm_off(0).expect("nothing speaks against it");
    all.pass(10);
    all.a_runs_elsewhere();
}

#[test]
fn a_bmc_that_says_off_of_a_host_that_is_heard_is_believed_no_more() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Ipmi);
    all.dies_and_bmc_is_told();
    all.controllers(Ok(()));
    // That was another machine: this one had only been away, and reports before the slots are read again.
    all.blind = true;
    all.hosts[0].alive = true;
    all.pass(1);
    assert_eq!(all.host(0).fence, Some(FenceStep::Cutting));
    all.hosts[0].lease = LeaseState::Lapsed;
    all.pass(1);
    all.blind = false;
    all.pass(1);
    assert_eq!(all.said(Level::Error, "its BMC said that it was off: is that another machine's?"), 1);
    all.a_waits();
    all.hosts[0].lease = LeaseState::Valid;
    all.pass_with(5, Ok(()));
    assert_eq!((all.host(0).fence, all.phase("a")), (None, (VmPhase::Running, Some(id(0)))));
    assert!(all.host(0).note.contains("said once that it was off when it was not"), "{}", all.host(0).note);
    // When it does die, a person is asked for, also after a restart; until the controller was set anew.
    all.hosts[0].alive = false;
    all.restart();
    assert_eq!(all.pass_with(200, Ok(())), 0);
    all.a_waits();
    assert!(all.host(0).note.contains("needs a person"), "{}", all.host(0).note);
    all.give_bmc(0, BmcKind::Ipmi);
    assert_eq!(all.pass_with(10, Ok(())), 1);
    all.a_runs_elsewhere();
}

#[test]
fn a_slot_that_moves_after_the_power_was_said_to_be_off_shows_that_it_is_not() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Ipmi);
    all.dies_and_bmc_is_told();
    // Written before the power went, read after it: that tells nothing, but the wait is full again.
    all.hosts[0].beat += 1;
    all.controllers(Ok(()));
    all.pass(40);
    assert_eq!(all.host(0).fence, Some(FenceStep::Cutting));
    all.a_waits();
    // Written since.
    all.hosts[0].beat += 1;
    all.pass(1);
    assert_eq!(all.said(Level::Error, "had power all the time"), 1);
    all.a_waits();
    assert_ne!(all.host(0).fence, Some(FenceStep::Cutting));
}

#[test]
fn a_host_that_is_there_again_before_it_is_off_keeps_its_vms() {
    for bmc in [None, Some(BmcKind::Ipmi)] {
        let mut all = Few::with_a();
        if let Some(kind) = bmc {
            all.give_bmc(0, kind);
        }
        all.hosts[0].alive = false;
        all.pass_with(70, Err(PowerWhy::Unreached));
        assert_eq!(all.host(0).fence, Some(FenceStep::Power));
        all.hosts[0].alive = true;
        assert_eq!(all.pass_with(200, Ok(())), 0, "nobody switches it off any more");
        assert_eq!(all.host(0).fence, None);
        assert_eq!(all.phase("a"), (VmPhase::Running, Some(id(0))));
        assert!(all.confirm_off(0).is_err(), "it is there");
    }
}

#[test]
fn a_sign_of_life_while_the_bmc_is_at_it_changes_nothing_any_more() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Ipmi);
    all.dies_and_bmc_is_told();
    all.hosts[0].alive = true;
    all.pass(5);
    assert_eq!(all.host(0).fence, Some(FenceStep::Power), "whether it is being switched off is not known");
    all.hosts[0].alive = false;
    all.controllers(Ok(()));
    // The wait is full again.
    all.pass(40);
    all.a_waits();
    all.pass(10);
    all.a_runs_elsewhere();
}

#[test]
fn after_a_restart_amid_the_order_the_host_is_listened_for_first() {
    for comes_back in [true, false] {
        let mut all = Few::with_a();
        all.give_bmc(0, BmcKind::Ipmi);
        all.dies_and_bmc_is_told();
        // Whether it was done before the server died nobody knows.
        all.restart();
        assert_eq!(all.host(0).fence, Some(FenceStep::Power));
        assert_eq!(all.pass_with(10, Ok(())), 0);
        all.hosts[0].alive = comes_back;
        assert_eq!(all.pass_with(33, Ok(())), 0);
        all.a_waits();
        let told = all.pass_with(20, Ok(()));
        if comes_back {
            assert_eq!((told, all.host(0).fence, all.phase("a")), (0, None, (VmPhase::Running, Some(id(0)))));
        } else {
            assert_eq!(told, 1);
            all.a_runs_elsewhere();
        }
    }
}

#[test]
fn what_a_bmc_said_is_kept_over_a_restart_and_the_wait_is_full_again() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Ipmi);
    all.dies_and_bmc_is_told();
    all.blind = true;
    all.controllers(Ok(()));
    all.pass(1);
    all.restart();
    all.blind = false;
    assert_eq!(all.pass_with(43, Ok(())), 0);
    all.a_waits();
    assert_eq!(all.pass_with(10, Ok(())), 0, "it is not asked twice");
    all.a_runs_elsewhere();
}

#[test]
fn an_earlier_fences_word_does_not_end_a_later_one() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Ipmi);
    all.hosts[0].alive = false;
    assert_eq!(all.pass_with(60, Ok(())), 1);
    all.a_runs_elsewhere();
    // It boots anew, and gets the VM again when its new host dies.
    all.boot_anew(0);
    all.pass_with(5, Ok(()));
    all.begin();
    let at = (1..3).find(|at| all.phase("a").1 == Some(id(*at))).expect("it runs there");
    all.hosts[3 - at].lease = LeaseState::Lapsed;
    all.hosts[at].alive = false;
    all.pass_with(60, Ok(()));
    all.confirm_off(at).expect("that one has no controller");
    all.pass_with(10, Ok(()));
    assert_eq!(all.phase("a"), (VmPhase::Running, Some(id(0))));
    all.begin();
    all.hosts[0].alive = false;
    assert_eq!(all.pass_with(200, Err(PowerWhy::Unreached)), 5);
    all.a_waits();
}

#[test]
fn a_machine_that_was_booted_anew_is_not_switched_off_any_more() {
    let mut all = Few::with_a();
    all.give_bmc(0, BmcKind::Ipmi);
    all.hosts[0].alive = false;
    all.pass_with(48, Err(PowerWhy::Unreached));
    assert_eq!(all.host(0).fence, Some(FenceStep::Power));
    all.boot_anew(0);
    assert_eq!(all.pass_with(200, Ok(())), 0);
    assert_eq!(all.host(0).fence, None);
    assert_eq!(all.phase("a").0, VmPhase::Running, "its old boot is over, and so is its guest: it was started anew");
}

#[test]
fn a_san_that_was_away_for_all_is_nobodys_failure() {
    let mut all = Few::with_a();
    for at in 0..3 {
        all.give_bmc(at, BmcKind::Ipmi);
    }
    // Nobody can write, and nobody can read: their leases lapse.
    all.blind = true;
    all.hosts.iter_mut().for_each(|host| host.lease = LeaseState::Lapsed);
    assert_eq!(all.pass_with(600, Ok(())), 0);
    all.blind = false;
    assert_eq!(all.pass_with(5, Ok(())), 0);
    all.hosts.iter_mut().for_each(|host| host.lease = LeaseState::Valid);
    assert_eq!(all.pass_with(100, Ok(())), 0);
    assert_eq!(all.phase("a"), (VmPhase::Running, Some(id(0))));
}

#[test]
fn a_frozen_rack_switches_nobody_off_until_it_is_thawed_and_the_wait_is_over() {
    let mut all = Few::of(3, san());
    all.run("a", 0, Restart::default(), 96);
    all.run("b", 1, Restart::default(), 96);
    (0..2).for_each(|at| all.give_bmc(at, BmcKind::Ipmi));
    all.begin();
    (all.hosts[0].alive, all.hosts[1].alive) = (false, false);
    assert_eq!(all.pass_with(20, Ok(())), 0);
    assert!(all.frozen());
    all.command(Command::Thaw);
    assert_eq!(all.pass_with(23, Ok(())), 0);
    assert_eq!(all.pass_with(10, Ok(())), 2);
    assert_eq!((all.phase("a").1, all.phase("b").1), (Some(id(2)), Some(id(2))));
}

#[test]
fn what_a_person_said_is_kept_over_a_restart_and_found_out_when_it_was_wrong() {
    let mut all = Few::with_a();
    all.hosts[0].alive = false;
    all.pass(70);
    all.blind = true;
    all.pass(1);
    all.confirm_off(0).expect("nothing speaks against it");
    all.restart();
    all.blind = false;
    // Slots that nobody has read since may hold a write: a full wait again.
    all.pass(20);
    all.a_waits();
    all.pass(60);
    all.a_runs_elsewhere();
    all.hosts[0].alive = true;
    all.pass(10);
    assert_eq!(all.said(Level::Error, "an operator said that it was off"), 1);
}

#[test]
fn a_way_is_taken_when_its_host_says_that_it_has_logged_out() {
    let mut all = Few::with_a();
    // It ends by itself, and dom0 may still hold what it had written.
    all.hosts[0].domains.clear();
    all.deaf = true;
    all.pass(60);
    assert_eq!(all.phase("a").0, VmPhase::Stopping, "its host has yet to say that nothing is left");
    assert!(!all.log.concat().contains("starts"), "{}", all.log.concat());
    all.deaf = false;
    all.pass(10);
    assert_eq!(all.phase("a").0, VmPhase::Running);
    let log = all.log.concat();
    assert!(log.find("a is logged out on 0") < log.find("a starts"), "{log}");
}

#[test]
fn where_hosts_can_be_cut_off_there_is_nothing_to_confirm() {
    let mut all = Few::new(3);
    all.run("a", 0, Restart::default(), 96);
    all.give_bmc(0, BmcKind::Ipmi);
    all.hosts[0].alive = false;
    all.sulks = true;
    assert_eq!(all.pass_with(100, Ok(())), 0, "the storage cuts it off");
    assert_eq!(all.host(0).fence, Some(FenceStep::Cutting));
    assert!(all.confirm_off(0).expect_err("it is no SAN").contains("nothing is to be confirmed"));
}

#[test]
fn disks_are_declared_and_neither_made_nor_removed() {
    let mut all = Few::of(2, san());
    let names = |all: &Few| {
        let disks = all.bench.rack.view(all.bench.now).disks;
        disks.into_iter().map(|disk| (disk.name.to_string(), disk.vm.map(|vm| vm.to_string()))).collect::<Vec<_>>()
    };
    let free = [("a-0".to_owned(), None), ("b-0".to_owned(), None), ("spare".to_owned(), None)];
    assert_eq!(names(&all), free);
    all.run("a", 0, Restart::default(), 96);
    assert_eq!(names(&all)[0], ("a-0".to_owned(), Some("a".to_owned())));
    let refused = |all: &mut Few, command: Command| all.ask(command).expect_err("it is refused");
    let other = CreateVm::new("c".parse().expect("a name"), "tiny");
    assert!(refused(&mut all, Command::CreateVm(other)).contains("c-0"), "its disk is not declared");
    let disk = "spare".parse().expect("a name");
    assert!(refused(&mut all, Command::DeleteDisk { disk }).contains("on a SAN"));
    assert!(refused(&mut all, Command::RemoveHost { host: id(1) }).contains("may still write"));
    // The disk of a VM that is deleted stays, for another of that name.
    all.ask(Command::DestroyVm { vm: "a".parse().expect("a name") }).expect("it runs");
    all.pass(5);
    all.ask(Command::DeleteVm { vm: "a".parse().expect("a name") }).expect("it is stopped");
    all.pass(5);
    assert_eq!(names(&all), free);
    assert!(all.bench.rack.view(all.bench.now).vms.is_empty());
}
