//! Claims: how names are unique without anyone to ask.
//!
//! Whoever wants a name writes a row (kind, MAC of the name, claimant) with the time. The earliest claim owns the
//! name, at every node the same once it has both rows; of two people who claim one name at two nodes at the same
//! moment, one loses it a moment later. A claim is given up by erasing its data.

use mychat_replication::{
    clock::Stamp,
    log::Value,
    store::{Batch, Migration},
};
use rusqlite::Connection;
use uuid::Uuid;

use crate::packed;

/// The claims' table.
pub const MIGRATIONS: &[Migration] = &[Migration {
    domain: "claims",
    number: 1,
    sql: "
        CREATE TABLE claim (
            kind TEXT NOT NULL, name BLOB NOT NULL, claimant BLOB NOT NULL, data BLOB,
            PRIMARY KEY (kind, name, claimant)
        ) STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('claim');",
}];

/// A name as it stands in a claim: a MAC ([`crate::keys::Keys::claim`]), so that rows do not give it away.
pub type Name = [u8; 32];

/// Adds a claim to the batch. Whether the name is free is for the caller to look up, in the same job.
pub fn claim(batch: &mut Batch<'_>, kind: &str, name: Name, claimant: Uuid) {
    let at = batch.stamp();
    batch.set("claim", key(kind, name, claimant), Some(packed::encode(&at.to_u64())));
}

/// Gives a claim up.
pub fn release(batch: &mut Batch<'_>, kind: &str, name: Name, claimant: Uuid) {
    batch.set("claim", key(kind, name, claimant), None);
}

/// The key of a claim's row.
pub(crate) fn key(kind: &str, name: Name, claimant: Uuid) -> Vec<Value> {
    vec![Value::Text(kind.to_owned()), Value::Blob(name.to_vec()), Value::Blob(claimant.as_bytes().to_vec())]
}

/// Everyone who claims a name, with the time; the owner first.
///
/// # Errors
/// What SQLite says.
pub fn claimants(db: &Connection, kind: &str, name: Name) -> rusqlite::Result<Vec<(Stamp, Uuid)>> {
    let mut statement = db.prepare_cached(
        "SELECT claimant, data FROM claim WHERE kind = ?1 AND name = ?2 AND data IS NOT NULL",
    )?;
    let rows = statement.query_map((kind, name.as_slice()), |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
    })?;
    let mut claimants = Vec::new();
    for row in rows {
        let (claimant, data) = row?;
        if let (Ok(claimant), Some(at)) = (Uuid::from_slice(&claimant), packed::decode(&data)) {
            claimants.push((Stamp::from_u64(at), claimant));
        }
    }
    claimants.sort_unstable();
    Ok(claimants)
}

/// Who owns a name.
///
/// # Errors
/// What SQLite says.
pub fn owner(db: &Connection, kind: &str, name: Name) -> rusqlite::Result<Option<Uuid>> {
    Ok(claimants(db, kind, name)?.first().map(|(_, claimant)| *claimant))
}
