//! Tokens that were verified lately: a signature is checked once, not on each of a client's calls.
//!
//! Checking one takes some 50 µs, as much as writing a message. What is remembered is the hash of the token, so that
//! the memory of a node holds nothing with which one could call. Whether the session still stands is another question
//! (`accounts/standings.rs`).

use std::sync::{Mutex, PoisonError};

use ring::digest;

use crate::generations::Generations;

/// Tokens in a generation. Two are kept: 1 MiB at the most.
const GENERATION: usize = 4096;

type Hash = [u8; 32];

/// A bounded memory of what tokens turned out to say.
#[derive(Debug)]
pub struct Verified<T>(Mutex<Generations<Hash, Until<T>>>);

#[derive(Debug, Clone, Copy)]
struct Until<T> {
    said: T,
    /// Seconds since 1970.
    expires: u64,
}

impl<T> Default for Verified<T> {
    fn default() -> Self {
        Self(Mutex::new(Generations::of(GENERATION)))
    }
}

impl<T: Copy> Verified<T> {
    /// What the token says, if it was verified before and has not expired at `now` (seconds since 1970).
    pub fn find(&self, token: &str, now: u64) -> Option<T> {
        let hash = hash(token);
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.find(&hash).filter(|found| now < found.expires).map(|found| found.said)
    }

    /// Remembers what a token says that was just verified.
    pub fn remember(&self, token: &str, said: T, expires: u64) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(hash(token), Until { said, expires });
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
}
