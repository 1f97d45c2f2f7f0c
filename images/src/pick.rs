//! Picks from an unpacked root what a recipe keeps, with the libraries that its programs are linked with and the
//! modules that its modules depend on.

use crate::BuildError;
use crate::cpio::{Entry, Tree};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Where Debian's loader looks for libraries, without /etc/ld.so.cache.
const LIBRARY_PATHS: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64"];

/// Adds the kept paths. A pattern that fits nothing is an error: the packages are not what the recipe was written for.
pub fn keep(root: &Path, patterns: &[String], tree: &mut Tree) -> Result<(), BuildError> {
    for pattern in patterns {
        let found = expand(root, pattern)?;
        if found.is_empty() {
            return Err(BuildError::Missing { what: pattern.clone(), root: root.to_owned() });
        }
        for path in found {
            add(root, &path, tree)?;
        }
    }
    Ok(())
}

/// Adds own files over everything else.
pub fn overlay(from: &Path, tree: &mut Tree) -> Result<(), BuildError> {
    for name in names(from)? {
        add(from, &name, tree)?;
    }
    Ok(())
}

/// Adds the modules with what they depend on, uncompressed as Debian ships them, and the tables that modprobe reads.
pub fn modules(root: &Path, wanted: &[String], tree: &mut Tree) -> Result<(), BuildError> {
    let base = root.join("usr/lib/modules");
    let version = names(&base)?
        .pop()
        .ok_or_else(|| BuildError::Missing { what: "usr/lib/modules/*".into(), root: root.to_owned() })?;
    let table = base.join(&version).join("modules.dep");
    let table = fs::read_to_string(&table).map_err(BuildError::file("reading", &table))?;
    let kernel = base.join(&version);
    let builtin = fs::read_to_string(kernel.join("modules.builtin")).map_err(BuildError::file("reading", &kernel))?;
    let files = depend(&table, &builtin, wanted).map_err(|what| BuildError::Missing { what, root: root.to_owned() })?;
    for file in &files {
        add(root, &format!("usr/lib/modules/{version}/{file}"), tree)?;
    }
    tables(root, &version, &files, tree)
}

/// Has depmod make the tables for just these files: kmod and udev read their binary form.
fn tables(root: &Path, version: &str, files: &BTreeSet<&str>, tree: &mut Tree) -> Result<(), BuildError> {
    let base = root.join("tmp/picked");
    if base.exists() {
        fs::remove_dir_all(&base).map_err(BuildError::file("clearing", &base))?;
    }
    let picked = base.join("lib/modules").join(version);
    let kernel = root.join("usr/lib/modules").join(version);
    for file in files.iter().copied().chain(["modules.builtin", "modules.builtin.modinfo", "modules.order"]) {
        let to = picked.join(file);
        fs::create_dir_all(to.parent().unwrap_or(&picked)).map_err(BuildError::file("making", &to))?;
        fs::copy(kernel.join(file), &to).map_err(BuildError::file("copying", &kernel.join(file)))?;
    }
    crate::run(Command::new("chroot").arg(root).args(["/usr/sbin/depmod", "-b", "/tmp/picked", version]))?;
    for name in names(&picked)?.into_iter().filter(|name| name.starts_with("modules.")) {
        let bytes = fs::read(picked.join(&name)).map_err(BuildError::file("reading", &picked))?;
        tree.put(&format!("usr/lib/modules/{version}/{name}"), Entry::File(bytes, false));
    }
    fs::remove_dir_all(&base).map_err(BuildError::file("clearing", &base))
}

/// Files of modules.dep that the wanted modules need. A module built into the kernel needs none.
fn depend<'a>(table: &'a str, builtin: &str, wanted: &[String]) -> Result<BTreeSet<&'a str>, String> {
    let mut files = BTreeSet::new();
    for name in wanted {
        let line = table.lines().find(|l| l.split(':').next().is_some_and(|file| same_module(file, name)));
        match line.and_then(|l| l.split_once(':')) {
            Some((file, needs)) => {
                files.insert(file);
                files.extend(needs.split_whitespace());
            }
            None if builtin.lines().any(|file| same_module(file, name)) => {}
            None => return Err(format!("kernel module {name}")),
        }
    }
    Ok(files)
}

fn same_module(file: &str, name: &str) -> bool {
    let stem = file.rsplit('/').next().unwrap_or(file).split('.').next().unwrap_or(file);
    stem.replace('-', "_") == name.replace('-', "_")
}

fn names(directory: &Path) -> Result<Vec<String>, BuildError> {
    let list = fs::read_dir(directory).map_err(BuildError::file("reading", directory))?;
    let mut names: Vec<String> = list.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Paths that fit a pattern: `*` stands for any part of the last name.
fn expand(root: &Path, pattern: &str) -> Result<Vec<String>, BuildError> {
    let Some((before, after)) = pattern.split_once('*') else {
        return Ok(if root.join(pattern).symlink_metadata().is_ok() { vec![pattern.to_owned()] } else { Vec::new() });
    };
    let (directory, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let fits =
        |name: &String| name.starts_with(prefix) && name.ends_with(after) && name.len() >= prefix.len() + after.len();
    Ok(names(&root.join(directory))?.into_iter().filter(fits).map(|name| format!("{directory}/{name}")).collect())
}

fn add(root: &Path, path: &str, tree: &mut Tree) -> Result<(), BuildError> {
    let full = root.join(path);
    let kind = full.symlink_metadata().map_err(BuildError::file("reading", &full))?;
    if kind.is_dir() {
        tree.put(path, Entry::Directory);
        for name in names(&full)? {
            add(root, &format!("{path}/{name}"), tree)?;
        }
    } else if kind.is_symlink() {
        let target = fs::read_link(&full).map_err(BuildError::file("reading", &full))?;
        let target = target.to_string_lossy().into_owned();
        tree.put(path, Entry::Link(target.clone()));
        let there = |next: &String| root.join(next).symlink_metadata().is_ok() && !tree.has(next);
        if let Some(next) = resolve(path, &target).filter(there) {
            add(root, &next, tree)?;
        }
    } else {
        let data = fs::read(&full).map_err(BuildError::file("reading", &full))?;
        let needed = libraries(&data);
        tree.put(path, Entry::File(data, kind.permissions().mode() & 0o111 != 0));
        for library in needed {
            let found = LIBRARY_PATHS
                .iter()
                .map(|dir| format!("{dir}/{library}"))
                .find(|p| root.join(p).symlink_metadata().is_ok());
            let found = found.ok_or_else(|| BuildError::Missing {
                what: format!("{library}, needed by {path}"),
                root: root.to_owned(),
            })?;
            if !tree.has(&found) {
                add(root, &found, tree)?;
            }
        }
    }
    Ok(())
}

/// Where a link points to within the root, with Debian's merged /usr.
fn resolve(link: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { link.split('/').collect() };
    parts.pop();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part)
        }
    }
    if matches!(parts.first(), Some(&("bin" | "sbin" | "lib" | "lib64"))) {
        parts.insert(0, "usr");
    }
    Some(parts.join("/"))
}

/// Libraries and the loader that an ELF program names; none for anything else.
fn libraries(data: &[u8]) -> Vec<String> {
    type Elf = object::elf::FileHeader64<object::Endianness>;
    let read = || -> object::Result<Vec<String>> {
        let header = Elf::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut names = Vec::new();
        if let Some((dynamic, link)) = sections.dynamic(endian, data)? {
            let strings = sections.strings(endian, data, link)?;
            for entry in dynamic {
                if entry.tag32(endian) == Some(object::elf::DT_NEEDED) {
                    names.push(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned());
                }
            }
        }
        for segment in header.program_headers(endian, data)? {
            // By its name alone: its place in /lib64 is a link that libc's maintainer script makes, and the recipe.
            if let Some(loader) = segment.interpreter(endian, data)? {
                let loader = String::from_utf8_lossy(loader).into_owned();
                names.push(loader.rsplit('/').next().unwrap_or(&loader).to_owned());
            }
        }
        Ok(names)
    };
    if data.starts_with(b"\x7fELF") { read().unwrap_or_default() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_within_the_root() {
        assert_eq!(resolve("usr/bin/iscsiadm", "/sbin/iscsiadm").as_deref(), Some("usr/sbin/iscsiadm"));
        assert_eq!(resolve("usr/bin/sh", "dash").as_deref(), Some("usr/bin/dash"));
        assert_eq!(resolve("usr/lib/x/a", "../../bin/b").as_deref(), Some("usr/bin/b"));
        assert_eq!(resolve("a", "../../etc/passwd"), None);
    }

    #[test]
    fn modules_come_with_what_they_need() {
        let table = "kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\nkernel/net/802/stp.ko:\nkernel/net/llc/llc.ko:\nkernel/d/xen-blkback.ko:\n";
        let files = depend(table, "kernel/hvc_xen.ko\n", &["bridge".into(), "xen_blkback".into(), "hvc_xen".into()]);
        let expected = [
            "kernel/d/xen-blkback.ko",
            "kernel/net/802/stp.ko",
            "kernel/net/bridge/bridge.ko",
            "kernel/net/llc/llc.ko",
        ];
        assert_eq!(files, Ok(BTreeSet::from(expected)));
        assert_eq!(depend(table, "", &["nosuch".into()]), Err("kernel module nosuch".into()));
    }
}
