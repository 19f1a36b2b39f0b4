//! Which messages of its space a client has got: each must come once, and none may be missing in the end.

/// Messages beyond the first missing one that are kept as bits.
const WINDOW: u32 = 64;

/// All up to a number, and some beyond it: messages that are posted at the same time may come in any order.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The first that has not come.
    next: u32,
    /// Bit n: the one n + 1 beyond it has.
    window: u64,
    /// What is further off.
    far: Vec<u32>,
}

impl Seen {
    /// Notes that a message has come; `false` when it had before.
    pub(super) fn take(&mut self, number: u32) -> bool {
        if number == self.next {
            self.advance();
            return true;
        }
        let Some(ahead) = number.checked_sub(self.next) else { return false };
        if ahead <= WINDOW {
            let bit = 1 << (ahead - 1);
            let new = self.window & bit == 0;
            self.window |= bit;
            return new;
        }
        match self.far.binary_search(&number) {
            Ok(_) => false,
            Err(at) => {
                self.far.insert(at, number);
                true
            }
        }
    }

    fn advance(&mut self) {
        loop {
            self.next += 1;
            let came = self.window & 1 == 1;
            self.window >>= 1;
            // The window's last place is now that of a message that may be among the far ones.
            if let Ok(at) = self.far.binary_search(&(self.next + WINDOW)) {
                self.far.remove(at);
                self.window |= 1 << (WINDOW - 1);
            }
            if !came {
                return;
            }
        }
    }

    /// The first messages of `count` that have not come.
    pub(super) fn missing(&self, count: u32) -> impl Iterator<Item = u32> {
        (self.next..count).filter(|number| match number - self.next {
            0 => true,
            ahead if ahead <= WINDOW => self.window & 1 << (ahead - 1) == 0,
            _ => self.far.binary_search(number).is_err(),
        })
    }

    /// Whether all of `count` messages have come.
    pub(super) const fn has_all(&self, count: u32) -> bool {
        self.next >= count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gaps_and_doubles_are_found_in_any_order(numbers in prop::collection::vec(0u32..300, 0..600)) {
            let (mut seen, mut all) = (Seen::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(seen.take(number), all.insert(number), "{}", number);
            }
            let missing: Vec<u32> = (0..300).filter(|number| !all.contains(number)).collect();
            prop_assert_eq!(seen.missing(300).collect::<Vec<_>>(), missing.clone());
            prop_assert_eq!(seen.has_all(300), missing.is_empty());
        }
    }
}
