//! Records of one kind in memory, and what has changed since the last commit.
//!
//! Owns: the version of each record, so that every change is a compare-and-set. Never does: know what a record means.

use crate::effect::Effect;
use crate::record::{
    Change, Counters, DiskRecord, ExpectedRecord, HostRecord, Key, Kind, LeaseRecord, MoveRecord, PoolRecord,
    QuarantineRecord, Record, ReleaseRecord, TermRecord, VmRecord,
};
use proto::event::LogEvent;
use proto::release::{PoolId, ReleaseId};
use proto::{DiskId, HostId, Mac, MoveId, VmId};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Bound;

/// A record that is kept in a table of its kind.
pub(crate) trait Kept: Clone {
    /// What it is found by.
    type Id: Ord + Clone;
    const KIND: Kind;
    fn id(&self) -> Self::Id;
    fn name(id: &Self::Id) -> String;
    fn wrap(self) -> Record;
}

macro_rules! kept {
    ($record:ty, $kind:ident, $id:ty, $of:expr, $name:expr) => {
        impl Kept for $record {
            type Id = $id;
            const KIND: Kind = Kind::$kind;
            fn id(&self) -> $id {
                let of: fn(&Self) -> $id = $of;
                of(self)
            }
            fn name(id: &$id) -> String {
                let name: fn(&$id) -> String = $name;
                name(id)
            }
            fn wrap(self) -> Record {
                Record::$kind(self)
            }
        }
    };
}

kept!(LeaseRecord, Lease, Mac, |r| r.mac, |id| id.to_string());
kept!(QuarantineRecord, Quarantine, Ipv4Addr, |r| r.address, |id| id.to_string());
kept!(ExpectedRecord, Expected, u64, |r| r.id, |id| format!("{id:020}"));
kept!(ReleaseRecord, Release, ReleaseId, |r| r.id.clone(), |id| id.to_string());
kept!(PoolRecord, Pool, PoolId, |r| r.name.clone(), |id| id.to_string());
kept!(HostRecord, Host, HostId, |r| r.id.clone(), |id| id.to_string());
kept!(DiskRecord, Disk, DiskId, |r| r.name.clone(), |id| id.to_string());
kept!(VmRecord, Vm, VmId, |r| r.spec.name.clone(), |id| id.to_string());
kept!(MoveRecord, Move, MoveId, |r| r.view.id, |id| format!("{:020}", id.0));
kept!(LogEvent, Log, u64, |r| r.seq, |id| format!("{id:020}"));
kept!(Counters, Counters, (), |_| (), |()| "counters".to_owned());
kept!(TermRecord, Term, (), |_| (), |()| "term".to_owned());

#[derive(Clone)]
struct Row<R> {
    version: u64,
    record: R,
}

/// All records of one kind.
#[derive(Clone)]
pub(crate) struct Table<R: Kept> {
    rows: BTreeMap<R::Id, Row<R>>,
    /// Changed since the last commit, each with its version in the store; 0 for not there.
    changed: BTreeMap<R::Id, u64>,
}

impl<R: Kept> Default for Table<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), changed: BTreeMap::new() }
    }
}

impl<R: Kept> Table<R> {
    /// Takes in a record from the store.
    pub(crate) fn load(&mut self, version: u64, record: R) {
        self.rows.insert(record.id(), Row { version, record });
    }

    pub(crate) fn get(&self, id: &R::Id) -> Option<&R> {
        self.rows.get(id).map(|row| &row.record)
    }

    pub(crate) fn contains(&self, id: &R::Id) -> bool {
        self.rows.contains_key(id)
    }

    /// To change it; the change will be committed.
    pub(crate) fn edit(&mut self, id: &R::Id) -> Option<&mut R> {
        let row = self.rows.get_mut(id)?;
        self.changed.entry(id.clone()).or_insert(row.version);
        Some(&mut row.record)
    }

    /// To change what need not outlive the server; it is kept with the record's next commit.
    pub(crate) fn edit_unkept(&mut self, id: &R::Id) -> Option<&mut R> {
        self.rows.get_mut(id).map(|row| &mut row.record)
    }

    /// Puts a record in the place of what is there.
    pub(crate) fn put(&mut self, record: R) {
        let id = record.id();
        let version = self.rows.get(&id).map_or(0, |row| row.version);
        let version = *self.changed.entry(id.clone()).or_insert(version);
        self.rows.insert(id, Row { version, record });
    }

    pub(crate) fn remove(&mut self, id: &R::Id) -> Option<R> {
        let row = self.rows.remove(id)?;
        self.changed.entry(id.clone()).or_insert(row.version);
        Some(row.record)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&R::Id, &R)> {
        self.rows.iter().map(|(id, row)| (id, &row.record))
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &R> {
        self.rows.values().map(|row| &row.record)
    }

    /// Those after an id, in order.
    pub(crate) fn range_after(&self, id: &R::Id) -> impl DoubleEndedIterator<Item = &R> {
        self.rows.range((Bound::Excluded(id.clone()), Bound::Unbounded)).map(|(_, row)| &row.record)
    }

    pub(crate) fn ids(&self) -> Vec<R::Id> {
        self.rows.keys().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Moves all changes since the last call into effects.
    pub(crate) fn commit(&mut self, effects: &mut Vec<Effect>) {
        for (id, expect) in std::mem::take(&mut self.changed) {
            let to = match self.rows.get_mut(&id) {
                Some(row) => {
                    row.version = expect + 1;
                    Some(row.record.clone().wrap())
                }
                None if expect == 0 => continue, // made and removed within one event
                None => None,
            };
            effects.push(Effect::Commit(Change { key: Key { kind: R::KIND, name: R::name(&id) }, expect, to }));
        }
    }
}
