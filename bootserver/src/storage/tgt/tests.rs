//! Against a real tgtd on loopback, with libiscsi's tools as the initiator.

use super::*;
use crate::storage::StorageConfig;
use crate::storage::contract::{CLAUSES, CLAUSES_OF_A_SAN, Trial};
use crate::storage::served::perform;
use proto::HostId;
use proto::agent::Secret;
use rack::effect::{CloneSource, StorageOp};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

/// A tgtd of the test's own; ended when dropped, whatever became of the test.
struct Rig {
    tgt: Tgt,
    _state: tempfile::TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let tgt = self.tgt.clone();
        let stop = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(tgt.stop()).ok();
        });
        stop.join().ok();
    }
}

async fn rig() -> Rig {
    let state = tempfile::tempdir().expect("a directory for the test");
    let portal = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let tgt = Tgt::start(config(state.path(), portal)).await;
    let tgt = tgt.expect("tgtd starts; the package tgt must be installed and the test run as root");
    Rig { tgt, _state: state }
}

fn config(state: &Path, portal: SocketAddr) -> TgtConfig {
    TgtConfig {
        files: Files { directory: state.join("disks"), templates: BTreeMap::new() },
        log: state.join("tgtd.log"),
        portal,
        // Free as a TCP port, so no other test's tgtd has this number; tgtd takes 1 to 32767.
        control_port: portal.port() % 32_767 + 1,
        iqn_prefix: "iqn.2026-11.org.tsubame".into(),
    }
}

#[tokio::test]
async fn a_portal_that_another_program_has_is_named() {
    let state = tempfile::tempdir().expect("a directory for the test");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let config = config(state.path(), other.local_addr().expect("it is bound"));
    let said = Tgt::start(config).await.expect_err("the portal is taken").to_string();
    assert!(said.contains("in use") && said.contains("storage.portal"), "{said}");
}

fn disk(name: &str) -> DiskId {
    name.parse().expect("a good name")
}

fn host(name: &str) -> HostId {
    name.parse().expect("a good name")
}

fn grant(disk: &DiskId, host: &HostId, user: &str, secret: &str) -> StorageOp {
    grant_from(Ipv4Addr::LOCALHOST, disk, host, user, secret)
}

fn grant_from(address: Ipv4Addr, disk: &DiskId, host: &HostId, user: &str, secret: &str) -> StorageOp {
    StorageOp::Grant {
        disk: disk.clone(),
        host: host.clone(),
        initiator: format!("iqn.2026-11.org.tsubame:{host}"),
        address,
        user: user.into(),
        secret: Secret(secret.into()),
    }
}

impl Rig {
    fn url(&self, disk: &str, user: &str, secret: &str) -> String {
        format!("iscsi://{user}%{secret}@{}/iqn.2026-11.org.tsubame:{disk}/1", self.tgt.config.portal)
    }

    /// Whether a host can log in and read the disk's size, in MiB.
    async fn capacity(&self, disk: &str, host: &str, user: &str, secret: &str) -> Option<u64> {
        let url = self.url(disk, user, secret);
        let initiator = format!("iqn.2026-11.org.tsubame:{host}");
        let asked = tokio::task::spawn_blocking(move || {
            Command::new("iscsi-readcapacity16").args(["-i", &initiator, "-s", &url]).output()
        });
        let out = asked
            .await
            .expect("the task ends")
            .expect("iscsi-readcapacity16 runs; the package libiscsi-bin must be installed");
        let bytes: u64 = String::from_utf8_lossy(&out.stdout).trim().parse().ok()?;
        Some(bytes >> 20)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_made_granted_grown_cut_and_deleted() {
    let rig = rig().await;
    let (d, a, b) = (disk("web-0"), host("ha"), host("hb"));
    let done = async |op: StorageOp| {
        perform(&rig.tgt, &op).await.unwrap_or_else(|err| panic!("{op:?}: {err}"));
        perform(&rig.tgt, &op).await.unwrap_or_else(|err| panic!("again {op:?}: {err}"));
    };
    done(StorageOp::Create { disk: d.clone(), size_mib: 8 }).await;
    assert_eq!(rig.capacity("web-0", "ha", "ha-1", "0123456789ab").await, None, "nobody was let in");
    done(grant(&d, &a, "ha-1", "0123456789ab")).await;
    assert_eq!(rig.capacity("web-0", "ha", "ha-1", "0123456789ab").await, Some(8));
    assert_eq!(rig.capacity("web-0", "ha", "ha-1", "wrong-secret").await, None, "the secret is asked for");
    done(grant_from([192, 0, 2, 9].into(), &d, &b, "hb-0", "ba9876543210")).await;
    done(StorageOp::Cut { disk: d.clone(), host: a.clone() }).await;
    assert_eq!(rig.capacity("web-0", "hb", "hb-0", "ba9876543210").await, None, "the address is looked at");
    done(grant(&d, &a, "ha-1", "0123456789ab")).await;
    done(grant(&d, &b, "hb-1", "ba9876543210")).await;
    done(StorageOp::Cut { disk: d.clone(), host: a.clone() }).await;
    assert_eq!(rig.capacity("web-0", "ha", "ha-1", "0123456789ab").await, None, "it was cut");
    assert_eq!(rig.capacity("web-0", "hb", "hb-1", "ba9876543210").await, Some(8), "the other stays");
    done(StorageOp::Grow { disk: d.clone(), size_mib: 16 }).await;
    assert_eq!(rig.capacity("web-0", "hb", "hb-1", "ba9876543210").await, Some(16), "grants outlast growing");
    let smaller = perform(&rig.tgt, &StorageOp::Grow { disk: d.clone(), size_mib: 4 }).await;
    assert!(matches!(smaller, Err(StorageError::Shrink { have_mib: 16, want_mib: 4, .. })), "{smaller:?}");
    done(StorageOp::Clone { disk: disk("web-1"), from: CloneSource::Disk(d.clone()), size_mib: 32 }).await;
    done(grant(&disk("web-1"), &b, "hb-2", "ba9876543210")).await;
    assert_eq!(rig.capacity("web-1", "hb", "hb-2", "ba9876543210").await, Some(32));
    done(StorageOp::Delete { disk: d.clone() }).await;
    assert!(!rig.tgt.files().path(&d).exists());
    assert_eq!(rig.capacity("web-0", "hb", "hb-1", "ba9876543210").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_a_session_under_load_and_it_does_not_come_back() {
    let rig = rig().await;
    let (d, a) = (disk("busy"), host("ha"));
    perform(&rig.tgt, &StorageOp::Create { disk: d.clone(), size_mib: 64 }).await.expect("made");
    perform(&rig.tgt, &grant(&d, &a, "ha-1", "0123456789ab")).await.expect("granted");
    let mut load = Command::new("iscsi-perf")
        .args(["-i", "iqn.2026-11.org.tsubame:ha", "-t", "60", &rig.url("busy", "ha-1", "0123456789ab")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("iscsi-perf runs; the package libiscsi-bin must be installed");
    while rig.tgt.sessions(&d).await.expect("tgtd answers").is_empty() {
        assert!(load.try_wait().expect("its state can be read").is_none(), "iscsi-perf ended before it was logged in");
        sleep(Duration::from_millis(10)).await;
    }
    perform(&rig.tgt, &StorageOp::Cut { disk: d.clone(), host: a }).await.expect("cut");
    assert_eq!(rig.tgt.sessions(&d).await.expect("tgtd answers"), []);
    // libiscsi tries to reconnect for as long as it lives: it must find no way in.
    for _ in 0..20 {
        sleep(Duration::from_millis(20)).await;
        assert_eq!(rig.tgt.sessions(&d).await.expect("tgtd answers"), []);
    }
    load.kill().ok();
    load.wait().ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tgtd_that_has_ended_is_started_anew_and_grants_come_back() {
    let rig = rig().await;
    let (d, a) = (disk("kept"), host("ha"));
    perform(&rig.tgt, &StorageOp::Create { disk: d.clone(), size_mib: 8 }).await.expect("made");
    perform(&rig.tgt, &grant(&d, &a, "ha-1", "0123456789ab")).await.expect("granted");
    let line = format!("^tgtd -f -C {} ", rig.tgt.config.control_port);
    let ended = Command::new("pkill").args(["-KILL", "-f", &line]).status().expect("pkill runs; its package is procps");
    assert!(ended.success(), "no process is {line}");
    // Killed is not ended: until then its socket takes connections, and drops them.
    while !rig.tgt.targets().await.is_err_and(|err| err.has_ended()) {
        sleep(Duration::from_millis(10)).await;
    }
    // A disk that nobody is let in to needs no server.
    let new = StorageOp::Clone { disk: disk("new"), from: CloneSource::Disk(d.clone()), size_mib: 8 };
    perform(&rig.tgt, &new).await.expect("made while tgtd is away");
    rig.tgt.started_anew().await;
    assert_eq!(rig.capacity("kept", "ha", "ha-1", "0123456789ab").await, None, "the new one knows no disk");
    let op = StorageOp::Attach { disk: d.clone(), size_mib: 8 };
    perform(&rig.tgt, &op).await.expect("served as before");
    perform(&rig.tgt, &op).await.expect("and again");
    assert_eq!(rig.capacity("kept", "ha", "ha-1", "0123456789ab").await, Some(8));
    rig.tgt.stop().await.expect("stopped");
    assert!(TcpListener::bind(rig.tgt.config.portal).is_ok(), "its portal is free when it has stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tgtd_that_comes_up_after_it_was_given_up_is_given_its_disks() {
    let rig = rig().await;
    rig.tgt.stop().await.expect("stopped");
    // As long as another has the portal, none can be started.
    let _taken = TcpListener::bind(rig.tgt.config.portal).expect("its portal is free");
    let tgt = rig.tgt.clone();
    let mut anew = tokio::spawn(async move { tgt.started_anew().await });
    let tried = tokio::time::timeout(LOOK_EVERY * 2, &mut anew).await;
    assert!(tried.is_err(), "none was started: {tried:?}");
    let elsewhere = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port that is free again");
    let late = Tgt { config: TgtConfig { portal: elsewhere, ..rig.tgt.config.clone() }, mgmt: rig.tgt.mgmt.clone() };
    late.spawn().await.expect("it comes up, on the same control port");
    let seen = tokio::time::timeout(Duration::from_secs(60), anew).await;
    seen.expect("it is told of").expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tgtd_that_is_anothers_is_not_taken_up() {
    let rig = rig().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port that is free again");
    let taken = Tgt::start(TgtConfig { portal: elsewhere, ..rig.tgt.config.clone() }).await;
    assert!(matches!(&taken, Err(StorageError::Start { what, .. }) if what.contains("tgt_control_port")), "{taken:?}");
}

#[test]
fn it_keeps_the_contract_of_storages() {
    let state = tempfile::tempdir().expect("a directory for the test");
    let portal = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    // The Makefile hands down SEED even where nobody set it, as an empty word.
    let seed = std::env::var("SEED").ok().filter(|seed| !seed.is_empty());
    let seed = seed.map_or(1, |seed| seed.parse().expect("SEED is a number"));
    let trial = Trial::new(StorageConfig::Tgt(config(state.path(), portal)), seed);
    let mut trial = trial.expect("tgtd starts; the package tgt must be installed and the test run as root");
    let broken = trial.run(&CLAUSES) + trial.run(&CLAUSES_OF_A_SAN);
    trial.end().expect("tgtd ends");
    assert_eq!(broken, 0, "clauses are broken; they are named above");
}
