//! `mychat node calibrate`: what a node on this machine can carry, and what ends first.
//!
//! ```text
//! a node (a process of its own) ◀─ streams (the load generator) ─┬─ broadcast: one space, everybody reads it
//!                                                                 └─ rooms: spaces of ten
//!                      Measured ─▶ bounds (the formula) ─▶ report
//! ```
//!
//! Two loads make two equations for two unknowns: what a message costs, and what each of its deliveries does.

mod bounds;
mod report;

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::MultiProgress;
use mychat_node::capacity::{self, KERNEL_BYTES, limits};

use bounds::{Machine, Measured};
pub use report::Calibration;

use crate::streams::{Own, Report, StreamsArgs, run_one};

/// How many readers a message has in the second load.
const ROOM: u32 = 10;
/// Messages a second in the two loads.
const BROADCAST_RATE: f64 = 10.0;
const ROOM_RATE: f64 = 300.0;
/// Streams below which nothing is said of their memory: all else is larger.
const TELLING: u32 = 1000;
/// The part of the time that each load has.
const PART: f64 = 0.4;
/// How often the node is asked how late its turns come.
const LOOK: Duration = Duration::from_millis(500);
/// How long it may take to say so.
const ANSWER: Duration = Duration::from_secs(5);

/// The flags of `mychat node calibrate`.
#[derive(Debug, Clone, Args)]
pub struct CalibrateArgs {
    /// For how long messages are posted; all of it takes some seconds longer
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub seconds: u32,

    /// Streams that are opened [default: 10000, or as many as this process may hold]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    pub streams: Option<u32>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Measures, and prints what was found.
///
/// # Errors
/// When the node or the load can't be started, or a stream missed a message.
pub async fn run(args: CalibrateArgs, progress: &MultiProgress) -> anyhow::Result<()> {
    let machine = Machine::of_this()?;
    let streams =
        args.streams.unwrap_or_else(|| 10_000.min(u32::try_from(machine.connections).unwrap_or(10_000)));
    progress.suspend(|| eprintln!("a node is started, and {streams} streams are opened at it"));
    let node = Own::node(streams).await.context("the node can't be started")?;
    let measured = measure(&args, &node, streams, progress).await;
    node.stop().await?;
    let calibration = Calibration::new(machine, measured?);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&calibration)?);
    } else {
        println!("{calibration}");
    }
    Ok(())
}

async fn measure(
    args: &CalibrateArgs,
    node: &Own,
    streams: u32,
    progress: &MultiProgress,
) -> anyhow::Result<Measured> {
    let load = |spaces: u32, rate: f64, seconds: f64| StreamsArgs {
        spaces,
        rate,
        clients: streams,
        duration: Duration::from_secs_f64(seconds.max(1.0)),
        pid: node.pids(),
        ..StreamsArgs::of_nodes(vec![format!("http://{}", node.address)])
    };
    let seconds = f64::from(args.seconds) * PART;
    // What is made at the first stream, and by the first messages, is not what the others take.
    let warm = StreamsArgs { clients: streams.min(64), ..load(1, BROADCAST_RATE, 1.0) };
    run_one(&warm, progress).await?;
    progress
        .suspend(|| eprintln!("broadcast: one space, {BROADCAST_RATE} messages a second to all its streams"));
    let (broadcast, late) = watched(node, load(1, BROADCAST_RATE, seconds), progress).await?;
    let spaces = (streams / ROOM).max(1);
    progress.suspend(|| eprintln!("rooms: {spaces} spaces of {ROOM} streams, {ROOM_RATE} messages a second"));
    let (rooms, late_in_rooms) = watched(node, load(spaces, ROOM_RATE, seconds), progress).await?;
    let [delivery, message] = costs([&broadcast, &rooms]);
    Ok(Measured {
        streams,
        bytes_per_stream: (streams >= TELLING).then_some(broadcast.server_bytes_per_stream).flatten(),
        kernel_bytes_per_stream: KERNEL_BYTES,
        cpu_us_per_delivery: delivery,
        cpu_us_per_message: message,
        deliveries: broadcast.deliveries + rooms.deliveries,
        broadcast_p99_ms: broadcast.delivery_ms.p99,
        rooms_p99_ms: rooms.delivery_ms.p99,
        loop_late_ms: late.max(late_in_rooms),
    })
}

/// A load, and how late the node's turns came meanwhile, in milliseconds.
async fn watched(node: &Own, args: StreamsArgs, progress: &MultiProgress) -> anyhow::Result<(Report, f64)> {
    let mut worst = None;
    let report = tokio::select! {
        report = run_one(&args, progress) => report?,
        never = look(node, &mut worst) => match never {},
    };
    let faults = report.faults();
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok((report, worst.context("the node never said how late its turns come")?))
}

/// Asks the node again and again how late its turns come, and keeps the worst of it.
async fn look(node: &Own, worst: &mut Option<f64>) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        // A busy node may not answer at once.
        let asked = tokio::time::timeout(ANSWER, node.metrics()).await;
        let late = asked.ok().and_then(Result::ok).and_then(|text| late_ms(&text));
        *worst = worst.iter().copied().chain(late).reduce(f64::max);
    }
}

/// How late the node's turns come, in milliseconds, by its metrics.
fn late_ms(metrics: &str) -> Option<f64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix("mychat_loop_late_seconds "))?;
    Some(value.parse::<f64>().ok()? * 1000.0)
}

/// Microseconds on a processor for a delivery and for a message, from two loads with different shares of both.
fn costs(loads: [&Report; 2]) -> [f64; 2] {
    let row = |report: &Report| {
        let cpu: f64 = report.server_processes.iter().map(|server| server.cpu_s * 1e6).sum();
        [report.deliveries as f64, report.posted as f64, cpu]
    };
    bounds::solve(loads.map(row))
}

impl Machine {
    /// The one that this runs on.
    fn of_this() -> anyhow::Result<Self> {
        let limits = limits::of_process(None, 1);
        Ok(Self {
            processors: std::thread::available_parallelism().context("the number of processors")?.get(),
            free_bytes: capacity::free_memory(),
            connections: limits.streams,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_read_from_the_metrics_and_not_made_up() {
        let metrics =
            "# TYPE mychat_loop_late_seconds gauge\nmychat_loop_late_seconds 0.0125\nmychat_load 1\n";
        assert_eq!(late_ms(metrics), Some(12.5));
        assert_eq!(late_ms("mychat_load 1\n"), None);
    }
}
