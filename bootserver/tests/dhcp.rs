//! DHCP on a wire: each way of RFC 2131 §4.1 by which a reply goes out, seen as frames at the other end of a cable.
//!
//! Needs root and iproute2: the cable is a veth pair in a network namespace of this test's own, gone when its thread ends.

use bootserver::ca::Ca;
use bootserver::config::Config;
use bootserver::dhcp::Dhcp;
use bootserver::rack_task::{Clock, Handle, RackTask};
use bootserver::store::Store;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use rack::Rack;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const CLIENT: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0xbb, 1];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// Longer than any wait here: it only ends a hang.
const HANG: Duration = Duration::from_secs(60);

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).status().expect("iproute2 is installed");
    assert!(done.success(), "ip {args}: this test needs root");
}

/// A raw socket at the client's end of the cable.
fn tap() -> OwnedFd {
    let all = SockProtocol::EthAll;
    let fd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all).expect("a packet socket, as root");
    let index = nix::net::if_::if_nametoindex("client").expect("the cable");
    let at = nix::libc::sockaddr_ll {
        sll_family: nix::libc::AF_PACKET as u16,
        sll_protocol: (nix::libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(index).expect("a small number"),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `at` is a whole sockaddr_ll and lives over the call.
    let bound = unsafe { nix::libc::bind(fd.as_raw_fd(), (&raw const at).cast(), size_of_val(&at) as u32) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("a timeout");
    fd
}

fn sum(bytes: &[u8]) -> u16 {
    let total: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    !((total & 0xffff) + (total >> 16)) as u16
}

/// A client's packet.
struct Packet {
    kind: u8,
    broadcast: bool,
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    options: Vec<u8>,
}

impl Packet {
    fn discover() -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        Self { kind: 1, broadcast: false, ciaddr: none, giaddr: none, options: Vec::new() }
    }

    fn bootp(&self, op: u8, yiaddr: Ipv4Addr) -> Vec<u8> {
        let mut bootp = vec![op, 1, 6, 0, 0, 0, 0, 7, 0, 0, if self.broadcast { 0x80 } else { 0 }, 0];
        bootp.extend(self.ciaddr.octets());
        bootp.extend(yiaddr.octets());
        bootp.extend([0; 4]);
        bootp.extend(self.giaddr.octets());
        bootp.extend(CLIENT);
        bootp.extend([0; 10 + 64 + 128]);
        bootp.extend([99, 130, 83, 99, 53, 1, self.kind]);
        bootp.extend(&self.options);
        bootp.push(255);
        bootp
    }

    /// As a client's card sends it, before it has an address.
    fn frame(&self) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        frame((none, 68), (Ipv4Addr::BROADCAST, 67), &self.bootp(1, none))
    }
}

/// What a PXE client of x64 UEFI sends.
fn uefi() -> Vec<u8> {
    [&[60, 9][..], b"PXEClient", &[93, 2, 0, 7]].concat()
}

/// A datagram in a broadcast frame.
fn frame(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(CLIENT);
    frame.extend([8, 0]);
    let length = (28 + payload.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend(from.0.octets());
    header.extend(to.0.octets());
    let checksum = sum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    frame.extend(header);
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend((length - 20).to_be_bytes());
    frame.extend([0, 0]); // UDP without a checksum
    frame.extend(payload);
    frame
}

/// Asks until a frame comes that `wanted` takes; a client, too, asks again.
fn exchange<T>(tap: &OwnedFd, question: &[u8], wanted: impl Fn(&[u8]) -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < HANG {
        send(tap.as_raw_fd(), question, MsgFlags::empty()).expect("sent");
        let mut frame = [0; 2048];
        while let Ok(length) = recv(tap.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            if let Some(found) = wanted(&frame[..length]) {
                return found;
            }
        }
    }
    panic!("no such frame within {HANG:?}");
}

/// Sends until something has come about, and looks at each frame meanwhile.
fn until(tap: &OwnedFd, question: &[u8], look: impl Fn(&[u8]), done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < HANG, "not within {HANG:?}");
        send(tap.as_raw_fd(), question, MsgFlags::empty()).expect("sent");
        let mut frame = [0; 2048];
        while let Ok(length) = recv(tap.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            look(&frame[..length]);
        }
    }
}

/// Of an IPv4 frame between two ports: its destinations by hardware and by IP, and yiaddr.
fn answer(frame: &[u8], from: u16, to: u16) -> Option<([u8; 6], Ipv4Addr, Ipv4Addr)> {
    let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("four bytes"));
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let is_reply = frame.len() > 14 + 28 + 236 && frame[12..14] == [8, 0] && frame[34..38] == ports;
    if !is_reply {
        return None;
    }
    assert_eq!(ip(26), SERVER, "from the address that clients are told");
    assert_eq!(sum(&frame[14..34]), 0, "IP's checksum");
    assert!(frame.len() >= 14 + 28 + 300, "padded as BOOTP asks");
    Some((frame[..6].try_into().expect("six bytes"), ip(30), ip(14 + 28 + 16)))
}

fn reply(frame: &[u8]) -> Option<([u8; 6], Ipv4Addr, Ipv4Addr)> {
    answer(frame, 67, 68)
}

fn holds(frame: &[u8], what: &[u8]) -> bool {
    frame.windows(what.len()).any(|window| window == what)
}

/// Runs a server with this configuration of subnets at one end of a cable, and `client` at the other.
fn on_a_cable(subnets: &'static str, client: impl FnOnce(OwnedFd, Handle) + Send + 'static) {
    // A thread of its own: what it opens is in its own network namespace.
    let all = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        ip("link set lo up");
        ip("link add server type veth peer name client");
        ip("address add 10.77.0.1/24 dev server");
        ip("link set server up");
        ip("link set client address 52:54:00:aa:bb:01 up");
        let dir = tempfile::tempdir().expect("a directory");
        for sub in ["state", "rel", "load"] {
            fs::create_dir(dir.path().join(sub)).expect("made");
        }
        for name in [
            "rel/xen",
            "rel/xen.efi",
            "rel/vmlinuz",
            "rel/initrd",
            "rel/dom0.squashfs",
            "load/undionly.kpxe",
            "load/ipxe.efi",
        ] {
            fs::write(dir.path().join(name), name).expect("written");
        }
        let text = format!("state: state\ninterface: server\nrelease: rel\nloaders: load\n{subnets}");
        fs::write(dir.path().join("c.yaml"), text).expect("written");
        let config = Config::load(&dir.path().join("c.yaml")).expect("a configuration");

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let tap = tap();
        let (stop, stopped) = watch::channel(false);
        runtime.block_on(async {
            let ca = Arc::new(Ca::open(&config.state).expect("a CA"));
            let (store, records) = Store::open(&config.state).expect("a store");
            let clock = Clock::start();
            let (rack, restored) = Rack::restore(config.policy(ca.digest()), records, clock.now()).expect("a rack");
            let perform = Box::new(|_| panic!("no storage in this test"));
            let (task, rack) = RackTask::new(rack, restored, clock, store, ca, perform).await.expect("a task");
            let dhcp = Dhcp::open(&config.interface, SERVER, config.is_a_proxy()).expect("sockets, as root");
            let handle = rack.clone();
            let clients = std::thread::spawn(move || {
                // Stopped even when the client fails, so that its failure is seen.
                let _stop = Stop(stop);
                client(tap, handle);
            });
            let (served, ran) = tokio::join!(dhcp.serve(rack, stopped.clone()), task.run(stopped));
            ran.expect("a clean end");
            clients.join().expect("the client's part");
            served
        });
    });
    all.join().expect("all was as it should be");
}

struct Stop(watch::Sender<bool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

#[test]
fn every_way_out() {
    let subnets = "subnet: { network: 10.77.0.0/24, address: 10.77.0.1, pool: 10.77.0.50-10.77.0.99 }\n";
    on_a_cable(subnets, |tap, _| {
        let mut packet = Packet::discover();
        let (hardware, to, yiaddr) = exchange(&tap, &packet.frame(), reply);
        assert_eq!((hardware, to), (CLIENT, yiaddr), "to an address that answers no ARP yet");
        assert!((50..=99).contains(&yiaddr.octets()[3]), "{yiaddr}");
        packet.broadcast = true;
        let found = exchange(&tap, &packet.frame(), |frame| reply(frame).filter(|(hardware, ..)| *hardware != CLIENT));
        assert_eq!(
            found,
            ([0xff; 6], Ipv4Addr::BROADCAST, yiaddr),
            "the broadcast flag is heeded, the address is the same"
        );
        // To a relay the kernel sends by itself: it asks for the relay's hardware address.
        packet.giaddr = RELAY;
        exchange(&tap, &packet.frame(), |frame| {
            (frame[12..14] == [8, 6] && frame[38..42] == RELAY.octets()).then_some(())
        });
    });
}

#[test]
fn a_relayed_subnet() {
    let subnets = "subnet: { network: 10.77.0.0/24, address: 10.77.0.1, pool: 10.77.0.50-10.77.0.99 }\n\
                   relayed: [{ network: 10.78.0.0/24, pool: 10.78.0.50-10.78.0.99, gateway: 10.78.0.1 }]\n";
    on_a_cable(subnets, |tap, _| {
        let relay = Ipv4Addr::new(10, 78, 0, 1);
        let circuit = [82, 3, 1, 1, 9];
        let packet = Packet { giaddr: relay, options: circuit.to_vec(), ..Packet::discover() };
        ip("route add 10.78.0.0/24 dev server");
        ip("neigh add 10.78.0.1 lladdr 52:54:00:aa:bb:01 dev server");
        let (to, yiaddr) = exchange(&tap, &packet.frame(), |frame| {
            let (_, to, yiaddr) = answer(frame, 67, 67)?;
            assert!(holds(frame, &circuit), "option 82 comes back");
            Some((to, yiaddr))
        });
        assert_eq!((to, &yiaddr.octets()[..3]), (relay, &[10, 78, 0][..]));
    });
}

#[test]
fn beside_another_server() {
    let subnets = "subnet: { network: 10.77.0.0/24, address: 10.77.0.1, dhcp: proxy }\n";
    on_a_cable(subnets, |tap, rack| {
        let (other, given) = (Ipv4Addr::new(10, 77, 0, 9), Ipv4Addr::new(10, 77, 0, 60));
        let none = Ipv4Addr::UNSPECIFIED;
        ip("neigh add 10.77.0.60 lladdr 52:54:00:aa:bb:01 dev server");
        let mut packet = Packet { broadcast: true, options: uefi(), ..Packet::discover() };
        let (_, to, yiaddr) = exchange(&tap, &packet.frame(), |frame| {
            let found = reply(frame)?;
            assert!(holds(frame, b"PXEClient") && holds(frame, b"ipxe.efi"), "what to boot");
            Some(found)
        });
        assert_eq!((to, yiaddr), (Ipv4Addr::BROADCAST, none), "no address of ours");

        // The other server's offer, as it is heard on the wire.
        let server = [&[54, 4][..], &other.octets()].concat();
        let offer = Packet { kind: 2, options: server.clone(), ..Packet::discover() }.bootp(2, given);
        let offer = frame((other, 67), (Ipv4Addr::BROADCAST, 68), &offer);
        let told = |what: &str| rack.shown().view.events.iter().any(|event| event.text.contains(what));
        until(&tap, &offer, |_| (), || told("the DHCP server 10.77.0.9 gives out addresses"));

        // It is taken: heard, and never answered. Then UEFI asks on port 4011, from its own address.
        packet.kind = 3;
        packet.options = [uefi(), server, [&[50, 4][..], &given.octets()].concat()].concat();
        let no_answer = |frame: &[u8]| {
            let answered = reply(frame).is_some() && !holds(frame, &[53, 1, 2]);
            assert!(!answered, "a proxy neither gives nor refuses addresses");
        };
        until(&tap, &packet.frame(), no_answer, || told("took the address that the DHCP server 10.77.0.9 offered"));
        let binl = Packet { kind: 3, ciaddr: given, options: uefi(), ..Packet::discover() };
        let binl = frame((given, 1068), (SERVER, 4011), &binl.bootp(1, none));
        let (hardware, to, yiaddr) = exchange(&tap, &binl, |frame| {
            no_answer(frame);
            let found = answer(frame, 4011, 1068)?;
            assert!(holds(frame, &[53, 1, 5]) && holds(frame, b"ipxe.efi"), "an ACK with what to boot");
            Some(found)
        });
        assert_eq!((hardware, to, yiaddr), (CLIENT, given, none));
        let shown = rack.shown();
        assert_eq!(shown.view.hosts.iter().map(|host| host.address).collect::<Vec<_>>(), [Some(given)]);
    });
}
