//! What a database really holds, read with SQL of the judge's own.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use mychat_replication::{
    log::{SiteId, Value, VersionVector},
    store::{Store, StoreError},
};
use rusqlite::Connection;

use super::{
    Rule, Verdict,
    ledger::{Cell, Ledger},
    rows::{self, Id},
};
use crate::virtual_time::trace::{self, Trace};

/// A database at a moment.
#[derive(Debug)]
pub struct Holding {
    pub vector: VersionVector,
    /// Every cell, with the site and version that wrote it.
    cells: BTreeMap<Cell, (SiteId, u64, u64)>,
    /// Tables that it has.
    tables: BTreeSet<String>,
    /// The hash of each table, in the order of its rows.
    dumps: BTreeMap<String, u64>,
    quarantined: i64,
    /// What the messages have come to.
    pub messages: Messages,
}

/// What messages have come to, and who is there to read them.
#[derive(Debug, Default)]
pub struct Messages {
    /// What each says; nothing once it is deleted.
    pub texts: BTreeMap<Id, Option<String>>,
    /// The reactions to each, by account.
    pub reactions: BTreeMap<Id, Reactions>,
    /// Who is a member where: spaces with accounts.
    pub members: BTreeSet<(Id, Id)>,
}

/// Reactions to a message: who, and with what.
pub type Reactions = BTreeSet<(Id, String)>;

/// Reads a whole database.
pub fn read(store: &Store) -> Result<Holding, String> {
    let vector = store.vector().as_ref().clone();
    let read = store.read(move |db| Ok::<_, StoreError>(holding(db, vector)?)).now_or_never();
    let Some(read) = read else { return Err("a read had to wait".into()) };
    read.map_err(|error| format!("a database can't be read: {error}"))
}

fn holding(db: &Connection, vector: VersionVector) -> rusqlite::Result<Holding> {
    let mut cells = BTreeMap::new();
    let mut changes =
        db.prepare_cached("SELECT \"table\", pk, cid, val, site_id, db_version FROM crsql_changes")?;
    let mut changes = changes.query([])?;
    while let Some(row) = changes.next()? {
        let value: Value = row.get(3)?;
        let place = (SiteId(row.get(4)?), row.get::<_, i64>(5)? as u64, trace::of(&rows::bytes(&value)));
        cells.insert((row.get(0)?, row.get(1)?, row.get(2)?), place);
    }
    let names: Vec<String> = db
        .prepare_cached(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%crsql%'
             AND name NOT LIKE 'sqlite%' AND (name NOT LIKE 'replication%' OR name = 'replication_retired')
             ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut dumps = BTreeMap::new();
    for name in &names {
        dumps.insert(name.clone(), dump(db, name)?);
    }
    let quarantined = db.query_row("SELECT count(*) FROM replication_quarantine", [], |row| row.get(0))?;
    let messages = Messages { texts: texts(db)?, reactions: reactions(db)?, members: members(db)? };
    Ok(Holding { vector, cells, tables: names.into_iter().collect(), dumps, quarantined, messages })
}

/// What the messages say: the edit that counts, or what was sent.
fn texts(db: &Connection) -> rusqlite::Result<BTreeMap<Id, Option<String>>> {
    let mut statement = db.prepare_cached(
        "SELECT m.id, m.data, s.body, coalesce(s.deleted, 0)
         FROM message m LEFT JOIN local_message_state s ON s.space = m.space AND s.message = m.id",
    )?;
    let mut rows = statement.query([])?;
    let mut texts = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (data, edited): (Option<Vec<u8>>, Option<String>) = (row.get(1)?, row.get(2)?);
        let sent = data.as_deref().and_then(rows::text);
        let text = if row.get(3)? { None } else { edited.or(sent) };
        texts.insert(row.get(0)?, text);
    }
    Ok(texts)
}

/// The reactions that stand.
fn reactions(db: &Connection) -> rusqlite::Result<BTreeMap<Id, Reactions>> {
    let mut statement = db.prepare_cached("SELECT message, account, emoji FROM local_reaction")?;
    let mut rows = statement.query([])?;
    let mut reactions = BTreeMap::<Id, Reactions>::new();
    while let Some(row) = rows.next()? {
        reactions.entry(row.get(0)?).or_default().insert((row.get(1)?, row.get(2)?));
    }
    Ok(reactions)
}

/// Whose last membership of a space that is there has a role.
fn members(db: &Connection) -> rusqlite::Result<BTreeSet<(Id, Id)>> {
    let mut statement = db.prepare_cached(
        "SELECT space, account, data FROM membership WHERE space IN (SELECT id FROM space) ORDER BY space, account, stamp",
    )?;
    let mut rows = statement.query([])?;
    let mut last = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let data: Option<Vec<u8>> = row.get(2)?;
        // The format, then whether there is a role.
        last.insert(
            (row.get(0)?, row.get(1)?),
            data.is_some_and(|data| data.get(1).is_some_and(|role| *role != 0)),
        );
    }
    Ok(last.into_iter().filter(|(_, on)| *on).map(|(pair, _)| pair).collect())
}

/// The hash of a table's rows, in order.
fn dump(db: &Connection, table: &str) -> rusqlite::Result<u64> {
    let mut statement = db.prepare_cached(&format!("SELECT * FROM \"{table}\""))?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut lines = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let mut line = Vec::new();
        for column in 0..columns {
            let bytes = rows::bytes(&row.get::<_, Value>(column)?);
            line.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            line.extend_from_slice(&bytes);
        }
        lines.insert(line);
    }
    let mut hash = Trace::default();
    lines.iter().for_each(|line| hash.bytes(line));
    Ok(hash.value())
}

impl Holding {
    /// Judges one database against the books: it holds of each log all that its vector says (I3), and what it holds is
    /// what was written (I2).
    pub fn judge(&self, ledger: &Ledger) -> Verdict {
        if self.quarantined > 0 {
            return Err((Rule::Prefix, format!("{} frames could not be merged", self.quarantined)));
        }
        for ((site, version), content) in ledger.held(&self.vector) {
            for (cell, hash) in &content.cells {
                if ledger.is_overwritten(cell) || !self.tables.contains(&cell.0) {
                    continue;
                }
                if self.cells.get(cell) != Some(&(site, version, *hash)) {
                    let what = format!(
                        "{} of version {version} of {site:?} is counted as held, and is not there ({:?})",
                        cell.0,
                        self.cells.get(cell)
                    );
                    return Err((Rule::Prefix, what));
                }
            }
        }
        for (cell, (site, version, _)) in &self.cells {
            if self.vector.get(*site).0 < *version {
                let what =
                    format!("{} of version {version} of {site:?} is there, and is not counted", cell.0);
                return Err((Rule::Prefix, what));
            }
        }
        Ok(())
    }

    /// Judges whether it has all that was acknowledged (I1).
    pub fn has_acknowledged(&self, ledger: &Ledger) -> Verdict {
        for ((site, version), content) in ledger.acknowledged() {
            let missing = |cell: &&Cell| self.tables.contains(&cell.0) && !self.cells.contains_key(*cell);
            if let Some(cell) = content.cells.keys().find(missing) {
                let what =
                    format!("{} of version {version} of {site:?} was acknowledged and is gone", cell.0);
                return Err((Rule::Durable, what));
            }
        }
        Ok(())
    }

    /// Judges whether two databases with the same vector are the same, as far as both have the tables (I4).
    pub fn equals(&self, other: &Self) -> Verdict {
        if self.vector != other.vector {
            return Ok(());
        }
        for (table, hash) in &self.dumps {
            if other.dumps.get(table).is_some_and(|theirs| theirs != hash) {
                return Err((
                    Rule::Convergent,
                    format!("{table} differs between nodes with the same vector"),
                ));
            }
        }
        Ok(())
    }

    /// The hash of everything.
    pub fn hash(&self) -> u64 {
        let mut hash = Trace::default();
        for (table, dump) in &self.dumps {
            hash.bytes(table.as_bytes());
            hash.number(*dump);
        }
        hash.value()
    }
}
