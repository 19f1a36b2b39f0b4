//! From what was posted, seen and stored to the report. Pure, so that it can be tested on made-up evidence.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use uuid::Uuid;

use super::{NodeRow, ObserverRow, PairRow, Refusal, ReplayReport, SenderRow, Ways};
use crate::replay::api::Node;
use crate::replay::history::History;
use crate::replay::observer::{Seen, Sighting};
use crate::replay::script::Skipped;
use crate::replay::sender::{Outcome, Posted};

/// Everything that a replay leaves behind.
pub(in crate::replay) struct Evidence<'a> {
    pub(in crate::replay) nodes: &'a [Node],
    pub(in crate::replay) ways: &'a Ways,
    pub(in crate::replay) rate: f64,
    pub(in crate::replay) posted: &'a [Posted],
    /// By node.
    pub(in crate::replay) seen: &'a [&'a Seen],
    /// By node.
    pub(in crate::replay) histories: &'a [History],
    pub(in crate::replay) skipped: Skipped,
}

/// An accepted line, found by its message.
struct Accepted {
    client_id: Uuid,
    node: usize,
    started: Instant,
    answered: Instant,
    attempts: u32,
}

type AcceptedById = HashMap<Uuid, Accepted>;

pub(in crate::replay) fn evaluate(evidence: Evidence<'_>) -> ReplayReport {
    let accepted = accepted(evidence.posted);
    let deliveries = Deliveries::new(&evidence, &accepted);
    let unanswered = evidence.posted.iter().filter_map(|posted| match &posted.outcome {
        Outcome::Unanswered(error) => Some((posted.line, error.to_string())),
        _ => None,
    });
    let unanswered: BTreeMap<usize, String> = unanswered.collect();
    let first = evidence.posted.iter().map(|posted| posted.started).min();
    let last = evidence.posted.iter().map(|posted| posted.started).max();
    let seconds = first.zip(last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    let intervals = evidence.posted.len().saturating_sub(1) as f64;
    ReplayReport {
        lines: evidence.posted.len() as u64,
        accepted: accepted.len() as u64,
        refused: refusals(evidence.posted),
        unanswered: unanswered.len() as u64,
        unanswered_example: unanswered.values().next().cloned(),
        retried: accepted.values().filter(|line| line.attempts > 1).count() as u64,
        rate_asked: evidence.rate,
        rate_reached: if seconds > 0.0 { intervals / seconds } else { 0.0 },
        latest_start_ms: milliseconds(
            evidence.posted.iter().map(|posted| posted.late).max().unwrap_or_default(),
        ),
        senders: senders(evidence.nodes, &accepted),
        disturbed: deliveries.disturbed,
        disturbed_max_ms: milliseconds(deliveries.disturbed_max),
        all_pairs: deliveries.all(),
        pairs: deliveries.rows(),
        observers: evidence
            .nodes
            .iter()
            .zip(evidence.seen)
            .map(|(node, seen)| observer_row(&node.region, seen, &accepted))
            .collect(),
        equal: evidence.histories.windows(2).all(|pair| pair[0] == pair[1]),
        nodes: evidence
            .nodes
            .iter()
            .zip(evidence.histories)
            .map(|(node, history)| node_row(node, history, &accepted))
            .collect(),
        skipped: evidence.skipped,
    }
}

fn accepted(posted: &[Posted]) -> AcceptedById {
    let accepted = posted.iter().filter_map(|posted| match posted.outcome {
        Outcome::Accepted { id, node, answered } => {
            let Posted { client_id, started, attempts, .. } = *posted;
            Some((id, Accepted { client_id, node, started, answered, attempts }))
        }
        _ => None,
    });
    accepted.collect()
}

fn refusals(posted: &[Posted]) -> Vec<Refusal> {
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for posted in posted {
        if let Outcome::Refused(error) = &posted.outcome {
            *reasons.entry(error.to_string()).or_default() += 1;
        }
    }
    reasons.into_iter().map(|(reason, lines)| Refusal { reason, lines }).collect()
}

fn senders(nodes: &[Node], accepted: &AcceptedById) -> Vec<SenderRow> {
    let mut by_region: BTreeMap<&str, Times> = BTreeMap::new();
    for line in accepted.values().filter(|line| line.attempts == 1) {
        let times = by_region.entry(&nodes[line.node].region).or_default();
        times.add(line.answered.saturating_duration_since(line.started));
    }
    let row = |(region, times): (&str, Times)| SenderRow {
        region: region.to_owned(),
        count: times.count(),
        accept_p50_ms: times.quantile_ms(0.5),
        accept_p99_ms: times.quantile_ms(0.99),
    };
    by_region.into_iter().map(row).collect()
}

fn observer_row(region: &str, seen: &Seen, accepted: &AcceptedById) -> ObserverRow {
    ObserverRow {
        region: region.to_owned(),
        received: seen.messages.len() as u64,
        lost: accepted.iter().filter(|(id, line)| !seen.has(id, &line.client_id)).count() as u64,
        doubled: seen.doubled,
        out_of_order: out_of_order(&seen.messages, accepted),
        reconnects: seen.reconnects,
        resets: seen.resets,
    }
}

/// Messages that arrived after a later one of the same node. Between nodes there is no order to keep, and of a retried
/// line it is not known which node has taken it.
fn out_of_order(messages: &[Sighting], accepted: &AcceptedById) -> u64 {
    let mut latest: HashMap<usize, Uuid> = HashMap::new();
    let mut count = 0;
    for sighting in messages {
        let Some(line) = accepted.get(&sighting.id).filter(|line| line.attempts == 1) else { continue };
        let latest = latest.entry(line.node).or_insert(sighting.id);
        count += u64::from(sighting.id < *latest);
        *latest = sighting.id.max(*latest);
    }
    count
}

fn node_row(node: &Node, history: &History, accepted: &AcceptedById) -> NodeRow {
    NodeRow {
        region: node.region.clone(),
        url: node.url.clone(),
        messages: history.messages,
        missing: accepted.iter().filter(|(id, line)| !history.has(id, &line.client_id)).count() as u64,
        repeated: history.messages - history.ids.len() as u64 + history.twins,
        sha256: history.hash.clone(),
    }
}

/// The times of all deliveries, sorted by the way that they took.
#[derive(Default)]
struct Deliveries {
    pairs: BTreeMap<(String, String), Pair>,
    disturbed: u64,
    disturbed_max: Duration,
}

#[derive(Default)]
struct Pair {
    delivery: Times,
    overhead: Times,
    one_way_ms: Option<f64>,
}

impl Deliveries {
    fn new(evidence: &Evidence<'_>, accepted: &AcceptedById) -> Deliveries {
        let mut deliveries = Deliveries::default();
        for (home, seen) in evidence.seen.iter().enumerate() {
            for sighting in &seen.messages {
                if let Some(line) = accepted.get(&sighting.id) {
                    deliveries.add(evidence, home, line, sighting);
                }
            }
        }
        deliveries
    }

    fn add(&mut self, evidence: &Evidence<'_>, home: usize, line: &Accepted, sighting: &Sighting) {
        let took = sighting.at.saturating_duration_since(line.started);
        if line.attempts > 1 || sighting.node != home || line.started < sighting.stream_since {
            self.disturbed += 1;
            self.disturbed_max = self.disturbed_max.max(took);
            return;
        }
        let region = |node: usize| evidence.nodes[node].region.clone();
        let pair = self.pairs.entry((region(line.node), region(home))).or_default();
        pair.delivery.add(took);
        if let Some(one_way) = evidence.ways.one_way_ms(line.node, home) {
            pair.overhead.add(took.saturating_sub(Duration::from_secs_f64(one_way / 1e3)));
            // Several nodes of a region are about equally far; the nearest stands for them in the table.
            pair.one_way_ms = Some(pair.one_way_ms.map_or(one_way, |known| known.min(one_way)));
        }
    }

    fn rows(&self) -> Vec<PairRow> {
        self.pairs.iter().map(|((from, to), pair)| pair.row(from, to)).collect()
    }

    fn all(&self) -> Option<PairRow> {
        let mut all = Pair::default();
        for pair in self.pairs.values() {
            all.delivery.merge(&pair.delivery);
            all.overhead.merge(&pair.overhead);
        }
        (all.delivery.count() > 0).then(|| all.row("all", "all"))
    }
}

impl Pair {
    fn row(&self, from: &str, to: &str) -> PairRow {
        let overhead = |quantile| (self.overhead.count() > 0).then(|| self.overhead.quantile_ms(quantile));
        PairRow {
            from: from.to_owned(),
            to: to.to_owned(),
            count: self.delivery.count(),
            delivery_p50_ms: self.delivery.quantile_ms(0.5),
            delivery_p99_ms: self.delivery.quantile_ms(0.99),
            one_way_ms: self.one_way_ms,
            overhead_p50_ms: overhead(0.5),
            overhead_p99_ms: overhead(0.99),
        }
    }
}

/// A histogram of durations, in microseconds with three digits.
#[derive(Default)]
struct Times(Option<Histogram<u64>>);

impl Times {
    fn histogram(&mut self) -> Option<&mut Histogram<u64>> {
        if self.0.is_none() {
            // An hour, and what is longer counts as one. Only nonsensical bounds are refused.
            self.0 = Histogram::new_with_max(3_600_000_000, 3).ok();
        }
        self.0.as_mut()
    }

    fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(histogram) = self.histogram() {
            histogram.saturating_record(micros);
        }
    }

    fn merge(&mut self, other: &Times) {
        if let (Some(histogram), Some(other)) = (self.histogram(), &other.0) {
            // Both have the same bounds, so everything fits.
            let _ = histogram.add(other);
        }
    }

    fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.as_ref().map_or(0.0, |histogram| histogram.value_at_quantile(quantile) as f64 / 1e3)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
