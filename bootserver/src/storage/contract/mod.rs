//! What every kind of storage promises, as clauses that are tried on a real one.
//!
//! Owns: the clauses, and an initiator that does what a host must not. Never does: look into a storage other than by what it
//! serves and the file behind it. Run for tgt by `cargo test` and for LIO in a machine of its own (`storage-contract`).

mod fence;
mod initiator;
mod life;
mod san;
mod wire;

use super::served::Served;
use super::{Files, Storage, StorageConfig, StorageError};
use initiator::{BLOCK, Way};
use proto::agent::Secret;
use proto::{DiskId, HostId};
use rack::effect::StorageOp;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

pub use san::CLAUSES as CLAUSES_OF_A_SAN;

/// Why a clause is broken.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;
/// A clause: what it says, and how that is tried.
pub type Clause = (&'static str, fn(&mut Trial) -> Result<(), Broken>);

/// What a storage of our own promises.
pub const CLAUSES: [Clause; 12] = [
    ("a disk is there with its size for who was let in, and for nobody else", life::only_who_was_let_in),
    ("only the secret of the grant opens it", life::only_by_its_secret),
    ("a host has its own grant only: another's name does not go with its secret", life::only_under_its_own_name),
    ("a new grant of a host ends the one before", life::a_new_grant_ends_the_old),
    ("what one host wrote the next one reads", life::handed_on),
    ("a copy has what it was made of, and a grown disk what it had", life::copied_and_grown),
    ("a restart of the server finds disks and grants, and disturbs no session", life::restarted),
    ("disks that nobody serves any more are served again with their grants", life::served_anew),
    ("a deleted disk is gone, and one of its name begins with zeros", life::deleted),
    ("no write lands after a cut that was asked for under load, and no login succeeds", fence::under_load),
    ("a cut leaves the session of another host alone", fence::of_one_alone),
    ("a login that was under way at the cut comes to nothing", fence::login_under_way),
];

/// How long anything may take that is waited for; only a storage that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A storage being tried.
pub struct Trial {
    runtime: Runtime,
    config: StorageConfig,
    storage: Storage,
    /// Where logins go.
    portal: SocketAddr,
    iqn_prefix: String,
    /// Repeats the moments that were drawn.
    seed: u64,
    disks: u32,
    grants: u32,
}

impl Trial {
    /// Starts the storage.
    pub fn new(config: StorageConfig, seed: u64) -> Result<Self, Broken> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (portal, iqn_prefix) = match &config {
            StorageConfig::Tgt(config) => (config.portal, config.iqn_prefix.clone()),
            StorageConfig::Lio(config) => (config.portal, config.iqn_prefix.clone()),
            StorageConfig::External(_) => return Err("a SAN has no portal of ours; try CLAUSES_OF_A_SAN".into()),
        };
        let storage = runtime.block_on(Storage::start(config.clone()))?;
        Ok(Self { runtime, config, storage, portal, iqn_prefix, seed, disks: 0, grants: 0 })
    }

    /// Tries clauses one after another, says of each whether it holds, and returns how many are broken.
    pub fn run(&mut self, clauses: &[Clause]) -> usize {
        println!("seed {}", self.seed);
        let mut broken = 0;
        for (says, clause) in clauses {
            let began = Instant::now();
            match clause(self) {
                Ok(()) => println!("holds   {says} ({} ms)", began.elapsed().as_millis()),
                Err(why) => {
                    broken += 1;
                    println!("BROKEN  {says}: {why}");
                }
            }
        }
        println!("{} clauses hold, {broken} are broken", clauses.len() - broken);
        broken
    }

    /// Stops serving.
    pub fn end(self) -> Result<(), StorageError> {
        self.runtime.block_on(self.storage.stop())
    }

    fn files(&self) -> &Files {
        match &self.storage {
            Storage::Tgt(tgt) => tgt.files(),
            Storage::Lio(lio) => lio.files(),
            Storage::External(_) => unreachable!("a trial is of a storage of ours"),
        }
    }

    /// Does a job twice: the second time it is so already.
    fn perform(&self, op: &StorageOp) -> Result<(), Broken> {
        for time in ["", "a second time: "] {
            self.runtime.block_on(self.storage.perform(op)).map_err(|err| format!("{time}{op:?}: {err}"))?;
        }
        Ok(())
    }

    /// A new disk.
    fn disk(&mut self, size_mib: u64) -> Result<DiskId, Broken> {
        self.disks += 1;
        let disk: DiskId = format!("contract-{}", self.disks).parse()?;
        self.perform(&StorageOp::Create { disk: disk.clone(), size_mib })?;
        Ok(disk)
    }

    /// A host's way to a disk, under a user and a secret that were never used before.
    fn way(&mut self, disk: &DiskId, host: &HostId) -> Way {
        self.grants += 1;
        Way {
            portal: self.portal,
            from: address(host),
            target: format!("{}:{disk}", self.iqn_prefix),
            lun: super::LUN as u8,
            initiator: rack::disk::initiator(&self.iqn_prefix, host),
            user: format!("{host}-{disk}-{}", self.grants),
            secret: format!("contract{:08}", self.grants),
        }
    }

    /// Lets a host in.
    fn grant(&mut self, disk: &DiskId, host: &HostId) -> Result<Way, Broken> {
        let way = self.way(disk, host);
        self.perform(&StorageOp::Grant {
            disk: disk.clone(),
            host: host.clone(),
            initiator: way.initiator.clone(),
            address: address(host),
            user: way.user.clone(),
            secret: Secret(way.secret.clone()),
        })?;
        Ok(way)
    }

    fn cut(&self, disk: &DiskId, host: &HostId) -> Result<(), Broken> {
        self.perform(&StorageOp::Cut { disk: disk.clone(), host: host.clone() })
    }

    fn delete(&self, disk: &DiskId) -> Result<(), Broken> {
        self.perform(&StorageOp::Delete { disk: disk.clone() })
    }

    fn sessions(&self, disk: &DiskId) -> Result<Vec<String>, Broken> {
        Ok(self.runtime.block_on(self.storage.sessions(disk))?)
    }

    /// What is in the file behind a disk.
    fn content(&self, disk: &DiskId) -> Result<Vec<u8>, Broken> {
        Ok(std::fs::read(self.files().path(disk))?)
    }

    /// The next number of a sequence that the seed gives (SplitMix64, Steele et al. 2014).
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

fn host(name: &str) -> Result<HostId, Broken> {
    Ok(name.parse()?)
}

/// Every host has its own.
fn address(host: &HostId) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, host.as_str().bytes().last().unwrap_or(1))
}

/// A block that begins with a number.
fn block(number: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..8].copy_from_slice(&number.to_be_bytes());
    block
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

/// Waits for a condition.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Broken> {
    let began = Instant::now();
    while !holds() {
        ensure(began.elapsed() < PATIENCE, || format!("{what}: not within {} s", PATIENCE.as_secs()))?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
