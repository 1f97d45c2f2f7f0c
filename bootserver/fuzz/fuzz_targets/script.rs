//! Boot scripts from any configuration that is let through: each line is one that we wrote, and iPXE holds it.

#![no_main]

use fuzz::{Bench, Input, policy};
use libfuzzer_sys::fuzz_target;
use proto::Mac;
use rack::effect::Answer;
use rack::event::{Entropy, Event, ScriptKind};
use rack::policy::Serves;
use rack::script::BIOS_BYTES_MAX;

/// What a line of a script may begin with.
const COMMANDS: [&str; 11] =
    ["#!ipxe", "kernel ", "module ", "initrd ", "boot ", ":again", "echo ", "sleep ", "imgfree", "chain ", ""];

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut policy = policy(Serves::Full, Serves::Full);
    let kinds = [ScriptKind::IpxeBios, ScriptKind::IpxeUefi, ScriptKind::XenCfg, ScriptKind::Words];
    let kind = kinds[usize::from(input.byte() % 4)];
    let mut mac = Mac(std::array::from_fn(|_| input.byte()));
    mac.0[0] = mac.0[0] & 0xfe | 2;
    let entropy = Entropy([input.byte(); 32]);
    for text in [&mut policy.dom0.xen_args, &mut policy.dom0.kernel_args, &mut policy.subnet.ca_digest] {
        *text = input.text();
    }
    if input.byte() & 1 != 0 {
        policy.subnet.gateway = None;
    }
    let Some(mut bench) = Bench::new(policy) else { return };
    let from = bench.lease(mac);
    let Answer::Script(Ok(script)) = bench.ask(|reply| Event::Script { reply, mac, from, kind, entropy }) else {
        panic!("a machine with a lease gets its script");
    };
    assert!(script.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)), "{script:?}");
    let lines: Vec<&str> = script.lines().collect();
    match kind {
        ScriptKind::XenCfg => assert_eq!(lines.len(), 7, "{script}"),
        ScriptKind::Words => assert_eq!(lines.len(), 1, "{script}"),
        ScriptKind::IpxeBios | ScriptKind::IpxeUefi => {
            assert_eq!(lines[0], "#!ipxe");
            assert!(lines.iter().all(|line| COMMANDS.iter().any(|command| line.starts_with(command))), "{script}");
            assert_eq!(lines.len(), if kind == ScriptKind::IpxeBios { 10 } else { 11 }, "{script}");
        }
    }
    if kind == ScriptKind::IpxeBios {
        let held = |line: &&str| line.starts_with("kernel ") || line.starts_with("module ");
        let bytes: usize = lines.iter().filter(|line| held(line)).map(|l| l.len() - "kernel ".len() + 1 - END).sum();
        assert!(bytes <= BIOS_BYTES_MAX, "{bytes} bytes: {script}");
    }
});

/// What stands behind each line that loads something.
const END: usize = " || goto again".len();
