//! Storage jobs under way: in order for each disk, side by side for several, a bounded number at once.
//!
//! Owns: that order. Cuts go first, as fences and guests that stand still amid a move wait for them; copies of whole disks keep nothing waiting but copies. Never does: know what a job does; the rack bounds how many there are.

use proto::DiskId;
use rack::effect::{CloneSource, StorageOp};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use tokio::task::{JoinError, JoinSet};

/// Jobs at once, beside copies.
const RUNNING_MAX: usize = 8;
/// Copies of whole disks at once: each is begun only when it fits, and two would fit each by itself.
const COPIES_MAX: usize = 1;

/// Does one job; an error is one line.
pub type Perform = Box<dyn Fn(StorageOp) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send>;

/// The jobs.
pub struct StorageJobs {
    perform: Perform,
    /// By disk; a disk whose first job runs has it taken out already and stays in the map.
    disks: BTreeMap<DiskId, Queue>,
    running: JoinSet<(DiskId, u64, Result<(), String>)>,
    /// How many of those copy.
    copies: usize,
}

#[derive(Default)]
struct Queue {
    running: Option<Kind>,
    waiting: VecDeque<(u64, StorageOp)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cut,
    Other,
    Copy,
}

impl Kind {
    fn of(op: &StorageOp) -> Self {
        match op {
            StorageOp::Cut { .. } => Self::Cut,
            StorageOp::Clone { .. } => Self::Copy,
            _ => Self::Other,
        }
    }
}

impl StorageJobs {
    /// No jobs yet.
    pub fn new(perform: Perform) -> Self {
        Self { perform, disks: BTreeMap::new(), running: JoinSet::new(), copies: 0 }
    }

    /// Takes a job on.
    pub fn push(&mut self, job: u64, op: StorageOp) {
        self.disks.entry(op.disk().clone()).or_default().waiting.push_back((job, op));
        self.start();
    }

    /// The next job that ends; waits for ever when none is under way. Cancel-safe.
    pub async fn ended(&mut self) -> Result<(u64, Result<(), String>), JoinError> {
        match self.running.join_next().await {
            Some(ended) => {
                let (disk, job, result) = ended?;
                if let Some(queue) = self.disks.get_mut(&disk) {
                    self.copies -= usize::from(queue.running.take() == Some(Kind::Copy));
                    if queue.waiting.is_empty() {
                        self.disks.remove(&disk);
                    }
                }
                self.start();
                Ok((job, result))
            }
            None => std::future::pending().await,
        }
    }

    fn start(&mut self) {
        // A disk that is being copied from must not be changed meanwhile, nor copied while it changes; the rack sees to that.
        for kind in [Kind::Cut, Kind::Other, Kind::Copy] {
            for (disk, queue) in &mut self.disks {
                let others = self.running.len() - self.copies;
                let full = if kind == Kind::Copy { self.copies >= COPIES_MAX } else { others >= RUNNING_MAX };
                if full {
                    break;
                }
                if queue.running.is_none()
                    && let Some((job, op)) = queue.waiting.pop_front_if(|(_, op)| Kind::of(op) == kind)
                {
                    queue.running = Some(kind);
                    self.copies += usize::from(kind == Kind::Copy);
                    let (disk, work) = (disk.clone(), (self.perform)(op));
                    self.running.spawn(async move { (disk, job, work.await) });
                }
            }
        }
    }
}

/// What a job is, for the log.
pub fn describe(op: &StorageOp) -> String {
    match op {
        StorageOp::Create { disk, size_mib } => format!("create disk {disk} of {size_mib} MiB"),
        StorageOp::Clone { disk, from: CloneSource::Template(t), .. } => format!("make disk {disk} from template {t}"),
        StorageOp::Clone { disk, from: CloneSource::Disk(d), .. } => format!("make disk {disk} from disk {d}"),
        StorageOp::Attach { disk, .. } => format!("attach disk {disk}"),
        StorageOp::Grow { disk, size_mib } => format!("grow disk {disk} to {size_mib} MiB"),
        StorageOp::Delete { disk } => format!("delete disk {disk}"),
        StorageOp::Grant { disk, host, .. } => format!("let {host} reach disk {disk}"),
        StorageOp::Cut { disk, host } => format!("cut {host} off disk {disk}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::sync::Semaphore;

    /// Jobs that end when the gate lets them, and what has begun.
    fn gated() -> (StorageJobs, Arc<Mutex<Vec<String>>>, Arc<Semaphore>) {
        let (log, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (seen, opened) = (log.clone(), gate.clone());
        let jobs = StorageJobs::new(Box::new(move |op| {
            let (seen, opened) = (seen.clone(), opened.clone());
            Box::pin(async move {
                seen.lock().expect("not poisoned").push(describe(&op));
                opened.acquire().await.expect("never closed").forget();
                Ok(())
            })
        }));
        (jobs, log, gate)
    }

    fn id(n: u64) -> DiskId {
        format!("d{n:02}").parse().expect("a name")
    }

    #[tokio::test]
    async fn a_cut_waits_for_no_copy_and_goes_before_others() {
        let (mut jobs, log, gate) = gated();
        for n in 0..40 {
            let from = CloneSource::Template("web".to_owned());
            jobs.push(n, StorageOp::Clone { disk: id(n), from, size_mib: 1 });
        }
        for n in 40..60 {
            jobs.push(n, StorageOp::Create { disk: id(n), size_mib: 1 });
        }
        let host = "h525400aabb01".parse().expect("a host");
        jobs.push(99, StorageOp::Cut { disk: id(99), host });
        tokio::task::yield_now().await;
        assert_eq!((jobs.running.len(), jobs.copies), (COPIES_MAX + RUNNING_MAX, COPIES_MAX));
        let mut begun = 0;
        while !log.lock().expect("not poisoned").iter().any(|job| job.contains("cut")) {
            begun += 1;
            gate.add_permits(1);
            jobs.ended().await.expect("no panic").1.expect("done");
            tokio::task::yield_now().await;
        }
        assert!(begun <= COPIES_MAX + 1, "it began after {begun} others had ended");
        gate.add_permits(61);
        for _ in begun..61 {
            jobs.ended().await.expect("no panic").1.expect("done");
        }
        assert_eq!((jobs.disks.len(), jobs.copies), (0, 0));
    }

    #[tokio::test]
    async fn in_order_for_each_disk_and_bounded() {
        let (mut jobs, log, gate) = gated();
        for n in 0..20 {
            jobs.push(n, StorageOp::Create { disk: id(n), size_mib: 1 });
            jobs.push(100 + n, StorageOp::Delete { disk: id(n) });
        }
        tokio::task::yield_now().await;
        assert_eq!(jobs.running.len(), RUNNING_MAX);
        gate.add_permits(40);
        let mut ended = Vec::new();
        for _ in 0..40 {
            ended.push(jobs.ended().await.expect("no panic").0);
        }
        for n in 0..20 {
            let at = |job| ended.iter().position(|&e| e == job).expect("it has ended");
            assert!(at(n) < at(100 + n));
        }
        assert!(jobs.disks.is_empty());
        assert_eq!(log.lock().expect("not poisoned").len(), 40);
    }
}
