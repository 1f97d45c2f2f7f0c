//! What becomes of a client's packet: one pure function from the packet, the subnet and where the client stands.
//!
//! Never does: look up or change leases; the caller says what they hold, and does what is decided.

use super::{BootRequest, MessageKind};
use crate::policy::Subnet;
use proto::host::Firmware;
use std::net::Ipv4Addr;

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
}

impl Client {
    /// Tells them apart by options 77 and 175 (iPXE), 60 and 93 (RFC 4578; architectures by the IANA registry:
    /// 0 is BIOS, 7 and 9 both x64 UEFI as RFC 4578 had them swapped, 16 x64 HTTP Boot).
    pub fn of(request: &BootRequest) -> Result<Self, Refusal> {
        let class = request.class.as_deref().unwrap_or_default();
        let known = request.architectures.iter().find_map(|arch| match arch {
            0 => Some(Self::Pxe(Firmware::Bios)),
            7 | 9 => Some(Self::Pxe(Firmware::Uefi)),
            16 => Some(Self::Http),
            _ => None,
        });
        let boots = class.starts_with(b"PXEClient") || class.starts_with(b"HTTPClient");
        let client = match (known, request.architectures.first()) {
            (Some(client), _) => client,
            (None, Some(&architecture)) => return Err(Refusal::Architecture { architecture }),
            (None, None) if boots || is_ipxe(request) => Self::Pxe(Firmware::Bios),
            (None, None) => return Ok(Self::Plain),
        };
        Ok(match client {
            Self::Pxe(firmware) if is_ipxe(request) => Self::Ipxe(firmware),
            Self::Http if is_ipxe(request) => Self::Ipxe(Firmware::Uefi),
            client => client,
        })
    }

    /// The firmware that this client runs under, if it boots from us.
    pub fn firmware(self) -> Option<Firmware> {
        match self {
            Self::Plain => None,
            Self::Pxe(firmware) | Self::Ipxe(firmware) => Some(firmware),
            Self::Http => Some(Firmware::Uefi),
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

/// Where a client stands in the lease book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its lease, expired or not.
    pub lease: Option<Ipv4Addr>,
    /// What it would be given now: its lease, its reservation or a free address.
    pub proposal: Option<Ipv4Addr>,
    /// The address that the packet names as the client's is leased to another.
    pub named_is_anothers: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Offer the address.
    Offer(Ipv4Addr),
    /// Lease it, durably, then acknowledge.
    Ack(Ipv4Addr),
    /// Answer with options, no address.
    Inform,
    /// Say no.
    Nak(Refusal),
    /// The client gives the address back; no answer.
    Release(Ipv4Addr),
    /// The client found the address in use; no answer.
    Decline(Ipv4Addr),
    /// No answer.
    Silent(Refusal),
}

/// Why a client is not given what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has chosen another server.
    #[error("meant for server {server}")]
    OtherServer {
        /// Which.
        server: Ipv4Addr,
    },
    /// No x64 machine.
    #[error("architecture {architecture} (option 93) is none that can be booted; 0, 7, 9 and 16 are")]
    Architecture {
        /// The first it named.
        architecture: u16,
    },
    /// Through a relay, or with an address, of a network that is not served here.
    #[error("{address} is not of this subnet")]
    OtherNetwork {
        /// Which.
        address: Ipv4Addr,
    },
    /// Every address is leased, reserved or quarantined.
    #[error("no address is free")]
    PoolFull,
    /// It names an address that is not its own.
    #[error("{named} is not its address")]
    WrongAddress {
        /// What it named.
        named: Ipv4Addr,
    },
    /// It names an address of which nothing is known; another server may know it (RFC 2131 §4.3.2).
    #[error("no lease is known")]
    NoLease,
    /// The packet fits no state of RFC 2131 §4.3.2 table 4.
    #[error("the fields contradict each other")]
    Malformed,
    /// More machines than are kept are neither accepted nor registered.
    #[error("too many machines wait to be accepted")]
    TooManyUnknown,
}

/// Decides, by RFC 2131 §4.3.
pub fn decide(request: &BootRequest, subnet: &Subnet, standing: Standing) -> Decision {
    let some = |address: Ipv4Addr| Some(address).filter(|a| !a.is_unspecified());
    if let Some(relay) = some(request.giaddr)
        && !subnet.contains(relay)
    {
        return Decision::Silent(Refusal::OtherNetwork { address: relay });
    }
    if let Some(server) = request.server
        && server != subnet.server
    {
        return Decision::Silent(Refusal::OtherServer { server });
    }
    match request.kind {
        MessageKind::Discover => match standing.proposal {
            Some(address) => Decision::Offer(address),
            None => Decision::Silent(Refusal::PoolFull),
        },
        MessageKind::Request => match (request.server, request.requested, some(request.ciaddr)) {
            // SELECTING
            (Some(_), Some(named), None) => match standing.proposal {
                Some(address) if address == named => Decision::Ack(address),
                Some(_) => Decision::Nak(Refusal::WrongAddress { named }),
                None => Decision::Nak(Refusal::PoolFull),
            },
            // INIT-REBOOT
            (None, Some(named), None) => again(named, subnet, standing),
            // RENEWING, REBINDING
            (_, _, Some(named)) => again(named, subnet, standing),
            (_, None, None) => Decision::Silent(Refusal::Malformed),
        },
        MessageKind::Inform => match some(request.ciaddr) {
            Some(address) if subnet.contains(address) => Decision::Inform,
            Some(address) => Decision::Silent(Refusal::OtherNetwork { address }),
            None => Decision::Silent(Refusal::Malformed),
        },
        MessageKind::Release => match some(request.ciaddr) {
            Some(address) if standing.lease == Some(address) => Decision::Release(address),
            _ => Decision::Silent(Refusal::NoLease),
        },
        MessageKind::Decline => match request.requested {
            Some(address) if standing.lease.or(standing.proposal) == Some(address) => Decision::Decline(address),
            _ => Decision::Silent(Refusal::NoLease),
        },
    }
}

/// A client that says it has an address already.
fn again(named: Ipv4Addr, subnet: &Subnet, standing: Standing) -> Decision {
    match standing.lease {
        Some(lease) if lease == named => Decision::Ack(lease),
        Some(_) => Decision::Nak(Refusal::WrongAddress { named }),
        None if !subnet.contains(named) => Decision::Nak(Refusal::OtherNetwork { address: named }),
        None if standing.named_is_anothers => Decision::Nak(Refusal::WrongAddress { named }),
        None => Decision::Silent(Refusal::NoLease),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::subnet;
    use expect_test::{Expect, expect};

    fn check(change: impl FnOnce(&mut BootRequest), lease: Option<&str>, expect: Expect) {
        let mac = "52:54:00:aa:bb:01".parse().expect("a MAC");
        let mut request = BootRequest::plain(mac, 1, MessageKind::Request);
        change(&mut request);
        let ip = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
        let standing = Standing {
            lease: lease.map(ip),
            proposal: Some(lease.map_or(ip("10.77.0.60"), ip)),
            named_is_anothers: request.ciaddr == ip("10.77.0.99"),
        };
        expect.assert_eq(&format!("{:?}", decide(&request, &subnet(), standing)));
    }

    #[test]
    fn requests_by_state() {
        let ip = |text: &str| Some(text.parse::<Ipv4Addr>().expect("an address"));
        let us = ip("10.77.0.1");
        check(|r| (r.server, r.requested) = (us, ip("10.77.0.60")), None, expect!["Ack(10.77.0.60)"]);
        check(
            |r| (r.server, r.requested) = (us, ip("10.77.0.61")),
            None,
            expect!["Nak(WrongAddress { named: 10.77.0.61 })"],
        );
        check(
            |r| (r.server, r.requested) = (ip("10.77.0.2"), ip("10.77.0.60")),
            None,
            expect!["Silent(OtherServer { server: 10.77.0.2 })"],
        );
        check(|r| r.requested = ip("10.77.0.70"), Some("10.77.0.70"), expect!["Ack(10.77.0.70)"]);
        check(|r| r.requested = ip("10.77.0.70"), None, expect!["Silent(NoLease)"]);
        check(|r| r.requested = ip("192.168.1.5"), None, expect!["Nak(OtherNetwork { address: 192.168.1.5 })"]);
        check(
            |r| r.requested = ip("10.77.0.71"),
            Some("10.77.0.70"),
            expect!["Nak(WrongAddress { named: 10.77.0.71 })"],
        );
        check(|r| r.ciaddr = ip("10.77.0.70").expect("some"), Some("10.77.0.70"), expect!["Ack(10.77.0.70)"]);
        check(|r| r.ciaddr = ip("10.77.0.99").expect("some"), None, expect!["Nak(WrongAddress { named: 10.77.0.99 })"]);
        check(|_| (), None, expect!["Silent(Malformed)"]);
        check(
            |r| r.giaddr = ip("10.78.0.1").expect("some"),
            None,
            expect!["Silent(OtherNetwork { address: 10.78.0.1 })"],
        );
        check(|r| r.kind = MessageKind::Discover, None, expect!["Offer(10.77.0.60)"]);
        check(|r| r.kind = MessageKind::Inform, None, expect!["Silent(Malformed)"]);
        check(
            |r| (r.kind, r.ciaddr) = (MessageKind::Release, ip("10.77.0.70").expect("some")),
            Some("10.77.0.70"),
            expect!["Release(10.77.0.70)"],
        );
        check(
            |r| (r.kind, r.requested) = (MessageKind::Decline, ip("10.77.0.70")),
            Some("10.77.0.70"),
            expect!["Decline(10.77.0.70)"],
        );
    }

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
        check(&[0], "PXEClient:Arch:00000:UNDI:002001", b"", expect!["Ok(Pxe(Bios))"]);
        check(&[7], "PXEClient:Arch:00007:UNDI:003016", b"", expect!["Ok(Pxe(Uefi))"]);
        check(&[9], "PXEClient", b"iPXE", expect!["Ok(Ipxe(Uefi))"]);
        check(&[0], "PXEClient", b"\x04iPXE", expect!["Ok(Ipxe(Bios))"]);
        check(&[0], "PXEClient", b"\x03abc\x04iPXE", expect!["Ok(Ipxe(Bios))"]);
        check(&[0], "PXEClient", b"\xffiPXE", expect!["Ok(Pxe(Bios))"]);
        check(&[16], "HTTPClient:Arch:00016:UNDI:003016", b"", expect!["Ok(Http)"]);
        check(&[11, 7], "PXEClient", b"", expect!["Ok(Pxe(Uefi))"]);
        check(&[11], "PXEClient", b"", expect!["Err(Architecture { architecture: 11 })"]);
        check(&[], "PXEClient", b"", expect!["Ok(Pxe(Bios))"]);
        check(&[], "udhcp 1.35.0", b"", expect!["Ok(Plain)"]);
        check(&[], "", b"", expect!["Ok(Plain)"]);
    }
}
