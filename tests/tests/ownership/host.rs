//! What hosts do: `hostagent::Agent`, Xen and its watchdog, and time.
//!
//! Owns: the transitions of a host. Never does: read the record.

use super::state::{
    Domain, Guards, Host, HostNo, Kind, LEASE, NO_MOVE, Order, Orders, Phase, Report, State, WATCHDOG, move_account,
    start_account,
};

impl State {
    /// An order is begun, and done. Whatever is not begun now may be later, or never.
    pub(crate) fn begin(&mut self, at: HostNo, order: Order, guards: Guards) -> bool {
        let epoch = self.epoch_of(order);
        let leased = self.leased(at);
        let other = self.hosts[1 - at];
        let granted = self.granted[at];
        let account = self.clocks.account;
        let (record, host) = (self.record, &mut self.hosts[at]);
        let runs_guest = !matches!(order.kind, Kind::Release | Kind::AbortReceive | Kind::Destroy);
        if !host.up || !host.told.has(order) || host.done.has(order) || runs_guest && !leased {
            return false;
        }
        if guards.epoch_check && epoch < host.floor {
            host.done.add(order);
            host.failed.add(order);
            return true;
        }
        host.floor = host.floor.max(epoch);
        if guards.by_number {
            host.told.overtake(order);
        }
        let another = host.of != order.of && host.of != NO_MOVE;
        if guards.by_number && another && matches!(order.kind, Kind::AbortSend | Kind::AbortReceive | Kind::Release) {
            host.done.add(order);
            return true;
        }
        let logs_in = |account: u8| granted == account || !guards.cut;
        match order.kind {
            Kind::Start => match host.domain {
                Domain::Runs | Domain::Held(_) => host.epoch = epoch,
                Domain::Made => {}
                // Made by this very order before, and sent since.
                Domain::Suspended if host.epoch == epoch => {}
                _ if logs_in(start_account(epoch)) => {
                    // Host 1 is never without its lease.
                    let made = if at == 1 { Domain::Runs } else { Domain::Held(account) };
                    host.domain = if guards.lease_to_run { made } else { Domain::Made };
                    (host.epoch, host.session, host.of) = (epoch, true, NO_MOVE);
                }
                _ => return false,
            },
            Kind::Receive => {
                if host.domain != Domain::None || !logs_in(move_account(order.of)) {
                    return false;
                }
                (host.domain, host.epoch, host.of, host.session) = (Domain::Incoming, epoch, order.of, true);
            }
            Kind::Send => {
                let awaited = other.up && other.domain == Domain::Incoming && other.of == order.of;
                if host.domain != Domain::Runs || !awaited {
                    return false;
                }
                (host.sending, host.of) = (true, order.of);
            }
            Kind::Activate => match host.domain {
                Domain::Received if host.of == order.of => (host.domain, host.epoch) = (Domain::Runs, epoch),
                Domain::Runs | Domain::Held(_) if host.epoch == epoch => {}
                _ => host.failed.add(order),
            },
            Kind::AbortSend => {
                host.sending = false;
                if host.domain == Domain::Suspended {
                    host.domain = Domain::Runs;
                }
            }
            Kind::AbortReceive => {
                if matches!(host.domain, Domain::Incoming | Domain::Received) {
                    host.leaves();
                }
            }
            Kind::Release | Kind::Destroy => {
                let wanted = record.owner == at && record.epoch == host.epoch && record.phase == Phase::Running;
                self.killed |= wanted && host.domain == Domain::Runs;
                host.leaves();
            }
        }
        host.done.add(order);
        true
    }

    /// It is made at last, and runs.
    pub(crate) fn made(&mut self, at: HostNo) -> bool {
        let host = &mut self.hosts[at];
        let may = host.up && host.domain == Domain::Made;
        host.domain = if may { Domain::Runs } else { host.domain };
        may
    }

    /// The last pages: the guest stands still.
    pub(crate) fn suspend(&mut self, at: HostNo) -> bool {
        let host = &mut self.hosts[at];
        let may = host.sending && host.domain == Domain::Runs;
        host.domain = if may { Domain::Suspended } else { host.domain };
        may
    }

    /// The target has it all: the source kills its `xl` and says so, and only then the target notes what it has.
    pub(crate) fn freeze(&mut self, at: HostNo) -> bool {
        let target = self.hosts[1 - at];
        let host = &mut self.hosts[at];
        let may = host.sending && host.domain == Domain::Suspended && target.up;
        host.sending &= !(may && target.domain == Domain::Incoming && target.of == host.of);
        may && !host.sending
    }

    pub(crate) fn received(&mut self, at: HostNo, guards: Guards) -> bool {
        let source = self.hosts[1 - at];
        let host = &mut self.hosts[at];
        let frozen = source.up && source.domain == Domain::Suspended && !source.sending && source.of == host.of;
        let whole = if guards.run_after_commit { frozen } else { source.up && source.sending && source.of == host.of };
        if host.domain != Domain::Incoming || !whole {
            return false;
        }
        host.domain = if guards.run_after_commit { Domain::Received } else { Domain::Runs };
        true
    }

    /// The stream breaks, and the source's guest goes on.
    pub(crate) fn stream_fails(&mut self, at: HostNo, lease_to_resume: bool) -> bool {
        let leased = self.leased(at) || !lease_to_resume;
        let host = &mut self.hosts[at];
        if !host.sending {
            return false;
        }
        if host.domain == Domain::Suspended {
            if !leased {
                return false;
            }
            host.domain = Domain::Runs;
        }
        host.sending = false;
        let order = Order { kind: Kind::Send, of: host.of };
        host.failed.add(order);
        true
    }

    pub(crate) fn post(&mut self, at: HostNo) -> bool {
        let leased = self.leased(at);
        let host = &mut self.hosts[at];
        if !host.up {
            return false;
        }
        let Host { domain, epoch, of, done, failed, .. } = *host;
        host.report = Some(Report { domain, epoch, of, done, failed, leased });
        true
    }

    /// Its memory is lost, its notes are not; its connection is gone, and what was under way on it.
    pub(crate) fn agent_restarts(&mut self, at: HostNo, lease_to_resume: bool) -> bool {
        if self.left.agent_restarts == 0 || !self.hosts[at].up {
            return false;
        }
        self.left.agent_restarts -= 1;
        let leased = self.leased(at) || !lease_to_resume;
        let host = &mut self.hosts[at];
        (host.done, host.failed, host.told) = Default::default();
        if host.sending && leased {
            host.domain = Domain::Runs;
        }
        host.sending &= !leased;
        // `xl migrate-receive` is gone with its pipes.
        if host.domain == Domain::Incoming {
            host.leaves();
        }
        if at == 0 {
            self.clocks.write = None;
        }
        true
    }

    pub(crate) fn crash(&mut self, at: HostNo) -> bool {
        if self.left.host_crashes == 0 || !self.hosts[at].up {
            return false;
        }
        self.left.host_crashes -= 1;
        self.is_reset(at);
        true
    }

    fn is_reset(&mut self, at: HostNo) {
        let host = &mut self.hosts[at];
        host.leaves();
        (host.up, host.floor, host.epoch) = (false, 0, 0);
        (host.done, host.failed, host.report) = (Orders::default(), Orders::default(), None);
        if at == 0 {
            (self.clocks.lease, self.clocks.watchdog, self.clocks.write, self.clocks.account) = (0, 0, None, 0);
        }
    }

    /// It has booted into RAM and joins: its old boot is over.
    pub(crate) fn join(&mut self, at: HostNo, rejoin_floor: bool) -> bool {
        if self.hosts[at].up {
            return false;
        }
        self.hosts[at].up = true;
        if rejoin_floor {
            self.hosts[at].told = Default::default();
        }
        self.orphan[at] = 0;
        self.record.cutting[at] |= self.granted[at] != 0;
        self.boot_of_is_over(at);
        if at == 0 {
            self.record.heartbeat_cutting |= self.heartbeat != 0;
            self.record.fence = super::state::Fence::None;
            (self.clocks.quiet, self.clocks.moved) = (0, false);
        }
        true
    }

    /// The lease has lapsed: the guest is paused, under the account that the lease had.
    pub(crate) fn hold(&mut self) -> bool {
        let account = self.clocks.account;
        let host = &mut self.hosts[0];
        let may = host.up && self.clocks.lease == 0 && host.domain == Domain::Runs;
        host.domain = if may { Domain::Held(account) } else { host.domain };
        may
    }

    /// The lease is back, under the same account: nothing was taken away.
    pub(crate) fn let_go(&mut self) -> bool {
        let account = self.clocks.account;
        let host = &mut self.hosts[0];
        let may = self.clocks.lease > 0 && host.domain == Domain::Held(account);
        host.domain = if may { Domain::Runs } else { host.domain };
        may
    }

    pub(crate) fn pet(&mut self) -> bool {
        let host = &self.hosts[0];
        let still = !self.runs(0);
        let may = host.up && (self.clocks.lease > 0 || still) && self.clocks.watchdog < WATCHDOG;
        self.clocks.watchdog = if may { WATCHDOG } else { self.clocks.watchdog };
        may
    }

    pub(crate) fn write_begins(&mut self) -> bool {
        let may = self.hosts[0].up && self.clocks.write.is_none() && self.clocks.account != 0;
        self.clocks.write = if may { Some(0) } else { self.clocks.write };
        may
    }

    /// The write lands and comes back: the lease counts from its begin.
    pub(crate) fn write_lands(&mut self) -> bool {
        let Some(age) = self.clocks.write.filter(|_| self.heartbeat == self.clocks.account) else { return false };
        self.clocks.write = None;
        self.clocks.moved = true;
        self.clocks.lease = self.clocks.lease.max(LEASE - age);
        true
    }

    pub(crate) fn slot_read(&mut self) -> bool {
        let moved = std::mem::take(&mut self.clocks.moved);
        self.clocks.quiet = if moved { 0 } else { self.clocks.quiet };
        moved
    }

    /// Time passes. The watchdog alone does not wait for anybody.
    pub(crate) fn tick(&mut self, lease: bool) -> bool {
        let armed = self.hosts[0].up && self.clocks.account != 0 && lease;
        if armed && self.clocks.watchdog <= 1 {
            if self.left.host_crashes == 0 {
                return false; // within the bounds somebody pets it first
            }
            self.left.host_crashes -= 1;
            self.is_reset(0);
        }
        let clocks = &mut self.clocks;
        clocks.quiet = (clocks.quiet + 1).min(super::state::WAIT);
        clocks.lease = if lease { clocks.lease.saturating_sub(1) } else { clocks.lease };
        clocks.write = clocks.write.map(|age| (age + 1).min(LEASE));
        clocks.watchdog = clocks.watchdog.saturating_sub(1);
        true
    }
}

impl Host {
    fn leaves(&mut self) {
        (self.domain, self.sending, self.session, self.of) = (Domain::None, false, false, NO_MOVE);
    }
}
