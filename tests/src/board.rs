//! A machine that its management controller switches: `ipmi_sim` and `sushy-emulator` start and end its QEMU by their own protocols.
//!
//! ```text
//! tsubame host power ── bootserver ──IPMI, Redfish── controller ──runs── control NAME set power 1 ──socket── board ── QEMU on | off
//! ```
//! Owns: the machine, what it boots next, and the program that controllers run. Never does: switch it by itself.
//!
//! Its firmware boots from the network only where the controller has set that for the next boot, as a machine does whose first entry is
//! its disk: so what was set is seen to be obeyed, and seen to be forgotten after.

use crate::machine::{Hardware, Machine, Order};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What the socket's thread and the test share.
struct State {
    machine: Option<Machine>,
    network_next: bool,
    /// What controllers have said that changed something, in order.
    told: Vec<String>,
}

/// The board. Its machine loses power when it is dropped.
pub struct Board {
    state: Arc<Mutex<State>>,
    socket: PathBuf,
    /// The program that controllers run.
    pub control: PathBuf,
    serving: Option<JoinHandle<()>>,
}

impl Board {
    /// A machine without power, whose cable is plugged in. `dir` gets socket, program and what the machine writes.
    pub fn new(hardware: &Hardware, namespace: &File, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (socket, control) = (dir.join("board.sock"), dir.join("control"));
        let listener = UnixListener::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?;
        let script = format!("#!/bin/sh\nshift\necho \"$*\" | socat -t 30 - UNIX-CONNECT:{}\n", socket.display());
        fs::write(&control, script)?;
        fs::set_permissions(&control, fs::Permissions::from_mode(0o755))?;
        let state = Arc::new(Mutex::new(State { machine: None, network_next: false, told: Vec::new() }));
        let (shared, hardware, namespace, dir) =
            (state.clone(), hardware.clone(), namespace.try_clone()?, dir.to_owned());
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                match serve(&stream, &shared, &hardware, &namespace, &dir) {
                    Ok(true) => {}
                    Ok(false) => return,
                    // The controller shows it: what it asked for is not so.
                    Err(err) => eprintln!("virtual rack: the board of machine {}: {err:#}", hardware.number),
                }
            }
        });
        Ok(Self { state, socket, control, serving: Some(serving) })
    }

    /// Whether the machine's QEMU runs.
    pub fn runs(&self) -> bool {
        self.look(|state| state.machine.as_ref().is_some_and(Machine::runs))
    }

    /// What controllers have asked to be done and was not so already, in order. Who heard no answer in time asks again: IPMI is UDP, and a
    /// packet that was only late is then there twice.
    pub fn told(&self) -> Vec<String> {
        self.look(|state| state.told.clone())
    }

    /// What the machine has said on its console since its power came on last.
    pub fn console(&self) -> String {
        self.look(|state| state.machine.as_ref().map(Machine::console).unwrap_or_default())
    }

    fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        // A thread that panicked has said so; the state is as it left it.
        at(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let ended = UnixStream::connect(&self.socket).and_then(|mut stream| stream.write_all(b"end\n"));
        if let (Ok(()), Some(serving)) = (ended, self.serving.take()) {
            // It has said what went wrong itself.
            let _ = serving.join();
        }
    }
}

/// One word of a controller; whether there may be more.
fn serve(
    mut stream: &UnixStream,
    state: &Mutex<State>,
    hardware: &Hardware,
    namespace: &File,
    dir: &Path,
) -> Result<bool> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<&str> = line.split_whitespace().collect();
    let on = state.machine.as_ref().is_some_and(Machine::runs);
    let changes = match words[..] {
        ["set", "power", "0"] => on,
        ["set", "power", "1"] => !on,
        ["set", "boot", what] => state.network_next != (what == "pxe"),
        ["set", ..] => true,
        _ => false,
    };
    if changes {
        state.told.push(words[1..].join(" "));
    }
    match words[..] {
        ["get", "power"] => writeln!(stream, "power:{}", u8::from(on))?,
        ["get", "boot"] => writeln!(stream, "boot:{}", if state.network_next { "pxe" } else { "none" })?,
        ["set", "boot", what] => state.network_next = what == "pxe",
        ["set", "power", "0"] => state.machine = None,
        ["set", "power", "1"] if on => {}
        ["set", "power", "1"] => {
            let order = if std::mem::take(&mut state.network_next) { Order::Network } else { Order::Disk };
            state.machine = None;
            state.machine = Some(Machine::power_on(hardware, order, namespace, dir)?);
        }
        // ipmi_sim asks before whether this program knows a word.
        ["check", ..] => {}
        ["end"] => {
            state.machine = None;
            return Ok(false);
        }
        _ => bail!("a controller says {line:?}"),
    }
    Ok(true)
}
