//! `images`: builds releases from recipes.
//!
//! Exit codes: 0 built or already there, 1 failed, 2 wrong usage or recipe.

use clap::{Parser, Subcommand};
use images::BuildError;
use images::recipe::{Kind, Recipe};
use images::release::{self, Programs};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Builds the images that a rack boots", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reads a recipe and says whether it is good.
    Check {
        /// The recipe.
        recipe: PathBuf,
    },
    /// Builds a release, or finds that it is there; prints its directory.
    Build {
        /// The recipe.
        recipe: PathBuf,
        /// dom0: the agent, a static binary.
        #[arg(long)]
        agent: Option<PathBuf>,
        /// dom0: the helper that resumes a suspended domain.
        #[arg(long)]
        resume_helper: Option<PathBuf>,
        /// guest: the counter, a static binary.
        #[arg(long)]
        counter: Option<PathBuf>,
        /// Where releases go.
        #[arg(long)]
        out: PathBuf,
        /// Where unpacked packages and compressed archives are kept.
        #[arg(long, default_value = "/var/cache/tsubame/images")]
        cache: PathBuf,
    },
    /// Copies Debian's boot loaders out; prints their directory.
    Loaders {
        /// Where releases go.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(Failure::Usage(what)) => {
            eprintln!("images: {what}");
            ExitCode::from(2)
        }
        Err(Failure::Build(err @ BuildError::Recipe(_))) => {
            eprintln!("images: {err}");
            ExitCode::from(2)
        }
        Err(Failure::Build(err)) => {
            eprintln!("images: {err}");
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    Usage(&'static str),
    Build(BuildError),
}

impl<E: Into<BuildError>> From<E> for Failure {
    fn from(err: E) -> Self {
        Self::Build(err.into())
    }
}

fn run(command: Command) -> Result<String, Failure> {
    match command {
        Command::Check { recipe } => {
            let recipe = Recipe::load(&recipe)?;
            Ok(format!("{} {} is good", recipe.name, recipe.version))
        }
        Command::Build { recipe, agent, resume_helper, counter, out, cache } => {
            let recipe = Recipe::load(&recipe)?;
            let files = match recipe.kind {
                Kind::Dom0 => {
                    let agent = agent.ok_or(Failure::Usage("a dom0 recipe needs --agent"))?;
                    let helper = resume_helper.ok_or(Failure::Usage("a dom0 recipe needs --resume-helper"))?;
                    BTreeMap::from([
                        ("usr/sbin/hostagent".into(), agent),
                        ("usr/lib/tsubame/domain-resume".into(), helper),
                    ])
                }
                Kind::Guest => {
                    let counter = counter.ok_or(Failure::Usage("a guest recipe needs --counter"))?;
                    BTreeMap::from([("usr/bin/guest-counter".into(), counter)])
                }
            };
            Ok(release::build(&recipe, &Programs { files }, &out, &cache)?.display().to_string())
        }
        Command::Loaders { out } => Ok(release::loaders(&out)?.display().to_string()),
    }
}
