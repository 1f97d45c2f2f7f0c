use super::*;
use tokio::net::UdpSocket as Client;

/// Longer than any wait here: it only ends a hang.
const HANG: Duration = Duration::from_secs(60);

/// Starts a server on loopback with two loaders.
fn server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = socket.local_addr().expect("an address");
    let big: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let loaders = [("undionly.kpxe", Bytes::from_static(b"small")), ("ipxe.efi", Bytes::from(big))];
    let loaders = loaders.map(|(name, content)| (name.to_owned(), content)).into();
    let files = Files { loaders: Arc::new(loaders), transfers: Transfers::default(), rack: None };
    tokio::spawn(serve_on(socket, files));
    at
}

async fn client() -> Client {
    Client::bind("127.0.0.1:0").await.expect("a port")
}

async fn ask(client: &Client, to: SocketAddr, kind: u8, words: &[&str]) -> (Vec<u8>, SocketAddr) {
    let mut packet = vec![0, kind];
    for word in words {
        packet.extend(word.as_bytes());
        packet.push(0);
    }
    client.send_to(&packet, to).await.expect("sent");
    hear(client).await
}

async fn hear(client: &Client) -> (Vec<u8>, SocketAddr) {
    let mut packet = vec![0; 70_000];
    let heard = tokio::time::timeout(HANG, client.recv_from(&mut packet)).await;
    let (length, from) = heard.expect("in time").expect("a packet");
    packet.truncate(length);
    (packet, from)
}

/// An ERROR's code, if it is one.
fn error(packet: &[u8]) -> Option<u8> {
    (packet[..2] == [0, 5]).then(|| packet[3])
}

async fn acknowledge(client: &Client, to: SocketAddr, block: u16) {
    let [high, low] = block.to_be_bytes();
    client.send_to(&[0, 4, high, low], to).await.expect("sent");
}

#[tokio::test]
async fn a_whole_transfer_by_windows() {
    let (server, client) = (server(), client().await);
    let words = ["ipxe.efi", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4", "timeout", "255"];
    let (oack, from) = ask(&client, server, 1, &words).await;
    // The client's timeout is not taken, so it is not acknowledged.
    let mut said: Vec<_> = oack[2..].split(|&b| b == 0).map(String::from_utf8_lossy).collect();
    said.sort();
    assert_eq!(said.join(" ").trim(), "1468 300000 4 blksize tsize windowsize");
    acknowledge(&client, from, 0).await;
    let (mut whole, mut next) = (Vec::<u8>::new(), 1);
    loop {
        let (data, _) = hear(&client).await;
        if data[..2] == [0, 6] {
            acknowledge(&client, from, 0).await;
            continue; // the acknowledgement was not there within a TRY
        }
        assert_eq!(data[..2], [0, 3]);
        let block = u16::from_be_bytes([data[2], data[3]]);
        if block != next {
            continue; // a window was sent again
        }
        whole.extend(&data[4..]);
        next += 1;
        let last = data.len() < 1468 + 4;
        if last || block % 4 == 0 {
            acknowledge(&client, from, block).await;
        }
        if last {
            break;
        }
    }
    assert!(whole.len() == 300_000 && whole.iter().enumerate().all(|(n, &b)| b == (n % 251) as u8));
}

#[tokio::test]
async fn limits_of_options() {
    let (server, client) = (server(), client().await);
    let words = ["ipxe.efi", "octet", "blksize", "65464", "windowsize", "65535"];
    let (oack, _) = ask(&client, server, 1, &words).await;
    let said = String::from_utf8_lossy(&oack[2..]).replace('\0', " ");
    assert!(said.contains("blksize 1468") && said.contains("windowsize 64"), "{said}");
}

#[tokio::test]
async fn names() {
    let server = server();
    for (name, code) in [
        ("undionly.kpxe", None),
        ("/undionly.kpxe", None),
        ("\\undionly.kpxe", None),
        ("undionly.kpxe\u{ff}", None),
        ("../undionly.kpxe", Some(1)),
        ("//undionly.kpxe", Some(1)),
        ("undionly", Some(1)),
        ("", Some(1)),
    ] {
        let client = client().await;
        let (answer, from) = ask(&client, server, 1, &[name, "octet"]).await;
        assert_eq!(error(&answer), code, "{name:?}");
        if code.is_none() {
            assert_eq!(&answer[4..], b"small");
            acknowledge(&client, from, 1).await;
        }
    }
    let (answer, _) = ask(&client().await, server, 2, &["undionly.kpxe", "octet"]).await;
    assert_eq!(error(&answer), Some(2), "nothing can be written");
}

#[tokio::test]
async fn an_address_has_few_transfers_and_gets_them_back() {
    let full = async {
        loop {
            let (server, begun) = (server(), Instant::now());
            let mut held = Vec::new();
            for _ in 0..PER_ADDRESS_MAX {
                let client = client().await;
                let (answer, _) = ask(&client, server, 1, &["ipxe.efi", "octet"]).await;
                assert_eq!(error(&answer), None);
                held.push(client);
            }
            let (answer, _) = ask(&client().await, server, 1, &["ipxe.efi", "octet"]).await;
            if error(&answer) == Some(0) {
                return (server, held);
            }
            // On a machine that stalled the first may be given up already; then it is tried on another server.
            assert!(begun.elapsed() >= TRY * (RETRIES + 1), "one too many");
        }
    };
    let (server, _held) = tokio::time::timeout(HANG, full).await.expect("all are held at once");
    // Those that were left lying are given up, and then there is room again.
    let given_up = async {
        loop {
            let (answer, _) = ask(&client().await, server, 1, &["undionly.kpxe", "octet"]).await;
            if error(&answer).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(HANG, given_up).await.expect("they are given up");
}
