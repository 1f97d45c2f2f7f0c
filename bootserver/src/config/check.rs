//! From the form to the domain type: every check that takes more than one value, the machine or the disk.

use super::files::{ServedFile, built_manifest};
use super::form::{Form, Join, Network, Template, Timing};
use super::line::line_of;
use super::{Config, ConfigError, Listen};
use crate::releases::Import;
use proto::release::{BuiltManifest, Manifest, ReleaseKind};
use rack::policy::{self, AcceptRule, JoinMode, Policy};
use rack::release::{DOM0_ROLES, UNIFIED_ROLE};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Names under which loaders are handed out; the first two must be there.
const LOADERS: [&str; 4] = ["undionly.kpxe", "ipxe.efi", "snponly.efi", "autoexec.ipxe"];

/// By so much more than their signs of life lie apart may hosts that vanish together be found late, milliseconds.
const FREEZE_MARGIN_MS: u64 = 5_000;

pub(super) fn check(file: &Path, text: &str) -> Result<Config, ConfigError> {
    let form: Form = serde_yaml::from_str(text).map_err(|err| {
        let line = err.location().map(|at| at.line());
        let what = err.to_string();
        // The line is named in front already.
        let what = what.rsplit_once(" at line ").filter(|_| line.is_some()).map_or(what.as_str(), |(what, _)| what);
        ConfigError { file: file.to_owned(), line, key: String::new(), what: what.to_owned() }
    })?;
    let checker = Checker { file, text };
    checker.interface(&form)?;
    checker.config(form)
}

pub(super) struct Checker<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Checker<'_> {
    /// `key` is parted by `/`, as a MAC or a file name may hold dots and colons.
    pub(super) fn wrong<T>(&self, key: &str, what: impl Display) -> Result<T, ConfigError> {
        Err(ConfigError {
            file: self.file.to_owned(),
            line: line_of(self.text, key),
            key: key.replace('/', "."),
            what: what.to_string(),
        })
    }

    pub(super) fn range(
        &self,
        key: &str,
        given: u64,
        fits: RangeInclusive<u64>,
        unit: &str,
    ) -> Result<(), ConfigError> {
        if fits.contains(&given) {
            return Ok(());
        }
        self.wrong(key, format!("is {given}, expected {} to {} {unit}", fits.start(), fits.end()))
    }

    /// Paths are relative to the configuration's own directory.
    pub(super) fn path(&self, given: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(given)
    }

    fn served(&self, key: &str, path: PathBuf) -> Result<ServedFile, ConfigError> {
        match ServedFile::digest(&path) {
            Ok(file) => Ok(file),
            Err(err) => self.wrong(key, format!("{} cannot be read: {err}; expected a file", path.display())),
        }
    }

    /// The release of hosts: what its manifest names, or without one the files that no host boots without.
    fn release(&self, dir: PathBuf) -> Result<Import, ConfigError> {
        let built = match built_manifest(&dir) {
            Ok(built) => built,
            Err(err) => return self.wrong("release", format!("manifest.json of {}: {err}", dir.display())),
        };
        let mut roles: BTreeSet<String> = DOM0_ROLES.map(str::to_owned).into();
        roles.extend(built.iter().flat_map(|built| built.files.keys().cloned()));
        if dir.join(UNIFIED_ROLE).is_file() {
            roles.insert(UNIFIED_ROLE.to_owned());
        }
        let mut files = BTreeMap::new();
        for role in roles {
            let file = self.served("release", dir.join(&role))?;
            let said = built.as_ref().and_then(|built| built.files.get(&role));
            if said.is_some_and(|said| said.sha256 != file.sha256) {
                let what = "is not what manifest.json says by its sha256; build the release again";
                return self.wrong("release", format!("{} {what}", file.path.display()));
            }
            files.insert(role, file);
        }
        let named = files.iter().map(|(role, file)| (role.clone(), file.named())).collect();
        let of_dir = || dir.file_name().map_or_else(|| "release".into(), |n| n.to_string_lossy().into_owned());
        let built = built.unwrap_or_else(|| BuiltManifest {
            name: of_dir(),
            version: 0,
            files: BTreeMap::new(),
            packages: BTreeMap::new(),
        });
        let manifest = built.release(named, None);
        match manifest.check() {
            Ok(()) => Ok(Import { manifest, files }),
            Err(err) => self.wrong("release", format!("{}: {err}", dir.display())),
        }
    }

    /// Rules on whom to let in; one without a condition would let in all, which is said by `join: all`.
    fn accept(&self, form: &Form) -> Result<Vec<AcceptRule>, ConfigError> {
        let mut rules = Vec::new();
        for (at, given) in form.accept.iter().enumerate() {
            let network = match given.network.as_deref().map(str::parse::<Network>).transpose() {
                Ok(network) => network.map(|network| (network.address, network.prefix)),
                Err(err) => return self.wrong("accept/network", err),
            };
            let rule = AcceptRule {
                product: given.product.clone(),
                cpu: given.cpu.clone(),
                memory_mib: given.memory_mib,
                nic: given.nic.clone(),
                network,
                name: given.name.clone(),
                labels: given.labels.clone(),
            };
            let conditions = AcceptRule { name: None, labels: BTreeMap::new(), ..rule.clone() };
            if conditions == AcceptRule::default() {
                let what =
                    format!("rule {} has no condition, expected product, cpu, memory_mib, nic or network", at + 1);
                return self.wrong("accept", what);
            }
            rules.push(rule);
        }
        Ok(rules)
    }

    fn interface(&self, form: &Form) -> Result<(), ConfigError> {
        let all = match nix::ifaddrs::getifaddrs() {
            Ok(all) => all.collect::<Vec<_>>(),
            Err(err) => return self.wrong("interface", format!("the machine's interfaces cannot be listed: {err}")),
        };
        if !all.iter().any(|i| i.interface_name == form.interface) {
            let mut names: Vec<_> = all.iter().map(|i| i.interface_name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            return self.wrong(
                "interface",
                format!("there is no interface {:?} here, expected one of: {}", form.interface, names.join(", ")),
            );
        }
        let has = |i: &nix::ifaddrs::InterfaceAddress| {
            let address = i.address.as_ref().and_then(|a| a.as_sockaddr_in().map(|a| a.ip()));
            i.interface_name == form.interface && address == Some(form.subnet.address)
        };
        if !all.iter().any(has) {
            return self.wrong(
                "subnet/address",
                format!(
                    "interface {} does not have the address {}; give it to it first: ip address add {}/{} dev {}",
                    form.interface,
                    form.subnet.address,
                    form.subnet.address,
                    form.subnet.network.rsplit('/').next().unwrap_or_default(),
                    form.interface
                ),
            );
        }
        Ok(())
    }

    fn listen(&self, form: &Form) -> Result<Listen, ConfigError> {
        let (given, address) = (&form.listen, form.subnet.address);
        for (key, port) in [
            ("listen/boot_port", given.boot_port),
            ("listen/agent_port", given.agent_port),
            ("listen/operator", given.operator.port()),
            ("listen/migration_port", given.migration_port),
        ] {
            self.range(key, port.into(), 1..=65_535, "")?;
        }
        if given.agent_port == given.boot_port {
            return self.wrong("listen/agent_port", "is the same as boot_port, expected another port");
        }
        let same_place = given.operator.ip().is_unspecified() || given.operator.ip() == IpAddr::V4(address);
        if same_place && [given.boot_port, given.agent_port].contains(&given.operator.port()) {
            return self.wrong("listen/operator", "has the port of boot_port or agent_port, expected another");
        }
        Ok(Listen { address, boot_port: given.boot_port, agent_port: given.agent_port, operator: given.operator })
    }

    fn template(
        &self,
        name: &str,
        given: &Template,
        files: &mut BTreeMap<String, ServedFile>,
    ) -> Result<policy::Template, ConfigError> {
        let key = |field: &str| format!("templates/{name}/{field}");
        if name.parse::<proto::VmId>().is_err() {
            return self
                .wrong(&format!("templates/{name}"), "is no template's name, expected 1 to 63 of a-z, 0-9 and '-'");
        }
        self.range(&key("memory_mib"), given.memory_mib, 16..=1 << 24, "MiB")?;
        self.range(&key("vcpus"), given.vcpus.into(), 1..=64, "")?;
        self.range(&key("disk_mib"), given.disk_mib, 0..=1 << 26, "MiB")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if given.bridge.is_empty() || given.bridge.len() > 15 || !given.bridge.chars().all(fits) {
            return self.wrong(&key("bridge"), format!("is {:?}, expected an interface's name", given.bridge));
        }
        let mut blob = |field: &str, path: &Path| {
            let file = self.served(&key(field), self.path(path))?;
            let sha256 = file.sha256.clone();
            files.insert(field.to_owned(), file);
            Ok(sha256)
        };
        let boot = match (&given.kernel, &given.loader) {
            (Some(kernel), None) => proto::vm::Boot::Kernel {
                kernel: blob("kernel", kernel)?,
                initrd: given.initrd.as_deref().map(|initrd| blob("initrd", initrd)).transpose()?,
                cmdline: given.cmdline.clone().unwrap_or_default(),
            },
            (None, Some(loader)) if given.initrd.is_none() && given.cmdline.is_none() => {
                proto::vm::Boot::Disk { loader: blob("loader", loader)? }
            }
            _ => {
                return self.wrong(
                    &format!("templates/{name}"),
                    "expected either kernel (with initrd and cmdline, if wanted) or loader, and not both",
                );
            }
        };
        if let Some(image) = &given.disk_image {
            let path = self.path(image);
            let bytes = match std::fs::metadata(&path) {
                Ok(meta) if meta.is_file() => meta.len(),
                Ok(_) => return self.wrong(&key("disk_image"), format!("{} is no regular file", path.display())),
                Err(err) => {
                    return self.wrong(&key("disk_image"), format!("{} cannot be read: {err}", path.display()));
                }
            };
            let least = bytes.div_ceil(1 << 20);
            if given.disk_mib < least {
                return self.wrong(
                    &key("disk_mib"),
                    format!("is {}, expected {least} or more, the size of {}", given.disk_mib, path.display()),
                );
            }
        }
        Ok(policy::Template {
            boot,
            memory_mib: given.memory_mib,
            vcpus: given.vcpus,
            disk_mib: given.disk_mib,
            disk_image: given.disk_image.is_some(),
            bridge: given.bridge.clone(),
        })
    }

    /// Lease, watchdog and fence: the one inequality without which a VM could run twice.
    fn ha(&self, timing: &Timing) -> Result<policy::Ha, ConfigError> {
        let &Timing { heartbeat_ms, lease_ms, watchdog_ms, .. } = timing;
        self.range("timing/heartbeat_ms", heartbeat_ms, 1000..=60_000, "ms")?;
        self.range("timing/lease_ms", lease_ms, heartbeat_ms * 3..=600_000, "ms (at least three times heartbeat_ms)")?;
        // Xen counts whole seconds, and the agent is to be late twice before it is reset.
        self.range("timing/watchdog_ms", watchdog_ms, 10_000..=600_000, "ms")?;
        if watchdog_ms % 1000 != 0 {
            return self
                .wrong("timing/watchdog_ms", format!("is {watchdog_ms}, expected whole seconds, as Xen counts them"));
        }
        let least_ms = policy::Ha::fence_ms_min(lease_ms, watchdog_ms);
        let fence_ms = timing.fence_ms.unwrap_or(least_ms);
        let unit = "ms ((lease_ms + watchdog_ms + 4000) * 1.01 + 5000 or more, or a guest could run twice)";
        self.range("timing/fence_ms", fence_ms, least_ms..=3_600_000, unit)?;
        // What silences all hosts at once silences each from its own last sign on: when the first is due to be fenced, the others count as lost.
        let apart_ms = heartbeat_ms.max(timing.report_ms) + FREEZE_MARGIN_MS;
        if timing.lost_ms + apart_ms > fence_ms {
            let most = fence_ms.saturating_sub(apart_ms);
            let what = format!(
                "is {}, expected no more than {most} ms (fence_ms, {fence_ms}, less the longer of heartbeat_ms and report_ms, less \
                 {FREEZE_MARGIN_MS}: that all hosts vanished together is to be seen before the first is fenced)",
                timing.lost_ms
            );
            return self.wrong("timing/lost_ms", what);
        }
        Ok(policy::Ha { heartbeat_ms, lease_ms, watchdog_ms, fence_ms })
    }

    fn config(&self, form: Form) -> Result<Config, ConfigError> {
        let (subnet, relayed) = self.subnets(&form)?;
        let listen = self.listen(&form)?;
        self.range("dom0/memory_mib", form.dom0.memory_mib, 256..=65_536, "MiB")?;
        let timing = &form.timing;
        self.range("timing/report_ms", timing.report_ms, 1000..=60_000, "ms")?;
        self.range(
            "timing/lost_ms",
            timing.lost_ms,
            timing.report_ms * 2..=3_600_000,
            "ms (at least twice report_ms)",
        )?;
        if timing.balance_ms != 0 {
            self.range("timing/balance_ms", timing.balance_ms, 1000..=86_400_000, "ms, or 0 for never")?;
        }
        self.range("timing/migration_rate_mbit", timing.migration_rate_mbit, 0..=1_000_000, "Mbit/s")?;

        self.range("boot/at_once", form.boot.at_once, 1..=1000, "machines")?;
        self.range("boot/rate_mbit", form.boot.rate_mbit, 0..=1_000_000, "Mbit/s, 0 for no limit")?;
        if form.backup.every_s != 0 {
            self.range("backup/every_s", form.backup.every_s, 10..=2_592_000, "s, or 0 for on command only")?;
        }
        self.range("backup/keep", form.backup.keep, 1..=1000, "backups")?;
        let ha = self.ha(timing)?;
        if let Err(defect) = form.balancing.check() {
            // Of a list its own line is named; which item, the path says.
            let key = defect.path.split('[').next().unwrap_or_default().replace('.', "/");
            let item = if defect.path.contains('[') { defect.path.clone() + " " } else { String::new() };
            let what = format!("{item}is {}, expected {}", defect.found, defect.expected);
            return self.wrong(&format!("balancing/{key}"), what);
        }

        let storage = self.storage(&form)?;

        let keep_days = form.releases.keep_days;
        self.range("releases/keep_days", keep_days, 0..=36_500, "days, 0 for ever")?;
        let xen_args = format!("dom0_mem={0}M,max:{0}M {1}", form.dom0.memory_mib, form.dom0.xen_args);
        let mut imports = vec![self.release(self.path(&form.release))?];

        let loaders_dir = self.path(&form.loaders);
        let mut loaders = BTreeMap::new();
        for (at, name) in LOADERS.into_iter().enumerate() {
            let path = loaders_dir.join(name);
            if path.is_file() {
                loaders.insert(name.to_owned(), path);
            } else if at < 2 {
                return self.wrong("loaders", format!("{} is not there; expected iPXE's loaders", path.display()));
            }
        }

        let (mut templates, mut template_images) = (BTreeMap::new(), BTreeMap::new());
        for (name, given) in &form.templates {
            let mut files = BTreeMap::new();
            templates.insert(name.clone(), self.template(name, given, &mut files)?);
            let named = files.iter().map(|(role, file): (&String, &ServedFile)| (role.clone(), file.named())).collect();
            let manifest =
                Manifest { name: name.clone(), kind: ReleaseKind::Guest, files: named, ..Manifest::default() };
            imports.push(Import { manifest, files });
            if let Some(image) = &given.disk_image {
                template_images.insert(name.clone(), self.path(image));
            }
        }

        let policy = Policy {
            subnet,
            relayed,
            join: match form.join {
                Join::Manual => JoinMode::Manual,
                Join::Known => JoinMode::Known,
                Join::All => JoinMode::All,
            },
            accept: self.accept(&form)?,
            release: imports[0].manifest.clone(),
            guests: imports[1..].iter().map(|import| import.manifest.clone()).collect(),
            release_keep_ms: keep_days * 86_400_000,
            dom0: policy::Dom0 { xen_args: xen_args.trim_end().to_owned(), kernel_args: form.dom0.kernel_args },
            templates,
            report_ms: timing.report_ms,
            lost_ms: timing.lost_ms,
            balance_ms: timing.balance_ms,
            migration_rate_bytes_s: timing.migration_rate_mbit * 125_000,
            iqn_prefix: form.storage.iqn_prefix.clone(),
            storage: storage.policy(),
            migration_port: form.listen.migration_port,
            boots_at_once: usize::try_from(form.boot.at_once).unwrap_or(usize::MAX),
            ha,
            balancing: form.balancing,
        };
        let mut longest = policy.clone();
        longest.subnet.ca_digest = "x".repeat(43);
        longest.relayed.iter_mut().for_each(|subnet| subnet.ca_digest = "x".repeat(43));
        if let Err(err) = rack::script::bios_budget(&longest, &longest.release) {
            return self.wrong("dom0", err);
        }
        Ok(Config {
            backup: crate::backup::Schedule {
                directory: form
                    .backup
                    .directory
                    .as_ref()
                    .map_or_else(|| self.path(&form.state).join("backups"), |d| self.path(d)),
                every_s: form.backup.every_s,
                keep: usize::try_from(form.backup.keep).unwrap_or(usize::MAX),
            },
            state: self.path(&form.state),
            interface: form.interface,
            policy,
            imports,
            loaders,
            template_images,
            boot_rate_bytes_s: form.boot.rate_mbit * 125_000,
            listen,
            storage,
        })
    }
}
