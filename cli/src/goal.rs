//! When is what was begun done?
//!
//! Owns: the reading of a `RackView` for one wish: waiting, met or failed. Pure. Never does: asking the server.
//!
//! A view may be older than the answer to the order that was just given: views are made at most four times a second. So
//! a wish about something that was there before carries its state of before, and as long as the view shows just that,
//! nothing is concluded.

use crate::render::names;
use proto::power::{PowerStage, PowerView};
use proto::release::{PoolId, RolloutPhase, RolloutView};
use proto::view::{BootStepKind, HostState, HostView, MovePhase, MoveView, RackView, VmPhase, VmView};
use proto::{DiskId, HostId, MoveId, VmId};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A VM in a phase.
    Vm {
        /// Which.
        vm: VmId,
        /// `Running`, `Paused` or `Stopped`; `None` for gone.
        want: Option<VmPhase>,
        /// Its phase and since when, before the order; `None` when it was not there.
        before: Option<(VmPhase, u64)>,
    },
    /// A host that is accepted and reports.
    HostActive {
        /// Which.
        host: HostId,
        /// Its state and since when, before the order.
        before: Option<(HostState, u64)>,
    },
    /// A host that drains and has no VM left.
    HostEmpty {
        /// Which.
        host: HostId,
    },
    /// An order to switch a host's power that was done.
    Power {
        /// Which host.
        host: HostId,
        /// When the order before it was given, if it had ended.
        before: Option<u64>,
    },
    /// A move that has ended.
    MoveDone {
        /// Which.
        id: MoveId,
    },
    /// A disk that is ready to use.
    DiskReady {
        /// Which.
        disk: DiskId,
    },
    /// A rollout that all hosts of a pool have taken.
    RolloutDone {
        /// Which pool.
        pool: PoolId,
        /// When the rollout that was there before began.
        before: Option<u64>,
    },
    /// A disk that is gone.
    DiskGone {
        /// Which.
        disk: DiskId,
    },
}

/// What a view says about a goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// Not yet.
    Waiting(Progress),
    /// So it is.
    Met,
    /// It will not be, and why.
    Failed(String),
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The stage, a few words.
    pub(crate) stage: String,
    /// Bytes so far.
    pub(crate) bytes: u64,
    /// Bytes expected; 0 when that is not known. What is copied while a guest writes can be more.
    pub(crate) bytes_total: u64,
}

impl Progress {
    fn stage(stage: impl Into<String>) -> Self {
        Self { stage: stage.into(), ..Self::default() }
    }
}

impl Goal {
    /// A VM that is to reach `want`, told from how `view` shows it now.
    pub(crate) fn vm(vm: &VmId, want: Option<VmPhase>, view: &RackView) -> Self {
        let before = find_vm(view, vm).map(|v| (v.phase, v.since_ms));
        Self::Vm { vm: vm.clone(), want, before }
    }

    /// A host that is to become active, told from how `view` shows it now.
    pub(crate) fn host_active(host: &HostId, view: &RackView) -> Self {
        let before = find_host(view, host).map(|h| (h.state, h.since_ms));
        Self::HostActive { host: host.clone(), before }
    }

    /// A host whose power is to be switched, told from how `view` shows it now.
    pub(crate) fn power(host: &HostId, view: &RackView) -> Self {
        let order = find_host(view, host).and_then(|h| h.power.as_ref()?.order.as_ref());
        let before = order.filter(|order| order.ended_ms.is_some()).map(|order| order.asked_ms);
        Self::Power { host: host.clone(), before }
    }

    /// A rollout that is to be begun, told from how `view` shows the pool now.
    pub(crate) fn rollout(pool: &PoolId, view: &RackView) -> Self {
        Self::RolloutDone { pool: pool.clone(), before: find_rollout(view, pool).map(|r| r.began_ms) }
    }

    /// What `view` says about it.
    pub(crate) fn look(&self, view: &RackView) -> Look {
        match self {
            Self::Vm { vm, want, before } => look_at_vm(find_vm(view, vm), *want, *before),
            Self::HostActive { host, before } => look_at_joining(find_host(view, host), *before),
            Self::HostEmpty { host } => match find_host(view, host) {
                None => Look::Failed(format!("host {host} was removed")),
                Some(h) if h.state == HostState::Draining && h.vms.is_empty() => Look::Met,
                Some(h) if h.state == HostState::Lost => Look::Failed(with_note("the host is lost", &h.note)),
                Some(h) => Look::Waiting(Progress::stage(with_note(&format!("{} VMs left", h.vms.len()), &h.note))),
            },
            Self::Power { host, before } => match find_host(view, host).map(|h| &h.power) {
                None => Look::Failed(format!("host {host} was removed")),
                Some(None) => Look::Failed(format!("how the power of {host} is switched was forgotten")),
                Some(Some(power)) => look_at_power(power, *before),
            },
            Self::MoveDone { id } => look_at_move(view, *id),
            Self::DiskReady { disk } => match view.disks.iter().find(|d| d.name == *disk) {
                Some(d) if d.ready => Look::Met,
                Some(d) if !d.note.is_empty() => Look::Failed(d.note.clone()),
                _ => Look::Waiting(Progress::stage("being made")),
            },
            Self::RolloutDone { pool, before } => {
                match find_rollout(view, pool).filter(|r| Some(r.began_ms) != *before) {
                    None => Look::Waiting(Progress::stage("beginning")),
                    Some(r) => match r.phase {
                        RolloutPhase::Done => Look::Met,
                        RolloutPhase::Stopped | RolloutPhase::RolledBack => {
                            Look::Failed(with_note(&r.phase.to_string(), &r.note))
                        }
                        phase => Look::Waiting(Progress::stage(with_note(&phase.to_string(), &r.note))),
                    },
                }
            }
            Self::DiskGone { disk } => match view.disks.iter().any(|d| d.name == *disk) {
                false => Look::Met,
                true => Look::Waiting(Progress::stage("being removed")),
            },
        }
    }
}

fn look_at_power(power: &PowerView, before: Option<u64>) -> Look {
    let Some(order) = power.order.as_ref().filter(|order| Some(order.asked_ms) != before) else {
        return Look::Waiting(Progress::stage("asked"));
    };
    match order.stage {
        PowerStage::Done => Look::Met,
        PowerStage::Failed => Look::Failed(order.cause.clone()),
        PowerStage::Asked | PowerStage::Doing => Look::Waiting(Progress::stage(with_note(
            &format!("{}, try {}", order.stage, order.tries.max(1)),
            &order.cause,
        ))),
    }
}

/// The VM of this name.
pub(crate) fn find_vm<'a>(view: &'a RackView, vm: &VmId) -> Option<&'a VmView> {
    view.vms.iter().find(|v| v.spec.name == *vm)
}

fn find_rollout<'a>(view: &'a RackView, pool: &PoolId) -> Option<&'a RolloutView> {
    view.pools.iter().find(|p| p.name == *pool)?.rollout.as_ref()
}

/// The host of this id.
pub(crate) fn find_host<'a>(view: &'a RackView, host: &HostId) -> Option<&'a HostView> {
    view.hosts.iter().find(|h| h.id == *host)
}

fn look_at_vm(vm: Option<&VmView>, want: Option<VmPhase>, before: Option<(VmPhase, u64)>) -> Look {
    let Some(vm) = vm else {
        return match (want, before) {
            (None, _) => Look::Met,
            (Some(_), Some(_)) => Look::Failed("the VM was deleted meanwhile".into()),
            (Some(_), None) => Look::Waiting(Progress::stage("being made")),
        };
    };
    let running_elsewhere = want == Some(VmPhase::Running) && vm.phase == VmPhase::Moving;
    if want == Some(vm.phase) || running_elsewhere {
        return Look::Met;
    }
    let phase = vm.phase.to_string();
    let unchanged = before == Some((vm.phase, vm.since_ms));
    let at_rest = match vm.phase {
        VmPhase::Failed => true,
        VmPhase::Running | VmPhase::Paused => true,
        // On the way from made to running, or from running to gone, it may be seen stopped with nothing wrong.
        VmPhase::Stopped => !vm.note.is_empty() || (before.is_some() && want.is_some()),
        VmPhase::Creating | VmPhase::Starting | VmPhase::Moving | VmPhase::Stopping => false,
        // A lost owner may report again.
        VmPhase::Deleting | VmPhase::Unknown => false,
    };
    if at_rest && !unchanged {
        Look::Failed(with_note(&format!("the VM is {phase}"), &vm.note))
    } else {
        Look::Waiting(Progress::stage(with_note(&phase, &vm.note)))
    }
}

fn look_at_joining(host: Option<&HostView>, before: Option<(HostState, u64)>) -> Look {
    let Some(host) = host else {
        return match before {
            Some(_) => Look::Failed("the host was removed meanwhile".into()),
            None => Look::Waiting(Progress::stage("not seen yet")),
        };
    };
    match host.state {
        HostState::Active => Look::Met,
        HostState::Refused if before != Some((host.state, host.since_ms)) => {
            Look::Failed(with_note("the host was turned away", &host.note))
        }
        HostState::Booting => {
            let step = host.boot.iter().rfind(|s| s.took_ms.is_none());
            let stage = step.map_or("booting", |s| boot_stage(s.step));
            let (bytes, bytes_total) = step.map_or((0, 0), |s| (s.bytes, s.bytes_total));
            Look::Waiting(Progress { stage: stage.to_owned(), bytes, bytes_total })
        }
        state => Look::Waiting(Progress::stage(with_note(&state.to_string(), &host.note))),
    }
}

fn look_at_move(view: &RackView, id: MoveId) -> Look {
    // A move that is not in the view has not come into it yet: a move under way is always listed.
    let Some(m) = view.moves.iter().find(|m| m.id == id) else {
        return Look::Waiting(Progress::stage("beginning"));
    };
    match m.phase {
        MovePhase::Done if m.failure.is_none() => Look::Met,
        // One that is done all the same was lost at its target, and starts anew.
        MovePhase::Done | MovePhase::Aborted => {
            let why = m.failure.as_deref().unwrap_or("it was called off");
            Look::Failed(format!("{why}{}", now_at(view, m)))
        }
        phase => {
            let stage = match (phase, m.stage) {
                (MovePhase::Copying, Some(stage)) => names::stage(stage),
                _ => names::move_phase(phase),
            };
            let memory_mib = find_vm(view, &m.vm).map_or(0, |vm| vm.spec.memory_mib);
            let bytes_total = memory_mib.saturating_mul(1 << 20);
            Look::Waiting(Progress { stage: stage.to_owned(), bytes: m.bytes, bytes_total })
        }
    }
}

/// What has become of a VM whose move went wrong.
fn now_at(view: &RackView, m: &MoveView) -> String {
    let Some(vm) = find_vm(view, &m.vm) else { return String::new() };
    let owner = vm.owner.as_ref().map(|owner| names::host(view, owner));
    match (vm.phase, owner) {
        (VmPhase::Running | VmPhase::Moving, Some(owner)) if vm.owner.as_ref() == Some(&m.source) => {
            format!("; the VM runs on at {owner}")
        }
        (VmPhase::Running, Some(owner)) => format!("; the VM runs at {owner}"),
        (phase, _) => with_note(&format!("; the VM is {phase}"), &vm.note),
    }
}

fn boot_stage(step: BootStepKind) -> &'static str {
    match step {
        BootStepKind::Dhcp => "asking for an address",
        BootStepKind::Loader => "fetching the boot loader",
        BootStepKind::Script => "fetching the boot script",
        BootStepKind::Xen => "fetching Xen",
        BootStepKind::Kernel => "fetching dom0's kernel",
        BootStepKind::Initrd => "fetching dom0's initrd",
        BootStepKind::Linux => "starting Xen and Linux",
        BootStepKind::Image => "fetching dom0's image",
        BootStepKind::Start => "starting dom0",
        BootStepKind::Join => "joining",
    }
}

fn with_note(what: &str, note: &str) -> String {
    if note.is_empty() { what.to_owned() } else { format!("{what}: {note}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{NOW_MS, host_id, moving, rack, vm};
    use expect_test::{Expect, expect};

    const PHASES: [VmPhase; 10] = [
        VmPhase::Creating,
        VmPhase::Stopped,
        VmPhase::Starting,
        VmPhase::Running,
        VmPhase::Paused,
        VmPhase::Moving,
        VmPhase::Stopping,
        VmPhase::Deleting,
        VmPhase::Unknown,
        VmPhase::Failed,
    ];

    fn words(look: Look) -> String {
        match look {
            Look::Met => "met".into(),
            Look::Failed(why) => format!("failed: {why}"),
            Look::Waiting(Progress { stage, bytes: 0, .. }) => format!("waiting: {stage}"),
            Look::Waiting(Progress { stage, bytes, bytes_total }) => {
                format!("waiting: {stage}, {} of {} MiB", bytes >> 20, bytes_total >> 20)
            }
        }
    }

    /// What is said of a VM that was in phase `before`, in each phase it may be seen in: as before, and anew.
    fn check_vm(want: Option<VmPhase>, before: Option<VmPhase>, expect: Expect) {
        let name: VmId = "web-1".parse().expect("a name");
        let goal = Goal::Vm { vm: name, want, before: before.map(|phase| (phase, 1)) };
        let mut text = format!("gone -> {}\n", words(goal.look(&RackView::default())));
        for phase in PHASES {
            for since_ms in if before == Some(phase) { vec![1, 2] } else { vec![2] } {
                let seen = VmView { since_ms, ..vm("web-1", phase, None) };
                let look = words(goal.look(&RackView { vms: vec![seen], ..RackView::default() }));
                let stale = if since_ms == 1 { " as before" } else { "" };
                text += &format!("{}{stale} -> {look}\n", phase);
            }
        }
        expect.assert_eq(&text);
    }

    #[test]
    fn starting() {
        check_vm(
            Some(VmPhase::Running),
            Some(VmPhase::Stopped),
            expect![[r#"
            gone -> failed: the VM was deleted meanwhile
            creating -> waiting: creating
            stopped as before -> waiting: stopped
            stopped -> failed: the VM is stopped
            starting -> waiting: starting
            running -> met
            paused -> failed: the VM is paused
            moving -> met
            stopping -> waiting: stopping
            deleting -> waiting: deleting
            unknown -> waiting: unknown
            failed -> failed: the VM is failed
        "#]],
        );
    }

    #[test]
    fn creating_and_starting() {
        check_vm(
            Some(VmPhase::Running),
            None,
            expect![[r#"
            gone -> waiting: being made
            creating -> waiting: creating
            stopped -> waiting: stopped
            starting -> waiting: starting
            running -> met
            paused -> failed: the VM is paused
            moving -> met
            stopping -> waiting: stopping
            deleting -> waiting: deleting
            unknown -> waiting: unknown
            failed -> failed: the VM is failed
        "#]],
        );
    }

    #[test]
    fn shutting_down() {
        check_vm(
            Some(VmPhase::Stopped),
            Some(VmPhase::Running),
            expect![[r#"
            gone -> failed: the VM was deleted meanwhile
            creating -> waiting: creating
            stopped -> met
            starting -> waiting: starting
            running as before -> waiting: running
            running -> failed: the VM is running
            paused -> failed: the VM is paused
            moving -> waiting: moving
            stopping -> waiting: stopping
            deleting -> waiting: deleting
            unknown -> waiting: unknown
            failed -> failed: the VM is failed
        "#]],
        );
    }

    #[test]
    fn deleting() {
        check_vm(
            None,
            Some(VmPhase::Stopped),
            expect![[r#"
            gone -> met
            creating -> waiting: creating
            stopped as before -> waiting: stopped
            stopped -> waiting: stopped
            starting -> waiting: starting
            running -> failed: the VM is running
            paused -> failed: the VM is paused
            moving -> waiting: moving
            stopping -> waiting: stopping
            deleting -> waiting: deleting
            unknown -> waiting: unknown
            failed -> failed: the VM is failed
        "#]],
        );
    }

    #[test]
    fn a_vm_that_was_not_made_says_why() {
        let name: VmId = "db".parse().expect("a name");
        let goal = Goal::Vm { vm: name, want: Some(VmPhase::Running), before: None };
        expect!["failed: the VM is failed: no host has 4 GiB free"].assert_eq(&words(goal.look(&rack())));
    }

    #[test]
    fn moves() {
        let goal = Goal::MoveDone { id: MoveId(8) };
        let mut text = format!("not listed -> {}\n", words(goal.look(&RackView::default())));
        for phase in [
            MovePhase::Preparing,
            MovePhase::Copying,
            MovePhase::Committing,
            MovePhase::Releasing,
            MovePhase::Done,
            MovePhase::Aborting,
            MovePhase::Aborted,
        ] {
            let mut view = rack();
            view.moves = vec![moving(8, phase)];
            view.moves[0].failure = (phase != MovePhase::Done).then(|| "the stream broke".into());
            text += &format!("{} -> {}\n", names::move_phase(phase), words(goal.look(&view)));
        }
        expect![[r#"
            not listed -> waiting: beginning
            preparing -> waiting: preparing, 48 of 96 MiB
            copying -> waiting: copying, 48 of 96 MiB
            committing -> waiting: committing, 48 of 96 MiB
            releasing -> waiting: releasing, 48 of 96 MiB
            done -> met
            aborting -> waiting: aborting, 48 of 96 MiB
            aborted -> failed: the stream broke; the VM runs on at node-1
        "#]]
        .assert_eq(&text);
        // Its source went, or its target after it had got the guest: what the VM does is its own story.
        for (phase, expected) in [
            (MovePhase::Done, expect!["failed: node-2 was booted anew; the VM is stopped: it starts elsewhere"]),
            (MovePhase::Aborted, expect!["failed: node-2 was booted anew; the VM is stopped: it starts elsewhere"]),
        ] {
            let mut view = rack();
            view.moves = vec![moving(8, phase)];
            view.moves[0].failure = Some("node-2 was booted anew".into());
            let moved = view.moves[0].vm.clone();
            for vm in view.vms.iter_mut().filter(|vm| vm.spec.name == moved) {
                (vm.phase, vm.note) = (VmPhase::Stopped, "it starts elsewhere".into());
            }
            expected.assert_eq(&words(goal.look(&view)));
        }
    }

    #[test]
    fn hosts() {
        let mut view = rack();
        let mut text = String::new();
        for last in [1, 2, 3, 9] {
            let goal = Goal::host_active(&host_id(last), &view);
            text += &format!("accept {last} -> {}\n", words(goal.look(&view)));
        }
        let empty = Goal::HostEmpty { host: host_id(1) };
        for (state, vms) in [(HostState::Draining, 1), (HostState::Draining, 0), (HostState::Lost, 1)] {
            view.hosts[0].state = state;
            view.hosts[0].vms.truncate(vms);
            text += &format!("drain {state:?} {vms} -> {}\n", words(empty.look(&view)));
        }
        view.hosts[0].state = HostState::Refused;
        let before = Some((HostState::Refused, view.hosts[0].since_ms));
        for before in [before, Some((HostState::Waiting, NOW_MS))] {
            let goal = Goal::HostActive { host: host_id(1), before };
            text += &format!("accept refused -> {}\n", words(goal.look(&view)));
        }
        expect![[r#"
            accept 1 -> met
            accept 2 -> waiting: fetching dom0's image, 20 of 70 MiB
            accept 3 -> waiting: waiting: waits to be accepted:
            [31mtsubame host accept h525400aabb03
            accept 9 -> waiting: not seen yet
            drain Draining 1 -> waiting: 1 VMs left
            drain Draining 0 -> met
            drain Lost 1 -> failed: the host is lost
            accept refused -> waiting: refused
            accept refused -> failed: the host was turned away
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn disks() {
        let view = rack();
        let look = |name: &str| {
            let disk: DiskId = name.parse().expect("a name");
            [Goal::DiskReady { disk: disk.clone() }, Goal::DiskGone { disk }].map(|goal| words(goal.look(&view)))
        };
        assert_eq!(look("db-0"), ["waiting: being made", "waiting: being removed"]);
        assert_eq!(look("web-1-0"), ["met", "waiting: being removed"]);
        assert_eq!(look("none"), ["waiting: being made", "met"]);
    }
}
