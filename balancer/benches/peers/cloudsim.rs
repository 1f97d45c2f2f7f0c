//! CloudSim's data centre with its accounting, so that our plans and its policies are judged by the same rules.
//!
//! Written after CloudSim's PowerDatacenter, HostDynamicWorkload, VmSchedulerTimeSharedOverSubscription and Helper; what looks odd here is odd there:
//! a VM that is coming in counts as asking in full while it gets a tenth; memory binds only at the first placement; a VM without
//! demand at two samples is gone for good; the first five minutes cost no energy. Sums and products are taken in CloudSim's order: on one segment of
//! the power curve all hosts cost the same but for rounding, and rounding decides among them.

use std::collections::VecDeque;

pub(crate) const STEP_S: f64 = 300.0;
const LIMIT_S: f64 = 86_400.0;
const POWER: [[f64; 11]; 2] = [
    [86.0, 89.4, 92.6, 96.0, 99.5, 102.0, 106.0, 108.0, 112.0, 114.0, 117.0],
    [93.7, 97.0, 101.0, 105.0, 110.0, 116.0, 121.0, 125.0, 129.0, 133.0, 135.0],
];
const HOST_MIPS: [f64; 2] = [1860.0, 2660.0];
const HOST_RAM: f64 = 4096.0;
const VM_MIPS: [f64; 4] = [2500.0, 2000.0, 1000.0, 500.0];
const VM_RAM: [f64; 4] = [870.0, 1740.0, 1740.0, 613.0];
/// Host bandwidth over VM bandwidth: a host takes no more VMs than this at the first placement.
const VMS_AT_FIRST_MAX: usize = 10;
pub(crate) const HISTORY: usize = 30;

pub(crate) struct Host {
    pub(crate) pe: f64,
    pub(crate) total: f64,
    kind: usize,
    pub(crate) guests: Vec<usize>,
    incoming: Vec<usize>,
    pub(crate) used: f64,
    before: f64,
    last: Option<(f64, f64, f64)>,
    active_s: f64,
    violated_s: f64,
}

pub(crate) struct Vm {
    pub(crate) mips: f64,
    pub(crate) ram: f64,
    trace: Vec<f64>,
    pub(crate) host: Option<usize>,
    moving: bool,
    /// Shares of its own MIPS, newest first.
    pub(crate) history: VecDeque<f64>,
    last: Option<(f64, f64, f64, bool)>,
    asked: f64,
    lost_moving: f64,
    lost: f64,
}

pub(crate) struct Cloud {
    pub(crate) now: f64,
    last: f64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) vms: Vec<Vm>,
    joules: f64,
    pub(crate) migrations: usize,
}

/// What CloudSim reports.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) kwh: f64,
    pub(crate) migrations: usize,
    pub(crate) otf: f64,
    pub(crate) pdm: f64,
    /// Demand not served, whatever the cause: what SLAV, a product of two shares, does not show.
    pub(crate) unserved: f64,
}

impl Outcome {
    pub(crate) fn slav(&self) -> f64 {
        self.otf * self.pdm
    }

    pub(crate) fn esv(&self) -> f64 {
        self.kwh * self.slav()
    }
}

impl Vm {
    /// What it asks for now, share of its own MIPS.
    fn share(&self, now: f64) -> f64 {
        let (lower, upper) = ((now / STEP_S).floor(), (now / STEP_S).ceil());
        let (a, b) = (self.trace[lower as usize], self.trace[(upper as usize).min(self.trace.len() - 1)]);
        if lower == upper { a } else { a + (b - a) / ((upper - lower) * STEP_S) * (now - lower * STEP_S) }
    }

    /// What it asks for now, MIPS.
    pub(crate) fn wants(&self, now: f64) -> f64 {
        self.share(now) * self.mips
    }
}

impl Host {
    pub(crate) fn power(&self, used: f64) -> f64 {
        let table = &POWER[self.kind];
        let share = (used / self.total).clamp(0.0, 1.0);
        if share % 0.1 == 0.0 {
            return table[(share * 10.0) as usize];
        }
        let (below, above) = ((share * 10.0).floor(), (share * 10.0).ceil());
        let delta = (table[above as usize] - table[below as usize]) / 10.0;
        table[below as usize] + delta * (share - below / 10.0) * 100.0
    }
}

impl Cloud {
    /// 800 hosts, a VM for each trace (shares of 1, 288 values), placed as CloudSim places them at first.
    pub(crate) fn new(traces: &[Vec<f64>]) -> Self {
        let host = |i: usize| Host {
            pe: HOST_MIPS[i % 2],
            total: 2.0 * HOST_MIPS[i % 2],
            kind: i % 2,
            guests: Vec::new(),
            incoming: Vec::new(),
            used: 0.0,
            before: 0.0,
            last: None,
            active_s: 0.0,
            violated_s: 0.0,
        };
        let each = traces.len().div_ceil(4);
        let vm = |(i, trace): (usize, &Vec<f64>)| Vm {
            mips: VM_MIPS[i / each],
            ram: VM_RAM[i / each],
            trace: trace.iter().copied().chain(trace.last().copied()).collect(),
            host: None,
            moving: false,
            history: VecDeque::new(),
            last: None,
            asked: 0.0,
            lost_moving: 0.0,
            lost: 0.0,
        };
        let hosts = (0..800).map(host).collect();
        let mut cloud = Self {
            now: 0.0,
            last: 0.0,
            hosts,
            vms: traces.iter().enumerate().map(vm).collect(),
            joules: 0.0,
            migrations: 0,
        };
        cloud.place_first();
        cloud
    }

    fn place_first(&mut self) {
        let mut given = vec![(0.0, 0.0); self.hosts.len()];
        for v in 0..self.vms.len() {
            let (mips, ram) = (self.vms[v].mips, self.vms[v].ram);
            let mut best: Option<(f64, usize)> = None;
            for (h, host) in self.hosts.iter().enumerate() {
                let fits = host.pe >= mips
                    && given[h].0 + mips <= host.total
                    && given[h].1 + ram <= HOST_RAM
                    && host.guests.len() < VMS_AT_FIRST_MAX;
                let rise = host.power(given[h].0 + mips) - host.power(0.0);
                if fits && best.is_none_or(|(least, _)| rise < least) {
                    best = Some((rise, h));
                }
            }
            let (_, h) = best.expect("800 hosts take these VMs");
            given[h] = (given[h].0 + mips, given[h].1 + ram);
            self.hosts[h].guests.push(v);
            self.vms[v].host = Some(h);
        }
    }

    /// Runs a day: at each step `decide` names VMs and their new hosts.
    pub(crate) fn run(mut self, mut decide: impl FnMut(&Self) -> Vec<(usize, usize)>) -> Outcome {
        self.now = 0.1 + STEP_S;
        while self.now <= LIMIT_S {
            self.update();
            let moves = decide(&self);
            let begun = self.now;
            let mut ends: Vec<(f64, usize, usize)> = Vec::with_capacity(moves.len());
            for (v, to) in moves {
                self.migrations += 1;
                self.vms[v].moving = true;
                self.hosts[to].incoming.push(v);
                self.hosts[to].guests.push(v);
                self.refresh(to);
                if let Some(from) = self.vms[v].host {
                    self.refresh(from);
                }
                // Half of 1 Gbit/s, memory in megabytes of 8,000 kbit.
                ends.push((begun + self.vms[v].ram / (1_000_000.0 / 16_000.0), v, to));
            }
            ends.sort_by(|a, b| a.0.total_cmp(&b.0));
            for i in 0..ends.len() {
                let (at, v, to) = ends[i];
                if at > self.now {
                    self.now = at;
                    self.update();
                }
                self.arrive(v, to);
                if ends.get(i + 1).is_none_or(|next| next.0 > at) {
                    self.update();
                }
            }
            self.now = begun + STEP_S;
        }
        self.outcome()
    }

    fn arrive(&mut self, v: usize, to: usize) {
        if let Some(from) = self.vms[v].host {
            self.hosts[from].guests.retain(|&g| g != v);
        }
        self.hosts[to].incoming.retain(|&g| g != v);
        self.hosts[to].guests.retain(|&g| g != v);
        self.hosts[to].guests.push(v);
        self.vms[v].host = Some(to);
        self.vms[v].moving = false;
    }

    /// Brings every host up to now, and counts the energy since the last time.
    fn update(&mut self) {
        for h in 0..self.hosts.len() {
            self.refresh(h);
        }
        let seconds = self.now - self.last;
        if seconds > 0.0 {
            for host in self.hosts.iter().filter(|host| host.before > 0.0) {
                let (was, is) = (host.power(host.before), host.power(host.used));
                self.joules += (was + (is - was) / 2.0) * seconds;
            }
            let due = ((self.now - 0.1) % STEP_S).abs() < 1e-6;
            for vm in self.vms.iter_mut().filter(|vm| due && vm.host.is_some()) {
                vm.history.push_front(vm.share(self.now));
                vm.history.truncate(HISTORY);
            }
        }
        for v in 0..self.vms.len() {
            if let Some(h) = self.vms[v].host.filter(|_| !self.vms[v].moving && self.vms[v].wants(self.now) == 0.0) {
                self.hosts[h].guests.retain(|&g| g != v);
                self.vms[v].host = None;
            }
        }
        self.last = self.now;
    }

    /// Shares a host's processors among its guests and notes who got what.
    fn refresh(&mut self, h: usize) {
        let now = self.now;
        let got = self.shares(h);
        let host = &mut self.hosts[h];
        host.before = host.used;
        host.used = 0.0;
        let mut asked = 0.0;
        for (&v, got) in host.guests.iter().zip(got) {
            let vm = &mut self.vms[v];
            let wants = vm.wants(now);
            let mut counted = got;
            if !host.incoming.contains(&v) {
                vm.note(now, got, wants);
                if vm.moving {
                    counted /= 0.9;
                }
            }
            host.used += counted;
            asked += wants;
        }
        let (used, asked) = (host.used, asked);
        if let Some((at, had, wanted)) = host.last.filter(|last| last.0 < now && last.1 > 0.0) {
            host.active_s += now - at;
            host.violated_s += if had < wanted { now - at } else { 0.0 };
        }
        host.last = Some((now, used, asked));
    }

    fn shares(&self, h: usize) -> Vec<f64> {
        let host = &self.hosts[h];
        let mut free = host.total;
        let mut got: Vec<f64> = Vec::with_capacity(host.guests.len());
        let capped = |v: usize| self.vms[v].wants(self.now).min(host.pe);
        for (i, &v) in host.guests.iter().enumerate() {
            let incoming = host.incoming.contains(&v);
            let needs = capped(v) * if incoming { 0.1 } else { 1.0 };
            if free >= needs {
                got.push(
                    capped(v)
                        * if incoming {
                            0.1
                        } else if self.vms[v].moving {
                            0.9
                        } else {
                            1.0
                        },
                );
                free -= needs;
                continue;
            }
            let so_far = &host.guests[..=i];
            let all: f64 = so_far.iter().map(|&g| capped(g) * if host.incoming.contains(&g) { 0.1 } else { 1.0 }).sum();
            let scale = host.total / all;
            let share = |&g: &usize| {
                let part = if host.incoming.contains(&g) {
                    0.1
                } else if self.vms[g].moving {
                    0.9
                } else {
                    1.0
                };
                (capped(g) * scale * part).floor()
            };
            got = so_far.iter().map(share).collect();
            free = 0.0;
        }
        got
    }

    fn outcome(&self) -> Outcome {
        let sum = |f: fn(&Host) -> f64| self.hosts.iter().map(f).sum::<f64>();
        let asked: f64 = self.vms.iter().map(|vm| vm.asked).sum();
        Outcome {
            kwh: self.joules / 3.6e6,
            migrations: self.migrations,
            otf: sum(|host| host.violated_s) / sum(|host| host.active_s),
            pdm: self.vms.iter().map(|vm| vm.lost_moving).sum::<f64>() / asked,
            unserved: self.vms.iter().map(|vm| vm.lost).sum::<f64>() / asked,
        }
    }
}

impl Vm {
    fn note(&mut self, now: f64, got: f64, wants: f64) {
        if let Some((at, had, wanted, moving)) = self.last.filter(|last| last.0 < now) {
            self.asked += wanted * (now - at);
            self.lost += (wanted - had).max(0.0) * (now - at);
            if had < wanted && moving {
                self.lost_moving += (wanted - had) * (now - at);
            }
        }
        self.last = Some((now, got, wants, self.moving));
    }
}
