//! What a virtual rack has made on this machine, written down before it is made, so that the next start can take it away
//! when its maker was killed.
//!
//! Owns: `/run/tsubame-racks/NAME/`, with `made.json` and everything else of that rack. Never does: end a process or remove
//! a file that is not of a rack whose maker is gone.
//!
//! Every process of a rack lives in the rack's network namespace: so the kernel itself says which are ours.

use crate::process::{Process, run};
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ROOT: &str = "/run/tsubame-racks";

/// What a rack is for; of some there may be but one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// `make run`: one on a machine.
    Run,
    /// A test or a benchmark.
    Test,
}

#[derive(Debug, Serialize, Deserialize)]
struct Made {
    purpose: Purpose,
    maker: Process,
    tgt_control_port: u16,
}

/// One rack's entry. Dropping it takes everything of the rack away.
#[derive(Debug)]
pub struct Entry {
    name: String,
    dir: PathBuf,
    /// tgtd's control port, which is the machine's, not the namespace's: its socket is a file.
    pub tgt_control_port: u16,
}

impl Entry {
    /// Clears away racks whose makers are gone, then writes a new one down.
    pub fn new(purpose: Purpose) -> Result<Self> {
        fs::create_dir_all(ROOT).with_context(|| format!("making {ROOT}; the virtual rack needs root"))?;
        // Two that start at once must not choose the same.
        let lock = File::create(format!("{ROOT}/lock"))?;
        let _lock =
            Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, err)| err).context("locking the registry")?;
        let living = sweep()?;
        if let Some((name, made)) = living.iter().find(|(_, made)| purpose == Purpose::Run && made.purpose == purpose) {
            bail!(
                "a virtual rack is running already: process {}, {ROOT}/{name}; stop it with Ctrl-C there (or `kill -INT {}`) first",
                made.maker.pid,
                made.maker.pid
            );
        }
        let maker = Process::own()?;
        let taken: Vec<u16> = living.iter().map(|(_, made)| made.tgt_control_port).collect();
        let free = |port: &u16| !taken.contains(port) && !Path::new(&tgt_socket(*port)).exists();
        let tgt_control_port = (100..32_000).find(free).context("no control port for tgtd is free")?;
        // Interfaces' names are short, so is this.
        let name = (0..100)
            .map(|n| format!("tsu-{}-{n}", maker.pid))
            .find(|name| !Path::new(ROOT).join(name).exists())
            .context("this process has made 100 racks already")?;
        let dir = Path::new(ROOT).join(&name);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        let made = serde_json::to_vec(&Made { purpose, maker, tgt_control_port })?;
        fs::write(dir.join("made.json"), made).with_context(|| format!("writing {}/made.json", dir.display()))?;
        Ok(Self { name, dir, tgt_control_port })
    }

    /// The rack's name, also its namespace's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory of its own.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Err(err) = remove(&self.name, self.tgt_control_port) {
            eprintln!("virtual rack: {err:#}");
        }
    }
}

/// Takes away what makers that are gone left behind; the racks that live are returned.
fn sweep() -> Result<Vec<(String, Made)>> {
    let mut living = Vec::new();
    for dir in fs::read_dir(ROOT)? {
        let dir = dir?;
        let Some(name) = dir.file_name().to_str().filter(|name| name.starts_with("tsu-")).map(str::to_owned) else {
            continue;
        };
        match fs::read(dir.path().join("made.json")).ok().and_then(|text| serde_json::from_slice::<Made>(&text).ok()) {
            Some(made) if made.maker.lives() => living.push((name, made)),
            Some(made) => {
                eprintln!("virtual rack: clearing away what process {} left behind ({name})", made.maker.pid);
                remove(&name, made.tgt_control_port)?;
            }
            // Killed between two system calls: nothing was made yet but the directory.
            None => fs::remove_dir_all(dir.path())?,
        }
    }
    Ok(living)
}

fn tgt_socket(control_port: u16) -> String {
    format!("/var/run/tgtd/socket.{control_port}")
}

fn remove(name: &str, tgt_control_port: u16) -> Result<()> {
    if Path::new("/run/netns").join(name).exists() {
        end_all(name)?;
        run(Command::new("ip").args(["netns", "del", name]))?;
    }
    for file in [tgt_socket(tgt_control_port), tgt_socket(tgt_control_port) + ".lock"] {
        // Often it is gone with its tgtd.
        let _ = fs::remove_file(file);
    }
    let dir = Path::new(ROOT).join(name);
    unmount_below(&dir)?;
    fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))
}

/// A case may have mounted a small file system; the newest mount goes first.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading what is mounted")?;
    // Field 5 is the mount point (proc(5)); the names of a rack's directories need no escapes.
    let points =
        mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(|at| Path::new(at).starts_with(dir));
    for point in points {
        run(Command::new("umount").arg(point))?;
    }
    Ok(())
}

/// Ends every process of a namespace: asked first, as tgtd and QEMU put things in order, then killed.
fn end_all(namespace: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let pids = run(Command::new("ip").args(["netns", "pids", namespace]))?;
        let processes: Vec<Process> =
            pids.lines().filter_map(|pid| Process::of(pid.trim().parse().ok()?).ok()).filter(Process::lives).collect();
        if processes.is_empty() {
            return Ok(());
        }
        let signal = if began.elapsed() < Duration::from_secs(2) { Signal::SIGTERM } else { Signal::SIGKILL };
        for process in processes {
            process.signal(signal);
        }
        if began.elapsed() > Duration::from_secs(30) {
            bail!("processes in the namespace {namespace} do not end: {}", pids.replace('\n', " "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
