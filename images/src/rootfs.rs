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
    let pinned = recipe.locked.preferences();
    let key = hex(&Sha256::digest(format!("{}\n{}\n{pinned}", recipe.suite, packages.join("\n"))));
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
/// The packages' files, as apt named them.
const FETCHED: &str = "fetched.txt";

fn make(recipe: &Recipe, packages: &[String], path: &Path) -> Result<(), BuildError> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(BuildError::file("clearing", path))?;
    }
    fs::create_dir_all(path).map_err(BuildError::file("making", path))?;
    // Beside the root, which mmdebstrap wants empty.
    let pins = path.with_extension("pins");
    fs::write(&pins, recipe.locked.preferences()).map_err(BuildError::file("writing", &pins))?;
    let mut command = Command::new("mmdebstrap");
    command
        .args([
            "--quiet",
            "--mode=root",
            "--variant=extract",
            "--format=directory",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            "--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\" && cp \"$TSUBAME_PINS\" \"$1/etc/apt/preferences.d/locked\"",
        ])
        // Nothing is configured, so dpkg knows no package: what was fetched says which they are.
        .arg(format!("--extract-hook=ls \"$1/var/cache/apt/archives\" >\"$1/{FETCHED}\""))
        .env("TSUBAME_PINS", fs::canonicalize(&pins).map_err(BuildError::file("finding", &pins))?)
        .arg(format!("--include={}", packages.join(",")))
        .arg(&recipe.suite)
        .arg(path)
        .args(mirrors(&recipe.suite)?);
    crate::run(&mut command)?;
    fs::remove_file(&pins).map_err(BuildError::file("clearing", &pins))?;
    // The one thing that maintainer scripts would have made and an image needs: the modules' tables.
    let modules = path.join("usr/lib/modules");
    for kernel in fs::read_dir(&modules).map_err(BuildError::file("reading", &modules))? {
        let kernel = kernel.map_err(BuildError::file("reading", &modules))?.file_name();
        crate::run(Command::new("chroot").arg(path).arg("/usr/sbin/depmod").arg(kernel))?;
    }
    let fetched = path.join(FETCHED);
    let list = fs::read_to_string(&fetched).map_err(BuildError::file("reading", &fetched))?;
    let lines: String = list.lines().filter_map(package).map(|(name, version)| format!("{name} {version}\n")).collect();
    fs::write(path.join(VERSIONS), lines).map_err(BuildError::file("writing", &path.join(VERSIONS)))
}

/// Name and version of a package's file as apt keeps it: `NAME_VERSION_ARCHITECTURE.deb`, a colon as `%3a`.
fn package(file: &str) -> Option<(String, String)> {
    let (rest, _architecture) = file.strip_suffix(".deb")?.rsplit_once('_')?;
    let (name, version) = rest.split_once('_')?;
    Some((name.to_owned(), version.replace("%3a", ":")))
}

/// Lines for apt of the Debian mirrors that this machine itself uses for the suite, its updates and its security
/// fixes. With none, mmdebstrap takes Debian's own.
fn mirrors(suite: &str) -> Result<Vec<String>, BuildError> {
    const FORMAT: &str = "$(ORIGIN) $(CODENAME) $(REPO_URI) $(RELEASE) $(COMPONENT)";
    let listed = Command::new("apt-get")
        .args(["indextargets", "--format", FORMAT, "Created-By: Packages"])
        .output()
        .map_err(BuildError::file("asking apt for", Path::new("its mirrors")))?;
    Ok(sources(&String::from_utf8_lossy(&listed.stdout), suite))
}

fn sources(targets: &str, suite: &str) -> Vec<String> {
    let mut lines: Vec<String> = targets
        .lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            ["Debian", codename, uri, release, component]
                if codename == suite || codename.strip_prefix(suite).is_some_and(|rest| rest.starts_with('-')) =>
            {
                Some(format!("deb {uri} {release} {component}"))
            }
            _ => None,
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_mirrors_are_taken() {
        let targets = "Debian bookworm http://a/debian/ bookworm main\n\
                       Debian bookworm-security http://a/debian-security/ bookworm-security main\n\
                       Debian bookworm-security http://a/debian-security/ bookworm-security main\n\
                       Debian trixie http://a/debian/ trixie main\n\
                       Example bookworm http://b/apt bookworm main\n";
        let expected = ["deb http://a/debian-security/ bookworm-security main", "deb http://a/debian/ bookworm main"];
        assert_eq!(sources(targets, "bookworm"), expected);
        assert_eq!(sources("", "bookworm"), [""; 0]);
    }

    #[test]
    fn a_packages_file_says_its_version() {
        let of = |file| package(file).map(|(name, version)| format!("{name} {version}"));
        assert_eq!(
            of("busybox-static_1%3a1.35.0-4+deb12u1+b1_amd64.deb").as_deref(),
            Some("busybox-static 1:1.35.0-4+deb12u1+b1")
        );
        assert_eq!(of("usr-is-merged_37~deb12u1_all.deb").as_deref(), Some("usr-is-merged 37~deb12u1"));
        assert_eq!((of("lock"), of("partial")), (None, None));
    }
}
