//! What a database of cr-sqlite consists of: the pages of each table and its indexes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags};

/// Bytes of pages, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Storage {
    /// Replicated tables, with what cr-sqlite keeps about their rows.
    pub(super) replicated: u64,
    /// Tables that each node derives for itself.
    pub(super) local: u64,
    /// The rest: vectors, schema, bookkeeping of the whole.
    pub(super) other: u64,
}

/// What each kind of table takes in the file of a server that has stopped. A table is replicated when it has a clock.
pub(super) fn storage(file: &Path) -> anyhow::Result<Storage> {
    let failed = || format!("{} can't be read", file.display());
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).with_context(failed)?;
    // Indexes count to their tables. Fails where SQLite was built without the virtual table `dbstat`.
    let mut pages = db
        .prepare(
            "SELECT coalesce(schema.tbl_name, stat.name), sum(stat.pgsize)
             FROM dbstat AS stat LEFT JOIN sqlite_schema AS schema ON schema.name = stat.name GROUP BY 1",
        )
        .with_context(failed)?;
    let tables: BTreeMap<String, u64> = pages
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))
        .and_then(Iterator::collect)
        .with_context(failed)?;
    Ok(sort(&tables))
}

fn sort(tables: &BTreeMap<String, u64>) -> Storage {
    let mut storage = Storage::default();
    for (name, bytes) in tables {
        let base = name.trim_end_matches("__crsql_clock").trim_end_matches("__crsql_pks");
        let kind = if tables.contains_key(&format!("{base}__crsql_clock")) {
            &mut storage.replicated
        } else if name.starts_with("local_") {
            &mut storage.local
        } else {
            &mut storage.other
        };
        *kind += bytes;
    }
    storage
}

impl Storage {
    /// What is more here than there.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            replicated: self.replicated.saturating_sub(before.replicated),
            local: self.local.saturating_sub(before.local),
            other: self.other.saturating_sub(before.other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        let db = Connection::open(&file).unwrap();
        db.execute_batch(
            "CREATE TABLE message (a PRIMARY KEY, b); CREATE TABLE message__crsql_clock (c);
             CREATE TABLE message__crsql_pks (d); CREATE TABLE local_x (e);
             INSERT INTO message VALUES (1, zeroblob(100000)); INSERT INTO local_x VALUES (zeroblob(50000));",
        )
        .unwrap();
        drop(db);
        let storage = storage(&file).unwrap();
        assert!((110_000..130_000).contains(&storage.replicated), "{storage:?}");
        assert!((50_000..60_000).contains(&storage.local), "{storage:?}");
        assert!((4096..20_000).contains(&storage.other), "{storage:?}");
    }
}
