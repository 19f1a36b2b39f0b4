//! What a plan found.

use std::fmt;

use serde::Serialize;

use super::Slo;
use crate::latency::LatencyReport;
use crate::latency::report::table;
use crate::population::City;

/// The answer and what it rests on. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// The answer in a sentence.
    pub answer: String,
    /// What was asked for.
    pub slo: Slo,
    /// How many regions are enough; none when no number that was tried is.
    pub meets: Option<usize>,
    /// The best set of 1, 2, … regions.
    pub steps: Vec<Step>,
    /// The percentile that light in fibre along great circles would have, without any last mile.
    pub floor_ms: f64,
    /// The same with the last miles: what no number of regions can beat.
    pub floor_with_last_mile_ms: f64,
    /// What the nodes were taken to need of a delivery.
    pub own_ms: f64,
    /// What the ways between regions are from.
    pub backbone: String,
    /// Everybody.
    pub cities: Vec<City>,
    /// What real nodes showed.
    pub check: Option<Check>,
}

/// The best set of one size.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Where nodes are.
    pub regions: Vec<String>,
    /// What the percentile comes to.
    pub ms: f64,
    /// Whether no other set of this size is better; otherwise the set is an approximation (greedy, then swaps).
    pub exact: bool,
    /// Where each city goes.
    pub homes: Vec<String>,
}

/// The answer run on real nodes.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// The percentile by the model.
    pub modelled_ms: f64,
    /// As measured.
    pub measured_ms: f64,
    /// How much more was measured than modelled, in percent.
    pub differs_percent: f64,
    /// Messages.
    pub messages: usize,
    /// What of the deliveries was MyChat and the machine, in the median.
    pub own_ms: f64,
}

impl PlanReport {
    pub(super) fn new(
        slo: Slo,
        backbone: String,
        own_ms: f64,
        cities: Vec<City>,
        steps: Vec<Step>,
        floor_ms: f64,
        floor_with_last_mile_ms: f64,
    ) -> Self {
        let meets = steps.iter().position(|step| step.ms <= slo.ms).map(|place| place + 1);
        let mut report = Self {
            answer: String::new(),
            slo,
            meets,
            steps,
            floor_ms,
            floor_with_last_mile_ms,
            own_ms,
            backbone,
            cities,
            check: None,
        };
        report.answer = report.tell();
        report
    }

    /// The set that is the answer, or else the best one: the smallest that meets the objective, or that with the
    /// lowest time.
    pub fn chosen(&self) -> Option<&Step> {
        match self.meets {
            Some(number) => self.steps.get(number - 1),
            None => self.steps.iter().min_by(|a, b| a.ms.total_cmp(&b.ms)),
        }
    }

    pub(super) fn checked_by(&mut self, run: &LatencyReport) {
        let Some(modelled_ms) = self.chosen().map(|step| step.ms) else { return };
        let measured_ms = run.delivery.at(self.slo.share());
        self.check = Some(Check {
            modelled_ms,
            measured_ms,
            differs_percent: (measured_ms / modelled_ms - 1.0) * 100.0,
            messages: run.messages,
            own_ms: run.own_share.p50,
        });
        self.answer = self.tell();
    }

    fn tell(&self) -> String {
        let Slo { percentile, ms } = self.slo;
        let Some(chosen) = self.chosen() else { return "There is no region to choose.".to_owned() };
        let names = chosen.regions.join(", ");
        let mut text = match self.meets {
            Some(1) => format!("One region is enough for p{percentile} within {ms} ms: {names} ({:.0} ms)", chosen.ms),
            Some(number) => {
                format!("{number} regions are needed for p{percentile} within {ms} ms: {names} ({:.0} ms)", chosen.ms)
            }
            None => {
                let exact = self.steps.iter().all(|step| step.exact);
                let least = if exact { "No" } else { "As far as was found no" };
                format!(
                    "{least} set of up to {} regions meets p{percentile} within {ms} ms; the best is {names} with {:.0} ms",
                    self.steps.len(),
                    chosen.ms
                )
            }
        };
        if let (Some(one), true) = (self.steps.first(), chosen.regions.len() > 1) {
            text.push_str(&format!("; one region alone ({}) gives {:.0} ms", one.regions.join(", "), one.ms));
        }
        text.push_str(&format!(
            ". Light in fibre and the last mile alone need {:.0} ms.",
            self.floor_with_last_mile_ms
        ));
        if let Some(check) = &self.check {
            text.push_str(&format!(" Real nodes there showed {:.0} ms.", check.measured_ms));
        }
        text
    }

    /// The rows of the curve.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let row = |step: &Step| {
            vec![
                step.regions.len().to_string(),
                step.regions.join(", "),
                if step.ms <= self.slo.ms { "yes" } else { "no" }.to_owned(),
                if step.exact { "exact" } else { "approximate" }.to_owned(),
                format!("{:.1}", step.ms),
            ]
        };
        self.steps.iter().map(row).collect()
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = format!("p{} ms", self.slo.percentile);
        writeln!(f, "{}\n", self.answer)?;
        let heading = ["regions", "best set", "met", "search", p.as_str()];
        writeln!(f, "{}\n", table(&heading, 4, self.rows()))?;
        if let Some(check) = &self.check {
            writeln!(
                f,
                "Checked with {} messages over real nodes: {:.1} ms, modelled {:.1} ms ({:+.1} %); MyChat's own share \
                 was {:.1} ms, modelled {:.1} ms.",
                check.messages,
                check.measured_ms,
                check.modelled_ms,
                check.differs_percent,
                check.own_ms,
                self.own_ms
            )?;
        }
        writeln!(f, "Send to delivery over all pairs of people by weight. Ways between regions: {}.", self.backbone)
    }
}
