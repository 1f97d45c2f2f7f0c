//! A simulated machine: firmware, the real agent core, and what of it survives what.
//!
//! ```text
//! Off ──power──> Firmware ──address, script──> Joining ──certificate──> Up      agent crash: Up without agent, notes kept
//!  ^                                                                     │      power cut: nothing kept
//!  └─────────────────────────────────────────────────────────────────────┘
//! ```

use hostagent::agent::{Agent, AgentEvent, KeptLease, Note};
use proto::host::{Cpu, Firmware, Inventory};
use proto::{HostId, Mac, Term, VmId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) mac: Mac,
    pub(crate) stand: Stand,
    /// Raised with every loss of power: what was on its way to an earlier boot is heard by nobody.
    pub(crate) boots: u64,
    pub(crate) key: String,
    /// None while its process is down.
    pub(crate) agent: Option<Agent>,
    /// In RAM: survive the agent, not the power.
    pub(crate) notes: BTreeMap<VmId, Note>,
    pub(crate) lease: Option<KeptLease>,
    pub(crate) term: Term,
    /// The release that it booted.
    pub(crate) release: String,
    /// When its certificate was issued, and its address.
    pub(crate) issued_ms: u64,
    pub(crate) address: Ipv4Addr,
    /// Nothing that it says reaches the server until then, and nothing that it is told reaches it.
    pub(crate) mute_until_ms: u64,
    pub(crate) deaf_until_ms: u64,
    /// Its agent's process stands still, and what it is told waits.
    pub(crate) stopped: bool,
    pub(crate) waiting: Vec<AgentEvent>,
    /// The agent dies after so many more actions.
    pub(crate) dies_after: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stand {
    Off,
    Firmware,
    Joining { nonce: String, address: Ipv4Addr },
    Up { nonce: String },
}

impl Host {
    pub(crate) fn new(number: u8) -> Self {
        let mac = Mac([0x52, 0x54, 0, 0x7b, 1, number]);
        Self {
            id: HostId::of(mac),
            mac,
            stand: Stand::Off,
            boots: 0,
            key: String::new(),
            agent: None,
            notes: BTreeMap::new(),
            lease: None,
            term: Term(0),
            release: String::new(),
            issued_ms: 0,
            address: Ipv4Addr::UNSPECIFIED,
            mute_until_ms: 0,
            deaf_until_ms: 0,
            dies_after: None,
            stopped: false,
            waiting: Vec::new(),
        }
    }

    pub(crate) fn lose_power(&mut self) {
        self.stand = Stand::Off;
        self.boots += 1;
        self.agent = None;
        self.notes.clear();
        self.lease = None;
        self.term = Term(0);
        self.stopped = false;
        self.waiting.clear();
        self.dies_after = None;
    }

    pub(crate) fn start_agent(&mut self) {
        if let Stand::Up { nonce } = &self.stand {
            let agent = Agent::new(nonce.clone(), self.notes.values().cloned().collect(), self.lease.clone());
            self.agent = Some(agent.knowing(self.term, Some(inventory(self.mac, self.release.clone()))));
        }
    }
}

pub(crate) fn inventory(mac: Mac, release: String) -> Inventory {
    Inventory {
        uuid: format!("7b000000-0000-4000-8000-{}", mac.to_string().replace(':', "")),
        serial: String::new(),
        product: "simulated".to_owned(),
        firmware: Firmware::Bios,
        cpu: Cpu {
            vendor: "AuthenticAMD".to_owned(),
            model: "simulated".to_owned(),
            threads: 8,
            features: BTreeSet::from(["npt".to_owned()]),
        },
        memory_mib: MEMORY_MIB + 512,
        dom0_mib: 512,
        nics: Vec::new(),
        xen: "4.17.7".to_owned(),
        agent: "0".to_owned(),
        image: String::new(),
        release,
        hardware: proto::host::Hardware::default(),
    }
}

/// For guests, MiB: a score of the small ones.
pub(crate) const MEMORY_MIB: u64 = 2048;
