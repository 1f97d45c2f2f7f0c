//! The attempts themselves: sockets, and the file.

use super::answer::{Answer, HEAD_BYTES_MAX};
use super::plan::{Ended, Next, Plan, Wanted};
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// For a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two pieces.
const SILENCE: Duration = Duration::from_secs(10);
/// Read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The file cannot be written: most likely memory is short.
    #[error("writing dom0's image: {0}")]
    Write(#[from] io::Error),
    /// The servers have another release by now.
    #[error("no server has this image any more; booting anew")]
    Gone,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// How often it was asked for.
    pub attempts: u32,
    /// From the first question to the end.
    pub took: Duration,
}

/// Fetches an image into an empty file and checks it. Returns only when it is there and right, or there is no more hope. `say` is told
/// what a person at the console should know; `pause` waits.
///
/// # Errors
/// [`FetchError`].
pub fn fetch(
    wanted: &Wanted,
    addresses: Vec<SocketAddrV4>,
    file: &mut File,
    mut say: impl FnMut(&str),
    mut pause: impl FnMut(Duration),
) -> Result<Fetched, FetchError> {
    let begun = Instant::now();
    let mut plan = Plan::new(addresses);
    let mut part = Part { file, have: 0, sum: Context::new(&SHA256) };
    for attempts in 1.. {
        let address = plan.address();
        let (ended, why) = match part.ask(wanted, address) {
            Ok(ended) => (ended, None),
            Err(Stop::Network { came, why }) => (Ended::Broke { came }, Some(why)),
            Err(Stop::File(err)) => return Err(FetchError::Write(err)),
        };
        let next = plan.after(&ended, chance());
        let after = match next {
            Next::Done => return Ok(Fetched { attempts, took: begun.elapsed() }),
            Next::BootAnew => return Err(FetchError::Gone),
            Next::Ask { anew, after } => {
                if anew {
                    part.clear()?;
                }
                after
            }
        };
        let why = match ended {
            Ended::Altered => "what came is not the image, by its sha256".to_owned(),
            Ended::Gone => "has no such image".to_owned(),
            Ended::Busy { .. } => "is busy".to_owned(),
            Ended::Broke { .. } | Ended::Whole => why.unwrap_or_default(),
        };
        say(&format!(
            "{address}: {why}; {} of {} bytes are here; again in {:.1} s",
            part.have,
            wanted.bytes,
            after.as_secs_f64()
        ));
        pause(after);
    }
    unreachable!("attempts are counted up without an end")
}

/// Spreads machines that lost their server at the same moment; nothing secret hangs on it.
fn chance() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // Each RandomState has keys of its own, from the kernel.
    RandomState::new().hash_one(0) as u32
}

/// What has come so far.
struct Part<'a> {
    file: &'a mut File,
    have: u64,
    sum: Context,
}

/// Why an attempt ended before its end.
enum Stop {
    Network { came: u64, why: String },
    File(io::Error),
}

impl Part<'_> {
    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.have, self.sum) = (0, Context::new(&SHA256));
        Ok(())
    }

    /// One attempt: asks for what is not there yet.
    fn ask(&mut self, wanted: &Wanted, address: SocketAddrV4) -> Result<Ended, Stop> {
        let mut came = 0;
        let broke = |came: u64, why: String| Stop::Network { came, why };
        let stream = request(address, &wanted.path(), self.have).map_err(|err| broke(came, err.to_string()))?;
        let mut stream = io::BufReader::with_capacity(PIECE_BYTES, stream);
        let head = head(&mut stream).map_err(|err| broke(came, err.to_string()))?;
        match Answer::read(&head, self.have, wanted.bytes) {
            Answer::Gone => return Ok(Ended::Gone),
            Answer::Busy { again_s } => return Ok(Ended::Busy { again_s }),
            Answer::Useless(why) => return Err(broke(came, why)),
            // It cannot go on in the middle, and sends all anew.
            Answer::Body { from: 0 } if self.have > 0 => self.clear().map_err(Stop::File)?,
            Answer::Body { .. } => {}
        }
        let mut piece = vec![0; PIECE_BYTES];
        while self.have < wanted.bytes {
            let room = usize::try_from(wanted.bytes - self.have).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let read = match stream.read(&mut piece[..room]) {
                Ok(0) => return Err(broke(came, "closed the connection".to_owned())),
                Ok(read) => read,
                Err(err) => return Err(broke(came, err.to_string())),
            };
            self.sum.update(&piece[..read]);
            self.file.write_all(&piece[..read]).map_err(Stop::File)?;
            (self.have, came) = (self.have + read as u64, came + read as u64);
        }
        let sum = self.sum.clone().finish();
        Ok(if sum.as_ref() == wanted.sha256 { Ended::Whole } else { Ended::Altered })
    }
}

fn request(address: SocketAddrV4, path: &str, from: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address.into(), CONNECT)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let range = if from > 0 { format!("Range: bytes={from}-\r\n") } else { String::new() };
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{range}Connection: close\r\n\r\n").as_bytes())?;
    Ok(stream)
}

/// Up to the empty line, which is taken and not returned.
fn head(stream: &mut impl io::BufRead) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let room = HEAD_BYTES_MAX.saturating_sub(head.len()) as u64;
        let read = io::BufRead::read_until(&mut stream.take(room), b'\n', &mut head)?;
        if read == 0 {
            let why =
                if room == 0 { "its answer's head has no end" } else { "closed the connection before it answered" };
            return Err(io::Error::other(why));
        }
    }
    head.truncate(head.len() - 4);
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests;
