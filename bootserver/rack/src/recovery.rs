//! A record restored from a backup: it is old, and what happened since is found out before anything is done.
//!
//! Owns: the term, the survey of hosts and storage that comes first, and when it is over; `adopt` makes the record true. Never does:
//! order anything of a host meanwhile, or let anybody command a VM.
//!
//! ```text
//! restored --storage says what is there--> Surveying --every host heard or fenced, slots read--> adopt --> as ever
//!                                              |
//!                    hosts keep their leases and run what they run; who shows no sign of life is fenced
//! ```
//! Numbers that were given after the backup are not known. None is given again: a term is higher than every number that was given before it,
//! and no number given in a term is lower than the term. It is the Unix time of the restore in milliseconds, and numbers rise by less than one a
//! millisecond; where the clock is wrong it is a thousand million above the highest of the backup. Agents hear only the highest term that
//! they were ever told.

mod adopt;
#[cfg(test)]
mod tests;

use crate::Rack;
use crate::event::{Caller, Entropy, Now};
use crate::ha::is_heartbeat;
use crate::host::base64url;
use crate::policy::Serves;
use crate::power::PowerOrder;
use crate::record::{
    BootRecord, Change, DiskDoing, DiskRecord, Fence, Grant, HostRecord, Key, Kind, Loaded, Record, TermRecord, Way,
};
use proto::agent::{HostSurvey, Report, Secret};
use proto::event::Topic;
use proto::heartbeat::Slot;
use proto::{DiskId, Epoch, HostId, Mac, Term};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// By how much a term is above every number of the backup at least.
const JUMP: u64 = 1_000_000_000;
/// A certificate's time of issue is kept in whole seconds.
const ISSUE_MS: u64 = 1_000;

/// A disk that the storage has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDisk {
    /// Its name.
    pub disk: DiskId,
    /// MiB.
    pub size_mib: u64,
    /// Who may log in to it.
    pub ways: BTreeMap<HostId, Way>,
}

/// What is known of a survey that is under way, and not kept.
#[derive(Default)]
pub(crate) struct Survey {
    /// The storage has said what there is; disks that the record has beyond that.
    missing: Option<BTreeSet<DiskId>>,
    heard: BTreeMap<HostId, HostSurvey>,
}

/// What makes a backup's records those of a new term: to be committed before a rack takes them up.
pub fn begin_term(records: &[Loaded], backup_ms: u64, now_ms: u64, entropy: Entropy) -> Change {
    let mut version = 0;
    let highest = records.iter().map(|loaded| match &loaded.record {
        Record::Counters(r) => r.orders.0.max(r.moves.0).max(r.epochs.0).max(r.grants),
        Record::Disk(r) => r.granted,
        Record::Vm(r) => r.epoch.0,
        Record::Term(r) => {
            version = loaded.version;
            r.term.0
        }
        _ => 0,
    });
    let term = Term(highest.max().unwrap_or(0).saturating_add(JUMP).max(now_ms));
    let seed = Secret(base64url(&entropy.0));
    let record = TermRecord { term, backup_ms, restored_ms: now_ms, seed, surveying: true, removed: BTreeSet::new() };
    let key = Key { kind: Kind::Term, name: "term".to_owned() };
    Change { key, expect: version, to: Some(Record::Term(record)) }
}

impl Rack {
    /// The term of this record.
    pub(crate) fn term(&self) -> Term {
        self.terms.get(&()).map_or(Term(0), |record| record.term)
    }

    /// What was given may be anything up to the term: the next number is above both.
    pub(crate) fn above(&self, number: u64) -> u64 {
        number.max(self.term().0) + 1
    }

    /// The epoch that follows another.
    pub(crate) fn next_epoch(&self, epoch: Epoch) -> Epoch {
        Epoch(self.above(epoch.0))
    }

    /// Whether the record is that of a backup, and what happened since is not known yet. Then [`crate::event::Event::StorageFound`] is
    /// awaited first.
    pub fn surveying(&self) -> bool {
        self.recovery.is_some()
    }

    /// After the start of a server whose record is old.
    pub(crate) fn take_up_survey(&mut self) -> bool {
        let Some(&TermRecord { backup_ms, surveying: true, .. }) = self.terms.get(&()) else { return false };
        self.recovery = Some(Survey::default());
        // How far a fence was is not known any more: each host is heard, or waited out in full. Nor is what its controller was told: it may have
        // been done long ago, and guests run there again.
        let goes_on =
            |record: &HostRecord| record.fence.is_some() || record.power.as_ref().is_some_and(PowerOrder::is_open);
        for host in self.hosts.ids() {
            if self.hosts.get(&host).is_some_and(goes_on)
                && let Some(record) = self.hosts.edit(&host)
            {
                record.fence = None;
                record.power = record.power.take().filter(|order| !order.is_open() || order.view.asked_ms > backup_ms);
            }
        }
        true
    }

    /// Whether nothing is ordered of any host: whose each VM is is not known, or not ours to say.
    pub(crate) fn orders_nothing(&self) -> bool {
        self.surveying() || self.superseded.is_some()
    }

    /// Why nothing is ordered and nothing can be commanded: the survey is not over, or another server has taken our place.
    pub(crate) fn why_standing_by(&self) -> Option<String> {
        let superseded = self.superseded.map(|term| {
            format!("another server rules this rack since term {term}: stop this one, its record is out of date")
        });
        superseded.or_else(|| self.survey_note())
    }

    /// How far the survey is, for a person.
    pub(crate) fn survey_note(&self) -> Option<String> {
        let survey = self.recovery.as_ref()?;
        let awaited: Vec<&str> = self.awaited(survey).map(|record| record.name.as_str()).take(10).collect();
        let waits = if survey.missing.is_none() {
            "the storage has yet to say what there is".to_owned()
        } else if awaited.is_empty() {
            "the heartbeat disk has yet to be read".to_owned()
        } else {
            format!("awaited: {}; each is heard, or is fenced once it shows no sign of life", awaited.join(", "))
        };
        Some(format!("this record was restored from a backup, and hosts are asked what they run: {waits}"))
    }

    /// Hosts of which it is not known what they run.
    fn awaited<'a>(&'a self, survey: &'a Survey) -> impl Iterator<Item = &'a HostRecord> {
        let known = |record: &&HostRecord| record.accepted && record.joined();
        let open = |record: &&HostRecord| match record.fence {
            None => !survey.heard.contains_key(&record.id),
            // Its ways are being taken, whatever it said before: what it has is known when that has ended.
            Some(Fence::Cutting) => true,
            Some(Fence::Done) => false,
        };
        self.hosts.values().filter(known).filter(open)
    }

    /// Whether guests of which the record knows nothing may run on a host.
    pub(crate) fn may_run_unknown(&self, host: &HostId) -> bool {
        self.recovery.as_ref().is_some_and(|survey| !survey.heard.contains_key(host))
    }

    /// Whether a slot may be given out: not before those that were given after the backup have been read.
    pub(crate) fn slots_are_known(&self) -> bool {
        self.recovery.as_ref().is_none_or(|survey| survey.missing.is_some() && self.ha.is_read())
    }

    /// The storage says which disks there are, and who may reach them.
    pub(crate) fn storage_found(&mut self, found: Vec<FoundDisk>, now: Now) {
        if self.recovery.is_none() {
            return;
        }
        let awaited = self.disks.values().filter(|record| record.ready || is_heartbeat(&record.name));
        let mut missing: BTreeSet<DiskId> = awaited.map(|record| record.name.clone()).collect();
        for disk in self.disks.ids() {
            if let Some(record) = self.disks.edit(&disk) {
                record.grants.clear();
                record.found.clear();
            }
        }
        for FoundDisk { disk, size_mib, ways } in found {
            missing.remove(&disk);
            if !self.disks.contains(&disk) {
                let text = format!("disk {disk} was made after the backup; it is kept");
                self.info(Topic::Storage, now, text, |_| ());
                self.disks.put(DiskRecord {
                    name: disk.clone(),
                    size_mib,
                    vm: None,
                    ready: true,
                    doing: None,
                    grants: BTreeMap::new(),
                    granted: 0,
                    found: BTreeMap::new(),
                    failure: String::new(),
                });
            }
            for host in ways.keys() {
                self.host_of_a_way(host, now);
            }
            let first = self.disks.get(&disk).map_or(0, |record| self.above(record.granted));
            if let Some(record) = self.disks.edit(&disk) {
                record.size_mib = size_mib;
                record.ready = true;
                record.failure.clear();
                // It is there and whole: it is neither made again over what was written since, nor removed, as it may be another of its name.
                if !matches!(record.doing, Some(DiskDoing::Grow(to)) if to > size_mib) {
                    record.doing = None;
                }
                record.granted = first + ways.len() as u64;
                for (number, host) in (first..).zip(ways.keys()) {
                    let grant = Grant { epoch: Epoch(0), number, cutting: false };
                    record.grants.insert(host.clone(), grant);
                }
                record.found = ways.clone();
            }
            for (number, host) in (first..).zip(ways.into_keys()) {
                self.found_granted(&disk, host, number);
            }
            self.attach(&disk, now);
        }
        // It holds nothing that is not written anew: without it no host could be told to be silent, and the survey would not end.
        if let Some(beats) = missing.iter().find(|disk| is_heartbeat(disk)).cloned() {
            missing.remove(&beats);
            self.make_anew(&beats, now);
        }
        for disk in &missing {
            if let Some(record) = self.disks.edit(disk) {
                record.failure =
                    format!("disk {disk} is not on the storage; it was deleted after the backup, or is lost");
            }
        }
        if let Some(survey) = &mut self.recovery {
            survey.missing = Some(missing);
        }
        self.survey_may_end(now);
    }

    /// A host that may log in to a disk is one of ours, were it let in after the backup.
    fn host_of_a_way(&mut self, host: &HostId, now: Now) {
        if self.hosts.get(host).is_some_and(|record| record.accepted && record.joined()) {
            return;
        }
        // All that is known is that there was one. No key is empty, so nobody is heard as this boot.
        if !self.put_boot(host, "", "", Term(0), now) {
            return;
        }
        self.live(host).heard_mono_ms = Some(now.mono_ms);
        let text = format!("{host} was let in after the backup; it is awaited");
        self.info(Topic::Host, now, text, |e| e.host = Some(host.clone()));
    }

    /// A host that has a certificate of ours under a boot that the record does not know: it booted after the backup. The certificate says that
    /// the old server had let it in; one from before the backup is that of an earlier boot, or of a host that was removed.
    pub(crate) fn let_in_after_backup(&mut self, host: &HostId, caller: &Caller, report: &Report, now: Now) {
        let Some(term) = self.terms.get(&()).filter(|term| caller.issued_ms + ISSUE_MS > term.backup_ms) else {
            return;
        };
        if term.removed.contains(host) {
            return;
        }
        let number = term.term;
        let record = self.hosts.get(host);
        let known = record.and_then(|record| record.boot.as_ref());
        if known.is_some_and(|boot| boot.key.as_deref() == Some(&caller.key) || boot.term == number) {
            return;
        }
        if !self.put_boot(host, &report.boot, &caller.key, number, now) {
            return;
        }
        if let Some(record) = self.hosts.edit(host) {
            record.next_boot = None;
        }
        let live = self.live(host);
        (live.report, live.beat) = (None, None);
        let text = format!("{host} has booted or was let in after the backup; it goes on");
        self.info(Topic::Host, now, text, |e| e.host = Some(host.clone()));
    }

    /// A host is removed: a certificate that it has from after the backup says no longer that it was let in.
    pub(crate) fn keep_out(&mut self, host: &HostId) {
        if let Some(term) = self.terms.edit(&()) {
            term.removed.insert(host.clone());
        }
    }

    /// A host is let in, under a boot of which no more is known. False for one whose name is none.
    fn put_boot(&mut self, host: &HostId, nonce: &str, key: &str, term: Term, now: Now) -> bool {
        let Some(mac) = host.mac() else { return false };
        let chap_seed = self.seed(host, nonce);
        let mut record = self.hosts.get(host).cloned().unwrap_or_else(|| HostRecord::new(mac));
        record.accepted = true;
        let (nonce, key) = (nonce.to_owned(), Some(key.to_owned()));
        record.boot = Some(BootRecord { nonce, key, csr_pem: None, chap_seed, release: None, term });
        self.hosts.put(record);
        self.live(host).sign_mono_ms = now.mono_ms;
        true
    }

    /// For CHAP secrets of a boot whose own seed was lost.
    fn seed(&self, host: &HostId, boot: &str) -> Secret {
        let seed = self.terms.get(&()).map_or("", |record| record.seed.0.as_str());
        Secret(base64url(&Sha256::digest(format!("tsubame seed {seed}\n{host}\n{boot}"))[..16]))
    }

    /// The address from which a host speaks is its own, whatever the lease book of the backup says.
    pub(crate) fn address_heard(&mut self, mac: Mac, from: Ipv4Addr, now: Now) {
        if self.recovery.is_none() || self.leases.address_of(mac) == Some(from) {
            return;
        }
        let Some(link) = self.policy.link_of(from) else { return };
        if let Some(holder) = self.leases.mac_at(from) {
            self.warn(
                Topic::Dhcp,
                now,
                format!("{from} is {mac}'s, and was {holder}'s when the backup was taken"),
                |_| (),
            );
            self.leases.remove(holder);
        }
        match self.policy.link(link).serves {
            Serves::Proxy => self.leases.learn(mac, from),
            Serves::Full => {
                let lease_s = self.policy.link(link).lease_s;
                self.leases.lease(mac, from, lease_s, now);
            }
        }
    }

    /// Whether addresses may be leased of which the book knows nothing: those given between backup and restore, none of which lasts longer than
    /// one lease from then.
    pub(crate) fn book_is_old(&self, lease_s: u32, now: Now) -> bool {
        self.terms.get(&()).is_some_and(|term| now.unix_ms < term.restored_ms.saturating_add(u64::from(lease_s) * 1000))
    }

    /// A report says what the host runs, or that another server has taken our place.
    pub(crate) fn survey_heard(&mut self, host: &HostId, term: Term, survey: Option<Box<HostSurvey>>, now: Now) {
        if term > self.term() && self.superseded.is_none_or(|known| known < term) {
            self.superseded = Some(term);
            let text = format!(
                "{host} hears a server of term {term}, and we are of term {}: another has taken this server's place, and nothing is done any more. \
                 Stop this server",
                self.term()
            );
            self.error(Topic::Server, now, text, |_| ());
        }
        if term != self.term() {
            return;
        }
        if let (Some(survey), Some(heard)) = (&mut self.recovery, survey) {
            if let Some(inventory) = &heard.inventory
                && let Some(record) = self.hosts.edit(host)
            {
                record.firmware = Some(inventory.firmware);
                record.inventory = Some(crate::host::bounded(inventory.clone()));
            }
            survey.heard.insert(host.clone(), *heard);
            self.survey_may_end(now);
        }
    }

    /// A host was booted anew amid the survey: what it said is over, and it runs nothing.
    pub(crate) fn survey_begins_anew(&mut self, host: &HostId) {
        if let Some(survey) = &mut self.recovery {
            survey.heard.remove(host);
        }
    }

    /// The first reading of the slots: whoever wrote in one last has it, whatever was given out after the backup. Of several of one host any will
    /// do, as it is told which.
    pub(crate) fn slots_found(&mut self, slots: &[(u32, Slot)]) {
        if !self.surveying() || self.ha.is_read() {
            return;
        }
        let written: BTreeMap<u32, &HostId> = slots.iter().map(|(at, slot)| (*at, &slot.host)).collect();
        for host in self.hosts.ids() {
            let Some(before) = self.hosts.get(&host).map(|record| record.slot) else { continue };
            let own = before.filter(|at| written.get(at).is_none_or(|by| **by == host));
            let found = || written.iter().find(|(_, by)| ***by == host).map(|(at, _)| *at);
            let slot = own.or_else(found);
            if slot != before
                && let Some(record) = self.hosts.edit(&host)
            {
                record.slot = slot;
            }
        }
    }

    /// Ends the survey when nothing is awaited.
    pub(crate) fn survey_may_end(&mut self, now: Now) {
        let Some(survey) = &self.recovery else { return };
        let beats = self.disks.values().any(|record| is_heartbeat(&record.name) && record.ready);
        if survey.missing.is_none() || self.awaited(survey).next().is_some() || beats && !self.ha.is_read() {
            return;
        }
        let Some(survey) = self.recovery.take() else { return };
        self.accept_all(now);
        self.adopt(&survey.missing.unwrap_or_default(), survey.heard, now);
        if let Some(record) = self.terms.edit(&()) {
            record.surveying = false;
        }
        for disk in self.disks.ids() {
            self.do_disk(&disk, now);
        }
        self.touched_vms.extend(self.vms.ids());
        let moves: Vec<_> = self.live_moves().collect();
        self.touched_moves.extend(moves);
        self.balance_soon(now);
    }
}
