//! Heads of HTTP requests on the boot port: what is understood is bounded, and what is said of it is one head.

#![no_main]

use head::{parse, write};
use libfuzzer_sys::fuzz_target;
use std::time::SystemTime;

#[path = "../../src/boot_http/head.rs"]
mod head;

fuzz_target!(|data: &[u8]| {
    match parse(data) {
        Ok(Some(request)) => {
            assert!(request.bytes <= data.len(), "more was read than came");
            assert!(data.trim_ascii_start().starts_with(request.method.as_str().as_bytes()), "{:?}", request.method);
            assert!(!request.path.contains(['?', '\r', '\n', ' ']), "{:?}", request.path);
            // What a client said must not become a second head when it is echoed.
            let head = write(http::StatusCode::OK, &request.headers, Some(0), request.kept, SystemTime::UNIX_EPOCH);
            let text = String::from_utf8_lossy(&head);
            assert_eq!(text.matches("\r\n\r\n").count(), 1, "{text:?}");
        }
        Ok(None) => assert!(data.len() < 32 * 1024, "no end of it in 32 KiB"),
        Err(status) => assert!(status.is_client_error() || status.is_server_error()),
    }
});
