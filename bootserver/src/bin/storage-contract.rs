//! `storage-contract lio ADDRESS:PORT DIRECTORY [SEED]`: tries the contract of storages on this machine's kernel. For tests alone.
//!
//! It takes the kernel's iSCSI target as its own. tgt's turn is in `cargo test`. Exit codes: 0 every clause holds, 1 not, 2 it was
//! called wrongly.

use bootserver::storage::contract::{Broken, CLAUSES, CLAUSES_OF_A_SAN, Trial};
use bootserver::storage::{Files, LioConfig, StorageConfig};
use std::collections::BTreeMap;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false).with_writer(std::io::stderr).init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (portal, directory, seed) = match words[..] {
        ["lio", portal, directory] => (portal, directory, "1"),
        ["lio", portal, directory, seed] => (portal, directory, seed),
        _ => {
            eprintln!("usage: storage-contract lio ADDRESS:PORT DIRECTORY [SEED]");
            return ExitCode::from(2);
        }
    };
    match run(portal, directory, seed) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("storage-contract: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run(portal: &str, directory: &str, seed: &str) -> Result<usize, Broken> {
    let config = LioConfig {
        files: Files { directory: directory.into(), templates: BTreeMap::new() },
        portal: portal.parse()?,
        iqn_prefix: "iqn.2026-11.org.tsubame".to_owned(),
    };
    let mut trial = Trial::new(StorageConfig::Lio(config), seed.parse()?)?;
    let broken = trial.run(&CLAUSES) + trial.run(&CLAUSES_OF_A_SAN);
    trial.end()?;
    Ok(broken)
}
