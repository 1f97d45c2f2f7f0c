//! `virtual-rack`: what `make run` starts. A whole rack on this machine: the boot server, a bare host that boots and joins, VMs
//! on it, and more bare hosts onto which the VMs move by themselves. Stays until Ctrl-C.
//!
//! Exit codes: 0 ended by Ctrl-C, all taken away; 1 it could not go on, the last lines say why.

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use proto::view::{HostState, VmPhase};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tests::appliance::{Choices, Parts};
use tests::guard::{heed_interrupts, interrupted};
use tests::machine::Firmware;
use tests::rack::{Guest, VirtualRack, hardware};
use tests::registry::Purpose;
use tests::story::Story;

#[derive(Parser)]
#[command(about = "A whole rack on this machine, in emulation", version)]
struct Args {
    /// The boot server's program.
    #[arg(long)]
    bootserver: PathBuf,
    /// Directory of the dom0 release.
    #[arg(long)]
    release: PathBuf,
    /// Directory of the test guest.
    #[arg(long)]
    guest: PathBuf,
    /// Directory of boot loaders.
    #[arg(long)]
    loaders: PathBuf,
    /// How many hosts.
    #[arg(long, env = "HOSTS", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    hosts: u8,
    /// What they start by; mixed takes turns.
    #[arg(long, env = "FIRMWARE", value_enum, default_value_t = Mix::Bios)]
    firmware: Mix,
    /// How many VMs.
    #[arg(long, env = "VMS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=16))]
    vms: u8,
    /// The page's port on loopback.
    #[arg(long, env = "PORT", default_value_t = 8443)]
    port: u16,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mix {
    Bios,
    Uefi,
    Mixed,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupted() => {
            println!("\nall is taken away again");
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("virtual-rack: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root: it makes a network namespace; `make run` uses sudo");
    heed_interrupts()?;
    let mut story = Story::default();
    let parts = Parts {
        bootserver: args.bootserver.clone(),
        release: args.release.clone(),
        guest: args.guest.clone(),
        loaders: args.loaders.clone(),
    };
    let choices = Choices { join: "all", balance_ms: 60_000, migration_rate_mbit: 0 };
    let mut rack = VirtualRack::start(Purpose::Run, &parts, &choices, args.port)?;
    rack.set_up()?;
    story.say(&format!("the boot server serves; logs are in {}", rack.dir().display()));
    let guests = (1..=args.vms).map(Guest::number).collect::<Result<Vec<_>>>()?;
    for guest in &guests {
        rack.create_guest(guest)?;
    }
    // From here on a person may choose a password of his own, which ends this program's session: nothing needs it any more.
    let code = rack.appliance.setup_code(true)?;
    println!("\n  page         https://{}\n  set-up code  {code}\n", rack.page);

    for number in 1..=args.hosts {
        let firmware = match args.firmware {
            Mix::Bios => Firmware::Bios,
            Mix::Uefi => Firmware::Uefi,
            Mix::Mixed => [Firmware::Uefi, Firmware::Bios][usize::from(number % 2)],
        };
        let host = rack.power_on(&hardware(number, firmware))?;
        story.say(&format!("{host}  is switched on, {firmware:?}, nothing on its disk: it has none"));
        let mut watching = true;
        rack.guard.wait(&format!("host {host} to be active and the VMs to run"), || {
            let Ok(view) = rack.operator.rack() else {
                watching = false;
                return Ok(Some(()));
            };
            story.see(&view);
            let active = view.hosts.iter().any(|h| h.id == host && h.state == HostState::Active);
            let run = view.vms.iter().all(|vm| vm.phase == VmPhase::Running);
            Ok((active && run).then_some(()))
        })?;
        if !watching {
            story.say("an operator has taken over: what happens now is on the page");
        }
    }
    if let Ok(view) = rack.operator.rack() {
        for guest in &guests {
            let owner = view.vms.iter().find(|vm| vm.spec.name == guest.name).and_then(|vm| vm.owner.clone());
            let owner = owner.map_or("nowhere".to_owned(), |owner| owner.to_string());
            let counted = rack.counted(guest).map_or("no answer yet".to_owned(), |n| format!("has counted to {n}"));
            story.say(&format!("{} at {} on {owner} {counted}", guest.name, guest.address));
        }
    }
    story.say("up; Ctrl-C takes everything away");
    while !interrupted() {
        rack.appliance.check()?;
        if let Ok(view) = rack.operator.rack() {
            story.see(&view);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("\ntaking everything away");
    Ok(())
}
