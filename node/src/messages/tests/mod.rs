//! Tests of messages: by calls to a node, of nodes that converge, and of what is deleted.

mod calls;
mod convergence;
mod erasure;

pub(crate) use calls::{events, events_of};
