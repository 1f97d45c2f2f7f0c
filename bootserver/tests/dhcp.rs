//! DHCP on a wire: each way of RFC 2131 §4.1 by which a reply goes out, seen as frames at the other end of a cable.
//!
//! Needs root and iproute2: the cable is a veth pair in a network namespace of this test's own, gone when its thread ends.

use bootserver::ca::Ca;
use bootserver::config::Config;
use bootserver::dhcp::Dhcp;
use bootserver::rack_task::{Clock, RackTask};
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

/// A DISCOVER as a client's card sends it, in its frame.
fn discover(broadcast: bool, giaddr: Ipv4Addr) -> Vec<u8> {
    let mut bootp = vec![1, 1, 6, 0, 0, 0, 0, 7, 0, 0, if broadcast { 0x80 } else { 0 }, 0];
    bootp.extend([0; 12]);
    bootp.extend(giaddr.octets());
    bootp.extend(CLIENT);
    bootp.extend([0; 10 + 64 + 128]);
    bootp.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    let mut frame = vec![0xff; 6];
    frame.extend(CLIENT);
    frame.extend([8, 0]);
    let length = (28 + bootp.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    let checksum = sum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    frame.extend(header);
    frame.extend([0, 68, 0, 67]);
    frame.extend((length - 20).to_be_bytes());
    frame.extend([0, 0]); // UDP without a checksum
    frame.extend(bootp);
    frame
}

/// Asks until a frame comes that `wanted` takes; a client, too, asks again.
fn exchange<T>(tap: &OwnedFd, question: &[u8], wanted: impl Fn(&[u8]) -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        send(tap.as_raw_fd(), question, MsgFlags::empty()).expect("sent");
        let mut frame = [0; 2048];
        while let Ok(length) = recv(tap.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            if let Some(found) = wanted(&frame[..length]) {
                return found;
            }
        }
    }
    panic!("no such frame within 10 s");
}

/// Of an IPv4 frame from port 67 to port 68: its destinations by hardware and by IP, and yiaddr.
fn reply(frame: &[u8]) -> Option<([u8; 6], Ipv4Addr, Ipv4Addr)> {
    let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("four bytes"));
    let is_reply = frame.len() > 14 + 28 + 236 && frame[12..14] == [8, 0] && frame[34..38] == [0, 67, 0, 68];
    if !is_reply {
        return None;
    }
    assert_eq!(ip(26), SERVER, "from the address that clients are told");
    assert_eq!(sum(&frame[14..34]), 0, "IP's checksum");
    assert!(frame.len() >= 14 + 28 + 300, "padded as BOOTP asks");
    Some((frame[..6].try_into().expect("six bytes"), ip(30), ip(14 + 28 + 16)))
}

#[test]
fn every_way_out() {
    // A thread of its own: what it opens is in its own network namespace.
    std::thread::spawn(|| {
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
        for name in ["rel/xen", "rel/xen.efi", "rel/vmlinuz", "rel/dom0.img", "load/undionly.kpxe", "load/ipxe.efi"] {
            fs::write(dir.path().join(name), name).expect("written");
        }
        let text = "state: state\ninterface: server\nrelease: rel\nloaders: load\n\
                    subnet: { network: 10.77.0.0/24, address: 10.77.0.1, pool: 10.77.0.50-10.77.0.99 }\n";
        fs::write(dir.path().join("c.yaml"), text).expect("written");
        let config = Config::load(&dir.path().join("c.yaml")).expect("a configuration");

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let tap = tap();
        let (stop, stopped) = watch::channel(false);
        let clients = std::thread::spawn(move || {
            let none = Ipv4Addr::UNSPECIFIED;
            let (hardware, to, yiaddr) = exchange(&tap, &discover(false, none), reply);
            assert_eq!((hardware, to), (CLIENT, yiaddr), "to an address that answers no ARP yet");
            assert!((50..=99).contains(&yiaddr.octets()[3]), "{yiaddr}");
            let found = exchange(&tap, &discover(true, none), |frame| {
                reply(frame).filter(|(hardware, ..)| *hardware != CLIENT)
            });
            assert_eq!(
                found,
                ([0xff; 6], Ipv4Addr::BROADCAST, yiaddr),
                "the broadcast flag is heeded, the address is the same"
            );
            // To a relay the kernel sends by itself: it asks for the relay's hardware address.
            exchange(&tap, &discover(false, RELAY), |frame| {
                (frame[12..14] == [8, 6] && frame[38..42] == RELAY.octets()).then_some(())
            });
            stop.send_replace(true);
        });
        runtime.block_on(async {
            let ca = Arc::new(Ca::open(&config.state).expect("a CA"));
            let (store, records) = Store::open(&config.state).expect("a store");
            let clock = Clock::start();
            let (rack, restored) = Rack::restore(config.policy(ca.digest()), records, clock.now()).expect("a rack");
            let perform = Box::new(|_| panic!("no storage in this test"));
            let (task, rack) = RackTask::new(rack, restored, clock, store, ca, perform).await.expect("a task");
            let dhcp = Dhcp::open(&config.interface, SERVER).expect("sockets, as root");
            let (served, ran) = tokio::join!(dhcp.serve(rack, stopped.clone()), task.run(stopped));
            ran.expect("a clean end");
            served
        });
        clients.join().expect("the client's part");
    })
    .join()
    .expect("all was as it should be");
}
