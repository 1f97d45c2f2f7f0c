//! What guests' disks are on.

use super::check::Checker;
use super::form::{self, Form};
use super::{ConfigError, Storage, StorageKind};
use proto::DiskId;
use proto::agent::Secret;
use rack::policy::{self, ExternalDisk};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

impl Checker<'_> {
    pub(super) fn storage(&self, form: &Form) -> Result<Storage, ConfigError> {
        let given = &form.storage;
        let named = given.iqn_prefix.strip_prefix("iqn.").is_some_and(|rest| {
            !rest.is_empty()
                && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
        });
        if !named || given.iqn_prefix.len() > 100 {
            return self.wrong(
                "storage/iqn_prefix",
                format!("is {:?}, expected a name as iqn.2026-11.org.example (RFC 7143 §4.2.7.4)", given.iqn_prefix),
            );
        }
        let external = given.kind == form::StorageKind::External;
        for (key, is_given, fits, with) in [
            ("tgt_control_port", given.tgt_control_port.is_some(), given.kind == form::StorageKind::Tgt, "tgt"),
            ("portal", given.portal.is_some(), !external, "tgt or lio"),
            ("stop_with_server", given.stop_with_server, !external, "tgt or lio"),
            ("heartbeat", given.heartbeat.is_some(), external, "external"),
            ("disks", !given.disks.is_empty(), external, "external"),
        ] {
            if is_given && !fits {
                return self
                    .wrong(&format!("storage/{key}"), format!("is given, expected with storage.kind: {with} only"));
            }
        }
        let kind = match given.kind {
            form::StorageKind::Tgt => {
                let control_port = given.tgt_control_port.unwrap_or(7);
                self.range("storage/tgt_control_port", control_port.into(), 0..=32_767, "")?;
                StorageKind::Tgt { portal: self.portal(form)?, control_port }
            }
            form::StorageKind::Lio => StorageKind::Lio { portal: self.portal(form)? },
            form::StorageKind::External => self.external(given)?,
        };
        Ok(Storage { kind, stop_with_server: given.stop_with_server })
    }

    fn external(&self, given: &form::Storage) -> Result<StorageKind, ConfigError> {
        let Some(heartbeat) = &given.heartbeat else {
            return self.wrong("storage/heartbeat", "is missing, expected the LUN on which hosts say that they live");
        };
        let Some(device) = &heartbeat.device else {
            let what =
                "is missing, expected the path by which this machine reaches that LUN, such as /dev/disk/by-path/…";
            return self.wrong("storage/heartbeat/device", what);
        };
        let heartbeats = self.path(device);
        let kind = std::fs::metadata(&heartbeats).map(|meta| meta.file_type());
        if !kind.as_ref().is_ok_and(|kind| kind.is_block_device() || kind.is_file()) {
            let what = format!("{} is no block device; log this machine in to the LUN first", heartbeats.display());
            return self.wrong("storage/heartbeat/device", what);
        }
        let least = proto::heartbeat::DISK_MIB;
        self.range("storage/heartbeat/size_mib", heartbeat.size_mib, least..=1 << 26, "MiB")?;
        // A name of letters and a dash.
        let name: DiskId = proto::heartbeat::DISK.parse().expect("the heartbeat disk's name is a disk's");
        let declared = self.external_disk("storage/heartbeat", heartbeat)?;
        let mut targets = BTreeMap::from([(declared.target.clone(), name.to_string())]);
        let mut disks = BTreeMap::from([(name.clone(), declared)]);
        for (given_name, disk) in &given.disks {
            let key = format!("storage/disks/{given_name}");
            let Some(id) = given_name.parse::<DiskId>().ok().filter(|id| *id != name) else {
                return self.wrong(&key, "is no disk's name, expected 1 to 63 of a-z, 0-9 and '-'");
            };
            if disk.device.is_some() {
                return self.wrong(&format!("{key}/device"), "is given, expected with storage.heartbeat only");
            }
            self.range(&format!("{key}/size_mib"), disk.size_mib, 1..=1 << 26, "MiB")?;
            let declared = self.external_disk(&key, disk)?;
            // A host logs out of a target to let a disk go: another on the same target would go with it.
            if let Some(other) = targets.insert(declared.target.clone(), given_name.clone()) {
                let what = format!("{:?} is the target of {other} too, expected one of its own", declared.target);
                return self.wrong(&format!("{key}/target"), what);
            }
            disks.insert(id, declared);
        }
        Ok(StorageKind::External { disks, heartbeats })
    }

    fn external_disk(&self, key: &str, given: &form::ExternalDisk) -> Result<ExternalDisk, ConfigError> {
        if given.portal.port() == 0 || given.portal.ip().is_unspecified() {
            let what = format!("is {}, expected an address that hosts can reach, and a port", given.portal);
            return self.wrong(&format!("{key}/portal"), what);
        }
        // As the agent takes them: no path, no line's end.
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:+=".contains(&b));
        let named = ["iqn.", "eui.", "naa."].iter().any(|kind| given.target.starts_with(kind));
        if !named || !plain(&given.target) || given.target.len() > 223 {
            let what = format!(
                "is {:?}, expected a target's name as iqn.2001-05.com.example:lun (RFC 7143 §4.2.7)",
                given.target
            );
            return self.wrong(&format!("{key}/target"), what);
        }
        // RFC 7143 leaves more; SAM-5's flat addressing, which every initiator takes, does not.
        self.range(&format!("{key}/lun"), given.lun.into(), 0..=16_383, "")?;
        if !plain(&given.user) {
            let what = format!("is {:?}, expected a CHAP user of letters, digits and -._:+=", given.user);
            return self.wrong(&format!("{key}/user"), what);
        }
        let (key, path) = (format!("{key}/secret_file"), self.path(&given.secret_file));
        let secret = match std::fs::read_to_string(&path) {
            Ok(secret) => secret.trim_end_matches(['\r', '\n']).to_owned(),
            Err(err) => return self.wrong(&key, format!("{} cannot be read: {err}", path.display())),
        };
        let mode = std::fs::metadata(&path).map_or(0, |meta| meta.permissions().mode());
        if mode & 0o077 != 0 {
            let what = format!("{} can be read by others (mode {:03o}), expected 600", path.display(), mode & 0o777);
            return self.wrong(&key, what);
        }
        if !plain(&secret) || !(12..=16).contains(&secret.len()) {
            let what = format!("{} holds no CHAP secret, expected 12 to 16 letters, digits and -._:+=", path.display());
            return self.wrong(&key, what);
        }
        Ok(ExternalDisk {
            portal: given.portal,
            target: given.target.clone(),
            lun: given.lun,
            user: given.user.clone(),
            secret: Secret(secret),
            size_mib: given.size_mib,
        })
    }

    fn portal(&self, form: &Form) -> Result<SocketAddr, ConfigError> {
        let portal = form.storage.portal.unwrap_or(SocketAddr::from((form.subnet.address, 3260)));
        if portal.port() == 0 || portal.ip().is_unspecified() {
            return self
                .wrong("storage/portal", format!("is {portal}, expected an address that hosts can reach, and a port"));
        }
        Ok(portal)
    }
}

impl Storage {
    /// What the rack must know of it.
    pub(super) fn policy(&self) -> policy::Storage {
        match &self.kind {
            StorageKind::Tgt { portal, .. } | StorageKind::Lio { portal } => policy::Storage::Own { portal: *portal },
            StorageKind::External { disks, .. } => policy::Storage::External { disks: disks.clone() },
        }
    }
}
