//! A replicated SQLite.
#![forbid(unsafe_code)]

pub mod clock;
mod identity;
pub mod log;
pub mod store;

pub use identity::{NodeId, Role};
