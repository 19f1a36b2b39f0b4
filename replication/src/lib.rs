//! A replicated SQLite.
#![forbid(unsafe_code)]

pub mod clock;
pub mod cluster;
pub mod directory;
mod identity;
pub mod log;
mod membership;
pub mod mesh;
pub mod protocol;
pub mod replica;
pub mod store;

pub use identity::{NodeId, Role};
