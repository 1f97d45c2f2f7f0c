//! `balancer`: what would be planned, on files.
//!
//! Owns: flags, files, tables. Never does: decide anything; the library does. Exit 0 when it did what was asked, 2 when flags or
//! files are wrong.

mod args;
mod ganeti;
mod read;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Plan(plan) => match &plan.ganeti {
            Some(file) => ganeti::run(file, &plan),
            None => Ok(()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("balancer: {err}");
            ExitCode::from(2)
        }
    }
}
