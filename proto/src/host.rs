//! What a machine is: its inventory, taken by its agent.

use crate::ids::Mac;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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
