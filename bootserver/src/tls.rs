//! TLS of the two HTTPS services. TLS 1.3 only, h2 before HTTP/1.1.

use crate::ca::Ca;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Our chain and its key.
pub type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// For agents: a client certificate of our CA is taken when shown, and verified but for the time: whether that is over `ca::subject` says.
pub fn agents(ca: &Ca, own: Own) -> Result<TlsAcceptor, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let verifier = verifier.allow_unauthenticated().build()?;
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_client_cert_verifier(Arc::new(AtAnyTime(verifier))).with_single_cert(own.0, own.1)?;
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

/// Takes a certificate at a time at which it is valid, whatever our clock says. When that was set, hosts show certificates that have run out by
/// it or are not valid yet: refused here, they would get no answer, whose date is what sets their own clocks and has them join anew.
#[derive(Debug)]
struct AtAnyTime(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AtAnyTime {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        use CertificateError::{ExpiredContext, NotValidYetContext};
        let valid_at = match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(Error::InvalidCertificate(ExpiredContext { not_after, .. })) => not_after,
            Err(Error::InvalidCertificate(NotValidYetContext { not_before, .. })) => not_before,
            verified => return verified,
        };
        // Only now chain, signature and use are looked at.
        self.0.verify_client_cert(end_entity, intermediates, valid_at)
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
