//! Snapshots: how a node that lacks very much gets a peer's whole database rather than all the logs.
//!
//! ```text
//!  asks                                                             is asked
//!  plan: far behind? of whom? ── Request ──────────────────────▶ serve: a copy by SQLite's backup,
//!     │ fetch: part on disk, resumed ◀── Header, bytes ─────────      packed by zstd, hashed,
//!     ▼                                                               kept for a while for others
//!  hash ─▶ unpack ─▶ Store::prepare ─▶ Store::adopt ─▶ new site id, then the logs as ever
//! ```
//!
//! - `plan.rs` decides, without input or output: above [`SnapshotConfig::above`] versions, from the nearest peer that
//!   holds everything which this node does. What this node alone holds is never given up for it.
//! - While a snapshot is under way no log is followed, no write is accepted, and the node is not ready.
//! - A broken transfer goes on at the same byte: after a loss of the connection, and after a kill of either process as
//!   long as the peer still has that snapshot. Else another peer is asked for one of its own, also when the first gives
//!   as many as it can to others. After some failures in a row the logs are followed; a busy peer is none.
//! - What was received is believed only with the announced size, hash, vector and migrations, and after SQLite's own
//!   check; it takes no more of the disk than announced, and only if that much is free.
//! - The bytes go at [`SnapshotConfig::rate`] at the most, in streams of lower priority than the logs. Neither side holds
//!   more of the file in memory than a few pieces.
//! - A copy has nothing that a member may not have: all of the replicated tables, and local ones that are derived from
//!   them. The one row that belongs to a node, `replication_node`, is made the receiver's own.

mod fetch;
mod files;
mod plan;
mod progress;
mod serve;
mod wire;

pub(crate) use fetch::Fetch;
pub(crate) use files::Files;
pub(crate) use plan::{Action, Failure, Peer, Planner};
pub(crate) use progress::{Stage, Standing, Transfer};
pub use progress::{SyncState, SyncStatus};
pub(crate) use serve::Shelf;
pub(crate) use wire::KIND;

/// Versions that a node may lack without taking a snapshot, unless it is told otherwise.
pub const DEFAULT_ABOVE: u64 = 50_000;
/// Bytes a second that a node sends of snapshots, unless it is told otherwise.
pub const DEFAULT_RATE: u64 = 32 << 20;

/// The settings of snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// A node that lacks more versions than this of what a peer holds takes a snapshot; `u64::MAX` is never.
    pub above: u64,
    /// Bytes a second that this node sends to all peers together.
    pub rate: u64,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { above: DEFAULT_ABOVE, rate: DEFAULT_RATE }
    }
}

/// Bytes that are free on the disk of this folder, for a process without privileges.
fn free_space(folder: &std::path::Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
