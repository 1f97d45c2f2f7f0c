//! Join requests of strangers, as JSON: nothing panics, what is kept of them is bounded, and a certificate is issued only to the first key
//! that spends a nonce, from the machine's own lease, once it is accepted.

#![no_main]

use fuzz::{Bench, Input, policy};
use libfuzzer_sys::fuzz_target;
use proto::agent::{JoinRefusal, JoinRequest};
use proto::{HostId, Mac};
use rack::effect::{Answer, JoinDecision};
use rack::event::{Command, Event};
use rack::policy::{AcceptRule, JoinMode, Serves};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const MACHINE: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 1]);
/// What is shown of one machine, as JSON, at most: each text and list of its inventory is cut.
const SHOWN_BYTES_MAX: usize = 256 << 10;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut policy = policy(Serves::Full, Serves::Full);
    policy.join = [JoinMode::Manual, JoinMode::Known, JoinMode::All][usize::from(input.byte() % 3)];
    // Who says that it is one of these is let in.
    policy.accept = vec![AcceptRule {
        product: Some("Z*".to_owned()),
        name: Some("z-{serial}{n}".to_owned()),
        ..AcceptRule::default()
    }];
    let mut accepted = policy.join == JoinMode::All;
    let mut bench = Bench::new(policy).expect("a good policy");
    let host = HostId::of(MACHINE);
    let lease = bench.lease(MACHINE);
    // Nonces that were given out, oldest first, and the key that has spent each.
    let mut nonces = vec![bench.nonce(MACHINE, lease, 0)];
    let mut spent: BTreeMap<String, String> = BTreeMap::new();
    while !input.0.is_empty() {
        match input.byte() % 8 {
            0..=3 => {
                let how = input.byte();
                let Ok(mut request) = serde_json::from_slice::<JoinRequest>(input.piece()) else { continue };
                if how & 1 == 0 {
                    request.host = host.clone();
                }
                if how & 2 == 0 {
                    request.nonce.clone_from(&nonces[usize::from(how >> 5) % nonces.len()]);
                }
                let from = if how & 4 == 0 { lease } else { Ipv4Addr::new(10, 77, 0, 200) };
                let key = format!("key-{}", how >> 3 & 3);
                let right = request.host == host && nonces.contains(&request.nonce) && from == lease;
                let nonce = request.nonce.clone();
                accepted |= right && request.inventory.product.to_lowercase().starts_with('z');
                let answer = bench.ask(|reply| Event::Join { reply, request, key: key.clone(), from });
                let Answer::Join(decision) = answer else { panic!("another answer") };
                // Who is not known has spent the nonce all the same: an operator may let it in later.
                if matches!(&decision, JoinDecision::Refused(why) if *why != JoinRefusal::NotKnown) {
                    continue;
                }
                assert!(right, "a stranger's join is heard");
                assert_eq!(*spent.entry(nonce).or_insert(key.clone()), key, "another's nonce");
                if let JoinDecision::Issue { host: named, address, .. } = decision {
                    assert!(accepted, "nobody has let it in");
                    assert_eq!((&named, address), (&host, lease));
                }
            }
            4 => {
                let key = format!("key-{}", input.byte() & 3);
                let answer = bench.ask(|reply| Event::JoinPoll { reply, key: key.clone() });
                if let Answer::Join(JoinDecision::Issue { .. }) = answer {
                    assert!(accepted && spent.values().any(|by| *by == key), "a key that has not joined");
                }
            }
            5 => {
                let host = host.clone();
                bench.ask(|reply| Event::Operator { reply, command: Command::AcceptHost { host } });
                accepted = true;
            }
            6 => bench.after(u64::from(input.byte()) * 10),
            // It begins anew.
            _ if nonces.len() < 8 => {
                bench.after(61_000);
                bench.lease(MACHINE);
                let byte = u8::try_from(nonces.len()).expect("few");
                let nonce = bench.nonce(MACHINE, lease, byte);
                if !nonces.contains(&nonce) {
                    nonces.push(nonce);
                }
            }
            _ => {}
        }
    }
    let shown = serde_json::to_vec(&bench.view().hosts).expect("plain data");
    assert!(shown.len() <= SHOWN_BYTES_MAX, "{} bytes are shown of one machine", shown.len());
});
