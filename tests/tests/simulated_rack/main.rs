//! The simulated rack: the real rack core and the real agent core, fifty hosts of one physical model, virtual time, and
//! faults of every kind at random.
//!
//! `SEED=n` repeats one run exactly; `SEEDS=n` sets how many there are. A failure prints its seed and what came before it.

mod host;
mod oracle;
mod rack;
mod random;
mod server;

use oracle::{Oracle, Tally};
use rack::Rack;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const HOSTS: u8 = 50;
const VMS: u64 = 300;
/// Seeds when none are asked for.
const SEEDS: u64 = 6;
/// How long faults last, and how long everything may take to settle after, milliseconds of virtual time.
const FAULTS_MS: u64 = 120_000;
const SETTLE_MS: u64 = 900_000;

fn run(seed: u64) -> Tally {
    let mut rack = Rack::new(seed, HOSTS, VMS);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let until = rack.now_ms + SETTLE_MS;
        let up = |rack: &Rack| {
            rack.server
                .view(rack.now_ms)
                .is_some_and(|v| v.hosts.iter().filter(|h| server::serves(h.state)).count() == usize::from(HOSTS))
        };
        rack.run(until, up);
        assert!(up(&rack), "not all hosts have joined, without any fault");
        rack.operator_comes();
        rack.run(rack.now_ms + 20_000, |_| false);
        rack.faults_begin();
        rack.run(rack.now_ms + FAULTS_MS, |_| false);
        rack.faults_end();
        // Messages of the time before are still under way for a while.
        rack.run(rack.now_ms + 40_000, |_| false);
        rack.run(rack.now_ms + SETTLE_MS, Oracle::quiet);
        rack.oracle.judge(&rack)
    }));
    match ran {
        Ok(tally) => {
            let ms = rack.now_ms;
            println!(
                "seed {seed}: {} VMs, {} moves asked for, {} of the newest done and {} called off, {} crashes of the server, {} hosts fenced, {} reset by their watchdogs, quiet at {ms} ms",
                tally.vms,
                rack.oracle.moves_asked(),
                tally.moves_done,
                tally.moves_aborted,
                tally.server_crashes,
                tally.fences,
                tally.resets
            );
            tally
        }
        Err(panic) => {
            eprintln!("{}\nSEED={seed} repeats this", rack.last(400));
            resume_unwind(panic);
        }
    }
}

#[test]
fn every_vm_runs_once_whatever_fails() {
    // make exports a variable that was not given as an empty one.
    let number = |name: &str| {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
        Some(text.parse::<u64>().unwrap_or_else(|why| panic!("{name}={text:?}: a whole number was expected: {why}")))
    };
    let seeds: Vec<u64> = match number("SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let (mut moves, mut crashes, mut fences, mut resets) = (0, 0, 0, 0);
    // Each run is alone with its rack, so as many go side by side as there are processors.
    let side_by_side = std::thread::available_parallelism().map_or(1, usize::from);
    for some in seeds.chunks(side_by_side) {
        let tallies: Vec<_> = std::thread::scope(|scope| {
            let runs: Vec<_> = some.iter().map(|&seed| scope.spawn(move || run(seed))).collect();
            runs.into_iter().map(|run| run.join()).collect()
        });
        for tally in tallies {
            let tally = tally.unwrap_or_else(|panic| resume_unwind(panic));
            moves += tally.moves_done;
            crashes += tally.server_crashes;
            fences += tally.fences;
            resets += tally.resets;
        }
    }
    // A run in which nothing happened would prove nothing.
    assert!(moves >= 5 * seeds.len(), "only {moves} moves in {} runs", seeds.len());
    assert!(crashes >= seeds.len() as u64, "only {crashes} crashes of the server in {} runs", seeds.len());
    assert!(fences >= seeds.len(), "only {fences} hosts were fenced in {} runs", seeds.len());
    assert!(resets >= seeds.len(), "only {resets} hosts were reset in {} runs", seeds.len());
}
