//! Who asks: kinds of boot clients, told apart by what they send, and what is peculiar to each.
//!
//! Owns: the one table of architectures and firmware quirks. Never does: write an option; `reply` asks here.
//!
//! A new quirk goes into the table, with where it was seen or read.

use super::BootRequest;
use super::reply::{LOADER_BIOS, LOADER_UEFI};
use proto::host::Firmware;

/// Who asks, as far as it matters for what it is told to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Boots nothing from us: a guest, an operating system.
    Plain,
    /// A network card's or firmware's own PXE client.
    Pxe(Firmware),
    /// iPXE, which takes a script.
    Ipxe(Firmware),
    /// UEFI HTTP Boot.
    Http,
    /// dom0's initrd within a unified image, which asks where its words are.
    Dom0,
    /// Wants to boot, and there is no image for it.
    NoImage {
        /// The first that it named in option 93.
        architecture: u16,
    },
}

/// An architecture of option 93 and its firmware.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// Its number, RFC 4578 §2.1 and the IANA registry "Processor Architecture Types".
    pub number: u16,
    /// Its name there.
    pub name: &'static str,
    /// What its own client is; `None` when there is no image for it.
    pub client: Option<Client>,
}

/// All that are told apart; others are "unknown".
pub const ARCHITECTURES: [Architecture; 12] = [
    known(0, "x86 BIOS", Client::Pxe(Firmware::Bios)),
    none(6, "x86 UEFI"),
    // RFC 4578 had 7 (EFI byte code) and 9 (x64) the wrong way round, and firmware of both readings is about.
    known(7, "x64 UEFI", Client::Pxe(Firmware::Uefi)),
    known(9, "x64 UEFI", Client::Pxe(Firmware::Uefi)),
    none(10, "ARM 32-bit UEFI"),
    none(11, "ARM 64-bit UEFI"),
    none(15, "x86 UEFI HTTP"),
    known(16, "x64 UEFI HTTP", Client::Http),
    none(18, "ARM 32-bit UEFI HTTP"),
    none(19, "ARM 64-bit UEFI HTTP"),
    none(27, "RISC-V 64-bit UEFI"),
    none(28, "RISC-V 64-bit UEFI HTTP"),
];

const fn known(number: u16, name: &'static str, client: Client) -> Architecture {
    Architecture { number, name, client: Some(client) }
}

const fn none(number: u16, name: &'static str) -> Architecture {
    Architecture { number, name, client: None }
}

/// The name of an architecture.
pub fn name(architecture: u16) -> &'static str {
    ARCHITECTURES.iter().find(|a| a.number == architecture).map_or("unknown", |a| a.name)
}

/// Option 60 of dom0's initrd.
const DOM0_CLASS: &[u8] = b"tsubame-dom0";

/// What is peculiar to a kind of client when it is told what to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// What option 60 of the answer is; absent when it must not be there.
    pub class: Option<&'static str>,
    /// Option 43.
    pub vendor: Vendor,
    /// Option 66 is told: where TFTP is.
    pub tftp_server: bool,
    /// The first stage that it takes; `None` for a script's URL, or for nothing.
    pub loader: Option<&'static str>,
}

/// What stands in option 43 (PXE 2.1 §2.3 table 2-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// No option 43.
    Absent,
    /// 43.6 = 8: take the file as named, look for no boot servers.
    TakeFile,
    /// A menu that waits for a key without an end: the machine stands still and says why.
    Wait,
}

impl Client {
    /// Tells them apart by options 77 and 175 (iPXE), 60 and 93.
    pub fn of(request: &BootRequest) -> Self {
        let class = request.class.as_deref().unwrap_or_default();
        if class == DOM0_CLASS {
            return Self::Dom0;
        }
        let boots = class.starts_with(b"PXEClient") || class.starts_with(b"HTTPClient");
        let own = |number: &u16| ARCHITECTURES.iter().find(|a| a.number == *number).and_then(|a| a.client);
        // A client that can boot several names the best first; any that there is an image for will do.
        let client = match (request.architectures.iter().find_map(own), request.architectures.first()) {
            (Some(client), _) => client,
            (None, Some(&architecture)) => return Self::NoImage { architecture },
            // Without option 93 it is older than UEFI.
            (None, None) if boots || is_ipxe(request) => Self::Pxe(Firmware::Bios),
            (None, None) => return Self::Plain,
        };
        match client {
            Self::Pxe(firmware) if is_ipxe(request) => Self::Ipxe(firmware),
            Self::Http if is_ipxe(request) => Self::Ipxe(Firmware::Uefi),
            client => client,
        }
    }

    /// The firmware that this client runs under, if it boots from us.
    pub fn firmware(self) -> Option<Firmware> {
        match self {
            Self::Plain | Self::Dom0 | Self::NoImage { .. } => None,
            Self::Pxe(firmware) | Self::Ipxe(firmware) => Some(firmware),
            Self::Http => Some(Firmware::Uefi),
        }
    }

    /// What is peculiar to it. `proxy`: another server gives it its address.
    pub fn quirks(self, proxy: bool) -> Quirks {
        let pxe = Some("PXEClient");
        match self {
            Self::Plain | Self::Dom0 => {
                Quirks { class: None, vendor: Vendor::Absent, tftp_server: false, loader: None }
            }
            // Without 43.6 a ROM may look for boot servers by broadcast and multicast first (PXE 2.1 §2.3).
            Self::Pxe(Firmware::Bios) => {
                Quirks { class: pxe, vendor: Vendor::TakeFile, tftp_server: true, loader: Some(LOADER_BIOS) }
            }
            // To EDK2's PXE client the class without option 43 means a boot server to be asked on port 4011 (BINL), and
            // without an answer there it gives up (PXE-E16). Some UEFI ignores a proxy's offer with 43.6 (seen by pixiecore's
            // authors). So: as a full server no class, and it takes the file; as a proxy the class, no 43, and port 4011.
            Self::Pxe(Firmware::Uefi) => Quirks {
                class: if proxy { pxe } else { None },
                vendor: Vendor::Absent,
                tftp_server: true,
                loader: Some(LOADER_UEFI),
            },
            Self::Ipxe(_) => Quirks { class: pxe, vendor: Vendor::Absent, tftp_server: true, loader: None },
            // EDK2 drops an HTTP offer without the class. There is no TFTP in this way of booting.
            Self::Http => Quirks {
                class: Some("HTTPClient"),
                vendor: Vendor::Absent,
                tftp_server: false,
                loader: Some(LOADER_UEFI),
            },
            Self::NoImage { .. } => Quirks { class: pxe, vendor: Vendor::Wait, tftp_server: false, loader: None },
        }
    }
}

/// iPXE sends its user class raw; others wrap each class in a length byte (RFC 3004 §4). Its own option 175 also tells.
fn is_ipxe(request: &BootRequest) -> bool {
    let mut class = request.user_class.as_deref().unwrap_or_default();
    if class == b"iPXE" || request.ipxe_options {
        return true;
    }
    while let [length, rest @ ..] = class {
        let Some((one, rest)) = rest.split_at_checked(usize::from(*length)) else { return false };
        if one == b"iPXE" {
            return true;
        }
        class = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::MessageKind;
    use expect_test::{Expect, expect};

    #[test]
    fn clients() {
        let check = |archs: &[u16], class: &str, user: &[u8], expect: Expect| {
            let mac = "52:54:00:aa:bb:01".parse().expect("a MAC");
            let mut request = BootRequest::plain(mac, 1, MessageKind::Discover);
            request.architectures = archs.to_vec();
            request.class = Some(class.as_bytes().to_vec()).filter(|c| !c.is_empty());
            request.user_class = Some(user.to_vec()).filter(|c| !c.is_empty());
            expect.assert_eq(&format!("{:?}", Client::of(&request)));
        };
        check(&[0], "PXEClient:Arch:00000:UNDI:002001", b"", expect!["Pxe(Bios)"]);
        check(&[7], "PXEClient:Arch:00007:UNDI:003016", b"", expect!["Pxe(Uefi)"]);
        check(&[9], "PXEClient:Arch:00009:UNDI:003016", b"", expect!["Pxe(Uefi)"]);
        check(&[7], "PXEClient", b"iPXE", expect!["Ipxe(Uefi)"]);
        check(&[0], "PXEClient", b"\x04iPXE", expect!["Ipxe(Bios)"]);
        check(&[0], "PXEClient", b"\x03abc\x04iPXE", expect!["Ipxe(Bios)"]);
        check(&[0], "PXEClient", b"\xffiPXE", expect!["Pxe(Bios)"]);
        check(&[16], "HTTPClient:Arch:00016:UNDI:003016", b"", expect!["Http"]);
        check(&[16], "HTTPClient", b"iPXE", expect!["Ipxe(Uefi)"]);
        check(&[11, 7], "PXEClient", b"", expect!["Pxe(Uefi)"]);
        check(&[11], "PXEClient", b"", expect!["NoImage { architecture: 11 }"]);
        check(&[19], "HTTPClient", b"", expect!["NoImage { architecture: 19 }"]);
        check(&[11], "PXEClient", b"iPXE", expect!["NoImage { architecture: 11 }"]);
        check(&[999], "PXEClient", b"", expect!["NoImage { architecture: 999 }"]);
        check(&[], "PXEClient", b"", expect!["Pxe(Bios)"]);
        check(&[], "udhcp 1.35.0", b"", expect!["Plain"]);
        check(&[], "tsubame-dom0", b"", expect!["Dom0"]);
        check(&[], "", b"", expect!["Plain"]);
    }

    #[test]
    fn architectures_have_one_row_each() {
        for (at, row) in ARCHITECTURES.iter().enumerate() {
            assert!(ARCHITECTURES[..at].iter().all(|other| other.number < row.number), "{row:?}");
        }
        assert_eq!((name(11), name(12_345)), ("ARM 64-bit UEFI", "unknown"));
    }
}
