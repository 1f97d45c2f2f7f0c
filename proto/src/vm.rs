//! Virtual machines and disks as an operator asks for them.

use crate::ids::{DiskId, Mac, VmId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a VM is to be. Changes only while it is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmSpec {
    /// Its name, also its Xen domain name.
    pub name: VmId,
    /// Memory, MiB, 16 or more.
    pub memory_mib: u64,
    /// Virtual processors, 1 to 64.
    pub vcpus: u32,
    /// What it boots.
    pub boot: Boot,
    /// Its disks in order: xvda, xvdb, …
    pub disks: Vec<DiskId>,
    /// Its network interfaces in order.
    pub vifs: Vec<Vif>,
}

impl VmSpec {
    /// What it takes of its host, with what Xen needs for it, MiB.
    pub fn needed_mib(&self) -> u64 {
        self.memory_mib + overhead_mib(self.memory_mib, self.vcpus)
    }
}

/// What Xen and xl need of a host beside a guest's own memory, MiB: its page tables (8 KiB a MiB and 1 MiB a processor,
/// tools/libs/light/libxl_utils.c, libxl_get_required_shadow_memory), rounded up. Who places a VM and who starts it reckon alike.
pub fn overhead_mib(memory_mib: u64, vcpus: u32) -> u64 {
    8 + memory_mib / 100 + u64::from(vcpus)
}

/// How a VM is started again after its host has failed, and whether after a crash of its guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restart {
    /// Before which others.
    pub priority: Priority,
    /// No sooner than so many seconds after its host was fenced, 0 to 3600.
    pub delay_s: u32,
    /// What becomes of its guest when that crashes.
    // Written only where it is chosen: who is older than this field refuses what it does not know.
    #[serde(skip_serializing_if = "OnCrash::is_restart")]
    pub on_crash: OnCrash,
}

impl Restart {
    /// The delay in milliseconds.
    pub fn delay_ms(&self) -> u64 {
        u64::from(self.delay_s) * 1000
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.priority {
            Priority::High => "first",
            Priority::Normal => "after those of high priority",
            Priority::Low => "last",
            Priority::Never => "not by itself",
        })?;
        if self.delay_s > 0 && self.priority != Priority::Never {
            write!(f, ", {} s after its host was fenced", self.delay_s)?;
        }
        match self.on_crash {
            OnCrash::Restart => Ok(()),
            OnCrash::Stop => f.write_str("; left stopped if it crashes"),
        }
    }
}

/// Who goes first where there is not room for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Priority {
    /// First.
    High,
    /// After those.
    #[default]
    Normal,
    /// Last.
    Low,
    /// Not started again by itself.
    Never,
}

/// What becomes of a guest that crashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnCrash {
    /// It is started again, after a wait that doubles each time.
    #[default]
    Restart,
    /// It stays stopped until somebody starts it.
    Stop,
}

impl OnCrash {
    fn is_restart(&self) -> bool {
        *self == Self::Restart
    }
}

/// What a PVH guest boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Boot {
    /// A kernel and initrd given to it. Each is a blob the boot server serves by digest.
    Kernel {
        /// sha256 of the kernel, 64 hexadecimal digits.
        kernel: String,
        /// sha256 of the initrd.
        initrd: Option<String>,
        /// Kernel command line.
        cmdline: String,
    },
    /// Its own first disk, by Debian's grub-xen PVH loader.
    Disk {
        /// sha256 of the loader.
        loader: String,
    },
}

/// A virtual network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Vif {
    /// Its address, unique in the rack.
    pub mac: Mac,
    /// The bridge of the host it is put on.
    pub bridge: String,
}

/// A disk as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskSpec {
    /// Its name.
    pub name: DiskId,
    /// Size, MiB.
    pub size_mib: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_of_before_is_read_and_one_without_news_is_written_so() {
        let before = r#"{"priority":"high","delay_s":30}"#;
        let read: Restart = serde_json::from_str(before).expect("as it was kept");
        assert_eq!(read, Restart { priority: Priority::High, delay_s: 30, on_crash: OnCrash::Restart });
        assert_eq!(serde_json::to_string(&read).expect("plain data"), before);
        assert_eq!(read.to_string(), "first, 30 s after its host was fenced");
        let stop = Restart { on_crash: OnCrash::Stop, ..read };
        let text = serde_json::to_string(&stop).expect("plain data");
        assert_eq!(text, r#"{"priority":"high","delay_s":30,"on_crash":"stop"}"#);
        assert_eq!(serde_json::from_str::<Restart>(&text).expect("as it was written"), stop);
        let never = Restart { priority: Priority::Never, ..stop };
        assert_eq!(never.to_string(), "not by itself; left stopped if it crashes");
    }
}
