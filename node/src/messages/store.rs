//! The tables of messages, and how the local ones are derived from the replicated.

use mychat_replication::{
    log::Value,
    store::{Migration, Row},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::facts::{AUTHOR_SQL, PRESENT_SQL, PurgeFact, Reaction, Revision, Sent};
use crate::{
    ids::{AccountId, At, MessageId, SpaceId},
    packed,
};

/// The tables of this domain.
pub const MIGRATIONS: &[Migration] = &[
    Migration { domain: "messages", number: 1, sql: TABLES },
    Migration { domain: "messages", number: 2, sql: SENT_BY_CLIENT_ID },
    Migration { domain: "messages", number: 3, sql: NUMBERED_BY_TIME },
];

const TABLES: &str = "
        -- A message, written once; overwritten only by its tombstone. Also the history of the space: ids sort by
        -- the time of sending.
        CREATE TABLE message (space BLOB NOT NULL, id BLOB NOT NULL, data BLOB, PRIMARY KEY (space, id))
            STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('message');
        -- Stamped facts: the latest edit holds, unless there is a deletion.
        CREATE TABLE message_revision (
            space BLOB NOT NULL, message BLOB NOT NULL, stamp BLOB NOT NULL, data BLOB,
            PRIMARY KEY (space, message, stamp)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('message_revision');
        -- Stamped facts: the latest on an account's reaction holds.
        CREATE TABLE reaction (
            space BLOB NOT NULL, message BLOB NOT NULL, account BLOB NOT NULL, emoji TEXT NOT NULL,
            stamp BLOB NOT NULL, data BLOB, PRIMARY KEY (space, message, account, emoji, stamp)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('reaction');
        -- Stamped facts: all of them hold.
        CREATE TABLE message_purge (space BLOB NOT NULL, stamp BLOB NOT NULL, data BLOB, PRIMARY KEY (space, stamp))
            STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('message_purge');

        -- Which message a client's own id of it stands for.
        CREATE TABLE local_sent (
            space BLOB NOT NULL, author BLOB NOT NULL, client_id TEXT NOT NULL, message BLOB NOT NULL,
            PRIMARY KEY (space, author, client_id)
        ) STRICT, WITHOUT ROWID;
        -- Messages that repeat another one's client id, and which one that is.
        CREATE TABLE local_duplicate (
            space BLOB NOT NULL, message BLOB NOT NULL, original BLOB NOT NULL, PRIMARY KEY (space, message)
        ) STRICT, WITHOUT ROWID;
        -- Messages that were edited or deleted.
        CREATE TABLE local_message_state (
            space BLOB NOT NULL, message BLOB NOT NULL, edited BLOB, body TEXT, mentions BLOB,
            deleted INTEGER NOT NULL, PRIMARY KEY (space, message)
        ) STRICT, WITHOUT ROWID;
        -- Reactions that stand.
        CREATE TABLE local_reaction (
            space BLOB NOT NULL, message BLOB NOT NULL, emoji TEXT NOT NULL, account BLOB NOT NULL,
            PRIMARY KEY (space, message, emoji, account)
        ) STRICT, WITHOUT ROWID;";

/// Client ids that sort by time, as those of the web client do, are added at the end of the table; with the space in front
/// they were scattered over as many pages as there are spaces, and each commit wrote them all.
const SENT_BY_CLIENT_ID: &str = "
        CREATE TABLE local_client_id (
            client_id TEXT NOT NULL, author BLOB NOT NULL, space BLOB NOT NULL, message BLOB NOT NULL,
            PRIMARY KEY (client_id, author, space)
        ) STRICT, WITHOUT ROWID;
        INSERT INTO local_client_id SELECT client_id, author, space, message FROM local_sent ORDER BY 1, 2, 3;
        DROP TABLE local_sent;";

/// The extension numbers keys, and finds the number of one in an index that it keeps by the columns of the key in their
/// order. With the space in front new messages were scattered over it, too; ids are sorted by time, so with them in front
/// they are added at its end. It looks for whole keys alone, for which the order does not matter.
const NUMBERED_BY_TIME: &str = "
        DROP INDEX message__crsql_pks_pks;
        CREATE UNIQUE INDEX message__crsql_pks_pks ON message__crsql_pks (id, space);";

/// Whether a replicated table belongs to this domain.
pub(super) fn is_table(table: &str) -> bool {
    matches!(table, "message" | "message_revision" | "reaction" | "message_purge")
}

/// The space whose members alone hear of a row of this domain; `None` for rows of others.
#[must_use]
pub fn heard_in(table: &str, key: &[Value]) -> Option<SpaceId> {
    key.first().filter(|_| is_table(table)).and_then(SpaceId::from_value)
}

/// Brings the local tables up to date with `rows`, which are in their tables already.
///
/// # Errors
/// What SQLite says.
pub fn derive(db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    for row in rows {
        let Some(data) = row.data.filter(|_| is_table(row.table)) else { continue };
        let space = row.key.first().and_then(SpaceId::from_value);
        let message = row.key.get(1).and_then(MessageId::from_value);
        let (Some(space), Some(message)) = (space, message) else { continue };
        match row.table {
            "message" => {
                if let Some(Sent { author, client_id: Some(client_id), .. }) = packed::decode(data) {
                    note_client_id(db, space, author, &client_id, message)?;
                }
            }
            "message_revision" => {
                let at = row.key.get(2).and_then(At::from_value);
                if let (Some(at), Some(revision)) = (at, packed::decode(data)) {
                    note_revision(db, space, message, at, &revision)?;
                }
            }
            "reaction" => {
                if let (Some(account), Some(mychat_replication::log::Value::Text(emoji))) =
                    (row.key.get(2).and_then(AccountId::from_value), row.key.get(3))
                {
                    refresh_reaction(db, space, message, account, emoji)?;
                }
            }
            // Purges are read where they are: they are few, and cover messages that are yet to come.
            _ => {}
        }
    }
    Ok(())
}

/// The smallest id among an author's messages with the same client id is the message, the others are duplicates.
fn note_client_id(
    db: &Connection,
    space: SpaceId,
    author: AccountId,
    client_id: &str,
    message: MessageId,
) -> rusqlite::Result<()> {
    let new = db
        .prepare_cached(
            "INSERT INTO local_client_id (space, author, client_id, message) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![space, author, client_id, message])?;
    if new > 0 {
        return Ok(());
    }
    let Some(known) = sent(db, space, author, client_id)?.filter(|known| *known != message) else {
        return Ok(());
    };
    if message < known {
        db.prepare_cached(
            "UPDATE local_client_id SET message = ?4 WHERE space = ?1 AND author = ?2 AND client_id = ?3",
        )?
        .execute(params![space, author, client_id, message])?;
    }
    let (original, duplicate) = (message.min(known), message.max(known));
    // What repeated the duplicate so far repeats the original now.
    db.prepare_cached("UPDATE local_duplicate SET original = ?3 WHERE space = ?1 AND original = ?2")?
        .execute((space, duplicate, original))?;
    db.prepare_cached(
        "INSERT OR REPLACE INTO local_duplicate (space, message, original) VALUES (?1, ?2, ?3)",
    )?
    .execute((space, duplicate, original))?;
    Ok(())
}

/// The latest edit counts; a deletion takes away the text of all of them, whenever they come.
fn note_revision(
    db: &Connection,
    space: SpaceId,
    message: MessageId,
    at: At,
    revision: &Revision,
) -> rusqlite::Result<()> {
    let (edited, body, mentions, deleted) = match revision {
        Revision::Edited { body, mentions, .. } => {
            (Some(at.bytes()), Some(body), Some(packed::encode(mentions)), false)
        }
        Revision::Erased { .. } => (Some(at.bytes()), None, None, false),
        Revision::Deleted { .. } => (None, None, None, true),
    };
    // In an upsert all right-hand sides see the line as it was before.
    db.prepare_cached(
        "INSERT INTO local_message_state AS s (space, message, edited, body, mentions, deleted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET
           body = iif(s.deleted OR excluded.deleted, NULL,
                      iif(excluded.edited >= coalesce(s.edited, x''), excluded.body, s.body)),
           mentions = iif(s.deleted OR excluded.deleted, NULL,
                          iif(excluded.edited >= coalesce(s.edited, x''), excluded.mentions, s.mentions)),
           edited = iif(excluded.edited >= coalesce(s.edited, x''), excluded.edited, s.edited),
           deleted = s.deleted OR excluded.deleted",
    )?
    .execute(params![space, message, edited, body, mentions, deleted])?;
    Ok(())
}

fn refresh_reaction(
    db: &Connection,
    space: SpaceId,
    message: MessageId,
    account: AccountId,
    emoji: &str,
) -> rusqlite::Result<()> {
    let latest: Option<Option<Vec<u8>>> = db
        .prepare_cached(
            "SELECT data FROM reaction WHERE space = ?1 AND message = ?2 AND account = ?3 AND emoji = ?4
             ORDER BY stamp DESC LIMIT 1",
        )?
        .query_row(params![space, message, account, emoji], |row| row.get(0))
        .optional()?;
    let on =
        latest.flatten().and_then(|data| packed::decode(&data)).is_some_and(|reaction: Reaction| reaction.on);
    let sql = if on {
        "INSERT OR IGNORE INTO local_reaction (space, message, account, emoji) VALUES (?1, ?2, ?3, ?4)"
    } else {
        "DELETE FROM local_reaction WHERE space = ?1 AND message = ?2 AND account = ?3 AND emoji = ?4"
    };
    db.prepare_cached(sql)?.execute(params![space, message, account, emoji])?;
    Ok(())
}

/// The message that an author's client id stands for.
pub(super) fn sent(
    db: &Connection,
    space: SpaceId,
    author: AccountId,
    client_id: &str,
) -> rusqlite::Result<Option<MessageId>> {
    db.prepare_cached(
        "SELECT message FROM local_client_id WHERE space = ?1 AND author = ?2 AND client_id = ?3",
    )?
    .query_row((space, author, client_id), |row| row.get(0))
    .optional()
}

/// The message that an id stands for: itself, or for a duplicate its original; `None` for an unknown one.
///
/// # Errors
/// What SQLite says.
pub fn canonical(db: &Connection, space: SpaceId, id: MessageId) -> rusqlite::Result<Option<MessageId>> {
    if let Some(original) = original_of(db, space, id)? {
        return Ok(Some(original));
    }
    let exists = db
        .prepare_cached("SELECT 1 FROM message WHERE space = ?1 AND id = ?2 AND data IS NOT NULL")?
        .exists((space, id))?;
    Ok(exists.then_some(id))
}

/// The message that `id` repeats.
pub(super) fn original_of(
    db: &Connection,
    space: SpaceId,
    id: MessageId,
) -> rusqlite::Result<Option<MessageId>> {
    db.prepare_cached("SELECT original FROM local_duplicate WHERE space = ?1 AND message = ?2")?
        .query_row((space, id), |row| row.get(0))
        .optional()
}

/// The messages that repeat `id`.
pub(super) fn duplicates_of(
    db: &Connection,
    space: SpaceId,
    id: MessageId,
) -> rusqlite::Result<Vec<MessageId>> {
    db.prepare_cached("SELECT message FROM local_duplicate WHERE space = ?1 AND original = ?2")?
        .query_map((space, id), |row| row.get(0))?
        .collect()
}

/// A message's row, duplicate or not.
pub(super) fn row(db: &Connection, space: SpaceId, id: MessageId) -> rusqlite::Result<Option<Sent>> {
    let data: Option<Vec<u8>> = db
        .prepare_cached("SELECT data FROM message WHERE space = ?1 AND id = ?2")?
        .query_row((space, id), |row| row.get(0))
        .optional()?
        .flatten();
    Ok(data.as_deref().and_then(packed::decode))
}

/// How many different reactions an account has on a message.
pub(super) fn reactions_by(
    db: &Connection,
    space: SpaceId,
    message: MessageId,
    account: AccountId,
) -> rusqlite::Result<u32> {
    db.prepare_cached(
        "SELECT count(*) FROM local_reaction WHERE space = ?1 AND message = ?2 AND account = ?3",
    )?
    .query_row((space, message, account), |row| row.get(0))
}

/// Whether an account's reaction stands.
pub(super) fn has_reaction(
    db: &Connection,
    space: SpaceId,
    message: MessageId,
    account: AccountId,
    emoji: &str,
) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM local_reaction WHERE space = ?1 AND message = ?2 AND emoji = ?4 AND account = ?3",
    )?
    .exists(params![space, message, account, emoji])
}

/// The purges of a space.
pub(super) fn purges(db: &Connection, space: SpaceId) -> rusqlite::Result<Vec<PurgeFact>> {
    let mut purges = Vec::new();
    let mut rows = db.prepare_cached("SELECT stamp, data FROM message_purge WHERE space = ?1")?;
    let mut rows = rows.query([space])?;
    while let Some(row) = rows.next()? {
        let (at, data): (Vec<u8>, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?);
        if let (Some(at), Some(purge)) = (At::from_slice(&at), data.as_deref().and_then(packed::decode)) {
            purges.push(PurgeFact { at, purge });
        }
    }
    Ok(purges)
}

/// How many of the latest `bound` messages came after `after` and are by others than `reader`.
///
/// # Errors
/// What SQLite says.
pub fn unread_after(
    db: &Connection,
    space: SpaceId,
    reader: AccountId,
    after: MessageId,
    bound: u32,
) -> rusqlite::Result<u32> {
    db.prepare_cached(&format!(
        "SELECT count(*) FROM (
            SELECT id, data FROM message WHERE space = ?1 AND id > ?3 ORDER BY id DESC LIMIT ?4
         ) m
         WHERE {AUTHOR_SQL} <> ?2 AND {PRESENT_SQL}
           AND NOT EXISTS (SELECT 1 FROM local_duplicate d WHERE d.space = ?1 AND d.message = m.id)"
    ))?
    .query_row(params![space, reader, after, bound], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_move_to_the_table_in_their_own_order() {
        let db = Connection::open_in_memory().unwrap();
        // What the first migration makes; the rest of it needs the extension.
        let of_old =
            TABLES.split_once("CREATE TABLE local_sent").unwrap().1.split_once("WITHOUT ROWID;").unwrap().0;
        db.execute_batch(&format!("CREATE TABLE local_sent {of_old} WITHOUT ROWID")).unwrap();
        let (space, author) = (SpaceId(uuid::Uuid::from_u128(1)), AccountId(uuid::Uuid::from_u128(2)));
        let message = |number| MessageId(uuid::Uuid::from_u128(number));
        for (client_id, number) in [("b", 7_u128), ("a", 8)] {
            db.execute(
                "INSERT INTO local_sent (space, author, client_id, message) VALUES (?1, ?2, ?3, ?4)",
                params![space, author, client_id, message(number)],
            )
            .unwrap();
        }
        db.execute_batch(SENT_BY_CLIENT_ID).unwrap();
        assert_eq!(sent(&db, space, author, "a").unwrap(), Some(message(8)));
        assert_eq!(sent(&db, space, author, "b").unwrap(), Some(message(7)));
        assert_eq!(sent(&db, space, author, "c").unwrap(), None);
    }
}
