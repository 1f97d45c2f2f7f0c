//! Backups as an operator has them, and who takes none.

use crate::agents::{a_report, join};
use crate::releases::Operator;
use crate::server::{HOST, Server, configure, directory, start, until};
use http::{Method, StatusCode};
use proto::agent::{JoinAnswer, Report};
use proto::api::Refusal;
use proto::view::BackupFile;
use proto::{HostId, Mac, Term};
use rcgen::KeyPair;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A configuration's directory with this schedule.
fn with(backup: &str) -> TempDir {
    let dir = directory();
    configure(&dir, &format!("backup: {backup}\n"));
    dir
}

/// Puts one there that was taken so long ago, for all that its name says.
fn taken_ago(directory: &Path, ago: Duration) {
    fs::create_dir_all(directory).expect("made");
    let taken = SystemTime::UNIX_EPOCH.elapsed().expect("a time of this age") - ago;
    fs::write(directory.join(format!("tsubame-{:013}.backup", taken.as_millis())), "").expect("written");
}

/// A host is let in and reports that it has heard a server of a higher term.
async fn supersede(server: &Server) {
    let mac: Mac = "52:54:00:aa:bb:01".parse().expect("a MAC");
    server.lease(mac).await;
    assert_eq!(server.script(HOST, mac).await.0, StatusCode::OK);
    let (nonce, key) = (server.argument(mac, "join").await, KeyPair::generate().expect("a key"));
    let stranger = server.tls(server.agents, None).await.expect("TLS without a certificate");
    let JoinAnswer::Accepted { certificate_pem, .. } = join(&stranger, &HostId::of(mac), &nonce, &key).await else {
        panic!("the host was not let in");
    };
    let agent = server.tls(server.agents, Some(&(certificate_pem, key))).await.expect("TLS with a certificate");
    let body = serde_json::to_vec(&Report { term: Term(9), ..a_report(nonce, 1) }).expect("JSON");
    // It may be held.
    tokio::spawn(async move { agent.ask(Method::POST, "/v1/report", &[], body).await.map(drop) });
    until(&server.rack, |view| view.ha.superseded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_place_was_taken_takes_none() {
    let dir = with("{ every_s: 10 }");
    let directory = dir.path().join("state/backups");
    // The next is due in four seconds.
    taken_ago(&directory, Duration::from_secs(6));
    let server = start(dir).await;
    supersede(&server).await;
    let operator = Operator::log_in(&server).await;
    // Behind any that was under way.
    let refused = operator.ask::<BackupFile>(Method::POST, "/v1/backups", "").await;
    let Err(Refusal::Unavailable { detail }) = refused else { panic!("it was not refused: {refused:?}") };
    assert!(detail.contains("another server rules this rack since term 9"), "{detail}");
    let before = bootserver::backup::list(&directory);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bootserver::backup::list(&directory), before, "one was due");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_is_told_at_the_start() {
    let dir = with("{ directory: elsewhere }");
    // Root writes where it may not; so the lock's place is taken. None is due for an hour.
    fs::create_dir_all(dir.path().join("elsewhere/backup.lock")).expect("made");
    taken_ago(&dir.path().join("elsewhere"), Duration::ZERO);
    let server = start(dir).await;
    until(&server.rack, |view| {
        let told = |text: &str| text.contains("a backup cannot be put into") && text.contains("`ReadWritePaths=");
        view.backups.failure.as_deref().is_some_and(told) && view.events.iter().any(|event| told(&event.text))
    })
    .await;
    server.stop().await;
}
