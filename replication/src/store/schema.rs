//! Migrations: numbered per domain, forward only, each in its own transaction.

use rusqlite::Connection;

use super::OpenError;

/// One step of a domain's tables.
///
/// Old and new nodes run together during a roll-out, so a step may add tables and columns that older programs
/// ignore; it must never take away or reinterpret what they use.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Whose tables; numbers count within it.
    pub domain: &'static str,
    /// From 1 on, without gaps.
    pub number: u32,
    /// The statements.
    pub sql: &'static str,
}

/// All migrations of an application.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    migrations: Vec<Migration>,
}

/// Replication's own tables.
const OWN: &[Migration] = &[
    Migration {
        domain: "replication",
        number: 1,
        sql: "
        -- One row: which node this folder belongs to, and the last hybrid time it gave out.
        CREATE TABLE replication_node (one INTEGER PRIMARY KEY CHECK (one = 1), node BLOB NOT NULL, stamp INTEGER NOT NULL) STRICT;
        -- The version vector: how much of each site's log is held, without a gap.
        CREATE TABLE replication_vector (
            grp INTEGER NOT NULL, site BLOB NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (grp, site)
        ) STRICT, WITHOUT ROWID;
        -- Frames that the tables could not take: for a table that a newer program has, or broken. They are part
        -- of the prefix, are served to peers, and are tried again after each migration.
        CREATE TABLE replication_quarantine (
            site BLOB NOT NULL, version INTEGER NOT NULL, frame BLOB NOT NULL, reason TEXT NOT NULL,
            PRIMARY KEY (site, version)
        ) STRICT, WITHOUT ROWID;",
    },
    // What a newer program writes waits for this node's own upgrade: see `later.rs`.
    Migration {
        domain: "replication-later",
        number: 1,
        sql: "
        -- The changes of a frame for whose tables or columns there is no place yet.
        CREATE TABLE replication_held (
            site BLOB NOT NULL, version INTEGER NOT NULL, frame BLOB NOT NULL, PRIMARY KEY (site, version)
        ) STRICT, WITHOUT ROWID;
        -- Rows whose packed data this program does not understand: they are in their tables, but not derived from.
        CREATE TABLE replication_underived (
            name TEXT NOT NULL, key BLOB NOT NULL, site BLOB NOT NULL, version INTEGER NOT NULL,
            PRIMARY KEY (name, key)
        ) STRICT, WITHOUT ROWID;",
    },
    Migration { domain: "replication-retired", number: 1, sql: super::retired::MIGRATION },
];

impl Schema {
    /// A schema of these migrations, in any order.
    #[must_use]
    pub fn new(domains: &[&[Migration]]) -> Self {
        let mut migrations: Vec<Migration> =
            domains.iter().flat_map(|domain| domain.iter().copied()).collect();
        migrations.sort_by_key(|migration| (migration.domain, migration.number));
        Self { migrations }
    }

    /// The same with the tables of one more domain.
    #[must_use]
    pub fn with(&self, domain: &[Migration]) -> Self {
        Self::new(&[&self.migrations, domain])
    }

    /// Brings the database up to date; says whether anything changed.
    pub(super) fn migrate(&self, db: &Connection) -> Result<bool, OpenError> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS replication_migration (
                domain TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (domain, number)
            ) STRICT, WITHOUT ROWID",
        )?;
        self.refuse_newer(db)?;
        let mut changed = false;
        for step in OWN.iter().chain(&self.migrations) {
            let done = db
                .prepare_cached("SELECT 1 FROM replication_migration WHERE domain = ?1 AND number = ?2")?
                .exists((step.domain, step.number))?;
            if done {
                continue;
            }
            let failed =
                |source| OpenError::Migration { domain: step.domain.into(), number: step.number, source };
            let transaction = db.unchecked_transaction()?;
            transaction.execute_batch(step.sql).map_err(failed)?;
            transaction
                .execute("INSERT INTO replication_migration VALUES (?1, ?2)", (step.domain, step.number))
                .map_err(failed)?;
            transaction.commit().map_err(failed)?;
            changed = true;
        }
        Ok(changed)
    }

    /// Whether it has this migration.
    pub(super) fn knows(&self, domain: &str, number: u32) -> bool {
        OWN.iter().chain(&self.migrations).any(|step| step.domain == domain && step.number == number)
    }

    /// A database of a newer program may mean its tables differently.
    fn refuse_newer(&self, db: &Connection) -> Result<(), OpenError> {
        let mut statement = db.prepare("SELECT domain, number FROM replication_migration")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (domain, number): (String, u32) = (row.get(0)?, row.get(1)?);
            if !self.knows(&domain, number) {
                return Err(OpenError::Newer { domain, number });
            }
        }
        Ok(())
    }
}
