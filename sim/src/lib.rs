//! Emulated networks, replayed conversations, and what they measure.
//!
//! - [`wan`] puts the distances of the real world below the QUIC endpoints of one process;
//! - [`replay`] plays IRC logs ([`irc`]) through the public API of running nodes, reads the events ([`sse`]) at each
//!   of them, and reports how long messages took and whether anything was lost;
//! - [`mod@bench`] measures real processes on this machine, and other systems beside them;
//! - [`streams`] holds very many event streams open at running nodes, and checks each of them;
//! - [`chaos`] breaks real processes under load and checks what is left;
//! - [`faults`] runs whole nodes in virtual time, under faults that a seed decides;
//! - [`virtual_time`] is what simulations that a seed decides are made of: time, network, and the driver of the cores;
//! - [`calibrate`] measures what a node on this machine can carry;
//! - [`netns`] runs whole processes, each region in a network namespace, with a wide-area network between them;
//! - [`command`] is how the `mychat` program offers this.
//!
//! Where things are and how far apart is the map of the router, [`mychat_router::geo`].

#![forbid(unsafe_code)]

pub mod bench;
pub mod calibrate;
pub mod chaos;
pub mod command;
pub mod faults;
pub mod irc;
pub mod latency;
pub mod model;
pub mod netns;
pub mod page;
pub mod plan;
pub mod population;
pub mod probe;
pub mod replay;
pub mod sse;
pub mod streams;
pub mod virtual_time;
pub mod wan;
pub mod weighted;

pub use command::{SimCommand, run};
