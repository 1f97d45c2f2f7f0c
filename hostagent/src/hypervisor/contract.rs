//! What holds of every host, whatever carries the operations out: clauses to be tried one after the other.
//!
//! Owns: the clauses. Never does: knowing whether a host is real. A unit test tries them on the model [`super::sim`], the virtual rack on
//! Xen, by the program `hypervisor-contract`; so what is tested on the model says something of Xen. Streams between two hosts are
//! not here: both ends of one are tried by the virtual rack's moves, and the model's table is in [`super::sim`].

use super::{Completion, Job, Op, OpResult, SeenDomain, Survey};
use crate::agent::Guest;
use proto::agent::{DiskAccess, DomainState, FailureKind, Part, Permit, Secret, SignedPermit};
use proto::{Epoch, HostId, MoveId, VmId};
use std::net::Ipv4Addr;

/// A host on which the clauses are tried.
pub trait Host {
    /// Begins an operation.
    fn begin(&mut self, op: Op) -> Job;
    /// Awaits its end.
    fn end(&mut self, job: Job) -> OpResult;
    /// Lets a little time pass before something is looked at again.
    fn pass(&mut self);
    /// Unix milliseconds, by which permits end.
    fn unix_ms(&self) -> u64;
}

/// What the clauses are tried with.
pub struct Given {
    /// A guest without disks that boots, prints something and shuts down when it is asked to.
    pub guest: Guest,
    /// The host on which they are tried.
    pub host: HostId,
    /// Where it would be sent a guest.
    pub address: Ipv4Addr,
    /// The port for that.
    pub port: u16,
    /// A disk that it may not log in to.
    pub forbidden: DiskAccess,
}

/// A clause: what it says, and its trial. Each leaves the host as it found it: without the guest.
pub type Clause = (&'static str, fn(&mut dyn Host, &Given) -> Result<(), String>);

/// All of them.
pub const CLAUSES: &[Clause] = &[
    ("what is not there is said not to be there, and is taken away with success", absent),
    ("guests that want the same files are prepared side by side", side_by_side),
    ("a guest is created once, however often it is asked for", created_once),
    ("a guest that does not fit is refused for want of memory, and leaves nothing", too_large),
    ("pausing and unpausing twice is as once", paused),
    ("all guests are held at once, and run on when they are unpaused", held),
    ("a guest that runs is activated and resumed by leaving it so", runs_already),
    ("a console shows what the guest printed", console),
    ("a guest that is sent to nobody runs on", sent_to_nobody),
    ("an awaited stream that does not come ends with its permit, and leaves nothing", nobody_comes),
    ("an awaited stream that is called off fails, and leaves nothing", called_off),
    ("a disk that was not granted is refused as a disk", forbidden_disk),
    ("a guest that is asked to shut down stays as a domain, until it is taken away", shut_down),
];

/// How often something is looked at before it counts as not coming about.
const LOOKS_MAX: u32 = 3_000;

fn absent(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let vm = || given.guest.spec.name.clone();
    for op in [
        Op::Pause { vm: vm() },
        Op::Unpause { vm: vm() },
        Op::AskShutdown { vm: vm() },
        Op::Activate { vm: vm() },
        Op::Resume { vm: vm() },
        Op::Send { permit: permit(host, given, 60_000), signed: unsigned(), rate_bytes_s: 0 },
    ] {
        fails(host, op, FailureKind::NoDomain)?;
    }
    for op in [Op::Destroy { vm: vm() }, Op::Detach { disks: Vec::new() }, Op::Cancel { job: Job(u64::MAX) }] {
        done(host, op)?;
    }
    Ok(())
}

/// First among those that need files: nothing was fetched yet.
fn side_by_side(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let jobs: Vec<Job> = (0..3).map(|_| host.begin(Op::Prepare { guest: given.guest.clone(), files: true })).collect();
    for job in jobs {
        match host.end(job) {
            Ok(Completion::Done) => {}
            other => return Err(format!("Prepare ended with {other:?}")),
        }
    }
    Ok(())
}

fn created_once(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let guest = given.guest.clone();
    done(host, Op::Prepare { guest: guest.clone(), files: true })?;
    done(host, Op::Create { guest })?;
    is(host, &given.guest.spec.name, DomainState::Paused)?;
    let first = create(host, given)?;
    if first.memory_mib == 0 || first.memory_mib > given.guest.spec.memory_mib {
        return Err(format!("it has {} MiB of {}", first.memory_mib, given.guest.spec.memory_mib));
    }
    let again = create(host, given)?;
    if (again.domid, again.part) != (first.domid, Part::Resident) {
        return Err(format!("{first:?} became {again:?}"));
    }
    destroy(host, given)
}

fn too_large(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let mut guest = given.guest.clone();
    guest.spec.memory_mib = survey(host)?.memory_free_mib + 1;
    fails(host, Op::Create { guest }, FailureKind::NoMemory)?;
    gone(host, &given.guest.spec.name)
}

fn paused(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let vm = &create(host, given)?.vm;
    for _ in 0..2 {
        done(host, Op::Pause { vm: vm.clone() })?;
        is(host, vm, DomainState::Paused)?;
    }
    for _ in 0..2 {
        done(host, Op::Unpause { vm: vm.clone() })?;
        is(host, vm, DomainState::Running)?;
    }
    destroy(host, given)
}

fn held(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let vm = &create(host, given)?.vm;
    match run(host, Op::Hold) {
        Ok(Completion::Held { running: 0 }) => {}
        other => return Err(format!("Hold ended with {other:?}")),
    }
    is(host, vm, DomainState::Paused)?;
    done(host, Op::Unpause { vm: vm.clone() })?;
    is(host, vm, DomainState::Running)?;
    destroy(host, given)
}

fn runs_already(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let first = create(host, given)?;
    for op in [Op::Activate { vm: first.vm.clone() }, Op::Resume { vm: first.vm.clone() }] {
        done(host, op)?;
        let now = is(host, &first.vm, DomainState::Running)?;
        if (now.domid, now.part) != (first.domid, Part::Resident) {
            return Err(format!("{first:?} became {now:?}"));
        }
    }
    destroy(host, given)
}

fn console(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let vm = create(host, given)?.vm;
    for _ in 0..LOOKS_MAX {
        match run(host, Op::Console { vm: vm.clone(), bytes_max: 64 }) {
            Ok(Completion::Console { text }) if text.len() > 3 * 64 => {
                return Err(format!("64 bytes were asked for, {} came", text.len()));
            }
            Ok(Completion::Console { text }) if !text.trim().is_empty() => return destroy(host, given),
            Ok(Completion::Console { .. }) => host.pass(),
            // The log is begun a moment after the domain.
            Err(e) if e.kind == FailureKind::NoDomain => host.pass(),
            other => return Err(format!("Console ended with {other:?}")),
        }
    }
    Err("nothing was printed".to_owned())
}

fn sent_to_nobody(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let first = create(host, given)?;
    let permit = permit(host, given, 60_000);
    let failed = run(host, Op::Send { permit, signed: unsigned(), rate_bytes_s: 0 });
    let Err(failure) = failed else { return Err(format!("Send ended with {failed:?}")) };
    if failure.kind != FailureKind::Stream {
        return Err(format!("Send failed as {failure:?}"));
    }
    done(host, Op::Resume { vm: first.vm.clone() })?;
    done(host, Op::Unpause { vm: first.vm.clone() })?;
    let now = is(host, &first.vm, DomainState::Running)?;
    if now.domid != first.domid {
        return Err(format!("{first:?} became {now:?}"));
    }
    destroy(host, given)
}

fn nobody_comes(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let permit = permit(host, given, 1_000);
    let ended = run(host, Op::Receive { permit });
    match ended {
        Err(ref e) if e.kind == FailureKind::Stream => gone(host, &given.guest.spec.name),
        other => Err(format!("Receive ended with {other:?}")),
    }
}

fn called_off(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let permit = permit(host, given, 3_600_000);
    let job = host.begin(Op::Receive { permit });
    host.pass();
    done(host, Op::Cancel { job })?;
    match host.end(job) {
        Err(ref e) if e.kind == FailureKind::Stream => gone(host, &given.guest.spec.name),
        other => Err(format!("Receive ended with {other:?}")),
    }
}

fn forbidden_disk(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let mut guest = given.guest.clone();
    guest.spec.disks = vec![given.forbidden.disk.clone()];
    guest.disks = vec![given.forbidden.clone()];
    fails(host, Op::Prepare { guest, files: false }, FailureKind::Disk)?;
    done(host, Op::Detach { disks: vec![given.forbidden.clone()] })
}

fn shut_down(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let first = create(host, given)?;
    let vm = &first.vm;
    // One that has only just begun to boot does not listen yet.
    for look in 0..LOOKS_MAX {
        if look % 20 == 0 {
            done(host, Op::AskShutdown { vm: vm.clone() })?;
        }
        host.pass();
        let now = survey(host)?.domains.into_iter().find(|d| d.vm == *vm).ok_or("it went by itself")?;
        if now.state == DomainState::Shutdown {
            fails(host, Op::Pause { vm: vm.clone() }, FailureKind::Tool)?;
            fails(host, Op::Unpause { vm: vm.clone() }, FailureKind::Tool)?;
            return destroy(host, given);
        }
    }
    Err(format!("{vm} was asked to shut down, and has not"))
}

fn create(host: &mut dyn Host, given: &Given) -> Result<SeenDomain, String> {
    done(host, Op::Prepare { guest: given.guest.clone(), files: true })?;
    done(host, Op::Create { guest: given.guest.clone() })?;
    done(host, Op::Unpause { vm: given.guest.spec.name.clone() })?;
    is(host, &given.guest.spec.name, DomainState::Running)
}

/// Twice, as the second time it is there no more.
fn destroy(host: &mut dyn Host, given: &Given) -> Result<(), String> {
    let vm = &given.guest.spec.name;
    for _ in 0..2 {
        done(host, Op::Destroy { vm: vm.clone() })?;
        gone(host, vm)?;
    }
    Ok(())
}

fn permit(host: &dyn Host, given: &Given, valid_ms: u64) -> Permit {
    Permit {
        r#move: MoveId(1),
        vm: given.guest.spec.name.clone(),
        epoch: Epoch(1),
        source: given.host.clone(),
        target: given.host.clone(),
        target_address: given.address,
        target_port: given.port,
        expires_ms: host.unix_ms() + valid_ms,
    }
}

/// Nobody is met who would look at the signature.
fn unsigned() -> SignedPermit {
    SignedPermit { permit_json: String::new(), signature: String::new() }
}

fn run(host: &mut dyn Host, op: Op) -> OpResult {
    let job = host.begin(op);
    host.end(job)
}

fn done(host: &mut dyn Host, op: Op) -> Result<(), String> {
    let what = format!("{op:?}");
    match run(host, op) {
        Ok(Completion::Done) => Ok(()),
        other => Err(format!("{what} ended with {other:?}")),
    }
}

fn fails(host: &mut dyn Host, op: Op, kind: FailureKind) -> Result<(), String> {
    let what = format!("{op:?}");
    match run(host, op) {
        Err(e) if e.kind == kind => Ok(()),
        other => Err(format!("{what} ended with {other:?}, expected {kind:?}")),
    }
}

fn survey(host: &mut dyn Host) -> Result<Survey, String> {
    match run(host, Op::Survey) {
        Ok(Completion::Survey(survey)) => Ok(survey),
        other => Err(format!("Survey ended with {other:?}")),
    }
}

/// The one domain of a VM, resident and in this state.
fn is(host: &mut dyn Host, vm: &VmId, state: DomainState) -> Result<SeenDomain, String> {
    let domains: Vec<SeenDomain> = survey(host)?.domains.into_iter().filter(|d| d.vm == *vm).collect();
    match &domains[..] {
        [one] if (one.state, one.part) == (state, Part::Resident) => Ok(one.clone()),
        other => Err(format!("expected one domain of {vm}, {state:?} and resident, and there is {other:?}")),
    }
}

fn gone(host: &mut dyn Host, vm: &VmId) -> Result<(), String> {
    let domains = survey(host)?.domains;
    if domains.iter().any(|d| d.vm == *vm) { Err(format!("{vm} is still there: {domains:?}")) } else { Ok(()) }
}

/// A disk that nobody has granted: of this portal, known to no storage.
pub fn nobodys_disk(portal: std::net::SocketAddr) -> DiskAccess {
    DiskAccess {
        // Short and lower case: a good name.
        disk: "contract-0".parse().unwrap_or_else(|_| unreachable!("a good name")),
        portal,
        target: "iqn.2026-11.org.tsubame:contract-0".into(),
        lun: 1,
        user: "nobody".into(),
        secret: Secret("none-was-given".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::sim::{Costs, World};
    use proto::vm::{Boot, VmSpec};
    use std::collections::BTreeMap;

    struct Model {
        world: World,
        host: HostId,
        now_ms: u64,
        jobs: u64,
        ended: BTreeMap<Job, OpResult>,
    }

    impl Model {
        fn step(&mut self, until_ms: u64) {
            self.now_ms = until_ms;
            for (_, _, event) in self.world.step(until_ms) {
                if let crate::agent::AgentEvent::Done { job, result } = event {
                    self.ended.insert(job, result);
                }
            }
        }
    }

    impl Host for Model {
        fn begin(&mut self, op: Op) -> Job {
            self.jobs += 1;
            self.world.begin(&self.host, Job(self.jobs), op, self.now_ms);
            Job(self.jobs)
        }

        fn end(&mut self, job: Job) -> OpResult {
            loop {
                if let Some(result) = self.ended.remove(&job) {
                    return result;
                }
                let next_ms = self.world.next_ms().expect("an operation ends some time");
                self.step(next_ms);
            }
        }

        fn pass(&mut self) {
            self.step(self.now_ms + 100);
        }

        fn unix_ms(&self) -> u64 {
            self.now_ms
        }
    }

    #[test]
    fn the_model_keeps_the_contract() {
        let host: HostId = "h1".parse().expect("good");
        let mut world = World::new(Costs::default());
        world.add_host(host.clone(), 1024);
        let spec = VmSpec {
            name: "contract".parse().expect("good"),
            memory_mib: 96,
            vcpus: 1,
            boot: Boot::Kernel { kernel: "a".repeat(64), initrd: None, cmdline: String::new() },
            disks: Vec::new(),
            vifs: Vec::new(),
        };
        let given = Given {
            guest: Guest { spec, disks: Vec::new(), epoch: Epoch(1), received: None, held: None, r#move: None },
            host: host.clone(),
            address: Ipv4Addr::new(10, 77, 0, 60),
            port: 7444,
            forbidden: nobodys_disk((Ipv4Addr::new(10, 77, 0, 1), 3260).into()),
        };
        let mut model = Model { world, host, now_ms: 0, jobs: 0, ended: BTreeMap::new() };
        for (says, clause) in CLAUSES {
            clause(&mut model, &given).unwrap_or_else(|why| panic!("{says}: {why}"));
        }
    }
}
