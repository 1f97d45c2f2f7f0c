//! Starting and stopping the whole server.
//!
//! Owns: the order in which parts come up and go down. Never does: the work of any of them.
//!
//! ```text
//! lock state -> CA -> store (checked) -> rack restored -> storage -> rack task -> listeners -> DHCP last -> privileges given up
//! ```
//! DHCP comes last, so that a machine is promised nothing that is not there yet.

use crate::agents::{self, Agents};
use crate::backup::{self, BackupError, Backups};
use crate::boot_http::{self, BootHttp, Pacer};
use crate::ca::{Ca, CaError};
use crate::config::Config;
use crate::config::files::ServedFile;
use crate::connections;
use crate::dhcp::Dhcp;
use crate::heartbeat;
use crate::host_logs::HostLogs;
use crate::no_ipv6::NoIpv6;
use crate::notify::Notify;
use crate::operators::{self, Operators, Sessions};
use crate::privileges;
use crate::rack_task::{Clock, RackError, RackTask};
use crate::releases::files::{FileError, Files};
use crate::releases::{self, Releases};
use crate::state_dir::{self, StateError};
use crate::storage::{Storage, StorageError};
use crate::storage_jobs::{Perform, describe};
use crate::store::{Store, StoreError};
use crate::tftp;
use crate::tls;
use rack::Rack;
use rack::event::Event;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A restore before it.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Keys and certificates.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is damaged, and there are backups.
    #[error("{err}. The newest BACKUP is {}", newest.display())]
    Damaged {
        /// What the store says, and how to go back to a backup.
        err: Box<StoreError>,
        /// The newest that there is.
        newest: PathBuf,
    },
    /// Records that do not fit together.
    #[error("the store's records do not fit together: {0}")]
    Restore(#[from] rack::RestoreError),
    /// A file of the configuration's releases.
    #[error("taking in the releases that the configuration names: {0}")]
    Release(#[from] FileError),
    /// The rack's task has ended.
    #[error(transparent)]
    Rack(#[from] RackError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A port could not be opened.
    #[error("opening {what}: {err}")]
    Listen {
        /// Which.
        what: String,
        /// What the system said.
        err: io::Error,
    },
    /// A file of loaders or TLS.
    #[error("{what}: {err}")]
    Prepare {
        /// What was being done.
        what: &'static str,
        /// What was said.
        err: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A service ended by itself.
    #[error("the service {name} has ended: {what}")]
    Ended {
        /// Which.
        name: &'static str,
        /// Why.
        what: String,
    },
}

/// Runs until `stop` turns true.
pub async fn run(config: Config, stop: watch::Receiver<bool>) -> Result<(), RunError> {
    let _lock = state_dir::lock(&config.state)?;
    backup::was_not_interrupted(&config.state)?;
    let ca = Arc::new(Ca::open(&config.state)?);
    let (store, records) = Store::open(&config.state).map_err(|err| with_newest(err, &config.backup.directory))?;
    let kept = records.len();
    let files = Files::open(&config.state, state_dir::RESERVE_BYTES)?;
    releases::take_in(&files, &config.imports)?;
    let clock = Clock::start();
    let (mut rack, mut restored) = Rack::restore(config.policy(ca.digest()), records, clock.now())?;
    tracing::info!(records = kept, "the store is sound");

    let disks = config.state.join("disks");
    state_dir::make(&disks)?;
    let storage = Arc::new(Storage::start(config.storage_config(disks)).await?);
    if rack.surveying() {
        tracing::warn!("the record was restored from a backup: hosts are asked what they run before anything is done");
        restored.extend(rack.apply(Event::StorageFound(storage.found()?), clock.now()));
    }
    let (task, rack) =
        RackTask::new(rack, restored, clock, store.clone(), ca.clone(), perform(storage.clone())).await?;

    let mut services: JoinSet<(&'static str, Result<(), String>)> = JoinSet::new();
    let mut service = |name, work: std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>>| {
        services.spawn(async move { (name, work.await) });
    };
    let (listen, address) = (&config.listen, config.listen.address);

    let boot = listener(SocketAddr::from((address, listen.boot_port)), "the boot port").await?;
    let loader = config.loaders.get("ipxe.efi").and_then(|path| ServedFile::digest(path).ok());
    let (following, imports, shelf) = Releases::new(files, rack.clone(), loader);
    let following = following.run(stop.clone());
    service(
        "releases",
        Box::pin(async move {
            following.await;
            Ok(())
        }),
    );
    let pacer = Pacer::new(config.boot_rate_bytes_s);
    let subnet = config.policy(ca.digest()).subnet;
    let (ca_pem, limits) = (ca.pem().to_owned(), boot_http::LIMITS);
    let boot_http = Arc::new(BootHttp { shelf, pacer, subnet, ca_pem, limits, rack: rack.clone() });
    let hold = move |stream, from| boot_http.clone().hold(stream, from);
    let serving = connections::serve("boot", boot, boot_http::LIMITS, hold, stop.clone());
    service(
        "boot HTTP",
        Box::pin(async move {
            serving.await;
            Ok(())
        }),
    );

    let now = time::OffsetDateTime::now_utc();
    let (names, addresses) = ours(&config);
    let own = || ca.server(&config.state, &names, &addresses, now);
    let tls_failed = |err| RunError::Prepare { what: "setting up TLS", err };
    let logs = HostLogs::default();
    let hearing = logs.clone().hear(SocketAddr::from((address, listen.boot_port)), rack.clone(), stop.clone());
    service("hosts' logs", Box::pin(async move { hearing.await.map_err(|err| err.to_string()) }));

    let to_agents = listener(SocketAddr::from((address, listen.agent_port)), "the agents' port").await?;
    let tls = tls::agents(&ca, own()?).map_err(tls_failed)?;
    let filter = warp::service(agents::filter(Arc::new(Agents { ca: ca.clone(), rack: rack.clone() })));
    let hold = connections::tls(tls, agents::LIMITS, filter);
    let serving = connections::serve("agents", to_agents, agents::LIMITS, hold, stop.clone());
    service(
        "agents",
        Box::pin(async move {
            serving.await;
            Ok(())
        }),
    );

    let to_operators = listener(listen.operator, "the operators' port").await?;
    let tls = tls::operators(own()?).map_err(tls_failed)?;
    let sessions = Sessions::open(&config.state, clock.now().unix_ms)?;
    let (backups, asker) = Backups::new(config.state.clone(), config.backup.clone(), rack.clone());
    let knows = Operators { sessions, logs, rack: rack.clone(), clock, releases: imports, backup: asker };
    let filter = warp::service(operators::filter(Arc::new(knows)));
    let hold = connections::tls(tls, operators::LIMITS, filter);
    let serving = connections::serve("operators", to_operators, operators::LIMITS, hold, stop.clone());
    service(
        "operators",
        Box::pin(async move {
            serving.await;
            Ok(())
        }),
    );

    let loaders = tftp::load(&config.loaders).map_err(|err| RunError::Prepare { what: "loaders", err: err.into() })?;
    let socket = tftp::open(address);
    let socket = socket.map_err(|err| RunError::Listen { what: format!("TFTP, port 69 of {address}"), err })?;
    let serving = tftp::serve(socket, loaders, rack.clone());
    let mut stopped = stop.clone();
    service(
        "TFTP",
        Box::pin(async move {
            tokio::select! {
                result = serving => result.map_err(|err| err.to_string()),
                _ = stopped.wait_for(|&stop| stop) => Ok(()),
            }
        }),
    );

    let dhcp = Dhcp::open(&config.interface, address, config.is_a_proxy())
        .map_err(|err| RunError::Listen { what: format!("DHCP, port 67 on {}", config.interface), err })?;
    let serving = dhcp.serve(rack.clone(), stop.clone());
    service(
        "DHCP",
        Box::pin(async move {
            serving.await;
            Ok(())
        }),
    );

    match NoIpv6::open(&config.interface) {
        Ok(no_ipv6) => {
            let serving = no_ipv6.serve(rack.clone(), stop.clone());
            service(
                "router advertisements",
                Box::pin(async move {
                    serving.await;
                    Ok(())
                }),
            );
        }
        // All works without it, only slower.
        Err(err) => tracing::warn!(%err, "machines will wait for an IPv6 router on their way up"),
    }

    let watching = heartbeat::watch(storage.heartbeats(), clock, rack.clone(), stop.clone());
    service(
        "heartbeats",
        Box::pin(async move {
            watching.await;
            Ok(())
        }),
    );

    let (kept, told, mut stopped) = (storage.clone(), rack.clone(), stop.clone());
    service(
        "storage",
        Box::pin(async move {
            loop {
                let anew = tokio::select! {
                    () = kept.started_anew() => true,
                    _ = stopped.wait_for(|&stop| stop) => false,
                };
                if !anew {
                    return Ok(());
                }
                told.say(Event::StorageAnew).await;
            }
        }),
    );

    let stopped = stop.clone();
    service(
        "backup",
        Box::pin(async move {
            backups.run(stopped).await;
            Ok(())
        }),
    );

    privileges::give_up_or_warn();
    let (manager, watchdog) = (std::env::var_os("NOTIFY_SOCKET"), std::env::var_os("WATCHDOG_USEC"));
    let notify = Notify::open(manager.as_deref(), watchdog.as_deref());
    let notify = notify.map_err(|err| RunError::Prepare { what: "the service manager's socket", err: err.into() })?;
    let notify = Arc::new(notify);
    notify.ready();
    let (living, known, stopped) = (notify.clone(), rack.clone(), stop.clone());
    service(
        "watchdog",
        Box::pin(async move {
            living.live(known, stopped).await;
            Ok(())
        }),
    );

    tracing::info!(interface = %config.interface, %address, boot_port = listen.boot_port, "serving");
    greet(&config, &ca)?;
    let mut rack_task = tokio::spawn(task.run(stop.clone()));
    let mut stopped = stop.clone();
    let result = tokio::select! {
        result = &mut rack_task => return flatten(result),
        Some(ended) = services.join_next() => match ended {
            Ok((_, Ok(()))) if *stop.borrow() => Ok(()),
            Ok((name, Ok(()))) => Err(RunError::Ended { name, what: "without a reason".to_owned() }),
            Ok((name, Err(what))) => Err(RunError::Ended { name, what }),
            Err(err) => Err(RunError::Ended { name: "service", what: err.to_string() }),
        },
        _ = stopped.wait_for(|&stop| stop) => Ok(()),
    };
    notify.stopping();
    if result.is_ok() {
        flatten(rack_task.await)?;
        if config.storage.stop_with_server
            && let Err(err) = storage.stop().await
        {
            tracing::warn!(%err, "the storage could not be stopped");
        }
        tracing::info!("stopped");
    }
    result
}

/// Who has to go back to a backup is told which.
fn with_newest(err: StoreError, backups: &Path) -> RunError {
    match backup::list(backups).first() {
        Some(newest) if matches!(err, StoreError::Damaged { .. }) => {
            RunError::Damaged { err: Box::new(err), newest: backups.join(&newest.name) }
        }
        _ => err.into(),
    }
}

fn flatten(result: Result<Result<(), RackError>, tokio::task::JoinError>) -> Result<(), RunError> {
    match result {
        Ok(result) => Ok(result?),
        Err(err) => Err(RunError::Ended { name: "rack", what: err.to_string() }),
    }
}

fn perform(storage: Arc<Storage>) -> Perform {
    Box::new(move |op| {
        let storage = storage.clone();
        Box::pin(async move {
            let what = describe(&op);
            let result = storage.perform(&op).await.map_err(|err| err.to_string());
            match &result {
                Ok(()) => tracing::debug!(what, "storage"),
                Err(err) => tracing::warn!(what, %err, "storage"),
            }
            result
        })
    })
}

/// Opens a TCP port.
pub(crate) async fn listener(at: SocketAddr, what: &str) -> Result<TcpListener, RunError> {
    TcpListener::bind(at).await.map_err(|err| RunError::Listen { what: format!("{what}, {at}"), err })
}

/// What a person needs to come in; on standard output, as it is no log.
fn greet(config: &Config, ca: &Ca) -> Result<(), RunError> {
    println!("page: https://{}/", config.listen.operator);
    println!("ca sha256: {}", ca.fingerprint());
    if let Some(code) = operators::new_setup_code(&config.state, false)? {
        println!("set-up code: {code}");
    }
    Ok(())
}

/// Names and addresses by which agents and operators call us.
fn ours(config: &Config) -> (Vec<String>, Vec<IpAddr>) {
    let mut names = vec!["localhost".to_owned()];
    if let Ok(name) = nix::unistd::gethostname()
        && let Ok(name) = name.into_string()
        && rustls::pki_types::DnsName::try_from(name.as_str()).is_ok()
        && name != "localhost"
    {
        names.push(name);
    }
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::V4(config.listen.address)];
    let operator = config.listen.operator.ip();
    if !operator.is_unspecified() && !addresses.contains(&operator) {
        addresses.push(operator);
    }
    (names, addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_store_is_refused_with_the_newest_backup() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(crate::store::FILE), "no store").expect("written");
        let said = || {
            let err = Store::open(dir.path()).map(drop).expect_err("it is damaged");
            with_newest(err, &dir.path().join("backups")).to_string()
        };
        assert!(said().ends_with(&format!("bootserver restore BACKUP --state {}", dir.path().display())), "{}", said());
        std::fs::create_dir(dir.path().join("backups")).expect("made");
        for name in ["tsubame-0000000000008.backup", "tsubame-0000000000009.backup"] {
            std::fs::write(dir.path().join("backups").join(name), "").expect("written");
        }
        let newest = dir.path().join("backups/tsubame-0000000000009.backup");
        assert!(said().ends_with(&format!(". The newest BACKUP is {}", newest.display())), "{}", said());
    }
}
