//! `virtual-rack-tests`: the tests that need real Xen hosts. All of them share one virtual rack, as each boot is dear, and
//! run in the order in which a rack grows.
//!
//! A case that cannot be tried because an earlier one failed counts as failed. Nothing is skipped: without root, QEMU or a
//! file it fails and says what is missing. Exit codes: 0 all passed, 1 not.

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tests::appliance::{Choices, Parts};
use tests::cases::{CASES, HOUR, TRIALS, Trial, With};
use tests::guard::{heed_interrupts, interrupted};
use tests::rack::VirtualRack;
use tests::registry::Purpose;

#[derive(Parser)]
#[command(about = "Tests on real Xen hosts in emulation", version)]
struct Args {
    /// The boot server's program.
    #[arg(long)]
    bootserver: PathBuf,
    /// The operators' command.
    #[arg(long)]
    tsubame: PathBuf,
    /// The program that tries the contract of hosts on Xen, static.
    #[arg(long)]
    contract: PathBuf,
    /// Directory of a dom0 release with a debug shell.
    #[arg(long)]
    release: PathBuf,
    /// Directory of the keys that it is signed by, with firmware's variables that hold them.
    #[arg(long)]
    keys: PathBuf,
    /// Directory of the test guest.
    #[arg(long)]
    guest: PathBuf,
    /// Directory of boot loaders.
    #[arg(long)]
    loaders: PathBuf,
    /// The page's sources with their test, which drives a real Chromium.
    #[arg(long)]
    web: PathBuf,
    /// Where logs go when a case fails.
    #[arg(long)]
    keep: PathBuf,
    /// Ends after this case; all before it are run as it needs them.
    #[arg(long)]
    until: Option<String>,
    /// Begins with this case. Only those about releases, failures of hosts and Secure Boot can be begun with: they make for themselves what they need.
    #[arg(long)]
    from: Option<String>,
    /// Which cases.
    #[arg(long, value_enum, default_value_t = Set::Cases)]
    set: Set,
}

#[derive(Clone, Copy, ValueEnum)]
enum Set {
    /// Those of `make test`.
    Cases,
    /// Faults that take longer.
    Faults,
    /// The server away for an hour, then the appliance with its storage.
    Hour,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("virtual-rack-tests: {err:#}");
            println!("virtual rack: 0 passed, {} failed", CASES.len());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root: it makes a network namespace; `make test` uses sudo");
    heed_interrupts()?;
    let parts = Parts {
        bootserver: args.bootserver.clone(),
        release: args.release.clone(),
        guest: args.guest.clone(),
        loaders: args.loaders.clone(),
    };
    // The planner acts on what happens, not by the clock: a case knows what moves.
    let choices = Choices { join: "manual", balance_ms: 3_600_000, migration_rate_mbit: 0 };
    let rack = VirtualRack::start(Purpose::Test, &parts, &choices, 0).context("starting the virtual rack")?;
    let with = With {
        tsubame: args.tsubame.clone(),
        contract: args.contract.clone(),
        release: args.release.clone(),
        keys: args.keys.clone(),
        guest: args.guest.clone(),
        web: args.web.clone(),
        keep: args.keep.clone(),
    };
    let mut trial = Trial::new(rack, with)?;
    let (mut passed, mut failed) = (0, 0);
    let mut broken: Option<&str> = None;
    let cases = match args.set {
        Set::Cases => CASES,
        Set::Faults => TRIALS,
        Set::Hour => HOUR,
    };
    let first = args.from.as_deref().map_or(Some(0), |from| cases.iter().position(|case| case.name == from));
    for case in cases.iter().skip(first.context("--from names no case")?) {
        if let Some(first) = broken {
            println!("FAILED  {}: not tried, as {first} failed", case.name);
            failed += 1;
            continue;
        }
        println!("        {} …", case.name);
        let began = Instant::now();
        match (case.run)(&mut trial).and_then(|()| trial.judge()) {
            Ok(()) => {
                passed += 1;
                println!("ok      {} ({:.1} s)", case.name, began.elapsed().as_secs_f64());
            }
            Err(err) => {
                failed += 1;
                println!("FAILED  {} ({:.1} s)\n{err:#}", case.name, began.elapsed().as_secs_f64());
                broken = Some(case.name);
            }
        }
        if interrupted() || args.until.as_deref() == Some(case.name) {
            break;
        }
    }
    if failed > 0 {
        trial.rack.keep_logs(&args.keep)?;
        println!("every log is kept in {}", args.keep.display());
    }
    println!("virtual rack: {passed} passed, {failed} failed");
    Ok(failed == 0 && !interrupted())
}
