//! The boot server's command.
//!
//! Exit codes: 0 it did what was asked or was told to stop; 1 it could not start or had to stop, the last line says why;
//! 2 the command line or the configuration is wrong.

use bootserver::config::Config;
use bootserver::{run, store};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Boots bare machines into Xen and moves virtual machines onto them.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGINT or SIGTERM. Guests' disks go on being served after that.
    Run {
        /// The configuration.
        config: PathBuf,
    },
    /// Only check the configuration.
    Check {
        /// The configuration.
        config: PathBuf,
    },
    /// Copy the store into the state directory's `backups`; the server may be running.
    Backup {
        /// The configuration.
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("TSUBAME_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (Command::Run { config } | Command::Check { config } | Command::Backup { config }) = &args.command;
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(err) => {
            eprintln!("{err}");
            return ExitCode::from(2);
        }
    };
    let result = match args.command {
        Command::Check { .. } => Ok(()),
        Command::Backup { .. } => {
            store::backup(&config.state).map(|path| println!("{}", path.display())).map_err(|err| err.to_string())
        }
        Command::Run { .. } => serve(config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("bootserver: {err}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|err| format!("starting threads: {err}"))?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let listen = |kind| signal(kind).map_err(|err| format!("listening to signals: {err}"));
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("told to stop");
            stop.send_replace(true);
        });
        run::run(config, stopped).await.map_err(|err| err.to_string())
    })
}
