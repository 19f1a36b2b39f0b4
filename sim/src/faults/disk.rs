//! The simulated disk of a node: where its database lies, what of it survives a crash, when it has no room.
//!
//! The databases are real files in memory. Of what SQLite writes, a crash keeps what a commit has covered with an
//! fsync, and of the rest of the write-ahead log a part that ends anywhere, so that SQLite's own recovery has to find
//! out what counts. Whether a commit asks for its fsync is read from the connection that makes it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use mychat_replication::{
    NodeId,
    log::SiteId,
    store::{Store, Worker},
};
use rusqlite::Connection;

use super::upgrade;
use crate::virtual_time::{Chance, Time};

/// A database as it is before anything was written, of which each node gets a copy with its own ids.
pub struct Templates {
    now: Vec<u8>,
    /// Where the ids of its node and of its site are in it.
    node: Vec<usize>,
    site: Vec<usize>,
}

impl Templates {
    /// Makes them.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("template").join("data.db");
        let surroundings = super::node::Machine::new(0);
        let opened = Store::open_inline(&path, &upgrade::schema(false), upgrade::derive(false), surroundings);
        let (store, worker) = opened.context("the template of the databases can't be made")?;
        let (node, site) = (store.node().0, store.site().0);
        drop((store, worker));
        Connection::open(&path)?.execute("UPDATE replication_node SET stamp = 0", [])?;
        let now = fs::read(&path)?;
        let places = |id: [u8; 16]| -> Vec<usize> {
            let ids = now.windows(id.len()).enumerate();
            ids.filter(|(_, bytes)| *bytes == id).map(|(at, _)| at).collect()
        };
        let (node, site) = (places(node), places(site));
        ensure!(!node.is_empty() && !site.is_empty(), "the ids are not found in the template");
        Ok(Self { now, node, site })
    }

    /// The bytes of a database of `node`, which writes `site`.
    fn database_of(&self, node: NodeId, site: SiteId) -> Vec<u8> {
        let mut database = self.now.clone();
        for (places, id) in [(&self.node, node.0), (&self.site, site.0)] {
            for at in places {
                database[*at..][..id.len()].copy_from_slice(&id);
            }
        }
        database
    }
}

/// A copy of a database, with its log if it has one.
#[derive(Debug)]
pub struct Backup {
    database: Vec<u8>,
    log: Option<Vec<u8>>,
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
    /// Whether the connection that writes may have been told that there is no room.
    limited: bool,
}

impl Disk {
    /// A disk with an empty database for `node`, which writes `site`.
    pub fn new(home: PathBuf, templates: &Templates, node: NodeId, site: SiteId) -> anyhow::Result<Self> {
        let disk =
            Self { home, durable: 0, slow: (Time::ZERO, Time::ZERO), full_until: Time::ZERO, limited: false };
        fs::create_dir_all(&disk.home)?;
        fs::write(disk.database(), templates.database_of(node, site))?;
        Ok(disk)
    }

    pub fn database(&self) -> PathBuf {
        self.home.join("data.db")
    }

    /// A file that SQLite has beside the database.
    fn beside(&self, ending: &str) -> PathBuf {
        self.home.join(format!("data.db{ending}"))
    }

    pub fn log(&self) -> PathBuf {
        self.beside("-wal")
    }

    /// Bytes that are in the write-ahead log.
    pub fn written(&self) -> u64 {
        length(&self.log())
    }

    /// Bytes of it that survive whatever happens to the machine.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Everything that is written so far survives a crash: the process has just begun on it.
    pub fn begin(&mut self) {
        self.durable = self.written();
    }

    /// The writer has done something. Only commits that wait for the disk (`synchronous = FULL`) make durable what is in
    /// the log, and only if they have written to it: the store must say so, and is not believed without the other.
    pub fn note(&mut self, worker: &Worker, store: &Store) {
        let level = worker
            .connection()
            .ok()
            .and_then(|db| db.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)).ok());
        if level.is_some_and(|level| level >= 2) && store.durable().covers(&store.vector()) {
            self.durable = self.written();
        }
    }

    /// Says how much room the connection that writes has. A new one has all that there is.
    pub fn limit(&mut self, worker: &Worker, full: bool) {
        if !full && !self.limited {
            return;
        }
        self.limited = full;
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
        match fs::remove_file(self.beside("-shm")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies the database aside, as a backup does.
    pub fn back_up(&self) -> io::Result<Backup> {
        let log = if self.log().exists() { Some(fs::read(self.log())?) } else { None };
        Ok(Backup { database: fs::read(self.database())?, log })
    }

    /// Puts a copy in place of the database, which nobody has open.
    pub fn restore(&mut self, copy: &Backup) -> io::Result<()> {
        overwrite(&self.database(), &copy.database)?;
        match &copy.log {
            Some(log) => overwrite(&self.log(), log)?,
            None if self.log().exists() => fs::remove_file(self.log())?,
            None => {}
        }
        self.forget_index()
    }
}

/// Puts bytes in place of what a file holds, keeping its memory.
fn overwrite(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(false).write(true).open(file)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// The length of a file; 0 where there is none.
pub fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}
