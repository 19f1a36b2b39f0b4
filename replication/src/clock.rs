//! The hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! A [`Stamp`] is close to the wall clock, never goes backwards on a node, and is later than every stamp that the
//! node has seen. Stamps order what people did where the databases have no order of their own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bits of a stamp below the millisecond: a counter for what happens within one.
const COUNTER_BITS: u32 = 12;

/// A hybrid time: milliseconds since 1970 in the upper 48 bits (of 60), a counter below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// The largest stamp that there is.
    pub const MAX: Self = Self((1 << 60) - 1);

    /// The first stamp of a millisecond.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self((millis & ((1 << 48) - 1)) << COUNTER_BITS)
    }

    /// A stamp from the number that [`Stamp::to_u64`] gave.
    #[must_use]
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits & Self::MAX.0)
    }

    /// The stamp as one number that sorts like it.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The counter within the millisecond (12 bits).
    #[must_use]
    pub const fn counter(self) -> u16 {
        (self.0 & ((1 << COUNTER_BITS) - 1)) as u16
    }

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.counter())
    }
}

/// How far ahead of this node's wall clock another node's stamp may pull its clock, in milliseconds.
///
/// A node whose clock is wrong by more must not drag the others along; its own rows keep their stamps.
pub const MAX_DRIFT_MILLIS: u64 = 60_000;

/// The clock itself: a state without a source of time, which the caller passes in.
#[derive(Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A clock that goes on after `last`.
    #[must_use]
    pub const fn starting_after(last: Stamp) -> Self {
        Self { last }
    }

    /// The latest stamp that was given out or seen.
    #[must_use]
    pub const fn last(&self) -> Stamp {
        self.last
    }

    /// A stamp for something that happens on this node now; later than all before.
    pub fn tick(&mut self, wall_millis: u64) -> Stamp {
        self.last = Stamp::from_millis(wall_millis).max(self.last.next());
        self.last
    }

    /// A stamp that all those of the next `millis` milliseconds come before, unless very many are given out.
    #[must_use]
    pub const fn ahead(&self, millis: u64) -> Stamp {
        Stamp::from_u64(self.last.0.saturating_add(millis << COUNTER_BITS))
    }

    /// Takes note of a stamp that came from elsewhere, so that what happens here next is later.
    pub fn observe(&mut self, seen: Stamp, wall_millis: u64) {
        if seen.millis() <= wall_millis.saturating_add(MAX_DRIFT_MILLIS) {
            self.last = self.last.max(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stamps_only_grow(walls in prop::collection::vec(0u64..1 << 47, 1..50)) {
            let mut clock = Clock::default();
            let mut last = Stamp::default();
            for wall in walls {
                let stamp = clock.tick(wall);
                prop_assert!(stamp > last);
                prop_assert!(stamp.millis() >= wall);
                last = stamp;
            }
        }

        #[test]
        fn what_follows_a_seen_stamp_is_later(wall in 0u64..1 << 47, ahead in 0..MAX_DRIFT_MILLIS) {
            let mut clock = Clock::default();
            let seen = Stamp::from_millis(wall + ahead);
            clock.observe(seen, wall);
            prop_assert!(clock.tick(wall) > seen);
        }
    }

    #[test]
    fn a_wrong_clock_elsewhere_does_not_drag_this_one() {
        let mut clock = Clock::default();
        clock.observe(Stamp::from_millis(10_000_000), 1_000);
        assert_eq!(clock.tick(1_000).millis(), 1_000);
    }
}
