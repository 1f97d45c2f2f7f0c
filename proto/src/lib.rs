//! The words that the boot server, the agents, the page and the command share.
//!
//! Owns: identifiers, the agent protocol, VM and disk descriptions, the views an operator sees and
//! the requests an operator makes. Never does: input or output, decisions, defaults that depend on the
//! machine. Everything here is plain data with serde; with feature `openapi` also a schema.

pub mod agent;
pub mod api;
pub mod event;
pub mod heartbeat;
pub mod host;
pub mod ids;
pub mod power;
pub mod release;
pub mod view;
pub mod vm;

pub use ids::{DiskId, Epoch, HostId, IdError, Mac, MoveId, OrderId, Term, VmId};
