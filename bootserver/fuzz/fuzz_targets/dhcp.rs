//! Packets in any order against a rack in either mode: nothing panics, replies keep to the protocol, no address is
//! given twice, and a proxy never gives or refuses one.

#![no_main]

use fuzz::{Bench, Input, policy};
use libfuzzer_sys::fuzz_target;
use rack::dhcp::{BootRequest, DhcpReply, Port, decode, decode_reply};
use rack::effect::Answer;
use rack::event::Event;
use rack::policy::Serves;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

/// What a client may be sent, bytes: BOOTP's least (RFC 1542 §2.1), and what fits an Ethernet frame.
const PACKET_BYTES: std::ops::RangeInclusive<usize> = 300..=1472;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let modes = input.byte();
    let mode = |bit: u8| if modes & bit == 0 { Serves::Full } else { Serves::Proxy };
    let (near, far) = (mode(1), mode(2));
    let mut bench = Bench::new(policy(near, far)).expect("a good policy");
    while !input.0.is_empty() {
        match input.byte() % 8 {
            0..=3 => {
                if let Ok(request) = decode(input.piece()) {
                    ask(&mut bench, request, near, far);
                }
            }
            4 => {
                let from = SocketAddrV4::new(Ipv4Addr::new(10, 76 + input.byte() % 4, 0, input.byte()), 68);
                if let Ok(mut request) = decode(input.piece()) {
                    request.port = Port::Binl { from };
                    ask(&mut bench, request, near, far);
                }
            }
            5 => {
                if let Ok(reply) = decode_reply(input.piece()) {
                    bench.tell(Event::DhcpHeard { reply });
                }
            }
            _ => bench.after(u64::from(input.byte()) * 10_000),
        }
    }
});

fn ask(bench: &mut Bench, request: BootRequest, near: Serves, far: Serves) {
    let Answer::Dhcp(answer) = bench.ask(|reply| Event::Dhcp { reply, request: request.clone() }) else {
        panic!("not an answer to a DHCP packet");
    };
    let Some(DhcpReply { packet, .. }) = answer else { return };
    assert!(PACKET_BYTES.contains(&packet.len()), "{} bytes", packet.len());
    assert_eq!((packet[0], &packet[4..8]), (2, &request.xid.to_be_bytes()[..]));
    assert_eq!(packet[28..34], request.mac.0);
    let said = decode_reply(&packet).expect("our own reply can be read");
    assert_eq!(said.server, Some(Ipv4Addr::new(10, 77, 0, 1)));
    if (near, far) == (Serves::Proxy, Serves::Proxy) {
        assert_eq!(said.address, None, "a proxy gives no address");
        assert_ne!(said.kind, rack::dhcp::ServerKind::Nak, "a proxy refuses nothing");
    }
    if let Some(address) = said.address {
        let [a, b, c, d] = address.octets();
        assert!(a == 10 && (b == 77 || b == 78) && c == 0 && (50..=59).contains(&d), "{address} is of no pool");
    }
    let all = bench.addresses();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "an address twice");
}
