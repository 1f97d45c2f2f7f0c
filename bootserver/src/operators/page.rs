//! The operator's page, built by `make page` and embedded here.

use http::{HeaderValue, Method, StatusCode, header};
use rust_embed::RustEmbed;
use warp::Reply;

#[derive(RustEmbed)]
#[folder = "web/dist"]
struct Page;

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
                      connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// A file of the page, by its path; `None` when there is none.
pub(super) fn file(method: &Method, path: &str) -> Option<warp::reply::Response> {
    if method != Method::GET && method != Method::HEAD {
        return None;
    }
    let name = if path == "/" { "index.html" } else { path.strip_prefix('/')? };
    let content = Page::get(name)?.data;
    let length = content.len();
    let mut response = match method == Method::HEAD {
        true => "".into_response(),
        false => content.into_owned().into_response(),
    };
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    // What vite puts into assets/ has its digest in its name.
    let keep = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    Some(response)
}

/// Headers of every answer on the operators' port.
pub(super) fn guard(response: &mut warp::reply::Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json" | "webmanifest") => "application/json",
        _ => "application/octet-stream",
    }
}
