//! What the next release might bring, for the test of a roll-out (`tests/upgrade.rs` of the program): a new replicated
//! table with a local one derived from it, and a newer format of a packed row ([`crate::packed::encode_next`]).
//!
//! Built under the feature `next` only, never into a release.

use axum::{Json, Router, extract::State, routing::get};
use mychat_replication::store::{Batch, Migration, Row};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{
    app::App,
    http::Problem,
    ids::{MessageId, SpaceId},
    packed,
};

/// The new tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    domain: "next",
    number: 1,
    sql: "
        -- A note on each message: how long it is.
        CREATE TABLE next_note (space BLOB NOT NULL, message BLOB NOT NULL, data BLOB, PRIMARY KEY (space, message))
            STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('next_note');
        -- The same, unpacked.
        CREATE TABLE local_next_note (message BLOB PRIMARY KEY, length INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
}];

/// Writes the note on a message, in the same transaction.
pub fn note(batch: &mut Batch<'_>, space: SpaceId, id: MessageId, body: &str) {
    batch.insert("next_note", vec![space.value(), id.value()], packed::encode(&body.len()));
}

/// Brings the local table up to date.
///
/// # Errors
/// What SQLite says.
pub fn derive(db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    for row in rows.iter().filter(|row| row.table == "next_note") {
        let length: Option<i64> = row.data.and_then(packed::decode);
        if let (Some(message), Some(length)) = (row.key.get(1).and_then(MessageId::from_value), length) {
            db.prepare_cached("INSERT OR REPLACE INTO local_next_note VALUES (?1, ?2)")?
                .execute((message, length))?;
        }
    }
    Ok(())
}

/// The routes.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/next/notes", get(notes))
}

/// The notes as they are stored and as they are derived.
async fn notes(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let read = app.store.read(|db| {
        let all = |sql: &str| -> rusqlite::Result<Vec<String>> {
            db.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        Ok::<_, Problem>(json!({
            "stored": all("SELECT hex(message) || ' ' || hex(data) FROM next_note ORDER BY space, message")?,
            "derived": all("SELECT hex(message) || ' ' || length FROM local_next_note ORDER BY message")?,
        }))
    });
    read.await.map(Json)
}
