//! Management controllers of test machines: Debian's `ipmi_sim` and PyPI's `sushy-emulator`, both real servers of their protocol.
//!
//! Owns: their configuration and processes. Never does: know what they switch: for power and boot order each asks a program,
//! `PROGRAM NAME get power` (prints `power:0` or `power:1`), `PROGRAM NAME set power 0|1`, `PROGRAM NAME set boot pxe`
//! (ipmi_lan(5), chassis_control; tests/bmc/sushy_rack.py).

use crate::guard::Guard;
use crate::process::{Process, in_namespace};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The account that each has.
pub const USER: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "s3cret";
/// The password as sushy-emulator keeps it: bcrypt.
const PASSWORD_BCRYPT: &str = "$2b$04$DtZXSbtwLYzXyAAe73jjP.IRvWg7L/jkwGSYX8kr16tegpYBp/y.q";

/// Without one ipmi_sim 2.0.33 says that it knows IPMI 1.5 only.
const GUID: &str = "a123456789abcdefa123456789abcdef";

/// A controller that runs. Ended when dropped.
#[derive(Debug)]
pub struct Bmc {
    child: Child,
    process: Process,
    /// Where it is asked.
    pub address: SocketAddr,
}

impl Bmc {
    /// An IPMI controller on a UDP address. `dir` gets its files; `namespace` is where it is to be, when not here.
    pub fn ipmi(
        dir: &Path,
        address: SocketAddr,
        control: &Path,
        namespace: Option<&File>,
        guard: &Guard,
    ) -> Result<Self> {
        let state = dir.join("ipmi");
        fs::create_dir_all(&state)?;
        let (ip, port, control) = (address.ip(), address.port(), control.display());
        let lan = dir.join("lan.conf");
        let auths =
            ["callback", "user", "operator", "admin"].map(|who| format!("  allowed_auths_{who} md5\n")).concat();
        fs::write(
            &lan,
            format!(
                "name \"tsubame\"\nset_working_mc 0x20\nstartlan 1\n  addr {ip} {port}\n  priv_limit admin\n{auths}  guid {GUID}\nendlan\n\
                 chassis_control \"{control} machine\"\nuser 2 true \"{USER}\" \"{PASSWORD}\" operator 10\n"
            ),
        )?;
        let commands = dir.join("ipmi.emu");
        fs::write(
            &commands,
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
        )?;
        let mut command = Command::new("ipmi_sim");
        command.arg("-n").arg("-c").arg(&lan).arg("-f").arg(&commands).arg("-s").arg(&state);
        Self::start(command, &dir.join("ipmi.log"), address, "udp", namespace, guard)
    }

    /// A Redfish controller on a TCP address, by HTTPS, with the named systems. `certificate` is its key and certificate, PEM.
    pub fn redfish(
        dir: &Path,
        address: SocketAddr,
        control: &Path,
        systems: &[&str],
        certificate: &str,
        namespace: Option<&File>,
        guard: &Guard,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (pem, accounts, config) = (dir.join("redfish.pem"), dir.join("accounts"), dir.join("redfish.conf"));
        fs::write(&pem, certificate)?;
        fs::write(&accounts, format!("{USER}:{PASSWORD_BCRYPT}\n"))?;
        let systems: Vec<String> = systems
            .iter()
            .map(|name| format!("{{'uuid': '{name}', 'name': '{name}', 'power_state': 'Off', 'nics': []}}"))
            .collect();
        fs::write(
            &config,
            format!(
                "SUSHY_EMULATOR_LISTEN_IP = '{}'\nSUSHY_EMULATOR_LISTEN_PORT = {}\nSUSHY_EMULATOR_SSL_CERT = '{pem}'\n\
                 SUSHY_EMULATOR_SSL_KEY = '{pem}'\nSUSHY_EMULATOR_AUTH_FILE = '{}'\nSUSHY_EMULATOR_STATE_DIR = '{}'\n\
                 SUSHY_EMULATOR_FAKE_SYSTEMS = [{}]\nTSUBAME_CONTROL = '{}'\n",
                address.ip(),
                address.port(),
                accounts.display(),
                dir.display(),
                systems.join(", "),
                control.display(),
                pem = pem.display(),
            ),
        )?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("../.cache/sushy/bin/python");
        let mut command = Command::new(&python);
        command.arg(root.join("bmc/sushy_rack.py")).arg(&config);
        Self::start(command, &dir.join("redfish.log"), address, "tcp", namespace, guard)
    }

    fn start(
        mut command: Command,
        log: &Path,
        address: SocketAddr,
        protocol: &str,
        namespace: Option<&File>,
        guard: &Guard,
    ) -> Result<Self> {
        let said = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        if let Some(namespace) = namespace {
            in_namespace(&mut command, namespace)?;
        }
        let child = command.spawn().with_context(|| format!("starting {command:?}; `make setup` installs it"))?;
        let process = Process::of(child.id().try_into().context("a process number is an i32")?)?;
        let mut bmc = Self { child, process, address };
        let sockets = PathBuf::from(format!("/proc/{}/net/{protocol}", process.pid));
        guard.wait(&format!("a controller to listen on {protocol} {address}"), || {
            if let Some(status) = bmc.child.try_wait()? {
                bail!("it has ended, {status}: {}", fs::read_to_string(log).unwrap_or_default());
            }
            // proc_net_tcp(5): the port in hexadecimal, and no peer.
            let listening = format!(":{:04X} 00000000:0000 ", address.port());
            Ok(fs::read_to_string(&sockets).unwrap_or_default().contains(&listening).then_some(()))
        })?;
        Ok(bmc)
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGKILL);
        if let Err(err) = self.child.wait() {
            eprintln!("waiting for a controller's end: {err}");
        }
    }
}

/// A key and a certificate that it signed itself, PEM in one text; and the certificate's sha256.
pub fn self_signed() -> Result<(String, String)> {
    use sha2::{Digest, Sha256};
    let made = rcgen::generate_simple_self_signed(vec!["bmc.example".to_owned()])?;
    let digest = Sha256::digest(made.cert.der()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem()), digest))
}
