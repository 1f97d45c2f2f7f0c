//! Children of an agent that was killed: an `xl` whose pipes have ended cleans up by itself, and must be let finish before
//! anything else is done to its guest.
//!
//! Owns: finding and awaiting them. Never does: touching a process that is no `xl` with these words.

use super::XL_S;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;

/// Waits until no `xl` with these words on its command line is left; one that outlives its time is killed.
pub async fn none_left(words: &[&str]) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(XL_S);
    let mut said = false;
    loop {
        let left = running(words);
        if left.is_empty() {
            return;
        }
        if !said {
            said = true;
            tracing::info!(?words, ?left, "awaiting an xl of an earlier agent");
        }
        if tokio::time::Instant::now() >= deadline {
            for &process in &left {
                tracing::warn!(?words, process, "killing an xl of an earlier agent");
                // It may have ended just now.
                let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether an `xl` with these words on its command line is at work.
pub fn is_left(words: &[&str]) -> bool {
    !running(words).is_empty()
}

fn running(words: &[&str]) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    // A process that has ended and is not reaped has an empty command line.
    numbers.filter(|n| fs::read(format!("/proc/{n}/cmdline")).is_ok_and(|line| is_xl(&line, words))).collect()
}

/// Whether a command line is that of an `xl` with these words.
pub fn is_xl(cmdline: &[u8], words: &[&str]) -> bool {
    let mut arguments = cmdline.split(|&b| b == 0);
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    (program == b"xl" || program.ends_with(b"/xl")) && words.iter().all(|w| arguments.contains(&w.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let migrate = b"xl\0migrate\0-e\0-s\0\x007\0exec /usr/sbin/hostagent carry /run/x\0";
        assert!(is_xl(migrate, &["migrate", "exec /usr/sbin/hostagent carry /run/x"]));
        assert!(!is_xl(migrate, &["migrate", "exec /usr/sbin/hostagent carry /run/"]));
        assert!(!is_xl(migrate, &["migrate-receive"]));
        assert!(is_xl(b"/usr/sbin/xl\0migrate-receive\0-e\0", &["migrate-receive"]));
        assert!(!is_xl(b"axl\0migrate\x007\0", &["migrate", "7"]));
        assert!(!is_xl(b"", &["migrate"]));
        assert!(running(&["a word that nobody says"]).is_empty());
    }
}
