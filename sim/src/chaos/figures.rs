//! How long deliveries took, out of what the ledger and the readers remember.

use std::fmt;
use std::time::{Duration, Instant};

use super::ledger::Fate;
use super::stage::Stage;

/// Deliveries from one node to a reader at another, from the beginning of the post to the event.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Deliveries {
    count: usize,
    p50: Duration,
    p99: Duration,
}

impl fmt::Display for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "p50 {:.1} ms, p99 {:.1} ms ({})", millis(self.p50), millis(self.p99), self.count)
    }
}

impl Deliveries {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50: at(0.5), p99: at(0.99) }
    }
}

/// The deliveries of messages posted in a span, between all nodes but `without`: of those that the first node asked
/// took, to the readers at the other nodes.
pub(super) fn deliveries(
    stage: &Stage,
    since: Instant,
    until: Instant,
    without: Option<usize>,
) -> Deliveries {
    let mut times = Vec::new();
    for reader in &stage.readers {
        let Some(home) = reader.home.filter(|home| Some(*home) != without) else { continue };
        let seen = reader.seen();
        for entry in stage.ledger.entries() {
            let Fate::Acknowledged { node, .. } = entry.fate else { continue };
            let counts = node != home && Some(node) != without && entry.attempts == 1;
            if !counts || entry.posted < since || entry.posted >= until {
                continue;
            }
            if let Some(sighting) = seen.first.get(&entry.client_id).filter(|sighting| sighting.node == home)
            {
                times.push(sighting.at.saturating_duration_since(entry.posted));
            }
        }
    }
    Deliveries::of(times)
}

/// The medians over the rounds of stalls, each before and meanwhile.
pub(super) fn medians(stalls: &[(Deliveries, Deliveries)]) -> Option<String> {
    let median = |figure: fn(&(Deliveries, Deliveries)) -> Duration| {
        let mut all: Vec<f64> = stalls.iter().map(|stall| figure(stall).as_secs_f64() * 1e3).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    let (before, meanwhile) = (median(|(before, _)| before.p99)?, median(|(_, meanwhile)| meanwhile.p99)?);
    Some(format!(
        "median of {} rounds: the others' p99 is {before:.1} ms before and {meanwhile:.1} ms meanwhile ({:+.0} %)",
        stalls.len(),
        (meanwhile / before - 1.0) * 100.0
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_medians() {
        let times = |most: u64| Deliveries::of((1..=most).map(Duration::from_millis).collect());
        let deliveries = times(200);
        assert_eq!(deliveries.to_string(), "p50 101.0 ms, p99 199.0 ms (200)");
        assert_eq!(Deliveries::of(Vec::new()), Deliveries::default());
        let text = medians(&[(times(200), times(100)), (times(100), times(200)), (times(100), times(200))]);
        assert!(
            text.as_deref().is_some_and(|text| text.contains("100.0 ms before and 199.0 ms")),
            "{text:?}"
        );
        assert_eq!(medians(&[]), None);
    }
}
