//! Posting messages: on a schedule, or as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::marker::Template;
use super::timeline::Timeline;
use super::wire::Connection;

/// Where messages are posted, and how it is known that they were accepted.
#[derive(Debug, Clone)]
struct Target {
    address: std::net::SocketAddr,
    template: Template,
    accepted: u16,
}

impl Target {
    fn of(cluster: &Cluster, at: usize) -> Self {
        Self { address: cluster.http(at), template: cluster.post(at), accepted: cluster.accepted() }
    }
}

/// A writer on a connection of its own.
struct Writer {
    connection: Connection,
    target: Target,
}

impl Writer {
    async fn connect(target: Target) -> anyhow::Result<Self> {
        let connection = Connection::open(target.address).await.context("a writer can't connect")?;
        Ok(Self { connection, target })
    }

    async fn post(&mut self, number: u64) -> anyhow::Result<()> {
        let status = self.connection.status_of(self.target.template.numbered(number)).await?;
        if status != self.target.accepted {
            bail!("a message was answered with {status}");
        }
        Ok(())
    }
}

/// Posts all messages of the timeline to node A on its schedule, over so many connections. Returns once all have been
/// answered, or fails when one was not accepted.
pub(super) async fn on_schedule(
    cluster: &Cluster,
    timeline: &Arc<Timeline>,
    connections: u32,
) -> anyhow::Result<()> {
    let (turns, due) = mpsc::unbounded_channel();
    let due = Arc::new(Mutex::new(due));
    let mut writers = JoinSet::new();
    for _ in 0..connections {
        let mut writer = Writer::connect(Target::of(cluster, 0)).await?;
        let (due, timeline) = (Arc::clone(&due), Arc::clone(timeline));
        writers.spawn(async move {
            // Whoever is idle waits in line for the next turn.
            while let Some(number) = { due.lock().await.recv().await } {
                timeline.begins(number);
                writer.post(number).await?;
                timeline.answered(number);
            }
            anyhow::Ok(())
        });
    }
    drop(due);
    let pacing = Arc::clone(timeline);
    // A thread, since timers of the async runtime are a millisecond coarse.
    thread::Builder::new().name("pace".to_owned()).spawn(move || {
        for number in 0..pacing.len() {
            thread::sleep(pacing.due(number).saturating_duration_since(Instant::now()));
            // All writers have failed: there is nobody left to post.
            if turns.send(number).is_err() {
                return;
            }
        }
    })?;
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

/// What was posted as fast as it was answered.
#[derive(Debug, Default)]
pub(super) struct Posted {
    /// Messages that were accepted.
    pub(super) accepted: u64,
    /// How long each took, in nanoseconds.
    pub(super) took: Vec<i64>,
}

/// Lets `writers` post to nodes `at`, in turn, each its next message once the last was answered, for a time.
/// `count` shows how many have been accepted so far.
pub(super) async fn closed_loop(
    cluster: &Cluster,
    at: &[usize],
    writers: u32,
    time: Duration,
    count: &Arc<AtomicU64>,
) -> anyhow::Result<Posted> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    let mut ready = Vec::new();
    for number in 0..writers as usize {
        ready.push(Writer::connect(Target::of(cluster, at[number % at.len()])).await?);
    }
    let numbers = Arc::new(AtomicU64::new(0));
    for mut writer in ready {
        let (stop, numbers, count) = (Arc::clone(&stop), Arc::clone(&numbers), Arc::clone(count));
        running.spawn(async move {
            let mut took = Vec::new();
            while !stop.load(Relaxed) {
                let began = Instant::now();
                writer.post(numbers.fetch_add(1, Relaxed)).await?;
                took.push(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX));
                count.fetch_add(1, Relaxed);
            }
            anyhow::Ok(took)
        });
    }
    tokio::time::sleep(time).await;
    stop.store(true, Relaxed);
    let mut posted = Posted::default();
    while let Some(ended) = running.join_next().await {
        posted.took.extend(ended??);
    }
    posted.accepted = posted.took.len() as u64;
    Ok(posted)
}
