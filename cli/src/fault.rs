//! Why a command was not done, and the exit code that says so to a script.
//!
//! Owns: the exit codes, and the sentence a person reads: what was attempted, on what, and what to do. Never does:
//! printing, retrying.

use crate::trust::Fingerprint;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// The exit codes as `--help` states them. README.md quotes this text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the server refused, or what was begun has failed; the message says why
  2  wrong usage, or a local file that cannot be read or written
  3  the server was not reached, is not trusted, or is no Tsubame server
  4  not logged in, or the session has ended
  5  time ran out while waiting; what was begun goes on";

/// Why a command was not done.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// The server said no.
    #[error("{doing}: {message}")]
    Refused {
        /// What was attempted, on what.
        doing: String,
        /// The refusal's own sentence.
        message: String,
    },
    /// What was begun ended otherwise than wished.
    #[error("{doing}: {why}")]
    Failed {
        /// What was attempted, on what.
        doing: String,
        /// The sentence that the server gives for it.
        why: String,
    },
    /// A value that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// A local file.
    #[error("{doing} {path}: {source}")]
    File {
        /// `reading`, `writing`.
        doing: &'static str,
        /// Which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// No answer.
    #[error("{doing}: {url} was not reached: {why}{}", if *.unsure {
        "; whether it was done is not known: look before you try again"
    } else {
        "; check the address (`tsubame login URL`, TSUBAME_URL) and that the boot server runs"
    })]
    Unreached {
        /// What was attempted, on what.
        doing: String,
        /// Where.
        url: String,
        /// What the system said.
        why: String,
        /// Whether the request may have been taken although no answer came.
        unsure: bool,
    },
    /// Something answered, but not by this program's API.
    #[error("{doing}: {url} answered, but not as a Tsubame server of this version ({version}): {why}", version = env!("CARGO_PKG_VERSION"))]
    NotTsubame {
        /// What was attempted, on what.
        doing: String,
        /// Where.
        url: String,
        /// What was wrong with the answer.
        why: String,
    },
    /// The certificate does not come from the CA that this operator trusts.
    #[error("{url} is not trusted: {why}")]
    Untrusted {
        /// Where.
        url: String,
        /// What is wrong with its certificate, and what to do.
        why: String,
    },
    /// Nothing is known yet about this server's CA.
    #[error(
        "{url} is not trusted yet: its CA has the sha256 {shown}. Compare it with the one the boot server prints, then give --ca-sha256 {shown} (or --trust-on-first-use to take it unseen)"
    )]
    Unpinned {
        /// Where.
        url: String,
        /// What it presents.
        shown: Fingerprint,
    },
    /// No session.
    #[error("{doing}: {why}; log in with `tsubame login URL`, or set TSUBAME_TOKEN")]
    NotLoggedIn {
        /// What was attempted, on what.
        doing: String,
        /// Why there is no session.
        why: String,
    },
    /// The wish was not met in time.
    #[error("{doing}: not done after {}; {last}. It goes on: look again, or wait longer with --timeout", humantime::format_duration(*.after))]
    TimedOut {
        /// What was attempted, on what.
        doing: String,
        /// How long was waited.
        after: Duration,
        /// What was seen last.
        last: String,
    },
    /// The output went away or is full.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

impl Fault {
    /// The exit code, 1 to 5.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Failed { .. } => 1,
            Self::Usage(_) | Self::File { .. } | Self::Output(_) => 2,
            Self::Unreached { .. } | Self::NotTsubame { .. } | Self::Untrusted { .. } | Self::Unpinned { .. } => 3,
            Self::NotLoggedIn { .. } => 4,
            Self::TimedOut { .. } => 5,
        }
    }

    /// Whether the reader of the output has gone (`tsubame … | head`), which is no failure worth a word.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether asking the same again later may be answered: used while waiting over a restart of the server.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreached { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::EXIT_CODES;

    #[test]
    fn the_readme_says_what_the_help_says() {
        assert!(include_str!("../README.md").contains(EXIT_CODES));
    }
}
