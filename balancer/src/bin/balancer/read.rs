//! Files in and out, with errors that name file, line and what was expected.

use balancer::ganeti::ParseError;
use std::path::{Path, PathBuf};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("reading {}: {err}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        err: std::io::Error,
    },
    #[error("writing {}: {err}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        err: std::io::Error,
    },
    #[error("{}: {err}", path.display())]
    Ganeti {
        path: PathBuf,
        #[source]
        err: ParseError,
    },
}

pub(crate) fn text(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|err| CommandError::Read { path: path.to_owned(), err })
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    std::fs::write(path, text).map_err(|err| CommandError::Write { path: path.to_owned(), err })
}
