//! What this machine is.
//!
//! Owns: reading SMBIOS, /proc/cpuinfo, /sys/hypervisor, the interfaces and what sysfs says of disks. Never does: opening a disk.

use crate::boot;
use crate::hypercall::PhysInfo;
use crate::smbios;
use proto::host::{Cpu, Firmware, Hardware, Inventory, LocalDisk, Nic};
use std::fs;
use std::path::Path;

/// Takes the inventory. `root` is `/`, but for tests.
pub fn take(root: &Path, xen: &PhysInfo) -> Inventory {
    let read = |path: &str| fs::read_to_string(root.join(path)).map(|t| t.trim().to_owned()).unwrap_or_default();
    let dmi = |name: &str| read(&format!("sys/class/dmi/id/{name}"));
    let version = |name: &str| read(&format!("sys/hypervisor/version/{name}"));
    let product = format!("{} {}", dmi("sys_vendor"), dmi("product_name"));
    let image = read("etc/tsubame/image");
    let words = read(boot::WORDS.trim_start_matches('/'));
    let release = words.split_ascii_whitespace().filter_map(|word| word.strip_prefix("tsubame.release=")).next_back();
    Inventory {
        uuid: dmi("product_uuid").to_ascii_lowercase(),
        serial: dmi("product_serial"),
        product: product.trim().to_owned(),
        firmware: if root.join("sys/firmware/efi").exists() { Firmware::Uefi } else { Firmware::Bios },
        cpu: cpu(&read("proc/cpuinfo"), xen.cpus),
        memory_mib: xen.total_pages / 256,
        dom0_mib: memory_total_mib(&read("proc/meminfo")),
        nics: nics(&root.join("sys/class/net")),
        xen: format!("{}.{}{}", version("major"), version("minor"), version("extra")),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        image,
        release: release.unwrap_or_default().to_owned(),
        hardware: hardware(root, &format!("{} {} {}", dmi("bios_vendor"), dmi("bios_version"), dmi("bios_date"))),
    }
}

fn hardware(root: &Path, firmware: &str) -> Hardware {
    let table = fs::read(root.join("sys/firmware/dmi/tables/DMI")).unwrap_or_default();
    Hardware {
        firmware: firmware.trim().to_owned(),
        modules: smbios::modules(&table),
        disks: disks(&root.join("sys/block")),
        bmc: smbios::bmc(&table),
    }
}

/// Disks with hardware behind them, by name; those on the shared storage are not the machine's. Read from sysfs alone: no disk is opened.
fn disks(block: &Path) -> Vec<LocalDisk> {
    let entries = fs::read_dir(block).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries.map(|e| e.path()).filter(|p| p.join("device").exists()).collect();
    dirs.sort();
    let disk = |dir: std::path::PathBuf| {
        let read = |name: &str| fs::read_to_string(dir.join(name)).map(|t| t.trim().to_owned()).unwrap_or_default();
        let place = fs::canonicalize(dir.join("device")).unwrap_or_default();
        let iscsi = place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("session"));
        let sectors: u64 = read("size").parse().unwrap_or(0);
        if iscsi || sectors == 0 {
            return None;
        }
        let parts = fs::read_dir(&dir).into_iter().flatten().flatten();
        Some(LocalDisk {
            name: dir.file_name()?.to_str()?.to_owned(),
            // Of 512 bytes each, whatever the disk's own are.
            size_mib: sectors / 2048,
            model: read("device/model"),
            serial: [read("device/serial"), read("serial")].into_iter().find(|s| !s.is_empty()).unwrap_or_default(),
            partitioned: parts.into_iter().any(|part| part.path().join("partition").exists()),
        })
    };
    dirs.into_iter().filter_map(disk).collect()
}

fn cpu(cpuinfo: &str, threads: u32) -> Cpu {
    let field = |key: &str| {
        let line = cpuinfo.lines().find_map(|l| l.split_once(':').filter(|(k, _)| k.trim() == key));
        line.map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
    };
    let features = field("flags").split_whitespace().map(str::to_owned).collect();
    Cpu { vendor: field("vendor_id"), model: field("model name"), threads, features }
}

fn memory_total_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Interfaces with hardware behind them, by name.
fn nics(class: &Path) -> Vec<Nic> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries.map(|e| e.path()).filter(|p| p.join("device").exists()).collect();
    dirs.sort();
    let nic = |dir: std::path::PathBuf| {
        let read = |name: &str| fs::read_to_string(dir.join(name)).map(|t| t.trim().to_owned()).ok();
        let driver = fs::read_link(dir.join("device/driver")).ok();
        Some(Nic {
            // A bridge's port keeps its own address.
            mac: read("address")?.parse().ok()?,
            driver: driver.and_then(|d| d.file_name()?.to_str().map(str::to_owned)).unwrap_or_default(),
            link: read("carrier").as_deref() == Some("1"),
            // -1 where the driver does not know.
            speed_mbit: read("speed").and_then(|s| s.parse().ok()),
        })
    };
    dirs.into_iter().filter_map(nic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_machine() {
        let root = tempfile::tempdir().expect("a directory");
        let put = |path: &str, value: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, value).expect("written");
        };
        put("sys/class/dmi/id/product_uuid", "0A1B2C3D-0000-1111-2222-333344445555\n");
        put("sys/class/dmi/id/sys_vendor", "QEMU\n");
        put("sys/class/dmi/id/product_name", "Standard PC\n");
        put("sys/hypervisor/version/major", "4\n");
        put("sys/hypervisor/version/minor", "17\n");
        put("sys/hypervisor/version/extra", ".7\n");
        put("sys/class/net/eth0/address", "52:54:00:aa:bb:01\n");
        put("sys/class/net/eth0/device/x", "");
        put("sys/class/net/eth0/carrier", "1\n");
        put("sys/class/net/eth0/speed", "-1\n");
        put("sys/class/net/lo/address", "00:00:00:00:00:00\n");
        put("sys/class/dmi/id/bios_version", "1.16\n");
        for (name, device, sectors) in [
            ("nvme0n1", "sys/devices/pci0000:00/nvme0", "1953525168\n"),
            ("sda", "sys/devices/platform/host2/session1/target2:0:0", "131072\n"),
            ("sr0", "sys/devices/pci0000:00/ata1", "0\n"),
        ] {
            put(&format!("{device}/model"), "SAMSUNG X\n");
            put(&format!("{device}/serial"), "S3R1AL\n");
            put(&format!("sys/block/{name}/size"), sectors);
            std::os::unix::fs::symlink(root.path().join(device), root.path().join(format!("sys/block/{name}/device")))
                .expect("linked");
        }
        put("sys/block/nvme0n1/nvme0n1p1/partition", "1\n");
        put("sys/block/loop0/size", "8\n");
        put(
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: QEMU Virtual CPU\nflags\t\t: fpu svm\n\n",
        );
        put("etc/tsubame/words", "tsubame.host=h525400aabb01 tsubame.release=0123456789ab\n");
        put("proc/meminfo", "MemTotal:         524288 kB\n");
        let xen = PhysInfo { cpus: 2, total_pages: 262_144, free_pages: 1 };
        let mut inventory = take(root.path(), &xen);
        inventory.agent = "X".into();
        expect![[r#"
            Inventory {
                uuid: "0a1b2c3d-0000-1111-2222-333344445555",
                serial: "",
                product: "QEMU Standard PC",
                firmware: Bios,
                cpu: Cpu {
                    vendor: "AuthenticAMD",
                    model: "QEMU Virtual CPU",
                    threads: 2,
                    features: {
                        "fpu",
                        "svm",
                    },
                },
                memory_mib: 1024,
                dom0_mib: 512,
                nics: [
                    Nic {
                        mac: Mac(
                            [
                                82,
                                84,
                                0,
                                170,
                                187,
                                1,
                            ],
                        ),
                        driver: "",
                        link: true,
                        speed_mbit: None,
                    },
                ],
                xen: "4.17.7",
                agent: "X",
                image: "",
                release: "0123456789ab",
                hardware: Hardware {
                    firmware: "1.16",
                    modules: [],
                    disks: [
                        LocalDisk {
                            name: "nvme0n1",
                            size_mib: 953869,
                            model: "SAMSUNG X",
                            serial: "S3R1AL",
                            partitioned: true,
                        },
                    ],
                    bmc: None,
                },
            }
        "#]]
        .assert_debug_eq(&inventory);
    }
}
