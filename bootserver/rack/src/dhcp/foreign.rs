//! Other DHCP and PXE servers on our network: who they are, and whose offer won.
//!
//! Owns: the sentences for the log, and saying each seldom. Never does: answer, or decide what a client is told.

use super::{ServerKind, ServerReply};
use crate::event::Now;
use crate::policy::Serves;
use proto::Mac;
use proto::event::Level;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Servers that are remembered, at most; whoever invents more is not reported.
const SERVERS_MAX: usize = 16;
/// The same is said of a server once in this time, milliseconds.
const TELL_MS: u64 = 600_000;
/// An offer older than this is of another exchange, milliseconds.
const RIVAL_MS: u64 = 60_000;

/// What can be said of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Leases,
    Boots,
    Refuses,
    Won,
    Lost,
}

#[derive(Default)]
struct Seen {
    told_mono_ms: BTreeMap<What, u64>,
    offered_mono_ms: Option<u64>,
    leases: bool,
}

/// Servers that are not we, by their identifier (option 54).
#[derive(Default)]
pub(crate) struct Foreign {
    servers: BTreeMap<Ipv4Addr, Seen>,
}

/// What is to be written into the log.
pub(crate) type Line = Option<(Level, String)>;

impl Foreign {
    /// Another server was heard to answer a client.
    pub(crate) fn heard(&mut self, reply: &ServerReply, server: Ipv4Addr, serves: Serves, now: Now) -> Line {
        let leases_too = self.servers.iter().any(|(other, seen)| *other != server && seen.leases);
        let seen = self.seen(server)?;
        let mac = reply.mac;
        seen.leases |= reply.address.is_some();
        if reply.kind != ServerKind::Nak {
            seen.offered_mono_ms = Some(now.mono_ms);
        }
        let (what, level, text) = match (serves, reply.kind, reply.address, reply.boots) {
            (_, ServerKind::Nak, ..) => (
                What::Refuses,
                Level::Warning,
                format!("another DHCP server, {server}, refused {mac} its address: machines it refuses boot from disk"),
            ),
            (_, _, None, _) | (Serves::Proxy, _, _, true) => (
                What::Boots,
                Level::Warning,
                format!(
                    "another PXE server, {server}, tells {mac} what to boot: which of the two it follows is up to its firmware"
                ),
            ),
            (Serves::Full, _, Some(address), _) => (
                What::Leases,
                Level::Warning,
                format!(
                    "another DHCP server, {server}, offers {mac} the address {address}: turn it off, or set subnet.dhcp to proxy"
                ),
            ),
            (Serves::Proxy, _, Some(address), false) => (
                What::Leases,
                if leases_too { Level::Warning } else { Level::Info },
                format!("the DHCP server {server} gives out addresses on this network: {mac} is offered {address}"),
            ),
        };
        seen.tell(what, now).then_some((level, text))
    }

    /// A client took another server's offer.
    pub(crate) fn won(&mut self, mac: Mac, server: Ipv4Addr, serves: Serves, now: Now) -> Line {
        let seen = self.seen(server)?;
        seen.leases = true;
        if !seen.tell(What::Won, now) {
            return None;
        }
        Some(match serves {
            Serves::Full => (
                Level::Warning,
                format!(
                    "{mac} took the offer of another DHCP server, {server}, and not ours: it does not boot from here"
                ),
            ),
            Serves::Proxy => (Level::Info, format!("{mac} took the address that the DHCP server {server} offered")),
        })
    }

    /// A client took our offer although another server had made one.
    pub(crate) fn lost(&mut self, mac: Mac, now: Now) -> Line {
        let rival = |seen: &Seen| {
            seen.leases && seen.offered_mono_ms.is_some_and(|at| now.mono_ms.saturating_sub(at) < RIVAL_MS)
        };
        let (server, seen) = self.servers.iter_mut().find(|(_, seen)| rival(seen))?;
        let text = format!(
            "{mac} took our offer and not that of the other DHCP server, {server}: the next time it may be the other way round"
        );
        seen.tell(What::Lost, now).then_some((Level::Warning, text))
    }

    fn seen(&mut self, server: Ipv4Addr) -> Option<&mut Seen> {
        if self.servers.len() >= SERVERS_MAX && !self.servers.contains_key(&server) {
            return None;
        }
        Some(self.servers.entry(server).or_default())
    }
}

impl Seen {
    fn tell(&mut self, what: What, now: Now) -> bool {
        let told = self.told_mono_ms.get(&what).is_some_and(|&at| now.mono_ms.saturating_sub(at) < TELL_MS);
        if !told {
            self.told_mono_ms.insert(what, now.mono_ms);
        }
        !told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 1]);

    fn at(s: u64) -> Now {
        Now { mono_ms: s * 1000, unix_ms: s * 1000 }
    }

    fn reply(kind: ServerKind, address: Option<u8>, boots: bool) -> ServerReply {
        let address = address.map(|last| Ipv4Addr::new(10, 77, 0, last));
        ServerReply { mac: MAC, kind, server: None, address, boots }
    }

    fn check(line: Line, expect: Expect) {
        expect.assert_eq(&line.map_or("nothing".to_owned(), |(level, text)| format!("{level:?}: {text}")));
    }

    #[test]
    fn beside_our_own_leases() {
        let (mut foreign, other) = (Foreign::default(), Ipv4Addr::new(10, 77, 0, 9));
        check(foreign.lost(MAC, at(0)), expect!["nothing"]);
        let heard = |foreign: &mut Foreign, reply, s| foreign.heard(&reply, other, Serves::Full, at(s));
        let offer = reply(ServerKind::Offer, Some(60), false);
        check(
            heard(&mut foreign, offer, 1),
            expect![
                "Warning: another DHCP server, 10.77.0.9, offers 52:54:00:aa:bb:01 the address 10.77.0.60: turn it off, or set subnet.dhcp to proxy"
            ],
        );
        check(heard(&mut foreign, offer, 2), expect!["nothing"]);
        check(
            foreign.lost(MAC, at(3)),
            expect![
                "Warning: 52:54:00:aa:bb:01 took our offer and not that of the other DHCP server, 10.77.0.9: the next time it may be the other way round"
            ],
        );
        check(
            foreign.won(MAC, other, Serves::Full, at(4)),
            expect![
                "Warning: 52:54:00:aa:bb:01 took the offer of another DHCP server, 10.77.0.9, and not ours: it does not boot from here"
            ],
        );
        check(
            heard(&mut foreign, reply(ServerKind::Offer, None, true), 5),
            expect![
                "Warning: another PXE server, 10.77.0.9, tells 52:54:00:aa:bb:01 what to boot: which of the two it follows is up to its firmware"
            ],
        );
        check(
            heard(&mut foreign, reply(ServerKind::Nak, None, false), 6),
            expect![
                "Warning: another DHCP server, 10.77.0.9, refused 52:54:00:aa:bb:01 its address: machines it refuses boot from disk"
            ],
        );
        assert!(heard(&mut foreign, offer, 601).is_some(), "said again after ten minutes");
    }

    #[test]
    fn as_a_proxy() {
        let (mut foreign, other) = (Foreign::default(), Ipv4Addr::new(10, 77, 0, 9));
        let offer = reply(ServerKind::Offer, Some(60), false);
        check(
            foreign.heard(&offer, other, Serves::Proxy, at(1)),
            expect![
                "Info: the DHCP server 10.77.0.9 gives out addresses on this network: 52:54:00:aa:bb:01 is offered 10.77.0.60"
            ],
        );
        check(
            foreign.won(MAC, other, Serves::Proxy, at(2)),
            expect!["Info: 52:54:00:aa:bb:01 took the address that the DHCP server 10.77.0.9 offered"],
        );
        let second = Ipv4Addr::new(10, 77, 0, 10);
        check(
            foreign.heard(&offer, second, Serves::Proxy, at(3)),
            expect![
                "Warning: the DHCP server 10.77.0.10 gives out addresses on this network: 52:54:00:aa:bb:01 is offered 10.77.0.60"
            ],
        );
        check(
            foreign.heard(&reply(ServerKind::Ack, Some(60), true), second, Serves::Proxy, at(4)),
            expect![
                "Warning: another PXE server, 10.77.0.10, tells 52:54:00:aa:bb:01 what to boot: which of the two it follows is up to its firmware"
            ],
        );
    }

    #[test]
    fn invented_servers_use_up_nothing() {
        let mut foreign = Foreign::default();
        for n in 0..100_000_u32 {
            foreign.heard(&reply(ServerKind::Offer, Some(60), false), Ipv4Addr::from(n), Serves::Full, at(0));
        }
        assert_eq!(foreign.servers.len(), SERVERS_MAX);
    }
}
