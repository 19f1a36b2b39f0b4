//! The site id: where it is kept, and how a database goes on under a new one.

use rusqlite::Connection;

use crate::log::{SiteId, Version};

/// The site id of this database.
pub fn current(db: &Connection) -> rusqlite::Result<SiteId> {
    db.query_row("SELECT crsql_site_id()", [], |row| row.get(0)).map(SiteId)
}

/// The last version of this database's own log.
pub fn head(db: &Connection) -> rusqlite::Result<Version> {
    db.query_row("SELECT crsql_db_version()", [], |row| row.get::<_, i64>(0))
        .map(|version| Version(version.cast_unsigned()))
}

/// Gives the database the new site id `new`. What the log has up to `shared` stays with the old one, like another site's log;
/// what was written after it goes over to the new one under the same numbers, because the old site's versions beyond
/// `shared` are taken: others know them with other content.
///
/// cr-sqlite numbers the sites in `crsql_site_id`, its own being 0, and caches that on load: the connection must be
/// opened anew afterwards. Takes time in proportion to what was written under the old id (1.4 s for a million messages);
/// a row is moved so only once. It happens where the disk may be older than what others know: see [`super::witness`].
pub fn renew(db: &Connection, shared: Version, new: SiteId) -> rusqlite::Result<SiteId> {
    let (old, written) = (current(db)?, head(db)?);
    let shared_number = shared.0.cast_signed();
    let transaction = db.unchecked_transaction()?;
    let ordinal: i64 = db.query_row("SELECT max(ordinal) + 1 FROM crsql_site_id", [], |row| row.get(0))?;
    db.execute("UPDATE crsql_site_id SET ordinal = ?1 WHERE ordinal = 0", [ordinal])?;
    db.execute("INSERT INTO crsql_site_id (site_id, ordinal) VALUES (?1, 0)", [new.0])?;
    let clocks: Vec<String> = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%\\_\\_crsql\\_clock' ESCAPE '\\'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for clock in clocks {
        db.execute(
            &format!("UPDATE \"{clock}\" SET site_id = ?1 WHERE site_id = 0 AND db_version <= ?2"),
            (ordinal, shared_number),
        )?;
    }
    db.execute("DELETE FROM replication_vector WHERE site = ?1", [old.0])?;
    db.execute("DELETE FROM crsql_db_versions WHERE site_id = ?1", [old.0])?;
    for (site, version) in [(old, shared), (new, written)] {
        if version > Version(0) && (site == old || written > shared) {
            let version = version.0.cast_signed();
            db.execute("INSERT INTO replication_vector VALUES (0, ?1, ?2)", (site.0, version))?;
            db.execute("INSERT INTO crsql_db_versions VALUES (?1, ?2)", (site.0, version))?;
        }
    }
    transaction.commit()?;
    Ok(new)
}
