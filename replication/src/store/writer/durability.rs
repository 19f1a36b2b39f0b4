//! What of the vector is on the disk for certain, and commits that wait for it.
//!
//! A local write is answered, and sent, once its commit is on the disk (I1, I2): `synchronous = FULL`. A frame of
//! another site is on its writer's disk before it comes here, and the vector moves in the commit that merges it: if the
//! machine loses power, rows and vector go back together, and the frame is asked for again (I3). So these commits wait
//! for nothing, and readers here see the rows a disk's delay earlier. They are **synced** by the next local commit, which
//! covers the whole write-ahead log before it, or by one that is made for that. Only then does this node say to others,
//! or to a client, that it has them on its disk.

use std::{sync::Arc, time::Instant};

use rusqlite::Connection;
use tokio::sync::watch;

use super::{
    super::{StoreError, connection::Synchronous},
    RESERVED_MILLIS, Writer, write_stamp,
};
use crate::log::VersionVector;

/// How the connection commits now, and what has reached the disk by that.
pub struct Durability {
    commits: Synchronous,
    vector: watch::Sender<Arc<VersionVector>>,
}

impl Durability {
    /// For a connection that has just been opened, on a database of which `vector` is on the disk.
    pub fn of(vector: VersionVector) -> Self {
        Self { commits: Synchronous::Full, vector: watch::channel(Arc::new(vector)).0 }
    }

    pub fn watch(&self) -> watch::Receiver<Arc<VersionVector>> {
        self.vector.subscribe()
    }

    /// The connection is a new one, which waits with each commit.
    pub fn reopened(&mut self) {
        self.commits = Synchronous::Full;
    }

    /// Everything in `vector` is on the disk.
    pub fn reached(&self, vector: &Arc<VersionVector>) {
        self.vector.send_replace(Arc::clone(vector));
    }

    /// Has the commits of `db` from now on wait for this much.
    fn ask(&mut self, db: &Connection, wanted: Synchronous) -> rusqlite::Result<()> {
        if self.commits != wanted {
            wanted.set(db)?;
            self.commits = wanted;
        }
        Ok(())
    }
}

impl Writer {
    /// Begins a transaction whose commit waits for so much.
    pub(super) fn begin_transaction(&mut self, commit: Synchronous) -> Result<&Connection, StoreError> {
        self.wait_with_commits(commit)?;
        let db = self.db()?;
        db.prepare_cached("BEGIN IMMEDIATE")?.raw_execute()?;
        Ok(db)
    }

    /// Has the commits that follow wait for so much.
    pub(super) fn wait_with_commits(&mut self, commit: Synchronous) -> Result<(), StoreError> {
        match &self.db {
            Some(db) => Ok(self.durability.ask(db, commit)?),
            None => self.db().map(drop),
        }
    }

    /// Brings all that is held to the disk, for those who asked for that.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.bring_to_disk().inspect_err(|error| self.recover(error))
    }

    /// The same, with the recovery from an error left to the caller.
    pub(super) fn bring_to_disk(&mut self) -> Result<(), StoreError> {
        if self.durability.vector.borrow().covers(&self.held) {
            return Ok(());
        }
        let started = Instant::now();
        self.commit_nothing()?;
        metrics::histogram!("mychat_store_sync_seconds").record(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Tries a commit that nobody waits for, while commits are refused: only one that reaches the disk says that it
    /// takes them again.
    pub(super) fn probe(&mut self) {
        if let Err(error) = self.commit_nothing() {
            self.recover(&error);
        }
    }

    /// A commit that says nothing new, and waits for the disk.
    fn commit_nothing(&mut self) -> Result<(), StoreError> {
        // A row that stays the same would not be written.
        self.clock.tick(self.surroundings.wall_millis());
        let stamp = self.clock.ahead(RESERVED_MILLIS);
        let db = self.begin_transaction(Synchronous::Full)?;
        write_stamp(db, stamp)?;
        db.prepare_cached("COMMIT")?.raw_execute()?;
        self.reserved = stamp;
        self.durability.reached(&Arc::new(self.held.clone()));
        self.health.succeeded();
        Ok(())
    }
}
