//! DHCP as the rack sees it: what a client asked and what it is told. The wire format is in `wire`.

use proto::Mac;
use std::net::Ipv4Addr;

/// A DHCP packet of a client, checked and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRequest {
    /// Client's hardware address.
    pub mac: Mac,
    /// Transaction.
    pub xid: u32,
}

/// A reply to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpReply {
    /// The packet's UDP payload, padded to 300 bytes or more.
    pub packet: Vec<u8>,
    /// How it goes out.
    pub to: Destination,
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
}
