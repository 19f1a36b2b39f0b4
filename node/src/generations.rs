//! A bounded memory of what was lately used, in two generations.
//!
//! When the young one is full the one before it is forgotten; what is used moves on to the young one.

use std::{collections::HashMap, hash::Hash};

/// At most twice as many entries as a generation has.
#[derive(Debug)]
pub struct Generations<K, V> {
    size: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq, V> Generations<K, V> {
    /// With so many entries in a generation.
    pub fn of(size: usize) -> Self {
        Self { size, young: HashMap::new(), old: HashMap::new() }
    }

    /// What is remembered under `key`.
    pub fn find(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// Remembers a value in place of any other under its key.
    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.size {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Forgets all but the keys that are to be kept.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.young.retain(|key, _| keep(key));
        self.old.retain(|key, _| keep(key));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let mut memory = Generations::of(100);
        memory.insert(0, "in use");
        for number in 1..1000 {
            memory.insert(number, "");
            assert_eq!(memory.find(&0), Some(&"in use"));
        }
        assert!(memory.young.len() + memory.old.len() <= 200);
        assert_eq!(memory.find(&1), None);
    }

    #[test]
    fn the_latest_value_counts() {
        let mut memory = Generations::of(2);
        for number in 0..5 {
            memory.insert(7, number);
            memory.insert(100 + number, 0);
            assert_eq!(memory.find(&7), Some(&number));
        }
        memory.retain(|key| *key != 7);
        assert_eq!(memory.find(&7), None);
    }
}
