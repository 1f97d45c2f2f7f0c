//! The balancer beside its peers: `cargo bench -p balancer --bench peers -- [NAME…] [--long]`.
//!
//! Names: `hbal`, `hbal-large`, `scale`, `optimum`, `planetlab`, `forecast`; all without one. `--long` also runs what takes hours (hbal on a large cluster).
//! Each prints one table; times are CPU seconds of one process. What is kept from earlier runs (hbal's outcomes) says so in its row.

mod cloudsim;
mod forecast;
mod hbal;
mod optimum;
mod planetlab;
mod policies;
mod process;
mod scale;

/// Prints its table; the long form also runs what takes the peer hours.
type Benchmark = fn(bool);

fn main() {
    // cargo passes `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let long = words.iter().any(|word| word == "--long");
    let names: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    let all: [(&str, Benchmark); 6] = [
        ("hbal", hbal::run),
        ("hbal-large", hbal::run_large),
        ("scale", scale::run),
        ("optimum", optimum::run),
        ("planetlab", planetlab::run),
        ("forecast", forecast::run),
    ];
    for name in &names {
        assert!(
            all.iter().any(|(known, _)| known == name),
            "no benchmark {name:?}: expected one of {:?}",
            all.map(|(known, _)| known)
        );
    }
    for (_, run) in all.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        run(long);
    }
}
