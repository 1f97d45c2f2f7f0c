//! Who is logged in: one password, a set-up code for the first one, and sessions.
//!
//! Owns: `operator/` in the state directory. At rest there are only hashes: argon2id of the password, sha256 of code and
//! tokens (both are random, so nothing slower is needed). Never does: know what a session may do; it may do all.
//!
//! ```text
//! no password --code + password--> password --password--> session (7 days) --logout | another set-up--> gone
//!      \__ a code is printed at every start        \__ `bootserver setup-code --reset` allows one more set-up
//! ```

use crate::config::files::hex;
use crate::state_dir::{self, StateError};
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::api::{Refusal, Session};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// How long a session lasts, milliseconds.
pub(super) const SESSION_MS: u64 = 7 * 24 * 3_600_000;
/// Sessions at once; the oldest gives way.
const SESSIONS_MAX: usize = 64;
/// Wrong attempts of one address that cost nothing; each one more doubles the wait.
const FREE_ATTEMPTS: u32 = 5;
/// The longest wait, seconds.
const WAIT_S_MAX: u64 = 300;
/// Addresses whose attempts are remembered.
const ADDRESSES_MAX: usize = 1024;
/// Passwords being hashed at once; each takes 19 MiB.
const HASHING_MAX: usize = 2;
/// No letter that looks like a digit (Crockford's base 32).
const CODE_LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The door.
pub struct Sessions {
    dir: PathBuf,
    inner: Mutex<Inner>,
    hashing: Semaphore,
}

#[derive(Default)]
struct Inner {
    /// sha256 of the token to its end, Unix milliseconds.
    live: BTreeMap<String, u64>,
    attempts: HashMap<IpAddr, Attempts>,
}

#[derive(Clone, Copy)]
struct Attempts {
    wrong: u32,
    next_ms: u64,
}

/// Makes a set-up code and keeps its hash; any older code is void. `None` when a password is set and `reset` is not.
pub fn new_setup_code(state: &Path, reset: bool) -> Result<Option<String>, StateError> {
    let dir = state.join("operator");
    state_dir::make(&dir)?;
    if !reset && state_dir::read(&dir.join("password"))?.is_some() {
        return Ok(None);
    }
    let random = random::<16>(&dir)?;
    let letters: Vec<char> = random.iter().map(|b| char::from(CODE_LETTERS[usize::from(b % 32)])).collect();
    let code = letters.chunks(4).map(String::from_iter).collect::<Vec<_>>().join("-");
    state_dir::write(&dir.join("setup"), sha256(&plain(&code)).as_bytes())?;
    Ok(Some(code))
}

impl Sessions {
    /// Takes up the sessions of a state directory.
    pub fn open(state: &Path, now_ms: u64) -> Result<Self, StateError> {
        let dir = state.join("operator");
        state_dir::make(&dir)?;
        let mut live = BTreeMap::new();
        for line in state_dir::read(&dir.join("sessions"))?.unwrap_or_default().lines() {
            // A line that cannot be read is a session that is over.
            if let Some((hash, until)) = line.split_once(' ')
                && let Ok(until) = until.parse()
                && until > now_ms
            {
                live.insert(hash.to_owned(), until);
            }
        }
        let inner = Mutex::new(Inner { live, attempts: HashMap::new() });
        Ok(Self { dir, inner, hashing: Semaphore::new(HASHING_MAX) })
    }

    /// Whether the first password has yet to be chosen.
    pub(super) fn needs_setup(&self) -> bool {
        !self.dir.join("password").exists()
    }

    /// Chooses the password, by a set-up code, which is then spent; all other sessions end.
    pub(super) async fn setup(
        &self,
        code: &str,
        password: &str,
        from: IpAddr,
        now_ms: u64,
    ) -> Result<Session, Refusal> {
        self.may_try(from, now_ms)?;
        let kept = state_dir::read(&self.dir.join("setup")).map_err(unavailable)?;
        let Some(kept) = kept else { return Err(Refusal::AlreadySetUp) };
        if kept != sha256(&plain(code)) {
            self.wrong(from, now_ms);
            return Err(Refusal::WrongPassword);
        }
        let count = password.chars().count();
        if !(10..=200).contains(&count) {
            return Err(Refusal::BadValue {
                field: "password".to_owned(),
                given: format!("{count} characters"),
                expected: "10 to 200 characters".to_owned(),
            });
        }
        let salt = random::<16>(&self.dir).map_err(unavailable)?;
        let password = password.to_owned();
        let hash = self.hash(move || {
            let salt = SaltString::encode_b64(&salt).ok()?;
            Argon2::default().hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()).ok()
        });
        let hash = hash.await?.ok_or_else(|| unavailable("the password could not be hashed"))?;
        state_dir::write(&self.dir.join("password"), hash.as_bytes()).map_err(unavailable)?;
        std::fs::remove_file(self.dir.join("setup")).map_err(unavailable)?;
        self.lock().live.clear();
        self.begin(now_ms)
    }

    /// Logs in.
    pub(super) async fn login(&self, password: &str, from: IpAddr, now_ms: u64) -> Result<Session, Refusal> {
        self.may_try(from, now_ms)?;
        let Some(kept) = state_dir::read(&self.dir.join("password")).map_err(unavailable)? else {
            return Err(Refusal::WrongPassword);
        };
        // Longer ones cannot have been chosen.
        let password: String = password.chars().take(201).collect();
        let right = self.hash(move || {
            let kept = PasswordHash::new(&kept).ok()?;
            Some(Argon2::default().verify_password(password.as_bytes(), &kept).is_ok())
        });
        if right.await?.ok_or_else(|| unavailable("the kept password hash cannot be read"))? {
            self.lock().attempts.remove(&from);
            return self.begin(now_ms);
        }
        self.wrong(from, now_ms);
        Err(Refusal::WrongPassword)
    }

    /// Whether a token is that of a session.
    pub(super) fn is_live(&self, token: &str, now_ms: u64) -> bool {
        self.lock().live.get(&sha256(token)).is_some_and(|&until| until > now_ms)
    }

    /// Ends a session.
    pub(super) fn logout(&self, token: &str) -> Result<(), Refusal> {
        let mut inner = self.lock();
        inner.live.remove(&sha256(token));
        self.keep(&inner)
    }

    fn begin(&self, now_ms: u64) -> Result<Session, Refusal> {
        let token = URL_SAFE_NO_PAD.encode(random::<32>(&self.dir).map_err(unavailable)?);
        let expires_ms = now_ms + SESSION_MS;
        let mut inner = self.lock();
        inner.live.retain(|_, until| *until > now_ms);
        while inner.live.len() >= SESSIONS_MAX
            && let Some(oldest) = inner.live.iter().min_by_key(|(_, until)| **until).map(|(hash, _)| hash.clone())
        {
            inner.live.remove(&oldest);
        }
        inner.live.insert(sha256(&token), expires_ms);
        self.keep(&inner)?;
        Ok(Session { token, expires_ms })
    }

    fn keep(&self, inner: &Inner) -> Result<(), Refusal> {
        let lines: String = inner.live.iter().map(|(hash, until)| format!("{hash} {until}\n")).collect();
        state_dir::write(&self.dir.join("sessions"), lines.as_bytes()).map_err(unavailable)
    }

    /// Runs the slow part apart, a few at once.
    async fn hash<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let _place = self.hashing.try_acquire().map_err(|_| Refusal::TooManyAttempts { retry_s: 1 })?;
        tokio::task::spawn_blocking(work).await.map_err(unavailable)
    }

    fn may_try(&self, from: IpAddr, now_ms: u64) -> Result<(), Refusal> {
        match self.lock().attempts.get(&from) {
            Some(attempts) if attempts.next_ms > now_ms => {
                Err(Refusal::TooManyAttempts { retry_s: (attempts.next_ms - now_ms).div_ceil(1000) })
            }
            _ => Ok(()),
        }
    }

    fn wrong(&self, from: IpAddr, now_ms: u64) {
        let mut inner = self.lock();
        if inner.attempts.len() >= ADDRESSES_MAX {
            // Those who need not wait are forgotten; if all must, the newcomer's attempts go uncounted but for
            // the bound on hashing.
            inner.attempts.retain(|_, attempts| attempts.next_ms > now_ms);
        }
        if inner.attempts.len() >= ADDRESSES_MAX && !inner.attempts.contains_key(&from) {
            return;
        }
        let attempts = inner.attempts.entry(from).or_insert(Attempts { wrong: 0, next_ms: 0 });
        attempts.wrong = attempts.wrong.saturating_add(1);
        if attempts.wrong >= FREE_ATTEMPTS {
            let wait_s = 1_u64.checked_shl(attempts.wrong - FREE_ATTEMPTS).unwrap_or(u64::MAX).min(WAIT_S_MAX);
            attempts.next_ms = now_ms + wait_s * 1000;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each holder leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(err: impl std::fmt::Display) -> Refusal {
    tracing::error!(%err, "sessions");
    Refusal::Unavailable { detail: err.to_string() }
}

fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// A code as it is compared: dashes, spaces and case do not count.
fn plain(code: &str) -> String {
    code.chars().filter(|c| c.is_ascii_alphanumeric()).take(64).collect::<String>().to_ascii_uppercase()
}

fn random<const N: usize>(dir: &Path) -> Result<[u8; N], StateError> {
    let mut bytes = [0; N];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|err| StateError::Io {
        doing: "drawing randomness for",
        path: dir.to_owned(),
        err: std::io::Error::other(err),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn from_set_up_to_logout() {
        let dir = tempfile::tempdir().expect("a directory");
        let sessions = Sessions::open(dir.path(), 0).expect("sessions");
        assert!(sessions.needs_setup());
        assert_eq!(sessions.login("anything at all", HERE, 0).await, Err(Refusal::WrongPassword));
        assert_eq!(sessions.setup("", "a good password", HERE, 0).await, Err(Refusal::AlreadySetUp));
        let first = new_setup_code(dir.path(), false).expect("written").expect("a code");
        let code = new_setup_code(dir.path(), false).expect("written").expect("a code");
        assert_eq!(sessions.setup(&first, "a good password", HERE, 0).await, Err(Refusal::WrongPassword));
        assert!(matches!(sessions.setup(&code, "short", HERE, 0).await, Err(Refusal::BadValue { .. })));
        let typed = code.to_lowercase().replace('-', " ");
        let session = sessions.setup(&typed, "a good password", HERE, 0).await.expect("set up");
        assert!(sessions.is_live(&session.token, SESSION_MS - 1) && !sessions.is_live(&session.token, SESSION_MS));
        assert!(!sessions.needs_setup());
        assert_eq!(sessions.setup(&code, "another password", HERE, 0).await, Err(Refusal::AlreadySetUp));
        assert_eq!(new_setup_code(dir.path(), false).expect("read"), None);
        assert_eq!(sessions.login("a bad password", HERE, 0).await, Err(Refusal::WrongPassword));
        let second = sessions.login("a good password", HERE, 0).await.expect("logged in");
        // A restart logs nobody out, and no token is on disk.
        let again = Sessions::open(dir.path(), 1).expect("sessions");
        assert!(again.is_live(&second.token, 1) && !again.is_live("x", 1));
        let kept = std::fs::read_to_string(dir.path().join("operator/sessions")).expect("read");
        assert!(!kept.contains(&second.token));
        again.logout(&second.token).expect("logged out");
        assert!(!again.is_live(&second.token, 1) && again.is_live(&session.token, 1));
        let reset = new_setup_code(dir.path(), true).expect("written").expect("a code");
        again.setup(&reset, "a new password", HERE, 1).await.expect("set up again");
        assert!(!again.is_live(&session.token, 1));
    }

    #[tokio::test]
    async fn guessing_is_slow() {
        let dir = tempfile::tempdir().expect("a directory");
        let sessions = Sessions::open(dir.path(), 0).expect("sessions");
        new_setup_code(dir.path(), false).expect("written");
        let (mut now_ms, mut tries) = (0, 0);
        while now_ms < 3_600_000 {
            match sessions.setup("no", "a good password", HERE, now_ms).await {
                Err(Refusal::WrongPassword) => tries += 1,
                Err(Refusal::TooManyAttempts { retry_s }) => now_ms += retry_s * 1000,
                other => panic!("{other:?}"),
            }
        }
        assert!(tries < 30, "{tries} guesses in an hour");
        let other = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(sessions.setup("no", "a good password", other, 0).await, Err(Refusal::WrongPassword));
    }
}
