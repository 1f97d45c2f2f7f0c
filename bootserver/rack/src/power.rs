//! Power of hosts.

mod bmc;

pub use bmc::{Bmc, PowerAnswer, PowerFailure, PowerOp, PowerWhy, Trust, host_and_port, secure_on};
