//! Processes: which one a number means, running a tool, starting one in a namespace.
//!
//! Owns: the identity of a process (its number and when it started, as numbers are used again). Never does: end one that
//! it was not given with its identity.

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// One process, not just its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, clock ticks since the machine did (proc(5), /proc/pid/stat field 22).
    pub started_ticks: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let started_ticks = started_ticks(&stat).with_context(|| format!("{path} has no field 22: {stat:?}"))?;
        Ok(Self { pid, started_ticks })
    }

    /// This process.
    pub fn own() -> Result<Self> {
        Self::of(std::process::id().try_into().context("a process number is an i32")?)
    }

    /// Whether it is still there; one that has ended and awaits its parent is not.
    pub fn lives(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        started_ticks(&stat) == Some(self.started_ticks) && !stat.rsplit(')').next().unwrap_or("").starts_with(" Z")
    }

    /// Sends a signal, if it is still there.
    pub fn signal(&self, signal: Signal) {
        if self.lives() {
            // It may end just now.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// The name in field 2 may hold anything, so fields count from its closing bracket.
fn started_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Runs a tool to its end; an error carries what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let out = command.output().with_context(|| format!("running {shown}; is it installed? `make setup` does that"))?;
    if !out.status.success() {
        bail!("{shown}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Lets a command to be started live in this network namespace, out of reach of the terminal's Ctrl-C.
pub fn in_namespace(command: &mut Command, namespace: &File) -> io::Result<()> {
    let namespace = namespace.try_clone()?;
    command.process_group(0);
    // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(move || Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?));
    }
    Ok(())
}

/// Has a command that is started live no longer than the thread that starts it.
pub fn with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_its_number() {
        let own = Process::own().expect("we are there");
        assert!(own.lives());
        assert!(!Process { started_ticks: own.started_ticks + 1, ..own }.lives());
        assert_eq!(started_ticks("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"), Some(4711));
        assert_eq!(started_ticks("7 (a"), None);
    }
}
