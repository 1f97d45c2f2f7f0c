//! When the disks' files change: inotify(7), so whoever writes, and whether or not a connection is left that could show it.
//!
//! Owns: the watch. Never does: know who wrote; say that a change was begun sooner than it was.

use super::unix_ns;
use super::verdict::Change;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::time::{ClockId, clock_getres};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The watch on a directory of disks.
#[derive(Debug)]
pub struct Files {
    inotify: Inotify,
    directory: PathBuf,
    /// The kernel stamps a file by a clock that stands still between two ticks: its time is by so much too early at most.
    tick_ns: u64,
    /// What had changed until then has been read, Unix nanoseconds.
    looked_ns: u64,
}

impl Files {
    /// Begins to watch.
    pub fn watch(directory: &Path) -> Result<Self> {
        let inotify =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("watching the disks' files")?;
        inotify
            .add_watch(directory, AddWatchFlags::IN_MODIFY)
            .with_context(|| format!("watching {}", directory.display()))?;
        let tick = clock_getres(ClockId::CLOCK_REALTIME_COARSE).context("asking how long a tick is")?;
        let tick_ns = u64::try_from(Duration::from(tick).as_nanos())?;
        Ok(Self { inotify, directory: directory.to_owned(), tick_ns, looked_ns: unix_ns(SystemTime::now()) })
    }

    /// What was changed since the last look. Of several changes of a disk it is the last: the one before it is no later.
    pub fn changed(&mut self) -> Result<Vec<Change>> {
        let looks_ns = unix_ns(SystemTime::now());
        let mut changed: Vec<String> = Vec::new();
        // One read gives only what fits into its buffer.
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(err) => return Err(err).context("reading which disks' files have changed"),
            };
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    bail!("the kernel dropped changes of the disks' files: what changed was not judged");
                }
                let disk = event.name.and_then(|name| name.to_str()?.strip_suffix(".img").map(str::to_owned));
                changed.extend(disk.filter(|disk| !changed.contains(disk)));
            }
        }
        let last_ns = std::mem::replace(&mut self.looked_ns, looks_ns);
        Ok(changed.into_iter().map(|disk| self.stamped(disk, last_ns)).collect())
    }

    /// This may be read long after the write, when the machine is busy; the file says when that was. The kernel stamps it as a write begins and tells of it
    /// when its data are there: so one that takes long is no sooner than the last look, at which it was not told of.
    fn stamped(&self, disk: String, last_ns: u64) -> Change {
        let modified = fs::metadata(self.directory.join(format!("{disk}.img"))).and_then(|file| file.modified());
        // Only now, so that nothing that the file shows is later than it was seen.
        let seen_ns = unix_ns(SystemTime::now());
        // A file that is gone says nothing.
        let begun_ns = modified.map_or(seen_ns, |at| unix_ns(at).saturating_add(self.tick_ns));
        Change { disk, begun_ns: begun_ns.max(last_ns).min(seen_ns), seen_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_of_when_it_was_written_however_late_it_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = Files::watch(dir.path()).expect("a watch");
        assert_eq!(files.changed().expect("a look"), []);
        fs::write(dir.path().join("d.img"), "x").expect("written");
        fs::write(dir.path().join("other"), "x").expect("written");
        let written_ns = unix_ns(SystemTime::now());
        while unix_ns(SystemTime::now()) <= written_ns + files.tick_ns {
            std::thread::sleep(Duration::from_millis(1));
        }
        let changes = files.changed().expect("a look");
        let [Change { disk, begun_ns, seen_ns }] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(disk, "d");
        assert!(*begun_ns <= written_ns + files.tick_ns, "{changes:?}, and it was written at {written_ns}");
        assert!(*seen_ns > written_ns + files.tick_ns, "{changes:?}, and it was written at {written_ns}");
        assert_eq!(files.changed().expect("a look"), []);
    }
}
