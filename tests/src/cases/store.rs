//! The store's disk full, and the store damaged: the server says so and acknowledges nothing that is not kept; guests do not notice.

use super::Trial;
use super::ha::ready;
use super::moves::runs_once;
use crate::process::run;
use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use proto::Mac;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The state directory's own small file system, MiB.
const ROOM_MIB: u64 = 24;
/// What an operator asks for until the store is full: more than the room that a log in use has left.
const REQUESTS_MAX: u16 = 2_000;

/// What is large and no record: it stays where it is.
const APART: [&str; 2] = ["disks", "releases"];

/// A small file system over the state directory, with everything in it as it was but what is apart.
struct Small {
    state: PathBuf,
    aside: PathBuf,
    kept: PathBuf,
}

impl Small {
    /// The server must not run.
    fn over(state: &Path, aside: &Path) -> Result<Self> {
        let (aside, kept) = (aside.join("apart"), aside.join("state-aside"));
        fs::create_dir(&kept)?;
        let small = Self { state: state.to_owned(), aside, kept };
        for name in APART {
            fs::create_dir_all(small.aside.join(name))?;
            mount(&["--bind"], &state.join(name), &small.aside.join(name))?;
        }
        copy_records(state, &small.kept)?;
        mount(&["-t", "tmpfs", "-o", &format!("size={ROOM_MIB}m,mode=700")], Path::new("tmpfs"), state)?;
        copy_records(&small.kept, state)?;
        for name in APART {
            fs::create_dir(state.join(name))?;
            mount(&["--bind"], &small.aside.join(name), &state.join(name))?;
        }
        Ok(small)
    }

    /// Takes it away; what was written to it goes to where the state is kept. The server must not run.
    fn away(self) -> Result<()> {
        copy_records(&self.state, &self.kept)?;
        let within = APART.map(|name| self.state.join(name));
        let aside = APART.map(|name| self.aside.join(name));
        for path in within.into_iter().chain([self.state.clone()]).chain(aside) {
            run(Command::new("umount").arg(&path))?;
        }
        copy_records(&self.kept, &self.state)
    }
}

fn mount(options: &[&str], what: &Path, to: &Path) -> Result<()> {
    run(Command::new("mount").args(options).arg(what).arg(to)).map(drop)
}

/// All but what is apart.
fn copy_records(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !APART.iter().any(|name| entry.file_name() == *name) {
            run(Command::new("cp").args(["-a", "--"]).arg(entry.path()).arg(to))?;
        }
    }
    Ok(())
}

pub(super) fn disk_is_full(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let counted = trial.rack.await_counting(&guest)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let state = trial.rack.appliance.state().to_owned();
    trial.rack.appliance.stop()?;
    let small = Small::over(&state, trial.rack.dir())?;
    trial.rack.start_server()?;

    let filler = state.join("filler");
    fill(&filler)?;
    let log_bytes = trial.rack.appliance.log().len();
    let mut acknowledged = Vec::new();
    for number in 0..REQUESTS_MAX {
        let [high, low] = number.to_be_bytes();
        let mac = Mac([0x52, 0x54, 0, 0x7c, high, low]);
        let body = format!(r#"{{"mac":"{mac}"}}"#);
        match trial.rack.operator.raw(Method::POST, "/v1/hosts", body) {
            Ok(answer) if answer.status == 200 => acknowledged.push(proto::HostId::of(mac)),
            // It says that it is stopping: that acknowledges nothing.
            Ok(answer) if answer.status == 503 => break,
            Ok(answer) => bail!("a full store's server answered {}: {}", answer.status, answer.body),
            Err(_) => break,
        }
    }
    let guard = trial.rack.guard.clone();
    let status = guard.wait("the server to end, as nothing can be kept", || trial.rack.appliance.has_ended())?;
    let said = trial.rack.appliance.log().split_off(log_bytes);
    let why = said.lines().rfind(|line| line.contains("could not be made durable") || line.contains("disk is full"));
    let why = why.with_context(|| format!("it ended, {status}, and did not say why: {said}"))?;
    println!("        {} requests were acknowledged, then it said: {}", acknowledged.len(), why.trim());
    ensure!(status.code() == Some(1), "it ended with {status}");
    ensure!(why.contains("full") && why.contains("store.sqlite"), "it does not say what is full");
    let without = trial.rack.await_counting(&guest)?;
    ensure!(without > counted, "the guest stood still while nothing could be kept");

    // There is room again: a service manager starts the server anew.
    fs::remove_file(&filler)?;
    trial.rack.start_server()?;
    let known: Vec<_> = trial.rack.operator.rack()?.hosts.into_iter().map(|host| host.id).collect();
    let lost = acknowledged.iter().filter(|host| !known.contains(host)).count();
    ensure!(lost == 0, "{lost} of {} acknowledged requests were lost", acknowledged.len());
    runs_once(trial, &guest, without)?;
    for host in &acknowledged {
        trial.rack.operator.raw(Method::DELETE, &format!("/v1/hosts/{host}"), String::new())?;
    }
    trial.rack.appliance.stop()?;
    small.away()?;
    trial.rack.start_server()?;
    let view = trial.rack.operator.vm(&guest.name)?;
    ensure!((view.epoch, &view.owner) == (before.epoch, &before.owner), "{} was moved or started anew", guest.name);
    runs_once(trial, &guest, without)
}

/// Until there is no room left.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let mut chunk = vec![0xff; 1 << 20];
    loop {
        match file.write(&chunk) {
            Ok(_) => {}
            Err(err) if err.kind() == ErrorKind::StorageFull && chunk.len() > 1 => chunk.truncate(chunk.len() / 2),
            Err(err) if err.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(err) => return Err(err).with_context(|| format!("filling {}", path.display())),
        }
    }
}

pub(super) fn page_is_flipped(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let counted = trial.rack.await_counting(&guest)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    // Asked to end it leaves all in the one file.
    trial.rack.appliance.stop()?;
    let file = trial.rack.appliance.state().join("store.sqlite");
    let whole = fs::read(&file)?;
    let name = guest.name.as_str().as_bytes();
    let mut bit = whole.clone();
    for at in 0..bit.len() - name.len() {
        if whole[at..].starts_with(name) {
            bit[at] ^= 1;
        }
    }
    let mut page = whole.clone();
    // SQLite's pages are of 4,096 bytes unless told otherwise; the second is the root of the one table.
    page.get_mut(4_096..8_192).context("the store has two pages")?.iter_mut().for_each(|byte| *byte ^= 0xff);
    for (what, bytes) in [("a bit in a record", bit), ("a page", page)] {
        ensure!(bytes != whole, "nothing was flipped");
        fs::write(&file, &bytes)?;
        let log_bytes = trial.rack.appliance.log().len();
        trial.rack.appliance.start_again()?;
        let guard = trial.rack.guard.clone();
        let status = guard.wait("the server to refuse its store", || trial.rack.appliance.has_ended())?;
        let said = trial.rack.appliance.log().split_off(log_bytes);
        let why = said.lines().rfind(|line| line.contains("is damaged"));
        let why = why.with_context(|| format!("{what}: it ended, {status}, and named no damage: {said}"))?;
        println!("        {what} flipped: {}", why.trim());
        ensure!(status.code() == Some(1), "it ended with {status}");
        ensure!(why.contains("store.sqlite") && why.contains("bootserver restore"), "it does not say what to do");
        ensure!(fs::read(&file)? == bytes, "it did not leave the store as it was");
    }
    let without = trial.rack.await_counting(&guest)?;
    ensure!(without > counted, "the guest stood still while the store was refused");
    fs::write(&file, &whole)?;
    trial.rack.start_server()?;
    let view = trial.rack.operator.vm(&guest.name)?;
    ensure!((view.epoch, &view.owner) == (before.epoch, &before.owner), "{} was moved or started anew", guest.name);
    runs_once(trial, &guest, without)
}
