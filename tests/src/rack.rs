//! A whole virtual rack: network, boot server, machines, and an operator who is logged in.
//!
//! Owns: the order in which they come up and go down. Never does: test anything.

use crate::appliance::{Appliance, Choices, Parts};
use crate::forward::forward;
use crate::guard::{Guard, logs};
use crate::https::{Answer, Trust};
use crate::machine::{Firmware, Hardware, Machine, Order};
use crate::network::{Network, inside};
use crate::operator::{Operator, PASSWORD};
use crate::registry::{Entry, Purpose};
use crate::{https, network};
use anyhow::{Context, Result, anyhow, bail};
use hyper::Method;
use proto::api::{CreateVm, Refusal};
use proto::view::{HostState, HostView, VmPhase, VmView};
use proto::{HostId, VmId};
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long anything may take before it counts as hung, seconds: three guests were seen to take 290 when the machine was busy.
const HANG_S: u64 = 900;

/// A rack that is up. Everything of it is gone when it is dropped.
pub struct VirtualRack {
    // In the order in which they go down.
    machines: BTreeMap<u8, Machine>,
    /// The boot server.
    pub appliance: Appliance,
    /// The network.
    pub network: Network,
    /// An operator; logged in after [`VirtualRack::set_up`].
    pub operator: Operator,
    /// The page on this machine's loopback.
    pub page: SocketAddr,
    /// For waits.
    pub guard: Guard,
    entry: Entry,
}

impl VirtualRack {
    /// Makes the network and starts the boot server; waits until it answers. Port 0 is any.
    pub fn start(purpose: Purpose, parts: &Parts, choices: &Choices, page_port: u16) -> Result<Self> {
        let entry = Entry::new(purpose)?;
        let guard = Guard::new(HANG_S, entry.dir());
        let network = Network::make(entry.name())?;
        let page = forward(page_port, network.handle(), Appliance::operator_address())?;
        let mut appliance = Appliance::start(parts, choices, &network, entry.dir(), entry.tgt_control_port)?;
        let trust = Trust::pem(&appliance.ca_pem(&guard)?)?;
        let operator = Operator::stranger(trust, page);
        let mut rack = Self { machines: BTreeMap::new(), appliance, network, operator, page, guard, entry };
        rack.await_server()?;
        Ok(rack)
    }

    /// Starts the boot server after its end; how long it took until it answered an operator.
    pub fn start_server(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.appliance.start_again()?;
        self.await_server()?;
        Ok(started.elapsed())
    }

    /// Waits until the boot server answers an operator.
    fn await_server(&mut self) -> Result<()> {
        let (appliance, operator) = (&mut self.appliance, &self.operator);
        self.guard.wait("the boot server to answer", || {
            appliance.check()?;
            Ok(operator.about().ok())
        })?;
        Ok(())
    }

    /// Chooses the operator's first password.
    pub fn set_up(&mut self) -> Result<()> {
        let code = self.appliance.setup_code(false)?;
        self.operator.set_up(&code, PASSWORD)
    }

    /// Plugs a bare machine in and switches it on.
    pub fn power_on(&mut self, hardware: &Hardware) -> Result<HostId> {
        self.network.plug_in(&format!("tap{}", hardware.number))?;
        let machine = Machine::power_on(hardware, Order::Network, self.network.handle(), self.entry.dir())?;
        let id = machine.id();
        self.machines.insert(hardware.number, machine);
        Ok(id)
    }

    /// Cuts a machine's power and pulls its cable.
    pub fn power_off(&mut self, number: u8) -> Result<()> {
        let mut machine = self.machines.remove(&number).with_context(|| format!("machine {number} is not on"))?;
        machine.cut_power()?;
        self.network.unplug(&format!("tap{number}"))
    }

    /// Pulls a machine's cable, or puts it back.
    pub fn cable(&self, number: u8, plugged: bool) -> Result<()> {
        self.network.set_up(&format!("tap{number}"), plugged)
    }

    /// A machine that is on.
    pub fn machine(&self, number: u8) -> Result<&Machine> {
        self.machines.get(&number).with_context(|| format!("machine {number} is not on"))
    }

    /// The machine that is this host.
    pub fn machine_of(&self, host: &HostId) -> Result<&Machine> {
        self.machines.values().find(|m| m.id() == *host).with_context(|| format!("no machine is host {host}"))
    }

    /// Waits until a host is in a state.
    pub fn await_host(&self, host: &HostId, state: HostState) -> Result<HostView> {
        self.await_host_seen(host, state, |_| {})
    }

    /// The same, and shows each view of it on the way.
    pub fn await_host_seen(&self, host: &HostId, state: HostState, mut see: impl FnMut(&HostView)) -> Result<HostView> {
        self.guard.wait(&format!("host {host} to be {state:?}"), || {
            let machine = self.machine_of(host)?;
            if !machine.runs() {
                bail!("machine {} has switched itself off", machine.mac);
            }
            let Some(view) = self.operator.host(host)? else { return Ok(None) };
            see(&view);
            Ok((view.state == state).then_some(view))
        })
    }

    /// Waits until a VM is in a phase.
    pub fn await_vm(&self, vm: &VmId, phase: VmPhase) -> Result<VmView> {
        self.guard.wait(&format!("VM {vm} to be {phase:?}"), || {
            let view = self.operator.vm(vm)?;
            if view.phase == VmPhase::Failed && phase != VmPhase::Failed {
                bail!("VM {vm} has failed: {}", view.note);
            }
            Ok((view.phase == phase).then_some(view))
        })
    }

    /// Makes a VM of the test guest and waits until it runs.
    pub fn run_guest(&self, guest: &Guest) -> Result<VmView> {
        self.create_guest(guest)?;
        self.await_vm(&guest.name, VmPhase::Running)
    }

    /// Asks for a VM of the test guest.
    pub fn create_guest(&self, guest: &Guest) -> Result<()> {
        let request = CreateVm {
            cmdline: format!("guest.name={} guest.ip={}/24", guest.name, guest.address),
            start: true,
            ..CreateVm::new(guest.name.clone(), "tiny")
        };
        self.operator.create_vm(&request).map(drop)
    }

    /// What the guest's page says: the number it has counted to.
    pub fn counted(&self, guest: &Guest) -> Result<u64> {
        let answer = self.http(guest.address, 80, "/")?;
        let number = answer.body.split_whitespace().filter_map(|word| word.parse().ok()).next();
        number.with_context(|| format!("the page of {} shows no number: {:?}", guest.name, answer.body))
    }

    /// Seconds since the guest's kernel booted, by its page; a guest that is moved keeps counting them.
    pub fn uptime_s(&self, guest: &Guest) -> Result<f64> {
        self.said(guest, "uptime")
    }

    /// Memory that the guest could still have, KiB, by its page.
    pub fn available_kib(&self, guest: &Guest) -> Result<i64> {
        self.said(guest, "available")
    }

    /// What the guest's page says after a word.
    fn said<T: FromStr>(&self, guest: &Guest, word: &str) -> Result<T> {
        let answer = self.http(guest.address, 80, "/")?;
        let said = answer.body.split_whitespace().skip_while(|said| *said != word).nth(1);
        let said = said.and_then(|said| said.parse().ok());
        said.with_context(|| format!("the page of {} shows no {word}: {:?}", guest.name, answer.body))
    }

    /// Waits until the guest answers HTTP and counts on.
    pub fn await_counting(&self, guest: &Guest) -> Result<u64> {
        let mut first = None;
        self.guard.wait(&format!("guest {} to count on", guest.name), || {
            let Ok(now) = self.counted(guest) else { return Ok(None) };
            let first = *first.get_or_insert(now);
            Ok((now > first).then_some(now))
        })
    }

    /// One plain GET from within the rack's network.
    pub fn http(&self, address: Ipv4Addr, port: u16, path: &str) -> Result<Answer> {
        let stream = self.network.connect((address, port).into())?;
        https::plain(stream, https::request(Method::GET, path, &address.to_string(), String::new())?)
    }

    /// One request to the agents' endpoint from within the rack's network, without a certificate.
    pub fn agents_endpoint(&mut self, method: Method, path: &str, body: String) -> Result<Answer> {
        let trust = Trust::pem(&self.appliance.ca_pem(&self.guard)?)?;
        let to = Appliance::agent_address();
        let stream = inside(self.network.handle(), move || Ok(std::net::TcpStream::connect(to)?))?;
        https::tls(&trust, stream, network::SERVER.into(), https::request(method, path, &to.to_string(), body)?)
    }

    /// The file behind a disk.
    pub fn disk_file(&self, disk: &str) -> Result<PathBuf> {
        let dir = self.appliance.state().join("disks");
        let found = fs::read_dir(&dir)?.flatten().map(|entry| entry.path()).find(|path| {
            path.file_stem().is_some_and(|stem| stem == disk)
                && path.extension().is_none_or(|e| e == "img" || e == "raw")
        });
        found.ok_or_else(|| anyhow!("no file of disk {disk} in {}", dir.display()))
    }

    /// The rack's directory, with every log.
    pub fn dir(&self) -> &Path {
        self.entry.dir()
    }

    /// The control port of its disk server, for `tgtadm -C`.
    pub fn tgt_control_port(&self) -> u16 {
        self.entry.tgt_control_port
    }

    /// Copies all logs to a directory that stays.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        for log in logs(self.dir()) {
            let target = to.join(log.strip_prefix(self.dir())?);
            fs::create_dir_all(target.parent().unwrap_or(to))?;
            fs::copy(&log, &target).with_context(|| format!("keeping {}", log.display()))?;
        }
        Ok(())
    }
}

/// A VM of the test guest.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its name.
    pub name: VmId,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Guest {
    /// The `number`th, from 1.
    pub fn number(number: u8) -> Result<Self> {
        Ok(Self { name: format!("vm-{number}").parse()?, address: Ipv4Addr::new(10, 77, 0, 200 + number) })
    }
}

/// The machine of a place in the rack, of a size that holds dom0 and a few small guests.
pub fn hardware(number: u8, firmware: Firmware) -> Hardware {
    Hardware { number, firmware, memory_mib: 1152, direct: None, variables: None }
}

/// The server's refusal in an error, if it is one.
pub fn refusal(err: &anyhow::Error) -> Option<&Refusal> {
    err.downcast_ref::<crate::operator::Refused>().map(|refused| &refused.refusal)
}
