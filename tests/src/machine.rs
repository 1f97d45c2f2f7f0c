//! A bare machine: QEMU with one network card, no disk, and nothing but its firmware to boot from.
//!
//! Owns: QEMU's process, its serial console, power. Never does: load a kernel for it, save where a benchmark asks for that.
//!
//! Xen and dom0 speak on the serial port, which is logged from the first byte. There a debug image has a shell, which is
//! how a test reaches into a host. (On a second port, handed through to dom0, interrupts get lost under Xen in emulation.)

use crate::guard::Guard;
use crate::process::{Process, in_namespace};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use proto::{HostId, Mac};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS with the network card's own ROM, which is an iPXE.
    Bios,
    /// OVMF with its own PXE client, which is none.
    Uefi,
}

/// What a machine is.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Its place: names and addresses follow from it.
    pub number: u8,
    /// How it starts.
    pub firmware: Firmware,
    /// MiB.
    pub memory_mib: u32,
    /// Boots these files at once instead of from the network: kernel (Xen), its arguments, modules with arguments.
    pub direct: Option<Direct>,
    /// UEFI's variables with keys of one's own: its firmware enforces Secure Boot by them.
    pub variables: Option<PathBuf>,
}

/// What the firmware tries first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The network.
    Network,
    /// A disk, of which there is none, and nothing else.
    Disk,
}

/// Files that QEMU loads itself.
#[derive(Debug, Clone)]
pub struct Direct {
    /// Xen's ELF.
    pub xen: PathBuf,
    /// Its arguments.
    pub xen_args: String,
    /// Kernel and image, each a file and its arguments.
    pub modules: Vec<(PathBuf, String)>,
}

/// A machine that has power. Power is cut when it is dropped.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    process: Process,
    /// Its first address.
    pub mac: Mac,
    dir: PathBuf,
}

impl Hardware {
    /// The address of its network card.
    pub fn mac(&self) -> Mac {
        Mac([0x52, 0x54, 0x00, 0x7b, 0x00, self.number])
    }

    /// What the boot server calls it.
    pub fn id(&self) -> HostId {
        HostId::of(self.mac())
    }
}

impl Machine {
    /// Switches a machine on whose tap `tapN` is plugged in. `dir` gets its logs and sockets.
    pub fn power_on(hardware: &Hardware, order: Order, namespace: &File, dir: &Path) -> Result<Self> {
        let number = hardware.number;
        let dir = dir.join(format!("machine-{number}"));
        fs::create_dir_all(&dir)?;
        let mac = hardware.mac();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot"]);
        qemu.arg("-name").arg(format!("tsubame-{number}"));
        qemu.args(accelerator());
        // With one processor for ever, QEMU 7.2's emulation leaves memory barriers out (tcg_gen_mb), and a card whose guest did not see in time how far
        // its queue was read is never told of another packet: it stands still for good. One more that could be plugged in has them put in.
        qemu.args(["-smp", "1,maxcpus=2", "-m", &hardware.memory_mib.to_string()]);
        qemu.arg("-uuid").arg(format!("7b000000-0000-4000-8000-0000000000{number:02x}"));
        qemu.args(["-smbios", &format!("type=1,manufacturer=Tsubame,product=Virtual,serial=V{number:03}")]);
        let (socket, log) = (dir.join("console.sock"), dir.join("console.log"));
        let chardev = format!(
            "socket,id=console,path={},server=on,wait=off,logfile={},logappend=on",
            socket.display(),
            log.display()
        );
        qemu.args(["-chardev", &chardev, "-serial", "chardev:console"]);
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", dir.join("qmp.sock").display()));
        qemu.args(["-netdev", &format!("tap,id=net,ifname=tap{number},script=no,downscript=no")]);
        qemu.args(["-device", "virtio-rng-pci"]);
        let card = format!("virtio-net-pci,netdev=net,mac={mac}");
        match &hardware.direct {
            Some(direct) => {
                qemu.args(["-device", &format!("{card},romfile=")]);
                qemu.arg("-kernel").arg(&direct.xen).args(["-append", &direct.xen_args]);
                // QEMU's own form of multiboot modules; a comma in it is written twice.
                let plain = |text: &str| text.replace(',', ",,");
                let modules: Vec<String> = direct
                    .modules
                    .iter()
                    .map(|(file, args)| plain(format!("{} {args}", file.display()).trim_end()))
                    .collect();
                qemu.arg("-initrd").arg(modules.join(","));
            }
            None if order == Order::Disk => {
                // Without graphics SeaBIOS says on the serial port what it finds.
                qemu.args(["-device", &format!("{card},romfile="), "-boot", "order=c", "-machine", "graphics=off"]);
            }
            None if hardware.firmware == Firmware::Bios => {
                qemu.args(["-device", &format!("{card},bootindex=1"), "-boot", "order=n"]);
            }
            // Without the card's ROM it is the firmware's own client that boots from the network.
            None => {
                qemu.args(["-device", &format!("{card},romfile=,bootindex=1")]);
            }
        }
        if hardware.firmware == Firmware::Uefi && hardware.direct.is_none() {
            let variables = dir.join("variables.fd");
            let (code, from) = match &hardware.variables {
                None => ("OVMF_CODE_4M.fd", Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd")),
                // Variables are protected by system management mode, which this chipset has.
                Some(own) => {
                    qemu.args(["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]);
                    // For S3 this firmware reserves memory where Linux 6.1 as dom0 wants its kernel ("conflicts with E820 map").
                    qemu.args(["-global", "ICH9-LPC.disable_s3=1"]);
                    ("OVMF_CODE_4M.secboot.fd", own.as_path())
                }
            };
            if !variables.exists() {
                fs::copy(from, &variables)
                    .with_context(|| format!("copying firmware's variables, {}", from.display()))?;
            }
            qemu.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/{code}")]);
            qemu.arg("-drive").arg(format!("if=pflash,format=raw,file={}", variables.display()));
        }
        let said = File::create(dir.join("qemu.log"))?;
        qemu.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        in_namespace(&mut qemu, namespace)?;
        let child = qemu.spawn().context("starting qemu-system-x86_64; `make setup` installs it")?;
        let process = Process::of(child.id().try_into().context("a process number is an i32")?)?;
        Ok(Self { child, process, mac, dir })
    }

    /// What the boot server calls it.
    pub fn id(&self) -> HostId {
        HostId::of(self.mac)
    }

    /// What it has said on its console so far.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.console_log()).unwrap_or_default()).into_owned()
    }

    /// How many bytes that is.
    pub fn console_bytes(&self) -> usize {
        fs::metadata(self.console_log()).map_or(0, |meta| meta.len() as usize)
    }

    /// Whether it has said this after the first so many bytes.
    pub fn has_said_since(&self, bytes: usize, text: &str) -> bool {
        // Not as text: there what is no UTF-8 has another length.
        let said = fs::read(self.console_log()).unwrap_or_default();
        said.get(bytes..).is_some_and(|new| new.windows(text.len()).any(|part| part == text.as_bytes()))
    }

    /// Where that is kept.
    pub fn console_log(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Whether it has power.
    pub fn runs(&self) -> bool {
        self.process.lives()
    }

    /// Runs a line in the shell that a debug image has on its console, and returns what it printed. The line is run once:
    /// should the shell not be there yet, it is waited for.
    pub fn shell(&self, line: &str, guard: &Guard) -> Result<String> {
        let path = self.dir.join("console.sock");
        let mut stream = UnixStream::connect(&path).with_context(|| format!("connecting to {}", path.display()))?;
        stream.set_read_timeout(Some(ECHO))?;
        // Marks that the echo of what is typed does not show, new for each line. Each line of what it prints has one: the kernel and the
        // agent write on the same console in between.
        static LINES: AtomicU32 = AtomicU32::new(0);
        let word = format!("{}-{}", std::process::id(), LINES.fetch_add(1, Ordering::Relaxed));
        let (mark, end) = (format!("out-{word}:"), format!("end-{word}"));
        let typed = format!("\n{{ {line}; }} 2>&1 | sed \"s/^/ou\"\"t-{word}:/\"; echo e''nd-{word}\n");
        let mut heard = Vec::new();
        for part in typed.as_bytes().chunks(TYPED_BYTES) {
            stream.write_all(part)?;
            hear_out(&mut stream, &mut heard)?;
        }
        guard.wait(&format!("`{line}` in the shell of machine {}", self.mac), || {
            hear_out(&mut stream, &mut heard)?;
            let text = String::from_utf8_lossy(&heard);
            let Some((said, _)) = text.split_once(&end) else { return Ok(None) };
            let said = said.replace('\r', "");
            let lines: Vec<&str> = said.lines().filter_map(|l| Some(l.split_once(&mark)?.1)).collect();
            Ok(Some(lines.join("\n").trim().to_owned()))
        })
    }

    /// Asks QEMU for something: one QMP command.
    pub fn qmp(&self, command: &str, arguments: &Value) -> Result<Value> {
        let stream = UnixStream::connect(self.dir.join("qmp.sock")).context("connecting to QEMU's monitor")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (mut to, from) = (stream.try_clone()?, BufReader::new(stream));
        writeln!(to, "{}", json!({"execute": "qmp_capabilities", "id": 0}))?;
        writeln!(to, "{}", json!({"execute": command, "arguments": arguments, "id": 1}))?;
        for line in from.lines() {
            let answer: Value = serde_json::from_str(&line?)?;
            if answer["id"] == 1 {
                return match answer.get("return") {
                    Some(value) => Ok(value.clone()),
                    None => bail!("QEMU refused {command}: {}", answer["error"]),
                };
            }
        }
        bail!("QEMU closed its monitor")
    }

    /// Cuts the power.
    pub fn cut_power(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL);
        self.child.wait().context("waiting for QEMU's end").map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(err) = self.cut_power() {
            eprintln!("virtual rack: {err:#}");
        }
    }
}

/// So much is typed at once: Xen keeps 128 bytes of what comes in by its serial port (xen/drivers/char/console.c, SERIAL_RX_SIZE) and
/// drops the rest without a word.
const TYPED_BYTES: usize = 32;
/// A console silent for so long has shown what was typed.
const ECHO: Duration = Duration::from_millis(50);

/// Reads until the console is silent, or has said a good deal.
fn hear_out(stream: &mut UnixStream, heard: &mut Vec<u8>) -> Result<()> {
    let mut chunk = [0; 4096];
    for _ in 0..64 {
        match stream.read(&mut chunk) {
            Ok(0) => bail!("QEMU has closed the console"),
            Ok(n) => heard.extend_from_slice(&chunk[..n]),
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

/// Software emulation, unless TSUBAME_ACCEL says kvm: /dev/kvm may open and yet be unable to run Xen.
pub fn accelerator() -> Vec<String> {
    let chosen = std::env::var("TSUBAME_ACCEL").unwrap_or_default();
    let args: &[&str] = match chosen.as_str() {
        "kvm" => &["-accel", "kvm", "-cpu", "host"],
        _ => &["-accel", "tcg,thread=multi", "-cpu", "qemu64,+npt"],
    };
    args.iter().map(|&arg| arg.to_owned()).collect()
}
