//! The agent in dom0.
//!
//! Owns: what one host does for the boot server. [`agent`] decides, as a pure function of events and time; [`hypervisor`] names
//! what can be done on a host, and does it.

pub mod agent;
pub mod hypervisor;
