//! A small iSCSI initiator (RFC 7143), to try storages with: one session of one connection, blocks of 512 bytes.
//!
//! Owns: the few PDUs that the contract needs, and a login that can be stopped half-way. Never does: recover; what the target
//! closes is at an end, which is what the contract asks about.

use super::wire::{Basic, Pdu, be32, read_pdu, text_keys, text_of};
use md5::{Digest, Md5};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;
/// How long the target may be silent. Only a target that hangs is.
const SILENCE: Duration = Duration::from_secs(60);

/// How a host reaches a disk.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) portal: SocketAddr,
    /// The host's own address.
    pub(super) from: Ipv4Addr,
    pub(super) target: String,
    pub(super) lun: u8,
    pub(super) initiator: String,
    pub(super) user: String,
    pub(super) secret: String,
}

/// A login that has shown its secret and not ended.
pub(super) struct Begun {
    session: Session,
}

/// A session in its full-feature phase.
pub(super) struct Session {
    stream: TcpStream,
    lun: u8,
    task: u32,
    command: u32,
    status: u32,
}

/// The target said no.
fn refused(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, what.into())
}

impl Way {
    /// Logs in.
    pub(super) fn login(&self) -> io::Result<Session> {
        self.begin()?.finish()
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let SocketAddr::V4(portal) = self.portal else { return Err(ErrorKind::Unsupported.into()) };
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, SockProtocol::Tcp)?;
        // The port is any.
        socket::bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(self.from, 0)))?;
        socket::connect(socket.as_raw_fd(), &SockaddrIn::from(portal))?;
        Ok(TcpStream::from(socket))
    }

    /// Logs in as far as the target has taken the secret.
    pub(super) fn begin(&self) -> io::Result<Begun> {
        let stream = self.connect()?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        let mut session = Session { stream, lun: self.lun, task: 0, command: 1, status: 0 };
        let (initiator, target) = (format!("InitiatorName={}", self.initiator), format!("TargetName={}", self.target));
        let offered = session.negotiate(0x00, &[&initiator, &target, "SessionType=Normal", "AuthMethod=CHAP"])?;
        if text_keys(&offered).get("AuthMethod").map(String::as_str) != Some("CHAP") {
            return Err(refused("the target does not ask for CHAP"));
        }
        let challenge = text_keys(&session.negotiate(0x00, &["CHAP_A=5"])?);
        let missing = || io::Error::new(ErrorKind::InvalidData, "the target sent no challenge");
        let id: u8 = challenge.get("CHAP_I").and_then(|id| id.parse().ok()).ok_or_else(missing)?;
        let bytes = challenge.get("CHAP_C").and_then(|hex| from_hex(hex)).ok_or_else(missing)?;
        // RFC 1994 §4.1: over id, secret and challenge.
        let digest = Md5::new().chain_update([id]).chain_update(&self.secret).chain_update(bytes).finalize();
        let response: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        // Transit: from security to operational negotiation.
        session.negotiate(0x81, &[&format!("CHAP_N={}", self.user), &format!("CHAP_R=0x{response}")])?;
        Ok(Begun { session })
    }
}

impl Begun {
    /// Takes the login to its end.
    pub(super) fn finish(mut self) -> io::Result<Session> {
        let asked = [
            "HeaderDigest=None",
            "DataDigest=None",
            "InitialR2T=No",
            "ImmediateData=Yes",
            "MaxRecvDataSegmentLength=65536",
            "FirstBurstLength=65536",
            "MaxBurstLength=262144",
            "MaxConnections=1",
            "MaxOutstandingR2T=1",
            "ErrorRecoveryLevel=0",
            "DefaultTime2Wait=0",
            "DefaultTime2Retain=0",
        ];
        // Transit: to the full-feature phase. A target may have keys of its own to settle first.
        let mut answer = self.session.negotiate(0x87, &asked)?;
        for _ in 0..4 {
            if answer.basic.flags & 0x83 == 0x83 {
                return self.session.ready();
            }
            answer = self.session.negotiate(0x87, &[])?;
        }
        Err(refused("the target does not end the login"))
    }
}

impl Session {
    /// Takes what a unit has to tell a new initiator first (SPC-4 §5.15, unit attention).
    fn ready(mut self) -> io::Result<Self> {
        for _ in 0..8 {
            // TEST UNIT READY.
            self.command(0x81, 0, &[0; 6], &[])?;
            match self.ended() {
                Err(err) if err.kind() == ErrorKind::PermissionDenied => {}
                ended => return ended.map(|()| self),
            }
        }
        Err(refused("the unit does not get ready"))
    }

    /// One login request and its answer.
    fn negotiate(&mut self, flags: u8, keys: &[&str]) -> io::Result<Pdu> {
        let mut basic = Basic { opcode: 0x43, flags, task: self.task, ..Basic::default() };
        // ISID of the random kind (RFC 7143 §11.12.5): each session of this process its own, so that none takes another's place.
        let id = (std::process::id() as u16).to_be_bytes();
        let port = self.stream.local_addr()?.port().to_be_bytes();
        basic.lun = [0x80, id[0], id[1], 0, port[0], port[1], 0, 0];
        basic.words[1] = self.command;
        basic.words[2] = self.status;
        basic.send(&mut self.stream, &text_of(keys))?;
        let answer = read_pdu(&mut self.stream)?;
        if answer.basic.opcode != 0x23 {
            return Err(refused(format!("PDU {:#x} in a login", answer.basic.opcode)));
        }
        self.status = answer.basic.words[1].wrapping_add(1);
        let class = (answer.basic.words[4] >> 24) as u8;
        if class != 0 {
            return Err(refused(format!("login status {:#06x}", answer.basic.words[4] >> 16)));
        }
        Ok(answer)
    }

    /// Writes one block and waits until the target has it.
    pub(super) fn write(&mut self, block: u32, data: &[u8; BLOCK]) -> io::Result<()> {
        self.send_write(block, data)?;
        self.ended()
    }

    /// Sends the write of one block, its data with it.
    pub(super) fn send_write(&mut self, block: u32, data: &[u8; BLOCK]) -> io::Result<()> {
        let [a, b, c, d] = block.to_be_bytes();
        // WRITE(10). Final, write, simple task.
        self.command(0xa1, BLOCK as u32, &[0x2a, 0, a, b, c, d, 0, 0, 1], data)
    }

    /// Waits for the end of one command sent before.
    pub(super) fn ended(&mut self) -> io::Result<()> {
        loop {
            let answer = read_pdu(&mut self.stream)?;
            match answer.basic.opcode {
                0x21 => {
                    self.status = answer.basic.words[1].wrapping_add(1);
                    // Byte 3 of the header is the SCSI status.
                    return match answer.basic.scsi_status {
                        0 => Ok(()),
                        status => Err(refused(format!("SCSI status {status:#04x}"))),
                    };
                }
                // NOP-In is answered by whoever stays; nobody here stays that long.
                0x20 => {}
                // Asynchronous message: the target asks for a logout or drops the connection.
                0x32 => return Err(ErrorKind::ConnectionReset.into()),
                other => return Err(io::Error::new(ErrorKind::InvalidData, format!("PDU {other:#x}"))),
            }
        }
    }

    /// Reads one block.
    pub(super) fn read(&mut self, block: u32) -> io::Result<Vec<u8>> {
        let [a, b, c, d] = block.to_be_bytes();
        // READ(10).
        self.input(BLOCK as u32, &[0x28, 0, a, b, c, d, 0, 0, 1])
    }

    /// The disk's size, bytes: READ CAPACITY(16), SBC-3 §5.16.
    pub(super) fn bytes(&mut self) -> io::Result<u64> {
        let answer = self.input(32, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32])?;
        let word = |at: usize| answer.get(at..at + 4).map(be32).unwrap_or_default();
        let last = u64::from(word(0)) << 32 | u64::from(word(4));
        Ok((last + 1) * u64::from(word(8)))
    }

    fn input(&mut self, bytes: u32, block: &[u8]) -> io::Result<Vec<u8>> {
        // Final, read, simple task.
        self.command(0xc1, bytes, block, &[])?;
        let mut data = Vec::new();
        loop {
            let answer = read_pdu(&mut self.stream)?;
            match answer.basic.opcode {
                0x25 => {
                    data.extend(&answer.data);
                    // The status may come with the last data.
                    if answer.basic.flags & 0x01 != 0 {
                        self.status = answer.basic.words[1].wrapping_add(1);
                        return Ok(data);
                    }
                }
                0x21 if answer.basic.scsi_status == 0 => {
                    self.status = answer.basic.words[1].wrapping_add(1);
                    return Ok(data);
                }
                0x21 => return Err(refused(format!("SCSI status {:#04x}", answer.basic.scsi_status))),
                0x20 => {}
                other => return Err(io::Error::new(ErrorKind::InvalidData, format!("PDU {other:#x}"))),
            }
        }
    }

    fn command(&mut self, flags: u8, bytes: u32, block: &[u8], data: &[u8]) -> io::Result<()> {
        self.task = self.task.wrapping_add(1);
        let mut basic = Basic { opcode: 0x01, flags, task: self.task, ..Basic::default() };
        basic.lun[1] = self.lun;
        basic.words = [bytes, self.command, self.status, 0, 0, 0, 0];
        for (at, four) in block.chunks(4).enumerate() {
            let mut padded = [0; 4];
            padded.iter_mut().zip(four).for_each(|(to, from)| *to = *from);
            basic.words[3 + at] = be32(&padded);
        }
        self.command = self.command.wrapping_add(1);
        basic.send(&mut self.stream, data)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let pairs = (0..digits.len() / 2).map(|at| u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok());
    pairs.collect()
}
