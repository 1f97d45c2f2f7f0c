//! The form of the configuration file as serde reads it: keys and types, nothing that needs two values.

use proto::Mac;
use rack::policy::{Balancing, Ha};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    pub(super) state: PathBuf,
    pub(super) interface: String,
    pub(super) subnet: Subnet,
    #[serde(default)]
    pub(super) relayed: Vec<Relayed>,
    #[serde(default)]
    pub(super) reservations: BTreeMap<Mac, Ipv4Addr>,
    #[serde(default)]
    pub(super) join: Join,
    #[serde(default)]
    pub(super) accept: Vec<Accept>,
    pub(super) release: PathBuf,
    pub(super) loaders: PathBuf,
    #[serde(default)]
    pub(super) dom0: Dom0,
    #[serde(default)]
    pub(super) templates: BTreeMap<String, Template>,
    #[serde(default)]
    pub(super) listen: Listen,
    #[serde(default)]
    pub(super) storage: Storage,
    #[serde(default)]
    pub(super) timing: Timing,
    #[serde(default)]
    pub(super) balancing: Balancing,
    #[serde(default)]
    pub(super) boot: Boot,
    #[serde(default)]
    pub(super) releases: Releases,
    #[serde(default)]
    pub(super) backup: Backup,
}

/// Copies of the record and the keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Backup {
    /// `backups` in the state directory when absent.
    pub(super) directory: Option<PathBuf>,
    pub(super) every_s: u64,
    pub(super) keep: u64,
}

impl Default for Backup {
    fn default() -> Self {
        Self { directory: None, every_s: 3600, keep: 24 }
    }
}

/// How long releases are kept that nothing uses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Releases {
    pub(super) keep_days: u64,
}

impl Default for Releases {
    fn default() -> Self {
        Self { keep_days: 30 }
    }
}

/// What machines that boot may take of the link.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Boot {
    pub(super) at_once: u64,
    pub(super) rate_mbit: u64,
}

impl Default for Boot {
    fn default() -> Self {
        Self { at_once: 16, rate_mbit: 0 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subnet {
    /// A [`Network`]; read later, as serde would name the line of the whole subnet in an error.
    pub(super) network: String,
    pub(super) address: Ipv4Addr,
    #[serde(default)]
    pub(super) dhcp: Dhcp,
    /// A [`Range`]; with `dhcp: full` only.
    #[serde(default)]
    pub(super) pool: Option<String>,
    #[serde(default)]
    pub(super) gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub(super) dns: Vec<Ipv4Addr>,
    #[serde(default = "an_hour")]
    pub(super) lease_s: u32,
}

/// A subnet whose relay agent sends us its requests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relayed {
    pub(super) network: String,
    #[serde(default)]
    pub(super) dhcp: Dhcp,
    #[serde(default)]
    pub(super) pool: Option<String>,
    pub(super) gateway: Ipv4Addr,
    #[serde(default)]
    pub(super) dns: Vec<Ipv4Addr>,
    #[serde(default = "an_hour")]
    pub(super) lease_s: u32,
}

/// Who gives out the addresses.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dhcp {
    #[default]
    Full,
    Proxy,
}

fn an_hour() -> u32 {
    3600
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum Join {
    #[default]
    Manual,
    Known,
    All,
}

/// Whom to let in by what it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accept {
    #[serde(default)]
    pub(super) product: Option<String>,
    #[serde(default)]
    pub(super) cpu: Option<String>,
    #[serde(default)]
    pub(super) memory_mib: Option<u64>,
    #[serde(default)]
    pub(super) nic: Option<String>,
    /// A [`Network`].
    #[serde(default)]
    pub(super) network: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dom0 {
    pub(super) memory_mib: u64,
    pub(super) xen_args: String,
    pub(super) kernel_args: String,
}

impl Default for Dom0 {
    fn default() -> Self {
        Self { memory_mib: 512, xen_args: String::new(), kernel_args: String::new() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    #[serde(default)]
    pub(super) kernel: Option<PathBuf>,
    #[serde(default)]
    pub(super) initrd: Option<PathBuf>,
    #[serde(default)]
    pub(super) cmdline: Option<String>,
    #[serde(default)]
    pub(super) loader: Option<PathBuf>,
    #[serde(default)]
    pub(super) disk_image: Option<PathBuf>,
    pub(super) memory_mib: u64,
    #[serde(default = "one")]
    pub(super) vcpus: u32,
    #[serde(default)]
    pub(super) disk_mib: u64,
    #[serde(default = "xenbr0")]
    pub(super) bridge: String,
}

fn one() -> u32 {
    1
}

fn xenbr0() -> String {
    "xenbr0".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) boot_port: u16,
    pub(super) agent_port: u16,
    pub(super) operator: SocketAddr,
    /// On the hosts, not here: where they receive migrations.
    pub(super) migration_port: u16,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            boot_port: 8080,
            agent_port: 7443,
            operator: SocketAddr::from(([127, 0, 0, 1], 8443)),
            migration_port: 7444,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Storage {
    pub(super) kind: StorageKind,
    /// `subnet.address` with port 3260 when absent.
    pub(super) portal: Option<SocketAddr>,
    /// 7 when absent; with `kind: tgt` only.
    pub(super) tgt_control_port: Option<u16>,
    pub(super) iqn_prefix: String,
    pub(super) stop_with_server: bool,
    /// With `kind: external` only, as `disks`.
    pub(super) heartbeat: Option<ExternalDisk>,
    pub(super) disks: BTreeMap<String, ExternalDisk>,
}

/// A disk that is there already.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExternalDisk {
    pub(super) portal: SocketAddr,
    pub(super) target: String,
    pub(super) lun: u32,
    pub(super) user: String,
    pub(super) secret_file: PathBuf,
    pub(super) size_mib: u64,
    /// Of the heartbeat disk: by which this machine reaches it.
    #[serde(default)]
    pub(super) device: Option<PathBuf>,
}

/// Who serves the disks.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum StorageKind {
    #[default]
    Tgt,
    Lio,
    External,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            kind: StorageKind::default(),
            portal: None,
            tgt_control_port: None,
            iqn_prefix: "iqn.2026-11.org.tsubame".to_owned(),
            stop_with_server: false,
            heartbeat: None,
            disks: BTreeMap::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timing {
    pub(super) report_ms: u64,
    pub(super) lost_ms: u64,
    pub(super) balance_ms: u64,
    pub(super) migration_rate_mbit: u64,
    pub(super) heartbeat_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) watchdog_ms: u64,
    /// The least that lease and watchdog allow, when absent.
    pub(super) fence_ms: Option<u64>,
}

impl Default for Timing {
    fn default() -> Self {
        let Ha { heartbeat_ms, lease_ms, watchdog_ms, .. } = Ha::default();
        Self {
            report_ms: 2000,
            lost_ms: 15_000,
            balance_ms: 60_000,
            migration_rate_mbit: 0,
            heartbeat_ms,
            lease_ms,
            watchdog_ms,
            fence_ms: None,
        }
    }
}

/// `10.77.0.0/24`, its host bits zero.
#[derive(Clone, Copy)]
pub(super) struct Network {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
}

impl FromStr for Network {
    type Err = String;
    fn from_str(given: &str) -> Result<Self, String> {
        let wrong = || format!("is {given:?}, expected one such as 10.77.0.0/24, /8 to /30, its host bits zero");
        let (address, prefix) = given.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let fits = (8..=30).contains(&prefix) && u32::from(address).trailing_zeros() >= 32 - u32::from(prefix);
        if fits { Ok(Self { address, prefix }) } else { Err(wrong()) }
    }
}

/// `10.77.0.50-10.77.0.99`, both ends with it.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) first: Ipv4Addr,
    pub(super) last: Ipv4Addr,
}

impl FromStr for Range {
    type Err = String;
    fn from_str(given: &str) -> Result<Self, String> {
        let wrong = || format!("is {given:?}, expected the first and the last address as 10.77.0.50-10.77.0.99");
        let (first, last) = given.split_once('-').ok_or_else(wrong)?;
        let (first, last) = match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) => (first, last),
            _ => return Err(wrong()),
        };
        if first <= last { Ok(Self { first, last }) } else { Err(wrong()) }
    }
}
