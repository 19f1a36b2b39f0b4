//! What `mychat sim faults` is asked for.

use std::{ops::Range, path::PathBuf, str::FromStr};

use clap::Args;

/// Which seeds, and how large their worlds are.
#[derive(Debug, Clone, Args)]
pub struct FaultsArgs {
    /// The seeds, from A up to but not including B; a single number for that one alone.
    #[arg(long, default_value = "0..100", value_name = "A..B")]
    pub seeds: Seeds,
    /// Nodes at the start; up to two more join.
    #[arg(long, default_value = "5", value_name = "N", value_parser = clap::value_parser!(u8).range(3..=9))]
    pub nodes: u8,
    /// Virtual minutes during which things go wrong.
    #[arg(long, default_value = "10", value_name = "M", value_parser = clap::value_parser!(u16).range(1..=600))]
    pub minutes: u16,
    /// Of one seed's history only these items, by their numbers: what a failure prints as the shortest that fails too.
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    pub only: Option<Vec<usize>>,
    /// Print what happens.
    #[arg(long)]
    pub verbose: bool,
    /// How long a failing history is shortened.
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    pub shrink: u64,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A range of seeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{text:?} is no number"));
        let range = match text.split_once("..") {
            Some((from, to)) => number(from)?..number(to)?,
            None => {
                let seed = number(text)?;
                seed..seed.saturating_add(1)
            }
        };
        if range.is_empty() { Err(format!("{text} holds no seed")) } else { Ok(Self(range)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_a_number() {
        assert_eq!("0..500".parse(), Ok(Seeds(0..500)));
        assert_eq!("17".parse(), Ok(Seeds(17..18)));
        for bad in ["", "a..b", "5..5", "7..3", "-1"] {
            assert!(bad.parse::<Seeds>().is_err(), "{bad}");
        }
    }
}
