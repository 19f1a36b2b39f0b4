//! A topology's TOML file, as it stands there.

use std::net::Ipv4Addr;

use serde::Deserialize;
use toml::Spanned;

use super::subnet::Subnet;
use crate::netns::link::{Change, Shape};
use crate::netns::units::{Bandwidth, Bytes, Delay, Loss};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) network: Option<Spanned<Subnet>>,
    #[serde(default)]
    pub(super) host: bool,
    pub(super) rtt: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) defaults: Settings,
    #[serde(default)]
    pub(super) region: Vec<Spanned<RegionEntry>>,
    #[serde(default)]
    pub(super) link: Vec<Spanned<LinkEntry>>,
    #[serde(default)]
    pub(super) process: Vec<Spanned<ProcessEntry>>,
}

/// `[defaults]`: what every link has that does not say otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    pub(super) delay: Option<Delay>,
    pub(super) jitter: Option<Delay>,
    pub(super) loss: Option<Loss>,
    pub(super) bandwidth: Option<Bandwidth>,
    pub(super) queue: Option<Bytes>,
}

/// `[[region]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RegionEntry {
    pub(super) name: Spanned<String>,
    pub(super) lat: Option<f64>,
    pub(super) lon: Option<f64>,
    pub(super) address: Option<Spanned<Ipv4Addr>>,
}

/// `[[link]]`: both directions between two regions, or the one from one to another.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LinkEntry {
    pub(super) between: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) to: Option<Spanned<String>>,
    // Not flattened: a flattened struct would let misspelt keys pass.
    delay: Option<Delay>,
    jitter: Option<Delay>,
    loss: Option<Loss>,
    bandwidth: Option<Bandwidth>,
    queue: Option<Bytes>,
}

/// `[[process]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ProcessEntry {
    pub(super) region: Option<Spanned<String>>,
    pub(super) command: Vec<String>,
}

impl LinkEntry {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            delay: self.delay,
            jitter: self.jitter,
            loss: self.loss,
            bandwidth: self.bandwidth,
            queue: self.queue,
        }
    }
}

impl Settings {
    /// The shape with what is set here.
    pub(super) fn over(&self, mut shape: Shape) -> Shape {
        shape.delay = self.delay.unwrap_or(shape.delay);
        shape.jitter = self.jitter.unwrap_or(shape.jitter);
        shape.loss = self.loss.unwrap_or(shape.loss);
        shape.bandwidth = self.bandwidth.unwrap_or(shape.bandwidth);
        shape.queue = self.queue.unwrap_or(shape.queue);
        shape
    }

    /// What is set, by the name of its key.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("delay", self.delay.map(Change::Delay)),
            ("jitter", self.jitter.map(Change::Jitter)),
            ("loss", self.loss.map(Change::Loss)),
            ("bandwidth", self.bandwidth.map(Change::Bandwidth)),
            ("queue", self.queue.map(Change::Queue)),
        ];
        all.into_iter().filter_map(|(key, set)| set.map(|_| key))
    }
}
