//! TLS of the two HTTPS services. TLS 1.3 only, h2 before HTTP/1.1.

use crate::ca::Ca;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Our chain and its key.
pub type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// For agents: a client certificate of our CA is taken when shown, and verified.
pub fn agents(ca: &Ca, own: Own) -> Result<TlsAcceptor, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let verifier = verifier.allow_unauthenticated().build()?;
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_client_cert_verifier(verifier).with_single_cert(own.0, own.1)?;
    // A resumed session would not show its certificate again, and it may have run out.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// For operators: no client certificate is asked for.
pub fn operators(own: Own) -> Result<TlsAcceptor, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_no_client_auth().with_single_cert(own.0, own.1)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
