//! The storage's fence under write load: a host that heeds no lease is cut off amid its writes.

use super::Trial;
use super::fault::nft;
use super::ha::{await_elsewhere, await_usable, ready, runs_once_from_its_disk, state_by_xl};
use crate::oracle::verdict::{disk, host};
use anyhow::{Context, Result, ensure};

/// Where in the guest's disk the writer writes, sectors: behind all that the guest uses.
const FREE_SECTOR: u64 = 62 << 11;
/// That it still wrote so shortly before its fence was confirmed is what "under load" means, milliseconds.
const SHORTLY_MS: u64 = 5_000;

/// dom0 itself writes to the disk of a guest, which no lease stops, while its way to server and heartbeat is cut: only the cut of its session ends it.
pub(super) fn heedless_writer(trial: &mut Trial) -> Result<()> {
    ready(trial)?;
    let guest = trial.guest(0)?;
    let before = trial.rack.operator.vm(&guest.name)?;
    let host_id = before.owner.clone().context("it runs")?;
    let its_disk = before.spec.disks.first().with_context(|| format!("{} has no disk", guest.name))?.to_string();
    let counted = trial.rack.await_counting(&guest)?;
    let open = |session: &&crate::oracle::wire::Session| {
        session.closed_ns.is_none() && host(session) == host_id.as_str() && disk(session) == its_disk
    };
    let (seen, _) = trial.oracle.seen()?;
    let way = seen.sessions.iter().rfind(open).context("its session was not seen")?.address;
    let machine = trial.rack.machine_of(&host_id)?;
    let find = format!(
        "for s in /sys/class/iscsi_session/session*; do grep -q ':{its_disk}$' $s/targetname && ls $s/device/target*/*/block; done"
    );
    let device = machine.shell(&find, &trial.rack.guard)?;
    ensure!(device.starts_with("sd") && device.lines().count() == 1, "{its_disk} is no one device there: {device:?}");
    let seek = FREE_SECTOR / 8;
    let write = format!("dd if=/dev/zero of=/dev/{device} bs=4096 count=64 seek={seek} oflag=direct conv=notrunc");
    machine.shell(&format!("(while {write}; do :; done) >/dev/null 2>&1 </dev/null & true"), &trial.rack.guard)?;
    let (address, port) = (way.ip(), way.port());
    nft(
        trial,
        &format!(
            "add table inet fault; add chain inet fault input {{ type filter hook input priority 0; }}; \
             add rule inet fault input ip saddr {address} tcp dport 7443 drop; \
             add rule inet fault input ip saddr {address} tcp dport 3260 tcp sport != {port} drop"
        ),
    )?;
    let owner = await_elsewhere(trial, &guest, &before)?;
    // The way is open again: what comes back now is refused for its account, not for want of a way.
    nft(trial, "delete table inet fault")?;
    let after = trial.rack.await_counting(&guest)?;
    await_usable(trial, &host_id)?;
    trial.judge()?;
    let fence = trial.oracle.story().fences.iter().rfind(|(id, _)| *id == host_id);
    let (_, fenced_ms) = fence.cloned().context("it was not fenced")?;
    let (seen, _) = trial.oracle.seen()?;
    let late = seen.writes.iter().filter(|write| {
        let session = &seen.sessions[write.session];
        let by_it = host(session) == host_id.as_str() && disk(session) == its_disk;
        let ms = write.came_ns / 1_000_000;
        by_it && write.lba >= Some(FREE_SECTOR) && (fenced_ms - SHORTLY_MS..=fenced_ms).contains(&ms)
    });
    let late = late.count();
    println!(
        "        {host_id} wrote {late} times to the disk of {} in the {SHORTLY_MS} ms before its fence",
        guest.name
    );
    ensure!(late > 0, "the writer did not write any more: the fence was not tried under load");
    ensure!(after >= counted, "{} had counted to {counted} on its disk and is at {after}", guest.name);
    ensure!(owner != host_id, "{} is still on {host_id}", guest.name);
    trial.rack.guard.wait("the fenced host to be rid of the guest", || {
        Ok(state_by_xl(trial, &host_id, &guest)?.is_none().then_some(()))
    })?;
    runs_once_from_its_disk(trial, &guest, after)
}
