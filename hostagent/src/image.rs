//! dom0's image, fetched in the initrd before there is an agent: by plain HTTP, checked against the digest that came with the initrd.
//!
//! Owns: what is asked of which server, when it is asked again, and that nothing is used which was not checked. Never does: end for
//! want of a server; a machine without its image has nothing better to do than to ask again.
//!
//! ```text
//! ask from byte N ──> pieces come, each hashed and written ──> whole ──digest is right──> done
//!   ^                   │ breaks, or nothing for 10 s           └──digest is wrong: N = 0 ──┐
//!   └─── waits, with jitter, and takes the next address <──────────────────────────────────┘
//! ```

mod answer;
mod fetch;
mod plan;

pub use fetch::{FetchError, Fetched, fetch};
pub use plan::Wanted;
