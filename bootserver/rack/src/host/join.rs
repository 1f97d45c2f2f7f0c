//! Letting machines in: nonce, key, acceptance, renewal.

use super::Rack;
use crate::effect::JoinDecision;
use crate::event::Now;
use crate::policy::JoinMode;
use proto::HostId;
use proto::agent::{JoinRefusal, JoinRequest};
use proto::event::Topic;
use proto::host::Inventory;
use proto::view::BootStepKind;
use std::net::Ipv4Addr;

/// The longest signing request that is kept, bytes; one for P-256 has about 500.
const CSR_BYTES_MAX: usize = 8192;
/// The most of each list and text of an inventory that is kept: who sends it may not be let in yet.
const INVENTORY_LIST_MAX: usize = 1024;
const INVENTORY_TEXT_CHARS_MAX: usize = 200;

impl Rack {
    /// A machine asks to join.
    pub(crate) fn join(&mut self, request: JoinRequest, key: String, from: Ipv4Addr, now: Now) -> JoinDecision {
        let host = request.host;
        let no = JoinDecision::Refused;
        let Some(record) = self.hosts.get(&host) else { return no(JoinRefusal::NonceUnknown) };
        let mac = record.mac;
        if request.csr_pem.len() > CSR_BYTES_MAX {
            return no(JoinRefusal::BadCsr);
        }
        let is = |boot: &Option<crate::record::BootRecord>| boot.as_ref().is_some_and(|b| b.nonce == request.nonce);
        let newer = is(&record.next_boot);
        if !newer && !is(&record.boot) || self.leases.address_of(mac) != Some(from) {
            let active = self.live.get(&host).is_some_and(|l| !l.lost && l.heard_mono_ms.is_some()) && record.joined();
            let why = if active { JoinRefusal::AlreadyActive } else { JoinRefusal::NonceUnknown };
            self.warn_seldom(Topic::Host, now, format!("a join as {host} from {from} was refused: {why}"));
            return no(why);
        }
        if !newer && let Some(spent) = record.boot.as_ref().and_then(|b| b.key.as_ref()) {
            if *spent != key {
                self.warn_seldom(
                    Topic::Host,
                    now,
                    format!("a second key joined as {host} from {from} with a used nonce"),
                );
                return no(JoinRefusal::NonceUsed);
            }
            return self.joined_so_far(&host, None);
        }
        if newer {
            self.boot_is_over(&host, now);
        }
        let live = self.live(&host);
        (live.seen_mono_ms, live.sign_mono_ms) = (now.mono_ms, now.mono_ms);
        live.rounds = None;
        self.step_ends(&host, BootStepKind::Start, now);
        self.step_begins(&host, BootStepKind::Join, now);
        let mode = self.policy.join;
        if let Some(record) = self.hosts.edit(&host) {
            if newer {
                record.boot = record.next_boot.take();
            }
            if let Some(boot) = &mut record.boot {
                boot.key = Some(key);
                boot.csr_pem = Some(request.csr_pem);
            }
            record.firmware = Some(request.inventory.firmware);
            record.inventory = Some(bounded(request.inventory));
            record.accepted |= match mode {
                JoinMode::Manual => false,
                JoinMode::Known => record.registered,
                JoinMode::All => true,
            };
        }
        self.accept_by_itself(&host, now);
        let accepted = self.hosts.get(&host).is_some_and(|h| h.accepted);
        self.live(&host).nonce_mono_ms = None;
        if accepted {
            self.step_ends(&host, BootStepKind::Join, now);
        }
        self.lease_on(mac, now);
        self.note_host_state(&host, now);
        self.joined_so_far(&host, None)
    }

    /// A machine asks what became of its join.
    pub(crate) fn join_poll(&mut self, key: &str, now: Now) -> JoinDecision {
        let with_key = |h: &&crate::record::HostRecord| h.boot.as_ref().is_some_and(|b| b.key.as_deref() == Some(key));
        let Some(record) = self.hosts.values().find(with_key) else {
            return JoinDecision::Refused(JoinRefusal::NonceUnknown);
        };
        let (host, mac) = (record.id.clone(), record.mac);
        self.live(&host).seen_mono_ms = now.mono_ms;
        self.lease_on(mac, now);
        self.joined_so_far(&host, None)
    }

    /// A host asks for a new certificate for its key.
    pub(crate) fn renew(&mut self, host: &HostId, key: &str, csr_pem: String) -> JoinDecision {
        match self.let_in(host, key) {
            Err(refusal) => JoinDecision::Refused(refusal),
            Ok(()) if csr_pem.len() > CSR_BYTES_MAX => JoinDecision::Refused(JoinRefusal::BadCsr),
            Ok(()) => self.joined_so_far(host, Some(csr_pem)),
        }
    }

    /// Whether a key is that of the host's present boot, and the host let in.
    pub(crate) fn let_in(&self, host: &HostId, key: &str) -> Result<(), JoinRefusal> {
        let record = self.hosts.get(host).ok_or(JoinRefusal::Removed)?;
        match record.boot.as_ref().and_then(|boot| boot.key.as_deref()) {
            Some(known) if known == key && record.accepted => Ok(()),
            Some(known) if known == key => Err(JoinRefusal::NotKnown),
            Some(_) => Err(JoinRefusal::AlreadyActive),
            None => Err(JoinRefusal::NonceUnknown),
        }
    }

    fn joined_so_far(&self, host: &HostId, renewed: Option<String>) -> JoinDecision {
        let Some(record) = self.hosts.get(host) else { return JoinDecision::Refused(JoinRefusal::Removed) };
        if self.turned_away(record) {
            return JoinDecision::Refused(JoinRefusal::NotKnown);
        }
        let csr_pem = renewed.or_else(|| record.boot.as_ref().and_then(|boot| boot.csr_pem.clone()));
        match (record.accepted, csr_pem, self.leases.address_of(record.mac)) {
            (true, Some(csr_pem), Some(address)) => JoinDecision::Issue { host: host.clone(), csr_pem, address },
            _ => JoinDecision::Waiting,
        }
    }

    /// The machine has been booted anew: whatever its old boot ran is gone, and nobody may speak for it any more.
    fn boot_is_over(&mut self, host: &HostId, now: Now) {
        let live = self.live(host);
        live.heard_mono_ms = None;
        live.lost = false;
        live.silent = false;
        live.report = None;
        live.healthy_mono_ms = None;
        live.beat = None;
        live.cut_mono_ms = None;
        if let Some(held) = live.held.take() {
            self.answer(held.reply, crate::effect::Answer::Report(Err(JoinRefusal::AlreadyActive)));
        }
        let orders = std::mem::take(&mut self.live(host).orders);
        for order in orders {
            self.order_dropped(order);
        }
        self.survey_begins_anew(host);
        self.end_ways_of_boot(host, now);
        self.vms_after_boot_of(host, now);
        self.moves_after_boot_of(host, "was booted anew", now);
        // Whatever was left to be taken from it is gone with its old boot.
        if self.hosts.get(host).is_some_and(|record| record.fence.is_some())
            && let Some(record) = self.hosts.edit(host)
        {
            (record.fence, record.off) = (None, None);
        }
        self.forget_fence_order(host);
        // One that was not let in can say so as often as it likes.
        if self.hosts.get(host).is_some_and(|record| record.accepted) {
            self.info(Topic::Host, now, format!("{host} has been booted anew"), |e| e.host = Some(host.clone()));
        }
    }
}

pub(crate) fn bounded(mut inventory: Inventory) -> Inventory {
    let cut = |text: &mut String| *text = text.chars().take(INVENTORY_TEXT_CHARS_MAX).collect();
    for text in [
        &mut inventory.uuid,
        &mut inventory.serial,
        &mut inventory.product,
        &mut inventory.cpu.vendor,
        &mut inventory.cpu.model,
        &mut inventory.xen,
        &mut inventory.agent,
        &mut inventory.image,
        &mut inventory.release,
    ] {
        cut(text);
    }
    let hardware = &mut inventory.hardware;
    cut(&mut hardware.firmware);
    hardware.modules.truncate(INVENTORY_LIST_MAX);
    for module in &mut hardware.modules {
        [&mut module.slot, &mut module.maker, &mut module.part, &mut module.serial].into_iter().for_each(cut);
    }
    hardware.disks.truncate(INVENTORY_LIST_MAX);
    for disk in &mut hardware.disks {
        [&mut disk.name, &mut disk.model, &mut disk.serial].into_iter().for_each(cut);
    }
    if let Some(bmc) = &mut hardware.bmc {
        cut(&mut bmc.by);
    }
    inventory.nics.truncate(INVENTORY_LIST_MAX);
    inventory.nics.iter_mut().for_each(|nic| cut(&mut nic.driver));
    let features = std::mem::take(&mut inventory.cpu.features);
    inventory.cpu.features = features.into_iter().filter(|f| f.len() <= 64).take(INVENTORY_LIST_MAX).collect();
    inventory
}
