//! The ownership protocol, checked: every state that it can reach within stated bounds, and what each guard prevents.
//!
//! Owns: the runs, their bounds, and what is printed. Never does: stand for the code; the table says which function each
//! action is, and docs/design/0005 what is left out.
//!
//! | action | code |
//! |---|---|
//! | BeginMove, Abort | `Rack::begin_move`, `Rack::abort` |
//! | Step | `Rack::{step_committing, step_releasing, step_aborting, step_unknown, step_stopped}` |
//! | Tell, Answer | `Rack::{step_preparing, step_copying, step_activating, step_starting, tell, answer_report}` |
//! | Hear | `Rack::{report, surveyed, source_order_ended, target_order_ended, commit_move}` |
//! | Cut | `StorageOp::Cut`, confirmed |
//! | BeginStart, BeginFence, EndFence, SlotRead | `Rack::{begin_start, begin_fence, end_fence, heartbeats}` |
//! | Begin | `Agent::{begin_waiting, may_begin, begin, activate}` |
//! | Made | `Agent::advance`, `Step::Creating`; with all guards a guest is held as soon as its making begins |
//! | Suspend, Freeze, Received, StreamFails | `Agent::stream_ended` and `xl` |
//! | Hold, LetGo, Pet, WriteLands | `Agent::{looked_to_hold, let_go, see_to_lease, renewed}` |
//! | Join | `Rack::{join, boot_is_over}` |

mod always_again;
mod host;
mod model;
mod restore;
mod server;
mod state;

use model::{NO_LATE_WRITE, NOT_KILLED, ONE_HOST, Ownership, RUNS_AGAIN};
use state::{Bounds, Guards};
use stateright::{Checker, HasDiscoveries, Model};
use std::time::Instant;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// All states within the bounds: nothing is violated, and from each the VM can come to run without a further fault.
fn holds(name: &str, bounds: Bounds, owner: usize) {
    let began = Instant::now();
    let model = Ownership::new(Guards::ALL, bounds, owner).with_all_seen();
    let checker = model.checker().threads(threads()).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: violated: {property}\n{}", told(path.into_actions()));
    }
    assert!(checker.is_done(), "{name}: not all states were seen");
    let lost = checker.model().seen.as_ref().map(always_again::Seen::lost).unwrap_or_default();
    println!(
        "{name}: {} states, {} transitions, depth {}, {:.1} s; {bounds:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
    );
    if !lost.is_empty() {
        let many = lost.len();
        let model = Ownership { lost, ..Ownership::new(Guards::ALL, bounds, owner) };
        let wanted = HasDiscoveries::AllOf([RUNS_AGAIN].into());
        let path = model.checker().finish_when(wanted).spawn_bfs().join().discovery(RUNS_AGAIN);
        let path = path.map(|path| (format!("{:#?}", path.last_state()), told(path.into_actions())));
        panic!("{name}: from {many} states the VM cannot run again: {path:?}");
    }
}

/// Without a guard the property is violated; the shortest way to it is printed.
fn violated_without(what: &str, guards: Guards, bounds: Bounds, owner: usize, property: &'static str) {
    let mut shortest = None;
    let mut depth = usize::MAX;
    // A whole block of states is looked at before the checker ends, so what it shows may be made shorter.
    loop {
        let model = Ownership::new(guards, bounds, owner);
        let holds = model.properties().into_iter().find(|p| p.name == property).expect("a property of the model");
        let wanted = HasDiscoveries::AllOf([property].into());
        let checker = model.checker().finish_when(wanted).target_max_depth(depth).spawn_bfs().join();
        let Some(path) = checker.discovery(property) else { break };
        let steps = path.into_vec();
        let end = steps.iter().position(|(state, _)| !(holds.condition)(checker.model(), state)).unwrap_or(steps.len());
        depth = end;
        shortest = Some(steps.into_iter().take(end).filter_map(|(_, action)| action).collect::<Vec<_>>());
    }
    let shortest = shortest.unwrap_or_else(|| panic!("{what}: {property}: not violated"));
    println!("{what}: violated: {property}\n{}", told(shortest));
}

fn told(actions: Vec<model::Action>) -> String {
    actions.iter().enumerate().map(|(at, action)| format!("  {:2}. {action}\n", at + 1)).collect()
}

const NOTHING: Bounds = Bounds { moves: 0, host_crashes: 0, agent_restarts: 0, server_restarts: 0, fences: 0 };

#[test]
fn a_move_holds() {
    holds("a move", Bounds { moves: 1, ..NOTHING }, 0);
}

#[test]
fn a_move_and_an_agent_restarted_hold() {
    holds("a move, an agent restarted", Bounds { moves: 1, agent_restarts: 1, ..NOTHING }, 0);
}

#[test]
fn a_move_and_the_server_restarted_hold() {
    holds("a move, the server restarted", Bounds { moves: 1, server_restarts: 1, ..NOTHING }, 0);
}

#[test]
fn a_move_and_a_host_crashed_hold() {
    holds("a move, a host crashed", Bounds { moves: 1, host_crashes: 1, ..NOTHING }, 0);
}

#[test]
fn a_fence_holds() {
    holds("a silent host", Bounds { fences: 1, ..NOTHING }, 0);
}

#[test]
fn a_fence_and_the_server_restarted_hold() {
    holds("a silent host, the server restarted", Bounds { fences: 1, server_restarts: 1, ..NOTHING }, 0);
}

#[test]
fn a_fence_and_an_agent_restarted_hold() {
    holds("a silent host, an agent restarted", Bounds { fences: 1, agent_restarts: 1, ..NOTHING }, 0);
}

#[test]
#[ignore = "6.6 million states, minutes: cargo test -p tests --test ownership -- --ignored --nocapture"]
fn a_move_from_a_fenced_host_holds() {
    holds("a move from a silent host", Bounds { moves: 1, fences: 1, ..NOTHING }, 0);
}

#[test]
fn a_move_to_a_fenced_host_holds() {
    holds("a move to a silent host", Bounds { moves: 1, fences: 1, ..NOTHING }, 1);
}

#[test]
#[ignore = "millions of states, minutes: cargo test -p tests --test ownership -- --ignored --nocapture"]
fn a_move_to_a_fenced_host_and_the_server_restarted_hold() {
    let bounds = Bounds { moves: 1, fences: 1, server_restarts: 1, ..NOTHING };
    holds("a move to a silent host, the server restarted", bounds, 1);
}

#[test]
#[ignore = "millions of states, minutes: cargo test -p tests --test ownership -- --ignored --nocapture"]
fn a_move_to_a_fenced_host_and_an_agent_restarted_hold() {
    let bounds = Bounds { moves: 1, fences: 1, agent_restarts: 1, ..NOTHING };
    holds("a move to a silent host, an agent restarted", bounds, 1);
}

#[test]
fn two_moves_and_an_agent_restarted_hold() {
    holds("two moves, an agent restarted", Bounds { moves: 2, agent_restarts: 1, ..NOTHING }, 0);
}

#[test]
fn target_runs_before_the_commit() {
    let guards = Guards { run_after_commit: false, ..Guards::ALL };
    violated_without("no commit before the target runs", guards, Bounds { moves: 1, ..NOTHING }, 1, ONE_HOST);
}

#[test]
fn neither_cut_nor_lease() {
    let guards = Guards { cut: false, lease: false, ..Guards::ALL };
    violated_without("neither cut nor lease", guards, Bounds { fences: 1, ..NOTHING }, 0, NO_LATE_WRITE);
    violated_without("neither cut nor lease", guards, Bounds { fences: 1, ..NOTHING }, 0, ONE_HOST);
}

#[test]
fn cut_only() {
    let guards = Guards { lease: false, ..Guards::ALL };
    violated_without("cut, but no lease", guards, Bounds { fences: 1, ..NOTHING }, 0, ONE_HOST);
}

#[test]
fn orders_of_an_earlier_boot() {
    let guards = Guards { rejoin_floor: false, ..Guards::ALL };
    let bounds = Bounds { moves: 1, host_crashes: 1, ..NOTHING };
    violated_without("orders to an earlier boot count", guards, bounds, 0, ONE_HOST);
}

#[test]
fn no_epoch_check() {
    let guards = Guards { epoch_check: false, ..Guards::ALL };
    let bounds = Bounds { moves: 2, fences: 0, ..NOTHING };
    violated_without("no epoch check", guards, bounds, 0, NOT_KILLED);
}

#[test]
fn a_broken_stream_resumes_without_a_lease() {
    let guards = Guards { lease_to_resume: false, ..Guards::ALL };
    let bounds = Bounds { moves: 1, fences: 1, ..NOTHING };
    violated_without("no lease to resume", guards, bounds, 0, ONE_HOST);
}

#[test]
fn a_guest_long_in_the_making_runs_without_a_lease() {
    let guards = Guards { lease_to_run: false, ..Guards::ALL };
    let bounds = Bounds { fences: 2, ..NOTHING };
    violated_without("no lease to run what was made", guards, bounds, 0, ONE_HOST);
}

#[test]
fn the_end_of_an_earlier_move() {
    let guards = Guards { by_number: false, ..Guards::ALL };
    let bounds = Bounds { moves: 2, agent_restarts: 1, ..NOTHING };
    violated_without("the end of any move ends this one", guards, bounds, 0, ONE_HOST);
}
