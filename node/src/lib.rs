//! The chat server: accounts, spaces, messages and events over a replicated database, and their HTTP face.
//!
//! Every node is the same and answers for everything. A call comes in at [`http`], finds its route in a domain
//! ([`accounts`], [`spaces`], [`messages`], [`notifications`]), and if it changes something becomes rows that
//! replication writes here and carries to the other nodes. [`mod@derive`] turns rows, from here or from elsewhere, into
//! the local tables that reads use; [`events`] turns them into what open clients hear.
//!
//! ```text
//! call ─▶ http ─▶ domain: rules ─▶ rows ─▶ replication ═▶ other nodes
//!                                            │
//!                  local tables ◀─ derive ◀──┴──▶ events ─▶ streams
//! ```
//!
//! Rows are written once, or are facts with a stamp of which the latest counts, or registers that one site alone
//! writes, or claims of which the earliest owns: so nodes that have the same rows show the same, in whatever order
//! the rows came. [`Node`] puts it all together and runs it.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod admin;
pub mod app;
pub mod capacity;
pub mod claims;
pub mod cluster;
pub mod config;
pub mod derive;
pub mod erasure;
pub mod events;
mod generations;
pub mod http;
pub mod ids;
pub mod keys;
pub mod messages;
pub mod names;
#[cfg(feature = "next")]
pub mod next;
pub mod notifications;
pub mod packed;
pub mod presence;
pub mod server;
pub mod spaces;
pub mod timestamp;

#[cfg(test)]
mod testing;

pub use app::App;
pub use config::{Limits, Listen, NodeConfig};
pub use http::{Network, NetworkError};
pub use server::{Node, StartError};
