//! The report as a page.

use super::LatencyReport;

pub(super) fn page(report: &LatencyReport) -> String {
    report.to_string()
}
