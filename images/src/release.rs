//! A release: a directory of files that never change, and a manifest that names each by its sha256.
//!
//! ```text
//! OUT/NAME-VERSION-DIGEST/   dom0:  xen xen.efi vmlinuz initrd dom0.squashfs manifest.json, and unified.efi where it is signed
//!                            guest: vmlinuz initrd grub-pvh guest-disk.img manifest.json
//!                            initrd: vmlinuz initrd manifest.json
//! OUT/NAME                   link to the one built last
//! OUT/loaders/               undionly.kpxe ipxe.efi
//! ```
//! DIGEST are the first 12 digits of the inputs' sha256: the same inputs are the same directory, and a directory that
//! a boot server serves is never changed under it. Other inputs are a higher version, always: of two releases in OUT the
//! newer one is known by its number.

use crate::cpio::{Entry, Tree};
use crate::keys::Signer;
use crate::recipe::{Kind, Recipe};
use crate::rootfs::{Rootfs, hex};
use crate::{BuildError, dom0, guest_disk, pick};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a release is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The recipe's name.
    pub name: String,
    /// At least the recipe's, and above that of every release that was in OUT before.
    pub version: u32,
    /// sha256 of all that it was made from, 64 hexadecimal digits.
    pub inputs: String,
    /// Whether it has a root shell.
    pub debug: bool,
    /// Each file by its name.
    pub files: BTreeMap<String, FileEntry>,
    /// Debian packages that it was picked from, with their versions.
    pub packages: BTreeMap<String, String>,
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Programs of our own that go into an image.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// Path within the image to the file to take.
    pub files: BTreeMap<String, PathBuf>,
    /// The same for dom0's initrd.
    pub initrd: BTreeMap<String, PathBuf>,
    /// dom0: has a signed unified image made as well.
    pub signed: Option<Signed>,
}

/// How the unified image is signed, and what its signature covers beside what every release has.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Whose signature.
    pub signer: Signer,
    /// The appliance's CA certificate, PEM: hosts obey no other.
    pub ca: Option<PathBuf>,
    /// Where the boot server is, for networks where another server gives out the addresses.
    pub boot: Option<SocketAddrV4>,
}

/// Builds a release, or finds that it is there already. Returns its directory.
pub fn build(recipe: &Recipe, programs: &Programs, out: &Path, cache: &Path) -> Result<PathBuf, BuildError> {
    let root = crate::rootfs::unpack(recipe, cache)?;
    let inputs = inputs(recipe, programs, &root)?;
    let there = of_name(out, &recipe.name)?;
    if let Some((directory, _)) = there.iter().find(|(_, m)| m.inputs == inputs) {
        point(out, &recipe.name, directory)?;
        return Ok(directory.clone());
    }
    let version = next_version(&there, recipe.version);
    let name = format!("{}-{version}-{}", recipe.name, &inputs[..12]);
    let directory = out.join(&name);
    let beside = out.join(format!(".{name}.new"));
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(BuildError::file("clearing", &beside))?;
    }
    fs::create_dir_all(&beside).map_err(BuildError::file("making", &beside))?;
    match recipe.kind {
        Kind::Dom0 => dom0::build(recipe, programs, &root, &inputs, &beside)?,
        Kind::Guest => guest(recipe, programs, &root, &beside)?,
        Kind::Initrd => initrd(recipe, programs, &root, &[], &beside)?,
    }
    let manifest = Manifest {
        name: recipe.name.clone(),
        version,
        inputs,
        debug: recipe.debug,
        files: digests(&beside)?,
        packages: root.versions.clone(),
    };
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest of strings and numbers is JSON");
    fs::write(beside.join("manifest.json"), text).map_err(BuildError::file("writing", &beside))?;
    // One without a manifest was not made by us: renaming fails rather than mixing the two.
    fs::rename(&beside, &directory).map_err(BuildError::file("publishing", &directory))?;
    point(out, &recipe.name, &directory)?;
    Ok(directory)
}

/// The whole releases of a name.
fn of_name(out: &Path, name: &str) -> Result<Vec<(PathBuf, Manifest)>, BuildError> {
    let entries = match fs::read_dir(out) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(BuildError::file("reading", out)(err)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(BuildError::file("reading", out))?;
        // Links are other names of these; what is being built begins with a dot.
        let real = entry.file_type().is_ok_and(|kind| kind.is_dir())
            && !entry.file_name().as_encoded_bytes().starts_with(b".");
        if real && let Some(manifest) = manifest(&entry.path()).filter(|m| m.name == name) {
            found.push((entry.path(), manifest));
        }
    }
    found.sort_by_key(|(_, manifest)| manifest.version);
    Ok(found)
}

/// Above all that are there, and never below the recipe's.
fn next_version(there: &[(PathBuf, Manifest)], recipes: u32) -> u32 {
    there.iter().map(|(_, manifest)| manifest.version.saturating_add(1)).fold(recipes, u32::max)
}

/// Makes the link of a name point to a release beside it, at once.
fn point(out: &Path, name: &str, directory: &Path) -> Result<(), BuildError> {
    let (link, beside) = (out.join(name), out.join(format!(".{name}.link")));
    match fs::remove_file(&beside) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            return Err(BuildError::file("clearing", &beside)(err));
        }
        _ => {}
    }
    let target = directory.file_name().unwrap_or(directory.as_os_str());
    std::os::unix::fs::symlink(target, &beside).map_err(BuildError::file("linking", &beside))?;
    fs::rename(&beside, &link).map_err(BuildError::file("publishing", &link))
}

/// Builds a release twice, each from its own download, and says how the two differ: nothing, or names of files. What
/// it makes is below `work`.
pub fn verify(recipe: &Recipe, programs: &Programs, work: &Path) -> Result<Vec<String>, BuildError> {
    let mut manifests = Vec::new();
    for copy in ["one", "two"] {
        let base = work.join(copy);
        if base.exists() {
            fs::remove_dir_all(&base).map_err(BuildError::file("clearing", &base))?;
        }
        let directory = build(recipe, programs, &base.join("out"), &base.join("cache"))?;
        let digests = digests(&directory)?;
        manifests.push(digests);
    }
    let (one, two) = (&manifests[0], &manifests[1]);
    let names: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    Ok(names.into_iter().filter(|name| one.get(*name) != two.get(*name)).cloned().collect())
}

/// Copies Debian's boot loaders out; the one for UEFI signed, if it is to be.
pub fn loaders(out: &Path, signer: Option<&Signer>) -> Result<PathBuf, BuildError> {
    let directory = out.join("loaders");
    fs::create_dir_all(&directory).map_err(BuildError::file("making", &directory))?;
    for (from, to) in [("undionly.kpxe", "undionly.kpxe"), ("ipxe.efi", "ipxe.efi")] {
        copy(&Path::new("/usr/lib/ipxe").join(from), &directory.join(to))?;
    }
    if let Some(signer) = signer {
        signer.sign(&directory.join("ipxe.efi"))?;
    }
    Ok(directory)
}

/// A release's manifest, if it is whole.
pub fn manifest(directory: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(directory.join("manifest.json")).ok()?).ok()
}

/// Digest of all that a build depends on.
fn inputs(recipe: &Recipe, programs: &Programs, root: &Rootfs) -> Result<String, BuildError> {
    let mut digest = Sha256::new();
    for (tree, programs) in [(&recipe.tree, &programs.files), (&recipe.initrd.tree, &programs.initrd)] {
        let mut own = Tree::default();
        if recipe.kind == Kind::Dom0 || tree == &recipe.tree {
            pick::overlay(tree, &mut own)?;
        }
        programs_into(programs, &mut own)?;
        digest.update(own.archive().map_err(BuildError::file("archiving for", Path::new("its digest")))?);
    }
    digest.update(format!("{recipe:?}\n{:?}\n", root.versions));
    if let Some(signed) = &programs.signed {
        for file in [Some(&signed.signer.certificate), signed.ca.as_ref()].into_iter().flatten() {
            digest.update(fs::read(file).map_err(BuildError::file("reading", file))?);
        }
        digest.update(format!("{:?}\n", signed.boot));
    }
    // Another builder may make something else of the same recipe.
    let builder = std::env::current_exe().map_err(BuildError::file("finding", Path::new("this program")))?;
    digest.update(fs::read(&builder).map_err(BuildError::file("reading", &builder))?);
    Ok(hex(&digest.finalize()))
}

fn guest(recipe: &Recipe, programs: &Programs, root: &Rootfs, out: &Path) -> Result<(), BuildError> {
    initrd(recipe, programs, root, &["www"], out)?;
    // Carries /boot/grub/grub.cfg-finding code and all of grub's modules within itself.
    copy(&root.path.join("usr/lib/grub-xen/grub-i386-xen_pvh.bin"), &out.join("grub-pvh"))?;
    guest_disk::build(&out.join("vmlinuz"), &out.join("initrd"), &out.join("guest-disk.img"), out)
}

/// Kernel and initrd of a machine that runs in it, with directories of its own.
fn initrd(
    recipe: &Recipe,
    programs: &Programs,
    root: &Rootfs,
    directories: &[&str],
    out: &Path,
) -> Result<(), BuildError> {
    copy(&find(&root.path.join("boot"), "vmlinuz-", "")?, &out.join("vmlinuz"))?;
    let parts = Parts { keep: &recipe.keep, links: &recipe.links, applets: &recipe.applets, modules: &recipe.modules };
    let mut tree = skeleton(&parts, root)?;
    for path in ["proc", "sys", "dev", "run", "tmp"].iter().chain(directories) {
        tree.put(path, Entry::Directory);
    }
    tree.put("dev/console", Entry::Device(5, 1));
    tree.put("dev/null", Entry::Device(1, 3));
    pick::overlay(&recipe.tree, &mut tree)?;
    programs_into(&programs.files, &mut tree)?;
    write(&out.join("initrd"), &compress(&tree)?)
}

/// What is picked of the packages.
pub(crate) struct Parts<'a> {
    pub(crate) keep: &'a [String],
    pub(crate) links: &'a BTreeMap<String, String>,
    pub(crate) applets: &'a [String],
    pub(crate) modules: &'a [String],
}

/// What every image has: the kept files, applets, links and modules, on a merged /usr.
pub(crate) fn skeleton(parts: &Parts<'_>, root: &Rootfs) -> Result<Tree, BuildError> {
    let mut tree = Tree::default();
    for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        tree.put(link, Entry::Link(target.into()));
    }
    for path in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
        tree.put(path, Entry::Directory);
    }
    pick::keep(&root.path, parts.keep, &mut tree)?;
    pick::modules(&root.path, parts.modules, &mut tree)?;
    let busybox = root.path.join("usr/bin/busybox");
    let known = Command::new(&busybox).arg("--list").output().map_err(BuildError::file("running", &busybox))?.stdout;
    let known = String::from_utf8_lossy(&known).into_owned();
    for applet in parts.applets {
        if !known.lines().any(|line| line == applet) {
            return Err(BuildError::Missing { what: format!("busybox applet {applet}"), root: root.path.clone() });
        }
        let taken = tree.has(&format!("usr/bin/{applet}")) || tree.has(&format!("usr/sbin/{applet}"));
        if !taken {
            tree.put(&format!("usr/bin/{applet}"), Entry::Link("busybox".into()));
        }
    }
    for (link, target) in parts.links {
        tree.put(link, Entry::Link(target.clone()));
    }
    Ok(tree)
}

pub(crate) fn programs_into(programs: &BTreeMap<String, PathBuf>, tree: &mut Tree) -> Result<(), BuildError> {
    for (to, from) in programs {
        tree.put(to, Entry::File(fs::read(from).map_err(BuildError::file("reading", from))?, true));
    }
    Ok(())
}

pub(crate) fn compress(tree: &Tree) -> Result<Vec<u8>, BuildError> {
    zstd(&tree.archive().map_err(BuildError::file("archiving for", Path::new("zstd")))?)
}

/// One thread: with several the bytes depend on how many there are.
fn zstd(data: &[u8]) -> Result<Vec<u8>, BuildError> {
    use std::io::Write as _;
    let failed = BuildError::file("compressing by", Path::new("zstd"));
    let work = || {
        let mut child = Command::new("zstd")
            .args(["-12", "--single-thread", "-q", "-c"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().ok_or_else(|| std::io::Error::other("no pipe"))?;
        let out = std::thread::scope(|scope| {
            let feed = scope.spawn(move || stdin.write_all(data));
            let out = child.wait_with_output();
            feed.join().map_err(|_| std::io::Error::other("feeding failed"))??;
            out
        })?;
        if out.status.success() { Ok(out.stdout) } else { Err(std::io::Error::other(out.status.to_string())) }
    };
    work().map_err(failed)
}

fn digests(directory: &Path) -> Result<BTreeMap<String, FileEntry>, BuildError> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(BuildError::file("reading", directory))? {
        let entry = entry.map_err(BuildError::file("reading", directory))?;
        let bytes = fs::read(entry.path()).map_err(BuildError::file("reading", &entry.path()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, FileEntry { sha256: hex(&Sha256::digest(&bytes)), size: bytes.len() as u64 });
    }
    Ok(files)
}

pub(crate) fn find(directory: &Path, prefix: &str, suffix: &str) -> Result<PathBuf, BuildError> {
    let missing = || BuildError::Missing { what: format!("{prefix}*{suffix}"), root: directory.to_owned() };
    let list = fs::read_dir(directory).map_err(BuildError::file("reading", directory))?;
    let mut found: Vec<PathBuf> = list
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix) && n.ends_with(suffix))
        })
        .collect();
    found.sort();
    found.pop().ok_or_else(missing)
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    fs::copy(from, to).map(|_| ()).map_err(BuildError::file("copying", from))
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    fs::write(path, bytes).map_err(BuildError::file("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_above_all_that_are_there() {
        let out = tempfile::tempdir().expect("a directory");
        let put = |directory: &str, name: &str, version: u32| {
            let (name, inputs) = (name.to_owned(), format!("{directory:0>64}"));
            let manifest =
                Manifest { name, version, inputs, debug: false, files: BTreeMap::new(), packages: BTreeMap::new() };
            fs::create_dir(out.path().join(directory)).expect("made");
            fs::write(out.path().join(directory).join("manifest.json"), serde_json::to_vec(&manifest).expect("JSON"))
                .expect("written");
        };
        let next = |recipes| next_version(&of_name(out.path(), "dom0").expect("read"), recipes);
        assert_eq!(next(3), 3, "the first is the recipe's");
        put("a", "dom0", 3);
        put("b", "dom0", 4);
        put("c", "dom0-debug", 9);
        put(".d.new", "dom0", 12);
        point(out.path(), "dom0", &out.path().join("b")).expect("linked");
        point(out.path(), "dom0", &out.path().join("a")).expect("linked anew");
        assert_eq!(fs::read_link(out.path().join("dom0")).expect("a link"), Path::new("a"));
        assert_eq!((next(3), next(7)), (5, 7));
    }
}
