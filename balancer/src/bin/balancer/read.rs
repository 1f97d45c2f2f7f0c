//! Files in and out, with errors that name file, line and what was expected.

use balancer::Defect;
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
    Line {
        path: PathBuf,
        #[source]
        err: ParseError,
    },
    #[error("{}: {what}", path.display())]
    Parse { path: PathBuf, what: String },
    #[error("{}: {what}; expected {expected}", path.display())]
    Unknown { path: PathBuf, what: String, expected: String },
    #[error("{}: {}{defect}", path.display(), line.map_or(String::new(), |line| format!("line {line}: ")))]
    Defect {
        path: PathBuf,
        line: Option<usize>,
        #[source]
        defect: Defect,
    },
    #[error("showing the result: {why}")]
    Show { why: String },
}

pub(crate) fn text(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|err| CommandError::Read { path: path.to_owned(), err })
}

/// A defect of what a file says, with the line on which it stands.
pub(crate) fn defect(path: &Path, defect: Defect) -> CommandError {
    let line = text(path).ok().and_then(|text| crate::locate::line_of(&text, is_json(path), &defect.path));
    CommandError::Defect { path: path.to_owned(), line, defect }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json")
}

/// Reads a file as JSON when its name ends so, else as YAML. Errors name line, column and the path within the file.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CommandError> {
    let text = text(path)?;
    let wrong = |what: String| CommandError::Parse { path: path.to_owned(), what };
    if is_json(path) {
        let mut json = serde_json::Deserializer::from_str(&text);
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|err| wrong(format!("{}: {}", err.path(), err.inner())))?;
        json.end().map_err(|err| wrong(err.to_string()))?;
        return Ok(value);
    }
    let yaml = serde_yaml::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(yaml).map_err(|err| {
        let (at, what) = (err.path().to_string(), err.inner().to_string());
        // Some errors name the path themselves.
        wrong(if what.starts_with(&at) { what } else { format!("{at}: {what}") })
    })
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    std::fs::write(path, text).map_err(|err| CommandError::Write { path: path.to_owned(), err })
}
