//! Where results go: stdout, in the form that was asked for.
//!
//! Owns: choosing between a table and the API's own types as JSON or YAML. Never does: errors and progress, which go to
//! stderr.

use crate::args::Format;
use crate::fault::Fault;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// The form of output, and the terminal's width where stdout is one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// As given by `-o`.
    pub(crate) format: Format,
    /// Columns; `None` where stdout is no terminal, so that a table in a file is never broken.
    pub(crate) width: Option<u16>,
}

impl Output {
    /// Looks at stdout.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, width: console::Term::stdout().size_checked().map(|(_, columns)| columns) }
    }

    /// Prints `value`, or the text that `table` makes of it.
    pub(crate) fn show(&self, value: &impl Serialize, table: impl FnOnce(Option<u16>) -> String) -> Result<(), Fault> {
        let text = match self.format {
            Format::Table => table(self.width),
            Format::Json => serde_json::to_string_pretty(value).map_err(io::Error::from)? + "\n",
            Format::Yaml => serde_yaml::to_string(value).map_err(io::Error::other)?,
        };
        write(&text)
    }

    /// Prints one of a row of values without end: a line of JSON, a YAML document, or a line of text.
    pub(crate) fn show_one_of_many(&self, value: &impl Serialize, line: impl FnOnce() -> String) -> Result<(), Fault> {
        let text = match self.format {
            Format::Table => line(),
            Format::Json => serde_json::to_string(value).map_err(io::Error::from)? + "\n",
            Format::Yaml => format!("---\n{}", serde_yaml::to_string(value).map_err(io::Error::other)?),
        };
        write(&text)
    }
}

/// Whether what is printed is shown to a person at once.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints text as it is.
pub(crate) fn write(text: &str) -> Result<(), Fault> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
