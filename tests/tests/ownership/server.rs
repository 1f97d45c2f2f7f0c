//! What the server does: `rack::Rack` and the storage it commands.
//!
//! Owns: the transitions of the record. Never does: look at a host but through its reports.

use super::state::{
    Domain, Fence, Guards, HostNo, Kind, Move, Order, Orders, Phase, State, Step, WAIT, move_account, start_account,
};

impl State {
    pub(crate) fn begin_move(&mut self) -> bool {
        let record = &mut self.record;
        if self.left.moves == 0 || record.phase != Phase::Running || record.r#move.is_some() {
            return false;
        }
        // Neither host is one that is fenced, and nothing is left of the VM at the target.
        let target = 1 - record.owner;
        if record.fence != Fence::None || self.hosts[target].domain != Domain::None || !self.hosts[target].up {
            return false;
        }
        self.left.moves -= 1;
        let no = record.begun.iter().position(|begun| *begun == 0).expect("more moves than the model has room for");
        record.begun[no] = record.epoch;
        record.r#move = Some(Move {
            no: no as u8,
            step: Step::Preparing,
            source: record.owner,
            epoch: record.epoch,
            source_clears: false,
            target_clears: false,
        });
        record.phase = Phase::Moving;
        true
    }

    fn step_to(&mut self, step: Step) {
        if let Some(r#move) = &mut self.record.r#move {
            r#move.step = step;
        }
    }

    /// Nothing was committed: both sides are cleared.
    pub(crate) fn abort(&mut self) -> bool {
        match &mut self.record.r#move {
            Some(m) if matches!(m.step, Step::Preparing | Step::Copying) => {
                m.source_clears = m.step == Step::Copying;
                m.target_clears = true;
                m.step = Step::Aborting;
                true
            }
            _ => false,
        }
    }

    /// Lets a host reach the disk by this account. True once it may.
    fn grant(&mut self, host: HostNo, account: u8) -> bool {
        if host == 0 && self.record.fence != Fence::None || self.record.cutting[host] {
            return false;
        }
        if self.granted[host] != 0 && self.granted[host] != account {
            self.record.cutting[host] = true;
            return false;
        }
        self.granted[host] = account;
        true
    }

    fn cut_asked(&mut self, host: HostNo) -> bool {
        self.record.cutting[host] |= self.granted[host] != 0;
        !self.record.cutting[host]
    }

    /// The storage does what it was told: the name is unbound, the connections deleted, and that is confirmed.
    pub(crate) fn cut(&mut self, host: HostNo, really: bool) -> bool {
        let heartbeat = host == 0 && self.record.heartbeat_cutting;
        if !self.record.cutting[host] && !heartbeat {
            return false;
        }
        self.record.cutting[host] = false;
        self.granted[host] = 0;
        self.hosts[host].session &= !really;
        if heartbeat {
            self.record.heartbeat_cutting = false;
            self.heartbeat = 0;
            self.clocks.write = None;
        }
        true
    }

    /// What a host is to be told by the record.
    fn due(&mut self, host: HostNo) -> Orders {
        let mut due = Orders::default();
        let record = self.record;
        let start = Order { kind: Kind::Start, of: record.epoch };
        let at = self.hosts[host];
        let left = at.domain != Domain::None && at.epoch < record.epoch && !at.told.has(start);
        if left && record.owner == host && record.phase == Phase::Starting {
            // No start has been ordered under this epoch: whatever is there is of an earlier one.
            self.orphan[host] = record.epoch;
        }
        if self.orphan[host] != 0 {
            due.add(Order { kind: Kind::Destroy, of: self.orphan[host] });
        }
        if record.owner == host && record.phase == Phase::Stopping {
            due.add(Order { kind: Kind::Destroy, of: record.epoch });
        }
        let starts = record.owner == host && record.phase == Phase::Starting && self.orphan[host] == 0;
        if starts && self.cut_asked(1 - host) && self.grant(host, start_account(record.epoch)) {
            due.add(start);
        }
        let Some(m) = record.r#move else { return due };
        let order = |kind| Order { kind, of: m.no };
        match m.step {
            Step::Preparing if host == m.target() && self.grant(host, move_account(m.no)) => {
                due.add(order(Kind::Receive));
            }
            Step::Copying if host == m.source => due.add(order(Kind::Send)),
            Step::Activating if host == m.target() => due.add(order(Kind::Activate)),
            Step::Releasing if host == m.source => due.add(order(Kind::Release)),
            Step::Aborting if host == m.source && m.source_clears => due.add(order(Kind::AbortSend)),
            Step::Aborting if host == m.target() && m.target_clears => due.add(order(Kind::AbortReceive)),
            _ => {}
        }
        due
    }

    /// Orders set out to a host.
    pub(crate) fn tell(&mut self, host: HostNo) -> bool {
        let due = self.due(host);
        let told = &mut self.hosts[host].told;
        due.all().for_each(|order| told.add(order));
        true
    }

    /// An answer that carries the way to the heartbeat carries all orders as well, and what needs no lease is begun at once.
    pub(crate) fn answer(&mut self, guards: Guards) -> bool {
        if self.heartbeat == 0 || self.record.heartbeat_cutting || !self.hosts[0].up {
            return false;
        }
        if self.clocks.account == self.heartbeat || self.record.fence != Fence::None {
            return false;
        }
        self.clocks.account = self.heartbeat;
        // Armed with the first lease, petted ever since.
        self.clocks.watchdog = self.clocks.watchdog.max(1);
        self.tell(0);
        let told = self.hosts[0].told;
        for order in told.all().filter(|order| order.kind == Kind::Destroy) {
            self.begin(0, order, guards);
        }
        true
    }

    /// A step that waits for the storage alone.
    pub(crate) fn step(&mut self) -> bool {
        let record = self.record;
        match record.r#move {
            Some(m) if m.step == Step::Committing => {
                if self.cut_asked(m.source) {
                    self.step_to(Step::Activating);
                }
            }
            // A source that is gone has nothing to clear; if it comes back with a leftover, that is stale.
            Some(m) if m.step == Step::Releasing && m.source == 0 && self.seems_lost() => self.end_move(),
            Some(m) if m.step == Step::Aborting && !m.source_clears && !m.target_clears => {
                if self.cut_asked(m.target()) {
                    self.end_move();
                }
            }
            None if record.phase == Phase::Unknown && record.owner == 0 && record.fence == Fence::Done => {
                self.record.phase = Phase::Stopped;
            }
            None if record.phase == Phase::Stopped => {
                self.cut_asked(0);
                self.cut_asked(1);
            }
            _ => return false,
        }
        true
    }

    /// Host 0 has shown no sign of life for a while; where time stands still, it may seem so at any moment.
    fn seems_lost(&self) -> bool {
        self.clocks.quiet > 1 || self.left.fences == 0
    }

    fn end_move(&mut self) {
        self.record.r#move = None;
        if self.record.phase == Phase::Moving {
            self.record.phase = Phase::Running;
        }
    }

    /// The VM gets an owner and a new epoch.
    pub(crate) fn begin_start(&mut self, host: HostNo) -> bool {
        let record = &self.record;
        let free = record.phase == Phase::Stopped && record.r#move.is_none() && self.granted == [0; 2];
        let usable = self.hosts[host].up && (host == 1 || record.fence == Fence::None && self.heartbeat != 0);
        if !free || record.cutting != [false; 2] || !usable || record.epoch >= 7 {
            return false;
        }
        self.record.owner = host;
        self.record.epoch += 1;
        self.record.phase = Phase::Starting;
        true
    }

    pub(crate) fn begin_fence(&mut self) -> bool {
        let may_run = self.record.owner == 0 && self.record.phase != Phase::Stopped;
        if self.record.fence != Fence::None || self.clocks.quiet < WAIT || !may_run || self.left.fences == 0 {
            return false;
        }
        self.left.fences -= 1;
        self.record.fence = Fence::Cutting;
        self.record.cutting[0] |= self.granted[0] != 0;
        self.record.heartbeat_cutting |= self.heartbeat != 0;
        true
    }

    /// All is cut, the slots were read since, and the wait is over: its VM is free.
    pub(crate) fn end_fence(&mut self) -> bool {
        let cut = !self.record.cutting[0] && !self.record.heartbeat_cutting;
        if self.record.fence != Fence::Cutting || !cut || self.clocks.moved || self.clocks.quiet < WAIT {
            return false;
        }
        self.record.fence = Fence::Done;
        self.orphan[0] = 0;
        self.boot_of_is_over(0);
        let mine = self.record.owner == 0 && matches!(self.record.phase, Phase::Unknown | Phase::Moving);
        if mine && self.record.epoch < 7 {
            self.record.epoch += 1;
        }
        true
    }

    /// What the record had on a host that was booted anew or fenced is gone.
    pub(crate) fn boot_of_is_over(&mut self, host: HostNo) {
        if self.record.owner == host && !matches!(self.record.phase, Phase::Stopped | Phase::Moving) {
            self.record.phase = Phase::Unknown;
        }
        let Some(m) = &mut self.record.r#move else { return };
        let at_source = m.source == host;
        match m.step {
            Step::Preparing | Step::Copying | Step::Aborting => {
                if m.step != Step::Aborting {
                    m.source_clears = m.step == Step::Copying;
                    m.target_clears = true;
                    m.step = Step::Aborting;
                }
                if at_source {
                    m.source_clears = false;
                    self.record.phase = Phase::Unknown;
                } else {
                    m.target_clears = false;
                }
            }
            Step::Committing | Step::Activating if !at_source => {
                m.step = Step::Releasing;
                self.record.phase = Phase::Unknown;
            }
            _ => {}
        }
    }

    /// A report arrives, late perhaps: outcomes first, then the survey.
    pub(crate) fn hear(&mut self, host: HostNo) -> bool {
        let Some(report) = self.hosts[host].report.take() else { return false };
        if host == 0 {
            if report.leased {
                self.clocks.quiet = 0;
            }
            let mine = self.record.owner == 0 && matches!(self.record.phase, Phase::Unknown | Phase::Moving);
            if self.record.fence == Fence::Done && !mine {
                self.record.fence = Fence::None;
                self.clocks.quiet = 0;
            }
            if self.record.fence == Fence::None && self.heartbeat == 0 && !self.record.heartbeat_cutting {
                // One that nobody has: numbers are never used again, and here that is all that counts.
                let held = if let Domain::Held(account) = self.hosts[0].domain { account } else { 0 };
                let taken = [held, self.clocks.account];
                self.heartbeat = (1..=3).find(|account| !taken.contains(account)).expect("two of three are taken");
            }
        }
        if report.done.has(Order { kind: Kind::Destroy, of: self.orphan[host] }) {
            self.orphan[host] = 0;
        }
        let starting = self.record.owner == host && self.record.phase == Phase::Starting;
        if starting && report.done.has(Order { kind: Kind::Start, of: self.record.epoch }) {
            self.record.phase = Phase::Running;
        }
        self.move_heard(host, &report);
        self.surveyed(host, report.domain, report.epoch);
        true
    }

    fn move_heard(&mut self, host: HostNo, report: &super::state::Report) {
        let Some(m) = self.record.r#move else { return };
        let order = |kind| Order { kind, of: m.no };
        let (source, target) = (host == m.source, host == m.target());
        match m.step {
            Step::Preparing if target && report.done.has(order(Kind::Receive)) => self.step_to(Step::Copying),
            Step::Copying
                if target
                    && report.domain == Domain::Received
                    && report.of == m.no
                    && self.record.epoch == m.epoch
                    && self.record.owner == m.source =>
            {
                self.record.owner = host;
                self.record.epoch += 1;
                self.step_to(Step::Committing);
            }
            Step::Copying if source && report.failed.has(order(Kind::Send)) => drop(self.abort()),
            Step::Activating if target && report.failed.has(order(Kind::Activate)) => {
                self.step_to(Step::Releasing);
                self.record.phase = Phase::Unknown;
            }
            Step::Activating if target && report.done.has(order(Kind::Activate)) => {
                self.step_to(Step::Releasing);
                self.record.phase = Phase::Running;
            }
            Step::Releasing if source && report.done.has(order(Kind::Release)) => self.end_move(),
            Step::Aborting => {
                let cleared = [Kind::AbortSend, Kind::AbortReceive].map(|kind| report.done.has(order(kind)));
                if let Some(m) = &mut self.record.r#move {
                    m.source_clears &= !(source && cleared[0]);
                    m.target_clears &= !(target && cleared[1]);
                }
            }
            _ => {}
        }
    }

    fn surveyed(&mut self, host: HostNo, domain: Domain, epoch: u8) {
        let record = self.record;
        let lower = epoch < record.epoch;
        if record.owner != host {
            let stale = record.r#move.is_none() && domain != Domain::None;
            if stale && (lower || domain == Domain::Incoming || domain == Domain::Received) {
                self.orphan[host] = record.epoch;
            }
            return;
        }
        match (record.phase, domain) {
            (Phase::Unknown | Phase::Stopping, Domain::None) => self.record.phase = Phase::Stopped,
            (Phase::Unknown, _) if lower => self.orphan[host] = record.epoch,
            (Phase::Unknown, Domain::Incoming | Domain::Received) => self.record.phase = Phase::Stopping,
            (Phase::Unknown, _) => self.record.phase = Phase::Running,
            // So many reports in a row, for so long, show it: a single late one does not.
            (Phase::Running, _) if domain != self.hosts[host].domain => {}
            (Phase::Running, Domain::None) => self.record.phase = Phase::Stopped,
            (Phase::Running, Domain::Suspended) => self.record.phase = Phase::Stopping,
            (Phase::Stopped, _) if domain != Domain::None => self.orphan[host] = record.epoch,
            _ => {}
        }
    }

    /// The server's memory is lost; reports under way were to the process that is gone, orders under way are not.
    pub(crate) fn server_restarts(&mut self) -> bool {
        if self.left.server_restarts == 0 {
            return false;
        }
        self.left.server_restarts -= 1;
        self.orphan = [0; 2];
        self.clocks.quiet = 0;
        self.hosts.iter_mut().for_each(|host| host.report = None);
        true
    }
}
