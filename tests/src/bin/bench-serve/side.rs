//! The servers that are measured: ours, and of each service those that people use, with their packages' settings.
//!
//! Owns: their configurations, processes, and what they cost: processor time and memory. Never does: let one run beside
//! another.

use super::field::{Field, NETWORK, POOL, SERVER};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::appliance::Appliance;
use tests::network::{BRIDGE, inside};
use tests::process::{Process, in_namespace};

/// dom0's image, bytes: about what a real one has.
pub(super) const IMAGE_BYTES: u64 = 64 << 20;
/// The loader, bytes: about what Debian's `ipxe.efi` has.
pub(super) const LOADER_BYTES: u64 = 1 << 20;
/// The initrd's, kernel's and Xen's.
pub(super) const INITRD_BYTES: u64 = 5 << 20;
pub(super) const KERNEL_BYTES: u64 = 8 << 20;
pub(super) const XEN_BYTES: u64 = 3 << 20;
/// Name of the loader.
pub(super) const LOADER: &str = "ipxe.efi";
/// Linux counts processor time in these (`getconf CLK_TCK`).
const TICK: Duration = Duration::from_millis(10);

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Kea,
    Nginx,
    Hpa,
    Dnsmasq,
}

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Kea => "Kea memfile",
            Self::Nginx => "nginx",
            Self::Hpa => "tftpd-hpa",
            Self::Dnsmasq => "dnsmasq",
        }
    }
}

/// Where programs and files are.
pub(super) struct Parts {
    pub(super) bootserver: PathBuf,
    /// Debian's packages, unpacked.
    pub(super) peers: PathBuf,
    /// Random bytes under a release's names.
    pub(super) files: PathBuf,
}

impl Parts {
    /// Makes the files to serve: random, of real sizes.
    pub(super) fn make(bootserver: &Path, peers: &Path, files: &Path) -> Result<Self> {
        for (name, bytes) in [
            ("release/dom0.squashfs", IMAGE_BYTES),
            ("release/initrd", INITRD_BYTES),
            ("release/vmlinuz", KERNEL_BYTES),
            ("release/xen", XEN_BYTES),
            ("release/xen.efi", XEN_BYTES),
            ("loaders/ipxe.efi", LOADER_BYTES),
            ("loaders/undionly.kpxe", 90_000),
        ] {
            let path = files.join(name);
            fs::create_dir_all(path.parent().context("it is below files")?)?;
            let random = std::io::Read::take(File::open("/dev/urandom")?, bytes);
            std::io::copy(&mut { random }, &mut File::create(&path)?).with_context(|| path.display().to_string())?;
        }
        Ok(Self { bootserver: bootserver.to_owned(), peers: peers.to_owned(), files: files.to_owned() })
    }

    pub(super) fn image(&self) -> PathBuf {
        self.files.join("release/dom0.squashfs")
    }

    pub(super) fn loader(&self) -> PathBuf {
        self.files.join("loaders").join(LOADER)
    }

    /// Where a file of the release is, by HTTP of this side.
    pub(super) fn url(&self, side: Side, name: &str) -> Result<(SocketAddr, String)> {
        if side == Side::Nginx {
            return Ok((SocketAddr::from((SERVER, 8080)), format!("/{name}")));
        }
        let mut hasher = Sha256::new();
        std::io::copy(&mut File::open(self.files.join("release").join(name))?, &mut hasher)?;
        let digest: String = hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((SocketAddr::from((SERVER, 8080)), format!("/b/{digest}/{name}")))
    }
}

/// A server that runs. Ended when dropped.
pub(super) struct Running {
    held: Held,
    process: Process,
}

enum Held {
    Ours(Appliance),
    Peer(Child),
}

/// What a server has used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) cpu: Duration,
    /// The most resident at once, of all its processes.
    pub(super) peak_bytes: u64,
}

impl Running {
    /// Starts a server on an empty state, and waits until it serves.
    pub(super) fn start(side: Side, parts: &Parts, field: &Field, more: &str) -> Result<Self> {
        let dir = field.dir.join("server");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        if side == Side::Ours {
            let text = ours(parts, field, &dir, more);
            let appliance = Appliance::configured(&parts.bootserver, &text, &field.network, &dir)?;
            let process = appliance.process().context("it was just started")?;
            let mut running = Self { held: Held::Ours(appliance), process };
            field.guard.wait("our server to serve", || {
                if let Held::Ours(appliance) = &mut running.held {
                    appliance.check()?;
                }
                let log = fs::read_to_string(dir.join("bootserver.log")).unwrap_or_default();
                Ok(log.contains("set-up code").then_some(()))
            })?;
            return Ok(running);
        }
        let mut command = peer(side, parts, &dir)?;
        let log = File::create(dir.join("peer.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        in_namespace(&mut command, field.network.handle())?;
        let child = command.spawn().with_context(|| format!("starting {}; is it installed?", side.name()))?;
        let process = Process::of(child.id().try_into().context("a process number is an i32")?)?;
        let running = Self { held: Held::Peer(child), process };
        field.guard.wait(side.name(), || {
            ensure!(process.lives(), "it ended: {}", fs::read_to_string(dir.join("peer.log"))?);
            let ready = match side {
                Side::Nginx => {
                    let to = SocketAddr::from((SERVER, 8080));
                    inside(field.network.handle(), move || Ok(TcpStream::connect(to).is_ok()))?
                }
                Side::Kea => fs::read_to_string(dir.join("peer.log"))?.contains("DHCP4_STARTED"),
                // A socket on port 69.
                _ => fs::read_to_string(format!("/proc/{}/net/udp", process.pid))?.contains(":0045 "),
            };
            Ok(ready.then_some(()))
        })?;
        Ok(running)
    }

    /// Our server.
    pub(super) fn appliance(&mut self) -> Option<&mut Appliance> {
        match &mut self.held {
            Held::Ours(appliance) => Some(appliance),
            Held::Peer(_) => None,
        }
    }

    /// Lets the memory's peak begin anew.
    pub(super) fn forget_peak(&self) -> Result<()> {
        for pid in self.pids()? {
            // One that has just ended has none.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Ok(())
    }

    /// What it has used so far.
    pub(super) fn cost(&self) -> Result<Cost> {
        let (mut ticks, mut peak_bytes) = (0, 0);
        for pid in self.pids()? {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let fields: Vec<u64> =
                stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
            // utime and stime, and of children that have ended (proc(5), fields 14 to 17); but tgtd is not measured.
            let upto = if matches!(self.held, Held::Ours(_)) { 13 } else { 15 };
            ticks += fields.get(11..upto).context("stat has more fields")?.iter().sum::<u64>();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("");
            peak_bytes += peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024;
        }
        Ok(Cost { cpu: TICK * u32::try_from(ticks)?, peak_bytes })
    }

    fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = vec![self.process.pid];
        if matches!(self.held, Held::Peer(_)) {
            let children = format!("/proc/{0}/task/{0}/children", self.process.pid);
            pids.extend(fs::read_to_string(children)?.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        Ok(pids)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Held::Peer(child) = &mut self.held {
            self.process.signal(Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

fn ours(parts: &Parts, field: &Field, dir: &Path, more: &str) -> String {
    format!(
        "state: {}/state\ninterface: {BRIDGE}\nsubnet: {{ network: {NETWORK}, address: {SERVER}, pool: {}-{}, lease_s: 600 }}\njoin: all\n\
         release: {files}/release\nloaders: {files}/loaders\nlisten: {{ operator: {} }}\n\
         storage: {{ tgt_control_port: {}, stop_with_server: true }}\n{more}",
        dir.display(),
        POOL.0,
        POOL.1,
        Appliance::operator_address(),
        field.tgt_control_port(),
        files = parts.files.display(),
    )
}

fn peer(side: Side, parts: &Parts, dir: &Path) -> Result<Command> {
    let (at, files) = (dir.display(), parts.files.display());
    let program = |name: &str| Command::new(parts.peers.join("usr/sbin").join(name));
    Ok(match side {
        Side::Ours => unreachable!("ours is no peer"),
        Side::Kea => {
            let config = format!(
                r#"{{"Dhcp4": {{"interfaces-config": {{"interfaces": ["{BRIDGE}"], "dhcp-socket-type": "raw"}},
"multi-threading": {{"enable-multi-threading": true}},
"lease-database": {{"type": "memfile", "persist": true, "name": "{at}/leases.csv"}}, "valid-lifetime": 600,
"subnet4": [{{"subnet": "{NETWORK}", "pools": [{{"pool": "{} - {}"}}]}}],
"loggers": [{{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{{"output": "stdout"}}]}},
{{"name": "kea-dhcp4.dhcp4", "severity": "INFO", "output_options": [{{"output": "stdout"}}]}}]}}}}"#,
                POOL.0, POOL.1
            );
            let path = dir.join("kea.json");
            fs::write(&path, config)?;
            let mut command = program("kea-dhcp4");
            command.arg("-c").arg(path).env("KEA_PIDFILE_DIR", dir).env("KEA_LOCKFILE_DIR", dir);
            command
        }
        Side::Nginx => {
            let temporary: String = ["client_body", "proxy", "fastcgi", "scgi", "uwsgi"]
                .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
                .concat();
            let config = format!(
                "user root;\nworker_processes auto;\ndaemon off;\npid {at}/pid;\nerror_log stderr;\nevents {{ worker_connections 768; }}\n\
                 http {{\nsendfile on;\ntcp_nopush on;\naccess_log off;\n{temporary}server {{ listen {SERVER}:8080; root {files}/release; }}\n}}\n"
            );
            let path = dir.join("nginx.conf");
            fs::write(&path, config)?;
            let mut command = program("nginx");
            command.arg("-c").arg(path).arg("-e").arg("stderr");
            command
        }
        Side::Hpa => {
            let mut command = program("in.tftpd");
            command.args(["-L", "-u", "root", "-a", &format!("{SERVER}:69"), "-s"]).arg(parts.files.join("loaders"));
            command
        }
        Side::Dnsmasq => {
            let mut command = Command::new("dnsmasq");
            let root = format!("--tftp-root={files}/loaders");
            command.args(["-k", "-C", "/dev/null", "-p", "0", "--enable-tftp", "--tftp-max=500", "--user=root", &root]);
            command.args(["--pid-file", "--log-facility=-"]);
            command
        }
    })
}
