//! How long to wait before the next attempt.

use std::time::Duration;

/// The first pause.
const SHORTEST: Duration = Duration::from_millis(100);
/// The pause that doubling stops at.
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double from 100 ms to 5 s. Each is cut by up to half at random, so that members that lost
/// the same peer at the same time do not come back at the same time.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed: how long to wait before the next.
    pub(crate) fn pause(&mut self) -> Duration {
        let full = SHORTEST.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Whether the last attempt was the first to fail.
    pub(crate) fn is_first(&self) -> bool {
        self.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::default();
        let mut full = SHORTEST;
        for _ in 0..40 {
            let pause = backoff.pause();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            full = (full * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.pause() <= SHORTEST);
        assert!(backoff.is_first());
    }
}
