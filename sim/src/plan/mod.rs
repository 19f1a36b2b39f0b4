//! `mychat sim plan`: in which regions nodes are needed, before money is spent.
//!
//! For 1, 2, 3, … regions the best set is searched (`search`); the answer is the smallest set that meets the objective
//! ([`Slo`]): a percentile of send to delivery over all pairs of people by weight, or of send to acknowledgement over all
//! people ([`Metric`]). Then it is checked: the same people
//! talk over real nodes in these regions ([`crate::latency`]), and the report says how well both agree.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mychat_router::geo::{self, Region};

mod page;
mod report;
mod search;
mod slo;

pub use report::{Check, PlanReport, Question, Step};
pub use slo::{InvalidSlo, Metric, Slo};

use crate::latency::{self, Experiment, WorldArgs, parse_region};
use crate::model::{LatencyModel, floor_rtt_ms};
use crate::population::City;
use crate::weighted::{Distribution, Sample};
use search::{EXACT_SETS, Terrain};

/// Messages a second of the check.
const CHECK_RATE: f64 = 30.0;

/// The settings of a plan.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// What is promised: a percentile and a time.
    #[arg(long, value_name = "pN=TIME", default_value = "p95=150ms")]
    pub slo: Slo,
    /// Of what it is promised: send to delivery over all pairs of people, or send to acknowledgement over all people.
    #[arg(long, value_enum, value_name = "METRIC", default_value = "delivery")]
    pub metric: Metric,
    /// Who and where.
    #[command(flatten)]
    pub world: WorldArgs,
    /// The most regions that may be used; the curve goes up to this number.
    #[arg(long, value_name = "K", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=19))]
    pub max_regions: u16,
    /// The regions to choose from, separated by commas [default: all on the map].
    #[arg(long, value_delimiter = ',', value_name = "REGIONS", value_parser = parse_region)]
    pub candidates: Vec<String>,
    /// What the nodes themselves take of a delivery, in milliseconds; latency shows it as MyChat's share.
    #[arg(long, value_name = "MS", default_value_t = 3.0, value_parser = parse_own)]
    pub own: f64,
    /// How long the people talk over real nodes to check the answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 12, value_parser = clap::value_parser!(u64).range(4..=600))]
    pub check_duration: u64,
    /// Do not check the answer.
    #[arg(long)]
    pub no_check: bool,
    /// Write the report as a page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn parse_own(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|ms| (0.0..=1_000.0).contains(ms));
    number.ok_or_else(|| "give milliseconds from 0 to 1000".to_owned())
}

/// Runs `mychat sim plan`. Fails when no set of regions meets the objective.
pub async fn run(args: PlanArgs) -> anyhow::Result<()> {
    let (cities, model, backbone) = args.world.load()?;
    let progress = MultiProgress::new();
    let mut report = search(&args, &cities, &model, backbone.clone(), &progress)?;
    if !args.no_check
        && let Some(regions) = report.chosen().map(|step| step.regions.clone())
    {
        let experiment = Experiment {
            regions,
            cities,
            model,
            backbone,
            rate: CHECK_RATE,
            duration: Duration::from_secs(args.check_duration),
            seed: 1,
        };
        report.checked_by(&latency::measure(&experiment, &progress).await?);
    }
    println!("{report}");
    if let Some(file) = &args.html {
        latency::write(file, &page::page(&report)).await?;
    }
    if let Some(file) = &args.json {
        latency::write(file, &serde_json::to_string_pretty(&report)?).await?;
    }
    if report.meets.is_none() {
        bail!("{} of {} is not met with up to {} regions", args.slo, args.metric, report.steps.len());
    }
    Ok(())
}

/// Searches the best set of each size.
fn search(
    args: &PlanArgs,
    cities: &[City],
    model: &LatencyModel,
    backbone: String,
    progress: &MultiProgress,
) -> anyhow::Result<PlanReport> {
    let candidates = candidates(&args.candidates)?;
    let terrain = Terrain::new(cities, &candidates, model, args.own, (args.metric, args.slo.share()));
    let style = ProgressStyle::with_template("{msg:16} {spinner} {human_pos} sets {elapsed}")?;
    let bar = progress.add(ProgressBar::new_spinner().with_style(style));
    bar.set_message("searching");
    let found = terrain.best_of_each_size(usize::from(args.max_regions), EXACT_SETS, || bar.inc(1));
    bar.finish_and_clear();
    let steps: Vec<Step> = found
        .into_iter()
        .map(|found| {
            let used: Vec<&Region> = found.set.iter().map(|at| candidates[*at]).collect();
            Step {
                regions: used.iter().map(|region| region.code.to_owned()).collect(),
                ms: found.ms,
                delivery_ms: terrain.achieves(Metric::Delivery, &found.set),
                acknowledgement_ms: terrain.achieves(Metric::Acknowledgement, &found.set),
                exact: found.exact,
                homes: homes(cities, &used),
            }
        })
        .collect();
    let question = Question {
        slo: args.slo,
        metric: args.metric,
        backbone,
        own_ms: args.own,
        cities: cities.to_vec(),
        floor_ms: floor(args.metric, cities).quantile(args.slo.share()),
    };
    Ok(PlanReport::new(question, steps))
}

/// What no number of regions can beat: the last mile, and for a delivery light in fibre between the cities.
fn floor(metric: Metric, cities: &[City]) -> Distribution {
    match metric {
        Metric::Delivery => latency::analysis::pairs(cities, |a, b| {
            (floor_rtt_ms(a.point, b.point) + a.last_mile_ms + b.last_mile_ms) / 2.0
        }),
        Metric::Acknowledgement => {
            cities.iter().map(|city| Sample { value: city.last_mile_ms, weight: city.weight }).collect()
        }
    }
}

fn candidates(codes: &[String]) -> anyhow::Result<Vec<&'static Region>> {
    if codes.is_empty() {
        return Ok(geo::regions().iter().collect());
    }
    let mut codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    codes.sort_unstable();
    let given = codes.len();
    codes.dedup();
    ensure!(codes.len() == given, "--candidates: each region once");
    Ok(codes.into_iter().filter_map(geo::region).collect())
}

/// The region that the router sends each city to.
fn homes(cities: &[City], used: &[&Region]) -> Vec<String> {
    let codes: Vec<&str> = used.iter().map(|region| region.code).collect();
    search::homes(cities, used).into_iter().map(|at| codes[at].to_owned()).collect()
}

#[cfg(test)]
mod tests;
