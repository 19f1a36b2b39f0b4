//! Frames of other sites into the tables: all of one or nothing of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::{Connection, types::Type};

use super::{Derive, Row, fresh::Fresh, later, tables::Tables};
use crate::{
    log::{Change, Frame, key},
    mutation::{self, Mutation},
};

/// How a frame is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merging {
    /// After an error a part of the frame stands in the open transaction, which must be rolled back.
    Plain,
    /// Within a savepoint: an error leaves nothing of the frame. Dear, since the pages that it changes are copied first.
    Guarded,
}

/// Merges changes for which the tables have a place, and derives from the rows that they really changed.
///
/// If the disk fails the whole transaction is lost; see [`Merging`] for other errors.
pub fn merge(
    db: &Connection,
    tables: &Tables,
    derive: &mut dyn Derive,
    frame: &Frame,
    merging: Merging,
) -> rusqlite::Result<()> {
    let merged = match merging {
        Merging::Plain => merge_changes(db, tables, derive, frame),
        Merging::Guarded => whole_or_nothing(db, || merge_changes(db, tables, derive, frame)),
    };
    if merged.is_err() {
        // While the extension merges a change, it does not record what its triggers see; a change that fails leaves
        // it so, and what this node wrote from then on would be in no log.
        db.query_row("SELECT crsql_internal_sync_bit(0)", [], |_| Ok(()))?;
    }
    merged
}

/// Does a part of a transaction; an error takes back that part alone.
pub fn whole_or_nothing(
    db: &Connection,
    part: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    db.prepare_cached("SAVEPOINT part")?.raw_execute()?;
    let done = part();
    // After a failure of the disk SQLite has rolled back everything itself; the first error is the one to tell.
    let ended = match done {
        Ok(()) => db.prepare_cached("RELEASE part").and_then(|mut release| release.raw_execute().map(drop)),
        Err(_) => db.execute_batch("ROLLBACK TO part; RELEASE part"),
    };
    done.and(ended)
}

fn merge_changes(
    db: &Connection,
    tables: &Tables,
    derive: &mut dyn Derive,
    frame: &Frame,
) -> rusqlite::Result<()> {
    let mut fresh = Fresh::new(db, frame)?;
    let mut rows = Vec::with_capacity(frame.changes.len());
    for change in &frame.changes {
        let malformed =
            |error: key::Malformed| rusqlite::Error::FromSqlConversionFailure(1, Type::Blob, error.into());
        let key = key::unpack(&change.key).map_err(malformed)?;
        let changed = fresh.write(tables.fresh(&change.table), change, &key)? || {
            fresh.pause()?;
            by_the_extension(db, frame, change)?
        };
        // A change that lost against what is here (an original that arrives after its erasure) derives nothing.
        if changed && &*change.column == "data" {
            let row = Row {
                table: &change.table,
                key,
                data: change.value.as_blob(),
                site: frame.site,
                version: frame.version,
            };
            if !derive.understands(&row) {
                later::note_row(db, &row, &change.key)?;
            }
            rows.push(row);
        }
    }
    fresh.finish()?;
    if mutation::is_on(Mutation::DeriveLess) && frame.version.0.is_multiple_of(13) {
        rows.clear();
    }
    derived(db, derive, &rows)
}

/// Has the extension merge a change; says whether that changed anything.
fn by_the_extension(db: &Connection, frame: &Frame, change: &Change) -> rusqlite::Result<bool> {
    let mut insert = db.prepare_cached(
        "INSERT INTO crsql_changes (\"table\", pk, cid, val, col_version, db_version, site_id, cl, seq, ts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, '0')",
    )?;
    let mut impacted = db.prepare_cached("SELECT crsql_rows_impacted()")?;
    let before: i64 = impacted.query_row([], |row| row.get(0))?;
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
    Ok(before != after)
}

/// Derives from rows. A bug in it that one row of one peer lays bare must not end the writer: a panic is an error too.
pub fn derived(db: &Connection, derive: &mut dyn Derive, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    catch_unwind(AssertUnwindSafe(|| derive.derive(db, rows))).unwrap_or_else(|_| {
        Err(rusqlite::Error::ToSqlConversionFailure("deriving the local tables from it panicked".into()))
    })
}
