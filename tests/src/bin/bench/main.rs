//! `bench`: what a boot and a move cost on the virtual rack, beside the same done without us.
//!
//! Both sides run on the same machine in the same run, so that a machine that is busy throughout slows both. Figures are
//! medians; every single value is printed beside them.
//! Exit codes: 0 measured, 1 not.

mod boot;
mod migrate;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tests::appliance::{Choices, Parts};
use tests::guard::heed_interrupts;
use tests::rack::VirtualRack;
use tests::registry::Purpose;

#[derive(Parser)]
#[command(about = "Boots and moves, measured beside Xen's own ways", version)]
struct Args {
    /// What is measured.
    #[arg(value_enum)]
    what: What,
    /// The boot server's program.
    #[arg(long)]
    bootserver: PathBuf,
    /// Directory of a dom0 release; for `migrate` one with a debug shell.
    #[arg(long)]
    release: PathBuf,
    /// Directory of the test guest.
    #[arg(long)]
    guest: PathBuf,
    /// Directory of boot loaders.
    #[arg(long)]
    loaders: PathBuf,
    /// How often each is done.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Power-on to joined under BIOS and UEFI, beside QEMU loading the same Xen and image itself.
    Boot,
    /// Our moves, beside `xl migrate` over a plain TCP connection between the same two hosts.
    Migrate,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("bench: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root: it makes a network namespace; `make bench-boot` uses sudo");
    heed_interrupts()?;
    let parts = Parts {
        bootserver: args.bootserver.clone(),
        release: args.release.clone(),
        guest: args.guest.clone(),
        loaders: args.loaders.clone(),
    };
    // No planner: nothing moves but what is measured.
    let choices = Choices { join: "all", balance_ms: 0, migration_rate_mbit: 0 };
    let mut rack = VirtualRack::start(Purpose::Test, &parts, &choices, 0).context("starting the virtual rack")?;
    rack.set_up()?;
    match args.what {
        What::Boot => boot::measure(&mut rack, &parts, args.rounds),
        What::Migrate => migrate::measure(&mut rack, &parts, args.rounds),
    }
}

/// Prints every value and returns the median.
fn median(what: &str, mut values: Vec<Duration>) -> Result<Duration> {
    values.sort();
    let at = |at: usize| values.get(at).copied().with_context(|| format!("{what} was never measured"));
    let middle = (at(values.len().saturating_sub(1) / 2)? + at(values.len() / 2)?) / 2;
    let all: Vec<String> = values.iter().map(|v| format!("{:.2}", v.as_secs_f64())).collect();
    println!("{what:<44} {:8.2} s   (all: {})", middle.as_secs_f64(), all.join(" "));
    Ok(middle)
}

/// Prints how much the first is of the second.
fn ratio(what: &str, first: Duration, second: Duration) {
    println!("{what:<44} {:8.2}", first.as_secs_f64() / second.as_secs_f64());
}
