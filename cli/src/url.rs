//! The address of a boot server: `https` always, port 8443 unless given.
//!
//! Owns: reading and writing it. Never does: resolving or connecting.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use ureq::http::Uri;

/// The port that a boot server listens on for operators unless configured otherwise.
const OPERATOR_PORT: u16 = 8443;

/// Where a boot server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// Name or address, without the brackets of IPv6.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
}

/// Why a text is no server's address.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UrlError {
    /// Not `https`.
    #[error("{0:?} is not https: a password is never sent without TLS")]
    NotHttps(String),
    /// Anything else.
    #[error("{0:?} is no server's address: expected https://HOST[:PORT] and nothing after it")]
    NoUrl(String),
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(given: &str) -> Result<Self, UrlError> {
        let wrong = || UrlError::NoUrl(given.chars().take(200).collect());
        let whole = if given.contains("://") { given.to_owned() } else { format!("https://{given}") };
        let uri: Uri = whole.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("https") {
            return Err(UrlError::NotHttps(given.chars().take(200).collect()));
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // `HOST:` with an empty or too large port parses as no port at all.
        let bare = if authority.host().starts_with('[') { authority.host().len() } else { host.len() };
        let port = match (authority.port_u16(), authority.as_str().len() == bare) {
            (Some(port), _) if port != 0 => port,
            (None, true) => OPERATOR_PORT,
            _ => return Err(wrong()),
        };
        if host.is_empty() { Err(wrong()) } else { Ok(Self { host, port }) }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses() {
        for (given, expect) in [
            ("https://10.77.0.1:8443", "https://10.77.0.1:8443"),
            ("https://rack.example/", "https://rack.example:8443"),
            ("localhost:443", "https://localhost:443"),
            ("10.77.0.1", "https://10.77.0.1:8443"),
            ("https://[::1]:9", "https://[::1]:9"),
            ("[::1]", "https://[::1]:8443"),
        ] {
            assert_eq!(given.parse::<ServerUrl>().map(|u| u.to_string()), Ok(expect.to_owned()), "{given}");
        }
        for bad in ["", "https://", "a/b", "https://a/v1", "https://a?x", "u:p@a", "a:", "a:0", "a:65536", "a b", "a:b"]
        {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
        assert_eq!("http://a".parse::<ServerUrl>(), Err(UrlError::NotHttps("http://a".into())));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_reads_back(given in ".{0,60}") {
            if let Ok(url) = given.parse::<ServerUrl>() {
                prop_assert_eq!(url.to_string().parse::<ServerUrl>(), Ok(url));
            }
        }
    }
}
