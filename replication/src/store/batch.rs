//! What a local job wants to write.

use std::{any::Any, sync::Arc};

use rusqlite::Connection;

use super::Surroundings;
use crate::{
    clock::{Clock, Stamp},
    log::{SiteId, Value},
};

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// Only where the key is new.
    Once,
    /// Over what is there.
    Over,
}

/// One row to write.
#[derive(Debug)]
pub(super) struct NewRow {
    pub table: &'static str,
    pub key: Vec<Value>,
    pub data: Option<Vec<u8>>,
    pub put: Put,
    pub note: Option<Note>,
}

/// What a job lets whoever watches commits know about one of its rows; it stays in this process.
pub type Note = Arc<dyn Any + Send + Sync>;

impl NewRow {
    pub fn size(&self) -> usize {
        self.table.len()
            + self.key.iter().map(Value::size).sum::<usize>()
            + self.data.as_ref().map_or(0, Vec::len)
            + 16
    }
}

/// The view and the wishes of one job: it reads the database and names rows, which are written when it succeeds.
pub struct Batch<'a> {
    db: &'a Connection,
    clock: &'a mut Clock,
    surroundings: &'a dyn Surroundings,
    site: SiteId,
    rows: Vec<NewRow>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        db: &'a Connection,
        clock: &'a mut Clock,
        surroundings: &'a dyn Surroundings,
        site: SiteId,
    ) -> Self {
        Self { db, clock, surroundings, site, rows: Vec::new() }
    }

    /// The database with everything that is committed and that earlier jobs of the group wrote. For reading only;
    /// this job's own rows are not in it yet.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.db
    }

    /// The hybrid time of something that happens in this job; each call gives a later one.
    pub fn stamp(&mut self) -> Stamp {
        self.clock.tick(self.surroundings.wall_millis())
    }

    /// The site in whose log the rows will stand.
    #[must_use]
    pub fn site(&self) -> SiteId {
        self.site
    }

    /// Adds a write-once row: where the key exists, the first content stays.
    pub fn insert(&mut self, table: &'static str, key: Vec<Value>, data: Vec<u8>) {
        self.rows.push(NewRow { table, key, data: Some(data), put: Put::Once, note: None });
    }

    /// Adds a row or overwrites its data; `None` erases it. Only for rows that no other site writes (the site id is
    /// in their key), or to erase: nothing that people see may depend on how concurrent values are merged.
    pub fn set(&mut self, table: &'static str, key: Vec<Value>, data: Option<Vec<u8>>) {
        self.rows.push(NewRow { table, key, data, put: Put::Over, note: None });
    }

    /// Adds to the row that was named last what others would have to read back when they hear of the commit: see
    /// [`super::Commit::notes`]. Without a row it is lost.
    pub fn note(&mut self, note: impl Any + Send + Sync) {
        if let Some(row) = self.rows.last_mut() {
            row.note = Some(Arc::new(note));
        }
    }

    /// Whether there is anything to write.
    pub(super) fn writes(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Forgets the rows.
    pub(super) fn discard(&mut self) {
        self.rows.clear();
    }

    pub(super) fn into_rows(self) -> Vec<NewRow> {
        self.rows
    }
}
