//! Files from the boot server, by plain HTTP; each is checked against a digest that came by a way that can be trusted.
//!
//! Owns: the CA certificate at the start, boot files of guests. Never does: trusting what was not checked.

use crate::ram;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use proto::vm::Boot;
use ring::digest::{Context, SHA256};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;

/// A kernel or initrd of a guest; they lie in dom0's RAM.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// A CA certificate.
const CA_BYTES_MAX: u64 = 64 << 10;
/// Files kept for guests that may come, bytes; beyond that the oldest go. They have 128 MiB (images/dom0/init).
const KEPT_BYTES_MAX: u64 = 48 << 20;
/// Between two pieces of a file.
const SILENCE_S: u64 = 20;

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
#[error("fetching http://{from}{path}: {why}")]
pub struct FetchError {
    from: SocketAddrV4,
    path: String,
    why: String,
}

/// The digests of the files that a guest boots from.
pub fn digests(boot: &Boot) -> Vec<&str> {
    match boot {
        Boot::Kernel { kernel, initrd, .. } => std::iter::once(kernel).chain(initrd).map(String::as_str).collect(),
        Boot::Disk { loader } => vec![loader],
    }
}

/// Fetches the boot files that are not there yet into `dir`, under their digests. Of the others `spared` stay.
///
/// # Errors
/// The first file that could not be had.
pub async fn boot_files(
    from: SocketAddrV4,
    dir: &Path,
    boot: &Boot,
    spared: &BTreeSet<String>,
) -> Result<(), FetchError> {
    let digests = digests(boot);
    ram::keep_newest(dir, KEPT_BYTES_MAX, |name| spared.contains(name) || digests.contains(&name));
    for digest in digests {
        let path = format!("/blob/{digest}");
        let failed = |why: String| FetchError { from, path: path.clone(), why };
        let file = dir.join(digest);
        if file.exists() {
            continue;
        }
        fs::create_dir_all(dir).map_err(|e| failed(format!("making {}: {e}", dir.display())))?;
        let part = dir.join(format!("{digest}.part"));
        let mut out = fs::File::create(&part).map_err(|e| failed(format!("making {}: {e}", part.display())))?;
        let mut sum = Context::new(&SHA256);
        let got = get(from, &path, FILE_BYTES_MAX, |bytes| {
            sum.update(bytes);
            out.write_all(bytes).map_err(|e| format!("writing {}: {e}", part.display()))
        });
        let checked = got.await.and_then(|_| match hex(sum.finish().as_ref()) {
            got if got == digest.to_ascii_lowercase() => Ok(()),
            got => Err(failed(format!("its sha256 is {got}"))),
        });
        checked.inspect_err(|_| {
            // What is there of it would be in the way of all others.
            let _ = fs::remove_file(&part);
        })?;
        fs::rename(&part, &file).map_err(|e| failed(format!("naming {}: {e}", file.display())))?;
    }
    Ok(())
}

/// The CA's certificate as PEM, and the answer's `Date`.
///
/// # Errors
/// When it could not be had. Whether it is the right one is for who knows its digest.
pub async fn ca_pem(from: SocketAddrV4) -> Result<(Vec<u8>, Option<String>), FetchError> {
    let mut pem = Vec::new();
    let date = get(from, "/ca.pem", CA_BYTES_MAX, |bytes| {
        pem.extend_from_slice(bytes);
        Ok(())
    })
    .await?;
    Ok((pem, date))
}

/// Gets one file piece by piece, no more than `bytes_max`; the answer's `Date`.
async fn get(
    from: SocketAddrV4,
    path: &str,
    bytes_max: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<Option<String>, FetchError> {
    let failed = |why: String| FetchError { from, path: path.to_owned(), why };
    let limit = Duration::from_secs(SILENCE_S);
    let silent = |_| failed(format!("nothing for {SILENCE_S} s"));
    let opening = async {
        let tcp = TcpStream::connect(from).await.map_err(|e| failed(e.to_string()))?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await;
        let (mut sender, connection) = shaken.map_err(|e| failed(e.to_string()))?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", from.to_string()).body(Empty::<Bytes>::new());
        let request = request.map_err(|e| failed(e.to_string()))?;
        sender.send_request(request).await.map_err(|e| failed(e.to_string()))
    };
    let answer = tokio::time::timeout(limit, opening).await.map_err(silent)??;
    if answer.status() != StatusCode::OK {
        return Err(failed(format!("the answer is {}", answer.status())));
    }
    let date = answer.headers().get("date").and_then(|d| d.to_str().ok()).map(str::to_owned);
    let mut body = answer.into_body();
    let mut bytes = 0;
    while let Some(frame) = tokio::time::timeout(limit, body.frame()).await.map_err(silent)? {
        if let Ok(data) = frame.map_err(|e| failed(e.to_string()))?.into_data() {
            bytes += data.len() as u64;
            if bytes > bytes_max {
                return Err(failed(format!("longer than {bytes_max} bytes")));
            }
            take(&data).map_err(failed)?;
        }
    }
    Ok(date)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
