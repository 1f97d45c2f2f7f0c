//! Reading a request's body, bounded in bytes and time.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use std::pin::pin;
use std::time::Duration;

/// A body must have come whole within this.
const TIME_MAX: Duration = Duration::from_secs(15);

/// The whole body, or the status that says why not.
pub(crate) async fn read<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>>,
    bytes_max: usize,
) -> Result<Bytes, StatusCode> {
    let collect = async {
        let (mut body, mut whole) = (pin!(body), BytesMut::new());
        while let Some(part) = body.next().await {
            let mut part = part.map_err(|_| StatusCode::BAD_REQUEST)?;
            if whole.len() + part.remaining() > bytes_max {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            whole.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(TIME_MAX, collect).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}
