//! What the model of hosts promises, tried on Xen.

use super::Trial;
use crate::network::{SERVER, inside};
use crate::process::run;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

/// On a host that waits to be let in: its agent looks after no guests yet.
pub(super) fn xen_keeps_it(trial: &mut Trial) -> Result<()> {
    let program = fs::read(&trial.with.contract).with_context(|| trial.with.contract.display().to_string())?;
    let from = serve(trial, program)?;
    let files = [trial.with.guest.join("vmlinuz"), trial.with.guest.join("initrd")];
    let [kernel, initrd] = [sha256(&files[0])?, sha256(&files[1])?];
    // As a killed iscsiadm leaves them; the next one would wait 30 s for them and give up.
    let locked = "/run/lock/iscsi/lock.write";
    trial.rack.machine(1)?.shell(&format!("mkdir -p /run/lock/iscsi; touch {locked}"), &trial.rack.guard)?;
    let line = format!(
        "wget -q -O /contract http://{from}/ && chmod +x /contract && /contract {kernel} {initrd} 2>&1; echo ended $?; rm /contract"
    );
    let said = trial.rack.machine(1)?.shell(&line, &trial.rack.guard)?;
    said.lines().for_each(|line| println!("        {line}"));
    ensure!(said.ends_with("ended 0") && said.contains(" 0 are broken"), "the program that tries it said:\n{said}");
    let held = trial.rack.machine(1)?.shell(&format!("ls {locked}"), &trial.rack.guard)?;
    ensure!(held.contains("No such file"), "iscsiadm's records are still locked: {held}");
    trial.rack.guard.wait("dom0 alone to be left", || {
        let domains = trial.rack.machine(1)?.shell("xl list | tail -n +2 | wc -l", &trial.rack.guard)?;
        Ok((domains == "1").then_some(()))
    })
}

/// Serves one file to whoever comes first, by HTTP, within the rack's network.
fn serve(trial: &Trial, file: Vec<u8>) -> Result<SocketAddr> {
    let listener = inside(trial.rack.network.handle(), || {
        TcpListener::bind((SERVER, 0)).context("listening in the rack's network")
    })?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        // Whatever the request is: it fits into one read, and there is one answer.
        let _ = stream.read(&mut [0; 4096])?;
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", file.len())?;
        stream.write_all(&file)
    });
    Ok(address)
}

fn sha256(path: &Path) -> Result<String> {
    let said = run(Command::new("sha256sum").arg(path))?;
    Ok(said.split_whitespace().next().context("sha256sum says a digest")?.to_owned())
}
