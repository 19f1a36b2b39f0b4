//! Ports for servers that are stopped and started again.
//!
//! A port that the system chooses is free only while somebody is bound to it: after a kill, another test or an
//! outgoing connection could get it. So ports are taken from below the system's own range, each with a lock file that
//! every test process respects.

use std::{
    fs::{self, File},
    net::{TcpListener, UdpSocket},
};

/// Below what systems give to outgoing connections, and above what the program takes for servers that it starts by
/// itself (`mychat sim`), which knows nothing of the locks.
const RANGE: std::ops::Range<u16> = 22_000..32_000;

/// Consecutive ports, for TCP and UDP, on 127.0.0.1; nobody else gets them until this is dropped.
pub struct Ports {
    first: u16,
    count: u16,
    _locks: Vec<File>,
}

impl Ports {
    /// Takes some that are free.
    pub fn take(count: u16) -> Self {
        let folder = std::env::temp_dir().join("mychat-test-ports");
        fs::create_dir_all(&folder).expect("a folder for the locks");
        for _ in 0..10_000 {
            let first = rand::random_range(RANGE.start..RANGE.end - count);
            let locks: Option<Vec<File>> = (first..first + count)
                .map(|port| {
                    let lock = File::create(folder.join(port.to_string())).expect("a lock file");
                    (lock.try_lock().is_ok() && is_free(port)).then_some(lock)
                })
                .collect();
            if let Some(locks) = locks {
                return Self { first, count, _locks: locks };
            }
        }
        panic!("no {count} ports in a row are free");
    }

    /// One of them.
    pub fn nth(&self, at: usize) -> u16 {
        let at = u16::try_from(at).expect("a small number");
        assert!(at < self.count, "only {} ports were taken", self.count);
        self.first + at
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}
