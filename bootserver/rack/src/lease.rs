//! The lease book: which machine has which address.
//!
//! Owns: the choice of an address, offers, expiry, quarantine. An address is the same for a MAC every time, as far as
//! that can be: ROM, loader and dom0 share one lease, and a ROM that is refused boots from disk instead.
//! Never does: give an address twice, or take one from a machine that is known.
//!
//! ```text
//! free --offer--> offered --REQUEST--> leased --expired and pool full--> leased to another
//!   ^                |                   |
//!   +---- 60 s ------+                   +--DECLINE--> quarantined --10 min--> free
//! ```
//! A quarantine is kept over restarts, as is a lease. Where another server gives out the addresses, what a machine was
//! heard to take is kept as its lease, so that all else may ask here for a machine's address.

use crate::event::Now;
use crate::policy::Subnet;
use crate::record::{LeaseRecord, QuarantineRecord};
use crate::table::Table;
use proto::Mac;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// How long an offer holds an address, milliseconds. ROMs send their REQUEST within seconds.
const OFFER_MS: u64 = 60_000;
/// How long an address that a client found in use is not given out, milliseconds.
const QUARANTINE_MS: u64 = 600_000;

#[derive(Clone, Copy)]
struct Offer {
    mac: Mac,
    until_mono_ms: u64,
}

/// Addresses to give out.
struct Pool {
    first: Ipv4Addr,
    last: Ipv4Addr,
    /// How many of them are leased.
    leased: u64,
}

impl Pool {
    fn holds(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    fn size(&self) -> u64 {
        u64::from(u32::from(self.last).saturating_sub(u32::from(self.first))) + 1
    }
}

/// All leases.
pub(crate) struct Leases {
    /// One for each subnet whose addresses are given out here; they do not overlap.
    pools: Vec<Pool>,
    pub(crate) table: Table<LeaseRecord>,
    by_address: BTreeMap<Ipv4Addr, Mac>,
    by_expiry: BTreeSet<(u64, Mac)>,
    offers: BTreeMap<Ipv4Addr, Offer>,
    offered_to: BTreeMap<Mac, Ipv4Addr>,
    pub(crate) quarantine: Table<QuarantineRecord>,
}

impl Leases {
    /// No leases, over pools each named by its first and last address.
    pub(crate) fn new(pools: impl IntoIterator<Item = (Ipv4Addr, Ipv4Addr)>) -> Self {
        Self {
            pools: pools.into_iter().map(|(first, last)| Pool { first, last, leased: 0 }).collect(),
            table: Table::default(),
            by_address: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            offers: BTreeMap::new(),
            offered_to: BTreeMap::new(),
            quarantine: Table::default(),
        }
    }

    /// Counts an address as leased or no more so.
    fn count(&mut self, address: Ipv4Addr, leased: bool) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.holds(address)) {
            pool.leased = if leased { pool.leased + 1 } else { pool.leased.saturating_sub(1) };
        }
    }

    fn quarantined(&self, address: Ipv4Addr, now: Now) -> bool {
        self.quarantine.get(&address).is_some_and(|record| in_force(record, now))
    }

    /// Takes in a record from the store; false when its address is another's already.
    pub(crate) fn load(&mut self, version: u64, record: LeaseRecord) -> bool {
        if self.by_address.insert(record.address, record.mac).is_some() {
            return false;
        }
        self.count(record.address, true);
        self.by_expiry.insert((record.expires_ms, record.mac));
        self.table.load(version, record);
        true
    }

    /// How much is remembered of each kind.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 6] {
        let (book, index) = (self.table.len(), self.by_address.len());
        [book, index, self.by_expiry.len(), self.offers.len(), self.offered_to.len(), self.quarantine.len()]
    }

    /// A machine's address, expired or not.
    pub(crate) fn address_of(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.table.get(&mac).map(|lease| lease.address)
    }

    /// Whose address it is.
    pub(crate) fn mac_at(&self, address: Ipv4Addr) -> Option<Mac> {
        self.by_address.get(&address).copied()
    }

    /// The address that a machine would be given now. `known` tells machines whose lease is never taken.
    pub(crate) fn propose(&self, mac: Mac, subnet: &Subnet, now: Now, known: impl Fn(Mac) -> bool) -> Option<Ipv4Addr> {
        let free = |address: Ipv4Addr| self.by_address.get(&address).is_none_or(|&holder| holder == mac);
        // Whoever had it before loses it with the end of its lease, like any other.
        let lapsed = |address: Ipv4Addr| {
            self.mac_at(address).is_some_and(|holder| {
                !known(holder) && self.table.get(&holder).is_some_and(|lease| lease.expires_ms <= now.unix_ms)
            })
        };
        if let Some(&reserved) = subnet.reservations.get(&mac)
            && (free(reserved) || lapsed(reserved))
        {
            return Some(reserved);
        }
        if let Some(lease) = self.address_of(mac)
            && subnet.contains(lease)
            && lease != subnet.server
            && !reserved_for_another(subnet, lease, mac)
        {
            return Some(lease);
        }
        let usable = |address: Ipv4Addr| {
            address != subnet.server && !reserved_for_another(subnet, address, mac) && !self.quarantined(address, now)
        };
        if let Some(&offered) = self.offered_to.get(&mac)
            && free(offered)
            && usable(offered)
        {
            return Some(offered);
        }
        let pool = self.pools.iter().find(|pool| pool.first == subnet.pool.0 && pool.last == subnet.pool.1)?;
        let (first, count) = (u32::from(pool.first), pool.size());
        let start = hash(mac) % count;
        let in_turn = (0..count).map(|step| nth(first, (start + step) % count));
        let unoffered = |address: Ipv4Addr| {
            self.offers.get(&address).is_none_or(|offer| offer.mac == mac || offer.until_mono_ms <= now.mono_ms)
        };
        // When every address is leased there is nothing to find: do not look at each.
        if pool.leased < count {
            let mut offered = None;
            for address in in_turn.filter(|&a| free(a) && usable(a)) {
                if unoffered(address) {
                    return Some(address);
                }
                offered.get_or_insert(address);
            }
            if let Some(taken) = self.oldest_expired(mac, subnet, pool, now, usable, known) {
                return Some(taken);
            }
            // An offer binds nobody: whoever asks for the address first has it.
            return offered;
        }
        self.oldest_expired(mac, subnet, pool, now, usable, known)
    }

    fn oldest_expired(
        &self,
        mac: Mac,
        subnet: &Subnet,
        pool: &Pool,
        now: Now,
        usable: impl Fn(Ipv4Addr) -> bool,
        known: impl Fn(Mac) -> bool,
    ) -> Option<Ipv4Addr> {
        self.by_expiry
            .iter()
            .take_while(|(expires_ms, _)| *expires_ms <= now.unix_ms)
            .filter(|(_, holder)| *holder != mac && !subnet.reservations.contains_key(holder) && !known(*holder))
            .filter_map(|(_, holder)| self.address_of(*holder))
            .find(|&address| pool.holds(address) && usable(address))
    }

    /// Holds an address for a machine that was offered it; in memory only.
    pub(crate) fn offer(&mut self, mac: Mac, address: Ipv4Addr, now: Now) {
        if self.by_address.get(&address) == Some(&mac) {
            return;
        }
        self.forget_offer(mac);
        let offer = Offer { mac, until_mono_ms: now.mono_ms + OFFER_MS };
        if let Some(before) = self.offers.insert(address, offer) {
            self.offered_to.remove(&before.mac);
        }
        self.offered_to.insert(mac, address);
    }

    pub(crate) fn forget_offer(&mut self, mac: Mac) {
        if let Some(address) = self.offered_to.remove(&mac) {
            self.offers.remove(&address);
        }
    }

    /// Leases an address that was proposed, or renews it: it is the machine's for `lease_s` from now at least. What is
    /// written reaches twice as far, so that most renewals write nothing. False when it is another's and not expired.
    pub(crate) fn lease(&mut self, mac: Mac, address: Ipv4Addr, lease_s: u32, now: Now) -> bool {
        self.forget_offer(mac);
        let needed_ms = now.unix_ms.saturating_add(u64::from(lease_s) * 1000);
        if let Some(lease) = self.table.get(&mac)
            && lease.address == address
            && lease.expires_ms >= needed_ms
        {
            return true;
        }
        if let Some(holder) = self.mac_at(address).filter(|&holder| holder != mac) {
            if self.table.get(&holder).is_some_and(|lease| lease.expires_ms > now.unix_ms) {
                return false;
            }
            self.remove(holder);
        }
        self.remove(mac);
        let expires_ms = needed_ms.saturating_add(u64::from(lease_s) * 1000);
        self.insert(LeaseRecord { mac, address, expires_ms });
        true
    }

    fn insert(&mut self, lease: LeaseRecord) {
        self.by_address.insert(lease.address, lease.mac);
        self.count(lease.address, true);
        self.by_expiry.insert((lease.expires_ms, lease.mac));
        self.table.put(lease);
    }

    /// Notes an address that another server has leased to a machine; of no end here, as only that server knows it. Whoever
    /// had it before, by our book, has it no more.
    pub(crate) fn learn(&mut self, mac: Mac, address: Ipv4Addr) {
        self.forget_offer(mac);
        if self.by_address.get(&address) == Some(&mac) {
            return;
        }
        if let Some(holder) = self.mac_at(address) {
            self.remove(holder);
        }
        self.remove(mac);
        self.insert(LeaseRecord { mac, address, expires_ms: u64::MAX });
    }

    /// The machine has given its address back: it may go to another, but comes back to this one while it is free.
    pub(crate) fn release(&mut self, mac: Mac, now: Now) {
        if self.table.get(&mac).is_some_and(|lease| lease.expires_ms > now.unix_ms)
            && let Some(lease) = self.table.edit(&mac)
        {
            self.by_expiry.remove(&(lease.expires_ms, mac));
            lease.expires_ms = now.unix_ms;
            self.by_expiry.insert((now.unix_ms, mac));
        }
    }

    /// The machine found its address in use.
    pub(crate) fn decline(&mut self, mac: Mac, address: Ipv4Addr, now: Now) {
        self.forget_offer(mac);
        self.remove(mac);
        self.end_quarantines(now);
        // Whoever invents addresses must not put the whole pool out of use by declining them.
        let Some(pool) = self.pools.iter().find(|pool| pool.holds(address)) else { return };
        let held = self.quarantine.values().filter(|record| pool.holds(record.address)).count() as u64;
        if held < pool.size().div_ceil(4) {
            self.quarantine.put(QuarantineRecord { address, until_ms: now.unix_ms.saturating_add(QUARANTINE_MS) });
        }
    }

    fn end_quarantines(&mut self, now: Now) {
        let ended: Vec<_> =
            self.quarantine.values().filter(|record| !in_force(record, now)).map(|record| record.address).collect();
        for address in ended {
            self.quarantine.remove(&address);
        }
    }

    /// Forgets a machine's lease.
    pub(crate) fn remove(&mut self, mac: Mac) {
        if let Some(lease) = self.table.remove(&mac) {
            self.by_address.remove(&lease.address);
            self.count(lease.address, false);
            self.by_expiry.remove(&(lease.expires_ms, mac));
        }
    }

    /// Drops offers that nobody took up, and ends quarantines.
    pub(crate) fn tick(&mut self, now: Now) {
        self.end_quarantines(now);
        let offered_to = &mut self.offered_to;
        self.offers.retain(|_, offer| {
            let keep = offer.until_mono_ms > now.mono_ms;
            if !keep {
                offered_to.remove(&offer.mac);
            }
            keep
        });
    }
}

/// A quarantine that ends later than one can is from before the clock was set back: nothing is known of it any more.
fn in_force(record: &QuarantineRecord, now: Now) -> bool {
    (now.unix_ms.saturating_add(1)..=now.unix_ms.saturating_add(QUARANTINE_MS)).contains(&record.until_ms)
}

fn reserved_for_another(subnet: &Subnet, address: Ipv4Addr, mac: Mac) -> bool {
    subnet.reservations.iter().any(|(&holder, &reserved)| reserved == address && holder != mac)
}

/// Spreads MACs over the pool, the same on every run and every version.
fn hash(mac: Mac) -> u64 {
    let digest = Sha256::digest(mac.0);
    digest.iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// The address `step` after `first`; the caller keeps it within the pool.
fn nth(first: u32, step: u64) -> Ipv4Addr {
    Ipv4Addr::from(first.saturating_add(u32::try_from(step).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::subnet;
    use proptest::prelude::*;

    fn now(s: u64) -> Now {
        Now { mono_ms: s * 1000, unix_ms: 1_800_000_000_000 + s * 1000 }
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    /// A subnet with room for `size` machines.
    fn small(size: u8) -> Subnet {
        Subnet { pool: (Ipv4Addr::new(10, 77, 0, 50), Ipv4Addr::new(10, 77, 0, 49 + size)), ..subnet() }
    }

    fn take(leases: &mut Leases, subnet: &Subnet, n: u8, at_s: u64, known: &[u8]) -> Option<Ipv4Addr> {
        let address = leases.propose(mac(n), subnet, now(at_s), |m| known.contains(&m.0[5]))?;
        leases.offer(mac(n), address, now(at_s));
        leases.lease(mac(n), address, 3600, now(at_s)).then_some(address)
    }

    #[test]
    fn the_same_machine_gets_the_same_address_whatever_came_before() {
        let alone = take(&mut Leases::new([subnet().pool]), &subnet(), 7, 0, &[]);
        let mut leases = Leases::new([subnet().pool]);
        assert_eq!(take(&mut leases, &subnet(), 7, 0, &[]), alone);
        leases.release(mac(7), now(1));
        assert_eq!(take(&mut leases, &subnet(), 7, 2, &[]), alone);
    }

    #[test]
    fn a_full_pool_takes_the_oldest_expired_and_never_a_known_machines() {
        let subnet = small(3);
        let mut leases = Leases::new([subnet.pool]);
        let first: Vec<_> = (1..=3).map(|n| take(&mut leases, &subnet, n, u64::from(n), &[]).expect("room")).collect();
        assert_eq!(take(&mut leases, &subnet, 4, 100, &[]), None, "nothing has expired");
        // Machine 1's lease is the oldest, but it is known: machine 2 loses its own.
        assert_eq!(take(&mut leases, &subnet, 4, 10_000, &[1]), Some(first[1]));
        assert_eq!(leases.address_of(mac(2)), None);
        assert_eq!(leases.address_of(mac(1)), Some(first[0]));
    }

    #[test]
    fn an_unchanged_renewal_within_what_was_written_ahead_writes_nothing() {
        let mut leases = Leases::new([subnet().pool]);
        let address = take(&mut leases, &subnet(), 1, 0, &[]).expect("room");
        let written = |leases: &mut Leases, at_s: u64| {
            assert!(leases.lease(mac(1), address, 3600, now(at_s)));
            let mut effects = Vec::new();
            leases.table.commit(&mut effects);
            effects.len()
        };
        assert_eq!(written(&mut leases, 0), 1);
        assert_eq!(written(&mut leases, 1800), 0);
        assert_eq!(written(&mut leases, 3600), 0);
        assert_eq!(written(&mut leases, 3601), 1);
    }

    #[test]
    fn reservations_quarantine_and_offers() {
        let mut subnet = small(2);
        let [first, second] = [subnet.pool.0, subnet.pool.1];
        subnet.reservations.insert(mac(9), first);
        let mut leases = Leases::new([subnet.pool]);
        assert_eq!(take(&mut leases, &subnet, 1, 0, &[]), Some(second), "the first is kept for another");
        assert_eq!(take(&mut leases, &subnet, 2, 0, &[]), None);
        assert_eq!(take(&mut leases, &subnet, 9, 0, &[]), Some(first));
        leases.decline(mac(1), second, now(1));
        assert_eq!(take(&mut leases, &subnet, 1, 2, &[]), None, "found in use");
        assert_eq!(take(&mut leases, &subnet, 1, 700, &[]), Some(second), "and free again later");
        // Offers bind nobody: with all offered, whoever asks first is served.
        let mut leases = Leases::new([subnet.pool]);
        leases.offer(mac(3), second, now(0));
        assert_eq!(take(&mut leases, &subnet, 4, 0, &[]), Some(second));
    }

    #[test]
    fn what_is_reserved_is_given_once_whoever_had_it_has_lost_it() {
        let mut subnet = small(2);
        let mut leases = Leases::new([subnet.pool]);
        let had = take(&mut leases, &subnet, 1, 0, &[]).expect("room");
        subnet.reservations.insert(mac(9), had);
        assert_ne!(take(&mut leases, &subnet, 9, 1, &[]).expect("another meanwhile"), had);
        assert_ne!(take(&mut leases, &subnet, 9, 10_000, &[1]).expect("another"), had, "a known machine keeps it");
        assert_eq!(take(&mut leases, &subnet, 9, 10_000, &[]), Some(had));
        assert_eq!(leases.address_of(mac(1)), None);
    }

    #[test]
    fn a_quarantine_outlives_a_restart_and_ends() {
        let subnet = small(1);
        let mut leases = Leases::new([subnet.pool]);
        let address = take(&mut leases, &subnet, 1, 0, &[]).expect("room");
        leases.decline(mac(1), address, now(1));
        let kept = leases.quarantine.get(&address).expect("quarantined").clone();
        let mut restarted = Leases::new([subnet.pool]);
        restarted.quarantine.load(1, kept);
        assert_eq!(take(&mut restarted, &subnet, 2, 500, &[]), None);
        restarted.tick(now(601));
        assert_eq!(restarted.quarantine.len(), 0, "and is forgotten");
        assert_eq!(take(&mut restarted, &subnet, 2, 601, &[]), Some(address));
    }

    #[test]
    fn pools_are_apart() {
        let (near, mut far) = (small(2), small(2));
        far.network = Ipv4Addr::new(10, 78, 0, 0);
        far.pool = (Ipv4Addr::new(10, 78, 0, 50), Ipv4Addr::new(10, 78, 0, 51));
        let mut leases = Leases::new([near.pool, far.pool]);
        for n in 1..=2 {
            let address = take(&mut leases, &near, n, 0, &[]).expect("room");
            assert!(near.contains(address));
        }
        assert_eq!(take(&mut leases, &near, 3, 0, &[]), None);
        assert!(far.contains(take(&mut leases, &far, 3, 0, &[]).expect("room")));
        // A machine that is carried over there gets an address of there, and its old one is free.
        assert!(far.contains(take(&mut leases, &far, 1, 1, &[]).expect("room")));
        assert!(near.contains(take(&mut leases, &near, 4, 2, &[]).expect("room")));
    }

    #[test]
    fn addresses_of_another_server() {
        let mut leases = Leases::new([]);
        let address = Ipv4Addr::new(10, 77, 0, 60);
        leases.learn(mac(1), address);
        assert_eq!((leases.address_of(mac(1)), leases.mac_at(address)), (Some(address), Some(mac(1))));
        leases.learn(mac(2), address);
        assert_eq!((leases.address_of(mac(1)), leases.address_of(mac(2))), (None, Some(address)));
        assert_eq!(leases.propose(mac(3), &subnet(), now(0), |_| false), None, "nothing is given out");
    }

    proptest! {
        #[test]
        fn no_address_is_leased_twice(
            steps in prop::collection::vec((0_u8..5, 0_u8..30, 0_u64..4000), 1..200),
            size in 1_u8..12,
        ) {
            let mut subnet = small(size);
            subnet.reservations.insert(mac(0), Ipv4Addr::new(10, 77, 0, 50));
            subnet.reservations.insert(mac(1), Ipv4Addr::new(10, 77, 0, 200));
            let mut leases = Leases::new([subnet.pool]);
            let mut at_s = 0;
            // What each machine believes to have, and until when.
            let mut held: BTreeMap<u8, (Ipv4Addr, u64)> = BTreeMap::new();
            for (what, n, wait_s) in steps {
                at_s += wait_s / 8;
                match what {
                    0..3 => match take(&mut leases, &subnet, n, at_s, &[3]) {
                        Some(address) => {
                            for (other, (theirs, until_s)) in &held {
                                prop_assert!(*other == n || *theirs != address || *until_s <= at_s);
                                prop_assert!(*other != 3 || *other == n || *theirs != address, "machine 3 is known");
                            }
                            held.insert(n, (address, at_s + 3600));
                        }
                        None => prop_assert!(n > 1, "a reserved address is always there"),
                    },
                    3 => {
                        leases.release(mac(n), now(at_s));
                        if n != 3 {
                            held.remove(&n);
                        }
                    }
                    _ if n > 3 => {
                        if let Some(address) = leases.address_of(mac(n)) {
                            leases.decline(mac(n), address, now(at_s));
                            held.remove(&n);
                        }
                    }
                    _ => {}
                }
                leases.tick(now(at_s));
                let pool = &leases.pools[0];
                let in_pool = leases.by_address.keys().filter(|a| pool.holds(**a)).count() as u64;
                prop_assert_eq!(in_pool, pool.leased);
                prop_assert!(leases.quarantine.len() as u64 <= pool.size().div_ceil(4));
                prop_assert_eq!(leases.by_address.len(), leases.table.len());
                prop_assert_eq!(leases.by_expiry.len(), leases.table.len());
            }
        }
    }
}
