//! TCP connections to the portal, as the kernel lists them (proc_net_tcp(5) in its documentation): tgtd shows none whose login has not
//! ended.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Who is connected to the portal from an address, by port. Only those of which tgtd may yet read something.
pub(super) fn from(address: Ipv4Addr, portal: SocketAddr) -> io::Result<BTreeSet<u16>> {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp")?;
    Ok(parse(&table, portal.port()).filter(|peer| *peer.ip() == address).map(|peer| peer.port()).collect())
}

/// Peers of a local port that are connected, or have said all and are to be read still.
fn parse(table: &str, port: u16) -> impl Iterator<Item = SocketAddrV4> {
    const ESTABLISHED: &str = "01";
    const CLOSE_WAIT: &str = "08";
    table.lines().skip(1).filter_map(move |line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
        let ours = endpoint(local)?.port() == port && (state == ESTABLISHED || state == CLOSE_WAIT);
        ours.then(|| endpoint(remote))?
    })
}

/// `0100007F:0CBC`: the address as the machine keeps it, the port in digits.
fn endpoint(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(address.to_ne_bytes()), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_linux_shows_it() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:0CBC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20712 1\n   \
                     1: 0100007F:0CBC 0200007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 20713 1\n   \
                     2: 0100007F:0CBC 0200007F:9C41 08 00000000:00000000 00:00000000 00000000     0        0 20714 1\n   \
                     3: 0100007F:0CBC 0200007F:9C42 06 00000000:00000000 03:00000000 00000000     0        0 0 3\n   \
                     4: 0100007F:0050 0200007F:9C43 01 00000000:00000000 00:00000000 00000000     0        0 20716 1\n";
        let peers: Vec<String> = parse(table, 3260).map(|peer| peer.to_string()).collect();
        assert_eq!(peers, ["127.0.0.2:40000", "127.0.0.2:40001"]);
    }
}
