//! Heads of requests and of replies on the boot port (RFC 9112 §2 to §4), as far as firmware and loaders use them: GET and
//! HEAD, no bodies, connections that are kept.
//!
//! Pure, and tried with whatever a stranger may send (`fuzz/fuzz_targets/head.rs`). Never does: read a socket.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use std::time::SystemTime;

/// Of a request's head; a longer one is refused.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;

/// What a client asks.
#[derive(Debug)]
pub(super) struct Request {
    /// GET, HEAD, or what will be refused.
    pub(super) method: Method,
    /// Without scheme, host and query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// Whether another request may follow on this connection.
    pub(super) kept: bool,
    /// How long the head was.
    pub(super) bytes: usize,
}

/// Reads a request's head from what has come so far; `None` while its end has not.
///
/// # Errors
/// The status to refuse it with: 400 for what is no HTTP, 431 for what is too long, 505 for HTTP that is not 1.0 or 1.1.
pub(super) fn parse(come: &[u8]) -> Result<Option<Request>, StatusCode> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let bytes = match head.parse(come) {
        Ok(httparse::Status::Complete(bytes)) if bytes <= HEAD_BYTES_MAX => bytes,
        Ok(httparse::Status::Partial) if come.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(httparse::Error::Version) => return Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
        Err(_) => return Err(StatusCode::BAD_REQUEST),
    };
    let mut headers = HeaderMap::new();
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(bad)?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(bad)?);
    }
    // A head that is complete has them.
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let says = |word: &str| {
        let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|given| given.trim().eq_ignore_ascii_case(word))
    };
    // No body is ever read: what would come next on the connection is not known then.
    let body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    let kept = !body && if minor == 0 { says("keep-alive") } else { !says("close") };
    let method = Method::from_bytes(method.as_bytes()).map_err(bad)?;
    Ok(Some(Request { method, path: path(target).to_owned(), headers, kept, bytes }))
}

/// A reply's head, with the empty line that ends it.
pub(super) fn write(
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
    kept: bool,
    now: SystemTime,
) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or("");
    let mut head =
        format!("HTTP/1.1 {} {reason}\r\ndate: {}\r\n", status.as_u16(), httpdate::fmt_http_date(now)).into_bytes();
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    if let Some(length) = length {
        head.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    let connection = if kept { "keep-alive" } else { "close" };
    head.extend_from_slice(format!("connection: {connection}\r\n\r\n").as_bytes());
    head
}

fn bad<E>(_: E) -> StatusCode {
    StatusCode::BAD_REQUEST
}

/// Of a target in origin or in absolute form (RFC 9112 §3.2), without its query.
fn path(target: &str) -> &str {
    let from_host = target.strip_prefix("http://").map(|rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let path = from_host.unwrap_or(target);
    path.split_once('?').map_or(path, |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, path, whether the connection is kept; or the refusal; `None` while more is to come.
    fn check(come: &str, expect: Option<Result<(&str, &str, bool), u16>>) {
        let got = match parse(come.as_bytes()) {
            Ok(None) => None,
            Ok(Some(request)) => Some(Ok((request.method.to_string(), request.path, request.kept))),
            Err(status) => Some(Err(status.as_u16())),
        };
        let expect = expect.map(|e| e.map(|(method, path, kept)| (method.to_owned(), path.to_owned(), kept)));
        assert_eq!(got, expect, "{}", &come[..come.len().min(80)]);
    }

    #[test]
    fn requests() {
        let get = |more: &str| format!("GET /b/1/xen HTTP/1.1\r\nHost: x\r\n{more}\r\n");
        check("", None);
        check("GET /b/1/xen HTTP/1.1\r\nHost: x\r\n", None);
        check(&get(""), Some(Ok(("GET", "/b/1/xen", true))));
        check(&get("Connection: Upgrade, close\r\n"), Some(Ok(("GET", "/b/1/xen", false))));
        check(&get("Content-Length: 0\r\n"), Some(Ok(("GET", "/b/1/xen", true))));
        // Its body would be taken for a request.
        check(&get("Content-Length: 5\r\n"), Some(Ok(("GET", "/b/1/xen", false))));
        check(&get("Transfer-Encoding: chunked\r\n"), Some(Ok(("GET", "/b/1/xen", false))));
        check("GET /a HTTP/1.0\r\n\r\n", Some(Ok(("GET", "/a", false))));
        check("HEAD /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some(Ok(("HEAD", "/a", true))));
        check("GET http://10.77.0.1:8080/a?b=/c HTTP/1.1\r\n\r\n", Some(Ok(("GET", "/a", true))));
        check("GET http://10.77.0.1 HTTP/1.1\r\n\r\n", Some(Ok(("GET", "/", true))));
        check("GET /a HTTP/2.0\r\n\r\n", Some(Err(505)));
        check("GET /a\x01b HTTP/1.1\r\n\r\n", Some(Err(400)));
        check("\x16\x03\x01\x02\x00", Some(Err(400)));
        check(&get(&"x: y\r\n".repeat(HEADERS_MAX)), Some(Err(431)));
        check(&get(&format!("x: {}\r\n", "y".repeat(HEAD_BYTES_MAX))), Some(Err(431)));
        check(&format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(HEAD_BYTES_MAX)), Some(Err(431)));
    }

    #[test]
    fn what_follows_is_left_for_the_next() {
        let two = b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        let first = parse(two).expect("good").expect("whole");
        assert_eq!(parse(&two[first.bytes..]).expect("good").expect("whole").path, "/b");
    }
}
