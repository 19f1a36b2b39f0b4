//! Reading a site's log back from the database: for peers and clients that are behind.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

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
    db.prepare_cached("SELECT version FROM replication_vector WHERE grp = ?1 AND site = ?2")?
        .query_row((GroupId::GLOBAL.0, site.0), |row| row.get::<_, i64>(0))
        .optional()
        .map(|version| Version(version.unwrap_or(0).cast_unsigned()))
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
    fn read_span(&mut self, db: &Connection, upto: Version, max_bytes: usize) -> rusqlite::Result<bool> {
        let (from, site) = (self.at, self.site);
        let mut quarantined = quarantined(db, site, from, upto)?.into_iter().peekable();
        let mut statement = db.prepare_cached(
            "SELECT \"table\", pk, cid, val, col_version, cl, seq, db_version FROM crsql_changes
             WHERE site_id = ?1 AND db_version > ?2 AND db_version <= ?3 ORDER BY db_version, seq",
        )?;
        let mut rows = statement.query((site.0, from.0.cast_signed(), upto.0.cast_signed()))?;
        let mut open: Option<(Version, Vec<Change>)> = None;
        while let Some(row) = rows.next()? {
            let version = Version(row.get::<_, i64>(7)?.cast_unsigned());
            if open.as_ref().is_some_and(|(current, _)| *current != version)
                && let Some((version, changes)) = open.take()
            {
                self.push(version, changes);
                if self.bytes >= max_bytes {
                    return Ok(true);
                }
            }
            while let Some((_, frame)) = quarantined.next_if(|(at, _)| *at < version) {
                self.push(frame.version, frame.changes);
            }
            open.get_or_insert_with(|| (version, Vec::new())).1.push(Change {
                table: Arc::from(row.get_ref(0)?.as_str()?),
                key: row.get(1)?,
                column: Arc::from(row.get_ref(2)?.as_str()?),
                value: row.get(3)?,
                column_version: row.get(4)?,
                causal_length: row.get(5)?,
                sequence: row.get(6)?,
            });
        }
        if let Some((version, changes)) = open {
            self.push(version, changes);
        }
        for (_, frame) in quarantined {
            self.push(frame.version, frame.changes);
        }
        Ok(self.bytes >= max_bytes && self.at < upto)
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

/// Frames that were set aside are part of the log all the same.
fn quarantined(
    db: &Connection,
    site: SiteId,
    after: Version,
    upto: Version,
) -> rusqlite::Result<Vec<(Version, Frame)>> {
    let mut statement = db.prepare_cached(
        "SELECT version, frame FROM replication_quarantine
         WHERE site = ?1 AND version > ?2 AND version <= ?3 ORDER BY version",
    )?;
    let rows = statement.query_map((site.0, after.0.cast_signed(), upto.0.cast_signed()), |row| {
        Ok((Version(row.get::<_, i64>(0)?.cast_unsigned()), row.get::<_, Vec<u8>>(1)?))
    })?;
    let mut frames = Vec::new();
    for row in rows {
        let (version, bytes) = row?;
        if let Ok(frame) = codec::decode(&bytes) {
            frames.push((version, frame));
        }
    }
    Ok(frames)
}
