//! `mychat sim probe`: what a person has here and now, with real nodes over the real network.
//!
//! Each node is asked by itself, with plain sockets, so that the steps can be told apart: the name is looked up, a
//! connection made, TLS set up, a call answered (`link`); then a throw-away account posts messages and waits for its
//! own events (`echo`). A router, where one is given, says which node it would choose.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mychat_router::geo::Point;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

mod echo;
mod link;
mod report;
mod target;

pub use report::{Figures, NodeReport, Outcome, ProbeReport, RouterReport, Spread};
pub use target::{InvalidTarget, Target};

use link::{Link, Trust};

/// How often a connection is made, to take the median of its steps.
const CONNECTIONS: usize = 5;

/// The settings of a probe.
#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// The nodes.
    #[arg(value_name = "URL", required = true)]
    pub nodes: Vec<Target>,
    /// A router: which node would it choose?
    #[arg(long, value_name = "URL")]
    pub router: Option<Target>,
    /// Ask the router for these coordinates instead of whatever it makes of the address here.
    #[arg(long, value_name = "LAT,LON", requires = "router", value_parser = parse_point, allow_hyphen_values = true)]
    pub at: Option<Point>,
    /// How many messages are posted to each node.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: u32,
    /// Trust the certificates of this file too (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

fn parse_point(text: &str) -> Result<Point, String> {
    let point = text
        .split_once(',')
        .and_then(|(lat, lon)| Point::new(lat.trim().parse().ok()?, lon.trim().parse().ok()?));
    point.ok_or_else(|| "give degrees of latitude and longitude, such as 52.5,13.4".to_owned())
}

/// Runs `mychat sim probe`. Fails when a node or the router could not be asked.
pub async fn run(args: ProbeArgs) -> anyhow::Result<()> {
    let extra = match &args.ca {
        Some(file) => certificates(file)?,
        None => Vec::new(),
    };
    let report = probe(&args, &Trust::new(extra)?, &MultiProgress::new()).await?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{report}"),
    }
    if report.is_whole() { Ok(()) } else { bail!("not all of them could be asked") }
}

fn certificates(file: &PathBuf) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let wrong = || format!("--ca {}", file.display());
    let read = CertificateDer::pem_file_iter(file).with_context(wrong)?;
    let all = read.collect::<Result<Vec<_>, _>>().with_context(wrong)?;
    if all.is_empty() { bail!("{}: there is no certificate in it", wrong()) } else { Ok(all) }
}

async fn probe(args: &ProbeArgs, trust: &Trust, progress: &MultiProgress) -> anyhow::Result<ProbeReport> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}")?;
    let mut report = ProbeReport { nodes: Vec::new(), router: None };
    for target in &args.nodes {
        let bar = progress.add(ProgressBar::new(args.count.into()).with_style(style.clone()));
        bar.set_message(target.to_string());
        let outcome = match ask(target, trust, args.count as usize, &bar).await {
            Ok(figures) => Outcome::Figures(Box::new(figures)),
            Err(error) => Outcome::Error(format!("{error:#}")),
        };
        bar.finish_and_clear();
        report.nodes.push(NodeReport { url: target.to_string(), outcome });
    }
    if let Some(router) = &args.router {
        let fastest = report.fastest().map(|node| node.url.clone());
        report.router = Some(match choice(router, trust, args.at).await {
            Ok((node, region, why)) => {
                RouterReport { url: router.to_string(), node: Some(node), region: Some(region), why, fastest }
            }
            Err(error) => RouterReport {
                url: router.to_string(),
                node: None,
                region: None,
                why: format!("{error:#}"),
                fastest,
            },
        });
    }
    Ok(report)
}

/// Everything about one node.
async fn ask(target: &Target, trust: &Trust, count: usize, bar: &ProgressBar) -> anyhow::Result<Figures> {
    let (mut steps, mut first_bytes) = (Vec::new(), Vec::new());
    let mut address = String::new();
    let mut first = Link::open(target, trust).await?;
    steps.push(first.steps);
    let node = first.call(Method::GET, "/v1/node", None, None).await?;
    let region = node["region"].as_str().context("/v1/node names no region: is this a node?")?.to_owned();
    for _ in 0..CONNECTIONS {
        let mut link = Link::open(target, trust).await?;
        steps.push(link.steps);
        address = link.address.to_string();
        first_bytes.push(first_byte(&mut link).await?);
    }
    let echoes = echo::echoes(target, trust, count, bar).await?;
    Ok(Figures::new(region, address, &steps, &first_bytes, &echoes))
}

async fn first_byte(link: &mut Link) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let response = link.send(Method::GET, "/livez", None, None).await?;
    let time = begun.elapsed();
    if !response.status().is_success() {
        bail!("GET /livez: {}", response.status());
    }
    Ok(time)
}

/// The node that the router would choose, its region, and why.
async fn choice(
    router: &Target,
    trust: &Trust,
    at: Option<Point>,
) -> anyhow::Result<(String, String, String)> {
    let query = at.map(|at| format!("?lat={}&lon={}", at.lat(), at.lon())).unwrap_or_default();
    let mut link = Link::open(router, trust).await?;
    let route = link.call(Method::GET, &format!("/v1/route{query}"), None, None).await?;
    let first = &route["nodes"][0];
    let text = |name: &str| first[name].as_str().map(str::to_owned).context("the router offers no node");
    let url = text("url")?;
    // In the form that the probed ones have, to compare.
    let url = url.parse::<Target>().map_or(url, |target| target.to_string());
    Ok((url, text("region")?, text("why")?))
}

#[cfg(test)]
mod tests;
