//! What replication calls with every row that is written or merged: each domain brings its local tables up to date.

use mychat_replication::store::{Derive, Row, Schema};
use rusqlite::Connection;

use crate::{
    accounts::{Standings, standings},
    ids::AccountId,
};

/// Fills the local tables of all domains.
#[derive(Debug, Default)]
pub struct Derived {
    standings: Standings,
    /// Accounts of which the transaction that is open has rows.
    touched: Vec<AccountId>,
}

impl Derived {
    /// The memory of good sessions that it keeps true.
    #[must_use]
    pub fn standings(&self) -> Standings {
        self.standings.clone()
    }
}

impl Derive for Derived {
    fn derive(&mut self, db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
        self.touched.extend(rows.iter().filter_map(standings::touched));
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

    fn committed(&mut self) {
        if !self.touched.is_empty() {
            self.standings.forget(&self.touched);
            self.touched.clear();
        }
    }

    fn reopened(&mut self) {
        self.touched.clear();
        self.standings.forget_all();
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
