//! What replication calls with every row that is written or merged: each domain brings its local tables up to date.

use mychat_replication::store::{Derive, Row, Schema};
use rusqlite::Connection;

/// Fills the local tables of all domains.
#[derive(Debug, Default, Clone, Copy)]
pub struct Derived;

impl Derive for Derived {
    fn derive(&mut self, db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
        crate::accounts::derive(db, rows)?;
        crate::spaces::derive(db, rows)?;
        crate::messages::derive(db, rows)?;
        #[cfg(feature = "next")]
        crate::next::derive(db, rows)?;
        crate::notifications::derive(db, rows)
    }

    fn understands(&self, row: &Row<'_>) -> bool {
        row.data.is_none_or(crate::packed::is_known)
    }
}

/// The tables of all domains.
#[must_use]
pub fn schema() -> Schema {
    Schema::new(&[
        crate::http::write::MIGRATIONS,
        crate::claims::MIGRATIONS,
        crate::accounts::MIGRATIONS,
        crate::spaces::MIGRATIONS,
        crate::messages::MIGRATIONS,
        crate::notifications::MIGRATIONS,
        #[cfg(feature = "next")]
        crate::next::MIGRATIONS,
    ])
}
