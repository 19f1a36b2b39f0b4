//! `mychat sim wan`: whole unmodified processes, each region in a network namespace of its own, with the delays, loss,
//! bandwidth and partitions of a topology between them.
//!
//! ```text
//!  ┌─ namespace fra ─┐                                                  ┌─ namespace iad ─┐
//!  │ process ─▶ wan ═╪═▶ engine: read ─▶ switch: link fra ▶ iad ─▶ write ═╪═▶ wan ─▶ process │
//!  └─────────────────┘   (a thread)       (queue, delay, loss)           └─────────────────┘
//!                                   ▲ orders: standard input, socket
//! ```
//!
//! [`topology`] is the file, [`link`] and [`switch`] decide about packets without any I/O, [`steer`] has the orders that
//! change them. On Linux `engine` moves the packets, `namespaces` makes what they are moved between, `runs` keeps several
//! networks on one machine apart and finds what killed ones have left, `processes` are the commands in the regions, and
//! `control` is how orders come in. Nothing of it needs `netem` or any other module of the kernel but `tun`.

use std::fmt;

pub mod link;
pub mod steer;
pub mod switch;
pub mod topology;
pub mod units;

#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
mod enter;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod runs;

#[cfg(target_os = "linux")]
pub use self::{
    control::{ControlArgs, run as control},
    enter::{EnterArgs, run as enter},
    network::Network,
    processes::{End, Output, Processes},
    run::{WanArgs, run},
};

/// This machine can't do it, or this user may not.
#[derive(Debug, thiserror::Error)]
#[error("mychat sim wan {0}")]
pub struct CannotRunHere(String);

impl CannotRunHere {
    /// What it needs and does not have, as the rest of a sentence.
    pub fn because(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}
