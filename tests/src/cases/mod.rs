//! The cases of the virtual rack, in the order in which a rack grows.

mod away;
mod contract;
mod crash;
mod fault;
mod fence;
mod ha;
mod join;
mod life;
mod moves;
mod power;
mod release;
mod restore;
mod secure;
mod store;

use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::rack::{Guest, VirtualRack, refusal};
use anyhow::{Context, Result};
use proto::api::Refusal;
use proto::{HostId, VmId};
use std::path::PathBuf;
use std::process::Command;

/// One case.
pub struct Case {
    /// What it shows, as a sentence in one word.
    pub name: &'static str,
    /// Tries it.
    pub run: fn(&mut Trial) -> Result<()>,
}

/// All cases.
pub const CASES: &[Case] = &[
    Case { name: "a_bios_host_boots_and_waits", run: join::bios_host_boots_and_waits },
    Case { name: "a_host_that_is_not_accepted_gets_nothing", run: join::not_accepted_gets_nothing },
    Case { name: "xen_keeps_the_contract_that_its_model_keeps", run: contract::xen_keeps_it },
    Case { name: "an_accepted_host_becomes_active", run: join::accepted_becomes_active },
    Case { name: "a_second_copy_of_a_used_join_is_refused", run: join::second_copy_is_refused },
    Case { name: "a_release_rolls_out_and_a_broken_one_rolls_back", run: release::rolls_out_and_back },
    Case { name: "vms_are_created_and_answer", run: life::vms_answer },
    Case { name: "a_vm_is_paused_shut_down_and_started", run: life::pause_shutdown_start },
    Case { name: "a_vm_that_starts_itself_anew_runs_on", run: life::starts_itself_anew },
    Case { name: "a_guest_boots_its_own_disk", run: life::own_disk },
    Case { name: "the_command_shows_what_the_api_says", run: life::command_agrees },
    Case { name: "a_uefi_host_boots_by_its_own_pxe", run: join::uefi_host_boots },
    Case { name: "a_vm_moves_by_itself_onto_a_new_host", run: moves::moves_by_itself },
    Case { name: "the_page_accepts_makes_and_migrates", run: life::page },
    Case { name: "a_move_there_and_back_loses_no_write", run: moves::there_and_back },
    Case { name: "server_and_agents_die_amid_a_move", run: crash::telling_points },
    Case { name: "a_host_whose_certificate_has_ended_joins_anew", run: crash::certificate_ends },
    Case { name: "no_write_was_lost_or_doubled", run: life::disks_are_whole_before_failures },
    Case { name: "a_bmc_switches_a_machine_on_and_off", run: power::bmc_switches },
    Case { name: "a_host_dies_and_its_vm_runs_elsewhere", run: ha::host_dies },
    Case { name: "an_agent_stands_still_and_xen_resets_its_host", run: ha::agent_stands_still },
    Case { name: "a_host_is_cut_off_and_holds_its_guests", run: ha::host_is_cut_off },
    Case { name: "a_writer_that_heeds_no_lease_is_cut_off", run: fence::heedless_writer },
    Case { name: "the_storages_server_ends_and_is_started_anew", run: fault::storage_ends },
    Case { name: "the_heartbeat_disk_is_lost_and_made_anew", run: fault::heartbeats_are_lost },
    Case { name: "a_host_loses_its_way_to_the_storage", run: fault::storage_path_is_cut },
    Case { name: "the_appliance_is_away_with_its_storage", run: fault::appliance_is_away },
    Case { name: "no_write_was_lost_or_doubled_by_failures", run: life::disks_are_whole },
    Case { name: "secure_boot_refuses_what_is_altered", run: secure::refuses_what_is_altered },
    Case {
        name: "secure_boot_takes_what_is_signed_and_goes_on_after_a_cut",
        run: secure::takes_what_is_signed_and_goes_on_after_a_cut,
    },
    // The last to boot anything: after a restore no machine gets an address that it did not have, until every lease has ended.
    Case { name: "a_backup_older_than_a_move_takes_over_the_rack", run: restore::old_backup_takes_over },
    Case { name: "no_write_was_lost_or_doubled_by_a_restore", run: life::disks_are_whole },
];

/// Cases that take long and are run when asked for: `make trial-faults`.
pub const TRIALS: &[Case] = &[
    Case { name: "every_crash_point_of_a_move", run: crash::every_point },
    Case { name: "the_stores_disk_is_full", run: store::disk_is_full },
    Case { name: "a_page_of_the_store_is_flipped", run: store::page_is_flipped },
    Case { name: "no_write_was_lost_or_doubled_by_crashes", run: life::disks_are_whole },
];

/// Cases that wait for an hour and more: `make trial-hour`.
pub const HOUR: &[Case] = &[
    Case { name: "an_hour_without_the_server", run: away::hour_without_server },
    Case { name: "the_appliance_is_away_with_its_storage", run: fault::appliance_is_away },
    Case { name: "no_write_was_lost_or_doubled_meanwhile", run: life::disks_are_whole },
];

/// What the cases share.
pub struct Trial {
    /// The rack.
    pub rack: VirtualRack,
    /// Who writes to the disks.
    pub oracle: Oracle,
    with: With,
    guests: Vec<Guest>,
    /// Fences that were printed.
    fences_said: usize,
}

/// Files that cases need beside the rack's own parts.
#[derive(Debug, Clone)]
pub struct With {
    /// The operators' command.
    pub tsubame: PathBuf,
    /// `hypervisor-contract`, static.
    pub contract: PathBuf,
    /// Directory of the dom0 release.
    pub release: PathBuf,
    /// Directory of the keys that it is signed by, with firmware's variables that hold them.
    pub keys: PathBuf,
    /// Directory of the test guest.
    pub guest: PathBuf,
    /// The page's sources with their test.
    pub web: PathBuf,
    /// Where logs go when a case fails.
    pub keep: PathBuf,
}

impl Trial {
    /// A rack to try things on.
    pub fn new(rack: VirtualRack, with: With) -> Result<Self> {
        let oracle = Oracle::start(&rack.network, &rack.appliance.state().join("disks"))?;
        Ok(Self { rack, oracle, with, guests: Vec::new(), fences_said: 0 })
    }

    /// What the storage's side has seen of all cases so far, judged.
    pub fn judge(&mut self) -> Result<()> {
        // A stranger may not read the log; and there is nothing in it yet.
        if self.rack.operator.token().is_none() {
            return Ok(());
        }
        let verdict = self.oracle.judge(&self.rack.operator).context("the storage's side of it")?;
        let writes: Vec<String> = verdict.writes.iter().map(|(host, writes)| format!("{writes} of {host}")).collect();
        println!(
            "        writes on the wire: {}; another host went on {} times",
            writes.join(", "),
            verdict.hand_overs
        );
        for (host, before, after) in &verdict.fences[self.fences_said..] {
            println!("        {host} was fenced: {before} writes landed before, {after} after");
        }
        self.fences_said = verdict.fences.len();
        Ok(())
    }

    /// The operators' command, logged in.
    fn tsubame(&mut self) -> Result<Command> {
        let ca = self.rack.dir().join("ca.pem");
        std::fs::write(&ca, self.rack.appliance.ca_pem(&self.rack.guard)?)?;
        let token = self.rack.operator.token().context("the operator is logged in")?;
        let mut command = Command::new(&self.with.tsubame);
        command
            .env("TSUBAME_URL", format!("https://{}", self.rack.page))
            .env("TSUBAME_TOKEN", token)
            .env("TSUBAME_CA", ca);
        Ok(command)
    }

    fn guest(&self, at: usize) -> Result<Guest> {
        self.guests.get(at).cloned().context("there is no such guest yet")
    }

    fn owner(&self, vm: &VmId) -> Result<HostId> {
        self.rack.operator.vm(vm)?.owner.with_context(|| format!("{vm} has no owner"))
    }

    fn host_other_than(&self, host: &HostId) -> Result<HostId> {
        let hosts = self.rack.operator.rack()?.hosts;
        let other = hosts.into_iter().find(|h| h.id != *host && h.state == proto::view::HostState::Active);
        Ok(other.context("there is no other active host")?.id)
    }

    /// Does what an operator asks for, once no move of the planner's is in its way.
    fn ask<T>(&self, what: &str, mut request: impl FnMut() -> Result<T>) -> Result<T> {
        self.rack.guard.wait(what, || match request() {
            Ok(done) => Ok(Some(done)),
            Err(err) => match refusal(&err) {
                Some(Refusal::MoveUnderWay { .. }) => Ok(None),
                _ => Err(err),
            },
        })
    }

    /// On how many hosts Xen itself says that a VM's domain is there and not paused, dying or shut down, under its own name.
    fn runs_on(&self, vm: &VmId) -> Result<Vec<HostId>> {
        let mut found = Vec::new();
        for host in self.rack.operator.rack()?.hosts {
            // One without power runs nothing.
            let Ok(machine) = self.rack.machine_of(&host.id) else { continue };
            for (name, state) in self.domains(machine)? {
                if name.starts_with(vm.as_str()) && runs(&state) {
                    found.push(host.id.clone());
                }
            }
        }
        Ok(found)
    }

    /// A host's domains as xl shows them: name and state of each. The kernel writes on the same console, so a list is asked for until it is whole.
    fn domains(&self, machine: &Machine) -> Result<Vec<(String, String)>> {
        self.rack.guard.wait("a whole list of domains", || {
            Ok(domains(&machine.shell("xl list | sed -n 'p;$='", &self.rack.guard)?))
        })
    }
}

/// Whether a domain runs by xl's state: running, blocked, paused, shut down, crashed, dying; none of them is a runnable one.
fn runs(state: &str) -> bool {
    !state.contains(['p', 's', 'c', 'd'])
}

/// Name and state of each domain in xl's list, behind which is the number of its lines; none if a line is missing or torn.
fn domains(said: &str) -> Option<Vec<(String, String)>> {
    let mut lines: Vec<&str> = said.lines().collect();
    let count: usize = lines.pop()?.trim().parse().ok()?;
    let rows: Vec<[&str; 6]> =
        lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().try_into().ok()).collect::<Option<_>>()?;
    let (header, rows) = rows.split_first()?;
    let whole = lines.len() == count && header[0] == "Name" && rows.iter().any(|row| row[1] == "0");
    whole.then(|| rows.iter().map(|[name, _, _, _, state, _]| (str::to_owned(name), str::to_owned(state))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_domains_counts_when_it_is_whole() {
        let header = "Name                                        ID   Mem VCPUs\tState\tTime(s)";
        let dom0 = "Domain-0                                     0   512     1     r-----      42.9";
        let guest = "vm-1                                         1    96     1     --p---      16.7";
        let states = |lines: &[&str]| domains(&lines.join("\n"));
        let (zero, one) = (("Domain-0".into(), "r-----".into()), ("vm-1".into(), "--p---".into()));
        assert_eq!(states(&[header, dom0, guest, "3"]), Some(vec![zero, one]));
        assert_eq!(states(&[header, dom0, "3"]), None, "a row is missing");
        assert_eq!(states(&[header, dom0, guest]), None, "its end is missing");
        assert_eq!(states(&[header, guest, "2"]), None, "dom0 is missing");
        assert_eq!(states(&[dom0, guest, "2"]), None, "the header is missing");
        assert_eq!(states(&[header, dom0, "vm-1     1    96  [   88.5] xenbr0: port 2(vif1.0)", "3"]), None, "torn");
        assert_eq!(states(&[header, dom0, "vm-1     1    96", "3"]), None, "torn");
        assert_eq!(states(&[""]), None);
    }
}
