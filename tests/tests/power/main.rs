//! The drivers of power, on real controllers: Debian's ipmi_sim and PyPI's sushy-emulator, and on what is none.
//!
//! The machine behind each is a directory: a program keeps there whether it has power, and what its next boot is.

mod ipmi;
mod redfish;

use bootserver::power::{Limits, perform};
use proto::Mac;
use proto::agent::Secret;
use proto::host::Firmware;
use proto::power::PowerState;
use rack::power::{Bmc, PowerAnswer, PowerFailure, PowerOp, PowerWhy};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tests::guard::Guard;

/// A controller here answers at once, unless its machine stalls: then it must not be told twice, as what it was told is counted.
const LIMITS: Limits = Limits {
    request: Duration::from_secs(60),
    resend: Duration::from_secs(20),
    confirm: Duration::from_millis(600),
    look_every: Duration::from_millis(200),
};

/// A machine that is a directory.
struct Machine {
    dir: TempDir,
    control: PathBuf,
    guard: Guard,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let control = dir.path().join("control");
        let d = dir.path().display();
        // `stuck` is a machine that takes no notice.
        let script = format!(
            "#!/bin/sh\ncase \"$2 $3\" in\n'get power') echo power:$(cat {d}/power);;\n\
             'set power') echo \"$4\" >>{d}/told; [ -e {d}/stuck ] || echo $4 >{d}/power;;\n'set boot') echo $4 >>{d}/boot;;\nesac\n"
        );
        fs::write(&control, script).expect("written");
        fs::set_permissions(&control, fs::Permissions::from_mode(0o755)).expect("executable");
        let guard = Guard::new(60, dir.path());
        let machine = Self { dir, control, guard };
        machine.write("power", "0");
        machine
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap_or_default().trim().to_owned()
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.dir().join(name), content).expect("written");
    }
}

fn on(network: Option<Firmware>) -> PowerOp {
    PowerOp::On { network, mac: Mac([2; 6]), broadcast: Ipv4Addr::BROADCAST }
}

fn secret(text: &str) -> Secret {
    Secret(text.to_owned())
}

/// Of nobody, until it is used.
fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port")
}

fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port")
}

/// A failure of a kind, whose text names the controller, says all of `says`, and no password.
fn check_failure(result: Result<PowerAnswer, PowerFailure>, why: PowerWhy, says: &[&str]) {
    let failure = result.expect_err("this cannot be done");
    assert_eq!(failure.why, why, "{}", failure.text);
    for part in says {
        assert!(failure.text.contains(part), "{:?} does not say {part:?}", failure.text);
    }
    for password in [tests::bmc::PASSWORD, "wr0ng"] {
        assert!(!failure.text.contains(password), "{:?} shows a password", failure.text);
    }
}

/// On from the network, which is told once and only to one that is off; off; each twice.
async fn check_switching(machine: &Machine, bmc: &Bmc) -> PowerAnswer {
    let state = |answer: Result<PowerAnswer, PowerFailure>| answer.map(|a| a.state).map_err(|f| f.text);
    assert_eq!(state(perform(bmc, PowerOp::State, LIMITS).await), Ok(PowerState::Off));
    assert_eq!(state(perform(bmc, PowerOp::Off, LIMITS).await), Ok(PowerState::Off));
    assert_eq!(machine.read("told"), "", "it was off already");
    for _ in 0..2 {
        assert_eq!(state(perform(bmc, on(Some(Firmware::Uefi)), LIMITS).await), Ok(PowerState::On));
    }
    assert_eq!((machine.read("told"), machine.read("boot")), ("1".to_owned(), "pxe".to_owned()));
    for _ in 0..2 {
        assert_eq!(state(perform(bmc, PowerOp::Off, LIMITS).await), Ok(PowerState::Off));
    }
    assert_eq!(machine.read("told"), "1\n0");
    assert_eq!(state(perform(bmc, on(None), LIMITS).await), Ok(PowerState::On));
    assert_eq!(machine.read("boot"), "pxe", "nothing was said of the network");
    perform(bmc, PowerOp::State, LIMITS).await.expect("it answers")
}

/// A machine that takes no notice is not said to be off.
async fn check_stuck(machine: &Machine, bmc: &Bmc) {
    machine.write("power", "1");
    machine.write("stuck", "");
    check_failure(perform(bmc, PowerOp::Off, LIMITS).await, PowerWhy::Unreached, &["switch off", "the machine is on"]);
}
