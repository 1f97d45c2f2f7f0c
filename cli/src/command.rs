//! What each command does: one request or a few, then a view or a sentence.
//!
//! Owns: which paths of the API are asked, in what order. Never does: text of tables (`render`), judging whether something
//! is done (`goal`).

mod disk;
mod events;
mod host;
mod login;
mod pool;
mod power;
mod rack;
mod release;
mod vm;

use crate::args::{BackupCommand, Cli, Command, WaitArgs};
use crate::client::Server;
use crate::fault::Fault;
use crate::goal::Goal;
use crate::output::{self, Output};
use crate::session::{self, Environment};
use crate::wait;
use clap::CommandFactory;
use proto::api::Accepted;
use proto::view::RackView;
use serde::Serialize;

/// Does what was typed.
pub(crate) fn run(cli: Cli) -> Result<(), Fault> {
    let out = Output::new(cli.output);
    let environment = Environment::read();
    match cli.command {
        Command::Login(args) => login::login(&environment, &args),
        Command::Logout => login::logout(&environment),
        Command::Status => rack::status(&open("asking for the rack", &environment)?, out),
        Command::Host(command) => host::run(&environment, command, out),
        Command::Vm(command) => vm::run(&environment, command, out),
        Command::Disk(command) => disk::run(&environment, command, out),
        Command::Release(command) => release::run(&environment, command, out),
        Command::Pool(command) => pool::run(&environment, command, out),
        Command::Move(crate::args::MoveCommand::List) => rack::moves(&open("listing moves", &environment)?, out),
        Command::Balance { dry_run } => rack::balance(&open("balancing", &environment)?, dry_run, out),
        Command::Thaw => rack::thaw(&open("thawing the rack", &environment)?, out),
        Command::Backup(BackupCommand::Now) => rack::backup_now(&open("taking a backup", &environment)?, out),
        Command::Backup(BackupCommand::List) => rack::backups(&open("listing backups", &environment)?, out),
        Command::Events { follow, limit } => events::run(&open("reading events", &environment)?, follow, limit, out),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tsubame", &mut text);
            output::write(&String::from_utf8_lossy(&text))
        }
        Command::Man { folder } => clap_mangen::generate_to(Cli::command(), &folder).map_err(|source| Fault::File {
            doing: "writing manual pages into",
            path: folder.display().to_string(),
            source,
        }),
    }
}

/// The server that session and environment name.
fn open(doing: &str, environment: &Environment) -> Result<Server, Fault> {
    let saved = match environment.session_file() {
        Ok(path) => session::load(&path)?,
        // Without a place for a session the environment may still say all.
        Err(_) => None,
    };
    Server::with_session(doing, session::access(doing, environment, saved.as_ref())?)
}

fn rack_view(server: &Server, doing: &str) -> Result<RackView, Fault> {
    server.get(doing, "/v1/rack")
}

/// Prints how an order ended: at once with `--no-wait`, else when `goal` is met.
///
/// `result` picks out of the view that shows it what JSON and YAML print, or nothing where nothing is left: then the
/// server's `Accepted` is printed. `sentence` is for a person.
fn conclude<T: Serialize>(
    server: &Server,
    begun: (&str, &Accepted),
    goal: &Goal,
    limits: &WaitArgs,
    out: Output,
    result: impl FnOnce(&RackView) -> Option<(T, String)>,
) -> Result<(), Fault> {
    let (doing, accepted) = begun;
    if limits.no_wait {
        return say(out, accepted, doing);
    }
    let view = wait::until(server, doing, goal, limits)?;
    match result(&view) {
        Some((value, sentence)) => out.show(&value, |_| sentence),
        None => say(out, accepted, doing),
    }
}

/// Prints an answer without waiting for more.
fn say(out: Output, accepted: &Accepted, doing: &str) -> Result<(), Fault> {
    out.show(accepted, |_| match accepted {
        Accepted::Done => format!("{doing}: done\n"),
        Accepted::Begun => format!("{doing}: begun\n"),
        Accepted::Moving { r#move } => format!("{doing}: begun as move {}\n", r#move),
    })
}
