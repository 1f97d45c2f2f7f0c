//! A rack for the golden tests: one of each state that a table shows.

use proto::agent::{HostStats, Stage};
use proto::event::{Level, LogEvent, Topic};
use proto::host::{Cpu, Firmware, Inventory, Nic};
use proto::release::{
    Manifest, PoolId, PoolView, ReleaseFile, ReleaseKind, ReleaseView, RolloutHost, RolloutPhase, RolloutView,
};
use proto::view::{
    BootStep, BootStepKind, DiskView, HostState, HostView, MovePhase, MoveView, PlanView, PlannedMove, RackView, Stay,
    VmLoad, VmPhase, VmView,
};
use proto::vm::{Boot, Vif, VmSpec};
use proto::{Epoch, HostId, Mac, MoveId};

/// 2026-11-21 04:50:02 UTC.
pub(crate) const NOW_MS: u64 = 1_795_236_602_000;

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0xaa, 0xbb, last])
}

/// The host whose address ends in `last`.
pub(crate) fn host_id(last: u8) -> HostId {
    HostId::of(mac(last))
}

fn host(last: u8, state: HostState) -> HostView {
    HostView {
        id: host_id(last),
        name: host_id(last).to_string(),
        state,
        since_ms: NOW_MS - 42_000,
        mac: mac(last),
        address: Some([10, 77, 0, 50 + last].into()),
        firmware: Some(Firmware::Uefi),
        inventory: None,
        stats: None,
        boot: Vec::new(),
        note: String::new(),
        stalled: false,
        vms: Vec::new(),
        labels: Default::default(),
        fence: None,
        fence_at_ms: None,
        power: None,
        pool: Default::default(),
        release: None,
        outdated: false,
    }
}

/// A VM with one disk.
pub(crate) fn vm(name: &str, phase: VmPhase, owner: Option<HostId>) -> VmView {
    let boot =
        Boot::Kernel { kernel: "ab".repeat(32), initrd: Some("cd".repeat(32)), cmdline: "console=hvc0 counter".into() };
    VmView {
        spec: VmSpec {
            name: name.parse().expect("a name of the tests"),
            memory_mib: 96,
            vcpus: 1,
            boot,
            disks: vec![format!("{name}-0").parse().expect("a name of the tests")],
            vifs: vec![Vif { mac: mac(0x10), bridge: "xenbr0".into() }],
        },
        phase,
        owner,
        epoch: Epoch(1),
        domain: None,
        since_ms: NOW_MS - 7_000_000,
        r#move: None,
        load: VmLoad::default(),
        note: String::new(),
        restart: Default::default(),
        run: true,
    }
}

/// A move of `web-1` from host 1 to host 3.
pub(crate) fn moving(id: u64, phase: MovePhase) -> MoveView {
    MoveView {
        id: MoveId(id),
        vm: "web-1".parse().expect("a name of the tests"),
        source: host_id(1),
        target: host_id(3),
        reason: "memory: node-1 is at 88 %".into(),
        phase,
        stage: Some(Stage::Copying),
        bytes: 48 << 20,
        began_ms: NOW_MS - 12_345,
        ended_ms: None,
        total_ms: None,
        downtime_ms: None,
        failure: None,
    }
}

fn event(seq: u64, level: Level, topic: Topic, text: &str) -> LogEvent {
    LogEvent {
        seq,
        at_ms: NOW_MS - 60_000 + seq * 1000,
        level,
        topic,
        text: text.into(),
        host: None,
        vm: None,
        r#move: None,
        epoch: None,
    }
}

/// The rack.
pub(crate) fn rack() -> RackView {
    let mut first = host(1, HostState::Active);
    first.name = "node-1".into();
    first.vms = vec!["web-1".parse().expect("a name of the tests")];
    first.labels = [("zone".to_owned(), "a".to_owned())].into();
    first.inventory = Some(Inventory {
        uuid: "00000000-0000-4000-8000-000000000001".into(),
        serial: "S1".into(),
        product: "QEMU Standard PC".into(),
        firmware: Firmware::Uefi,
        cpu: Cpu {
            vendor: "AuthenticAMD".into(),
            model: "QEMU Virtual CPU".into(),
            threads: 2,
            features: Default::default(),
        },
        memory_mib: 1536,
        dom0_mib: 512,
        nics: vec![Nic { mac: mac(1), driver: "virtio_net".into(), link: true, speed_mbit: Some(1000) }],
        xen: "4.17.7".into(),
        agent: "0.1.0".into(),
        image: "dom0-1".into(),
        release: String::new(),
        hardware: proto::host::Hardware::default(),
    });
    first.stats = Some(HostStats {
        cpu_cores: 0.42,
        memory_free_mib: 800,
        dom0_used_mib: 181,
        agent_rss_kib: 5120,
        agent_cpu_cores: 0.004,
        net_rx_bytes_s: 2048.0,
        net_tx_bytes_s: f64::NAN,
    });
    let mut second = host(2, HostState::Booting);
    second.boot = vec![
        BootStep {
            step: BootStepKind::Dhcp,
            at_ms: NOW_MS - 9_000,
            took_ms: Some(85),
            bytes: 0,
            bytes_total: 0,
            again: 0,
        },
        BootStep {
            step: BootStepKind::Loader,
            at_ms: NOW_MS - 8_000,
            took_ms: Some(1_290),
            bytes: 1 << 20,
            bytes_total: 1 << 20,
            again: 2,
        },
        BootStep {
            step: BootStepKind::Image,
            at_ms: NOW_MS - 4_000,
            took_ms: None,
            bytes: 20 << 20,
            bytes_total: 70 << 20,
            again: 0,
        },
    ];
    let mut third = host(3, HostState::Waiting);
    third.note = "waits to be accepted:\n\u{1b}[31mtsubame host accept h525400aabb03".into();

    let mut web = vm("web-1", VmPhase::Moving, Some(host_id(1)));
    web.r#move = Some(MoveId(8));
    web.load = VmLoad { cpu_cores: 0.25, disk_write_bytes_s: 4096.0, ..VmLoad::default() };
    let mut db = vm("db", VmPhase::Failed, None);
    db.note = "no host has 4 GiB free".into();
    db.spec.boot = Boot::Disk { loader: "ef".repeat(32) };
    db.spec.memory_mib = 4096;

    let mut done = moving(7, MovePhase::Done);
    (done.total_ms, done.downtime_ms) = (Some(3_210), Some(187));
    let mut aborted = moving(6, MovePhase::Aborted);
    aborted.failure = Some("the stream broke".into());
    let manifest = |version| Manifest {
        name: "dom0".into(),
        version,
        kind: ReleaseKind::Dom0,
        files: [("xen".to_owned(), ReleaseFile { sha256: "ab".repeat(32), bytes: 2 << 20 })].into(),
        xen: "4.17.5".into(),
        kernel: "6.1.140".into(),
        built_ms: None,
    };
    let release = |digit: &str, version, used_by: &[&str]| ReleaseView {
        id: digit.repeat(12).parse().expect("an id of the tests"),
        manifest: manifest(version),
        imported_ms: NOW_MS - 3_600_000,
        used_by: used_by.iter().map(|&what| what.into()).collect(),
    };
    let releases = vec![release("a", 2, &["the rollout of pool default"]), release("b", 1, &["pool default"])];
    (first.release, first.outdated) = (Some(releases[1].id.clone()), true);
    let rollout = RolloutView {
        to: releases[0].id.clone(),
        from: releases[1].id.clone(),
        phase: RolloutPhase::Canary,
        began_ms: NOW_MS - 60_000,
        deadline_ms: Some(NOW_MS + 60_000),
        canaries: vec![RolloutHost { host: host_id(1), what: "runs 1 VM; none has fewer".into() }],
        turns: vec![RolloutHost { host: host_id(1), what: "is being emptied: 1 VMs left".into() }],
        note: "node-1 is being emptied: 1 VMs left".into(),
    };
    let pool = PoolView {
        name: PoolId::default(),
        release: releases[1].id.clone(),
        previous: None,
        hosts: 3,
        outdated: 1,
        rollout: Some(rollout),
    };
    RackView {
        releases,
        pools: vec![pool],
        version: 5,
        at_ms: NOW_MS,
        hosts: vec![first, second, third],
        disks: vec![
            DiskView {
                name: "db-0".parse().expect("a name of the tests"),
                size_mib: 2048,
                vm: None,
                granted: vec![],
                ready: false,
                note: String::new(),
            },
            DiskView {
                name: "web-1-0".parse().expect("a name of the tests"),
                size_mib: 64,
                vm: Some(web.spec.name.clone()),
                granted: vec![host_id(1), host_id(3)],
                ready: true,
                note: String::new(),
            },
        ],
        vms: vec![web, db],
        moves: vec![moving(8, MovePhase::Copying), done, aborted],
        events: vec![
            event(3, Level::Error, Topic::Vm, "VM db was not started: no host has 4 GiB free"),
            event(2, Level::Info, Topic::Boot, "host node-1 fetches dom0's image"),
            event(1, Level::Warning, Topic::Dhcp, "the pool has 3 addresses left"),
        ],
        templates: vec!["debian".into(), "tiny".into()],
        ha: Default::default(),
        expected: 0,
        backups: proto::view::BackupView::default(),
    }
}

/// A plan.
pub(crate) fn plan() -> PlanView {
    PlanView {
        moves: vec![PlannedMove {
            vm: "web-1".parse().expect("a name of the tests"),
            source: host_id(1),
            target: host_id(3),
            reason: "evens out memory".into(),
        }],
        score_before: 0.4123,
        score_after: 0.1,
        stays: vec![Stay { vm: "db".parse().expect("a name of the tests"), why: "it does not run".into() }],
    }
}
