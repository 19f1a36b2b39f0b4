//! Playing IRC logs live: real people's lines, at a steady rate, through the public API of running nodes, with a
//! reader at each node that checks what arrives.
//!
//! ```text
//! logs ─▶ script ─▶ stage (accounts, space, members) ─▶ sender ──POST──▶ nodes
//!                                                                          │
//! report ◀─ evaluate ◀─ history of each node ◀─ observers ◀──SSE──────────┘
//! ```
//!
//! A node may be killed and come back meanwhile: its speakers' lines go to the next node under the same client id, and
//! its observer reads on at the next node from its cursor, and returns. What counts in the end is that every line that
//! a node has accepted reached every observer once, and that all nodes hold the same.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use uuid::Uuid;

mod api;
mod history;
mod observer;
mod people;
mod report;
mod script;
mod sender;
mod stage;

use api::Api;
use observer::Observer;
use report::{Evidence, Ways, evaluate};
pub use report::{NodeRow, ObserverRow, PairRow, Refusal, ReplayReport, SenderRow};
use script::Script;
pub use script::Skipped;
use sender::{Outcome, Pace, Posted};
use stage::Stage;

/// How often it is looked whether everything has arrived.
const POLL: Duration = Duration::from_millis(20);
/// How long the first event stream of each observer may take to begin.
const FIRST_STREAM: Duration = Duration::from_secs(30);

/// Settings of a replay, as flags of the program.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// The IRC logs to play, in this order, one file a day [example: --irc 2004-12-25.log 2005-06-16.log]
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub irc: Vec<PathBuf>,

    /// Lines a second over all speakers; they are posted on schedule whether or not earlier ones have been answered
    /// [example: --rate 200]
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = parse_rate)]
    pub rate: f64,

    /// The addresses of the nodes; the speakers are spread over them in turn, and one observer reads at each [example:
    /// --nodes http://127.0.0.1:8081 http://127.0.0.1:8082]
    #[arg(long, value_name = "URL", num_args = 1.., required = true, value_delimiter = ',', value_parser = api::node_url)]
    pub nodes: Vec<String>,

    /// Stop after this many lines [default: all] [example: --lines 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub lines: Option<u64>,

    /// Make at most this many accounts; further speakers share them [default: one for each speaker] [example:
    /// --max-speakers 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_speakers: Option<u64>,

    /// Sign up this many accounts at a time; each costs a node a password hash [example: --signups 4]
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub signups: u64,

    /// Let at most this many lines wait for their answers; then the schedule waits, and the report says so [example:
    /// --in-flight 500]
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub in_flight: u64,

    /// Give up a request after this many seconds and ask the next node [example: --timeout 5]
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,

    /// Offer a line to the nodes for this many seconds before it counts as unanswered [example: --patience 120]
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub patience: u64,

    /// After the last line, wait at most this many seconds until all observers have everything [example: --settle 120]
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub settle: u64,

    /// Also write the report to this file, as JSON [example: --json replay.json]
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 100_000.0 => Ok(rate),
        _ => Err("a number of lines a second above 0, at most 100000".to_owned()),
    }
}

/// Settings of a replay.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The logs, in order.
    pub irc: Vec<PathBuf>,
    /// Base URLs of the nodes, without a slash at the end.
    pub nodes: Vec<String>,
    /// Lines a second.
    pub rate: f64,
    /// The most lines to post.
    pub lines: Option<usize>,
    /// The most accounts to make.
    pub max_speakers: Option<usize>,
    /// Sign-ups at a time.
    pub signups: usize,
    /// Unanswered lines at which the schedule waits.
    pub in_flight: usize,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long a line is offered to the nodes.
    pub patience: Duration,
    /// How long to wait for the last deliveries.
    pub settle: Duration,
}

impl From<ReplayArgs> for ReplayOptions {
    fn from(args: ReplayArgs) -> Self {
        // More than fits has no effect that differs from the largest that does.
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            irc: args.irc,
            nodes: args.nodes,
            rate: args.rate,
            lines: args.lines.map(count),
            max_speakers: args.max_speakers.map(count),
            signups: count(args.signups),
            in_flight: count(args.in_flight),
            timeout: Duration::from_secs(args.timeout),
            patience: Duration::from_secs(args.patience),
            settle: Duration::from_secs(args.settle),
        }
    }
}

/// Plays the logs and reports. An error means that the replay could not be carried out; what it found wrong with the
/// nodes is in the report, see [`ReplayReport::faults`].
pub async fn run(options: ReplayOptions, progress: &MultiProgress) -> anyhow::Result<ReplayReport> {
    let distinct: HashSet<_> = options.nodes.iter().collect();
    ensure!(distinct.len() == options.nodes.len(), "a node is given twice");
    let (files, lines, speakers) = (options.irc.clone(), options.lines, options.max_speakers);
    let script = tokio::task::spawn_blocking(move || Script::read(&files, lines, speakers)).await??;
    ensure!(!script.lines.is_empty(), "the logs have no messages");
    let api = Api::connect(&options.nodes, options.timeout, Instant::now() + options.timeout).await;
    let api = Arc::new(api.context("the nodes can't be reached")?);
    tracing::info!(lines = script.lines.len(), speakers = script.speakers.len(), "signing up the speakers");
    let bar = bar(progress, "signing up");
    let stage = stage::prepare(&api, &script, options.signups, &bar).await?;
    bar.finish_and_clear();
    play(&options, &api, &stage, script, progress).await
}

async fn play(
    options: &ReplayOptions,
    api: &Arc<Api>,
    stage: &Stage,
    script: Script,
    progress: &MultiProgress,
) -> anyhow::Result<ReplayReport> {
    let observers: Vec<_> = stage
        .observers
        .iter()
        .map(|account| Observer::start(api.clone(), account.clone(), stage.space))
        .collect();
    for (observer, node) in observers.iter().zip(&api.nodes) {
        ensure!(observer.is_reading(FIRST_STREAM).await, "no event stream from {}", node.url);
    }
    let ways_before = ways(api).await;
    tracing::info!(rate = options.rate, "posting the lines");
    let posting = bar(progress, "posting");
    posting.set_length(script.lines.len() as u64);
    let pace = Pace { rate: options.rate, in_flight: options.in_flight, patience: options.patience };
    let posted = sender::post_all(api, stage.space, &stage.speakers, script.lines, pace, &posting).await;
    posting.finish_and_clear();
    settle(&observers, &posted, options.settle, &bar(progress, "waiting for the last events")).await;
    // Differences show in the histories, with their extent; here it is only given time.
    if let Err(error) = stage::agree(api, options.settle).await {
        tracing::warn!(%error, "comparing nodes that may still be catching up");
    }
    let ways = ways_before.shorter(&ways(api).await);
    let histories = histories(api, stage, options.settle).await?;
    let seen: Vec<_> = observers.iter().map(Observer::seen).collect();
    let seen: Vec<_> = seen.iter().map(|seen| &**seen).collect();
    Ok(evaluate(Evidence {
        nodes: &api.nodes,
        ways: &ways,
        rate: options.rate,
        posted: &posted,
        seen: &seen,
        histories: &histories,
        skipped: script.skipped,
    }))
}

/// Waits until every observer has every accepted message, or until the time is over.
async fn settle(observers: &[Observer], posted: &[Posted], within: Duration, bar: &ProgressBar) {
    let accepted: HashSet<(Uuid, Uuid)> = posted
        .iter()
        .filter_map(|posted| match posted.outcome {
            Outcome::Accepted { id, .. } => Some((id, posted.client_id)),
            _ => None,
        })
        .collect();
    bar.set_length((accepted.len() * observers.len()) as u64);
    let deadline = Instant::now() + within;
    loop {
        let missing = |observer: &Observer| {
            let seen = observer.seen();
            accepted.iter().filter(|(id, client_id)| !seen.has(id, client_id)).count()
        };
        let missing: usize = observers.iter().map(missing).sum();
        bar.set_position(bar.length().unwrap_or_default().saturating_sub(missing as u64));
        if missing == 0 || Instant::now() >= deadline {
            return bar.finish_and_clear();
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn ways(api: &Api) -> Ways {
    let statuses = futures_util::future::join_all((0..api.nodes.len()).map(|node| api.status(node))).await;
    Ways::new(&api.nodes, &statuses.into_iter().map(Result::ok).collect::<Vec<_>>())
}

async fn histories(api: &Api, stage: &Stage, within: Duration) -> anyhow::Result<Vec<history::History>> {
    let deadline = Instant::now() + within;
    let read = |node| history::read(api, node, &stage.owner, stage.space, deadline);
    futures_util::future::try_join_all((0..api.nodes.len()).map(read)).await
}

fn bar(progress: &MultiProgress, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:28} {wide_bar} {pos}/{len} {eta}");
    // The template is fixed, and the default is as good when it is not understood.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    progress.add(ProgressBar::new(0).with_style(style).with_message(what))
}

#[cfg(test)]
mod tests;
