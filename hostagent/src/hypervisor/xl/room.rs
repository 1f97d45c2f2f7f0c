//! dom0's own memory, while domains are built in it.
//!
//! Owns: how many `xl create` run side by side. Never does: the guests' memory, which is Xen's.
//!
//! xl unpacks a guest's kernel and reads its initrd into its own memory: four creations at once, after a host had died, took more than the 390 MiB
//! that dom0 has of its 512, and the kernel killed one of them.

use proto::vm::Boot;
use std::fs;
use std::path::Path;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Left to everything else: boot files, migration streams, the agent and the daemons.
const KEPT_MIB: u64 = 128;
/// An xl without a kernel.
const XL_MIB: u64 = 24;
/// How much larger a kernel is than its file: Debian's, of 8 MiB, was seen to take 80.
const UNPACKED: u64 = 10;

/// Memory for building domains, shared out in MiB.
pub(super) struct Room {
    mib: Semaphore,
    all: u32,
}

impl Room {
    /// As much as is available now, but for what is kept.
    pub(super) fn new() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self::of(available_mib(&text).saturating_sub(KEPT_MIB))
    }

    fn of(mib: u64) -> Self {
        let all = u32::try_from(mib).unwrap_or(u32::MAX).clamp(1, Semaphore::MAX_PERMITS.min(1 << 20) as u32);
        Self { mib: Semaphore::new(all as usize), all }
    }

    /// Waits, in turn, until there is room to build a domain from these files; one that needs more than there is has all of it.
    pub(super) async fn for_one(&self, boot: &Boot, blobs: &Path) -> SemaphorePermit<'_> {
        let bytes = |digest: &String| fs::metadata(blobs.join(digest)).map_or(0, |m| m.len());
        let needed_mib = match boot {
            Boot::Kernel { kernel, initrd, .. } => building_mib(bytes(kernel), initrd.as_ref().map_or(0, bytes)),
            Boot::Disk { loader } => building_mib(bytes(loader), 0),
        };
        let needed = u32::try_from(needed_mib).unwrap_or(u32::MAX).min(self.all);
        // It is never closed.
        self.mib.acquire_many(needed).await.unwrap_or_else(|_| unreachable!("the room is closed"))
    }
}

fn building_mib(kernel_bytes: u64, initrd_bytes: u64) -> u64 {
    XL_MIB + (kernel_bytes.saturating_mul(UNPACKED).saturating_add(initrd_bytes.saturating_mul(2)) >> 20)
}

fn available_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_as_there_is_room_for() {
        assert_eq!(available_mib("MemTotal: 399024 kB\nMemAvailable:   312320 kB\n"), 305);
        assert_eq!(building_mib(8 << 20, 1 << 20), 106);
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("k"), vec![0; 1 << 20]).expect("written");
        let boot = Boot::Kernel { kernel: "k".into(), initrd: None, cmdline: String::new() };
        let two = Room::of(2 * building_mib(1 << 20, 0));
        let (first, _second) = (two.for_one(&boot, dir.path()).await, two.for_one(&boot, dir.path()).await);
        let mut third = std::pin::pin!(two.for_one(&boot, dir.path()));
        assert!(poll_once(&mut third).is_none(), "the third waits");
        drop(first);
        assert!(poll_once(&mut third).is_some());
        let small = Room::of(1);
        let _one = small.for_one(&boot, dir.path()).await;
    }

    fn poll_once<T>(future: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        }
    }
}
