//! What the targets share: a rack to try things on, and input taken apart.

use proto::Mac;
use proto::release::{Manifest, ReleaseFile};
use proto::view::RackView;
use proto::vm::Boot;
use rack::Rack;
use rack::dhcp::{BootRequest, MessageKind};
use rack::effect::{Answer, Effect};
use rack::event::{Entropy, Event, Now, ReplyTo, ScriptKind};
use rack::policy::{Dom0, Ha, JoinMode, Policy, Serves, Storage, Subnet, Template};
use rack::release::DOM0_ROLES;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Bytes of an input, taken from its front; past the end there are zeros.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A piece whose length stands before it in two bytes, or what is left.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_be_bytes([self.byte(), self.byte()]));
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// A piece as text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }
}

fn subnet(second: u8, serves: Serves) -> Subnet {
    Subnet {
        serves,
        network: Ipv4Addr::new(10, second, 0, 0),
        prefix: 24,
        server: Ipv4Addr::new(10, 77, 0, 1),
        pool: (Ipv4Addr::new(10, second, 0, 50), Ipv4Addr::new(10, second, 0, 59)),
        reservations: BTreeMap::new(),
        gateway: Some(Ipv4Addr::new(10, second, 0, 254)),
        dns: vec![Ipv4Addr::new(10, 77, 0, 253)],
        lease_s: 3600,
        boot_port: 8080,
        agent_port: 7443,
        ca_digest: "c".repeat(43),
    }
}

/// Our own subnet, 10.77.0.0/24, and a relayed one, 10.78.0.0/24.
pub fn policy(near: Serves, far: Serves) -> Policy {
    let template = Template {
        boot: Boot::Kernel { kernel: "a".repeat(64), initrd: None, cmdline: "quiet".to_owned() },
        memory_mib: 96,
        vcpus: 1,
        disk_mib: 64,
        disk_image: false,
        bridge: "xenbr0".to_owned(),
    };
    let file = ReleaseFile { sha256: "0".repeat(64), bytes: 1 };
    let files = DOM0_ROLES.map(|role| (role.to_owned(), file.clone())).into();
    Policy {
        subnet: subnet(77, near),
        relayed: vec![subnet(78, far)],
        join: JoinMode::All,
        accept: Vec::new(),
        release: Manifest { name: "dom0".to_owned(), version: 1, files, ..Manifest::default() },
        guests: Vec::new(),
        release_keep_ms: 0,
        dom0: Dom0 { xen_args: "dom0_mem=512M".to_owned(), kernel_args: "console=hvc0".to_owned() },
        templates: BTreeMap::from([("tiny".to_owned(), template)]),
        report_ms: 2000,
        lost_ms: 15_000,
        balance_ms: 0,
        migration_rate_bytes_s: 0,
        iqn_prefix: "iqn.2026-11.org.tsubame".to_owned(),
        storage: Storage::Own { portal: ([10, 77, 0, 1], 3260).into() },
        migration_port: 8002,
        boots_at_once: 2,
        ha: Ha::default(),
        balancing: Default::default(),
    }
}

/// A rack and its clock.
pub struct Bench {
    rack: Rack,
    now: Now,
}

impl Bench {
    /// An empty rack; `None` when it refuses the policy.
    pub fn new(policy: Policy) -> Option<Self> {
        let now = Now { mono_ms: 1_000, unix_ms: 1_800_000_000_000 };
        let (rack, _) = Rack::restore(policy, Vec::new(), now).ok()?;
        Some(Self { rack, now })
    }

    /// Lets time pass.
    pub fn after(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.rack.apply(Event::Tick, self.now);
    }

    /// Tells something.
    pub fn tell(&mut self, event: Event) {
        self.rack.apply(event, self.now);
    }

    /// Asks something that must be answered at once.
    pub fn ask(&mut self, event: impl FnOnce(ReplyTo) -> Event) -> Answer {
        let reply = ReplyTo(1);
        let effects = self.rack.apply(event(reply), self.now);
        let answer = effects.into_iter().find_map(|effect| match effect {
            Effect::Answer { to, answer } if to == reply => Some(answer),
            _ => None,
        });
        answer.expect("every question of these targets is answered at once")
    }

    /// Applies something whose answer may come later.
    pub fn apply(&mut self, event: Event) -> Vec<Effect> {
        self.rack.apply(event, self.now)
    }

    /// What is shown.
    pub fn view(&self) -> RackView {
        self.rack.view(self.now)
    }

    /// A machine with its lease, by a whole exchange as iPXE.
    pub fn lease(&mut self, mac: Mac) -> Ipv4Addr {
        let mut request = BootRequest::plain(mac, 1, MessageKind::Discover);
        request.user_class = Some(b"iPXE".to_vec());
        let mut address = Ipv4Addr::UNSPECIFIED;
        for kind in [MessageKind::Discover, MessageKind::Request] {
            request.kind = kind;
            let Answer::Dhcp(Some(reply)) = self.ask(|reply| Event::Dhcp { reply, request: request.clone() }) else {
                panic!("there is room for one");
            };
            address = Ipv4Addr::from(<[u8; 4]>::try_from(&reply.packet[16..20]).expect("four bytes"));
            (request.requested, request.server) = (Some(address), Some(Ipv4Addr::new(10, 77, 0, 1)));
        }
        address
    }

    /// The nonce of a machine's boot script, fetched from its lease.
    pub fn nonce(&mut self, mac: Mac, from: Ipv4Addr, byte: u8) -> String {
        let (kind, entropy) = (ScriptKind::IpxeBios, Entropy([byte; 32]));
        let Answer::Script(Ok(script)) = self.ask(|reply| Event::Script { reply, mac, from, kind, entropy }) else {
            panic!("a machine with a lease gets its script");
        };
        let rest = script.split("tsubame.join=").nth(1).expect("a nonce");
        rest.split([' ', '\n']).next().expect("a nonce").to_owned()
    }

    /// Addresses of the machines that are shown.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        self.rack.view(self.now).hosts.iter().filter_map(|host| host.address).collect()
    }
}
