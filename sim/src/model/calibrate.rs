//! `mychat sim calibrate`: the model fitted anew, and what it gets wrong.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use mychat_router::geo;
use serde::Serialize;

use super::fit::{Errors, Pair, fit, split};
use super::{Constants, Continent, MatrixError};

/// The settings of a calibration.
#[derive(Debug, Clone, Args)]
pub struct CalibrateArgs {
    /// Round trips of your own instead of the published ones: a CSV file with the columns a,b,rtt_ms (two regions'
    /// codes and milliseconds).
    #[arg(long, value_name = "FILE.csv")]
    pub rtt: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What a calibration found.
#[derive(Debug, Serialize)]
struct Calibration {
    source: String,
    /// The constants that fit this data best.
    fitted: Constants,
    /// Those of the program.
    program: Constants,
    /// On the pairs that the constants were fitted on.
    fitting: Errors,
    /// On the pairs that were held out.
    held_out: Errors,
    /// The program's constants on all pairs.
    program_on_all: Errors,
    /// The pairs that the model gets most wrong.
    worst: Vec<Wrong>,
}

#[derive(Debug, Serialize)]
struct Wrong {
    a: &'static str,
    b: &'static str,
    rtt_ms: f64,
    modelled_ms: f64,
}

/// How many of the worst pairs are named.
const WORST: usize = 5;

/// Fits and prints.
pub fn run(args: &CalibrateArgs) -> anyhow::Result<()> {
    let (source, pairs) = match &args.rtt {
        None => ("the published round trips between regions".to_owned(), published()),
        Some(file) => {
            let path = file.to_str().context("--rtt: the file's name is not UTF-8")?;
            let given = std::fs::read_to_string(file)
                .map_err(|source| MatrixError::Read { file: file.clone(), source })
                .and_then(|text| text.parse::<super::Matrix>())
                .with_context(|| format!("--rtt {path}"))?;
            (path.to_owned(), given.pairs())
        }
    };
    let calibration = calibrate(source, &pairs)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&calibration)?),
        false => println!("{calibration}"),
    }
    Ok(())
}

/// The published round trips.
pub fn published() -> Vec<Pair> {
    let pair = |(a, b, rtt_ms)| Some(Pair { a: geo::region(a)?, b: geo::region(b)?, rtt_ms });
    geo::published_rtts().filter_map(pair).collect()
}

fn calibrate(source: String, pairs: &[Pair]) -> anyhow::Result<Calibration> {
    let (fitting, held) = split(pairs);
    let Some(fitted) = fit(&fitting).filter(|_| !held.is_empty()) else {
        bail!("{source}: {} pairs of regions are too few to fit the model", pairs.len());
    };
    let by = |constants: &Constants, pair: &Pair| constants.rtt_ms(pair.a.point, pair.b.point);
    let off = |pair: &Pair| (by(&fitted, pair) / pair.rtt_ms - 1.0).abs();
    let mut worst = pairs.to_vec();
    worst.sort_by(|a, b| off(b).total_cmp(&off(a)));
    let wrong = |pair: &Pair| Wrong {
        a: pair.a.code,
        b: pair.b.code,
        rtt_ms: pair.rtt_ms,
        modelled_ms: by(&fitted, pair),
    };
    Ok(Calibration {
        source,
        program: Constants::FITTED,
        fitting: Errors::of(&fitting, |pair| by(&fitted, pair)),
        held_out: Errors::of(&held, |pair| by(&fitted, pair)),
        program_on_all: Errors::of(pairs, |pair| by(&Constants::FITTED, pair)),
        worst: worst.iter().take(WORST).map(wrong).collect(),
        fitted,
    })
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = &self.held_out;
        writeln!(
            f,
            "On pairs that it was not fitted on the model is off by {:.1} % in the median and {:.1} % at p95 \
             ({:.0} and {:.0} ms).\nSource: {}.\n",
            held.median_percent, held.p95_percent, held.median_ms, held.p95_ms, self.source
        )?;
        let mut table = table(&["error of the model", "pairs", "median", "p95", "median ms", "p95 ms"]);
        for (name, errors) in [
            ("fitted on these", &self.fitting),
            ("held out", &self.held_out),
            ("the program's constants, on all", &self.program_on_all),
        ] {
            table.add_row(vec![
                name.to_owned(),
                errors.pairs.to_string(),
                format!("{:.1} %", errors.median_percent),
                format!("{:.1} %", errors.p95_percent),
                format!("{:.1}", errors.median_ms),
                format!("{:.1}", errors.p95_ms),
            ]);
        }
        right_from(&mut table, 1);
        writeln!(f, "{table}\n")?;
        let mut constants = self::table(&["constant", "fitted", "in the program"]);
        let (fitted, program) = (&self.fitted, &self.program);
        let mut row = |name: String, a: f64, b: f64| {
            constants.add_row(vec![name, format!("{a:.4}"), format!("{b:.4}")]);
        };
        row("base, ms".to_owned(), fitted.base_ms, program.base_ms);
        row("inflation".to_owned(), fitted.inflation, program.inflation);
        for (continent, (a, b)) in Continent::ALL.iter().zip(fitted.detours.iter().zip(program.detours)) {
            row(format!("detour, {}", continent.name()), *a, b);
        }
        right_from(&mut constants, 1);
        writeln!(f, "{constants}\n")?;
        writeln!(
            f,
            "Round trip = base + floor × (inflation + mean of both detours between continents); the floor is the \
             great\ncircle there and back at {:.0} km/ms. Most wrong:",
            geo::FIBRE_KM_PER_MS
        )?;
        for wrong in &self.worst {
            writeln!(
                f,
                "  {}-{}: {:.0} ms, modelled {:.0} ms",
                wrong.a, wrong.b, wrong.rtt_ms, wrong.modelled_ms
            )?;
        }
        Ok(())
    }
}

fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(heading.to_vec());
    table
}

fn right_from(table: &mut Table, first: usize) {
    table.column_iter_mut().skip(first).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_holds_on_pairs_that_it_has_not_seen() {
        let calibration = calibrate("test".to_owned(), &published()).unwrap();
        let held = calibration.held_out;
        assert!(held.median_percent < 12.0 && held.p95_percent < 30.0, "{held:?}");
        let text = calibration.to_string();
        assert!(
            text.contains("held out") && text.contains("detour, Africa") && text.contains("gru-jnb"),
            "{text}"
        );
    }

    #[test]
    fn too_few_pairs_are_refused() {
        let error = calibrate("mine".to_owned(), &published()[..1]).unwrap_err().to_string();
        assert!(error.contains("mine: 1 pairs"), "{error}");
    }
}
