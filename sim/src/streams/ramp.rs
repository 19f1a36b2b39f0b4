//! The most that one can be given: the rate is raised step by step until the 99th percentile passes a limit, or the posts
//! fall behind their schedule.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    figures::{Times, times},
    post::Posted,
    run::Load,
};

/// By how much the rate grows with each step.
const GROWTH: f64 = 1.25;
/// A step that posts less than this part of what it should is the last one: the poster, or what takes the posts, is at its
/// end.
const KEPT_UP: f64 = 0.95;
/// More steps than this are not needed to get from one message a second to a hundred thousand.
const MOST: usize = 60;

/// A step of the way up.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    /// Messages a second that were wanted, and that were posted.
    pub(super) rate: f64,
    pub(super) posted_per_s: f64,
    pub(super) deliveries_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Seconds from the last post until everybody had everything.
    pub(super) settled_s: f64,
    /// Whether it was within the limit.
    pub(super) held: bool,
}

/// Climbs until a step does not hold.
pub(super) async fn run(load: &Load<'_>, limit: Duration) -> anyhow::Result<(Posted, Times, Vec<Step>)> {
    let (mut all, mut latency, mut steps) = (Posted::default(), times(), Vec::new());
    // Whether the step is tried once more: something else on the machine may have disturbed it.
    let (mut rate, mut again) = (load.args.rate.max(1.0), false);
    while steps.len() < MOST {
        load.board.set_ended(false);
        load.bar.set_message(format!("{rate:.0} messages a second"));
        let delivered = load.board.delivered.load(Relaxed);
        let began = Instant::now();
        let posted = load.post(rate, load.args.step).await?;
        let posting = began.elapsed().as_secs_f64().max(load.args.step.as_secs_f64());
        let ended = Instant::now();
        load.settle(load.args.settle).await;
        let settled = ended.elapsed().as_secs_f64();
        let piece = load.board.take_latency();
        let at = |part| piece.value_at_quantile(part) as f64 / 1000.0;
        let deliveries = (load.board.delivered.load(Relaxed) - delivered) as f64;
        let posted_per_s = posted.accepted as f64 / posting;
        let p99_ms = at(0.99);
        let held = p99_ms <= limit.as_secs_f64() * 1000.0 && posted_per_s >= rate * KEPT_UP;
        steps.push(Step {
            rate,
            posted_per_s,
            // What was left after the last post was delivered later.
            deliveries_per_s: deliveries / (posting + settled),
            p50_ms: at(0.5),
            p99_ms,
            settled_s: settled,
            held,
        });
        latency.add(&piece)?;
        all.add(&posted)?;
        match (held, again) {
            (true, _) => (rate, again) = (rate * GROWTH, false),
            (false, false) => again = true,
            (false, true) => break,
        }
    }
    Ok((all, latency, steps))
}
