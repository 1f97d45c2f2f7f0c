//! The racks that Tsubame is tried on.
//!
//! Owns: the virtual rack (bare machines in QEMU that boot real Xen from the real boot server, in a network namespace of
//! their own), the clients and probes of its tests, and the simulated rack. Never does: leave anything behind.

pub mod appliance;
pub mod bmc;
pub mod board;
pub mod cases;
pub mod forward;
pub mod guard;
pub mod https;
pub mod machine;
pub mod network;
pub mod operator;
pub mod oracle;
pub mod ping;
pub mod process;
pub mod rack;
pub mod registry;
pub mod story;
