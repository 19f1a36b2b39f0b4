//! A replicated SQLite: every node writes at once, and all nodes come to hold the same.
//!
//! Each node owns one database file. What it commits is a **log of its own**, kept under a site id: numbered versions,
//! each a set of changed cells ([`log::Frame`]). Every other node holds a gapless prefix of that log, and cr-sqlite
//! merges the logs of all sites, in whatever interleaving they arrive, to the same tables. There is no leader and no
//! vote: all that a node has to know of its own state is a vector, `site → version` ([`log::VersionVector`]).
//!
//! The crate knows nothing of chat, accounts or HTTP. An application brings its tables ([`store::Schema`]), writes rows
//! in jobs ([`store::Store::write`]), fills local tables from rows of any origin ([`store::Derive`]), and watches what
//! is committed ([`store::Store::commits`]).
//!
//! # How data flows
//!
//! ```text
//!  a job                                                            another node
//!    │ Store::write                                                      │
//!    ▼                                                                   ▼
//!  store: one writer thread             ┌──────── the same ───────  store: Store::apply
//!    rows ─▶ Derive ─▶ COMMIT, fsync    │                             merge ─▶ Derive ─▶ vector ─▶ COMMIT (fsync later)
//!    │                                  │                                ▲
//!    ├─▶ the job's answer               │                                │ Action::Apply
//!    └─▶ Commit ─▶ watchers ◀───────────┘                             protocol: Core ◀─ frames
//!          │                                                             ▲
//!          ▼                                                             │
//!       replica ─▶ protocol: Core ─▶ log::codec ─▶ mesh ═══ QUIC ═══▶ mesh
//! ```
//!
//! A **job** runs on the [`store`]'s writer thread, which makes its rows and the local tables derived from them durable
//! in one transaction. The commit goes out as a [`log::Frame`], built from the rows in hand. The [`protocol`] decides
//! who gets it and what to ask of whom; it has no input or output of its own, and [`replica`] drives it. The [`mesh`]
//! carries frames between the nodes. There a frame is applied only on top of the exact prefix that it follows, the local
//! tables are derived from it, the vector moves, all in one transaction; then the watchers of that node hear of it. It is
//! on the disk of its writer already. On the follower's it is after the next sync, of which the writer then hears.
//!
//! # Where to start reading
//!
//! 1. [`log`]: the words (site, version, frame, vector, and retirements, which keep vectors short); [`clock`]: the hybrid time that stamps rows.
//! 2. [`store`], then its `writer.rs` and `merge.rs`: how rows become durable, and frames of others are merged.
//! 3. [`protocol`]: the messages, the states, and why a prefix never has a gap.
//! 4. [`replica`]: how the protocol is joined to a store and a mesh.
//! 5. [`snapshot`]: how a node that lacks very much gets a peer's whole database instead of the logs.
//! 6. [`mesh`]: connections with mutual TLS, whose certificates come from the [`cluster`] key. `membership` (SWIM) says
//!    who is alive, [`directory`] (gossip) what each member says of itself.
//!
//! # The invariants
//!
//! They are named I1 to I7 all over the code. Tests that hold one directly have its name in theirs; besides, the
//! simulation `sim/tests/protocol.rs` runs the core through crashes, losses and partitions in virtual time, with oracles
//! that share no code with it.
//!
//! | | says | kept by | held by |
//! | --- | --- | --- | --- |
//! | I1 | **durable**: what was answered with success is fsynced | `store/writer.rs` answers a job after its COMMIT, for which `store/writer/durability.rs` asks with `synchronous = FULL` | `tests/store/` |
//! | I2 | **one version, one content**: (site, version) names one set of changes for ever | commits leave their writer only after the fsync; `protocol/settle.rs` holds writes until the peers have said what they know of the own log; `store/site.rs` gives a database that went back in time a new site id | `tests/store/`, `tests/replica.rs`, the simulation |
//! | I3 | **prefix**: of each log a node holds all versions up to one | `protocol/follow.rs` on receipt; the writer once more in the transaction that moves the vector | `tests/store/`, the simulation |
//! | I4 | **convergent**: equal vectors mean equal tables | tables of keys and one packed column, merged by cr-sqlite; a [`store::Derive`] that any interleaving leads to the same | `tests/store/`, the simulation; the application's own tests for its `Derive` |
//! | I5 | **no gap for a client**: a cursor is a vector, good at any node | the application, with [`store::Store::read_log`] (MyChat: `node/src/events/`) | `node/src/events/tests.rs` |
//! | I6 | **authorised at delivery**: a client gets only what it may read at that moment | the application (MyChat: `node/src/events/state.rs`) | `node/src/events/tests.rs` |
//! | I7 | **bounded**: every queue has a bound and a policy when it is full | the constants at the head of `store`, [`protocol`], [`replica`] and [`mesh`]; `store/log_reader.rs` reads a log in pieces | the simulation, `sim/tests/protocol/directed.rs`; for clients' queues `node/src/events/queue.rs` |
#![forbid(unsafe_code)]

pub mod clock;
pub mod cluster;
pub mod codec;
pub mod directory;
mod identity;
pub mod key;
pub mod log;
mod membership;
pub mod memory;
pub mod mesh;
pub mod mutation;
pub mod protocol;
pub mod replica;
pub mod retirement;
pub mod snapshot;
pub mod store;

pub use identity::{NodeId, Role};
