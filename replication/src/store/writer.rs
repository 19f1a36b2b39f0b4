//! The writer thread: the only one that changes the database, and the owner of the version vector.

mod durability;
mod incoming;
mod recovery;
mod renewal;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use rusqlite::Connection;
use tokio::sync::{broadcast, watch};

use super::{
    Batch, Commit, Derive, Health, MAX_BYTES, MAX_ROWS, OpenError, Row, Schema, StoreError, Surroundings,
    adopt,
    batch::{NewRow, Note},
    connection::{self, Synchronous},
    health,
    later::Later,
    log_reader::LogReader,
    merge,
    queue::{Finish, Job, Queue, Queued, Remote, Work},
    retired, site, start,
    tables::Tables,
    witness::Witness,
};
use durability::Durability;

use crate::{
    NodeId,
    clock::{Clock, Stamp},
    log::{Change, Frame, GroupId, Retirement, Retirements, SiteId, Version, VersionVector},
    mutation::{self, Mutation},
};

pub struct Writer {
    path: PathBuf,
    /// Held as long as the writer lives: a second process on the same file would reuse versions.
    _lock: File,
    /// `None` only while the connection is opened anew, or after that failed.
    db: Option<Connection>,
    /// Why it failed.
    broken: Option<StoreError>,
    tables: Tables,
    derive: Box<dyn Derive>,
    later: Later,
    health: health::Monitor,
    clock: Clock,
    /// The database says that no stamp after this one was given out.
    reserved: Stamp,
    node: NodeId,
    generation: u64,
    /// The head of the own log when the database was opened: what came later is new, whatever the disk lost.
    opened_at: Version,
    site: watch::Sender<SiteId>,
    held: VersionVector,
    vector: watch::Sender<Arc<VersionVector>>,
    durability: Durability,
    /// What the versions of the vector retire: known before the vector says that they are held.
    retired: watch::Sender<Arc<Retirements>>,
    commits: broadcast::Sender<Arc<Commit>>,
    surroundings: Arc<dyn Surroundings>,
    witness: Box<dyn Witness>,
    /// The witness did not vouch for the disk, and the site id is still the one that was found there.
    in_doubt: bool,
}

/// Stamps are reserved for so many milliseconds, lest each commit write a page for its own. A node that is killed goes on
/// after them.
const RESERVED_MILLIS: u64 = 250;

/// Jobs that may join those which the writer took up together. Without this bound, what other nodes sent would wait for as many
/// as there are places in the queue.
const MAX_LATE: usize = 256;

/// Where jobs come from while others run.
struct Late<'a> {
    queue: &'a Queue,
    /// How many more may.
    left: usize,
}

impl Late<'_> {
    /// The next of the jobs, after the last of them one that has come meanwhile.
    fn next(&mut self, jobs: &mut VecDeque<Queued>) -> Option<Queued> {
        if jobs.is_empty() {
            *jobs = self.queue.take_jobs(self.left);
            self.left -= jobs.len();
        }
        jobs.pop_front()
    }
}

/// Rows written in the transaction that is open.
struct Group {
    version: Version,
    changes: Vec<Change>,
    bytes: usize,
    /// What jobs noted of their rows, by the numbers of these.
    notes: BTreeMap<u32, Note>,
    /// Changes that cr-sqlite numbered so far, also those that were overwritten within the group.
    sequence: u32,
    /// Written rows that the local tables don't know yet.
    underived: Vec<NewRow>,
    /// Jobs whose rows are complete in it.
    finishes: Vec<Finish>,
}

impl Writer {
    pub fn open(
        path: &Path,
        schema: &Schema,
        mut derive: Box<dyn Derive>,
        commits: broadcast::Sender<Arc<Commit>>,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Self, OpenError> {
        let lock = start::lock(path)?;
        let is_new = !path.exists();
        let db = connection::open_writer(path)?;
        schema.migrate(&db)?;
        let (node, stamp) = start::node(&db, surroundings.as_ref())?;
        let (stamp, synced) = start::stamp_of_this_start(&db, stamp, surroundings.as_ref());
        let tables = Tables::read(&db)?;
        let site = site::current(&db)?;
        let held = read_vector(&db)?;
        let opened_at = held.get(site);
        let mut witness = surroundings.witness(path);
        let in_doubt = !start::is_vouched_for(witness.as_mut(), is_new, site, opened_at);
        // Of its own log a process has nothing that was not on the disk at once.
        let durable = if synced { held.clone() } else { std::iter::once((site, opened_at)).collect() };
        let (site, _) = watch::channel(site);
        let (vector, _) = watch::channel(Arc::new(held.clone()));
        let (retired, _) = watch::channel(Arc::new(read_retired(&db)?));
        let later = Later::open(&db, &tables, derive.as_mut(), node)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            db: Some(db),
            broken: None,
            tables,
            derive,
            later,
            health: health::Monitor::new(path, node),
            clock: Clock::starting_after(stamp),
            reserved: stamp,
            node,
            generation: stamp.millis(),
            opened_at,
            site,
            held,
            vector,
            durability: Durability::of(durable),
            retired,
            commits,
            surroundings,
            witness,
            in_doubt,
        })
    }

    /// Whether the disk may be older than what this node wrote.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn logs(&self) -> LogReader {
        self.tables.logs().clone()
    }

    pub fn watch_site(&self) -> watch::Receiver<SiteId> {
        self.site.subscribe()
    }

    pub fn watch_vector(&self) -> watch::Receiver<Arc<VersionVector>> {
        self.vector.subscribe()
    }

    pub fn watch_durable(&self) -> watch::Receiver<Arc<VersionVector>> {
        self.durability.watch()
    }

    pub fn watch_retired(&self) -> watch::Receiver<Arc<Retirements>> {
        self.retired.subscribe()
    }

    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.health.watch()
    }

    /// Works until the queue is closed and empty.
    pub fn run(mut self, queue: &Queue) {
        loop {
            let patience = (!self.is_well()).then_some(health::PROBE);
            match queue.next(patience) {
                Work::Stop => break,
                work => self.do_work(work, queue),
            }
        }
        self.close();
    }

    /// Does one thing that came out of the queue, and answers whoever waits for it.
    pub fn do_work(&mut self, work: Work, queue: &Queue) {
        if self.db.is_none() {
            self.broken = self.reopen().err();
        }
        match work {
            Work::Jobs(jobs) => self.run_jobs(jobs, queue),
            Work::Remote(Remote { frames, answer }) => {
                let result = self.apply(&frames).inspect_err(|error| self.recover(error));
                let _ = answer.send(result);
            }
            Work::Renew(answer) => {
                let _ = answer.send(self.renew());
            }
            Work::Sync(waiting) => {
                let synced = self.sync();
                for answer in waiting {
                    let _ = answer.send(synced.clone());
                }
            }
            Work::Idle => self.probe(),
            Work::Adopt(adoption) => {
                let adopt::Adoption { incoming, quiet, answer } = *adoption;
                let adopted = self.adopt(&incoming);
                // Readers and checkpoints go on before anybody hears of it.
                drop(quiet);
                let _ = answer.send(adopted);
            }
            Work::Stop => {}
        }
    }

    /// Whether the disk takes writes, as far as is known.
    pub fn is_well(&self) -> bool {
        self.health.is_well()
    }

    pub fn close(&mut self) {
        if let Err(error) = self.wait_with_commits(Synchronous::Full) {
            tracing::debug!(%error, "the last commit does not wait for the disk");
        }
        if let Some(db) = self.db.take() {
            // The next start need not keep clear of stamps that were never given out.
            if let Err(error) = write_stamp(&db, self.clock.last()) {
                tracing::debug!(%error, "the last stamp could not be kept");
            }
            connection::close(db);
        }
    }

    /// The connection of a writer that goes without [`Writer::close`].
    pub fn take_connection(&mut self) -> Option<Connection> {
        self.db.take()
    }

    pub fn db(&self) -> Result<&Connection, StoreError> {
        self.db.as_ref().ok_or_else(|| self.broken.clone().unwrap_or(StoreError::Closed))
    }

    /// Runs jobs, and those that come to the queue before the last of them is done: a commit costs the same whatever it
    /// holds, here and on every other node.
    fn run_jobs(&mut self, mut jobs: VecDeque<Queued>, queue: &Queue) {
        let mut late = Late { queue, left: MAX_LATE };
        while !jobs.is_empty() {
            let mut group = match self.begin() {
                Ok(group) => group,
                Err(error) => {
                    self.recover(&error);
                    // Every waiting job hears of it; a job has to run to give its finisher, but writes nothing.
                    for queued in jobs.drain(..) {
                        self.refuse(queued.job, &error);
                    }
                    return;
                }
            };
            let result = self.fill(&mut group, &mut jobs, &mut late).and_then(|()| self.commit(&mut group));
            if let Err(error) = result {
                self.recover(&error);
                if error.disk_fault().is_none() {
                    tracing::warn!(%error, jobs = group.finishes.len(), "a group commit failed; nothing of it was kept");
                }
                metrics::counter!("mychat_store_failed_commits_total").increment(1);
                for finish in group.finishes {
                    finish(Err(error.clone()));
                }
            }
        }
    }

    /// Runs jobs into the group until it is full or there are none left.
    fn fill(
        &mut self,
        group: &mut Group,
        jobs: &mut VecDeque<Queued>,
        late: &mut Late<'_>,
    ) -> Result<(), StoreError> {
        while let Some(Queued { job, since, .. }) = late.next(jobs) {
            metrics::histogram!("mychat_store_queue_seconds").record(since.elapsed().as_secs_f64());
            let ran = self.run_job(job)?;
            let lost = self.db()?.is_autocommit();
            let Some((finish, rows)) = ran else { continue };
            if lost {
                // SQLite took the transaction back because the disk or the memory failed the job as it read. What is
                // written from here on would be kept statement by statement.
                group.finishes.push(finish);
                return Err(StoreError::lost_transaction());
            }
            let size: usize = rows.iter().map(NewRow::size).sum();
            let fits = group.changes.len() + rows.len() <= MAX_ROWS && group.bytes + size <= MAX_BYTES;
            if !fits && !group.changes.is_empty() {
                // What the job read stays true: nobody else writes between the two commits.
                if let Err(error) = self.commit(group).and_then(|()| {
                    *group = self.begin()?;
                    Ok(())
                }) {
                    group.finishes.push(finish);
                    return Err(error);
                }
            }
            let written = self.write_rows(group, rows);
            group.finishes.push(finish);
            written?;
        }
        Ok(())
    }

    /// Runs the closure of one job. A panic there costs that job alone: its caller hears [`StoreError::Job`].
    fn run_job(&mut self, job: Job) -> Result<Option<(Finish, Vec<NewRow>)>, StoreError> {
        let db = self.db.as_ref().ok_or(StoreError::Closed)?;
        let mut batch = Batch::new(db, &mut self.clock, self.surroundings.as_ref(), *self.site.borrow());
        match catch_unwind(AssertUnwindSafe(|| job(&mut batch))) {
            Ok(finish) => Ok(Some((finish, batch.into_rows()))),
            Err(_) => {
                tracing::error!("a write job panicked; it was dropped and the writer goes on");
                Ok(None)
            }
        }
    }

    fn refuse(&mut self, job: Job, error: &StoreError) {
        if let Ok(Some((finish, _))) = self.run_job(job) {
            finish(Err(error.clone()));
        }
    }

    fn begin(&mut self) -> Result<Group, StoreError> {
        let db = self.begin_transaction(Synchronous::Full)?;
        // Without this a connection may record a garbage time with its changes; ours are in the packed rows.
        db.prepare_cached("SELECT crsql_set_ts('0')")?.query_row([], |_| Ok(()))?;
        let head = self.held.get(*self.site.borrow());
        Ok(Group {
            version: Version(head.0 + 1),
            changes: Vec::new(),
            notes: BTreeMap::new(),
            bytes: 0,
            sequence: 0,
            underived: Vec::new(),
            finishes: Vec::new(),
        })
    }

    /// Writes a job's rows; where they exceed what a version holds, earlier parts are committed on the way.
    fn write_rows(&mut self, group: &mut Group, rows: Vec<NewRow>) -> Result<(), StoreError> {
        for mut row in rows {
            if group.changes.len() >= MAX_ROWS || group.bytes >= MAX_BYTES {
                self.derive(group)?;
                self.commit(group)?;
                *group = self.begin()?;
            }
            let db = self.db.as_ref().ok_or(StoreError::Closed)?;
            let Some(change) = self.tables.write(db, &row, group.sequence)? else { continue };
            if let Some(note) = row.note.take() {
                group.notes.insert(group.sequence, note);
            }
            group.sequence += 1;
            group.bytes += change.size();
            if row.put == super::batch::Put::Over {
                // The log keeps the last of several writes to a cell.
                group.changes.retain(|earlier| earlier.table != change.table || earlier.key != change.key);
            }
            group.changes.push(change);
            group.underived.push(row);
        }
        self.derive(group)
    }

    fn derive(&mut self, group: &mut Group) -> Result<(), StoreError> {
        if group.underived.is_empty() {
            return Ok(());
        }
        let db = self.db.as_ref().ok_or(StoreError::Closed)?;
        let site = *self.site.borrow();
        let written = std::mem::take(&mut group.underived);
        let rows: Vec<Row<'_>> = written
            .iter()
            .map(|row| Row {
                table: row.table,
                key: row.key.clone(),
                data: row.data.as_deref(),
                site,
                version: group.version,
            })
            .collect();
        Ok(merge::derived(db, self.derive.as_mut(), &rows)?)
    }

    /// Makes the group durable, answers its jobs and announces it.
    fn commit(&mut self, group: &mut Group) -> Result<(), StoreError> {
        metrics::histogram!("mychat_store_group_jobs").record(group.finishes.len() as f64);
        let db = self.db()?;
        if group.changes.is_empty() {
            db.prepare_cached("COMMIT")?.raw_execute()?;
            // Jobs that found their work done: maybe by a frame that is not on the disk yet.
            self.bring_to_disk()?;
            let vector = Arc::clone(&self.vector.borrow());
            for finish in group.finishes.drain(..) {
                finish(Ok(Arc::clone(&vector)));
            }
            return Ok(());
        }
        let site = *self.site.borrow();
        if mutation::is_on(Mutation::AnswerBeforeCommit) {
            let mut vector = self.held.clone();
            vector.advance(site, group.version);
            let vector = Arc::new(vector);
            group.finishes.drain(..).for_each(|finish| finish(Ok(Arc::clone(&vector))));
        }
        let started = Instant::now();
        // The own head needs no row: the extension keeps it.
        let reserved = (self.clock.last() > self.reserved).then(|| self.clock.ahead(RESERVED_MILLIS));
        if let Some(stamp) = reserved {
            write_stamp(db, stamp)?;
        }
        db.prepare_cached("COMMIT")?.raw_execute()?;
        metrics::histogram!("mychat_store_commit_seconds").record(started.elapsed().as_secs_f64());
        metrics::histogram!("mychat_store_commit_rows").record(group.changes.len() as f64);

        let frame = Arc::new(Frame {
            group: GroupId::GLOBAL,
            site,
            after: self.held.get(site),
            version: group.version,
            stamp: self.clock.last(),
            changes: std::mem::take(&mut group.changes),
        });
        #[cfg(debug_assertions)]
        compare_with_log(db, self.tables.logs(), &frame)?;
        self.held.advance(site, group.version);
        self.note_head();
        self.reserved = reserved.unwrap_or(self.reserved);
        self.health.succeeded();
        let vector = self.announce(vec![frame], std::mem::take(&mut group.notes), true);
        for finish in group.finishes.drain(..) {
            finish(Ok(Arc::clone(&vector)));
        }
        Ok(())
    }

    fn announce(
        &mut self,
        frames: Vec<Arc<Frame>>,
        notes: BTreeMap<u32, Note>,
        local: bool,
    ) -> Arc<VersionVector> {
        self.derive.committed();
        let news: Vec<Retirement> = frames.iter().flat_map(|frame| Retirement::of(frame)).collect();
        if !news.is_empty() {
            self.retired.send_modify(|known| {
                let known = Arc::make_mut(known);
                news.into_iter().for_each(|retirement| known.learn(retirement));
            });
        }
        let vector = Arc::new(self.held.clone());
        self.vector.send_replace(Arc::clone(&vector));
        if local {
            self.durability.reached(&vector);
        }
        // Nobody watching is fine.
        let _ = self.commits.send(Arc::new(Commit { frames, notes, vector: Arc::clone(&vector), local }));
        vector
    }
}

/// What the database holds of each site's log: by `replication_vector` of the others', by the extension of its own.
pub fn read_vector(db: &Connection) -> rusqlite::Result<VersionVector> {
    db.prepare_cached(
        "SELECT site, max(version) FROM (
             SELECT site, version FROM replication_vector WHERE grp = ?1
             UNION ALL
             SELECT v.site_id, v.db_version FROM crsql_db_versions v JOIN crsql_site_id s USING (site_id) WHERE s.ordinal = 0)
         GROUP BY site",
    )?
        .query_map([GroupId::GLOBAL.0], |row| {
            Ok((SiteId(row.get(0)?), Version(row.get::<_, i64>(1)?.cast_unsigned())))
        })?
        .collect()
}

fn read_retired(db: &Connection) -> rusqlite::Result<Retirements> {
    let mut known = Retirements::default();
    retired::read(db)?.into_iter().for_each(|retirement| known.learn(retirement));
    Ok(known)
}

fn write_vector(db: &Connection, site: SiteId, version: Version) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO replication_vector VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET version = excluded.version",
    )?
    .execute((GroupId::GLOBAL.0, site.0, version.0.cast_signed()))?;
    Ok(())
}

fn write_stamp(db: &Connection, stamp: Stamp) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE replication_node SET stamp = ?1")?.execute([stamp.to_u64().cast_signed()])?;
    Ok(())
}

/// The frame that was built from the rows in hand must be what the log says.
#[cfg(debug_assertions)]
fn compare_with_log(db: &Connection, logs: &LogReader, frame: &Frame) -> rusqlite::Result<()> {
    let read = logs.read(db, frame.site, frame.after, usize::MAX)?;
    let in_log = read.frames.iter().flat_map(|frame| &frame.changes);
    assert!(frame.changes.iter().eq(in_log), "frame in hand {frame:?} differs from the log {read:?}");
    Ok(())
}
