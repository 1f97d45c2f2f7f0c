//! Files and connections of the boot service.

use crate::server::{HANG, Server, connect, directory, start};
use bootserver::boot_http::LIMITS;
use http::{HeaderMap, Method, StatusCode};
use std::net::Ipv4Addr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// What the harness puts into the image.
const IMAGE: &[u8] = b"dom0-1/dom0.squashfs";

async fn check(
    server: &Server,
    method: Method,
    headers: &[(&str, &str)],
    status: StatusCode,
    body: &[u8],
) -> HeaderMap {
    let (got, answered, content) = server.fetch(HERE, method.clone(), &server.image, headers).await;
    assert_eq!((got, &content[..]), (status, body), "{method} {headers:?}");
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn files() {
    let server = start(directory()).await;
    let header = |headers: &HeaderMap, name: &str| headers.get(name).map(|v| v.to_str().expect("text").to_owned());
    let whole = check(&server, Method::GET, &[], StatusCode::OK, IMAGE).await;
    assert_eq!(header(&whole, "content-length").as_deref(), Some("20"));
    assert_eq!(header(&whole, "accept-ranges").as_deref(), Some("bytes"));
    let etag = header(&whole, "etag").expect("an ETag");
    let head = check(&server, Method::HEAD, &[], StatusCode::OK, b"").await;
    assert_eq!(header(&head, "content-length").as_deref(), Some("20"));
    let part = check(&server, Method::GET, &[("range", "bytes=7-10")], StatusCode::PARTIAL_CONTENT, b"dom0").await;
    assert_eq!(header(&part, "content-range").as_deref(), Some("bytes 7-10/20"));
    let none = check(&server, Method::GET, &[("range", "bytes=20-")], StatusCode::RANGE_NOT_SATISFIABLE, b"").await;
    assert_eq!(header(&none, "content-range").as_deref(), Some("bytes */20"));
    check(&server, Method::GET, &[("if-none-match", &etag)], StatusCode::NOT_MODIFIED, b"").await;
    let other = [("range", "bytes=7-10"), ("if-range", "\"other\"")];
    check(&server, Method::GET, &other, StatusCode::OK, IMAGE).await;
    let ours = [("range", "bytes=7-10"), ("if-range", etag.as_str())];
    check(&server, Method::GET, &ours, StatusCode::PARTIAL_CONTENT, b"dom0").await;
    for (method, path, status) in [
        (Method::POST, server.image.as_str(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/b/../state/ca.pem", StatusCode::NOT_FOUND),
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::GET, "/boot/nonsense.ipxe", StatusCode::NOT_FOUND),
        (Method::HEAD, "/boot/52-54-00-aa-bb-01.ipxe", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        assert_eq!(server.fetch(HERE, method, path, &[]).await.0, status, "{path}");
    }
    let (status, _, pem) = server.fetch(HERE, Method::GET, "/ca.pem", &[]).await;
    assert_eq!((status, &pem[..]), (StatusCode::OK, server.ca.pem().as_bytes()));
    // A file that changes under the server is not served as what it was.
    let digest = etag.trim_matches('"');
    std::fs::write(server.state().join("releases/files").join(digest), "another length").expect("written");
    assert_eq!(server.fetch(HERE, Method::GET, &server.image, &[]).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_few_connections() {
    let server = start(directory()).await;
    let (mut held, begun) = (Vec::new(), Instant::now());
    for _ in 0..LIMITS.connections_per_address_max {
        held.push(connect(HERE, server.boot).await);
    }
    let turned_away = async |from| {
        let mut stream = connect(from, server.boot).await;
        // One that is turned away is closed with nothing said, perhaps before it can ask.
        let _ = stream.write_all(b"GET /ca.pem HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer.is_empty()
    };
    let full = async {
        while !turned_away(HERE).await {
            // On a machine that stalls those that idle may be cut off already; others take their places.
            assert!(begun.elapsed() >= LIMITS.head_timeout, "one too many");
            held.push(connect(HERE, server.boot).await);
        }
    };
    tokio::time::timeout(HANG, full).await.expect("one is turned away");
    assert!(!turned_away(Ipv4Addr::new(127, 0, 0, 2)).await, "others are not");
    held.clear();
    let room_again = async {
        while turned_away(HERE).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, room_again).await.expect("closed connections do not count");
    server.stop().await;
}
