//! What a plan found.

use std::fmt;

use serde::Serialize;

use super::{Metric, Slo};
use crate::latency::LatencyReport;
use crate::latency::report::table;
use crate::population::City;

/// What was asked, and of whom.
#[derive(Debug, Clone, Serialize)]
pub struct Question {
    /// The promise.
    pub slo: Slo,
    /// What it is of.
    pub metric: Metric,
    /// What the ways between regions are from.
    pub backbone: String,
    /// What the nodes were taken to need, in milliseconds.
    pub own_ms: f64,
    /// Everybody.
    pub cities: Vec<City>,
    /// What no number of regions can beat, in milliseconds: the last mile, and for a delivery light in fibre between the
    /// cities.
    pub floor_ms: f64,
}

/// The answer and what it rests on. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// The answer in a sentence.
    pub answer: String,
    /// How many regions are enough; none when no number that was tried is.
    pub meets: Option<usize>,
    /// The best set of 1, 2, … regions.
    pub steps: Vec<Step>,
    /// What real nodes showed.
    pub check: Option<Check>,
    /// What was asked.
    #[serde(flatten)]
    pub question: Question,
}

/// The best set of one size.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Where nodes are.
    pub regions: Vec<String>,
    /// What the percentile of the metric comes to.
    pub ms: f64,
    /// The same percentile of send to delivery.
    pub delivery_ms: f64,
    /// The same percentile of send to acknowledgement.
    pub acknowledgement_ms: f64,
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
    /// What of it was MyChat and the machine, in the median.
    pub own_ms: f64,
}

impl PlanReport {
    pub(super) fn new(question: Question, steps: Vec<Step>) -> Self {
        let meets = steps.iter().position(|step| step.ms <= question.slo.ms).map(|place| place + 1);
        let mut report = Self { answer: String::new(), meets, steps, check: None, question };
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
        let (timing, own) = match self.question.metric {
            Metric::Delivery => (&run.delivery, &run.own_share),
            Metric::Acknowledgement => (&run.acknowledgement, &run.own_share_of_acknowledgement),
        };
        let measured_ms = timing.at(self.question.slo.share());
        self.check = Some(Check {
            modelled_ms,
            measured_ms,
            differs_percent: (measured_ms / modelled_ms - 1.0) * 100.0,
            messages: run.messages,
            own_ms: own.p50,
        });
        self.answer = self.tell();
    }

    fn tell(&self) -> String {
        let Question { slo: Slo { percentile, ms }, metric, floor_ms, .. } = &self.question;
        let Some(chosen) = self.chosen() else { return "There is no region to choose.".to_owned() };
        let (names, promise) =
            (chosen.regions.join(", "), format!("p{percentile} of {metric} within {ms} ms"));
        let mut text = match self.meets {
            Some(1) => format!("One region is enough for {promise}: {names} ({:.0} ms)", chosen.ms),
            Some(number) => {
                format!("{number} regions are needed for {promise}: {names} ({:.0} ms)", chosen.ms)
            }
            None => {
                let exact = self.steps.iter().all(|step| step.exact);
                let least = if exact { "No" } else { "As far as was found no" };
                let most = self.steps.len();
                format!(
                    "{least} set of up to {most} regions gives {promise}; the best is {names} with {:.0} ms",
                    chosen.ms
                )
            }
        };
        if let (Some(one), true) = (self.steps.first(), chosen.regions.len() > 1) {
            text.push_str(&format!("; one region alone ({}) gives {:.0} ms", one.regions.join(", "), one.ms));
        }
        text.push_str(&match metric {
            Metric::Delivery => format!(". Light in fibre and the last mile alone need {floor_ms:.0} ms."),
            Metric::Acknowledgement => format!(". The last mile alone needs {floor_ms:.0} ms."),
        });
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
                if step.ms <= self.question.slo.ms { "yes" } else { "no" }.to_owned(),
                if step.exact { "exact" } else { "approximate" }.to_owned(),
                format!("{:.1}", step.delivery_ms),
                format!("{:.1}", step.acknowledgement_ms),
            ]
        };
        self.steps.iter().map(row).collect()
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self.question.slo.percentile;
        let (delivery, acknowledgement) = (format!("delivery p{p}"), format!("acknowledgement p{p}"));
        writeln!(f, "{}\n", self.answer)?;
        let heading = ["regions", "best set", "met", "search", &delivery, &acknowledgement];
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
                self.question.own_ms
            )?;
        }
        writeln!(
            f,
            "Milliseconds; delivery over all pairs of people, acknowledgement over all people, by weight. Ways between \
             regions: {}.",
            self.question.backbone
        )
    }
}
