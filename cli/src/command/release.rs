//! `tsubame release`.

use super::{open, rack_view, say};
use crate::args::{ReleaseCommand, ReleaseRef};
use crate::client::Server;
use crate::fault::Fault;
use crate::output::Output;
use crate::render::releases;
use crate::session::Environment;
use indicatif::{ProgressBar, ProgressStyle};
use proto::api::Accepted;
use proto::release::{
    BuiltManifest, CollectReleases, Collected, FileProgress, Manifest, MissingFile, MissingFiles, PART_BYTES_MAX,
    ReleaseFile, ReleaseView,
};
use proto::view::RackView;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::UNIX_EPOCH;

pub(super) fn run(environment: &Environment, command: ReleaseCommand, out: Output) -> Result<(), Fault> {
    match command {
        ReleaseCommand::List => {
            let doing = "listing releases";
            let view = rack_view(&open(doing, environment)?, doing)?;
            out.show(&view.releases, |width| releases::list(&view, width))
        }
        ReleaseCommand::Show(ReleaseRef { release }) => {
            let doing = format!("showing release {release}");
            let view = rack_view(&open(&doing, environment)?, &doing)?;
            let shown = resolve(&view, &doing, &release)?;
            out.show(shown, |width| releases::show(shown, width))
        }
        ReleaseCommand::Import { dir } => import(environment, &dir, out),
        ReleaseCommand::Delete(ReleaseRef { release }) => {
            let doing = format!("deleting release {release}");
            let server = open(&doing, environment)?;
            let view = rack_view(&server, &doing)?;
            let id = &resolve(&view, &doing, &release)?.id;
            let accepted: Accepted = server.delete(&doing, &format!("/v1/releases/{id}"))?;
            say(out, &accepted, &doing)
        }
        ReleaseCommand::Gc { unused_for, dry_run } => {
            let doing = "deleting unused releases";
            let server = open(doing, environment)?;
            let request = CollectReleases { unused_s: unused_for.as_secs(), dry_run };
            let collected: Collected = server.post(doing, "/v1/releases/collect", &request)?;
            out.show(&collected, |_| releases::collected(&collected, dry_run))
        }
    }
}

/// The release that was meant: by id, by the beginning of its id, or as name-version.
///
/// # Errors
/// `Refused` when there is none, `Usage` when there are several.
pub(super) fn resolve<'a>(view: &'a RackView, doing: &str, given: &str) -> Result<&'a ReleaseView, Fault> {
    let fits = |release: &&ReleaseView| release.id.as_str().starts_with(given) || release.manifest.title() == given;
    let found: Vec<_> = view.releases.iter().filter(|release| !given.is_empty() && fits(release)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Fault::Refused { doing: doing.to_owned(), message: format!("there is no release {given:?}") }),
        several => {
            let ids: Vec<_> = several.iter().map(|release| release.id.as_str()).collect();
            Err(Fault::Usage(format!("{doing}: several releases fit: {}; give an id", ids.join(", "))))
        }
    }
}

fn import(environment: &Environment, dir: &Path, out: Output) -> Result<(), Fault> {
    let doing = format!("importing release {}", dir.display());
    let manifest = read(dir)?;
    let server = open(&doing, environment)?;
    let missing: MissingFiles = server.post(&doing, "/v1/releases/missing", &manifest)?;
    let left = missing.files.iter().map(|file| file.bytes.saturating_sub(file.have)).sum();
    let bar = ProgressBar::new(left).with_message(manifest.title());
    let style = ProgressStyle::with_template("{msg} {bar:30} {binary_bytes} of {binary_total_bytes}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    for file in &missing.files {
        send(&server, &doing, &dir.join(&file.role), file, &bar)?;
    }
    bar.finish_and_clear();
    let _: Accepted = server.post(&doing, "/v1/releases", &manifest)?;
    out.show(&missing.release, |_| {
        let sent = format!("{} of {} files sent", missing.files.len(), manifest.files.len());
        format!("release {} is {}, {sent}\n", missing.release, manifest.title())
    })
}

/// The release of a directory, each file read through.
fn read(dir: &Path) -> Result<Manifest, Fault> {
    let path = dir.join("manifest.json");
    let text = std::fs::read(&path).map_err(reading(&path))?;
    let built: BuiltManifest = serde_json::from_slice(&text).map_err(|err| {
        Fault::Usage(format!("{}: {err}; expected what the builder of images writes", path.display()))
    })?;
    let modified = std::fs::metadata(&path).and_then(|meta| meta.modified()).ok();
    let built_ms = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|at| at.as_millis() as u64);
    let mut files = BTreeMap::new();
    for (role, said) in &built.files {
        let path = dir.join(role);
        // A role is a file's own name.
        if path.parent() != Some(dir) {
            return Err(Fault::Usage(format!("{}: a file is named {role:?}", dir.display())));
        }
        let file = digest(&path)?;
        if file.sha256 != said.sha256 {
            let what = "is not what manifest.json says by its sha256; build the release again";
            return Err(Fault::Usage(format!("{} {what}", path.display())));
        }
        files.insert(role.clone(), file);
    }
    Ok(built.release(files, built_ms))
}

fn digest(path: &Path) -> Result<ReleaseFile, Fault> {
    let mut file = File::open(path).map_err(reading(path))?;
    let (mut hasher, mut chunk, mut bytes) = (Sha256::new(), vec![0; PART_BYTES_MAX], 0);
    loop {
        match file.read(&mut chunk).map_err(reading(path))? {
            0 => break,
            n => {
                hasher.update(&chunk[..n]);
                bytes += n as u64;
            }
        }
    }
    let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(ReleaseFile { sha256, bytes })
}

fn send(server: &Server, doing: &str, path: &Path, file: &MissingFile, bar: &ProgressBar) -> Result<(), Fault> {
    let mut content = File::open(path).map_err(reading(path))?;
    let mut have = file.have;
    content.seek(SeekFrom::Start(have)).map_err(reading(path))?;
    while have < file.bytes {
        let mut part = Vec::with_capacity(PART_BYTES_MAX);
        content.by_ref().take(PART_BYTES_MAX as u64).read_to_end(&mut part).map_err(reading(path))?;
        if part.is_empty() {
            let short = io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter meanwhile");
            return Err(reading(path)(short));
        }
        let at = format!("/v1/releases/files/{}?offset={have}", file.sha256);
        let progress: FileProgress = server.post_bytes(doing, &at, &part)?;
        bar.inc(part.len() as u64);
        have = progress.have;
        if progress.whole {
            break;
        }
    }
    Ok(())
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> Fault {
    let path = path.display().to_string();
    move |source| Fault::File { doing: "reading", path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::rack;
    use expect_test::expect;
    use std::fs;

    #[test]
    fn a_release_is_found_by_id_beginning_and_title() {
        let view = rack();
        for given in ["aaaaaaaaaaaa", "aaa", "dom0-2"] {
            assert_eq!(resolve(&view, "x", given).expect(given).id.as_str(), "aaaaaaaaaaaa");
        }
        assert_eq!(resolve(&view, "x", "dom0-9").expect_err("none").exit_code(), 1);
        assert_eq!(resolve(&view, "x", "").expect_err("none").exit_code(), 1);
    }

    #[test]
    fn a_directory_is_what_its_manifest_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let says = |text: &str| {
            fs::write(dir.path().join("manifest.json"), text).expect("written");
            match read(dir.path()) {
                Ok(manifest) => format!("{} {} {:?}", manifest.kind, manifest.title(), manifest.files.keys()),
                Err(fault) => fault.to_string().replace(&dir.path().display().to_string(), "DIR"),
            }
        };
        fs::write(dir.path().join("xen"), "abc").expect("written");
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, "abc"
        let file = |name: &str, sha256: &str| format!("{{\"{name}\":{{\"sha256\":\"{sha256}\",\"size\":3}}}}");
        let text = |files: String| format!("{{\"name\":\"dom0\",\"version\":2,\"files\":{files}}}");
        expect![[r#"dom0 dom0-2 ["xen"]"#]].assert_eq(&says(&text(file("xen", right))));
        expect!["DIR/xen is not what manifest.json says by its sha256; build the release again"]
            .assert_eq(&says(&text(file("xen", "00"))));
        expect![[r#"DIR: a file is named "../xen""#]].assert_eq(&says(&text(file("../xen", right))));
        expect!["reading DIR/none: No such file or directory (os error 2)"]
            .assert_eq(&says(&text(file("none", right))));
        expect![
            "DIR/manifest.json: missing field `name` at line 1 column 2; expected what the builder of images writes"
        ]
        .assert_eq(&says("{}"));
    }
}
