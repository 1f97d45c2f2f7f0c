//! dom0's files: Xen, the kernel, the image, and the initrd that fetches it.
//!
//! Owns: what is in each. The initrd names the image by its digest, so who trusts the initrd need trust nobody for the image. Never does:
//! put anything into one that differs from host to host.

use crate::cpio::{Entry, Tree};
use crate::recipe::Recipe;
use crate::release::{Parts, Programs, Signed, compress, copy, find, programs_into, skeleton, write};
use crate::rootfs::{Rootfs, hex};
use crate::{BuildError, keys, pick, squashfs, unified};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The image's file.
pub const IMAGE: &str = "dom0.squashfs";
/// Xen, kernel and initrd in one signed file.
pub const UNIFIED: &str = "unified.efi";
/// In the initrd: the image's sha256 and its length.
pub const WANTED: &str = "etc/tsubame/image.sha256";

/// Writes a release's files but for its manifest.
pub(crate) fn build(
    recipe: &Recipe,
    programs: &Programs,
    root: &Rootfs,
    inputs: &str,
    out: &Path,
) -> Result<(), BuildError> {
    let boot = root.path.join("boot");
    let xen = find(&boot, "xen-", ".gz")?;
    // iPXE's multiboot takes the plain ELF only.
    let elf = Command::new("gzip").arg("-dc").arg(&xen).output().map_err(BuildError::file("unpacking", &xen))?;
    write(&out.join("xen"), &elf.stdout)?;
    copy(&find(&boot, "xen-", ".efi")?, &out.join("xen.efi"))?;
    copy(&find(&boot, "vmlinuz-", "")?, &out.join("vmlinuz"))?;
    let image = out.join(IMAGE);
    squashfs::write(&image_tree(recipe, programs, root, inputs)?, &image, out)?;
    let bytes = fs::read(&image).map_err(BuildError::file("reading", &image))?;
    let wanted = format!("{} {}\n", hex(&Sha256::digest(&bytes)), bytes.len());
    write(&out.join("initrd"), &compress(&initrd_tree(recipe, programs, root, wanted)?)?)?;
    match &programs.signed {
        Some(signed) => unified_image(recipe, signed, out),
        None => Ok(()),
    }
}

/// Xen, its configuration, the kernel and the initrd in one file, signed. What is different from host to host is not in it: the initrd
/// asks the server.
fn unified_image(recipe: &Recipe, signed: &Signed, out: &Path) -> Result<(), BuildError> {
    let mut args = recipe.unified.kernel_args.clone();
    if let Some(ca) = &signed.ca {
        args.push_str(&format!(" tsubame.ca={}", ca_digest(ca, out)?));
    }
    if let Some(boot) = signed.boot {
        args.push_str(&format!(" tsubame.boot={boot}"));
    }
    let configuration = out.join("xen.cfg");
    let text = format!(
        "[global]\ndefault=tsubame\n\n[tsubame]\noptions={}\nkernel=vmlinuz {}\nramdisk=initrd\n",
        recipe.unified.xen_args,
        args.trim()
    );
    write(&configuration, text.as_bytes())?;
    let file = out.join(UNIFIED);
    unified::build(&out.join("xen.efi"), &configuration, &out.join("vmlinuz"), &out.join("initrd"), &file)?;
    fs::remove_file(&configuration).map_err(BuildError::file("clearing", &configuration))?;
    signed.signer.sign(&file)
}

/// sha256 of a certificate's DER in base64url (RFC 4648 §5), as agents compare it.
fn ca_digest(pem: &Path, work: &Path) -> Result<String, BuildError> {
    let der = work.join("ca.der");
    keys::der(pem, &der)?;
    let bytes = fs::read(&der).map_err(BuildError::file("reading", &der))?;
    fs::remove_file(&der).map_err(BuildError::file("clearing", &der))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&bytes)))
}

/// What dom0 runs from.
fn image_tree(recipe: &Recipe, programs: &Programs, root: &Rootfs, inputs: &str) -> Result<Tree, BuildError> {
    let modules: Vec<String> = recipe.modules.iter().chain(&recipe.network).cloned().collect();
    let parts = Parts { keep: &recipe.keep, links: &recipe.links, applets: &recipe.applets, modules: &modules };
    let mut tree = skeleton(&parts, root)?;
    for path in
        ["var/lib/xen", "var/lib/xenstored", "etc/iscsi", "run", "tmp", "proc", "sys", "dev", "root", "var/lib/iscsi"]
    {
        tree.put(path, Entry::Directory);
    }
    tree.put("var/run", Entry::Link("../run".into()));
    pick::overlay(&recipe.tree, &mut tree)?;
    // What the agent tells the server that it runs in.
    tree.put("etc/tsubame/image", Entry::File(format!("{}-{}\n", recipe.name, &inputs[..12]).into_bytes(), false));
    if recipe.debug {
        tree.put("etc/tsubame-debug", Entry::File(Vec::new(), false));
    }
    programs_into(&programs.files, &mut tree)?;
    Ok(tree)
}

/// What fetches it.
fn initrd_tree(recipe: &Recipe, programs: &Programs, root: &Rootfs, wanted: String) -> Result<Tree, BuildError> {
    let modules: Vec<String> = recipe.initrd.modules.iter().chain(&recipe.network).cloned().collect();
    let keep = ["usr/bin/busybox".to_owned()];
    let parts = Parts { keep: &keep, links: &BTreeMap::new(), applets: &recipe.initrd.applets, modules: &modules };
    let mut tree = skeleton(&parts, root)?;
    for path in ["proc", "sys", "dev", "run", "image", "changes", "root"] {
        tree.put(path, Entry::Directory);
    }
    tree.put("dev/console", Entry::Device(5, 1));
    tree.put("dev/null", Entry::Device(1, 3));
    pick::overlay(&recipe.initrd.tree, &mut tree)?;
    tree.put(WANTED, Entry::File(wanted.into_bytes(), false));
    programs_into(&programs.initrd, &mut tree)?;
    Ok(tree)
}
