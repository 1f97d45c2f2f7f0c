//! `hypervisor-contract KERNEL INITRD`: tries the contract of hosts on the Xen host it runs on. For tests alone; no image has it.
//!
//! The two are digests of a guest's boot files, which the boot server serves. Run it in a dom0 whose agent waits to be let in: a host in
//! use would take the guest for a stray. Exit codes: 0 every clause holds, 1 not, 2 it was called wrongly.

use hostagent::agent::{AgentEvent, Guest};
use hostagent::boot::{Boot, WORDS};
use hostagent::hypervisor::contract::{CLAUSES, Given, Host, nobodys_disk};
use hostagent::hypervisor::xl::Xl;
use hostagent::hypervisor::{Job, Op, OpResult};
use hostagent::identity::{Ca, Clock, Identity};
use proto::Epoch;
use proto::vm::{self, VmSpec};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initrd] = &words[..] else {
        eprintln!("usage: hypervisor-contract KERNEL INITRD   (sha256 of files that the boot server serves)");
        return ExitCode::from(2);
    };
    match run(kernel, initrd) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("hypervisor-contract: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(kernel: &str, initrd: &str) -> Result<bool, Box<dyn Error>> {
    let boot = Boot::parse(&std::fs::read_to_string(WORDS)?)?;
    let host = boot.host.clone();
    let spec = VmSpec {
        name: "contract".parse()?,
        memory_mib: 96,
        vcpus: 1,
        boot: vm::Boot::Kernel {
            kernel: kernel.to_owned(),
            initrd: Some(initrd.to_owned()),
            cmdline: "console=hvc0".to_owned(),
        },
        disks: Vec::new(),
        vifs: Vec::new(),
    };
    let given = Given {
        guest: Guest { spec, disks: Vec::new(), epoch: Epoch(1), received: None, held: None, r#move: None },
        host,
        address: own_address(boot.server)?,
        port: 7444,
        forbidden: nobodys_disk(SocketAddrV4::new(*boot.server.ip(), 3260).into()),
    };
    let mut xen = Xen::new(boot)?;
    let mut broken = 0;
    for (says, clause) in CLAUSES {
        match clause(&mut xen, &given) {
            Ok(()) => println!("holds   {says}"),
            Err(why) => {
                broken += 1;
                println!("BROKEN  {says}: {why}");
                // The next clause begins with an empty host all the same.
                let job = xen.begin(Op::Destroy { vm: given.guest.spec.name.clone() });
                xen.end(job).map_err(|e| format!("tidying up: {}", e.detail))?;
            }
        }
    }
    println!("{} clauses hold, {broken} are broken", CLAUSES.len() - broken);
    Ok(broken == 0)
}

/// By which this host reaches the server.
fn own_address(server: SocketAddrV4) -> Result<Ipv4Addr, Box<dyn Error>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    match socket.local_addr()?.ip() {
        std::net::IpAddr::V4(address) => Ok(address),
        other => Err(format!("the way to {server} begins at {other}").into()),
    }
}

/// This host.
struct Xen {
    runtime: Runtime,
    xl: Arc<Xl>,
    events: mpsc::Receiver<AgentEvent>,
    ended: BTreeMap<Job, OpResult>,
    jobs: u64,
    // What the agent has, and what nobody changes here.
    _identity: watch::Sender<Arc<Identity>>,
    _changed: watch::Sender<u64>,
}

impl Xen {
    fn new(boot: Boot) -> Result<Self, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The agent waits for its certificate. Nobody is met here to whom one would have to be shown, so one of this program's own does.
        let made = rcgen::generate_simple_self_signed([boot.host.to_string()])?;
        let der = made.cert.der().clone();
        let key = made.signing_key.serialize_der();
        let identity =
            Identity::new(boot.host.clone(), Ca::new(der.clone())?, Arc::new(Clock::default()), key, vec![der]);
        let (identities, identity) = watch::channel(Arc::new(identity));
        let (changed, changes) = watch::channel(0);
        let (sender, events) = mpsc::channel(256);
        let xl = Arc::new(Xl::new(boot, identity, changes, sender)?);
        let ended = BTreeMap::new();
        Ok(Self { runtime, xl, events, ended, jobs: 0, _identity: identities, _changed: changed })
    }
}

impl Host for Xen {
    fn begin(&mut self, op: Op) -> Job {
        self.jobs += 1;
        let job = Job(self.jobs);
        let _entered = self.runtime.enter();
        self.xl.begin(job, op);
        job
    }

    fn end(&mut self, job: Job) -> OpResult {
        let Self { runtime, events, ended, .. } = self;
        runtime.block_on(async {
            loop {
                if let Some(result) = ended.remove(&job) {
                    return result;
                }
                match events.recv().await {
                    Some(AgentEvent::Done { job, result }) => drop(ended.insert(job, result)),
                    Some(_) => {}
                    // `xl` holds a sender as long as this lives.
                    None => unreachable!("the events' sender is gone"),
                }
            }
        })
    }

    fn pass(&mut self) {
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    }

    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}
