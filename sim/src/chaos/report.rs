//! The report: a line for each scenario, and in words what is wrong.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};

use super::judge::Verdict;
use super::ledger::Counts;

/// How all scenarios went.
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) rows: Vec<Row>,
}

/// How one scenario went.
pub(super) struct Row {
    pub(super) scenario: String,
    /// Rounds that were carried out.
    pub(super) rounds: u64,
    pub(super) counts: Counts,
    pub(super) verdict: Verdict,
    pub(super) heals: Vec<Duration>,
    pub(super) notes: Vec<String>,
    pub(super) folder: Option<PathBuf>,
}

impl Row {
    /// A scenario that could not be set up.
    pub(super) fn failed(scenario: String, why: String) -> Self {
        let verdict = Verdict { wrong: vec![why], ..Verdict::default() };
        let (counts, heals, notes) = Default::default();
        Self { scenario, rounds: 0, counts, verdict, heals, notes, folder: None }
    }
}

impl Report {
    /// The scenarios in which something is wrong.
    pub(super) fn failed(&self) -> Vec<String> {
        let wrong = self.rows.iter().filter(|row| !row.verdict.wrong.is_empty());
        wrong.map(|row| row.scenario.clone()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "scenario",
            "rounds",
            "posted",
            "acknowledged",
            "refused",
            "unanswered",
            "lost",
            "doubled",
            "unseen",
            "seen twice",
            "vectors",
            "hashes",
            "to heal: median",
            "most",
        ]);
        for row in &self.rows {
            let (counts, verdict) = (row.counts, &row.verdict);
            let mut heals = row.heals.clone();
            heals.sort_unstable();
            let shown = |heal: Option<&Duration>| {
                heal.map_or("-".into(), |heal| format!("{:.2} s", heal.as_secs_f64()))
            };
            let same = |equal: bool| if equal { "equal" } else { "DIFFER" }.to_owned();
            let numbers = [
                row.rounds,
                counts.posted,
                counts.acknowledged,
                counts.refused,
                counts.unanswered,
                verdict.lost,
                verdict.doubled,
                verdict.unseen,
                verdict.repeated,
            ];
            let mut cells = vec![row.scenario.clone()];
            cells.extend(numbers.iter().map(u64::to_string));
            match counts.posted {
                0 => cells.extend(["-".to_owned(), "-".to_owned()]),
                _ => cells.extend([same(verdict.vectors_equal), same(verdict.hashes_equal)]),
            }
            cells.extend([shown(heals.get(heals.len() / 2)), shown(heals.last())]);
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        for row in &self.rows {
            for note in &row.notes {
                writeln!(f, "{}: {note}", row.scenario)?;
            }
            for wrong in &row.verdict.wrong {
                writeln!(f, "{} WRONG: {wrong}", row.scenario)?;
            }
            if let Some(folder) = &row.folder {
                writeln!(f, "{}: databases and logs are in {}", row.scenario, folder.display())?;
            }
        }
        match self.failed().is_empty() {
            true => {
                write!(f, "Nothing was lost or doubled, and all nodes hold the same (seed {}).", self.seed)
            }
            false => write!(
                f,
                "The same decisions again: --seed {}; add --keep for a look at the folders.",
                self.seed
            ),
        }
    }
}
