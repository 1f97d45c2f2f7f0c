//! Where the sides are measured: the server's namespace with its bridge, and clients' namespaces on it.
//!
//! Owns: the namespaces, the clients' addresses, a directory on a real disk, as what is durable must be. Never does: leave
//! anything behind. A client's namespace has no name: it is gone with this process.

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use tests::guard::Guard;
use tests::network::{BRIDGE, Network};
use tests::process::{in_namespace, run};
use tests::registry::{Entry, Purpose};

/// The server's address. The network has room for a million clients, as perfdhcp invents them.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// That network.
pub(super) const NETWORK: &str = "10.64.0.0/12";
/// Its addresses for clients by DHCP.
pub(super) const POOL: (&str, &str) = ("10.65.0.0", "10.79.255.254");
/// A client's interface, in its namespace.
pub(super) const CARD: &str = "c0";
/// How long anything may take before it counts as hung, seconds.
const HANG_S: u64 = 120;

/// The server's end.
pub(super) struct Field {
    /// The server's namespace.
    pub(super) network: Network,
    /// On a real disk.
    pub(super) dir: PathBuf,
    /// For waits.
    pub(super) guard: Guard,
    entry: Entry,
}

impl Field {
    /// Makes the server's namespace, and empties the directory.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let entry = Entry::new(Purpose::Test)?;
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let network = Network::make(entry.name())?;
        run(Command::new("ip").args(["-n", entry.name(), "address", "add", &format!("{SERVER}/12"), "dev", BRIDGE]))?;
        let dir = &dir.canonicalize()?;
        Ok(Self { network, dir: dir.to_owned(), guard: Guard::new(HANG_S, dir), entry })
    }

    /// tgtd's control port for a boot server of ours.
    pub(super) fn tgt_control_port(&self) -> u16 {
        self.entry.tgt_control_port
    }

    /// Makes a namespace with a card on the server's bridge.
    pub(super) fn client(&self, number: usize, addresses: &[Ipv4Addr]) -> Result<Client> {
        let make = || -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("making a client's namespace (needs root)")?;
            File::open("/proc/thread-self/ns/net").context("opening a client's namespace")
        };
        let namespace = std::thread::spawn(make).join().map_err(|_| anyhow!("making a namespace panicked"))??;
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        let (name, cable) = (self.network.name(), format!("v{number}"));
        let link = ["-n", name, "link", "add", &cable, "type", "veth", "peer", "name", CARD, "netns", &path];
        run(Command::new("ip").args(link))?;
        run(Command::new("ip").args(["-n", name, "link", "set", &cable, "master", BRIDGE, "up"]))?;
        let client = Client { namespace };
        let mut batch = format!("link set lo up\nlink set {CARD} up\n");
        for address in addresses {
            batch.push_str(&format!("address add {address}/12 dev {CARD}\n"));
        }
        client.ip(&batch)?;
        Ok(client)
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_dir_all(&self.dir) {
            eprintln!("bench-serve: removing {}: {err}", self.dir.display());
        }
    }
}

/// A client's namespace.
pub(super) struct Client {
    namespace: File,
}

impl Client {
    /// A tool that is to run there.
    pub(super) fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(program);
        in_namespace(&mut command, &self.namespace)?;
        Ok(command)
    }

    /// Does something on a thread there.
    pub(super) fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let namespace = self.namespace.try_clone()?;
        let enter = move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).context("entering a client's namespace")?;
            work()
        };
        // A client needs little, and there are hundreds.
        Ok(std::thread::Builder::new().stack_size(256 << 10).spawn(enter)?)
    }

    /// Has ip(8) do these lines there.
    pub(super) fn ip(&self, batch: &str) -> Result<()> {
        let mut ip = self.command("ip")?.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("running ip")?;
        ip.stdin.take().context("its input is a pipe")?.write_all(batch.as_bytes())?;
        let status = ip.wait()?;
        anyhow::ensure!(status.success(), "ip -batch, {status}: {batch}");
        Ok(())
    }
}

/// Waits for a thread's result.
pub(super) fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a client's thread panicked"))?
}
