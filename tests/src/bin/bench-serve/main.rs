//! `bench-serve`: DHCP, TFTP and HTTP as they are served to booting machines, beside the servers that people use.
//!
//! The sides take turns on this machine in one run; figures are medians, every value is printed beside them. The server and
//! its clients share the processors. Exit codes: 0 measured, 1 not.

mod dhcp;
mod field;
mod http;
mod side;
mod storm;
mod tftp;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use field::{Client, Field, SERVER};
use hyper::Method;
use proto::Mac;
use proto::api::RegisterHost;
use side::{Cost, Parts, Running, Side};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tests::appliance::Appliance;
use tests::forward::forward;
use tests::guard::heed_interrupts;
use tests::https::Trust;
use tests::operator::{Operator, PASSWORD};

#[derive(Parser)]
#[command(about = "What is served to booting machines, measured beside others' servers", version)]
struct Args {
    /// The boot server's program.
    #[arg(long)]
    bootserver: PathBuf,
    /// Directory into which the peers' packages were unpacked.
    #[arg(long)]
    peers: PathBuf,
    /// A directory of its own on a real disk; emptied first, removed at the end.
    #[arg(long)]
    dir: PathBuf,
    /// How often each is done.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only what is named: dhcp, cold, restart, http, tftp, storm.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Clients of one HTTP measurement.
const HTTP_CLIENTS: [usize; 4] = [1, 8, 40, 200];
const TFTP_CLIENTS: [usize; 2] = [1, 16];
const WINDOWS: [u16; 2] = [1, 4];
/// Of one measurement of HTTP or TFTP.
const TIME: Duration = Duration::from_secs(3);
/// Machines that are switched on together.
const COLD: u16 = 1000;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("bench-serve: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root: it makes network namespaces; `make bench-serve` uses sudo");
    heed_interrupts()?;
    let field = Field::make(&args.dir)?;
    let (bootserver, peers) = (args.bootserver.canonicalize()?, args.peers.canonicalize()?);
    let parts = Parts::make(&bootserver, &peers, &field.dir.join("files"))?;
    let addresses: Vec<Ipv4Addr> =
        (1..=HTTP_CLIENTS[3]).map(|n| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 1, 0)) + n as u32)).collect();
    let client = field.client(0, &addresses)?;
    let bench = Bench { field, parts, client, addresses, rounds: args.rounds };
    for (name, measure) in [
        ("dhcp", Bench::dhcp as fn(&Bench) -> Result<()>),
        ("cold", Bench::cold),
        ("restart", Bench::restart),
        ("http", Bench::http),
        ("tftp", Bench::tftp),
        ("storm", Bench::storm),
    ] {
        if args.only.is_empty() || args.only.iter().any(|only| only == name) {
            measure(&bench)?;
        }
    }
    Ok(())
}

struct Bench {
    // Goes first: the field takes all away.
    client: Client,
    parts: Parts,
    addresses: Vec<Ipv4Addr>,
    rounds: u32,
    field: Field,
}

/// One side's figures of one load, round by round.
#[derive(Default)]
struct Figures {
    values: Vec<f64>,
    cpu_per_unit: Vec<f64>,
    peak_mib: Vec<f64>,
}

impl Figures {
    fn note(&mut self, value: f64, units: f64, before: Cost, after: Cost) {
        self.add(value, (after.cpu - before.cpu).as_secs_f64() / units, after.peak_bytes);
    }

    fn add(&mut self, value: f64, cpu_per_unit: f64, peak_bytes: u64) {
        self.values.push(value);
        self.cpu_per_unit.push(cpu_per_unit);
        self.peak_mib.push(peak_bytes as f64 / f64::from(1 << 20));
    }
}

impl Bench {
    fn start(&self, side: Side) -> Result<Running> {
        Running::start(side, &self.parts, &self.field, "").with_context(|| format!("starting {}", side.name()))
    }

    fn dhcp(&self) -> Result<()> {
        println!("\nDHCP, 4-way exchanges a second of new clients, at less than {} % lost", dhcp::LOSS_MAX * 100.0);
        let sides = [Side::Ours, Side::Kea];
        let mut figures = [Figures::default(), Figures::default()];
        let mut first_mac = 0;
        for _ in 0..self.rounds {
            for (side, figures) in sides.into_iter().zip(&mut figures) {
                let server = self.start(side)?;
                let most = dhcp::most(&server, &self.client, &mut first_mac)?;
                println!(
                    "  {:<12} {:6.0} a second, {:.2} % lost; of each exchange {:.0} µs of processor time, perfdhcp's {:.0} µs",
                    side.name(),
                    most.done_s,
                    most.loss * 100.0,
                    most.server_us,
                    most.client_us
                );
                figures.add(most.done_s, most.server_us, server.cost()?.peak_bytes);
            }
        }
        table("exchanges/s", &sides, &figures, Some("CPU µs each"))
    }

    fn cold(&self) -> Result<()> {
        println!(
            "\nDHCP, {COLD} known machines switched on together: to the ACK of the 99th of a hundred, and the last, ms"
        );
        let macs = machines();
        let sides = [Side::Ours, Side::Kea];
        let mut figures = [Figures::default(), Figures::default()];
        for _ in 0..self.rounds {
            for (side, figures) in sides.into_iter().zip(&mut figures) {
                let mut server = self.start(side)?;
                if let Some(appliance) = server.appliance() {
                    register(&self.field, appliance, &macs)?;
                }
                let before = server.cost()?;
                let took = dhcp::cold_start(&self.client, macs.clone())?;
                let ms = |at: usize| took.get(at).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3);
                let (p99, last) = (ms(took.len() * 99 / 100), ms(took.len() - 1));
                let never = took.iter().filter(|&&t| t == dhcp::NEVER).count();
                println!("  {:<12} {p99:7.0}   last {last:7.0}   without an answer in a minute: {never}", side.name());
                figures.note(p99, f64::NAN, before, server.cost()?);
            }
        }
        table("ms, 99 %", &sides, &figures, None)
    }

    fn restart(&self) -> Result<()> {
        println!("\nOur server killed and started again, {COLD} machines in its record: until it answers, ms");
        let macs = machines();
        let mut server = self.start(Side::Ours)?;
        let appliance = server.appliance().context("it is ours")?;
        let operator = register(&self.field, appliance, &macs)?;
        dhcp::cold_start(&self.client, macs.clone())?;
        let (mut operators, mut machines) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            appliance.kill()?;
            let started = Instant::now();
            appliance.start_again()?;
            let ms = || started.elapsed().as_secs_f64() * 1e3;
            while operator.rack().is_err() {
                appliance.check()?;
                std::thread::sleep(Duration::from_millis(1));
            }
            operators.push(ms());
            let mac = macs[0];
            field::join(self.client.thread(move || dhcp::one(mac))?)?;
            machines.push(ms());
        }
        println!("  an operator {:.0}, then a machine's DHCP {:.0}", median(&operators)?, median(&machines)?);
        Ok(())
    }

    fn http(&self) -> Result<()> {
        println!("\nHTTP, an image of {} MiB to so many clients", side::IMAGE_BYTES >> 20);
        let sides = [Side::Ours, Side::Nginx];
        for clients in HTTP_CLIENTS {
            let mut figures = [Figures::default(), Figures::default()];
            for _ in 0..self.rounds {
                for (side, figures) in sides.into_iter().zip(&mut figures) {
                    let server = self.start(side)?;
                    let url = self.parts.url(side, "dom0.squashfs")?;
                    self.compare_image(&url)?;
                    server.forget_peak()?;
                    let before = server.cost()?;
                    let (bytes_s, bytes) = http::load(&self.client, &self.addresses[..clients], &url, TIME)?;
                    figures.note(bytes_s / 1e6, bytes as f64 / 1e9, before, server.cost()?);
                }
            }
            println!("{clients} clients");
            table("MB/s", &sides, &figures, Some("CPU s/GB"))?;
        }
        Ok(())
    }

    fn tftp(&self) -> Result<()> {
        println!("\nTFTP, a loader of {} KiB", side::LOADER_BYTES >> 10);
        let to = SocketAddr::from((SERVER, 69));
        let sides = [Side::Ours, Side::Hpa, Side::Dnsmasq];
        let whole = std::fs::read(self.parts.loader())?;
        for window in WINDOWS {
            for clients in TFTP_CLIENTS {
                let mut figures = [Figures::default(), Figures::default(), Figures::default()];
                let mut notes = Vec::new();
                for _ in 0..self.rounds {
                    for (side, figures) in sides.into_iter().zip(&mut figures) {
                        let server = self.start(side)?;
                        let from = self.addresses[0];
                        let fetched = field::join(self.client.thread(move || tftp::fetch(from, to, window))?)?;
                        ensure!(fetched.bytes == whole, "{} sent another file", side.name());
                        server.forget_peak()?;
                        let before = server.cost()?;
                        let load = tftp::load(&self.client, &self.addresses[..clients], to, window, TIME)?;
                        figures.note(load.bytes_s / 1e6, load.bytes as f64 / 1e9, before, server.cost()?);
                        let note =
                            format!("{} window {}, {} packets asked for again", side.name(), load.window, load.again);
                        notes.push(note);
                    }
                }
                println!("{clients} clients that ask for a window of {window}");
                notes.truncate(sides.len());
                println!("  agreed: {}", notes.join("; "));
                table("MB/s", &sides, &figures, Some("CPU s/GB"))?;
            }
        }
        Ok(())
    }

    fn storm(&self) -> Result<()> {
        println!("\nBoot storm: machines switched on together behind one link of 1 Gbit/s");
        let machines = storm::machines(&self.field)?;
        let mut ratios = Vec::new();
        for _ in 0..self.rounds {
            let storm = storm::measure(&self.field, &self.parts, &machines)?;
            let at = |at: usize| storm.took.get(at).map_or(f64::NAN, Duration::as_secs_f64);
            let (half, last) = (at(storm.took.len() / 2), at(storm.took.len() - 1));
            let (limit, plain) = (storm.bytes as f64 / storm::LINK_BYTES_S, storm.bytes as f64 / storm.plain_bytes_s);
            println!(
                "  {} machines, {:.2} GB: half after {half:.1} s, the last after {last:.1} s; the link needs {limit:.1} s, one plain TCP stream {plain:.1} s",
                storm.took.len(),
                storm.bytes as f64 / 1e9,
            );
            println!(
                "    told to wait {} times; {:.2} CPU s/GB, peak {} MiB",
                storm.waits,
                storm.cpu.as_secs_f64() / storm.bytes as f64 * 1e9,
                storm.peak_bytes >> 20
            );
            ratios.push(last / limit);
        }
        let all: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        println!("  time to the last byte / the link's own: {:.2}   (all: {})", median(&ratios)?, all.join(" "));
        Ok(())
    }

    fn compare_image(&self, (to, path): &(SocketAddr, String)) -> Result<()> {
        let (from, to, path, image) = (self.addresses[0], *to, path.clone(), self.parts.image());
        field::join(self.client.thread(move || {
            let same = http::Fetch::connect(from, to)?.whole(&path)? == std::fs::read(image)?;
            ensure!(same, "the image came with other bytes");
            Ok(())
        })?)
    }
}

/// Those that are switched on together.
fn machines() -> Vec<[u8; 6]> {
    (0..COLD).map(|n| [0x52, 0x54, 0, 0xcc, (n >> 8) as u8, n as u8]).collect()
}

/// Makes machines known to our server, as an operator does before a rack is delivered.
fn register(field: &Field, appliance: &mut Appliance, macs: &[[u8; 6]]) -> Result<Operator> {
    let page = forward(0, field.network.handle(), Appliance::operator_address())?;
    let mut operator = Operator::stranger(Trust::pem(&appliance.ca_pem(&field.guard)?)?, page);
    operator.set_up(&appliance.setup_code(false)?, PASSWORD)?;
    for &mac in macs {
        let request = serde_json::to_string(&RegisterHost { mac: Mac(mac), name: None })?;
        let answer = operator.raw(Method::POST, "/v1/hosts", request)?;
        ensure!(answer.status == 200, "registering {}: {} {}", Mac(mac), answer.status, answer.body);
    }
    Ok(operator)
}

/// Prints each side's median, all its values, and how much the first is of each.
fn table(unit: &str, sides: &[Side], figures: &[Figures], cpu: Option<&str>) -> Result<()> {
    let first = median(&figures[0].values)?;
    for (side, figures) in sides.iter().zip(figures) {
        let value = median(&figures.values)?;
        let all: Vec<String> = figures.values.iter().map(|v| format!("{v:.0}")).collect();
        let cost = match cpu {
            // Its children, one for each transfer, are gone before they can be asked.
            Some(_) if *side == Side::Hpa => String::new(),
            Some(cpu) => format!("{:7.2} {cpu}", median(&figures.cpu_per_unit)?),
            None => String::new(),
        };
        println!(
            "  {:<12} {value:8.0} {unit}   ours/it {:5.2}   {cost}   peak {:4.0} MiB   (all: {})",
            side.name(),
            first / value,
            median(&figures.peak_mib)?,
            all.join(" ")
        );
    }
    Ok(())
}

fn median(values: &[f64]) -> Result<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |at: usize| sorted.get(at).copied().context("nothing was measured");
    Ok((at(sorted.len().saturating_sub(1) / 2)? + at(sorted.len() / 2)?) / 2.0)
}
