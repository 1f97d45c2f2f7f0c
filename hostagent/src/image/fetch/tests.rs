use super::*;
use std::fs;
use std::net::TcpListener;

/// What a server does with one connection.
enum Does {
    /// Sends the rest of the file, but only up to this byte.
    SendTo(usize),
    /// The same with one byte wrong.
    Alter(usize),
    /// Sends all, whatever was asked for.
    Whole,
    /// Answers this.
    Answer(&'static str),
    /// Closes at once.
    Close,
}

fn image() -> Vec<u8> {
    (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect()
}

/// Serves a connection for each thing to do, and returns the ranges that were asked for.
fn server(does: Vec<Does>) -> (SocketAddrV4, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let std::net::SocketAddr::V4(address) = listener.local_addr().expect("bound") else { panic!("it is IPv4") };
    let serving = std::thread::spawn(move || {
        let (all, mut asked) = (image(), Vec::new());
        for one in does {
            let (stream, _) = listener.accept().expect("a connection");
            let mut stream = io::BufReader::new(stream);
            if matches!(one, Does::Close) {
                continue;
            }
            let request = head(&mut stream).expect("a request");
            let range = request.split("Range: ").nth(1).map_or("-", |rest| rest.lines().next().unwrap_or_default());
            asked.push(range.to_owned());
            let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
            let last = all.len() - 1;
            let part = format!("HTTP/1.1 206 Part\r\nContent-Range: bytes {from}-{last}/{}\r\n\r\n", all.len());
            let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", all.len());
            let begin = if from == 0 { &whole } else { &part };
            let answer = match one {
                Does::SendTo(end) => [begin.as_bytes(), &all[from..end]].concat(),
                Does::Alter(at) => {
                    let mut wrong = all.clone();
                    wrong[at] ^= 1;
                    [begin.as_bytes(), &wrong[from..]].concat()
                }
                Does::Whole => [whole.as_bytes(), &all].concat(),
                Does::Answer(text) => text.as_bytes().to_vec(),
                Does::Close => Vec::new(),
            };
            // Who has what it needs may be gone.
            let _ = stream.get_mut().write_all(&answer);
        }
        asked
    });
    (address, serving)
}

/// The result, what was said, and the ranges that each server was asked for.
fn run(servers: Vec<Vec<Does>>) -> (Result<Fetched, FetchError>, String, Vec<Vec<String>>) {
    let all = image();
    let digest = ring::digest::digest(&SHA256, &all);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let wanted = Wanted::parse(&format!("{hex} {}\n", all.len())).expect("good");
    let (addresses, serving): (Vec<_>, Vec<_>) = servers.into_iter().map(server).unzip();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    let mut file = File::create_new(&path).expect("made");
    let mut said = String::new();
    let result = fetch(&wanted, addresses, &mut file, |line| said.push_str(line), |_| {});
    if result.is_ok() {
        assert!(fs::read(&path).expect("it is there") == all, "the file is not the image");
    }
    (result, said, serving.into_iter().map(|s| s.join().expect("it served")).collect())
}

#[test]
fn a_break_is_gone_on_from() {
    let (result, said, asked) =
        run(vec![vec![Does::SendTo(400_000), Does::Close, Does::SendTo(700_001), Does::SendTo(1_200_000)]]);
    assert_eq!(result.expect("in the end").attempts, 4);
    assert_eq!(asked, [["-", "bytes=400000-", "bytes=700001-"]]);
    assert!(said.contains("closed the connection; 400000 of 1200000 bytes are here"), "{said}");
}

#[test]
fn a_wrong_byte_is_refused_and_all_is_fetched_anew() {
    let (result, said, asked) = run(vec![vec![Does::SendTo(500_000), Does::Alter(900_000), Does::SendTo(1_200_000)]]);
    assert_eq!(result.expect("in the end").attempts, 3);
    assert_eq!(asked, [["-", "bytes=500000-", "-"]]);
    assert!(said.contains("what came is not the image, by its sha256; 0 of 1200000 bytes"), "{said}");
}

#[test]
fn each_server_is_tried() {
    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\n\r\n";
    let longer = "HTTP/1.1 200 OK\r\nContent-Length: 1200001\r\n\r\n";
    let (result, said, asked) =
        run(vec![vec![Does::Answer(busy), Does::SendTo(1_200_000)], vec![Does::Answer(longer)]]);
    assert_eq!(result.expect("in the end").attempts, 3);
    assert_eq!(asked, [vec!["-", "-"], vec!["-"]]);
    assert!(said.contains("is busy") && said.contains("has a file of 1200001 bytes"), "{said}");
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let (result, _, asked) = run(vec![vec![Does::SendTo(400_000), Does::Whole]]);
    assert_eq!(result.expect("in the end").attempts, 2);
    assert_eq!(asked, [["-", "bytes=400000-"]]);
}

#[test]
fn an_image_that_is_gone_ends_it() {
    let gone = || Does::Answer("HTTP/1.1 404 Not Found\r\n\r\n");
    let (result, said, _) = run(vec![(0..5).map(|_| gone()).collect()]);
    assert!(matches!(result, Err(FetchError::Gone)), "{result:?}");
    assert!(said.contains("has no such image"), "{said}");
}

#[test]
fn a_head_without_an_end_is_not_read_on() {
    let long: &'static str = Box::leak("x".repeat(HEAD_BYTES_MAX + 10).into_boxed_str());
    let (result, said, _) = run(vec![vec![Does::Answer(long), Does::SendTo(1_200_000)]]);
    assert!(result.is_ok() && said.contains("its answer's head has no end"), "{said}");
}
