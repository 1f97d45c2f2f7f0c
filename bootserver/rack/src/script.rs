//! What a booting machine is told to boot: iPXE scripts and Xen's configuration.
//!
//! Owns: the texts, and the check that iPXE's 512 bytes under BIOS hold them. A script that fails is fetched again: a
//! machine never falls through to its disk. Never does: choose nonces or addresses.

use crate::effect::ScriptRefusal;
use crate::policy::{Policy, Subnet};
use crate::release::UNIFIED_ROLE;
use proto::HostId;
use proto::Mac;
use proto::host::Firmware;
use proto::release::{Manifest, ReleaseFile, ReleaseId};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// What iPXE under BIOS has for all URLs and command lines of one boot together, bytes; what is beyond is cut without a
/// word (iPXE src/arch/x86/image/multiboot.c, `MB_MAX_CMDLINE`).
pub const BIOS_BYTES_MAX: usize = 512;

/// The release cannot be booted as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Too long for iPXE.
    #[error(
        "boot URLs and command lines take up to {bytes} bytes under BIOS, of which iPXE holds {BIOS_BYTES_MAX}; shorten dom0.xen_args (now {xen_args}) or dom0.kernel_args (now {kernel_args})"
    )]
    TooLong {
        /// All together, at the longest.
        bytes: usize,
        /// Bytes of Xen's arguments.
        xen_args: usize,
        /// Bytes of the kernel's arguments.
        kernel_args: usize,
    },
    /// A line break or other control character would change the script.
    #[error("{field} is {given:?}, expected printable ASCII without line breaks")]
    Characters {
        /// Which.
        field: &'static str,
        /// What was given.
        given: String,
    },
}

/// What differs from boot to boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boot<'a> {
    pub(crate) release: &'a ReleaseId,
    pub(crate) manifest: &'a Manifest,
    pub(crate) host: &'a HostId,
    pub(crate) mac: Mac,
    pub(crate) address: Ipv4Addr,
    pub(crate) nonce: &'a str,
}

/// Where iPXE finds its script.
pub fn script_url(subnet: &Subnet, mac: Mac, firmware: Firmware) -> String {
    let end = match firmware {
        Firmware::Bios => ".ipxe",
        Firmware::Uefi => "-efi.ipxe",
    };
    format!("{}/boot/{}{end}", base(subnet), dashed(mac))
}

fn base(subnet: &Subnet) -> String {
    format!("http://{}:{}", subnet.server, subnet.boot_port)
}

fn dashed(mac: Mac) -> String {
    mac.to_string().replace(':', "-")
}

/// Path of a release's file on the boot port: the first 16 digits of its digest, and its role.
pub fn file_path(role: &str, file: &ReleaseFile) -> String {
    format!("/b/{}/{role}", file.sha256.get(..16).unwrap_or_default())
}

fn path(manifest: &Manifest, role: &str) -> String {
    // Without the file the machine asks for what is not there, and for its script again.
    manifest.files.get(role).map_or_else(|| format!("/b/none/{role}"), |file| file_path(role, file))
}

/// dom0's kernel command line.
fn dom0_args(policy: &Policy, boot: Boot<'_>) -> String {
    let mut args = dom0_words(policy, boot);
    if !policy.dom0.kernel_args.is_empty() {
        args.push(' ');
        args.push_str(&policy.dom0.kernel_args);
    }
    args
}

/// What of it is this boot's.
fn dom0_words(policy: &Policy, boot: Boot<'_>) -> String {
    let subnet = policy.subnet_at(boot.address);
    let mut args = String::with_capacity(BIOS_BYTES_MAX);
    let mut add = |name: &str, value: &dyn std::fmt::Display| {
        if !args.is_empty() {
            args.push(' ');
        }
        // Writing to a String does not fail.
        let _ = write!(args, "tsubame.{name}={value}");
    };
    add("host", boot.host);
    add("mac", &boot.mac);
    add("ip", &format_args!("{}/{}", boot.address, subnet.prefix));
    if let Some(gateway) = subnet.gateway {
        add("gw", &gateway);
    }
    add("server", &format_args!("{}:{}", subnet.server, subnet.agent_port));
    add("boot", &format_args!("{}:{}", subnet.server, subnet.boot_port));
    add("ca", &subnet.ca_digest);
    add("join", &boot.nonce);
    add("release", &boot.release);
    args
}

/// On failure the script itself is fetched anew: the release may have changed, and a disk must not be booted.
fn ending(policy: &Policy, mac: Mac, firmware: Firmware) -> String {
    format!(
        ":again\necho Boot failed, trying again in 5 seconds\nsleep 5\nimgfree\nchain --replace {} || goto again\n",
        script_url(&policy.subnet, mac, firmware)
    )
}

/// The script of a machine that is to wait for its turn.
pub(crate) fn wait(policy: &Policy, mac: Mac, firmware: Firmware, before: usize, again_s: u64) -> String {
    let url = script_url(&policy.subnet, mac, firmware);
    format!(
        "#!ipxe\necho Waiting to boot: {before} machines go first\n:again\nsleep {again_s}\nchain --replace {url} || goto again\n"
    )
}

/// The iPXE script for a machine that gets none yet: it waits and asks again, by DHCP first, as what is wrong is most often its address. Without
/// it iPXE would give up, and the firmware would go on to the disk.
pub fn retry(subnet: &Subnet, mac: Mac, firmware: Firmware, why: &ScriptRefusal) -> String {
    format!(
        "#!ipxe\necho {why}\n:again\necho Trying again in 10 seconds\nsleep 10\ndhcp || goto again\nchain --replace {} || goto again\n",
        script_url(subnet, mac, firmware)
    )
}

/// The iPXE script for a machine under BIOS: Xen by multiboot.
pub(crate) fn ipxe_bios(policy: &Policy, boot: Boot<'_>) -> String {
    let (base, xen_args) = (base(&policy.subnet), &policy.dom0.xen_args);
    let path = |role| path(boot.manifest, role);
    let args = dom0_args(policy, boot);
    let space = if xen_args.is_empty() { "" } else { " " };
    format!(
        "#!ipxe\nkernel {base}{}{space}{xen_args} || goto again\nmodule {base}{} {args} || goto again\nmodule {base}{} || goto again\nboot || goto again\n{}",
        path("xen"),
        path("vmlinuz"),
        path("initrd"),
        ending(policy, boot.mac, Firmware::Bios)
    )
}

/// The iPXE script for a machine under UEFI: Xen's EFI loader, which reads the rest from files that iPXE shows it. Where Secure Boot refuses that
/// loader, `kernel` fails, and the release's unified image is tried, if it has one.
pub(crate) fn ipxe_uefi(policy: &Policy, mac: Mac, manifest: &Manifest) -> String {
    let base = base(&policy.subnet);
    let path = |role| path(manifest, role);
    let (refused, unified) = match manifest.files.get(UNIFIED_ROLE) {
        Some(file) => {
            let path = file_path(UNIFIED_ROLE, file);
            let unified = format!(
                ":unified\necho Trying the signed image\nimgfree\nkernel {base}{path} || goto again\nboot || goto again\n"
            );
            ("unified", unified)
        }
        None => ("again", String::new()),
    };
    format!(
        "#!ipxe\nkernel --name xen.efi {base}{} || goto {refused}\ninitrd --name xen.cfg {base}/boot/{}/xen.cfg || goto again\ninitrd --name vmlinuz {base}{} || goto again\ninitrd --name initrd {base}{} || goto again\nboot || goto {refused}\n{unified}{}",
        path("xen.efi"),
        dashed(mac),
        path("vmlinuz"),
        path("initrd"),
        ending(policy, mac, Firmware::Uefi)
    )
}

/// What a unified image's initrd is told, whose command line is the same for all: a line.
pub(crate) fn words(policy: &Policy, boot: Boot<'_>) -> String {
    let mut words = dom0_words(policy, boot);
    words.push('\n');
    words
}

/// Where it asks for that.
pub(crate) fn words_url(subnet: &Subnet, mac: Mac) -> String {
    format!("{}/boot/{}/words", base(subnet), dashed(mac))
}

/// Xen's configuration under UEFI (Xen docs/misc/efi.pandoc).
pub(crate) fn xen_cfg(policy: &Policy, boot: Boot<'_>) -> String {
    format!(
        "[global]\ndefault=tsubame\n\n[tsubame]\noptions={}\nkernel=vmlinuz {}\nramdisk=initrd\n",
        policy.dom0.xen_args,
        dom0_args(policy, boot)
    )
}

/// Checks that every machine of the subnet can be booted by a release under BIOS, whatever its address. Called by
/// [`crate::Rack::restore`] and at each import, and by the boot server when it reads its configuration.
pub fn bios_budget(policy: &Policy, manifest: &Manifest) -> Result<(), BudgetError> {
    let dom0 = &policy.dom0;
    let printable = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b));
    for (field, given) in [
        ("dom0.xen_args", &dom0.xen_args),
        ("dom0.kernel_args", &dom0.kernel_args),
        ("CA digest", &policy.subnet.ca_digest),
    ] {
        if !printable(given) {
            return Err(BudgetError::Characters { field, given: given.clone() });
        }
    }
    let release = &crate::release::id_of(manifest);
    let mac = Mac([0; 6]);
    let nonce = "x".repeat(crate::host::NONCE_CHARS);
    let longest = |address| {
        dom0_args(policy, Boot { release, manifest, host: &HostId::of(mac), mac, address, nonce: &nonce }).len()
    };
    let kernel_args = policy
        .subnets()
        .flat_map(|subnet| [subnet.pool.0, subnet.pool.1].into_iter().chain(subnet.reservations.values().copied()))
        .map(longest)
        .max()
        .unwrap_or(BIOS_BYTES_MAX);
    let base = base(&policy.subnet).len();
    // Each is kept as its URL, a space, its arguments and an end.
    let args = [(path(manifest, "xen"), dom0.xen_args.len()), (path(manifest, "vmlinuz"), kernel_args)];
    let bytes = args.iter().map(|(path, args)| base + path.len() + 1 + args + 1).sum::<usize>()
        + base
        + path(manifest, "initrd").len()
        + 1;
    if bytes > BIOS_BYTES_MAX {
        return Err(BudgetError::TooLong { bytes, xen_args: dom0.xen_args.len(), kernel_args: dom0.kernel_args.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::policy;
    use expect_test::expect;

    #[test]
    fn texts() {
        let (policy, mac) = (policy(), "52:54:00:aa:bb:01".parse().expect("a MAC"));
        let host = HostId::of(mac);
        let release = crate::release::id_of(&policy.release);
        let boot = Boot {
            release: &release,
            manifest: &policy.release,
            host: &host,
            mac,
            address: Ipv4Addr::new(10, 77, 0, 60),
            nonce: "NNNNNNNNNNNNNNNNNNNNNN",
        };
        expect![[r#"
            #!ipxe
            kernel http://10.77.0.1:8080/b/0123456789abcdef/xen dom0_mem=512M,max:512M || goto again
            module http://10.77.0.1:8080/b/2123456789abcdef/vmlinuz tsubame.host=h525400aabb01 tsubame.mac=52:54:00:aa:bb:01 tsubame.ip=10.77.0.60/24 tsubame.server=10.77.0.1:7443 tsubame.boot=10.77.0.1:8080 tsubame.ca=ccccccccccccccccccccccccccccccccccccccccccc tsubame.join=NNNNNNNNNNNNNNNNNNNNNN tsubame.release=a375c0d79861 console=hvc0 || goto again
            module http://10.77.0.1:8080/b/3123456789abcdef/initrd || goto again
            boot || goto again
            :again
            echo Boot failed, trying again in 5 seconds
            sleep 5
            imgfree
            chain --replace http://10.77.0.1:8080/boot/52-54-00-aa-bb-01.ipxe || goto again
        "#]].assert_eq(&ipxe_bios(&policy, boot));
        expect![[r#"
            #!ipxe
            kernel --name xen.efi http://10.77.0.1:8080/b/1123456789abcdef/xen.efi || goto again
            initrd --name xen.cfg http://10.77.0.1:8080/boot/52-54-00-aa-bb-01/xen.cfg || goto again
            initrd --name vmlinuz http://10.77.0.1:8080/b/2123456789abcdef/vmlinuz || goto again
            initrd --name initrd http://10.77.0.1:8080/b/3123456789abcdef/initrd || goto again
            boot || goto again
            :again
            echo Boot failed, trying again in 5 seconds
            sleep 5
            imgfree
            chain --replace http://10.77.0.1:8080/boot/52-54-00-aa-bb-01-efi.ipxe || goto again
        "#]]
        .assert_eq(&ipxe_uefi(&policy, mac, &policy.release));
        expect![[r#"
            #!ipxe
            echo Waiting to boot: 17 machines go first
            :again
            sleep 2
            chain --replace http://10.77.0.1:8080/boot/52-54-00-aa-bb-01.ipxe || goto again
        "#]]
        .assert_eq(&wait(&policy, mac, Firmware::Bios, 17, 2));
        expect![[r#"
            [global]
            default=tsubame

            [tsubame]
            options=dom0_mem=512M,max:512M
            kernel=vmlinuz tsubame.host=h525400aabb01 tsubame.mac=52:54:00:aa:bb:01 tsubame.ip=10.77.0.60/24 tsubame.server=10.77.0.1:7443 tsubame.boot=10.77.0.1:8080 tsubame.ca=ccccccccccccccccccccccccccccccccccccccccccc tsubame.join=NNNNNNNNNNNNNNNNNNNNNN tsubame.release=a375c0d79861 console=hvc0
            ramdisk=initrd
        "#]].assert_eq(&xen_cfg(&policy, boot));
    }

    #[test]
    fn where_there_is_a_signed_image() {
        let (policy, mac) = (policy(), "52:54:00:aa:bb:01".parse().expect("a MAC"));
        let mut manifest = policy.release.clone();
        let signed = ReleaseFile { sha256: format!("5123456789abcdef{}", "0".repeat(48)), bytes: 1005 };
        manifest.files.insert(UNIFIED_ROLE.to_owned(), signed);
        let release = crate::release::id_of(&manifest);
        expect![[r#"
            #!ipxe
            kernel --name xen.efi http://10.77.0.1:8080/b/1123456789abcdef/xen.efi || goto unified
            initrd --name xen.cfg http://10.77.0.1:8080/boot/52-54-00-aa-bb-01/xen.cfg || goto again
            initrd --name vmlinuz http://10.77.0.1:8080/b/2123456789abcdef/vmlinuz || goto again
            initrd --name initrd http://10.77.0.1:8080/b/3123456789abcdef/initrd || goto again
            boot || goto unified
            :unified
            echo Trying the signed image
            imgfree
            kernel http://10.77.0.1:8080/b/5123456789abcdef/unified.efi || goto again
            boot || goto again
            :again
            echo Boot failed, trying again in 5 seconds
            sleep 5
            imgfree
            chain --replace http://10.77.0.1:8080/boot/52-54-00-aa-bb-01-efi.ipxe || goto again
        "#]]
        .assert_eq(&ipxe_uefi(&policy, mac, &manifest));
        let host = HostId::of(mac);
        let boot = Boot {
            release: &release,
            manifest: &manifest,
            host: &host,
            mac,
            address: Ipv4Addr::new(10, 77, 0, 60),
            nonce: "NNNNNNNNNNNNNNNNNNNNNN",
        };
        expect![[r#"
            tsubame.host=h525400aabb01 tsubame.mac=52:54:00:aa:bb:01 tsubame.ip=10.77.0.60/24 tsubame.server=10.77.0.1:7443 tsubame.boot=10.77.0.1:8080 tsubame.ca=ccccccccccccccccccccccccccccccccccccccccccc tsubame.join=NNNNNNNNNNNNNNNNNNNNNN tsubame.release=a4d196a7ce74
        "#]].assert_eq(&words(&policy, boot));
        assert_eq!(words_url(&policy.subnet, mac), "http://10.77.0.1:8080/boot/52-54-00-aa-bb-01/words");
    }

    #[test]
    fn who_gets_no_script_waits() {
        let (policy, mac) = (policy(), "52:54:00:aa:bb:01".parse().expect("a MAC"));
        expect![[r#"
            #!ipxe
            echo no lease for 52:54:00:aa:bb:01: the machine must first get its address from this server
            :again
            echo Trying again in 10 seconds
            sleep 10
            dhcp || goto again
            chain --replace http://10.77.0.1:8080/boot/52-54-00-aa-bb-01-efi.ipxe || goto again
        "#]]
        .assert_eq(&retry(&policy.subnet, mac, Firmware::Uefi, &ScriptRefusal::NoLease { mac }));
    }

    #[test]
    fn budget() {
        let mut policy = policy();
        assert_eq!(bios_budget(&policy, &policy.release), Ok(()));
        policy.dom0.xen_args = "x".repeat(200);
        expect!["boot URLs and command lines take up to 616 bytes under BIOS, of which iPXE holds 512; shorten dom0.xen_args (now 200) or dom0.kernel_args (now 12)"].assert_eq(&bios_budget(&policy, &policy.release).expect_err("too long").to_string());
        policy.dom0.xen_args = "a\nboot".to_owned();
        expect![[r#"dom0.xen_args is "a\nboot", expected printable ASCII without line breaks"#]]
            .assert_eq(&bios_budget(&policy, &policy.release).expect_err("a line break").to_string());
    }
}
