//! What happens once when a database is opened for writing: the lock, who the node is, and which start this is.

use std::{fs::File, path::Path};

use rusqlite::Connection;

use super::{OpenError, Surroundings, connection};
use crate::{NodeId, clock::Stamp};

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
pub fn stamp_of_this_start(db: &Connection, last: Stamp, surroundings: &dyn Surroundings) -> Stamp {
    let stamp = Stamp::from_millis(surroundings.wall_millis().max(last.millis() + 1));
    let kept = db.execute("UPDATE replication_node SET stamp = ?1", [stamp.to_u64().cast_signed()]);
    if let Err(error) = kept {
        tracing::warn!(%error, "the time of this start can't be kept");
    }
    stamp
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
