//! Redfish, by HTTPS.

use super::*;
use rack::power::Trust;
use std::sync::Arc;
use tests::bmc::{self, PASSWORD, USER, self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn bmc(address: SocketAddr, password: &str, trust: Trust, system: Option<&str>) -> Bmc {
    Bmc::Redfish {
        address: address.to_string(),
        user: USER.to_owned(),
        password: secret(password),
        trust,
        system: system.map(str::to_owned),
    }
}

fn start(machine: &Machine, at: SocketAddr, systems: &[&str], certificate: &str) -> bmc::Bmc {
    bmc::Bmc::redfish(machine.dir(), at, &machine.control, systems, certificate, None, &machine.guard)
        .expect("it starts")
}

#[tokio::test]
async fn a_machine_is_switched_and_booted_from_the_network() {
    let machine = Machine::new();
    let (certificate, digest) = self_signed().expect("a certificate");
    let sim = start(&machine, free_tcp(), &["m1"], &certificate);
    let bmc = bmc(sim.address, PASSWORD, Trust::First, None);
    let answer = check_switching(&machine, &bmc).await;
    assert_eq!(answer.certificate, Some(digest));
    check_stuck(&machine, &bmc).await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let machine = Machine::new();
    let sim = start(&machine, free_tcp(), &["m1"], &self_signed().expect("a certificate").0);
    let wrong = perform(&bmc(sim.address, "wr0ng", Trust::Any, None), on(None), LIMITS).await;
    check_failure(wrong, PowerWhy::Login, &[&sim.address.to_string(), "redfish", "does not let \"admin\" in"]);
    assert_eq!(machine.read("told"), "");
}

#[tokio::test]
async fn one_of_several_systems_must_be_named() {
    let machine = Machine::new();
    let sim = start(&machine, free_tcp(), &["m1", "m2"], &self_signed().expect("a certificate").0);
    let ask = |system| {
        let bmc = bmc(sim.address, PASSWORD, Trust::Any, system);
        async move { perform(&bmc, PowerOp::State, LIMITS).await }
    };
    check_failure(ask(None).await, PowerWhy::Unable, &["2 systems", "m1", "m2"]);
    check_failure(ask(Some("m3")).await, PowerWhy::Unable, &["no system \"m3\"", "m1", "m2"]);
    assert_eq!(ask(Some("m2")).await.map(|answer| answer.state), Ok(PowerState::Off));
}

/// Another certificate at the same address: somebody poses as the controller, or it was changed.
#[tokio::test]
async fn a_changed_certificate_is_told_nothing() {
    let machine = Machine::new();
    let ((first, pinned), (second, other)) = (self_signed().expect("one"), self_signed().expect("another"));
    let at = free_tcp();
    let state = |trust| {
        let bmc = bmc(at, PASSWORD, trust, None);
        async move { perform(&bmc, PowerOp::State, LIMITS).await }
    };
    let sim = start(&machine, at, &["m1"], &first);
    assert!(state(Trust::Pinned(pinned.clone())).await.is_ok());
    drop(sim);
    let _sim = start(&machine, at, &["m1"], &second);
    let before = machine.read("redfish.log");
    let refused = state(Trust::Pinned(pinned.clone())).await;
    check_failure(refused, PowerWhy::Certificate, &[&at.to_string(), &pinned, &other, "told nothing"]);
    let asked = |log: &str| log.matches("GET /redfish").count();
    assert_eq!(asked(&machine.read("redfish.log")), asked(&before));
    assert_eq!(state(Trust::Any).await.expect("any is any").certificate, Some(other));
}

#[tokio::test]
async fn one_that_is_not_there_hangs_or_speaks_no_tls() {
    let nobody = free_tcp();
    let answer = perform(&bmc(nobody, PASSWORD, Trust::First, None), PowerOp::Off, LIMITS).await;
    check_failure(answer, PowerWhy::Unreached, &[&nobody.to_string(), "cannot be reached on TCP port"]);
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = hung.local_addr().expect("an address");
    let limits = Limits { request: Duration::from_millis(300), ..LIMITS };
    let answer = perform(&bmc(at, PASSWORD, Trust::First, None), PowerOp::Off, limits).await;
    check_failure(answer, PowerWhy::Unreached, &[&at.to_string(), "no answer within"]);
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = plain.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
    });
    let answer = perform(&bmc(at, PASSWORD, Trust::First, None), PowerOp::Off, LIMITS).await;
    check_failure(answer, PowerWhy::Unreached, &[&at.to_string(), "TLS on port"]);
}

/// A controller that says anything: by TLS, so that the client comes as far as reading it.
async fn liar(answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(vec!["bmc.example".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a key and its certificate");
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        for count in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(&answer(count)).await;
            let _ = stream.shutdown().await;
        }
    });
    at
}

fn http(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn answers_of_any_kind_are_errors_and_bounded() {
    let ask = |at| async move { perform(&bmc(at, PASSWORD, Trust::First, None), PowerOp::Off, LIMITS).await };
    let endless = liar(|_| {
        let mut said = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        said.resize(4 << 20, b' ');
        said
    });
    check_failure(ask(endless.await).await, PowerWhy::Unreached, &["the connection broke", "limit"]);
    let no_json = liar(|_| http("<html>s3cret</html>"));
    check_failure(ask(no_json.await).await, PowerWhy::Unreached, &["is not what Redfish asks for"]);
    let elsewhere = liar(|_| http(r#"{"Members":[{"@odata.id":"https://elsewhere.example/redfish/v1/Systems/1"}]}"#));
    check_failure(ask(elsewhere.await).await, PowerWhy::Unable, &["no path of its own"]);
    let redirect =
        liar(|_| b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n".to_vec());
    check_failure(ask(redirect.await).await, PowerWhy::Unable, &["302"]);
    let echo = liar(|_| {
        let body = r#"{"error":{"message":"no admin:s3cret here\n\u0007x"}}"#;
        format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    check_failure(ask(echo.await).await, PowerWhy::Login, &["no admin:… here x"]);
    let powerless = liar(|count| match count {
        0 => http(r#"{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}"#),
        _ => http(r#"{"PowerState":"On"}"#),
    });
    check_failure(ask(powerless.await).await, PowerWhy::Unable, &["no action to reset"]);
}
