//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Plans on which host each VM should run, and says why.
#[derive(Debug, Parser)]
#[command(name = "balancer", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Plan moves for a snapshot, or for a Ganeti cluster.
    Plan(PlanArgs),
    /// Say for one VM why it moves or stays, and what every host would be for it.
    Explain(ExplainArgs),
    /// Play the snapshot's recorded load through a policy: what would have happened.
    Replay(ReplayArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Snapshot of the rack with histories, YAML or JSON.
    pub(crate) snapshot: PathBuf,
    /// Policy, YAML or JSON; the default policy without it.
    #[arg(long)]
    pub(crate) policy: Option<PathBuf>,
    /// Sun, wind and temperature of sites, from sensors or a forecast: CSV with site, at_ms, sun, wind, temperature.
    #[arg(long, value_name = "FILE")]
    pub(crate) sites: Option<PathBuf>,
    /// Plan every so many samples.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) every: usize,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// Snapshot of the rack, YAML or JSON.
    pub(crate) snapshot: PathBuf,
    /// The VM.
    pub(crate) vm: proto::VmId,
    /// Sun, wind and temperature of sites, from sensors or a forecast: CSV with site, at_ms, sun, wind, temperature.
    #[arg(long, value_name = "FILE")]
    pub(crate) sites: Option<PathBuf>,
    /// Policy, YAML or JSON; the default policy without it.
    #[arg(long)]
    pub(crate) policy: Option<PathBuf>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// Snapshot of the rack, YAML or JSON.
    #[arg(required_unless_present = "ganeti", conflicts_with = "ganeti")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Policy, YAML or JSON; the default policy without it.
    #[arg(long, conflicts_with = "ganeti")]
    pub(crate) policy: Option<PathBuf>,
    /// Sun, wind and temperature of sites, from sensors or a forecast: CSV with site, at_ms, sun, wind, temperature.
    #[arg(long, value_name = "FILE", conflicts_with = "ganeti")]
    pub(crate) sites: Option<PathBuf>,
    /// Ganeti cluster in htools' text format (`hbal -t`).
    #[arg(long, value_name = "FILE", requires = "score")]
    pub(crate) ganeti: Option<PathBuf>,
    /// Utilisation file of the Ganeti cluster (`hbal -U`).
    #[arg(long, value_name = "FILE", requires = "ganeti")]
    pub(crate) util: Option<PathBuf>,
    /// Whose score to plan by, for a Ganeti cluster.
    #[arg(long, value_enum, requires = "ganeti")]
    pub(crate) score: Option<Score>,
    /// Most distinct VMs moved.
    #[arg(long, value_name = "N")]
    pub(crate) max_vms: Option<usize>,
    /// Most guest memory moved, MiB.
    #[arg(long, value_name = "MIB")]
    pub(crate) max_mib: Option<u64>,
    /// Write the moves of a Ganeti cluster as `gnt-instance` commands into this file.
    #[arg(long, value_name = "FILE", requires = "ganeti")]
    pub(crate) commands: Option<PathBuf>,
    /// How to show the plan.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Score {
    /// hbal's cluster score.
    Ganeti,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Lines for people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}
