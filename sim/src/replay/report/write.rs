//! The report as text for a terminal.

use std::fmt;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};

use super::{PairRow, ReplayReport};

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} lines at {:.1} a second ({:.1} asked): {} accepted, {} of them after a retry; {} refused; {} unanswered",
            self.lines,
            self.rate_reached,
            self.rate_asked,
            self.accepted,
            self.retried,
            self.refused.iter().map(|refusal| refusal.lines).sum::<u64>(),
            self.unanswered,
        )?;
        for refusal in &self.refused {
            writeln!(f, "  refused {}: {}", refusal.lines, refusal.reason)?;
        }
        if let Some(example) = &self.unanswered_example {
            writeln!(f, "  unanswered, for example: {example}")?;
        }
        let skipped = &self.skipped;
        writeln!(
            f,
            "Logs: {} notices and {} malformed lines left out; {} lines had bytes that are not UTF-8",
            skipped.notices, skipped.malformed, skipped.replaced
        )?;
        skipped.malformed_examples.iter().try_for_each(|example| writeln!(f, "  {example}"))?;
        if self.latest_start_ms >= 100.0 {
            writeln!(
                f,
                "Too many lines were unanswered at times: one began {:.0} ms late",
                self.latest_start_ms
            )?;
        }
        writeln!(f, "\nFrom the start of the request to the event, in milliseconds:\n{}", self.pair_table())?;
        if self.disturbed > 0 {
            writeln!(
                f,
                "{} further deliveries met a failover (retried, read elsewhere or as backlog); the longest took {:.0} ms",
                self.disturbed, self.disturbed_max_ms
            )?;
        }
        writeln!(f, "\nFrom the start of the request to its 201, in milliseconds:\n{}", self.sender_table())?;
        writeln!(f, "\nWhat the observers saw:\n{}", self.observer_table())?;
        writeln!(f, "\nWhat the nodes hold:\n{}", self.node_table())?;
        match self.equal {
            true => writeln!(f, "All nodes hold the same messages."),
            false => writeln!(f, "The nodes DIFFER."),
        }
    }
}

impl ReplayReport {
    fn pair_table(&self) -> Table {
        let mut table =
            table(&["from", "to", "deliveries", "p50", "p99", "one way", "overhead p50", "overhead p99"], 2);
        for row in self.pairs.iter().chain(&self.all_pairs) {
            table.add_row(pair_cells(row));
        }
        table
    }

    fn sender_table(&self) -> Table {
        let mut table = table(&["at", "lines", "p50", "p99"], 1);
        for row in &self.senders {
            let (p50, p99) = (ms(row.accept_p50_ms), ms(row.accept_p99_ms));
            table.add_row([row.region.clone(), row.count.to_string(), p50, p99]);
        }
        table
    }

    fn observer_table(&self) -> Table {
        let heading = ["at", "received", "lost", "doubled", "out of order", "reconnects", "resets"];
        let mut table = table(&heading, 1);
        for row in &self.observers {
            let counts = [row.received, row.lost, row.doubled, row.out_of_order, row.reconnects, row.resets];
            table.add_row(std::iter::once(row.region.clone()).chain(counts.map(|count| count.to_string())));
        }
        table
    }

    fn node_table(&self) -> Table {
        let mut table = table(&["node", "address", "messages", "missing", "repeated", "SHA-256"], 2);
        for row in &self.nodes {
            let hash = row.sha256.get(..16).unwrap_or(&row.sha256).to_owned();
            let counts = [row.messages, row.missing, row.repeated].map(|count| count.to_string());
            table.add_row([row.region.clone(), row.url.clone()].into_iter().chain(counts).chain([hash]));
        }
        table
    }
}

fn pair_cells(row: &PairRow) -> [String; 8] {
    let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), ms);
    [
        row.from.clone(),
        row.to.clone(),
        row.count.to_string(),
        ms(row.delivery_p50_ms),
        ms(row.delivery_p99_ms),
        known(row.one_way_ms),
        known(row.overhead_p50_ms),
        known(row.overhead_p99_ms),
    ]
}

fn ms(value: f64) -> String {
    format!("{value:.1}")
}

/// A table whose first columns are words and whose others are numbers.
fn table(heading: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(heading.iter().copied());
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
