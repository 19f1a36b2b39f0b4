//! How long it takes from a commit at node A until it is visible to a reader at B and C.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use tokio::task::{JoinHandle, JoinSet};

use super::cluster::{Cluster, NAMES, NODES};
use super::klukai;
use super::load;
use super::marker::Scanner;
use super::settings::{LatencyArgs, System};
use super::sheet::{Better, PERCENTILES, Sheet};
use super::timeline::Timeline;
use super::usage::Usage;
use super::wire::{Connection, WireError};

/// The time between readiness and the first message.
const LEAD: Duration = Duration::from_millis(300);
/// How long after the last answer the last events may come.
const SETTLE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// The readers' nodes.
const READERS: [usize; 2] = [1, 2];

/// How it is done, for the report.
pub(super) fn method(args: &LatencyArgs) -> Vec<String> {
    let network = match args.delay_ms {
        None => "over loopback".to_owned(),
        Some(delay) => format!("with a UDP relay between them that adds {delay} ms each way"),
    };
    let peer = args.setup.peer.map(|_| args.peer_rate.unwrap_or(args.rate));
    let peer = peer.map(|rate| format!(" (klukai: {rate})")).unwrap_or_default();
    let mut method = vec![
        format!("Three processes on this machine, {network}."),
        format!(
            "One message of {} bytes per POST to A, {} a second{peer} for {} s on a fixed schedule, over {} kept \
             connections; the first {} s do not count.",
            args.setup.general.body_bytes, args.rate, args.seconds, args.connections, args.warm_up
        ),
        "POST means the scheduled moment, so the time that a writer was held up by earlier ones counts."
            .to_owned(),
        "Event means its arrival at a reader that holds a stream of events open (GET /v1/events).".to_owned(),
        "An event may overtake the answer to its POST, so the time between is shown from 0 on, and signed."
            .to_owned(),
        "All times are by one monotonic clock; load generator and relay run on the same processors."
            .to_owned(),
    ];
    method.extend(args.setup.peer.map(klukai::method));
    method
}

/// One run.
pub(super) async fn measure(system: &System, args: &LatencyArgs, bar: &ProgressBar) -> anyhow::Result<Sheet> {
    let delay = args.delay_ms.map(|delay| Duration::from_millis(delay.into()));
    let cluster = Cluster::start(system, &args.setup, delay).await?;
    let rate = args.rate_of(system);
    let count = u64::from(rate) * u64::from(args.warm_up + args.seconds);
    let start = Instant::now() + LEAD;
    let length = usize::try_from(count).context("too many messages")?;
    let timeline = Arc::new(Timeline::new(start, f64::from(rate), length, READERS.len()));
    let mut readers = JoinSet::new();
    for (reader, at) in READERS.into_iter().enumerate() {
        let (timeline, address, watch) = (Arc::clone(&timeline), cluster.http(at), cluster.watch(at));
        let stream = Connection::open(address).await?.stream(&watch).await;
        let mut stream = stream.with_context(|| format!("no event stream at {}", NAMES[at]))?;
        readers.spawn(async move {
            let mut scanner = Scanner::default();
            loop {
                match stream.next().await {
                    Ok(piece) => scanner.scan(piece, |number| timeline.seen(reader, number)),
                    Err(error) => return error,
                }
            }
        });
    }
    let watching = show(bar, &timeline);
    let before = Before::of(&cluster);
    let posted = load::on_schedule(&cluster, &timeline, args.connections).await;
    watching.abort();
    posted?;
    settle(&timeline, &mut readers).await?;
    let mut sheet = sheet(&timeline, u64::from(rate) * u64::from(args.warm_up), delay);
    usage(&mut sheet, &cluster, &before);
    Ok(sheet)
}

fn show(bar: &ProgressBar, timeline: &Arc<Timeline>) -> JoinHandle<()> {
    let (bar, timeline) = (bar.clone(), Arc::clone(timeline));
    bar.set_length(timeline.len());
    tokio::spawn(async move {
        loop {
            bar.set_position(timeline.count_answered());
            tokio::time::sleep(4 * POLL).await;
        }
    })
}

/// Waits until every reader has seen everything.
async fn settle(timeline: &Timeline, readers: &mut JoinSet<WireError>) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let seen: Vec<u64> = (0..READERS.len()).map(|reader| timeline.count_seen(reader)).collect();
        if seen.iter().all(|seen| *seen == timeline.len()) {
            return Ok(());
        }
        if let Some(ended) = readers.try_join_next() {
            bail!("an event stream broke: {}", ended?);
        }
        if Instant::now() >= deadline {
            bail!("of {} accepted messages the readers at B and C saw {seen:?}", timeline.len());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn sheet(timeline: &Timeline, from: u64, delay: Option<Duration>) -> Sheet {
    let mut sheet = Sheet::new(&PERCENTILES);
    let fates: Vec<_> = timeline.fates(from).collect();
    let mut answered: Vec<i64> = fates.iter().map(|fate| fate.answered - fate.due).collect();
    sheet.times("POST → answer", Better::Lower, &mut answered);
    let delay = delay.map_or(0, |delay| i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX));
    for (reader, at) in READERS.into_iter().enumerate() {
        let seen = |from: fn(&super::timeline::Fate<'_>) -> i64| {
            fates.iter().filter_map(move |fate| Some(fate.seen(reader)? - from(fate)))
        };
        let name = NAMES[at];
        sheet.times(
            format!("POST → event at {name}"),
            Better::Lower,
            &mut seen(|fate| fate.due).collect::<Vec<_>>(),
        );
        let mut signed: Vec<i64> = seen(|fate| fate.answered).collect();
        let mut floored: Vec<i64> = signed.iter().map(|time| *time.max(&0)).collect();
        sheet.times(format!("answer → event at {name}, from 0"), Better::Lower, &mut floored);
        sheet.times(format!("answer → event at {name}, signed"), Better::Neither, &mut signed);
        if delay > 0 {
            let mut rest: Vec<i64> = signed.iter().map(|time| time - delay).collect();
            sheet.times(format!("the same less the delay, {name}"), Better::Neither, &mut rest);
        }
    }
    let mut late: Vec<i64> = fates.iter().map(|fate| fate.begun - fate.due).collect();
    sheet.times("generator late by", Better::Neither, &mut late);
    sheet
}

/// What had been used when it began.
struct Before {
    at: Instant,
    nodes: [Usage; NODES],
    own: Usage,
    dropped: u64,
}

impl Before {
    fn of(cluster: &Cluster) -> Self {
        // What was late until now does not count.
        let relay = cluster.servers.relay.as_ref().inspect(|relay| drop(relay.take_lateness()));
        Self {
            at: Instant::now(),
            nodes: cluster.servers.usage(),
            own: Usage::of(None),
            dropped: relay.map_or(0, |relay| relay.carried().dropped),
        }
    }
}

/// How busy the machine was meanwhile.
fn usage(sheet: &mut Sheet, cluster: &Cluster, before: &Before) {
    let seconds = before.at.elapsed().as_secs_f64();
    let share = |now: Usage, before: Usage| (now.cpu - before.cpu) / seconds * 100.0;
    let now = cluster.servers.usage();
    let [a, b, c] = std::array::from_fn(|at| share(now[at], before.nodes[at]));
    let own = share(Usage::of(None), before.own);
    sheet.row("processor: A, B, C, generator", "%", Better::Neither, &[a, b, c, own]);
    if let Some(relay) = &cluster.servers.relay {
        let late = relay.take_lateness();
        let late = [50.0, 90.0, 99.0, 100.0].map(|part| late.value_at_percentile(part) as f64 / 1000.0);
        sheet.row("relay late by", "ms", Better::Neither, &late);
        let dropped = relay.carried().dropped - before.dropped;
        if dropped > 0 {
            tracing::warn!(dropped, "the relay lost datagrams");
        }
    }
}
