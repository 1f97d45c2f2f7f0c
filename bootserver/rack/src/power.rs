//! Power of hosts: what an operator or a fence orders, and what the management controllers (BMCs) say.
//!
//! Owns: each host's controller and its newest order, both in its record; when an order is refused, tried again or given up; when a
//! controller is asked how things are. Never does: speak to one; that is the shell's (`Effect::Power`). No secret leaves the record
//! but in that effect.
//!
//! ```text
//!           +---- cannot be reached, fewer than 5 tries: after 2, 4, 8, 16 s ----+
//!           v                                                                    |
//! order -> Asked --(host has no other job)--> Doing --confirmed--> Done          |
//!             \                                 |  \-------------------------> Failed: 5 tries, or a reason that no trying mends
//!              \-- a guest runs there now -> Failed        cycle: off confirmed -> Asked again, to be switched on
//! ```
//! A restart finds the order in the record and goes on: each job begins by asking what is so, so doing it twice does no harm.

mod bmc;
mod commands;
#[cfg(test)]
mod tests;

pub use bmc::{Bmc, PowerAnswer, PowerFailure, PowerOp, PowerWhy, Trust, host_and_port, secure_on};
pub(crate) use commands::bmc_of;

use crate::Rack;
use crate::effect::{Answer, Effect, Reply};
use crate::event::{Now, ReplyTo};
use crate::record::HostRecord;
use proto::HostId;
use proto::api::Refusal;
use proto::event::Topic;
use proto::host::Firmware;
use proto::power::{BmcKind, PowerOrderView, PowerStage, PowerState, PowerVerb, PowerView};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// An order is tried so often, restarts of the server with it.
const TRIES_MAX: u32 = 5;
/// Between the first try and the second, milliseconds; doubled each time.
const AGAIN_MS: u64 = 2000;
/// How often a controller is asked by itself, milliseconds.
const ASK_MS: u64 = 30_000;
/// The same while it cannot be reached.
const ASK_FAILING_MS: u64 = 120_000;
/// Controllers asked by themselves at once: 200 of them, each half a second away, take 25 s of those 30.
const ASKED_AT_ONCE: usize = 4;
/// Jobs at once, orders with them.
const JOBS_AT_ONCE: usize = 16;

/// An order in a host's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerOrder {
    /// What an operator sees of it.
    pub view: PowerOrderView,
    /// It has yet to be switched off, before anything else.
    pub off_first: bool,
    /// A fence gave it: it does not ask what runs there.
    #[serde(default)]
    pub fence: bool,
}

impl PowerOrder {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.view.stage, PowerStage::Asked | PowerStage::Doing)
    }

    fn takes_down(&self) -> bool {
        self.is_open() && self.view.verb != PowerVerb::On
    }
}

/// What is known of a host's power and not kept.
#[derive(Default)]
pub(crate) struct Line {
    /// The job under way, and whether it is for the order.
    job: Option<(u64, bool)>,
    state: PowerState,
    /// When it was said, on both clocks.
    said: Option<Now>,
    failing: Option<Failing>,
    /// A person was told that it cannot switch off what is being fenced.
    pub(crate) person_told: bool,
    /// The order is tried again no sooner.
    again_mono_ms: u64,
    /// The controller is asked by itself no sooner; `None` until somebody asks.
    ask_mono_ms: Option<u64>,
    pub(crate) asking: Vec<ReplyTo>,
}

struct Failing {
    since_ms: u64,
    text: String,
}

impl Line {
    /// A controller that is to be asked at once, by whoever waits already.
    pub(crate) fn anew(asking: Vec<ReplyTo>) -> Self {
        Self { ask_mono_ms: Some(0), asking, ..Self::default() }
    }
}

/// How far a host is that is to be certainly off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertainlyOff {
    /// Nothing was begun, or another order came since.
    NotAsked,
    /// The controller is being told, or asked until it says so.
    UnderWay,
    /// The controller has said that the machine is off, after it was asked to be; then it was, Unix milliseconds.
    Confirmed {
        /// When it was said.
        at_ms: u64,
    },
    /// Given up; it may be on. To begin again is allowed.
    Failed {
        /// Which controller, what was tried, what went wrong.
        cause: String,
    },
}

impl Rack {
    /// Begins to make a host certainly off, whatever runs there and whatever else was ordered: what a fence asks for.
    /// [`Rack::certainly_off`] says how far it is. Asking again while it is under way changes nothing.
    ///
    /// # Errors
    /// `NoBmc`, and `BmcCannot` where it can only be woken.
    pub fn make_certainly_off(&mut self, host: &HostId, now: Now) -> Result<(), Refusal> {
        let record = self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })?;
        match record.bmc.as_ref().map(Bmc::kind) {
            None => return Err(Refusal::NoBmc { host: host.clone() }),
            Some(kind @ BmcKind::Wake) => {
                return Err(Refusal::BmcCannot { host: host.clone(), kind, what: "switch off".to_owned() });
            }
            Some(BmcKind::Ipmi | BmcKind::Redfish) => {}
        }
        if record.power.as_ref().is_none_or(|order| !order.fence || !order.is_open()) {
            self.put_order(host, PowerVerb::Off, false, true, now);
        }
        Ok(())
    }

    /// How far a host is with [`Rack::make_certainly_off`]. Kept over restarts.
    pub fn certainly_off(&self, host: &HostId) -> CertainlyOff {
        let order = self.hosts.get(host).and_then(|record| record.power.as_ref()).filter(|order| order.fence);
        let Some(PowerOrder { view, .. }) = order else { return CertainlyOff::NotAsked };
        match view.stage {
            PowerStage::Asked | PowerStage::Doing => CertainlyOff::UnderWay,
            PowerStage::Done => CertainlyOff::Confirmed { at_ms: view.ended_ms.unwrap_or(view.asked_ms) },
            PowerStage::Failed => CertainlyOff::Failed { cause: view.cause.clone() },
        }
    }

    /// What a fence had ordered is void: another begins, or it is over. A try that is under way cannot be called back.
    pub(crate) fn forget_fence_order(&mut self, host: &HostId) {
        if self.hosts.get(host).and_then(|record| record.power.as_ref()).is_none_or(|order| !order.fence) {
            return;
        }
        if let Some(record) = self.hosts.edit(host) {
            record.power = None;
        }
        let line = &mut self.live(host).power;
        line.job = line.job.filter(|(_, for_order)| !for_order);
    }

    /// Whether the controller is being told at this moment what its order says: who knows whether it has been done.
    pub(crate) fn controller_is_told(&self, host: &HostId) -> bool {
        self.live.get(host).and_then(|live| live.power.job).is_some_and(|(_, for_order)| for_order)
    }

    /// Whether a host's controller could not be asked when it was last tried.
    pub(crate) fn controller_fails(&self, host: &HostId) -> bool {
        self.live.get(host).is_some_and(|live| live.power.failing.is_some())
    }

    /// It is off by what its controller said since it was heard last, or is being switched off: nothing is given to it.
    pub(crate) fn goes_down(&self, host: &HostId) -> bool {
        self.hosts.get(host).and_then(|r| r.power.as_ref()).is_some_and(PowerOrder::takes_down) || self.is_off(host)
    }

    /// It is off by what its controller said since it was heard last.
    pub(crate) fn is_off(&self, host: &HostId) -> bool {
        self.live.get(host).is_some_and(|live| {
            let said = live.power.said.filter(|_| live.power.state == PowerState::Off);
            said.is_some_and(|said| live.heard_mono_ms.is_none_or(|heard| said.mono_ms >= heard))
        })
    }

    /// Writes an order down and sets it going.
    pub(super) fn put_order(&mut self, host: &HostId, verb: PowerVerb, network: bool, fence: bool, now: Now) {
        let view = PowerOrderView {
            verb,
            network,
            stage: PowerStage::Asked,
            asked_ms: now.unix_ms,
            ended_ms: None,
            tries: 0,
            cause: String::new(),
        };
        if let Some(record) = self.hosts.edit(host) {
            record.power = Some(PowerOrder { view, off_first: verb != PowerVerb::On, fence });
        }
        let line = &mut self.live(host).power;
        line.again_mono_ms = 0;
        // A job for the order before is no longer waited for; one that only asks may end.
        line.job = line.job.filter(|(_, for_order)| !for_order);
        let (by, how) =
            (if fence { " for its fence" } else { "" }, if network { ", to boot from the network" } else { "" });
        self.info(Topic::Host, now, format!("{host}: power {verb} was ordered{by}{how}"), |e| {
            e.host = Some(host.clone())
        });
        self.power_tick(now);
    }

    /// Gives every controller its next job, as far as there is one and room for it.
    pub(crate) fn power_tick(&mut self, now: Now) {
        let mut jobs = self.live.values().filter(|live| live.power.job.is_some()).count();
        let mut asked = self.live.values().filter(|live| live.power.job.is_some_and(|(_, order)| !order)).count();
        let mut with: Vec<HostId> = self.hosts.values().filter(|r| r.bmc.is_some()).map(|r| r.id.clone()).collect();
        // Who has waited longest goes first, or the last by name would never be asked where there are too many.
        with.sort_by_key(|host| self.live.get(host).and_then(|live| live.power.ask_mono_ms));
        // Orders first, and questions of those who wait; what is asked by itself takes what is left.
        for ordered in [true, false] {
            for host in &with {
                let Some(record) = self.hosts.get(host) else { continue };
                let Some(bmc) = &record.bmc else { continue };
                let open = record.power.as_ref().is_some_and(PowerOrder::is_open);
                let wakes = bmc.kind() == BmcKind::Wake;
                let line = &self.live.entry(host.clone()).or_default().power;
                if jobs >= JOBS_AT_ONCE || line.job.is_some() || open != ordered {
                    continue;
                }
                if open {
                    if line.again_mono_ms <= now.mono_ms && self.do_order(host, now) {
                        jobs += 1;
                    }
                    continue;
                }
                let due = line.ask_mono_ms.is_some_and(|at| at <= now.mono_ms) && asked < ASKED_AT_ONCE;
                if !wakes && (due || !line.asking.is_empty()) {
                    self.power_job(host, PowerOp::State, false);
                    (jobs, asked) = (jobs + 1, asked + 1);
                }
            }
        }
    }

    /// Has the controller told what the order still needs; whether it is being told.
    fn do_order(&mut self, host: &HostId, now: Now) -> bool {
        let Some(record) = self.hosts.get(host) else { return false };
        let Some(order) = record.power.clone() else { return false };
        // After a restart a host that is fenced is listened for anew.
        if self.superseded.is_some() || order.fence && self.power_off_is_early(host) {
            return false;
        }
        if order.off_first
            && !order.fence
            && let Err(refusal) = self.may_take_down(host)
        {
            self.order_ends(host, Err(refusal.to_string()), now);
            return false;
        }
        let op = if order.off_first { PowerOp::Off } else { self.on_op(record, order.view.network) };
        if let Some(order) = self.hosts.edit(host).and_then(|record| record.power.as_mut()) {
            order.view.stage = PowerStage::Doing;
            order.view.tries += 1;
        }
        self.power_job(host, op, true);
        true
    }

    fn on_op(&self, record: &HostRecord, network: bool) -> PowerOp {
        // A machine that was never seen is rather a new one than an old one.
        let network = network.then(|| record.firmware.unwrap_or(Firmware::Uefi));
        PowerOp::On { network, mac: record.mac, broadcast: self.broadcast_of(record) }
    }

    /// Of the subnet that it has its address on.
    fn broadcast_of(&self, record: &HostRecord) -> Ipv4Addr {
        let address = self.leases.address_of(record.mac);
        let subnet = address.map_or(&self.policy.subnet, |address| self.policy.subnet_at(address));
        let hosts = u32::MAX.checked_shr(u32::from(subnet.prefix)).unwrap_or(0);
        Ipv4Addr::from(u32::from(subnet.network) | hosts)
    }

    fn power_job(&mut self, host: &HostId, op: PowerOp, for_order: bool) {
        let Some(bmc) = self.hosts.get(host).and_then(|record| record.bmc.clone()) else { return };
        self.last_power_job += 1;
        let job = self.last_power_job;
        self.live(host).power.job = Some((job, for_order));
        self.effects.push(Effect::Power { job, host: host.clone(), bmc, op });
        self.version += 1;
    }

    /// A controller has answered, or has not.
    pub(crate) fn power_done(&mut self, job: u64, host: &HostId, result: Result<PowerAnswer, PowerFailure>, now: Now) {
        let Some(live) = self.live.get_mut(host) else { return };
        let Some((_, for_order)) = live.power.job.take_if(|(number, _)| *number == job) else { return };
        self.version += 1;
        self.note_answer(host, &result, now);
        if for_order {
            self.go_on_with_order(host, result, now);
        }
        let asking = std::mem::take(&mut self.live(host).power.asking);
        for reply in asking {
            let shown = self.hosts.get(host).and_then(|record| self.power_shown(record));
            let shown = shown.map(Reply::Power).ok_or_else(|| Refusal::NoBmc { host: host.clone() });
            self.answer(reply, Answer::Operator(shown));
        }
        self.note_host_state(host, now);
        self.power_tick(now);
    }

    fn note_answer(&mut self, host: &HostId, result: &Result<PowerAnswer, PowerFailure>, now: Now) {
        let line = &mut self.live(host).power;
        match result {
            Ok(answer) => {
                (line.state, line.said) = (answer.state, Some(now));
                line.ask_mono_ms = Some(now.mono_ms + ASK_MS);
                line.person_told = false;
                if line.failing.take().is_some() {
                    self.info(Topic::Host, now, format!("{host}: its BMC answers again"), |e| {
                        e.host = Some(host.clone())
                    });
                }
                if let Some(certificate) = &answer.certificate {
                    self.pin(host, certificate, now);
                }
            }
            Err(failure) => {
                line.state = PowerState::Unknown;
                // Where asking again cannot mend it, and may lock the account, somebody must ask.
                line.ask_mono_ms = (failure.why == PowerWhy::Unreached).then_some(now.mono_ms + ASK_FAILING_MS);
                let since_ms = line.failing.as_ref().map_or(now.unix_ms, |failing| failing.since_ms);
                let before = line.failing.replace(Failing { since_ms, text: failure.text.clone() });
                if before.is_none() {
                    let text = format!("{host}: {}", failure.text);
                    self.warn(Topic::Host, now, text, |e| e.host = Some(host.clone()));
                }
            }
        }
    }

    /// The first certificate that was shown is that which is trusted from now on.
    fn pin(&mut self, host: &HostId, certificate: &str, now: Now) {
        let first = |bmc: &Bmc| matches!(bmc, Bmc::Redfish { trust: Trust::First, .. });
        if !self.hosts.get(host).and_then(|record| record.bmc.as_ref()).is_some_and(first) {
            return;
        }
        if let Some(Bmc::Redfish { trust, .. }) = self.hosts.edit(host).and_then(|record| record.bmc.as_mut()) {
            *trust = Trust::Pinned(certificate.to_owned());
        }
        let text =
            format!("{host}: its BMC showed the certificate {certificate} (sha256); no other is trusted from now on");
        self.info(Topic::Host, now, text, |e| e.host = Some(host.clone()));
    }

    fn go_on_with_order(&mut self, host: &HostId, result: Result<PowerAnswer, PowerFailure>, now: Now) {
        let Some(order) = self.hosts.get(host).and_then(|record| record.power.as_ref()) else { return };
        if !order.is_open() {
            return;
        }
        let (cycle, off_first, tries) = (order.view.verb == PowerVerb::Cycle, order.off_first, order.view.tries);
        let failure = match result {
            Ok(_) if cycle && off_first => {
                if let Some(order) = self.hosts.edit(host).and_then(|record| record.power.as_mut()) {
                    (order.off_first, order.view.stage, order.view.tries) = (false, PowerStage::Asked, 0);
                }
                return;
            }
            Ok(_) => return self.order_ends(host, Ok(()), now),
            Err(failure) => failure,
        };
        if failure.why != PowerWhy::Unreached || tries >= TRIES_MAX {
            return self.order_ends(host, Err(failure.text), now);
        }
        let wait_ms = AGAIN_MS << (tries.max(1) - 1);
        self.live(host).power.again_mono_ms = now.mono_ms + wait_ms;
        let text = format!("{host}: try {tries} of {TRIES_MAX}, the next in {} s: {}", wait_ms / 1000, failure.text);
        if let Some(order) = self.hosts.edit(host).and_then(|record| record.power.as_mut()) {
            (order.view.stage, order.view.cause) = (PowerStage::Asked, failure.text);
        }
        self.warn(Topic::Host, now, text, |e| e.host = Some(host.clone()));
    }

    fn order_ends(&mut self, host: &HostId, result: Result<(), String>, now: Now) {
        let Some(order) = self.hosts.edit(host).and_then(|record| record.power.as_mut()) else { return };
        let verb = order.view.verb;
        order.view.ended_ms = Some(now.unix_ms);
        match result {
            Ok(()) => {
                (order.view.stage, order.view.cause) = (PowerStage::Done, String::new());
                self.info(Topic::Host, now, format!("{host}: power {verb} is done"), |e| e.host = Some(host.clone()));
            }
            Err(cause) => {
                (order.view.stage, order.view.cause) = (PowerStage::Failed, cause.clone());
                let text = format!("{host}: power {verb} was given up: {cause}");
                self.error(Topic::Host, now, text, |e| e.host = Some(host.clone()));
            }
        }
    }

    /// What an operator sees; `None` without a controller.
    pub(crate) fn power_shown(&self, record: &HostRecord) -> Option<PowerView> {
        let bmc = record.bmc.as_ref()?;
        let (address, user, trust, system) = match bmc {
            Bmc::Wake { to, .. } => {
                let to = to.clone().unwrap_or_else(|| self.broadcast_of(record).to_string());
                (to, String::new(), String::new(), None)
            }
            Bmc::Ipmi { address, user, .. } => (address.clone(), user.clone(), String::new(), None),
            Bmc::Redfish { address, user, trust, system, .. } => {
                (address.clone(), user.clone(), trust.to_string(), system.clone())
            }
        };
        let line = self.live.get(&record.id).map(|live| &live.power);
        let failing = line.and_then(|line| line.failing.as_ref());
        Some(PowerView {
            kind: bmc.kind(),
            address,
            user,
            trust,
            system: system.unwrap_or_default(),
            state: line.map_or(PowerState::Unknown, |line| line.state),
            at_ms: line.and_then(|line| line.said).map(|said| said.unix_ms),
            failing_since_ms: failing.map(|failing| failing.since_ms),
            failure: failing.map(|failing| failing.text.clone()).unwrap_or_default(),
            order: record.power.as_ref().map(|order| order.view.clone()),
        })
    }
}
