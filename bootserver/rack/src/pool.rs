//! Pools: hosts that boot one release, and how they come to boot another.
//!
//! Owns: which pool a host is in, what it boots next, the operator's commands; [`rollout`] says what is to be done when, from what is seen of
//! the hosts. Never does: hold a file (`release` and the shell), or move a VM: a host is drained like by an operator.

mod rollout;
#[cfg(test)]
mod tests;

pub use rollout::{Canary, Deed, Rollout, Seen, Turn};

use crate::Rack;
use crate::event::Now;
use crate::orders::Purpose;
use crate::record::{HostRecord, PoolRecord};
use crate::release::id_of;
use proto::agent::{Act, OrderOutcome};
use proto::api::{Accepted, Refusal};
use proto::event::Topic;
use proto::power::{OrderPower, PowerVerb};
use proto::release::{
    CreatePool, Manifest, PoolId, PoolView, ReleaseId, ReleaseKind, RolloutHost, RolloutPhase, RolloutView,
    StartRollout,
};
use proto::view::VmPhase;
use proto::{Epoch, HostId};
use std::collections::BTreeMap;

/// Pools, at most.
pub const POOLS_MAX: usize = 64;

impl PoolRecord {
    /// A rollout is under way that another would disturb.
    pub(crate) fn busy(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| !rollout.ended())
    }
}

impl Rack {
    /// What the newest joined boot of a host runs: what it says itself, or else what it was sent.
    pub(crate) fn runs_release(&self, record: &HostRecord) -> Option<ReleaseId> {
        let boot = record.boot.as_ref().filter(|boot| boot.key.is_some())?;
        let said = record.inventory.as_ref().and_then(|inventory| inventory.release.parse().ok());
        said.or_else(|| boot.release.clone())
    }

    /// What a host would boot now.
    pub(crate) fn wanted_release(&self, record: &HostRecord) -> (ReleaseId, &Manifest) {
        let pool = self.pools.get(&record.pool).or_else(|| self.pools.get(&PoolId::default()));
        let wanted = pool.map(|pool| match &pool.rollout {
            Some(rollout) if rollout.phase == RolloutPhase::Canary && rollout.tries(&record.id) => &rollout.to,
            _ => &pool.release,
        });
        match wanted.and_then(|id| self.releases.get(id)) {
            Some(record) => (record.id.clone(), &record.manifest),
            // A pool's release is never removed; the configuration's is always there.
            None => (id_of(&self.policy.release), &self.policy.release),
        }
    }

    pub(crate) fn outdated(&self, record: &HostRecord) -> bool {
        self.runs_release(record).is_some_and(|runs| runs != self.wanted_release(record).0)
    }

    /// Begins or ends the time for which a host's present boot has been healthy.
    pub(crate) fn note_health(&mut self, host: &HostId, now: Now) {
        let healthy = self.usable(host);
        let live = self.live(host);
        match (healthy, live.healthy_mono_ms) {
            (true, None) => live.healthy_mono_ms = Some(now.mono_ms),
            (false, Some(_)) => live.healthy_mono_ms = None,
            _ => {}
        }
    }

    /// Lets every rollout take its next steps.
    pub(crate) fn step_pools(&mut self, now: Now) {
        for host in self.hosts.ids() {
            self.note_health(&host, now);
        }
        for name in self.pools.ids() {
            let Some(rollout) = self.pools.get(&name).and_then(|pool| pool.rollout.clone()) else { continue };
            let seen = self.seen(&name, now);
            let mut next = rollout.clone();
            let deeds = next.step(&seen, now.unix_ms);
            if next != rollout
                && let Some(pool) = self.pools.edit(&name)
            {
                pool.rollout = Some(next);
                self.version += 1;
            }
            for deed in deeds {
                self.carry_out_deed(&name, deed, now);
            }
        }
    }

    /// The hosts of a pool, as a rollout sees them.
    fn seen(&self, pool: &PoolId, now: Now) -> BTreeMap<HostId, Seen> {
        let hosts = self.hosts.values().filter(|record| record.pool == *pool && record.accepted);
        hosts.map(|record| (record.id.clone(), self.see(record, now))).collect()
    }

    fn see(&self, record: &HostRecord, now: Now) -> Seen {
        let host = &record.id;
        let joined = record.boot.as_ref().filter(|boot| boot.key.is_some());
        let healthy = self.live.get(host).and_then(|live| live.healthy_mono_ms);
        let vms = self.vms_of(host).into_iter().filter(|vm| {
            let at_rest = |phase| matches!(phase, VmPhase::Stopped | VmPhase::Failed | VmPhase::Creating);
            self.vms.get(vm).is_some_and(|vm| !at_rest(vm.phase))
        });
        let domains = self.live.get(host).and_then(|l| l.report.as_ref()).map_or(0, |report| report.domains.len());
        Seen {
            runs: self.runs_release(record),
            boot: joined.map(|boot| boot.nonce.clone()),
            up: self.reporting(host),
            healthy_ms: healthy.map(|since| now.mono_ms.saturating_sub(since)),
            vms: vms.count().max(domains),
            moves: self.moves_of(host).next().is_some(),
            draining: record.draining,
            // An agent that names its release knows the order as well.
            reboots: record.inventory.as_ref().is_some_and(|inventory| !inventory.release.is_empty()),
        }
    }

    /// An operator drains a host: if a rollout has drained it as well, it is not used again when that has done with it.
    pub(crate) fn drained_by_hand(&mut self, host: &HostId) {
        let turned = |pool: &&PoolRecord| {
            pool.rollout.as_ref().is_some_and(|r| r.turns.iter().any(|t| t.host == *host && t.drained))
        };
        let Some(pool) = self.pools.values().find(turned).map(|pool| pool.name.clone()) else { return };
        let turns = self.pools.edit(&pool).and_then(|pool| pool.rollout.as_mut()).map(|rollout| &mut rollout.turns);
        for turn in turns.into_iter().flatten().filter(|turn| turn.host == *host) {
            turn.drained = false;
        }
    }

    fn carry_out_deed(&mut self, pool: &PoolId, deed: Deed, now: Now) {
        match deed {
            // A host that was removed meanwhile needs neither.
            Deed::Drain(host) => drop(self.drain_host(&host, true, now)),
            Deed::Undrain(host) => drop(self.drain_host(&host, false, now)),
            Deed::Reboot { host, boot } => {
                if !self.told(&host, &Purpose::Reboot) {
                    let id = self.order_number();
                    self.tell(&host, id, Epoch(0), Act::Reboot { boot }, Purpose::Reboot);
                }
            }
            Deed::Cycle(host) => {
                let request = OrderPower { verb: PowerVerb::Cycle, network: true };
                // Without a controller that can, a person has to: what it boots next is decided all the same.
                if let Err(refusal) = self.order_power(&host, request, now) {
                    let text = format!(
                        "rollout of pool {pool}: {host} does not answer, and somebody must start it anew: {refusal}"
                    );
                    self.warn(Topic::Host, now, text, |e| e.host = Some(host));
                }
            }
            Deed::Promote(release) => {
                if let Some(pool) = self.pools.edit(pool) {
                    pool.previous = Some(std::mem::replace(&mut pool.release, release));
                }
            }
            Deed::Info(text) => self.info(Topic::Host, now, format!("rollout of pool {pool}: {text}"), |_| ()),
            Deed::Warn(text) => self.warn(Topic::Host, now, format!("rollout of pool {pool}: {text}"), |_| ()),
        }
    }

    /// A host has answered the order to start anew. That it is done shows by its next boot alone.
    pub(crate) fn reboot_ended(&mut self, host: &HostId, outcome: OrderOutcome, now: Now) {
        if let Err(failure) = outcome.result {
            let text = format!("{host} did not start anew: {}", failure.detail);
            self.warn_seldom(Topic::Host, now, text);
        }
    }

    fn pool_or_refuse(&self, pool: &PoolId) -> Result<&PoolRecord, Refusal> {
        self.pools.get(pool).ok_or_else(|| Refusal::NoPool { pool: pool.clone() })
    }

    /// A release that hosts can boot.
    fn dom0_or_refuse(&self, release: &ReleaseId) -> Result<(), Refusal> {
        match self.releases.get(release).map(|record| record.manifest.kind) {
            None => Err(Refusal::NoRelease { release: release.clone() }),
            Some(ReleaseKind::Guest) => Err(Refusal::BadValue {
                field: "release".to_owned(),
                given: self.release_title(release),
                expected: "one for hosts, not for guests".to_owned(),
            }),
            Some(ReleaseKind::Dom0) => Ok(()),
        }
    }

    pub(crate) fn create_pool(&mut self, request: CreatePool, now: Now) -> Result<Accepted, Refusal> {
        let CreatePool { name, release } = request;
        self.dom0_or_refuse(&release)?;
        if self.pools.contains(&name) {
            return Err(Refusal::NameTaken { name: name.to_string() });
        }
        if self.pools.len() >= POOLS_MAX {
            let given = (self.pools.len() + 1).to_string();
            return Err(Refusal::BadValue {
                field: "pools".to_owned(),
                given,
                expected: format!("{POOLS_MAX} or fewer"),
            });
        }
        let text = format!("pool {name} was made; its hosts boot {}", self.release_title(&release));
        self.pools.put(PoolRecord { name, release, previous: None, configured: None, rollout: None });
        self.info(Topic::Operator, now, text, |_| ());
        Ok(Accepted::Done)
    }

    pub(crate) fn delete_pool(&mut self, pool: &PoolId, now: Now) -> Result<Accepted, Refusal> {
        self.pool_or_refuse(pool)?;
        let hosts = self.hosts.values().filter(|host| host.pool == *pool).count();
        if hosts > 0 || *pool == PoolId::default() {
            let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
            return Err(Refusal::PoolInUse { pool: pool.clone(), hosts });
        }
        self.pools.remove(pool);
        self.info(Topic::Operator, now, format!("pool {pool} was deleted"), |_| ());
        Ok(Accepted::Done)
    }

    pub(crate) fn set_pool(&mut self, host: &HostId, pool: PoolId, now: Now) -> Result<Accepted, Refusal> {
        let record = self.hosts.get(host).ok_or_else(|| Refusal::NoHost { host: host.clone() })?;
        self.pool_or_refuse(&pool)?;
        let before = record.pool.clone();
        if before == pool {
            return Ok(Accepted::Done);
        }
        let takes_part = |rollout: &Rollout| !rollout.ended() && rollout.concerns(host);
        if self.pools.get(&before).and_then(|pool| pool.rollout.as_ref()).is_some_and(takes_part) {
            return Err(Refusal::RolloutUnderWay { pool: before });
        }
        let text = format!("{host} was put into pool {pool}");
        if let Some(record) = self.hosts.edit(host) {
            record.pool = pool;
        }
        self.info(Topic::Operator, now, text, |e| e.host = Some(host.clone()));
        Ok(Accepted::Done)
    }

    pub(crate) fn start_rollout(
        &mut self,
        pool: &PoolId,
        request: StartRollout,
        now: Now,
    ) -> Result<Accepted, Refusal> {
        let record = self.pool_or_refuse(pool)?;
        if record.busy() {
            return Err(Refusal::RolloutUnderWay { pool: pool.clone() });
        }
        self.dom0_or_refuse(&request.to)?;
        let range = |field: &str, given: u64, least: u64, most: u64| match (least..=most).contains(&given) {
            true => Ok(()),
            false => Err(Refusal::BadValue {
                field: field.to_owned(),
                given: given.to_string(),
                expected: format!("{least} to {most}"),
            }),
        };
        range("canary", request.canary.into(), 0, 1000)?;
        range("deadline_s", request.deadline_s, 30, 86_400)?;
        range("healthy_s", request.healthy_s, 0, 86_400)?;
        range("at_once", request.at_once.into(), 1, 100)?;
        let from = record.release.clone();
        if from == request.to {
            let given = self.release_title(&request.to);
            let expected = "another release than the pool has".to_owned();
            return Err(Refusal::BadValue { field: "to".to_owned(), given, expected });
        }
        let rollout = Rollout::begin(request, from, &self.seen(pool, now), now.unix_ms).map_err(|why| {
            let given = pool.to_string();
            Refusal::BadValue { field: "canary".to_owned(), given, expected: why }
        })?;
        let chosen = rollout.canaries.iter().map(|c| format!("{} ({})", c.host, c.why)).collect::<Vec<_>>().join(", ");
        let title = self.release_title(&rollout.to);
        let text = match rollout.canaries.is_empty() {
            true => format!("rollout of pool {pool} to {title} begins with all its hosts"),
            false => format!("rollout of pool {pool} to {title} begins; first {chosen}"),
        };
        if let Some(record) = self.pools.edit(pool) {
            record.rollout = Some(rollout);
        }
        self.info(Topic::Operator, now, text, |_| ());
        self.step_pools(now);
        Ok(Accepted::Begun)
    }

    pub(crate) fn stop_rollout(&mut self, pool: &PoolId, now: Now) -> Result<Accepted, Refusal> {
        let record = self.pool_or_refuse(pool)?;
        let Some(mut rollout) = record.rollout.clone().filter(|rollout| !rollout.ended()) else {
            return Err(Refusal::Unavailable { detail: format!("no rollout of pool {pool} is under way") });
        };
        let seen = self.seen(pool, now);
        let deeds = rollout.stop("an operator has stopped it", &seen);
        if let Some(record) = self.pools.edit(pool) {
            record.rollout = Some(rollout);
        }
        for deed in deeds {
            self.carry_out_deed(pool, deed, now);
        }
        self.step_pools(now);
        Ok(Accepted::Done)
    }

    pub(crate) fn pools_shown(&self) -> Vec<PoolView> {
        let mut counts: BTreeMap<&PoolId, (u32, u32)> = BTreeMap::new();
        for host in self.hosts.values().filter(|host| host.accepted) {
            let (hosts, outdated) = counts.entry(&host.pool).or_default();
            *hosts += 1;
            *outdated += u32::from(self.outdated(host));
        }
        let shown = self.pools.values().map(|pool| {
            let (hosts, outdated) = counts.get(&pool.name).copied().unwrap_or_default();
            let name = |host: &HostId| self.hosts.get(host).map_or_else(|| host.to_string(), |h| h.name.clone());
            PoolView {
                name: pool.name.clone(),
                release: pool.release.clone(),
                previous: pool.previous.clone(),
                hosts,
                outdated,
                rollout: pool.rollout.as_ref().map(|rollout| rollout_shown(rollout, &name)),
            }
        });
        shown.collect()
    }
}

fn rollout_shown(rollout: &Rollout, name: &dyn Fn(&HostId) -> String) -> RolloutView {
    RolloutView {
        to: rollout.to.clone(),
        from: rollout.from.clone(),
        phase: rollout.phase,
        began_ms: rollout.began_ms,
        deadline_ms: rollout.next_deadline_ms(),
        canaries: rollout
            .canaries
            .iter()
            .map(|canary| RolloutHost { host: canary.host.clone(), what: canary.why.clone() })
            .collect(),
        turns: rollout
            .turns
            .iter()
            .map(|turn| RolloutHost { host: turn.host.clone(), what: turn.at.clone() })
            .collect(),
        note: rollout.note(name),
    }
}
