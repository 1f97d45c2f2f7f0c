//! The heartbeat disk and Xen's watchdog in the model: slots written by hosts that may, resets of hosts whose agent does not pet.
//!
//! Owns: what stands in the slots, and when each host is reset. A write is begun and comes back at the same moment.

use super::{Due, World};
use crate::agent::AgentEvent;
use proto::agent::Heartbeat;
use proto::heartbeat::Slot;
use proto::{HostId, VmId};
use std::collections::BTreeMap;

/// Of one host.
#[derive(Debug, Default)]
pub(super) struct Beat {
    given: Option<(Heartbeat, String)>,
    /// Raised when another slot is to be written: writes of before stop.
    turn: u64,
    /// The path to the storage is cut.
    cut_off: bool,
    /// The agent's process stands still, and all it would do with it.
    stopped: bool,
    watchdog_ms: Option<u64>,
}

impl World {
    /// The agent of this host writes its slot from now on, as this boot.
    pub fn heartbeat(&mut self, host: &HostId, given: Heartbeat, boot: &str, now_ms: u64) {
        let Some(agent) = self.hosts.get(host).filter(|h| h.powered).map(|h| h.agent) else { return };
        let beat = self.beats.entry(host.clone()).or_default();
        beat.given = Some((given, boot.to_owned()));
        beat.turn += 1;
        let turn = beat.turn;
        self.push(now_ms + self.costs.login_ms, Due::Beat { host: host.clone(), agent, turn });
    }

    /// The agent winds the watchdog up.
    pub fn pet(&mut self, host: &HostId, timeout_s: u64, now_ms: u64) {
        if let Some(beat) = self.beats.get_mut(host) {
            beat.watchdog_ms = Some(now_ms + timeout_s * 1000);
            self.push(now_ms + timeout_s * 1000, Due::Watchdog { host: host.clone() });
        }
    }

    /// Cuts or mends a host's path to the storage.
    pub fn set_storage(&mut self, host: &HostId, up: bool) {
        self.beats.entry(host.clone()).or_default().cut_off = !up;
    }

    /// Has the agent's process stand still, or go on: the test lets the agent itself do nothing meanwhile.
    pub fn set_stopped(&mut self, host: &HostId, stopped: bool) {
        self.beats.entry(host.clone()).or_default().stopped = stopped;
    }

    /// What stands in every slot that was ever written.
    pub fn slots(&self) -> &BTreeMap<u32, Slot> {
        &self.slots
    }

    /// Hosts that Xen has reset since this was asked last, each with the VMs that it had; the test has it boot again.
    pub fn resets(&mut self) -> Vec<(HostId, Vec<VmId>)> {
        std::mem::take(&mut self.resets)
    }

    /// Its power is gone.
    pub(super) fn beats_end(&mut self, host: &HostId) {
        if let Some(beat) = self.beats.get_mut(host) {
            *beat = super::Beat { turn: beat.turn + 1, cut_off: beat.cut_off, ..super::Beat::default() };
        }
    }

    pub(super) fn beat(&mut self, host: &HostId, agent: u64, turn: u64) {
        let lives = self.hosts.get(host).is_some_and(|h| h.powered && h.agent == agent);
        let Some(beat) = self.beats.get(host).filter(|beat| lives && beat.turn == turn) else { return };
        let Some((given, boot)) = beat.given.clone() else { return };
        let access = &given.access;
        if self.lets_in(access, host) && !beat.cut_off && !beat.stopped {
            let slot = Slot { host: host.clone(), boot, counter: self.now_ms };
            self.slots.insert(given.slot, slot);
            let event = AgentEvent::Renewed { user: access.user.clone(), begun_ms: self.now_ms };
            self.tell(host, agent, event);
        }
        self.push(self.now_ms + given.write_ms, Due::Beat { host: host.clone(), agent, turn });
    }

    pub(super) fn watchdog_ends(&mut self, host: &HostId) {
        let powered = self.hosts.get(host).is_some_and(|h| h.powered);
        let due = self.beats.get(host).and_then(|beat| beat.watchdog_ms).is_some_and(|at| at <= self.now_ms);
        if powered && due {
            let vms = self.domains(host).iter().map(|d| d.vm.clone()).collect();
            self.power_off(host);
            self.resets.push((host.clone(), vms));
        }
    }
}
