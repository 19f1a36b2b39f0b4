//! Texts that are still there though they are deleted: they arrived after the deletion, or whoever deleted them was
//! stopped before the end.

use mychat_replication::store::{Batch, Store, StoreError};
use rusqlite::{Connection, params};

use super::{
    facts::{self, EDITED_SQL, PRESENT_SQL},
    purge, store,
};
use crate::ids::{MessageId, SpaceId};

/// Messages that are looked for, and overwritten, at a time.
const CHUNK: usize = 100;

type Key = (SpaceId, MessageId);

/// Overwrites every text that a purge or a deletion covers; says of how many messages.
///
/// # Errors
/// What the store says.
pub async fn overwrite_deleted(store: &Store) -> Result<usize, StoreError> {
    let mut overwritten = 0;
    let spaces = store.read(|db| Ok::<_, StoreError>(purge::spaces(db)?)).await?;
    for space in spaces {
        overwritten += purge::overwrite_purged(store, space).await?;
    }
    for find in [deleted, duplicates_of_deleted] {
        let mut after = None;
        loop {
            let found = store.read(move |db| Ok::<_, StoreError>(find(db, after)?)).await?;
            let (count, last) = (found.len(), found.last().copied());
            if count > 0 {
                store.write(move |batch| Ok::<_, StoreError>(overwrite(batch, &found)?)).await?;
            }
            overwritten += count;
            if count < CHUNK {
                break;
            }
            after = last;
        }
    }
    Ok(overwritten)
}

fn overwrite(batch: &mut Batch<'_>, messages: &[Key]) -> rusqlite::Result<()> {
    for (space, id) in messages {
        let sent = store::row(batch.connection(), *space, *id)?.filter(|sent| !sent.erased);
        facts::erase(batch, *space, *id, sent.as_ref())?;
    }
    Ok(())
}

/// The next messages behind `after` that are deleted and still have their text, or an edit's.
fn deleted(db: &Connection, after: Option<Key>) -> rusqlite::Result<Vec<Key>> {
    let sql = format!(
        "SELECT s.space, s.message FROM local_message_state s
         WHERE s.deleted AND (s.space, s.message) > (?1, ?2) AND (
           EXISTS (SELECT 1 FROM message m WHERE m.space = s.space AND m.id = s.message AND {PRESENT_SQL})
           OR EXISTS (SELECT 1 FROM message_revision r
                      WHERE r.space = s.space AND r.message = s.message AND {EDITED_SQL}))
         ORDER BY s.space, s.message LIMIT ?3"
    );
    keys(db, &sql, after)
}

/// The same of messages that repeat one that is deleted.
fn duplicates_of_deleted(db: &Connection, after: Option<Key>) -> rusqlite::Result<Vec<Key>> {
    let sql = format!(
        "SELECT d.space, d.message FROM local_duplicate d
         JOIN local_message_state s ON s.space = d.space AND s.message = d.original
         WHERE s.deleted AND (d.space, d.message) > (?1, ?2) AND (
           EXISTS (SELECT 1 FROM message m WHERE m.space = d.space AND m.id = d.message AND {PRESENT_SQL})
           OR EXISTS (SELECT 1 FROM message_revision r
                      WHERE r.space = d.space AND r.message = d.message AND {EDITED_SQL}))
         ORDER BY d.space, d.message LIMIT ?3"
    );
    keys(db, &sql, after)
}

fn keys(db: &Connection, sql: &str, after: Option<Key>) -> rusqlite::Result<Vec<Key>> {
    let (space, message) = after.map_or((Vec::new(), Vec::new()), |(space, message)| {
        (space.bytes().to_vec(), message.bytes().to_vec())
    });
    db.prepare_cached(sql)?
        .query_map(params![space, message, CHUNK as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
