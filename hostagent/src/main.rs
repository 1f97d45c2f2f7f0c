//! `hostagent`: the agent; `hostagent carry SOCKET`: xl's transport; `hostagent beat …`: writes the heartbeat; `hostagent log`: dom0's log; as `tsubame-vif` and `tsubame-block`: libxl's hotplug scripts.

use hostagent::boot::{Boot, WORDS};
use hostagent::{carry, heartbeat, log, scripts, shell};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

const USAGE: &str = "usage: hostagent              run the agent (in dom0, started by init)
       hostagent carry SOCKET
       hostagent beat DEVICE SLOT HOST BOOT
       hostagent log            send dom0's log to the boot server (in dom0, started by init)
       hostagent --version
       tsubame-vif|tsubame-block ACTION   (a link to hostagent, run by libxl)";

fn main() -> ExitCode {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if scripts::NAMES.contains(&name.as_str()) {
        return ExitCode::from(scripts::run(&name, words.first().copied().unwrap_or_default()));
    }
    match words[..] {
        [] => agent(),
        ["--version"] => {
            println!("hostagent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["carry", socket] => match carry::run(Path::new(socket)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&format!("carry {socket}: {e}"), 1),
        },
        ["beat", device, slot, host, nonce] => match (slot.parse(), host.parse()) {
            (Ok(slot), Ok(host)) => match heartbeat::beat(device, slot, &host, nonce) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(&format!("beat {device}: {e}"), 1),
            },
            _ => fail(USAGE, 2),
        },
        ["log"] => match boot() {
            Ok(boot) => match log::relay(boot.boot) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(&format!("sending dom0's log to {}: {e}", boot.boot), 1),
            },
            Err(failed) => failed,
        },
        _ => fail(USAGE, 2),
    }
}

/// What the boot server said of this boot, as the first stage keeps it, or why it cannot be had.
fn boot() -> Result<Boot, ExitCode> {
    let words = std::fs::read_to_string(WORDS).map_err(|e| fail(&format!("reading {WORDS}: {e}"), 1))?;
    Boot::parse(&words).map_err(|e| fail(&e.to_string(), 2))
}

fn agent() -> ExitCode {
    let writer = Arc::new(log::Copied::open());
    tracing_subscriber::fmt().with_writer(writer).with_ansi(false).with_target(false).init();
    let boot = match boot() {
        Ok(boot) => boot,
        Err(failed) => return failed,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&format!("starting the runtime: {e}"), 1),
    };
    match runtime.block_on(shell::run(boot)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e.to_string(), 1),
    }
}

fn fail(why: &str, status: u8) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(status)
}
