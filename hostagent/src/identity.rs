//! Who this host is on the wire: its key and certificate, the pinned CA, and the time by which certificates are judged.
//!
//! Owns: TLS configurations, reading names out of certificates, the clock. Never does: connections. The key stays in RAM: in this process,
//! and in /run/tsubame for an agent that restarts.
//!
//! The time. dom0's clock may be wrong by years, and certificates are judged by time. Until something authentic is known, the
//! `Date` that came with `/ca.pem` over plain HTTP is taken as a hint, for judging the server's certificate only: who lies about it can at
//! most pass off a certificate of the pinned CA whose time is over, and needs its private key for that. The first answer
//! that came through TLS ends this: its `Date` sets the host's clock when that is off by more than [`CLOCK_OFF_MS`], and no hint is taken again.

use proto::HostId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Off by this much, the host's clock is set.
pub const CLOCK_OFF_MS: u64 = 2_000;

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// rustls refused the key, the certificate or the CA.
    #[error("using key and certificates for TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The CA cannot judge clients.
    #[error("using the CA to judge who connects: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A certificate that cannot be read.
    #[error("reading {what}: {why}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// A CA that was pinned.
#[derive(Debug, Clone)]
pub struct Ca {
    /// Its certificate.
    pub der: CertificateDer<'static>,
    /// Its public key, an uncompressed P-256 point: permits are signed with it.
    pub key: Vec<u8>,
    roots: Arc<RootCertStore>,
}

impl Ca {
    /// Reads a CA certificate.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(der: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| wrong("the CA", e))?;
        let key = parsed.public_key().subject_public_key.data.to_vec();
        let mut roots = RootCertStore::empty();
        roots.add(der.clone())?;
        Ok(Self { der, key, roots: Arc::new(roots) })
    }
}

/// A host with its certificate.
#[derive(Debug)]
pub struct Identity {
    /// Who.
    pub host: HostId,
    /// Whom it trusts.
    pub ca: Ca,
    /// By which time.
    pub clock: Arc<Clock>,
    key: Vec<u8>,
    chain: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// From a PKCS#8 key and a certificate with its chain.
    pub fn new(host: HostId, ca: Ca, clock: Arc<Clock>, key: Vec<u8>, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { host, ca, clock, key, chain }
    }

    /// Unix milliseconds after which nobody takes its certificate; 0 when that cannot be read.
    pub fn ends_ms(&self) -> u64 {
        let parsed = self.chain.first().and_then(|der| x509_parser::parse_x509_certificate(der).ok());
        let ends_s = parsed.map_or(0, |(_, certificate)| certificate.validity().not_after.timestamp());
        u64::try_from(ends_s).unwrap_or(0).saturating_mul(1000)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// To connect as this host, by TLS 1.3 alone.
    ///
    /// # Errors
    /// When key and certificate do not fit.
    pub fn client(&self, alpn: &[&[u8]]) -> Result<ClientConfig, IdentityError> {
        let builder = client_builder(&self.ca, &self.clock)?;
        let mut config = builder.with_client_auth_cert(self.chain.clone(), self.key())?;
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(config)
    }

    /// To be connected to by other hosts of this CA, by TLS 1.3 alone.
    ///
    /// # Errors
    /// When key and certificate do not fit.
    pub fn server(&self) -> Result<ServerConfig, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.ca.roots.clone(), provider.clone()).build()?;
        let config = ServerConfig::builder_with_details(provider, self.clock.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key())?;
        Ok(config)
    }
}

/// To connect as nobody, for the join.
///
/// # Errors
/// When rustls refuses.
pub fn anonymous(ca: &Ca, clock: &Arc<Clock>, alpn: &[&[u8]]) -> Result<ClientConfig, IdentityError> {
    let mut config = client_builder(ca, clock)?.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

fn client_builder(
    ca: &Ca,
    clock: &Arc<Clock>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, IdentityError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, clock.clone());
    Ok(builder.with_protocol_versions(&[&rustls::version::TLS13])?.with_root_certificates(ca.roots.clone()))
}

/// The host named by a certificate's common name.
///
/// # Errors
/// When there is none, or it is no host's name.
pub fn common_name(der: &CertificateDer<'_>) -> Result<HostId, IdentityError> {
    let what = "the peer's certificate";
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|e| wrong(what, e))?;
    let name = parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok());
    name.unwrap_or_default().parse().map_err(|e| wrong(what, e))
}

fn wrong(what: &'static str, why: impl std::fmt::Display) -> IdentityError {
    IdentityError::Certificate { what, why: why.to_string() }
}

/// Unix time, corrected by what the server said.
#[derive(Debug, Default)]
pub struct Clock {
    hint_ms: AtomicI64,
    authentic: AtomicBool,
}

impl Clock {
    /// Unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        system_ms().saturating_add_signed(self.hint_ms.load(Ordering::Relaxed))
    }

    /// A date that came over an open wire.
    pub fn hint(&self, unix_ms: u64) {
        if !self.authentic.load(Ordering::Relaxed) {
            self.hint_ms.store(unix_ms as i64 - system_ms() as i64, Ordering::Relaxed);
        }
    }

    /// A date that came from the server through TLS: sets the host's clock when that is off.
    pub fn authentic(&self, unix_ms: u64) {
        self.corrected(unix_ms, set_system_ms);
    }

    /// `set` sets the host's clock, and says whether it could: a test has one that does not.
    fn corrected(&self, unix_ms: u64, set: impl FnOnce(u64) -> bool) {
        let off_ms = unix_ms as i64 - system_ms() as i64;
        self.authentic.store(true, Ordering::Relaxed);
        if off_ms.unsigned_abs() <= CLOCK_OFF_MS {
            return self.hint_ms.store(0, Ordering::Relaxed);
        }
        let set = set(unix_ms);
        tracing::info!(off_ms, set, "the host's clock was off");
        self.hint_ms.store(if set { 0 } else { off_ms }, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.unix_ms())))
    }
}

fn system_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Whether it could be set.
fn set_system_ms(unix_ms: u64) -> bool {
    let time = nix::libc::timespec {
        tv_sec: (unix_ms / 1000) as nix::libc::time_t,
        tv_nsec: (unix_ms % 1000 * 1_000_000) as nix::libc::c_long,
    };
    // SAFETY: reads one timespec.
    unsafe { nix::libc::clock_settime(nix::libc::CLOCK_REALTIME, &time) == 0 }
}

/// Unix milliseconds of an HTTP `Date` (RFC 9110 §5.6.7, the preferred form): `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date_ms(date: &str) -> Option<u64> {
    let rest = date.split_once(", ")?.1.strip_suffix(" GMT")?;
    let parts: Vec<&str> = rest.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second] = parts[..] else { return None };
    let number = |text: &str| text.parse::<u64>().ok();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|m| *m == month)? as u64 + 1;
    let (day, year) = (number(day)?, number(year)?);
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 by counting years from March, so that a leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(http_date_ms("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(http_date_ms("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date_ms("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199_000));
        for bad in ["", "Sun, 06 Nov 1994 08:49:37", "Sunday, 06-Nov-94 08:49:37 GMT", "x, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(http_date_ms(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_hint_is_taken_until_the_server_has_spoken() {
        let clock = Clock::default();
        clock.hint(5_000_000_000_000);
        assert!(clock.unix_ms() >= 5_000_000_000_000);
        // A machine that stalls here finds its clock off: it then goes on as one whose clock was set.
        clock.corrected(system_ms(), |_| true);
        clock.hint(5_000_000_000_000);
        let (before, now, after) = (system_ms(), clock.unix_ms(), system_ms());
        assert!((before..=after).contains(&now), "{before} {now} {after}");
    }

    #[test]
    fn a_clock_that_is_off_is_set_or_corrected() {
        for could in [true, false] {
            let (clock, mut told) = (Clock::default(), None);
            clock.corrected(5_000_000_000_000, |unix_ms| {
                told = Some(unix_ms);
                could
            });
            assert_eq!(told, Some(5_000_000_000_000));
            // Set by nobody, the host's clock is as far off as it was.
            assert_eq!(clock.unix_ms() >= 5_000_000_000_000, !could);
        }
    }
}
