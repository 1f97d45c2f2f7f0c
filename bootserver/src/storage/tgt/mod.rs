//! Disks as files, each behind an iSCSI target of its own, served by tgtd.
//!
//! Owns: tgtd, its targets, who may log in to them, and cutting a host off. tgtd outlives the boot server, so that guests run on
//! while it restarts; at the next start it is taken up again.
//!
//! ```text
//! Create/Clone -> file                    Grant -> target -> LUN 1 -> account and address bound
//! Delete <- file <- target removed        Cut   -> all unbound -> connections deleted -> nexus gone, no login under way
//! ```

mod logins;
mod mgmt;
mod survey;

pub use mgmt::MgmtError;

use super::ledger::{Grant, Ledger};
use super::served::Served;
use super::{Files, LUN, StorageError, file};
use mgmt::{Code, Mgmt, Mode, Op, Request};
use proto::DiskId;
use proto::agent::Secret;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use survey::Target;
use tokio::time::{Instant, sleep};

/// The account that keeps every target asking for CHAP.
const NOBODY: &str = "nobody";
/// How often a cut looks whether the host's session is gone.
const CUT_POLL: Duration = Duration::from_millis(5);
/// After this long a cut has failed; it is then asked for again by the rack.
const CUT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a login may go on that was under way when its host was cut. A whole one takes milliseconds.
const LOGIN_PATIENCE: Duration = Duration::from_secs(1);
/// How long a running tgtd may take to let us connect, as an initiator does.
const PORTAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long tgtd may take to come up.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const START_DEADLINE: Duration = Duration::from_secs(15);

/// Where and how to serve disks.
#[derive(Debug, Clone)]
pub struct TgtConfig {
    /// The disks.
    pub files: Files,
    /// tgtd's log.
    pub log: PathBuf,
    /// Where tgtd listens for initiators.
    pub portal: SocketAddr,
    /// tgtd's control port, 1 to 32767: one tgtd for each number on a machine.
    pub control_port: u16,
    /// Prefix of target names.
    pub iqn_prefix: String,
}

/// A running tgtd and the disks behind it. Cheap to clone; jobs on one disk must come one after another.
#[derive(Debug, Clone)]
pub struct Tgt {
    config: TgtConfig,
    mgmt: Mgmt,
}

impl Tgt {
    /// Takes up the tgtd that runs on the control port, or starts one.
    pub async fn start(config: TgtConfig) -> Result<Self, StorageError> {
        config.files.make_directory()?;
        let tgt = Self { mgmt: Mgmt::new(config.control_port), config };
        if tgt.targets().await.is_ok() {
            // Its socket is a file, seen from every network namespace: it may be another appliance's.
            let portal = tokio::net::TcpStream::connect(tgt.config.portal);
            if !matches!(tokio::time::timeout(PORTAL_TIMEOUT, portal).await, Ok(Ok(_))) {
                return Err(StorageError::Start {
                    portal: tgt.config.portal,
                    control_port: tgt.config.control_port,
                    what: "a tgtd that does not listen there has this control port; end it, or set another \
                           storage.tgt_control_port"
                        .to_owned(),
                    log: tgt.config.log,
                });
            }
            tracing::info!(control_port = tgt.config.control_port, "took up the running tgtd");
            return Ok(tgt);
        }
        tgt.spawn().await?;
        Ok(tgt)
    }

    /// Waits until tgtd has ended and been started anew: looked at every second. The new one knows no disk.
    pub async fn started_anew(&self) {
        let mut said = false;
        loop {
            sleep(LOOK_EVERY).await;
            match self.targets().await {
                // It was away: this is another, such as one of ours that took longer than it may to come up.
                Ok(_) if said => return,
                Err(MgmtError::Unreachable { .. }) => {}
                // One that is there and refuses is not started a second time: it has the portal.
                _ => continue,
            }
            match self.spawn().await {
                Ok(()) => return,
                Err(err) if said => tracing::debug!(%err, "tgtd has ended"),
                Err(err) => {
                    said = true;
                    tracing::error!(%err, "tgtd has ended: guests wait for their disks; trying again every second");
                }
            }
        }
    }

    /// Ends tgtd: every guest loses its disks. Only for a rack that is taken down whole.
    pub async fn stop(&self) -> Result<(), StorageError> {
        let failed = |err| StorageError::Mgmt { doing: "stopping tgtd".to_owned(), err };
        // It ends only when it has no target left (usr/target.c, is_system_inactive).
        for target in self.targets().await.map_err(failed)? {
            let delete = Request { tid: target.tid, force: true, ..Request::new(Mode::Target, Op::Delete) };
            self.mgmt.ask(delete).await.map_err(failed)?;
        }
        self.mgmt.ask(Request::new(Mode::System, Op::Delete)).await.map_err(failed)?;
        // It has answered and ends now; its portal is free once it is gone.
        let deadline = Instant::now() + START_DEADLINE;
        while !matches!(self.targets().await, Err(MgmtError::Unreachable { .. })) && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Sessions at the disk's target now, as (initiator, address): the fence's own evidence.
    pub async fn sessions(&self, disk: &DiskId) -> Result<Vec<(String, String)>, StorageError> {
        let target = self.find(disk).await?;
        let nexuses = target.into_iter().flat_map(|t| t.nexuses);
        Ok(nexuses.map(|n| (n.initiator, n.addresses.join(","))).collect())
    }

    async fn spawn(&self) -> Result<(), StorageError> {
        let failed = |what: String| StorageError::Start {
            portal: self.config.portal,
            control_port: self.config.control_port,
            what,
            log: self.config.log.clone(),
        };
        // tgtd says so in its log only, and runs on without a portal.
        if let Err(err) = std::net::TcpListener::bind(self.config.portal) {
            return Err(failed(format!(
                "listening there: {err}; if another program does, end it (Debian's own: systemctl disable --now tgt), or set another storage.portal"
            )));
        }
        let log = open_log(&self.config.log)?;
        let log_too = log.try_clone().map_err(|err| failed(err.to_string()))?;
        // tgtd keeps its socket here and does not make the directory.
        fs::create_dir_all(mgmt::SOCKET_DIR).map_err(|err| failed(format!("making {}: {err}", mgmt::SOCKET_DIR)))?;
        let mut child = tokio::process::Command::new("tgtd")
            .arg("-f")
            .args(["-C", &self.config.control_port.to_string()])
            .args(["--iscsi", &format!("portal={}", self.config.portal)])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            // A group of its own: Ctrl-C at the server's terminal is not meant for the guests' disks.
            .process_group(0)
            // Nor is it to tell the service manager that we are ready, as it would (sd_notify(3)).
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .spawn()
            .map_err(|err| failed(format!("{err}; is the package tgt installed?")))?;
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match self.targets().await {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(50)).await,
                Err(err) => return Err(failed(err.to_string())),
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(failed(format!("it ended at once with {status}")));
            }
        }
    }

    fn target_name(&self, disk: &DiskId) -> String {
        format!("{}:{disk}", self.config.iqn_prefix)
    }

    async fn targets(&self) -> Result<Vec<Target>, MgmtError> {
        Ok(survey::parse(&self.mgmt.ask(Request::new(Mode::Target, Op::Show)).await?))
    }

    async fn find(&self, disk: &DiskId) -> Result<Option<Target>, StorageError> {
        let name = self.target_name(disk);
        let targets = self.targets().await.map_err(|err| mgmt("looking for the target", disk, err))?;
        Ok(targets.into_iter().find(|t| t.name == name))
    }

    /// Sees that the disk has a target with its LUN, and returns the target's number.
    async fn target(&self, disk: &DiskId) -> Result<i32, StorageError> {
        let tid = match self.find(disk).await? {
            Some(target) => target.tid,
            None => self.new_target(disk).await?,
        };
        let path = self.files().path(disk);
        let lun = Request {
            tid,
            lun: LUN.into(),
            text: format!("path={},bstype=rdwr", path.display()),
            ..Request::new(Mode::Device, Op::New)
        };
        self.settle("making the LUN", disk, lun, Code::LunExist).await?;
        // A target without any account asks nobody for CHAP: this one is always there, and no one knows its secret.
        self.add_account(disk, tid, NOBODY, &unknowable(disk)?).await?;
        Ok(tid)
    }

    /// A target under a number that no target of this tgtd has had: a login that was under way when a target went would end in the one that
    /// has its number by then (usr/iscsi/session.c, session_create).
    async fn new_target(&self, disk: &DiskId) -> Result<i32, StorageError> {
        loop {
            let mut bytes = [0; 4];
            getrandom::fill(&mut bytes).map_err(|err| StorageError::Random { disk: disk.clone(), err })?;
            // One of two thousand million, from 1 on: so often no rack makes a target.
            let tid = (i32::from_ne_bytes(bytes) & i32::MAX).max(1);
            let text = format!("targetname={}", self.target_name(disk));
            match self.mgmt.ask(Request { tid, text, ..Request::new(Mode::Target, Op::New) }).await {
                Ok(_) => return Ok(tid),
                Err(MgmtError::Refused(Code::TargetExist)) => {}
                Err(err) => return Err(mgmt("making the target", disk, err)),
            }
        }
    }

    async fn add_account(&self, disk: &DiskId, tid: i32, user: &str, secret: &Secret) -> Result<(), StorageError> {
        let text = format!("user={user},password={}", secret.0);
        let new = Request { text, ..Request::new(Mode::Account, Op::New) };
        self.settle("making the CHAP account", disk, new, Code::UserExist).await?;
        self.settle("binding the CHAP account", disk, account(tid, Op::Bind, user), Code::UserExist).await
    }

    fn connected(&self, grant: &Grant) -> Result<BTreeSet<u16>, StorageError> {
        logins::from(grant.address, self.config.portal).map_err(file("reading", Path::new("/proc/net/tcp")))
    }

    async fn end_session(&self, disk: &DiskId, tid: i32, nexus: &survey::Nexus) -> Result<(), StorageError> {
        for &cid in &nexus.connections {
            let gone = Request { tid, sid: nexus.id, cid, ..Request::new(Mode::Connection, Op::Delete) };
            match self.mgmt.ask(gone).await {
                Ok(_) | Err(MgmtError::Refused(Code::NoSession | Code::NoConnection)) => {}
                Err(err) => return Err(mgmt("deleting a connection", disk, err)),
            }
        }
        Ok(())
    }

    /// Asks tgtd; that it is so already is success.
    async fn settle(
        &self,
        doing: &'static str,
        disk: &DiskId,
        request: Request,
        already: Code,
    ) -> Result<(), StorageError> {
        match self.mgmt.ask(request).await {
            Ok(_) => Ok(()),
            Err(MgmtError::Refused(code)) if code == already => Ok(()),
            Err(err) => Err(mgmt(doing, disk, err)),
        }
    }
}

impl Served for Tgt {
    fn files(&self) -> &Files {
        &self.config.files
    }

    async fn export(&self, disk: &DiskId) -> Result<(), StorageError> {
        self.target(disk).await.map(|_tid| ())
    }

    async fn withdraw(&self, disk: &DiskId) -> Result<(), StorageError> {
        let found = match self.find(disk).await {
            // The next one knows no disk.
            Err(StorageError::Mgmt { err, .. }) if err.has_ended() => None,
            found => found?,
        };
        if let Some(target) = found {
            let request = Request { tid: target.tid, force: true, ..Request::new(Mode::Target, Op::Delete) };
            self.settle("removing the target", disk, request, Code::NoTarget).await?;
        }
        Ok(())
    }

    async fn bind(&self, disk: &DiskId, grant: &Grant) -> Result<(), StorageError> {
        let tid = self.target(disk).await?;
        self.add_account(disk, tid, &grant.user, &grant.secret).await?;
        let acl = Request { tid, text: acl_of(grant), ..Request::new(Mode::Target, Op::Bind) };
        self.settle("binding the initiator", disk, acl, Code::AclExist).await
    }

    /// Takes a grant's ways in away, but for an address that a remaining grant has too.
    async fn unbind(&self, disk: &DiskId, grant: &Grant, remaining: &Ledger) -> Result<(), StorageError> {
        let Some(Target { tid, accounts, .. }) = self.find(disk).await? else { return Ok(()) };
        if !remaining.has(grant.address) {
            let acl = Request { tid, text: acl_of(grant), ..Request::new(Mode::Target, Op::Unbind) };
            self.settle("unbinding the initiator", disk, acl, Code::AclNoexist).await?;
        }
        // tgt 1.0.85 dies of showing a target whose list of accounts has a hole (usr/target.c, tgt_target_show_all), so
        // those behind the one to go are taken off from the end and put on again, and no step leaves a hole.
        let at = accounts.iter().position(|user| *user == grant.user).unwrap_or(accounts.len());
        for user in accounts[at..].iter().rev() {
            self.settle("unbinding the CHAP account", disk, account(tid, Op::Unbind, user), Code::NoUser).await?;
        }
        for user in accounts.iter().skip(at + 1) {
            self.settle("binding the CHAP account", disk, account(tid, Op::Bind, user), Code::UserExist).await?;
        }
        // And those of others that an earlier try took off and did not put on again, as it broke off there.
        for other in remaining.grants.values().filter(|other| other.user != grant.user) {
            self.add_account(disk, tid, &other.user, &other.secret).await?;
        }
        self.settle("removing the CHAP account", disk, account(0, Op::Delete, &grant.user), Code::NoUser).await
    }

    /// Cuts a host off. The order matters: a connection that is deleted while a way in is left comes back at once. And a login that had
    /// shown its secret before all was unbound would end in a session after it: so none may be under way either.
    async fn cut(&self, disk: &DiskId, grant: &Grant, remaining: &Ledger) -> Result<(), StorageError> {
        self.unbind(disk, grant, remaining).await?;
        let (began, mut anew) = (Instant::now(), false);
        let at_unbinding = self.connected(grant)?;
        loop {
            // Before the targets: a login that ends in between shows in both, one that has not in this alone.
            let connected = self.connected(grant)?;
            let targets = self.targets().await.map_err(|err| mgmt("looking for sessions", disk, err))?;
            let name = self.target_name(disk);
            let Some(target) = targets.iter().find(|target| target.name == name) else { return Ok(()) };
            // By address too: an initiator chooses its own name, and tgtd does not say which account it used.
            let address = grant.address.to_string();
            let its_address = |nexus: &survey::Nexus| nexus.addresses.contains(&address);
            let its_own = |nexus: &&survey::Nexus| {
                nexus.initiator == grant.initiator || !remaining.has(grant.address) && its_address(nexus)
            };
            let theirs: Vec<_> = target.nexuses.iter().filter(its_own).collect();
            let nexuses = targets.iter().flat_map(|target| &target.nexuses).filter(|nexus| its_address(nexus));
            let logged_in: usize = nexuses.map(|nexus| nexus.connections.len()).sum();
            let logins_over = connected.len() == logged_in || connected.is_disjoint(&at_unbinding);
            if theirs.is_empty() && (logins_over || anew) {
                return Ok(());
            }
            if began.elapsed() > CUT_DEADLINE {
                return Err(StorageError::StillThere { disk: disk.clone(), initiator: grant.initiator.clone() });
            }
            for nexus in &theirs {
                self.end_session(disk, target.tid, nexus).await?;
            }
            if !logins_over && !anew && began.elapsed() > LOGIN_PATIENCE {
                // One that goes on for so long is ended by taking away what it is to. Others of this disk log in again by themselves.
                tracing::warn!(%disk, host = %grant.initiator, "a login does not end: the disk's target is made anew");
                self.withdraw(disk).await?;
                for grant in remaining.grants.values() {
                    self.bind(disk, grant).await?;
                }
                anew = true;
            }
            sleep(CUT_POLL).await;
        }
    }
}

/// A grant's access rule, in tgt's words. Not the initiator's name as well: tgt lets in whoever fits any one rule
/// (usr/iscsi/iscsid.c, login), so that would be a second way in, not a second lock.
fn acl_of(grant: &Grant) -> String {
    format!("initiator-address={}", grant.address)
}

fn account(tid: i32, op: Op, user: &str) -> Request {
    Request { tid, text: format!("user={user}"), ..Request::new(Mode::Account, op) }
}

/// A secret that nobody is told.
fn unknowable(disk: &DiskId) -> Result<Secret, StorageError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|err| StorageError::Random { disk: disk.clone(), err })?;
    Ok(Secret(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn mgmt(doing: &str, disk: &DiskId, err: MgmtError) -> StorageError {
    StorageError::Mgmt { doing: format!("{doing} for disk {disk}"), err }
}

fn open_log(log: &Path) -> Result<fs::File, StorageError> {
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log).map_err(file("opening", log))
}

#[cfg(test)]
mod tests;
