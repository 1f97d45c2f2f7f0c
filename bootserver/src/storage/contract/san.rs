//! What a SAN of others promises, tried on a storage of our own that plays one.

use super::{Broken, Clause, Trial, block, ensure, host};
use crate::storage::{External, ExternalConfig, Storage, StorageError};
use proto::agent::Secret;
use rack::effect::{CloneSource, StorageOp};
use std::net::Ipv4Addr;

/// What it promises.
pub const CLAUSES: [Clause; 2] = [
    ("a declared disk is there for every host with the credentials declared, and nothing else is", declared),
    ("what is not ours to do is refused by name, a cut above all", refused),
];

fn external(trial: &mut Trial, disk: &proto::DiskId) -> Result<Storage, Broken> {
    let config = ExternalConfig { disks: [disk.clone()].into(), heartbeats: trial.files().path(disk) };
    Ok(Storage::External(External::start(config)?))
}

fn declared(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    // As its administrator has set it up, by whatever means.
    let way = trial.grant(&disk, &ha)?;
    let san = external(trial, &disk)?;
    let attach = |disk: &proto::DiskId| StorageOp::Attach { disk: disk.clone(), size_mib: 8 };
    trial.runtime.block_on(san.perform(&attach(&disk)))?;
    let other = trial.runtime.block_on(san.perform(&attach(&"another".parse()?)));
    ensure(matches!(other, Err(StorageError::Others { .. })), || format!("an undeclared disk: {other:?}"))?;
    way.login()?.write(0, &block(3))?;
    let read = std::fs::read(san.heartbeats())?;
    ensure(read[..512] == block(3), || "the server reads another disk than hosts write".to_owned())?;
    trial.delete(&disk)
}

fn refused(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    let mut session = trial.grant(&disk, &ha)?.login()?;
    let san = external(trial, &disk)?;
    let grant = StorageOp::Grant {
        disk: disk.clone(),
        host: ha.clone(),
        initiator: "iqn.2026-11.org.tsubame:ha".to_owned(),
        address: Ipv4Addr::LOCALHOST,
        user: "declared".to_owned(),
        secret: Secret("declared".to_owned()),
    };
    trial.runtime.block_on(san.perform(&grant))?;
    for op in [
        StorageOp::Create { disk: disk.clone(), size_mib: 8 },
        StorageOp::Clone { disk: disk.clone(), from: CloneSource::Disk(disk.clone()), size_mib: 8 },
        StorageOp::Grow { disk: disk.clone(), size_mib: 16 },
        StorageOp::Delete { disk: disk.clone() },
        StorageOp::Cut { disk: disk.clone(), host: ha.clone() },
    ] {
        let done = trial.runtime.block_on(san.perform(&op));
        ensure(matches!(done, Err(StorageError::Others { .. })), || format!("{op:?}: {done:?}"))?;
    }
    trial.runtime.block_on(san.stop())?;
    session.write(0, &block(4)).map_err(|err| format!("something was done all the same: {err}"))?;
    trial.delete(&disk)
}
