//! `balancer`: what would be planned, on files.
//!
//! Owns: flags, files, tables. Never does: decide anything; the library does. Exit 0 when it did what was asked, 2 when flags or
//! files are wrong.

mod args;
mod ganeti;
mod locate;
mod read;
mod replay;
mod snapshot;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Plan(plan) => match (&plan.ganeti, &plan.snapshot) {
            (Some(file), _) => ganeti::run(file, &plan),
            (None, Some(file)) => snapshot::run(file, &plan),
            (None, None) => Ok(()), // clap asks for one of the two
        },
        Command::Explain(explain) => snapshot::explain(&explain),
        Command::Replay(args) => replay::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("balancer: {err}");
            ExitCode::from(2)
        }
    }
}
