//! How many single messages a second the nodes take, until all of them hold everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::ensure;
use indicatif::ProgressBar;
use tokio::task::JoinHandle;

use super::cluster::{Cluster, NAMES, NODES};
use super::klukai;
use super::load::{self, Posted};
use super::settings::{System, ThroughputArgs};
use super::sheet::{Better, PERCENTILES, Sheet};
use super::usage::{Usage, disk};

/// How long the nodes may take to become level.
const LEVEL: Duration = Duration::from_secs(600);
/// How often they are asked.
const POLL: Duration = Duration::from_millis(10);
/// How often the progress is drawn.
const SHOW: Duration = Duration::from_millis(200);

/// How it is done, for the report.
pub(super) fn method(args: &ThroughputArgs) -> Vec<String> {
    let to = if args.everywhere { "all three nodes, the writers in turn" } else { "A" };
    let mut method = vec![
        format!(
            "Three processes on this machine; {} writers post to {to}, each its next message of {} bytes once the \
             last is answered, for {} s.",
            args.writers, args.setup.general.body_bytes, args.seconds
        ),
        "Held by all: from the first POST until every node holds everything, by their version vectors.".to_owned(),
        "Processor time is until then, too; disk is all files of a node's folder once it has stopped, less what \
         was there before the first message."
            .to_owned(),
        "The load generator runs on the same processors.".to_owned(),
    ];
    if !args.no_check {
        method.push("In the end the histories of all nodes were read, and were the same.".to_owned());
    }
    method.extend(args.setup.peer.map(klukai::method));
    method
}

/// One run.
pub(super) async fn measure(
    system: &System,
    args: &ThroughputArgs,
    bar: &ProgressBar,
) -> anyhow::Result<Sheet> {
    let mut cluster = Cluster::start(system, &args.setup, None).await?;
    let before = Used::of(&cluster);
    let empty: [u64; NODES] = std::array::from_fn(|at| disk(&cluster.servers.places[at].data));
    let count = Arc::new(AtomicU64::new(0));
    let shown = show(bar, &count);
    let began = Instant::now();
    let at: &[usize] = if args.everywhere { &[0, 1, 2] } else { &[0] };
    let time = Duration::from_secs(args.seconds.into());
    let posted = load::closed_loop(&cluster, at, args.writers, time, &count).await;
    shown.abort();
    let posted = posted?;
    let writing = began.elapsed();
    while !cluster.is_level(posted.accepted).await? {
        ensure!(began.elapsed() < writing + LEVEL, "the nodes do not become level");
        tokio::time::sleep(POLL).await;
    }
    let level = began.elapsed();
    let after = Used::of(&cluster);
    if !args.no_check {
        bar.set_message("comparing the nodes");
        compare(&cluster, posted.accepted).await?;
    }
    cluster.servers.stop().await?;
    let grown = std::array::from_fn(|at| disk(&cluster.servers.places[at].data).saturating_sub(empty[at]));
    Ok(sheet(Found { posted, writing, level, before, after, grown }))
}

fn show(bar: &ProgressBar, count: &Arc<AtomicU64>) -> JoinHandle<()> {
    let (bar, count) = (bar.clone(), Arc::clone(count));
    tokio::spawn(async move {
        loop {
            bar.set_position(count.load(Relaxed));
            tokio::time::sleep(SHOW).await;
        }
    })
}

/// What nodes and the load generator have used at a moment.
struct Used {
    nodes: [Usage; NODES],
    own: Usage,
}

impl Used {
    fn of(cluster: &Cluster) -> Self {
        Self { nodes: cluster.servers.usage(), own: Usage::of(None) }
    }
}

/// What a run found.
struct Found {
    posted: Posted,
    /// Until the last answer, and until all nodes held everything.
    writing: Duration,
    level: Duration,
    before: Used,
    after: Used,
    /// Bytes on the disk.
    grown: [u64; NODES],
}

fn sheet(mut found: Found) -> Sheet {
    let mut sheet = Sheet::new(&["value"]);
    let accepted = found.posted.accepted as f64;
    let (writing, level) = (found.writing.as_secs_f64(), found.level.as_secs_f64());
    sheet.row("accepted", "messages/s", Better::Higher, &[accepted / writing]);
    sheet.row("held by all nodes", "messages/s", Better::Higher, &[accepted / level]);
    sheet.row("level after the last answer", "s", Better::Neither, &[level - writing]);
    for (name, value) in PERCENTILES.into_iter().zip(distribution(&mut found.posted.took)) {
        sheet.row(format!("POST → answer {name}"), "ms", Better::Lower, &[value]);
    }
    for (at, name) in NAMES.iter().enumerate() {
        let cpu = found.after.nodes[at].cpu - found.before.nodes[at].cpu;
        sheet.row(format!("processor time, {name}"), "s", Better::Neither, &[cpu]);
        sheet.row(format!("processor time a message, {name}"), "µs", Better::Lower, &[cpu / accepted * 1e6]);
    }
    let own = found.after.own.cpu - found.before.own.cpu;
    sheet.row("processor time, generator", "s", Better::Neither, &[own]);
    for (at, name) in NAMES.iter().enumerate() {
        let resident = found.after.nodes[at].resident as f64 / 1e6;
        sheet.row(format!("resident, {name}"), "MB", Better::Lower, &[resident]);
    }
    for (at, name) in NAMES.iter().enumerate() {
        let bytes = found.grown[at] as f64 / accepted;
        sheet.row(format!("disk a message, {name}"), "bytes", Better::Lower, &[bytes]);
    }
    sheet
}

fn distribution(took: &mut [i64]) -> Vec<f64> {
    let mut times = Sheet::new(&[]);
    times.times("", Better::Lower, took);
    times.rows.swap_remove(0).values
}

/// Fails when a node lacks something or nodes differ.
async fn compare(cluster: &Cluster, accepted: u64) -> anyhow::Result<()> {
    let mut first = None;
    for (at, name) in NAMES.iter().enumerate() {
        let (count, hash) = cluster.contents_of(at).await?;
        ensure!(count == accepted, "node {name} has {count} messages of {accepted} that were accepted");
        ensure!(*first.get_or_insert_with(|| hash.clone()) == hash, "node {name} has other messages than A");
    }
    Ok(())
}
