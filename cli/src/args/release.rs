//! Releases and pools, as they can be typed.

use super::WaitArgs;
use clap::{Args, Subcommand};
use proto::release::PoolId;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// All releases, and what uses each.
    List,
    /// One release with its files.
    Show(ReleaseRef),
    /// Send a release to the server: a directory with manifest.json, as the builder of images makes it.
    Import {
        /// The directory.
        dir: PathBuf,
    },
    /// Delete a release that nothing uses.
    Delete(ReleaseRef),
    /// Delete all releases that nothing uses, or has used for some time.
    Gc {
        /// Only those that nothing has used for so long, such as 7d.
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
        unused_for: Duration,
        /// Only say which.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseRef {
    /// The release's id, its beginning, or name-version.
    pub(crate) release: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// All pools, what their hosts boot, and how far rollouts are.
    List,
    /// One pool with its rollout.
    Show {
        /// Which.
        pool: PoolId,
    },
    /// Make a pool.
    Create {
        /// Its name: 1 to 63 of a-z, 0-9 and '-'.
        pool: PoolId,
        /// What its hosts boot: id, its beginning, or name-version.
        #[arg(long)]
        release: String,
    },
    /// Delete a pool that has no hosts.
    Delete {
        /// Which.
        pool: PoolId,
    },
    /// Bring a release to a pool: first to a few hosts, then to all; waits until it has ended.
    ///
    /// A host is emptied, started anew, and must join and be healthy. If the canaries are not healthy by the deadline, the pool
    /// keeps its release and they go back to it by themselves.
    Rollout(RolloutArgs),
    /// Stop a rollout: canaries go back; what all hosts were to boot already stays, and no further host changes.
    Stop {
        /// Which.
        pool: PoolId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RolloutArgs {
    /// Which pool.
    pub(crate) pool: PoolId,
    /// Which release: id, its beginning, or name-version.
    pub(crate) release: String,
    /// How many hosts try it first; with 0 the pool takes it untried.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) canary: u32,
    /// By when the canaries must be healthy, and afterwards each host, from when its turn begins.
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Duration,
    /// How long a host must have been healthy.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) healthy: Duration,
    /// Hosts that are emptied and started anew at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) at_once: u32,
    /// Empty and start no host: each changes when somebody reboots it.
    #[arg(long)]
    pub(crate) no_reboot: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}
