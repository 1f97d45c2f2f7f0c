//! Management controllers (BMCs): the way in to each, what they are asked for, and what they answer.
//!
//! Owns: the words between the rules of power and the drivers in the shell. Never does: decide.

use proto::Mac;
use proto::agent::Secret;
use proto::host::Firmware;
use proto::power::{BmcKind, PowerState};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A management controller and the way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Bmc {
    /// Wake-on-LAN.
    Wake {
        /// Where the packet is sent; the broadcast address of the host's subnet when absent.
        to: Option<String>,
        /// SecureOn password.
        password: Option<Secret>,
    },
    /// IPMI 2.0 over LAN.
    Ipmi {
        /// Name or address, perhaps with a port.
        address: String,
        /// Account.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// Redfish.
    Redfish {
        /// Name or address, perhaps with a port.
        address: String,
        /// Account.
        user: String,
        /// Its password.
        password: Secret,
        /// Which certificate.
        trust: Trust,
        /// The system's Id, where there are several.
        system: Option<String>,
    },
}

/// Which certificate of a management controller is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// That which it shows next; it is pinned from then on.
    First,
    /// That of this sha256, 64 hexadecimal digits.
    Pinned(String),
    /// Any: whoever is on the way can pose as it, and learns the password.
    Any,
}

/// What a management controller is asked for. Each is idempotent: what is so already succeeds, and nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerOp {
    /// Whether the machine has power.
    State,
    /// On, and confirmed to be on.
    On {
        /// Boot from the network this once, by this firmware; set only when it is not on already.
        network: Option<Firmware>,
        /// Of its network card, for wake.
        mac: Mac,
        /// Broadcast address of its subnet, for wake.
        broadcast: Ipv4Addr,
    },
    /// Off at once, and confirmed to be off: this is what a fence relies on.
    Off,
}

/// What a management controller answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerAnswer {
    /// Whether the machine has power now.
    pub state: PowerState,
    /// sha256 of the certificate that it showed, 64 hexadecimal digits; Redfish only.
    pub certificate: Option<String>,
}

/// A management controller did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerFailure {
    /// Of which kind.
    pub why: PowerWhy,
    /// Which controller, what was tried, what went wrong, what to do. No secret is in it.
    pub text: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerWhy {
    /// It does not answer, or answers with what makes no sense, or it says that it cannot now. It may be otherwise soon.
    Unreached,
    /// It does not let us in: asking again may lock the account.
    Login,
    /// It shows another certificate than the one that is trusted. It was told nothing.
    Certificate,
    /// It cannot do that, or not without being told more.
    Unable,
}

/// As an operator gives and sees it.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Pinned(sha256) => sha256,
            Self::Any => "any",
        })
    }
}

impl Bmc {
    /// Its protocol.
    pub fn kind(&self) -> BmcKind {
        match self {
            Self::Wake { .. } => BmcKind::Wake,
            Self::Ipmi { .. } => BmcKind::Ipmi,
            Self::Redfish { .. } => BmcKind::Redfish,
        }
    }
}

/// A controller's name or IP address, and the port where one is given: `bmc-7`, `10.0.0.7:6230`, `[fd00::7]:443`, `fd00::7`. `None` for
/// what can be neither.
pub fn host_and_port(address: &str) -> Option<(&str, Option<u16>)> {
    if address.parse::<Ipv6Addr>().is_ok() {
        return Some((address, None));
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port)));
            // RFC 1123, section 2.1. What begins with a dash could be taken for an option.
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            if !(1..=253).contains(&host.len()) || !host.chars().all(fits) || host.starts_with(['-', '.']) {
                return None;
            }
            (host, port)
        }
    };
    match port {
        None => Some((host, None)),
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port > 0)?))),
    }
}

/// A SecureOn password, six bytes as `aa:bb:cc:dd:ee:ff`.
pub fn secure_on(password: &Secret) -> Option<[u8; 6]> {
    password.0.parse::<Mac>().ok().map(|Mac(bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, host, port) in [
            ("10.0.0.7", "10.0.0.7", None),
            ("10.0.0.7:6230", "10.0.0.7", Some(6230)),
            ("bmc-7.rack.example", "bmc-7.rack.example", None),
            ("fd00::7", "fd00::7", None),
            ("[fd00::7]", "fd00::7", None),
            ("[fd00::7]:443", "fd00::7", Some(443)),
        ] {
            assert_eq!(host_and_port(address), Some((host, port)), "{address}");
        }
        for bad in [
            "",
            "-H",
            "a b",
            "a/b",
            "https://a",
            "user@a",
            "a:",
            "a:0",
            "a:65536",
            "a:b",
            "[a]",
            "[::1",
            "[::1]443",
            ".",
            "a\n",
        ] {
            assert_eq!(host_and_port(bad), None, "{bad:?}");
        }
        assert_eq!(host_and_port(&"a".repeat(254)), None);
    }
}
