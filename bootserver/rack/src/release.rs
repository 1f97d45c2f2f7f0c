//! Releases: what hosts and guests boot, named by what is in it.
//!
//! Owns: which releases there are, what uses each, and when one that nothing uses goes. Never does: hold a file; the shell's store has them by
//! digest, and removes those that no release names any more.
//!
//! ```text
//! (none) --all its files are in the store--> unused <--> used by a pool, a host, a guest, the configuration
//!    ^                                         |
//!    +---- by command, or unused for long -----+
//! ```

use crate::Rack;
use crate::event::Now;
use crate::record::{PoolRecord, ReleaseRecord};
use crate::script;
use proto::api::{Accepted, Refusal};
use proto::event::Topic;
use proto::release::{
    CollectReleases, Collected, ID_DIGITS, Manifest, PoolId, ReleaseId, ReleaseKind, ReleaseView, RolloutPhase,
};
use proto::vm::Boot;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Releases, at most.
pub const RELEASES_MAX: usize = 256;
/// Files without which no host boots. The initrd asks for the image by the digest of it that it was built with.
pub const DOM0_ROLES: [&str; 5] = ["xen", "xen.efi", "vmlinuz", "initrd", "dom0.squashfs"];
/// Xen, kernel and initrd in one signed file, where the builder had a key: for machines whose Secure Boot takes nothing else.
pub const UNIFIED_ROLE: &str = "unified.efi";
/// Users of a release that are named; of more only the number is told.
const USERS_NAMED: usize = 4;

/// The id of a release. When and of which packages it was built is not part of it: the same files under the same name are the same release.
pub fn id_of(manifest: &Manifest) -> ReleaseId {
    let Manifest { name, version, kind, files, .. } = manifest;
    let mut text = format!("{kind} {name} {version}\n");
    for (role, file) in files {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{role} {} {}", file.sha256, file.bytes);
    }
    let mut id = String::new();
    for byte in &Sha256::digest(text)[..ID_DIGITS / 2] {
        let _ = write!(id, "{byte:02x}");
    }
    id.parse().expect("twelve hexadecimal digits are a release's id")
}

fn audience(kind: ReleaseKind) -> &'static str {
    match kind {
        ReleaseKind::Dom0 => "hosts",
        ReleaseKind::Guest => "guests",
    }
}

/// What uses releases.
#[derive(Default)]
struct Users(BTreeMap<ReleaseId, (Vec<String>, usize)>);

impl Users {
    fn add(&mut self, release: &ReleaseId, what: impl FnOnce() -> String) {
        let (named, count) = self.0.entry(release.clone()).or_default();
        *count += 1;
        if named.len() < USERS_NAMED {
            named.push(what());
        }
    }

    fn of(&self, release: &ReleaseId) -> Vec<String> {
        let Some((named, count)) = self.0.get(release) else { return Vec::new() };
        let mut named = named.clone();
        if *count > named.len() {
            named.push(format!("{} more", count - named.len()));
        }
        named
    }
}

impl Rack {
    /// Takes in what the configuration names, and follows it where no operator has decided otherwise.
    pub(crate) fn take_configured_releases(&mut self, now: Now) {
        let manifests: Vec<Manifest> =
            std::iter::once(&self.policy.release).chain(&self.policy.guests).cloned().collect();
        for manifest in manifests {
            self.put_release(manifest, now);
        }
        let (release, name) = (id_of(&self.policy.release), PoolId::default());
        let Some(pool) = self.pools.get(&name) else {
            let configured = Some(release.clone());
            return self.pools.put(PoolRecord { name, release, previous: None, configured, rollout: None });
        };
        if pool.configured.as_ref() == Some(&release) {
            return;
        }
        let follows = pool.configured.as_ref() == Some(&pool.release) && !pool.busy() && pool.release != release;
        let title = self.release_title(&release);
        if let Some(pool) = self.pools.edit(&name) {
            pool.configured = Some(release.clone());
            if follows {
                pool.previous = Some(std::mem::replace(&mut pool.release, release));
            }
        }
        let text = if follows {
            format!("the configuration names another release: hosts of pool {name} boot {title} from now on")
        } else {
            format!("the configuration names {title}, but pool {name} was given another by an operator and keeps that")
        };
        self.info(Topic::Server, now, text, |_| ());
    }

    fn put_release(&mut self, manifest: Manifest, now: Now) -> ReleaseId {
        let id = id_of(&manifest);
        if !self.releases.contains(&id) {
            let (imported_ms, unused_ms) = (now.unix_ms, None);
            self.releases.put(ReleaseRecord { id: id.clone(), manifest, imported_ms, unused_ms });
        }
        id
    }

    /// An operator's release, whose files are all in the store. The same again changes nothing.
    pub(crate) fn add_release(&mut self, manifest: Manifest, now: Now) -> Result<Accepted, Refusal> {
        self.check_release(&manifest)?;
        if !self.releases.contains(&id_of(&manifest)) {
            let text = format!("{} was imported, a release for {}", manifest.title(), audience(manifest.kind));
            let id = self.put_release(manifest, now);
            self.info(Topic::Operator, now, format!("release {id}: {text}"), |_| ());
        }
        Ok(Accepted::Done)
    }

    fn check_release(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let bad = |field: String, given: String, expected: String| Err(Refusal::BadValue { field, given, expected });
        manifest.check()?;
        if manifest.kind == ReleaseKind::Dom0 {
            if let Some(role) = DOM0_ROLES.iter().find(|role| !manifest.files.contains_key(**role)) {
                let given = manifest.files.keys().cloned().collect::<Vec<_>>().join(", ");
                return bad("files".to_owned(), given, format!("{role} among them"));
            }
            if let Err(err) = script::bios_budget(&self.policy, manifest) {
                return bad("the release".to_owned(), manifest.title(), format!("one that can be booted: {err}"));
            }
        }
        if self.releases.len() >= RELEASES_MAX && !self.releases.contains(&id_of(manifest)) {
            let given = (self.releases.len() + 1).to_string();
            return bad("releases".to_owned(), given, format!("{RELEASES_MAX} or fewer; delete some first"));
        }
        Ok(())
    }

    pub(crate) fn delete_release(&mut self, release: &ReleaseId, now: Now) -> Result<Accepted, Refusal> {
        if !self.releases.contains(release) {
            return Err(Refusal::NoRelease { release: release.clone() });
        }
        let by = self.users().of(release);
        if !by.is_empty() {
            return Err(Refusal::ReleaseInUse { release: release.clone(), by });
        }
        self.remove_release(release, now);
        Ok(Accepted::Done)
    }

    fn remove_release(&mut self, release: &ReleaseId, now: Now) {
        if let Some(record) = self.releases.remove(release) {
            let text = format!("release {release}, {}, was removed: nothing used it", record.manifest.title());
            self.info(Topic::Server, now, text, |_| ());
        }
    }

    /// Removes what nothing has used for so long.
    pub(crate) fn collect(&mut self, request: CollectReleases, now: Now) -> Collected {
        self.note_unused(now);
        let old = |record: &&ReleaseRecord| {
            record.unused_ms.is_some_and(|since| now.unix_ms.saturating_sub(since) >= request.unused_s * 1000)
        };
        let releases: Vec<ReleaseId> = self.releases.values().filter(old).map(|record| record.id.clone()).collect();
        if !request.dry_run {
            for release in &releases {
                self.remove_release(release, now);
            }
        }
        Collected { releases }
    }

    /// The same, without being asked.
    pub(crate) fn collect_by_itself(&mut self, now: Now) {
        if self.policy.release_keep_ms > 0 {
            self.collect(CollectReleases { unused_s: self.policy.release_keep_ms / 1000, dry_run: false }, now);
        }
    }

    /// Notes since when each release is unused, as found now.
    fn note_unused(&mut self, now: Now) {
        let users = self.users();
        for id in self.releases.ids() {
            let unused = !users.0.contains_key(&id);
            let noted = self.releases.get(&id).is_some_and(|record| record.unused_ms.is_some());
            if unused != noted
                && let Some(record) = self.releases.edit(&id)
            {
                record.unused_ms = unused.then_some(now.unix_ms);
            }
        }
    }

    /// All that uses releases, by release.
    fn users(&self) -> Users {
        let mut users = Users::default();
        users.add(&id_of(&self.policy.release), || "the configuration".to_owned());
        for guest in &self.policy.guests {
            users.add(&id_of(guest), || format!("template {}", guest.name));
        }
        for pool in self.pools.values() {
            users.add(&pool.release, || format!("pool {}", pool.name));
            if let Some(previous) = &pool.previous {
                users.add(previous, || format!("pool {}, to go back to", pool.name));
            }
            if let Some(rollout) = pool.rollout.as_ref().filter(|r| r.phase != RolloutPhase::RolledBack && !r.ended()) {
                users.add(&rollout.to, || format!("the rollout of pool {}", pool.name));
            }
        }
        for host in self.hosts.values() {
            let mut runs: BTreeSet<ReleaseId> = self.runs_release(host).into_iter().collect();
            let boots = [&host.boot, &host.next_boot].into_iter().flatten().filter_map(|boot| boot.release.clone());
            runs.extend(boots);
            for release in &runs {
                users.add(release, || format!("host {}", host.name));
            }
        }
        let mut by_file: BTreeMap<&str, Vec<&ReleaseId>> = BTreeMap::new();
        for record in self.releases.values().filter(|record| record.manifest.kind == ReleaseKind::Guest) {
            for file in record.manifest.files.values() {
                by_file.entry(&file.sha256).or_default().push(&record.id);
            }
        }
        for vm in self.vms.values() {
            let files = match &vm.spec.boot {
                Boot::Kernel { kernel, initrd, .. } => vec![Some(kernel), initrd.as_ref()],
                Boot::Disk { loader } => vec![Some(loader)],
            };
            let found = files.into_iter().flatten().filter_map(|file| by_file.get(file.as_str())).flatten();
            for release in found.copied().collect::<BTreeSet<_>>() {
                users.add(release, || format!("VM {}", vm.spec.name));
            }
        }
        users
    }

    /// Name and version, for a sentence.
    pub(crate) fn release_title(&self, release: &ReleaseId) -> String {
        match self.releases.get(release) {
            Some(record) => format!("{} ({release})", record.manifest.title()),
            None => release.to_string(),
        }
    }

    pub(crate) fn releases_shown(&self) -> Vec<ReleaseView> {
        let users = self.users();
        let shown = self.releases.values().map(|record| ReleaseView {
            id: record.id.clone(),
            manifest: record.manifest.clone(),
            imported_ms: record.imported_ms,
            used_by: users.of(&record.id),
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by(|a, b| {
            let key = |view: &ReleaseView| (view.manifest.kind, view.manifest.name.clone());
            key(a)
                .cmp(&key(b))
                .then(b.manifest.version.cmp(&a.manifest.version))
                .then(b.imported_ms.cmp(&a.imported_ms))
        });
        shown
    }
}
