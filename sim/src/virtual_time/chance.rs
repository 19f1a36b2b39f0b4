//! Randomness from a seed, the same on every machine.

use rand::{Rng, RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use super::Time;

/// What decides by chance.
#[derive(Debug, Clone)]
pub struct Chance(Xoshiro256PlusPlus);

impl Chance {
    /// The chance of one matter of a seed: each has its own, so that one that is asked more often changes no other.
    #[must_use]
    pub fn of(seed: u64, matter: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed ^ matter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number from 0 up to, but not including, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// An index of something with `len` parts.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Puts things into any order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (1..things.len()).rev() {
            things.swap(end, self.index(end + 1));
        }
    }

    /// Whether something of the probability `chance` happens.
    pub fn happens(&mut self, chance: f64) -> bool {
        // A comparison of integers: the same on every machine.
        self.below(1_000_000) < (chance * 1e6) as u64
    }

    /// A time up to `most`.
    pub fn upto(&mut self, most: Time) -> Time {
        Time::from_micros(self.below(most.as_micros() as u64 + 1))
    }

    /// A time from `least` up to `most`.
    pub fn between(&mut self, least: Time, most: Time) -> Time {
        least + self.upto(most.saturating_sub(least))
    }

    /// A number of any size.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Sixteen bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
