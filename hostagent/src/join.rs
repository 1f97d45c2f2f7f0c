//! How this host is let in: pin the CA, make a key, ask, wait.
//!
//! ```text
//! /ca.pem, sha256 as on the command line ──> key in RAM ──> POST /v1/join ──> Waiting: GET /v1/join/KEY … ──> Accepted
//! ```
//! Owns: the key and certificate in /run/tsubame (RAM, mode 0600), so that an agent that restarts goes on as the same boot with the same key. Never
//! does: sending the key anywhere.

use crate::boot::Boot;
use crate::fetch::{self, hex};
use crate::identity::{self, Ca, Clock, Identity};
use crate::uplink::{Connection, UplinkError};
use proto::agent::{JoinAnswer, JoinRefusal, JoinRequest, Renew};
use proto::host::Inventory;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Between two attempts that failed for want of an answer.
const RETRY_MS: u64 = 1_000;
/// Between two questions of a host that was refused: an operator may change that.
const REFUSED_RETRY_MS: u64 = 15_000;

/// Why a step of joining failed; each is tried again.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No CA certificate.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    /// Another CA than this machine was booted for.
    #[error("the CA at {from} has sha256 {got}, the kernel command line pins {pinned}: another server answers there")]
    OtherCa {
        /// Where.
        from: String,
        /// Its digest.
        got: String,
        /// The pinned one.
        pinned: String,
    },
    /// TLS.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The server.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// Key or signing request.
    #[error("making key or signing request: {0}")]
    Key(#[from] rcgen::Error),
    /// What came is no certificate, or what is kept cannot be used.
    #[error("{what}: {why}")]
    Form {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// The pinned CA's certificate, kept beside the key.
const CA: &str = "ca.pem";

fn is_pinned(pem: &[u8], boot: &Boot) -> bool {
    CertificateDer::from_pem_slice(pem).is_ok_and(|der| digest(&SHA256, &der).as_ref() == boot.ca)
}

/// What is kept for a restart.
#[derive(Serialize, Deserialize)]
struct Kept {
    nonce: String,
    key_pem: String,
    certificate_pem: Option<String>,
}

/// A host that may report.
pub struct Joined {
    /// Its key and certificate.
    pub identity: Arc<Identity>,
    /// Unix milliseconds at which to ask for a new certificate.
    pub renew_at_ms: u64,
}

/// The way in, with the key of this boot.
pub struct Join {
    boot: Boot,
    ca: Ca,
    clock: Arc<Clock>,
    key: KeyPair,
    dir: std::path::PathBuf,
    kept_certificate: Option<String>,
}

impl Join {
    /// Pins the CA, then takes up this boot's key or makes one. `dir` lies in RAM.
    ///
    /// # Errors
    /// What failed; to be tried again.
    pub async fn begin(boot: &Boot, clock: &Arc<Clock>, dir: &Path) -> Result<Self, JoinError> {
        // An agent that restarts must not wait for a server that is away: its watchdog runs.
        let kept_ca = fs::read(dir.join(CA)).ok().filter(|pem| is_pinned(pem, boot));
        let (pem, date) = match kept_ca {
            Some(pem) => (pem, None),
            None => fetch::ca_pem(boot.boot).await.map(|(pem, date)| (pem.to_vec(), date))?,
        };
        let der = CertificateDer::from_pem_slice(&pem).map_err(|e| form("reading the CA's certificate", e))?;
        let got = digest(&SHA256, &der);
        if got.as_ref() != boot.ca {
            let from = format!("http://{}/ca.pem", boot.boot);
            return Err(JoinError::OtherCa { from, got: hex(got.as_ref()), pinned: hex(&boot.ca) });
        }
        write_secret(&dir.join(CA), &pem).map_err(|e| form("keeping the CA's certificate", e))?;
        if let Some(unix_ms) = date.as_deref().and_then(identity::http_date_ms) {
            clock.hint(unix_ms);
        }
        let kept = fs::read(dir.join("identity.json")).ok();
        let kept: Option<Kept> = kept.and_then(|k| serde_json::from_slice(&k).ok());
        let (key, kept_certificate) = match kept.filter(|k| k.nonce == boot.nonce) {
            Some(kept) => (KeyPair::from_pem(&kept.key_pem)?, kept.certificate_pem),
            None => (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?, None),
        };
        let dir = dir.to_owned();
        let join = Self { boot: boot.clone(), ca: Ca::new(der)?, clock: clock.clone(), key, dir, kept_certificate };
        join.keep(join.kept_certificate.as_deref())?;
        Ok(join)
    }

    /// sha256 of the public key (SubjectPublicKeyInfo), in hexadecimal: what the server knows this machine by.
    pub fn key_id(&self) -> String {
        hex(digest(&SHA256, &self.key.subject_public_key_info()).as_ref())
    }

    /// Asks until this host is let in; a process that finds a certificate of this boot goes on with it.
    pub async fn until_accepted(&mut self, inventory: &Inventory) -> Joined {
        if let Some(pem) = self.kept_certificate.take() {
            match self.identity(&pem) {
                // It is renewed at once: how long it lasts was not kept.
                Ok(identity) => return Joined { identity, renew_at_ms: 0 },
                Err(error) => tracing::warn!(%error, "the kept certificate cannot be used"),
            }
        }
        let mut asked = false;
        let mut last = String::new();
        loop {
            let wait_ms = match self.ask(inventory, &mut asked).await {
                Ok(JoinAnswer::Accepted { certificate_pem, renew_ms }) => match self.accepted(&certificate_pem) {
                    Ok(identity) => {
                        return Joined { identity, renew_at_ms: self.clock.unix_ms().saturating_add(renew_ms) };
                    }
                    Err(e) => say(&mut last, e.to_string(), RETRY_MS),
                },
                Ok(JoinAnswer::Waiting { retry_ms }) => {
                    say(&mut last, "waiting to be accepted".to_owned(), retry_ms.clamp(200, 60_000))
                }
                Ok(JoinAnswer::Refused { refusal }) => {
                    // Only a join that was kept for an operator's word may be asked about again.
                    asked = false;
                    say(&mut last, format!("refused: {}", why(&refusal)), REFUSED_RETRY_MS)
                }
                Err(e) => {
                    asked = false;
                    say(&mut last, e.to_string(), RETRY_MS)
                }
            };
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    async fn ask(&self, inventory: &Inventory, asked: &mut bool) -> Result<JoinAnswer, JoinError> {
        let config = identity::anonymous(&self.ca, &self.clock, &[b"h2"])?;
        let mut connection = Connection::open(self.boot.server, config, &self.clock).await?;
        if *asked {
            return Ok(connection.get(&format!("/v1/join/{}", self.key_id())).await?);
        }
        let request = JoinRequest {
            host: self.boot.host.clone(),
            nonce: self.boot.nonce.clone(),
            csr_pem: self.csr_pem()?,
            inventory: inventory.clone(),
        };
        let answer = connection.post("/v1/join", &request).await?;
        *asked = true;
        Ok(answer)
    }

    /// Asks for a new certificate for the same key.
    ///
    /// # Errors
    /// What failed; to be tried again.
    pub async fn renew(&self, connection: &mut Connection) -> Result<Joined, JoinError> {
        match connection.post("/v1/renew", &Renew { csr_pem: self.csr_pem()? }).await? {
            JoinAnswer::Accepted { certificate_pem, renew_ms } => {
                let identity = self.accepted(&certificate_pem)?;
                Ok(Joined { identity, renew_at_ms: self.clock.unix_ms().saturating_add(renew_ms) })
            }
            other => Err(form("renewing the certificate", format!("{other:?}"))),
        }
    }

    fn accepted(&self, certificate_pem: &str) -> Result<Arc<Identity>, JoinError> {
        let identity = self.identity(certificate_pem)?;
        self.keep(Some(certificate_pem))?;
        Ok(identity)
    }

    fn identity(&self, certificate_pem: &str) -> Result<Arc<Identity>, JoinError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect();
        let chain = chain.map_err(|e| form("reading this host's certificate", e))?;
        let key = self.key.serialize_der();
        let identity = Identity::new(self.boot.host.clone(), self.ca.clone(), self.clock.clone(), key, chain);
        // Whether it can be used shows here rather than at the first migration.
        identity.server()?;
        identity.client(&[])?;
        Ok(Arc::new(identity))
    }

    fn csr_pem(&self) -> Result<String, JoinError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.boot.host.as_str());
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    fn keep(&self, certificate_pem: Option<&str>) -> Result<(), JoinError> {
        let kept = Kept {
            nonce: self.boot.nonce.clone(),
            key_pem: self.key.serialize_pem(),
            certificate_pem: certificate_pem.map(str::to_owned),
        };
        let text = serde_json::to_vec(&kept).map_err(|e| form("keeping the key", e))?;
        write_secret(&self.dir.join("identity.json"), &text).map_err(|e| form("keeping the key", e))
    }
}

/// Writes a file that only root may read, as a whole: what was there stays until the new is complete.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    fs::rename(&new, path)
}

/// Says what has changed since it was said last, and passes on how long to wait.
fn say(last: &mut String, now: String, wait_ms: u64) -> u64 {
    if *last != now {
        tracing::info!(now, "join");
        *last = now;
    }
    wait_ms
}

fn why(refusal: &JoinRefusal) -> &'static str {
    match refusal {
        JoinRefusal::NonceUsed => "this boot's nonce was used by another key; start the machine again",
        JoinRefusal::NonceUnknown => "the server knows no such nonce; start the machine again",
        JoinRefusal::NotKnown => "only registered machines are let in",
        JoinRefusal::AlreadyActive => "another machine of this name is active",
        JoinRefusal::Removed => "an operator has removed this host",
        JoinRefusal::BadCsr => "the server cannot read the signing request",
    }
}

fn form(what: &'static str, why: impl std::fmt::Display) -> JoinError {
    JoinError::Form { what, why: why.to_string() }
}
