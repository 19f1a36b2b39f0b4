//! What of the vector is on the disk for certain, and commits that wait for it.
//!
//! A local write is answered, and sent, once its commit is on the disk (I1, I2): `synchronous = FULL`. A frame of
//! another site is on its writer's disk before it comes here, and the vector moves in the commit that merges it: if the
//! machine loses power, rows and vector go back together, and the frame is asked for again (I3). So these commits wait
//! for nothing, and readers here see the rows a disk's delay earlier. They are **synced** by the next local commit, which
//! covers the whole write-ahead log before it, or by one that is made for that. Only then does this node say to others,
//! or to a client, that it has them on its disk. A sync that failed is not made good by one that succeeds:
//! [`Writer::write_log_out`].

use std::{sync::Arc, time::Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::watch;

use super::{
    super::{StoreError, connection::Synchronous},
    RESERVED_MILLIS, Writer, write_stamp,
};
use crate::log::VersionVector;

/// How the connection commits now, and what has reached the disk by that.
pub struct Durability {
    commits: Synchronous,
    /// The disk has failed, maybe at a sync: see [`Writer::write_log_out`].
    is_log_suspect: bool,
    vector: watch::Sender<Arc<VersionVector>>,
}

impl Durability {
    /// For a connection that has just been opened, on a database of which `vector` is on the disk.
    pub fn of(vector: VersionVector) -> Self {
        Self { commits: Synchronous::Full, is_log_suspect: false, vector: watch::channel(Arc::new(vector)).0 }
    }

    pub fn watch(&self) -> watch::Receiver<Arc<VersionVector>> {
        self.vector.subscribe()
    }

    /// The connection is a new one, which waits with each commit.
    pub fn reopened(&mut self) {
        self.commits = Synchronous::Full;
    }

    /// An attempt to write failed.
    pub fn failed(&mut self, error: &StoreError) {
        let code = match error {
            StoreError::Disk(error) => error.sqlite_error_code(),
            _ => None,
        };
        self.is_log_suspect |= code == Some(ErrorCode::SystemIoFailure);
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
        if commit == Synchronous::Full {
            self.write_log_out()?;
        }
        let db = self.db()?;
        db.prepare_cached("BEGIN IMMEDIATE")?.raw_execute()?;
        Ok(db)
    }

    /// After the disk has failed, has all that the write-ahead log holds written to the database file, and the log begun
    /// anew, before any commit counts as being on the disk.
    ///
    /// When a sync fails, Linux takes the pages that it could not write for clean, and the next sync succeeds without them
    /// (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). Commits that waited for no disk
    /// may have left such pages in the log. After a loss of power it would be read up to the first of them, and whatever was
    /// committed behind it, synced and answered, would be gone. A checkpoint writes them once more, elsewhere.
    fn write_log_out(&mut self) -> Result<(), StoreError> {
        if !self.durability.is_log_suspect {
            return Ok(());
        }
        let is_read: bool = self.db()?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if is_read {
            let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
            let told = "the log can't be begun anew while it is read".to_owned();
            return Err(rusqlite::Error::SqliteFailure(busy, Some(told)).into());
        }
        self.durability.is_log_suspect = false;
        Ok(())
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

#[cfg(test)]
mod tests {
    use rusqlite::ffi;
    use tokio::sync::broadcast;

    use super::{super::read_vector, *};
    use crate::{
        clock::Stamp,
        log::{Frame, GroupId, SiteId, Version},
        store::{DeriveNothing, Schema, System, connection},
    };

    fn open(path: &std::path::Path) -> Writer {
        let (commits, _) = broadcast::channel(1);
        Writer::open(path, &Schema::default(), Box::new(DeriveNothing), commits, Arc::new(System))
            .expect("a writer")
    }

    /// The vector as the database file has it, without its log.
    fn in_the_file(path: &std::path::Path) -> VersionVector {
        let copy = path.with_extension("copy");
        std::fs::copy(path, &copy).expect("a copy");
        let db = connection::open_writer(&copy).expect("the copy opens");
        let vector = read_vector(&db).expect("the vector of the copy");
        connection::close(db);
        vector
    }

    #[test]
    fn i1_durable_after_a_failed_sync_the_log_is_written_out_before_anything_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let mut writer = open(&path);
        let tables = "PRAGMA wal_checkpoint(TRUNCATE)";
        writer.db().and_then(|db| Ok(db.execute_batch(tables)?)).expect("the tables are in the file");
        let site = SiteId([7; 16]);
        let frame = Frame {
            group: GroupId::GLOBAL,
            site,
            after: Version(0),
            version: Version(3),
            stamp: Stamp::default(),
            changes: Vec::new(),
        };
        writer.apply(&[Arc::new(frame)]).expect("a frame of another site");
        assert_eq!(in_the_file(&path).get(site), Version(0), "it is in the log alone");

        let reader = connection::open_reader(&path).expect("a reader");
        reader.execute_batch("BEGIN; SELECT * FROM replication_vector").expect("a snapshot of the log");
        let failed = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None);
        writer.recover(&failed.into());
        reader.busy_timeout(std::time::Duration::ZERO).expect("no patience");
        writer.db().expect("a connection").busy_timeout(std::time::Duration::ZERO).expect("no patience");
        writer.sync().expect_err("who reads the log keeps it");
        assert_eq!(writer.watch_durable().borrow().get(site), Version(0));

        reader.execute_batch("COMMIT").expect("the end of the snapshot");
        writer.sync().expect("a sync");
        assert_eq!(writer.watch_durable().borrow().get(site), Version(3));
        assert_eq!(in_the_file(&path).get(site), Version(3), "it was written once more");
        connection::close(reader);
    }
}
