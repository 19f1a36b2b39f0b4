//! Closing an account: deactivated, it can't be signed in to; erased, what is personal is gone from every node.
//!
//! Erasing overwrites the rows' data with nothing, which replicates as any other write. The account's id and its
//! messages stay, so that conversations of others keep their shape. Rows that were on their way meanwhile are not shown,
//! and overwritten when they are found ([`crate::erasure`]).

use mychat_replication::{
    log::Value,
    store::{Batch, Store, StoreError},
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{
    sessions,
    store::{self, DEACTIVATED, ERASED, Field},
};
use crate::{
    http::Problem,
    ids::{AccountId, SessionId},
    spaces,
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
    spaces::pass_on(batch, account)?;
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
    for (table, key) in personal_rows(batch.connection(), account)? {
        batch.set(table, key, None);
    }
    Ok(())
}

/// The keys of every row that says something personal about the account and is still there.
fn personal_rows(db: &Connection, account: AccountId) -> rusqlite::Result<Vec<(&'static str, Vec<Value>)>> {
    let mut rows = sessions::personal_rows(db, account)?;
    rows.extend(store::personal_rows(db, account)?);
    Ok(rows)
}

/// Closed accounts that are looked at, and overwritten, at a time.
const CHUNK: usize = 50;

/// Overwrites what arrived of accounts after they were erased; says of how many.
///
/// # Errors
/// What the store says.
pub async fn erase_late(store: &Store) -> Result<usize, StoreError> {
    let (mut erased, mut after) = (0, None);
    loop {
        let closed = store.read(move |db| Ok::<_, StoreError>(late(db, after)?)).await?;
        let Some((last, _)) = closed.last().copied() else { return Ok(erased) };
        let late: Vec<AccountId> =
            closed.into_iter().filter_map(|(account, late)| late.then_some(account)).collect();
        if !late.is_empty() {
            erased += late.len();
            store
                .write(move |batch| {
                    late.into_iter().try_for_each(|account| erase(batch, account))?;
                    Ok::<_, StoreError>(())
                })
                .await?;
        }
        after = Some(last);
    }
}

/// The next closed accounts behind `after`, and whether they are erased and something personal is still there.
fn late(db: &Connection, after: Option<AccountId>) -> rusqlite::Result<Vec<(AccountId, bool)>> {
    let after = after.map_or_else(Vec::new, |after| after.bytes().to_vec());
    let closed: Vec<AccountId> = db
        .prepare_cached("SELECT id FROM local_account WHERE NOT active AND id > ?1 ORDER BY id LIMIT ?2")?
        .query_map((after, CHUNK as i64), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let late =
        |account| Ok((account, store::is_erased(db, account)? && !personal_rows(db, account)?.is_empty()));
    closed.into_iter().map(late).collect()
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
