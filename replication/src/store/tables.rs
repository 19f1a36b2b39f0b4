//! What the writer knows of the replicated tables, and the statements for each.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::{
    batch::{NewRow, Put},
    fresh,
    log_reader::{LogReader, TableLog},
};
use crate::log::{Change, Value, key};

/// The statements that write one replicated table.
struct Table {
    name: Arc<str>,
    insert: String,
    upsert: String,
    edits: String,
    data: String,
    fresh: Option<fresh::Statements>,
    /// The columns beside the key.
    columns: Vec<String>,
}

/// What stands for the row itself in place of a column's name.
const ROW: &str = "-1";

/// All replicated tables by name.
pub struct Tables {
    by_name: HashMap<String, Table>,
    data: Arc<str>,
    logs: LogReader,
}

impl Tables {
    /// Reads the tables from the database's own description.
    pub fn read(db: &Connection) -> rusqlite::Result<Self> {
        let names: Vec<String> = db
            .prepare(
                "SELECT substr(name, 1, length(name) - length('__crsql_clock')) FROM sqlite_master
                 WHERE type = 'table' AND name LIKE '%\\_\\_crsql\\_clock' ESCAPE '\\'",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let (mut by_name, mut logs) = (HashMap::new(), Vec::new());
        let mut described = db.prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY pk")?;
        for name in names {
            let (mut keys, mut columns) = (Vec::new(), Vec::new());
            let mut described = described.query([&name])?;
            while let Some(column) = described.next()? {
                let of_key = column.get::<_, u32>(1)? > 0;
                if of_key { &mut keys } else { &mut columns }.push(column.get(0)?);
            }
            let fresh = fresh::Statements::of(db, &name, &keys, &columns)?;
            if fresh.is_none() {
                tracing::warn!(%name, "the extension keeps this table in a way that is not known here; its new rows take longer");
            }
            let table = Table::new(&name, &keys, columns, fresh);
            logs.push(TableLog::new(&table.name, &keys, &table.columns));
            by_name.insert(name, table);
        }
        Ok(Self { by_name, data: Arc::from("data"), logs: LogReader::new(logs) })
    }

    /// Reads their logs.
    pub fn logs(&self) -> &LogReader {
        &self.logs
    }

    /// Whether there is a place for `change`: a newer program has tables and columns that this one does not know.
    pub fn have(&self, change: &Change) -> bool {
        self.by_name.get(&*change.table).is_some_and(|table| {
            &*change.column == ROW || table.columns.iter().any(|column| **column == *change.column)
        })
    }

    /// What writes new rows of a table.
    pub fn fresh(&self, table: &str) -> Option<&fresh::Statements> {
        self.by_name.get(table)?.fresh.as_ref()
    }

    /// The packed data of a row; `None` where there is no such table or row, or it was erased.
    pub fn data(&self, db: &Connection, table: &str, key: &[Value]) -> rusqlite::Result<Option<Vec<u8>>> {
        let Some(table) = self.by_name.get(table) else { return Ok(None) };
        db.prepare_cached(&table.data)?
            .query_row(params_from_iter(key), |row| row.get(0))
            .optional()
            .map(Option::flatten)
    }

    /// Writes `row` and gives the change that cr-sqlite recorded for it, numbered `sequence`; `None` when the
    /// database already was as wished.
    pub fn write(&self, db: &Connection, row: &NewRow, sequence: u32) -> rusqlite::Result<Option<Change>> {
        let table = self.by_name.get(row.table).ok_or_else(|| {
            rusqlite::Error::InvalidParameterName(format!("no replicated table {}", row.table))
        })?;
        let is_new = match &table.fresh {
            Some(fresh) => fresh.write_own(db, &row.key, row.data.as_deref())?,
            None => false,
        };
        if !is_new && !table.write_by_the_extension(db, row)? {
            return Ok(None);
        }
        // A new row's cell was written once. For an overwritten one the count has to be looked up.
        let column_version = match row.put {
            Put::Over if !is_new => {
                db.prepare_cached(&table.edits)?.query_row(params_from_iter(&row.key), |row| row.get(0))?
            }
            Put::Once | Put::Over => 1,
        };
        Ok(Some(Change {
            table: Arc::clone(&table.name),
            key: key::pack(&row.key),
            column: Arc::clone(&self.data),
            value: row.data.as_ref().map_or(Value::Null, |bytes| bytes.clone().into()),
            column_version,
            causal_length: 1,
            sequence,
        }))
    }
}

impl Table {
    /// Writes `row`, which the extension's triggers see; says whether that changed anything.
    fn write_by_the_extension(&self, db: &Connection, row: &NewRow) -> rusqlite::Result<bool> {
        let sql = match row.put {
            Put::Once => &self.insert,
            Put::Over => &self.upsert,
        };
        let mut statement = db.prepare_cached(sql)?;
        fresh::bind(&mut statement, &row.key)?;
        statement.raw_bind_parameter(row.key.len() + 1, row.data.as_deref())?;
        Ok(statement.raw_execute()? > 0)
    }

    fn new(name: &str, keys: &[String], columns: Vec<String>, fresh: Option<fresh::Statements>) -> Self {
        let quoted: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
        let key = quoted.join(", ");
        let marks = vec!["?"; keys.len() + 1].join(", ");
        let same_key = quoted.iter().map(|key| format!("p.{key} = ?")).collect::<Vec<_>>().join(" AND ");
        let insert = format!("INSERT INTO \"{name}\" ({key}, data) VALUES ({marks}) ON CONFLICT DO NOTHING");
        let upsert = format!(
            "INSERT INTO \"{name}\" ({key}, data) VALUES ({marks})
             ON CONFLICT DO UPDATE SET data = excluded.data WHERE data IS NOT excluded.data"
        );
        let edits = format!(
            "SELECT c.col_version FROM \"{name}__crsql_pks\" p JOIN \"{name}__crsql_clock\" c ON c.key = p.__crsql_key
             WHERE {same_key} AND c.col_name = 'data'"
        );
        let data = format!("SELECT p.data FROM \"{name}\" p WHERE {same_key}");
        Self { name: Arc::from(name), insert, upsert, edits, data, fresh, columns }
    }
}
