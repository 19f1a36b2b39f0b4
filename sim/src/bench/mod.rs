//! Benchmarks of the running system: real server processes on this machine, driven from outside.
//!
//! ```text
//! settings ─▶ cluster (process, relay) ─▶ load ──POST──▶ A ═══▶ B, C ──events──▶ timeline
//!                                                                                   │
//!                                    report ◀─ sheet (percentiles, medians) ◀───────┘
//! ```
//!
//! - `cluster` starts three nodes in a folder of their own; `mychat` and `klukai` say how each system is spoken to.
//!   `relay` is the distance between them.
//! - `load` posts, by the few lines of HTTP of `wire`; each message carries a number (`marker`), by which it is known
//!   again in a stream of events.
//! - `latency` and `throughput` are the benchmarks. Each makes a `sheet` a run; the `report` has their medians, and
//!   says how it was measured.
//!
//! They measure and do not judge: figures depend on the machine. What is not a matter of speed (a message that was
//! accepted and does not arrive, nodes that differ) makes them fail.

use std::path::Path;

use anyhow::Context;
use clap::Subcommand;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

mod cluster;
mod klukai;
mod latency;
mod load;
mod marker;
mod mychat;
mod process;
mod relay;
mod report;
mod settings;
mod sheet;
mod throughput;
mod timeline;
mod usage;
mod wire;

use report::Report;
use settings::{Common, System, check_folder};
pub use settings::{LatencyArgs, ThroughputArgs};
use sheet::Sheet;

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Replication between three nodes: how fast, how much, at what cost
    #[command(subcommand)]
    Replication(ReplicationCommand),
}

/// What to measure of replication.
#[derive(Debug, Clone, Subcommand)]
pub enum ReplicationCommand {
    /// How long from a commit at one node until it is visible at the others
    ///
    /// Examples:
    ///   mychat sim bench replication latency
    ///   mychat sim bench replication latency --rate 500 --seconds 20 --delay-ms 40 --runs 5 --json latency.json
    ///   mychat sim bench replication latency --peer klukai --klukai ~/.cargo/bin/corrosion --peer-rate 10
    #[command(verbatim_doc_comment)]
    Latency(LatencyArgs),
    /// How many single messages a second, until all nodes hold them
    ///
    /// Examples:
    ///   mychat sim bench replication throughput
    ///   mychat sim bench replication throughput --writers 64 --seconds 30 --everywhere
    ///   mychat sim bench replication throughput --peer klukai --klukai ~/.cargo/bin/corrosion --runs 5
    #[command(verbatim_doc_comment)]
    Throughput(ThroughputArgs),
}

/// Measures and prints a report.
pub async fn run(command: BenchCommand, progress: &MultiProgress) -> anyhow::Result<()> {
    let BenchCommand::Replication(command) = command;
    match command {
        ReplicationCommand::Latency(args) => {
            let each = async |system: System, bar: ProgressBar| latency::measure(&system, &args, &bar).await;
            let runs = repeat(&args.common, progress, each).await?;
            finish(&args.common, &Report::new("Replication latency", latency::method(&args), runs))
        }
        ReplicationCommand::Throughput(args) => {
            let each =
                async |system: System, bar: ProgressBar| throughput::measure(&system, &args, &bar).await;
            let runs = repeat(&args.common, progress, each).await?;
            finish(&args.common, &Report::new("Replication throughput", throughput::method(&args), runs))
        }
    }
}

/// Runs a benchmark as often as asked, the systems by turns, so that what changes on the machine meets all of them.
async fn repeat(
    common: &Common,
    progress: &MultiProgress,
    each: impl AsyncFn(System, ProgressBar) -> anyhow::Result<Sheet>,
) -> anyhow::Result<Vec<(String, Vec<Sheet>)>> {
    check_folder(&common.folder())?;
    let systems = common.systems()?;
    let mut runs: Vec<(String, Vec<Sheet>)> =
        systems.iter().map(|system| (system.to_string(), Vec::new())).collect();
    for run in 1..=common.runs {
        for (system, (_, sheets)) in systems.iter().zip(&mut runs) {
            let bar = bar(progress, format!("{system}, run {run} of {}", common.runs));
            let sheet =
                each(system.clone(), bar.clone()).await.with_context(|| format!("{system}, run {run}"))?;
            bar.finish_and_clear();
            sheets.push(sheet);
        }
    }
    Ok(runs)
}

fn finish(common: &Common, report: &Report) -> anyhow::Result<()> {
    print!("{report}");
    match &common.json {
        Some(file) => write_json(file, report),
        None => Ok(()),
    }
}

fn write_json(file: &Path, report: &Report) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(file, text).with_context(|| format!("the report can't be written to {}", file.display()))
}

fn bar(progress: &MultiProgress, what: String) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:28} {wide_bar} {pos}/{len} {per_sec} {elapsed}");
    // The template is fixed, and the default is as good when it is not understood.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    progress.add(ProgressBar::no_length().with_style(style).with_message(what))
}
