//! `tsubame`, the operator's command.
//!
//! Owns: reading the command line and turning its end into an exit code. Never does: deciding anything about the rack:
//! it asks the boot server's API, and shows what it says.

mod args;
mod client;
mod command;
mod fault;
mod goal;
mod output;
mod render;
mod session;
mod sse;
mod trust;
mod url;
mod wait;
mod watch;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Wrong usage ends here with 2, `--help` and `--version` with 0.
    match command::run(args::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) if fault.is_closed_pipe() => ExitCode::SUCCESS,
        Err(fault) => {
            // It may quote what a host or a guest's tool said.
            eprintln!("tsubame: {}", render::table::plain(&fault.to_string()));
            ExitCode::from(fault.exit_code())
        }
    }
}
