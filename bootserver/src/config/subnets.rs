//! Subnets: ours and the relayed ones, their pools and their reservations, none of them in another's way.

use super::ConfigError;
use super::check::Checker;
use super::form::{Dhcp, Form, Network, Range};
use rack::policy::{Serves, Subnet};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Subnets beyond relays, at most.
const RELAYED_MAX: usize = 256;

/// A subnet as it is written, ours or a relayed one.
struct Given<'a> {
    /// Its key.
    key: &'static str,
    network: &'a str,
    dhcp: Dhcp,
    pool: Option<&'a str>,
    gateway: Option<Ipv4Addr>,
    dns: &'a [Ipv4Addr],
    lease_s: u32,
}

impl Checker<'_> {
    /// Our own subnet, and those that are reached through relays.
    pub(super) fn subnets(&self, form: &Form) -> Result<(Subnet, Vec<Subnet>), ConfigError> {
        let given = &form.subnet;
        let ours = Given {
            key: "subnet",
            network: &given.network,
            dhcp: given.dhcp,
            pool: given.pool.as_deref(),
            gateway: given.gateway,
            dns: &given.dns,
            lease_s: given.lease_s,
        };
        let mut all = vec![self.subnet(form, &ours)?];
        if form.relayed.len() > RELAYED_MAX {
            return self
                .wrong("relayed", format!("has {} subnets, expected {RELAYED_MAX} or less", form.relayed.len()));
        }
        for given in &form.relayed {
            let given = Given {
                key: "relayed",
                network: &given.network,
                dhcp: given.dhcp,
                pool: given.pool.as_deref(),
                gateway: Some(given.gateway),
                dns: &given.dns,
                lease_s: given.lease_s,
            };
            let subnet = self.subnet(form, &given)?;
            let overlaps = |other: &Subnet| subnet.contains(other.network) || other.contains(subnet.network);
            if let Some(other) = all.iter().find(|other| overlaps(other)) {
                return self.wrong(
                    "relayed/network",
                    format!("is {}, which overlaps {}/{}", given.network, other.network, other.prefix),
                );
            }
            all.push(subnet);
        }
        self.reserve(form, &mut all)?;
        let ours = all.remove(0);
        Ok((ours, all))
    }

    /// One subnet, as yet without reservations.
    fn subnet(&self, form: &Form, given: &Given<'_>) -> Result<Subnet, ConfigError> {
        let key = |field: &str| format!("{}/{field}", given.key);
        let network: Network = given.network.parse().or_else(|what: String| self.wrong(&key("network"), what))?;
        let mut subnet = Subnet {
            serves: match given.dhcp {
                Dhcp::Full => Serves::Full,
                Dhcp::Proxy => Serves::Proxy,
            },
            network: network.address,
            prefix: network.prefix,
            server: form.subnet.address,
            pool: (network.address, network.address),
            reservations: BTreeMap::new(),
            gateway: given.gateway,
            dns: given.dns.to_vec(),
            lease_s: given.lease_s,
            boot_port: form.listen.boot_port,
            agent_port: form.listen.agent_port,
            ca_digest: String::new(),
        };
        let (first, last) = hosts(&subnet);
        let usable = |a: Ipv4Addr| (first..=last).contains(&a);
        let expected = |given: Ipv4Addr| format!("is {given}, expected a host's address of {}", shown(&subnet));
        if given.key == "subnet" && !usable(subnet.server) {
            return self.wrong(&key("address"), expected(subnet.server));
        }
        if let Some(gateway) = given.gateway
            && !usable(gateway)
        {
            return self.wrong(&key("gateway"), expected(gateway));
        }
        self.range(&key("lease_s"), given.lease_s.into(), 60..=604_800, "s")?;
        subnet.pool = match (subnet.serves, given.pool) {
            (Serves::Proxy, None) => return Ok(Subnet { pool: (first, last), ..subnet }),
            (Serves::Proxy, Some(_)) => {
                return self
                    .wrong(&key("pool"), "is there, but with dhcp: proxy another server gives out the addresses");
            }
            (Serves::Full, None) => return self.wrong(&key("pool"), "is not there; expected a range, or dhcp: proxy"),
            (Serves::Full, Some(pool)) => {
                let pool: Range = pool.parse().or_else(|what: String| self.wrong(&key("pool"), what))?;
                (pool.first, pool.last)
            }
        };
        let pool = subnet.pool;
        if !usable(pool.0) || !usable(pool.1) {
            return self.wrong(
                &key("pool"),
                format!("is {}-{}, expected hosts' addresses of {}", pool.0, pool.1, shown(&subnet)),
            );
        }
        for (what, address) in [("the server's own", Some(subnet.server)), ("the gateway's", given.gateway)] {
            if let Some(address) = address.filter(|a| (pool.0..=pool.1).contains(a)) {
                return self
                    .wrong(&key("pool"), format!("holds {address}, which is {what}; expected a range without it"));
            }
        }
        Ok(subnet)
    }

    /// Gives each reservation to the subnet that it is of.
    fn reserve(&self, form: &Form, all: &mut [Subnet]) -> Result<(), ConfigError> {
        let mut taken = BTreeMap::from([(form.subnet.address, "the server's own address".to_owned())]);
        for gateway in all.iter().filter_map(|subnet| subnet.gateway) {
            taken.insert(gateway, "the gateway's address".to_owned());
        }
        for (&mac, &address) in &form.reservations {
            let key = format!("reservations/{mac}");
            let fits = |subnet: &&mut Subnet| {
                let (first, last) = hosts(subnet);
                (first..=last).contains(&address)
            };
            let Some(subnet) = all.iter_mut().find(fits) else {
                let networks: Vec<_> = all.iter().map(shown).collect();
                return self
                    .wrong(&key, format!("is {address}, expected a host's address of {}", networks.join(" or ")));
            };
            if subnet.serves == Serves::Proxy {
                return self.wrong(
                    &key,
                    format!("is of {}, whose addresses another server gives out: reserve it there", shown(subnet)),
                );
            }
            if let Some(whose) = taken.insert(address, format!("reserved for {mac}")) {
                return self.wrong(&key, format!("is {address}, which is {whose}; expected an address of its own"));
            }
            subnet.reservations.insert(mac, address);
        }
        Ok(())
    }
}

/// The first and last address that a host can have.
fn hosts(subnet: &Subnet) -> (Ipv4Addr, Ipv4Addr) {
    let network = u32::from(subnet.network);
    // /8 to /30: there is at least one address between the two that no host has.
    ((network + 1).into(), (network | !u32::from(subnet.mask())).saturating_sub(1).into())
}

fn shown(subnet: &Subnet) -> String {
    format!("{}/{}", subnet.network, subnet.prefix)
}
