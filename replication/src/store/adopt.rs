//! Taking over a copy of another node's database in place of the own one.
//!
//! A node that lacks very much gets a copy of a peer's database rather than all the logs (see [`crate::snapshot`]). The
//! copy becomes this node's database in two parts:
//!
//! 1. [`Store::prepare`], on the copy alone: it is checked and migrated, gets a **new site id** (what was the peer's
//!    own log is another site's log here, I2) and this node's id. A crash leaves a file that nobody looks at.
//! 2. [`Store::adopt`], on the writer's thread, while nobody reads and no checkpoint runs: it goes on only if the copy
//!    holds all that this node does. Both files are closed, so that neither has a write-ahead log, and the copy is
//!    renamed over the old file ([`swap`]). Whatever moment a crash picks, the one or the other is there as a whole.
//!
//! The hybrid time never goes back: the copy gets the later of both nodes' stamps before it takes the place.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    MAX_READERS, OpenError, Schema, Store, StoreError, checkpoint::Checkpointer, connection, queue::Queue,
    site, writer::read_vector,
};
use crate::{
    NodeId,
    clock::Stamp,
    log::{SiteId, VersionVector},
};

/// Why a copy did not take the place of the database, which goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is no whole database, or not the one that was announced.
    #[error("the copy is damaged: {0}")]
    Damaged(String),
    /// It can't be migrated; for one, a newer program made it.
    #[error("the copy does not fit this program: {0}")]
    Unfit(#[source] OpenError),
    /// This node holds something that the copy does not.
    #[error("this node holds something that the copy lacks")]
    Lacks,
    /// The files could not be exchanged.
    #[error("the copy can't be put in place: {0}")]
    File(#[source] io::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AdoptError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A copy that is ready to take the place of the database.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    vector: VersionVector,
    stamp: Stamp,
}

impl Incoming {
    /// What it holds.
    #[must_use]
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The last hybrid time that the node it comes from gave out.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The last change before it takes the place; then it is on the disk, in one file.
    pub(super) fn seal(&self, stamp: Stamp) -> Result<(), AdoptError> {
        let db = Connection::open(&self.path)?;
        db.execute("UPDATE replication_node SET stamp = max(stamp, ?1)", [stamp.to_u64().cast_signed()])?;
        db.close().map_err(|(_, error)| StoreError::from(error))?;
        closed(&self.path).and_then(|()| File::open(&self.path)?.sync_all()).map_err(AdoptError::File)
    }
}

/// The work of the writer.
pub struct Adoption {
    pub incoming: Incoming,
    pub quiet: Quiet,
    pub answer: oneshot::Sender<Result<SiteId, AdoptError>>,
}

/// As long as this lives, no connection but the writer's is open. A connection that outlived the exchange of the files
/// would treat the new file's write-ahead log as its own.
pub struct Quiet {
    path: PathBuf,
    node: NodeId,
    queue: Arc<Queue>,
    checkpointer: Arc<Mutex<Option<Checkpointer>>>,
    _turns: OwnedSemaphorePermit,
}

impl Drop for Quiet {
    fn drop(&mut self) {
        match Checkpointer::start(&self.path, self.node, Arc::clone(&self.queue)) {
            Ok(started) => {
                *self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
            }
            // The writer checkpoints by itself when its log grows large.
            Err(error) => tracing::warn!(%error, "checkpoints are left to the writer"),
        }
    }
}

impl Store {
    /// The database's file.
    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether this program has this migration: a database with one that it lacks is refused.
    pub(crate) fn knows_migration(&self, domain: &str, number: u32) -> bool {
        self.inner.schema.knows(domain, number)
    }

    /// Makes a copy of another node's database, which must hold exactly `announced`, ready for [`Store::adopt`]. The
    /// copy itself is changed, the database is not.
    ///
    /// # Errors
    /// See [`AdoptError`]; the copy is of no use then.
    pub async fn prepare(&self, copy: PathBuf, announced: VersionVector) -> Result<Incoming, AdoptError> {
        let (schema, node) = (self.inner.schema.clone(), self.node());
        tokio::task::spawn_blocking(move || prepare(copy, &announced, &schema, node))
            .await
            .map_err(|_| StoreError::Job)?
    }

    /// Goes on with this copy in place of the database, under its new site id. The vector never falls by it: a copy
    /// that lacks something is refused.
    ///
    /// # Errors
    /// See [`AdoptError`]; the database is as before then.
    pub async fn adopt(&self, incoming: Incoming) -> Result<SiteId, AdoptError> {
        let all = u32::try_from(MAX_READERS).unwrap_or(u32::MAX);
        let turns =
            Arc::clone(&self.inner.reading).acquire_many_owned(all).await.map_err(|_| StoreError::Closed)?;
        let (path, readers, checkpointer) =
            (self.inner.path.clone(), Arc::clone(&self.inner.readers), Arc::clone(&self.inner.checkpointer));
        let (node, queue) = (self.inner.node, Arc::clone(&self.inner.queue));
        let quiet = tokio::task::spawn_blocking(move || {
            for reader in readers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                connection::close(reader);
            }
            drop(checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take());
            Quiet { path, node, queue, checkpointer, _turns: turns }
        })
        .await
        .map_err(|_| StoreError::Job)?;
        let (answer, answered) = oneshot::channel();
        if !self.inner.queue.push_adoption(Adoption { incoming, quiet, answer }) {
            return Err(StoreError::Closed.into());
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

fn prepare(
    path: PathBuf,
    announced: &VersionVector,
    schema: &Schema,
    node: NodeId,
) -> Result<Incoming, AdoptError> {
    let damaged = |error: &dyn std::fmt::Display| AdoptError::Damaged(error.to_string());
    let db = connection::open_writer(&path).map_err(|error| damaged(&error))?;
    let prepared = (|| {
        let check: String =
            db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| damaged(&error))?;
        if check != "ok" {
            return Err(AdoptError::Damaged(check));
        }
        let vector = read_vector(&db).map_err(|error| damaged(&error))?;
        let head = vector.get(site::current(&db)?);
        if vector != *announced {
            return Err(AdoptError::Damaged("it does not hold what was announced".into()));
        }
        schema.migrate(&db).map_err(AdoptError::Unfit)?;
        // Should a migration have written anything, that is of the new site: the peer does not know of it.
        site::renew(&db, head, SiteId(rand::random()))?;
        db.execute("UPDATE replication_node SET node = ?1", [node.0])?;
        let stamp: i64 = db.query_row("SELECT stamp FROM replication_node", [], |row| row.get(0))?;
        Ok((vector, Stamp::from_u64(stamp.cast_unsigned())))
    })();
    connection::close(db);
    let (vector, stamp) = prepared?;
    Ok(Incoming { path, vector, stamp })
}

/// How far [`swap`] has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The old file is whole, and nothing else belongs to it.
    OldIsWhole,
    /// The new file has the old one's name; whether that survives a loss of power is not certain.
    Renamed,
    /// It does.
    Done,
}

/// Puts `incoming` in the place of the database at `path`. Both are closed.
pub fn swap(path: &Path, incoming: &Path, mut reached: impl FnMut(Step)) -> io::Result<()> {
    closed(path)?;
    // The removal of the write-ahead log must not be undone by a crash that the renaming survives: SQLite would take
    // it for the new file's.
    sync_folder(path)?;
    reached(Step::OldIsWhole);
    std::fs::rename(incoming, path)?;
    reached(Step::Renamed);
    sync_folder(path)?;
    reached(Step::Done);
    Ok(())
}

/// Fails while a database has files beside its own: some connection is open, or could not write everything back.
fn closed(path: &Path) -> io::Result<()> {
    for suffix in ["-wal", "-shm", "-journal"] {
        if beside(path, suffix).try_exists()? {
            return Err(io::Error::other(format!("{}{suffix} is still in use", path.display())));
        }
    }
    Ok(())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The path with something appended to its last part.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
