//! Other programs, with the CPU time they took.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where files of benchmarks are kept.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-balancer").join(name);
    std::fs::create_dir_all(&folder).unwrap_or_else(|err| panic!("making {}: {err}", folder.display()));
    folder
}

/// A file of this folder.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)
}

/// Runs a program to its end: its output, and user and system time in seconds.
pub(crate) fn run(program: &str, args: &[&str]) -> (String, f64) {
    // bash's `time` counts the child's own CPU time, whatever else this machine does.
    let done = Command::new("bash")
        .args(["-c", "TIMEFORMAT='cpu %U %S'; time \"$@\"", "bash", program])
        .args(args)
        .output()
        .unwrap_or_else(|err| panic!("running {program}: {err}"));
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?} ended with {}: {errors}", done.status);
    let line = errors.lines().rev().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let cpu = line.split(' ').filter_map(|word| word.parse::<f64>().ok()).sum();
    (String::from_utf8_lossy(&done.stdout).into_owned(), cpu)
}
