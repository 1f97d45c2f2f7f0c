//! Beside Ganeti's hbal, under hbal's own score, with no more instances and no more memory moved than hbal moved.
//!
//! Clusters, scores and the application of commands are `ganeti_cluster.py`'s, which knows nothing of the balancer.

use crate::process::{self, beside, folder};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A generated cluster.
struct Case {
    nodes: u32,
    vms: u32,
    seed: u32,
    kind: &'static str,
    extra: &'static [&'static str],
}

const KINDS: [(&str, &[&str]); 4] =
    [("homogeneous", &[]), ("hetero", &["--hetero"]), ("antiaff", &["--antiaff", "20"]), ("empty", &["--empty", "3"])];

/// What a plan comes to.
#[derive(Clone, Copy)]
struct Outcome {
    score: f64,
    vms: usize,
    mib: u64,
    cpu: f64,
}

fn table(cases: &[Case]) {
    println!("| cluster | before | hbal | VMs | GiB | CPU s | ours | VMs | GiB | CPU s | score | CPU |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for case in cases {
        let files = Files::make(case);
        let before = files.score(&files.data);
        let (theirs, kept) = files.hbal();
        let ours = files.ours(theirs.vms, theirs.mib);
        assert!(ours.vms <= theirs.vms && ours.mib <= theirs.mib, "limits were not kept");
        let ratio = ours.score / theirs.score;
        println!(
            "| {}/{} {} {} | {before:.4} | {:.5}{} | {} | {:.0} | {:.1} | {:.5} | {} | {:.0} | {:.2} | x {ratio:.3} | /{:.0} |",
            case.nodes,
            case.vms,
            case.kind,
            case.seed,
            theirs.score,
            if kept { " (kept)" } else { "" },
            theirs.vms,
            theirs.mib as f64 / 1024.0,
            theirs.cpu,
            ours.score,
            ours.vms,
            ours.mib as f64 / 1024.0,
            ours.cpu,
            theirs.cpu / ours.cpu.max(0.001),
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let better = ratios.iter().filter(|&&ratio| ratio < 1.0).count();
    println!(
        "\nbetter on {better} of {}; median score is {:.3} of hbal's, worst {:.3}\n",
        ratios.len(),
        ratios[ratios.len() / 2],
        ratios[ratios.len() - 1]
    );
}

pub(crate) fn run(_long: bool) {
    println!("## 1. Beside hbal, with no more VMs and GiB moved than it\n");
    let mut cases = Vec::new();
    for (nodes, vms, seeds) in [(20, 200, 3), (40, 400, 1)] {
        for seed in 1..=seeds {
            cases.extend(KINDS.map(|(kind, extra)| Case { nodes, vms, seed, kind, extra }));
        }
    }
    table(&cases);
    curve(&Case { nodes: 20, vms: 200, seed: 1, kind: "homogeneous", extra: &[] });
}

/// The clusters on which hbal takes long; with `long` it runs to its end on the smaller of them first.
pub(crate) fn run_large(long: bool) {
    if long {
        println!("hbal run to its end:\n");
        table(&[Case { nodes: 80, vms: 1000, seed: 1, kind: "homogeneous", extra: &[] }]);
    }
    unbounded();
}

/// Score against memory moved: hbal's plan cut off after so many steps, and ours with the same limits.
fn curve(case: &Case) {
    let files = Files::make(case);
    files.hbal();
    let commands = read(&files.hbal_commands());
    let lines: Vec<&str> = commands.lines().filter(|line| line.contains("gnt-instance")).collect();
    println!(
        "Score against memory moved, {}/{} {} {}:\n\n| GiB | VMs | hbal's first steps | ours |\n|---|---|---|---|",
        case.nodes, case.vms, case.kind, case.seed
    );
    for tenth in [1, 2, 3, 4, 6, 8, 10] {
        let cut = files.folder.join("cut.cmds");
        write(&cut, &lines[..lines.len() * tenth / 10].join("\n"));
        let (vms, mib) = files.moved(&cut);
        let theirs = files.score_after(&cut);
        let ours = files.ours(vms, mib);
        println!("| {:.0} | {vms} | {theirs:.5} | {:.5} |", mib as f64 / 1024.0, ours.score);
    }
    println!();
}

/// Clusters on which hbal takes hours; its figures are those of `data/README.md`.
fn unbounded() {
    println!(
        "Large clusters, hbal's figures quoted, limits: its number of moves:\n\n| cluster | hbal | moves | CPU s | ours | VMs | CPU s | CPU |\n|---|---|---|---|---|---|---|---|"
    );
    for (nodes, vms, score, moves, cpu) in [(80, 1000, 0.10782792, 275, 1367.0), (200, 2000, 0.11895556, 576, 36_000.0)]
    {
        let files = Files::make(&Case { nodes, vms, seed: 1, kind: "homogeneous", extra: &[] });
        let ours = files.ours(moves, u64::MAX);
        println!(
            "| {nodes}/{vms} | {score:.5} | {moves} | {cpu:.0} | {:.5} | {} | {:.2} | /{:.0} |",
            ours.score,
            ours.vms,
            ours.cpu,
            cpu / ours.cpu
        );
    }
    println!();
}

struct Files {
    folder: PathBuf,
    data: PathBuf,
    util: PathBuf,
}

impl Files {
    fn of(case: &Case) -> Self {
        let folder = folder(&format!("{}-{}-{}-{}", case.nodes, case.vms, case.kind, case.seed));
        Self { data: folder.join("c.data"), util: folder.join("c.util"), folder }
    }

    fn make(case: &Case) -> Self {
        let files = Self::of(case);
        let (nodes, vms, seed) = (case.nodes.to_string(), case.vms.to_string(), case.seed.to_string());
        let mut args = vec![
            "gen",
            "--nodes",
            &nodes,
            "--vms",
            &vms,
            "--seed",
            &seed,
            "--out",
            text(&files.data),
            "--util",
            text(&files.util),
        ];
        args.extend(case.extra);
        script(&args);
        files
    }

    fn outcome(&self) -> PathBuf {
        self.folder.join("hbal.outcome")
    }

    fn hbal_commands(&self) -> PathBuf {
        self.folder.join("hbal.cmds")
    }

    /// hbal's outcome, from this run or, when hbal has already run on this very cluster, as it was kept.
    fn hbal(&self) -> (Outcome, bool) {
        let stamp = format!("{}{}", read(&self.data), read(&self.util));
        let kept = std::fs::read_to_string(self.outcome()).ok().and_then(|kept| {
            let (cpu, of) = kept.split_once('\n')?;
            (of == stamp && self.hbal_commands().exists()).then(|| cpu.parse::<f64>().ok())?
        });
        let cpu = kept.unwrap_or_else(|| {
            let commands = format!("-C{}", text(&self.hbal_commands()));
            let (_, cpu) = process::run("hbal", &["-t", text(&self.data), "-U", text(&self.util), &commands]);
            write(&self.outcome(), &format!("{cpu}\n{stamp}"));
            cpu
        });
        let (vms, mib) = self.moved(&self.hbal_commands());
        (Outcome { score: self.score_after(&self.hbal_commands()), vms, mib, cpu }, kept.is_some())
    }

    fn ours(&self, vms: usize, mib: u64) -> Outcome {
        let commands = self.folder.join("ours.cmds");
        let (vms, mib) = (vms.to_string(), mib.to_string());
        let args = [
            "plan",
            "--ganeti",
            text(&self.data),
            "--util",
            text(&self.util),
            "--score",
            "ganeti",
            "--max-vms",
            &vms,
            "--max-mib",
            &mib,
            "--commands",
            text(&commands),
        ];
        let (_, cpu) = process::run(env!("CARGO_BIN_EXE_balancer"), &args);
        let (vms, mib) = self.moved(&commands);
        Outcome { score: self.score_after(&commands), vms, mib, cpu }
    }

    fn score_after(&self, commands: &Path) -> f64 {
        let after = self.folder.join("after.data");
        write(&after, &script(&["apply", text(&self.data), text(commands)]));
        self.score(&after)
    }

    fn score(&self, data: &Path) -> f64 {
        let shown = script(&["score", text(data), "--util", text(&self.util)]);
        shown.lines().next().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("no score in {shown:?}"))
    }

    /// Distinct instances that end elsewhere, and their memory.
    fn moved(&self, commands: &Path) -> (usize, u64) {
        let data = read(&self.data);
        let instances = data.split("\n\n").nth(2).unwrap_or_default();
        let mut home: HashMap<&str, (&str, u64)> = HashMap::new();
        for line in instances.lines() {
            let fields: Vec<&str> = line.split('|').collect();
            home.insert(fields[0], (fields[6], fields[1].parse().unwrap_or(0)));
        }
        let commands = read(commands);
        let mut at: HashMap<&str, &str> = HashMap::new();
        for line in commands.lines().filter(|line| line.contains("gnt-instance")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let node = words.iter().position(|&w| w == "-n" || w == "--target-node").map(|i| words[i + 1]);
            at.extend(words.last().copied().zip(node));
        }
        let moved = at.iter().filter(|(name, node)| home[**name].0 != **node);
        moved.fold((0, 0), |(n, mib), (name, _)| (n + 1, mib + home[name].1))
    }
}

fn script(args: &[&str]) -> String {
    let path = beside("ganeti_cluster.py");
    let mut all = vec![text(&path)];
    all.extend(args);
    process::run("python3", &all).0
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of the build folder are UTF-8")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|err| panic!("reading {}: {err}", path.display()))
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|err| panic!("writing {}: {err}", path.display()));
}
