//! Closing an account: deactivated, it can't be signed in to; erased, what is personal is gone from every node.
//!
//! Erasing overwrites the rows' data with nothing, which replicates as any other write. The account's id and its
//! messages stay, so that conversations of others keep their shape.

use mychat_replication::{log::Value, store::Batch};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{
    sessions,
    store::{self, DEACTIVATED, ERASED, Field},
};
use crate::{
    http::Problem,
    ids::{AccountId, SessionId},
};

/// How to close an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Keep the data.
    Deactivate,
    /// Remove what is personal.
    Erase,
}

/// Adds the rows that close the account to the batch.
///
/// # Errors
/// What SQLite says.
pub fn close(batch: &mut Batch<'_>, account: AccountId, mode: Mode) -> Result<(), Problem> {
    for session in open_sessions(batch.connection(), account)? {
        sessions::end(batch, account, session);
    }
    let state = match mode {
        Mode::Deactivate => DEACTIVATED,
        Mode::Erase => {
            erase(batch, account)?;
            ERASED
        }
    };
    store::state(batch, account, Field::State, Some(state.to_owned()));
    Ok(())
}

fn open_sessions(db: &Connection, account: AccountId) -> rusqlite::Result<Vec<SessionId>> {
    let mut statement = db.prepare_cached(
        "SELECT id FROM session WHERE account = ?1 AND NOT EXISTS
         (SELECT 1 FROM session_end WHERE session_end.account = ?1 AND session_end.session = session.id)",
    )?;
    statement.query_map([account], |row| row.get(0))?.collect()
}

fn erase(batch: &mut Batch<'_>, account: AccountId) -> rusqlite::Result<()> {
    let db = batch.connection();
    let mut rows = sessions::personal_rows(db, account)?;
    rows.extend(store::personal_rows(db, account)?);
    for (table, key) in rows {
        batch.set(table, key, None);
    }
    Ok(())
}

/// The keys that a query gives for an account: one per row, of all its columns.
pub(super) fn keys_of(db: &Connection, account: AccountId, query: &str) -> rusqlite::Result<Vec<Vec<Value>>> {
    let mut statement = db.prepare_cached(query)?;
    let width = statement.column_count();
    let rows = statement.query_map([account], |row| {
        (0..width)
            .map(|index| {
                Ok(match row.get_ref(index)? {
                    rusqlite::types::ValueRef::Text(text) => {
                        Value::Text(String::from_utf8_lossy(text).into_owned())
                    }
                    rusqlite::types::ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
                    rusqlite::types::ValueRef::Integer(number) => Value::Integer(number),
                    rusqlite::types::ValueRef::Real(number) => Value::Real(number),
                    rusqlite::types::ValueRef::Null => Value::Null,
                })
            })
            .collect()
    })?;
    rows.collect()
}
