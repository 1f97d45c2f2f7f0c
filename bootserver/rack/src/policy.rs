//! What the operator's configuration says that the rack must know. Parsed and checked by the boot server.

use proto::agent::Secret;
use proto::release::Manifest;
use proto::{DiskId, Mac};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// The rack's part of the configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The network that machines boot on, to which we are attached.
    pub subnet: Subnet,
    /// Networks that reach us through relay agents. Servers, ports and CA are those of `subnet`.
    pub relayed: Vec<Subnet>,
    /// Who is let in.
    pub join: JoinMode,
    /// Who is let in all the same, by what it is; the first that fits counts.
    pub accept: Vec<AcceptRule>,
    /// The release that the configuration names for hosts. It is imported, and the first one of the pool `default`.
    pub release: Manifest,
    /// Boot files of the templates, one release for guests of each.
    pub guests: Vec<Manifest>,
    /// A release that nothing uses is removed after so long, milliseconds; 0 for never.
    pub release_keep_ms: u64,
    /// How dom0 is booted.
    pub dom0: Dom0,
    /// What VMs can be made from, by name.
    pub templates: BTreeMap<String, Template>,
    /// How often agents report, milliseconds, 1000 or more.
    pub report_ms: u64,
    /// After how long without a report a host is lost, milliseconds.
    pub lost_ms: u64,
    /// How often the planner runs by itself, milliseconds; 0 never.
    pub balance_ms: u64,
    /// Most bytes a second of one migration; 0 for no limit.
    pub migration_rate_bytes_s: u64,
    /// Prefix of target names, such as `iqn.2026-11.org.tsubame`.
    pub iqn_prefix: String,
    /// What guests' disks are on.
    pub storage: Storage,
    /// The port on which hosts receive migrations.
    pub migration_port: u16,
    /// Machines that fetch their boot files at once, 1 or more; others wait.
    pub boots_at_once: usize,
    /// Lease, watchdog and fence.
    pub ha: Ha,
    /// How VMs are placed and balanced.
    pub balancing: Balancing,
}

/// The planner's own policy; the rack adds what its moves have taught.
pub use balancer::Policy as Balancing;

/// The times that a host's failure is judged by; docs/design/0006.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ha {
    /// Between two writes of a slot, milliseconds.
    pub heartbeat_ms: u64,
    /// How long a lease is valid from the start of a write, milliseconds.
    pub lease_ms: u64,
    /// Until Xen's watchdog resets a host whose agent does not pet it, milliseconds.
    pub watchdog_ms: u64,
    /// A host without a sign of life for so long is fenced, milliseconds; [`Ha::fence_ms_min`] or more.
    pub fence_ms: u64,
}

/// What Xen may take from the watchdog's end to the reset, milliseconds.
const TRIGGER_MS: u64 = 4_000;
/// For what nobody thought of, milliseconds.
const SLACK_MS: u64 = 5_000;

impl Ha {
    /// The least time after which the guests of a silent host certainly stand still: its lease is over, its watchdog has struck, and its
    /// clock may have run slower than ours by one part in a hundred.
    pub fn fence_ms_min(lease_ms: u64, watchdog_ms: u64) -> u64 {
        ((lease_ms + watchdog_ms + TRIGGER_MS) * 101).div_ceil(100) + SLACK_MS
    }
}

impl Default for Ha {
    fn default() -> Self {
        let (lease_ms, watchdog_ms) = (20_000, 15_000);
        Self { heartbeat_ms: 3_000, lease_ms, watchdog_ms, fence_ms: Self::fence_ms_min(lease_ms, watchdog_ms) }
    }
}

/// What guests' disks are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Served by us: any host can be cut off any disk.
    Own {
        /// Where hosts reach it.
        portal: SocketAddr,
    },
    /// A SAN that is there already: nobody can be cut off, so a fence is a host's power-off, confirmed.
    External {
        /// What is declared, the heartbeat disk with it.
        disks: BTreeMap<DiskId, ExternalDisk>,
    },
}

/// A disk on a SAN, and how every host reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalDisk {
    /// Where.
    pub portal: SocketAddr,
    /// The target's name (RFC 7143 §4.2.7).
    pub target: String,
    /// Its LUN.
    pub lun: u32,
    /// CHAP user.
    pub user: String,
    /// CHAP secret.
    pub secret: Secret,
    /// MiB.
    pub size_mib: u64,
}

/// Who gives out a subnet's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Serves {
    /// We do.
    #[default]
    Full,
    /// Another server does; we only name what to boot.
    Proxy,
}

/// A subnet on which machines boot.
#[derive(Debug, Clone)]
pub struct Subnet {
    /// Who gives out its addresses.
    pub serves: Serves,
    /// Network address.
    pub network: Ipv4Addr,
    /// Bits.
    pub prefix: u8,
    /// Our own address on it: DHCP server identifier, TFTP and HTTP server.
    pub server: Ipv4Addr,
    /// First and last address to give out; by another server, the first and last that a machine may have.
    pub pool: (Ipv4Addr, Ipv4Addr),
    /// Addresses kept for machines, in or outside the pool.
    pub reservations: BTreeMap<Mac, Ipv4Addr>,
    /// Router to name, if any.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers to name.
    pub dns: Vec<Ipv4Addr>,
    /// Lease time, seconds.
    pub lease_s: u32,
    /// Port of the plain HTTP boot service.
    pub boot_port: u16,
    /// Port of the agents' TLS endpoint.
    pub agent_port: u16,
    /// base64url sha256 of the CA certificate, 43 characters.
    pub ca_digest: String,
}

impl Subnet {
    /// The network mask.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0))
    }

    /// Whether the address is of this network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.mask());
        u32::from(address) & mask == u32::from(self.network) & mask
    }
}

impl Policy {
    /// The subnets by number: 0 is ours, then the relayed ones.
    pub fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        std::iter::once(&self.subnet).chain(&self.relayed)
    }

    /// The number of the subnet that an address is of.
    pub fn link_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.subnets().position(|subnet| subnet.contains(address))
    }

    /// A subnet by its number; ours for a number that there is not.
    pub fn link(&self, number: usize) -> &Subnet {
        self.subnets().nth(number).unwrap_or(&self.subnet)
    }

    /// The subnet that an address is of; ours for an address of none.
    pub fn subnet_at(&self, address: Ipv4Addr) -> &Subnet {
        self.link_of(address).map_or(&self.subnet, |number| self.link(number))
    }
}

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinMode {
    /// Each by an operator's hand.
    Manual,
    /// Machines registered beforehand; others are refused.
    Known,
    /// All.
    All,
}

/// Lets machines in by what they are: all that is given must fit. In patterns `*` stands for anything, and case does not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptRule {
    /// Pattern of maker and product, as SMBIOS has them.
    pub product: Option<String>,
    /// Pattern of the processor's name.
    pub cpu: Option<String>,
    /// Memory, MiB, at least.
    pub memory_mib: Option<u64>,
    /// Pattern of the driver of one of its network cards.
    pub nic: Option<String>,
    /// The network of its address: address and bits.
    pub network: Option<(Ipv4Addr, u8)>,
    /// Template of its name, with `{serial}`, `{product}`, `{mac}` and `{n}`.
    pub name: Option<String>,
    /// Labels that it gets.
    pub labels: BTreeMap<String, String>,
}

/// How dom0 is booted, whichever release it is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dom0 {
    /// Xen's arguments, such as `dom0_mem=512M,max:512M`.
    pub xen_args: String,
    /// dom0's kernel arguments that are the same for all hosts.
    pub kernel_args: String,
}

/// What a VM is made from.
#[derive(Debug, Clone)]
pub struct Template {
    /// What it boots.
    pub boot: proto::vm::Boot,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Its disk's size, MiB; 0 for none.
    pub disk_mib: u64,
    /// Whether the disk is copied from the template's image.
    pub disk_image: bool,
    /// Bridge for its interface.
    pub bridge: String,
}
