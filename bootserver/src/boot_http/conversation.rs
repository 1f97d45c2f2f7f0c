//! One client's connection to the boot port: heads in, files out by sendfile(2), which copies nothing.
//!
//! Owns: how long a client may take for a head, and the order of what is sent. Never does: look at paths; read a body.
//!
//! ```text
//! head (15 s) -> answer -> [text | file, piece by piece at the pace of all] -> kept: head … | not kept: end
//!    | none in time, or none any more: end    | too long, or no HTTP: a refusal, end
//! ```

use super::file::{Pacer, Piece};
use super::head::{self, Request};
use super::{Body, BootHttp, Reply};
use http::{HeaderMap, Method, StatusCode};
use nix::libc;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, send};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// Serves a connection to its end.
pub(super) async fn hold(service: &BootHttp, mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    let mut come = Vec::new();
    loop {
        let next = tokio::time::timeout(service.limits.head_timeout, next(&mut stream, &mut come));
        let Ok(next) = next.await else { return Ok(()) };
        let request = match next? {
            Some(Ok(request)) => request,
            Some(Err(status)) => {
                tracing::debug!(%from, status = status.as_u16(), "boot HTTP: no request");
                let refusal = head::write(status, &HeaderMap::new(), Some(0), false, SystemTime::now());
                stream.write_all(&refusal).await?;
                return stream.shutdown().await;
            }
            None => return Ok(()),
        };
        let reply = service.answer(&request.method, &request.path, &request.headers, from).await;
        let (method, path, status) = (&request.method, &request.path, reply.status.as_u16());
        tracing::debug!(%from, %method, path, status, "boot HTTP");
        say(&stream, &service.pacer, &request, reply).await?;
        if !request.kept {
            return stream.shutdown().await;
        }
        come.drain(..request.bytes);
    }
}

/// The next request; `None` when the client has ended.
async fn next(stream: &mut TcpStream, come: &mut Vec<u8>) -> io::Result<Option<Result<Request, StatusCode>>> {
    loop {
        if let Some(read) = head::parse(come).transpose() {
            return Ok(Some(read));
        }
        if stream.read_buf(come).await? == 0 {
            return Ok(None);
        }
    }
}

async fn say(stream: &TcpStream, pacer: &Pacer, request: &Request, reply: Reply) -> io::Result<()> {
    let length = match &reply.body {
        // A reply of 304 has none, and says of none.
        Body::None => None,
        Body::Text(text) => Some(text.len() as u64),
        Body::Length(length) => Some(*length),
        Body::File(file) => Some(file.left()),
    };
    let mut head = head::write(reply.status, &reply.headers, length, request.kept, SystemTime::now());
    match reply.body {
        Body::Text(text) if request.method != Method::HEAD => {
            head.extend_from_slice(text.as_bytes());
            send_all(stream, &head, MsgFlags::empty()).await
        }
        Body::File(mut file) => {
            // The first of the file goes into the same packet.
            send_all(stream, &head, MsgFlags::from_bits_retain(libc::MSG_MORE)).await?;
            while let Some(piece) = file.next(pacer).await? {
                let end = piece.end;
                send_piece(stream, piece).await?;
                file.sent(end);
            }
            Ok(())
        }
        Body::None | Body::Length(_) | Body::Text(_) => send_all(stream, &head, MsgFlags::empty()).await,
    }
}

async fn send_all(stream: &TcpStream, mut bytes: &[u8], flags: MsgFlags) -> io::Result<()> {
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    while !bytes.is_empty() {
        let sent = stream.async_io(Interest::WRITABLE, || Ok(send(stream.as_raw_fd(), bytes, flags)?)).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

async fn send_piece(stream: &TcpStream, piece: Piece<'_>) -> io::Result<()> {
    let Piece { file, mut at, end } = piece;
    while at < end {
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut offset = i64::try_from(at).map_err(io::Error::other)?;
                let count = usize::try_from(end - at).map_err(io::Error::other)?;
                Ok(sendfile64(stream, file, Some(&mut offset), count)?)
            })
            .await?;
        if sent == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter while it was sent"));
        }
        at += sent as u64;
    }
    Ok(())
}
