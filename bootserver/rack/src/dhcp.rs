//! DHCP as the rack sees it: what a client asked and what it is told.
//!
//! Owns: the types, and pure steps: [`wire`] reads a packet, [`clients`] knows who asks and what is peculiar to it,
//! [`decide`] says what becomes of a packet, [`reply`] writes the answer; `serve` takes them in turn for the rack,
//! `foreign` minds other servers, `machine` several cards of one host. Never does: keep leases (that is `lease`), send, or look at a clock.
//!
//! ```text
//! full: we lease               proxy: another server leases, we only name what to boot (PXE 2.1 §2.2.3)
//! client          server       client           the other server     we
//! DISCOVER ->                  DISCOVER ->
//!          <- OFFER                     <- OFFER with an address
//!                                       <- - - - - - - - - - - - -  OFFER without one
//! REQUEST  ->                  REQUEST  ->      (heard by us: so the machine's address is known)
//!          <- ACK                       <- ACK
//!                              REQUEST to port 4011 (UEFI) ------->
//!                                       <- - - - - - - - - - - - -  ACK with the file
//! ```
//! An offer is kept in memory only; a lease is durable before its ACK leaves.

pub mod clients;
pub mod decide;
mod foreign;
pub(crate) mod machine;
pub mod reply;
mod serve;
pub mod wire;

use proto::Mac;
use std::net::{Ipv4Addr, SocketAddrV4};

pub(crate) use foreign::Foreign;
pub use wire::{DecodeError, decode, decode_reply};

/// A DHCP packet of a client, checked and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRequest {
    /// Client's hardware address.
    pub mac: Mac,
    /// Where it came in.
    pub port: Port,
    /// Transaction; echoed.
    pub xid: u32,
    /// What it is about, option 53.
    pub kind: MessageKind,
    /// Seconds since the client began, by its own word; a reply has 0 there (RFC 2131 §4.3.1 table 3).
    pub secs: u16,
    /// The client can hear broadcasts only, until it has an address.
    pub broadcast: bool,
    /// The address the client has and answers ARP for; 0.0.0.0 for none.
    pub ciaddr: Ipv4Addr,
    /// The relay agent it came through; 0.0.0.0 for none.
    pub giaddr: Ipv4Addr,
    /// The client's network by the relay's word, when `giaddr` is not of it (RFC 3527).
    pub link: Option<Ipv4Addr>,
    /// The address it asks for, option 50.
    pub requested: Option<Ipv4Addr>,
    /// The server it means, option 54.
    pub server: Option<Ipv4Addr>,
    /// Options it wants, option 55.
    pub parameters: Vec<u8>,
    /// The largest message it takes, option 57.
    pub size_max: Option<u16>,
    /// Vendor class, option 60, such as `PXEClient:Arch:00007:UNDI:003016`.
    pub class: Option<Vec<u8>>,
    /// Client identifier, option 61; echoed, RFC 6842.
    pub client_id: Option<Vec<u8>>,
    /// User class, option 77: raw, or in the form of RFC 3004.
    pub user_class: Option<Vec<u8>>,
    /// Relay agent information, option 82; echoed, RFC 3046.
    pub relay_info: Option<Vec<u8>>,
    /// Architectures it can boot, option 93, RFC 4578 §2.1.
    pub architectures: Vec<u16>,
    /// Client machine identifier, option 97: 17 bytes, the first 0; echoed.
    pub machine_id: Option<Vec<u8>>,
    /// iPXE's own encapsulated option 175 is there.
    pub ipxe_options: bool,
}

impl BootRequest {
    /// A plain request of a client that says nothing but its address.
    pub fn plain(mac: Mac, xid: u32, kind: MessageKind) -> Self {
        Self {
            mac,
            port: Port::Server,
            xid,
            kind,
            secs: 0,
            broadcast: false,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            link: None,
            requested: None,
            server: None,
            parameters: Vec::new(),
            size_max: None,
            class: None,
            client_id: None,
            user_class: None,
            relay_info: None,
            architectures: Vec::new(),
            machine_id: None,
            ipxe_options: false,
        }
    }
}

/// The port that a packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// 67.
    Server,
    /// 4011, where clients that have an address from another server ask for what to boot (BINL, PXE 2.1 §2.2.5).
    Binl {
        /// Where it came from; the answer goes back there.
        from: SocketAddrV4,
    },
}

/// What another server was heard to say to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerReply {
    /// The client.
    pub mac: Mac,
    /// What it is about.
    pub kind: ServerKind,
    /// Who says it, option 54.
    pub server: Option<Ipv4Addr>,
    /// The address it gives; absent in a proxy's.
    pub address: Option<Ipv4Addr>,
    /// It names something to boot, or calls itself a boot server.
    pub boots: bool,
}

/// A server's DHCP message types, RFC 2131 §3.1 table 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // named as in the RFC
pub enum ServerKind {
    Offer,
    Ack,
    Nak,
}

/// A client's DHCP message types, RFC 2131 §3.1 table 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // named as in the RFC
pub enum MessageKind {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
}

/// A reply to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpReply {
    /// The packet's UDP payload, padded to 300 bytes or more.
    pub packet: Vec<u8>,
    /// How it goes out.
    pub to: Destination,
    /// False for an offer. It promises nothing (RFC 2131 §3.1), so it may leave before what came with it is durable.
    pub binds: bool,
}

/// Where a DHCP reply goes, RFC 2131 §4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To the relay agent, UDP port 67.
    Relay(Ipv4Addr),
    /// To the client's own address, UDP port 68.
    Client(Ipv4Addr),
    /// To 255.255.255.255, UDP port 68.
    Broadcast,
    /// To an address the client does not answer ARP for yet: the frame goes to its hardware address.
    Unicast(Ipv4Addr, Mac),
    /// From port 4011, to where the question came from.
    Binl(SocketAddrV4),
}
