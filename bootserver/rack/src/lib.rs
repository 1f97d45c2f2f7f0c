//! The rack: the appliance's pure core.
//!
//! Owns: every decision of the boot server, as one state that takes events and a time and gives back
//! ordered effects. Never does: input or output, clocks, randomness, threads. The shell in `bootserver`
//! feeds it and obeys it; so does the simulated rack in `tests`.

pub mod dhcp;
pub mod effect;
pub mod event;
pub mod policy;
pub mod record;

use effect::Effect;
use event::{Event, Now};
use policy::Policy;
use proto::view::RackView;
use record::Loaded;

/// All that the boot server knows.
pub struct Rack {
    #[allow(dead_code)] // read by the parts under construction
    policy: Policy,
}

/// The records of a store do not fit together.
#[derive(Debug, thiserror::Error)]
#[error("record {key}: {what}")]
pub struct RestoreError {
    /// Which.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl Rack {
    /// Takes up where the records left off; an empty list is a new rack.
    pub fn restore(policy: Policy, records: Vec<Loaded>, now: Now) -> Result<(Self, Vec<Effect>), RestoreError> {
        let _ = (records, now);
        Ok((Self { policy }, Vec::new()))
    }

    /// Applies one event. Effects are ordered: a commit precedes whatever relies on it.
    pub fn apply(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let _ = (event, now);
        Vec::new()
    }

    /// The present picture, for page, command and metrics.
    pub fn view(&self, now: Now) -> RackView {
        RackView { at_ms: now.unix_ms, ..RackView::default() }
    }
}
