//! Whole exchanges with the rack: both modes, relays, other servers, and strangers without end.

use crate::Rack;
use crate::dhcp::{BootRequest, Destination, MessageKind, Port, ServerKind, ServerReply};
use crate::effect::{Answer, Effect, JoinDecision, ScriptRefusal};
use crate::event::{Command, Event};
use crate::host::UNKNOWN_HOSTS_MAX;
use crate::log::EVENTS_KEPT;
use crate::policy::{Policy, Serves, Subnet};
use crate::record::{Change, Kind, Loaded};
use crate::testing::{Bench, alive, inventory, ipxe, mac, nonce, policy, subnet, yiaddr};
use proto::agent::JoinRequest;
use proto::api::RegisterHost;
use proto::host::{Inventory, Nic};
use proto::{HostId, Mac};
use std::net::{Ipv4Addr, SocketAddrV4};

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn proxied() -> Policy {
    let range = (ip(1), ip(254));
    Policy { subnet: Subnet { serves: Serves::Proxy, pool: range, ..subnet() }, ..policy() }
}

/// Beside `proxied` or `policy`, a network that is reached through a relay.
fn with_far(near: Policy, serves: Serves) -> Policy {
    let far = Subnet {
        serves,
        network: Ipv4Addr::new(10, 78, 0, 0),
        pool: (Ipv4Addr::new(10, 78, 0, 50), Ipv4Addr::new(10, 78, 0, 99)),
        gateway: Some(Ipv4Addr::new(10, 78, 0, 1)),
        ..subnet()
    };
    Policy { relayed: vec![far], ..near }
}

fn log(bench: &Bench) -> Vec<String> {
    bench.rack.events(0, 1000).into_iter().map(|event| event.text).collect()
}

fn says(bench: &Bench, what: &str) -> bool {
    log(bench).iter().any(|text| text.contains(what))
}

/// What a client sends when it takes another server's offer.
fn takes(mac: Mac, server: Ipv4Addr, address: Ipv4Addr, change: impl Fn(&mut BootRequest)) -> BootRequest {
    let mut request = BootRequest::plain(mac, 7, MessageKind::Request);
    change(&mut request);
    (request.server, request.requested) = (Some(server), Some(address));
    request
}

fn discover(mac: Mac, change: impl Fn(&mut BootRequest)) -> BootRequest {
    let mut request = BootRequest::plain(mac, 7, MessageKind::Discover);
    change(&mut request);
    request
}

#[test]
fn a_machine_boots_beside_another_server() {
    let mut bench = Bench::new(proxied());
    let offer = bench.dhcp(discover(mac(1), ipxe)).expect("what to boot");
    assert_eq!((yiaddr(&offer), offer.to), (Ipv4Addr::UNSPECIFIED, Destination::Broadcast));
    assert_eq!(bench.script(mac(1), ip(1), 1), Err(ScriptRefusal::NoLease { mac: mac(1) }), "our own address");
    assert_eq!(bench.dhcp(takes(mac(1), OTHER, ip(60), ipxe)), None, "it is not ours to say");
    assert!(says(&bench, "52:54:00:aa:bb:01 took the address that the DHCP server 10.77.0.9 offered"));
    let script = bench.script(mac(1), ip(60), 1).expect("a script");
    assert!(script.contains("tsubame.ip=10.77.0.60/24"), "{script}");
    assert!(matches!(bench.script(mac(1), ip(61), 1), Err(ScriptRefusal::OtherAddress { .. })));
    let joined = bench.join(mac(1), ip(60), &nonce(&script), "k");
    assert!(matches!(joined, JoinDecision::Issue { address, .. } if address == ip(60)), "{joined:?}");
    // Another machine cannot take the address of one that is there.
    bench.report(mac(1), "k", crate::testing::alive(&nonce(&script), 1));
    bench.dhcp(discover(mac(2), ipxe));
    bench.dhcp(takes(mac(2), OTHER, ip(60), ipxe));
    assert_eq!(bench.rack.leases.address_of(mac(1)), Some(ip(60)));
    // What is forgotten takes its address with it.
    bench.operator(Command::RemoveHost { host: HostId::of(mac(1)) }).expect("removed");
    assert_eq!(bench.rack.leases.address_of(mac(1)), None);
}

#[test]
fn a_machine_whose_request_was_not_heard_is_known_by_where_it_asks_from() {
    let mut bench = Bench::new(proxied());
    assert!(bench.script(mac(1), ip(60), 1).is_err(), "it never asked to boot");
    bench.dhcp(discover(mac(1), ipxe));
    assert!(bench.script(mac(1), Ipv4Addr::new(192, 0, 2, 1), 1).is_err(), "from outside");
    assert!(bench.script(mac(1), ip(60), 1).is_ok());
    bench.dhcp(discover(mac(2), ipxe));
    assert!(bench.after(301_000).script(mac(2), ip(61), 1).is_err(), "too long ago");
}

#[test]
fn what_was_learnt_does_not_outlive_the_other_server() {
    let mut bench = Bench::new(proxied());
    bench.dhcp(discover(mac(1), ipxe));
    let effects = bench.ask(|reply| Event::Dhcp { reply, request: takes(mac(1), OTHER, ip(60), ipxe) }).1;
    let records = effects.into_iter().filter_map(|effect| match effect {
        Effect::Commit(Change { key, expect, to: Some(record) }) if key.kind == Kind::Lease => {
            Some(Loaded { key, version: expect + 1, record })
        }
        _ => None,
    });
    let pool = (ip(60), ip(60));
    let ours = Policy { subnet: Subnet { pool, ..subnet() }, ..policy() };
    (bench.rack, _) = Rack::restore(ours, records.collect(), bench.now).expect("a lease");
    assert_eq!(bench.lease(mac(1), ipxe), Some(ip(60)), "it keeps its address while nobody needs it");
    assert_eq!(bench.after(1).lease(mac(2), ipxe), None);
    assert_eq!(bench.after(1_200_001).lease(mac(2), ipxe), Some(ip(60)), "and has it no longer than any lease");
}

#[test]
fn uefi_asks_on_port_4011() {
    let mut bench = Bench::new(proxied());
    let uefi = |request: &mut BootRequest| request.architectures = vec![7];
    bench.dhcp(discover(mac(1), uefi));
    let from = SocketAddrV4::new(ip(60), 68);
    let mut request = BootRequest::plain(mac(1), 9, MessageKind::Request);
    uefi(&mut request);
    (request.port, request.ciaddr) = (Port::Binl { from }, ip(60));
    let ack = bench.dhcp(request).expect("what to boot");
    assert_eq!(ack.to, Destination::Binl(from));
    assert_eq!(bench.rack.leases.address_of(mac(1)), Some(ip(60)));
}

#[test]
fn a_proxy_says_nothing_of_addresses() {
    let mut bench = Bench::new(proxied());
    for kind in
        [MessageKind::Discover, MessageKind::Request, MessageKind::Inform, MessageKind::Release, MessageKind::Decline]
    {
        let mut request = BootRequest::plain(mac(1), 1, kind);
        request.ciaddr = ip(60);
        assert_eq!(bench.dhcp(request.clone()), None, "{kind:?}");
        (request.ciaddr, request.requested) = (Ipv4Addr::UNSPECIFIED, Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(bench.dhcp(request), None, "{kind:?}");
    }
    bench.operator(Command::RegisterHost(RegisterHost { mac: mac(1), name: None })).expect("registered");
    assert_eq!(bench.rack.leases.table.len(), 0);
}

#[test]
fn relayed_requests_find_their_subnet() {
    let relay = Ipv4Addr::new(10, 78, 0, 1);
    let far = |request: &mut BootRequest| (request.giaddr, request.relay_info) = (relay, Some(vec![1, 1, 9]));
    let mut bench = Bench::new(with_far(policy(), Serves::Full));
    let address = bench.lease(mac(1), far).expect("an address");
    assert_eq!(address.octets()[..3], [10, 78, 0]);
    let offer = bench.dhcp(discover(mac(2), far)).expect("an offer");
    assert_eq!(offer.to, Destination::Relay(relay));
    assert!(offer.packet.windows(5).any(|w| w == [82, 3, 1, 1, 9]), "option 82 comes back");
    assert!(offer.packet.windows(6).any(|w| w == [3, 4, 10, 78, 0, 1]), "and the gateway is theirs");
    // The relay's address is of our own network, and its word names the other (RFC 3527).
    let selected = |request: &mut BootRequest| {
        (request.giaddr, request.link) = (ip(3), Some(Ipv4Addr::new(10, 78, 0, 0)));
    };
    assert_eq!(bench.lease(mac(3), selected).expect("an address").octets()[..3], [10, 78, 0]);
    let elsewhere = |request: &mut BootRequest| request.giaddr = Ipv4Addr::new(10, 79, 0, 1);
    assert_eq!(bench.dhcp(discover(mac(4), elsewhere)), None);
    assert!(says(&bench, "10.79.0.1 is not of this subnet"));
    // A renewal comes straight from the client, through a router.
    let mut renewal = BootRequest::plain(mac(1), 8, MessageKind::Request);
    renewal.ciaddr = address;
    assert_eq!(yiaddr(&bench.dhcp(renewal).expect("an answer")), address);
    // Carried home, it gets an address of here.
    assert_eq!(bench.lease(mac(1), |_| ()).expect("an address").octets()[..3], [10, 77, 0]);
}

#[test]
fn each_subnet_has_its_own_mode_and_its_hosts_their_own_gateway() {
    let far = |request: &mut BootRequest| {
        ipxe(request);
        request.giaddr = Ipv4Addr::new(10, 78, 0, 1);
    };
    let mut bench = Bench::new(with_far(policy(), Serves::Proxy));
    assert!(bench.lease(mac(1), ipxe).is_some());
    let offer = bench.dhcp(discover(mac(2), far)).expect("what to boot");
    assert_eq!(yiaddr(&offer), Ipv4Addr::UNSPECIFIED);
    let address = Ipv4Addr::new(10, 78, 0, 60);
    bench.dhcp(takes(mac(2), Ipv4Addr::new(10, 78, 0, 9), address, far));
    let script = bench.script(mac(2), address, 1).expect("a script");
    assert!(script.contains("tsubame.ip=10.78.0.60/24 tsubame.gw=10.78.0.1 tsubame.server=10.77.0.1:7443"), "{script}");
    let mut bench = Bench::new(with_far(proxied(), Serves::Full));
    assert_eq!(bench.lease(mac(2), far).map(|address| address.octets()[1]), Some(78));
    assert_eq!(bench.dhcp(discover(mac(1), ipxe)).map(|offer| yiaddr(&offer)), Some(Ipv4Addr::UNSPECIFIED));
}

#[test]
fn another_server_is_named_in_the_log_with_whose_offer_won() {
    let mut bench = Bench::new(policy());
    let reply =
        ServerReply { mac: mac(1), kind: ServerKind::Offer, server: Some(OTHER), address: Some(ip(200)), boots: false };
    bench.apply(Event::DhcpHeard { reply: ServerReply { server: Some(ip(1)), ..reply } });
    assert_eq!(log(&bench), Vec::<String>::new(), "that was our own");
    bench.apply(Event::DhcpHeard { reply });
    assert!(says(&bench, "another DHCP server, 10.77.0.9, offers 52:54:00:aa:bb:01 the address 10.77.0.200"));
    bench.lease(mac(1), ipxe);
    assert!(says(&bench, "took our offer and not that of the other DHCP server, 10.77.0.9"));
    assert_eq!(bench.dhcp(takes(mac(2), OTHER, ip(201), ipxe)), None);
    assert!(says(&bench, "52:54:00:aa:bb:02 took the offer of another DHCP server, 10.77.0.9, and not ours"));
}

#[test]
fn no_image_for_an_architecture() {
    let arm = |request: &mut BootRequest| {
        request.architectures = vec![11];
        request.class = Some(b"PXEClient:Arch:00011:UNDI:003000".to_vec());
    };
    for policy in [policy(), proxied()] {
        let mut bench = Bench::new(policy);
        let offer = bench.dhcp(discover(mac(1), arm)).expect("a menu that waits");
        let text = b"No image for this architecture: ARM 64-bit UEFI (11)";
        assert!(offer.packet.windows(text.len()).any(|w| w == text));
        assert_eq!(offer.packet[108], 0, "no file");
        assert!(says(&bench, "no image for this architecture, ARM 64-bit UEFI (11)"));
        assert_eq!(bench.rack.hosts.len(), 0, "no host is made of it");
        let http = |request: &mut BootRequest| {
            request.architectures = vec![19];
            request.class = Some(b"HTTPClient:Arch:00019:UNDI:003000".to_vec());
        };
        assert_eq!(bench.after(61_000).dhcp(discover(mac(2), http)), None);
        assert!(says(&bench, "no image for this architecture, ARM 64-bit UEFI HTTP (19)"));
    }
}

#[test]
fn inform_release_decline() {
    let mut bench = Bench::new(policy());
    let address = bench.lease(mac(1), |_| ()).expect("an address");
    let mut request = BootRequest::plain(mac(1), 0xabcd_ef01, MessageKind::Inform);
    (request.ciaddr, request.secs) = (address, 99);
    let ack = bench.dhcp(request.clone()).expect("options");
    assert_eq!((ack.to, yiaddr(&ack)), (Destination::Client(address), Ipv4Addr::UNSPECIFIED));
    assert_eq!(ack.packet[4..10], [0xab, 0xcd, 0xef, 1, 0, 0], "xid as it came, secs 0");
    assert!(!ack.packet.windows(2).any(|w| w == [51, 4]), "no lease time (RFC 2131 §4.3.5)");
    request.kind = MessageKind::Release;
    assert_eq!(bench.dhcp(request.clone()), None);
    assert_eq!(bench.lease(mac(1), |_| ()), Some(address), "and the same again while it is free");
    let mut decline = BootRequest::plain(mac(1), 1, MessageKind::Decline);
    decline.requested = Some(address);
    assert_eq!(bench.dhcp(decline), None);
    assert_ne!(bench.lease(mac(1), |_| ()).expect("another"), address);
    assert_eq!(bench.rack.leases.quarantine.len(), 1);
    bench.after(600_001).apply(Event::Tick);
    assert_eq!(bench.rack.leases.quarantine.len(), 0);
}

#[test]
fn a_machine_that_is_up_keeps_its_address_whatever_is_reserved_or_asked() {
    let mut bench = Bench::new(with_far(policy(), Serves::Full));
    let boot = bench.boot(mac(1), "k", 1);
    bench.report(mac(1), "k", alive(&boot, 1));
    let own = bench.rack.leases.address_of(mac(1)).expect("an address");
    bench.rack.policy.subnet.reservations.insert(mac(1), ip(12));
    bench.rack.lease_ahead(mac(1), bench.now);
    assert_eq!(bench.rack.leases.address_of(mac(1)), Some(own), "dom0 has it until the next boot");
    let far = |request: &mut BootRequest| request.giaddr = Ipv4Addr::new(10, 78, 0, 1);
    assert_eq!(bench.lease(mac(1), far), None, "a packet from another network");
    assert_eq!(bench.lease(mac(1), ipxe), Some(own), "and it boots anew at once with its own");
    bench.after(15_001).apply(Event::Tick);
    assert_eq!(bench.lease(mac(1), ipxe), Some(ip(12)), "it is no longer up");
}

#[test]
fn all_cards_of_a_machine_are_one_host_with_one_address() {
    let mut bench = Bench::new(policy());
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let turned = [0, 0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    let address = bench.lease(mac(1), ipxe).expect("an address");
    let first = nonce(&bench.script(mac(1), address, 1).expect("a script"));
    let nic = |last| Nic { mac: mac(last), driver: "e1000".to_owned(), link: true, speed_mbit: None };
    let inventory = Inventory { uuid: uuid.to_owned(), nics: vec![nic(1), nic(2)], ..inventory() };
    let request = JoinRequest { host: HostId::of(mac(1)), nonce: first.clone(), csr_pem: "CSR".to_owned(), inventory };
    let joined = bench.answer(|reply| Event::Join { reply, request, key: "k".to_owned(), from: address });
    assert!(matches!(joined, Answer::Join(JoinDecision::Issue { .. })));

    // Its other card, by ROM and by iPXE, with the identifier in the order of each.
    let rom = |request: &mut BootRequest| {
        request.architectures = vec![0];
        request.machine_id = Some(turned.to_vec());
    };
    assert_eq!(bench.after(100_000).lease(mac(2), rom), Some(address));
    let loader = |request: &mut BootRequest| {
        ipxe(request);
        request.machine_id = Some([&[0][..], &0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes()].concat());
    };
    assert_eq!(bench.lease(mac(2), loader), Some(address));
    let script = bench.script(mac(2), address, 2).expect("a script");
    assert!(script.contains("tsubame.host=h525400aabb01 tsubame.mac=52:54:00:aa:bb:02"), "{script}");
    assert_eq!(bench.rack.hosts.len(), 1);

    // A card that was moved to another machine is not the first machine's any more.
    let moved = |request: &mut BootRequest| {
        ipxe(request);
        request.machine_id = Some([&[0][..], &[7; 16]].concat());
    };
    assert_ne!(bench.lease(mac(2), moved), Some(address));
    assert_eq!(bench.rack.hosts.len(), 2);
    // And one identifier for many boards does not make them one.
    assert_ne!(bench.lease(mac(3), loader), Some(address));
}

/// xorshift64*: the same strangers every time.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[test]
fn a_million_strangers_leave_every_known_machine_served() {
    const KNOWN: u8 = 20;
    const STRANGERS: u32 = 1_000_000;
    let mut bench = Bench::new(policy());
    let pool = 50;
    let mut addresses = Vec::new();
    for n in 0..KNOWN {
        bench.operator(Command::RegisterHost(RegisterHost { mac: mac(n), name: None })).expect("registered");
        addresses.push(bench.lease(mac(n), ipxe).expect("an address"));
    }
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x7375_6261);
    println!("SEED={seed}");
    let mut state = seed;
    for n in 0..STRANGERS {
        let bytes = next(&mut state).to_be_bytes();
        let stranger = Mac([bytes[0] & 0xfe | 2, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]);
        let boots = n % 16 == 0;
        let leased = bench.after(1).lease(stranger, |request| {
            if boots {
                ipxe(request)
            }
        });
        if n % 64 == 0
            && let Some(address) = leased
        {
            let mut decline = BootRequest::plain(stranger, 1, MessageKind::Decline);
            decline.requested = Some(address);
            bench.dhcp(decline);
        }
        if n % 1000 == 0 {
            bench.apply(Event::Tick);
            let known = usize::from(n as u8 % KNOWN);
            assert_eq!(bench.lease(mac(known as u8), ipxe), Some(addresses[known]), "after {n} strangers");
            let rack = &bench.rack;
            let hosts = UNKNOWN_HOSTS_MAX + usize::from(KNOWN);
            assert!(rack.hosts.len() <= hosts && rack.live.len() <= hosts, "hosts, after {n}");
            assert!(rack.leases.sizes().iter().all(|&size| size <= pool), "{:?}, after {n}", rack.leases.sizes());
            assert!(rack.log.table.len() <= EVENTS_KEPT + 500, "log, after {n}");
        }
    }
    for n in 0..KNOWN {
        assert_eq!(bench.lease(mac(n), ipxe), Some(addresses[usize::from(n)]), "machine {n}");
    }
}
