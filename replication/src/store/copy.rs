//! A copy of the whole database at one moment, made while everything goes on.

use std::path::{Path, PathBuf};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

use super::{Store, StoreError, writer::read_vector};
use crate::log::VersionVector;

/// Pages that are copied between two looks at whether the copy is still wanted.
const PIECE: i32 = 2048;
/// How long the database may be locked before the copy is given up.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// How much of each site's log.
    pub vector: VersionVector,
    /// The migrations that it went through.
    pub migrations: Vec<(String, u32)>,
}

impl Store {
    /// Copies the database to a new file, as it is at the beginning. Neither the writer nor readers wait for it; the
    /// write-ahead log grows while it lasts. `progress` hears of the share that is done, and says whether to go on.
    ///
    /// # Errors
    /// A [`StoreError`] when a file can't be read or written, [`StoreError::Closed`] when it was not to go on.
    pub async fn copy_to(
        &self,
        path: PathBuf,
        progress: impl FnMut(f64) -> bool + Send + 'static,
    ) -> Result<Copied, StoreError> {
        // A reader's turn: the file must not be exchanged for another meanwhile.
        let turn = self.reader_turn().await?;
        let from = self.inner.path.clone();
        let copy = move || {
            let copied = copy(&from, &path, progress);
            drop(turn);
            copied
        };
        tokio::task::spawn_blocking(copy).await.map_err(|_| StoreError::Job)?
    }
}

fn copy(from: &Path, to: &Path, mut progress: impl FnMut(f64) -> bool) -> Result<Copied, StoreError> {
    let source = Connection::open_with_flags(
        from,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    source.busy_timeout(PATIENCE)?;
    let mut copy = Connection::open(to)?;
    // Should it not come to an end, the file is thrown away.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    // One read transaction over all pieces: without it, each write in between would make the backup start over.
    let snapshot = source.unchecked_transaction()?;
    snapshot.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    let backup = Backup::new(&source, &mut copy)?;
    loop {
        match backup.step(PIECE)? {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else knows of the copy, and the source is read from a snapshot.
            _ => return Err(StoreError::Busy),
        }
        let pages = backup.progress();
        let done = pages.pagecount - pages.remaining;
        if !progress(f64::from(done) / f64::from(pages.pagecount.max(1))) {
            return Err(StoreError::Closed);
        }
    }
    drop(backup);
    snapshot.finish()?;
    let vector = read_vector(&copy)?;
    let migrations = copy
        .prepare("SELECT domain, number FROM replication_migration ORDER BY domain, number")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    copy.close().map_err(|(_, error)| StoreError::from(error))?;
    Ok(Copied { vector, migrations })
}
