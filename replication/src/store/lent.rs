//! Connections that read, while somebody has them.

use rusqlite::Connection;

use super::{StoreError, connection};

/// A connection that reads, as long as somebody has it. One that is not given back, since what it was lent for panicked or
/// its snapshot could not be ended, is closed: in an open snapshot it would keep the write-ahead log from ever
/// beginning anew.
pub struct Lent {
    reader: Option<Connection>,
}

impl Lent {
    pub fn new(reader: Connection) -> Self {
        Self { reader: Some(reader) }
    }

    /// The connection, for the next who reads.
    pub fn give_back(mut self) -> Option<Connection> {
        self.reader.take()
    }

    /// Runs `f` in one snapshot. The outer error says that the connection is not fit for another.
    pub fn snapshot<T, E: From<StoreError> + From<rusqlite::Error>>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<Result<T, E>, E> {
        let reader = self.reader.as_ref().ok_or(StoreError::Closed)?;
        // Statements that the connection keeps: to parse these anew would take longer than many a read does.
        reader.prepare_cached("BEGIN")?.raw_execute()?;
        let result = f(reader);
        // After some errors SQLite has ended it by itself.
        if !reader.is_autocommit() {
            reader.prepare_cached("COMMIT")?.raw_execute()?;
        }
        Ok(result)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            if !reader.is_autocommit()
                && let Err(error) = reader.execute_batch("ROLLBACK")
            {
                tracing::debug!(%error, "a snapshot could not be ended");
            }
            connection::close(reader);
        }
    }
}
