//! How the network is, for people and for programs.

use std::fmt;
use std::net::Ipv4Addr;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::netns::link::{Counters, Link};
use crate::netns::switch::Switch;
use crate::netns::units::Delay;

/// How the network is.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Everybody.
    pub regions: Vec<Place>,
    /// The links, each direction by itself.
    pub links: Vec<LinkStatus>,
    /// Packets for addresses that nobody has.
    pub strays: u64,
}

/// A region.
#[derive(Debug, Serialize)]
pub struct Place {
    /// Its name; host is this machine.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// One direction between two regions.
#[derive(Debug, Serialize)]
pub struct LinkStatus {
    /// The sender's region.
    pub from: String,
    /// The receiver's.
    pub to: String,
    /// Whether it is cut off.
    pub partitioned: bool,
    /// The delay in milliseconds.
    pub delay_ms: f64,
    /// The jitter in milliseconds.
    pub jitter_ms: f64,
    /// The share that is lost, from 0 to 1.
    pub loss: f64,
    /// Bits a second, if limited.
    pub bandwidth: Option<u64>,
    /// What may wait for the bandwidth, in bytes.
    pub queue: u64,
    /// Bytes that it holds, waiting and under way.
    pub held: u64,
    /// What became of packets.
    #[serde(flatten)]
    pub counters: Counters,
    /// The settings for people.
    #[serde(skip)]
    settings: [String; 4],
}

impl Status {
    /// That of a network.
    pub fn of(switch: &Switch) -> Self {
        let ports = switch.ports();
        let regions =
            ports.iter().map(|port| Place { name: port.name.clone(), address: port.address }).collect();
        let pairs = (0..ports.len()).flat_map(|from| (0..ports.len()).map(move |to| (from, to)));
        let status = |(from, to): (usize, usize)| {
            LinkStatus::of(&ports[from].name, &ports[to].name, switch.link(from, to))
        };
        let links = pairs.filter(|(from, to)| from != to).map(status).collect();
        Self { regions, links, strays: switch.strays() }
    }
}

impl LinkStatus {
    fn of(from: &str, to: &str, link: &Link) -> Self {
        let shape = link.shape();
        let ms = |delay: Delay| delay.0.as_secs_f64() * 1e3;
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            partitioned: link.is_cut(),
            delay_ms: ms(shape.delay),
            jitter_ms: ms(shape.jitter),
            loss: shape.loss.0,
            bandwidth: shape.bandwidth.0,
            queue: shape.queue.0,
            held: link.held(),
            counters: link.counters(),
            settings: [
                shape.delay.to_string(),
                shape.jitter.to_string(),
                shape.loss.to_string(),
                shape.bandwidth.to_string(),
            ],
        }
    }

    /// As one sees it in a table.
    fn cells(&self) -> Vec<String> {
        let name = format!("{} -> {}{}", self.from, self.to, if self.partitioned { "  CUT" } else { "" });
        let Counters { packets, bytes, lost, cut, full, refused } = self.counters;
        let counted = [packets, bytes, lost, cut, full, refused, self.held].map(|count| count.to_string());
        [name].into_iter().chain(self.settings.iter().cloned()).chain(counted).collect()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let settings = ["link", "delay", "jitter", "loss", "bandwidth"];
        let counted = ["packets", "bytes", "lost", "cut", "queue full", "refused", "held"];
        table.set_header(settings.into_iter().chain(counted));
        self.links.iter().for_each(|link| {
            table.add_row(link.cells());
        });
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        write!(f, "{table}")?;
        if self.strays > 0 {
            write!(f, "\n{} packets were for addresses that nobody has", self.strays)?;
        }
        Ok(())
    }
}
