//! The rack's own certificate authority.
//!
//! Owns: the CA's key (ECDSA P-256, in the state directory, 0600), our own TLS certificate, hosts' certificates, and the
//! signature on migration permits. Never does: decide who gets one; the rack has decided before.

use crate::config::files::hex;
use crate::state_dir::{self, StateError};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proto::HostId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SigningKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How long a host's certificate holds, hours. A host that was put out of the rack is refused by the rack at once; this
/// bounds what its certificate is worth towards other hosts.
pub const HOST_HOURS: i64 = 24;
/// When a host is told to renew, milliseconds: at half of that.
pub const RENEW_MS: u64 = 12 * 3_600_000;
/// By how much a host's certificate holds before it is issued: a host's clock may lag behind ours by a little.
const BACKDATED: Duration = Duration::hours(1);
/// How long our own certificate holds, days.
const SERVER_DAYS: i64 = 825;
/// It is made anew when it is valid for less than this, days.
const SERVER_DAYS_LEFT_MIN: i64 = 90;

/// What went wrong with a key or certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file system said no.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file of ours cannot be understood.
    #[error(
        "{path} holds no key and certificate that can be read ({what}); hosts trust this CA alone: restore the file from a backup"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A signing request cannot be read, is of another kind of key, or its signature is wrong.
    #[error("the signing request is bad: {what}")]
    BadCsr {
        /// What is wrong.
        what: String,
    },
    /// A certificate could not be made.
    #[error("making a certificate for {whom}: {err}")]
    Make {
        /// For whom.
        whom: String,
        /// What rcgen said.
        err: rcgen::Error,
    },
}

/// The authority, loaded.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// Who a certificate names, and by which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Common name.
    pub host: HostId,
    /// sha256 of the public key (SubjectPublicKeyInfo), 64 hexadecimal digits.
    pub key: String,
    /// When it was issued, Unix milliseconds, to the second.
    pub issued_ms: u64,
}

impl Ca {
    /// Loads the CA of a state directory, or makes one.
    pub fn open(state: &Path) -> Result<Self, CaError> {
        let path = state.join("ca.pem");
        let text = match state_dir::read(&path)? {
            Some(text) => text,
            None => {
                let text = make_ca().map_err(|err| CaError::Make { whom: "the CA".to_owned(), err })?;
                state_dir::write(&path, text.as_bytes())?;
                text
            }
        };
        let (certificate, key) = parse(&text).map_err(|what| CaError::Damaged { path: path.clone(), what })?;
        let damaged = |err: rcgen::Error| CaError::Damaged { path: path.clone(), what: err.to_string() };
        let key = KeyPair::try_from(&key).map_err(damaged)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(damaged)?;
        let pem = pem(&certificate);
        Ok(Self { issuer, certificate, pem })
    }

    /// The CA's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The CA's certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// base64url of the sha256 of the CA's certificate, 43 characters: what dom0's command line pins.
    pub fn digest(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.certificate))
    }

    /// The same digest as 64 hexadecimal digits, for people and their tools.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.certificate))
    }

    /// A host's certificate for the key of its signing request; nothing else of the request counts. PEM, with the CA's after it.
    pub fn issue(
        &self,
        host: &HostId,
        csr_pem: &str,
        address: Ipv4Addr,
        now: OffsetDateTime,
    ) -> Result<String, CaError> {
        let request = read_csr(csr_pem)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, host.as_str());
        params.subject_alt_names = vec![SanType::IpAddress(address.into())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATED;
        params.not_after = now + Duration::hours(HOST_HOURS);
        let made = params.signed_by(&request.public_key, &self.issuer);
        let made = made.map_err(|err| CaError::Make { whom: host.to_string(), err })?;
        Ok(format!("{}{}", made.pem(), self.pem))
    }

    /// ECDSA P-256 / SHA-256 on the bytes, ASN.1 DER, base64.
    pub fn sign(&self, bytes: &[u8]) -> Result<String, CaError> {
        let signature = self.issuer.key().sign(bytes);
        Ok(STANDARD.encode(signature.map_err(|err| CaError::Make { whom: "a permit".to_owned(), err })?))
    }

    /// Our own chain and key for these names and addresses: the kept one as long as it fits, so that an operator's
    /// browser meets the same certificate after a restart.
    pub fn server(
        &self,
        state: &Path,
        names: &[String],
        addresses: &[IpAddr],
        now: OffsetDateTime,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let path = state.join("server.pem");
        if let Some(text) = state_dir::read(&path)?
            && let Ok((certificate, key)) = parse(&text)
            && self.still_fits(&certificate, names, addresses, now)
        {
            return Ok((vec![certificate, self.certificate.clone()], key.into()));
        }
        let make = || {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "tsubame boot server");
            for name in names {
                params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
            }
            params.subject_alt_names.extend(addresses.iter().map(|&address| SanType::IpAddress(address)));
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.use_authority_key_identifier_extension = true;
            params.not_before = LONG_AGO;
            params.not_after = now + Duration::days(SERVER_DAYS);
            let made = params.signed_by(&key, &self.issuer)?;
            Ok((made, key))
        };
        let (made, key) = make().map_err(|err| CaError::Make { whom: "the boot server".to_owned(), err })?;
        state_dir::write(&path, format!("{}{}", key.serialize_pem(), made.pem()).as_bytes())?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((vec![made.der().clone(), self.certificate.clone()], key.into()))
    }

    fn still_fits(
        &self,
        der: &CertificateDer<'_>,
        names: &[String],
        addresses: &[IpAddr],
        now: OffsetDateTime,
    ) -> bool {
        let (Ok((_, certificate)), Ok((_, ours))) =
            (X509Certificate::from_der(der), X509Certificate::from_der(&self.certificate))
        else {
            return false;
        };
        let until = certificate.validity().not_after.timestamp() - now.unix_timestamp();
        let Ok(Some(kept)) = certificate.subject_alternative_name() else { return false };
        let kept: BTreeSet<String> = kept
            .value
            .general_names
            .iter()
            .map(|name| match name {
                GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                    (Ok(v4), _) => IpAddr::from(v4).to_string(),
                    (_, Ok(v6)) => IpAddr::from(v6).to_string(),
                    _ => String::new(),
                },
                GeneralName::DNSName(name) => (*name).to_owned(),
                _ => String::new(),
            })
            .collect();
        let wanted: BTreeSet<String> = names.iter().cloned().chain(addresses.iter().map(IpAddr::to_string)).collect();
        kept == wanted
            && until > Duration::days(SERVER_DAYS_LEFT_MIN).whole_seconds()
            && certificate.verify_signature(Some(ours.public_key())).is_ok()
    }
}

/// sha256 of a signing request's public key, after its own signature was checked.
pub fn csr_key(csr_pem: &str) -> Result<String, CaError> {
    read_csr(csr_pem)?;
    let bad = |what: &str| CaError::BadCsr { what: what.to_owned() };
    let (_, block) = x509_parser::pem::parse_x509_pem(csr_pem.as_bytes()).map_err(|_| bad("it is not PEM"))?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents)
        .map_err(|_| bad("it is not PKCS #10"))?;
    Ok(hex(&Sha256::digest(request.certification_request_info.subject_pki.raw)))
}

/// Who a certificate that TLS has verified belongs to; `None` when it has run out, maybe since: a connection may live long. One that is not
/// valid yet is taken: our clock was set back since we issued it, and its host, whose clock follows ours, would not join anew until it has run out.
pub fn subject(der: &CertificateDer<'_>, now: OffsetDateTime) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    if certificate.validity().not_after.timestamp() < now.unix_timestamp() {
        return None;
    }
    let host = certificate.subject().iter_common_name().next()?.as_str().ok()?.parse().ok()?;
    let issued_s = certificate.validity().not_before.timestamp() + BACKDATED.whole_seconds();
    let issued_ms = u64::try_from(issued_s).unwrap_or(0).saturating_mul(1000);
    Some(Subject { host, key: hex(&Sha256::digest(certificate.public_key().raw)), issued_ms })
}

/// A host whose clock has never been set must still be able to call: what counts is the pinned CA.
const LONG_AGO: OffsetDateTime = time::macros::datetime!(2000-01-01 0:00 UTC);

fn read_csr(csr_pem: &str) -> Result<CertificateSigningRequestParams, CaError> {
    if csr_pem.len() > 8192 {
        return Err(CaError::BadCsr { what: "it is longer than 8192 bytes".to_owned() });
    }
    let request = CertificateSigningRequestParams::from_pem(csr_pem);
    let request = request.map_err(|err| CaError::BadCsr { what: err.to_string() })?;
    if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(CaError::BadCsr { what: "its key is not ECDSA P-256 with SHA-256".to_owned() });
    }
    Ok(request)
}

fn make_ca() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    let mark = hex(&Sha256::digest(key.serialize_der())[..4]);
    params.distinguished_name.push(DnType::CommonName, format!("tsubame rack {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = LONG_AGO;
    params.not_after = OffsetDateTime::now_utc() + Duration::days(365 * 20);
    let made = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), made.pem()))
}

fn parse(text: &str) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), String> {
    let certificate = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|err| format!("certificate: {err}"))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|err| format!("key: {err}"))?;
    Ok((certificate, key))
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-21 0:00 UTC);

    fn csr(key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "whatever it likes to be");
        params.serialize_request(key).and_then(|csr| csr.pem()).expect("a request")
    }

    #[test]
    fn a_host_gets_what_the_rack_says_and_not_what_it_asks() {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Ca::open(dir.path()).expect("a CA");
        assert_eq!(ca.digest().len(), 43);
        assert_eq!(Ca::open(dir.path()).expect("the same CA").digest(), ca.digest());
        let key = KeyPair::generate().expect("a key");
        let host: HostId = "h525400aabb01".parse().expect("an id");
        let pem = ca.issue(&host, &csr(&key), [10, 77, 0, 60].into(), NOW).expect("a certificate");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        assert_eq!(
            subject(&der, NOW),
            Some(Subject {
                host,
                key: csr_key(&csr(&key)).expect("a key"),
                issued_ms: NOW.unix_timestamp().unsigned_abs() * 1000
            })
        );
        assert_eq!(subject(&der, NOW + Duration::hours(HOST_HOURS + 1)), None);
        let (_, certificate) = X509Certificate::from_der(&der).expect("X.509");
        assert_eq!(certificate.validity().not_after.timestamp(), NOW.unix_timestamp() + HOST_HOURS * 3600);
        assert!(!certificate.is_ca());
        let (_, own) = X509Certificate::from_der(ca.certificate()).expect("X.509");
        certificate.verify_signature(Some(own.public_key())).expect("signed by the CA");
    }

    #[test]
    fn bad_requests() {
        let good = csr(&KeyPair::generate().expect("a key"));
        assert!(csr_key(&good).is_ok());
        let lines: Vec<&str> = good.lines().collect();
        let broken = lines[3].chars().rev().collect::<String>();
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        for bad in ["", "x", &good.replace(lines[3], &broken), &csr(&other), &"x".repeat(9000)] {
            assert!(matches!(csr_key(bad), Err(CaError::BadCsr { .. })), "{bad}");
        }
    }

    #[test]
    fn signatures_can_be_verified() {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Ca::open(dir.path()).expect("a CA");
        let signature = STANDARD.decode(ca.sign(b"a permit").expect("signed")).expect("base64");
        let (_, own) = X509Certificate::from_der(ca.certificate()).expect("X.509");
        let point = &own.public_key().subject_public_key.data;
        let verify = |bytes: &[u8]| {
            let scheme = rustls::crypto::ring::default_provider().signature_verification_algorithms;
            let p256 = scheme.all.iter().find(|a| a.verify_signature(point, bytes, &signature).is_ok());
            p256.is_some()
        };
        assert!(verify(b"a permit"));
        assert!(!verify(b"another"));
    }

    #[test]
    fn our_own_certificate_is_kept_while_it_fits() {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Ca::open(dir.path()).expect("a CA");
        let server = |name: &str, now| {
            let names = [name.to_owned()];
            ca.server(dir.path(), &names, &[IpAddr::from([10, 77, 0, 1])], now).expect("a certificate").0.remove(0)
        };
        let first = server("a", NOW);
        assert_eq!(server("a", NOW), first);
        let second = server("b", NOW);
        assert_ne!(second, first);
        assert_ne!(server("b", NOW + Duration::days(SERVER_DAYS - SERVER_DAYS_LEFT_MIN)), second);
    }

    #[test]
    fn a_damaged_ca_is_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ca.pem"), "-----BEGIN").expect("written");
        assert!(matches!(Ca::open(dir.path()), Err(CaError::Damaged { .. })));
    }
}
