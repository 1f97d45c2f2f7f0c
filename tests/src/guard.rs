//! Waiting for a condition, under a guard that only ends a hang.
//!
//! A guard is generous and is never what is tested: when it strikes, something hangs, and its report shows the last lines of
//! every log there is.

use anyhow::{Result, anyhow, bail};
use nix::libc::{c_int, c_void, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines of each log in a report.
const LINES: usize = 25;

/// How long may be waited, and what to show when that was in vain.
#[derive(Debug, Clone)]
pub struct Guard {
    limit: Duration,
    logs: PathBuf,
}

impl Guard {
    /// A guard of so many seconds that shows all `*.log` below a directory.
    pub fn new(limit_s: u64, logs: &Path) -> Self {
        Self { limit: Duration::from_secs(limit_s), logs: logs.to_owned() }
    }

    /// The same with another limit.
    #[must_use]
    pub fn of(&self, limit_s: u64) -> Self {
        Self { limit: Duration::from_secs(limit_s), logs: self.logs.clone() }
    }

    /// Waits until the condition gives something. An error of the condition ends it at once.
    pub fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let began = Instant::now();
        loop {
            match condition() {
                Ok(Some(value)) => return Ok(value),
                Ok(None) if interrupted() => {
                    let (signal, sender) = (SIGNAL.load(Ordering::Relaxed), SENDER.load(Ordering::Relaxed));
                    bail!("interrupted by signal {signal} of process {sender} while waiting for {what}")
                }
                Ok(None) if began.elapsed() < self.limit => std::thread::sleep(LOOK_EVERY),
                Ok(None) => {
                    let s = self.limit.as_secs();
                    return Err(anyhow!("waited {s} s in vain for {what}\n{}", last_lines(&self.logs)));
                }
                Err(err) => return Err(err.context(format!("while waiting for {what}"))),
            }
        }
    }
}

/// The signal that asked to end, and who sent it; 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static SENDER: AtomicI32 = AtomicI32::new(0);

extern "C" fn interrupt(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands a valid siginfo_t to a handler set with SA_SIGINFO.
    SENDER.store(unsafe { (*info).si_pid() }, Ordering::Relaxed);
    SIGNAL.store(signal, Ordering::Relaxed);
}

/// Lets Ctrl-C, SIGTERM and a closed terminal end every wait as an error, so that all is taken away on the way out.
pub fn heed_interrupts() -> Result<()> {
    let action =
        SigAction::new(SigHandler::SigAction(interrupt), SaFlags::SA_RESTART | SaFlags::SA_SIGINFO, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to atomics, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether it was asked to end.
pub fn interrupted() -> bool {
    SIGNAL.load(Ordering::Relaxed) != 0
}

/// The last lines of every log below a directory.
pub fn last_lines(dir: &Path) -> String {
    let mut text = String::new();
    for log in logs(dir) {
        let bytes = std::fs::read(&log).unwrap_or_default();
        let content = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = content.lines().collect();
        // Writing to a String does not fail.
        let _ = writeln!(text, "--- {} ({} lines)", log.display(), lines.len());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

/// Every `*.log` below a directory.
pub fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(logs(&path));
        } else if path.extension().is_some_and(|e| e == "log") {
            found.push(path);
        }
    }
    found.sort();
    found
}
