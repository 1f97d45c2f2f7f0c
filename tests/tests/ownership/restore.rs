//! A server restored from a backup of any age, beside the old one that may come back: the model of `rack::recovery` and `agent/term.rs`.
//!
//! Owns: this model and its runs. Left out, as `model` has it: moves, leases, fences; a host that is not heard is one that is waited for.
//!
//! | action | code |
//! |---|---|
//! | Start, Stop | `Rack::{begin_start, begin_destroy}` |
//! | Deliver | `Agent::{rules, begin}` |
//! | Learn | `Rack::{vm_order_ended, surveyed}` |
//! | Restore | `begin_term` |
//! | Hear, EndSurvey | `Rack::{survey_heard, adopt}` |

use stateright::{Checker, HasDiscoveries, Model, Property};

const ONE_HOST: &str = "never two hosts run the VM";
const DONE: &str = "what a server believes to be done was done";
const ITS_OWN: &str = "no guest is stopped or doubled by a server that another has replaced";

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Order {
    id: u8,
    epoch: u8,
    term: u8,
    start: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Host {
    /// The epoch of the guest that runs.
    runs: Option<u8>,
    floor: u8,
    term: u8,
    /// The highest order that was done.
    done: u8,
    told: [Option<Order>; 2],
}

/// A server's record, and what it keeps in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Server {
    owner: u8,
    epoch: u8,
    orders: u8,
    term: u8,
    runs: bool,
    /// The order whose outcome is awaited.
    awaits: Option<(u8, bool)>,
    surveying: bool,
    heard: [bool; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    server: Server,
    /// One that was replaced and goes on.
    old: Option<Server>,
    backup: Option<Server>,
    hosts: [Host; 2],
    commands: u8,
    backups: u8,
    restores: u8,
    false_done: bool,
    replaced_acted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    /// By the old server or by the one that rules.
    Start {
        old: bool,
        at: usize,
    },
    Stop {
        old: bool,
    },
    Deliver {
        at: usize,
        from: usize,
    },
    Learn {
        old: bool,
    },
    BackUp,
    Restore,
    Hear(usize),
    EndSurvey,
}

#[derive(Clone, Copy)]
struct Restores {
    /// Numbers given after a restore are above all that were given before.
    jump: bool,
    /// Nothing is ordered before every host was heard.
    survey: bool,
    /// Agents hear the highest term only.
    term: bool,
    restores: u8,
}

/// Numbers of one term; more are not given within the bounds.
const TERM: u8 = 32;

impl Restores {
    fn above(self, server: &Server, number: u8) -> u8 {
        if self.jump { number.max(server.term * TERM) + 1 } else { number + 1 }
    }

    fn command(self, state: &mut State, old: bool, act: impl FnOnce(&mut Server) -> Option<(usize, bool)>) -> bool {
        let Some(mut server) = (if old { state.old } else { Some(state.server) }) else { return false };
        if state.commands == 0 || server.surveying || server.awaits.is_some() {
            return false;
        }
        server.orders = self.above(&server, server.orders);
        let Some((at, start)) = act(&mut server) else { return false };
        server.awaits = Some((server.orders, start));
        let order = Order { id: server.orders, epoch: server.epoch, term: server.term, start };
        state.hosts[at].told[usize::from(old)] = Some(order);
        state.commands -= 1;
        if old {
            state.old = Some(server)
        } else {
            state.server = server
        }
        true
    }

    fn deliver(self, state: &mut State, at: usize, from: usize) -> bool {
        let newest = state.server.term;
        let host = &mut state.hosts[at];
        let Some(order) = host.told[from].take() else { return false };
        if self.term {
            if order.term < host.term {
                return true;
            }
            host.term = order.term;
        }
        // A number is done once, and under no epoch that is lower than one known here.
        if order.id > host.done && order.epoch >= host.floor {
            host.done = order.id;
            host.floor = order.epoch;
            host.runs = order.start.then_some(order.epoch);
            state.replaced_acted |= order.term < newest && !state.server.surveying && state.server.heard == [true; 2];
        }
        true
    }
}

impl Model for Restores {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            server: Server::default(),
            old: None,
            backup: None,
            hosts: [Host::default(); 2],
            commands: 5,
            backups: 1,
            restores: self.restores,
            false_done: false,
            replaced_acted: false,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        for old in [false, true] {
            actions.extend([Action::Stop { old }, Action::Learn { old }]);
            actions.extend([0, 1].map(|at| Action::Start { old, at }));
        }
        for at in [0, 1] {
            actions.extend([0, 1].map(|from| Action::Deliver { at, from }));
            actions.push(Action::Hear(at));
        }
        actions.extend([Action::BackUp, Action::Restore, Action::EndSurvey]);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = *before;
        let may = match action {
            Action::Start { old, at } => self.command(&mut state, old, |server| {
                let next = self.above(server, server.epoch);
                (!server.runs).then(|| (server.epoch, server.owner) = (next, at as u8)).map(|()| (at, true))
            }),
            Action::Stop { old } => {
                self.command(&mut state, old, |server| server.runs.then_some((usize::from(server.owner), false)))
            }
            Action::Deliver { at, from } => self.deliver(&mut state, at, from),
            Action::Learn { old } => {
                let mut server = if old { state.old? } else { state.server };
                let host = state.hosts[usize::from(server.owner)];
                let (id, start) = server.awaits?;
                // The outcome of this number; an agent that has done it says so again and again.
                if host.done < id || host.told[usize::from(old)].is_some() || server.surveying {
                    return None;
                }
                // A host that hears another by now no longer answers this one.
                if self.term && host.term > server.term {
                    return None;
                }
                (server.runs, server.awaits) = (start, None);
                state.false_done |= !old && start && host.runs != Some(server.epoch);
                if old {
                    state.old = Some(server)
                } else {
                    state.server = server
                }
                true
            }
            Action::BackUp => {
                state.backup = Some(Server { awaits: None, ..state.server });
                state.backups > 0 && std::mem::replace(&mut state.backups, 0) > 0
            }
            Action::Restore => {
                let backup = state.backup?;
                state.restores = state.restores.checked_sub(1)?;
                state.old = Some(state.server);
                for host in &mut state.hosts {
                    host.told[1] = host.told[0].take().or(host.told[1]);
                }
                let term = state.server.term + 1;
                state.server = Server { term, surveying: self.survey, heard: [!self.survey; 2], ..backup };
                true
            }
            Action::Hear(at) => {
                let host = &mut state.hosts[at];
                if self.term {
                    host.term = state.server.term;
                    host.told[1] = None;
                }
                state.server.surveying && !std::mem::replace(&mut state.server.heard[at], true)
            }
            Action::EndSurvey => {
                let (surveying, heard) = (state.server.surveying, state.server.heard);
                state.server.surveying = false;
                match [0, 1].into_iter().find(|&at| state.hosts[at].runs.is_some()) {
                    Some(at) => {
                        state.server.owner = at as u8;
                        state.server.epoch = state.hosts[at].runs.unwrap_or_default();
                        state.server.runs = true;
                    }
                    None => {
                        state.server.runs = false;
                        if self.jump {
                            state.server.epoch = state.server.epoch.max(state.server.term * TERM);
                        }
                    }
                }
                surveying && heard == [true; 2]
            }
        };
        (may && state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOST, |_, state: &State| state.hosts.iter().filter(|h| h.runs.is_some()).count() < 2),
            Property::always(DONE, |_, state: &State| !state.false_done),
            Property::always(ITS_OWN, |_, state: &State| !state.replaced_acted),
        ]
    }
}

const ALL: Restores = Restores { jump: true, survey: true, term: true, restores: 2 };

#[test]
fn restores_from_a_backup_of_any_age_hold() {
    let checker = ALL.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("violated: {property}: {:#?}", path.into_actions());
    }
    assert!(checker.is_done());
    println!(
        "restores: {} states, {} transitions, depth {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
}

#[test]
fn each_guard_of_a_restore_is_needed() {
    for (what, guards, property) in [
        ("no jump of numbers", Restores { jump: false, ..ALL }, DONE),
        ("a start before the survey", Restores { survey: false, ..ALL }, ONE_HOST),
        ("agents hear any term", Restores { term: false, ..ALL }, ONE_HOST),
        ("agents hear any term", Restores { term: false, ..ALL }, ITS_OWN),
    ] {
        let wanted = HasDiscoveries::AllOf([property].into());
        let found = guards.checker().finish_when(wanted).spawn_bfs().join().discovery(property);
        let path = found.unwrap_or_else(|| panic!("{what}: {property}: not violated"));
        println!("{what}: violated: {property}: {:?}", path.into_actions());
    }
}
