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
            delivery: *delivery,
            acknowledgement: real.acknowledgement.measured,
            own_share: real.own_share,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn real(p50_difference: f64, p99_difference: f64) -> RealProcesses {
        let summary = Summary { samples: 1, p50: 1.0, p95: 2.0, p99: 3.0 };
        let (delivery, acknowledgement, own_share) = (summary, summary, summary);
        RealProcesses { delivery, acknowledgement, own_share, p50_difference, p99_difference }
    }

    #[test]
    fn a_tenth_more_or_less_is_agreement() {
        assert!(real(0.1, -0.1).agree());
        assert!(!real(0.11, 0.0).agree() && !real(0.0, -0.11).agree());
        let said = real(0.031, -0.2).sentence();
        assert!(said.contains("+3.1 %") && said.contains("-20.0 %") && said.contains("too much"), "{said}");
    }
}
