//! Faults on real processes: three `mychat node`s are killed, cut off from each other, frozen, starved of disk, thrown
//! back in time, while clients write; and then it is checked that nothing is lost, nothing is there twice, and all
//! nodes hold the same.
//!
//! ```text
//!  load ──posts──▶ three nodes, UDP relays between them ──events──▶ readers with cursors
//!    │                 ▲ kill, freeze, cut, lose, fill, restore        │
//!    ▼                 │                                               ▼
//!  ledger          scenarios (by a seed)                              seen
//!    └───────────────────────────▶ judge ◀─────────────────────────────┘
//!                                    │ also reads vectors and histories of all nodes
//!                                    ▼
//!                                 report
//! ```
//!
//! Each scenario has a fresh cluster (`stage`) of processes of this very program (`cluster`, `node`), in a
//! temporary folder. `net` is the network that can be cut. The `load` notes each message in the `ledger` with
//! what the nodes answered; a message that a node does not take is offered to the next under the same client id. The
//! `reader`s follow the events as clients do. `scenarios` disturbs and mends, round after round; then `judge`
//! compares. It knows the nodes by their public API only.
//!
//! Decisions come from a seed, which the report names. The times at which processes do things do not, so a seed brings
//! back the sequence of faults and not what came of it.

mod args;
mod client;
mod clock;
mod cluster;
mod disk;
mod figures;
mod history;
mod judge;
mod ledger;
mod load;
mod net;
mod node;
mod ports;
mod reader;
mod report;
mod scenarios;
mod stage;
mod storm;

use std::time::Instant;

use anyhow::bail;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rand::{SeedableRng, rngs::StdRng};

use args::Options;
pub use args::{ChaosArgs, Scenario};
use report::{Report, Row};
use stage::Stage;

/// Runs the scenarios and prints the report. Fails when anything is wrong.
///
/// # Errors
/// Names the scenarios in which something is wrong.
pub async fn run(args: ChaosArgs) -> anyhow::Result<()> {
    let (scenarios, options) = args.into_parts();
    eprintln!("seed {}", options.seed);
    let bars = MultiProgress::new();
    let report = tokio::select! {
        report = run_all(&scenarios, &options, &bars) => report,
        // The nodes go with what is dropped here.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    println!("{report}");
    match report.failed() {
        failed if failed.is_empty() => Ok(()),
        failed => bail!("something is wrong after {}", failed.join(", ")),
    }
}

async fn run_all(scenarios: &[Scenario], options: &Options, bars: &MultiProgress) -> Report {
    let mut rows = Vec::new();
    for scenario in scenarios {
        let bar = bars.add(ProgressBar::new(u64::from(options.rounds(*scenario))));
        let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {pos}/{len} {msg} [{elapsed}]");
        // The template is a constant and well formed.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(scenario.name());
        rows.push(run_one(*scenario, options, &bar).await);
        bar.finish();
    }
    Report { seed: options.seed, rows }
}

async fn run_one(scenario: Scenario, options: &Options, bar: &ProgressBar) -> Row {
    // Each scenario has decisions of its own, whichever others are run.
    let chance = StdRng::seed_from_u64(options.seed.wrapping_add(scenario as u64));
    let mut stage = match Stage::set(scenario, options, chance, bar.clone()).await {
        Ok(stage) => stage,
        Err(error) => return Row::failed(scenario.name(), format!("{error:#}")),
    };
    for round in 0..options.rounds(scenario) {
        if let Err(error) = stage.round(scenario, options, round).await {
            stage.wrong.push(format!("round {}: {error:#}", round + 1));
            break;
        }
        bar.inc(1);
    }
    // Whatever the last round left behind.
    stage.cluster.net.mend();
    if let Err(error) = stage.heal(Instant::now()).await {
        stage.wrong.push(format!("at the end: {error:#}"));
    }
    bar.set_message("judging");
    stage.load.stop().await;
    let verdict = judge::judge(&mut stage).await;
    stage.notes.extend(figures::medians(&stage.stalls));
    let twins: u64 = stage.readers.iter().map(|reader| reader.seen().twins).sum();
    if twins > 0 {
        stage
            .notes
            .push(format!("{twins} times a reader got a message from two nodes that took it, under two ids"));
    }
    let folder = if options.keep { stage.keep() } else { None };
    Row {
        scenario: scenario.name(),
        rounds: bar.position(),
        counts: stage.ledger.counts(),
        verdict,
        heals: std::mem::take(&mut stage.heals),
        notes: std::mem::take(&mut stage.notes),
        folder,
    }
}
