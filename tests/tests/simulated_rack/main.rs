//! The simulated rack: the real rack core and the real agent core, hosts of one physical model, virtual time, and
//! faults of every kind at random.
//!
//! `SEED=n` repeats one run exactly; `SEEDS=n` sets how many there are; `SCALE=full` makes it one of 200 hosts and 2,000 VMs that lasts until
//! 10,000 moves were done and 500 hosts failed. A failure prints its seed and what came before it.

mod faults;
mod host;
mod oracle;
mod rack;
mod random;
mod san;
mod server;

use oracle::{Oracle, Tally};
use rack::{Rack, Scale};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

const SMALL: Scale = Scale {
    hosts: 50,
    vms: 300,
    lost_permille: 30,
    doubled_permille: 20,
    late_permille: 20,
    fault_every_ms: (50, 900),
    wish_every_ms: (100, 700),
    server_dies_permille: 400,
    store_lost_permille: 500,
    san: false,
};
/// The same on a SAN: a host that fails is switched off before its VMs start elsewhere. Nothing is restored there, as no server does that.
const SAN: Scale = Scale {
    hosts: 30,
    vms: 150,
    fault_every_ms: (100, 1_500),
    server_dies_permille: 120,
    store_lost_permille: 0,
    san: true,
    ..SMALL
};
const FULL: Scale = Scale {
    hosts: 200,
    vms: 2_000,
    lost_permille: 100,
    doubled_permille: 50,
    late_permille: 50,
    fault_every_ms: (20, 300),
    wish_every_ms: (10, 120),
    server_dies_permille: 150,
    // A survey after a restore goes on until each of 200 hosts was heard or waited out, with a server that dies every half minute: not so often that
    // nothing but surveys is tried.
    store_lost_permille: 20,
    san: false,
};
/// Seeds when none are asked for.
const SEEDS: u64 = 4;
const SAN_SEEDS: u64 = 2;
/// How long faults last, and how long everything may take to settle after, milliseconds of virtual time.
const FAULTS_MS: u64 = 120_000;
/// On a SAN, where a fence takes its time.
const SAN_FAULTS_MS: u64 = 300_000;
const SETTLE_MS: u64 = 900_000;
/// What a full run lasts for, and for how long at most.
const MOVES: usize = 10_000;
const FAILURES: u64 = 500;
const FULL_FAULTS_MS: u64 = 6 * 3_600_000;

fn full() -> bool {
    match std::env::var("SCALE").unwrap_or_default().as_str() {
        "" | "small" => false,
        "full" => true,
        other => panic!("SCALE={other:?}: small or full was expected"),
    }
}

fn run(seed: u64, scale: Scale) -> Tally {
    let full = scale.hosts == FULL.hosts;
    let mut rack = Rack::new(seed, scale);
    let hosts = rack.hosts.len();
    let began = Instant::now();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let until = rack.now_ms + SETTLE_MS;
        let up = |rack: &Rack| {
            rack.server
                .view(rack.now_ms)
                .is_some_and(|v| v.hosts.iter().filter(|h| server::serves(h.state)).count() == hosts)
        };
        rack.run(until, up);
        assert!(up(&rack), "not all hosts have joined, without any fault");
        rack.operator_comes();
        rack.run(rack.now_ms + 20_000, |_| false);
        rack.faults_begin();
        if full {
            rack.run(rack.now_ms + FULL_FAULTS_MS, |rack| rack.server.moves() >= MOVES && rack.failures() >= FAILURES);
        } else {
            rack.run(rack.now_ms + if scale.san { SAN_FAULTS_MS } else { FAULTS_MS }, |_| false);
        }
        rack.faults_end();
        // Messages of the time before are still under way for a while.
        rack.run(rack.now_ms + 40_000, |_| false);
        rack.run(rack.now_ms + SETTLE_MS, Oracle::quiet);
        rack.oracle.judge(&rack)
    }));
    match ran {
        Ok(tally) => {
            println!(
                "seed {seed}: {hosts} hosts, {} VMs, {} moves done, {} crashes of the server, {} hosts fenced, {} failed, {} s in surveys; none doubled, none lost, quiet at {} s; {:.1} s",
                tally.vms,
                tally.moves_done,
                tally.server_crashes,
                tally.fences,
                tally.failures,
                rack.surveyed_ms / 1000,
                rack.now_ms / 1000,
                began.elapsed().as_secs_f64(),
            );
            tally
        }
        Err(panic) => {
            for event in rack.server.view(rack.now_ms).map(|v| v.events).unwrap_or_default().iter().rev() {
                eprintln!("{:>9} {}", event.at_ms, event.text);
            }
            eprintln!("{}\nSEED={seed} repeats this", rack.last(2_000));
            resume_unwind(panic);
        }
    }
}

#[test]
fn every_vm_runs_once_whatever_fails() {
    let full = full();
    let scale = if full { FULL } else { SMALL };
    let moves_and_failures = if full { (MOVES, FAILURES) } else { (5, 5) };
    runs(scale, if full { 1 } else { SEEDS }, moves_and_failures, &faults::KINDS);
}

#[test]
fn every_vm_runs_once_on_a_san_where_a_fence_is_a_hosts_power() {
    runs(SAN, SAN_SEEDS, (5, 5), &san::KINDS);
}

/// Runs with each seed, and judges that enough has happened.
fn runs(scale: Scale, seeds: u64, (moves, failures): (usize, u64), kinds: &[&str]) {
    // make exports a variable that was not given as an empty one.
    let number = |name: &str| {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
        Some(text.parse::<u64>().unwrap_or_else(|why| panic!("{name}={text:?}: a whole number was expected: {why}")))
    };
    let seeds: Vec<u64> = match number("SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SEEDS").unwrap_or(seeds)).collect(),
    };
    let mut all = Tally::default();
    // Each run is alone with its rack, so as many go side by side as there are processors.
    let side_by_side = std::thread::available_parallelism().map_or(1, usize::from);
    for some in seeds.chunks(side_by_side) {
        let tallies: Vec<_> = std::thread::scope(|scope| {
            let runs: Vec<_> = some.iter().map(|&seed| scope.spawn(move || run(seed, scale))).collect();
            runs.into_iter().map(|run| run.join()).collect()
        });
        for tally in tallies {
            all.add(tally.unwrap_or_else(|panic| resume_unwind(panic)));
        }
    }
    println!("faults by kind{}:\n{}", if scale.san { ", on a SAN" } else { "" }, all.counts);
    // A run in which nothing happened would prove nothing.
    assert!(all.moves_done >= moves * seeds.len(), "only {} moves in {} runs", all.moves_done, seeds.len());
    assert!(
        all.failures >= failures * seeds.len() as u64,
        "only {} hosts failed in {} runs",
        all.failures,
        seeds.len()
    );
    for (what, count) in [("crashes of the server", all.server_crashes), ("hosts fenced", all.fences as u64)] {
        assert!(count >= seeds.len() as u64, "{what}: only {count} in {} runs", seeds.len());
    }
    // One seed that is repeated need not have had all.
    for kind in kinds.iter().filter(|_| number("SEED").is_none()) {
        assert!(all.counts.of(kind) > 0, "{kind}: none in {} runs", seeds.len());
    }
}
