//! Ports for processes that are killed and started again.
//!
//! A port that the system chooses is free only while somebody is bound to it, so a node that is killed could lose its
//! own to a stranger. These are taken from below the system's range, each with a lock file that every run on this
//! machine respects, and so do the project's tests.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};

use anyhow::{Context, bail};
use rand::{RngExt, rngs::StdRng};

const RANGE: std::ops::Range<u16> = 21_000..22_000;
/// Where the lock files are, in the folder for temporary files.
const LOCKS: &str = "mychat-test-ports";

/// Ports for TCP and UDP on 127.0.0.1; nobody else gets them until this is dropped.
pub(super) struct Ports {
    ports: Vec<u16>,
    _locks: Vec<File>,
}

impl Ports {
    /// Takes some that are free.
    pub(super) fn take(count: usize, chance: &mut StdRng) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(LOCKS);
        fs::create_dir_all(&folder).with_context(|| format!("no lock files in {}", folder.display()))?;
        let (mut ports, mut locks) = (Vec::new(), Vec::new());
        let first = chance.random_range(RANGE);
        for step in 0..RANGE.end - RANGE.start {
            let port = RANGE.start + (first - RANGE.start + step) % (RANGE.end - RANGE.start);
            let lock = File::create(folder.join(port.to_string()))?;
            if lock.try_lock().is_ok() && is_free(port) {
                ports.push(port);
                locks.push(lock);
            }
            if ports.len() == count {
                return Ok(Self { ports, _locks: locks });
            }
        }
        bail!("no {count} ports are free between {} and {}", RANGE.start, RANGE.end);
    }

    /// One of them.
    pub(super) fn nth(&self, at: usize) -> u16 {
        self.ports[at]
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}
