use super::*;
use expect_test::expect;
use proto::{MoveId, OrderId};
use rack::record::{Counters, Key, Kind, Record};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

pub(crate) fn counters(expect: u64) -> Change {
    let to = Record::Counters(Counters { orders: OrderId(expect + 1), moves: MoveId(7), ..Counters::default() });
    Change { key: Key { kind: Kind::Counters, name: "counters".to_owned() }, expect, to: Some(to) }
}

pub(crate) fn lease(last: u8, expect: u64) -> Change {
    let mac = proto::Mac([2, 0, 0, 0, 0, last]);
    let to = Record::Lease(rack::record::LeaseRecord { mac, address: [10, 77, 0, last].into(), expires_ms: expect });
    Change { key: Key { kind: Kind::Lease, name: mac.to_string() }, expect, to: Some(to) }
}

fn versions(state: &Path) -> Vec<(String, u64)> {
    let (_, records) = Store::open(state).expect("the store opens");
    records.into_iter().map(|r| (r.key.name, r.version)).collect()
}

#[tokio::test]
async fn all_or_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, records) = Store::open(dir.path()).expect("a new store");
    assert!(records.is_empty());
    store.commit(vec![counters(0), lease(1, 0), counters(1)]).await.expect("a commit");
    let gone = Change { to: None, ..lease(1, 1) };
    store.commit(vec![gone, lease(2, 0)]).await.expect("a commit");
    let err = store.commit(vec![lease(3, 0), counters(1)]).await.expect_err("a stale version").to_string();
    expect!["record counters/counters is not at version 1 in the store DIR/store.sqlite; nothing was written"]
        .assert_eq(&err.replace(&dir.path().display().to_string(), "DIR"));
    assert!(matches!(store.commit(vec![lease(3, 0)]).await, Err(StoreError::Ended)));
    assert_eq!(versions(dir.path()), [("02:00:00:00:00:02".to_owned(), 1), ("counters".to_owned(), 2)]);
}

#[tokio::test]
async fn damage_is_seen() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(dir.path()).expect("a new store");
    store.commit((0..200).map(|n| lease(n, 0)).collect()).await.expect("a commit");
    drop(store);
    let file = dir.path().join(FILE);
    // Reading it once through another connection and closing that brings the log into the file.
    drop(Store::open(dir.path()).expect("it opens"));
    let begun = std::time::Instant::now();
    while dir.path().join("store.sqlite-wal").exists() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "the log is still there");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let whole = std::fs::read(&file).expect("the store is read");
    let err = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("written");
        let err = Store::open(dir.path()).map(|_| ()).expect_err("damage is refused").to_string();
        assert!(err.contains("is damaged") && err.contains("bootserver restore BACKUP"), "{err}");
        err
    };
    let at = whole.windows(10).rposition(|w| w == b"10.77.0.77").expect("a lease is in the file");
    let mut bytes = whole.clone();
    bytes[at + 9] = b'8';
    assert!(err(&bytes).contains("checksum of record lease/02:00:00:00:00:4d"));
    let mut bytes = whole.clone();
    bytes[..16].fill(b'x');
    err(&bytes);
    let mut bytes = whole.clone();
    bytes.truncate(whole.len() / 2);
    err(&bytes);
    std::fs::write(&file, &whole).expect("written");
    assert_eq!(versions(dir.path()).len(), 200);
}

/// Run by the test below as a process of its own, which is killed.
#[test]
#[ignore = "the other test's child"]
fn child_writes_until_killed() {
    let state = std::env::var("STORE_TEST_STATE").expect("the parent says where");
    let (store, records) = Store::open(Path::new(&state)).expect("the store opens");
    let mut version = records.first().map_or(0, |r| r.version);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    loop {
        runtime.block_on(store.commit(vec![counters(version)])).expect("a commit");
        version += 1;
        println!("\nacknowledged {version}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0;
    for round in 0..20_u64 {
        let mut child = Command::new(std::env::current_exe().expect("this test's own path"))
            .args(["--ignored", "--exact", "store::tests::child_writes_until_killed", "--nocapture"])
            .env("STORE_TEST_STATE", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut seen = 0;
        // Killed after a different number of commits each round, while it goes on writing.
        for line in lines.by_ref() {
            let line = line.expect("text");
            if let Some(version) = line.strip_prefix("acknowledged ") {
                acknowledged = version.parse().expect("a number");
                seen += 1;
                if seen > round * 7 {
                    break;
                }
            }
        }
        child.kill().expect("it is killed");
        for line in lines.map_while(Result::ok) {
            if let Some(version) = line.strip_prefix("acknowledged ").and_then(|v| v.parse().ok()) {
                acknowledged = version;
            }
        }
        child.wait().expect("it has ended");
        let kept = versions(dir.path()).first().map_or(0, |(_, version)| *version);
        assert!(kept >= acknowledged, "round {round}: {acknowledged} was acknowledged, {kept} is kept");
        assert!(kept <= acknowledged + 2, "round {round}: {kept} is kept, {acknowledged} was the last heard of");
    }
}
