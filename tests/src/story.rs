//! What a person reads while a rack comes up: one line for each thing that has happened, and how long it took.

use proto::view::{BootStepKind, HostView, MovePhase, MoveView, RackView};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Instant;

/// Tells of a rack as its views come.
pub struct Story {
    began: Instant,
    told: BTreeSet<String>,
    /// A line under way is shown on a terminal only, where it can be written over.
    terminal: bool,
    under_way: usize,
}

impl Default for Story {
    fn default() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { began: Instant::now(), told: BTreeSet::new(), terminal, under_way: 0 }
    }
}

impl Story {
    /// Something that has happened.
    pub fn say(&mut self, line: &str) {
        self.wipe();
        println!("{:7.1} s  {line}", self.began.elapsed().as_secs_f64());
    }

    /// Tells what is new in a view.
    pub fn see(&mut self, view: &RackView) {
        for host in &view.hosts {
            self.boot(host);
        }
        for vm in &view.vms {
            let owner = vm.owner.as_ref().map_or(String::new(), |owner| format!(" on {owner}"));
            self.once(format!("vm {} {:?}{owner}", vm.spec.name, vm.phase));
        }
        for m in view.moves.iter().rev() {
            self.moved(m);
        }
        let now = view.hosts.iter().find_map(step_under_way);
        let now = now.or_else(|| view.moves.iter().find_map(move_under_way));
        self.show(now.unwrap_or_default());
    }

    fn boot(&mut self, host: &HostView) {
        for step in &host.boot {
            if let Some(took_ms) = step.took_ms {
                let size = match step.bytes_total {
                    0 => String::new(),
                    bytes => format!(", {:.1} MB", bytes as f64 / 1e6),
                };
                let took = took_ms as f64 / 1000.0;
                // Each boot has steps of its own.
                self.once_as(
                    format!("{} {:?} {}", host.id, step.step, step.at_ms),
                    format!("{}  {:<7} {took:6.1} s{size}", host.id, name(step.step)),
                );
            }
        }
        self.once(format!("{}  is {:?}", host.id, host.state));
    }

    fn moved(&mut self, m: &MoveView) {
        self.once(format!("move {}: {} from {} to {}: {}", m.id, m.vm, m.source, m.target, m.reason));
        match m.phase {
            MovePhase::Done => {
                let s = |ms: Option<u64>| ms.map_or("?".to_owned(), |ms| format!("{:.2} s", ms as f64 / 1000.0));
                let (total, still) = (s(m.total_ms), s(m.downtime_ms));
                self.once(format!("move {}: {} is there after {total}, stood still for {still}", m.id, m.vm));
            }
            MovePhase::Aborted => {
                let why = m.failure.as_deref().unwrap_or("no reason given");
                self.once(format!("move {}: {} stays on {}: {why}", m.id, m.vm, m.source));
            }
            _ => {}
        }
    }

    fn once(&mut self, line: String) {
        self.once_as(line.clone(), line);
    }

    fn once_as(&mut self, key: String, line: String) {
        if self.told.insert(key) {
            self.say(&line);
        }
    }

    fn show(&mut self, line: String) {
        if self.terminal && !line.is_empty() {
            self.wipe();
            let line = format!("{:7.1} s  {line} …", self.began.elapsed().as_secs_f64());
            print!("{line}");
            self.under_way = line.chars().count();
            let _ = std::io::stdout().flush();
        }
    }

    fn wipe(&mut self) {
        if self.under_way > 0 {
            print!("\r{}\r", " ".repeat(self.under_way));
            self.under_way = 0;
        }
    }
}

fn step_under_way(host: &HostView) -> Option<String> {
    let step = host.boot.iter().find(|step| step.took_ms.is_none())?;
    let mut line = format!("{}  {}", host.id, name(step.step));
    if let Some(percent) = (step.bytes * 100).checked_div(step.bytes_total) {
        // Writing to a String does not fail.
        let _ = write!(line, " {percent} %");
    }
    Some(line)
}

fn move_under_way(m: &MoveView) -> Option<String> {
    let ended = matches!(m.phase, MovePhase::Done | MovePhase::Aborted);
    (!ended).then(|| format!("move {}: {} {:?}, {:.1} MB", m.id, m.vm, m.phase, m.bytes as f64 / 1e6))
}

/// A boot step as a person calls it.
pub fn name(step: BootStepKind) -> &'static str {
    match step {
        BootStepKind::Dhcp => "address",
        BootStepKind::Loader => "loader",
        BootStepKind::Script => "script",
        BootStepKind::Xen => "Xen",
        BootStepKind::Kernel => "kernel",
        BootStepKind::Initrd => "initrd",
        BootStepKind::Linux => "Linux",
        BootStepKind::Image => "image",
        BootStepKind::Start => "start",
        BootStepKind::Join => "join",
    }
}
