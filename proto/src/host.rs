//! What a machine is: its inventory, taken by its agent.

use crate::ids::Mac;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What an agent found its machine to be. Sent once, with the join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inventory {
    /// SMBIOS system UUID in RFC 4122 order and lower case; empty when the firmware gives none.
    pub uuid: String,
    /// SMBIOS serial number; empty when the firmware gives none.
    pub serial: String,
    /// Maker and product from SMBIOS.
    pub product: String,
    /// `BIOS` or `UEFI`.
    pub firmware: Firmware,
    /// Processor.
    pub cpu: Cpu,
    /// All memory that Xen has, dom0's with it, MiB.
    pub memory_mib: u64,
    /// Memory given to dom0, MiB.
    pub dom0_mib: u64,
    /// Network interfaces of the hardware.
    pub nics: Vec<Nic>,
    /// Xen's version, such as `4.17.7`.
    pub xen: String,
    /// The agent's own version.
    pub agent: String,
    /// Digest of the image that is running, as its manifest says.
    pub image: String,
    /// The release that it was booted into, as this boot's words have it; empty with an agent that does not know releases.
    #[serde(default)]
    pub release: String,
    /// What of it dom0 does not use.
    #[serde(default)]
    pub hardware: Hardware,
}

/// What a machine is made of beyond what dom0 uses: for people, and for rules on whom to let in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hardware {
    /// Maker, version and date of the firmware, from SMBIOS.
    pub firmware: String,
    /// Memory modules, by SMBIOS (type 17); empty places are left out.
    pub modules: Vec<MemoryModule>,
    /// Local disks that the kernel shows. Only looked at: nothing of them is mounted or written.
    pub disks: Vec<LocalDisk>,
    /// Its management controller, where SMBIOS tells of one.
    pub bmc: Option<Bmc>,
}

/// A memory module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemoryModule {
    /// Where it is, as the board's maker names the place.
    pub slot: String,
    /// MiB.
    pub size_mib: u64,
    /// Megatransfers a second at most; 0 when SMBIOS does not say.
    pub speed_mts: u32,
    /// Its maker.
    pub maker: String,
    /// Its part number.
    pub part: String,
    /// Its serial number.
    pub serial: String,
}

/// A disk of the machine itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LocalDisk {
    /// The kernel's name, such as `sda`.
    pub name: String,
    /// MiB.
    pub size_mib: u64,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// The kernel found a partition table on it.
    pub partitioned: bool,
}

/// A management controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bmc {
    /// How the machine itself speaks to it: `KCS`, `SMIC`, `BT`, `SSIF` (IPMI, SMBIOS type 38) or `Redfish` (type 42).
    pub by: String,
    /// Its address, where SMBIOS has it: that of Redfish over the host's own interface (DSP0270).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
}

/// How the machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// A machine's processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cpu {
    /// `AuthenticAMD`, `GenuineIntel`.
    pub vendor: String,
    /// The name it gives itself.
    pub model: String,
    /// Threads that Xen schedules on.
    pub threads: u32,
    /// Features by the names of /proc/cpuinfo, or of Xen's featureset where the agent knows it.
    pub features: BTreeSet<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Nic {
    /// Its address.
    pub mac: Mac,
    /// Kernel driver.
    pub driver: String,
    /// Whether there is a carrier.
    pub link: bool,
    /// Megabits a second; absent when the driver does not say.
    pub speed_mbit: Option<u32>,
}
