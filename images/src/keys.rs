//! Keys for Secure Boot: made here, kept by the operator, used to sign EFI binaries.
//!
//! ```text
//! DIR/            mode 0700
//!   PK.key PK.pem PK.der      the platform's owner
//!   KEK.key KEK.pem KEK.der   who may change db
//!   db.key db.pem db.der      what may boot: images are signed by it
//! ```
//! Never does: put a private key anywhere else, or write over one.

use crate::{BuildError, run};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who signs.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The private key, PEM.
    pub key: PathBuf,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
}

/// Makes three keys with their certificates, valid for ten years.
///
/// # Errors
/// A directory that is there already; openssl missing or failing.
pub fn make(dir: &Path) -> Result<(), BuildError> {
    fs::DirBuilder::new().mode(0o700).create(dir).map_err(BuildError::file("making", dir))?;
    for (name, subject) in [("PK", "platform key"), ("KEK", "key exchange key"), ("db", "boot key")] {
        let file = |end: &str| dir.join(format!("{name}.{end}"));
        // The directory is closed to others from its making on, so the key is at no moment open to them.
        run(Command::new("openssl")
            .args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", "-days", "3650"])
            .args(["-subj", &format!("/CN=Tsubame {subject}/")])
            .arg("-keyout")
            .arg(file("key"))
            .arg("-out")
            .arg(file("pem")))?;
        let key = file("key");
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&key, mode).map_err(BuildError::file("setting the mode of", &key))?;
        der(&file("pem"), &file("der"))?;
    }
    Ok(())
}

/// A certificate in the form that firmware takes and of which digests are.
pub(crate) fn der(pem: &Path, out: &Path) -> Result<(), BuildError> {
    run(Command::new("openssl").args(["x509", "-outform", "DER", "-in"]).arg(pem).arg("-out").arg(out))
}

impl Signer {
    /// A key and the certificate beside it: `db.key`, `db.pem`.
    ///
    /// # Errors
    /// A key that others may read.
    pub fn of(key: &Path) -> Result<Self, BuildError> {
        let mode = fs::metadata(key).map_err(BuildError::file("reading", key))?.permissions().mode();
        if mode & 0o077 != 0 {
            let err = std::io::Error::other(format!("is open to others, mode {:04o}; chmod 600 it", mode & 0o7777));
            return Err(BuildError::file("taking", key)(err));
        }
        Ok(Self { key: key.to_owned(), certificate: key.with_extension("pem") })
    }

    /// Signs an EFI binary in its place, and checks the signature.
    ///
    /// # Errors
    /// sbsign or sbverify (package `sbsigntool`) missing or failing.
    pub fn sign(&self, efi: &Path) -> Result<(), BuildError> {
        let signed = efi.with_extension("signed");
        run(Command::new("sbsign")
            .arg("--key")
            .arg(&self.key)
            .arg("--cert")
            .arg(&self.certificate)
            .arg("--output")
            .arg(&signed)
            .arg(efi))?;
        run(Command::new("sbverify").arg("--cert").arg(&self.certificate).arg(&signed))?;
        fs::rename(&signed, efi).map_err(BuildError::file("publishing", efi))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_closed_to_others_and_never_written_over() {
        let base = tempfile::tempdir().expect("a directory");
        let dir = base.path().join("keys");
        make(&dir).expect("openssl runs; `make setup` installs it");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode(&dir), 0o700);
        for name in ["PK.key", "KEK.key", "db.key"] {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
        let before = fs::read(dir.join("db.key")).expect("read");
        assert!(make(&dir).is_err(), "they are there");
        assert_eq!(fs::read(dir.join("db.key")).expect("read"), before);
        Signer::of(&dir.join("db.key")).expect("it is closed");
        fs::set_permissions(dir.join("db.key"), fs::Permissions::from_mode(0o640)).expect("set");
        let err = Signer::of(&dir.join("db.key")).expect_err("it is open").to_string();
        assert!(err.ends_with("is open to others, mode 0640; chmod 600 it"), "{err}");
    }
}
