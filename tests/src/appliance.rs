//! The boot server under test: the real program, in the rack's namespace.
//!
//! Owns: its configuration and its process. Never does: reach into it, but for reading the CA's certificate and the
//! set-up code from its state, as its operator does.

use crate::guard::Guard;
use crate::network::{BRIDGE, Network, SERVER};
use crate::process::{Process, in_namespace};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Where the programs and images are that a rack is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The boot server's program.
    pub bootserver: PathBuf,
    /// Directory of the dom0 release.
    pub release: PathBuf,
    /// Directory of the test guest.
    pub guest: PathBuf,
    /// Directory of iPXE's loaders.
    pub loaders: PathBuf,
}

/// What of the configuration a rack chooses.
#[derive(Debug, Clone)]
pub struct Choices {
    /// `manual`, `known` or `all`.
    pub join: &'static str,
    /// How often the planner runs by itself, milliseconds; 0 for never.
    pub balance_ms: u64,
    /// Most megabits a second of a migration; 0 for no limit.
    pub migration_rate_mbit: u64,
}

/// A boot server. Ended when dropped.
#[derive(Debug)]
pub struct Appliance {
    program: PathBuf,
    config: PathBuf,
    state: PathBuf,
    log: PathBuf,
    namespace: File,
    running: Option<(Child, Process)>,
}

impl Appliance {
    /// Writes the configuration and starts the server; it is not waited for.
    pub fn start(
        parts: &Parts,
        choices: &Choices,
        network: &Network,
        dir: &Path,
        tgt_control_port: u16,
    ) -> Result<Self> {
        let text = render(parts, choices, &dir.join("state"), tgt_control_port);
        Self::configured(&parts.bootserver, &text, network, dir)
    }

    /// The same by a configuration, whose `state` is to be `dir/state`.
    pub fn configured(program: &Path, text: &str, network: &Network, dir: &Path) -> Result<Self> {
        let (config, state) = (dir.join("bootserver.yaml"), dir.join("state"));
        fs::write(&config, text)?;
        let log = dir.join("bootserver.log");
        let namespace = network.handle().try_clone()?;
        let mut appliance = Self { program: program.to_owned(), config, state, log, namespace, running: None };
        appliance.start_again()?;
        Ok(appliance)
    }

    /// Starts it again after its end.
    pub fn start_again(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        // Heeded only by a server that is built with crash points.
        command.env("TSUBAME_CRASH_AT", self.crash_at());
        command.arg("run").arg(&self.config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        in_namespace(&mut command, &self.namespace)?;
        let child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        let process = Process::of(child.id().try_into().context("a process number is an i32")?)?;
        self.running = Some((child, process));
        Ok(())
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGKILL)
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let Some((mut child, process)) = self.running.take() else { bail!("the boot server does not run") };
        process.signal(signal);
        child.wait().context("waiting for the boot server's end")
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The file that arms a point at which it is to die.
    pub fn crash_at(&self) -> PathBuf {
        self.state.join("crash-at")
    }

    /// Whether it has ended by itself; it is no longer running then.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some((child, _)) = &mut self.running else { bail!("the boot server does not run") };
        let ended = child.try_wait()?;
        if ended.is_some() {
            self.running = None;
        }
        Ok(ended)
    }

    /// Fails when it has ended by itself, with what it said last.
    pub fn check(&mut self) -> Result<()> {
        let Some((child, _)) = &mut self.running else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(5).collect();
            bail!("the boot server has ended, {status}: {}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        Ok(())
    }

    /// The CA's certificate, PEM, once it is there.
    pub fn ca_pem(&mut self, guard: &Guard) -> Result<Vec<u8>> {
        let path = self.state.join("ca.pem");
        guard.wait("the boot server's CA", || {
            self.check()?;
            Ok(fs::read(&path).ok())
        })
    }

    /// A new one-time code by which an operator chooses the first password; with `reset` also one after the first.
    pub fn setup_code(&self, reset: bool) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("setup-code").arg(&self.config);
        if reset {
            command.arg("--reset");
        }
        in_namespace(&mut command, &self.namespace)?;
        Ok(crate::process::run(&mut command)?.trim().to_owned())
    }

    /// Makes its state of a backup, as its operator does; what the program said. It must not run.
    pub fn restore(&self, backup: &Path) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("restore").arg(backup).arg("--state").arg(&self.state);
        crate::process::run(&mut command)
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<Process> {
        self.running.as_ref().map(|(_, process)| *process)
    }

    /// Where operators reach it, within the namespace.
    pub fn operator_address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8443))
    }

    /// Where agents reach it.
    pub fn agent_address() -> SocketAddr {
        SocketAddr::from((SERVER, 7443))
    }

    /// Where booting machines reach it.
    pub fn boot_address() -> SocketAddr {
        SocketAddr::from((SERVER, 8080))
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if self.running.is_some()
            && let Err(err) = self.end(Signal::SIGTERM)
        {
            eprintln!("virtual rack: {err:#}");
        }
    }
}

/// Of the guest that boots its own disk and so has its address by DHCP.
pub const OWN_DISK_MAC: &str = "00:16:3e:00:00:0d";
/// Reserved for it.
pub const OWN_DISK_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 180);

fn render(parts: &Parts, choices: &Choices, state: &Path, tgt_control_port: u16) -> String {
    let guest = parts.guest.display();
    format!(
        r#"# Written by the virtual rack.
state: {state}
interface: {BRIDGE}
subnet: {{ network: 10.77.0.0/24, address: {SERVER}, pool: 10.77.0.50-10.77.0.99 }}
reservations: {{ "{OWN_DISK_MAC}": {OWN_DISK_ADDRESS} }}
join: {join}
release: {release}
loaders: {loaders}
dom0: {{ memory_mib: 512, xen_args: "{xen_args}", kernel_args: "{kernel_args}" }}
templates:
  tiny:
    kernel: {guest}/vmlinuz
    initrd: {guest}/initrd
    cmdline: "console=hvc0 quiet"
    memory_mib: 96
    disk_mib: 64
  own-disk:
    loader: {guest}/grub-pvh
    disk_image: {guest}/guest-disk.img
    memory_mib: 128
    disk_mib: 64
listen: {{ operator: {operator} }}
storage: {{ tgt_control_port: {tgt_control_port}, stop_with_server: false }}
timing: {{ report_ms: 1000, lost_ms: 20000, balance_ms: {balance_ms}, migration_rate_mbit: {rate} }}
"#,
        state = state.display(),
        join = choices.join,
        release = parts.release.display(),
        loaders = parts.loaders.display(),
        xen_args = XEN_ARGS,
        kernel_args = KERNEL_ARGS,
        operator = Appliance::operator_address(),
        balance_ms = choices.balance_ms,
        rate = choices.migration_rate_mbit,
    )
}

/// What a virtual machine's Xen is told beside its memory: where its console is, and how long a domain runs at least.
/// In emulation each change of the domain that runs costs far more than on a processor: three guests that share one emulated processor by the usual
/// millisecond came to a small part of what they do by ten.
pub const XEN_ARGS: &str = "console=com1 com1=115200,8n1 sched_ratelimit_us=10000";
/// The same for dom0.
pub const KERNEL_ARGS: &str = "console=hvc0";
