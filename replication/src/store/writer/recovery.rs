//! After a failure of the disk: nothing half-written stays, and what is held is read from it again.

use std::sync::Arc;

use super::{
    super::{OpenError, StoreError, connection, site},
    Writer, read_retired, read_vector,
};

impl Writer {
    /// After a failure: nothing half-written stays open, and the vector is what the disk says.
    ///
    /// The connection is opened anew, since the extension counts a version when its commit begins, and would go on
    /// counting one whose commit failed.
    pub(super) fn recover(&mut self, error: &StoreError) {
        self.health.failed(error);
        self.durability.failed(error);
        self.roll_back();
        if let Err(error) = self.reopen() {
            tracing::error!(%error, "the database can't be opened again after a failure; it is tried with the next write");
            self.broken = Some(error);
        }
    }

    /// Nothing half-written stays open.
    pub(super) fn roll_back(&self) {
        if let Some(db) = &self.db
            && !db.is_autocommit()
            && let Err(error) = db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }

    /// Opens the connection anew, and reads what it holds and under which site id it writes.
    pub(super) fn reopen(&mut self) -> Result<(), StoreError> {
        if let Some(db) = self.db.take() {
            connection::close(db);
        }
        let db = connection::open_writer(&self.path).map_err(|error| match error {
            OpenError::Sql(error) => StoreError::from(error),
            error => StoreError::from(rusqlite::Error::ToSqlConversionFailure(error.into())),
        })?;
        self.derive.reopened();
        let site = site::current(&db)?;
        let retired = Arc::new(read_retired(&db)?);
        self.held = read_vector(&db)?;
        self.durability.reopened();
        self.site.send_replace(site);
        self.retired.send_replace(retired);
        self.vector.send_replace(Arc::new(self.held.clone()));
        (self.db, self.broken) = (Some(db), None);
        Ok(())
    }
}
