//! `mychat sim latency`: how long the messages of one's own people would take, with real nodes in these regions.
//!
//! ```text
//! cities ─▶ people ─▶ router: which node? ─▶ sign up, join ─▶ schedule ──POST──▶ nodes ═ emulated WAN ═ nodes
//!                                                                                  │ events
//! report (text, page, JSON) ◀─ analysis: last mile, weights, floor, one server ◀───┘
//! ```
//!
//! Nodes, router, QUIC, databases, HTTP and event streams are the real ones, in this process. Emulated are the
//! distances: between the nodes datagrams are held back ([`crate::wan`]), and the way between a person and their node,
//! last mile included, is added to what the clock says (`analysis`). There is one person for each city, everybody
//! talks to everybody, and a pair of cities counts by the product of its weights.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mychat_router::geo;

mod agreement;
pub(crate) mod analysis;
mod client;
mod cluster;
mod conversation;
mod page;
mod person;
#[cfg(target_os = "linux")]
mod processes;
pub(crate) mod report;

pub use agreement::RealProcesses;
pub use report::{CityPair, Computed, Inhabitant, LatencyReport, RegionPair, RegionTiming, Timing};

use crate::model::{Backbone, LatencyModel};
use crate::population::{self, City, LAST_MILE_MS};

/// The beginning that does not count, when connections and caches are still cold.
const WARM_UP: Duration = Duration::from_secs(2);
/// Deliveries that are kept in memory, at most.
const MOST_DELIVERIES: f64 = 20e6;

/// Who the people are and what is between them, for several commands.
#[derive(Debug, Clone, Args)]
pub struct WorldArgs {
    /// The people: a CSV file with the columns city, lat, lon, weight and, if wanted, last_mile_ms (the round trip
    /// between a person there and the backbone). Not with --population.
    #[arg(long, value_name = "FILE.csv", conflicts_with = "population")]
    pub users: Option<PathBuf>,
    /// The people of a table in the program; world has 81 large cities with their populations [default: world].
    #[arg(long, value_name = "NAME", value_parser = ["world"])]
    pub population: Option<String>,
    /// The round trip in milliseconds between a person and the backbone where --users does not say.
    #[arg(long, value_name = "MS", default_value_t = LAST_MILE_MS, value_parser = parse_last_mile)]
    pub last_mile: f64,
    /// Round trips between regions: a CSV file with the columns a,b,rtt_ms that were measured, or published, or model;
    /// pairs that are not in a file are taken from what is published, and those that are not there from the model.
    #[arg(long, value_name = "FILE.csv", default_value = "published")]
    pub rtt: String,
}

impl WorldArgs {
    /// Reads the files.
    pub fn load(&self) -> anyhow::Result<(Vec<City>, LatencyModel, String)> {
        let cities = match &self.users {
            Some(file) => population::read(file, self.last_mile)
                .with_context(|| format!("--users {}", file.display()))?,
            None => population::world(self.last_mile)?,
        };
        let backbone: Backbone = self.rtt.parse().with_context(|| format!("--rtt {}", self.rtt))?;
        let described = backbone.describe();
        Ok((cities, LatencyModel::new(backbone), described))
    }
}

fn parse_last_mile(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|ms| (0.0..=2_000.0).contains(ms));
    number.ok_or_else(|| "give milliseconds from 0 to 2000".to_owned())
}

/// The settings of a run.
#[derive(Debug, Clone, Args)]
pub struct LatencyArgs {
    /// The regions of the nodes, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "fra,iad,syd", value_name = "REGIONS", value_parser = parse_region)]
    pub regions: Vec<String>,
    /// Who and where.
    #[command(flatten)]
    pub world: WorldArgs,
    /// Messages a second over all people.
    #[arg(long, value_name = "N", default_value_t = 30.0, value_parser = parse_rate)]
    pub rate: f64,
    /// How long they talk, in seconds; the first two do not count.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(4..=600))]
    pub duration: u64,
    /// Decides who sends when.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Let the same people talk over real processes too, each region in a network namespace as with mychat sim wan
    /// (needs root, Linux only), and fail if the two differ by more than 10 % at the p50 or p99 of deliveries.
    #[arg(long)]
    pub wan: bool,
    /// Write the report as a page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the report as JSON, with every pair of cities.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A region's code as the map has it.
pub(crate) fn parse_region(text: &str) -> Result<String, String> {
    let known = || geo::regions().iter().map(|region| region.code).collect::<Vec<_>>().join(", ");
    let region = geo::region(text.trim()).ok_or_else(|| format!("known are {}", known()))?;
    Ok(region.code.to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|rate| (0.1..=2_000.0).contains(rate));
    number.ok_or_else(|| "give a number from 0.1 to 2000".to_owned())
}

/// What is run: the settings with their files read.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Where nodes are.
    pub regions: Vec<String>,
    /// Who the people are.
    pub cities: Vec<City>,
    /// How far everything is.
    pub model: LatencyModel,
    /// What the model's ways between regions are from.
    pub backbone: String,
    /// Messages a second.
    pub rate: f64,
    /// How long.
    pub duration: Duration,
    /// Who sends when.
    pub seed: u64,
}

/// Runs `mychat sim latency`.
pub async fn run(args: LatencyArgs) -> anyhow::Result<()> {
    let (cities, model, backbone) = args.world.load()?;
    let experiment = Experiment {
        regions: args.regions,
        cities,
        model,
        backbone,
        rate: args.rate,
        duration: Duration::from_secs(args.duration),
        seed: args.seed,
    };
    let progress = MultiProgress::new();
    let mut report = measure(&experiment, &progress).await?;
    if args.wan {
        let real = measure_processes(&experiment, &progress).await?;
        report.real_processes = Some(RealProcesses::compare(&real, &report));
    }
    println!("{report}");
    if let Some(file) = &args.html {
        write(file, &page::page(&report)).await?;
    }
    if let Some(file) = &args.json {
        write(file, &serde_json::to_string_pretty(&report)?).await?;
    }
    let differs = report.real_processes.is_some_and(|real| !real.agree());
    ensure!(
        !differs,
        "real processes differ by more than 10 % (a machine that is busy with other things can do that)"
    );
    Ok(())
}

/// Writes a report's file.
pub(crate) async fn write(file: &std::path::Path, text: &str) -> anyhow::Result<()> {
    let written = tokio::fs::write(file, text).await;
    written.with_context(|| format!("the report can't be written to {}", file.display()))?;
    println!("Written: {}", file.display());
    Ok(())
}

/// Starts the nodes in this process, lets people talk, and times everything.
pub async fn measure(experiment: &Experiment, progress: &MultiProgress) -> anyhow::Result<LatencyReport> {
    let schedule = schedule(experiment)?;
    let bar = progress.add(bar()?);
    bar.set_message("starting nodes");
    let cluster = cluster::Cluster::start(&experiment.regions, &experiment.model).await?;
    let heard = conversation::hold(&cluster, &experiment.cities, &schedule, &bar).await;
    cluster.stop().await;
    bar.finish_and_clear();
    analyse(experiment, &heard?)
}

/// The same with processes of their own in network namespaces. Needs root.
#[cfg(target_os = "linux")]
pub async fn measure_processes(
    experiment: &Experiment,
    progress: &MultiProgress,
) -> anyhow::Result<LatencyReport> {
    let schedule = schedule(experiment)?;
    let bar = progress.add(bar()?);
    bar.set_message("starting processes");
    let cluster = processes::RealCluster::start(&experiment.regions, &experiment.model).await?;
    let heard = conversation::hold(&cluster, &experiment.cities, &schedule, &bar).await;
    let stopped = cluster.stop().await;
    bar.finish_and_clear();
    let report = analyse(experiment, &heard?)?;
    stopped.map(|()| report)
}

/// The same with processes of their own, which only Linux can do.
#[cfg(not(target_os = "linux"))]
pub async fn measure_processes(_: &Experiment, _: &MultiProgress) -> anyhow::Result<LatencyReport> {
    Err(crate::netns::CannotRunHere::because("needs the network namespaces of Linux").into())
}

/// Who says something when.
fn schedule(experiment: &Experiment) -> anyhow::Result<Vec<conversation::Planned>> {
    let mut regions = experiment.regions.clone();
    regions.sort_unstable();
    regions.dedup();
    ensure!(regions.len() == experiment.regions.len(), "--regions: each region once");
    let (people, rate) = (experiment.cities.len(), experiment.rate);
    let schedule = conversation::schedule(people, rate, experiment.duration, experiment.seed);
    let deliveries = schedule.len() as f64 * people as f64;
    ensure!(
        deliveries <= MOST_DELIVERIES,
        "{deliveries:.0} deliveries are more than the {MOST_DELIVERIES:.0} that are kept: lower --rate or --duration"
    );
    Ok(schedule)
}

fn analyse(experiment: &Experiment, heard: &conversation::Heard) -> anyhow::Result<LatencyReport> {
    let setting = analysis::Setting {
        regions: &experiment.regions,
        cities: &experiment.cities,
        model: &experiment.model,
        backbone: experiment.backbone.clone(),
        rate: experiment.rate,
        warm_up: WARM_UP.min(experiment.duration / 4),
    };
    analysis::analyse(heard, &setting)
}

fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:16} {wide_bar} {pos}/{len} {elapsed}")?;
    Ok(ProgressBar::new(0).with_style(style))
}

#[cfg(test)]
mod tests;
