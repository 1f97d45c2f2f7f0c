//! What the tests of this crate start from.

use crate::policy::{JoinMode, Policy, Release, Subnet, Template};
use proto::vm::Boot;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub(crate) fn subnet() -> Subnet {
    Subnet {
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
        join: JoinMode::All,
        release: Release {
            name: "dom0-1".to_owned(),
            xen: "/b/0123456789abcdef/xen".to_owned(),
            xen_efi: "/b/1123456789abcdef/xen.efi".to_owned(),
            kernel: "/b/2123456789abcdef/vmlinuz".to_owned(),
            image: "/b/3123456789abcdef/dom0.img".to_owned(),
            xen_args: "dom0_mem=512M,max:512M".to_owned(),
            kernel_args: "console=hvc0".to_owned(),
        },
        templates: BTreeMap::from([("tiny".to_owned(), template)]),
        report_ms: 2000,
        lost_ms: 15_000,
        balance_ms: 0,
        migration_rate_bytes_s: 0,
        iqn_prefix: "iqn.2026-11.org.tsubame".to_owned(),
        portal: ([10, 77, 0, 1], 3260).into(),
        migration_port: 8002,
    }
}
