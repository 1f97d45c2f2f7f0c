//! `hostagent`: the agent; `hostagent carry SOCKET`: xl's transport; as `tsubame-vif` and `tsubame-block`: libxl's hotplug scripts.

use hostagent::boot::Boot;
use hostagent::{carry, scripts, shell};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: hostagent              run the agent (in dom0, started by init)
       hostagent carry SOCKET
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
        _ => fail(USAGE, 2),
    }
}

fn agent() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
    let cmdline = match std::fs::read_to_string("/proc/cmdline") {
        Ok(text) => text,
        Err(e) => return fail(&format!("reading /proc/cmdline: {e}"), 1),
    };
    let boot = match Boot::parse(&cmdline) {
        Ok(boot) => boot,
        Err(e) => return fail(&e.to_string(), 2),
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
