//! A small HTTPS client: one request on a connection of its own, the server held to one CA.
//!
//! Owns: the exchange. Never does: follow, retry, or trust what the CA did not sign. Blocking, as tests are.

use anyhow::{Context, Result, anyhow};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// How long one exchange may take at most: a guard against hangs.
const EXCHANGE: Duration = Duration::from_secs(60);

/// Trust in one CA, without a certificate of our own.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl Trust {
    /// Trusts the first certificate of a PEM text.
    pub fn pem(text: &[u8]) -> Result<Self> {
        let ca = CertificateDer::from_pem_slice(text).map_err(|err| anyhow!("the CA's PEM: {err}"))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca).context("the CA's certificate")?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// An answer: status and body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// Sends one request over TLS; `server` is the address that the certificate must name.
pub fn tls(trust: &Trust, stream: TcpStream, server: IpAddr, request: Request<String>) -> Result<Answer> {
    block_on(async {
        let stream = tokio_stream(stream)?;
        let stream = trust.0.connect(ServerName::from(server), stream).await.context("TLS")?;
        exchange(TokioIo::new(stream), request).await
    })
}

/// Sends one request in the clear.
pub fn plain(stream: TcpStream, request: Request<String>) -> Result<Answer> {
    block_on(async { exchange(TokioIo::new(tokio_stream(stream)?), request).await })
}

/// A request with a JSON body, or none when it is empty.
pub fn request(method: Method, path: &str, host: &str, body: String) -> Result<Request<String>> {
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    Ok(request.body(body)?)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(EXCHANGE, work).await.map_err(|_| anyhow!("no answer in {} s", EXCHANGE.as_secs()))?
    })
}

fn tokio_stream(stream: TcpStream) -> Result<tokio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    Ok(tokio::net::TcpStream::from_std(stream)?)
}

async fn exchange<S>(stream: S, request: Request<String>) -> Result<Answer>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let what = format!("{} {}", request.method(), request.uri());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let driving = tokio::spawn(connection);
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let answer = sender.send_request(request).await.with_context(|| what.clone())?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.with_context(|| format!("reading the answer to {what}"))?.to_bytes();
    driving.abort();
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}
