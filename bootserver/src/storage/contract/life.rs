//! A disk's life: made, let in to, handed on, grown, copied, found again, deleted.

use super::{Broken, Trial, block, ensure, host, until};
use crate::storage::Storage;
use rack::effect::{CloneSource, StorageOp};

const MIB: u64 = 1 << 20;

pub(super) fn only_who_was_let_in(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    let stranger = trial.way(&disk, &ha);
    ensure(stranger.login().is_err(), || "nobody was let in, and somebody is in".to_owned())?;
    let way = trial.grant(&disk, &ha)?;
    let bytes = way.login()?.bytes()?;
    ensure(bytes == 8 * MIB, || format!("it has {bytes} bytes"))?;
    let other = trial.disk(8)?;
    let elsewhere = super::Way { target: way.target.replace(disk.as_str(), other.as_str()), ..way };
    ensure(elsewhere.login().is_err(), || "a grant of one disk opens another".to_owned())?;
    trial.delete(&disk)?;
    trial.delete(&other)
}

pub(super) fn only_by_its_secret(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    let way = trial.grant(&disk, &ha)?;
    let wrong = super::Way { secret: "wrong-secret-16b".to_owned(), ..way.clone() };
    ensure(wrong.login().is_err(), || "a wrong secret is taken".to_owned())?;
    let other = super::Way { user: "someone-else".to_owned(), ..way.clone() };
    ensure(other.login().is_err(), || "a user who is none is taken".to_owned())?;
    way.login().map_err(|err| format!("the right one is not: {err}"))?;
    trial.delete(&disk)
}

pub(super) fn only_under_its_own_name(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha, hb) = (trial.disk(8)?, host("ha")?, host("hb")?);
    let (a, b) = (trial.grant(&disk, &ha)?, trial.grant(&disk, &hb)?);
    trial.cut(&disk, &ha)?;
    let by_its_name = super::Way { initiator: b.initiator.clone(), ..a };
    ensure(by_its_name.login().is_err(), || "a host that was cut is in under another's name".to_owned())?;
    b.login().map_err(|err| format!("the other is not in: {err}"))?;
    trial.delete(&disk)
}

pub(super) fn a_new_grant_ends_the_old(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    let old = trial.grant(&disk, &ha)?;
    let new = trial.grant(&disk, &ha)?;
    ensure(old.login().is_err(), || "the old secret is taken".to_owned())?;
    new.login().map_err(|err| format!("the new one is not: {err}"))?;
    trial.delete(&disk)
}

pub(super) fn handed_on(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha, hb) = (trial.disk(8)?, host("ha")?, host("hb")?);
    trial.grant(&disk, &ha)?.login()?.write(7, &block(1234))?;
    trial.cut(&disk, &ha)?;
    let read = trial.grant(&disk, &hb)?.login()?.read(7)?;
    ensure(read == block(1234), || "the next host reads something else".to_owned())?;
    trial.delete(&disk)
}

pub(super) fn copied_and_grown(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    trial.grant(&disk, &ha)?.login()?.write(3, &block(42))?;
    trial.cut(&disk, &ha)?;
    let copy = "contract-copy".parse::<proto::DiskId>()?;
    let from = CloneSource::Disk(disk.clone());
    trial.perform(&StorageOp::Clone { disk: copy.clone(), from, size_mib: 16 })?;
    let way = trial.grant(&copy, &ha)?;
    // A session is open meanwhile: whoever grows a disk has seen to it that no guest runs on it.
    let mut session = way.login()?;
    ensure(session.bytes()? == 16 * MIB && session.read(3)? == block(42), || "the copy is another".to_owned())?;
    trial.perform(&StorageOp::Grow { disk: copy.clone(), size_mib: 24 })?;
    let mut session = way.login().map_err(|err| format!("its grant did not outlast growing: {err}"))?;
    ensure(session.bytes()? == 24 * MIB && session.read(3)? == block(42), || "grown it is another".to_owned())?;
    let smaller = StorageOp::Grow { disk: copy.clone(), size_mib: 4 };
    let refused = trial.runtime.block_on(trial.storage.perform(&smaller)).is_err();
    ensure(refused, || "it was made smaller".to_owned())?;
    trial.delete(&copy)?;
    trial.delete(&disk)
}

pub(super) fn restarted(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    let way = trial.grant(&disk, &ha)?;
    let mut session = way.login()?;
    trial.storage = trial.runtime.block_on(Storage::start(trial.config.clone()))?;
    trial.perform(&StorageOp::Attach { disk: disk.clone(), size_mib: 8 })?;
    session.write(1, &block(5)).map_err(|err| format!("a session was disturbed: {err}"))?;
    way.login().map_err(|err| format!("its grant is gone: {err}"))?;
    trial.cut(&disk, &ha).map_err(|err| format!("it cannot be cut: {err}"))?;
    ensure(session.write(1, &block(6)).is_err(), || "a session of before is not cut".to_owned())?;
    trial.delete(&disk)
}

pub(super) fn served_anew(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha, hb) = (trial.disk(8)?, host("ha")?, host("hb")?);
    let (a, b) = (trial.grant(&disk, &ha)?, trial.grant(&disk, &hb)?);
    a.login()?.write(1, &block(9))?;
    trial.cut(&disk, &hb)?;
    trial.runtime.block_on(trial.storage.stop())?;
    ensure(a.login().is_err(), || "it is served still".to_owned())?;
    trial.storage = trial.runtime.block_on(Storage::start(trial.config.clone()))?;
    trial.perform(&StorageOp::Attach { disk: disk.clone(), size_mib: 8 })?;
    ensure(a.login()?.read(1)? == block(9), || "it is another disk".to_owned())?;
    ensure(b.login().is_err(), || "who was cut is in again".to_owned())?;
    trial.delete(&disk)
}

pub(super) fn deleted(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    let way = trial.grant(&disk, &ha)?;
    way.login()?.write(1, &block(77))?;
    // With a session that its host has not ended.
    let mut session = way.login()?;
    trial.delete(&disk)?;
    ensure(!trial.files().path(&disk).exists(), || "its file is there".to_owned())?;
    ensure(way.login().is_err(), || "its target is there".to_owned())?;
    until("the end of a session to a disk that is gone", || session.write(1, &block(78)).is_err())?;
    trial.perform(&StorageOp::Create { disk: disk.clone(), size_mib: 8 })?;
    ensure(way.login().is_err(), || "the old grant opens the new disk".to_owned())?;
    let read = trial.grant(&disk, &ha)?.login()?.read(1)?;
    ensure(read == block(0), || "the new disk has what the old one had".to_owned())?;
    trial.delete(&disk)
}
