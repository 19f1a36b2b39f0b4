//! Checkpoints away from the writer: a thread that copies what is in the write-ahead log into the database file.
//!
//! SQLite would do it in the commit that fills the log, and the jobs of that commit would wait for some milliseconds
//! of random writes and an fsync. A passive checkpoint on a connection of its own waits for nobody and holds nobody
//! up. The writer's own threshold stays as a backstop, should this thread not get round to it.
//!
//! As it wakes regularly and holds up nobody, it also takes the store's measures: of the log, the disk and the queue.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{OpenError, health, queue::Queue};
use crate::NodeId;

/// How often the log's size is looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// Pages (of 4 KiB) from which a checkpoint is worth its fsyncs: more often, and they are what commits wait for.
const WORTHWHILE: i64 = 2000;
/// Bytes of a page.
const PAGE: f64 = 4096.0;
/// Passes in a row: while one runs the log grows, and only one that reaches its end lets it start over.
const PASSES: u32 = 4;

/// The running thread; it ends when this is dropped.
pub struct Checkpointer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts checkpointing the database at `path`, which is open.
    pub fn start(path: &Path, node: NodeId, queue: Arc<Queue>) -> Result<Self, OpenError> {
        let mut log = Log { db: Connection::open(path)?, fails: false };
        let (stop, stopped) = channel();
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let node = node.to_string();
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || {
                while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    let gauge = |name: &'static str, value: f64| {
                        metrics::gauge!(name, "node" => node.clone()).set(value);
                    };
                    let (jobs, bytes) = queue.depth();
                    gauge("mychat_store_queue_jobs", jobs as f64);
                    gauge("mychat_store_queue_bytes", bytes as f64);
                    if let Some(free) = health::free(&folder) {
                        gauge("mychat_store_disk_free_bytes", free as f64);
                    }
                    if let Some((pages, copied)) = log.pages() {
                        gauge("mychat_store_log_bytes", pages as f64 * PAGE);
                        if pages - copied >= WORTHWHILE {
                            log.checkpoint();
                        }
                    }
                }
            })
            .map_err(|source| OpenError::File { path: path.to_owned(), source: source.into() })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The write-ahead log.
struct Log {
    db: Connection,
    /// Whether the last checkpoint failed: said once, not four times a second for as long as a disk is full.
    fails: bool,
}

impl Log {
    /// Pages in the log, and how many of them the database file has already.
    fn pages(&self) -> Option<(i64, i64)> {
        self.db.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?))).ok()
    }

    fn checkpoint(&mut self) {
        let started = Instant::now();
        let result = self.passes();
        metrics::histogram!("mychat_store_checkpoint_seconds").record(started.elapsed().as_secs_f64());
        if let Err(error) = &result {
            metrics::counter!("mychat_store_failed_checkpoints_total").increment(1);
            if !self.fails {
                tracing::warn!(%error, "a checkpoint failed; the log grows until one succeeds");
            }
        }
        self.fails = result.is_err();
    }

    fn passes(&self) -> rusqlite::Result<()> {
        for _ in 0..PASSES {
            let (pages, copied): (i64, i64) =
                self.db
                    .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
            if copied >= pages {
                break;
            }
        }
        Ok(())
    }
}
