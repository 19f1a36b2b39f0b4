//! What a run found, as figures and as text.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::agreement::RealProcesses;
use crate::population::City;
use crate::weighted::Summary;

/// The steps of the curves in the report.
pub const CURVE: usize = 200;

/// How long people's messages take. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct LatencyReport {
    /// The answer in a sentence.
    pub answer: String,
    /// Where the nodes are.
    pub regions: Vec<String>,
    /// What the ways between regions are from.
    pub backbone: String,
    /// Messages that count, those of the first moments left out.
    pub messages: usize,
    /// Messages a second.
    pub rate: f64,
    /// Everybody, and where the router sent them.
    pub people: Vec<Inhabitant>,
    /// From a person's sending to another's (or the own) screen; each pair of people counts by both weights.
    pub delivery: Timing,
    /// From a person's sending to the answer that the message is durable.
    pub acknowledgement: Timing,
    /// What of each delivery is not the way: nodes, databases and this machine.
    pub own_share: Summary,
    /// What of each acknowledgement is not the way.
    pub own_share_of_acknowledgement: Summary,
    /// By the senders' and the readers' regions.
    pub by_region: Vec<RegionPair>,
    /// Acknowledgements by region.
    pub acknowledgement_by_region: Vec<RegionTiming>,
    /// By city.
    pub by_city_pair: Vec<CityPair>,
    /// What the run should come to by the model, with the median of what the nodes took: where the measured figures are
    /// much higher, this machine was too busy.
    pub computed: Computed,
    /// What one server would give the same people, best first; computed from the same model and the own share.
    pub central: Vec<Computed>,
    /// The same people over real processes, if asked for.
    pub real_processes: Option<RealProcesses>,
    /// How late messages left by the schedule at p99: the load of this machine.
    pub late_p99: f64,
}

/// A kind of waiting: what was measured, and what nobody can beat.
#[derive(Debug, Clone, Serialize)]
pub struct Timing {
    /// As measured, with the last mile.
    pub measured: Summary,
    /// Light in fibre along great circles, without any last mile: between the cities for a delivery, from the city to
    /// its node and back for an acknowledgement.
    pub floor: Summary,
    /// What 0, 1/200, …, 1 of the people do not exceed.
    pub curve: Vec<f64>,
    /// The same of the floor.
    pub floor_curve: Vec<f64>,
}

impl Timing {
    /// What this share of the people does not exceed, to the next of the curve's steps.
    pub fn at(&self, share: f64) -> f64 {
        let step = (share * (self.curve.len().saturating_sub(1)) as f64 - 1e-9).ceil() as usize;
        self.curve.get(step).or(self.curve.last()).copied().unwrap_or(0.0)
    }
}

/// People in a city.
#[derive(Debug, Clone, Serialize)]
pub struct Inhabitant {
    /// The city.
    #[serde(flatten)]
    pub city: City,
    /// Where the router sends them.
    pub region: String,
    /// What the router expects.
    pub router_rtt_ms: Option<f64>,
    /// What the model says, last mile included.
    pub rtt_ms: f64,
}

/// Deliveries from people at one region's node to those at another's.
#[derive(Debug, Clone, Serialize)]
pub struct RegionPair {
    /// The senders' node.
    pub from: String,
    /// The readers' node.
    pub to: String,
    /// How long they took.
    pub delivery: Summary,
}

/// Acknowledgements at a region.
#[derive(Debug, Clone, Serialize)]
pub struct RegionTiming {
    /// The node.
    pub region: String,
    /// The share of people that are sent there.
    pub share: f64,
    /// How long answers took.
    pub acknowledgement: Summary,
}

/// Deliveries from one city to another.
#[derive(Debug, Clone, Serialize)]
pub struct CityPair {
    /// The sender's.
    pub from: String,
    /// The reader's.
    pub to: String,
    /// The share of all pairs of people.
    pub share: f64,
    /// How long they took.
    pub delivery: Summary,
    /// Light in fibre.
    pub floor_ms: f64,
}

/// What the ways and the nodes' time in the median come to, without the noise of a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Computed {
    /// Where the server stands, or the nodes.
    pub region: String,
    /// Deliveries.
    pub delivery: Summary,
    /// Acknowledgements.
    pub acknowledgement: Summary,
    /// The curve of the deliveries.
    pub curve: Vec<f64>,
    /// The curve of the acknowledgements.
    pub acknowledgement_curve: Vec<f64>,
}

impl LatencyReport {
    /// The single server in this region.
    pub fn central_in(&self, region: &str) -> Option<&Computed> {
        self.central.iter().find(|central| central.region == region)
    }

    /// The single servers to compare with: those where the nodes are, and the best of all.
    pub fn candidates(&self) -> Vec<&Computed> {
        let best = self.central.first().map(|best| best.region.as_str());
        let wanted = |central: &&Computed| {
            self.regions.contains(&central.region) || Some(central.region.as_str()) == best
        };
        self.central.iter().filter(wanted).collect()
    }
}

/// The noise of a machine at p95, from which on its figures need a warning, in milliseconds.
const NOISE: f64 = 20.0;

impl LatencyReport {
    /// A warning when this machine was too busy for what it had to do.
    pub(crate) fn warning(&self) -> Option<String> {
        let noise = (self.own_share.p95 - self.own_share.p50).max(self.late_p99);
        (noise > NOISE).then(|| {
            format!(
                "This machine was busy, which the measured figures contain: at p95 {:.0} ms of a delivery are not the \
                 way, in the median {:.0} ms. Look at the computed ones, lower the rate or use a quieter machine.",
                self.own_share.p95, self.own_share.p50
            )
        })
    }
}

/// A table with columns of numbers after the first `names`.
pub(crate) fn table<S: Into<String> + Clone>(heading: &[S], names: usize, rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(heading.iter().cloned().map(Into::into).collect::<Vec<String>>());
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    table.column_iter_mut().skip(names).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// The percentiles as cells.
pub(crate) fn cells(summary: &Summary) -> [String; 3] {
    [summary.p50, summary.p95, summary.p99].map(|value| format!("{value:.0}"))
}

impl LatencyReport {
    /// The rows of the comparison: this set of regions, the single servers, and the floor.
    pub(crate) fn comparison(&self) -> Vec<Vec<String>> {
        let row = |name: String, delivery: &Summary, acknowledgement: &Summary| {
            let mut row = vec![name];
            row.extend(cells(delivery));
            row.extend(cells(acknowledgement));
            row
        };
        let (delivery, acknowledgement) = (&self.delivery, &self.acknowledgement);
        let mut rows = vec![row(
            format!("nodes in {} (measured)", self.regions.join(", ")),
            &delivery.measured,
            &acknowledgement.measured,
        )];
        rows.extend(self.real_processes.as_ref().map(|real| {
            row("the same as real processes (measured)".to_owned(), &real.delivery, &real.acknowledgement)
        }));
        let computed = &self.computed;
        let name = format!("nodes in {} (computed)", computed.region);
        rows.push(row(name, &computed.delivery, &computed.acknowledgement));
        rows.extend(self.candidates().into_iter().map(|central| {
            let name = format!("one server in {} (computed)", central.region);
            row(name, &central.delivery, &central.acknowledgement)
        }));
        rows.push(row("light in fibre, no last mile".to_owned(), &delivery.floor, &acknowledgement.floor));
        rows
    }
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.answer)?;
        let heading = ["ms", "delivery p50", "p95", "p99", "acknowledgement p50", "p95", "p99"];
        writeln!(f, "{}\n", table(&heading, 1, self.comparison()))?;
        if let Some(warning) = self.warning() {
            writeln!(f, "{warning}\n")?;
        }
        let rows = self.by_region.iter().map(|pair| {
            let mut row = vec![pair.from.clone(), pair.to.clone()];
            row.extend(cells(&pair.delivery));
            row.push(pair.delivery.samples.to_string());
            row
        });
        let heading = ["sent at", "read at", "p50", "p95", "p99", "deliveries"];
        writeln!(f, "{}\n", table(&heading, 2, rows.collect()))?;
        let rows = self.acknowledgement_by_region.iter().map(|timing| {
            let mut row = vec![timing.region.clone(), format!("{:.0} %", timing.share * 100.0)];
            row.extend(cells(&timing.acknowledgement));
            row
        });
        writeln!(f, "{}\n", table(&["node", "people", "ack p50", "p95", "p99"], 1, rows.collect()))?;
        let share = |summary: &Summary| format!("{:.1} / {:.1} ms", summary.p50, summary.p99);
        writeln!(
            f,
            "{} messages from {} cities at {:.0} a second. Not the way but MyChat and this machine, p50 / p99: {} of a \
             delivery,\n{} of an acknowledgement. Ways between regions: {}.",
            self.messages,
            self.people.len(),
            self.rate,
            share(&self.own_share),
            share(&self.own_share_of_acknowledgement),
            self.backbone
        )?;
        match &self.real_processes {
            Some(real) => writeln!(f, "{}", real.sentence()),
            None => Ok(()),
        }
    }
}
