//! What must hold of the writes that were seen.
//!
//! Owns: the rules. Never does: ask the code under test anything but its event log; the writes come from the wire.
//!
//! 1. At each moment one host writes to a disk: the writes of another had landed before its first came.
//! 2. The hosts that write to a VM's disk do so in the order of its epochs, and none before it owns the VM.
//! 3. After a host's fence was confirmed nothing of its sessions lands, and it does not come back under an account of before.
//! 4. Nobody at all changes a disk of a fenced host's VM before the next owner's first write.

use super::wire::{Seen, Session, Write};
use anyhow::{Result, bail, ensure};
use proto::HostId;
use proto::event::LogEvent;
use proto::heartbeat;
use std::collections::BTreeMap;

/// An owner of a VM, from the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Under which epoch.
    pub epoch: u64,
    /// Which host.
    pub host: HostId,
    /// From then on, Unix milliseconds.
    pub at_ms: u64,
}

/// The event log as far as writes must agree with it.
#[derive(Debug, Default, Clone)]
pub struct Story {
    /// Owners of each VM, oldest first.
    pub owners: BTreeMap<String, Vec<Owner>>,
    /// When hosts' fences were confirmed, Unix milliseconds.
    pub fences: Vec<(HostId, u64)>,
    /// Which VM a disk is of.
    pub disks: BTreeMap<String, String>,
}

/// A change of a disk's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which disk.
    pub disk: String,
    /// It was begun no later than that, Unix nanoseconds.
    pub begun_ns: u64,
    /// And was seen then.
    pub seen_ns: u64,
}

/// What was judged, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Writes to disks of VMs, by host.
    pub writes: BTreeMap<String, usize>,
    /// For each fence: whose, its writes of before and of after.
    pub fences: Vec<(HostId, usize, usize)>,
    /// How often another host went on writing to a disk.
    pub hand_overs: usize,
}

impl Story {
    /// Takes in an event.
    pub fn hear(&mut self, event: &LogEvent) {
        if let (Some(vm), Some(host), Some(epoch)) = (&event.vm, &event.host, event.epoch) {
            let owner = Owner { epoch: epoch.0, host: host.clone(), at_ms: event.at_ms };
            self.owners.entry(vm.to_string()).or_default().push(owner);
        }
        if let Some(host) = &event.host
            && event.text == format!("{host} is fenced: its VMs are started elsewhere")
        {
            self.fences.push((host.clone(), event.at_ms));
        }
    }
}

/// Judges everything that was seen so far.
pub fn judge(seen: &Seen, changes: &[Change], story: &Story) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut by_disk: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
    for write in &seen.writes {
        let session = &seen.sessions[write.session];
        by_disk.entry(disk(session)).or_default().push(write);
    }
    for (disk, writes) in &by_disk {
        if *disk == heartbeat::DISK {
            slots(seen, writes)?;
        } else {
            one_at_a_time(seen, disk, writes)?;
            in_order(seen, disk, writes, story)?;
            for write in writes {
                *verdict.writes.entry(host(&seen.sessions[write.session]).to_owned()).or_default() += 1;
            }
            let hosts: Vec<&str> = writes.iter().map(|write| host(&seen.sessions[write.session])).collect();
            verdict.hand_overs += hosts.windows(2).filter(|pair| pair[0] != pair[1]).count();
        }
    }
    for (host, at_ms) in &story.fences {
        let (before, after) = fenced(seen, host, *at_ms)?;
        ensure!(before > 0, "{host} was fenced and not one write of it was seen: this oracle is blind");
        ensure!(
            after == 0,
            "{after} writes of {host} landed after its fence was confirmed at {at_ms} ms; {before} before"
        );
        untouched(seen, changes, story, host, *at_ms)?;
        verdict.fences.push((host.clone(), before, after));
    }
    Ok(verdict)
}

/// The disk behind the session's target.
pub fn disk(session: &Session) -> &str {
    session.login.target.rsplit_once(':').map_or(&session.login.target, |(_, disk)| disk)
}

/// The host that logged in, as it names itself.
pub fn host(session: &Session) -> &str {
    session.login.initiator.rsplit_once(':').map_or(&session.login.initiator, |(_, host)| host)
}

/// When it had landed at the latest. What was never answered had when its connection ended, as far as the wire can tell.
fn landed_ns(seen: &Seen, write: &Write) -> u64 {
    write.landed_ns.or(seen.sessions[write.session].closed_ns).unwrap_or(u64::MAX)
}

fn one_at_a_time(seen: &Seen, disk: &str, writes: &[&Write]) -> Result<()> {
    // For each host the last of its writes to land.
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for write in writes {
        let host = host(&seen.sessions[write.session]);
        if let Some((other, ns)) = last.iter().find(|(other, ns)| **other != host && **ns > write.came_ns) {
            bail!(
                "two hosts write to {disk} at once: a write of {host} to block {:?} came at {} ns, one of {other} landed at {ns} ns",
                write.lba,
                write.came_ns
            );
        }
        let landed_ns = landed_ns(seen, write);
        let newest = last.entry(host).or_default();
        *newest = (*newest).max(landed_ns);
    }
    Ok(())
}

fn in_order(seen: &Seen, disk: &str, writes: &[&Write], story: &Story) -> Result<()> {
    let Some(vm) = story.disks.get(disk) else { bail!("{disk} is written to, and no VM is known to have it") };
    let owners = story.owners.get(vm).map_or(&[][..], Vec::as_slice);
    ensure!(owners.windows(2).all(|pair| pair[0].epoch < pair[1].epoch), "the epochs of {vm} do not rise: {owners:?}");
    let mut now = 0;
    for write in writes {
        let host = host(&seen.sessions[write.session]);
        let may = |owner: &Owner| owner.host.as_str() == host && owner.at_ms <= write.came_ns / 1_000_000;
        // The newest of its times as owner; the one before it may end its writes until it writes itself.
        match owners.iter().rposition(may) {
            Some(at) if at >= now => now = at,
            at => bail!(
                "{host} writes to {disk} at {} ms, block {:?}: of {vm}'s owners {owners:?} it is number {at:?}, and number {now} has written",
                write.came_ns / 1_000_000,
                write.lba
            ),
        }
    }
    Ok(())
}

/// Each slot of the heartbeat disk is one host's. That of a host that was removed is given to another, and never back.
fn slots(seen: &Seen, writes: &[&Write]) -> Result<()> {
    let mut holders: BTreeMap<Option<u64>, Vec<&str>> = BTreeMap::new();
    for write in writes {
        let host = host(&seen.sessions[write.session]);
        let holders = holders.entry(write.lba).or_default();
        if holders.last() != Some(&host) {
            ensure!(
                !holders.contains(&host),
                "{host} wrote to a slot that is {holders:?}'s since, block {:?}",
                write.lba
            );
            holders.push(host);
        }
    }
    Ok(())
}

/// Writes of a host's sessions until its fence was confirmed, and after.
fn fenced(seen: &Seen, fenced: &HostId, at_ms: u64) -> Result<(usize, usize)> {
    let at_ns = at_ms * 1_000_000;
    let of_it = |session: &&Session| host(session) == fenced.as_str();
    let (old, new): (Vec<_>, Vec<_>) = seen.sessions.iter().filter(of_it).partition(|s| s.login.at_ns <= at_ns);
    for session in new {
        let before =
            old.iter().find(|o| (&o.login.target, &o.login.user) == (&session.login.target, &session.login.user));
        ensure!(
            before.is_none(),
            "{fenced} was fenced and let in to {} again under the account {} of before",
            session.login.target,
            session.login.user
        );
    }
    let theirs = seen.writes.iter().filter(|write| {
        let session = &seen.sessions[write.session];
        host(session) == fenced.as_str() && session.login.at_ns <= at_ns
    });
    let (before, after): (Vec<&Write>, Vec<&Write>) =
        theirs.partition(|write| write.came_ns <= at_ns && landed_ns(seen, write) <= at_ns);
    Ok((before.len(), after.len()))
}

/// The wire does not show what a worker of the target's still writes for a connection that is closed; the file does.
fn untouched(seen: &Seen, changes: &[Change], story: &Story, fenced: &HostId, at_ms: u64) -> Result<()> {
    let at_ns = at_ms * 1_000_000;
    for (disk_name, vm) in &story.disks {
        let owners = story.owners.get(vm).map_or(&[][..], Vec::as_slice);
        let then = owners.iter().rfind(|owner| owner.at_ms <= at_ms);
        if then.is_none_or(|owner| owner.host != *fenced) {
            continue;
        }
        let to_it = |write: &&Write| disk(&seen.sessions[write.session]) == disk_name && write.came_ns > at_ns;
        let next_ns = seen.writes.iter().find(to_it).map_or(u64::MAX, |write| write.came_ns);
        // What was seen only then may be of before the fence, or the next owner's.
        let late = |c: &&Change| c.disk == *disk_name && c.begun_ns >= at_ns && c.seen_ns < next_ns;
        if let Some(change) = changes.iter().find(late) {
            let late_ms = (change.begun_ns - at_ns) / 1_000_000;
            bail!(
                "{disk_name} was changed {late_ms} ms after {fenced} was fenced, and before anyone wrote to it again"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::iscsi::Login;
    use std::net::{Ipv4Addr, SocketAddrV4};

    const MS: u64 = 1_000_000;
    const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

    fn id(name: &str) -> HostId {
        HostId::of(proto::Mac([0x52, 0x54, 0, 0, 0, name.as_bytes()[1]]))
    }

    /// Sessions as "host disk opened closed", writes as "session came landed", times in ms; owners as "host at", fences the same;
    /// changes as begun and seen.
    fn check(sessions: &str, writes: &str, owners: &str, fences: &str, changes: &[(u64, u64)]) -> Result<Verdict> {
        let lines = |text: &str| -> Vec<Vec<String>> {
            text.split(',')
                .map(|l| l.split_whitespace().map(str::to_owned).collect())
                .filter(|l: &Vec<_>| !l.is_empty())
                .collect()
        };
        let ms = |word: &str| word.parse::<u64>().ok().map(|ms| ms * MS);
        let mut seen = Seen::default();
        for (number, line) in lines(sessions).iter().enumerate() {
            let [name, disk, opened, closed] = &line[..] else { panic!("{line:?}") };
            let login = Login {
                initiator: format!("iqn.x:{}", id(name)),
                target: format!("iqn.x:{disk}"),
                user: format!("u{number}"),
                at_ns: ms(opened).expect("a time"),
            };
            seen.sessions.push(Session { login, address: ADDRESS, closed_ns: ms(closed) });
        }
        for line in lines(writes) {
            let [session, came, landed] = &line[..] else { panic!("{line:?}") };
            let session = session.parse().expect("a number");
            let came_ns = ms(came).expect("a time");
            seen.writes.push(Write { session, lba: Some(8), blocks: 1, came_ns, landed_ns: ms(landed) });
        }
        let mut story = Story { disks: [("d".to_owned(), "vm".to_owned())].into(), ..Story::default() };
        for (number, line) in lines(owners).iter().enumerate() {
            let owner = Owner { epoch: number as u64 + 1, host: id(&line[0]), at_ms: line[1].parse().expect("a time") };
            story.owners.entry("vm".to_owned()).or_default().push(owner);
        }
        for line in lines(fences) {
            story.fences.push((id(&line[0]), line[1].parse().expect("a time")));
        }
        let changes: Vec<Change> = changes
            .iter()
            .map(|(begun, seen)| Change { disk: "d".to_owned(), begun_ns: begun * MS, seen_ns: seen * MS })
            .collect();
        judge(&seen, &changes, &story)
    }

    #[track_caller]
    fn wrong(result: Result<Verdict>, says: &str) {
        let said = result.expect_err("it was let pass").to_string();
        assert!(said.contains(says), "{said}");
    }

    const TWO: &str = "h1 d 5 50, h2 d 45 -";

    #[test]
    fn a_hand_over_in_order() {
        let verdict = check(TWO, "0 10 11, 0 40 -, 1 60 61", "h1 1, h2 45", "", &[]).expect("good");
        assert_eq!((verdict.hand_overs, verdict.writes.len()), (1, 2));
    }

    #[test]
    fn two_hosts_at_once() {
        wrong(check(TWO, "0 10 11, 0 40 62, 1 60 61", "h1 1, h2 45", "", &[]), "at once");
        wrong(check("h1 d 5 -, h2 d 45 -", "0 40 -, 1 60 61", "h1 1, h2 45", "", &[]), "at once");
        wrong(check(TWO, "0 10 11, 1 60 61, 0 70 71, 1 80 81", "h1 1, h2 45", "", &[]), "number 1 has written");
    }

    #[test]
    fn an_owner_writes_no_sooner_and_no_later() {
        wrong(check(TWO, "1 44 44", "h1 1, h2 45", "", &[]), "number None");
        wrong(check("h3 d 5 -", "0 60 61", "h1 1, h2 45", "", &[]), "number None");
        // It was told to start anew meanwhile, so the other's turn is over.
        wrong(check(TWO, "0 10 11, 0 48 49, 1 60 61", "h1 1, h2 45, h1 47", "", &[]), "number 2 has written");
    }

    #[test]
    fn a_slot_is_one_hosts_until_it_is_gone() {
        let slots = |writes| check("h1 tsubame-heartbeat 5 -, h2 tsubame-heartbeat 6 -", writes, "", "", &[]);
        slots("0 10 11, 0 20 21, 1 30 31, 1 40 41").expect("good");
        wrong(slots("0 10 11, 1 30 31, 0 40 41"), "a slot that is");
    }

    #[test]
    fn nothing_lands_after_a_fence() {
        let changed =
            |changes: &[_]| check("h1 d 5 50, h2 d 60 -", "0 10 11, 1 70 71", "h1 1, h2 56", "h1 55", changes);
        let good = changed(&[(11, 11), (54, 58), (69, 71)]).expect("good");
        assert_eq!(good.fences, [(id("h1"), 1, 0)]);
        wrong(check("h1 d 5 57", "0 10 11, 0 54 56", "h1 1", "h1 55", &[]), "1 writes of");
        wrong(check("h1 d 5 57", "0 10 11, 0 54 -", "h1 1", "h1 55", &[]), "1 writes of");
        wrong(check("h1 d 5 -, h1 d 60 -", "0 10 11", "h1 1", "h1 55", &[(56, 57)]), "after");
        wrong(changed(&[(55, 69)]), "was changed 0 ms after");
        wrong(check("h1 d 5 50", "", "h1 1", "h1 55", &[]), "blind");
    }

    #[test]
    fn nobody_comes_back_under_an_old_account() {
        let login =
            |at_ns| Login { initiator: format!("i:{}", id("h1")), target: "t:d".into(), user: "u".into(), at_ns };
        let session = |at_ns| Session { login: login(at_ns), address: ADDRESS, closed_ns: Some(at_ns + 1) };
        let seen = Seen { sessions: vec![session(5), session(60 * MS)], writes: Vec::new() };
        assert!(
            fenced(&seen, &id("h1"), 55).expect_err("the same account").to_string().contains("account u of before")
        );
    }
}
