//! The rack: the appliance's pure core.
//!
//! Owns: every decision of the boot server, as one state that takes events and a time and gives back
//! ordered effects. Never does: input or output, clocks, randomness, threads. The shell in `bootserver`
//! feeds it and obeys it; so does the simulated rack in `tests`.
//!
//! ```text
//! event --> host, vm, disk: what it means, records changed --> settle: each VM and move that may go on takes its
//! next step, until none can --> commits of all changed records, then everything else in the order it came up
//! ```
//! Steps look at records, surveys and finished storage jobs only, and asking for the same again changes nothing:
//! so a restart needs no more than the records, and goes on by the same code.

mod admission;
mod backups;
mod balance;
pub mod dhcp;
pub mod disk;
pub mod effect;
pub mod event;
mod ha;
mod host;
mod lease;
mod log;
#[cfg(test)]
mod model;
mod moves;
pub mod names;
mod orders;
pub mod policy;
pub mod pool;
pub mod power;
pub mod record;
pub mod recovery;
pub mod release;
pub mod script;
mod table;
#[cfg(test)]
mod testing;
mod view;
mod vm;

use admission::Admission;
use effect::{Answer, Effect, Reply};
use event::{Command, Event, Now, ReplyTo};
use host::Live;
use lease::Leases;
use log::Log;
use policy::{Policy, Serves};
use proto::api::{Accepted, Refusal};
use proto::{HostId, Mac, MoveId, OrderId, Term, VmId};
use record::{
    Counters, DiskRecord, ExpectedRecord, HostRecord, LeaseRecord, Loaded, MoveRecord, PoolRecord, QuarantineRecord,
    Record, ReleaseRecord, TermRecord, VmRecord,
};
use std::collections::{BTreeMap, BTreeSet};
use table::{Kept, Table};

/// How often steps that wait for nothing in particular are looked at again, milliseconds.
const LOOK_AGAIN_MS: u64 = 1000;

/// All that the boot server knows.
pub struct Rack {
    policy: Policy,
    leases: Leases,
    foreign: dhcp::Foreign,
    /// Further network cards of hosts, as far as they have asked for an address; each is in a host's inventory.
    cards: BTreeMap<Mac, HostId>,
    /// Machines of a list that have not come yet.
    expected: Table<ExpectedRecord>,
    releases: Table<ReleaseRecord>,
    pools: Table<PoolRecord>,
    hosts: Table<HostRecord>,
    disks: Table<DiskRecord>,
    vms: Table<VmRecord>,
    moves: Table<MoveRecord>,
    log: Log,
    counters: Table<Counters>,
    terms: Table<TermRecord>,
    /// The record was restored from a backup, and what happened since is being found out.
    recovery: Option<recovery::Survey>,
    /// The term of a server that has taken our place.
    superseded: Option<Term>,
    /// What is known of hosts, storage, VMs and moves, and not kept.
    live: BTreeMap<HostId, Live>,
    storage: disk::Storage,
    guests: BTreeMap<VmId, vm::Guest>,
    transits: BTreeMap<MoveId, moves::Transit>,
    balancing: balance::Balancing,
    backups: proto::view::BackupView,
    admission: Admission,
    ha: ha::Watch,
    /// VMs by their owner.
    owned: BTreeMap<HostId, BTreeSet<VmId>>,
    /// Addresses of VMs' interfaces.
    vm_macs: BTreeMap<Mac, VmId>,
    last_order: OrderId,
    last_power_job: u64,
    /// VMs and moves whose next step may be possible.
    touched_vms: BTreeSet<VmId>,
    touched_moves: BTreeSet<MoveId>,
    /// How many VMs may be placed until the next tick, and who has come too late for that.
    placements_left: u32,
    placed_later: BTreeSet<VmId>,
    /// Counts how often nobody was left of those.
    placing_round: u64,
    /// Hosts whose held report may have something to carry.
    to_answer: BTreeSet<HostId>,
    looked_mono_ms: u64,
    version: u64,
    effects: Vec<Effect>,
}

/// What ends a wait for hosts, and disturbs no guest that may run.
fn ends_a_survey(command: &Command) -> bool {
    matches!(command, Command::Thaw | Command::OrderPower { .. } | Command::AskPower { .. })
}

/// The records of a store do not fit together, or not the configuration.
#[derive(Debug, thiserror::Error)]
#[error("record {key}: {what}")]
pub struct RestoreError {
    /// Which.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl Rack {
    /// Takes up where the records left off; an empty list is a new rack. The effects are to be done like those of
    /// [`Rack::apply`]: storage that must be seen to, above all.
    pub fn restore(policy: Policy, records: Vec<Loaded>, now: Now) -> Result<(Self, Vec<Effect>), RestoreError> {
        script::bios_budget(&policy, &policy.release)
            .map_err(|err| RestoreError { key: "(configuration)".to_owned(), what: err.to_string() })?;
        let mut rack = Self {
            leases: Leases::new(policy.subnets().filter(|s| s.serves == Serves::Full).map(|s| s.pool)),
            foreign: dhcp::Foreign::default(),
            cards: BTreeMap::new(),
            policy,
            expected: Table::default(),
            releases: Table::default(),
            pools: Table::default(),
            hosts: Table::default(),
            disks: Table::default(),
            vms: Table::default(),
            moves: Table::default(),
            log: Log::default(),
            counters: Table::default(),
            terms: Table::default(),
            recovery: None,
            superseded: None,
            live: BTreeMap::new(),
            storage: disk::Storage::default(),
            guests: BTreeMap::new(),
            transits: BTreeMap::new(),
            balancing: balance::Balancing::default(),
            backups: Default::default(),
            admission: Admission::default(),
            ha: ha::Watch::default(),
            owned: BTreeMap::new(),
            vm_macs: BTreeMap::new(),
            last_order: OrderId(0),
            last_power_job: 0,
            touched_vms: BTreeSet::new(),
            touched_moves: BTreeSet::new(),
            placements_left: vm::PLACEMENTS_PER_TICK,
            placed_later: BTreeSet::new(),
            placing_round: 0,
            to_answer: BTreeSet::new(),
            looked_mono_ms: now.mono_ms,
            version: 0,
            effects: Vec::new(),
        };
        for loaded in records {
            rack.load(loaded)?;
        }
        rack.check_links()?;
        rack.take_up(now);
        rack.settle(now);
        let effects = rack.flush();
        Ok((rack, effects))
    }

    fn load(&mut self, loaded: Loaded) -> Result<(), RestoreError> {
        let Loaded { key, version, record } = loaded;
        let wrong = |what: String| RestoreError { key: format!("{}/{}", key.kind.as_str(), key.name), what };
        let named = match &record {
            Record::Lease(r) => LeaseRecord::name(&r.id()),
            Record::Quarantine(r) => QuarantineRecord::name(&r.id()),
            Record::Expected(r) => ExpectedRecord::name(&r.id()),
            Record::Release(r) => ReleaseRecord::name(&r.id()),
            Record::Pool(r) => PoolRecord::name(&r.id()),
            Record::Host(r) => HostRecord::name(&r.id()),
            Record::Disk(r) => DiskRecord::name(&r.id()),
            Record::Vm(r) => VmRecord::name(&r.id()),
            Record::Move(r) => MoveRecord::name(&r.id()),
            Record::Log(r) => proto::event::LogEvent::name(&r.id()),
            Record::Counters(r) => {
                r.id();
                Counters::name(&())
            }
            Record::Term(r) => {
                r.id();
                TermRecord::name(&())
            }
        };
        if named != key.name {
            return Err(wrong(format!("it is kept under this name, but is about {named}")));
        }
        match record {
            Record::Lease(r) => {
                let address = r.address;
                if !self.leases.load(version, r) {
                    return Err(wrong(format!("{address} is leased to another machine as well")));
                }
            }
            Record::Quarantine(r) => self.leases.quarantine.load(version, r),
            Record::Expected(r) => self.expected.load(version, r),
            Record::Release(r) => self.releases.load(version, r),
            Record::Pool(r) => self.pools.load(version, r),
            Record::Host(r) => self.hosts.load(version, r),
            Record::Disk(r) => self.disks.load(version, r),
            Record::Vm(r) => {
                for vif in &r.spec.vifs {
                    // Two VMs have one only after a restore, which has warned of it.
                    self.vm_macs.entry(vif.mac).or_insert_with(|| r.spec.name.clone());
                }
                if let Some(owner) = &r.owner {
                    self.owned.entry(owner.clone()).or_default().insert(r.spec.name.clone());
                }
                self.vms.load(version, r);
            }
            Record::Move(r) => self.moves.load(version, r),
            Record::Log(r) => self.log.load(version, r),
            Record::Counters(r) => {
                self.last_order = r.orders;
                self.counters.load(version, r);
            }
            Record::Term(r) => self.terms.load(version, r),
        }
        Ok(())
    }

    /// What one record says of another must be there.
    fn check_links(&self) -> Result<(), RestoreError> {
        for vm in self.vms.values() {
            let wrong = |what: String| RestoreError { key: format!("vm/{}", vm.spec.name), what };
            if let Some(disk) = vm.spec.disks.iter().find(|disk| !self.disks.contains(disk)) {
                return Err(wrong(format!("its disk {disk} has no record")));
            }
            if let Some(id) = vm.r#move
                && self.moves.get(&id).is_none_or(|m| m.view.vm != vm.spec.name)
            {
                return Err(wrong(format!("its move {id} has no record, or is another VM's")));
            }
        }
        Ok(())
    }

    /// Sets going again what was under way.
    fn take_up(&mut self, now: Now) {
        self.end_learnt(now);
        self.take_configured_releases(now);
        for host in self.hosts.ids() {
            let Some(record) = self.hosts.get(&host) else { continue };
            // A full period for everybody: nobody could report while we were away.
            let heard = (record.accepted && record.joined()).then_some(now.mono_ms);
            let live = self.live.entry(host.clone()).or_default();
            live.heard_mono_ms = heard;
            live.seen_mono_ms = now.mono_ms;
            live.sign_mono_ms = now.mono_ms;
            live.moved_mono_ms = now.mono_ms;
            live.power = power::Line::anew(Vec::new());
            if let Some(record) = self.hosts.get(&host) {
                let state = self.host_state(record);
                let since_ms = record.steps.last().map_or(now.unix_ms, |s| s.at_ms + s.took_ms.unwrap_or(0));
                self.live(&host).state = Some((state, since_ms));
            }
        }
        if self.take_up_survey() {
            return;
        }
        self.accept_all(now);
        self.take_up_delays(now);
        self.attach_disks(now);
        self.touched_vms.extend(self.vms.ids());
        let under_way = self.moves.values().filter(|m| !m.ended()).map(|m| m.view.id);
        self.touched_moves.extend(under_way);
    }

    /// Applies one event. Effects are ordered: a commit precedes whatever relies on it.
    pub fn apply(&mut self, event: Event, now: Now) -> Vec<Effect> {
        match event {
            Event::Dhcp { reply, request } => {
                let answer = self.dhcp(&request, now);
                self.answer(reply, Answer::Dhcp(answer));
            }
            Event::DhcpHeard { reply } => self.dhcp_heard(reply, now),
            Event::Script { reply, mac, from, kind, entropy } => {
                let answer = self.script(mac, from, kind, entropy, now);
                self.answer(reply, Answer::Script(answer));
            }
            Event::Served { to, file, bytes, bytes_total } => self.served(to, file, bytes, bytes_total, now),
            Event::Join { reply, request, key, from } => {
                let answer = self.join(request, key, from, now);
                self.answer(reply, Answer::Join(answer));
            }
            Event::JoinPoll { reply, key } => {
                let answer = self.join_poll(&key, now);
                self.answer(reply, Answer::Join(answer));
            }
            Event::Renew { reply, host, key, csr_pem } => {
                let answer = self.renew(&host, &key, csr_pem);
                self.answer(reply, Answer::Join(answer));
            }
            Event::Report { reply, host, caller, report } => self.report(reply, &host, &caller, report, now),
            Event::ReportGone { reply, host } => self.report_gone(reply, &host),
            Event::Operator { reply, command } => self.operator(reply, command, now),
            Event::StorageDone { job, result } => self.storage_done(job, result, now),
            Event::PowerDone { job, host, result } => self.power_done(job, &host, result, now),
            Event::BackedUp(backups) => self.backed_up(backups, now),
            Event::StorageFound(found) => self.storage_found(found, now),
            Event::StorageAnew => self.storage_anew(now),
            Event::Heartbeats { read_mono_ms, slots } => self.heartbeats(read_mono_ms, slots, now),
            Event::HeartbeatsUnread { why, gone } => self.heartbeats_unread(&why, gone, now),
            Event::Tick => self.tick(now),
        }
        self.settle(now);
        self.flush()
    }

    fn tick(&mut self, now: Now) {
        self.placements_left = vm::PLACEMENTS_PER_TICK;
        self.placing_round += u64::from(self.placed_later.is_empty());
        self.touched_vms.append(&mut self.placed_later);
        self.leases.tick(now);
        self.find_lost(now);
        self.watch_hosts(now);
        self.survey_may_end(now);
        self.give_up_consoles(now);
        if now.mono_ms.saturating_sub(self.looked_mono_ms) >= LOOK_AGAIN_MS {
            self.looked_mono_ms = now.mono_ms;
            self.look_again(now);
            self.look_at_backups(now);
            self.find_stalls(now);
            self.power_tick(now);
            // What hosts run, and of which releases, is to be known first.
            if !self.orders_nothing() {
                self.step_pools(now);
                self.collect_by_itself(now);
            }
        }
        if !self.orders_nothing() {
            self.balance_tick(now);
        }
        self.to_answer.extend(self.live.iter().filter(|(_, live)| live.held.is_some()).map(|(id, _)| id.clone()));
    }

    fn operator(&mut self, reply: ReplyTo, command: Command, now: Now) {
        let why = self.why_standing_by().filter(|_| self.superseded.is_some() || !ends_a_survey(&command));
        if let Some(detail) = why {
            return self.answer_operator(reply, Err(Refusal::Unavailable { detail }));
        }
        let done = match command {
            Command::RegisterHost(request) => self.register_host(request, now),
            Command::ListHosts { hosts, replace } => self.list_hosts(hosts, replace, now),
            Command::DescribeHost { host, request } => self.describe_host(&host, request, now),
            Command::AcceptHost { host } => self.accept_host(&host, now),
            Command::RemoveHost { host } => self.remove_host(&host, now),
            Command::DrainHost { host } => {
                self.drained_by_hand(&host);
                self.drain_host(&host, true, now)
            }
            Command::ConfirmOff { host } => self.confirm_off(&host, now),
            Command::UndrainHost { host } => self.drain_host(&host, false, now),
            Command::SetBmc { host, request } => self.set_bmc(&host, request, now),
            Command::ForgetBmc { host } => self.forget_bmc(&host, now),
            Command::OrderPower { host, request } => self.order_power(&host, request, now),
            Command::AskPower { host } => match self.ask_power(reply, &host, now) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Command::CreateVm(request) => self.create_vm(request, now),
            Command::StartVm { vm } => self.start_vm(&vm, now),
            Command::ShutdownVm { vm } => self.shutdown_vm(&vm, now),
            Command::DestroyVm { vm } => self.destroy_vm(&vm, now),
            Command::PauseVm { vm } => self.pause_vm(&vm, true, now),
            Command::ResumeVm { vm } => self.pause_vm(&vm, false, now),
            Command::DeleteVm { vm } => self.delete_vm(&vm, now),
            Command::MigrateVm { vm, request } => self.migrate_vm(&vm, request, now),
            Command::SetRestart { vm, restart } => self.set_restart(&vm, restart, now),
            Command::CreateDisk(request) => self.create_disk(request, now),
            Command::GrowDisk { disk, request } => self.grow_disk(&disk, request, now),
            Command::DeleteDisk { disk } => self.delete_disk(&disk, now),
            Command::Thaw => self.thaw(now),
            Command::AddRelease { manifest } => self.add_release(manifest, now),
            Command::DeleteRelease { release } => self.delete_release(&release, now),
            Command::CollectReleases(request) => {
                let collected = self.collect(request, now);
                return self.answer(reply, Answer::Operator(Ok(Reply::Collected(collected))));
            }
            Command::CreatePool(request) => self.create_pool(request, now),
            Command::DeletePool { pool } => self.delete_pool(&pool, now),
            Command::SetPool { host, pool } => self.set_pool(&host, pool, now),
            Command::StartRollout { pool, request } => self.start_rollout(&pool, request, now),
            Command::StopRollout { pool } => self.stop_rollout(&pool, now),
            Command::Balance(request) => {
                let plan = self.balance(request, now);
                return self.answer(reply, Answer::Operator(plan.map(Reply::Plan)));
            }
            Command::Console { vm } => match self.console(reply, &vm, now) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
        };
        self.answer_operator(reply, done);
    }

    fn answer_operator(&mut self, reply: ReplyTo, done: Result<Accepted, Refusal>) {
        self.answer(reply, Answer::Operator(done.map(Reply::Accepted)));
    }

    fn answer(&mut self, to: ReplyTo, answer: Answer) {
        self.effects.push(Effect::Answer { to, answer });
    }

    /// Lets everything that may go on take its next step, until nothing can.
    fn settle(&mut self, now: Now) {
        if self.orders_nothing() {
            self.touched_vms.clear();
            self.touched_moves.clear();
        }
        while !self.touched_moves.is_empty() || !self.touched_vms.is_empty() {
            let mut vms = Vec::from_iter(std::mem::take(&mut self.touched_vms));
            // Who is to be started first takes the room first; of equals the first by name.
            vms.sort_by_key(|vm| self.vms.get(vm).map(|record| record.restart.priority));
            let mut vms = vms.into_iter();
            loop {
                if let Some(r#move) = self.touched_moves.pop_first() {
                    self.step_move(r#move, now);
                } else if let Some(vm) = vms.next() {
                    self.step_vm(&vm, now);
                } else {
                    break;
                }
            }
        }
        self.answer_reports(now);
    }

    /// All that came up: commits first.
    fn flush(&mut self) -> Vec<Effect> {
        let rest = std::mem::take(&mut self.effects);
        let mut effects = Vec::new();
        self.leases.table.commit(&mut effects);
        self.leases.quarantine.commit(&mut effects);
        self.expected.commit(&mut effects);
        self.releases.commit(&mut effects);
        self.pools.commit(&mut effects);
        self.hosts.commit(&mut effects);
        self.disks.commit(&mut effects);
        self.vms.commit(&mut effects);
        self.moves.commit(&mut effects);
        self.counters.commit(&mut effects);
        self.terms.commit(&mut effects);
        self.log.table.commit(&mut effects);
        if !effects.is_empty() {
            self.version += 1;
        }
        effects.extend(rest);
        effects
    }
}
