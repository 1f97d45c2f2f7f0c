//! TLS to a management controller: its certificate is trusted for what it is, not for who signed it or which name or time is in it.
//!
//! Controllers come with certificates that they made for themselves, of any name, often run out. So one certificate is pinned by its
//! sha256, as is done with an SSH host key.

use crate::config::files::hex;
use rack::power::Trust;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};

/// Looks at the one certificate that is shown.
#[derive(Debug)]
pub(super) struct Pin {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    shown: OnceLock<String>,
}

impl Pin {
    pub(super) fn new(trust: Trust) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self { trust, provider, shown: OnceLock::new() })
    }

    /// sha256 of what was shown, 64 hexadecimal digits.
    pub(super) fn shown(&self) -> Option<&str> {
        self.shown.get().map(String::as_str)
    }
}

/// For one connection. TLS 1.2 as well: many controllers have no more.
pub(super) fn config(pin: Arc<Pin>) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(pin.provider.clone()).with_safe_default_protocol_versions()?;
    let mut config = config.dangerous().with_custom_certificate_verifier(pin).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session shows no certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = self.shown.get_or_init(|| hex(&Sha256::digest(end_entity)));
        match &self.trust {
            Trust::Pinned(pinned) if pinned != shown => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            Trust::Pinned(_) | Trust::First | Trust::Any => Ok(ServerCertVerified::assertion()),
        }
    }

    // A certificate is public: only the signature shows that the other side has its key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
