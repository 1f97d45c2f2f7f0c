//! VMs: their life as an operator commands it.
//!
//! Owns: the VM's record and the commands that change it; `step` does what the record says, `survey` compares it with what
//! hosts show. Never does: move a VM (that is `moves`) or choose its place (`balance`).
//!
//! ```text
//! Creating --disks ready--> Stopped <--survey: gone, disks cut-- Stopping <--shutdown, destroy, crash--+
//!                            |   ^                                                                     |
//!                      start |   +--- owner booted anew, survey: gone --- Unknown                      |
//!                            v                                             ^                           |
//!                        Starting --outcome--> Running <--> Paused --------+---------------------------+
//!                                              Running <--> Moving
//! Stopped, Failed --delete--> Deleting --disks gone--> (none)
//! ```
//! A VM whose host is lost is shown as Unknown; its record stays as it was, because the host may come back with it.
//! `run` says whether it is to run: if so, Stopped is not the end.

mod step;
mod survey;
#[cfg(test)]
mod tests;
pub(crate) use step::PLACEMENTS_PER_TICK;
pub(crate) use survey::{HISTORY_MAX, SAMPLE_MS};

use crate::Rack;
use crate::disk::check_size;
use crate::effect::CloneSource;
use crate::event::Now;
use crate::orders::Purpose;
use crate::policy::Template;
use crate::record::{VmDoing, VmRecord};
use proto::api::{Accepted, CreateVm, Refusal};
use proto::event::{LogEvent, Topic};
use proto::view::VmPhase;
use proto::vm::{Boot, Restart, Vif, VmSpec};
use proto::{DiskId, Epoch, HostId, Mac, VmId};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, VecDeque};

/// The most memory of a VM, MiB: 16 TiB.
const MEMORY_MIB_MAX: u64 = 16 << 20;
/// The longest kernel command line, bytes.
const CMDLINE_BYTES_MAX: usize = 2048;
/// The longest wait of a VM whose host has failed, seconds.
const RESTART_DELAY_S_MAX: u32 = 3600;

/// What is known of a VM and not kept.
#[derive(Default)]
pub(crate) struct Guest {
    /// What its owner shows in place of a running guest, since when, and in how many reports in a row.
    odd: Option<survey::Odd>,
    /// Its processor use, cores, oldest first, and when the newest was noted.
    pub(crate) history: VecDeque<f32>,
    sampled_mono_ms: Option<u64>,
    /// When it may be started again.
    again_mono_ms: Option<u64>,
    /// The round of placements in which none was found for it.
    no_place_in: Option<u64>,
    /// Starts that ended before long, in a row.
    attempts: u32,
    /// Since when it has run.
    running_mono_ms: Option<u64>,
    /// Hosts on which its start has failed since it ran last, or that could not clear away what a move left: they come after all others.
    pub(crate) failed_on: BTreeSet<HostId>,
    /// A move has lost it, and no host: it is started again at once.
    pub(crate) lost_in_move: bool,
}

impl Rack {
    pub(crate) fn touch_vm(&mut self, vm: &VmId) {
        self.touched_vms.insert(vm.clone());
        self.touched_moves.extend(self.vms.get(vm).and_then(|record| record.r#move));
    }

    /// VMs that may run on a host by the records.
    pub(crate) fn vms_of(&self, host: &HostId) -> Vec<VmId> {
        self.owned.get(host).map(|vms| vms.iter().cloned().collect()).unwrap_or_default()
    }

    /// Changes a VM's owner and epoch in one record.
    pub(crate) fn set_owner(&mut self, vm: &VmId, owner: &HostId, epoch: Epoch) {
        let Some(record) = self.vms.edit(vm) else { return };
        record.epoch = epoch;
        if let Some(before) = record.owner.replace(owner.clone())
            && let Some(vms) = self.owned.get_mut(&before)
        {
            vms.remove(vm);
        }
        self.owned.entry(owner.clone()).or_default().insert(vm.clone());
    }

    pub(crate) fn phase_is(&self, vm: &VmId, phase: VmPhase) -> bool {
        self.vms.get(vm).is_some_and(|record| record.phase == phase)
    }

    /// Puts a VM into another phase.
    pub(crate) fn set_phase(&mut self, vm: &VmId, phase: VmPhase, now: Now) {
        if self.vms.get(vm).is_none_or(|record| record.phase == phase) {
            return;
        }
        if let Some(record) = self.vms.edit(vm) {
            record.phase = phase;
            record.since_ms = now.unix_ms;
            if matches!(phase, VmPhase::Starting | VmPhase::Running) {
                record.crashed_on = None;
            }
        }
        let guest = self.guests.entry(vm.clone()).or_default();
        guest.odd = None;
        guest.lost_in_move = false;
        guest.running_mono_ms = match phase {
            VmPhase::Running => Some(guest.running_mono_ms.unwrap_or(now.mono_ms)),
            // It is the same guest all the while.
            VmPhase::Moving | VmPhase::Paused => guest.running_mono_ms,
            _ => None,
        };
        if phase == VmPhase::Running {
            guest.failed_on.clear();
        }
        self.touch_vm(vm);
    }

    pub(crate) fn vm_or_refuse(&self, vm: &VmId) -> Result<&VmRecord, Refusal> {
        self.vms.get(vm).ok_or_else(|| Refusal::NoVm { vm: vm.clone() })
    }

    /// The phase as an operator sees it.
    pub(crate) fn phase_shown(&self, record: &VmRecord) -> VmPhase {
        let there = matches!(
            record.phase,
            VmPhase::Starting | VmPhase::Running | VmPhase::Paused | VmPhase::Moving | VmPhase::Stopping
        );
        if there && record.owner.as_ref().is_some_and(|owner| !self.present(owner)) {
            VmPhase::Unknown
        } else {
            record.phase
        }
    }

    pub(crate) fn vm_note(&self, record: &VmRecord, now: Now) -> String {
        let kept = || record.note.clone();
        match (&record.owner, self.phase_shown(record)) {
            (Some(owner), VmPhase::Unknown) if self.awaits_power_off(owner) => {
                format!(
                    "{owner} shows no sign of life; it may still run there until that host is off, see what it waits for"
                )
            }
            (Some(owner), VmPhase::Unknown) => {
                format!("{owner} shows no sign of life; it may still run there until that host is fenced")
            }
            (_, VmPhase::Stopped) if record.run => self.why_held_back(record, now).unwrap_or_else(kept),
            // Its destruction has said something since.
            (_, VmPhase::Stopped) => {
                record.crashed_on.as_ref().map_or_else(kept, |host| left_crashed(&record.spec.name, host))
            }
            _ => kept(),
        }
    }

    pub(crate) fn vm_info(&mut self, vm: &VmId, now: Now, text: String) {
        self.info(Topic::Vm, now, text, |e| about_vm(e, vm));
    }

    pub(crate) fn vm_warn(&mut self, vm: &VmId, now: Now, text: String) {
        self.warn(Topic::Vm, now, text, |e| about_vm(e, vm));
    }

    /// A person must look.
    pub(crate) fn vm_failed(&mut self, vm: &VmId, note: String, now: Now) {
        self.set_phase(vm, VmPhase::Failed, now);
        if let Some(record) = self.vms.edit(vm) {
            record.note.clone_from(&note);
            record.run = false;
            record.doing = None;
            record.order = None;
        }
        self.error(Topic::Vm, now, format!("{vm} has failed: {note}"), |e| about_vm(e, vm));
    }

    pub(crate) fn create_vm(&mut self, request: CreateVm, now: Now) -> Result<Accepted, Refusal> {
        let name = request.name.clone();
        let Some(template) = self.policy.templates.get(&request.template).cloned() else {
            let known = self.policy.templates.keys().cloned().collect();
            return Err(Refusal::NoTemplate { template: request.template, known });
        };
        if self.vms.contains(&name) {
            return Err(Refusal::NameTaken { name: name.to_string() });
        }
        within_bounds(&request.restart, "restart.delay_s")?;
        let mac = self.mac_for(&name, request.mac)?;
        let (spec, disk_mib) = specify(&request, &template, mac)?;
        if self.is_external()
            && let Some(disk) = spec.disks.iter().find(|disk| !self.is_free_declared(disk))
        {
            return Err(Refusal::NoDisk { disk: disk.clone() });
        }
        if let Some(disk) = spec.disks.iter().find(|disk| !self.is_external() && self.disks.contains(disk)) {
            return Err(Refusal::NameTaken { name: disk.to_string() });
        }
        let from = template.disk_image.then(|| CloneSource::Template(request.template.clone()));
        let disks = spec.disks.clone();
        self.vms.put(VmRecord {
            spec,
            owner: None,
            epoch: self.highest_deleted_epoch().max(Epoch(self.term().0)),
            phase: VmPhase::Creating,
            r#move: None,
            doing: None,
            order: None,
            run: request.start,
            since_ms: now.unix_ms,
            note: String::new(),
            moved: None,
            restart: request.restart,
            delayed_until_ms: None,
            crashed_on: None,
        });
        self.vm_macs.insert(mac, name.clone());
        for disk in disks {
            self.make_disk(disk, disk_mib, from.clone(), Some(name.clone()), now);
        }
        self.vm_info(&name, now, format!("{name} is being made from template {}", request.template));
        self.touch_vm(&name);
        Ok(Accepted::Begun)
    }

    /// A VM's addresses are its no longer. Since a restore another may have one of them too, and has it now alone.
    pub(crate) fn forget_macs(&mut self, vm: &VmId, spec: &VmSpec) {
        for vif in &spec.vifs {
            let has =
                |other: &&VmRecord| other.spec.name != *vm && other.spec.vifs.iter().any(|has| has.mac == vif.mac);
            match self.vms.values().find(has).map(|other| other.spec.name.clone()) {
                Some(other) => self.vm_macs.insert(vif.mac, other),
                None => self.vm_macs.remove(&vif.mac),
            };
        }
    }

    /// How a VM is started again. One that waits for its delay waits no longer than the new one says.
    pub(crate) fn set_restart(&mut self, vm: &VmId, restart: Restart, now: Now) -> Result<Accepted, Refusal> {
        within_bounds(&restart, "delay_s")?;
        let before = self.vm_or_refuse(vm)?.restart;
        if restart != before {
            if let Some(record) = self.vms.edit(vm) {
                record.restart = restart;
            }
            self.shorten_delay(vm, now);
            self.heed_never(vm, now);
            self.vm_info(vm, now, format!("{vm} is started again after its host has failed: {restart}"));
        }
        Ok(Accepted::Done)
    }

    /// The address asked for, or one made from the name: 02 is of the range that nobody sells (IEEE 802, locally
    /// administered).
    fn mac_for(&self, name: &VmId, asked: Option<Mac>) -> Result<Mac, Refusal> {
        let taken = |mac: &Mac| self.vm_macs.contains_key(mac) || self.hosts.contains(&HostId::of(*mac));
        if let Some(mac) = asked {
            let unfit = mac.0[0] & 1 != 0 || mac.0 == [0; 6];
            return if unfit || taken(&mac) { Err(Refusal::MacTaken { mac }) } else { Ok(mac) };
        }
        let made = |salt: u32| {
            let digest = Sha256::digest(format!("{name}\n{salt}"));
            let mut mac = [2, 0, 0, 0, 0, 0];
            mac.iter_mut().skip(1).zip(&digest).for_each(|(to, from)| *to = *from);
            Mac(mac)
        };
        (0..16).map(made).find(|mac| !taken(mac)).ok_or_else(|| Refusal::MacTaken { mac: made(0) })
    }

    pub(crate) fn start_vm(&mut self, vm: &VmId, now: Now) -> Result<Accepted, Refusal> {
        let record = self.vm_or_refuse(vm)?;
        match record.phase {
            VmPhase::Creating => {
                if let Some(record) = self.vms.edit(vm) {
                    record.run = true;
                }
                return Ok(Accepted::Begun);
            }
            VmPhase::Stopped => {}
            phase => return Err(Refusal::VmIs { vm: vm.clone(), phase }),
        }
        if let Some(r#move) = record.r#move {
            return Err(Refusal::MoveUnderWay { r#move });
        }
        let host = self.place(vm, now)?;
        if let Some(record) = self.vms.edit(vm) {
            record.run = true;
        }
        *self.guests.entry(vm.clone()).or_default() = Guest::default();
        self.begin_start(vm, &host, now);
        Ok(Accepted::Begun)
    }

    /// The host that a command about a running VM goes to.
    fn owner_to_command(&self, vm: &VmId) -> Result<HostId, Refusal> {
        let record = self.vm_or_refuse(vm)?;
        if let Some(r#move) = record.r#move {
            return Err(Refusal::MoveUnderWay { r#move });
        }
        let Some(owner) = record.owner.clone() else {
            return Err(Refusal::VmIs { vm: vm.clone(), phase: record.phase });
        };
        match self.hosts.get(&owner) {
            Some(host) if !self.present(&owner) => Err(Refusal::HostIs { state: self.host_state(host), host: owner }),
            Some(_) => Ok(owner),
            None => Err(Refusal::NoHost { host: owner }),
        }
    }

    /// Has the owner told something, in place of what it was told before.
    fn have_done(&mut self, vm: &VmId, owner: &HostId, doing: VmDoing) {
        self.take_back(owner, &Purpose::Vm(vm.clone()));
        let order = self.order_number();
        if let Some(record) = self.vms.edit(vm) {
            record.doing = Some(doing);
            record.order = Some(order);
        }
        self.touch_vm(vm);
    }

    pub(crate) fn shutdown_vm(&mut self, vm: &VmId, now: Now) -> Result<Accepted, Refusal> {
        let phase = self.vm_or_refuse(vm)?.phase;
        if phase == VmPhase::Stopped {
            return self.give_up_starting(vm, now);
        }
        let owner = self.owner_to_command(vm)?;
        if phase != VmPhase::Running || self.vm_or_refuse(vm)?.doing.is_some() {
            return Err(Refusal::VmIs { vm: vm.clone(), phase });
        }
        if let Some(record) = self.vms.edit(vm) {
            record.run = false;
        }
        self.set_phase(vm, VmPhase::Stopping, now);
        self.have_done(vm, &owner, VmDoing::Shutdown);
        self.vm_info(vm, now, format!("{vm} is asked to shut down"));
        Ok(Accepted::Begun)
    }

    /// A VM that runs nowhere is not to be started again.
    fn give_up_starting(&mut self, vm: &VmId, now: Now) -> Result<Accepted, Refusal> {
        match self.vms.edit(vm) {
            Some(record) if record.run => {
                record.run = false;
                self.vm_info(vm, now, format!("{vm} is not to be started again"));
                Ok(Accepted::Done)
            }
            _ => Err(Refusal::VmIs { vm: vm.clone(), phase: VmPhase::Stopped }),
        }
    }

    pub(crate) fn destroy_vm(&mut self, vm: &VmId, now: Now) -> Result<Accepted, Refusal> {
        let phase = self.vm_or_refuse(vm)?.phase;
        if phase == VmPhase::Stopped {
            return self.give_up_starting(vm, now);
        }
        let owner = self.owner_to_command(vm)?;
        if !matches!(phase, VmPhase::Running | VmPhase::Paused | VmPhase::Starting | VmPhase::Stopping) {
            return Err(Refusal::VmIs { vm: vm.clone(), phase });
        }
        if let Some(record) = self.vms.edit(vm) {
            record.run = false;
        }
        self.begin_destroy(vm, &owner, now);
        self.vm_info(vm, now, format!("{vm} is being destroyed"));
        Ok(Accepted::Begun)
    }

    pub(crate) fn begin_destroy(&mut self, vm: &VmId, owner: &HostId, now: Now) {
        self.set_phase(vm, VmPhase::Stopping, now);
        self.have_done(vm, owner, VmDoing::Destroy);
    }

    pub(crate) fn pause_vm(&mut self, vm: &VmId, pause: bool, now: Now) -> Result<Accepted, Refusal> {
        let record = self.vm_or_refuse(vm)?;
        let (phase, idle) = (record.phase, record.doing.is_none());
        let owner = self.owner_to_command(vm)?;
        let (from, doing) =
            if pause { (VmPhase::Running, VmDoing::Pause) } else { (VmPhase::Paused, VmDoing::Unpause) };
        if phase != from || !idle {
            return Err(Refusal::VmIs { vm: vm.clone(), phase });
        }
        self.have_done(vm, &owner, doing);
        self.vm_info(vm, now, format!("{vm} is to be {}", if pause { "paused" } else { "resumed" }));
        Ok(Accepted::Begun)
    }

    pub(crate) fn delete_vm(&mut self, vm: &VmId, now: Now) -> Result<Accepted, Refusal> {
        let record = self.vm_or_refuse(vm)?;
        let phase = record.phase;
        if let Some(r#move) = record.r#move {
            return Err(Refusal::MoveUnderWay { r#move });
        }
        let runs = record.owner.as_ref().is_some_and(|h| self.live.get(h).is_some_and(|l| l.domain(vm).is_some()));
        if !matches!(phase, VmPhase::Stopped | VmPhase::Failed) || runs {
            return Err(Refusal::VmIs { vm: vm.clone(), phase });
        }
        if let Some(record) = self.vms.edit(vm) {
            record.run = false;
        }
        self.set_phase(vm, VmPhase::Deleting, now);
        self.vm_info(vm, now, format!("{vm} is being deleted"));
        Ok(Accepted::Begun)
    }
}

fn about_vm(event: &mut LogEvent, vm: &VmId) {
    event.vm = Some(vm.clone());
}

fn left_crashed(vm: &VmId, host: &HostId) -> String {
    format!("{vm} has crashed on {host}; it is not started again by itself")
}

/// What is asked for of a restart, at a field.
fn within_bounds(restart: &Restart, field: &str) -> Result<(), Refusal> {
    if restart.delay_s > RESTART_DELAY_S_MAX {
        let (field, given) = (field.to_owned(), restart.delay_s.to_string());
        return Err(Refusal::BadValue { field, given, expected: format!("0 to {RESTART_DELAY_S_MAX}") });
    }
    Ok(())
}

/// What the VM is to be, and its disk's size.
fn specify(request: &CreateVm, template: &Template, mac: Mac) -> Result<(VmSpec, u64), Refusal> {
    let bad = |field: &str, given: String, expected: String| {
        Err(Refusal::BadValue { field: field.to_owned(), given, expected })
    };
    let memory_mib = request.memory_mib.unwrap_or(template.memory_mib);
    if !(16..=MEMORY_MIB_MAX).contains(&memory_mib) {
        return bad("memory_mib", memory_mib.to_string(), format!("16 to {MEMORY_MIB_MAX}"));
    }
    let vcpus = request.vcpus.unwrap_or(template.vcpus);
    if !(1..=64).contains(&vcpus) {
        return bad("vcpus", vcpus.to_string(), "1 to 64".to_owned());
    }
    let disk_mib = request.disk_mib.unwrap_or(template.disk_mib);
    if template.disk_image && disk_mib < template.disk_mib {
        return bad("disk_mib", disk_mib.to_string(), format!("{} or more, as the image", template.disk_mib));
    }
    let mut disks = Vec::new();
    if disk_mib > 0 {
        check_size(disk_mib)?;
        let disk: Result<DiskId, _> = format!("{}-0", request.name).parse();
        match disk {
            Ok(disk) => disks.push(disk),
            Err(_) => {
                return bad("name", request.name.to_string(), "61 characters or fewer for a VM with a disk".to_owned());
            }
        }
    }
    let mut boot = template.boot.clone();
    if !request.cmdline.is_empty() {
        let fits =
            request.cmdline.bytes().all(|b| (b' '..=b'~').contains(&b)) && request.cmdline.len() <= CMDLINE_BYTES_MAX;
        match &mut boot {
            Boot::Kernel { cmdline, .. } if fits => {
                if !cmdline.is_empty() {
                    cmdline.push(' ');
                }
                cmdline.push_str(&request.cmdline);
            }
            Boot::Kernel { .. } => {
                let expected = format!("printable ASCII, {CMDLINE_BYTES_MAX} bytes or fewer");
                return bad("cmdline", request.cmdline.chars().take(80).collect(), expected);
            }
            Boot::Disk { .. } => {
                let expected = "nothing, as this template boots its own disk".to_owned();
                return bad("cmdline", request.cmdline.chars().take(80).collect(), expected);
            }
        }
    }
    let vifs = vec![Vif { mac, bridge: template.bridge.clone() }];
    Ok((VmSpec { name: request.name.clone(), memory_mib, vcpus, boot, disks, vifs }, disk_mib))
}
