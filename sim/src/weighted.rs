//! Samples that count for different numbers of people.

use serde::Serialize;

/// A value and how much it counts for. Both are finite, the weight not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// What was measured.
    pub value: f64,
    /// For how many people it stands.
    pub weight: f64,
}

/// Values in order, for percentiles and their curve.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    samples: Vec<Sample>,
    total: f64,
}

impl FromIterator<Sample> for Distribution {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Self {
        let mut samples: Vec<Sample> = samples.into_iter().filter(|sample| sample.weight > 0.0).collect();
        samples.sort_by(|a, b| a.value.total_cmp(&b.value));
        let total = samples.iter().map(|sample| sample.weight).sum();
        Self { samples, total }
    }
}

impl Distribution {
    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The smallest value that at least this share (0 to 1) of the weight does not exceed; 0 without samples.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut below = 0.0;
        for sample in &self.samples {
            below += sample.weight;
            // The sum is not exact: a share that is reached but for rounding is reached.
            if below >= share * self.total * (1.0 - 1e-12) {
                return sample.value;
            }
        }
        self.samples.last().map_or(0.0, |last| last.value)
    }

    /// The percentiles that reports show.
    pub fn summary(&self) -> Summary {
        Summary {
            samples: self.len(),
            p50: self.quantile(0.50),
            p95: self.quantile(0.95),
            p99: self.quantile(0.99),
        }
    }

    /// The cumulative curve in `points` steps of equal share: what 0, 1/points, …, 1 of the weight do not exceed.
    pub fn curve(&self, points: usize) -> Vec<f64> {
        let mut curve = Vec::with_capacity(points + 1);
        let (mut samples, mut below) = (self.samples.iter().peekable(), 0.0);
        for step in 0..=points {
            let wanted = self.total * step as f64 / points as f64 * (1.0 - 1e-12);
            while let Some(sample) = samples.peek() {
                if below + sample.weight >= wanted {
                    break;
                }
                below += sample.weight;
                samples.next();
            }
            let last = self.samples.last();
            curve.extend(samples.peek().copied().or(last).map(|sample| sample.value));
        }
        curve
    }
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Summary {
    /// How many samples they are of.
    pub samples: usize,
    /// The median.
    pub p50: f64,
    /// What 95 % do not exceed.
    pub p95: f64,
    /// What 99 % do not exceed.
    pub p99: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(samples: &[(f64, f64)]) -> Distribution {
        samples.iter().map(|(value, weight)| Sample { value: *value, weight: *weight }).collect()
    }

    #[test]
    fn weight_moves_the_percentiles() {
        let even = of(&[(3.0, 1.0), (1.0, 1.0), (2.0, 1.0), (4.0, 1.0)]);
        assert_eq!((even.quantile(0.5), even.quantile(0.75), even.quantile(1.0)), (2.0, 3.0, 4.0));
        let heavy = of(&[(1.0, 1.0), (9.0, 99.0), (5.0, 0.0)]);
        assert_eq!((heavy.len(), heavy.quantile(0.01), heavy.quantile(0.5)), (2, 1.0, 9.0));
        assert_eq!(of(&[]).summary(), Summary::default());
        assert!(of(&[]).is_empty() && of(&[]).curve(4).is_empty());
    }

    proptest! {
        #[test]
        fn a_sample_of_weight_n_is_n_samples(values in prop::collection::vec((0.0..1e3, 1..5_u32), 1..40)) {
            let heavy = of(&values.iter().map(|(value, times)| (*value, f64::from(*times))).collect::<Vec<_>>());
            let repeated: Vec<_> =
                values.iter().flat_map(|(value, times)| vec![(*value, 1.0); *times as usize]).collect();
            let repeated = of(&repeated);
            prop_assert_eq!(heavy.curve(20), repeated.curve(20));
            for (step, value) in heavy.curve(20).into_iter().enumerate() {
                prop_assert_eq!(heavy.quantile(step as f64 / 20.0), value);
            }
        }
    }
}
