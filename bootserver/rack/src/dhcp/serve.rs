//! The rack's DHCP: each packet decided by the pure functions beside, and what was decided done to the lease book.
//!
//! Owns: which subnet a packet is of, leases of known machines, and what is learnt where another server gives out the
//! addresses. Never does: give a known machine's address away.

use super::clients::{self, Client};
use super::decide::{Decision, Proxied, Refusal, Standing, decide, decide_proxied};
use super::reply::{Told, reply};
use super::{BootRequest, DhcpReply, MessageKind, Port, ServerReply};
use crate::Rack;
use crate::effect::ScriptRefusal;
use crate::event::Now;
use crate::policy::Serves;
use proto::event::{Level, Topic};
use proto::view::BootStepKind;
use proto::{HostId, Mac};
use std::net::Ipv4Addr;

/// The lease of a machine that nobody knows, at most, seconds: invented machines use up a pool for so long only.
const STRANGER_LEASE_S_MAX: u32 = 600;
/// A machine that asked to boot within this may fetch its script before its address was heard, milliseconds.
const UNHEARD_MS: u64 = 300_000;

impl Rack {
    /// A machine whose lease is never taken: let in, registered, or a VM of ours.
    pub(crate) fn known(&self, mac: Mac) -> bool {
        self.vm_macs.contains_key(&mac)
            || self.hosts.get(&self.host_of(mac)).is_some_and(|host| host.accepted || host.registered)
    }

    /// The address of a machine that is up: its disks are open to it, and dom0 keeps it until the next boot. So it stays in our book, whatever a
    /// packet says and whatever is reserved meanwhile.
    fn held_address(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.leases.address_of(self.first_card(mac)).filter(|_| self.present(&self.host_of(mac)))
    }

    fn propose(&self, mac: Mac, link: usize, now: Now) -> Option<Ipv4Addr> {
        let subnet = self.policy.link(link);
        if let Some(held) = self.held_address(mac) {
            return subnet.contains(held).then_some(held);
        }
        // An address of which the book knows nothing may have been given away after the backup that it is of.
        let has_one = self.leases.address_of(mac).is_some() || subnet.reservations.contains_key(&mac);
        if !has_one && self.book_is_old(subnet.lease_s, now) {
            return None;
        }
        self.leases.propose(mac, subnet, now, |mac| self.known(mac))
    }

    fn lease_s(&self, mac: Mac, link: usize) -> u32 {
        let subnet = self.policy.link(link);
        if self.known(mac) || subnet.reservations.contains_key(&mac) {
            subnet.lease_s
        } else {
            subnet.lease_s.min(STRANGER_LEASE_S_MAX)
        }
    }

    /// Leases an address before it is asked for, where that is for us to do: in the subnet where the machine was or has a
    /// reservation, else in our own.
    pub(crate) fn lease_ahead(&mut self, mac: Mac, now: Now) {
        let reserved = self.policy.subnets().position(|subnet| subnet.reservations.contains_key(&mac));
        let reserved = reserved.filter(|_| self.held_address(mac).is_none());
        let had = self.leases.address_of(mac).and_then(|address| self.policy.link_of(address));
        let link = reserved.or(had).unwrap_or(0);
        if self.policy.link(link).serves == Serves::Full
            && let Some(address) = self.propose(mac, link, now)
        {
            self.leases.lease(mac, address, self.lease_s(mac, link), now);
        }
    }

    /// Keeps the lease of a machine that is there but runs no DHCP client, as dom0 does.
    pub(crate) fn lease_on(&mut self, mac: Mac, now: Now) {
        if let Some(address) = self.leases.address_of(mac) {
            let link = self.policy.link_of(address).unwrap_or(0);
            self.leases.lease(mac, address, self.lease_s(mac, link), now);
        }
    }

    /// Answers a DHCP packet; `None` is silence.
    pub(crate) fn dhcp(&mut self, request: &BootRequest, now: Now) -> Option<DhcpReply> {
        self.recognise(request);
        let mac = request.mac;
        let link = match self.link(request) {
            Ok(link) => link,
            Err(why) => {
                self.warn_seldom(Topic::Dhcp, now, format!("{mac} is not served: {why}"));
                return None;
            }
        };
        let client = Client::of(request);
        if let Client::NoImage { architecture } = client {
            let name = clients::name(architecture);
            let text = format!("{mac} cannot boot: no image for this architecture, {name} ({architecture})");
            self.warn_seldom(Topic::Boot, now, text);
            // UEFI HTTP Boot knows no menu to wait in: there is nothing that would hold such a machine.
            if request.class.as_deref().is_some_and(|class| class.starts_with(b"HTTPClient")) {
                return None;
            }
        }
        match self.policy.link(link).serves {
            Serves::Full => self.lease_out(request, client, link, now),
            Serves::Proxy => self.proxy(request, client, link, now),
        }
    }

    /// The number of the subnet that a packet is of: by the relay's word (RFC 3527), else by the relay's address, else by
    /// the address that the client has (a renewal crosses routers by itself), else ours.
    fn link(&self, request: &BootRequest) -> Result<usize, Refusal> {
        let of = |address: Ipv4Addr| self.policy.link_of(address).ok_or(Refusal::OtherNetwork { address });
        if let Port::Binl { from } = request.port {
            return of(*from.ip());
        }
        if !request.giaddr.is_unspecified() {
            return of(request.link.unwrap_or(request.giaddr));
        }
        Ok(self.policy.link_of(request.ciaddr).filter(|_| !request.ciaddr.is_unspecified()).unwrap_or(0))
    }

    /// Where the addresses are ours.
    fn lease_out(&mut self, request: &BootRequest, client: Client, link: usize, now: Now) -> Option<DhcpReply> {
        let (mac, holder) = (request.mac, self.first_card(request.mac));
        let subnet = self.policy.link(link);
        if let Some(server) = request.server.filter(|&server| server != subnet.server) {
            self.leases.forget_offer(holder);
            if request.kind == MessageKind::Request {
                let line = self.foreign.won(mac, server, Serves::Full, now);
                self.note(line, now);
            }
            return None;
        }
        let named = if request.ciaddr.is_unspecified() { request.requested } else { Some(request.ciaddr) };
        // Who goes on with an address that was given after the backup is believed, while nobody else has it.
        let goes_on = named.filter(|&address| {
            let in_pool = (subnet.pool.0..=subnet.pool.1).contains(&address) && address != subnet.server;
            let reserved = subnet.reservations.values().any(|&other| other == address);
            in_pool && !reserved && self.leases.mac_at(address).is_none() && self.book_is_old(subnet.lease_s, now)
        });
        let lease = self.leases.address_of(holder).or(goes_on);
        let standing = Standing {
            lease: lease.filter(|&address| subnet.contains(address)),
            proposal: self.propose(holder, link, now),
            named_is_anothers: named.and_then(|a| self.leases.mac_at(a)).is_some_and(|other| other != holder),
        };
        let lease_s = self.lease_s(holder, link);
        let boots = client.firmware().is_some();
        let told = match decide(request, subnet, standing) {
            Decision::Offer(address) => {
                if boots {
                    self.way_up_begins(mac, client, now)?;
                }
                self.leases.offer(holder, address, now);
                Told::Offer { address, lease_s }
            }
            Decision::Ack(address) => {
                if boots {
                    self.way_up_begins(mac, client, now)?;
                }
                if !self.leases.lease(holder, address, lease_s, now) {
                    return None;
                }
                self.step_ends(&self.host_of(mac), BootStepKind::Dhcp, now);
                if request.server.is_some() && link == 0 {
                    let line = self.foreign.lost(mac, now);
                    self.note(line, now);
                }
                Told::Ack { address, lease_s }
            }
            Decision::Inform => Told::Inform,
            Decision::Nak(why) => Told::Nak(why),
            Decision::Release(_) => {
                // A ROM that lets go of its address hands over to a loader that needs the same one.
                if !self.hosts.contains(&self.host_of(mac)) {
                    self.leases.release(holder, now);
                }
                return None;
            }
            Decision::Decline(address) => {
                if !self.present(&self.host_of(mac)) && !subnet.reservations.contains_key(&holder) {
                    self.leases.decline(holder, address, now);
                    let text =
                        format!("{mac} found {address} in use by another machine; it is not given out for 10 minutes");
                    // Anybody on the network can cause it as often as they like.
                    self.warn_seldom(Topic::Dhcp, now, text);
                }
                return None;
            }
            Decision::Silent(why) => {
                if why == Refusal::PoolFull {
                    let why = if self.held_address(mac).is_some() {
                        "its host is up, with one of another network"
                    } else if self.book_is_old(self.policy.link(link).lease_s, now) {
                        "none is given anew until the leases from before the restore have ended"
                    } else {
                        "all are leased or reserved"
                    };
                    self.warn_seldom(Topic::Dhcp, now, format!("{mac} got no address: {why}"));
                }
                return None;
            }
        };
        Some(reply(request, self.policy.link(link), client, told))
    }

    /// Where another server gives out the addresses.
    fn proxy(&mut self, request: &BootRequest, client: Client, link: usize, now: Now) -> Option<DhcpReply> {
        let mac = request.mac;
        let boots = client.firmware().is_some();
        let told = match decide_proxied(request, client, self.policy.link(link)) {
            Proxied::Offer => {
                if boots {
                    self.way_up_begins(mac, client, now)?;
                }
                Told::ProxyOffer
            }
            Proxied::Ack { address } => {
                if boots {
                    self.way_up_begins(mac, client, now)?;
                    self.learn(mac, address, now);
                }
                Told::ProxyAck
            }
            Proxied::Took { server, address } => {
                let line = self.foreign.won(mac, server, Serves::Proxy, now);
                self.note(line, now);
                if boots {
                    self.learn(mac, address, now);
                }
                return None;
            }
            Proxied::Silent => return None,
        };
        Some(reply(request, self.policy.link(link), client, told))
    }

    /// A machine on its way up has an address from another server. Only for machines that are kept, so that invented ones
    /// fill nothing; and a machine that is there keeps the address under which its disks are open to it.
    fn learn(&mut self, mac: Mac, address: Ipv4Addr, now: Now) -> bool {
        let (host, first) = (self.host_of(mac), self.first_card(mac));
        let subnet = self.policy.subnet_at(address);
        let a_machines = (subnet.pool.0..=subnet.pool.1).contains(&address)
            && address != subnet.server
            && subnet.gateway != Some(address);
        if !self.hosts.contains(&host) || subnet.serves != Serves::Proxy || !a_machines {
            return false;
        }
        if self.leases.address_of(first) != Some(address) {
            let holder = self.leases.mac_at(address).map(HostId::of).filter(|holder| self.present(holder));
            if let Some(taken) = holder.or_else(|| self.present(&host).then(|| host.clone())) {
                let text = format!("{mac} says that it has the address {address}, but {taken} is there: not believed");
                self.warn_seldom(Topic::Dhcp, now, text);
                return false;
            }
            self.leases.learn(first, address);
        }
        self.step_ends(&host, BootStepKind::Dhcp, now);
        true
    }

    /// The address to which a machine's script goes. Where another server gives out the addresses and the machine was not
    /// heard to take one, it is that from which it asks, soon after it has asked by DHCP.
    pub(crate) fn address_for_script(&mut self, mac: Mac, from: Ipv4Addr, now: Now) -> Result<Ipv4Addr, ScriptRefusal> {
        match self.leases.address_of(self.first_card(mac)) {
            Some(lease) if lease == from => Ok(lease),
            Some(lease) => Err(ScriptRefusal::OtherAddress { mac, lease, from }),
            None => {
                let asked = self.live.get(&self.host_of(mac)).and_then(|live| live.asked_mono_ms);
                let lately = asked.is_some_and(|at| now.mono_ms.saturating_sub(at) < UNHEARD_MS);
                let learnt = lately && self.policy.link_of(from).is_some() && self.learn(mac, from, now);
                if learnt { Ok(from) } else { Err(ScriptRefusal::NoLease { mac }) }
            }
        }
    }

    /// What another server gave a machine is forgotten with the machine.
    pub(crate) fn forget_learnt(&mut self, mac: Mac) {
        let address = self.leases.address_of(mac);
        if address.is_some_and(|address| self.policy.subnet_at(address).serves == Serves::Proxy) {
            self.leases.remove(mac);
        }
    }

    /// A subnet that was another server's and is now ours: what was learnt there has no end, and would be in the pool's way
    /// for ever. Each machine comes back to its address while it is free.
    pub(crate) fn end_learnt(&mut self, now: Now) {
        let ours = |address| self.policy.subnet_at(address).serves == Serves::Full;
        let learnt = self.leases.table.values().filter(|lease| lease.expires_ms == u64::MAX && ours(lease.address));
        for mac in learnt.map(|lease| lease.mac).collect::<Vec<_>>() {
            self.leases.release(mac, now);
        }
    }

    /// Another server was heard on our network.
    pub(crate) fn dhcp_heard(&mut self, reply: ServerReply, now: Now) {
        let (ours, serves) = (self.policy.subnet.server, self.policy.subnet.serves);
        if let Some(server) = reply.server.filter(|&server| server != ours) {
            let line = self.foreign.heard(&reply, server, serves, now);
            self.note(line, now);
        }
    }

    fn note(&mut self, line: super::foreign::Line, now: Now) {
        match line {
            Some((Level::Info, text)) => self.info(Topic::Dhcp, now, text, |_| ()),
            Some((_, text)) => self.warn(Topic::Dhcp, now, text, |_| ()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
