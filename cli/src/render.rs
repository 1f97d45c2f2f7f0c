//! Views as text for a person.
//!
//! Owns: every table and sentence that goes to stdout in `-o table`. Pure: a view in, text out; ages are told against
//! the view's own time. Never does: asking, printing. What guests, hosts and templates say is shown without control
//! characters, so that none of them can drive the operator's terminal.

pub(crate) mod backups;
pub(crate) mod disks;
pub(crate) mod events;
pub(crate) mod hosts;
pub(crate) mod moves;
pub(crate) mod names;
pub(crate) mod power;
pub(crate) mod releases;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod vms;

#[cfg(test)]
pub(crate) mod sample;
