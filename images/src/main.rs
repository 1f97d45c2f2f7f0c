//! `images`: builds releases from recipes.
//!
//! Exit codes: 0 built or already there, 1 failed, 2 wrong usage or recipe.

use clap::{Args, Parser, Subcommand};
use images::keys::{self, Signer};
use images::lock::Lock;
use images::recipe::{Kind, Recipe};
use images::release::{self, Programs, Signed};
use images::{BuildError, counter, rootfs};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
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
        #[command(flatten)]
        what: What,
        /// Where releases go.
        #[arg(long)]
        out: PathBuf,
        /// Where unpacked packages are kept.
        #[arg(long, default_value = "/var/cache/tsubame/images")]
        cache: PathBuf,
        /// Fails, rather than warns, when Debian no longer has the packages of the recipe's lock.
        #[arg(long)]
        locked: bool,
    },
    /// Writes the recipe's lock anew, from what Debian has now.
    Lock {
        /// The recipe.
        recipe: PathBuf,
        /// Where the packages are unpacked; about 700 MB.
        #[arg(long)]
        work: PathBuf,
    },
    /// Builds a release twice from two downloads and fails if a byte differs.
    Verify {
        #[command(flatten)]
        what: What,
        /// Where both are made; about 1.5 GB.
        #[arg(long)]
        work: PathBuf,
    },
    /// Reads back what the test guest counted on its disk; fails if a write was lost, late or doubled.
    Counter {
        /// The disk's image, not written meanwhile.
        disk: PathBuf,
    },
    /// Copies Debian's boot loaders out; prints their directory.
    Loaders {
        /// Where releases go.
        #[arg(long)]
        out: PathBuf,
        /// Signs the loader for UEFI by this private key; its certificate is beside it.
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
    },
    /// Makes keys for Secure Boot in a new directory, for nobody but its owner; prints the one to sign by.
    Keys {
        /// The directory; outside of any release and repository.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Args)]
struct What {
    /// The recipe.
    recipe: PathBuf,
    /// dom0: the agent, a static binary.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// dom0: the helper that resumes a suspended domain.
    #[arg(long)]
    resume_helper: Option<PathBuf>,
    /// dom0: what fetches the image in the initrd, a static binary.
    #[arg(long)]
    fetch_image: Option<PathBuf>,
    /// dom0: makes unified.efi as well, signed by this private key; its certificate is beside it, db.pem to db.key.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// dom0, signed: the appliance's CA certificate (ca.pem in its state directory): hosts will obey no other.
    #[arg(long, value_name = "PEM", requires = "sign")]
    ca: Option<PathBuf>,
    /// dom0, signed: where the boot server is; needed where another server gives out the addresses.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "sign")]
    boot: Option<SocketAddrV4>,
    /// guest: the counter, a static binary.
    #[arg(long)]
    counter: Option<PathBuf>,
}

impl What {
    fn load(self) -> Result<(Recipe, Programs), Failure> {
        let recipe = Recipe::load(&self.recipe)?;
        let programs = match recipe.kind {
            Kind::Dom0 => {
                let agent = self.agent.ok_or(Failure::Usage("a dom0 recipe needs --agent"))?;
                let helper = self.resume_helper.ok_or(Failure::Usage("a dom0 recipe needs --resume-helper"))?;
                let fetch = self.fetch_image.ok_or(Failure::Usage("a dom0 recipe needs --fetch-image"))?;
                let signed = match self.sign {
                    Some(key) => Some(Signed { signer: Signer::of(&key)?, ca: self.ca, boot: self.boot }),
                    None => None,
                };
                Programs {
                    signed,
                    files: BTreeMap::from([
                        ("usr/sbin/hostagent".into(), agent),
                        ("usr/lib/tsubame/domain-resume".into(), helper),
                    ]),
                    initrd: BTreeMap::from([("usr/bin/fetch-image".into(), fetch)]),
                }
            }
            Kind::Guest => {
                let counter = self.counter.ok_or(Failure::Usage("a guest recipe needs --counter"))?;
                let files = BTreeMap::from([("usr/bin/guest-counter".into(), counter)]);
                Programs { files, ..Programs::default() }
            }
            Kind::Initrd => Programs::default(),
        };
        Ok((recipe, programs))
    }
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
        Err(Failure::Counter(what)) => {
            eprintln!("images: {what}");
            ExitCode::FAILURE
        }
        Err(Failure::Differs(names)) => {
            eprintln!("images: two builds of the same inputs differ in {names}; compare them below --work");
            ExitCode::FAILURE
        }
        Err(Failure::Departs(what)) => {
            eprintln!("images: the packages are not the recipe's lock's:\n  {what}");
            ExitCode::FAILURE
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
    Differs(String),
    Departs(String),
    Counter(String),
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
        Command::Build { what, out, cache, locked } => {
            let (recipe, programs) = what.load()?;
            let directory = release::build(&recipe, &programs, &out, &cache)?;
            let packages = release::manifest(&directory).map(|m| m.packages).unwrap_or_default();
            let departures: Vec<String> = recipe.locked.departures(&packages).iter().map(ToString::to_string).collect();
            match &departures[..] {
                [] => {}
                some if locked => return Err(Failure::Departs(some.join("\n  "))),
                some => eprintln!(
                    "images: {} is made of newer packages than its lock names, as Debian has the others no more; `images lock` takes them on:\n  {}",
                    recipe.name,
                    some.join("\n  ")
                ),
            }
            Ok(directory.display().to_string())
        }
        Command::Lock { recipe: path, work } => {
            let mut recipe = Recipe::load(&path)?;
            let Some(name) = recipe.lock.clone() else { return Err(Failure::Usage("the recipe has no key `lock`")) };
            recipe.locked = Lock::default();
            let versions = rootfs::unpack(&recipe, &work)?.versions;
            let file = path.with_file_name(name);
            let count = versions.len();
            std::fs::write(&file, Lock::of(versions).render()).map_err(|err| BuildError::File {
                doing: "writing",
                path: file.clone(),
                err,
            })?;
            Ok(format!("{}: {count} packages", file.display()))
        }
        Command::Verify { what, work } => {
            let (recipe, programs) = what.load()?;
            match release::verify(&recipe, &programs, &work)?.as_slice() {
                [] => Ok(format!("{} {}: two builds are the same, byte for byte", recipe.name, recipe.version)),
                names => Err(Failure::Differs(names.join(", "))),
            }
        }
        Command::Counter { disk } => {
            let bytes =
                std::fs::read(&disk).map_err(|err| Failure::Counter(format!("reading {}: {err}", disk.display())))?;
            let found =
                counter::verify(&bytes).map_err(|err| Failure::Counter(format!("{}: {err}", disk.display())))?;
            if found.is_good() { Ok(format!("{found:?}")) } else { Err(Failure::Counter(format!("{found:?}"))) }
        }
        Command::Loaders { out, sign } => {
            let signer = sign.as_deref().map(Signer::of).transpose()?;
            Ok(release::loaders(&out, signer.as_ref())?.display().to_string())
        }
        Command::Keys { out } => {
            keys::make(&out)?;
            Ok(out.join("db.key").display().to_string())
        }
    }
}
