//! What can't be taken in now and is kept for later: changes that a newer program wrote, and frames that fail.
//!
//! During a roll-out nodes of two releases run together. What the older one can't place is part of the log all the
//! same: it counts in the vector, is served to others, and finds its place once this node is upgraded.
//!
//! - A change for a table or column that the database lacks is **held**. The rest of its frame is merged at once: one
//!   frame has the writes of many callers, and people must not wait for each other's messages until the roll-out is
//!   over. So equal vectors mean equal tables as far as a node has the tables (I4), and after the migration in all.
//! - A row in a format that [`Derive`] does not understand is in its table like any other; that the local tables lack
//!   it is **noted**, and made up for by the first program that understands it.
//! - A frame that the database or [`Derive`] refuses is **quarantined**: a fault, for which there is an alarm.
//!
//! Each start of the store tries all three again.

use std::{collections::HashSet, sync::Arc};

use rusqlite::{Connection, OptionalExtension};

use super::{
    Derive, Row, StoreError, is_environment,
    merge::{self, Merging},
    tables::Tables,
};
use crate::{
    NodeId,
    log::{Change, Frame, SiteId, Version, codec, key},
};

/// Frames or rows that are tried again in one transaction.
const BATCH: usize = 256;

/// What is kept for later, as far as it has to be remembered outside the database.
pub struct Later {
    node: NodeId,
    /// Tables that a newer program has, as far as the log has said so.
    announced: HashSet<Arc<str>>,
    held: u64,
    quarantined: u64,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// A part of it waits for a migration.
    pub held: bool,
    /// It, or the part that is not held, is a fault.
    pub quarantined: bool,
}

impl Later {
    /// Tries again what is kept in the database.
    ///
    /// A disk that refuses does not keep a node from starting: it goes on with what it has, and tries at the next
    /// start.
    pub fn open(
        db: &Connection,
        tables: &Tables,
        derive: &mut dyn Derive,
        node: NodeId,
    ) -> rusqlite::Result<Self> {
        let retried = Aside::HELD
            .retry(db, tables, derive)
            .and_then(|()| Aside::QUARANTINED.retry(db, tables, derive))
            .and_then(|()| derive_noted(db, tables, derive));
        if let Err(error) = retried {
            if !db.is_autocommit() {
                db.execute_batch("ROLLBACK")?;
            }
            tracing::warn!(%error, "what was kept for later can't be tried again now");
        }
        let count = |table: &str| -> rusqlite::Result<u64> {
            let rows: i64 = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
            Ok(rows.cast_unsigned())
        };
        let later = Self {
            node,
            announced: HashSet::new(),
            held: count("replication_held")?,
            quarantined: count("replication_quarantine")?,
        };
        if later.held > 0 {
            tracing::info!(frames = later.held, "changes of a newer program wait for this node's upgrade");
        }
        if later.quarantined > 0 {
            tracing::error!(
                frames = later.quarantined,
                "frames that can't be applied lie in the table replication_quarantine, with the reason of each"
            );
        }
        let rows = count("replication_underived")?;
        if rows > 0 {
            tracing::info!(rows, "rows of a newer program are kept and not shown until this node's upgrade");
        }
        later.tell();
        Ok(later)
    }

    /// Merges what there is a place for, and keeps the rest.
    ///
    /// # Errors
    /// When the machine fails; the transaction is lost then. With [`Merging::Plain`] also when the frame is at fault:
    /// it is quarantined only within a savepoint.
    pub fn merge(
        &mut self,
        db: &Connection,
        tables: &Tables,
        derive: &mut dyn Derive,
        frame: &Frame,
        merging: Merging,
    ) -> Result<Kept, StoreError> {
        let (known, unknown) = split(tables, frame);
        let mut kept = Kept::default();
        if let Some(unknown) = unknown {
            self.announce(&unknown);
            Aside::HELD.put(db, &unknown, None)?;
            kept.held = true;
        }
        let known = known.as_ref().unwrap_or(frame);
        if let Err(error) = merge::merge(db, tables, derive, known, merging) {
            if merging == Merging::Plain || is_environment(&error) {
                return Err(error.into());
            }
            quarantine(db, known, &error)?;
            kept.quarantined = true;
        }
        Ok(kept)
    }

    /// Counts what a commit has kept.
    pub fn committed(&mut self, held: usize, quarantined: usize) {
        if held + quarantined > 0 {
            self.held += held as u64;
            self.quarantined += quarantined as u64;
            self.tell();
        }
    }

    fn tell(&self) {
        let node = self.node.to_string();
        metrics::gauge!("mychat_store_held_frames", "node" => node.clone()).set(self.held as f64);
        metrics::gauge!("mychat_store_quarantined", "node" => node).set(self.quarantined as f64);
    }

    fn announce(&mut self, unknown: &Frame) {
        for change in &unknown.changes {
            if self.announced.insert(Arc::clone(&change.table)) {
                tracing::info!(
                    table = %change.table, column = %change.column,
                    "a newer program writes what this one has no table or column for: it is kept until this node's upgrade"
                );
            }
        }
    }
}

/// The changes that there is a place for, where that is not all of them, and the others, if there are any.
fn split(tables: &Tables, frame: &Frame) -> (Option<Frame>, Option<Frame>) {
    if frame.changes.iter().all(|change| tables.have(change)) {
        return (None, None);
    }
    let (known, unknown): (Vec<Change>, Vec<Change>) =
        frame.changes.iter().cloned().partition(|change| tables.have(change));
    let with = |changes| Some(Frame { changes, ..frame.clone() });
    (with(known), with(unknown))
}

/// Sets aside a frame that can't be merged.
fn quarantine(db: &Connection, frame: &Frame, error: &rusqlite::Error) -> Result<(), StoreError> {
    Aside::QUARANTINED.put(db, frame, Some(&error.to_string()))?;
    metrics::counter!("mychat_store_quarantined_total").increment(1);
    tracing::error!(
        site = %frame.site, version = %frame.version, %error,
        "a frame can't be applied and was set aside; the rest goes on"
    );
    Ok(())
}

/// One of the two tables of frames that were set aside.
struct Aside {
    /// What lies here is a fault; else it only waits for a table or column.
    fault: bool,
    next: &'static str,
    put: &'static str,
    delete: &'static str,
}

impl Aside {
    const HELD: Self = Self {
        fault: false,
        next: "SELECT site, version, frame FROM replication_held WHERE (site, version) > (?1, ?2)
               ORDER BY site, version LIMIT 1",
        put: "INSERT OR REPLACE INTO replication_held VALUES (?1, ?2, ?3)",
        delete: "DELETE FROM replication_held WHERE site = ?1 AND version = ?2",
    };
    const QUARANTINED: Self = Self {
        fault: true,
        next: "SELECT site, version, frame FROM replication_quarantine WHERE (site, version) > (?1, ?2)
               ORDER BY site, version LIMIT 1",
        put: "INSERT OR REPLACE INTO replication_quarantine VALUES (?1, ?2, ?3, ?4)",
        delete: "DELETE FROM replication_quarantine WHERE site = ?1 AND version = ?2",
    };

    fn put(&self, db: &Connection, frame: &Frame, reason: Option<&str>) -> Result<(), StoreError> {
        let bytes = codec::encode(frame)
            .map_err(|e| StoreError::from(rusqlite::Error::ToSqlConversionFailure(e.into())))?;
        let (site, version) = (frame.site.0, frame.version.0.cast_signed());
        let mut put = db.prepare_cached(self.put)?;
        match reason {
            Some(reason) => put.execute((site, version, bytes, reason))?,
            None => put.execute((site, version, bytes))?,
        };
        Ok(())
    }

    /// The first frame that lies here after a place: its own place, and its bytes.
    fn next(&self, db: &Connection, after: &Place) -> rusqlite::Result<Option<(Place, Vec<u8>)>> {
        db.prepare_cached(self.next)?
            .query_row((&after.0, after.1), |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))
            .optional()
    }

    /// Merges what fits by now, a batch of frames in each transaction.
    fn retry(&self, db: &Connection, tables: &Tables, derive: &mut dyn Derive) -> Result<(), StoreError> {
        let mut after = Place::default();
        // This look is a read: nothing is written when nothing is there.
        while self.next(db, &after)?.is_some() {
            let transaction = db.unchecked_transaction()?;
            let mut done = 0;
            for _ in 0..BATCH {
                let Some((place, bytes)) = self.next(&transaction, &after)? else { break };
                after = place;
                match codec::decode(&bytes) {
                    Ok(frame) => {
                        done += usize::from(self.retry_frame(&transaction, tables, derive, &frame)?)
                    }
                    Err(error) => tracing::error!(%error, "a frame that was set aside can't be read back"),
                }
            }
            transaction.commit()?;
            if done > 0 {
                tracing::info!(frames = done, "changes that had been set aside were applied");
            }
        }
        Ok(())
    }

    /// Merges of a frame what fits; says whether anything did.
    fn retry_frame(
        &self,
        db: &Connection,
        tables: &Tables,
        derive: &mut dyn Derive,
        frame: &Frame,
    ) -> Result<bool, StoreError> {
        let (known, unknown) = split(tables, frame);
        let known = known.as_ref().unwrap_or(frame);
        if known.changes.is_empty() {
            return Ok(false);
        }
        let merged = merge::merge(db, tables, derive, known, Merging::Guarded);
        match &merged {
            Err(error) if is_environment(error) => return merged.map(|()| false).map_err(StoreError::from),
            Err(error) if self.fault => {
                tracing::debug!(site = %frame.site, version = %frame.version, %error, "a frame stays set aside");
                return Ok(false);
            }
            Err(error) => quarantine(db, known, error)?,
            Ok(()) => {}
        }
        db.prepare_cached(self.delete)?.execute((frame.site.0, frame.version.0.cast_signed()))?;
        if let Some(unknown) = unknown {
            Self::HELD.put(db, &unknown, None)?;
        }
        Ok(merged.is_ok())
    }
}

/// Where a frame lies: its site and version.
type Place = (Vec<u8>, i64);

/// Notes a row whose data is not understood.
pub fn note_row(db: &Connection, row: &Row<'_>, packed_key: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO replication_underived VALUES (?1, ?2, ?3, ?4)")?.execute((
        row.table,
        packed_key,
        row.site.0,
        row.version.0.cast_signed(),
    ))?;
    metrics::counter!("mychat_store_rows_not_understood_total").increment(1);
    Ok(())
}

/// Derives from the noted rows that are understood by now.
fn derive_noted(db: &Connection, tables: &Tables, derive: &mut dyn Derive) -> Result<(), StoreError> {
    let mut after = (String::new(), Vec::new());
    loop {
        let noted = noted(db, &after)?;
        let Some((name, key, ..)) = noted.last() else { return Ok(()) };
        after = (name.clone(), key.clone());
        let transaction = db.unchecked_transaction()?;
        for (name, packed, site, version) in &noted {
            let Ok(key) = key::unpack(packed) else { continue };
            let data = tables.data(&transaction, name, &key)?;
            let row = Row { table: name, key, data: data.as_deref(), site: *site, version: *version };
            if !derive.understands(&row) {
                continue;
            }
            match merge::whole_or_nothing(db, || merge::derived(db, derive, &[row])) {
                Ok(()) => {}
                Err(error) if is_environment(&error) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(table = name, %error, "a row of a newer program can't be derived from");
                    continue;
                }
            }
            db.prepare_cached("DELETE FROM replication_underived WHERE name = ?1 AND key = ?2")?
                .execute((name, packed))?;
        }
        transaction.commit()?;
    }
}

/// A noted row: its table and packed key, and who wrote it in which version.
type Noted = (String, Vec<u8>, SiteId, Version);

fn noted(db: &Connection, after: &(String, Vec<u8>)) -> rusqlite::Result<Vec<Noted>> {
    db.prepare_cached(
        "SELECT name, key, site, version FROM replication_underived WHERE (name, key) > (?1, ?2)
         ORDER BY name, key LIMIT 256",
    )?
    .query_map((&after.0, &after.1), |row| {
        Ok((row.get(0)?, row.get(1)?, SiteId(row.get(2)?), Version(row.get::<_, i64>(3)?.cast_unsigned())))
    })?
    .collect()
}
