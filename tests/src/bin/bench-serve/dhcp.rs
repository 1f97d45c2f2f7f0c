//! DHCP: exchanges a second by perfdhcp, and a thousand clients that ask at once.

use super::field::{CARD, Client, SERVER, join};
use super::side::Running;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeValLike;
use std::collections::HashMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Of a measurement at one rate, seconds.
const RATE_S: u32 = 4;
/// More lost than this, and the rate was too much.
pub(super) const LOSS_MAX: f64 = 0.025;
/// The first rate tried, exchanges a second; then ever more by half, until too much is lost.
const RATE_FIRST: u32 = 2000;
const RATE_MAX: u32 = 60_000;
/// Rates tried between the last that was borne and the first that was not.
const HALVINGS: u32 = 3;
/// A client that has no answer asks again after 4, 8, 16, 32 seconds, as ROMs do (PXE 2.1 §2.4.2).
const AGAIN_S: [u64; 4] = [4, 8, 16, 32];

/// What a server did at one rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Whole exchanges a second: DISCOVER, OFFER, REQUEST, ACK.
    pub(super) done_s: f64,
    pub(super) loss: f64,
    /// Processor time of one exchange, microseconds: the server's, and perfdhcp's. What it costs the kernel to carry a packet is counted
    /// where the packet is sent.
    pub(super) server_us: f64,
    pub(super) client_us: f64,
}

/// The highest rate at which less than [`LOSS_MAX`] is lost. `first_mac` numbers the clients, so that none was seen before.
pub(super) fn most(server: &Running, client: &Client, first_mac: &mut u8) -> Result<Rate> {
    let (mut borne, mut too_much, mut rate) = (None, None, RATE_FIRST);
    let mut halvings = 0;
    while halvings < HALVINGS && rate <= RATE_MAX {
        let seen = at(server, client, rate, first_mac)?;
        if seen.loss < LOSS_MAX {
            borne = Some((rate, seen));
        } else {
            too_much = Some(rate);
        }
        rate = match (borne, too_much) {
            (Some((borne, _)), None) => borne * 3 / 2,
            (None, Some(too_much)) => too_much / 2,
            (Some((borne, _)), Some(too_much)) => {
                halvings += 1;
                (borne + too_much) / 2
            }
            (None, None) => bail!("a rate is either borne or not"),
        };
        ensure!(rate >= 50, "more than {LOSS_MAX} of the exchanges is lost at any rate");
    }
    Ok(borne.context("no rate was borne")?.1)
}

/// Every client is new, or a server could answer a renewal from memory.
fn at(server: &Running, client: &Client, rate: u32, first_mac: &mut u8) -> Result<Rate> {
    *first_mac = first_mac.wrapping_add(1);
    let mac = format!("mac=00:0c:{first_mac:02x}:00:00:00");
    let (rate, period) = (rate.to_string(), RATE_S.to_string());
    let args = ["-4", "-b", &mac, "-r", &rate, "-R", "1000000", "-p", &period, "-W", "1", &SERVER.to_string()];
    let (server_before, client_before) = (server.cost()?.cpu, children_cpu()?);
    let out = client.command("perfdhcp")?.args(args).output().context("running perfdhcp; is it installed?")?;
    let text = String::from_utf8_lossy(&out.stdout);
    // Its exit code tells of losses too; without figures it is an error.
    let numbers = |what: &str| -> Vec<f64> {
        text.lines().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok()).collect()
    };
    let (sent, received) = (numbers("sent packets:"), numbers("received packets:"));
    let (&[discovers, _], &[_, acks]) = (sent.as_slice(), received.as_slice()) else {
        bail!("perfdhcp: {}: {text}{}", out.status, String::from_utf8_lossy(&out.stderr));
    };
    ensure!(discovers > 0.0, "perfdhcp sent nothing: {text}");
    let each_us = |used: Duration| used.as_secs_f64() * 1e6 / acks.max(1.0);
    Ok(Rate {
        done_s: acks / f64::from(RATE_S),
        loss: 1.0 - acks / discovers,
        server_us: each_us(server.cost()?.cpu - server_before),
        client_us: each_us(children_cpu()? - client_before),
    })
}

/// Of children that have ended and were waited for.
fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(us.try_into().context("time that was used is not negative")?))
}

/// What counts for a client that had no answer to all its tries.
pub(super) const NEVER: Duration = Duration::from_secs(60);

/// From each client's first DISCOVER to its ACK, in order of time; all begin at once.
pub(super) fn cold_start(client: &Client, macs: Vec<[u8; 6]>) -> Result<Vec<Duration>> {
    let all = macs.len();
    let leased = join(client.thread(move || all_at_once(&macs))?)?;
    let mut took: Vec<Duration> = leased.into_iter().map(|(took, _)| took).collect();
    took.resize(all, NEVER);
    took.sort();
    Ok(took)
}

/// The address that a machine gets; on a thread in its namespace.
pub(super) fn one(mac: [u8; 6]) -> Result<Ipv4Addr> {
    Ok(all_at_once(&[mac])?.first().context("there was no answer in a minute")?.1)
}

struct Waiting {
    began: Instant,
    said: Vec<u8>,
    again_at: Instant,
    tries: usize,
}

/// How long each took and its address; without those that had no answer.
fn all_at_once(macs: &[[u8; 6]]) -> Result<Vec<(Duration, Ipv4Addr)>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).context("binding port 68")?;
    socket.set_broadcast(true)?;
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(CARD))?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut waiting = HashMap::new();
    let mut took = Vec::with_capacity(macs.len());
    let send = |packet: &[u8]| socket.send_to(packet, (Ipv4Addr::BROADCAST, 67)).context("sending").map(drop);
    for &mac in macs {
        let said = packet(mac, 1, None);
        let began = Instant::now();
        send(&said)?;
        waiting.insert(mac, Waiting { began, said, again_at: began + Duration::from_secs(AGAIN_S[0]), tries: 0 });
    }
    let mut received = [0; 1500];
    while !waiting.is_empty() {
        let now = Instant::now();
        waiting.retain(|_, client| client.again_at > now || client.tries + 1 < AGAIN_S.len());
        for client in waiting.values_mut().filter(|client| client.again_at <= now) {
            client.tries += 1;
            client.again_at = now + Duration::from_secs(AGAIN_S[client.tries]);
            send(&client.said)?;
        }
        let Ok((length, _)) = socket.recv_from(&mut received) else { continue };
        let reply = &received[..length];
        let (Some(mac), Some(kind)) = (reply.get(28..34), option(reply, 53)) else { continue };
        let mac: [u8; 6] = mac.try_into().context("six bytes")?;
        let Some(client) = waiting.get_mut(&mac) else { continue };
        match kind {
            [2] => {
                client.said = packet(mac, 3, Some(reply));
                (client.tries, client.again_at) = (0, now + Duration::from_secs(AGAIN_S[0]));
                send(&client.said)?;
            }
            [5] => {
                let address: [u8; 4] = reply[16..20].try_into().context("four bytes")?;
                took.push((client.began.elapsed(), Ipv4Addr::from(address)));
                waiting.remove(&mac);
            }
            _ => bail!("{mac:02x?} was answered by message {kind:?}"),
        }
    }
    Ok(took)
}

/// A ROM's packet, of x64 under UEFI; the answer by broadcast. `offer` is what a REQUEST takes.
fn packet(mac: [u8; 6], kind: u8, offer: Option<&[u8]>) -> Vec<u8> {
    let mut packet = vec![0; 236];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]);
    packet[4..8].copy_from_slice(&mac[2..]);
    packet[10] = 0x80;
    packet[28..34].copy_from_slice(&mac);
    packet.extend_from_slice(&[99, 130, 83, 99, 53, 1, kind]);
    let mut add = |code: u8, value: &[u8]| {
        packet.extend_from_slice(&[code, value.len() as u8]);
        packet.extend_from_slice(value);
    };
    add(57, &1472u16.to_be_bytes());
    add(55, &[1, 3, 6, 12, 43, 54, 60, 66, 67, 97]);
    add(60, b"PXEClient:Arch:00007:UNDI:003016");
    add(93, &[0, 7]);
    add(94, &[1, 3, 16]);
    let mut uuid = [0; 17];
    uuid[11..].copy_from_slice(&mac);
    add(97, &uuid);
    if let Some(offer) = offer {
        add(50, &offer[16..20]);
        add(54, option(offer, 54).unwrap_or_default());
    }
    packet.push(255);
    packet
}

fn option(packet: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = packet.get(240..)?;
    while let &[code, ref after @ ..] = rest {
        if code == 0 {
            rest = after;
            continue;
        }
        let (&length, after) = after.split_first()?;
        let value = after.get(..usize::from(length))?;
        if code == wanted {
            return Some(value);
        }
        rest = &after[usize::from(length)..];
    }
    None
}
