//! The tables of read marks, how the local one is derived, and the count of what is unread.

use mychat_replication::{
    clock::Stamp,
    log::Value,
    store::{Batch, Migration, Row},
};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{AccountId, MessageId, SpaceId},
    messages, packed, spaces,
};

/// The replicated table.
const TABLE: &str = "read_mark";

/// The tables of this domain.
pub const MIGRATIONS: &[Migration] = &[Migration {
    domain: "notifications",
    number: 1,
    sql: "
        -- How far an account has read a space, as told to each site; the largest message holds.
        CREATE TABLE read_mark (
            account BLOB NOT NULL, space BLOB NOT NULL, site BLOB NOT NULL, data BLOB,
            PRIMARY KEY (account, space, site)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('read_mark');
        -- The mark that holds.
        CREATE TABLE local_read (
            account BLOB NOT NULL, space BLOB NOT NULL, message BLOB NOT NULL, PRIMARY KEY (account, space)
        ) STRICT, WITHOUT ROWID;",
}];

/// How many of a space's latest messages are looked at for the unread count, which is therefore bounded by it.
pub const UNREAD_WITHIN: u32 = 1000;

/// `data` of `read_mark`. `at` is the stamp of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReadMark {
    pub message: MessageId,
    pub at: u64,
}

impl ReadMark {
    pub fn stamp(self) -> Stamp {
        Stamp::from_u64(self.at)
    }
}

/// Moves the account's mark forward to `message`; one that is there or behind it already stays. Says whether it
/// moved.
pub(super) fn read(
    batch: &mut Batch<'_>,
    account: AccountId,
    space: SpaceId,
    message: MessageId,
) -> rusqlite::Result<bool> {
    if mark(batch.connection(), account, space)?.is_some_and(|mark| mark >= message) {
        return Ok(false);
    }
    let data = packed::encode(&ReadMark { message, at: batch.stamp().to_u64() });
    let key = vec![account.value(), space.value(), Value::Blob(batch.site().0.to_vec())];
    batch.set("read_mark", key, Some(data));
    Ok(true)
}

/// The account, space and content of a row of `read_mark`.
pub(super) fn decode(row: &Row<'_>) -> Option<(AccountId, SpaceId, ReadMark)> {
    if row.table != TABLE {
        return None;
    }
    let account = row.key.first().and_then(AccountId::from_value)?;
    let space = row.key.get(1).and_then(SpaceId::from_value)?;
    Some((account, space, row.data.and_then(packed::decode)?))
}

/// The account that alone hears of a row of this domain; `None` for rows of others.
#[must_use]
pub fn heard_by(table: &str, key: &[Value]) -> Option<AccountId> {
    key.first().filter(|_| table == TABLE).and_then(AccountId::from_value)
}

/// Brings `local_read` up to date with `rows`. Marks only grow, so their order can't matter.
///
/// # Errors
/// What SQLite says.
pub fn derive(db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    for (account, space, mark) in rows.iter().filter_map(decode) {
        db.prepare_cached(
            "INSERT INTO local_read (account, space, message) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET message = max(message, excluded.message)",
        )?
        .execute(params![account, space, mark.message])?;
    }
    Ok(())
}

/// The latest message that the account has read in the space.
///
/// # Errors
/// What SQLite says.
pub fn mark(db: &Connection, account: AccountId, space: SpaceId) -> rusqlite::Result<Option<MessageId>> {
    db.prepare_cached("SELECT message FROM local_read WHERE account = ?1 AND space = ?2")?
        .query_row((account, space), |row| row.get(0))
        .optional()
}

/// How many messages of others a member has not read, among the latest [`UNREAD_WITHIN`]; 0 for those who are no
/// members.
///
/// # Errors
/// What SQLite says.
pub fn unread(db: &Connection, space: SpaceId, account: AccountId) -> rusqlite::Result<u32> {
    let Some(since) = spaces::since(db, space, account)? else { return Ok(0) };
    // Messages that were there when somebody joined are history.
    let joined = MessageId::from_stamp(since, 0);
    let after = mark(db, account, space)?.map_or(joined, |mark| mark.max(joined));
    messages::unread_after(db, space, account, after, UNREAD_WITHIN)
}
