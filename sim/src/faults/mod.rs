//! Whole nodes in virtual time, under every fault that a seed thinks of, in one thread.
//!
//! ```text
//!  plan (faults, deeds of clients) ─▶ world, on a stage of `virtual_time` ─▶ trace, counts
//!                                       │
//!     clients ◀─ events, cursors ─ node ┤ node ─▶ disk (real SQLite files, cut by crashes)
//!        │  calls ─────────────────▶    │  ║
//!        └──────────────▶ oracles ◀─────┘  ╚═ network: datagrams and streams that fail
//! ```
//!
//! **Real** are: the protocol's core; the store with its writer, group commits, SQL, cr-sqlite and recovery, over
//! database files of its own for each node; the codec of frames; how rows become local tables, who may do what, and
//! how messages and memberships are written; the hub's work, its queues, backlogs and cursors.
//!
//! **Simulated** are: time, the scheduler (the writer works when the simulated disk has had its time, tasks are polled
//! in order), the driver of the core (in production `replica/task.rs`), QUIC, SWIM, HTTP and the clients. Snapshots of
//! whole databases are not part of it: a node that lacks much follows the logs.
//!
//! A seed decides everything: where its run fails, it fails again, on any machine. The hash of all that happened in
//! their order (`trace`) shows it.

mod args;
mod calls;
mod clients;
mod disk;
mod driver;
mod finish;
mod node;
mod oracle;
mod plan;
mod report;
mod runs;
mod shrink;
mod strike;
mod upgrade;
mod world;

pub use args::FaultsArgs;
pub use runs::{Outcomes, Runs, Settings, run};
pub use world::Outcome;

pub use crate::virtual_time::{Counts, Objection, Rule};
