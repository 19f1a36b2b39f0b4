//! What a benchmark found: how it was done, each run, the medians, and how the systems compare.

use std::fmt;

use serde::Serialize;

use super::sheet::Sheet;

/// Columns of the text.
const WIDTH: usize = 100;

/// The result of a benchmark.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Its name.
    pub(super) benchmark: &'static str,
    /// How it was done, in sentences.
    pub(super) method: Vec<String>,
    /// The systems measured, MyChat first.
    pub(super) systems: Vec<Measured>,
    /// How many times better MyChat is than the other system, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) times_better: Option<Sheet>,
}

/// What was found of one system.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) system: String,
    pub(super) median: Sheet,
    pub(super) runs: Vec<Sheet>,
}

impl Report {
    pub(super) fn new(benchmark: &'static str, method: Vec<String>, runs: Vec<(String, Vec<Sheet>)>) -> Self {
        let measured =
            |(system, runs): (String, Vec<Sheet>)| Measured { system, median: Sheet::median(&runs), runs };
        let systems: Vec<Measured> = runs.into_iter().map(measured).collect();
        let times_better = match &systems[..] {
            [ours, theirs] => Some(ours.median.times_better(&theirs.median)),
            _ => None,
        };
        Self { benchmark, method, systems, times_better }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.benchmark)?;
        lines(&self.method.join(" ")).iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        for measured in &self.systems {
            let runs = match measured.runs.len() {
                1 => "one run".to_owned(),
                count => format!("medians of {count} runs"),
            };
            writeln!(f, "\n{}, {runs}:\n{}", measured.system, measured.median)?;
        }
        if let Some(ratio) = &self.times_better {
            writeln!(f, "\nHow many times better MyChat is:\n{ratio}")?;
        }
        Ok(())
    }
}

/// Breaks a text into lines.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_lost_and_no_line_too_long() {
        let text = format!("{}x {} end", "four ".repeat(60), "y".repeat(2 * WIDTH));
        let lines = lines(&text);
        assert_eq!(lines.join(" "), text);
        assert!(lines.iter().all(|line| line.len() <= WIDTH || !line.contains(' ')));
        assert!(lines.len() > 3);
    }
}
