//! What becomes of a client's packet: pure functions from the packet, the subnet and where the client stands.
//!
//! Never does: look up or change leases; the caller says what they hold, and does what is decided.

use super::clients::{Client, Vendor};
use super::{BootRequest, MessageKind, Port};
use crate::policy::Subnet;
use std::net::Ipv4Addr;

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

/// Decides for a subnet whose addresses are given out here, by RFC 2131 §4.3.
pub fn decide(request: &BootRequest, subnet: &Subnet, standing: Standing) -> Decision {
    let some = |address: Ipv4Addr| Some(address).filter(|a| !a.is_unspecified());
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

/// What becomes of a packet where another server gives out the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// Offer what to boot, without an address.
    Offer,
    /// Acknowledge on port 4011, with what to boot.
    Ack {
        /// The client's address, by its own word.
        address: Ipv4Addr,
    },
    /// Nothing is said. It took another server's offer of this address.
    Took {
        /// Whose.
        server: Ipv4Addr,
        /// Which.
        address: Ipv4Addr,
    },
    /// Nothing is said.
    Silent,
}

/// Decides for a subnet of another server: a proxy never gives an address and never refuses one (PXE 2.1 §2.2.3).
pub fn decide_proxied(request: &BootRequest, client: Client, subnet: &Subnet) -> Proxied {
    let boots = client.firmware().is_some() || client.quirks(true).vendor == Vendor::Wait;
    let ours = request.server.is_none_or(|server| server == subnet.server);
    match (request.port, request.kind) {
        (Port::Server, MessageKind::Discover) if boots && ours => Proxied::Offer,
        (Port::Server, MessageKind::Request) => match (request.server, request.requested) {
            (Some(server), Some(address)) if !ours && subnet.contains(address) => Proxied::Took { server, address },
            _ => Proxied::Silent,
        },
        // Older clients ask by INFORM (WfM 2.0), EDK2 and ROMs of PXE 2.1 by REQUEST. The answer goes to where the question
        // came from: only within the network, or we could be made to send elsewhere.
        (Port::Binl { from }, MessageKind::Request | MessageKind::Inform) if boots && subnet.contains(*from.ip()) => {
            Proxied::Ack { address: *from.ip() }
        }
        _ => Proxied::Silent,
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
    use proto::host::Firmware;
    use std::net::SocketAddrV4;

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
    fn by_proxy() {
        let us = subnet().server;
        let check = |client: Client, change: &dyn Fn(&mut BootRequest), expect: Expect| {
            let mac = "52:54:00:aa:bb:01".parse().expect("a MAC");
            let mut request = BootRequest::plain(mac, 1, MessageKind::Discover);
            change(&mut request);
            expect.assert_eq(&format!("{:?}", decide_proxied(&request, client, &subnet())));
        };
        let ip = |last: u8| Ipv4Addr::new(10, 77, 0, last);
        let (rom, uefi) = (Client::Pxe(Firmware::Bios), Client::Pxe(Firmware::Uefi));
        check(rom, &|_| (), expect!["Offer"]);
        check(Client::Http, &|_| (), expect!["Offer"]);
        check(Client::NoImage { architecture: 11 }, &|_| (), expect!["Offer"]);
        check(Client::Plain, &|_| (), expect!["Silent"]);
        let took = |server: Ipv4Addr, address: Ipv4Addr| {
            move |r: &mut BootRequest| {
                r.kind = MessageKind::Request;
                (r.server, r.requested) = (Some(server), Some(address));
            }
        };
        check(rom, &took(ip(9), ip(60)), expect!["Took { server: 10.77.0.9, address: 10.77.0.60 }"]);
        check(rom, &took(ip(9), Ipv4Addr::new(10, 1, 0, 60)), expect!["Silent"]);
        check(rom, &took(us, ip(60)), expect!["Silent"]); // never assigns
        // Whatever a NAK would be due for.
        for kind in [MessageKind::Request, MessageKind::Release, MessageKind::Decline, MessageKind::Inform] {
            check(rom, &|r| (r.kind, r.requested) = (kind, Some(Ipv4Addr::new(192, 168, 1, 1))), expect!["Silent"]);
            check(rom, &|r| (r.kind, r.ciaddr) = (kind, ip(60)), expect!["Silent"]);
        }
        let binl = |kind: MessageKind, from: Ipv4Addr| {
            move |r: &mut BootRequest| {
                (r.kind, r.port) = (kind, Port::Binl { from: SocketAddrV4::new(from, 68) });
            }
        };
        check(uefi, &binl(MessageKind::Request, ip(60)), expect!["Ack { address: 10.77.0.60 }"]);
        check(uefi, &binl(MessageKind::Inform, ip(60)), expect!["Ack { address: 10.77.0.60 }"]);
        check(uefi, &binl(MessageKind::Request, Ipv4Addr::new(192, 0, 2, 1)), expect!["Silent"]);
        check(uefi, &binl(MessageKind::Discover, ip(60)), expect!["Silent"]);
        check(Client::Plain, &binl(MessageKind::Request, ip(60)), expect!["Silent"]);
    }
}
