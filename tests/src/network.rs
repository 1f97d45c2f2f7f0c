//! The rack's network: a namespace of its own, with a bridge on which the boot server and each machine's tap are.
//!
//! ```text
//!  root namespace          namespace tsu-PID
//!  127.0.0.1:PORT ──page── 127.0.0.1:8443 bootserver on br0 10.77.0.1 ── tap0 ── machine 0
//!                                                                     └─ tap1 ── machine 1
//! ```
//! Owns: namespace, bridge, taps. Never does: touch an interface of the machine it runs on.

use crate::process::run;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

/// The bridge's name.
pub const BRIDGE: &str = "br0";
/// The boot server's address on it, /24.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The network of one rack. Its registry entry removes it, with every process in it.
#[derive(Debug)]
pub struct Network {
    name: String,
    handle: File,
}

impl Network {
    /// Makes namespace and bridge.
    pub fn make(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let handle = File::open(format!("/run/netns/{name}")).context("opening the new namespace")?;
        let network = Self { name: name.to_owned(), handle };
        network.ip("link set lo up")?;
        network.ip(&format!("link add name {BRIDGE} type bridge stp_state 0 forward_delay 0"))?;
        network.ip(&format!("address add {SERVER}/24 dev {BRIDGE}"))?;
        network.ip(&format!("link set {BRIDGE} up"))?;
        Ok(network)
    }

    /// The namespace's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace, for processes that are to live in it.
    pub fn handle(&self) -> &File {
        &self.handle
    }

    /// Makes a tap on the bridge: a machine's cable.
    pub fn plug_in(&self, tap: &str) -> Result<()> {
        self.ip(&format!("tuntap add name {tap} mode tap"))?;
        self.ip(&format!("link set {tap} master {BRIDGE} up"))
    }

    /// Has a tap carry or not.
    pub fn set_up(&self, tap: &str, up: bool) -> Result<()> {
        self.ip(&format!("link set {tap} {}", if up { "up" } else { "down" }))
    }

    /// Takes a tap away.
    pub fn unplug(&self, tap: &str) -> Result<()> {
        self.ip(&format!("link del {tap}"))
    }

    fn ip(&self, args: &str) -> Result<()> {
        run(Command::new("ip").arg("-n").arg(&self.name).args(args.split(' '))).map(drop)
    }

    /// Connects from within the namespace; the connection then works from anywhere.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        connect_in(&self.handle, to)
    }
}

/// Connects from within a namespace.
pub fn connect_in(namespace: &File, to: SocketAddr) -> Result<TcpStream> {
    inside(namespace, move || {
        TcpStream::connect_timeout(&to, Duration::from_secs(10)).with_context(|| format!("connecting to {to}"))
    })
}

/// Makes something, usually a socket, within a namespace: it stays there for life, wherever it is used.
pub fn inside<T: Send + 'static>(namespace: &File, make: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let namespace = namespace.try_clone()?;
    // A thread of its own, as setns changes the calling thread for good.
    let making = std::thread::spawn(move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).context("entering the rack's network (needs root)")?;
        make()
    });
    making.join().map_err(|_| anyhow::anyhow!("the thread in the rack's network panicked"))?
}
