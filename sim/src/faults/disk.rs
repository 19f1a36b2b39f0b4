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
    /// Bytes of the write-ahead log that an fsync has covered.
    durable: u64,
    /// How long what it does takes, and until when.
    pub slow: (Time, Time),
    pub full_until: Time,
}

impl Disk {
    /// A disk with an empty database for `node`, which writes `site`.
    pub fn new(home: PathBuf, templates: &Templates, node: NodeId, site: SiteId) -> anyhow::Result<Self> {
        let disk = Self { home, durable: 0, slow: (Time::ZERO, Time::ZERO), full_until: Time::ZERO };
        fs::create_dir_all(&disk.home)?;
        fs::write(disk.database(), &templates.now)?;
        let db = Connection::open(disk.database())?;
        db.execute("INSERT OR REPLACE INTO replication_node VALUES (1, ?1, 0)", [node.0])?;
        db.execute("UPDATE crsql_site_id SET site_id = ?1 WHERE ordinal = 0", [site.0])?;
        Ok(disk)
    }

    pub fn database(&self) -> PathBuf {
        self.home.join("data.db")
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

    /// Leaves what a crash does: the database, and of the log all that is durable, at least `kept` bytes. The process that
    /// had it open must have been killed.
    pub fn crash(&mut self, kept: u64) -> io::Result<()> {
        let cut = kept.max(self.durable).min(self.written());
        if self.log().exists() {
            File::options().write(true).open(self.log())?.set_len(cut)?;
        }
        self.forget_index()
    }

    /// The index of the log was in the memory of the process that is gone.
    fn forget_index(&self) -> io::Result<()> {
        match fs::remove_file(beside(&self.database(), "-shm")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
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

    /// Puts a copy in place of the database, which nobody has open.
    pub fn restore(&mut self, copy: &Path) -> io::Result<()> {
        fs::copy(copy, self.database())?;
        if log_of(copy).exists() {
            fs::copy(log_of(copy), self.log())?;
        } else if self.log().exists() {
            fs::remove_file(self.log())?;
        }
        self.forget_index()
    }
}

fn log_of(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

/// A file that SQLite has beside a database.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The length of a file; 0 where there is none.
pub fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}
