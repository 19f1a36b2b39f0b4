//! The table of retired sites: see [`crate::log::retirement`].

use rusqlite::Connection;

use super::{Batch, StoreError};
use crate::{
    NodeId,
    log::{Retirement, SiteId, Value, Version, retirement::TABLE},
};

/// Makes the table.
pub const MIGRATION: &str = "
    CREATE TABLE replication_retired (
        site BLOB NOT NULL, successor BLOB NOT NULL, upto INTEGER NOT NULL, data BLOB,
        PRIMARY KEY (site, successor, upto)
    ) STRICT, WITHOUT ROWID;
    SELECT crsql_as_crr('replication_retired');";

/// Retires a site in the own log, up to all that is held of it.
pub fn write(batch: &mut Batch<'_>, node: NodeId, site: SiteId) -> Result<(), StoreError> {
    let upto: i64 = batch
        .connection()
        .prepare_cached(
            "SELECT coalesce(max(version), 0) FROM replication_vector WHERE grp = 0 AND site = ?1",
        )?
        .query_row([site.0], |row| row.get(0))?;
    if upto > 0 && site != batch.site() {
        let (key, data) = Retirement::row(site, Version(upto.cast_unsigned()), batch.site(), node);
        batch.insert(TABLE, key, data);
    }
    Ok(())
}

/// All retirements that the database holds.
pub fn read(db: &Connection) -> rusqlite::Result<Vec<Retirement>> {
    let mut statement = db.prepare(
        "SELECT r.site, r.successor, r.upto, r.data, s.site_id, c.db_version
         FROM replication_retired r
         JOIN replication_retired__crsql_pks p USING (site, successor, upto)
         JOIN replication_retired__crsql_clock c ON c.key = p.__crsql_key AND c.col_name = 'data'
         JOIN crsql_site_id s ON s.ordinal = c.site_id",
    )?;
    let rows = statement.query_map([], |row| {
        let key: [Value; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
        let data: Option<Vec<u8>> = row.get(3)?;
        let at = Version(row.get::<_, i64>(5)?.cast_unsigned());
        Ok(data.and_then(|data| Some((key, data, SiteId(row.get(4).ok()?), at))))
    })?;
    let mut retirements = Vec::new();
    for row in rows {
        if let Some((key, data, by, at)) = row? {
            retirements.extend(Retirement::read(&key, &data, by, at));
        }
    }
    Ok(retirements)
}
