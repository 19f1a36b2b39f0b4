//! Connections: how they are opened, and what they need before they close.

use std::{path::Path, sync::LazyLock};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{OpenError, StoreError};
use crate::memory;

/// Bytes of pages that the connection which writes keeps. In databases that are larger than this, messages of many spaces
/// cost up to three times as much (five million of them), since each is a page to be read.
static WRITER_CACHE: LazyLock<u64> = LazyLock::new(|| {
    let free = memory::free().unwrap_or(1 << 30);
    (free / WRITER_SHARE).clamp(32 << 20, 128 << 20)
});
/// With [`super::MAX_READERS`] connections that read, all caches take an eighth of what is free at the most.
const WRITER_SHARE: u64 = 24;
/// A connection that reads keeps so much less.
const READER_PART: u64 = 4;

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Until it, and with it every commit before it, is on the disk.
    Full,
    /// Nothing. Should the machine lose its power, the database comes back as it was after some commit since the last that
    /// waited: the write-ahead log is read up to the first page that is not whole.
    Normal,
}

impl Synchronous {
    /// Has the commits of `db` wait for it from now on. It is refused within a transaction.
    pub fn set(self, db: &Connection) -> rusqlite::Result<()> {
        // Not a statement that is kept: SQLite sets this while it parses one.
        db.execute_batch(match self {
            Self::Full => "PRAGMA synchronous = FULL",
            Self::Normal => "PRAGMA synchronous = NORMAL",
        })
    }
}

/// `PRAGMA cache_size` takes kibibytes as a negative number.
fn cache_size(bytes: u64) -> String {
    format!("PRAGMA cache_size = -{};", bytes / 1024)
}

/// The one connection that writes.
pub fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    mychat_crsqlite::configure();
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| OpenError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        private_folder(folder).map_err(|e| failed(e.into()))?;
    }
    let db = Connection::open(path).map_err(|e| failed(e.into()))?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.set_prepared_statement_cache_capacity(256);
    // secure_delete: what is erased is overwritten in the file.
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA wal_autocheckpoint = 16000;
         PRAGMA journal_size_limit = 67108864;",
    )
    .and_then(|()| db.execute_batch(&cache_size(*WRITER_CACHE)))
    .and_then(|()| Synchronous::Full.set(&db))
    .map_err(|e| failed(e.into()))?;
    keep_plans(&db)?;
    mychat_crsqlite::load(&db)?;
    // Of two writes that are alike, too, one wins, by the larger site id: otherwise each node would count the cell to
    // the log of which it heard first, and a third that gets the logs from different nodes might get it from neither.
    // It is kept in the database, and a node must start on a full disk too, so it is set only once.
    let set: i64 = db.query_row("SELECT crsql_config_get('merge-equal-values')", [], |row| row.get(0))?;
    if set != 1 {
        db.query_row("SELECT crsql_config_set('merge-equal-values', 1)", [], |_| Ok(()))?;
    }
    Ok(db)
}

/// A connection that reads; the extension is there because it serves the log.
pub fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.set_prepared_statement_cache_capacity(192);
    db.execute_batch(&cache_size(*WRITER_CACHE / READER_PART))?;
    keep_plans(&db)?;
    mychat_crsqlite::load(&db).map_err(|error| match error {
        mychat_crsqlite::Error::Load(error) => StoreError::from(error),
        mychat_crsqlite::Error::Unpack { source, .. } => {
            StoreError::from(rusqlite::Error::ToSqlConversionFailure(source.into()))
        }
    })?;
    // Only now: the extension prepares its own bookkeeping on load.
    db.execute_batch("PRAGMA query_only = ON;")?;
    Ok(db)
}

/// Lets a statement keep its plan whatever is bound to it. Without this SQLite, which is built with statistics on the
/// distribution of values, plans some statements anew each time they run: 7 % of a posted message's time.
fn keep_plans(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Closes a connection; the extension's statements have to go first.
pub fn close(db: Connection) {
    if let Err(error) = mychat_crsqlite::finalize(&db) {
        tracing::debug!(%error, "the extension did not let go of a connection");
    }
    if let Err((_, error)) = db.close() {
        tracing::debug!(%error, "a database connection did not close");
    }
}

/// Closes a connection as the end of its process does: the log stays, also when nobody else has the database open.
pub fn abandon(db: Connection) {
    if let Err(error) = db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::debug!(%error, "closing a database may tidy it up");
    }
    close(db);
}

/// Makes a folder that only this user can enter: what people write is in it.
pub fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
