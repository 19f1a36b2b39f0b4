//! Erases the answers that were kept for idempotency, once nobody may ask for them any more.
//!
//! Each node does so for the answers of all, at a time of its own: whoever is first leaves nothing for the others, and
//! two at the same time erase the same.

use std::time::Duration;

use mychat_replication::{
    log::Value,
    store::{Store, StoreError},
};

use super::write::DAY_MILLIS;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(3600);
/// Rows that are looked at in one read: its snapshot must not keep the write-ahead log from beginning anew.
const PIECE: usize = 1024;
/// Rows that are erased in one job: fewer than a version holds.
const AT_ONCE: usize = 128;
/// The next rows in the order of the keys, and whether there is an answer to erase. Rows stay when their answers are
/// erased, and days have no index: each run goes through all of them, once.
pub(super) const NEXT: &str = "SELECT key, day, day < ?3 AND data IS NOT NULL FROM idempotency
    WHERE (key, day) > (?1, ?2) ORDER BY key, day LIMIT ?4";

/// What names an answer.
type Key = (Vec<u8>, i64);

/// What a run did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Rows that it has looked at.
    pub(super) looked_at: usize,
    /// Answers that it has erased.
    pub(super) erased: usize,
}

/// Erases again and again.
pub async fn run(store: Store) {
    // Nodes that were started together must not all look together.
    tokio::time::sleep(PERIOD.mul_f64(rand::random())).await;
    loop {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        match erase(&store, now).await {
            Ok(Run { erased: 0, .. }) => {}
            Ok(Run { erased, .. }) => tracing::debug!(erased, "answers kept for idempotency were erased"),
            Err(error) => tracing::debug!(%error, "kept answers can't be erased now"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Erases what is older than a day, by the days that the keys name.
pub(super) async fn erase(store: &Store, now_millis: u64) -> Result<Run, StoreError> {
    // An answer of yesterday may be less than a day old.
    let yesterday = (now_millis / DAY_MILLIS).saturating_sub(1).cast_signed();
    let mut run = Run { looked_at: 0, erased: 0 };
    let mut after = (Vec::new(), i64::MIN);
    loop {
        let rows = store.read(move |db| next(db, after, yesterday)).await?;
        run.looked_at += rows.len();
        let Some((last, _)) = rows.last() else { return Ok(run) };
        after = last.clone();
        let old: Vec<Key> = rows.into_iter().filter_map(|(key, is_old)| is_old.then_some(key)).collect();
        for some in old.chunks(AT_ONCE) {
            let some = some.to_vec();
            run.erased += some.len();
            store
                .write(move |batch| {
                    for (key, day) in some {
                        batch.set("idempotency", vec![Value::Blob(key), Value::Integer(day)], None);
                    }
                    Ok::<_, StoreError>(())
                })
                .await?;
        }
    }
}

/// The rows after that one, and whether the answer in each is to be erased.
fn next(db: &rusqlite::Connection, after: Key, yesterday: i64) -> Result<Vec<(Key, bool)>, StoreError> {
    let mut statement = db.prepare_cached(NEXT)?;
    let row = |row: &rusqlite::Row<'_>| Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
    let rows = statement.query_map((after.0, after.1, yesterday, PIECE as i64), row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
