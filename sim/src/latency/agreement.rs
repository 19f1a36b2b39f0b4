//! Whether two ways of measuring the same thing come to the same: nodes in one process with emulated distances, and
//! whole processes in network namespaces.

use serde::Serialize;

use super::report::LatencyReport;
use crate::weighted::Summary;

/// How far the two may lie apart at p50 and p99.
pub const TOLERANCE: f64 = 0.1;

/// What real processes in network namespaces gave the same people.
#[derive(Debug, Clone, Serialize)]
pub struct RealProcesses {
    /// From sending to the other's screen.
    pub delivery: Summary,
    /// From sending to the answer.
    pub acknowledgement: Summary,
    /// What of a delivery is not the way.
    pub own_share: Summary,
    /// By how much the delivery's p50 is more than in one process, as a share of that.
    pub p50_difference: f64,
    /// The same of p99.
    pub p99_difference: f64,
}

impl RealProcesses {
    /// Compares a run over processes with one of the same people in one process.
    pub fn compare(real: &LatencyReport, emulated: &LatencyReport) -> Self {
        let (delivery, beside) = (&real.delivery.measured, &emulated.delivery.measured);
        Self {
            delivery: delivery.clone(),
            acknowledgement: real.acknowledgement.measured.clone(),
            own_share: real.own_share.clone(),
            p50_difference: delivery.p50 / beside.p50 - 1.0,
            p99_difference: delivery.p99 / beside.p99 - 1.0,
        }
    }

    /// Whether the two agree.
    pub fn agree(&self) -> bool {
        self.p50_difference.abs() <= TOLERANCE && self.p99_difference.abs() <= TOLERANCE
    }

    /// The comparison in a sentence.
    pub fn sentence(&self) -> String {
        format!(
            "Real processes in network namespaces (mychat sim wan) differ by {:+.1} % at the delivery's p50 and {:+.1} % \
             at p99{}; of a delivery {:.1} / {:.1} ms (p50 / p99) were not the way there.",
            self.p50_difference * 100.0,
            self.p99_difference * 100.0,
            if self.agree() { "" } else { ", which is too much" },
            self.own_share.p50,
            self.own_share.p99,
        )
    }
}
