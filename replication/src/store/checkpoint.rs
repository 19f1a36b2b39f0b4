//! Checkpoints away from the writer: a thread that copies what is in the write-ahead log into the database file.
//!
//! SQLite would do it in the commit that fills the log, and the jobs of that commit would wait for some milliseconds
//! of random writes and an fsync. A passive checkpoint on a connection of its own waits for nobody and holds nobody
//! up. The writer's own threshold stays as a backstop, should this thread not get round to it.

use std::{
    path::Path,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::Connection;

use super::OpenError;

/// How often the log's size is looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// Pages (of 4 KiB) from which a checkpoint is worth its fsyncs: more often, and they are what commits wait for.
const WORTHWHILE: i64 = 2000;
/// Passes in a row: while one runs the log grows, and only one that reaches its end lets it start over.
const PASSES: u32 = 4;

/// The running thread; it ends when this is dropped.
pub struct Checkpointer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts checkpointing the database at `path`, which is open.
    pub fn start(path: &Path) -> Result<Self, OpenError> {
        let db = Connection::open(path)?;
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || {
                while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    if pending(&db).is_some_and(|pages| pages >= WORTHWHILE) {
                        checkpoint(&db);
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

/// Pages in the log that the database file does not have yet.
fn pending(db: &Connection) -> Option<i64> {
    let (pages, copied): (i64, i64) =
        db.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?))).ok()?;
    Some(pages - copied)
}

fn checkpoint(db: &Connection) {
    for _ in 0..PASSES {
        let pass = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        match pass {
            Ok((pages, copied)) if copied < pages => {}
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%error, "a checkpoint did not happen; the next one will");
                return;
            }
        }
    }
}
