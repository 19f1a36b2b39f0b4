//! Frames of other sites into the tables: all of one or nothing of it.

use rusqlite::{Connection, types::Type};

use super::{Derive, Row, StoreError};
use crate::log::{Frame, codec, key};

/// Merges one frame, or nothing of it; see [`merge`].
pub fn merge_whole(db: &Connection, derive: &mut dyn Derive, frame: &Frame) -> rusqlite::Result<()> {
    db.prepare_cached("SAVEPOINT frame")?.raw_execute()?;
    let merged = merge(db, derive, frame);
    // After a failure of the disk SQLite has rolled back everything itself; the first error is the one to tell.
    let ended = match merged {
        Ok(()) => db.prepare_cached("RELEASE frame").and_then(|mut release| release.raw_execute().map(drop)),
        Err(_) => db.execute_batch("ROLLBACK TO frame; RELEASE frame"),
    };
    merged.and(ended)
}

/// Merges one frame, and derives from the rows that it really changed. After an error a part of it may stand in the
/// open transaction.
pub fn merge(db: &Connection, derive: &mut dyn Derive, frame: &Frame) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO crsql_changes (\"table\", pk, cid, val, col_version, db_version, site_id, cl, seq, ts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, '0')",
    )?;
    let mut impacted = db.prepare_cached("SELECT crsql_rows_impacted()")?;
    let mut before: i64 = impacted.query_row([], |row| row.get(0))?;
    let mut rows = Vec::with_capacity(frame.changes.len());
    for change in &frame.changes {
        insert.execute((
            &*change.table,
            &change.key,
            &*change.column,
            &change.value,
            change.column_version,
            frame.version.0.cast_signed(),
            frame.site.0,
            change.causal_length,
            change.sequence,
        ))?;
        let after: i64 = impacted.query_row([], |row| row.get(0))?;
        // A change that lost against what is here (an original that arrives after its erasure) derives nothing.
        if std::mem::replace(&mut before, after) != after && &*change.column == "data" {
            let malformed = |error: key::Malformed| {
                rusqlite::Error::FromSqlConversionFailure(1, Type::Blob, error.into())
            };
            rows.push(Row {
                table: &change.table,
                key: key::unpack(&change.key).map_err(malformed)?,
                data: change.value.as_blob(),
                site: frame.site,
                version: frame.version,
            });
        }
    }
    derive.derive(db, &rows)
}

/// Sets aside a frame that can't be merged: it counts as held, and is tried again after the next migration.
pub fn quarantine(db: &Connection, frame: &Frame, error: &rusqlite::Error) -> Result<(), StoreError> {
    let bytes = codec::encode(frame)
        .map_err(|e| StoreError::from(rusqlite::Error::ToSqlConversionFailure(e.into())))?;
    db.prepare_cached("INSERT OR REPLACE INTO replication_quarantine VALUES (?1, ?2, ?3, ?4)")?.execute((
        frame.site.0,
        frame.version.0.cast_signed(),
        bytes,
        error.to_string(),
    ))?;
    metrics::counter!("mychat_store_quarantined_total").increment(1);
    tracing::error!(
        site = %frame.site, version = %frame.version, %error,
        "a frame can't be applied and was set aside; the rest goes on"
    );
    Ok(())
}

/// Merges what was set aside and fits by now.
pub fn retry_quarantined(db: &Connection, derive: &mut dyn Derive) -> rusqlite::Result<()> {
    let waiting: Vec<Vec<u8>> = db
        .prepare("SELECT frame FROM replication_quarantine ORDER BY site, version")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for bytes in waiting {
        let Ok(frame) = codec::decode(&bytes) else { continue };
        let transaction = db.unchecked_transaction()?;
        match merge(db, derive, &frame) {
            Ok(()) => {
                transaction.execute(
                    "DELETE FROM replication_quarantine WHERE site = ?1 AND version = ?2",
                    (frame.site.0, frame.version.0.cast_signed()),
                )?;
                transaction.commit()?;
                tracing::info!(site = %frame.site, version = %frame.version, "a frame that had been set aside was applied");
            }
            Err(error) => tracing::debug!(%error, "a frame stays set aside"),
        }
    }
    Ok(())
}
