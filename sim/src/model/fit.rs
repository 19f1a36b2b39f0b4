//! Fitting the model's constants to round trips, and what the model gets wrong.
//!
//! The sum of the relative errors' sizes is made least, not of their squares: one cable with a strange detour (between
//! Johannesburg and São Paulo it takes four times what the distance suggests) must not bend the model for all others.
//! That is done by least squares again and again, each time with less weight for the pairs that are far off
//! (iteratively reweighted least squares). The detours are held near zero by a small penalty, as some continents have
//! few pairs.

use mychat_router::geo::Region;
use serde::Serialize;

use super::constants::{Constants, Continent, TERMS, terms};
use super::floor_rtt_ms;
use crate::weighted::{Distribution, Sample};

/// Rounds of reweighting; the constants stand still long before.
const ROUNDS: usize = 200;
/// The relative error from which on a pair counts less.
const CLOSE: f64 = 0.01;
/// How strongly detours are pulled to zero.
const PENALTY: f64 = 0.5;

/// A measured round trip.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// One end.
    pub a: &'static Region,
    /// The other.
    pub b: &'static Region,
    /// What was measured, in milliseconds.
    pub rtt_ms: f64,
}

/// Every third pair in the order of the table is held out; the rest is for fitting. The same for everybody.
pub fn split(pairs: &[Pair]) -> (Vec<Pair>, Vec<Pair>) {
    let (held, fitting): (Vec<_>, Vec<_>) = pairs.iter().enumerate().partition(|(at, _)| at % 3 == 0);
    let bare = |part: Vec<(usize, &Pair)>| part.into_iter().map(|(_, pair)| *pair).collect();
    (bare(fitting), bare(held))
}

/// The constants that fit best. `None` when the pairs do not determine them (there are too few).
pub fn fit(pairs: &[Pair]) -> Option<Constants> {
    let rows: Vec<[f64; TERMS]> = pairs
        .iter()
        .map(|pair| {
            let floor = floor_rtt_ms(pair.a.point, pair.b.point);
            // Of relative errors: each row says 1.
            terms(floor, Continent::of(pair.a.point), Continent::of(pair.b.point))
                .map(|term| term / pair.rtt_ms)
        })
        .collect();
    let mut weights = vec![1.0; rows.len()];
    let mut factors = [0.0; TERMS];
    for _ in 0..ROUNDS {
        factors = least_squares(&rows, &weights)?;
        for (weight, row) in weights.iter_mut().zip(&rows) {
            let said: f64 = row.iter().zip(factors).map(|(term, factor)| term * factor).sum();
            *weight = 1.0 / (said - 1.0).abs().max(CLOSE);
        }
    }
    Some(Constants::from_factors(factors))
}

/// The factors for which the weighted squares of `row · factors - 1` and the penalty are least.
fn least_squares(rows: &[[f64; TERMS]], weights: &[f64]) -> Option<[f64; TERMS]> {
    // The normal equations, each with its right side at the end.
    let mut system = [[0.0; TERMS + 1]; TERMS];
    for (row, weight) in rows.iter().zip(weights) {
        for (i, left) in row.iter().enumerate() {
            for (j, right) in row.iter().enumerate() {
                system[i][j] += weight * left * right;
            }
            system[i][TERMS] += weight * left;
        }
    }
    for (at, row) in system.iter_mut().enumerate().skip(2) {
        row[at] += PENALTY;
    }
    solve(system)
}

/// Gauss's elimination with the largest pivot of each column.
fn solve(mut system: [[f64; TERMS + 1]; TERMS]) -> Option<[f64; TERMS]> {
    for column in 0..TERMS {
        let pivot =
            (column..TERMS).max_by(|a, b| system[*a][column].abs().total_cmp(&system[*b][column].abs()))?;
        system.swap(column, pivot);
        let head = system[column];
        if head[column].abs() < 1e-9 {
            return None;
        }
        for row in (0..TERMS).filter(|row| *row != column) {
            let share = system[row][column] / head[column];
            system[row].iter_mut().zip(head).for_each(|(cell, above)| *cell -= share * above);
        }
    }
    Some(std::array::from_fn(|at| system[at][TERMS] / system[at][at]))
}

/// How far a model is off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Errors {
    /// How many pairs.
    pub pairs: usize,
    /// The median of the relative errors, in percent.
    pub median_percent: f64,
    /// Their 95th percentile.
    pub p95_percent: f64,
    /// The median of the errors, in milliseconds.
    pub median_ms: f64,
    /// Their 95th percentile.
    pub p95_ms: f64,
}

impl Errors {
    /// Those of a model on these pairs.
    pub fn of(pairs: &[Pair], modelled: impl Fn(&Pair) -> f64) -> Self {
        let each = |error: &dyn Fn(&Pair) -> f64| -> Distribution {
            pairs.iter().map(|pair| Sample { value: error(pair), weight: 1.0 }).collect()
        };
        let ms = each(&|pair| (modelled(pair) - pair.rtt_ms).abs());
        let percent = each(&|pair| (modelled(pair) / pair.rtt_ms - 1.0).abs() * 100.0);
        Self {
            pairs: pairs.len(),
            median_percent: percent.quantile(0.5),
            p95_percent: percent.quantile(0.95),
            median_ms: ms.quantile(0.5),
            p95_ms: ms.quantile(0.95),
        }
    }
}

#[cfg(test)]
mod tests {
    use mychat_router::geo;

    use super::super::calibrate::published;
    use super::*;

    #[test]
    fn the_programs_constants_are_those_of_the_fit() {
        let (fitting, held) = split(&published());
        assert_eq!((fitting.len(), held.len()), (90, 46));
        let fitted = fit(&fitting).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-4;
        let ours = &Constants::FITTED;
        assert!(
            close(fitted.base_ms, ours.base_ms)
                && close(fitted.inflation, ours.inflation)
                && fitted.detours.iter().zip(ours.detours).all(|(a, b)| close(*a, b)),
            "{fitted:.5?}"
        );
    }

    #[test]
    fn what_was_made_by_the_model_gives_its_constants_back() {
        let truth = Constants { base_ms: 7.0, inflation: 1.5, detours: [0.0; 7] };
        let regions = geo::regions();
        let pairs: Vec<Pair> = regions
            .iter()
            .flat_map(|a| regions.iter().filter(move |b| a.code < b.code).map(move |b| (a, b)))
            .map(|(a, b)| Pair { a, b, rtt_ms: truth.rtt_ms(a.point, b.point) })
            .collect();
        let fitted = fit(&pairs).unwrap();
        assert!((fitted.base_ms - 7.0).abs() < 1e-6 && (fitted.inflation - 1.5).abs() < 1e-6, "{fitted:?}");
        let errors = Errors::of(&pairs, |pair| fitted.rtt_ms(pair.a.point, pair.b.point));
        assert!(errors.p95_percent < 1e-6, "{errors:?}");
        // One strange cable bends nothing.
        let mut bent = pairs;
        bent[40].rtt_ms *= 4.0;
        let fitted = fit(&bent).unwrap();
        assert!((fitted.inflation - 1.5).abs() < 0.02, "{fitted:?}");
        assert_eq!(fit(&bent[..1]), None);
    }
}
