//! Hosts: the life cycle of a machine, from its first packet to the loss of its reports.
//!
//! Owns: the host's state and its commands; `boot` follows a machine on its way up, `join` lets it in, `report` hears it.
//! Never does: decide about VMs; it tells `vm` and `moves` when a host came, went or was booted anew.
//!
//! ```text
//! Registered --DHCP--> Booting --join--> Waiting --accept--> (first report) Active <--> Draining
//!                         ^                 |                                  |   ^
//!                         |                 +--refused--> Refused              |   | report of the same boot
//!                         +---- DHCP, script, join of a newer boot ---- Lost <-+---+
//!                                                                   silent for lost_ms
//! ```
//! A boot is a nonce. It is handed out with the script, spent by the first key that joins with it, and over when a
//! newer one of the same machine joins.

mod accept;
pub(crate) use accept::{check_labels, fits_name};
mod boot;
pub(crate) use boot::base64url;
mod join;
pub(crate) use join::bounded;
mod report;
mod stall;
#[cfg(test)]
mod tests;

use crate::Rack;
use crate::dhcp::clients::Client;
use crate::event::{Now, ReplyTo};
use crate::orders::Outstanding;
use crate::policy::JoinMode;
use crate::record::HostRecord;
use proto::agent::{DomainSurvey, JoinRefusal, Report};
use proto::api::{Accepted, DescribeHost, Refusal, RegisterHost};
use proto::event::Topic;
use proto::heartbeat::Slot;
use proto::release::PoolId;
use proto::view::{BootStepKind, HostState, VmPhase};
use proto::{HostId, Mac, OrderId, VmId};
use std::collections::BTreeMap;

/// Length of a nonce: 128 bits in base64url.
pub(crate) const NONCE_CHARS: usize = 22;
/// Machines that are neither accepted nor registered, at most: whoever invents addresses fills no more than this.
pub(crate) const UNKNOWN_HOSTS_MAX: usize = 256;
/// A machine that was silent for this long may be forgotten for another, milliseconds.
const FORGET_MS: u64 = 600_000;

/// What is known of a host but not kept.
#[derive(Default)]
pub(crate) struct Live {
    /// When anything was heard of it.
    pub(crate) seen_mono_ms: u64,
    /// When its present boot last reported; the start of the server counts as a report.
    pub(crate) heard_mono_ms: Option<u64>,
    /// It has not reported for too long.
    pub(crate) silent: bool,
    /// Nor has its slot moved.
    pub(crate) lost: bool,
    /// The newest sign that its guests may run: its slot moved, or it said that its lease is valid.
    pub(crate) sign_mono_ms: u64,
    /// The newest sign when a freeze ended by itself, and when that was.
    pub(crate) thawed: Option<(u64, u64)>,
    /// That was a sign indeed, since the server started and since its fence began.
    pub(crate) signed: bool,
    /// What stood in its slot last.
    pub(crate) beat: Option<Slot>,
    /// When the reading of the slots had begun after which it was last written.
    pub(crate) wrote_after_mono_ms: u64,
    /// When all its ways to the storage were found cut, or its power off.
    pub(crate) cut_mono_ms: Option<u64>,
    /// Its state, and since when, Unix milliseconds.
    pub(crate) state: Option<(HostState, u64)>,
    /// The newest report of its present boot since the server started.
    pub(crate) report: Option<Report>,
    /// A report that waits for its answer.
    pub(crate) held: Option<Held>,
    /// Orders whose outcome has not come.
    pub(crate) orders: Vec<Outstanding>,
    /// When the newest nonce was made.
    pub(crate) nonce_mono_ms: Option<u64>,
    /// When it last asked DHCP or fetched a script.
    pub(crate) asked_mono_ms: Option<u64>,
    /// When its boot last went on.
    pub(crate) moved_mono_ms: u64,
    /// Who sent its newest DHCP packet.
    pub(crate) client: Option<Client>,
    /// Beginnings in a row that got no further than this step.
    pub(crate) rounds: Option<(BootStepKind, u32)>,
    /// Since when its present boot has reported with a valid lease, without a break.
    pub(crate) healthy_mono_ms: Option<u64>,
    /// Why its boot stands still.
    pub(crate) stall: Option<String>,
    /// When steps of its boot that are under way began.
    pub(crate) open_steps: BTreeMap<BootStepKind, u64>,
    /// Its power.
    pub(crate) power: crate::power::Line,
}

/// A report that waits for its answer.
pub(crate) struct Held {
    pub(crate) reply: ReplyTo,
    pub(crate) since_mono_ms: u64,
    pub(crate) seen: Vec<OrderId>,
}

impl Live {
    /// The domain of a VM by the newest survey; `None` also when there is no survey.
    pub(crate) fn domain(&self, vm: &VmId) -> Option<&DomainSurvey> {
        self.report.as_ref()?.domains.iter().find(|domain| domain.vm == *vm)
    }
}

impl HostRecord {
    /// A machine that was seen or named for the first time.
    pub(crate) fn new(mac: Mac) -> Self {
        let id = HostId::of(mac);
        Self {
            name: id.to_string(),
            id,
            mac,
            firmware: None,
            accepted: false,
            registered: false,
            draining: false,
            boot: None,
            next_boot: None,
            inventory: None,
            steps: Vec::new(),
            labels: BTreeMap::new(),
            slot: None,
            fence: None,
            bmc: None,
            power: None,
            pool: PoolId::default(),
            off: None,
            bmc_doubted: false,
        }
    }

    /// A key has joined under its present boot.
    pub(crate) fn joined(&self) -> bool {
        self.boot.as_ref().is_some_and(|boot| boot.key.is_some())
    }
}

impl Rack {
    pub(crate) fn live(&mut self, host: &HostId) -> &mut Live {
        self.live.entry(host.clone()).or_default()
    }

    /// Where the host stands; see the diagram above.
    pub(crate) fn host_state(&self, record: &HostRecord) -> HostState {
        let live = self.live.get(&record.id);
        let lost = live.is_some_and(|l| l.lost);
        let heard = live.and_then(|l| l.heard_mono_ms);
        let asked = live.and_then(|l| l.asked_mono_ms);
        if self.turned_away(record) {
            HostState::Refused
        } else if record.joined() && !record.accepted {
            HostState::Waiting
        } else if record.joined() && lost {
            if asked > heard { HostState::Booting } else { HostState::Lost }
        } else if record.joined() && heard.is_some() {
            if record.draining { HostState::Draining } else { HostState::Active }
        } else if record.steps.is_empty() && record.boot.is_none() {
            HostState::Registered
        } else {
            HostState::Booting
        }
    }

    /// It has joined, but only registered machines are let in.
    pub(crate) fn turned_away(&self, record: &HostRecord) -> bool {
        self.policy.join == JoinMode::Known && record.joined() && !record.accepted && !record.registered
    }

    /// The host is let in, not silent, and has reported since the server started: what its survey says holds.
    pub(crate) fn reporting(&self, host: &HostId) -> bool {
        self.hosts.get(host).is_some_and(|record| record.accepted && record.joined())
            && self.live.get(host).is_some_and(|live| !live.silent && live.report.is_some())
    }

    /// Not known to be gone: let in, and with a sign of life before long.
    pub(crate) fn present(&self, host: &HostId) -> bool {
        self.hosts.get(host).is_some_and(|record| record.accepted && record.joined())
            && self.live.get(host).is_some_and(|live| !live.lost)
    }

    /// Writes down a change of a host's state.
    pub(crate) fn note_host_state(&mut self, host: &HostId, now: Now) {
        let Some(record) = self.hosts.get(host) else { return };
        let (state, name) = (self.host_state(record), record.name.clone());
        let live = self.live.entry(host.clone()).or_default();
        let before = live.state.map(|(state, _)| state);
        if before == Some(state) {
            return;
        }
        live.state = Some((state, now.unix_ms));
        self.version += 1;
        let text = match state {
            HostState::Registered => return,
            HostState::Booting => format!("{name} boots"),
            HostState::Waiting => format!("{name} waits to be accepted"),
            HostState::Active => format!("{name} is active"),
            HostState::Draining => format!("{name} is being drained"),
            HostState::Lost if self.is_off(host) => format!("{name} is switched off"),
            HostState::Lost => {
                return self.warn(Topic::Host, now, format!("{name} is lost: neither report nor heartbeat"), |e| {
                    e.host = Some(host.clone())
                });
            }
            HostState::Refused => {
                return self.warn(Topic::Host, now, format!("{name} was refused"), |e| e.host = Some(host.clone()));
            }
        };
        self.info(Topic::Host, now, text, |e| e.host = Some(host.clone()));
    }

    /// Finds or makes the record of a machine that boots. `None` when too many strangers are known already.
    pub(crate) fn host_that_boots(&mut self, mac: Mac, now: Now) -> Option<HostId> {
        let id = self.host_of(mac);
        if !self.hosts.contains(&id) {
            if !self.room_for_stranger(now) {
                return None;
            }
            self.hosts.put(HostRecord::new(mac));
            self.info(Topic::Boot, now, format!("a new machine {mac} asks to boot"), |e| e.host = Some(id.clone()));
        }
        let live = self.live(&id);
        live.seen_mono_ms = now.mono_ms;
        Some(id)
    }

    /// Whether one more machine that nobody knows may be kept; forgets the stalest when that makes room.
    fn room_for_stranger(&mut self, now: Now) -> bool {
        let strangers: Vec<_> = self
            .hosts
            .values()
            .filter(|h| !h.accepted && !h.registered && h.bmc.is_none())
            .map(|h| h.id.clone())
            .collect();
        if strangers.len() < UNKNOWN_HOSTS_MAX {
            return true;
        }
        let seen = |id: &HostId| self.live.get(id).map_or(0, |live| live.seen_mono_ms);
        let Some(stalest) = strangers.into_iter().min_by_key(seen) else { return false };
        if seen(&stalest) + FORGET_MS > now.mono_ms {
            return false;
        }
        self.forget_host(&stalest);
        true
    }

    fn forget_host(&mut self, host: &HostId) {
        if let Some(record) = self.hosts.remove(host) {
            self.forget_learnt(record.mac);
            self.cards.retain(|_, owner| owner != host);
        }
        if let Some(mut live) = self.live.remove(host) {
            for reply in live.power.asking {
                self.answer_operator(reply, Err(Refusal::NoHost { host: host.clone() }));
            }
            if let Some(held) = live.held.take() {
                self.answer(held.reply, crate::effect::Answer::Report(Err(JoinRefusal::Removed)));
            }
            for order in live.orders {
                self.order_dropped(order);
            }
        }
    }

    /// Notices hosts that fell silent, and those that are there again by their slot alone. At most `lost_ms` and one tick late.
    pub(crate) fn find_lost(&mut self, now: Now) {
        let lost_ms = self.policy.lost_ms;
        let mut changed = Vec::new();
        for (id, live) in &mut self.live {
            // A boot that has joined counts from then: it may never report.
            let joined = || self.hosts.get(id).is_some_and(|record| record.accepted && record.joined());
            let Some(heard) = live.heard_mono_ms.or_else(|| joined().then_some(live.sign_mono_ms)) else { continue };
            live.silent = now.mono_ms.saturating_sub(heard) > lost_ms;
            let lost = live.silent && now.mono_ms.saturating_sub(live.sign_mono_ms) > lost_ms;
            if live.lost != lost {
                live.lost = lost;
                changed.push(id.clone());
            }
        }
        for host in changed {
            let live = self.live(&host);
            let lost = live.lost;
            if let Some(held) = live.held.take_if(|_| lost) {
                self.answer_report(&host, held, now);
            }
            self.note_host_state(&host, now);
            self.touch_host(&host);
        }
    }

    fn host_or_refuse(&self, host: &HostId) -> Result<&HostRecord, Refusal> {
        self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })
    }

    pub(crate) fn register_host(&mut self, request: RegisterHost, now: Now) -> Result<Accepted, Refusal> {
        let id = HostId::of(request.mac);
        if self.vm_macs.contains_key(&request.mac) || request.mac.0[0] & 1 != 0 || request.mac.0 == [0; 6] {
            return Err(Refusal::MacTaken { mac: request.mac });
        }
        let name = match request.name {
            None => None,
            Some(name) => {
                if !fits_name(&name) {
                    let expected = "1 to 63 characters, none of them control characters".to_owned();
                    return Err(Refusal::BadValue { field: "name".to_owned(), given: name, expected });
                }
                if self.hosts.values().any(|h| h.name == name && h.id != id) {
                    return Err(Refusal::NameTaken { name });
                }
                Some(name)
            }
        };
        if self.hosts.get(&id).is_some_and(|h| h.registered) {
            return Err(Refusal::MacTaken { mac: request.mac });
        }
        if !self.hosts.contains(&id) {
            self.hosts.put(HostRecord::new(request.mac));
        }
        if let Some(record) = self.hosts.edit(&id) {
            record.registered = true;
            record.name = name.unwrap_or_else(|| record.name.clone());
        }
        if self.policy.join == JoinMode::Known && self.hosts.get(&id).is_some_and(HostRecord::joined) {
            self.accept_host(&id, now)?;
        }
        // Its address is kept from now on, so that strangers cannot use up the pool before it comes.
        self.lease_ahead(request.mac, now);
        self.info(Topic::Operator, now, format!("{} was registered", request.mac), |e| e.host = Some(id.clone()));
        self.note_host_state(&id, now);
        Ok(Accepted::Done)
    }

    pub(crate) fn describe_host(
        &mut self,
        host: &HostId,
        request: DescribeHost,
        now: Now,
    ) -> Result<Accepted, Refusal> {
        self.host_or_refuse(host)?;
        if let Some(name) = &request.name {
            if !fits_name(name) {
                let expected = "1 to 63 characters, none of them control characters".to_owned();
                return Err(Refusal::BadValue { field: "name".to_owned(), given: name.clone(), expected });
            }
            if self.hosts.values().any(|h| h.name == *name && h.id != *host) {
                return Err(Refusal::NameTaken { name: name.clone() });
            }
        }
        if let Some(labels) = &request.labels {
            check_labels(labels)?;
        }
        if let Some(record) = self.hosts.edit(host) {
            record.name = request.name.unwrap_or_else(|| record.name.clone());
            record.labels = request.labels.unwrap_or_else(|| record.labels.clone());
        }
        self.info(Topic::Operator, now, format!("{host} was given name and labels"), |e| e.host = Some(host.clone()));
        self.balance_soon(now);
        Ok(Accepted::Done)
    }

    pub(crate) fn accept_host(&mut self, host: &HostId, now: Now) -> Result<Accepted, Refusal> {
        if !self.host_or_refuse(host)?.accepted {
            self.info(Topic::Operator, now, format!("{host} was accepted"), |e| e.host = Some(host.clone()));
            self.admit(host, now);
            self.step_ends(host, BootStepKind::Join, now);
        }
        self.note_host_state(host, now);
        Ok(Accepted::Done)
    }

    pub(crate) fn remove_host(&mut self, host: &HostId, now: Now) -> Result<Accepted, Refusal> {
        let record = self.host_or_refuse(host)?;
        let mac = record.mac;
        let count = self
            .vms
            .values()
            .filter(|vm| vm.owner.as_ref() == Some(host) && !matches!(vm.phase, VmPhase::Stopped | VmPhase::Failed))
            .count();
        if count > 0 {
            return Err(Refusal::HostHasVms { host: host.clone(), count });
        }
        if let Some(r#move) = self.moves_of(host).next() {
            return Err(Refusal::MoveUnderWay { r#move });
        }
        self.may_forget_ways(host)?;
        self.end_ways_of_boot(host, now);
        self.keep_out(host);
        self.forget_host(host);
        self.leases.release(mac, now);
        self.info(Topic::Operator, now, format!("{host} was removed"), |e| e.host = Some(host.clone()));
        Ok(Accepted::Done)
    }

    pub(crate) fn drain_host(&mut self, host: &HostId, draining: bool, now: Now) -> Result<Accepted, Refusal> {
        let record = self.host_or_refuse(host)?;
        if !record.accepted {
            return Err(Refusal::HostIs { host: host.clone(), state: self.host_state(record) });
        }
        if record.draining != draining
            && let Some(record) = self.hosts.edit(host)
        {
            record.draining = draining;
            let what = if draining { "is to be drained" } else { "takes VMs again" };
            self.info(Topic::Operator, now, format!("{host} {what}"), |e| e.host = Some(host.clone()));
            self.balance_soon(now);
        }
        self.note_host_state(host, now);
        Ok(Accepted::Done)
    }
}
