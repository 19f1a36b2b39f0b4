//! The next release, as far as replication is concerned: a table that today's nodes do not have. They hold what is
//! written into it, and put it into its place when they are upgraded themselves.

use mychat_node::{derive::Derived, packed};
use mychat_replication::{
    log::Value,
    store::{Batch, Derive, Migration, Row, Schema},
};
use rusqlite::Connection;

const MIGRATIONS: &[Migration] = &[Migration {
    domain: "simulated",
    number: 1,
    sql: "
        -- A note on each message: how long it is.
        CREATE TABLE simulated_note (message BLOB NOT NULL, data BLOB, PRIMARY KEY (message)) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('simulated_note');
        -- The same, unpacked.
        CREATE TABLE local_simulated_note (message BLOB PRIMARY KEY, length INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
}];

/// The tables of a release.
pub fn schema(upgraded: bool) -> Schema {
    let schema = mychat_node::derive::schema();
    if upgraded { schema.with(MIGRATIONS) } else { schema }
}

/// What fills the local tables of a release.
pub fn derive(upgraded: bool) -> Box<dyn Derive> {
    if upgraded { Box::new(Upgraded(Derived::default())) } else { Box::new(Derived::default()) }
}

/// Writes the note on a message, in the same transaction.
pub fn note(batch: &mut Batch<'_>, message: &[u8], length: usize) {
    batch.insert("simulated_note", vec![Value::from(message)], packed::encode(&length));
}

struct Upgraded(Derived);

impl Derive for Upgraded {
    fn derive(&mut self, db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
        self.0.derive(db, rows)?;
        for row in rows.iter().filter(|row| row.table == "simulated_note") {
            let length: Option<i64> = row.data.and_then(packed::decode);
            if let (Some(Value::Blob(message)), Some(length)) = (row.key.first(), length) {
                db.prepare_cached("INSERT OR REPLACE INTO local_simulated_note VALUES (?1, ?2)")?
                    .execute((message, length))?;
            }
        }
        Ok(())
    }

    fn understands(&self, row: &Row<'_>) -> bool {
        self.0.understands(row)
    }
}
