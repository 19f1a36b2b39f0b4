//! Who is there and who types: told while it is true, and never stored.
//!
//! Somebody is **online** while any node holds a stream of theirs, and for some seconds after (`core::LINGER`), so
//! that a client that moves or reconnects does not flicker. Those who share a space hear of it by a `presence` event,
//! which has no id and is not resumed; what was true before a stream began, and all of it in spaces that are too large
//! for events, is read by `GET /v1/presence` and in the list of a space's members.
//!
//! ```text
//! streams come, go ─▶ Comings ─┐                ┌─▶ datagrams to other nodes
//!                              ├─▶ driver: Core ┤
//! datagrams of other nodes ────┘                └─▶ hub ─▶ streams of those who share a space (I6)
//! ```
//!
//! What the others have to know goes as datagrams over the mesh, which may be lost: `core` is the state machine that
//! decides who hears what, `set` how two nodes come to hold the same set all the same, `wire` the messages. What a node
//! has said ends with its membership, or with a lease when it is not heard, so after a crash everybody is right again
//! within ten seconds. Typing is one datagram to the nodes that watch the space; `typing` bounds how often.

mod core;
mod driver;
pub mod http;
mod peer;
mod set;
mod typing;
mod wire;

#[cfg(test)]
mod tests;

pub use driver::{MOST_READERS, Presence};
