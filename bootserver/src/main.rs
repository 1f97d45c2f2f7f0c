//! The boot server's command.
//!
//! Exit codes: 0 it did what was asked or was told to stop; 1 it could not start or had to stop, the last line on
//! standard error says why; 2 the command line or the configuration is wrong.
//!
//! `TSUBAME_LOG` chooses what is logged, such as `debug` or `info,bootserver::dhcp=debug` (tracing's filter).

use bootserver::config::{Config, ConfigError};
use bootserver::rack_task::Clock;
use bootserver::{backup, operators, privileges, run};
use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
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
    /// Print a new set-up code, by which the operators' password is chosen; the server may be running.
    SetupCode {
        /// The configuration.
        config: PathBuf,
        /// Also when a password was chosen before: the next set-up replaces it and ends all sessions.
        #[arg(long)]
        reset: bool,
    },
    /// Print the OpenAPI document of the operators' API.
    Openapi,
    /// Take a backup as the configuration says where; the server may be running.
    Backup {
        /// The configuration.
        config: PathBuf,
    },
    /// Make a server's state of a backup. A server that is started on it takes over the rack as it runs.
    ///
    /// The old server must not run any more. Nothing that is there is overwritten; disks in the directory are left as they are.
    Restore {
        /// The backup.
        file: PathBuf,
        /// The state directory, as the configuration names it.
        #[arg(long, default_value = "/var/lib/tsubame")]
        state: PathBuf,
        /// Go on though most of the backup's disks are not in the state directory: their VMs fail.
        #[arg(long)]
        without_disks: bool,
    },
}

enum Failure {
    Config(ConfigError),
    Work(String),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("TSUBAME_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    let result = match args.command {
        Command::Run { config } => with(&config, serve),
        Command::Check { config } => with(&config, |_| Ok(())),
        Command::SetupCode { config, reset } => with(&config, |config| setup_code(&config, reset)),
        Command::Openapi => {
            println!("{:#}", operators::document());
            Ok(())
        }
        Command::Backup { config } => with(&config, |config| {
            let taken = backup::take(&config.state, &config.backup).map_err(|err| err.to_string())?;
            println!("{}", config.backup.directory.join(taken.name).display());
            Ok(())
        }),
        Command::Restore { file, state, without_disks } => restore(&file, &state, without_disks).map_err(Failure::Work),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(err)) => {
            eprintln!("{err}");
            ExitCode::from(2)
        }
        Err(Failure::Work(err)) => {
            eprintln!("bootserver: {err}");
            ExitCode::FAILURE
        }
    }
}

fn with(file: &Path, work: impl FnOnce(Config) -> Result<(), String>) -> Result<(), Failure> {
    work(Config::load(file).map_err(Failure::Config)?).map_err(Failure::Work)
}

fn setup_code(config: &Config, reset: bool) -> Result<(), String> {
    match operators::new_setup_code(&config.state, reset).map_err(|err| err.to_string())? {
        Some(code) => println!("{code}"),
        None => return Err("a password was chosen before; --reset lets another be chosen".to_owned()),
    }
    Ok(())
}

fn restore(file: &Path, state: &Path, without_disks: bool) -> Result<(), String> {
    let now_ms = Clock::start().now().unix_ms;
    let restored = backup::restore(file, state, now_ms, without_disks).map_err(|err| err.to_string())?;
    let age_s = now_ms.saturating_sub(restored.taken_ms) / 1000;
    println!(
        "restored into {}: {} hosts and {} VMs, as they were {age_s} s ago. What has changed since is asked of the hosts when the server starts",
        restored.state.display(),
        restored.hosts,
        restored.vms
    );
    Ok(())
}

fn serve(config: Config) -> Result<(), String> {
    // This thread opens the ports; all others need nothing from their start on.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_start(privileges::give_up_or_warn).build();
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
