//! Disks by iSCSI: log in, find the device, log out.
//!
//! Owns: open-iscsi's node records of our disks, iscsiadm, and finding devices in /sys. Never does: partitions, file systems.
//!
//! A node record is written as a file, not by `iscsiadm -o update -v SECRET`: the secret then never stands on a command line, and one program start
//! is spared per disk, half a second on a slow host. The directory lies in RAM like all of dom0. Devices are found in /sys by target
//! name and LUN rather than by udev's links: nothing to wait for but the kernel, and no link that points at what the letter was before.
//!
//! iscsiadm guards its records by a link that a killed one leaves behind, and every later one then waits 30 s for it and gives up. So one
//! that was started is let run to its end, whoever awaits it, and a link that nobody can be holding is taken away before another starts.

use proto::HostId;
use proto::agent::DiskAccess;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::process::{Child, Command};

const NODES: &str = "/etc/iscsi/nodes";
/// open-iscsi 2.1, usr/idbm.h: LOCK_WRITE_FILE.
const RECORDS_HELD: &str = "/run/lock/iscsi/lock.write";
/// A login waits this long: tgt answers in milliseconds, an emulated host takes a second or two.
const LOGIN_S: u64 = 30;
/// A log-out; a session that is dead is dropped by iscsid after `logout_timeout`.
const LOGOUT_S: u64 = 30;
/// From the login to the device in /sys.
const DEVICE_S: u64 = 15;
/// How long the kernel keeps a guest's requests while the portal is away, seconds: longer than any outage that the guests are
/// to sit out. A fenced host's requests wait too, and die at the log-out.
const REPLACEMENT_S: u32 = 86_400;

/// Why a disk is not there.
#[derive(Debug, thiserror::Error)]
pub enum IscsiError {
    /// The record.
    #[error("writing the node record {path}: {source}")]
    Record {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tool.
    #[error("iscsiadm, {what} {target}: {said}")]
    Tool {
        /// What was attempted.
        what: &'static str,
        /// Which target.
        target: String,
        /// What it said.
        said: String,
    },
    /// Logged in, but there is no device.
    #[error("{target} LUN {lun}: no such device; log in to it first")]
    NoDevice {
        /// Which target.
        target: String,
        /// Which LUN.
        lun: u32,
    },
    /// A name that must not get into a path or a record.
    #[error("{given:?} is no iSCSI name or text that can be written into a node record")]
    Name {
        /// What.
        given: String,
    },
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Such as `sda`.
    pub name: String,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

/// How a disk is named in a domain's configuration, for `tsubame-block`: the same on every host.
pub fn params(disk: &DiskAccess) -> String {
    format!("{}/{}", disk.target, disk.lun)
}

/// Reads what [`params`] wrote.
pub fn parse_params(params: &str) -> Option<(&str, u32)> {
    let (target, lun) = params.rsplit_once('/')?;
    Some((target, lun.parse().ok()?))
}

/// The device of a target and LUN.
///
/// # Errors
/// [`IscsiError::NoDevice`] when no session has it.
pub fn device(sys: &Path, target: &str, lun: u32) -> Result<Device, IscsiError> {
    let found = sessions(sys, target).into_iter().find_map(|session| {
        // sessionN/device/targetH:C:T/H:C:T:LUN/block/sdX
        let device = sys.join("class/iscsi_session").join(&session).join("device");
        let scsi = names(&device).into_iter().filter(|n| n.starts_with("target"));
        let units = scsi.flat_map(|t| names(&device.join(&t)).into_iter().map(move |u| (t.clone(), u)));
        let (t, u) = units.into_iter().find(|(_, u)| u.rsplit_once(':').is_some_and(|(_, l)| l.parse() == Ok(lun)))?;
        let block = device.join(t).join(u).join("block");
        let name = names(&block).into_iter().next()?;
        let numbers = fs::read_to_string(block.join(&name).join("dev")).ok()?;
        let (major, minor) = numbers.trim().split_once(':')?;
        Some(Device { name, major: major.parse().ok()?, minor: minor.parse().ok()? })
    });
    found.ok_or_else(|| IscsiError::NoDevice { target: target.to_owned(), lun })
}

/// Sessions to a target.
fn sessions(sys: &Path, target: &str) -> Vec<String> {
    let class = sys.join("class/iscsi_session");
    let of = |s: &String| fs::read_to_string(class.join(s).join("targetname")).is_ok_and(|t| t.trim() == target);
    names(&class).into_iter().filter(of).collect()
}

/// Whether a session is logged in, rather than trying to be again.
fn is_alive(sys: &Path, session: &str) -> bool {
    let state = fs::read_to_string(sys.join("class/iscsi_session").join(session).join("state"));
    state.is_ok_and(|s| s.trim() == "LOGGED_IN")
}

/// Whether the kernel has given a device up: it stays so, though its session is logged in again.
fn is_given_up(sys: &Path, device: &Device) -> bool {
    let state = fs::read_to_string(sys.join("block").join(&device.name).join("device/state"));
    state.is_ok_and(|s| matches!(s.trim(), "offline" | "transport-offline"))
}

/// Logs in with the access given and waits for the device. A session that is there under another user, or dead, or whose device is,
/// is ended first: after a cut the storage takes no session of before.
///
/// # Errors
/// What the tool said, or that no device came.
pub async fn login(host: &HostId, disk: &DiskAccess) -> Result<Device, IscsiError> {
    let sys = Path::new("/sys");
    let (path, record) = (record_path(disk)?, record(host, disk)?);
    let same = fs::read_to_string(&path).is_ok_and(|r| r == record);
    let sessions = sessions(sys, &disk.target);
    if same
        && sessions.iter().any(|s| is_alive(sys, s))
        && let Ok(device) = device(sys, &disk.target, disk.lun)
        && !is_given_up(sys, &device)
    {
        return Ok(device);
    }
    if !sessions.is_empty() {
        logout(disk).await?;
    }
    write_record(&path, &record)?;
    iscsiadm("logging in to", &disk.target, at_portal(disk, "--login"), LOGIN_S).await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(DEVICE_S);
    loop {
        match device(sys, &disk.target, disk.lun) {
            Err(e) if tokio::time::Instant::now() >= deadline => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            found => return found,
        }
    }
}

/// Logs out and forgets the record. Succeeds when there is no session.
///
/// # Errors
/// When the session is still there afterwards.
pub async fn logout(disk: &DiskAccess) -> Result<(), IscsiError> {
    let sys = Path::new("/sys");
    if !sessions(sys, &disk.target).is_empty() {
        let what = "logging out of";
        let mut said = iscsiadm(what, &disk.target, at_portal(disk, "--logout"), LOGOUT_S).await;
        // One that came about by a portal of an earlier configuration goes by its number.
        for left in by_number(&sessions(sys, &disk.target), "--logout") {
            said = iscsiadm(what, &disk.target, left, LOGOUT_S).await;
        }
        // What counts is that it is gone: the tool also fails when the session went by itself meanwhile.
        if !sessions(sys, &disk.target).is_empty() {
            said?;
            return Err(IscsiError::Tool {
                what,
                target: disk.target.clone(),
                said: "the session is still there".to_owned(),
            });
        }
    }
    forget(Path::new(NODES), &disk.target)
}

/// Removes a target's records, one of an earlier portal too, and their directories: they lie in dom0's RAM.
fn forget(nodes: &Path, target: &str) -> Result<(), IscsiError> {
    let of_target = nodes.join(plain(target)?);
    for portal in names(&of_target) {
        let dir = of_target.join(portal);
        let path = dir.join("default");
        if path.exists() {
            fs::remove_file(&path).map_err(|source| IscsiError::Record { path, source })?;
        }
        // What is not empty is not ours.
        let _ = fs::remove_dir(dir);
    }
    // As above; and often there is none.
    let _ = fs::remove_dir(of_target);
    Ok(())
}

/// The arguments for an act on the sessions of a disk's record.
fn at_portal(disk: &DiskAccess, act: &str) -> Vec<String> {
    ["-m", "node", "-T", &disk.target, "-p", &disk.portal.to_string(), act].map(str::to_owned).into()
}

/// The arguments for an act on each of these sessions, as /sys names them; these need no record.
fn by_number(sessions: &[String], act: &str) -> Vec<Vec<String>> {
    let numbers = sessions.iter().filter_map(|session| session.strip_prefix("session"));
    numbers.map(|number| ["-m", "session", "-r", number, act].map(str::to_owned).into()).collect()
}

async fn iscsiadm(what: &'static str, target: &str, arguments: Vec<String>, limit_s: u64) -> Result<(), IscsiError> {
    let failed = |e| IscsiError::Tool { what, target: target.to_owned(), said: format!("awaiting it: {e}") };
    let target = target.to_owned();
    // A task of its own: who awaits it may be called off, iscsiadm not.
    let run = tokio::spawn(async move {
        let failed = |said: String| IscsiError::Tool { what, target: target.clone(), said };
        let child = start(&arguments);
        let child = child.map_err(|e| failed(format!("running it: {e}")))?;
        let output = tokio::time::timeout(Duration::from_secs(limit_s), child.wait_with_output()).await;
        let output = output.map_err(|_| failed(format!("no end after {limit_s} s")))?;
        let output = output.map_err(|e| failed(format!("awaiting it: {e}")))?;
        if output.status.success() { Ok(()) } else { Err(failed(what_it_said(&output.stderr, output.status.code()))) }
    });
    run.await.map_err(failed)?
}

/// Starts iscsiadm; one that is awaited no longer is killed.
fn start(arguments: &[String]) -> io::Result<Child> {
    static STARTS: Mutex<()> = Mutex::new(());
    // Held over looking and starting, so that none starts between the two.
    let _one = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    if Path::new(RECORDS_HELD).exists() && !runs(Path::new("/proc")) {
        tracing::warn!("iscsiadm's records were left locked by one that was killed");
        fs::remove_file(RECORDS_HELD)?;
    }
    let mut command = Command::new("iscsiadm");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn()
}

/// Whether any iscsiadm is alive, one of an earlier agent too.
fn runs(proc: &Path) -> bool {
    let alive = |pid: &String| {
        fs::read_to_string(proc.join(pid).join("comm")).is_ok_and(|name| name.trim() == "iscsiadm")
            // One that has ended and is not reaped yet has no command line any more.
            && fs::read(proc.join(pid).join("cmdline")).is_ok_and(|line| !line.is_empty())
    };
    names(proc).iter().any(alive)
}

/// iscsiadm's errors, without its name before each line.
fn what_it_said(stderr: &[u8], code: Option<i32>) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> =
        text.lines().map(|l| l.trim_start_matches("iscsiadm: ").trim()).filter(|l| !l.is_empty()).collect();
    if lines.is_empty() { format!("status {code:?}") } else { lines.join("; ") }
}

/// The initiator's name of a host: that of the target with the host in place of the disk. The server grants to this name.
fn initiator(host: &HostId, target: &str) -> String {
    let prefix = target.rsplit_once(':').map_or(target, |(prefix, _)| prefix);
    format!("{prefix}:{host}")
}

fn record_path(disk: &DiskAccess) -> Result<PathBuf, IscsiError> {
    plain(&disk.target)?;
    let portal = format!("{},{}", disk.portal.ip(), disk.portal.port());
    Ok(Path::new(NODES).join(&disk.target).join(format!("{portal},1")).join("default"))
}

/// Letters, digits and the few signs of iSCSI names (RFC 7143 §4.2.7) and base64: no path, no line's end.
fn plain(text: &str) -> Result<&str, IscsiError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:+=".contains(&b);
    if !text.is_empty() && text.len() <= 223 && text.bytes().all(fits) && !text.starts_with('.') {
        return Ok(text);
    }
    Err(IscsiError::Name { given: text.chars().take(60).collect() })
}

/// A record as idbm.c of open-iscsi 2.1 reads it; what is not named has iscsid's defaults.
fn record(host: &HostId, disk: &DiskAccess) -> Result<String, IscsiError> {
    // A secret is not shown in an error.
    let secret = plain(&disk.secret.0).map_err(|_| IscsiError::Name { given: "the CHAP secret".to_owned() })?;
    let lines = [
        ("node.name", disk.target.as_str()),
        ("node.tpgt", "1"),
        ("node.startup", "manual"),
        ("node.leading_login", "No"),
        ("iface.initiatorname", &initiator(host, &disk.target)),
        ("iface.iscsi_ifacename", "default"),
        ("iface.transport_name", "tcp"),
        ("node.session.auth.authmethod", "CHAP"),
        ("node.session.auth.username", plain(&disk.user)?),
        ("node.session.auth.password", secret),
        ("node.session.timeo.replacement_timeout", &REPLACEMENT_S.to_string()),
        ("node.session.initial_login_retry_max", "2"),
        ("node.session.nr_sessions", "1"),
        ("node.session.scan", "auto"),
        ("node.conn[0].address", &disk.portal.ip().to_string()),
        ("node.conn[0].port", &disk.portal.port().to_string()),
        ("node.conn[0].startup", "manual"),
        ("node.conn[0].timeo.login_timeout", "10"),
        ("node.conn[0].timeo.logout_timeout", "5"),
        ("node.conn[0].timeo.noop_out_interval", "5"),
        ("node.conn[0].timeo.noop_out_timeout", "5"),
    ];
    let body: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    Ok(format!("# BEGIN RECORD 2.1.8\n{body}# END RECORD\n"))
}

fn write_record(path: &Path, record: &str) -> Result<(), IscsiError> {
    let failed = |source| IscsiError::Record { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(record.as_bytes()).map_err(failed)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proto::agent::Secret;

    fn disk() -> DiskAccess {
        DiskAccess {
            disk: "web-0".parse().expect("good"),
            portal: ([10, 77, 0, 1], 3260).into(),
            target: "iqn.2026-11.org.tsubame:web-0".into(),
            lun: 1,
            user: "u-7".into(),
            secret: Secret("0123456789abcdef".into()),
        }
    }

    #[test]
    fn records() {
        let host: HostId = "h525400aabb01".parse().expect("good");
        expect![[r#"
            # BEGIN RECORD 2.1.8
            node.name = iqn.2026-11.org.tsubame:web-0
            node.tpgt = 1
            node.startup = manual
            node.leading_login = No
            iface.initiatorname = iqn.2026-11.org.tsubame:h525400aabb01
            iface.iscsi_ifacename = default
            iface.transport_name = tcp
            node.session.auth.authmethod = CHAP
            node.session.auth.username = u-7
            node.session.auth.password = 0123456789abcdef
            node.session.timeo.replacement_timeout = 86400
            node.session.initial_login_retry_max = 2
            node.session.nr_sessions = 1
            node.session.scan = auto
            node.conn[0].address = 10.77.0.1
            node.conn[0].port = 3260
            node.conn[0].startup = manual
            node.conn[0].timeo.login_timeout = 10
            node.conn[0].timeo.logout_timeout = 5
            node.conn[0].timeo.noop_out_interval = 5
            node.conn[0].timeo.noop_out_timeout = 5
            # END RECORD
        "#]]
        .assert_eq(&record(&host, &disk()).expect("plain"));
        for bad in ["../../etc", "", "a\nb", ".hidden", "a/b"] {
            assert!(record_path(&DiskAccess { target: bad.into(), ..disk() }).is_err(), "{bad:?}");
        }
        let stolen = record(&host, &DiskAccess { secret: Secret("x\ny".into()), ..disk() });
        assert!(stolen.expect_err("a line's end").to_string().contains("the CHAP secret"));
    }

    #[test]
    fn devices() {
        let sys = tempfile::tempdir().expect("a directory");
        let put = |path: &str, value: &str| {
            let path = sys.path().join("class/iscsi_session").join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, value).expect("written");
        };
        put("session4/targetname", "iqn.x:other\n");
        put("session5/targetname", "iqn.x:web-0\n");
        put("session5/state", "LOGGED_IN\n");
        put("session5/device/target2:0:0/2:0:0:0/type", "12\n");
        put("session5/device/target2:0:0/2:0:0:1/block/sdb/dev", "8:16\n");
        put("session6/targetname", "iqn.x:web-0\n");
        let found = device(sys.path(), "iqn.x:web-0", 1).expect("there");
        assert_eq!(found, Device { name: "sdb".into(), major: 8, minor: 16 });
        assert!(is_alive(sys.path(), "session5") && !is_alive(sys.path(), "session4"));
        for (state, is) in
            [("running\n", false), ("blocked\n", false), ("offline\n", true), ("transport-offline\n", true)]
        {
            put("../../block/sdb/device/state", state);
            assert_eq!(is_given_up(sys.path(), &found), is, "{state}");
        }
        let acts: Vec<_> =
            by_number(&sessions(sys.path(), "iqn.x:web-0"), "--logout").iter().map(|act| act.join(" ")).collect();
        assert_eq!(acts, ["-m session -r 5 --logout", "-m session -r 6 --logout"]);
        for (target, lun) in [("iqn.x:web-0", 0), ("iqn.x:web-0", 2), ("iqn.x:other", 1), ("iqn.x:none", 1)] {
            assert!(device(sys.path(), target, lun).is_err(), "{target} {lun}");
        }
        assert_eq!(parse_params(&params(&disk())), Some(("iqn.2026-11.org.tsubame:web-0", 1)));
        assert_eq!(parse_params("x"), None);
    }

    #[test]
    fn nothing_is_left_of_a_record() {
        let nodes = tempfile::tempdir().expect("a directory");
        let put = |path: &str| {
            let path = nodes.path().join(path);
            write_record(&path, "# BEGIN RECORD 2.1.8\n").expect("written");
        };
        put("iqn.x:web-0/10.77.0.1,3260,1/default");
        put("iqn.x:web-0/10.78.0.1,3260,1/default");
        put("iqn.x:web-1/10.77.0.1,3260,1/default");
        for target in ["iqn.x:web-0", "iqn.x:web-0", "iqn.x:none"] {
            forget(nodes.path(), target).expect("forgotten");
        }
        assert_eq!(names(nodes.path()), ["iqn.x:web-1"]);
        // Somebody else's.
        put("iqn.x:web-1/10.77.0.1,3260,1/other");
        forget(nodes.path(), "iqn.x:web-1").expect("forgotten");
        assert_eq!(names(&nodes.path().join("iqn.x:web-1/10.77.0.1,3260,1")), ["other"]);
        assert!(forget(nodes.path(), "..").is_err());
    }

    #[test]
    fn who_may_hold_the_records() {
        let proc = tempfile::tempdir().expect("a directory");
        let put = |pid: &str, comm: &str, cmdline: &str| {
            fs::create_dir_all(proc.path().join(pid)).expect("made");
            fs::write(proc.path().join(pid).join("comm"), comm).expect("written");
            fs::write(proc.path().join(pid).join("cmdline"), cmdline).expect("written");
        };
        put("1", "init\n", "init\0");
        put("40", "iscsid\n", "iscsid\0-f\0");
        put("52", "iscsiadm\n", "");
        assert!(!runs(proc.path()), "one that has ended holds nothing");
        put("53", "iscsiadm\n", "iscsiadm\0-m\0node\0");
        assert!(runs(proc.path()));
    }

    #[test]
    fn what_the_tool_says() {
        // Captured from iscsiadm 2.1.8.
        let captured = b"iscsiadm: Could not login to [iface: default, target: iqn.x:web-0, portal: 10.77.0.1,3260].\n\
            iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)\n\
            iscsiadm: Could not log into all portals\n";
        expect!["Could not login to [iface: default, target: iqn.x:web-0, portal: 10.77.0.1,3260].; initiator reported error (24 - iSCSI login failed due to authorization failure); Could not log into all portals"]
            .assert_eq(&what_it_said(captured, Some(24)));
        assert_eq!(what_it_said(b"", Some(21)), "status Some(21)");
    }
}
