//! What goes wrong, at random, while faults last, and how often each kind of it did.
//!
//! Owns: faults of hosts, agents, paths, clocks and guests, and their counts. Never does: repair what the rack should; a fault only ends.

use super::rack::{Due, Rack};
use crate::host::Stand;
use proto::VmId;
use proto::agent::DomainState;
use std::collections::BTreeMap;
use std::fmt;

/// Twice the lease.
const LONG_PAUSE_MS: u64 = 40_000;
/// The server's clock is set wrong by so much at most; a move's permit outlives that.
const CLOCK_MS: u64 = 400_000;

/// Hosts in use that failed, and those of them that Xen reset.
pub(crate) const LOST_POWER: &str = "hosts in use that lost power, or were reset";
pub(crate) const RESET: &str = "hosts reset by their watchdogs";
/// No fault, but what goes on amid faults.
pub(crate) const ANEW: &str = "hosts started anew, as a rollout ordered";
pub(crate) const RESTORED: &str = "restores of the server from a backup";

/// Kinds that every set of runs must have had.
pub(crate) const KINDS: [&str; 9] = [
    LOST_POWER,
    RESET,
    ANEW,
    RESTORED,
    "partitions from the storage",
    "partitions from the server, of what the host is told",
    "jumps of the server's clock",
    "jumps of a host's clock",
    "guests slow in the making",
];

/// How often each kind of fault was.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn add(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }
    pub(crate) fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or_default()
    }
    pub(crate) fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(kind, count)| *self.0.entry(kind).or_default() += count);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(kind, count)| writeln!(f, "{count:>9}  {kind}"))
    }
}

impl Rack {
    pub(crate) fn faults_begin(&mut self) {
        self.faults = true;
        self.after(1, 500, Due::Fault);
    }

    /// No more faults, and the operator goes; what is down comes up, what is cut is mended.
    pub(crate) fn faults_end(&mut self) {
        self.faults = false;
        self.operator_stays = false;
        self.server_dies = false;
        self.store_lost = false;
        for host in &mut self.hosts {
            (host.mute_until_ms, host.deaf_until_ms) = (0, 0);
            host.dies_after = None;
        }
        for host in 0..self.hosts.len() {
            self.world.set_storage(&self.hosts[host].id, true);
            self.world.set_slow(&self.hosts[host].id, 0);
            self.world.set_clock(&self.hosts[host].id, 0);
            self.agent_goes_on(host);
        }
        self.server.clock_off_ms = 0;
        self.blind_until_ms = 0;
    }

    pub(crate) fn fault(&mut self) {
        if !self.faults {
            return;
        }
        let host = self.random.below(self.hosts.len());
        if self.scale.san && self.random.permille(4) {
            let ms = self.random.between(1_000, 90_000);
            self.san_away(ms);
        }
        match self.random.below(20) {
            0 | 1 => {
                if self.hosts[host].stand != Stand::Off {
                    let long = self.random.permille(300);
                    self.power_cut(host, if long { 120_000 } else { 30_000 });
                }
            }
            // Not so often that no host's wait comes to its end.
            2 => {
                self.server_dies |= self.random.permille(self.scale.server_dies_permille);
                // Its store goes with it now and then; backups are of any age.
                self.store_lost |= self.server_dies && self.random.permille(self.scale.store_lost_permille);
                if !self.server_dies && self.server.is_up() && !self.server.surveying() {
                    self.server.back_up(self.now_ms);
                }
            }
            3 | 4 => self.hosts[host].dies_after = Some(self.random.below(4)),
            5 | 6 => {
                if self.hosts[host].agent.is_some() {
                    self.agent_dies(host);
                }
            }
            7 | 8 => {
                let until_ms = self.now_ms + self.random.between(500, 25_000);
                let (mute, deaf) = [(true, true), (true, false), (false, true)][self.random.below(3)];
                self.note(|| format!("host {host} until {until_ms}: mute {mute}, deaf {deaf}"));
                self.counts.add(match (mute, deaf) {
                    (true, true) => "partitions from the server",
                    (true, false) => "partitions from the server, of what the host says",
                    _ => "partitions from the server, of what the host is told",
                });
                self.hosts[host].mute_until_ms = if mute { until_ms } else { 0 };
                self.hosts[host].deaf_until_ms = if deaf { until_ms } else { 0 };
            }
            9 | 10 => {
                let (a, b) = (self.hosts[host].id.clone(), self.hosts[self.random.below(self.hosts.len())].id.clone());
                if a != b {
                    self.counts.add("partitions between two hosts");
                    self.world.set_link(&a, &b, false);
                    self.after(500, 20_000, Due::Link { a, b });
                }
            }
            11 => {
                let ms = self.random.between(1_000, 60_000);
                self.note(|| format!("host {host} is cut off from the storage for {ms} ms"));
                self.counts.add("partitions from the storage");
                let id = self.hosts[host].id.clone();
                self.world.set_storage(&id, false);
                self.after(ms, ms + 1, Due::Storage { host });
            }
            // The whole host is cut off, from the storage too, long enough to be fenced; or its agent stands still.
            12 => {
                let ms = self.random.between(5_000, 120_000);
                self.note(|| format!("host {host} is cut off from all for {ms} ms"));
                self.cut_off_from_all(host, ms);
            }
            13 => {
                let ms = self.random.between(1_000, 60_000);
                self.note(|| format!("the agent of {host} stands still for {ms} ms"));
                self.stop_agent(host, ms);
            }
            14 => {
                let ms = self.random.between(1_000, 60_000);
                self.note(|| format!("host {host} takes {ms} ms to make a guest"));
                self.counts.add("guests slow in the making");
                self.world.set_slow(&self.hosts[host].id, ms);
                let boots = self.hosts[host].boots;
                self.after(30_000, 60_000, Due::Fast { host, boots });
            }
            15 => {
                let off_ms = i64::try_from(self.random.below(2 * CLOCK_MS as usize)).unwrap_or(0) - CLOCK_MS as i64;
                self.note(|| format!("the server's clock is wrong by {off_ms} ms"));
                self.counts.add("jumps of the server's clock");
                self.server.clock_off_ms = off_ms;
            }
            // What it hears from the server sets it right, after a while.
            16 => {
                let off_ms = i64::try_from(self.random.below(4 * CLOCK_MS as usize)).unwrap_or(0) - 2 * CLOCK_MS as i64;
                self.note(|| format!("the clock of host {host} is wrong by {off_ms} ms"));
                self.counts.add("jumps of a host's clock");
                self.world.set_clock(&self.hosts[host].id, off_ms);
                self.after(2_000, 60_000, Due::ClockRight { host });
            }
            // A guest crashes, or starts itself anew: it is to run again.
            _ => {
                let (id, reboots) = (self.hosts[host].id.clone(), self.random.below(2) == 0);
                let running = self.world.domains(&id).iter().find(|d| d.state == DomainState::Running);
                if let Some(vm) = running.map(|d| d.vm.clone()) {
                    self.note(|| format!("guest {vm} {}", if reboots { "starts itself anew" } else { "crashes" }));
                    self.counts.add(if reboots { "guests that started themselves anew" } else { "guests crashed" });
                    self.oracle.lost_with_host(std::slice::from_ref(&vm));
                    let state = if reboots { DomainState::Shutdown } else { DomainState::Crashed };
                    self.world.guest_ends(&id, &vm, state, reboots);
                }
            }
        }
        let (low_ms, high_ms) = self.scale.fault_every_ms;
        self.after(low_ms, high_ms, Due::Fault);
    }

    fn cut_off_from_all(&mut self, host: usize, ms: u64) {
        let id = self.hosts[host].id.clone();
        self.counts.add("partitions from all");
        let h = &mut self.hosts[host];
        h.mute_until_ms = h.mute_until_ms.max(self.now_ms + ms);
        h.deaf_until_ms = h.deaf_until_ms.max(self.now_ms + ms);
        self.world.set_storage(&id, false);
        for other in 0..self.hosts.len() {
            let b = self.hosts[other].id.clone();
            if other != host {
                self.world.set_link(&id, &b, false);
                self.after(ms, ms + 1, Due::Link { a: id.clone(), b });
            }
        }
        self.after(ms, ms + 1, Due::Storage { host });
    }

    pub(crate) fn agent_goes_on(&mut self, host: usize) {
        if self.hosts[host].stopped {
            self.hosts[host].stopped = false;
            self.world.set_stopped(&self.hosts[host].id, false);
            for event in std::mem::take(&mut self.hosts[host].waiting) {
                self.tell(host, event);
            }
        }
    }

    fn stop_agent(&mut self, host: usize, ms: u64) {
        let boots = self.hosts[host].boots;
        if self.hosts[host].agent.is_some() {
            let long = ms >= LONG_PAUSE_MS;
            self.counts.add(if long { "pauses of an agent, twice the lease or more" } else { "pauses of an agent" });
            self.hosts[host].stopped = true;
            self.world.set_stopped(&self.hosts[host].id, true);
            self.after(ms, ms + 1, Due::AgentGoesOn { host, boots });
        }
    }

    pub(crate) fn agent_dies(&mut self, host: usize) {
        self.note(|| format!("THE AGENT OF {host} DIES"));
        self.counts.add("agents killed");
        let h = &mut self.hosts[host];
        (h.agent, h.dies_after, h.stopped) = (None, None, false);
        h.waiting.clear();
        let boots = h.boots;
        self.world.set_stopped(&self.hosts[host].id, false);
        self.world.kill_agent(&self.hosts[host].id);
        self.after(200, 6_000, Due::AgentStarts { host, boots });
    }

    /// It was told to, and nothing may be lost by it.
    pub(crate) fn starts_anew(&mut self, host: usize) {
        self.note(|| format!("host {host} starts anew"));
        let id = self.hosts[host].id.clone();
        let there = self.world.domains(&id);
        assert!(there.is_empty(), "at {}: {id} starts anew with {there:?}", self.now_ms);
        self.counts.add(ANEW);
        self.hosts[host].lose_power();
        self.world.power_off(&id);
        self.after(500, 3_000, Due::PowerOn { host });
    }

    /// The host loses power, for so long at most.
    pub(crate) fn power_cut(&mut self, host: usize, off_ms: u64) {
        self.note(|| format!("HOST {host} LOSES POWER"));
        let id = self.hosts[host].id.clone();
        let there: Vec<VmId> = self.world.domains(&id).iter().map(|d| d.vm.clone()).collect();
        self.oracle.lost_with_host(&there);
        if matches!(self.hosts[host].stand, Stand::Up { .. }) {
            self.counts.add(LOST_POWER);
        }
        self.hosts[host].lose_power();
        self.world.power_off(&id);
        self.after(2_000, off_ms, Due::PowerOn { host });
    }
}
