//! DHCP on the wire: UDP port 67 of one interface, port 4011 where another server gives out the addresses, and an ear for
//! other servers.
//!
//! Owns: receiving, and getting each reply to its client by the four ways of RFC 2131 §4.1. Never does: decide.
//!
//! A client that has no address yet does not answer ARP, so its unicast reply cannot go through the kernel's IP stack.
//! It leaves as a frame through a packet socket. The other way, writing the client into the kernel's neighbour table
//! (SIOCSARP), would change the state of the whole machine for every packet, and a stranger could fill that table.

mod ear;
mod frame;

use crate::rack_task::{Handle, Stopping};
use ear::Ear;
use nix::sys::socket::{
    AddressFamily, ControlMessage, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrLike, bind, sendmsg,
    sendto, setsockopt, socket, sockopt,
};
use proto::Mac;
use rack::dhcp::{Destination, DhcpReply, MessageKind, Port, decode};
use rack::effect::Answer;
use rack::event::Event;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Packets being decided at once; more wait in the socket's buffer, and beyond that are dropped: their clients ask again.
const UNDER_WAY_MAX: usize = 512;
/// Packets taken from a socket before the others are looked at.
const BURST: usize = 64;
/// Of a socket, bytes; some thousand packets, as a rack that gets its power back asks all at once.
const BUFFER_BYTES: usize = 4 << 20;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// PXE 2.1 §2.2.5.
const BINL_PORT: u16 = 4011;

/// The sockets.
pub struct Dhcp {
    socket: tokio::net::UdpSocket,
    binl: Option<tokio::net::UdpSocket>,
    ear: Ear,
    out: Arc<Out>,
}

/// The ways out.
struct Out {
    udp: UdpSocket,
    binl: Option<UdpSocket>,
    packet: OwnedFd,
    index: u32,
    server: Ipv4Addr,
}

impl Dhcp {
    /// Opens the sockets on an interface (needs CAP_NET_BIND_SERVICE and CAP_NET_RAW). `server` is our address there;
    /// `binl` opens port 4011 as well.
    pub fn open(interface: &str, server: Ipv4Addr, binl: bool) -> io::Result<Self> {
        let udp = udp(interface, SERVER_PORT)?;
        let binl = if binl { Some(self::udp(interface, BINL_PORT)?) } else { None };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Protocol 0: it sends, and receives nothing.
        let packet = socket(AddressFamily::Packet, SockType::Datagram, flags, None)?;
        let index = nix::net::if_::if_nametoindex(interface)?;
        let copy = binl.as_ref().map(UdpSocket::try_clone).transpose()?;
        let out = Arc::new(Out { udp: udp.try_clone()?, binl: copy, packet, index, server });
        Ok(Self {
            socket: tokio::net::UdpSocket::from_std(udp)?,
            binl: binl.map(tokio::net::UdpSocket::from_std).transpose()?,
            ear: Ear::open(index)?,
            out,
        })
    }

    /// Serves until `stop` turns true.
    pub async fn serve(mut self, rack: Handle, mut stop: watch::Receiver<bool>) {
        // A reply has a place before it is made, so there is always room for it here.
        let (replies, leaving) = mpsc::channel(UNDER_WAY_MAX);
        let (out, room) = (self.out.clone(), Arc::new(Semaphore::new(UNDER_WAY_MAX)));
        let sending = async move { out.send_all(leaving).await };
        let receiving = async move {
            let mut packet = [0; 2048];
            loop {
                // Each branch only waits: nothing is lost when another comes first.
                let ready = tokio::select! {
                    ready = self.socket.readable() => ready.map(|()| false),
                    ready = readable(self.binl.as_ref()) => ready.map(|()| true),
                    heard = self.ear.next() => match heard {
                        Ok(reply) => {
                            rack.tell(Event::DhcpHeard { reply });
                            continue;
                        }
                        Err(err) => Err(err),
                    },
                };
                let burst = match ready {
                    Ok(is_binl) => self.take(is_binl, &mut packet, &rack, &room, &replies).await,
                    Err(err) => Err(err),
                };
                match burst {
                    Ok(Ok(())) => {}
                    Ok(Err(Stopping)) => return,
                    Err(err) => {
                        // An interface that is down for a moment; it may come back.
                        tracing::warn!(%err, "receiving DHCP");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::select! {
            () = receiving => {}
            () = sending => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
    }

    /// Hands the packets that have come to one socket to the rack, some at most.
    async fn take(
        &self,
        is_binl: bool,
        into: &mut [u8],
        rack: &Handle,
        room: &Arc<Semaphore>,
        replies: &mpsc::Sender<Leaving>,
    ) -> io::Result<Result<(), Stopping>> {
        let socket = self.binl.as_ref().filter(|_| is_binl).unwrap_or(&self.socket);
        for _ in 0..BURST {
            // Nobody closes it.
            let Ok(place) = room.clone().acquire_owned().await else { return Ok(Err(Stopping)) };
            let (length, from) = match socket.try_recv_from(into) {
                Ok(received) => received,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) => return Err(err),
            };
            let request = match (decode(&into[..length]), from) {
                (Ok(mut request), SocketAddr::V4(from)) => {
                    request.port = if is_binl { Port::Binl { from } } else { Port::Server };
                    request
                }
                // The sockets are IPv4's.
                (Ok(_), SocketAddr::V6(_)) => continue,
                (Err(err), _) => {
                    tracing::debug!(%from, %err, "a packet that is no request");
                    continue;
                }
            };
            let (mac, kind, replies) = (request.mac, request.kind, replies.clone());
            let take = move |answer| {
                if let Answer::Dhcp(Some(reply)) = answer {
                    // It can fail only when nobody sends any more.
                    let _ = replies.try_send(Leaving { reply, mac, kind, _place: place });
                }
            };
            if let Err(stopping) = rack.hand(|reply| Event::Dhcp { reply, request }, take).await {
                return Ok(Err(stopping));
            }
        }
        Ok(Ok(()))
    }
}

/// A reply on its way out, and whom it is for.
struct Leaving {
    reply: DhcpReply,
    mac: Mac,
    kind: MessageKind,
    _place: OwnedSemaphorePermit,
}

/// A UDP socket on one port of one interface, non-blocking.
fn udp(interface: &str, port: u16) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let udp = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&udp, sockopt::ReuseAddr, &true)?;
    setsockopt(&udp, sockopt::Broadcast, &true)?;
    setsockopt(&udp, sockopt::BindToDevice, &OsString::from(interface))?;
    // Beyond the system's limit only with CAP_NET_ADMIN.
    if setsockopt(&udp, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&udp, sockopt::RcvBuf, &BUFFER_BYTES)?;
    }
    bind(udp.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    Ok(UdpSocket::from(udp))
}

/// Waits until something has come to a socket; for ever if there is none.
async fn readable(socket: Option<&tokio::net::UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

impl Out {
    async fn send_all(&self, mut leaving: mpsc::Receiver<Leaving>) {
        while let Some(Leaving { reply, mac, kind, .. }) = leaving.recv().await {
            match self.send(&reply) {
                Ok(()) => tracing::debug!(%mac, ?kind, to = ?reply.to, "answered"),
                Err(err) => tracing::warn!(%mac, to = ?reply.to, %err, "sending a DHCP reply"),
            }
        }
    }

    fn send(&self, reply: &DhcpReply) -> io::Result<()> {
        let (to, port) = match reply.to {
            Destination::Relay(relay) => (relay, SERVER_PORT),
            Destination::Client(client) => (client, CLIENT_PORT),
            Destination::Broadcast => (Ipv4Addr::BROADCAST, CLIENT_PORT),
            Destination::Binl(from) => (*from.ip(), from.port()),
            Destination::Unicast(address, mac) => {
                let from = SocketAddrV4::new(self.server, SERVER_PORT);
                let datagram = frame::datagram(from, SocketAddrV4::new(address, CLIENT_PORT), &reply.packet);
                sendto(self.packet.as_raw_fd(), &datagram, &link_address(self.index, mac.0)?, MsgFlags::empty())?;
                return Ok(());
            }
        };
        // The interface may have several addresses: a client takes no word but from the one it was told.
        let info = nix::libc::in_pktinfo {
            ipi_ifindex: i32::try_from(self.index).map_err(io::Error::other)?,
            ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from(self.server).to_be() },
            ipi_addr: nix::libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(to, port));
        let parts = [IoSlice::new(&reply.packet)];
        let asked_by_binl = matches!(reply.to, Destination::Binl(_));
        let socket = self.binl.as_ref().filter(|_| asked_by_binl).unwrap_or(&self.udp);
        sendmsg(socket.as_raw_fd(), &parts, &[ControlMessage::Ipv4PacketInfo(&info)], MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

/// Where a frame goes: IPv4 to this hardware address on this interface (packet(7)).
fn link_address(index: u32, mac: [u8; 6]) -> io::Result<LinkAddr> {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&mac);
    let raw = nix::libc::sockaddr_ll {
        sll_family: nix::libc::AF_PACKET as u16,
        sll_protocol: (nix::libc::ETH_P_IP as u16).to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    };
    let length = size_of_val(&raw) as u32;
    // SAFETY: `raw` is a whole sockaddr_ll, it lives over the call, and `length` is its length.
    let found = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) };
    found.ok_or_else(|| io::Error::other("a link address was refused"))
}
