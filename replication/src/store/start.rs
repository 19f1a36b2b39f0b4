//! What happens once when a database is opened for writing: the lock, who the node is, and which start this is.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use rusqlite::Connection;
use tokio::sync::{Semaphore, broadcast};

use super::{
    Derive, Inner, JOB_SIZE, MAX_LOG_READS, MAX_QUEUED, MAX_READERS, OpenError, Schema, Store, Surroundings,
    WATCH_CAPACITY, connection, queue::Queue, witness::Witness, writer::Writer,
};
use crate::{
    NodeId,
    clock::Stamp,
    log::{SiteId, Version},
};

impl Store {
    /// Opens a store, whose writer is still to be set to work: by a thread, or `inline` by its owner.
    pub(super) fn assemble(
        path: &Path,
        schema: &Schema,
        derive: Box<dyn Derive>,
        surroundings: Arc<dyn Surroundings>,
        inline: bool,
    ) -> Result<(Self, Writer), OpenError> {
        let (commits, _) = broadcast::channel(WATCH_CAPACITY);
        let writer = Writer::open(path, schema, derive, commits.clone(), surroundings)?;
        let inner = Inner {
            node: writer.node(),
            generation: writer.generation(),
            path: path.to_owned(),
            schema: schema.clone(),
            queue: Arc::new(Queue::default()),
            places: Arc::new(Semaphore::new(MAX_QUEUED / JOB_SIZE)),
            held: AtomicBool::new(false),
            in_doubt: writer.is_in_doubt(),
            site: writer.watch_site(),
            vector: writer.watch_vector(),
            durable: writer.watch_durable(),
            retired: writer.watch_retired(),
            logs: writer.logs(),
            health: writer.watch_health(),
            commits,
            readers: Arc::new(Mutex::new(Vec::new())),
            reading: Arc::new(Semaphore::new(MAX_READERS)),
            reading_logs: Semaphore::new(MAX_LOG_READS),
            inline,
            writer: Mutex::new(None),
            checkpointer: Arc::new(Mutex::new(None)),
        };
        Ok((Self { inner: Arc::new(inner) }, writer))
    }
}

/// The node id of this folder, made at the first start, and the last hybrid time that it gave out.
pub fn node(db: &Connection, surroundings: &dyn Surroundings) -> rusqlite::Result<(NodeId, Stamp)> {
    db.execute("INSERT OR IGNORE INTO replication_node VALUES (1, ?1, 0)", [surroundings.random()])?;
    db.query_row("SELECT node, stamp FROM replication_node", [], |row| {
        Ok((NodeId(row.get(0)?), Stamp::from_u64(row.get::<_, i64>(1)?.cast_unsigned())))
    })
}

/// A stamp later than those of all earlier starts, kept so that those to come are later still: a clock that is set back
/// between two starts must not make the new process look like the older one. A disk that is full makes it no worse than
/// the clock is.
///
/// Says, too, whether it was kept: then its commit has brought to the disk what the process before this one had not.
pub fn stamp_of_this_start(db: &Connection, last: Stamp, surroundings: &dyn Surroundings) -> (Stamp, bool) {
    let stamp = Stamp::from_millis(surroundings.wall_millis().max(last.millis() + 1));
    let kept = db.execute("UPDATE replication_node SET stamp = ?1", [stamp.to_u64().cast_signed()]);
    if let Err(error) = &kept {
        tracing::warn!(%error, "the time of this start can't be kept");
    }
    (stamp, kept.is_ok())
}

/// Whether the disk is certain to hold all that this node wrote to it: the database has just been made, or its witness
/// says so.
pub fn is_vouched_for(witness: &mut dyn Witness, is_new: bool, site: SiteId, head: Version) -> bool {
    if is_new {
        witness.note(site, head);
        return true;
    }
    match witness.testimony() {
        Some((of, least)) if of == site && head >= least => true,
        Some((of, least)) if of == site => {
            tracing::warn!(%head, %least, "the database has lost versions: an older copy was put in its place");
            false
        }
        _ => {
            tracing::info!(
                "nothing vouches for this disk: it may be a copy, or the machine was started anew"
            );
            false
        }
    }
}

/// Takes the lock that says: this process writes here.
pub fn lock(path: &Path) -> Result<File, OpenError> {
    let lock = path.with_extension("lock");
    let failed = |source: std::io::Error| OpenError::File { path: lock.clone(), source: source.into() };
    if let Some(folder) = path.parent() {
        connection::private_folder(folder).map_err(failed)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(&lock).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}
