//! Views for the tests of the command.

use proto::event::{Level, LogEvent, Topic};
use proto::view::{HostState, HostView, MovePhase, MoveView, RackView, VmLoad, VmPhase, VmView};
use proto::vm::{Boot, VmSpec};
use proto::{Epoch, HostId, Mac, MoveId};

/// The host whose address ends in `last`.
pub fn host_id(last: u8) -> HostId {
    HostId::of(Mac([0x52, 0x54, 0, 0xaa, 0xbb, last]))
}

/// Two hosts, `node-1` and `node-2`, and `web-1` in this phase since then.
pub fn rack(phase: VmPhase, since_ms: u64) -> RackView {
    let host = |last| HostView {
        id: host_id(last),
        name: format!("node-{last}"),
        state: HostState::Active,
        since_ms: 1,
        mac: Mac([0x52, 0x54, 0, 0xaa, 0xbb, last]),
        address: None,
        firmware: None,
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
    };
    let spec = VmSpec {
        name: "web-1".parse().expect("a name"),
        memory_mib: 96,
        vcpus: 1,
        boot: Boot::Disk { loader: "ab".repeat(32) },
        disks: Vec::new(),
        vifs: Vec::new(),
    };
    let vm = VmView {
        spec,
        phase,
        owner: Some(host_id(1)),
        epoch: Epoch(1),
        domain: None,
        since_ms,
        r#move: None,
        load: VmLoad::default(),
        note: String::new(),
        restart: Default::default(),
        run: true,
    };
    RackView { version: since_ms, at_ms: 60_000, hosts: vec![host(1), host(2)], vms: vec![vm], ..RackView::default() }
}

/// The same with move 7 of `web-1` to `node-2` in this phase.
pub fn moving(phase: MovePhase, failure: Option<&str>) -> RackView {
    let mut view = rack(VmPhase::Moving, 2);
    let ended = matches!(phase, MovePhase::Done | MovePhase::Aborted);
    view.moves = vec![MoveView {
        id: MoveId(7),
        vm: "web-1".parse().expect("a name"),
        source: host_id(1),
        target: host_id(2),
        reason: "asked for".into(),
        phase,
        stage: None,
        bytes: 1 << 20,
        began_ms: 50_000,
        ended_ms: ended.then_some(60_000),
        total_ms: ended.then_some(3_210),
        downtime_ms: ended.then_some(187),
        failure: failure.map(str::to_owned),
    }];
    view
}

/// Events with these numbers, oldest first.
pub fn events(seqs: std::ops::RangeInclusive<u64>) -> Vec<LogEvent> {
    seqs.map(|seq| LogEvent {
        seq,
        at_ms: seq * 1000,
        level: Level::Info,
        topic: Topic::Server,
        text: format!("event {seq}"),
        host: None,
        vm: None,
        r#move: None,
        epoch: None,
    })
    .collect()
}

/// A rack whose newest events are these.
pub fn with_events(seqs: std::ops::RangeInclusive<u64>) -> RackView {
    let mut events = events(seqs);
    events.reverse();
    RackView { events, ..rack(VmPhase::Running, 1) }
}
