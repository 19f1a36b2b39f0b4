//! How often typing is passed on: what clients send more often than that is dropped, and nobody misses it.

use std::collections::{HashMap, VecDeque};

use super::core::Now;
use crate::ids::{AccountId, SpaceId};

/// The shortest time between two words on the same person in the same space. Clients send every three seconds; what is
/// on its way now longer, now shorter must not be dropped for it.
const GAP: Now = Now::from_millis(2500);
/// The most people of whom one space hears in that time: nobody reads more names than these.
const TYPISTS: u32 = 10;
/// The most pairs of person and space that are remembered; while there are as many, nothing more is passed on.
const MAX_PAIRS: usize = 1 << 14;

/// Remembers who was passed on lately.
#[derive(Debug, Default)]
pub struct Gate {
    passed: HashMap<(SpaceId, AccountId), Now>,
    spaces: HashMap<SpaceId, u32>,
    /// In the order of time.
    order: VecDeque<(Now, SpaceId, AccountId)>,
}

impl Gate {
    /// Whether to pass it on that somebody types.
    pub fn pass(&mut self, space: SpaceId, account: AccountId, now: Now) -> bool {
        while let Some((at, space, account)) = self.order.front().copied()
            && now.saturating_sub(at) >= GAP
        {
            self.order.pop_front();
            self.passed.remove(&(space, account));
            if let Some(typists) = self.spaces.get_mut(&space) {
                *typists -= 1;
                if *typists == 0 {
                    self.spaces.remove(&space);
                }
            }
        }
        let typists = self.spaces.get(&space).copied().unwrap_or_default();
        if self.order.len() >= MAX_PAIRS || typists >= TYPISTS || self.passed.contains_key(&(space, account))
        {
            return false;
        }
        self.passed.insert((space, account), now);
        *self.spaces.entry(space).or_default() += 1;
        self.order.push_back((now, space, account));
        true
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn space(n: u128) -> SpaceId {
        SpaceId(Uuid::from_u128(n))
    }

    fn account(n: u128) -> AccountId {
        AccountId(Uuid::from_u128(n))
    }

    #[test]
    fn one_person_is_passed_on_once_in_a_while_per_space() {
        let mut gate = Gate::default();
        assert!(gate.pass(space(1), account(1), Now::ZERO));
        assert!(!gate.pass(space(1), account(1), GAP / 2));
        assert!(gate.pass(space(2), account(1), GAP / 2));
        assert!(gate.pass(space(1), account(2), GAP / 2));
        assert!(gate.pass(space(1), account(1), GAP));
        assert!(!gate.pass(space(1), account(2), GAP));
    }

    #[test]
    fn a_space_hears_of_some_typists_and_not_of_all() {
        let mut gate = Gate::default();
        let passed = (0..100).filter(|n| gate.pass(space(1), account(*n), Now::ZERO)).count();
        assert_eq!(passed, TYPISTS as usize);
        assert!(gate.pass(space(1), account(99), GAP));
    }

    #[test]
    fn i7_bounded_and_nothing_is_left_behind() {
        let mut gate = Gate::default();
        let passed =
            (0..2 * MAX_PAIRS as u128).filter(|n| gate.pass(space(*n), account(1), Now::ZERO)).count();
        assert_eq!(passed, MAX_PAIRS);
        assert!(gate.pass(space(0), account(2), GAP));
        assert_eq!((gate.passed.len(), gate.spaces.len(), gate.order.len()), (1, 1, 1));
    }
}
