//! Virtual time, and in it what all simulations share: the protocol's cores, and the network between them.
//!
//! ```text
//!  schedule: one queue in the order of (time, number) ─▶ stage ─▶ trace, counts
//!                                                          │
//!          a world: disks, faults, judges ◀─ driver ─ core ┤ core
//!                                                          ╚═ network: datagrams and streams that fail
//! ```
//!
//! A [`Stage`] has the nodes' cores on it and carries between them what they want carried; whatever goes wrong on the
//! way is decided by a seed, so that the same seed always gives the same run. What the cores are driven for, and what
//! breaks, is a world's matter: a world is a [`Driver`]. There are two of them: [`crate::faults`], with whole nodes
//! over real databases, and `sim/tests/protocol.rs`, with thousands of little clusters over a toy database.

use std::time::Duration;

mod chance;
mod driver;
mod network;
mod objection;
mod schedule;
pub mod seeds;
mod stage;
mod streams;
pub mod trace;

pub use chance::Chance;
pub use driver::{Driver, Turn};
pub use network::{Link, Manner, Network, Weather};
pub use objection::{Objection, Rule};
pub use stage::{Counts, Process, Seat, Stage, Step, id, number};
pub use streams::Stream;
pub use trace::Trace;

/// Virtual time since the world began.
pub type Time = Duration;

/// So many milliseconds.
#[must_use]
pub const fn millis(millis: u64) -> Time {
    Duration::from_millis(millis)
}

/// So many seconds.
#[must_use]
pub const fn seconds(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}
