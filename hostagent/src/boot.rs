//! What the server says about this boot.
//!
//! Owns: the `tsubame.*` words, checked once. Never does: applying them; dom0's init has set address and route by the same words.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proto::{HostId, Mac};
use std::net::SocketAddrV4;

/// Where the initrd has put this boot's words, of the kernel command line or from the server.
pub const WORDS: &str = "/etc/tsubame/words";

/// This boot, as the server ordered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// `tsubame.host=`: who this machine is.
    pub host: HostId,
    /// `tsubame.mac=`: the interface it was booted by.
    pub mac: Mac,
    /// `tsubame.server=`: where agents are heard.
    pub server: SocketAddrV4,
    /// `tsubame.boot=`: where files are, by plain HTTP.
    pub boot: SocketAddrV4,
    /// `tsubame.ca=`: sha256 of the CA certificate's DER.
    pub ca: [u8; 32],
    /// `tsubame.join=`: this boot's nonce.
    pub nonce: String,
}

/// A word that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{WORDS}: tsubame.{key}= {why}; the boot server has written it")]
pub struct BootError {
    key: &'static str,
    why: String,
}

impl Boot {
    /// Reads the text of [`WORDS`]. The last of several equal words counts, as with the kernel.
    ///
    /// # Errors
    /// The first word that is missing or wrong.
    pub fn parse(cmdline: &str) -> Result<Self, BootError> {
        let word = |key: &'static str| {
            let values = cmdline.split_ascii_whitespace().filter_map(|w| w.strip_prefix("tsubame.")?.split_once('='));
            let value = values.filter(|(k, _)| *k == key).map(|(_, v)| v).next_back();
            value.ok_or_else(|| BootError { key, why: "is missing".to_owned() })
        };
        fn read<T: std::str::FromStr>(key: &'static str, value: &str, expected: &str) -> Result<T, BootError> {
            let why = || BootError { key, why: format!("is {value:?}, expected {expected}") };
            value.parse().map_err(|_| why())
        }
        let ca = word("ca")?;
        let digest = BASE64_URL_SAFE_NO_PAD.decode(ca).ok().and_then(|d| <[u8; 32]>::try_from(d).ok());
        let nonce = word("join")?;
        let nonce_fits = nonce.len() == 22 && BASE64_URL_SAFE_NO_PAD.decode(nonce).is_ok();
        Ok(Self {
            host: read("host", word("host")?, "a host's name")?,
            mac: read("mac", word("mac")?, "a MAC address")?,
            server: read("server", word("server")?, "address:port")?,
            boot: read("boot", word("boot")?, "address:port")?,
            ca: digest.ok_or_else(|| BootError { key: "ca", why: "is no sha256 in base64url".to_owned() })?,
            nonce: if nonce_fits {
                nonce.to_owned()
            } else {
                return Err(BootError { key: "join", why: "is no nonce of 22 base64url characters".to_owned() });
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "console=hvc0 tsubame.host=h525400aabb01 tsubame.mac=52:54:00:aa:bb:01 tsubame.ip=10.77.0.60/24 \
        tsubame.server=10.77.0.1:7443 tsubame.boot=10.77.0.1:8080 \
        tsubame.ca=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA tsubame.join=AAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn words() {
        let boot = Boot::parse(GOOD).expect("good");
        assert_eq!(boot.host, HostId::of(boot.mac));
        assert_eq!((boot.server.port(), boot.ca), (7443, [0; 32]));
        for (from, to, says) in [
            ("tsubame.ca=A", "tsubame.ca=", "tsubame.ca= is no sha256"),
            ("tsubame.join=A", "tsubame.join=", "tsubame.join= is no nonce"),
            ("tsubame.server=10", "tsubame.server=x", "tsubame.server= is \"x.77.0.1:7443\", expected address:port"),
            ("tsubame.host=", "host=", "tsubame.host= is missing"),
        ] {
            let error = Boot::parse(&GOOD.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
