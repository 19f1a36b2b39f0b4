//! Slows down guessing: after some failed sign-ins for one address from one source, further ones have to wait.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures that are allowed within a window.
const MAX_FAILURES: u32 = 10;
/// The length of a window.
const WINDOW: Duration = Duration::from_secs(60);
/// Address and source pairs that are remembered. When there are more, all are forgotten: memory stays bounded, and
/// the queue of the hasher still bounds the rate.
const MAX_ENTRIES: usize = 65_536;

/// Who tries what: the claim of an address, and where the call comes from.
type Attempt = ([u8; 32], Option<IpAddr>);

/// Counts failures.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<Attempt, Window>>);

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    failures: u32,
}

impl Throttle {
    /// Counts an attempt as a failure until it is [forgiven](Throttle::forgive), so that attempts at the same time
    /// count too.
    ///
    /// # Errors
    /// The seconds to wait, when there were too many.
    pub fn attempt(&self, address: [u8; 32], source: Option<IpAddr>) -> Result<(), u32> {
        self.attempt_at((address, source), Instant::now())
    }

    fn attempt_at(&self, attempt: Attempt, now: Instant) -> Result<(), u32> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_ENTRIES && !windows.contains_key(&attempt) {
            windows.retain(|_, window| now.duration_since(window.began) < WINDOW);
            if windows.len() >= MAX_ENTRIES {
                windows.clear();
            }
        }
        let window = windows.entry(attempt).or_insert(Window { began: now, failures: 0 });
        let age = now.duration_since(window.began);
        if age >= WINDOW {
            *window = Window { began: now, failures: 0 };
        } else if window.failures >= MAX_FAILURES {
            return Err(u32::try_from((WINDOW - age).as_secs() + 1).unwrap_or(60));
        }
        window.failures += 1;
        Ok(())
    }

    /// Takes back what [`Throttle::attempt`] counted: it was no failure.
    pub fn forgive(&self, address: [u8; 32], source: Option<IpAddr>) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get_mut(&(address, source)) {
            window.failures = window.failures.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_in_a_window_count_and_per_source() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let (here, there) =
            (([1; 32], Some(IpAddr::from([127, 0, 0, 1]))), ([1; 32], Some(IpAddr::from([127, 0, 0, 2]))));
        for _ in 0..50 {
            assert_eq!(throttle.attempt_at(here, now), Ok(()));
            throttle.forgive(here.0, here.1);
        }
        for _ in 0..MAX_FAILURES {
            assert_eq!(throttle.attempt_at(here, now), Ok(()));
        }
        assert_eq!(throttle.attempt_at(here, now), Err(61));
        assert_eq!(throttle.attempt_at(there, now), Ok(()));
        assert_eq!(throttle.attempt_at(here, now + WINDOW), Ok(()));
    }

    #[test]
    fn the_table_stays_bounded() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for number in 0..=MAX_ENTRIES as u64 {
            let mut address = [0; 32];
            address[..8].copy_from_slice(&number.to_be_bytes());
            assert_eq!(throttle.attempt_at((address, None), now), Ok(()));
        }
        assert!(throttle.0.lock().expect("the table").len() <= MAX_ENTRIES);
    }
}
