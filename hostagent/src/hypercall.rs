//! Xen's own calls, through /dev/xen/privcmd, as Xen 4.17 lays them out.
//!
//! Owns: the few calls that the agent makes often, and their layouts (xen/include/public/{domctl,sysctl}.h of 4.17, x86-64). Never
//! does: anything that xl does well enough. The image ships this agent and Xen together, so another version of the interface is an error.

use nix::libc;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// XEN_DOMCTL_INTERFACE_VERSION and XEN_SYSCTL_INTERFACE_VERSION of 4.17.
const INTERFACE_VERSION: u32 = 0x15;
const HYPERVISOR_SCHED_OP: u64 = 29;
const HYPERVISOR_SYSCTL: u64 = 35;
const HYPERVISOR_DOMCTL: u64 = 36;
const SYSCTL_PHYSINFO: u32 = 3;
const SYSCTL_GETDOMAININFOLIST: u32 = 6;
const DOMCTL_PAUSEDOMAIN: u32 = 3;
const DOMCTL_UNPAUSEDOMAIN: u32 = 4;
const SCHEDOP_WATCHDOG: u64 = 6;
/// Xen numbers a domain's watchdogs from 1; nobody else in our dom0 arms one.
const WATCHDOG: u32 = 1;
/// sizeof(struct xen_domctl_getdomaininfo).
const DOMAININFO_BYTES: usize = 112;
/// _IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall)).
const IOCTL_PRIVCMD_HYPERCALL: libc::c_ulong = 0x0030_5000;
const PAGE_BYTES: usize = 4096;
/// Domains asked for at once; a list is asked for in parts.
const DOMAINS_AT_ONCE: usize = 256;
const BUFFER_BYTES: usize = PAGE_BYTES + (DOMAINS_AT_ONCE * DOMAININFO_BYTES).next_multiple_of(PAGE_BYTES);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum HypercallError {
    /// A device of Xen's drivers.
    #[error("opening {path}: {source}; is this dom0, and is module xen-privcmd loaded?")]
    Open {
        /// Which.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Xen speaks another version.
    #[error("{call}: Xen does not speak interface version {INTERFACE_VERSION:#x}; this agent is made for Xen 4.17")]
    Version {
        /// Which call.
        call: &'static str,
    },
    /// Xen refused.
    #[error("{call}: {source}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// One domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainInfo {
    /// Its number.
    pub domid: u16,
    /// XEN_DOMINF_*.
    pub flags: u32,
    /// Pages it has.
    pub pages: u64,
    /// Nanoseconds.
    pub cpu_ns: u64,
    /// Its handle, the UUID.
    pub handle: [u8; 16],
}

impl DomainInfo {
    /// XEN_DOMINF_dying.
    pub fn dying(&self) -> bool {
        self.flags & 1 != 0
    }

    /// XEN_DOMINF_paused.
    pub fn paused(&self) -> bool {
        self.flags & (1 << 3) != 0
    }

    /// SHUTDOWN_*: 0 power-off, 1 reboot, 2 suspend, 3 crash, 4 watchdog, 5 soft reset (kexec).
    pub fn shutdown(&self) -> Option<u8> {
        (self.flags & (1 << 2) != 0).then_some((self.flags >> 16) as u8)
    }
}

/// The whole host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhysInfo {
    /// Threads that Xen schedules on.
    pub cpus: u32,
    /// All memory, pages.
    pub total_pages: u64,
    /// Free memory, pages; what is being scrubbed counts.
    pub free_pages: u64,
}

/// The way to Xen: one at a time, so it is owned by who calls.
#[derive(Debug)]
pub struct Hypercalls {
    privcmd: File,
    buffer: NonNull<u8>,
}

// SAFETY: the buffer is this value's alone; nothing about it depends on the thread.
unsafe impl Send for Hypercalls {}

impl Drop for Hypercalls {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this length, and not used after.
        unsafe { libc::munmap(self.buffer.as_ptr().cast(), BUFFER_BYTES) };
    }
}

impl Hypercalls {
    /// Opens /dev/xen/privcmd, and maps pages from /dev/xen/hypercall, which stay where they are while Xen reads them.
    ///
    /// # Errors
    /// When not in dom0, or Xen speaks another interface version.
    pub fn open() -> Result<Self, HypercallError> {
        let open = |path| {
            let file = OpenOptions::new().read(true).write(true).open(path);
            file.map_err(|source| HypercallError::Open { path, source })
        };
        let privcmd = open("/dev/xen/privcmd")?;
        let pages = open("/dev/xen/hypercall")?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a device made for this; the result is checked.
        let buffer = unsafe {
            libc::mmap(std::ptr::null_mut(), BUFFER_BYTES, protection, libc::MAP_SHARED, pages.as_raw_fd(), 0)
        };
        let buffer = NonNull::new(buffer.cast::<u8>()).filter(|p| p.as_ptr().cast() != libc::MAP_FAILED);
        let buffer = buffer
            .ok_or_else(|| HypercallError::Open { path: "/dev/xen/hypercall", source: io::Error::last_os_error() })?;
        let mut calls = Self { privcmd, buffer };
        calls.physinfo()?;
        Ok(calls)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: BUFFER_BYTES were mapped readable and writable, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.as_ptr(), BUFFER_BYTES) }
    }

    fn set<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        self.bytes()[at..at + N].copy_from_slice(&value);
    }

    /// Calls with the structure at the buffer's beginning.
    fn call(&mut self, name: &'static str, op: u64) -> Result<(), HypercallError> {
        let structure = self.buffer.as_ptr() as u64;
        self.call_with(name, [op, structure, 0, 0, 0, 0])
    }

    fn call_with(&mut self, name: &'static str, mut call: [u64; 6]) -> Result<(), HypercallError> {
        loop {
            // SAFETY: `call` is a struct privcmd_hypercall, which the driver only reads; the structure it points to
            // lies in pages mapped for that.
            let rc = unsafe { libc::ioctl(self.privcmd.as_raw_fd(), IOCTL_PRIVCMD_HYPERCALL, call.as_mut_ptr()) };
            if rc >= 0 {
                return Ok(());
            }
            let source = io::Error::last_os_error();
            match source.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                // Xen answers a wrong interface version so.
                Some(libc::EACCES) => return Err(HypercallError::Version { call: name }),
                _ => return Err(HypercallError::Refused { call: name, source }),
            }
        }
    }

    fn head(&mut self, command: u32) {
        self.bytes()[..PAGE_BYTES].fill(0);
        self.set(0, command.to_ne_bytes());
        self.set(4, INTERFACE_VERSION.to_ne_bytes());
    }

    /// What the host has.
    ///
    /// # Errors
    /// When Xen refuses.
    pub fn physinfo(&mut self) -> Result<PhysInfo, HypercallError> {
        self.head(SYSCTL_PHYSINFO);
        self.call("sysctl physinfo", HYPERVISOR_SYSCTL)?;
        let b = self.bytes();
        let free_pages = u64_at(b, 56) + u64_at(b, 64);
        Ok(PhysInfo { cpus: u32_at(b, 16), total_pages: u64_at(b, 48), free_pages })
    }

    /// Every domain, dom0 first.
    ///
    /// # Errors
    /// When Xen refuses.
    pub fn domains(&mut self) -> Result<Vec<DomainInfo>, HypercallError> {
        let mut all = Vec::new();
        let mut first = 0u16;
        loop {
            let some = self.domains_from(first, DOMAINS_AT_ONCE)?;
            let full = some.len() == DOMAINS_AT_ONCE;
            let last = some.last().map(|d| d.domid);
            all.extend(some);
            match last {
                Some(last) if full => first = last + 1,
                _ => return Ok(all),
            }
        }
    }

    /// One domain, or none of that number.
    ///
    /// # Errors
    /// When Xen refuses.
    pub fn domain(&mut self, domid: u16) -> Result<Option<DomainInfo>, HypercallError> {
        Ok(self.domains_from(domid, 1)?.pop().filter(|d| d.domid == domid))
    }

    fn domains_from(&mut self, first: u16, count: usize) -> Result<Vec<DomainInfo>, HypercallError> {
        self.head(SYSCTL_GETDOMAININFOLIST);
        let list = self.buffer.as_ptr() as u64 + PAGE_BYTES as u64;
        self.set(8, first.to_ne_bytes());
        self.set(12, (count as u32).to_ne_bytes());
        self.set(16, list.to_ne_bytes());
        self.call("sysctl getdomaininfolist", HYPERVISOR_SYSCTL)?;
        let found = (u32_at(self.bytes(), 24) as usize).min(count);
        let list = &self.bytes()[PAGE_BYTES..];
        Ok(list.chunks_exact(DOMAININFO_BYTES).take(found).map(domain_info).collect())
    }

    /// Pauses a domain. Xen counts such pauses: who pauses looks first whether it is paused.
    ///
    /// # Errors
    /// When Xen refuses.
    pub fn pause(&mut self, domid: u16) -> Result<(), HypercallError> {
        self.domctl("domctl pausedomain", DOMCTL_PAUSEDOMAIN, domid)
    }

    /// Lets a paused domain run.
    ///
    /// # Errors
    /// When Xen refuses.
    pub fn unpause(&mut self, domid: u16) -> Result<(), HypercallError> {
        self.domctl("domctl unpausedomain", DOMCTL_UNPAUSEDOMAIN, domid)
    }

    /// Winds up dom0's watchdog, and arms it when it is not: Xen resets the host when this is not done again in time
    /// (xen/common/sched/core.c, domain_watchdog). It outlives the process that armed it.
    ///
    /// # Errors
    /// When Xen refuses.
    pub fn pet(&mut self, timeout_s: u32) -> Result<(), HypercallError> {
        match self.watchdog(WATCHDOG, timeout_s) {
            // It is not armed: a new one is the first.
            Err(HypercallError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                self.watchdog(0, timeout_s)
            }
            petted => petted,
        }
    }

    /// A struct sched_watchdog (xen/include/public/sched.h): id and timeout in seconds.
    fn watchdog(&mut self, id: u32, timeout_s: u32) -> Result<(), HypercallError> {
        self.set(0, id.to_ne_bytes());
        self.set(4, timeout_s.to_ne_bytes());
        let structure = self.buffer.as_ptr() as u64;
        self.call_with("sched_op watchdog", [HYPERVISOR_SCHED_OP, SCHEDOP_WATCHDOG, structure, 0, 0, 0])
    }

    fn domctl(&mut self, name: &'static str, command: u32, domid: u16) -> Result<(), HypercallError> {
        self.head(command);
        self.set(8, domid.to_ne_bytes());
        self.call(name, HYPERVISOR_DOMCTL)
    }
}

/// Reads a struct xen_domctl_getdomaininfo.
fn domain_info(b: &[u8]) -> DomainInfo {
    let mut handle = [0; 16];
    handle.copy_from_slice(&b[76..92]);
    DomainInfo {
        domid: u16::from_ne_bytes([b[0], b[1]]),
        flags: u32_at(b, 4),
        pages: u64_at(b, 8),
        cpu_ns: u64_at(b, 56),
        handle,
    }
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|i| b[at + i]))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|i| b[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_domain_as_xen_lays_it_out() {
        let mut b = [0u8; DOMAININFO_BYTES];
        b[0] = 7;
        b[4..8].copy_from_slice(&(1u32 << 2 | 1 << 3 | 2 << 16).to_ne_bytes());
        b[8..16].copy_from_slice(&32768u64.to_ne_bytes());
        b[56..64].copy_from_slice(&123u64.to_ne_bytes());
        b[76] = 0xab;
        let d = domain_info(&b);
        assert_eq!((d.domid, d.pages, d.cpu_ns, d.handle[0]), (7, 32768, 123, 0xab));
        assert_eq!((d.dying(), d.paused(), d.shutdown()), (false, true, Some(2)));
    }
}
