//! Reading a site's log back from the database: for peers and clients that are behind.
//!
//! The extension's own table of changes would say the same, but for each look at it it makes one statement over all
//! tables anew, which costs more than to read a short log. So each table is read with a statement that connections keep.

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

/// Reads logs from a database with certain replicated tables.
#[derive(Debug, Clone)]
pub struct LogReader {
    tables: Arc<[TableLog]>,
}

/// How the changes of one table are read.
#[derive(Debug)]
pub struct TableLog {
    name: Arc<str>,
    /// The changes of a site, by the number that it has in the database, in the order of their versions.
    changes: String,
}

impl TableLog {
    /// For a table with this primary key and these other columns.
    pub fn new(name: &Arc<str>, keys: &[String], columns: &[String]) -> Self {
        let of =
            |table: &str| keys.iter().map(|key| format!("{table}.\"{key}\"")).collect::<Vec<_>>().join(", ");
        let (key, same) = (of("p"), format!("({}) = ({})", of("t"), of("p")));
        let values: String =
            columns.iter().map(|column| format!(" WHEN '{column}' THEN t.\"{column}\"")).collect();
        // Where a row was never deleted and brought back, the extension writes down no causal length.
        let changes = format!(
            "SELECT c.db_version, crsql_pack_columns({key}), c.col_name, CASE c.col_name WHEN '' THEN NULL{values} END,
                    c.col_version, coalesce(l.col_version, 1), c.seq
             FROM \"{name}__crsql_clock\" c
             JOIN \"{name}__crsql_pks\" p ON p.__crsql_key = c.key
             LEFT JOIN \"{name}__crsql_clock\" l ON l.key = c.key AND l.col_name = '-1'
             LEFT JOIN \"{name}\" t ON {same}
             WHERE c.site_id = ?1 AND c.db_version > ?2 AND c.db_version <= ?3 ORDER BY c.db_version"
        );
        Self { name: Arc::clone(name), changes }
    }
}

impl LogReader {
    pub(super) fn new(tables: impl IntoIterator<Item = TableLog>) -> Self {
        Self { tables: tables.into_iter().collect() }
    }

    /// The frames of `site` from after `after` on: at least one if there is any, then as many as fit `max_bytes`.
    ///
    /// Bounds memory by one version more than `max_bytes`, however far behind the reader is (invariant I7).
    ///
    /// # Errors
    /// What SQLite says.
    pub fn read(
        &self,
        db: &Connection,
        site: SiteId,
        after: Version,
        max_bytes: usize,
    ) -> rusqlite::Result<LogRead> {
        let (held, number) = held(db, site)?;
        let mut collected =
            Collected { tables: &self.tables, site, number, at: after, bytes: 0, frames: Vec::new() };
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
}

/// How much of `site`'s log the snapshot holds, and the number of the site in it.
fn held(db: &Connection, site: SiteId) -> rusqlite::Result<(Version, Option<i64>)> {
    // The own log is the extension's to count, which also counts other sites', but not what was set aside of them.
    db.prepare_cached(
        "SELECT max(coalesce((SELECT version FROM replication_vector WHERE grp = ?1 AND site = ?2), 0),
                    coalesce((SELECT db_version FROM crsql_db_versions WHERE site_id = ?2), 0)),
                (SELECT ordinal FROM crsql_site_id WHERE site_id = ?2)",
    )?
    .query_row((GroupId::GLOBAL.0, site.0), |row| {
        Ok((Version(row.get::<_, i64>(0)?.cast_unsigned()), row.get(1)?))
    })
}

struct Collected<'l> {
    tables: &'l [TableLog],
    site: SiteId,
    /// None where all that is held of it was set aside.
    number: Option<i64>,
    /// Up to where the frames reach.
    at: Version,
    bytes: usize,
    frames: Vec<Frame>,
}

impl Collected<'_> {
    /// Adds the versions up to `upto`; says whether `max_bytes` stopped it before the end.
    ///
    /// A version's changes are those in the tables that nothing has overwritten since, and those that were set aside.
    fn read_span(&mut self, db: &Connection, upto: Version, max_bytes: usize) -> rusqlite::Result<bool> {
        let (from, to) = (self.at.0.cast_signed(), upto.0.cast_signed());
        let mut merged = self
            .tables
            .iter()
            .map(|table| Ok((&table.name, db.prepare_cached(&table.changes)?)))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut aside = db.prepare_cached(
            "SELECT version, frame FROM replication_held WHERE site = ?1 AND version > ?2 AND version <= ?3
             UNION ALL
             SELECT version, frame FROM replication_quarantine WHERE site = ?1 AND version > ?2 AND version <= ?3
             ORDER BY version",
        )?;
        let mut merged = merged
            .iter_mut()
            .map(|(table, changes)| {
                Ahead::new(changes.query((self.number, from, to))?, |row| Ok(vec![change(table, row)?]))
            })
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut aside = Ahead::new(aside.query((self.site.0, from, to))?, set_aside)?;
        while let Some(version) = merged.iter().filter_map(Ahead::version).chain(aside.version()).min() {
            let mut changes = aside.take(version)?;
            for table in &mut merged {
                changes.extend(table.take(version)?);
            }
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

/// A change of a table, after its version.
fn change(table: &Arc<str>, row: &Row<'_>) -> rusqlite::Result<Change> {
    Ok(Change {
        table: Arc::clone(table),
        key: row.get(1)?,
        column: Arc::from(row.get_ref(2)?.as_str()?),
        value: row.get(3)?,
        column_version: row.get(4)?,
        causal_length: row.get(5)?,
        sequence: row.get(6)?,
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
