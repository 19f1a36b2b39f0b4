//! Round trips between regions that somebody has measured.
//!
//! A file has the columns `a,b,rtt_ms` (two codes of regions and milliseconds; further columns are passed over), with
//! or without that heading. Lines that begin with `#` are comments.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use mychat_router::geo;

use super::fit::Pair;

/// What is taken for the ways between regions; for pairs of which it says nothing, the next in this list.
#[derive(Debug, Clone, Default)]
pub enum Backbone {
    /// What one has measured oneself.
    Measured(Matrix),
    /// The published round trips of the router's map.
    #[default]
    Published,
    /// The model alone.
    Modelled,
}

impl Backbone {
    /// What is known of a pair, in milliseconds.
    pub(super) fn rtt_ms(&self, a: &str, b: &str) -> Option<f64> {
        match self {
            Backbone::Measured(matrix) => matrix.rtt_ms(a, b).or_else(|| published_ms(a, b)),
            Backbone::Published => published_ms(a, b),
            Backbone::Modelled => None,
        }
    }

    /// What it is, for a report.
    pub fn describe(&self) -> String {
        match self {
            Backbone::Measured(matrix) => {
                format!("{} measured round trips of the given file", matrix.0.len())
            }
            Backbone::Published => "published round trips, modelled where there are none".to_owned(),
            Backbone::Modelled => "the latency model alone".to_owned(),
        }
    }
}

/// `published`, `model` or a file.
impl FromStr for Backbone {
    type Err = MatrixError;

    fn from_str(text: &str) -> Result<Self, MatrixError> {
        match text {
            "published" => Ok(Backbone::Published),
            "model" => Ok(Backbone::Modelled),
            file => {
                let read = std::fs::read_to_string(file);
                read.map_err(|source| MatrixError::Read { file: file.into(), source })?
                    .parse()
                    .map(Backbone::Measured)
            }
        }
    }
}

fn published_ms(a: &str, b: &str) -> Option<f64> {
    static PUBLISHED: std::sync::OnceLock<Matrix> = std::sync::OnceLock::new();
    let published =
        PUBLISHED.get_or_init(|| Matrix(geo::published_rtts().map(|(a, b, rtt)| ((a, b), rtt)).collect()));
    published.rtt_ms(a, b)
}

/// Measured round trips.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix(BTreeMap<(&'static str, &'static str), f64>);

/// What is wrong with a file of round trips.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// It can't be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not one of this table.
    #[error("line {line}, column {column}: {problem}")]
    Cell {
        /// Counted from 1.
        line: usize,
        /// The column's name.
        column: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// No pair is in it.
    #[error("there is no pair of regions in it; lines are like fra,iad,88.5")]
    Empty,
}

impl Matrix {
    /// What was measured between two regions.
    pub fn rtt_ms(&self, a: &str, b: &str) -> Option<f64> {
        let pair = if a < b { (a, b) } else { (b, a) };
        self.0.get(&pair).copied()
    }

    /// All that was measured.
    pub fn pairs(&self) -> Vec<Pair> {
        let pair = |((a, b), rtt_ms): (&(&str, &str), &f64)| {
            Some(Pair { a: geo::region(a)?, b: geo::region(b)?, rtt_ms: *rtt_ms })
        };
        self.0.iter().filter_map(pair).collect()
    }
}

impl FromStr for Matrix {
    type Err = MatrixError;

    fn from_str(text: &str) -> Result<Self, MatrixError> {
        let mut pairs = BTreeMap::new();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim_start_matches('\u{feff}').trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let cells: Vec<&str> = content.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
            if cells.len() >= 3 && cells[..3] == ["a", "b", "rtt_ms"] {
                continue;
            }
            let cell = |at: usize, column| {
                let problem = || MatrixError::Cell { line, column, problem: "there is nothing".to_owned() };
                cells.get(at).copied().filter(|cell| !cell.is_empty()).ok_or_else(problem)
            };
            let region = |at, column| {
                let code = cell(at, column)?;
                geo::region(code).map(|region| region.code).ok_or_else(|| {
                    let known: Vec<_> = geo::regions().iter().map(|region| region.code).collect();
                    let problem = format!("no region {code:?}; known are {}", known.join(", "));
                    MatrixError::Cell { line, column, problem }
                })
            };
            let (a, b) = (region(0, "a")?, region(1, "b")?);
            let rtt = cell(2, "rtt_ms")?;
            let refuse = |column, problem| Err(MatrixError::Cell { line, column, problem });
            let Some(rtt_ms) = rtt.parse::<f64>().ok().filter(|rtt| (0.01..=10_000.0).contains(rtt)) else {
                return refuse("rtt_ms", format!("{rtt:?} is not a number from 0.01 to 10000"));
            };
            if a == b {
                return refuse("b", "a region and itself".to_owned());
            }
            if pairs.insert(if a < b { (a, b) } else { (b, a) }, rtt_ms).is_some() {
                return refuse("b", format!("{a} and {b} stand there twice"));
            }
        }
        if pairs.is_empty() { Err(MatrixError::Empty) } else { Ok(Matrix(pairs)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_either_way_round() {
        let matrix: Matrix =
            "# ours\na,b,rtt_ms,source\nIAD,fra,90,ping\nsyd, sin ,\"95.5\"\n".parse().unwrap();
        assert_eq!((matrix.rtt_ms("fra", "iad"), matrix.rtt_ms("syd", "sin")), (Some(90.0), Some(95.5)));
        assert_eq!((matrix.rtt_ms("fra", "syd"), matrix.pairs().len()), (None, 2));
    }

    #[test]
    fn errors_name_the_line_and_the_column() {
        for (text, says) in [
            ("fra,iad,90\nfra,xyz,1", "line 2, column b: no region \"xyz\""),
            ("fra,iad", "line 1, column rtt_ms: there is nothing"),
            ("fra,iad,fast", "line 1, column rtt_ms: \"fast\""),
            ("fra,iad,0", "line 1, column rtt_ms"),
            ("fra,fra,1", "line 1, column b: a region and itself"),
            ("fra,iad,1\niad,fra,2", "line 2, column b: iad and fra stand there twice"),
            ("# nothing", "no pair"),
        ] {
            let error = text.parse::<Matrix>().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!("no/such/file.csv".parse::<Backbone>().unwrap_err().to_string().contains("no/such/file.csv"));
    }
}
