//! The fence: what must never land, shown against initiators that try all they can.

use super::initiator::{Session, Way};
use super::{Broken, Trial, block, ensure, host, until};
use rack::effect::StorageOp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sessions that write at once.
const WRITERS: u32 = 4;
/// Writes that each has under way.
const DEPTH: u32 = 8;
/// Writes that must have come back before the cut: the load is on.
const WARM: u64 = 400;
/// Logins that must have been tried in vain after it.
const TRIES: u64 = 100;

/// A host that writes whenever it can, and logs in again whenever it must.
struct Load {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    /// The number in the newest write.
    number: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    fn start(way: &Way) -> Self {
        let counts = Arc::new(Counts::default());
        let writer = |at: u32| {
            let (way, counts) = (way.clone(), counts.clone());
            std::thread::spawn(move || {
                while !counts.stop.load(SeqCst) {
                    match way.login() {
                        // Whatever ends it, the next login is tried at once.
                        Ok(mut session) => drop(counts.write(&mut session, at * DEPTH)),
                        Err(_) => drop(counts.refused.fetch_add(1, SeqCst)),
                    }
                }
            })
        };
        Self { threads: (0..WRITERS).map(writer).collect(), counts }
    }

    /// Logins in vain from now on.
    fn tries(&self, what: &str) -> Result<(), Broken> {
        let before = self.counts.refused.load(SeqCst);
        until(what, || self.counts.refused.load(SeqCst) >= before + TRIES)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counts.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            thread.join().ok();
        }
    }
}

impl Counts {
    fn write(&self, session: &mut Session, first: u32) -> std::io::Result<()> {
        let send = |session: &mut Session, at: u32| {
            session.send_write(first + at, &block(self.number.fetch_add(1, SeqCst) + 1))
        };
        for at in 0..DEPTH {
            send(session, at)?;
        }
        for at in (0..DEPTH).cycle() {
            session.ended()?;
            self.written.fetch_add(1, SeqCst);
            if self.stop.load(SeqCst) {
                return Ok(());
            }
            send(session, at)?;
        }
        Ok(())
    }
}

pub(super) fn under_load(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha, hb) = (trial.disk(8)?, host("ha")?, host("hb")?);
    for round in 0..3 {
        let way = trial.grant(&disk, &ha)?;
        let load = Load::start(&way);
        until("writes before the cut", || load.counts.written.load(SeqCst) >= WARM)?;
        trial.runtime.block_on(trial.storage.perform(&StorageOp::Cut { disk: disk.clone(), host: ha.clone() }))?;
        // From here on not one may land.
        let (at_cut, written) = (trial.content(&disk)?, load.counts.written.load(SeqCst));
        load.tries("logins after the cut")?;
        ensure(trial.content(&disk)? == at_cut, || format!("round {round}: a write landed after the cut"))?;
        let sessions = trial.sessions(&disk)?;
        ensure(sessions.is_empty(), || format!("round {round}: sessions after the cut: {sessions:?}"))?;
        // The next owner writes where the old one did.
        let mut next = trial.grant(&disk, &hb)?.login()?;
        next.write(0, &block(u64::MAX))?;
        load.tries("logins beside the next owner")?;
        let mut expected = at_cut;
        expected[..512].copy_from_slice(&block(u64::MAX));
        ensure(trial.content(&disk)? == expected, || format!("round {round}: a write landed beside the next owner"))?;
        ensure(next.read(0)? == block(u64::MAX), || "the next owner's session was disturbed".to_owned())?;
        ensure(written > 0, || "nothing was written".to_owned())?;
        trial.cut(&disk, &hb)?;
    }
    trial.delete(&disk)
}

pub(super) fn of_one_alone(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha, hb) = (trial.disk(8)?, host("ha")?, host("hb")?);
    let (a, b) = (trial.grant(&disk, &ha)?, trial.grant(&disk, &hb)?);
    let mut stays = b.login()?;
    let load = Load::start(&a);
    until("writes before the cut", || load.counts.written.load(SeqCst) >= WARM)?;
    trial.cut(&disk, &ha)?;
    stays.write(2000, &block(1)).map_err(|err| format!("the other's session was disturbed: {err}"))?;
    let sessions = trial.sessions(&disk)?;
    ensure(sessions == [b.initiator.clone()], || format!("sessions after the cut: {sessions:?}"))?;
    drop(load);
    trial.delete(&disk)
}

pub(super) fn login_under_way(trial: &mut Trial) -> Result<(), Broken> {
    let (disk, ha) = (trial.disk(8)?, host("ha")?);
    // The login goes on at once, soon, when the cut has been confirmed.
    let moments = [Some(0), Some(1), Some(10), Some(trial.random() % 50), Some(trial.random() % 500), None];
    for moment in moments {
        let begun = trial.grant(&disk, &ha)?.begin()?;
        let (storage, op) = (trial.storage.clone(), StorageOp::Cut { disk: disk.clone(), host: ha.clone() });
        let cut = trial.runtime.spawn(async move { storage.perform(&op).await });
        let session = match moment {
            Some(ms) => {
                std::thread::sleep(Duration::from_millis(ms));
                begun.finish()
            }
            None => {
                until("the cut while a login is under way", || cut.is_finished())?;
                begun.finish()
            }
        };
        // While the cut is not confirmed it may write, and does.
        let mut session = session.ok();
        while !cut.is_finished() && session.as_mut().is_some_and(|session| session.write(0, &block(1)).is_ok()) {}
        trial.runtime.block_on(cut)?.map_err(|err| format!("login at {moment:?} ms: {err}"))?;
        let at_cut = trial.content(&disk)?;
        if let Some(mut session) = session {
            for number in 2..22 {
                let taken = session.write(0, &block(number)).is_ok();
                ensure(!taken, || format!("login at {moment:?} ms: it writes after the cut"))?;
            }
        }
        ensure(trial.content(&disk)? == at_cut, || format!("login at {moment:?} ms: a write landed after the cut"))?;
        let sessions = trial.sessions(&disk)?;
        ensure(sessions.is_empty(), || format!("login at {moment:?} ms: sessions after the cut: {sessions:?}"))?;
    }
    trial.delete(&disk)
}
