//! What was found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::figures::Times;

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Spread {
    count: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl From<&Times> for Spread {
    fn from(times: &Times) -> Self {
        let at = |part| times.value_at_quantile(part) as f64 / 1000.0;
        Self {
            count: times.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: times.max() as f64 / 1000.0,
        }
    }
}

/// What the servers used while messages were posted and delivered.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Server {
    pub(super) pid: u32,
    /// Seconds on processors.
    pub(super) cpu_s: f64,
    /// Memory in user space, in bytes: before the streams, with all of them and nothing to do, and in the end.
    pub(super) resident_before: u64,
    pub(super) resident_idle: u64,
    pub(super) resident_end: u64,
}

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) servers: usize,
    pub(super) streams: u32,
    pub(super) stalled: u32,
    pub(super) spaces: u32,
    pub(super) accounts: usize,
    pub(super) message_bytes: u32,
    /// Seconds until all streams were there.
    pub(super) connected_in_s: f64,
    pub(super) connect_ms: Spread,
    pub(super) posted: u64,
    pub(super) post_failed: u64,
    pub(super) post_repeated: u64,
    /// Messages a second that were accepted.
    pub(super) posted_per_s: f64,
    pub(super) post_ms: Spread,
    pub(super) post_late_ms: Spread,
    pub(super) deliveries: u64,
    pub(super) deliveries_per_s: f64,
    /// From the post of a message to a client.
    pub(super) delivery_ms: Spread,
    pub(super) lost_streams: u64,
    pub(super) failed_connections: u64,
    pub(super) goodbyes: u64,
    pub(super) resets: u64,
    pub(super) refused: BTreeMap<u16, u64>,
    /// From the loss of a stream until the next one.
    pub(super) resumed_ms: Spread,
    /// The same for streams that were closed on purpose.
    pub(super) returned_ms: Spread,
    pub(super) gaps: u64,
    pub(super) clients_with_gaps: u64,
    pub(super) doubles: u64,
    pub(super) server_processes: Vec<Server>,
    /// Of all servers, microseconds on processors for a delivery.
    pub(super) server_cpu_us_per_delivery: Option<f64>,
    /// Of all servers, bytes in user space for a stream.
    pub(super) server_bytes_per_stream: Option<f64>,
    /// Of this program.
    pub(super) client_cpu_s: f64,
}

impl Report {
    /// What must not be.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.gaps > 0 {
            faults.push(format!("{} messages did not come to {} clients", self.gaps, self.clients_with_gaps));
        }
        if self.doubles > 0 {
            faults.push(format!("{} messages came twice", self.doubles));
        }
        if self.resets > 0 {
            faults.push(format!("{} streams could not be resumed", self.resets));
        }
        faults
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} streams ({} stalled) of {} accounts in {} spaces at {} servers; texts of {} bytes",
            self.streams, self.stalled, self.accounts, self.spaces, self.servers, self.message_bytes
        )?;
        let mut times = Table::new();
        times.load_style(UTF8_FULL_CONDENSED).set_header(["ms", "count", "p50", "p90", "p99", "max"]);
        for (name, spread) in [
            ("connect", &self.connect_ms),
            ("post → answer", &self.post_ms),
            ("behind schedule", &self.post_late_ms),
            ("post → event", &self.delivery_ms),
            ("loss → next stream", &self.resumed_ms),
            ("closed → next stream", &self.returned_ms),
        ] {
            if spread.count > 0 {
                let figures = [spread.p50, spread.p90, spread.p99, spread.max].map(|ms| format!("{ms:.1}"));
                let row = [name.to_owned(), spread.count.to_string()].into_iter().chain(figures);
                times.add_row(row);
            }
        }
        let mut counts = Table::new();
        counts.load_style(UTF8_FULL_CONDENSED);
        let mut row = |name: &str, value: String| {
            counts.add_row([name.to_owned(), value]);
        };
        row("all streams there after", format!("{:.2} s", self.connected_in_s));
        row("messages accepted", format!("{} ({:.1}/s)", self.posted, self.posted_per_s));
        row("messages tried again, failed", format!("{}, {}", self.post_repeated, self.post_failed));
        row("deliveries", format!("{} ({:.0}/s)", self.deliveries, self.deliveries_per_s));
        row(
            "streams lost, connections failed",
            format!("{}, {}", self.lost_streams, self.failed_connections),
        );
        row("goodbyes, resets", format!("{}, {}", self.goodbyes, self.resets));
        for (status, count) in &self.refused {
            row("refused", format!("{count} with {status}"));
        }
        row("gaps, doubles", format!("{}, {}", self.gaps, self.doubles));
        for server in &self.server_processes {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let memory = [server.resident_before, server.resident_idle, server.resident_end].map(mib);
            let memory = memory.map(|mib| format!("{mib:.1}")).join(" → ");
            row(&format!("process {}", server.pid), format!("{:.2} s CPU, {memory} MiB", server.cpu_s));
        }
        if let Some(micros) = self.server_cpu_us_per_delivery {
            row("server CPU per delivery", format!("{micros:.2} µs"));
        }
        if let Some(bytes) = self.server_bytes_per_stream {
            row("server memory per idle stream", format!("{bytes:.0} bytes"));
        }
        row("CPU of this program", format!("{:.2} s", self.client_cpu_s));
        for column in times.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for column in counts.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{times}\n{counts}")
    }
}
