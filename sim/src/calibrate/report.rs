//! What a calibration says, as text and as JSON.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use mychat_node::capacity::{OF_MEMORY, OF_PROCESSORS, UNKNOWN_BYTES};
use serde::Serialize;

use super::bounds::{Bounds, Machine, Measured, Use};

/// Uses that the table has a row for: events a minute on each stream, and readers of an event.
const USES: [(f64, f64); 6] =
    [(0.2, 10.0), (2.0, 10.0), (20.0, 10.0), (20.0, 1000.0), (120.0, 10.0), (120.0, 1000.0)];

/// A calm machine delivers faster than this, in milliseconds.
const CALM_MS: f64 = 500.0;

/// What was measured, and what follows.
#[derive(Debug, Clone, Serialize)]
pub struct Calibration {
    machine: Machine,
    measured: Measured,
    /// Something else was busy on the machine, or it is too small for the load: events waited, and left together.
    disturbed: bool,
    /// Bounds by use.
    table: Vec<Row>,
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    #[serde(flatten)]
    usual: Use,
    bounds: Bounds,
    /// The least of them.
    streams: u64,
    bound: &'static str,
}

impl Calibration {
    pub(super) fn new(machine: Machine, measured: Measured) -> Self {
        let row = |(events_per_minute, readers)| {
            let usual = Use { events_per_minute, readers };
            let bounds = Bounds::of(&machine, &measured, usual);
            let (streams, bound) = bounds.least();
            Row { usual, bounds, streams, bound }
        };
        let table = USES.map(row).to_vec();
        let disturbed = measured.broadcast_p99_ms.max(measured.rooms_p99_ms) > CALM_MS;
        Self { machine, measured, disturbed, table }
    }
}

impl Calibration {
    /// What was measured.
    fn found(&self) -> Table {
        let (machine, measured) = (&self.machine, &self.measured);
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let mut found = Table::new();
        found.load_style(UTF8_FULL_CONDENSED).set_header([
            format!("measured with {} streams and {} deliveries", measured.streams, measured.deliveries),
            String::new(),
        ]);
        let memory = match measured.bytes_per_stream {
            Some(bytes) => format!("{bytes:.0} bytes"),
            None => format!("{UNKNOWN_BYTES:.0} bytes assumed: too few streams to tell"),
        };
        for (name, value) in [
            ("a stream, in the node", memory),
            (
                "a stream, in the kernel (a constant)",
                format!("{:.0} bytes", measured.kernel_bytes_per_stream),
            ),
            ("a delivery", format!("{:.2} µs on a processor", measured.cpu_us_per_delivery)),
            (
                "a message that is posted here",
                format!("{:.0} µs on a processor", measured.cpu_us_per_message),
            ),
            (
                "post to event, p99",
                format!(
                    "{:.1} ms broadcast, {:.1} ms in rooms",
                    measured.broadcast_p99_ms, measured.rooms_p99_ms
                ),
            ),
            ("the node's turns came late by", format!("{:.1} ms at worst", measured.loop_late_ms)),
            (
                "this machine",
                format!(
                    "{} processors, {} free, descriptors for {} streams",
                    machine.processors,
                    machine.free_bytes.map_or_else(|| "?".to_owned(), |free| format!("{:.1} GiB", gib(free))),
                    machine.connections
                ),
            ),
        ] {
            found.add_row([name.to_owned(), value]);
        }
        found
    }

    /// What follows from it.
    fn write_formula(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, measured) = (&self.machine, &self.measured);
        let each = measured.bytes_per_stream.unwrap_or(UNKNOWN_BYTES) + measured.kernel_bytes_per_stream;
        writeln!(
            f,
            "A node carries the least of:\n  connections: {} (open files, less 256, less one in 32 for calls)\n  memory:      \
             {OF_MEMORY} × {} ÷ {each:.0} bytes{}\n  processors:  {OF_PROCESSORS} × {} × 1,000,000 µs ÷ (events a second \
             on each stream × ({:.2} + {:.0} ÷ readers of an event) µs)\n",
            machine.connections,
            machine.free_bytes.map_or_else(|| "free bytes".to_owned(), |free| format!("{free} bytes")),
            self.table
                .first()
                .and_then(|row| row.bounds.memory)
                .map_or_else(String::new, |fits| format!(" = {fits:.0}")),
            machine.processors,
            measured.cpu_us_per_delivery,
            measured.cpu_us_per_message
        )
    }

    /// What that is for some uses.
    fn uses(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "events a minute on a stream",
            "readers of an event",
            "streams",
            "ended by",
            "by processors alone",
        ]);
        for row in &self.table {
            table.add_row([
                row.usual.events_per_minute.to_string(),
                row.usual.readers.to_string(),
                row.streams.to_string(),
                row.bound.to_owned(),
                format!("{:.0}", row.bounds.processors),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.found())?;
        if self.disturbed {
            writeln!(
                f,
                "Something else was busy on this machine, or it is too small for the load: events waited, and left together,\n\
                 so a delivery is shown too cheap. Measure again when it is calm, or with fewer --streams.\n"
            )?;
        }
        self.write_formula(f)?;
        writeln!(f, "{}", self.uses())?;
        let (streams, bound) = self.table.get(2).map_or((0, ""), |row| (row.streams, row.bound));
        writeln!(
            f,
            "\nWith 20 events a minute in rooms of 10, {bound} end first, at {streams} streams: {}\nThe processors' bound \
             is a careful one: events that come close together leave in one write, so a busy node\npays less for each. A \
             running node learns its own figures and publishes them (`streams` in /v1/node).",
            advice(bound)
        )
    }
}

/// What to do about the bound.
fn advice(bound: &str) -> &'static str {
    match bound {
        "connections" => "raise the limit of open files (LimitNOFILE of the service, `ulimit -Hn`) for more.",
        "memory" => "more memory carries more.",
        _ => "more processors, or another node, carry more.",
    }
}
