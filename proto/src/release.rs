//! Releases: sets of files that hosts or guests boot, named by what is in them, and pools of hosts that point at one.

use crate::api::Refusal;
use crate::ids::{HostId, IdError, check_name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Digits of a release's id: 48 bits of a sha256. It stands on dom0's command line, which is short.
pub const ID_DIGITS: usize = 12;
/// Files of one release, at most.
pub const FILES_MAX: usize = 32;
/// Bytes of one file, at most: 1 TiB.
pub const FILE_BYTES_MAX: u64 = 1 << 40;
/// Bytes of a file that one upload carries, at most.
pub const PART_BYTES_MAX: usize = 1 << 20;
/// The longest name of a release or of a role, characters.
const TEXT_CHARS_MAX: usize = 63;

/// A release, by the first digits of the sha256 of its name, version, kind and files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, pattern = "^[0-9a-f]{12}$"))]
pub struct ReleaseId(String);

impl ReleaseId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no release's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseIdError {
    given: String,
}

impl fmt::Display for ReleaseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no release's id: expected {ID_DIGITS} of 0-9 and a-f", self.given)
    }
}

impl std::error::Error for ReleaseIdError {}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ReleaseId {
    type Err = ReleaseIdError;
    fn from_str(given: &str) -> Result<Self, ReleaseIdError> {
        match is_hex(given, ID_DIGITS) {
            true => Ok(Self(given.to_owned())),
            false => Err(ReleaseIdError { given: given.chars().take(80).collect() }),
        }
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = ReleaseIdError;
    fn try_from(given: String) -> Result<Self, ReleaseIdError> {
        given.parse()
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> String {
        id.0
    }
}

/// A pool of hosts: 1 to 63 of a-z, 0-9 and '-'.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
pub struct PoolId(String);

impl PoolId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PoolId {
    /// The pool of hosts that nobody has put into another.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for PoolId {
    type Err = IdError;
    fn from_str(given: &str) -> Result<Self, IdError> {
        check_name(given).map(|()| Self(given.to_owned()))
    }
}

impl TryFrom<String> for PoolId {
    type Error = IdError;
    fn try_from(given: String) -> Result<Self, IdError> {
        given.parse()
    }
}

impl From<PoolId> for String {
    fn from(id: PoolId) -> String {
        id.0
    }
}

/// What boots a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ReleaseKind {
    /// Hosts.
    #[default]
    Dom0,
    /// Guests.
    Guest,
}

impl fmt::Display for ReleaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dom0 => "dom0",
            Self::Guest => "guest",
        })
    }
}

/// What is in a release. Nothing of it ever changes: other files, or another name, are another release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Manifest {
    /// Its name, 1 to 63 of letters, digits, '.', '_', '+' and '-'.
    pub name: String,
    /// Its version; of two of one name the newer has the higher.
    pub version: u64,
    /// What boots it.
    pub kind: ReleaseKind,
    /// Its files by their role, such as `xen`, `vmlinuz`, `dom0.squashfs`; 1 to 32.
    pub files: BTreeMap<String, ReleaseFile>,
    /// Debian's version of Xen that it was built from; empty when unknown.
    #[serde(default)]
    pub xen: String,
    /// Debian's version of the kernel that it was built from; empty when unknown.
    #[serde(default)]
    pub kernel: String,
    /// When it was built, Unix milliseconds.
    #[serde(default)]
    pub built_ms: Option<u64>,
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseFile {
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes, up to 1 TiB.
    pub bytes: u64,
}

/// Whether a text is so many hexadecimal digits in lower case.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What a manifest has wrong: the field, what stands there, what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// Which.
    pub field: String,
    /// What was given.
    pub given: String,
    /// What was expected.
    pub expected: String,
}

impl From<ManifestError> for Refusal {
    fn from(ManifestError { field, given, expected }: ManifestError) -> Self {
        Self::BadValue { field, given, expected }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:?}, expected {}", self.field, self.given, self.expected)
    }
}

impl Manifest {
    /// Name and version, as a person calls it.
    pub fn title(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.values().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Checks every text and number. That a role is no path is seen to here: it becomes the last part of a URL.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        let wrong = |field: String, given: &str, expected: &str| {
            Err(ManifestError { field, given: given.chars().take(80).collect(), expected: expected.to_owned() })
        };
        let plain = |text: &str| {
            (1..=TEXT_CHARS_MAX).contains(&text.len())
                && !text.starts_with('.')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-'))
        };
        let text = "1 to 63 of letters, digits, '.', '_', '+' and '-', not beginning with '.'";
        if !plain(&self.name) {
            return wrong("name".to_owned(), &self.name, text);
        }
        for (field, given) in [("xen", &self.xen), ("kernel", &self.kernel)] {
            if given.len() > TEXT_CHARS_MAX || !given.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                return wrong(field.to_owned(), given, "a version of up to 63 characters");
            }
        }
        if !(1..=FILES_MAX).contains(&self.files.len()) {
            return wrong("files".to_owned(), &self.files.len().to_string(), "1 to 32 of them");
        }
        for (role, file) in &self.files {
            if !plain(role) {
                return wrong("a file's role".to_owned(), role, text);
            }
            if !is_hex(&file.sha256, 64) {
                return wrong(format!("sha256 of {role}"), &file.sha256, "64 hexadecimal digits in lower case");
            }
            if file.bytes > FILE_BYTES_MAX {
                return wrong(format!("bytes of {role}"), &file.bytes.to_string(), "1 TiB or less");
            }
        }
        Ok(())
    }
}

/// `manifest.json` as the builder of images writes it, as far as it is read.
#[derive(Debug, Clone, Deserialize)]
pub struct BuiltManifest {
    /// The recipe's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Each file by its name, which is its role.
    pub files: BTreeMap<String, BuiltFile>,
    /// Debian packages with their versions.
    #[serde(default)]
    pub packages: BTreeMap<String, String>,
}

/// A file of [`BuiltManifest`].
#[derive(Debug, Clone, Deserialize)]
pub struct BuiltFile {
    /// 64 hexadecimal digits.
    pub sha256: String,
}

impl BuiltManifest {
    /// The version of the first package whose name begins so; empty when there is none.
    fn package(&self, prefix: &str) -> String {
        let found = self.packages.iter().find(|(name, _)| name.starts_with(prefix));
        found.map(|(_, version)| version.clone()).unwrap_or_default()
    }

    /// The release that it tells of, of files that were measured. What has Xen in it is for hosts.
    pub fn release(&self, files: BTreeMap<String, ReleaseFile>, built_ms: Option<u64>) -> Manifest {
        let kind = if files.contains_key("xen") { ReleaseKind::Dom0 } else { ReleaseKind::Guest };
        Manifest {
            name: self.name.clone(),
            version: self.version,
            kind,
            files,
            xen: self.package("xen-hypervisor"),
            kernel: self.package("linux-image-"),
            built_ms,
        }
    }
}

/// What the server lacks of a release that is to be imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingFiles {
    /// The release's id.
    pub release: ReleaseId,
    /// Files to send, by their role, each once.
    pub files: Vec<MissingFile>,
}

/// A file that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingFile {
    /// Its role.
    pub role: String,
    /// Its digest.
    pub sha256: String,
    /// Bytes that are here already.
    pub have: u64,
    /// Bytes of the whole.
    pub bytes: u64,
}

/// How far a file is that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileProgress {
    /// Bytes that are here.
    pub have: u64,
    /// It is whole, and its digest is right.
    pub whole: bool,
}

/// Removes releases that nothing uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CollectReleases {
    /// Only those that nothing has used for so many seconds.
    #[serde(default)]
    pub unused_s: u64,
    /// Only say which.
    #[serde(default)]
    pub dry_run: bool,
}

/// Releases that were removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Collected {
    /// Which.
    pub releases: Vec<ReleaseId>,
}

/// Makes a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatePool {
    /// Its name.
    pub name: PoolId,
    /// What its hosts boot.
    pub release: ReleaseId,
}

/// Puts a host into a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetPool {
    /// Which.
    pub pool: PoolId,
}

/// Brings another release to a pool: first to a few hosts, then to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartRollout {
    /// Which release.
    pub to: ReleaseId,
    /// How many hosts try it first, 0 to 1000; with 0 the pool takes it at once.
    #[serde(default = "one")]
    pub canary: u32,
    /// The canaries must have come up within so many seconds, 30 to 86400; afterwards a host whose turn it is as well.
    #[serde(default = "default_deadline_s")]
    pub deadline_s: u64,
    /// And have been healthy for so many seconds, 0 to 86400.
    #[serde(default = "default_healthy_s")]
    pub healthy_s: u64,
    /// Hosts that are emptied and started anew at a time, 1 to 100.
    #[serde(default = "one")]
    pub at_once: u32,
    /// Whether hosts are emptied and started anew by the server; else they change when somebody reboots them.
    #[serde(default = "yes")]
    pub reboot: bool,
}

/// Of [`StartRollout::deadline_s`]: half an hour.
pub fn default_deadline_s() -> u64 {
    1800
}

/// Of [`StartRollout::healthy_s`]: a minute.
pub fn default_healthy_s() -> u64 {
    60
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// One release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseView {
    /// Its id.
    pub id: ReleaseId,
    /// What is in it.
    pub manifest: Manifest,
    /// When it was imported, Unix milliseconds.
    pub imported_ms: u64,
    /// What uses it, a few words each; empty when nothing does.
    pub used_by: Vec<String>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolView {
    /// Its name.
    pub name: PoolId,
    /// What its hosts boot.
    pub release: ReleaseId,
    /// What they booted before, to go back to.
    pub previous: Option<ReleaseId>,
    /// Hosts in it.
    pub hosts: u32,
    /// Of those, how many run another release.
    pub outdated: u32,
    /// The rollout under way, or the last one.
    pub rollout: Option<RolloutView>,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutView {
    /// To which release.
    pub to: ReleaseId,
    /// From which.
    pub from: ReleaseId,
    /// How far it is.
    pub phase: RolloutPhase,
    /// When it began, Unix milliseconds.
    pub began_ms: u64,
    /// Until when its canaries, or the hosts whose turn it is, must be healthy; absent when nothing is waited for.
    pub deadline_ms: Option<u64>,
    /// Hosts that try it first, each with why it was chosen.
    pub canaries: Vec<RolloutHost>,
    /// Hosts whose turn it is, each with what it is at.
    pub turns: Vec<RolloutHost>,
    /// One sentence: what is waited for, or how it ended.
    pub note: String,
}

/// A host of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutHost {
    /// Which.
    pub host: HostId,
    /// A few words.
    pub what: String,
}

/// How far a rollout is.
///
/// ```text
/// Canary --all canaries healthy--> Rolling --all hosts run it--> Done
///   |                                 +-- a host does not come back in time, or an operator stops it --> Stopped
///   +-- deadline, or an operator stops it --> Back --no canary runs it any more--> RolledBack
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RolloutPhase {
    /// Its canaries try it; the pool still has the old release.
    Canary,
    /// It is the pool's release; the other hosts take it in turn.
    Rolling,
    /// All hosts run it.
    Done,
    /// It is the pool's release, but no further host is started anew for it.
    Stopped,
    /// The pool keeps the old release; canaries that run the new one go back.
    Back,
    /// No canary runs it any more.
    RolledBack,
}

impl fmt::Display for RolloutPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Canary => "canary",
            Self::Rolling => "rolling",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Back => "going back",
            Self::RolledBack => "rolled back",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = ReleaseFile { sha256: "a".repeat(64), bytes: 1 };
        Manifest { name: "dom0".to_owned(), files: BTreeMap::from([("xen".to_owned(), file)]), ..Manifest::default() }
    }

    #[test]
    fn ids() {
        assert!("0123456789ab".parse::<ReleaseId>().is_ok());
        for bad in ["", "0123456789a", "0123456789abc", "0123456789aB", "../../../../x", "0123456789a\n"] {
            assert!(bad.parse::<ReleaseId>().is_err(), "{bad:?}");
        }
        assert_eq!(PoolId::default().as_str(), "default");
        assert!("A/b".parse::<PoolId>().is_err());
    }

    #[test]
    fn manifests() {
        assert_eq!(manifest().check(), Ok(()));
        let wrong = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            manifest.check().expect_err("it is wrong").field
        };
        let file = ReleaseFile { sha256: "a".repeat(64), bytes: 1 };
        assert_eq!(wrong(&|m| m.name = "a/b".to_owned()), "name");
        assert_eq!(wrong(&|m| m.name = String::new()), "name");
        assert_eq!(wrong(&|m| m.xen = "4\n".to_owned()), "xen");
        assert_eq!(wrong(&|m| m.files.clear()), "files");
        for role in ["", "..", "a/b", "a b", ".hidden", "ü"] {
            assert_eq!(wrong(&|m| drop(m.files.insert(role.to_owned(), file.clone()))), "a file's role", "{role:?}");
        }
        let sized = |bytes| ReleaseFile { bytes, ..file.clone() };
        let named = |sha256: &str| ReleaseFile { sha256: sha256.to_owned(), bytes: 1 };
        assert_eq!(wrong(&|m| drop(m.files.insert("x".to_owned(), named("AA")))), "sha256 of x");
        assert_eq!(wrong(&|m| drop(m.files.insert("x".to_owned(), sized((1 << 40) + 1)))), "bytes of x");
        assert_eq!(
            wrong(&|m| m.files = (0..33).map(|at| (format!("f{at}"), file.clone())).collect()),
            "files",
            "too many"
        );
    }
}
