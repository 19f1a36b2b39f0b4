//! Figures in rows and columns, and what becomes of several sheets: medians and ratios.

use std::fmt;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// The columns of a distribution.
pub(super) const PERCENTILES: [&str; 4] = ["p50", "p90", "p99", "max"];

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Better {
    Lower,
    Higher,
    /// Neither: it says how it was measured.
    Neither,
}

/// Some figures of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    /// One for each column.
    pub(super) values: Vec<f64>,
}

/// Figures of one run, or of several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Sheet {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Row>,
}

impl Sheet {
    pub(super) fn new(columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
        values: &[f64],
    ) {
        self.rows.push(Row { name: name.into(), unit, better, values: values.to_vec() });
    }

    /// Adds the distribution of times in nanoseconds, in milliseconds.
    pub(super) fn times(&mut self, name: impl Into<String>, better: Better, nanos: &mut [i64]) {
        let values = [0.5, 0.9, 0.99, 1.0].map(|part| percentile(nanos, part) / 1e6);
        self.row(name, "ms", better, &values);
    }

    /// The median of each figure over several runs, by the names of the first one's rows.
    pub(super) fn median(runs: &[Self]) -> Self {
        let Some(first) = runs.first() else { return Self::new(&[]) };
        let rows = first.rows.iter().map(|row| {
            let values = (0..row.values.len()).map(|column| {
                let found = runs.iter().filter_map(|run| run.find(&row.name)?.values.get(column).copied());
                median(found.collect())
            });
            Row { values: values.collect(), ..row.clone() }
        });
        Self { columns: first.columns.clone(), rows: rows.collect() }
    }

    fn find(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// How many times each figure is better here than there, where both have it.
    pub(super) fn times_better(&self, there: &Self) -> Self {
        let rows = self.rows.iter().filter_map(|row| {
            let other = there.find(&row.name)?;
            let ratios = row.values.iter().zip(&other.values).map(|(here, there)| match row.better {
                Better::Lower => there / here,
                Better::Higher => here / there,
                Better::Neither => f64::NAN,
            });
            let values: Vec<f64> = ratios.collect();
            values.iter().any(|ratio| ratio.is_finite()).then(|| Row { unit: "×", values, ..row.clone() })
        });
        Self { columns: self.columns.clone(), rows: rows.collect() }
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        let heading = [String::new(), String::new()].into_iter();
        let heading = heading.chain(self.columns.iter().cloned());
        table.load_style(UTF8_FULL_CONDENSED).set_header(heading);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            let cells = [row.name.clone(), row.unit.to_owned()].into_iter();
            table.add_row(cells.chain(row.values.iter().map(|value| number(*value))));
        }
        table.fmt(f)
    }
}

/// A number with about three figures that count.
fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        size if size >= 1000.0 => grouped(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The value that this part of all are not above (nearest rank); not a number when there is none.
fn percentile(values: &mut [i64], part: f64) -> f64 {
    values.sort_unstable();
    let rank = (part * values.len() as f64).ceil().max(1.0) as usize;
    values.get(rank - 1).map_or(f64::NAN, |value| *value as f64)
}

/// The middle of some values, or of the two in the middle; not a number when there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count.is_multiple_of(2) => f64::midpoint(values[count / 2 - 1], values[count / 2]),
        count => values[count / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut values: Vec<i64> = (1..=200).rev().collect();
        for (part, expected) in [(0.5, 100.0), (0.9, 180.0), (0.99, 198.0), (1.0, 200.0), (0.0, 1.0)] {
            assert!((percentile(&mut values, part) - expected).abs() < 1e-9, "{part}");
        }
        assert!((percentile(&mut [-7], 0.5) + 7.0).abs() < 1e-9);
        assert!(percentile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn medians_and_ratios_go_by_name() {
        let sheet = |a: f64, b: f64| {
            let mut sheet = Sheet::new(&["value"]);
            sheet.row("time", "ms", Better::Lower, &[a]);
            sheet.row("rate", "1/s", Better::Higher, &[b]);
            sheet
        };
        let here = Sheet::median(&[sheet(1.0, 10.0), sheet(5.0, 30.0), sheet(2.0, 40.0)]);
        assert_eq!(here, sheet(2.0, 30.0));
        assert_eq!(Sheet::median(&[sheet(1.0, 10.0), sheet(2.0, 20.0)]), sheet(1.5, 15.0));
        let mut there = sheet(8.0, 3.0);
        there.rows.reverse();
        let ratio = here.times_better(&there);
        assert_eq!(ratio.rows.iter().map(|row| row.values[0]).collect::<Vec<_>>(), [4.0, 10.0]);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.126, 12.34, 999.6, 1234.5, -1_234_567.0, f64::NAN].map(number);
        assert_eq!(shown, ["0.13", "12.3", "1000", "1,234", "-1,234,567", "-"]);
    }
}
