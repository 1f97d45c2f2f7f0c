//! The look at a real host: one call to Xen for all domains, one pass over /sys, and a XenStore read per new domain.
//!
//! Owns: reading states and names. Never does: rates.

use super::{Xl, lock};
use crate::hypercall::DomainInfo;
use crate::hypervisor::{SeenDomain, Survey};
use crate::stats;
use proto::VmId;
use proto::agent::{DomainState, Part};
use std::path::Path;

/// Pages in a MiB.
const PAGES_MIB: u64 = 256;
/// A guest's console log is cut at this length: it lies in dom0's RAM.
const CONSOLE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn survey(xl: &Xl) -> Result<Survey, Box<dyn std::error::Error>> {
    let (domains, host) = {
        let mut calls = lock(&xl.calls);
        (calls.domains()?, calls.physinfo()?)
    };
    let (counters, (net_rx_bytes, net_tx_bytes)) = stats::counters(Path::new("/sys"));
    let (agent_rss_kib, agent_cpu_ns) = stats::own();
    let mut names = lock(&xl.names);
    names.forget_others(&domains);
    let mut seen = Vec::new();
    for d in &domains {
        let Some((vm, part)) = names.name(d).as_deref().and_then(read_name) else { continue };
        let counted = counters.get(&u32::from(d.domid)).copied().unwrap_or_default();
        cut_console(&vm);
        seen.push(SeenDomain {
            vm,
            domid: d.domid.into(),
            state: state(d),
            reboots: !d.dying() && d.shutdown() == Some(1),
            part,
            memory_mib: d.pages / PAGES_MIB,
            cpu_ns: d.cpu_ns,
            net_rx_bytes: counted.net_rx,
            net_tx_bytes: counted.net_tx,
            disk_read_bytes: counted.disk_read,
            disk_write_bytes: counted.disk_write,
        });
    }
    Ok(Survey {
        domains: seen,
        cpu_ns: domains.iter().map(|d| d.cpu_ns).sum(),
        memory_free_mib: host.free_pages / PAGES_MIB,
        dom0_used_mib: stats::memory_used_mib(&std::fs::read_to_string("/proc/meminfo")?),
        agent_rss_kib,
        agent_cpu_ns,
        net_rx_bytes,
        net_tx_bytes,
    })
}

/// What a domain is doing, by Xen's flags (xen/include/public/domctl.h, sched.h).
pub(super) fn state(d: &DomainInfo) -> DomainState {
    match d.shutdown() {
        _ if d.dying() => DomainState::Dying,
        Some(2) => DomainState::Suspended,
        // Nobody does the soft reset that a guest asks for with 5 to go on in another kernel: it has crashed, and may be started again.
        Some(3..=5) => DomainState::Crashed,
        Some(_) => DomainState::Shutdown,
        None if d.paused() => DomainState::Paused,
        None => DomainState::Running,
    }
}

/// A domain's name with xl's suffixes (tools/xl/xl_migrate.c). Other names are not ours.
pub(super) fn read_name(name: &str) -> Option<(VmId, Part)> {
    let (vm, part) = if let Some(vm) = name.strip_suffix("--incoming") {
        (vm, Part::Incoming)
    } else if let Some(vm) = name.strip_suffix("--migratedaway") {
        (vm, Part::MigratedAway)
    } else {
        (name, Part::Resident)
    };
    Some((vm.parse().ok()?, part))
}

/// xenconsoled appends, so it goes on at the new end.
fn cut_console(vm: &VmId) {
    for suffix in ["", "--incoming"] {
        let path = super::console_path(vm, suffix);
        if std::fs::metadata(&path).is_ok_and(|m| m.len() > CONSOLE_BYTES_MAX)
            && let Ok(file) = std::fs::OpenOptions::new().write(true).open(&path)
        {
            // When it cannot be cut it grows on until the next look.
            let _ = file.set_len(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DomainState::*;

    #[test]
    fn states_and_names() {
        let domain = |flags| DomainInfo { domid: 1, flags, pages: 0, cpu_ns: 0, handle: [0; 16] };
        let shutdown = |reason: u32| 1 << 2 | reason << 16;
        for (flags, expected) in [
            (1 << 1 | 1 << 4 | 1 << 8, Running),
            (1 << 5, Running),
            (1 << 3, Paused),
            (shutdown(0), Shutdown),
            (shutdown(1), Shutdown),
            (shutdown(2), Suspended),
            (shutdown(3), Crashed),
            (shutdown(4), Crashed),
            (shutdown(5), Crashed),
            (shutdown(3) | 1, Dying),
        ] {
            assert_eq!(state(&domain(flags)), expected, "{flags:#x}");
        }
        let name = |n| read_name(n).map(|(vm, part)| (vm.to_string(), part));
        assert_eq!(name("web"), Some(("web".into(), Part::Resident)));
        assert_eq!(name("web--incoming"), Some(("web".into(), Part::Incoming)));
        assert_eq!(name("web--migratedaway"), Some(("web".into(), Part::MigratedAway)));
        assert_eq!(name("Domain-0"), None);
    }
}
