//! The simulated disk of a node: where its database lies, what of it survives a crash, when it has no room.
//!
//! The databases are real files in memory. Of what SQLite writes, a crash keeps what a commit has covered with an
//! fsync, and of the rest of the write-ahead log a part that ends anywhere, so that SQLite's own recovery has to find
//! out what counts. Whether a commit asks for its fsync is read from the connection that makes it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use mychat_replication::{
    NodeId,
    log::SiteId,
    store::{Store, Worker},
};
use rusqlite::Connection;

use super::upgrade;
use crate::virtual_time::{Chance, Time};

/// Databases as they are before anything was written, which each run copies.
pub struct Templates {
    now: Vec<u8>,
}

impl Templates {
    /// Makes them.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("template").join("data.db");
        let surroundings = super::node::Machine::new(0);
        let opened = Store::open_inline(&path, &upgrade::schema(false), upgrade::derive(false), surroundings);
        let (store, worker) = opened.context("the template of the databases can't be made")?;
        drop((store, worker));
        Ok(Self { now: fs::read(&path)? })
    }
}

/// The disk of one node.
#[derive(Debug)]
pub struct Disk {
    /// A folder for all that this node ever has.
    home: PathBuf,
    /// How many times the database has got another folder.
    life: u32,
    /// Bytes of the write-ahead log that an fsync has covered.
    durable: u64,
    /// How long what it does takes, and until when.
    pub slow: (Time, Time),
    pub full_until: Time,
}

impl Disk {
    /// A disk with an empty database for `node`, which writes `site`.
    pub fn new(home: PathBuf, templates: &Templates, node: NodeId, site: SiteId) -> anyhow::Result<Self> {
        let disk = Self { home, life: 0, durable: 0, slow: (Time::ZERO, Time::ZERO), full_until: Time::ZERO };
        fs::create_dir_all(disk.folder())?;
        fs::write(disk.database(), &templates.now)?;
        let db = Connection::open(disk.database())?;
        db.execute("INSERT OR REPLACE INTO replication_node VALUES (1, ?1, 0)", [node.0])?;
        db.execute("UPDATE crsql_site_id SET site_id = ?1 WHERE ordinal = 0", [site.0])?;
        Ok(disk)
    }

    fn folder(&self) -> PathBuf {
        self.home.join(self.life.to_string())
    }

    pub fn database(&self) -> PathBuf {
        self.folder().join("data.db")
    }

    pub fn log(&self) -> PathBuf {
        log_of(&self.database())
    }

    /// Bytes that are in the write-ahead log.
    pub fn written(&self) -> u64 {
        length(&self.log())
    }

    /// Everything that is written so far survives a crash: the process has just begun on it.
    pub fn begin(&mut self) {
        self.durable = self.written();
    }

    /// The writer has done something. Only commits that wait for the disk (`synchronous = FULL`) are durable.
    pub fn note(&mut self, worker: &Worker) {
        let level = worker
            .connection()
            .ok()
            .and_then(|db| db.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)).ok());
        if level.is_some_and(|level| level >= 2) {
            self.durable = self.written();
        }
    }

    /// Says how much room the connection that writes has.
    pub fn limit(&self, worker: &Worker, full: bool) {
        let Ok(db) = worker.connection() else { return };
        // A limit below what the database has is raised to that: so no page can be added.
        let pages = if full { 1 } else { u32::MAX - 1 };
        let limited = db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()));
        debug_assert!(limited.is_ok(), "a limit of pages is no more than a number");
    }

    /// How long the disk takes for what it is asked to do at `now`.
    pub fn delay(&self, now: Time, chance: &mut Chance) -> Time {
        let (takes, until) = self.slow;
        if now < until { chance.between(takes / 2, takes) } else { chance.upto(Time::from_micros(800)) }
    }

    /// What a crash leaves, in a new place: all that is durable, and of the log at least `kept` bytes, then as many of
    /// the rest as `part` says. The process that had it open must be gone after this, not before: SQLite tidies up.
    pub fn crash(&mut self, kept: u64) -> io::Result<u64> {
        let cut = kept.max(self.durable).min(self.written());
        let (from, log) = (self.database(), self.log());
        self.life += 1;
        fs::create_dir_all(self.folder())?;
        fs::copy(from, self.database())?;
        if log.exists() {
            fs::copy(log, self.log())?;
            File::options().write(true).open(self.log())?.set_len(cut)?;
        }
        Ok(cut)
    }

    /// Removes what the process before had.
    pub fn forget_former(&self) {
        if let Some(former) = self.life.checked_sub(1) {
            let _ = fs::remove_dir_all(self.home.join(former.to_string()));
        }
    }

    /// Copies the database aside, as a backup does.
    pub fn back_up(&self) -> io::Result<PathBuf> {
        let copy = self.home.join("copy.db");
        fs::copy(self.database(), &copy)?;
        if self.log().exists() {
            fs::copy(self.log(), log_of(&copy))?;
        } else {
            let _ = fs::remove_file(log_of(&copy));
        }
        Ok(copy)
    }

    /// Puts a copy in place of the database.
    pub fn restore(&mut self, copy: &Path) -> io::Result<()> {
        self.life += 1;
        fs::create_dir_all(self.folder())?;
        fs::copy(copy, self.database())?;
        if log_of(copy).exists() {
            fs::copy(log_of(copy), self.log())?;
        }
        Ok(())
    }
}

fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// The length of a file; 0 where there is none.
pub fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}
