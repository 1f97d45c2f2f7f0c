//! The agent in dom0.
//!
//! Owns: what one host does for the boot server. [`agent`] decides, as a pure function of events and time; [`hypervisor`] names
//! what can be done on a host, and does it; [`uplink`] speaks with the server; [`migration`] carries a guest from host to host;
//! [`shell`] ties them together. [`log`] sends what dom0 says to the server, beside all that.

pub mod agent;
pub mod boot;
pub mod carry;
mod crash;
pub mod fetch;
pub mod frame;
pub mod heartbeat;
pub mod hypercall;
pub mod hypervisor;
pub mod identity;
pub mod image;
pub mod inventory;
pub mod iscsi;
pub mod join;
pub mod log;
pub mod migration;
pub mod permit;
mod ram;
pub mod scripts;
pub mod shell;
pub mod smbios;
pub mod stats;
pub mod uplink;
pub mod xenstore;
