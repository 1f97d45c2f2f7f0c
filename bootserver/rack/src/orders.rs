//! Orders to agents: numbering, repetition, and what becomes of their outcomes.
//!
//! Owns: the list of what each host has been told and has not said to be done. Never does: decide what to tell.
//! An order's number is never used for anything else, over restarts too: the store holds a bound that runs ahead.

use crate::Rack;
use crate::effect::{Answer, Reply};
use crate::event::{Now, ReplyTo};
use crate::record::Counters;
use proto::agent::{Act, Done, Order, OrderOutcome};
use proto::api::{ConsoleText, Refusal};
use proto::{Epoch, HostId, MoveId, OrderId, VmId};

/// By how much the bound in the store runs ahead.
const NUMBERS_AT_ONCE: u64 = 1000;
/// Consoles that may be waited for on one host.
const CONSOLES_MAX: usize = 32;
/// How long an operator waits for a console, milliseconds.
const CONSOLE_MS: u64 = 10_000;
/// The end of a console that is asked for, bytes.
const CONSOLE_BYTES_MAX: u32 = 65_536;

/// An order whose outcome has not come.
pub(crate) struct Outstanding {
    pub(crate) order: Order,
    pub(crate) purpose: Purpose,
    /// When it was last put into an answer.
    pub(crate) said_mono_ms: Option<u64>,
}

/// Whose step an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The VM's own.
    Vm(VmId),
    /// A move's, told to its source.
    Source(MoveId),
    /// A move's, told to its target.
    Target(MoveId),
    /// A domain that the records prove to be stale is taken away.
    Orphan(VmId),
    /// A rollout's: its host starts anew.
    Reboot,
    /// An operator waits for the text.
    Console { reply: ReplyTo, until_mono_ms: u64 },
}

impl Rack {
    /// A number for an order, never used before.
    pub(crate) fn order_number(&mut self) -> OrderId {
        self.last_order = OrderId(self.above(self.last_order.0));
        let counters = self.counters.get(&()).copied().unwrap_or_default();
        if self.last_order > counters.orders {
            self.counters.put(Counters { orders: OrderId(self.last_order.0 + NUMBERS_AT_ONCE), ..counters });
        }
        self.last_order
    }

    /// Tells a host to do something, until it says that it is done. The same number again changes nothing.
    pub(crate) fn tell(&mut self, host: &HostId, id: OrderId, epoch: Epoch, act: Act, purpose: Purpose) {
        let live = self.live(host);
        if live.orders.iter().all(|given| given.order.id != id) {
            live.orders.push(Outstanding { order: Order { id, epoch, act }, purpose, said_mono_ms: None });
            self.to_answer.insert(host.clone());
        }
    }

    /// Whether a host has been told this and has not said that it is done.
    pub(crate) fn told(&self, host: &HostId, purpose: &Purpose) -> bool {
        self.live.get(host).is_some_and(|live| live.orders.iter().any(|given| given.purpose == *purpose))
    }

    /// Takes back what a host was told; if it has heard it already, its outcome will mean nothing.
    pub(crate) fn take_back(&mut self, host: &HostId, purpose: &Purpose) {
        if let Some(live) = self.live.get_mut(host) {
            live.orders.retain(|given| given.purpose != *purpose);
        }
    }

    /// An outcome has come; one that was repeated, or that nobody waits for, means nothing.
    pub(crate) fn order_ended(&mut self, host: &HostId, outcome: OrderOutcome, now: Now) {
        let live = self.live(host);
        let purpose = match live.orders.iter().position(|given| given.order.id == outcome.id) {
            Some(at) => live.orders.remove(at).purpose,
            None => match self.purpose_by_records(host, outcome.id) {
                Some(purpose) => purpose,
                None => return,
            },
        };
        match purpose {
            Purpose::Vm(vm) => self.vm_order_ended(&vm, host, outcome, now),
            Purpose::Source(r#move) => self.source_order_ended(r#move, outcome, now),
            Purpose::Target(r#move) => self.target_order_ended(r#move, outcome, now),
            // Whether it is gone is for the next survey to say.
            Purpose::Orphan(vm) => match outcome.result {
                Ok(_) => self.has_logged_out(host, &vm),
                Err(failure) => self.orphan_stays(&vm, host, failure, now),
            },
            Purpose::Reboot => self.reboot_ended(host, outcome, now),
            Purpose::Console { reply, .. } => {
                let answer = match outcome.result {
                    Ok(Done::Console { text }) => Ok(Reply::Console(ConsoleText { text })),
                    Ok(_) => Err(Refusal::HostFailed { host: host.clone(), detail: "it sent no console".to_owned() }),
                    Err(failure) => Err(Refusal::HostFailed { host: host.clone(), detail: failure.detail }),
                };
                self.answer(reply, Answer::Operator(answer));
            }
        }
    }

    /// What an order is for that a host has under way, as far as it still means anything.
    pub(crate) fn purpose_of(&self, host: &HostId, id: OrderId) -> Option<Purpose> {
        let given = self.live.get(host).and_then(|live| live.orders.iter().find(|given| given.order.id == id));
        given.map(|given| given.purpose.clone()).or_else(|| self.purpose_by_records(host, id))
    }

    /// What an order was for that was given before the server's restart and not yet again.
    fn purpose_by_records(&self, host: &HostId, id: OrderId) -> Option<Purpose> {
        let own = |vm: &VmId| self.vms.get(vm).is_some_and(|record| record.order == Some(id));
        if let Some(vm) = self.vms_of(host).into_iter().find(own) {
            return Some(Purpose::Vm(vm));
        }
        self.moves_of(host).find_map(|r#move| {
            let record = self.moves.get(&r#move)?;
            if record.source_order == Some(id) && record.view.source == *host {
                Some(Purpose::Source(r#move))
            } else if record.target_order == Some(id) && record.view.target == *host {
                Some(Purpose::Target(r#move))
            } else {
                None
            }
        })
    }

    /// An order that can have no outcome any more.
    pub(crate) fn order_dropped(&mut self, given: Outstanding) {
        if let Purpose::Console { reply, .. } = given.purpose {
            let detail = "the host has gone".to_owned();
            self.answer(reply, Answer::Operator(Err(Refusal::Unavailable { detail })));
        }
    }

    /// Asks for a console; the operator is answered when it comes.
    pub(crate) fn console(&mut self, reply: ReplyTo, vm: &VmId, now: Now) -> Result<(), Refusal> {
        let record = self.vms.get(vm).ok_or_else(|| Refusal::NoVm { vm: vm.clone() })?;
        let epoch = record.epoch;
        let Some(host) = record.owner.clone() else {
            return Err(Refusal::VmIs { vm: vm.clone(), phase: record.phase });
        };
        if !self.reporting(&host) {
            let state = self.hosts.get(&host).map(|h| self.host_state(h));
            return Err(match state {
                Some(state) => Refusal::HostIs { host, state },
                None => Refusal::NoHost { host },
            });
        }
        let waiting = |given: &&Outstanding| matches!(given.purpose, Purpose::Console { .. });
        if self.live(&host).orders.iter().filter(waiting).count() >= CONSOLES_MAX {
            return Err(Refusal::Unavailable { detail: format!("{CONSOLES_MAX} consoles of {host} are waited for") });
        }
        let id = self.order_number();
        let purpose = Purpose::Console { reply, until_mono_ms: now.mono_ms + CONSOLE_MS };
        self.tell(&host, id, epoch, Act::Console { vm: vm.clone(), bytes_max: CONSOLE_BYTES_MAX }, purpose);
        Ok(())
    }

    /// Gives up on consoles that did not come.
    pub(crate) fn give_up_consoles(&mut self, now: Now) {
        let mut late = Vec::new();
        for (host, live) in &mut self.live {
            live.orders.retain(|given| match given.purpose {
                Purpose::Console { reply, until_mono_ms } if until_mono_ms <= now.mono_ms => {
                    late.push((reply, host.clone()));
                    false
                }
                _ => true,
            });
        }
        for (reply, host) in late {
            let detail = format!("no answer within {} s", CONSOLE_MS / 1000);
            self.answer(reply, Answer::Operator(Err(Refusal::HostFailed { host, detail })));
        }
    }
}
