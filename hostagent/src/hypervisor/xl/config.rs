//! A domain's configuration for `xl create`.
//!
//! Owns: its text and the domain's UUID. Never does: looking whether files and disks are there.

use crate::agent::Guest;
use crate::iscsi;
use proto::VmId;
use proto::vm::Boot;
use std::path::Path;

/// A specification that cannot be written as a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfigError {
    /// A text with a character that must not be there.
    #[error("{what} {given:?} cannot be written into a domain's configuration")]
    Text {
        /// Which text.
        what: &'static str,
        /// What was given.
        given: String,
    },
    /// More disks than letters.
    #[error("{disks} disks: 26 at most")]
    Disks {
        /// How many.
        disks: usize,
    },
}

/// The configuration (xl.cfg(5) of Xen 4.17). `blobs` is where boot files lie by digest.
///
/// Whatever a guest does it stays as a domain, for the agent to see and the server to decide.
///
/// # Errors
/// [`ConfigError`] for texts that would end a string or a line.
pub(super) fn render(guest: &Guest, blobs: &Path) -> Result<String, ConfigError> {
    let spec = &guest.spec;
    let mut text = String::new();
    let mut put = |key: &str, value: &str| text.push_str(&format!("{key} = {value}\n"));
    let blob = |digest: &str| {
        let fits = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        let path = blobs.join(digest).display().to_string();
        if fits { quoted("path", &path) } else { Err(bad("blob", digest)) }
    };
    put("name", &quoted("name", spec.name.as_str())?);
    put("uuid", &quoted("uuid", &uuid_text(&uuid(&spec.name)))?);
    put("type", "\"pvh\"");
    put("memory", &spec.memory_mib.to_string());
    put("vcpus", &spec.vcpus.to_string());
    match &spec.boot {
        Boot::Kernel { kernel, initrd, cmdline } => {
            put("kernel", &blob(kernel)?);
            if let Some(initrd) = initrd {
                put("ramdisk", &blob(initrd)?);
            }
            put("cmdline", &quoted("cmdline", cmdline)?);
        }
        Boot::Disk { loader } => put("kernel", &blob(loader)?),
    }
    for event in ["on_poweroff", "on_reboot", "on_crash", "on_watchdog"] {
        put(event, "\"preserve\"");
    }
    let mut disks = Vec::new();
    for (letter, disk) in ('a'..='z').zip(&guest.disks) {
        let target = iscsi::params(disk);
        let line = format!("format=raw,vdev=xvd{letter},access=rw,script=tsubame-block,target={target}");
        disks.push(quoted("disk", &line)?);
    }
    if disks.len() < guest.disks.len() {
        return Err(ConfigError::Disks { disks: guest.disks.len() });
    }
    put("disk", &format!("[ {} ]", disks.join(", ")));
    let mut vifs = Vec::new();
    for vif in &spec.vifs {
        if !is_interface(&vif.bridge) {
            return Err(bad("bridge", &vif.bridge));
        }
        vifs.push(quoted("vif", &format!("mac={},bridge={},script=tsubame-vif", vif.mac, vif.bridge))?);
    }
    put("vif", &format!("[ {} ]", vifs.join(", ")));
    Ok(text)
}

/// Whether a text may be a network interface's name (linux/if.h: 15 bytes, no `/`, no space), and needs no quotes.
pub fn is_interface(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !name.is_empty() && name.len() <= 15 && name.bytes().all(fits) && !name.starts_with('.')
}

/// A VM's UUID: the same on every host and at every start, so that a domain is known by Xen's handle alone.
pub fn uuid(vm: &VmId) -> [u8; 16] {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("tsubame vm {vm}").as_bytes());
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest.as_ref()[..16]);
    // RFC 9562 §5.8: version 8, made by a rule of one's own.
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// As a string of xl.cfg; a backslash escapes (tools/libs/util/libxlu_cfg.c, xlu__cfgl_dequote).
fn quoted(what: &'static str, text: &str) -> Result<String, ConfigError> {
    if text.chars().any(char::is_control) {
        return Err(bad(what, text));
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn bad(what: &'static str, given: &str) -> ConfigError {
    ConfigError::Text { what, given: given.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proto::Epoch;
    use proto::agent::{DiskAccess, Secret};
    use proto::vm::{Vif, VmSpec};

    fn guest() -> Guest {
        let disk = DiskAccess {
            disk: "web-0".parse().expect("good"),
            portal: ([10, 77, 0, 1], 3260).into(),
            target: "iqn.2026-11.org.tsubame:web-0".into(),
            lun: 1,
            user: "u".into(),
            secret: Secret("s".into()),
        };
        let vif = Vif { mac: "00:16:3e:00:00:01".parse().expect("good"), bridge: "xenbr0".into() };
        let spec = VmSpec {
            name: "web".parse().expect("good"),
            memory_mib: 96,
            vcpus: 2,
            boot: Boot::Kernel {
                kernel: "a".repeat(64),
                initrd: Some("b".repeat(64)),
                cmdline: "console=hvc0 title=\"a \\ b\"".into(),
            },
            disks: vec![disk.disk.clone()],
            vifs: vec![vif],
        };
        Guest { spec, disks: vec![disk], epoch: Epoch(1), received: None, held: None, r#move: None }
    }

    #[test]
    fn golden() {
        let blobs = Path::new("/run/tsubame/blobs");
        expect![[r#"
            name = "web"
            uuid = "b52df5da-b768-806b-a2ae-e398cabf8066"
            type = "pvh"
            memory = 96
            vcpus = 2
            kernel = "/run/tsubame/blobs/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            ramdisk = "/run/tsubame/blobs/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
            cmdline = "console=hvc0 title=\"a \\ b\""
            on_poweroff = "preserve"
            on_reboot = "preserve"
            on_crash = "preserve"
            on_watchdog = "preserve"
            disk = [ "format=raw,vdev=xvda,access=rw,script=tsubame-block,target=iqn.2026-11.org.tsubame:web-0/1" ]
            vif = [ "mac=00:16:3e:00:00:01,bridge=xenbr0,script=tsubame-vif" ]
        "#]]
        .assert_eq(&render(&guest(), blobs).expect("good"));
        let with = |change: fn(&mut Guest)| {
            let mut g = guest();
            change(&mut g);
            render(&g, blobs).map_err(|e| e.to_string())
        };
        let disks = with(|g| g.disks = vec![g.disks[0].clone(); 27]);
        assert_eq!(disks, Err("27 disks: 26 at most".into()));
        assert!(with(|g| g.spec.vifs[0].bridge = "a,script=x".into()).is_err());
        assert!(with(|g| g.spec.boot = Boot::Disk { loader: "../x".into() }).is_err());
        assert!(with(|g| g.disks[0].target = "x\ny".into()).is_err());
        let loader = with(|g| g.spec.boot = Boot::Disk { loader: "c".repeat(64) }).expect("good");
        assert!(loader.contains("kernel = \"/run/tsubame/blobs/cccc") && !loader.contains("cmdline"));
    }
}
