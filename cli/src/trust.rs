//! Whom to trust: one CA, pinned by the sha256 of its certificate.
//!
//! Owns: fingerprints, and fetching the chain that a server shows. Never does: sending anything over a connection
//! that has not been verified. The handshake that fetches a chain is broken off as soon as the chain is seen; every
//! request goes over a new connection that accepts the chosen CA alone.
//!
//! ```text
//! chain shown --pin?--> the certificate with that sha256 --\
//!        \--first use--> the last, shown to the operator ---+--> sole root of every later connection
//! ```

use crate::fault::Fault;
use crate::url::ServerUrl;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use thiserror::Error;

/// How long one step of fetching a chain may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// sha256 of a certificate's DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

/// Why a text is no fingerprint.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no sha256 of a certificate: expected 64 hexadecimal digits (colons allowed), or 43 characters of base64url"
)]
pub(crate) struct FingerprintError(String);

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(given: &str) -> Result<Self, FingerprintError> {
        let wrong = || FingerprintError(given.chars().take(100).collect());
        let digits: String = given.chars().filter(|&c| c != ':').collect();
        let mut bytes = [0; 32];
        if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
                *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?;
            }
            return Ok(Self(bytes));
        }
        let decoded = URL_SAFE_NO_PAD.decode(given).map_err(|_| wrong())?;
        decoded.try_into().map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The CA to trust among what `url` shows.
///
/// With a pin: the certificate that has it. Without: the last of the chain, provided that there is one above the
/// server's own.
///
/// # Errors
/// `Unreached` when nothing speaks TLS there, `Untrusted` when the chain holds no such certificate.
pub(crate) fn find_ca(url: &ServerUrl, pin: Option<Fingerprint>) -> Result<CertificateDer<'static>, Fault> {
    choose_ca(&fetch_chain(url)?, pin).map_err(|why| Fault::Untrusted { url: url.to_string(), why })
}

fn choose_ca(chain: &[CertificateDer<'static>], pin: Option<Fingerprint>) -> Result<CertificateDer<'static>, String> {
    let found = match pin {
        Some(pin) => chain.iter().find(|c| Fingerprint::of(c) == pin),
        None => chain.get(1..).unwrap_or_default().last(),
    };
    found.cloned().ok_or_else(|| match (pin, chain.last()) {
        (Some(pin), Some(last)) => format!(
            "it shows a CA with the sha256 {}, expected {pin}. Either this is another server, or its CA was made anew: ask the boot server for its fingerprint and log in with --ca-sha256",
            Fingerprint::of(last)
        ),
        _ => "it shows no CA certificate; get the file from the boot server and set TSUBAME_CA to its path".to_owned(),
    })
}

/// One certificate out of PEM.
///
/// # Errors
/// A sentence on what is wrong with it.
pub(crate) fn from_pem(pem: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("no certificate in PEM: {e}"))
}

/// A certificate as PEM (RFC 7468).
pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem + "\n-----END CERTIFICATE-----\n"
}

fn fetch_chain(url: &ServerUrl) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let unreached = |why: String| Fault::Unreached {
        doing: "fetching the server's certificate".into(),
        url: url.to_string(),
        why,
        unsure: false,
    };
    let addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(|e| unreached(e.to_string()))?;
    let mut refused = "the name has no address".to_owned();
    let mut connected = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, PROBE_TIMEOUT) {
            Ok(socket) => {
                connected = Some(socket);
                break;
            }
            Err(e) => refused = e.to_string(),
        }
    }
    let mut socket = connected.ok_or_else(|| unreached(refused))?;
    socket.set_read_timeout(Some(PROBE_TIMEOUT)).map_err(|e| unreached(e.to_string()))?;
    socket.set_write_timeout(Some(PROBE_TIMEOUT)).map_err(|e| unreached(e.to_string()))?;

    let seen = Arc::new(ChainSeen(OnceLock::new()));
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| unreached(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(url.host.clone()).map_err(|e| unreached(e.to_string()))?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(|e| unreached(e.to_string()))?;
    let ended = tls.complete_io(&mut socket);
    match (seen.0.get(), ended) {
        (Some(chain), _) => Ok(chain.clone()),
        (None, Err(e)) => Err(unreached(e.to_string())),
        (None, Ok(_)) => Err(unreached("it shows no certificate".into())),
    }
}

/// Notes the chain and ends the handshake: nothing is ever sent over this connection.
#[derive(Debug)]
struct ChainSeen(OnceLock<Vec<CertificateDer<'static>>>);

impl ServerCertVerifier for ChainSeen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        // A second chain on one connection cannot be; were it so, the first stands.
        let _ = self.0.set(chain);
        Err(rustls::Error::General("the chain was seen; this connection is not used".into()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("this connection is not used".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("this connection is not used".into()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pin_picks_its_certificate_and_first_use_never_the_servers_own() {
        let [leaf, ca] = [CertificateDer::from(vec![1]), CertificateDer::from(vec![2])];
        let chain = [leaf.clone(), ca.clone()];
        assert_eq!(choose_ca(&chain, None), Ok(ca.clone()));
        assert_eq!(choose_ca(&chain, Some(Fingerprint::of(&ca))), Ok(ca.clone()));
        assert!(choose_ca(&chain[..1], None).is_err());
        assert!(choose_ca(&[], None).is_err());
        let other = choose_ca(&chain, Some(Fingerprint([7; 32]))).expect_err("no certificate has it");
        assert!(other.contains(&Fingerprint::of(&ca).to_string()), "{other}");
    }

    proptest! {
        #[test]
        fn fingerprints_read_back_in_each_form(bytes: [u8; 32]) {
            let hex = Fingerprint(bytes).to_string();
            let colons = hex.as_bytes().chunks(2).map(String::from_utf8_lossy).collect::<Vec<_>>().join(":");
            for form in [hex.clone(), hex.to_uppercase(), colons, URL_SAFE_NO_PAD.encode(bytes)] {
                prop_assert_eq!(form.parse(), Ok(Fingerprint(bytes)));
            }
        }

        #[test]
        fn any_text_is_a_fingerprint_or_none(given in ".{0,80}") {
            let _ = given.parse::<Fingerprint>();
        }

        #[test]
        fn certificates_read_back_from_pem(der in proptest::collection::vec(any::<u8>(), 1..400)) {
            let certificate = CertificateDer::from(der);
            prop_assert_eq!(from_pem(&to_pem(&certificate)), Ok(certificate));
        }
    }
}
