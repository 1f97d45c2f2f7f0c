//! Builds the images that a rack boots: dom0 releases and the small test guest.
//!
//! Owns: recipes, picking files from Debian's packages, archives, releases and their manifests, and reading back
//! what the test guest counted. Never does: put a secret into an image, or anything that differs between two builds
//! of the same inputs.

pub mod counter;
pub mod cpio;
pub mod dom0;
pub mod guest_disk;
pub mod keys;
pub mod lock;
pub mod pick;
pub mod recipe;
pub mod release;
pub mod rootfs;
pub mod squashfs;
pub mod unified;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] recipe::RecipeError),
    /// A file could not be read or written.
    #[error("{doing} {}: {err}", path.display())]
    File {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// A tool failed.
    #[error("{command} failed ({status}): {stderr}")]
    Tool {
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        stderr: String,
    },
    /// The packages lack something that the recipe keeps.
    #[error("{what} is not among the unpacked packages in {}; does the recipe name the right packages?", root.display())]
    Missing {
        /// What.
        what: String,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// Debian carries another version than the recipe was written for.
    #[error(
        "package {package} has version {found}, the recipe expects {expected}; change the recipe and what relies on it together"
    )]
    Version {
        /// Which package.
        package: String,
        /// Its version.
        found: String,
        /// What it must begin with.
        expected: String,
    },
}

impl BuildError {
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |err| Self::File { doing, path, err }
    }
}

/// Runs a tool to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), BuildError> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let failed = |status: String, stderr: String| BuildError::Tool { command: shown.clone(), status, stderr };
    let output = command.output().map_err(|err| failed(err.to_string(), format!("is {shown} installed?")))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = stderr.lines().rev().take(5).collect();
    Err(failed(output.status.to_string(), last.into_iter().rev().collect::<Vec<_>>().join("; ")))
}
