//! An operator's way in, what needs a session, and what may not be had from another site's page.

use crate::server::{Client, HANG, HOST, directory, request, start};
use bootserver::operators::new_setup_code;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use proto::api::{About, Accepted, ApiError, Refusal, Session};
use proto::event::LogEvent;
use proto::view::RackView;
use serde::de::DeserializeOwned;

async fn ask<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<T, (StatusCode, Refusal)> {
    let (status, _, body) = client.ask(method, path, headers, body.to_owned()).await.expect("an answer");
    if status == StatusCode::OK {
        return Ok(serde_json::from_slice(&body).expect("what was expected"));
    }
    let error: ApiError = serde_json::from_slice(&body).expect("every refusal is an ApiError");
    assert!(!error.message.is_empty());
    Err((status, error.refusal))
}

fn cookie(headers: &HeaderMap) -> String {
    let set = headers["set-cookie"].to_str().expect("text");
    assert!(set.contains("; HttpOnly; Secure; SameSite=Strict"), "{set}");
    set.split(';').next().expect("a pair").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_set_up_to_logout() {
    let server = start(directory()).await;
    let client = server.tls(server.operators, None).await.expect("TLS");
    let about: About = ask(&client, Method::GET, "/v1/about", &[], "").await.expect("open to all");
    assert!(about.needs_setup);
    for (method, path) in [(Method::GET, "/v1/rack"), (Method::GET, "/v1/stream"), (Method::POST, "/v1/vms")] {
        let answer = ask::<RackView>(&client, method, path, &[], "").await;
        assert_eq!(answer, Err((StatusCode::UNAUTHORIZED, Refusal::NotLoggedIn)), "{path}");
    }
    let code = new_setup_code(&server.state(), false).expect("written").expect("a code");
    let body = format!("{{\"code\":\"{code}\",\"password\":\"a good password\"}}");
    let (status, headers, answer) = client.ask(Method::POST, "/v1/setup", &[], body).await.expect("an answer");
    assert_eq!(status, StatusCode::OK, "{answer:?}");
    let session: Session = serde_json::from_slice(&answer).expect("a session");
    let (cookie, bearer) = (cookie(&headers), format!("Bearer {}", session.token));

    // The cookie alone reads; to change anything another header is needed, which no other site's page can send.
    assert!(ask::<RackView>(&client, Method::GET, "/v1/rack", &[("cookie", &cookie)], "").await.is_ok());
    let machine = "{\"mac\":\"52:54:00:aa:bb:01\"}";
    let forged = ask::<Accepted>(&client, Method::POST, "/v1/hosts", &[("cookie", &cookie)], machine).await;
    assert_eq!(forged, Err((StatusCode::UNAUTHORIZED, Refusal::NotLoggedIn)));
    let ours = [("cookie", cookie.as_str()), ("x-tsubame", "1")];
    assert_eq!(ask(&client, Method::POST, "/v1/hosts", &ours, machine).await, Ok(Accepted::Done));

    let token = [("authorization", bearer.as_str())];
    let view: RackView = ask(&client, Method::GET, "/v1/rack", &token, "").await.expect("a view");
    assert_eq!(view.hosts.len(), 1);
    let events: Vec<LogEvent> =
        ask(&client, Method::GET, "/v1/events?after=0&limit=5", &token, "").await.expect("a log");
    assert!(!events.is_empty());
    for (method, path, body, expected) in [
        (Method::POST, "/v1/hosts", "{\"mac\":\"x\"}", StatusCode::BAD_REQUEST),
        (Method::POST, "/v1/hosts", "{\"mac\":\"52:54:00:aa:bb:02\",\"more\":1}", StatusCode::BAD_REQUEST),
        (Method::POST, "/v1/vms/no/start", "", StatusCode::NOT_FOUND),
        (Method::POST, "/v1/vms/NO/start", "", StatusCode::BAD_REQUEST),
        (Method::GET, "/v1/events?limit=9999", "", StatusCode::BAD_REQUEST),
        (Method::GET, "/v1/nothing", "", StatusCode::NOT_FOUND),
        (Method::DELETE, "/v1/rack", "", StatusCode::NOT_FOUND),
    ] {
        let answer = ask::<Accepted>(&client, method, path, &token, body).await;
        assert_eq!(answer.map_err(|(status, _)| status), Err(expected), "{path}");
    }
    let (status, _, _) = client.ask(Method::POST, "/v1/hosts", &token, vec![b' '; 70_000]).await.expect("an answer");
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let document: serde_json::Value = ask(&client, Method::GET, "/v1/openapi.json", &token, "").await.expect("it");
    assert!(document["paths"]["/v1/vms/{id}/migrate"]["post"].is_object());

    // A restart logs nobody out; logging out does.
    let server = start(server.stop().await).await;
    let client = server.tls(server.operators, None).await.expect("TLS");
    assert!(ask::<RackView>(&client, Method::GET, "/v1/rack", &token, "").await.is_ok());
    assert_eq!(ask(&client, Method::POST, "/v1/logout", &token, "").await, Ok(Accepted::Done));
    assert!(ask::<RackView>(&client, Method::GET, "/v1/rack", &token, "").await.is_err());
    let wrong = ask::<Session>(&client, Method::POST, "/v1/login", &[], "{\"password\":\"a bad password\"}").await;
    assert_eq!(wrong, Err((StatusCode::UNAUTHORIZED, Refusal::WrongPassword)));
    let right = ask::<Session>(&client, Method::POST, "/v1/login", &[], "{\"password\":\"a good password\"}").await;
    assert!(right.is_ok());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_follows_the_rack_and_ends_with_the_session() {
    let server = start(directory()).await;
    let client = server.tls(server.operators, None).await.expect("TLS");
    let code = new_setup_code(&server.state(), false).expect("written").expect("a code");
    let body = format!("{{\"code\":\"{code}\",\"password\":\"a good password\"}}");
    let session: Session = ask(&client, Method::POST, "/v1/setup", &[], &body).await.expect("a session");
    let bearer = format!("Bearer {}", session.token);
    let token = [("authorization", bearer.as_str())];
    // The first view has what was acknowledged before, also where the last that was made is a moment older.
    for last in 2..6 {
        let machine = format!("{{\"mac\":\"52:54:00:aa:bb:0{last}\"}}");
        assert_eq!(ask(&client, Method::POST, "/v1/hosts", &token, &machine).await, Ok(Accepted::Done));
    }
    let mut sender = client.sender.clone();
    let asked = request(Method::GET, "https://127.0.0.1/v1/stream", &token, Bytes::new());
    let answer = sender.send_request(asked).await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    let mut text = String::new();
    // Of all together: a stream that says nothing still shows that it is there.
    let hangs = tokio::time::Instant::now() + HANG;
    let mut next = async |text: &mut String| {
        let frame = tokio::time::timeout_at(hangs, body.frame()).await.expect("in time");
        let data = frame.map(|frame| frame.expect("whole").into_data().expect("data"));
        data.map(|data| text.push_str(std::str::from_utf8(&data).expect("text"))).is_some()
    };
    assert!(next(&mut text).await && text.starts_with("event:rack\ndata:{"), "{text}");
    while !text.ends_with("\n\n") {
        assert!(next(&mut text).await, "the stream ended");
    }
    let first = text.split("\n\n").next().unwrap_or_default();
    assert!((2..6).all(|last| first.contains(&format!("h525400aabb0{last}"))), "{first}");
    let machine = "{\"mac\":\"52:54:00:aa:bb:01\"}";
    assert_eq!(ask(&client, Method::POST, "/v1/hosts", &token, machine).await, Ok(Accepted::Done));
    while !text.contains("h525400aabb01") {
        assert!(next(&mut text).await, "the stream ended");
    }
    assert_eq!(ask(&client, Method::POST, "/v1/logout", &token, "").await, Ok(Accepted::Done));
    // The next change finds the session gone.
    server.lease("52:54:00:aa:bb:01".parse().expect("a MAC")).await;
    while next(&mut text).await {}
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page() {
    let server = start(directory()).await;
    let client = server.tls(server.operators, None).await.expect("TLS");
    let (status, headers, page) = client.ask(Method::GET, "/", &[], "").await.expect("an answer");
    assert_eq!(status, StatusCode::OK);
    assert!(String::from_utf8_lossy(&page).contains("<html"));
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    for path in ["/../Cargo.toml", "/assets/../index.html", "/nothing", "/assets/"] {
        let (status, _, _) = client.ask(Method::GET, path, &[], "").await.expect("an answer");
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(server.fetch(HOST, Method::GET, "/v1/rack", &[]).await.0, StatusCode::NOT_FOUND, "not on the boot port");
    server.stop().await;
}
