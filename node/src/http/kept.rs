//! Takes out of the answers that are kept for idempotency what is deleted or erased by now.
//!
//! An answer holds a copy of what it shows, for a day or two. A repeated call must still find it, or it would be run
//! again: so the copy is blanked, and the answer stays.

use mychat_replication::{
    log::Value,
    store::{Batch, Store, StoreError},
};
use rusqlite::{Connection, OptionalExtension};

use super::write::{Kept, TABLE};
use crate::packed;

/// Answers that are looked at, and overwritten, at a time.
const CHUNK: usize = 100;

/// Blanks an object of an answer if what it shows is gone, and says whether it did. What comes out must depend on the
/// object alone, so that nodes which do it at the same time write the same.
pub(crate) type Blank =
    fn(&Connection, &mut serde_json::Map<String, serde_json::Value>) -> rusqlite::Result<bool>;

/// A row's key.
type Key = (Vec<u8>, i64);

/// A row's data before and after.
struct Blanked {
    key: Key,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// Blanks the objects of all answers; says in how many there were any.
///
/// # Errors
/// What the store says.
pub(crate) async fn blank(store: &Store, blanks: &'static [Blank]) -> Result<usize, StoreError> {
    let (mut count, mut seen) = (0, (Vec::new(), 0));
    loop {
        let after = seen.clone();
        let (last, blanked) = store.read(move |db| Ok::<_, StoreError>(next(db, after, blanks)?)).await?;
        count += blanked.len();
        if !blanked.is_empty() {
            store.write(move |batch| Ok::<_, StoreError>(overwrite(batch, blanked)?)).await?;
        }
        let Some(last) = last else { return Ok(count) };
        seen = last;
    }
}

/// The last of the next answers, and those of them that have to change.
fn next(db: &Connection, after: Key, blanks: &[Blank]) -> rusqlite::Result<(Option<Key>, Vec<Blanked>)> {
    let rows: Vec<(Key, Vec<u8>)> = db
        .prepare_cached(
            "SELECT key, day, data FROM idempotency WHERE (key, day) > (?1, ?2) AND data IS NOT NULL
             ORDER BY key, day LIMIT ?3",
        )?
        .query_map((after.0, after.1, CHUNK as i64), |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let last = rows.last().map(|(key, _)| key.clone());
    let mut blanked = Vec::new();
    for (key, before) in rows {
        let Some(mut kept) = packed::decode::<Kept>(&before) else { continue };
        let Some(mut body) = kept.body.as_deref().and_then(|body| serde_json::from_str(body).ok()) else {
            continue;
        };
        if visit(db, &mut body, blanks)? {
            kept.body = Some(body.to_string());
            blanked.push(Blanked { key, before, after: packed::encode(&kept) });
        }
    }
    Ok((last, blanked))
}

/// Blanks the objects in a value; says whether there were any. JSON that was parsed is not nested without end.
fn visit(db: &Connection, value: &mut serde_json::Value, blanks: &[Blank]) -> rusqlite::Result<bool> {
    let mut any = false;
    match value {
        serde_json::Value::Object(object) => {
            for blank in blanks {
                any |= blank(db, object)?;
            }
            for value in object.values_mut() {
                any |= visit(db, value, blanks)?;
            }
        }
        serde_json::Value::Array(values) => {
            for value in values {
                any |= visit(db, value, blanks)?;
            }
        }
        _ => {}
    }
    Ok(any)
}

/// Overwrites what has not been erased meanwhile.
fn overwrite(batch: &mut Batch<'_>, blanked: Vec<Blanked>) -> rusqlite::Result<()> {
    for Blanked { key: (key, day), before, after } in blanked {
        let now: Option<Option<Vec<u8>>> = batch
            .connection()
            .prepare_cached("SELECT data FROM idempotency WHERE key = ?1 AND day = ?2")?
            .query_row((&key, day), |row| row.get(0))
            .optional()?;
        if now.flatten().is_some_and(|now| now == before) {
            batch.set(TABLE, vec![Value::Blob(key), Value::Integer(day)], Some(after));
        }
    }
    Ok(())
}
