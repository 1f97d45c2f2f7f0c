//! The target's log of writes, taken from the wire: who wrote what, when it came and when it had landed.
//!
//! Owns: the connections, and what was seen on each. Never does: judge.

use super::capture::{FIN, RST, SYN, Segment};
use super::iscsi::{Connection, Heard, Login};
use super::stream::Stream;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where targets listen.
pub const PORT: u16 = 3260;
/// More than hours of all that the virtual rack's guests write.
const WRITES_MAX: usize = 20_000_000;

/// A session: one log-in of one host to one disk's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who, where, by which account, since when.
    pub login: Login,
    /// Where from.
    pub address: SocketAddrV4,
    /// When its connection ended, Unix nanoseconds.
    pub closed_ns: Option<u64>,
}

/// A write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// By number of its session.
    pub session: usize,
    /// First block, where one was named.
    pub lba: Option<u64>,
    /// Blocks.
    pub blocks: u32,
    /// When the command came, Unix nanoseconds.
    pub came_ns: u64,
    /// When the target said that it is done; none when it never did.
    pub landed_ns: Option<u64>,
}

/// All that was seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// In the order of their log-ins.
    pub sessions: Vec<Session>,
    /// In the order in which they came.
    pub writes: Vec<Write>,
}

/// Reads segments.
#[derive(Debug, Default)]
pub struct Wire {
    seen: Seen,
    flows: HashMap<(u32, u16), Flow>,
}

#[derive(Debug)]
struct Flow {
    syn: u32,
    /// There was another from that port before.
    before: bool,
    /// The initiator has sent more than its begin, so the target has answered that.
    spoke: bool,
    address: SocketAddrV4,
    to_target: Stream,
    to_initiator: Option<Stream>,
    connection: Connection,
    session: Option<usize>,
    /// Places in [`Seen::writes`], by task tag.
    under_way: HashMap<u32, usize>,
}

impl Wire {
    /// What was seen so far.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// One more segment.
    pub fn see(&mut self, segment: Segment) -> Result<()> {
        let to_target = segment.to.1 == PORT;
        let peer = if to_target { segment.from } else { segment.to };
        let shown = || format!("{}:{}", Ipv4Addr::from(peer.0), peer.1);
        if segment.flags & (SYN | RST) == SYN && to_target {
            // The same again is a repetition.
            if self.flows.get(&peer).is_none_or(|flow| flow.syn != segment.seq) {
                self.close(peer, segment.at_ns);
                let before = self.flows.remove(&peer).is_some();
                self.flows.insert(peer, Flow::begun(&segment, before));
            }
            return Ok(());
        }
        let Some(flow) = self.flows.get_mut(&peer) else {
            // The kernel answers so who comes to a port at which nobody listens.
            ensure!(segment.flags & RST != 0, "{} was not seen to begin", shown());
            return Ok(());
        };
        let (at_ns, flags) = (segment.at_ns, segment.flags);
        let heard = flow.see(segment, to_target).with_context(|| format!("the connection of {}", shown()))?;
        for heard in heard {
            self.hear(peer, heard)?;
        }
        if flags & RST != 0 || (flags & FIN != 0 && !to_target) {
            self.close(peer, at_ns);
        }
        Ok(())
    }

    fn hear(&mut self, peer: (u32, u16), heard: Heard) -> Result<()> {
        let Some(flow) = self.flows.get_mut(&peer) else { return Ok(()) };
        match heard {
            Heard::Login(login) => {
                flow.session = Some(self.seen.sessions.len());
                self.seen.sessions.push(Session { login, address: flow.address, closed_ns: None });
            }
            Heard::Write(tag, command) => {
                let session = flow.session.context("a write before the log-in was over")?;
                if self.seen.writes.len() >= WRITES_MAX {
                    bail!("{WRITES_MAX} writes were seen; no more are kept");
                }
                flow.under_way.insert(tag, self.seen.writes.len());
                let (lba, blocks, came_ns) = (command.lba, command.blocks, command.came_ns);
                self.seen.writes.push(Write { session, lba, blocks, came_ns, landed_ns: None });
            }
            Heard::Landed(tag, at_ns) => {
                if let Some(at) = flow.under_way.remove(&tag) {
                    self.seen.writes[at].landed_ns = Some(at_ns);
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, peer: (u32, u16), at_ns: u64) {
        // What is repeated of it may still come: it is kept until its port is used again.
        if let Some(session) = self.flows.get(&peer).and_then(|flow| flow.session) {
            self.seen.sessions[session].closed_ns.get_or_insert(at_ns);
        }
    }
}

impl Flow {
    fn begun(syn: &Segment, before: bool) -> Self {
        Self {
            syn: syn.seq,
            before,
            spoke: false,
            address: SocketAddrV4::new(syn.from.0.into(), syn.from.1),
            to_target: Stream::after(syn),
            to_initiator: None,
            connection: Connection::default(),
            session: None,
            under_way: HashMap::new(),
        }
    }

    fn see(&mut self, segment: Segment, to_target: bool) -> Result<Vec<Heard>> {
        let ack = segment.ack;
        let mut heard = Vec::new();
        if to_target {
            if let (Some(ack), Some(stream)) = (ack, &mut self.to_initiator) {
                stream.acknowledged(ack)?;
            }
            self.spoke |= !segment.payload.is_empty();
            self.to_target.put(segment)?;
            return Ok(heard);
        }
        if segment.flags & SYN != 0 {
            self.to_initiator.get_or_insert_with(|| Stream::after(&segment));
            return Ok(heard);
        }
        // A reset's number may be anything.
        if segment.flags & RST != 0 {
            return Ok(heard);
        }
        // A target that has not heard of the end of the one before sends on, and answers a new begin by an acknowledgement of the old (RFC 5961,
        // section 4).
        if self.to_initiator.is_none() && self.before && !self.spoke {
            return Ok(heard);
        }
        // First what was received, then what was answered to it.
        if let Some(ack) = ack {
            self.to_target.acknowledged(ack)?;
        }
        while let Some((bytes, at_ns)) = self.to_target.take(true) {
            heard.extend(self.connection.from_initiator(&bytes, at_ns)?);
        }
        let stream = self.to_initiator.as_mut().context("the target's first packet was not seen")?;
        stream.put(segment)?;
        while let Some((bytes, at_ns)) = stream.take(false) {
            heard.extend(self.connection.from_target(&bytes, at_ns)?);
        }
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::iscsi::tests::{login_answer, login_request, write_answer, write_command};

    const HOST: (u32, u16) = (0x0a4d_0032, 40_000);
    const TARGET: (u32, u16) = (0x0a4d_0001, PORT);

    struct Talk {
        wire: Wire,
        sent: [u32; 2],
        at_ns: u64,
    }

    impl Talk {
        fn new() -> Self {
            let mut it = Self { wire: Wire::default(), sent: [100, 900], at_ns: 0 };
            it.say(true, SYN, &[]).expect("begun");
            it.say(false, SYN, &[]).expect("begun");
            it.say(true, 0, &login_request()).expect("asked");
            it.say(false, 0, &login_answer()).expect("let in");
            it
        }

        fn say(&mut self, to_target: bool, flags: u8, payload: &[u8]) -> Result<()> {
            let segment = self.next(to_target, flags, payload);
            self.wire.see(segment)
        }

        fn next(&mut self, to_target: bool, flags: u8, payload: &[u8]) -> Segment {
            self.at_ns += 1;
            let (from, to, own) = if to_target { (HOST, TARGET, 0) } else { (TARGET, HOST, 1) };
            let seq = self.sent[own];
            self.sent[own] += payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
            Segment {
                at_ns: self.at_ns,
                from,
                to,
                seq,
                ack: Some(self.sent[1 - own]),
                flags,
                payload: payload.to_vec(),
            }
        }
    }

    #[test]
    fn a_write_has_landed_when_the_target_says_so() {
        let mut it = Talk::new();
        it.say(true, 0, &write_command(5, 8)).expect("sent");
        assert_eq!(it.wire.seen().writes, [], "it may not have arrived");
        it.say(false, 0, &[]).expect("acknowledged");
        let came = Write { session: 0, lba: Some(8), blocks: 1, came_ns: 5, landed_ns: None };
        assert_eq!(it.wire.seen().writes, [came]);
        it.say(false, 0, &write_answer(5)).expect("answered");
        assert_eq!(it.wire.seen().writes, [Write { landed_ns: Some(7), ..came }]);
        it.say(false, FIN, &[]).expect("closed");
        let session = &it.wire.seen().sessions[0];
        assert_eq!((session.address.to_string().as_str(), session.closed_ns), ("10.77.0.50:40000", Some(8)));
    }

    #[test]
    fn a_port_is_used_again_while_the_target_knows_of_no_end() {
        let mut it = Talk::new();
        it.sent[0] += 5000;
        let again = it.next(true, SYN, &[]);
        let old = Segment { seq: 900, ack: Some(100), ..it.next(false, 0, &[]) };
        it.wire.see(again.clone()).expect("another begins");
        it.wire.see(old).expect("the target knows the first one still");
        it.say(true, RST, &[]).expect("there is none");
        it.wire.see(again).expect("once more");
        it.say(false, SYN, &[]).expect("begun");
        it.say(true, 0, &login_request()).expect("asked");
        it.say(false, 0, &login_answer()).expect("let in");
        it.say(true, 0, &write_command(5, 8)).expect("sent");
        it.say(false, 0, &[]).expect("acknowledged");
        assert_eq!(it.wire.seen().sessions.len(), 2);
        assert_eq!(it.wire.seen().writes.iter().map(|write| write.session).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_packet_that_the_capture_lost_is_an_error() {
        for to_target in [true, false] {
            let mut it = Talk::new();
            drop(it.next(to_target, 0, &write_command(5, 8)));
            let said = it.say(!to_target, 0, &[]).expect_err("it was acknowledged");
            assert!(format!("{said:#}").contains("a packet was lost to it"), "{said:#}");
        }
        let mut it = Talk::new();
        it.wire.flows.clear();
        let said = it.say(false, 0, &write_answer(1)).expect_err("its begin was not seen");
        assert!(said.to_string().contains("was not seen to begin"), "{said}");
    }
}
