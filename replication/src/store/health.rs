//! Whether the disk takes writes, and how the node finds out that it does again.
//!
//! A disk that is full, read-only or broken refuses commits; reads go on. That is a state of the store, which the node
//! tells its router, so that nobody new is sent here. As nobody then writes here, the writer tries a small commit
//! itself every [`PROBE`] until one succeeds: no restart is needed, and nobody has to notice.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::watch;

use super::{DiskFault, StoreError};
use crate::NodeId;

/// How often the writer tries whether the disk takes writes again.
pub const PROBE: Duration = Duration::from_secs(1);
/// Bytes that must be free again before a disk that was full counts as well: with less, the next few writes would
/// fill it up, and clients would be sent here and away again.
const ROOM: u64 = 4 << 20;

/// Whether the store takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As far as is known.
    Well,
    /// The last commit was refused.
    Refusing(DiskFault),
}

/// Keeps the [`Health`] by what becomes of commits.
pub struct Monitor {
    folder: PathBuf,
    node: NodeId,
    health: watch::Sender<Health>,
}

impl Monitor {
    pub fn new(database: &Path, node: NodeId) -> Self {
        let monitor = Self {
            folder: database.parent().map_or_else(PathBuf::new, Path::to_path_buf),
            node,
            health: watch::Sender::new(Health::Well),
        };
        monitor.tell();
        monitor
    }

    pub fn watch(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub fn is_well(&self) -> bool {
        *self.health.borrow() == Health::Well
    }

    /// A commit failed.
    pub fn failed(&self, error: &StoreError) {
        let Some(mut fault) = error.disk_fault() else { return };
        // An I/O error on a file system that went read-only does not say so itself.
        if fault == DiskFault::Failing && is_read_only(&self.folder) {
            fault = DiskFault::ReadOnly;
        }
        if self.health.send_replace(Health::Refusing(fault)) == Health::Well {
            tracing::error!(%error, "{fault}: no writes until it takes them again; reads go on");
            self.tell();
        }
    }

    /// A commit succeeded.
    pub fn succeeded(&self) {
        let Health::Refusing(fault) = *self.health.borrow() else { return };
        if fault == DiskFault::Full && free(&self.folder).is_some_and(|free| free < ROOM) {
            return;
        }
        self.health.send_replace(Health::Well);
        tracing::warn!("the disk takes writes again");
        self.tell();
    }

    fn tell(&self) {
        let refusing = if self.is_well() { 0.0 } else { 1.0 };
        metrics::gauge!("mychat_store_disk_refuses", "node" => self.node.to_string()).set(refusing);
    }
}

/// Bytes that this user may still write; `None` where the system does not say.
pub fn free(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder_or_here(folder)).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn is_read_only(folder: &Path) -> bool {
    rustix::fs::statvfs(folder_or_here(folder))
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// The parent of a bare file name is the empty path.
fn folder_or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}
