//! Which server, which CA, which token: from the session file and the environment.
//!
//! Owns: `$XDG_CONFIG_HOME/tsubame/session.json` (mode 0600 in a directory of mode 0700) and the rule by which
//! `TSUBAME_URL`, `TSUBAME_TOKEN` and `TSUBAME_CA` override it. Never does: sending a saved token to a server other than
//! the one it came from.

use crate::fault::Fault;
use crate::trust::{self, Fingerprint};
use crate::url::ServerUrl;
use proto::agent::Secret;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What is kept between commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// The server.
    pub(crate) url: String,
    /// The CA that was pinned at login.
    pub(crate) ca_pem: String,
    /// The session; absent after logout, when server and CA are still known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    /// When the session ends, Unix milliseconds.
    #[serde(default)]
    pub(crate) expires_ms: u64,
}

/// What the environment says. Empty variables count as absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// `TSUBAME_URL`.
    pub(crate) url: Option<String>,
    /// `TSUBAME_TOKEN`.
    pub(crate) token: Option<Secret>,
    /// `TSUBAME_CA`: a fingerprint, or the path of a PEM file.
    pub(crate) ca: Option<String>,
    /// `XDG_CONFIG_HOME`, or `.config` in `HOME`.
    pub(crate) config_home: Option<PathBuf>,
}

/// Where to send requests, whom to trust, and as whom.
#[derive(Debug)]
pub(crate) struct Access {
    /// The server.
    pub(crate) url: ServerUrl,
    /// The CA, if any is known for that server.
    pub(crate) ca: Option<CaSource>,
    /// The session, if there is one.
    pub(crate) token: Option<Secret>,
}

/// A CA as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaSource {
    /// The certificate itself.
    Certificate(CertificateDer<'static>),
    /// Its fingerprint; the certificate is among those the server shows.
    Pin(Fingerprint),
}

impl Environment {
    /// Reads the process's environment.
    pub(crate) fn read() -> Self {
        let text = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        let path = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            url: text("TSUBAME_URL"),
            token: text("TSUBAME_TOKEN").map(Secret),
            ca: text("TSUBAME_CA"),
            // The XDG base directory specification says that a relative path is to be ignored.
            config_home: path("XDG_CONFIG_HOME")
                .filter(|p| p.is_absolute())
                .or_else(|| path("HOME").map(|home| home.join(".config"))),
        }
    }

    /// The session file.
    ///
    /// # Errors
    /// `Usage` when neither variable says where.
    pub(crate) fn session_file(&self) -> Result<PathBuf, Fault> {
        let home = self.config_home.as_ref().ok_or_else(|| {
            Fault::Usage("there is no place for the session: neither XDG_CONFIG_HOME nor HOME is set".into())
        })?;
        Ok(home.join("tsubame").join("session.json"))
    }
}

/// Reads the session file; none is no fault.
///
/// # Errors
/// `File` when it cannot be read, is no session, or can be read by others.
pub(crate) fn load(path: &Path) -> Result<Option<Saved>, Fault> {
    let fault = |source| Fault::File { doing: "reading", path: path.display().to_string(), source };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fault(e)),
    };
    let mode = fs::metadata(path).map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(fault(io::Error::other(format!(
            "it holds a session and others can read it (mode {mode:04o}): run chmod 600 on it"
        ))));
    }
    let saved = serde_json::from_str(&text)
        .map_err(|e| fault(io::Error::other(format!("it is no session ({e}): remove it and log in again"))))?;
    Ok(Some(saved))
}

/// Writes the session file whole, readable by its owner alone from its first byte on.
///
/// # Errors
/// `File`.
pub(crate) fn store(path: &Path, saved: &Saved) -> Result<(), Fault> {
    let fault = |source| Fault::File { doing: "writing", path: path.display().to_string(), source };
    let folder = path.parent().ok_or_else(|| fault(io::Error::other("it has no folder")))?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    let text = serde_json::to_string_pretty(saved).map_err(|e| fault(e.into()))?;
    let new = folder.join(format!(".session.{}", std::process::id()));
    let written = (|| {
        // Left over from a process of the same number that was killed here.
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    written.map_err(|e| {
        // The first fault is the one to tell.
        let _ = fs::remove_file(&new);
        fault(e)
    })
}

/// Settles server, CA and token. A saved CA or token counts only for the server it was saved with.
///
/// # Errors
/// `NotLoggedIn` when no server is known, `Usage` when the environment or the file cannot be understood.
pub(crate) fn access(doing: &str, environment: &Environment, saved: Option<&Saved>) -> Result<Access, Fault> {
    let saved = match saved {
        Some(saved) => {
            let url: ServerUrl = saved.url.parse().map_err(|e| Fault::Usage(format!("the session file: {e}")))?;
            Some((url, saved))
        }
        None => None,
    };
    let url = match (&environment.url, &saved) {
        (Some(given), _) => given.parse().map_err(|e| Fault::Usage(format!("TSUBAME_URL: {e}")))?,
        (None, Some((url, _))) => url.clone(),
        (None, None) => {
            return Err(Fault::NotLoggedIn { doing: doing.to_owned(), why: "no server is known".into() });
        }
    };
    let same = saved.filter(|(saved_url, _)| *saved_url == url).map(|(_, saved)| saved);
    let ca = match (&environment.ca, same) {
        (Some(given), _) => Some(ca_given(given)?),
        (None, Some(saved)) => Some(CaSource::Certificate(
            trust::from_pem(&saved.ca_pem).map_err(|e| Fault::Usage(format!("the session file's CA: {e}")))?,
        )),
        (None, None) => None,
    };
    if environment.token.as_ref().is_some_and(|token| !token.0.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(Fault::Usage("TSUBAME_TOKEN is no session's token: it has characters that none has".into()));
    }
    let token = environment.token.clone().or_else(|| same.and_then(|saved| saved.token.clone()));
    Ok(Access { url, ca, token })
}

fn ca_given(given: &str) -> Result<CaSource, Fault> {
    let not_pin = match given.parse() {
        Ok(pin) => return Ok(CaSource::Pin(pin)),
        Err(e) => e,
    };
    let pem = fs::read_to_string(given)
        .map_err(|e| Fault::Usage(format!("TSUBAME_CA: {not_pin}, and no file either: {e}")))?;
    let certificate = trust::from_pem(&pem).map_err(|e| Fault::Usage(format!("TSUBAME_CA: {given}: {e}")))?;
    Ok(CaSource::Certificate(certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(url: &str) -> Saved {
        let ca_pem = trust::to_pem(&CertificateDer::from(vec![1, 2, 3]));
        Saved { url: url.into(), ca_pem, token: Some(Secret("t".into())), expires_ms: 7 }
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("deep/tsubame/session.json");
        assert_eq!(load(&path).expect("no file is no fault"), None);
        store(&path, &saved("https://old")).expect("stored");
        store(&path, &saved("https://a")).expect("stored over the old one");
        let mode = |p: &Path| fs::metadata(p).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("its folder"))), (0o600, 0o700));
        assert_eq!(load(&path).expect("read"), Some(saved("https://a")));
        assert_eq!(fs::read_dir(path.parent().expect("its folder")).expect("listed").count(), 1);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("mode set");
        let fault = load(&path).expect_err("others can read it").to_string();
        assert!(fault.contains("mode 0640"), "{fault}");
    }

    #[test]
    fn a_token_goes_to_its_own_server_only() {
        let saved = saved("https://a");
        let none = Environment::default();
        let here = access("x", &none, Some(&saved)).expect("saved");
        assert!(here.token.is_some() && here.ca.is_some());
        let elsewhere = Environment { url: Some("https://b".into()), ..none.clone() };
        let there = access("x", &elsewhere, Some(&saved)).expect("a URL is enough");
        assert!(there.token.is_none() && there.ca.is_none());
        let pin = Fingerprint::of(&CertificateDer::from(vec![9]));
        let whole = Environment { token: Some(Secret("e".into())), ca: Some(pin.to_string()), ..elsewhere };
        let there = access("x", &whole, Some(&saved)).expect("all of it from the environment");
        assert_eq!((there.token, there.ca), (Some(Secret("e".into())), Some(CaSource::Pin(pin))));
        assert_eq!(access("x", &none, None).expect_err("nothing is known").exit_code(), 4);
    }
}
