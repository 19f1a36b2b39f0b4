//! What the store takes from the world around it: the time of day, randomness, and a witness of what was on the disk. A
//! simulation has its own.

use std::path::Path;

use super::witness::{self, Witness};

/// The time of day, randomness, and a witness of the disk.
pub trait Surroundings: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn wall_millis(&self) -> u64;
    /// Bytes that nobody else has: ids are made of them.
    fn random(&self) -> [u8; 16];
    /// Who says whether the disk still has all that was written to the database at `path`.
    fn witness(&self, path: &Path) -> Box<dyn Witness>;
}

/// Those of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct System;

impl Surroundings for System {
    fn wall_millis(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> [u8; 16] {
        rand::random()
    }

    fn witness(&self, path: &Path) -> Box<dyn Witness> {
        witness::beside(path)
    }
}
