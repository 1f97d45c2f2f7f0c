//! Debian's packages, unpacked: the raw material of an image. Unpacked once for a list of packages and kept.

use crate::BuildError;
use crate::recipe::Recipe;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An unpacked root and the versions of what is in it.
#[derive(Debug)]
pub struct Rootfs {
    /// Where it is.
    pub path: PathBuf,
    /// Package to version.
    pub versions: BTreeMap<String, String>,
}

/// Unpacks the recipe's packages with what they depend on, or takes them from the cache. No maintainer script is run:
/// they write times, ids and logs, and an image that is picked from the files needs nothing of what they do.
pub fn unpack(recipe: &Recipe, cache: &Path) -> Result<Rootfs, BuildError> {
    let mut packages = recipe.packages.clone();
    packages.sort();
    let key = hex(&Sha256::digest(format!("{}\n{}", recipe.suite, packages.join("\n"))));
    let path = cache.join(format!("root-{}", &key[..16]));
    if !path.join(VERSIONS).exists() {
        make(recipe, &packages, &path)?;
    }
    let versions =
        fs::read_to_string(path.join(VERSIONS)).map_err(BuildError::file("reading", &path.join(VERSIONS)))?;
    let versions: BTreeMap<String, String> =
        versions.lines().filter_map(|l| l.split_once(' ')).map(|(p, v)| (p.to_owned(), v.to_owned())).collect();
    for (package, expected) in &recipe.expect {
        let found = versions.get(package).map_or("none", String::as_str);
        if !found.starts_with(expected.as_str()) {
            return Err(BuildError::Version {
                package: package.clone(),
                found: found.to_owned(),
                expected: expected.clone(),
            });
        }
    }
    Ok(Rootfs { path, versions })
}

/// Written last, so that a root without it was interrupted.
const VERSIONS: &str = "versions.txt";

fn make(recipe: &Recipe, packages: &[String], path: &Path) -> Result<(), BuildError> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(BuildError::file("clearing", path))?;
    }
    fs::create_dir_all(path).map_err(BuildError::file("making", path))?;
    // mmdebstrap takes the mirror from the machine's own apt configuration.
    let mut command = Command::new("mmdebstrap");
    command
        .args([
            "--quiet",
            "--mode=root",
            "--variant=extract",
            "--format=directory",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        ])
        .arg(format!("--include={}", packages.join(",")))
        .arg(&recipe.suite)
        .arg(path);
    crate::run(&mut command)?;
    // The one thing that maintainer scripts would have made and an image needs: the modules' tables.
    let modules = path.join("usr/lib/modules");
    for kernel in fs::read_dir(&modules).map_err(BuildError::file("reading", &modules))? {
        let kernel = kernel.map_err(BuildError::file("reading", &modules))?.file_name();
        crate::run(Command::new("chroot").arg(path).arg("/usr/sbin/depmod").arg(kernel))?;
    }
    let versions = versions_of(path)?;
    fs::write(path.join(VERSIONS), versions).map_err(BuildError::file("writing", &path.join(VERSIONS)))
}

/// Nothing is configured, so dpkg knows no package; each package's own changelog does.
fn versions_of(path: &Path) -> Result<String, BuildError> {
    let docs = path.join("usr/share/doc");
    let mut lines = Vec::new();
    for entry in fs::read_dir(&docs).map_err(BuildError::file("reading", &docs))? {
        let entry = entry.map_err(BuildError::file("reading", &docs))?;
        let Some(package) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if let Some(version) = changelog_version(&entry.path()) {
            lines.push(format!("{package} {version}\n"));
        }
    }
    lines.sort();
    Ok(lines.concat())
}

/// The newest version in a package's changelog: `name (VERSION) suite; …`.
fn changelog_version(doc: &Path) -> Option<String> {
    let log = ["changelog.Debian.gz", "changelog.Debian.amd64.gz", "changelog.gz"]
        .iter()
        .map(|name| doc.join(name))
        .find(|p| p.exists())?;
    let text = Command::new("gzip").args(["-dc"]).arg(log).output().ok()?.stdout;
    let first = String::from_utf8_lossy(&text[..text.len().min(400)]).into_owned();
    let (_, rest) = first.split_once('(')?;
    rest.split_once(')').map(|(version, _)| version.to_owned())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
