//! Fences on a SAN that is not ours: no host can be cut off it, so one that is silent must be without power, for certain.
//!
//! Owns: having that host switched off, waiting until that is confirmed, what a person is told, and what a person says. Never does:
//! speak to a controller; `power` keeps the order.
//!
//! ```text
//!            quiet for fence_ms        its controller says so, after it was told; or a person        a reading after it, quiet for fence_ms
//! Cutting ───────────────────> power off is ordered ──────────────────────────────────> off: by whom ────────────────────────────> Done
//!    |                              |                                                     |
//!    +── a sign of life ────────────+──> no fence: nothing was taken from it <──any sign that came after it, and an error
//! ```
//! Lease and watchdog are waited out before, as ever: from then on no guest runs there, but what dom0 still holds of a guest's
//! writes may land when the SAN is reached again. Only without power it cannot. A controller that is wrong once is believed no more.

use crate::Rack;
use crate::event::Now;
use crate::power::CertainlyOff;
use crate::record::{Fence, HostRecord, OffBy};
use proto::HostId;
use proto::api::{Accepted, Refusal};
use proto::event::Topic;
use proto::power::BmcKind;

/// Readings of the slots that are further apart than this count for no more, milliseconds: a SAN that we could not read for so
/// long may have been away for hosts as well.
const BLIND_MS: u64 = 5_000;

impl Rack {
    /// Has a host that is being fenced switched off, and ends its fence when that is certain.
    pub(super) fn fence_by_power(&mut self, host: &HostId, read_mono_ms: u64, now: Now) {
        let quiet = self.quiet_ms(host) >= self.policy.ha.fence_ms;
        let Some(record) = self.hosts.get(host) else { return };
        let Some(by) = record.off else {
            let told_off = switches(record) && matches!(self.certainly_off(host), CertainlyOff::Confirmed { .. });
            if told_off {
                self.is_certainly_off(host, OffBy::Controller, now);
            } else if self.live.get(host).is_some_and(|live| live.signed) && !self.controller_is_told(host) {
                let text = format!("{host} is there again, before it was switched off: its VMs stay its own");
                self.info(Topic::Host, now, text, |e| e.host = Some(host.clone()));
                self.withdraw_fence(host);
            } else if quiet && switches(record) {
                self.have_switched_off(host, now);
            }
            return;
        };
        let live = self.live(host);
        let off_mono_ms = *live.cut_mono_ms.get_or_insert(now.mono_ms);
        let heard = live.heard_mono_ms.is_some_and(|at| at > off_mono_ms);
        if heard || live.wrote_after_mono_ms >= off_mono_ms {
            self.it_was_on(host, by, "its VMs stay its own", now);
            self.withdraw_fence(host);
        } else if read_mono_ms > off_mono_ms && quiet {
            self.end_fence(host, now);
        }
    }

    /// Nothing was taken from it yet, and its VMs' records are as they were.
    fn withdraw_fence(&mut self, host: &HostId) {
        if let Some(record) = self.hosts.edit(host) {
            (record.fence, record.off) = (None, None);
        }
        self.live(host).cut_mono_ms = None;
        self.forget_fence_order(host);
    }

    /// Sees that the controller is told; a person is told once when it does not do it.
    fn have_switched_off(&mut self, host: &HostId, now: Now) {
        let failed = match self.certainly_off(host) {
            CertainlyOff::UnderWay | CertainlyOff::Confirmed { .. } => return,
            CertainlyOff::NotAsked => false,
            CertainlyOff::Failed { .. } => true,
        };
        if failed && !std::mem::replace(&mut self.live(host).power.person_told, true) {
            let text = format!("{host} {}", self.power_off_wanted(host));
            self.error(Topic::Host, now, text, |e| e.host = Some(host.clone()));
        }
        // Begun again when the controller answers again: by itself where it could not be reached, else when it was set anew or a person asked.
        if !failed || !self.controller_fails(host) {
            // Refused only where there is none that switches, and here there is.
            let _ = self.make_certainly_off(host, now);
        }
    }

    fn is_certainly_off(&mut self, host: &HostId, by: OffBy, now: Now) {
        if let Some(record) = self.hosts.edit(host) {
            record.off = Some(by);
        }
        self.live(host).cut_mono_ms = Some(now.mono_ms);
    }

    /// Whether a host's fence waits for its power to be off.
    pub(crate) fn awaits_power_off(&self, host: &HostId) -> bool {
        let waits = |record: &HostRecord| record.fence == Some(Fence::Cutting) && record.off.is_none();
        self.is_external() && self.hosts.get(host).is_some_and(waits)
    }

    /// Whether a host that is to be switched off may yet show that it lives.
    pub(crate) fn power_off_is_early(&self, host: &HostId) -> bool {
        self.awaits_power_off(host) && self.quiet_ms(host) < self.policy.ha.fence_ms
    }

    /// What a host waits for that nobody can cut off.
    pub(super) fn power_off_wanted(&self, host: &HostId) -> String {
        let Some(record) = self.hosts.get(host) else { return String::new() };
        let why = match self.certainly_off(host) {
            _ if record.bmc_doubted => "its BMC said once that it was off when it was not".to_owned(),
            _ if !switches(record) => "it has no BMC that can switch it off".to_owned(),
            CertainlyOff::Failed { cause } => {
                format!("its BMC did not switch it off ({})", cause.chars().take(150).collect::<String>())
            }
            CertainlyOff::NotAsked | CertainlyOff::UnderWay | CertainlyOff::Confirmed { .. } => {
                return "cannot be cut off the SAN: its BMC is to switch it off, and its VMs wait until that is confirmed".to_owned();
            }
        };
        format!(
            "cannot be cut off the SAN and needs a person, as {why}: its VMs wait; take its power away, then say \
             `tsubame host confirm-off {host} --it-is-off {host}`"
        )
    }

    /// What is to be known of a host before it fails.
    pub(crate) fn fence_warning(&self, record: &HostRecord) -> Option<String> {
        if !self.is_external() || !record.accepted {
            return None;
        }
        let why = match () {
            () if record.bmc_doubted => "its BMC said once that it was off when it was not; set it anew",
            () if !switches(record) => "it has no BMC that can switch it off",
            () if self.controller_fails(&record.id) => "its BMC cannot be asked",
            () => return None,
        };
        Some(format!("its disks are on a SAN, and {why}: if it fails, its VMs wait for a person"))
    }

    /// A person says that a host which is being fenced has no power. Believed: it is the only witness.
    pub(crate) fn confirm_off(&mut self, host: &HostId, now: Now) -> Result<Accepted, Refusal> {
        let record = self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })?;
        let refuse = |detail: String| Err(Refusal::Unavailable { detail });
        if !self.is_external() {
            return refuse("the storage cuts a failed host off by itself: nothing is to be confirmed".to_owned());
        }
        if record.fence.is_some() && record.off.is_some() {
            return Ok(Accepted::Done);
        }
        if !self.awaits_power_off(host) || self.power_off_is_early(host) {
            let (quiet_s, fence_s) = (self.quiet_ms(host) / 1000, self.policy.ha.fence_ms / 1000);
            return refuse(format!(
                "{host} has been silent for {quiet_s} s; it can be said that it is off when it is being fenced, after {fence_s} s of silence"
            ));
        }
        // What its controller was still to be told would meet a machine that a person is at.
        self.forget_fence_order(host);
        self.is_certainly_off(host, OffBy::Person, now);
        let text = format!("an operator says that {host} has no power: its VMs are taken from it");
        self.warn(Topic::Operator, now, text, |e| e.host = Some(host.clone()));
        self.watch_hosts(now);
        Ok(Accepted::Begun)
    }

    /// A host whose fence is done reports under a boot that was said to have no power.
    pub(super) fn says_it_was_on(&mut self, host: &HostId, now: Now) {
        if let Some(by) = self.hosts.get(host).and_then(|record| record.off) {
            let then = "what dom0 still held of its VMs' writes may have landed after they were started elsewhere: look at their disks";
            self.it_was_on(host, by, then, now);
        }
    }

    fn it_was_on(&mut self, host: &HostId, by: OffBy, then: &str, now: Now) {
        let who = match by {
            OffBy::Controller => {
                "its BMC said that it was off: is that another machine's? It is believed no more until it is set anew"
            }
            OffBy::Person => "an operator said that it was off",
        };
        if by == OffBy::Controller
            && let Some(record) = self.hosts.edit(host)
        {
            record.bmc_doubted = true;
        }
        let text = format!("{host} had power all the time, and {who}; {then}");
        self.error(Topic::Host, now, text, |e| e.host = Some(host.clone()));
    }

    /// Time in which the slots of a SAN could not be read is nobody's silence.
    pub(super) fn forgive_blindness(&mut self, before_mono_ms: Option<u64>, read_mono_ms: u64) {
        let blind_ms = before_mono_ms.map_or(0, |before| read_mono_ms.saturating_sub(before));
        if !self.is_external() || blind_ms <= BLIND_MS {
            return;
        }
        for live in self.live.values_mut() {
            let later = |mono_ms: u64| mono_ms.max((mono_ms + blind_ms).min(read_mono_ms));
            let sign_mono_ms = live.sign_mono_ms;
            live.sign_mono_ms = later(sign_mono_ms);
            if let Some((sign, thawed)) = live.thawed.as_mut().filter(|(sign, _)| *sign == sign_mono_ms) {
                (*sign, *thawed) = (live.sign_mono_ms, later(*thawed));
            }
        }
    }
}

/// Whether a host has a controller whose word ends its fence.
fn switches(record: &HostRecord) -> bool {
    let kind = record.bmc.as_ref().map(crate::power::Bmc::kind);
    matches!(kind, Some(BmcKind::Ipmi | BmcKind::Redfish)) && !record.bmc_doubted
}
