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
/// Rows that are erased in one job: fewer than a version holds.
const AT_ONCE: usize = 128;

/// Erases again and again.
pub async fn run(store: Store) {
    // Nodes that were started together must not all look together.
    tokio::time::sleep(PERIOD.mul_f64(rand::random())).await;
    loop {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        match erase(&store, now).await {
            Ok(0) => {}
            Ok(erased) => tracing::debug!(erased, "answers kept for idempotency were erased"),
            Err(error) => tracing::debug!(%error, "kept answers can't be erased now"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Erases what is older than a day, by the days that the keys name; says how much.
pub(super) async fn erase(store: &Store, now_millis: u64) -> Result<usize, StoreError> {
    // An answer of yesterday may be less than a day old.
    let yesterday = (now_millis / DAY_MILLIS).saturating_sub(1).cast_signed();
    let mut erased = 0;
    loop {
        let old: Vec<(Vec<u8>, i64)> = store
            .read(move |db| {
                let sql = "SELECT key, day FROM idempotency WHERE day < ?1 AND data IS NOT NULL LIMIT ?2";
                let mut statement = db.prepare_cached(sql)?;
                let rows =
                    statement.query_map((yesterday, AT_ONCE as i64), |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok::<_, StoreError>(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await?;
        if old.is_empty() {
            return Ok(erased);
        }
        erased += old.len();
        store
            .write(move |batch| {
                for (key, day) in old {
                    batch.set("idempotency", vec![Value::Blob(key), Value::Integer(day)], None);
                }
                Ok::<_, StoreError>(())
            })
            .await?;
    }
}
