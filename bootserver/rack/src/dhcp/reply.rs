//! Writing a reply (RFC 2131 §4.3.1 table 3), by dhcproto.
//!
//! Owns: which options a client is told, how long the packet must be, and where it goes. Never does: decide.

use super::clients::{self, Client, Vendor};
use super::{BootRequest, Destination, DhcpReply, Port};
use crate::policy::{Serves, Subnet};
use crate::script::{script_url, words_url};
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};
use std::net::Ipv4Addr;

/// The first-stage loader for BIOS, by TFTP.
pub const LOADER_BIOS: &str = "undionly.kpxe";
/// The first-stage loader for UEFI, by TFTP and, under `/loader/`, by HTTP.
pub const LOADER_UEFI: &str = "ipxe.efi";

/// Some ROMs and relays drop what is shorter than BOOTP's 300 bytes (RFC 1542 §2.1).
const PACKET_BYTES_MIN: usize = 300;
/// What every client takes: 576 bytes of IP (RFC 2131 §2), less its header and UDP's.
const PACKET_BYTES_SAFE: usize = 548;

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// An address it may ask for.
    Offer {
        /// Which.
        address: Ipv4Addr,
        /// Seconds.
        lease_s: u32,
    },
    /// An address it has.
    Ack {
        /// Which.
        address: Ipv4Addr,
        /// Seconds.
        lease_s: u32,
    },
    /// Options only.
    Inform,
    /// What to boot, to a client whose address is another server's.
    ProxyOffer,
    /// The same, on port 4011.
    ProxyAck,
    /// No, and why.
    Nak(super::decide::Refusal),
}

/// Writes the reply.
pub fn reply(request: &BootRequest, subnet: &Subnet, client: Client, told: Told) -> DhcpReply {
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootReply)
        .set_xid(request.xid)
        .set_giaddr(request.giaddr)
        .set_flags(if request.broadcast { Flags::default().set_broadcast() } else { Flags::default() })
        .set_chaddr(&request.mac.0);
    let (kind, lease) = match told {
        Told::Offer { address, lease_s } => (MessageType::Offer, Some((address, lease_s))),
        Told::Ack { address, lease_s } => (MessageType::Ack, Some((address, lease_s))),
        Told::Inform | Told::ProxyAck => (MessageType::Ack, None),
        Told::ProxyOffer => (MessageType::Offer, None),
        Told::Nak(_) => (MessageType::Nak, None),
    };
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(subnet.server));
    if let Some(id) = echoed(&request.client_id) {
        options.insert(DhcpOption::ClientIdentifier(id));
    }
    if let Told::Nak(why) = told {
        options.insert(DhcpOption::Message(why.to_string()));
        if !request.giaddr.is_unspecified() {
            // The relay is to broadcast it: the client has no address to be reached at (RFC 2131 §4.3.2).
            message.set_flags(Flags::default().set_broadcast());
        }
        return DhcpReply { packet: bytes(&message, request), to: nak_destination(request), binds: true };
    }
    if let Some((_, lease_s)) = lease {
        options.insert(DhcpOption::AddressLeaseTime(lease_s));
        options.insert(DhcpOption::Renewal(lease_s / 2));
        options.insert(DhcpOption::Rebinding(u32::try_from(u64::from(lease_s) * 7 / 8).unwrap_or(lease_s)));
    }
    if subnet.serves == Serves::Full {
        options.insert(DhcpOption::SubnetMask(subnet.mask()));
        if let Some(gateway) = subnet.gateway {
            options.insert(DhcpOption::Router(vec![gateway]));
        }
        if !subnet.dns.is_empty() {
            options.insert(DhcpOption::DomainNameServer(subnet.dns.iter().copied().take(8).collect()));
        }
    }
    let address = lease.map(|(address, _)| address);
    message.set_yiaddr(address.unwrap_or(Ipv4Addr::UNSPECIFIED));
    message.set_ciaddr(request.ciaddr);
    boot(&mut message, request, subnet, client);
    let mut packet = bytes(&message, request);
    let room = usize::from(request.size_max.unwrap_or(0)).saturating_sub(28).max(PACKET_BYTES_SAFE);
    // What is said twice or is only an echo goes first when a client has sent so much that it all would not fit.
    for code in [OptionCode::ClientMachineIdentifier, OptionCode::BootfileName, OptionCode::ClientIdentifier] {
        if packet.len() > room {
            message.opts_mut().remove(code);
            packet = bytes(&message, request);
        }
    }
    let binds = !matches!(told, Told::Offer { .. } | Told::ProxyOffer);
    DhcpReply { packet, to: destination(request, address), binds }
}

/// What to boot: siaddr and 66, `file` and 67 (old clients read only `file`), and what the client's kind needs.
fn boot(message: &mut Message, request: &BootRequest, subnet: &Subnet, client: Client) {
    let proxy = subnet.serves == Serves::Proxy;
    let quirks = client.quirks(proxy);
    let file = match (client, quirks.loader) {
        (Client::Plain, _) => return,
        (Client::Dom0, _) => Some(words_url(subnet, request.mac)),
        (Client::Ipxe(firmware), _) => Some(script_url(subnet, request.mac, firmware)),
        (Client::Http, Some(loader)) => Some(format!("http://{}:{}/loader/{loader}", subnet.server, subnet.boot_port)),
        (_, loader) => loader.map(str::to_owned),
    };
    message.set_siaddr(subnet.server);
    let options = message.opts_mut();
    if let Some(class) = quirks.class {
        options.insert(DhcpOption::ClassIdentifier(class.into()));
    }
    if quirks.tftp_server {
        options.insert(DhcpOption::TFTPServerName(subnet.server.to_string().into_bytes()));
    }
    if let Some(id) = echoed(&request.machine_id) {
        options.insert(DhcpOption::ClientMachineIdentifier(id));
    }
    match quirks.vendor {
        Vendor::Absent => {}
        Vendor::TakeFile => {
            options.insert(DhcpOption::VendorExtensions(vec![6, 1, 8, 255]));
        }
        Vendor::Wait => {
            options.insert(DhcpOption::VendorExtensions(wait(client)));
        }
    }
    // no-pxedhcp = 1: spares iPXE a wait of two seconds for a proxy's offer. Of a proxy it would be untrue.
    if matches!(client, Client::Ipxe(_)) && !proxy {
        options.insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::Unknown(175), vec![176, 1, 1])));
    }
    if let Some(file) = file {
        options.insert(DhcpOption::BootfileName(file.clone().into_bytes()));
        message.set_fname(file.as_bytes());
    }
}

/// A boot menu of one line that boots nothing, and a prompt that waits for a key for ever (PXE 2.1 §2.3, options 43.9 and
/// 43.10, time-out 255): a machine that can boot nothing of ours must not go on to its disk.
fn wait(client: Client) -> Vec<u8> {
    let architecture = match client {
        Client::NoImage { architecture } => architecture,
        _ => u16::MAX,
    };
    let text = format!("No image for this architecture: {} ({architecture})", clients::name(architecture));
    // The texts are short: the longest name is below 30 characters.
    let length = |extra: usize| u8::try_from(text.len() + extra).unwrap_or(u8::MAX);
    let mut option = vec![6, 1, 0];
    // A type of boot server that nobody has: 0x8000 and up are vendors' own.
    option.extend([9, length(3), 0xff, 0xfe, length(0)]);
    option.extend(text.bytes());
    option.extend([10, length(1), 255]);
    option.extend(text.bytes());
    option.push(255);
    option
}

/// An option's value, if it fits one option; longer than that it came in parts and is not worth its echo.
fn echoed(value: &Option<Vec<u8>>) -> Option<Vec<u8>> {
    value.clone().filter(|v| v.len() <= 255)
}

/// Encoded, with the relay's information as it came behind all else (RFC 3046 §2.2): dhcproto would take it apart, and
/// writes it twice when it is given as an unknown option.
fn bytes(message: &Message, request: &BootRequest) -> Vec<u8> {
    let mut packet = Vec::with_capacity(PACKET_BYTES_SAFE);
    // Writing to a Vec has no bound to run over, and every value was kept under 256 bytes above.
    message.encode(&mut Encoder::new(&mut packet)).expect("a reply made of checked parts can be written");
    if let Some(info) = echoed(&request.relay_info)
        && packet.pop() == Some(u8::from(OptionCode::End))
    {
        packet.extend([u8::from(OptionCode::RelayAgentInformation), u8::try_from(info.len()).unwrap_or(u8::MAX)]);
        packet.extend(info);
        packet.push(OptionCode::End.into());
    }
    packet.resize(packet.len().max(PACKET_BYTES_MIN), 0);
    packet
}

/// RFC 2131 §4.1, in its order.
fn destination(request: &BootRequest, address: Option<Ipv4Addr>) -> Destination {
    if let Port::Binl { from } = request.port {
        return Destination::Binl(from);
    }
    match address {
        _ if !request.giaddr.is_unspecified() => Destination::Relay(request.giaddr),
        _ if !request.ciaddr.is_unspecified() => Destination::Client(request.ciaddr),
        Some(address) if !request.broadcast => Destination::Unicast(address, request.mac),
        _ => Destination::Broadcast,
    }
}

/// Without a relay a NAK is broadcast: the client's address is the very thing that is wrong.
fn nak_destination(request: &BootRequest) -> Destination {
    if request.giaddr.is_unspecified() { Destination::Broadcast } else { Destination::Relay(request.giaddr) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::MessageKind;
    use crate::dhcp::decide::Refusal;
    use crate::testing::subnet;
    use dhcproto::{Decodable, Decoder};
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use proto::host::Firmware;

    fn request() -> BootRequest {
        BootRequest::plain("52:54:00:aa:bb:01".parse().expect("a MAC"), 7, MessageKind::Request)
    }

    fn ack() -> Told {
        Told::Ack { address: Ipv4Addr::new(10, 77, 0, 60), lease_s: 3600 }
    }

    fn check(request: &BootRequest, client: Client, told: Told, expect: Expect) {
        check_in(&subnet(), request, client, told, expect);
    }

    fn check_in(subnet: &Subnet, request: &BootRequest, client: Client, told: Told, expect: Expect) {
        let DhcpReply { packet, to, .. } = reply(request, subnet, client, told);
        assert!(packet.len() >= 300);
        let message = Message::decode(&mut Decoder::new(&packet)).expect("dhcproto reads what it wrote");
        let mut text = format!("to {to:?}\nyiaddr {} siaddr {}\n", message.yiaddr(), message.siaddr());
        if let Some(Ok(file)) = message.fname_str() {
            text += &format!("file {}\n", file.trim_end_matches('\0'));
        }
        let mut options: Vec<_> = message.opts().iter().map(|(code, option)| (u8::from(*code), option)).collect();
        options.sort_by_key(|(code, _)| *code);
        for (_, option) in options {
            text += &match option {
                DhcpOption::ClassIdentifier(b) | DhcpOption::TFTPServerName(b) | DhcpOption::BootfileName(b) => {
                    format!("{} {}\n", u8::from(OptionCode::from(option)), String::from_utf8_lossy(b))
                }
                option => format!("{option:?}\n"),
            };
        }
        expect.assert_eq(&text);
    }

    #[test]
    fn bios_rom() {
        let mut request = request();
        request.machine_id = Some(vec![0; 17]);
        check(
            &request,
            Client::Pxe(Firmware::Bios),
            ack(),
            expect![[r#"
                to Unicast(10.77.0.60, Mac([82, 84, 0, 170, 187, 1]))
                yiaddr 10.77.0.60 siaddr 10.77.0.1
                file undionly.kpxe
                SubnetMask(255.255.255.0)
                VendorExtensions([6, 1, 8, 255])
                AddressLeaseTime(3600)
                MessageType(Ack)
                ServerIdentifier(10.77.0.1)
                Renewal(1800)
                Rebinding(3150)
                60 PXEClient
                66 10.77.0.1
                67 undionly.kpxe
                ClientMachineIdentifier([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            "#]],
        );
    }

    #[test]
    fn ipxe_on_uefi_through_a_relay() {
        let mut request = request();
        request.giaddr = Ipv4Addr::new(10, 77, 0, 3);
        request.relay_info = Some(vec![1, 2, 0xab, 0xcd]);
        request.client_id = Some(vec![1, 2, 3]);
        check(
            &request,
            Client::Ipxe(Firmware::Uefi),
            ack(),
            expect![[r#"
                to Relay(10.77.0.3)
                yiaddr 10.77.0.60 siaddr 10.77.0.1
                file http://10.77.0.1:8080/boot/52-54-00-aa-bb-01-efi.ipxe
                SubnetMask(255.255.255.0)
                AddressLeaseTime(3600)
                MessageType(Ack)
                ServerIdentifier(10.77.0.1)
                Renewal(1800)
                Rebinding(3150)
                60 PXEClient
                ClientIdentifier([1, 2, 3])
                66 10.77.0.1
                67 http://10.77.0.1:8080/boot/52-54-00-aa-bb-01-efi.ipxe
                RelayAgentInformation(RelayAgentInformation({AgentCircuitId: AgentCircuitId([171, 205])}))
                Unknown(UnknownOption { code: 175, data: [176, 1, 1] })
            "#]],
        );
    }

    #[test]
    fn http_boot() {
        let mut request = request();
        request.broadcast = true;
        check(
            &request,
            Client::Http,
            ack(),
            expect![[r#"
                to Broadcast
                yiaddr 10.77.0.60 siaddr 10.77.0.1
                file http://10.77.0.1:8080/loader/ipxe.efi
                SubnetMask(255.255.255.0)
                AddressLeaseTime(3600)
                MessageType(Ack)
                ServerIdentifier(10.77.0.1)
                Renewal(1800)
                Rebinding(3150)
                60 HTTPClient
                67 http://10.77.0.1:8080/loader/ipxe.efi
            "#]],
        );
    }

    #[test]
    fn by_proxy() {
        let subnet = Subnet { serves: Serves::Proxy, gateway: Some(Ipv4Addr::new(10, 77, 0, 254)), ..subnet() };
        let mut request = request();
        let (bios, uefi) = (Client::Pxe(Firmware::Bios), Client::Pxe(Firmware::Uefi));
        check_in(
            &subnet,
            &request,
            bios,
            Told::ProxyOffer,
            expect![[r#"
            to Broadcast
            yiaddr 0.0.0.0 siaddr 10.77.0.1
            file undionly.kpxe
            VendorExtensions([6, 1, 8, 255])
            MessageType(Offer)
            ServerIdentifier(10.77.0.1)
            60 PXEClient
            66 10.77.0.1
            67 undionly.kpxe
        "#]],
        );
        check_in(
            &subnet,
            &request,
            uefi,
            Told::ProxyOffer,
            expect![[r#"
            to Broadcast
            yiaddr 0.0.0.0 siaddr 10.77.0.1
            file ipxe.efi
            MessageType(Offer)
            ServerIdentifier(10.77.0.1)
            60 PXEClient
            66 10.77.0.1
            67 ipxe.efi
        "#]],
        );
        check_in(
            &subnet,
            &request,
            Client::Ipxe(Firmware::Uefi),
            Told::ProxyOffer,
            expect![[r#"
            to Broadcast
            yiaddr 0.0.0.0 siaddr 10.77.0.1
            file http://10.77.0.1:8080/boot/52-54-00-aa-bb-01-efi.ipxe
            MessageType(Offer)
            ServerIdentifier(10.77.0.1)
            60 PXEClient
            66 10.77.0.1
            67 http://10.77.0.1:8080/boot/52-54-00-aa-bb-01-efi.ipxe
        "#]],
        );
        check_in(
            &subnet,
            &request,
            Client::Http,
            Told::ProxyOffer,
            expect![[r#"
            to Broadcast
            yiaddr 0.0.0.0 siaddr 10.77.0.1
            file http://10.77.0.1:8080/loader/ipxe.efi
            MessageType(Offer)
            ServerIdentifier(10.77.0.1)
            60 HTTPClient
            67 http://10.77.0.1:8080/loader/ipxe.efi
        "#]],
        );
        request.port = Port::Binl { from: "10.77.0.60:68".parse().expect("an address") };
        request.ciaddr = Ipv4Addr::new(10, 77, 0, 60);
        check_in(
            &subnet,
            &request,
            uefi,
            Told::ProxyAck,
            expect![[r#"
            to Binl(10.77.0.60:68)
            yiaddr 0.0.0.0 siaddr 10.77.0.1
            file ipxe.efi
            MessageType(Ack)
            ServerIdentifier(10.77.0.1)
            60 PXEClient
            66 10.77.0.1
            67 ipxe.efi
        "#]],
        );
    }

    #[test]
    fn a_menu_that_waits() {
        check(
            &request(),
            Client::NoImage { architecture: 11 },
            ack(),
            expect![[r#"
            to Unicast(10.77.0.60, Mac([82, 84, 0, 170, 187, 1]))
            yiaddr 10.77.0.60 siaddr 10.77.0.1
            SubnetMask(255.255.255.0)
            VendorExtensions([6, 1, 0, 9, 55, 255, 254, 52, 78, 111, 32, 105, 109, 97, 103, 101, 32, 102, 111, 114, 32, 116, 104, 105, 115, 32, 97, 114, 99, 104, 105, 116, 101, 99, 116, 117, 114, 101, 58, 32, 65, 82, 77, 32, 54, 52, 45, 98, 105, 116, 32, 85, 69, 70, 73, 32, 40, 49, 49, 41, 10, 53, 255, 78, 111, 32, 105, 109, 97, 103, 101, 32, 102, 111, 114, 32, 116, 104, 105, 115, 32, 97, 114, 99, 104, 105, 116, 101, 99, 116, 117, 114, 101, 58, 32, 65, 82, 77, 32, 54, 52, 45, 98, 105, 116, 32, 85, 69, 70, 73, 32, 40, 49, 49, 41, 255])
            AddressLeaseTime(3600)
            MessageType(Ack)
            ServerIdentifier(10.77.0.1)
            Renewal(1800)
            Rebinding(3150)
            60 PXEClient
        "#]],
        );
        // The parts of option 43 stand one behind the other, each as long as it says.
        let option = wait(Client::NoImage { architecture: 11 });
        let (mut rest, mut codes) = (&option[..], Vec::new());
        while let [code, length, more @ ..] = rest {
            codes.push(*code);
            rest = more.split_at_checked(usize::from(*length)).expect("within").1;
        }
        assert_eq!((codes.as_slice(), rest), (&[6, 9, 10][..], &[255][..]));
    }

    #[test]
    fn plain_renewal_and_nak() {
        let mut request = request();
        request.ciaddr = Ipv4Addr::new(10, 77, 0, 60);
        check(
            &request,
            Client::Plain,
            ack(),
            expect![[r#"
            to Client(10.77.0.60)
            yiaddr 10.77.0.60 siaddr 0.0.0.0
            SubnetMask(255.255.255.0)
            AddressLeaseTime(3600)
            MessageType(Ack)
            ServerIdentifier(10.77.0.1)
            Renewal(1800)
            Rebinding(3150)
        "#]],
        );
        let nak = Told::Nak(Refusal::WrongAddress { named: Ipv4Addr::new(10, 0, 0, 1) });
        check(
            &request,
            Client::Plain,
            nak,
            expect![[r#"
            to Broadcast
            yiaddr 0.0.0.0 siaddr 0.0.0.0
            MessageType(Nak)
            ServerIdentifier(10.77.0.1)
            Message("10.0.0.1 is not its address")
        "#]],
        );
    }

    #[test]
    fn relay_information_comes_last() {
        let mut request = request();
        request.relay_info = Some(vec![1, 1, 9]);
        request.machine_id = Some(vec![0; 17]);
        let packet = reply(&request, &subnet(), Client::Ipxe(Firmware::Bios), ack()).packet;
        let end = packet.iter().rposition(|&b| b == 255).expect("an end");
        assert_eq!(packet[end - 5..end], [82, 3, 1, 1, 9]);
    }

    proptest! {
        #[test]
        fn whatever_is_echoed_can_be_read_again(
            client_id in prop::option::of(prop::collection::vec(any::<u8>(), 0..400)),
            relay_info in prop::option::of(prop::collection::vec(any::<u8>(), 0..400)),
            machine_id in prop::option::of(prop::collection::vec(any::<u8>(), 0..400)),
            size_max in prop::option::of(any::<u16>()),
        ) {
            let mut request = request();
            (request.client_id, request.relay_info) = (client_id, relay_info);
            (request.machine_id, request.size_max) = (machine_id, size_max);
            let packet = reply(&request, &subnet(), Client::Ipxe(Firmware::Bios), ack()).packet;
            prop_assert!((300..=1472).contains(&packet.len()));
            // Our own reader, told that it is a request, finds in it what was said.
            let mut back = packet;
            back[0] = 1;
            let at = back.windows(3).position(|w| w == [53, 1, 5]).expect("an ACK");
            back[at + 2] = 3;
            let back = crate::dhcp::decode(&back).expect("well formed");
            prop_assert_eq!((back.xid, back.mac), (request.xid, request.mac));
            prop_assert_eq!(back.server, Some(subnet().server));
            if let Some(info) = request.relay_info.filter(|v| (1..=255).contains(&v.len())) {
                prop_assert_eq!(back.relay_info, Some(info));
            }
        }
    }
}
