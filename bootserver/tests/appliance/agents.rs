//! A host's way in: lease, script, join, report.

use crate::server::{Client, HOST, Server, configure, directory, start, until};
use bytes::Bytes;
use http::{Method, StatusCode};
use proto::agent::{HostStats, JoinAnswer, JoinRefusal, JoinRequest, Report, ReportAnswer};
use proto::host::{Cpu, Firmware, Inventory};
use proto::view::HostState;
use proto::{HostId, Mac};
use rcgen::{CertificateParams, KeyPair};
use std::net::Ipv4Addr;
use std::time::Duration;
use time::OffsetDateTime;

pub(crate) async fn join(client: &Client, host: &HostId, nonce: &str, key: &KeyPair) -> JoinAnswer {
    let csr = CertificateParams::default().serialize_request(key).expect("a request");
    let request = JoinRequest {
        host: host.clone(),
        nonce: nonce.to_owned(),
        csr_pem: csr.pem().expect("PEM"),
        inventory: inventory(),
    };
    let body = serde_json::to_vec(&request).expect("JSON");
    let (status, _, body) = client.ask(Method::POST, "/v1/join", &[], body).await.expect("an answer");
    assert_eq!(status, StatusCode::OK, "{body:?}");
    serde_json::from_slice(&body).expect("a join's answer")
}

pub(crate) fn a_report(boot: String, seq: u64) -> Report {
    Report {
        lease: Default::default(),
        term: Default::default(),
        survey: None,
        boot,
        seq,
        uptime_ms: 1000 * seq,
        stats: HostStats::default(),
        domains: Vec::new(),
        outcomes: Vec::new(),
        underway: Vec::new(),
    }
}

async fn report(client: Client, boot: String, seq: u64) -> (StatusCode, Bytes) {
    let body = serde_json::to_vec(&a_report(boot, seq)).expect("JSON");
    let (status, _, body) = client.ask(Method::POST, "/v1/report", &[], body).await.expect("an answer");
    (status, body)
}

fn inventory() -> Inventory {
    Inventory {
        uuid: String::new(),
        serial: String::new(),
        product: "loopback".to_owned(),
        firmware: Firmware::Bios,
        cpu: Cpu { vendor: "x".to_owned(), model: "x".to_owned(), threads: 2, features: [].into() },
        memory_mib: 2048,
        dom0_mib: 512,
        nics: Vec::new(),
        xen: "4.17.7".to_owned(),
        agent: "test".to_owned(),
        image: String::new(),
        release: String::new(),
        hardware: proto::host::Hardware::default(),
    }
}

async fn forged_is_refused(server: &Server) {
    // It is so also outside the time that it claims to be valid in.
    for (from, to) in [(1975, 4096), (1975, 1976), (4095, 4096)] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        let pem = params.self_signed(&key).expect("a certificate").pem();
        // In TLS 1.3 a client may learn of it only with its first answer.
        if let Ok(client) = server.tls(server.agents, Some(&(pem, key))).await {
            assert!(client.ask(Method::POST, "/v1/report", &[], "").await.is_err(), "a forged certificate was taken");
        }
    }
}

/// Certificates of ours, issued before the server's clock was set: each is answered, with the date that sets the host's clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_certificate_is_of_another_time_is_answered() {
    let server = start(directory()).await;
    let host = HostId::of("52:54:00:aa:bb:01".parse().expect("a MAC"));
    let now = OffsetDateTime::now_utc();
    let day = time::Duration::days(1);
    for (issued, expected) in [
        (now - 2 * day, StatusCode::UNAUTHORIZED),
        // It is taken; the rack does not know the host.
        (now, StatusCode::FORBIDDEN),
        (now + 2 * day, StatusCode::FORBIDDEN),
    ] {
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM");
        let pem = server.ca.issue(&host, &csr, HOST, issued).expect("a certificate");
        let client = server.tls(server.agents, Some(&(pem, key))).await.expect("TLS");
        let body = serde_json::to_vec(&a_report("nonce".to_owned(), 1)).expect("JSON");
        let (status, headers, body) = client.ask(Method::POST, "/v1/report", &[], body).await.expect("an answer");
        assert_eq!(status, expected, "issued {issued}: {body:?}");
        assert!(headers.contains_key("date"), "{headers:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_boots_joins_and_reports() {
    let dir = directory();
    // What is seen of a report that is held is seen before its time is over, also where the machine stalls.
    configure(&dir, "timing: { report_ms: 60000, lost_ms: 120000, fence_ms: 300000 }\n");
    let server = start(dir).await;
    let mac: Mac = "52:54:00:aa:bb:01".parse().expect("a MAC");
    let host = HostId::of(mac);
    let waits = |(status, script): (StatusCode, String)| {
        status == StatusCode::OK && script.contains("Trying again") && !script.contains("tsubame.")
    };
    assert!(waits(server.script(HOST, mac).await), "an error would send iPXE to the disk");
    server.lease(mac).await;
    let elsewhere = Ipv4Addr::new(127, 0, 0, 61);
    assert!(waits(server.script(elsewhere, mac).await), "and no nonce goes to another address");
    let nonce = server.argument(mac, "join").await;
    assert_eq!(server.argument(mac, "join").await, nonce, "a repeat within a boot");
    assert_eq!(server.argument(mac, "ca").await, server.ca.digest());

    // Without a certificate nothing but joining is to be had.
    let stranger = server.tls(server.agents, None).await.expect("TLS without a certificate");
    assert_eq!(report(stranger.clone(), nonce.clone(), 1).await.0, StatusCode::UNAUTHORIZED);
    for (method, path, body, expected) in [
        (Method::GET, "/v1/rack", Vec::new(), StatusCode::NOT_FOUND),
        (Method::POST, "/v1/renew", b"{}".to_vec(), StatusCode::UNAUTHORIZED),
        (Method::POST, "/v1/join", vec![b' '; 70_000], StatusCode::PAYLOAD_TOO_LARGE),
        (Method::POST, "/v1/join", b"{}".to_vec(), StatusCode::BAD_REQUEST),
    ] {
        let (status, _, _) = stranger.ask(method, path, &[], body).await.expect("an answer");
        assert_eq!(status, expected, "{path}");
    }
    forged_is_refused(&server).await;

    let key = KeyPair::generate().expect("a key");
    let certificate_pem = match join(&stranger, &host, &nonce, &key).await {
        JoinAnswer::Accepted { certificate_pem, renew_ms } if renew_ms > 0 => certificate_pem,
        other => panic!("the host was not let in: {other:?}"),
    };
    let copy = KeyPair::generate().expect("a key");
    let refused = JoinAnswer::Refused { refusal: JoinRefusal::NonceUsed };
    assert_eq!(join(&stranger, &host, &nonce, &copy).await, refused, "a copied join");

    // A report is held while there is nothing to say, and answered when a newer one comes.
    let identity = (certificate_pem, key);
    let agent = server.tls(server.agents, Some(&identity)).await.expect("TLS with a certificate");
    let held = tokio::spawn(report(agent.clone(), nonce.clone(), 1));
    until(&server.rack, |view| view.hosts.iter().any(|h| h.state == HostState::Active)).await;
    assert!(!held.is_finished());
    let newer = tokio::spawn(report(agent.clone(), nonce.clone(), 2));
    // Far sooner than it would be answered without news.
    let (status, body) = tokio::time::timeout(Duration::from_secs(30), held).await.expect("in time").expect("no panic");
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let answer: ReportAnswer = serde_json::from_slice(&body).expect("an answer");
    assert!(answer.orders.is_empty() && answer.report_ms == 60_000);
    // The connection goes with a report held on it; the server goes on.
    newer.abort();
    agent.vanish();

    // A new certificate is for the same key only.
    let agent = server.tls(server.agents, Some(&identity)).await.expect("TLS with a certificate");
    let renew = async |key: &KeyPair| {
        let csr = CertificateParams::default().serialize_request(key).expect("a request").pem().expect("PEM");
        let body = serde_json::to_vec(&proto::agent::Renew { csr_pem: csr }).expect("JSON");
        let (_, _, body) = agent.ask(Method::POST, "/v1/renew", &[], body).await.expect("an answer");
        serde_json::from_slice::<JoinAnswer>(&body).expect("a join's answer")
    };
    assert!(matches!(renew(&identity.1).await, JoinAnswer::Accepted { .. }));
    assert_eq!(renew(&copy).await, JoinAnswer::Refused { refusal: JoinRefusal::BadCsr });

    // What was acknowledged outlives the server, and the host goes on as the same boot; its report is now held for a short time.
    let dir = server.stop().await;
    configure(&dir, "");
    let server = start(dir).await;
    let agent = server.tls(server.agents, Some(&identity)).await.expect("the same CA and certificate");
    let (status, body) = report(agent, nonce, 3).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    server.stop().await;
}
