//! Counters that the kernel keeps in /sys and /proc.
//!
//! Owns: reading them for all domains in one pass. Never does: rates; those are the agent's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const SECTOR_BYTES: u64 = 512;

/// A domain's counters, bytes as the guest sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DomainCounters {
    /// Received over all vifs.
    pub net_rx: u64,
    /// Sent.
    pub net_tx: u64,
    /// Read from disks.
    pub disk_read: u64,
    /// Written to disks.
    pub disk_write: u64,
}

/// Counters of every domain that has devices, and of the hardware's interfaces: received and sent bytes.
/// `sys` is /sys, but for tests.
pub fn counters(sys: &Path) -> (BTreeMap<u32, DomainCounters>, (u64, u64)) {
    let mut domains: BTreeMap<u32, DomainCounters> = BTreeMap::new();
    let mut hardware = (0, 0);
    for name in names(&sys.join("class/net")) {
        let of = sys.join("class/net").join(&name);
        if let Some(domid) = vif_domid(&name) {
            let d = domains.entry(domid).or_default();
            // What dom0 received on a vif is what the guest sent.
            d.net_tx += number(&of.join("statistics/rx_bytes"));
            d.net_rx += number(&of.join("statistics/tx_bytes"));
        } else if of.join("device").exists() {
            hardware.0 += number(&of.join("statistics/rx_bytes"));
            hardware.1 += number(&of.join("statistics/tx_bytes"));
        }
    }
    let backends = sys.join("bus/xen-backend/devices");
    for name in names(&backends) {
        if let Some(domid) = vbd_domid(&name) {
            let d = domains.entry(domid).or_default();
            d.disk_read += number(&backends.join(&name).join("statistics/rd_sect")) * SECTOR_BYTES;
            d.disk_write += number(&backends.join(&name).join("statistics/wr_sect")) * SECTOR_BYTES;
        }
    }
    (domains, hardware)
}

/// dom0's used memory, MiB, from /proc/meminfo: what is neither free nor reclaimable.
pub fn memory_used_mib(meminfo: &str) -> u64 {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    kib("MemTotal").saturating_sub(kib("MemAvailable")) / 1024
}

/// This process's resident memory, KiB, and processor time, nanoseconds.
pub fn own() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    let mut time = nix::libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { nix::libc::clock_gettime(nix::libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    (rss.unwrap_or(0), time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Milliseconds since the host was started.
pub fn uptime_ms() -> u64 {
    let mut time = nix::libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { nix::libc::clock_gettime(nix::libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}

fn vif_domid(name: &str) -> Option<u32> {
    name.strip_prefix("vif")?.split_once('.')?.0.parse().ok()
}

fn vbd_domid(name: &str) -> Option<u32> {
    name.strip_prefix("vbd-")?.split_once('-')?.0.parse().ok()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn number(file: &Path) -> u64 {
    fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_domain() {
        let sys = tempfile::tempdir().expect("a directory for the test");
        let put = |path: &str, value: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("made");
            fs::write(path, value).expect("written");
        };
        put("class/net/eth0/device/x", "");
        put("class/net/eth0/statistics/rx_bytes", "100\n");
        put("class/net/xenbr0/statistics/rx_bytes", "9\n");
        put("class/net/vif3.0/statistics/rx_bytes", "10\n");
        put("class/net/vif3.1/statistics/tx_bytes", "20\n");
        put("bus/xen-backend/devices/vbd-3-51712/statistics/rd_sect", "2\n");
        put("bus/xen-backend/devices/vif-3-0/x", "");
        let (domains, hardware) = counters(sys.path());
        assert_eq!(hardware, (100, 0));
        let expected = DomainCounters { net_rx: 20, net_tx: 10, disk_read: 1024, disk_write: 0 };
        assert_eq!(domains.into_iter().collect::<Vec<_>>(), [(3, expected)]);
        assert_eq!(memory_used_mib("MemTotal:  512000 kB\nMemFree: 1 kB\nMemAvailable:  409600 kB\n"), 100);
    }
}
