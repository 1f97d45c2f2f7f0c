//! The boot server: sockets, TLS, store, storage and page around the pure rack.
//!
//! Owns: everything of the appliance that touches the outside. Never does: decide; that is `rack`.
//!
//! ```text
//! dhcp ─┐                      ┌─> store (one writer thread, SQLite)
//! tftp ─┤   events             │
//! boot ─┼────────> rack_task ──┼─> storage (tgtd)
//! agents┤ <──────── answers    │
//! operators ───────────────────┴─> view (watch) ─> page, command
//! ```

pub mod agents;
pub mod backup;
mod body;
pub mod boot_http;
pub mod ca;
pub mod config;
pub mod connections;
mod crash;
pub mod dhcp;
pub mod heartbeat;
pub mod host_logs;
pub mod no_ipv6;
pub mod notify;
pub mod operators;
pub mod power;
pub mod privileges;
pub mod rack_task;
pub mod releases;
pub mod run;
pub mod state_dir;
pub mod storage;
pub mod storage_jobs;
pub mod store;
pub mod tftp;
pub mod tls;
