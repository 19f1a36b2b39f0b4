//! Why the store refuses, and whose fault that is: the machine's, the data's or the program's.

use std::{path::PathBuf, sync::Arc};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its folder can't be used.
    #[error("cannot open the database {path}: {source}")]
    File {
        /// The database file.
        path: PathBuf,
        /// What the system or SQLite said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the database open for writing.
    #[error("the database {0} is in use by another process")]
    InUse(PathBuf),
    /// A migration failed; nothing of it was kept.
    #[error("migration {number} of {domain} failed: {source}")]
    Migration {
        /// Whose tables.
        domain: String,
        /// Its number.
        number: u32,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database was written by a newer program.
    #[error("the database has migration {number} of {domain}, which this program does not know: it is older")]
    Newer {
        /// Whose tables.
        domain: String,
        /// The unknown number.
        number: u32,
    },
    /// The extension can't be loaded.
    #[error(transparent)]
    Extension(#[from] mychat_crsqlite::Error),
    /// Any other failure.
    #[error("cannot set up the database: {0}")]
    Sql(#[from] rusqlite::Error),
}

/// Why a read or a write failed; nothing of the write was kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The writer's queue stayed full for 2 s.
    #[error("too many writes are waiting")]
    Busy,
    /// The node does not know yet whether its disk has lost a part of its own log (see [`super::Store::hold_writes`]).
    #[error("the node is still asking its peers about its own log")]
    Unsettled,
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// No space, no permission, or a broken disk.
    #[error("the disk refuses: {0}")]
    Disk(Arc<rusqlite::Error>),
    /// Any other failure of the database.
    #[error("the database failed: {0}")]
    Sql(Arc<rusqlite::Error>),
    /// A job panicked; the others went on.
    #[error("a write job failed")]
    Job,
}

/// What the machine refuses a write for. It may pass without anybody restarting the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiskFault {
    /// No space is left, or none that this user may have.
    #[error("the disk is full")]
    Full,
    /// The file system takes no writes.
    #[error("the disk is read-only")]
    ReadOnly,
    /// Reading or writing fails, or takes too long.
    #[error("the disk fails")]
    Failing,
}

impl DiskFault {
    /// What kind of failure of the machine an error is.
    fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::PermissionDenied) => Self::ReadOnly,
            _ => Self::Failing,
        }
    }
}

impl StoreError {
    /// What the machine refuses; `None` when it is not the machine that failed.
    #[must_use]
    pub fn disk_fault(&self) -> Option<DiskFault> {
        match self {
            Self::Disk(error) => Some(DiskFault::of(error)),
            _ => None,
        }
    }
}

impl StoreError {
    /// A transaction that SQLite took back by itself, for an error which it told somebody else: the disk's, as far as
    /// one can know.
    pub(super) fn lost_transaction() -> Self {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
        let told = "the transaction was lost while a job read".to_owned();
        Self::Disk(Arc::new(rusqlite::Error::SqliteFailure(code, Some(told))))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if is_environment(&error) { Self::Disk(Arc::new(error)) } else { Self::Sql(Arc::new(error)) }
    }
}

/// Whether the machine failed (and the same statement may succeed later) rather than the data.
pub(super) fn is_environment(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OperationInterrupted,
        OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            DiskFull
                | SystemIoFailure
                | ReadOnly
                | PermissionDenied
                | CannotOpen
                | OutOfMemory
                | DatabaseBusy
                | DatabaseLocked
                | FileLockingProtocolFailed
                | OperationInterrupted
        )
    )
}
