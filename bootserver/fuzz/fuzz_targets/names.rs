//! TFTP file names, paths of boot scripts, and ranges: whatever is asked for, what is understood is harmless.

#![no_main]

use fuzz::{Bench, Input, policy};
use libfuzzer_sys::fuzz_target;
use rack::effect::Answer;
use rack::event::{Entropy, Event};
use rack::names;
use rack::policy::Serves;
use range::{Part, part};
use std::net::Ipv4Addr;

#[path = "../../src/boot_http/range.rs"]
mod range;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => {
            let file = names::tftp_file(&String::from_utf8_lossy(input.0));
            assert!(!file.contains('\\') && !file.ends_with('\u{fffd}'));
        }
        1 => {
            let path = String::from_utf8_lossy(input.0);
            let Some((mac, kind)) = names::script(&path) else { return };
            // Only a MAC and a known end: nothing in between is let through.
            assert!((17 + 5..=17 + 9).contains(&path.len()), "{path:?}");
            let mut bench = Bench::new(policy(Serves::Proxy, Serves::Full)).expect("a good policy");
            let (from, entropy) = (Ipv4Addr::new(10, 77, 0, 60), Entropy([7; 32]));
            let answer = bench.ask(|reply| Event::Script { reply, mac, from, kind, entropy });
            assert!(matches!(answer, Answer::Script(Err(_))), "it never asked to boot");
        }
        _ => {
            let bytes = u64::from_be_bytes(std::array::from_fn(|_| input.byte()));
            if let Part::Bytes { first, last } = part(Some(&String::from_utf8_lossy(input.0)), bytes) {
                assert!(first <= last && last < bytes);
            }
        }
    }
});
