//! Wake-on-LAN: the magic packet (AMD, "Magic Packet Technology", 20213), as UDP to port 9 of a broadcast address.
//!
//! Sent by the interface that the address is on. Nobody answers it, so what is known afterwards is only that it was sent.

use proto::Mac;
use proto::agent::Secret;
use proto::power::PowerState;
use rack::power::{PowerAnswer, PowerFailure, PowerWhy, host_and_port, secure_on};
use std::io;
use std::net::Ipv4Addr;
use tokio::net::UdpSocket;

/// The discard service's; it is what is in use.
const PORT: u16 = 9;
/// As nobody acknowledges one.
const TIMES: usize = 3;

/// Sends it.
pub(super) async fn wake(
    mac: Mac,
    to: Option<&str>,
    broadcast: Ipv4Addr,
    password: Option<&Secret>,
) -> Result<PowerAnswer, PowerFailure> {
    let broadcast = broadcast.to_string();
    let to = to.unwrap_or(&broadcast);
    let failed = |why, what: String| PowerFailure { why, text: format!("waking {mac} by a packet to {to}: {what}") };
    let unable = |what: &str| failed(PowerWhy::Unable, what.to_owned());
    let (host, port) = host_and_port(to).ok_or_else(|| unable("that is no address; set another"))?;
    let password = match password {
        None => None,
        Some(text) => Some(secure_on(text).ok_or_else(|| unable("the SecureOn password is not six bytes"))?),
    };
    let send = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.set_broadcast(true)?;
        for _ in 0..TIMES {
            socket.send_to(&magic_packet(mac, password), (host, port.unwrap_or(PORT))).await?;
        }
        Ok::<_, io::Error>(())
    };
    send.await.map_err(|err| failed(PowerWhy::Unreached, format!("{err}; see that the server has a route there")))?;
    Ok(PowerAnswer { state: PowerState::Unknown, certificate: None })
}

/// Six bytes 0xFF, the address sixteen times, and the password if there is one.
fn magic_packet(mac: Mac, password: Option<[u8; 6]>) -> Vec<u8> {
    let mut packet = vec![0xFF; 6];
    packet.extend(mac.0.repeat(16));
    packet.extend(password.unwrap_or_default().iter().take(if password.is_some() { 6 } else { 0 }));
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    const MAC: Mac = Mac([0x52, 0x54, 0, 0xAA, 0xBB, 1]);

    #[test]
    fn packets() {
        let plain = magic_packet(MAC, None);
        assert_eq!(plain.len(), 102);
        assert_eq!(plain[..6], [0xFF; 6]);
        assert!(plain[6..].chunks(6).all(|chunk| chunk == MAC.0));
        let secured = magic_packet(MAC, Some([1, 2, 3, 4, 5, 6]));
        assert_eq!((&secured[..102], &secured[102..]), (&plain[..], &[1, 2, 3, 4, 5, 6][..]));
    }

    #[tokio::test]
    async fn it_is_sent_where_it_is_to_go() {
        let ear = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let to = ear.local_addr().expect("an address").to_string();
        let password = Secret("01:02:03:04:05:06".to_owned());
        let sent = wake(MAC, Some(&to), Ipv4Addr::BROADCAST, Some(&password)).await;
        assert_eq!(sent, Ok(PowerAnswer { state: PowerState::Unknown, certificate: None }));
        let mut heard = [0; 200];
        for _ in 0..TIMES {
            let length = ear.recv(&mut heard).await.expect("a packet");
            assert_eq!(heard[..length], magic_packet(MAC, Some([1, 2, 3, 4, 5, 6])));
        }
        let bad = wake(MAC, Some(&to), Ipv4Addr::BROADCAST, Some(&Secret("abc".to_owned()))).await;
        let bad = bad.expect_err("that is no password");
        assert!(!bad.text.contains("abc") && bad.why == PowerWhy::Unable, "{}", bad.text);
    }
}
