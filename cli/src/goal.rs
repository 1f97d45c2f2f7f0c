//! When is what was begun done?
//!
//! Owns: the reading of a `RackView` for one wish: waiting, met or failed. Pure. Never does: asking the server.
//!
//! A view may be older than the answer to the order that was just given: views are made at most four times a second. So
//! a wish about something that was there before carries its state of before, and as long as the view shows just that,
//! nothing is concluded.

use crate::render::names;
use proto::view::{BootStepKind, HostState, HostView, MovePhase, RackView, VmPhase, VmView};
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
            Self::MoveDone { id } => look_at_move(view, *id),
            Self::DiskReady { disk } => match view.disks.iter().find(|d| d.name == *disk) {
                Some(d) if d.ready => Look::Met,
                _ => Look::Waiting(Progress::stage("being made")),
            },
            Self::DiskGone { disk } => match view.disks.iter().any(|d| d.name == *disk) {
                false => Look::Met,
                true => Look::Waiting(Progress::stage("being removed")),
            },
        }
    }
}

/// The VM of this name.
pub(crate) fn find_vm<'a>(view: &'a RackView, vm: &VmId) -> Option<&'a VmView> {
    view.vms.iter().find(|v| v.spec.name == *vm)
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
    let phase = names::vm_phase(vm.phase);
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
        Look::Waiting(Progress::stage(with_note(phase, &vm.note)))
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
        state => Look::Waiting(Progress::stage(with_note(names::host_state(state), &host.note))),
    }
}

fn look_at_move(view: &RackView, id: MoveId) -> Look {
    // A move that is not in the view has not come into it yet: a move under way is always listed.
    let Some(m) = view.moves.iter().find(|m| m.id == id) else {
        return Look::Waiting(Progress::stage("beginning"));
    };
    match m.phase {
        MovePhase::Done => Look::Met,
        MovePhase::Aborted => {
            let why = m.failure.clone().unwrap_or_else(|| "it was called off".into());
            Look::Failed(format!("{why}; the VM runs on at {}", names::host(view, &m.source)))
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

fn boot_stage(step: BootStepKind) -> &'static str {
    match step {
        BootStepKind::Dhcp => "asking for an address",
        BootStepKind::Loader => "fetching the boot loader",
        BootStepKind::Script => "fetching the boot script",
        BootStepKind::Xen => "fetching Xen",
        BootStepKind::Kernel => "fetching dom0's kernel",
        BootStepKind::Image => "fetching dom0's image",
        BootStepKind::Start => "starting Xen and dom0",
        BootStepKind::Join => "joining",
    }
}

fn with_note(what: &str, note: &str) -> String {
    if note.is_empty() { what.to_owned() } else { format!("{what}: {note}") }
}
