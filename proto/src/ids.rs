//! Identifiers. Each is checked where it is made, so the rest of the code can trust it: a name that passed
//! here is safe in a URL, a file name, an iSCSI name and an `xl` command line.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest host, VM or disk name, in bytes. 63 fits a DNS label (RFC 1035 §2.3.4).
pub const NAME_BYTES_MAX: usize = 63;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdError {
    /// Not 1–63 of `a-z 0-9 -`, beginning and ending with a letter or digit.
    Name {
        /// What was given.
        given: String,
    },
    /// Xen's tools name the halves of a move so (tools/xl/xl_migrate.c).
    Half {
        /// What was given.
        given: String,
    },
    /// Not six bytes in hexadecimal, parted by `:` or `-`.
    Mac {
        /// What was given.
        given: String,
    },
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { given } => write!(
                f,
                "{given:?} is no name: expected 1 to {NAME_BYTES_MAX} of a-z, 0-9 and '-', beginning and ending with a letter or digit"
            ),
            Self::Half { given } => {
                write!(f, "{given:?} is no name: Xen's tools give such to the halves of a move; expected another end")
            }
            Self::Mac { given } => {
                write!(f, "{given:?} is no MAC address: expected six bytes as 52:54:00:aa:bb:01")
            }
        }
    }
}

impl std::error::Error for IdError {}

pub(crate) fn check_name(given: &str) -> Result<(), IdError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = given.as_bytes();
    let fits = !bytes.is_empty()
        && bytes.len() <= NAME_BYTES_MAX
        && bytes.iter().all(|&b| inner(b) || b == b'-')
        && bytes.first().is_some_and(|&b| inner(b))
        && bytes.last().is_some_and(|&b| inner(b));
    if !fits {
        return Err(IdError::Name { given: given.chars().take(80).collect() });
    }
    if ["--incoming", "--migratedaway"].iter().any(|half| given.ends_with(half)) {
        return Err(IdError::Half { given: given.to_owned() });
    }
    Ok(())
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(given: &str) -> Result<Self, IdError> {
                check_name(given).map(|()| Self(given.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(given: String) -> Result<Self, IdError> {
                check_name(&given).map(|()| Self(given))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

name_id!(
    /// A physical machine. Made from its first MAC address: `h525400aabb01`.
    HostId
);
name_id!(
    /// A virtual machine. The operator's name for it; also its Xen domain name.
    VmId
);
name_id!(
    /// A disk on the shared storage; also the last part of its iSCSI target name.
    DiskId
);

impl HostId {
    /// The id of the machine that was first seen with this address.
    pub fn of(mac: Mac) -> Self {
        let [a, b, c, d, e, g] = mac.0;
        Self(format!("h{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{g:02x}"))
    }

    /// The address that it was made from; `None` for a name that was not made so.
    pub fn mac(&self) -> Option<Mac> {
        let digits = self.0.strip_prefix('h').filter(|digits| digits.len() == 12 && digits.is_ascii())?;
        let mut mac = [0; 6];
        for (byte, pair) in mac.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Mac(mac)).filter(|mac| Self::of(*mac) == *self)
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "52:54:00:aa:bb:01"))]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = IdError;
    fn from_str(given: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Mac { given: given.chars().take(80).collect() };
        let mut mac = [0; 6];
        let mut parts = given.split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(mac)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = IdError;
    fn try_from(given: String) -> Result<Self, IdError> {
        given.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(
    /// How often a VM's owner has changed. Whoever acts on a VM under an older epoch is wrong.
    Epoch
);
number_id!(
    /// The rule of one store's record: raised by every restore from a backup, beyond every number given before. 0 until the first.
    Term
);
number_id!(
    /// One order to one agent. Rises for ever over restarts of the server.
    OrderId
);
number_id!(
    /// One move of one VM. Rises for ever.
    MoveId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "web-1", "h525400aabb01", &"x".repeat(63)] {
            assert_eq!(good.parse::<VmId>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "../x", "ü", &"x".repeat(64), "a b", "a\n"] {
            assert!(bad.parse::<VmId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn macs() {
        let mac: Mac = "52-54-00-AA-bb-01".parse().expect("dashes and capitals are read");
        assert_eq!(mac.to_string(), "52:54:00:aa:bb:01");
        assert_eq!(HostId::of(mac).as_str(), "h525400aabb01");
        assert_eq!(HostId::of(mac).mac(), Some(mac));
        for other in ["h525400aabb0", "h525400aabb0x", "web", "h+25400aabb01"] {
            assert_eq!(HostId(other.to_owned()).mac(), None, "{other}");
        }
        for bad in ["", "52:54:00:aa:bb", "52:54:00:aa:bb:01:02", "5:54:00:aa:bb:011", "+2:54:00:aa:bb:01"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }
}
