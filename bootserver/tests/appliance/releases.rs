//! Releases come in over the API, are served by the boot service, and go.

use crate::server::{Client, HANG, Server, directory, start, until};
use bootserver::operators::new_setup_code;
use http::{Method, StatusCode};
use proto::api::{Accepted, ApiError, Refusal, Session};
use proto::release::{FileProgress, Manifest, MissingFiles, ReleaseFile, ReleaseKind};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// An operator with a session.
pub(crate) struct Operator {
    client: Client,
    bearer: String,
}

impl Operator {
    pub(crate) async fn log_in(server: &Server) -> Self {
        let client = server.tls(server.operators, None).await.expect("TLS");
        let code = new_setup_code(&server.state(), true).expect("written").expect("a code");
        let body = format!("{{\"code\":\"{code}\",\"password\":\"a good password\"}}");
        let (status, _, answer) = client.ask(Method::POST, "/v1/setup", &[], body).await.expect("an answer");
        assert_eq!(status, StatusCode::OK, "{answer:?}");
        let session: Session = serde_json::from_slice(&answer).expect("a session");
        Self { client, bearer: format!("Bearer {}", session.token) }
    }

    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: impl Into<bytes::Bytes>,
    ) -> Result<T, Refusal> {
        let headers = [("authorization", self.bearer.as_str())];
        let (status, _, answer) = self.client.ask(method, path, &headers, body).await.expect("an answer");
        if status == StatusCode::OK {
            return Ok(serde_json::from_slice(&answer).expect("what was expected"));
        }
        Err(serde_json::from_slice::<ApiError>(&answer).expect("every refusal is an ApiError").refusal)
    }

    async fn missing(&self, manifest: &Manifest) -> MissingFiles {
        let body = serde_json::to_vec(manifest).expect("JSON");
        self.ask(Method::POST, "/v1/releases/missing", body).await.expect("announced")
    }

    async fn part(&self, sha256: &str, offset: usize, data: &[u8]) -> Result<FileProgress, Refusal> {
        self.ask(Method::POST, &format!("/v1/releases/files/{sha256}?offset={offset}"), data.to_vec()).await
    }

    async fn add(&self, manifest: &Manifest) -> Result<Accepted, Refusal> {
        self.ask(Method::POST, "/v1/releases", serde_json::to_vec(manifest).expect("JSON")).await
    }
}

/// A release for hosts whose files are these.
fn release(version: u64, content: &[(&str, Vec<u8>)]) -> Manifest {
    let file = |content: &[u8]| ReleaseFile {
        sha256: Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes: content.len() as u64,
    };
    let files: BTreeMap<_, _> = content.iter().map(|(role, content)| ((*role).to_owned(), file(content))).collect();
    Manifest { name: "dom0".to_owned(), version, kind: ReleaseKind::Dom0, files, ..Manifest::default() }
}

fn content(image: &str) -> Vec<(&'static str, Vec<u8>)> {
    // More than one part.
    let large = image.as_bytes().repeat((1 << 20) / image.len() + 1000);
    vec![
        ("xen", b"xen of it".to_vec()),
        ("xen.efi", b"EFI".to_vec()),
        ("vmlinuz", b"dom0-1/vmlinuz".to_vec()),
        ("initrd", b"initrd of it".to_vec()),
        ("dom0.squashfs", large),
    ]
}

async fn send(operator: &Operator, manifest: &Manifest, content: &[(&str, Vec<u8>)]) {
    for file in operator.missing(manifest).await.files {
        let (_, content) = content.iter().find(|(role, _)| *role == file.role).expect("one of it");
        let mut have = usize::try_from(file.have).expect("small");
        while have < content.len() {
            let part = &content[have..content.len().min(have + (1 << 20))];
            let progress = operator.part(&file.sha256, have, part).await.expect("a part");
            have += part.len();
            assert_eq!((progress.have, progress.whole), (have as u64, have == content.len()));
        }
    }
}

fn image_path(manifest: &Manifest) -> String {
    rack::script::file_path("dom0.squashfs", &manifest.files["dom0.squashfs"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_comes_is_served_and_goes() {
    let server = start(directory()).await;
    let operator = Operator::log_in(&server).await;
    let content = content("image ");
    let manifest = release(2, &content);
    let missing = operator.missing(&manifest).await;
    let roles: Vec<_> = missing.files.iter().map(|file| file.role.as_str()).collect();
    assert_eq!(roles.len(), 4, "the kernel is that of the configured release: {roles:?}");
    assert!(operator.add(&manifest).await.is_err(), "its files are not here");
    // Two at once send the same: each part counts once, whoever sends it.
    let image = &manifest.files["dom0.squashfs"];
    let first = &content[4].1[..1 << 20];
    let (one, other) = tokio::join!(operator.part(&image.sha256, 0, first), operator.part(&image.sha256, 0, first));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    // A file of which a part is here is not served.
    let path = image_path(&manifest);
    assert_eq!(server.fetch(HERE, Method::GET, &path, &[]).await.0, StatusCode::NOT_FOUND);
    send(&operator, &manifest, &content).await;
    assert_eq!(server.fetch(HERE, Method::GET, &path, &[]).await.0, StatusCode::NOT_FOUND, "no release names it yet");
    assert_eq!(operator.add(&manifest).await, Ok(Accepted::Done));
    let (status, headers, body) = server.fetch(HERE, Method::GET, &path, &[]).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &content[4].1[..]));
    assert_eq!(headers["etag"].to_str().expect("text"), format!("\"{}\"", image.sha256));
    let id = missing.release;
    // What the configuration names is in use; a release that nothing uses goes, and its own files with it.
    let configured = server.rack.fresh().await.expect("a view").view.pools[0].release.clone();
    let refused = operator.ask::<Accepted>(Method::DELETE, &format!("/v1/releases/{configured}"), "").await;
    assert!(matches!(refused, Err(Refusal::ReleaseInUse { .. })), "{refused:?}");
    operator.ask::<Accepted>(Method::DELETE, &format!("/v1/releases/{id}"), "").await.expect("deleted");
    let gone = async {
        while server.fetch(HERE, Method::GET, &path, &[]).await.0 != StatusCode::NOT_FOUND {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, gone).await.expect("it is no longer served");
    assert_eq!(server.fetch(HERE, Method::GET, &server.image, &[]).await.0, StatusCode::OK, "others are");
    // Announced a short while ago, its files may still be here; after a restart they are not.
    let server = start(server.stop().await).await;
    until(&server.rack, |view| view.releases.len() == 1).await;
    let files = server.state().join("releases/files");
    let swept = async {
        while std::fs::read_dir(&files).expect("there").count() != 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, swept).await.expect("only the configured one's are left");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_does_not_come_in() {
    let server = start(directory()).await;
    let operator = Operator::log_in(&server).await;
    let content = content("other ");
    let manifest = release(3, &content);
    let image = manifest.files["dom0.squashfs"].clone();
    let refused = operator.part(&image.sha256, 0, b"x").await.expect_err("not announced");
    assert!(refused.to_string().contains("a release that was announced before"), "{refused}");
    operator.missing(&manifest).await;
    // One bit is wrong: nothing of the file stays.
    let mut wrong = content[4].1.clone();
    *wrong.last_mut().expect("not empty") ^= 1;
    operator.part(&image.sha256, 0, &wrong[..1 << 20]).await.expect("a part");
    let refused = operator.part(&image.sha256, 1 << 20, &wrong[1 << 20..]).await.expect_err("another digest");
    assert!(matches!(&refused, Refusal::BadValue { field, .. } if field == "the file's sha256"), "{refused}");
    let again = operator.missing(&manifest).await;
    assert!(again.files.iter().all(|file| file.have == 0), "{again:?}");
    // A part that does not follow is told where to go on.
    let refused = operator.part(&image.sha256, 7, b"x").await.expect_err("not where it ends");
    assert!(matches!(&refused, Refusal::BadValue { field, expected, .. } if field == "offset" && expected == "0"));
    // A release that was cut off, that lacks a kernel, or that has a path for a role.
    send(&operator, &release(3, &content[..2]), &content).await;
    assert!(operator.add(&manifest).await.is_err(), "two of its files never came");
    let lacking = release(3, &content[..2]);
    let refused = operator.add(&lacking).await.expect_err("no kernel");
    assert!(refused.to_string().contains("expected vmlinuz among them"), "{refused}");
    let path = release(3, &[("../../x", b"x".to_vec())]);
    let refused: Refusal = operator
        .ask::<MissingFiles>(Method::POST, "/v1/releases/missing", serde_json::to_vec(&path).expect("JSON"))
        .await
        .expect_err("no role");
    assert!(matches!(&refused, Refusal::BadValue { field, .. } if field == "a file's role"), "{refused}");
    let too_much = vec![0; (1 << 20) + 1];
    assert!(operator.part(&image.sha256, 0, &too_much).await.is_err());
    assert_eq!(server.rack.fresh().await.expect("a view").view.releases.len(), 1);
    server.stop().await;
}
