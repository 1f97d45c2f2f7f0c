//! Reports of an agent that may say anything, as JSON: nothing panics, every load that is shown is a number, no order is given to a boot
//! that is not the present one, and what is kept of a host does not grow with what it says.

#![no_main]

use fuzz::{Bench, Input, policy};
use libfuzzer_sys::fuzz_target;
use proto::agent::{LeaseState, Report};
use proto::api::CreateVm;
use proto::{HostId, Mac};
use rack::effect::{Answer, Effect, JoinDecision};
use rack::event::{Caller, Command, Event, ReplyTo};
use rack::policy::Serves;
use std::net::Ipv4Addr;

const MACHINE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 1]);
const KEY: &str = "key";
/// Orders that stand open for one host with two VMs, at most; its own strays are each one more.
const ORDERS_MAX: usize = 4 + STRAYS_MAX;
/// Domains that a report of these lengths can name.
const STRAYS_MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut bench = Bench::new(policy(Serves::Full, Serves::Full)).expect("a good policy");
    let lease = bench.lease(MACHINE);
    let nonce = bench.nonce(MACHINE, lease, 1);
    let host = HostId::of(MACHINE);
    let request = serde_json::from_str(INVENTORY).map(|inventory| proto::agent::JoinRequest {
        host: host.clone(),
        nonce: nonce.clone(),
        csr_pem: "CSR".to_owned(),
        inventory,
    });
    let request = request.expect("an inventory");
    let joined = bench.ask(|reply| Event::Join { reply, request, key: KEY.to_owned(), from: lease });
    assert!(matches!(joined, Answer::Join(JoinDecision::Issue { .. })));
    let mut asked = 100;
    let mut storage = Vec::new();
    for name in ["a", "b"] {
        storage.extend(bench.apply(Event::Operator { reply: ReplyTo(2), command: create(name) }));
    }
    while !input.0.is_empty() {
        let effects = match input.byte() % 8 {
            0..=4 => {
                let how = input.byte();
                let Ok(mut report) = serde_json::from_slice::<Report>(input.piece()) else { continue };
                if how & 1 == 0 {
                    report.boot.clone_from(&nonce);
                }
                if how & 2 == 0 {
                    report.lease = LeaseState::Valid;
                }
                if how & 4 == 0 {
                    (report.seq, report.uptime_ms) = (asked, asked * 1000);
                }
                let present = report.boot == nonce;
                asked += 1;
                let reply = ReplyTo(asked);
                let caller = Caller { key: KEY.to_owned(), issued_ms: 0, from: Ipv4Addr::new(10, 77, 0, input.byte()) };
                let effects = bench.apply(Event::Report { reply, host: host.clone(), caller, report });
                for effect in &effects {
                    if let Effect::Answer { to, answer: Answer::Report(Ok(answer)) } = effect {
                        assert!(present || *to != reply, "orders for another boot");
                        assert!(answer.orders.len() <= ORDERS_MAX, "{} orders", answer.orders.len());
                    }
                }
                effects
            }
            5 => {
                bench.after(u64::from(input.byte()) * 40);
                Vec::new()
            }
            6 => {
                let vm = if input.byte() & 1 == 0 { "a" } else { "b" }.parse().expect("a name");
                let command = match input.byte() % 6 {
                    0 => Command::StartVm { vm },
                    1 => Command::ShutdownVm { vm },
                    2 => Command::DestroyVm { vm },
                    3 => Command::PauseVm { vm },
                    4 => Command::ResumeVm { vm },
                    _ => Command::DeleteVm { vm },
                };
                bench.apply(Event::Operator { reply: ReplyTo(2), command })
            }
            _ => bench.apply(Event::ReportGone { reply: ReplyTo(asked), host: host.clone() }),
        };
        storage.extend(effects);
        // The storage does at once what it is told.
        while let Some(effect) = storage.pop() {
            if let Effect::Storage { job, .. } = effect {
                storage.extend(bench.apply(Event::StorageDone { job, result: Ok(()) }));
            }
        }
        check(&bench);
    }
});

fn create(name: &str) -> Command {
    Command::CreateVm(CreateVm { start: true, ..CreateVm::new(name.parse().expect("a name"), "tiny") })
}

fn check(bench: &Bench) {
    let view = bench.view();
    let good = |value: f64| value.is_finite() && value >= 0.0;
    for stats in view.hosts.iter().filter_map(|host| host.stats.as_ref()) {
        let all = [stats.cpu_cores, stats.agent_cpu_cores, stats.net_rx_bytes_s, stats.net_tx_bytes_s];
        assert!(all.into_iter().all(good), "{stats:?}");
    }
    for vm in &view.vms {
        let load = &vm.load;
        let all =
            [load.cpu_cores, load.net_rx_bytes_s, load.net_tx_bytes_s, load.disk_read_bytes_s, load.disk_write_bytes_s];
        assert!(all.into_iter().all(good), "{load:?}");
        assert!(vm.note.len() <= 2000, "a note of {} bytes", vm.note.len());
    }
    assert!(view.hosts.len() == 1 && view.vms.len() <= 2 && view.events.len() <= 100);
    assert!(view.events.iter().all(|event| event.text.chars().count() <= 500));
}

const INVENTORY: &str = r#"{"uuid":"","serial":"","product":"","firmware":"bios","cpu":{"vendor":"","model":"","threads":4,"features":[]},
"memory_mib":4096,"dom0_mib":512,"nics":[],"xen":"","agent":"","image":""}"#;
