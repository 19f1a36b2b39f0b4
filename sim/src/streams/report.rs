//! What was found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::{figures::Times, marks::Mark, ramp::Step};

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
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
pub(crate) struct Server {
    pub(crate) pid: u32,
    /// Seconds on processors.
    pub(crate) cpu_s: f64,
    /// Memory in user space, in bytes: before the streams, with all of them and nothing to do, and in the end.
    pub(crate) resident_before: u64,
    pub(crate) resident_idle: u64,
    pub(crate) resident_end: u64,
}

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) servers: usize,
    pub(crate) streams: u32,
    pub(crate) stalled: u32,
    pub(crate) spaces: u32,
    pub(crate) accounts: usize,
    pub(crate) message_bytes: u32,
    /// Bytes of an event as it comes over the wire.
    pub(crate) event_bytes: u64,
    /// Seconds until all streams were there.
    pub(crate) connected_in_s: f64,
    pub(crate) connect_ms: Spread,
    pub(crate) posted: u64,
    pub(crate) post_failed: u64,
    pub(crate) post_repeated: u64,
    /// Messages a second that were accepted.
    pub(crate) posted_per_s: f64,
    pub(crate) post_ms: Spread,
    pub(crate) post_late_ms: Spread,
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_s: f64,
    /// From the post of a message to a client.
    pub(crate) delivery_ms: Spread,
    pub(crate) lost_streams: u64,
    pub(crate) failed_connections: u64,
    pub(crate) goodbyes: u64,
    pub(crate) resets: u64,
    pub(crate) refused: BTreeMap<u16, u64>,
    /// From the loss of a stream until the next one.
    pub(crate) resumed_ms: Spread,
    /// The same for streams that were closed on purpose.
    pub(crate) returned_ms: Spread,
    /// From the moment when a server was killed until each of the streams that it had was there again.
    pub(crate) survived_ms: Spread,
    pub(crate) gaps: u64,
    pub(crate) clients_with_gaps: u64,
    pub(crate) doubles: u64,
    pub(crate) server_processes: Vec<Server>,
    /// Of all servers, microseconds on processors for a delivery; none when one of them was killed with its share.
    pub(crate) server_cpu_us_per_delivery: Option<f64>,
    /// Of all servers, bytes in user space for a stream; none when one of them was killed with its share.
    pub(crate) server_bytes_per_stream: Option<f64>,
    /// Of this program.
    pub(crate) client_cpu_s: f64,
    /// What was seen while it ran (`--marks`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) marks: Vec<Mark>,
    /// The way up (`--until-p99`), and the limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until_p99_ms: Option<f64>,
}

impl Report {
    /// What must not be.
    pub(crate) fn faults(&self) -> Vec<String> {
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

impl Report {
    /// The way up to the most that was within the limit.
    fn write_steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(limit) = self.until_p99_ms else { return Ok(()) };
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "messages/s",
            "posted/s",
            "deliveries/s",
            "p50 ms",
            "p99 ms",
            "settled s",
        ]);
        for step in &self.steps {
            table.add_row([
                format!("{:.0}", step.rate),
                format!("{:.1}", step.posted_per_s),
                format!("{:.0}", step.deliveries_per_s),
                format!("{:.1}", step.p50_ms),
                format!("{:.1}", step.p99_ms),
                format!("{:.2}", step.settled_s),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        match self.steps.iter().rev().find(|step| step.held) {
            Some(best) => writeln!(
                f,
                "the most within p99 ≤ {limit:.0} ms: {:.0} messages/s, {:.0} deliveries/s, p99 {:.1} ms",
                best.posted_per_s, best.deliveries_per_s, best.p99_ms
            ),
            None => {
                writeln!(
                    f,
                    "already the first step was above p99 {limit:.0} ms or behind its schedule: begin with a lower --rate"
                )
            }
        }
    }

    /// How long everything took.
    fn times(&self) -> Table {
        let mut times = Table::new();
        times.load_style(UTF8_FULL_CONDENSED).set_header(["ms", "count", "p50", "p90", "p99", "max"]);
        for (name, spread) in [
            ("connect", &self.connect_ms),
            ("post → answer", &self.post_ms),
            ("behind schedule", &self.post_late_ms),
            ("post → event", &self.delivery_ms),
            ("loss → next stream", &self.resumed_ms),
            ("closed → next stream", &self.returned_ms),
            ("kill → next stream", &self.survived_ms),
        ] {
            if spread.count > 0 {
                let figures = [spread.p50, spread.p90, spread.p99, spread.max].map(|ms| format!("{ms:.1}"));
                let row = [name.to_owned(), spread.count.to_string()].into_iter().chain(figures);
                times.add_row(row);
            }
        }
        for column in times.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        times
    }

    /// How often everything happened, and what it took.
    fn counts(&self) -> Table {
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
        for column in counts.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        counts
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} streams ({} stalled) of {} accounts in {} spaces at {} servers; texts of {} bytes in events of {}",
            self.streams,
            self.stalled,
            self.accounts,
            self.spaces,
            self.servers,
            self.message_bytes,
            self.event_bytes
        )?;
        self.write_steps(f)?;
        writeln!(f, "{}\n{}", self.times(), self.counts())
    }
}
