//! `storage-machine`: tries the contract of storages on LIO, in a QEMU machine with a kernel that has it.
//!
//! The machine has no network: initiator and target are both in it. Its one disk is the program that tries them. Exit codes: 0 every
//! clause holds, 1 not.

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;
use tests::machine::accelerator;

/// A guard against a machine that hangs, seconds; what is tried takes 40 on a machine that has nothing else to do.
const GUARD_S: u64 = 600;

#[derive(Parser)]
#[command(about = "Tries the contract of storages on LIO")]
struct Arguments {
    /// The release `storage`: kernel and initrd.
    #[arg(long)]
    release: PathBuf,
    /// The program `storage-contract`, a static binary.
    #[arg(long)]
    contract: PathBuf,
    /// Where the machine's files go.
    #[arg(long)]
    dir: PathBuf,
    /// Repeats the moments that were drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Its power is cut when it is dropped.
struct Power(Child);

impl Drop for Power {
    fn drop(&mut self) {
        // It has ended already, most often.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.dir)?;
    // A disk has whole blocks; what is behind the end of a program harms it not.
    let mut program = fs::read(&arguments.contract).with_context(|| arguments.contract.display().to_string())?;
    program.resize(program.len().next_multiple_of(512), 0);
    let disk = arguments.dir.join("program.img");
    fs::write(&disk, program)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot", "-nic", "none"]);
    qemu.args(accelerator()).args(["-smp", "2", "-m", "512", "-serial", "stdio", "-device", "virtio-rng-pci"]);
    qemu.arg("-kernel").arg(arguments.release.join("vmlinuz")).arg("-initrd").arg(arguments.release.join("initrd"));
    // The kernel says of every login that it refuses that it does; SEED is handed to init.
    qemu.arg("-append").arg(format!("console=ttyS0 loglevel=0 SEED={}", arguments.seed));
    qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,readonly=on", disk.display()));
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    tests::process::with_parent(&mut qemu);
    let child = qemu.spawn().context("starting qemu-system-x86_64; `make setup` installs it")?;
    let mut power = Power(child);
    let serial = power.0.stdout.take().context("its serial port is a pipe")?;
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(serial).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    loop {
        let line = lines.recv_timeout(Duration::from_secs(GUARD_S)).context("the machine has ended or says nothing")?;
        let line = line.trim_end();
        println!("{line}");
        match line.strip_prefix("storage: ended ") {
            Some("0") => return Ok(()),
            Some(code) => bail!("the contract is broken: exit code {code}"),
            None => {}
        }
    }
}
