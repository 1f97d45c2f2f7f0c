//! What the tests of this crate start from.

use crate::Rack;
use crate::dhcp::{BootRequest, DhcpReply, MessageKind};
use crate::effect::{Answer, Effect, JoinDecision, Reply, ScriptRefusal, StorageOp};
use crate::event::{Caller, Command, Entropy, Event, Now, ReplyTo, ScriptKind};
use crate::ha::is_heartbeat;
use crate::policy::{Dom0, ExternalDisk, Ha, JoinMode, Policy, Serves, Storage, Subnet, Template};
use crate::release::DOM0_ROLES;
use proto::agent::{DomainState, DomainSurvey, HostStats, JoinRequest, LeaseState, Part, Report, Secret};
use proto::api::Refusal;
use proto::heartbeat;
use proto::host::{Cpu, Firmware, Inventory};
use proto::power::{BmcKind, SetBmc};
use proto::release::{Manifest, ReleaseFile, ReleaseKind};
use proto::vm::Boot;
use proto::{Epoch, HostId, Mac, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub(crate) fn subnet() -> Subnet {
    Subnet {
        serves: Serves::Full,
        network: Ipv4Addr::new(10, 77, 0, 0),
        prefix: 24,
        server: Ipv4Addr::new(10, 77, 0, 1),
        pool: (Ipv4Addr::new(10, 77, 0, 50), Ipv4Addr::new(10, 77, 0, 99)),
        reservations: BTreeMap::new(),
        gateway: None,
        dns: Vec::new(),
        lease_s: 3600,
        boot_port: 8080,
        agent_port: 7443,
        ca_digest: "c".repeat(43),
    }
}

/// A release for hosts; the digests of its files differ by role and version.
pub(crate) fn release(name: &str, version: u64) -> Manifest {
    let file =
        |digit: u64| ReleaseFile { sha256: format!("{digit}123456789abcdef{version:048x}"), bytes: 1000 + digit };
    let files = DOM0_ROLES.iter().zip(0..).map(|(role, digit)| ((*role).to_owned(), file(digit))).collect();
    Manifest { name: name.to_owned(), version, kind: ReleaseKind::Dom0, files, ..Manifest::default() }
}

pub(crate) fn policy() -> Policy {
    let template = Template {
        boot: Boot::Kernel { kernel: "a".repeat(64), initrd: None, cmdline: "quiet".to_owned() },
        memory_mib: 96,
        vcpus: 1,
        disk_mib: 64,
        disk_image: false,
        bridge: "xenbr0".to_owned(),
    };
    Policy {
        subnet: subnet(),
        relayed: Vec::new(),
        join: JoinMode::All,
        accept: Vec::new(),
        release: release("dom0", 1),
        guests: Vec::new(),
        release_keep_ms: 0,
        dom0: Dom0 { xen_args: "dom0_mem=512M,max:512M".to_owned(), kernel_args: "console=hvc0".to_owned() },
        templates: BTreeMap::from([("tiny".to_owned(), template)]),
        report_ms: 2000,
        lost_ms: 15_000,
        balance_ms: 0,
        migration_rate_bytes_s: 0,
        iqn_prefix: "iqn.2026-11.org.tsubame".to_owned(),
        storage: Storage::Own { portal: ([10, 77, 0, 1], 3260).into() },
        migration_port: 8002,
        boots_at_once: usize::MAX,
        ha: Ha::default(),
        balancing: Default::default(),
    }
}

/// The same with declared disks on a SAN.
pub(crate) fn san() -> Policy {
    let disk = |name: &str, size_mib| ExternalDisk {
        portal: ([10, 9, 0, 5], 3260).into(),
        target: format!("iqn.2001-05.com.example:{name}"),
        lun: 3,
        user: "tsubame".to_owned(),
        secret: Secret("0123456789abcd".to_owned()),
        size_mib,
    };
    let disks = [(heartbeat::DISK, 4), ("a-0", 64), ("b-0", 64), ("spare", 8)];
    let disks = disks.map(|(name, mib)| (name.parse().expect("a name"), disk(name, mib)));
    Policy { storage: Storage::External { disks: BTreeMap::from(disks) }, ..policy() }
}

/// A rack under test and the time it is told.
pub(crate) struct Bench {
    pub(crate) rack: Rack,
    pub(crate) now: Now,
    asked: u64,
}

impl Bench {
    pub(crate) fn new(policy: Policy) -> Self {
        let now = Now { mono_ms: 1_000, unix_ms: 1_800_000_000_000 };
        let (rack, _) = Rack::restore(policy, Vec::new(), now).expect("an empty rack");
        Self { rack, now, asked: 0 }
    }

    /// Lets time pass.
    pub(crate) fn after(&mut self, ms: u64) -> &mut Self {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self
    }

    pub(crate) fn apply(&mut self, event: Event) -> Vec<Effect> {
        self.rack.apply(event, self.now)
    }

    /// Asks a question: its number, and all effects.
    pub(crate) fn ask(&mut self, event: impl FnOnce(ReplyTo) -> Event) -> (ReplyTo, Vec<Effect>) {
        self.asked += 1;
        let reply = ReplyTo(self.asked);
        (reply, self.apply(event(reply)))
    }

    /// Asks a question that is answered at once.
    pub(crate) fn answer(&mut self, event: impl FnOnce(ReplyTo) -> Event) -> Answer {
        let (reply, effects) = self.ask(event);
        answer_to(reply, effects).expect("this is answered at once")
    }

    pub(crate) fn dhcp(&mut self, request: BootRequest) -> Option<DhcpReply> {
        match self.answer(|reply| Event::Dhcp { reply, request }) {
            Answer::Dhcp(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a whole exchange; the address, if there is one.
    pub(crate) fn lease(&mut self, mac: Mac, change: impl Fn(&mut BootRequest)) -> Option<Ipv4Addr> {
        let mut request = BootRequest::plain(mac, 7, MessageKind::Discover);
        change(&mut request);
        let offer = self.dhcp(request.clone())?;
        let address = yiaddr(&offer);
        request.kind = MessageKind::Request;
        (request.requested, request.server) = (Some(address), Some(subnet().server));
        self.dhcp(request).map(|ack| yiaddr(&ack))
    }

    pub(crate) fn script(&mut self, mac: Mac, from: Ipv4Addr, byte: u8) -> Result<String, ScriptRefusal> {
        let kind = ScriptKind::IpxeBios;
        match self.answer(|reply| Event::Script { reply, mac, from, kind, entropy: Entropy([byte; 32]) }) {
            Answer::Script(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn join(&mut self, mac: Mac, from: Ipv4Addr, nonce: &str, key: &str) -> JoinDecision {
        let (reply, effects) = self.joins(mac, from, nonce, key);
        match answer_to(reply, effects) {
            Some(Answer::Join(decision)) => decision,
            other => panic!("{other:?}"),
        }
    }

    fn joins(&mut self, mac: Mac, from: Ipv4Addr, nonce: &str, key: &str) -> (ReplyTo, Vec<Effect>) {
        let request = JoinRequest {
            host: HostId::of(mac),
            nonce: nonce.to_owned(),
            csr_pem: format!("CSR of {key}"),
            inventory: inventory(),
        };
        self.ask(|reply| Event::Join { reply, request, key: key.to_owned(), from })
    }

    /// Takes a machine all the way up; its nonce.
    pub(crate) fn boot(&mut self, mac: Mac, key: &str, byte: u8) -> String {
        self.boots(mac, key, byte).0
    }

    /// The same, with what its join has brought about.
    pub(crate) fn boots(&mut self, mac: Mac, key: &str, byte: u8) -> (String, Vec<Effect>) {
        let address = self.lease(mac, ipxe).expect("an address");
        let nonce = nonce(&self.script(mac, address, byte).expect("a script"));
        let (_, effects) = self.joins(mac, address, &nonce, key);
        (nonce, effects)
    }

    pub(crate) fn report(&mut self, mac: Mac, key: &str, report: Report) -> (ReplyTo, Vec<Effect>) {
        let from = self.rack.leases.address_of(mac).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let (host, caller) = (HostId::of(mac), Caller { key: key.to_owned(), issued_ms: 0, from });
        self.ask(|reply| Event::Report { reply, host, caller, report })
    }

    pub(crate) fn operator(&mut self, command: Command) -> Result<Reply, Refusal> {
        match self.answer(|reply| Event::Operator { reply, command }) {
            Answer::Operator(answer) => answer,
            other => panic!("{other:?}"),
        }
    }
}

/// The answer to a question among effects.
pub(crate) fn answer_to(asked: ReplyTo, effects: Vec<Effect>) -> Option<Answer> {
    effects.into_iter().find_map(|effect| match effect {
        Effect::Answer { to, answer } if to == asked => Some(answer),
        _ => None,
    })
}

/// The password of [`ipmi`].
pub(crate) const BMC_PASSWORD: &str = "hunter2-hunter2";

/// How a host's power is switched by IPMI.
pub(crate) fn ipmi() -> SetBmc {
    SetBmc {
        kind: BmcKind::Ipmi,
        address: Some("10.9.9.9".to_owned()),
        user: "admin".to_owned(),
        password: Some(Secret(BMC_PASSWORD.to_owned())),
        trust: None,
        system: None,
    }
}

/// What marks iPXE under BIOS.
pub(crate) fn ipxe(request: &mut BootRequest) {
    request.architectures = vec![0];
    request.user_class = Some(b"iPXE".to_vec());
}

/// The address that a reply gives.
pub(crate) fn yiaddr(reply: &DhcpReply) -> Ipv4Addr {
    let bytes: [u8; 4] = reply.packet[16..20].try_into().expect("four bytes");
    bytes.into()
}

/// The nonce in a script.
pub(crate) fn nonce(script: &str) -> String {
    script.split("tsubame.join=").nth(1).and_then(|rest| rest.split([' ', '\n']).next()).expect("a nonce").to_owned()
}

pub(crate) fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0xaa, 0xbb, last])
}

/// A report of nothing but life.
pub(crate) fn alive(boot: &str, seq: u64) -> Report {
    Report {
        boot: boot.to_owned(),
        seq,
        uptime_ms: seq * 1000,
        stats: HostStats { memory_free_mib: 4096, ..HostStats::default() },
        domains: Vec::new(),
        outcomes: Vec::new(),
        underway: Vec::new(),
        lease: LeaseState::Valid,
        term: Term(0),
        survey: None,
    }
}

pub(crate) fn inventory() -> Inventory {
    Inventory {
        uuid: String::new(),
        serial: String::new(),
        product: "QEMU".to_owned(),
        firmware: Firmware::Bios,
        cpu: Cpu { vendor: "AuthenticAMD".to_owned(), model: "x".to_owned(), threads: 4, features: BTreeSet::new() },
        memory_mib: 4608,
        dom0_mib: 512,
        nics: Vec::new(),
        xen: "4.17.7".to_owned(),
        agent: "1".to_owned(),
        image: "i".to_owned(),
        release: String::new(),
        hardware: proto::host::Hardware::default(),
    }
}

/// Storage jobs and orders among effects, one a line, for a person to read.
pub(crate) fn acts(effects: &[Effect]) -> String {
    let mut text = String::new();
    for effect in effects {
        match effect {
            // The heartbeat disk is seen to beside everything else.
            Effect::Storage { op, .. } if is_heartbeat(op.disk()) => {}
            Effect::Storage { op, .. } => {
                let line = match op {
                    StorageOp::Grant { disk, host, user, .. } => format!("Grant {disk} to {host} as {user}"),
                    StorageOp::Cut { disk, host } => format!("Cut {disk} from {host}"),
                    op => format!("{op:?}"),
                };
                text += &format!("storage: {line}\n");
            }
            Effect::Answer { answer: Answer::Report(Ok(answer)), .. } => {
                for order in &answer.orders {
                    let act = format!("{:?}", order.act);
                    let name = act.split([' ', '{']).next().unwrap_or_default();
                    text += &format!("order under epoch {}: {name}\n", order.epoch);
                }
            }
            _ => {}
        }
    }
    text
}

/// A domain as a report shows it.
pub(crate) fn domain(vm: &str, epoch: u64, state: DomainState, part: Part) -> DomainSurvey {
    DomainSurvey {
        vm: vm.parse().expect("a name"),
        domid: 1,
        epoch: Some(Epoch(epoch)),
        state,
        reboots: false,
        part,
        memory_mib: 96,
        cpu_cores: 0.1,
        net_rx_bytes_s: 0.0,
        net_tx_bytes_s: 0.0,
        disk_read_bytes_s: 0.0,
        disk_write_bytes_s: 0.0,
    }
}
