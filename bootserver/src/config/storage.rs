//! What guests' disks are on.

use super::check::Checker;
use super::form::{self, Form};
use super::{ConfigError, Storage, StorageKind};
use std::net::SocketAddr;

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
        if given.kind != form::StorageKind::Tgt && given.tgt_control_port.is_some() {
            return self.wrong("storage/tgt_control_port", "is given, expected with storage.kind: tgt only");
        }
        let kind = match given.kind {
            form::StorageKind::Tgt => {
                let control_port = given.tgt_control_port.unwrap_or(7);
                self.range("storage/tgt_control_port", control_port.into(), 0..=32_767, "")?;
                StorageKind::Tgt { portal: self.portal(form)?, control_port }
            }
            form::StorageKind::Lio => StorageKind::Lio { portal: self.portal(form)? },
        };
        Ok(Storage { kind, stop_with_server: given.stop_with_server })
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
    /// Where hosts reach the disks that we serve.
    pub(super) fn portal(&self) -> SocketAddr {
        match self.kind {
            StorageKind::Tgt { portal, .. } | StorageKind::Lio { portal } => portal,
        }
    }
}
