//! Clients that take their time, on a plain port and on one with TLS: cut off, with nobody waiting for them.

use crate::server::{HANG, Server, directory, start};
use bootserver::boot_http::{BootHttp, Pacer, Shelf};
use bootserver::connections::{self, Limits};
use bootserver::tls;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use warp::{Filter, Reply};

/// So that a test need not wait for long; the time itself is not under test. It binds those who are to be served as well: on a machine
/// that stalls they are cut off like others, and come again.
const LIMITS: Limits = Limits {
    connections_max: 16,
    connections_per_address_max: 8,
    head_timeout: Duration::from_millis(300),
    streams_max: 1,
};

/// Nothing at all; a head without an end; one that grows for ever.
const SLOW: [(&[u8], &[u8]); 3] = [(b"", b""), (b"GET / HTT", b""), (b"GET / HTTP/1.1\r\n", b"x-more: y\r\n")];

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    (listener, at)
}

async fn plain(server: &Server, stop: watch::Receiver<bool>) -> SocketAddr {
    let (listener, at) = listen().await;
    let service = Arc::new(BootHttp {
        shelf: tokio::sync::watch::channel(Arc::<Shelf>::default()).1,
        pacer: Pacer::new(0),
        subnet: server.subnet.clone(),
        ca_pem: "served".to_owned(),
        limits: LIMITS,
        rack: server.rack.clone(),
    });
    let hold = move |stream, from| service.clone().hold(stream, from);
    tokio::spawn(connections::serve("test", listener, LIMITS, hold, stop));
    at
}

async fn with_tls(server: &Server, stop: watch::Receiver<bool>) -> SocketAddr {
    let (listener, at) = listen().await;
    let own = server.ca.server(&server.state(), &[], &[IpAddr::from([127, 0, 0, 1])], OffsetDateTime::now_utc());
    let acceptor = tls::operators(own.expect("a certificate")).expect("TLS");
    let filter = warp::any().map(|| "served".into_response());
    tokio::spawn(connections::serve(
        "test",
        listener,
        LIMITS,
        connections::tls(acceptor, LIMITS, warp::service(filter)),
        stop,
    ));
    at
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<String> {
    let request = b"GET /ca.pem HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Tries until something was in time. What fails sooner than its time is over fails for another reason.
async fn in_time<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let tries = async {
        loop {
            let begun = Instant::now();
            if let Some(done) = attempt().await {
                return done;
            }
            assert!(begun.elapsed() >= LIMITS.head_timeout, "{what}");
        }
    };
    tokio::time::timeout(HANG, tries).await.unwrap_or_else(|_| panic!("not within {HANG:?}: {what}"))
}

/// Ends when the server closes a connection on which `first` is written once, then `more` again and again.
async fn is_cut_off(stream: impl AsyncRead + AsyncWrite + Unpin, first: &'static [u8], more: &'static [u8]) {
    let dawdle = async {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut nothing = Vec::new();
        let send = async {
            if write.write_all(first).await.is_err() {
                return;
            }
            while write.write_all(more).await.is_ok() && write.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Closed in order or reset, either is the end.
        tokio::select! {
            _ = read.read_to_end(&mut nothing) => {}
            () = send => {}
        }
    };
    tokio::time::timeout(HANG, dawdle).await.expect("a client that dawdles is cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dawdles_is_cut_off_and_keeps_nobody_waiting() {
    let server = start(directory()).await;
    let (_stop, stopped) = watch::channel(false);
    let (plain, with_tls) = (plain(&server, stopped.clone()).await, with_tls(&server, stopped).await);
    let connector = TlsConnector::from(Arc::new(server.trusting().with_no_client_auth()));
    let name = ServerName::try_from("127.0.0.1").expect("an address is a name");
    let connect = async |at| TcpStream::connect(at).await.expect("a connection");
    let secure = async || connector.connect(name.clone(), connect(with_tls).await).await.ok();

    let mut dawdlers = tokio::task::JoinSet::new();
    for (first, more) in SLOW {
        dawdlers.spawn(is_cut_off(connect(plain).await, first, more));
        dawdlers.spawn(is_cut_off(in_time("a session", &secure).await, first, more));
    }
    // A handshake that is never ended.
    for hello in [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01"] {
        dawdlers.spawn(is_cut_off(connect(with_tls).await, hello, b""));
    }
    let served = |answer: std::io::Result<String>| answer.ok().filter(|answer| answer.ends_with("served"));
    in_time("others are served meanwhile", async || served(ask(connect(plain).await).await)).await;
    in_time("others are served meanwhile", async || served(ask(secure().await?).await)).await;
    while let Some(ended) = dawdlers.join_next().await {
        ended.expect("it was cut off");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_a_limit() {
    let server = start(directory()).await;
    let (_stop, stopped) = watch::channel(false);
    let plain = plain(&server, stopped).await;
    let head = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(40 * 1024));
    let (answer, read) = in_time("it is ended for its length", async || {
        let mut stream = TcpStream::connect(plain).await.expect("a connection");
        let mut answer = Vec::new();
        // It may be reset before all is written or read.
        let _ = stream.write_all(head.as_bytes()).await;
        let read = stream.read_to_end(&mut answer).await;
        (read.is_err() || !answer.is_empty()).then_some((answer, read))
    })
    .await;
    assert!(read.is_err() || answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
    server.stop().await;
}
