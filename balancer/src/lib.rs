//! The balancer: from a snapshot of the rack to an ordered, explained plan of moves.
//!
//! Owns: rules, score, forecast, plans and their reasons. Never does: input or output, clocks, randomness, threads: the same input gives the same
//! plan, and time is part of the input. The command `balancer` in `src/bin` is a thin shell that reads files.
//!
//! ```text
//! Snapshot + Policy --check--> Model --drain, rules, descend--> who should be where --schedule--> Plan
//! ```

mod contradict;
mod cooldown;
mod cost;
mod draft;
mod drain;
mod explain;
mod forecast;
pub mod ganeti;
mod green;
mod groups;
mod levels;
mod model;
mod must;
mod pack;
mod place;
mod plan;
mod planner;
mod policy;
mod replay;
mod responder;
mod revalidate;
mod rules;
mod schedule;
mod score;
mod search;
mod series;
mod snapshot;
mod spare;
mod stays;
mod swap;
mod watch;

pub use cooldown::{after_move, resting_until};
pub use cost::{Measured, predict};
pub use drain::{Drain, drain};
pub use explain::{HostOption, why_not};
pub use forecast::{Expected, Tracker};
pub use groups::{Lent, Relocation, relocate, share_out};
pub use levels::Levels;
pub use place::place;
pub use plan::{
    BrokenRule, Concern, Cost, Move, Placement, Plan, PowerOff, Reason, Refusal, Rejection, Remedy, Stay, Why,
};
pub use planner::{Planner, plan};
pub use policy::{
    Ask, CostWeights, Goal, Group, HostSelector, Learnt, Policy, Rest, Rule, Site, Slack, Thresholds, ThresholdsFor,
    VmSelector, Weights,
};
pub use replay::{Replay, Replayed, replay};
pub use responder::{Agreed, Help, Offer, ask, offer, respond};
pub use revalidate::{Stale, revalidate};
pub use series::read_sites;
pub use snapshot::{Defect, Host, HostState, Moved, Snapshot, Vm, Watts};
pub use spare::{Room, failures_borne, room_mib};
pub use watch::{Trigger, Watch};
