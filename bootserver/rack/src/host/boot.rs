//! A machine on its way up: address, script, files, and how long each took.

use super::NONCE_CHARS;
use super::stall::{self, Standing};
use crate::Rack;
use crate::admission::Rank;
use crate::dhcp::clients::Client;
use crate::dhcp::decide::Refusal;
use crate::effect::ScriptRefusal;
use crate::event::{BootFile, Entropy, Now, ScriptKind};
use crate::record::BootRecord;
use crate::release::id_of;
use crate::script;
use proto::agent::Secret;
use proto::event::Topic;
use proto::host::Firmware;
use proto::release::ReleaseId;
use proto::view::{BootStep, BootStepKind, HostState};
use proto::{HostId, Mac};
use std::net::Ipv4Addr;

/// A script fetched again within this, before a join, is the same boot, milliseconds.
const SAME_BOOT_MS: u64 = 60_000;
/// iPXE that asks for an address within this after its own loader was sent is on the same way up, milliseconds.
const SAME_WAY_UP_MS: u64 = 300_000;

impl Rack {
    /// Starts the time line of a boot, unless this packet belongs to one that has begun.
    pub(crate) fn way_up_begins(&mut self, mac: Mac, client: Client, now: Now) -> Option<()> {
        let Some(id) = self.host_that_boots(mac, now) else {
            let waiting = Refusal::TooManyUnknown;
            self.warn_seldom(Topic::Boot, now, format!("{mac} is not served: {waiting}"));
            return None;
        };
        let firmware = client.firmware();
        if self.hosts.get(&id).is_some_and(|host| host.firmware != firmware)
            && let Some(host) = self.hosts.edit(&id)
        {
            host.firmware = firmware;
        }
        let live = self.live(&id);
        let quiet_ms = live.asked_mono_ms.map(|at| now.mono_ms.saturating_sub(at));
        live.asked_mono_ms = Some(now.mono_ms);
        let last = self.hosts.get(&id).and_then(|host| host.steps.last()).map(|step| step.step);
        let goes_on = match (client, last) {
            (Client::Ipxe(_), Some(BootStepKind::Dhcp | BootStepKind::Loader)) => SAME_WAY_UP_MS,
            (_, Some(BootStepKind::Dhcp)) => SAME_BOOT_MS,
            _ => 0,
        };
        let live = self.live(&id);
        if live.client.replace(client) != Some(client) {
            live.moved_mono_ms = now.mono_ms;
        }
        if quiet_ms.is_none_or(|quiet| quiet >= goes_on)
            && let Some(host) = self.hosts.edit_unkept(&id)
        {
            host.steps.clear();
            let live = self.live(&id);
            live.open_steps.clear();
            live.rounds = match live.rounds {
                Some((furthest, rounds)) if Some(furthest) == last => Some((furthest, rounds.saturating_add(1))),
                _ => last.map(|furthest| (furthest, 1)),
            };
            self.step_begins(&id, BootStepKind::Dhcp, now);
        } else if let Some(host) = self.hosts.edit_unkept(&id)
            && let Some(step) =
                host.steps.iter_mut().find(|step| step.step == BootStepKind::Dhcp && step.took_ms.is_none())
        {
            step.again = step.again.saturating_add(1);
        }
        self.note_host_state(&id, now);
        Some(())
    }

    /// Begins a step, unless it has begun.
    pub(crate) fn step_begins(&mut self, host: &HostId, step: BootStepKind, now: Now) {
        if self.hosts.get(host).is_none_or(|record| record.steps.iter().any(|s| s.step == step)) {
            return;
        }
        // Kept, so that a server that comes back amid a boot shows the whole of it.
        let Some(record) = self.hosts.edit(host) else { return };
        record.steps.push(BootStep { step, at_ms: now.unix_ms, took_ms: None, bytes: 0, bytes_total: 0, again: 0 });
        let live = self.live(host);
        live.open_steps.insert(step, now.mono_ms);
        live.moved_mono_ms = now.mono_ms;
        self.version += 1;
    }

    /// Ends a step that is under way; kept with the record.
    pub(crate) fn step_ends(&mut self, host: &HostId, step: BootStepKind, now: Now) {
        let under_way =
            self.hosts.get(host).is_some_and(|h| h.steps.iter().any(|s| s.step == step && s.took_ms.is_none()));
        if !under_way {
            return;
        }
        let live = self.live(host);
        live.moved_mono_ms = now.mono_ms;
        let began_mono_ms = live.open_steps.remove(&step);
        let Some(record) = self.hosts.edit(host) else { return };
        for s in record.steps.iter_mut().filter(|s| s.step == step) {
            // After a restart of the server only the wall clock remembers.
            let took_ms = match began_mono_ms {
                Some(began) => now.mono_ms.saturating_sub(began),
                None => now.unix_ms.saturating_sub(s.at_ms),
            };
            s.took_ms = Some(took_ms);
        }
        self.version += 1;
    }

    /// Renders a script or xen.cfg; a new one is a new boot.
    pub(crate) fn script(
        &mut self,
        mac: Mac,
        from: Ipv4Addr,
        kind: ScriptKind,
        entropy: Entropy,
        now: Now,
    ) -> Result<String, ScriptRefusal> {
        let lease = self.address_for_script(mac, from, now)?;
        let host = self.host_that_boots(mac, now).ok_or(ScriptRefusal::TooManyUnknown)?;
        self.live(&host).asked_mono_ms = Some(now.mono_ms);
        let firmware = match kind {
            ScriptKind::IpxeBios => Firmware::Bios,
            ScriptKind::IpxeUefi | ScriptKind::XenCfg | ScriptKind::Words => Firmware::Uefi,
        };
        if self.hosts.get(&host).is_some_and(|h| h.firmware != Some(firmware))
            && let Some(record) = self.hosts.edit(&host)
        {
            record.firmware = Some(firmware);
        }
        // What a script names may be fetched by those that have one; Xen's configuration and dom0's words are a part of that.
        let asks = matches!(kind, ScriptKind::IpxeBios | ScriptKind::IpxeUefi);
        if asks {
            let (rank, places) = (self.rank(&host), self.policy.boots_at_once);
            if let Err(wait) = self.admission.ask(&host, rank, places, now) {
                // It waits for its turn: that is no standstill.
                self.live(&host).moved_mono_ms = now.mono_ms;
                self.note_host_state(&host, now);
                return Ok(script::wait(&self.policy, mac, firmware, wait.before, wait.again_s));
            }
        }
        let (nonce, release) = self.nonce_for_script(&host, kind, entropy, now);
        // Xen and dom0 ask after they were loaded themselves: that is no new beginning, unless nothing came before.
        let began = self.hosts.get(&host).is_some_and(|h| h.steps.iter().any(|s| s.step == BootStepKind::Script));
        if asks || !began {
            self.script_step(&host, now);
        }
        self.note_host_state(&host, now);
        // A release that a boot names is not removed.
        let manifest = self.releases.get(&release).map_or(&self.policy.release, |record| &record.manifest);
        let boot = script::Boot { release: &release, manifest, host: &host, mac, address: lease, nonce: &nonce };
        Ok(match kind {
            ScriptKind::IpxeBios => script::ipxe_bios(&self.policy, boot),
            ScriptKind::IpxeUefi => script::ipxe_uefi(&self.policy, mac, manifest),
            ScriptKind::XenCfg => script::xen_cfg(&self.policy, boot),
            ScriptKind::Words => script::words(&self.policy, boot),
        })
    }

    /// How soon a host goes among those that boot.
    fn rank(&self, host: &HostId) -> Rank {
        let waits = |vm| self.vms.get(vm).is_some_and(|vm| vm.run);
        let record = self.hosts.get(host);
        if self.owned.get(host).is_some_and(|vms| vms.iter().any(waits)) {
            Rank::Awaited
        } else if record.is_some_and(|host| host.accepted) {
            Rank::Accepted
        } else if record.is_some_and(|host| host.registered) {
            Rank::Registered
        } else {
            Rank::Unknown
        }
    }

    /// The nonce and the release of a boot. Xen's configuration and dom0's words are part of the boot that the script before them began,
    /// whatever the pool has come to since, and however long ago: the files are that release's.
    fn nonce_for_script(&mut self, host: &HostId, kind: ScriptKind, entropy: Entropy, now: Now) -> (String, ReleaseId) {
        let wanted = self.hosts.get(host).map(|record| self.wanted_release(record).0);
        let wanted = wanted.unwrap_or_else(|| id_of(&self.policy.release));
        let young = self.live(host).nonce_mono_ms.is_some_and(|at| now.mono_ms.saturating_sub(at) < SAME_BOOT_MS);
        let newest = self.hosts.get(host).and_then(|h| h.next_boot.as_ref().or(h.boot.as_ref()));
        let begun = newest.filter(|boot| boot.key.is_none());
        let goes_on = matches!(kind, ScriptKind::XenCfg | ScriptKind::Words);
        let named = begun.and_then(|boot| boot.release.clone()).filter(|_| goes_on);
        let wanted = named.unwrap_or(wanted);
        if let Some(boot) = begun.filter(|boot| young && boot.release.as_ref() == Some(&wanted)) {
            return (boot.nonce.clone(), wanted);
        }
        let (nonce, seed) = entropy.0.split_at(16);
        let (chap_seed, release) = (Secret(base64url(seed)), Some(wanted.clone()));
        let boot =
            BootRecord { nonce: base64url(nonce), key: None, csr_pem: None, chap_seed, release, term: self.term() };
        debug_assert_eq!(boot.nonce.len(), NONCE_CHARS);
        let nonce = boot.nonce.clone();
        self.live(host).nonce_mono_ms = Some(now.mono_ms);
        if let Some(record) = self.hosts.edit(host) {
            // A boot that has joined stays in force until the newer one joins: a script is easily asked for.
            if record.joined() { record.next_boot = Some(boot) } else { record.boot = Some(boot) }
        }
        (nonce, wanted)
    }

    /// From the end of the step before to the script: iPXE starts, gets its address and asks.
    fn script_step(&mut self, host: &HostId, now: Now) {
        let live = self.live(host);
        let (unfinished, began_mono_ms) =
            live.open_steps.pop_last().map_or((None, None), |(s, at)| (Some(s), Some(at)));
        if let Some(step) = unfinished
            && let Some(began) = began_mono_ms
        {
            self.live(host).open_steps.insert(step, began);
            self.step_ends(host, step, now);
        }
        let Some(record) = self.hosts.edit(host) else { return };
        let mut again = 0;
        if let Some(at) = record.steps.iter().position(|s| s.step >= BootStepKind::Script) {
            // Fetched again, after a failure: what follows begins anew.
            again = record.steps[at..]
                .iter()
                .find(|s| s.step == BootStepKind::Script)
                .map_or(0, |s| s.again.saturating_add(1));
            record.steps.truncate(at);
        }
        let ended_ms = record.steps.last().map_or(now.unix_ms, |s| s.at_ms + s.took_ms.unwrap_or(0));
        let at_ms = ended_ms.min(now.unix_ms);
        let took_ms = Some(now.unix_ms - at_ms);
        record.steps.push(BootStep { step: BootStepKind::Script, at_ms, took_ms, bytes: 0, bytes_total: 0, again });
        let live = self.live(host);
        live.open_steps.clear();
        live.moved_mono_ms = now.mono_ms;
        self.version += 1;
    }

    /// Part of a boot file went out.
    pub(crate) fn served(&mut self, to: Ipv4Addr, file: BootFile, bytes: u64, bytes_total: u64, now: Now) {
        let Some(mac) = self.leases.mac_at(to) else { return };
        let host = HostId::of(mac);
        if self.hosts.get(&host).is_none_or(|h| h.steps.is_empty()) {
            return;
        }
        let step = match file {
            BootFile::Loader => BootStepKind::Loader,
            BootFile::Xen | BootFile::Unified => BootStepKind::Xen,
            BootFile::Kernel => BootStepKind::Kernel,
            BootFile::Initrd => BootStepKind::Initrd,
            BootFile::Image => BootStepKind::Image,
        };
        self.live(&host).seen_mono_ms = now.mono_ms;
        self.admission.fetched(&host, file == BootFile::Image, now);
        if file == BootFile::Image {
            self.step_ends(&host, BootStepKind::Linux, now);
        }
        self.step_begins(&host, step, now);
        if let Some(record) = self.hosts.edit_unkept(&host)
            && let Some(s) = record.steps.iter_mut().find(|s| s.step == step)
        {
            if bytes < s.bytes || bytes == s.bytes && s.took_ms.is_some() {
                s.again = s.again.saturating_add(1);
            }
            (s.bytes, s.bytes_total) = (bytes, bytes_total);
        }
        self.live(&host).moved_mono_ms = now.mono_ms;
        self.version += 1;
        if bytes >= bytes_total {
            self.step_ends(&host, step, now);
            let next = match file {
                BootFile::Initrd | BootFile::Unified => BootStepKind::Linux,
                BootFile::Image => BootStepKind::Start,
                BootFile::Loader | BootFile::Xen | BootFile::Kernel => return,
            };
            self.admission.done(&host);
            self.step_begins(&host, next, now);
        }
    }
}

impl Rack {
    /// Notices boots that stand still, and those that go on again.
    pub(crate) fn find_stalls(&mut self, now: Now) {
        let mut changed = Vec::new();
        for record in self.hosts.values() {
            let Some(live) = self.live.get(&record.id) else { continue };
            let stall =
                record.steps.last().filter(|_| self.host_state(record) == HostState::Booting).and_then(|last| {
                    let rounds = live.rounds.filter(|(furthest, _)| *furthest == last.step);
                    let quiet_ms = now.mono_ms.saturating_sub(live.moved_mono_ms);
                    // The beginning that is under way counts as well.
                    let rounds = rounds.map_or(1, |(_, rounds)| rounds.saturating_add(1));
                    stall::cause(&Standing { last, client: live.client, rounds, quiet_ms })
                });
            if live.stall != stall {
                changed.push((record.id.clone(), stall));
            }
        }
        for (host, stall) in changed {
            self.live(&host).stall.clone_from(&stall);
            self.version += 1;
            let Some(record) = self.hosts.get(&host) else { continue };
            let (name, stranger) = (record.name.clone(), !record.accepted && !record.registered);
            match stall {
                // Who invents machines does not fill the log.
                Some(cause) if stranger => {
                    self.warn_seldom(Topic::Boot, now, format!("the boot of {name} stands still: {cause}"))
                }
                Some(cause) => {
                    self.warn(Topic::Boot, now, format!("the boot of {name} stands still: {cause}"), |e| {
                        e.host = Some(host)
                    });
                }
                None => {}
            }
        }
    }
}

/// RFC 4648 §5, without padding.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0, |word, &byte| word << 8 | usize::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[word >> (18 - 6 * place) & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64url_as_in_rfc_4648() {
        // §10, and the two characters that differ from base64.
        for (given, expected) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(super::base64url(given.as_bytes()), expected);
        }
        assert_eq!(super::base64url(&[0xfb, 0xff]), "-_8");
        assert_eq!(super::base64url(&[7; 16]).len(), super::NONCE_CHARS);
    }
}
