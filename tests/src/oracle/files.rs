//! When the disks' files change: inotify(7), so whoever writes, and whether or not a connection is left that could show it.
//!
//! Owns: the watch. Never does: know who wrote; say a time sooner than it was read.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::path::Path;

/// The watch on a directory of disks.
#[derive(Debug)]
pub struct Files(Inotify);

impl Files {
    /// Begins to watch.
    pub fn watch(directory: &Path) -> Result<Self> {
        let inotify =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("watching the disks' files")?;
        inotify
            .add_watch(directory, AddWatchFlags::IN_MODIFY)
            .with_context(|| format!("watching {}", directory.display()))?;
        Ok(Self(inotify))
    }

    /// Disks that were changed since the last look.
    pub fn changed(&self) -> Result<Vec<String>> {
        let events = match self.0.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN) => return Ok(Vec::new()),
            Err(err) => return Err(err).context("reading which disks' files have changed"),
        };
        let mut changed = Vec::new();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                bail!("the kernel dropped changes of the disks' files: what changed was not judged");
            }
            let disk = event.name.and_then(|name| name.to_str()?.strip_suffix(".img").map(str::to_owned));
            changed.extend(disk.filter(|disk| !changed.contains(disk)));
        }
        Ok(changed)
    }
}
