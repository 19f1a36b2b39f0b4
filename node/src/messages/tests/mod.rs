//! Tests of messages: by calls to a node, and of nodes that converge.

mod calls;
mod convergence;

pub(crate) use calls::{events, events_of};
