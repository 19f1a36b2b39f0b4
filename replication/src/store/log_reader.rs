//! Reading a site's log back from the database: for peers and clients that are behind.

use std::sync::Arc;

use rusqlite::{Connection, Row, Rows};

use crate::{
    clock::Stamp,
    log::{Change, Frame, GroupId, SiteId, Version, codec},
};

/// Versions that one query looks at. A bound in the query keeps it from sorting all that is left of a long log.
const SPAN: u64 = 512;

/// A part of a site's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRead {
    /// Consecutive frames. The last may be empty: what lies between has been overwritten since.
    pub frames: Vec<Frame>,
    /// Whether they reach the end of what this node holds.
    pub complete: bool,
}

/// The frames of `site` from after `after` on: at least one if there is any, then as many as fit `max_bytes`.
///
/// Bounds memory by one version more than `max_bytes`, however far behind the reader is (invariant I7).
pub fn read(db: &Connection, site: SiteId, after: Version, max_bytes: usize) -> rusqlite::Result<LogRead> {
    let held = held(db, site)?;
    let mut collected = Collected { site, at: after, bytes: 0, frames: Vec::new() };
    while collected.at < held {
        let upto = Version(held.0.min(collected.at.0.saturating_add(SPAN)));
        let full = collected.read_span(db, upto, max_bytes)?;
        if full {
            return Ok(LogRead { frames: collected.frames, complete: false });
        }
        collected.reach(upto);
    }
    Ok(LogRead { frames: collected.frames, complete: true })
}

/// How much of `site`'s log the snapshot holds.
fn held(db: &Connection, site: SiteId) -> rusqlite::Result<Version> {
    // The own log is the extension's to count, which also counts other sites', but not what was set aside of them.
    db.prepare_cached(
        "SELECT max(coalesce((SELECT version FROM replication_vector WHERE grp = ?1 AND site = ?2), 0),
                    coalesce((SELECT db_version FROM crsql_db_versions WHERE site_id = ?2), 0))",
    )?
    .query_row((GroupId::GLOBAL.0, site.0), |row| row.get::<_, i64>(0))
    .map(|version| Version(version.cast_unsigned()))
}

struct Collected {
    site: SiteId,
    /// Up to where the frames reach.
    at: Version,
    bytes: usize,
    frames: Vec<Frame>,
}

impl Collected {
    /// Adds the versions up to `upto`; says whether `max_bytes` stopped it before the end.
    ///
    /// A version's changes are those in the tables that nothing has overwritten since, and those that were set aside.
    fn read_span(&mut self, db: &Connection, upto: Version, max_bytes: usize) -> rusqlite::Result<bool> {
        let span = (self.site.0, self.at.0.cast_signed(), upto.0.cast_signed());
        let mut merged = db.prepare_cached(
            "SELECT db_version, \"table\", pk, cid, val, col_version, cl, seq FROM crsql_changes
             WHERE site_id = ?1 AND db_version > ?2 AND db_version <= ?3 ORDER BY db_version, seq",
        )?;
        let mut aside = db.prepare_cached(
            "SELECT version, frame FROM replication_held WHERE site = ?1 AND version > ?2 AND version <= ?3
             UNION ALL
             SELECT version, frame FROM replication_quarantine WHERE site = ?1 AND version > ?2 AND version <= ?3
             ORDER BY version",
        )?;
        let mut merged = Ahead::new(merged.query(span)?, |row| Ok(vec![change(row)?]))?;
        let mut aside = Ahead::new(aside.query(span)?, set_aside)?;
        while let Some(version) = merged.version().into_iter().chain(aside.version()).min() {
            let mut changes = merged.take(version)?;
            changes.extend(aside.take(version)?);
            changes.sort_by_key(|change| change.sequence);
            self.push(version, changes);
            if self.bytes >= max_bytes {
                return Ok(self.at < upto);
            }
        }
        Ok(false)
    }

    fn push(&mut self, version: Version, changes: Vec<Change>) {
        let frame = Frame {
            group: GroupId::GLOBAL,
            site: self.site,
            after: self.at,
            version,
            stamp: Stamp::default(),
            changes,
        };
        self.bytes += frame.size();
        self.at = version;
        self.frames.push(frame);
    }

    /// Notes that nothing is left up to `upto`.
    fn reach(&mut self, upto: Version) {
        if self.at >= upto {
            return;
        }
        match self.frames.last_mut() {
            // An empty frame in a row of empty ones only has to reach further.
            Some(last) if last.changes.is_empty() => {
                last.version = upto;
                self.at = upto;
            }
            _ => self.push(upto, Vec::new()),
        }
    }
}

/// Rows in the order of their versions, read one ahead.
struct Ahead<'s, F> {
    rows: Rows<'s>,
    changes: F,
    next: Option<(Version, Vec<Change>)>,
}

impl<'s, F: Fn(&Row<'_>) -> rusqlite::Result<Vec<Change>>> Ahead<'s, F> {
    /// The first column is the version; `changes` reads the others.
    fn new(rows: Rows<'s>, changes: F) -> rusqlite::Result<Self> {
        let mut ahead = Self { rows, changes, next: None };
        ahead.advance()?;
        Ok(ahead)
    }

    /// The version of the next row.
    fn version(&self) -> Option<Version> {
        self.next.as_ref().map(|(version, _)| *version)
    }

    /// Takes all changes of a version, if it is the next.
    fn take(&mut self, version: Version) -> rusqlite::Result<Vec<Change>> {
        let mut all = Vec::new();
        while let Some((_, changes)) = self.next.take_if(|(next, _)| *next == version) {
            all.extend(changes);
            self.advance()?;
        }
        Ok(all)
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        self.next = match self.rows.next()? {
            Some(row) => Some((Version(row.get::<_, i64>(0)?.cast_unsigned()), (self.changes)(row)?)),
            None => None,
        };
        Ok(())
    }
}

/// A row of `crsql_changes`, after its version.
fn change(row: &Row<'_>) -> rusqlite::Result<Change> {
    Ok(Change {
        table: Arc::from(row.get_ref(1)?.as_str()?),
        key: row.get(2)?,
        column: Arc::from(row.get_ref(3)?.as_str()?),
        value: row.get(4)?,
        column_version: row.get(5)?,
        causal_length: row.get(6)?,
        sequence: row.get(7)?,
    })
}

/// The changes of a frame that was set aside, after its version.
fn set_aside(row: &Row<'_>) -> rusqlite::Result<Vec<Change>> {
    Ok(codec::decode(row.get_ref(1)?.as_blob()?).map_or_else(
        |error| {
            // Nobody can do anything with it any more; the log goes on without.
            tracing::error!(%error, "a frame that was set aside can't be read back");
            Vec::new()
        },
        |frame| frame.changes,
    ))
}
