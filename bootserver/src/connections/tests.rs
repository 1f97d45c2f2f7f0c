use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warp::{Filter, Reply};

/// So that a test need not wait for long; the time itself is not under test.
const LIMITS: Limits = Limits {
    connections_max: 8,
    connections_per_address_max: 4,
    head_timeout: Duration::from_millis(300),
    streams_max: 1,
};
/// Longer than any wait here: it only ends a hang.
const HANG: Duration = Duration::from_secs(30);

async fn server() -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let (stop, stopped) = watch::channel(false);
    let filter = warp::any().map(|| "served".into_response());
    tokio::spawn(serve("test", listener, None, LIMITS, warp::service(filter), stopped));
    (at, stop)
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// Whether the server closes a connection on which `more` is written again and again.
async fn is_cut_off(mut stream: TcpStream, more: &'static [u8]) {
    let dawdle = async {
        let (mut read, mut write) = stream.split();
        let mut nothing = Vec::new();
        let send = async {
            while write.write_all(more).await.is_ok() {
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

#[tokio::test]
async fn who_dawdles_is_cut_off_and_keeps_nobody_waiting() {
    let (at, _stop) = server().await;
    let connect = async || TcpStream::connect(at).await.expect("a connection");
    let mut dawdlers = tokio::task::JoinSet::new();
    // Nothing at all; a head without an end; one that grows for ever.
    for (first, more) in [("", "".as_bytes()), ("GET / HTT", b""), ("GET / HTTP/1.1\r\n", b"x-more: y\r\n")] {
        let mut stream = connect().await;
        stream.write_all(first.as_bytes()).await.expect("sent");
        dawdlers.spawn(is_cut_off(stream, more));
    }
    assert!(ask(&mut connect().await).await.ends_with("served"), "others are served meanwhile");
    while let Some(ended) = dawdlers.join_next().await {
        ended.expect("it was cut off");
    }
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let (at, _stop) = server().await;
    let mut stream = TcpStream::connect(at).await.expect("a connection");
    let head = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(40 * 1024));
    let mut answer = Vec::new();
    // It may be reset before all is written or read.
    let _ = stream.write_all(head.as_bytes()).await;
    let read = tokio::time::timeout(HANG, stream.read_to_end(&mut answer)).await.expect("it is ended");
    assert!(read.is_err() || String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 431"), "{answer:?}");
}
