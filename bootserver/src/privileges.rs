//! What the server may do once its ports are open: as little as can be.
//!
//! Owns: giving up root's capabilities, thread by thread, as the kernel keeps them so. Never does: change the user: tgtd
//! obeys user 0 only (tgt usr/mgmt.c, `ipc_perm`), and user 0 without capabilities is bound by file modes like any other.
//!
//! ```text
//! main: ports opened, tgtd started ──> give_up      every other thread: give_up as its first act
//! ```
//! docs/design/0009-serving.md says which are kept, and what for.

use nix::libc;
use std::io;

/// CAP_DAC_READ_SEARCH (capabilities(7)): images may lie in the home of whoever built them.
const READ_SEARCH: u32 = 2;
/// CAP_SYS_RESOURCE: a tgtd that is started again takes itself out of the reach of the out-of-memory killer. Not in force here.
const RESOURCE: u32 = 24;
const KEPT: u32 = 1 << READ_SEARCH | 1 << RESOURCE;

/// _LINUX_CAPABILITY_VERSION_3: 64 bits in two words.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    /// 0 is the calling thread.
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up what the calling thread does not need, for good: neither it nor a program that it starts can have it back.
pub fn give_up() -> io::Result<()> {
    let (bounding, permitted) = (bounding()?, permitted()?);
    for capability in (0..64).filter(|at| bounding >> at & 1 == 1 && u64::from(KEPT) >> at & 1 == 0) {
        // SAFETY: prctl(2) with integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let header = Header { version: VERSION, pid: 0 };
    let kept = KEPT & permitted;
    let low = Sets { effective: kept & 1 << READ_SEARCH, permitted: kept, inheritable: 0 };
    let sets = [low, Sets { effective: 0, permitted: 0, inheritable: 0 }];
    // SAFETY: header and sets are laid out as capset(2) says and live over the call; version 3 has two sets.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: prctl(2) with integers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has a thread of the server begin with [`give_up`]. One that cannot goes on with what it has, and says so.
pub fn give_up_or_warn() {
    if let Err(err) = give_up() {
        tracing::warn!(%err, "a thread keeps capabilities that it does not need");
    }
}

fn bounding() -> io::Result<u64> {
    of_status("CapBnd:")
}

fn permitted() -> io::Result<u32> {
    // Those that are kept are in the lower word.
    of_status("CapPrm:").map(|set| set as u32)
}

/// A set of the calling thread (proc(5)).
fn of_status(what: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let set = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(what)?.trim(), 16).ok());
    set.ok_or_else(|| io::Error::other(format!("/proc/thread-self/status has no {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::process::Command;

    #[test]
    fn what_is_given_up_is_gone_also_for_programs() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        // A thread of its own: the others of this process keep theirs.
        let thread = std::thread::spawn(|| {
            // In a container root may have less from the start.
            let kept = u64::from(KEPT & permitted().expect("a set"));
            assert_eq!(kept & 1 << READ_SEARCH, 1 << READ_SEARCH);
            give_up().expect("root may give up");
            assert_eq!(of_status("CapEff:").expect("a set"), 1 << READ_SEARCH);
            assert_eq!((of_status("CapPrm:").expect("a set"), bounding().expect("a set")), (kept, kept));
            assert_eq!(of_status("NoNewPrivs:").expect("a word"), 1);
            let port = UdpSocket::bind("127.0.0.1:69").map_err(|err| err.kind());
            assert_eq!(port.map(drop), Err(io::ErrorKind::PermissionDenied));
            let grep = Command::new("grep").args(["CapEff", "/proc/self/status"]).output().expect("grep runs");
            assert_eq!(String::from_utf8_lossy(&grep.stdout).split_whitespace().last(), Some(&*format!("{kept:016x}")));
            // Again, as a thread that is started by such a thread does.
            give_up().expect("nothing is left to give up");
        });
        thread.join().expect("what it had to show");
    }
}
