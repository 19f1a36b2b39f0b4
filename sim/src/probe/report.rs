//! What a probe found.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::echo::Echo;
use super::link::Steps;
use crate::latency::report::table;
use crate::weighted::{Distribution, Sample};

/// All nodes that were asked. Times are in milliseconds.
#[derive(Debug, Serialize)]
pub struct ProbeReport {
    /// One for each URL, in the order given.
    pub nodes: Vec<NodeReport>,
    /// What the router says, where one was given.
    pub router: Option<RouterReport>,
}

/// What one node is like from here.
#[derive(Debug, Serialize)]
pub struct NodeReport {
    /// The URL.
    pub url: String,
    /// What was found, or why nothing.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A node's figures, or why there are none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It answered.
    Figures(Box<Figures>),
    /// It did not.
    Error(String),
}

/// The figures of a node; those of the connection are medians, but for the name, which the system remembers.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The node's region, as it says.
    pub region: String,
    /// The address that was reached.
    pub address: String,
    /// Looking up the name for the first time.
    pub dns_ms: f64,
    /// The TCP connection.
    pub connect_ms: f64,
    /// The TLS handshake; none without TLS.
    pub tls_ms: Option<f64>,
    /// From a call to the head of its answer, on an open connection.
    pub first_byte_ms: f64,
    /// From posting a message to the answer that it is durable.
    pub acknowledgement: Spread,
    /// From posting a message to the own event.
    pub echo: Spread,
}

/// How a time varies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How often it was measured.
    pub count: usize,
    /// The median.
    pub p50_ms: f64,
    /// What 99 % do not exceed.
    pub p99_ms: f64,
    /// By how much one differs from the one before, in the mean.
    pub jitter_ms: f64,
}

/// The router's choice for whoever asks from here.
#[derive(Debug, Serialize)]
pub struct RouterReport {
    /// The router's URL.
    pub url: String,
    /// The node that it would send one to; none when it could not be asked.
    pub node: Option<String>,
    /// That node's region.
    pub region: Option<String>,
    /// Why, in the router's words, or why it could not be asked.
    pub why: String,
    /// The node with the fastest echo of those that were probed.
    pub fastest: Option<String>,
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Spread {
    pub(super) fn of(times: &[Duration]) -> Self {
        let all: Distribution =
            times.iter().map(|time| Sample { value: milliseconds(*time), weight: 1.0 }).collect();
        let steps = times.windows(2).map(|pair| milliseconds(pair[0].abs_diff(pair[1])));
        let jitter = steps.sum::<f64>() / times.len().saturating_sub(1).max(1) as f64;
        Self {
            count: times.len(),
            p50_ms: all.quantile(0.5),
            p99_ms: all.quantile(0.99),
            jitter_ms: (jitter * 1e3).round() / 1e3,
        }
    }
}

impl Figures {
    pub(super) fn new(
        region: String,
        address: String,
        steps: &[Steps],
        first_bytes: &[Duration],
        echoes: &[Echo],
    ) -> Self {
        let median = |times: Vec<Duration>| Spread::of(&times).p50_ms;
        let tls: Vec<Duration> = steps.iter().filter_map(|steps| steps.tls).collect();
        Self {
            region,
            address,
            dns_ms: steps.first().map_or(0.0, |steps| milliseconds(steps.dns)),
            connect_ms: median(steps.iter().map(|steps| steps.connect).collect()),
            tls_ms: (!tls.is_empty()).then(|| median(tls)),
            first_byte_ms: median(first_bytes.to_vec()),
            acknowledgement: Spread::of(&echoes.iter().map(|echo| echo.acknowledged).collect::<Vec<_>>()),
            echo: Spread::of(&echoes.iter().map(|echo| echo.seen).collect::<Vec<_>>()),
        }
    }
}

impl ProbeReport {
    /// The node with the fastest echo.
    pub(super) fn fastest(&self) -> Option<&NodeReport> {
        let echo = |node: &&NodeReport| match &node.outcome {
            Outcome::Figures(figures) => figures.echo.p50_ms,
            Outcome::Error(_) => f64::INFINITY,
        };
        let fastest = self.nodes.iter().min_by(|a, b| echo(a).total_cmp(&echo(b)));
        fastest.filter(|node| matches!(node.outcome, Outcome::Figures(_)))
    }

    /// Whether every node answered.
    pub fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.outcome, Outcome::Figures(_)))
            && self.router.as_ref().is_none_or(|router| router.node.is_some())
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |value: f64| format!("{value:.1}");
        let rows = self.nodes.iter().filter_map(|node| match &node.outcome {
            Outcome::Error(_) => None,
            Outcome::Figures(figures) => Some(vec![
                node.url.clone(),
                figures.region.clone(),
                ms(figures.dns_ms),
                ms(figures.connect_ms),
                figures.tls_ms.map_or_else(|| "-".to_owned(), ms),
                ms(figures.first_byte_ms),
                ms(figures.acknowledgement.p50_ms),
                ms(figures.echo.p50_ms),
                ms(figures.echo.p99_ms),
                ms(figures.echo.jitter_ms),
            ]),
        });
        let heading = [
            "node",
            "region",
            "DNS",
            "connect",
            "TLS",
            "first byte",
            "ack p50",
            "echo p50",
            "echo p99",
            "jitter",
        ];
        let rows: Vec<_> = rows.collect();
        if !rows.is_empty() {
            writeln!(
                f,
                "{}\nMilliseconds. Echo: from posting a message to the own event.",
                table(&heading, 2, rows)
            )?;
        }
        for node in &self.nodes {
            if let Outcome::Error(error) = &node.outcome {
                writeln!(f, "{}: {error}", node.url)?;
            }
        }
        if let Some(router) = &self.router {
            match &router.node {
                Some(node) => writeln!(f, "The router {} would choose {node}: {}.", router.url, router.why)?,
                None => writeln!(f, "The router {} could not be asked: {}", router.url, router.why)?,
            }
            match (&router.fastest, &router.node) {
                (Some(fastest), Some(node)) if fastest == node => writeln!(f, "It is the fastest of them.")?,
                (Some(fastest), Some(_)) => {
                    writeln!(f, "The fastest echo of those asked here is that of {fastest}.")?
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_the_mean_step() {
        let times = [10, 12, 9, 9].map(Duration::from_millis);
        let spread = Spread::of(&times);
        assert_eq!((spread.count, spread.p50_ms, spread.p99_ms), (4, 9.0, 12.0));
        assert_eq!(spread.jitter_ms, 1.667);
        assert_eq!(Spread::of(&times[..1]).jitter_ms, 0.0);
    }
}
