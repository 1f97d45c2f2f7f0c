//! Names by which booting machines ask for things: TFTP file names, and paths of scripts on the boot port.
//!
//! Owns: reading them. Never does: join a path; what is not exactly a known name is nothing.

use crate::event::ScriptKind;
use proto::Mac;

/// The file that a TFTP client means: `\` is `/`, one leading `/` means nothing, and some ROMs leave 0xFF (or what a
/// reader of text made of it) at the end.
pub fn tftp_file(name: &str) -> String {
    let name = name.trim_end_matches(['\u{ff}', '\u{fffd}']).replace('\\', "/");
    name.strip_prefix('/').unwrap_or(&name).to_owned()
}

/// The script that a path below `/boot/` means: `MAC.ipxe`, `MAC-efi.ipxe`, `MAC/xen.cfg` or `MAC/words`.
pub fn script(path: &str) -> Option<(Mac, ScriptKind)> {
    let (mac, kind) = if let Some(mac) = path.strip_suffix("-efi.ipxe") {
        (mac, ScriptKind::IpxeUefi)
    } else if let Some(mac) = path.strip_suffix(".ipxe") {
        (mac, ScriptKind::IpxeBios)
    } else if let Some(mac) = path.strip_suffix("/words") {
        (mac, ScriptKind::Words)
    } else {
        (path.strip_suffix("/xen.cfg")?, ScriptKind::XenCfg)
    };
    Some((mac.parse().ok()?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        for (asked, meant) in [
            ("ipxe.efi", "ipxe.efi"),
            ("/ipxe.efi", "ipxe.efi"),
            ("\\ipxe.efi", "ipxe.efi"),
            ("efi\\ipxe.efi\u{ff}", "efi/ipxe.efi"),
            ("undionly.kpxe\u{fffd}", "undionly.kpxe"),
            ("//ipxe.efi", "/ipxe.efi"),
            ("", ""),
        ] {
            assert_eq!(tftp_file(asked), meant, "{asked}");
        }
    }

    #[test]
    fn scripts() {
        let mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 1]);
        for (path, wanted) in [
            ("52-54-00-aa-bb-01.ipxe", Some((mac, ScriptKind::IpxeBios))),
            ("52-54-00-aa-bb-01-efi.ipxe", Some((mac, ScriptKind::IpxeUefi))),
            ("52-54-00-aa-bb-01/xen.cfg", Some((mac, ScriptKind::XenCfg))),
            ("52:54:00:AA:BB:01/xen.cfg", Some((mac, ScriptKind::XenCfg))),
            ("52:54:00:aa:bb:01/words", Some((mac, ScriptKind::Words))),
            ("52-54-00-aa-bb.ipxe", None),
            ("52-54-00-aa-bb-01/../xen.cfg", None),
            ("52-54-00-aa-bb-01", None),
            (".ipxe", None),
            ("", None),
        ] {
            assert_eq!(script(path), wanted, "{path}");
        }
    }
}
