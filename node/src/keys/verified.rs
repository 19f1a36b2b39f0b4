//! Tokens that were verified lately: a signature is checked once, not on each of a client's calls.
//!
//! Checking one takes some 50 µs, as much as writing a message. What is remembered is the hash of the token, so that
//! the memory of a node holds nothing with which one could call. Whether the session still stands is another question
//! (`accounts/standings.rs`).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ring::digest;

/// Tokens in a generation. Two are kept: 1 MiB at the most.
const GENERATION: usize = 4096;

type Hash = [u8; 32];

/// A bounded memory of what tokens turned out to say. When a generation is full the one before it is forgotten; a
/// token in use moves on to the young one.
#[derive(Debug)]
pub struct Verified<T>(Mutex<Generations<T>>);

#[derive(Debug)]
struct Generations<T> {
    young: HashMap<Hash, Until<T>>,
    old: HashMap<Hash, Until<T>>,
}

#[derive(Debug, Clone, Copy)]
struct Until<T> {
    said: T,
    /// Seconds since 1970.
    expires: u64,
}

impl<T> Default for Verified<T> {
    fn default() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

impl<T: Copy> Verified<T> {
    /// What the token says, if it was verified before and has not expired at `now` (seconds since 1970).
    pub fn find(&self, token: &str, now: u64) -> Option<T> {
        let hash = hash(token);
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = generations.young.get(&hash) {
            return (now < found.expires).then_some(found.said);
        }
        let found = generations.old.remove(&hash).filter(|found| now < found.expires)?;
        generations.insert(hash, found);
        Some(found.said)
    }

    /// Remembers what a token says that was just verified.
    pub fn remember(&self, token: &str, said: T, expires: u64) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(hash(token), Until { said, expires });
    }
}

impl<T> Generations<T> {
    fn insert(&mut self, hash: Hash, until: Until<T>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, until);
    }
}

fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_until_it_expires() {
        let verified = Verified::default();
        verified.remember("one", 1, 100);
        assert_eq!(verified.find("one", 99), Some(1));
        assert_eq!(verified.find("one", 100), None);
        assert_eq!(verified.find("two", 0), None);
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let verified = Verified::default();
        verified.remember("in use", 0, 100);
        for number in 0..10 * GENERATION {
            verified.remember(&number.to_string(), number, 100);
            assert_eq!(verified.find("in use", 0), Some(0));
        }
        let generations = verified.0.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
        drop(generations);
        assert_eq!(verified.find("0", 0), None);
    }
}
