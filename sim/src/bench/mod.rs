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
//! - `latency`, `throughput`, `catchup` (with `fill`, `storage`) and `growth` are the benchmarks; the last is of the
//!   store alone, in this process. Each makes a `sheet` a run; the `report` has their medians, and
//!   says how it was measured.
//!
//! They measure and do not judge: figures depend on the machine. What is not a matter of speed (a message that was
//! accepted and does not arrive, nodes that differ) makes them fail.

use std::path::Path;

use anyhow::Context;
use clap::Subcommand;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

mod catchup;
mod cluster;
mod fill;
mod growth;
mod klukai;
mod latency;
mod load;
mod marker;
pub(crate) mod mychat;
pub(crate) mod process;
mod relay;
mod report;
mod settings;
pub(crate) mod sheet;
mod storage;
mod text;
mod throughput;
mod timeline;
pub(crate) mod usage;
pub(crate) mod wire;

use report::Report;
pub use settings::{CatchupArgs, GrowthArgs, LatencyArgs, ThroughputArgs};
use settings::{General, System};
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
    /// How a node that was away, or is new, comes to hold what it lacks
    ///
    /// Examples:
    ///   mychat sim bench replication catchup --messages 100000
    ///   mychat sim bench replication catchup --empty --snapshot-above 1000
    #[command(verbatim_doc_comment)]
    Catchup(CatchupArgs),
    /// What a message costs in databases of several sizes
    ///
    /// Examples:
    ///   mychat sim bench replication growth
    ///   mychat sim bench replication growth --sizes 10000,100000 --sites 3
    #[command(verbatim_doc_comment)]
    Growth(GrowthArgs),
}

/// Measures and prints a report.
pub async fn run(command: BenchCommand, progress: &MultiProgress) -> anyhow::Result<()> {
    let BenchCommand::Replication(command) = command;
    match command {
        ReplicationCommand::Latency(args) => {
            let each = async |system: System, bar: ProgressBar| latency::measure(&system, &args, &bar).await;
            let runs = repeat(&args.setup.general, args.setup.systems()?, progress, each).await?;
            finish(&args.setup.general, &Report::new("Replication latency", latency::method(&args), runs))
        }
        ReplicationCommand::Throughput(args) => {
            let each =
                async |system: System, bar: ProgressBar| throughput::measure(&system, &args, &bar).await;
            let runs = repeat(&args.setup.general, args.setup.systems()?, progress, each).await?;
            finish(
                &args.setup.general,
                &Report::new("Replication throughput", throughput::method(&args), runs),
            )
        }
        ReplicationCommand::Catchup(args) => {
            catchup::check(&args).await?;
            let each = async |system: System, bar: ProgressBar| catchup::measure(&system, &args, &bar).await;
            let runs = repeat(&args.setup.general, args.setup.systems()?, progress, each).await?;
            finish(&args.setup.general, &Report::new("Replication catch-up", catchup::method(&args), runs))
        }
        ReplicationCommand::Growth(args) => {
            let each = async |_: System, bar: ProgressBar| growth::measure(&args, &bar).await;
            let runs = repeat(&args.general, vec![System::MyChat], progress, each).await?;
            finish(&args.general, &Report::new("Replication growth", growth::method(&args), runs))
        }
    }
}

/// Runs a benchmark as often as asked, the systems by turns, so that what changes on the machine meets all of them.
async fn repeat(
    general: &General,
    systems: Vec<System>,
    progress: &MultiProgress,
    each: impl AsyncFn(System, ProgressBar) -> anyhow::Result<Sheet>,
) -> anyhow::Result<Vec<(String, Vec<Sheet>)>> {
    let mut runs: Vec<(String, Vec<Sheet>)> =
        systems.iter().map(|system| (system.to_string(), Vec::new())).collect();
    for run in 1..=general.runs {
        for (system, (_, sheets)) in systems.iter().zip(&mut runs) {
            let bar = bar(progress, format!("{system}, run {run} of {}", general.runs));
            let sheet =
                each(system.clone(), bar.clone()).await.with_context(|| format!("{system}, run {run}"))?;
            bar.finish_and_clear();
            sheets.push(sheet);
        }
    }
    Ok(runs)
}

fn finish(general: &General, report: &Report) -> anyhow::Result<()> {
    print!("{report}");
    match &general.json {
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

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        command: BenchCommand,
    }

    fn parse(line: &str) -> Result<ReplicationCommand, clap::Error> {
        let words = ["bench", "replication"].into_iter().chain(line.split(' '));
        let BenchCommand::Replication(command) = Program::try_parse_from(words)?.command;
        Ok(command)
    }

    #[test]
    fn flags_are_read() {
        Program::command().debug_assert();
        match parse("latency --rate 100 --delay-ms 40 --peer klukai --klukai x --peer-rate 10 --runs 3")
            .unwrap()
        {
            ReplicationCommand::Latency(args) => {
                let rates = [System::MyChat, System::Klukai("x".into())].map(|system| args.rate_of(&system));
                assert_eq!((rates, args.delay_ms, args.setup.general.runs), ([100, 10], Some(40), 3));
            }
            other => panic!("{other:?}"),
        }
        match parse("growth --sizes 10,20").unwrap() {
            ReplicationCommand::Growth(args) => assert_eq!((args.sizes, args.sites), (vec![10, 20], 30)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bad_flags_are_refused_by_name() {
        for (line, name) in [
            ("latency --rate 0", "--rate"),
            ("latency --peer klukai", "--klukai"),
            ("latency --peer-rate 10", "--peer"),
            ("throughput --writers 0", "--writers"),
            ("throughput --body-bytes 5", "--body-bytes"),
            ("catchup --per-version 0", "--per-version"),
            ("growth --sites 1", "--sites"),
        ] {
            assert!(parse(line).unwrap_err().to_string().contains(name), "{line}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        match parse("throughput --peer klukai --klukai /nowhere/corrosion").unwrap() {
            ReplicationCommand::Throughput(args) => {
                assert!(args.setup.systems().unwrap_err().to_string().contains("/nowhere/corrosion"));
            }
            other => panic!("{other:?}"),
        }
    }
}
