//! New rows, written to the tables without the extension's triggers and its merge.
//!
//! Nearly all that a node writes, and hears from others, are rows of which it has no key yet: messages. There is nothing
//! to merge such a row with, so what cr-sqlite does in the end is to write three lines: the key's number, the row, and
//! the clock of its cell. It finds that out anew for each row with up to a dozen statements, which was a quarter of a
//! follower's processor time. Here the three lines are written at once; and once for each frame of another site, how far
//! its log goes. Of the own log the extension goes on counting versions and places within them.
//!
//! The first of the three says whether the row is new. If it is not, or anything is out of the ordinary, nothing has been
//! written and the extension has the row to itself (`tables.rs`, `merge.rs`). Both ways must leave the same bytes behind:
//! the tests compare all of the tables, debug builds each own commit with the log, and the simulation the nodes (I4).

use rusqlite::{Connection, OptionalExtension, Statement, ToSql};

use crate::log::{Change, Frame, Value};

/// The statements that write a new row of one table.
#[derive(Debug)]
pub struct Statements {
    key: String,
    row: String,
    cell: String,
    own_cell: String,
}

impl Statements {
    /// Those of table `name`; `None` where it, or what the extension keeps beside it, is not as this code knows it.
    pub fn of(
        db: &Connection,
        name: &str,
        keys: &[String],
        columns: &[String],
    ) -> rusqlite::Result<Option<Self>> {
        const CLOCK: [&str; 7] = ["key", "col_name", "col_version", "db_version", "site_id", "seq", "ts"];
        let clock = columns_of(db, &format!("{name}__crsql_clock"))?;
        let numbers = columns_of(db, &format!("{name}__crsql_pks"))?;
        let known = columns.iter().any(|column| column == "data")
            && clock == CLOCK
            && numbers.split_first().is_some_and(|(first, rest)| first == "__crsql_key" && rest == keys);
        if !known {
            return Ok(None);
        }
        let quoted = keys.iter().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ");
        let marks = vec!["?"; keys.len()].join(", ");
        Ok(Some(Self {
            key: format!(
                "INSERT INTO \"{name}__crsql_pks\" ({quoted}) VALUES ({marks}) ON CONFLICT DO NOTHING"
            ),
            row: format!("INSERT INTO \"{name}\" ({quoted}, data) VALUES ({marks}, ?)"),
            cell: format!(
                "INSERT INTO \"{name}__crsql_clock\" (key, col_name, col_version, db_version, site_id, seq, ts)
                 VALUES (?1, 'data', ?2, ?3, ?4, ?5, '0')"
            ),
            own_cell: format!(
                "INSERT INTO \"{name}__crsql_clock\" (key, col_name, col_version, db_version, site_id, seq, ts)
                 VALUES (?1, 'data', 1, crsql_next_db_version(), 0, crsql_increment_and_get_seq(), '0')"
            ),
        }))
    }

    /// Writes a row of this node; `false` when it is not new, and nothing was done.
    pub fn write_own(&self, db: &Connection, key: &[Value], data: Option<&[u8]>) -> rusqlite::Result<bool> {
        let Some(number) = self.number(db, key)? else { return Ok(false) };
        look_away(db, true)?;
        self.insert(db, key, data)?;
        look_away(db, false)?;
        db.prepare_cached(&self.own_cell)?.execute([number])?;
        Ok(true)
    }

    /// Writes the row itself.
    fn insert(&self, db: &Connection, key: &[Value], data: impl ToSql) -> rusqlite::Result<()> {
        let mut row = db.prepare_cached(&self.row)?;
        bind(&mut row, key)?;
        row.raw_bind_parameter(key.len() + 1, data)?;
        row.raw_execute().map(drop)
    }

    /// Gives a key its number; `None` for one that has a number already, or can't be one of this table.
    fn number(&self, db: &Connection, key: &[Value]) -> rusqlite::Result<Option<i64>> {
        let mut number = db.prepare_cached(&self.key)?;
        if number.parameter_count() != key.len() {
            return Ok(None);
        }
        bind(&mut number, key)?;
        Ok((number.raw_execute()? > 0).then(|| db.last_insert_rowid()))
    }
}

/// Binds the first parameters to the values of a key.
pub fn bind(statement: &mut Statement<'_>, key: &[Value]) -> rusqlite::Result<()> {
    for (at, value) in key.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, value)?;
    }
    Ok(())
}

/// Tells the extension's triggers not to record what is written, or to record it again.
fn look_away(db: &Connection, away: bool) -> rusqlite::Result<()> {
    db.prepare_cached("SELECT crsql_internal_sync_bit(?1)")?.query_row([away], |_| Ok(()))
}

fn columns_of(db: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

/// Writes the new rows of one frame.
pub struct Fresh<'a> {
    db: &'a Connection,
    frame: &'a Frame,
    /// The extension's number of the frame's site; `None` where it has yet to give it one, and for the own site, whose
    /// versions it counts itself.
    site: Option<i64>,
    /// Whether the extension's triggers have been told to look away.
    unseen: bool,
    wrote: bool,
}

impl<'a> Fresh<'a> {
    /// To write rows of `frame` within the transaction that is open.
    pub fn new(db: &'a Connection, frame: &'a Frame) -> rusqlite::Result<Self> {
        let site = db
            .prepare_cached("SELECT ordinal FROM crsql_site_id WHERE site_id = ?1 AND ordinal <> 0")?
            .query_row([frame.site.0], |row| row.get(0))
            .optional()?;
        Ok(Self { db, frame, site, unseen: false, wrote: false })
    }

    /// Writes the row of which `change` is the cell; `false` when that is for the extension, and nothing was done.
    pub fn write(
        &mut self,
        statements: Option<&Statements>,
        change: &Change,
        key: &[Value],
    ) -> rusqlite::Result<bool> {
        let (Some(statements), Some(site)) = (statements, self.site) else { return Ok(false) };
        if change.causal_length != 1 || &*change.column != "data" {
            return Ok(false);
        }
        let Some(number) = statements.number(self.db, key)? else { return Ok(false) };
        self.look_away(true)?;
        statements.insert(self.db, key, &change.value)?;
        self.db.prepare_cached(&statements.cell)?.execute((
            number,
            change.column_version,
            self.frame.version.0.cast_signed(),
            site,
            change.sequence,
        ))?;
        self.wrote = true;
        Ok(true)
    }

    /// The extension may take over: what is written from now on is seen by its triggers.
    pub fn pause(&mut self) -> rusqlite::Result<()> {
        self.look_away(false)
    }

    /// The frame is at its end.
    pub fn finish(mut self) -> rusqlite::Result<()> {
        self.look_away(false)?;
        if self.wrote {
            self.db
                .prepare_cached(
                    "INSERT INTO crsql_db_versions (site_id, db_version) VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET db_version = excluded.db_version
                     WHERE crsql_db_versions.db_version < excluded.db_version",
                )?
                .execute((self.frame.site.0, self.frame.version.0.cast_signed()))?;
        }
        Ok(())
    }

    fn look_away(&mut self, unseen: bool) -> rusqlite::Result<()> {
        if self.unseen != unseen {
            look_away(self.db, unseen)?;
            self.unseen = unseen;
        }
        Ok(())
    }
}
