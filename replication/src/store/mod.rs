//! A SQLite database that replicates: one writer thread, short read snapshots, a log per site.
//!
//! Everything that changes the database goes through the writer thread, which alone owns the write connection
//! and the version vector:
//!
//! 1. A local **job** ([`Store::write`]) reads, checks its rules and names the rows it wants in a [`Batch`]. The
//!    writer takes what is queued (group commit), writes the rows, lets [`Derive`] fill the local tables, commits
//!    with `synchronous=FULL`, and only then answers (invariant I1).
//! 2. A remote **frame** ([`Store::apply`]) is merged by cr-sqlite, but only on top of the exact prefix that it
//!    follows (I3); the vector moves in the same transaction. That commit does not wait for the disk, since the frame is
//!    on its writer's: [`Store::sync`] does, before anybody is told that this node has it on its own.
//! 3. Each commit is announced as a [`Commit`] with its frames: to the mesh, which pushes them, and to whoever
//!    watches the data. The frame of a local commit is built from the rows in hand.
//!
//! Replicated tables have key columns and one packed column, `data`; rows are never deleted, only erased
//! (`data` becomes NULL), so a cell's causal length is always 1.

mod adopt;
mod batch;
mod checkpoint;
mod connection;
mod copy;
mod error;
mod fresh;
mod health;
mod inline;
mod later;
mod lent;
mod log_reader;
mod merge;
mod queue;
mod retired;
mod schema;
mod site;
mod start;
mod surroundings;
mod tables;
mod witness;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

pub(crate) use adopt::beside;
pub use adopt::{AdoptError, Incoming};
pub use batch::{Batch, Note};
pub use copy::Copied;
use error::is_environment;
pub use error::{DiskFault, OpenError, StoreError};
pub use health::Health;
pub use inline::Worker;
use lent::Lent;
pub use log_reader::{LogRead, LogReader};
pub use schema::{Migration, Schema};
pub use surroundings::{Surroundings, System};
pub use witness::Witness;

use crate::{
    NodeId,
    log::{Frame, Retirement, Retirements, SiteId, Value, Version, VersionVector},
    mutation::{self, Mutation},
};

/// Rows that one version holds at the most.
pub const MAX_ROWS: usize = 256;
/// Bytes of rows after which a version is full.
pub const MAX_BYTES: usize = 64 << 10;
/// What the local jobs that wait for the writer may hold, in bytes; a further caller waits for a place, 2 s at most.
const MAX_QUEUED: usize = 16 << 20;
/// What a job takes of it at the least, in bytes: so 4,096 jobs at the most.
const JOB_SIZE: usize = 4 << 10;
/// How long a caller waits for a place in the writer's queue before it is told that the store is busy.
const ENQUEUE_PATIENCE: Duration = Duration::from_secs(2);
/// Connections that read at the same time; more readers wait for their turn.
const MAX_READERS: usize = 8;
/// Logs that are read at the same time. Messages that are near to each other in the log of one site are far apart in the
/// tables, and lie among those of other sites: a node that lacks the logs of many sites is read for from the same pages,
/// which a few connections find in their caches and many would each have to load.
const MAX_LOG_READS: usize = 2;
/// Commits that a slow watcher may be behind before it is told that it missed some (and re-reads the log).
const WATCH_CAPACITY: usize = 1024;

/// A replicated row as [`Derive`] sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// The table.
    pub table: &'a str,
    /// The primary key, column by column.
    pub key: Vec<Value>,
    /// The packed column; `None` when the row was erased.
    pub data: Option<&'a [u8]>,
    /// Who wrote it.
    pub site: SiteId,
    /// In which version of that site.
    pub version: Version,
}

/// Fills local tables from replicated rows, in the transaction that writes or merges them.
///
/// Sites' rows arrive in any interleaving, and a row may come again: the local tables must come out the same.
pub trait Derive: Send + 'static {
    /// Takes note of `rows`, which are in the database already.
    ///
    /// # Errors
    /// Only for what SQLite refuses; a row whose packed data is not understood is left alone.
    fn derive(&mut self, db: &Connection, rows: &[Row<'_>]) -> rusqlite::Result<()>;

    /// Whether this program knows the format of a row's packed data. One that it does not know is noted, and derived
    /// from by the first program that opens the database and does.
    fn understands(&self, _row: &Row<'_>) -> bool {
        true
    }

    /// What was derived since the last call is committed, and nobody has been told yet: time to let go of what is
    /// remembered of the rows as they were.
    fn committed(&mut self) {}

    /// Any row may be another than before: the database was replaced, or opened anew after a failure.
    fn reopened(&mut self) {}
}

/// A [`Derive`] for databases without local tables.
#[derive(Debug, Default, Clone, Copy)]
pub struct DeriveNothing;

impl Derive for DeriveNothing {
    fn derive(&mut self, _: &Connection, _: &[Row<'_>]) -> rusqlite::Result<()> {
        Ok(())
    }
}

/// What a job returned, once it is durable.
#[derive(Debug, Clone)]
pub struct Written<T> {
    /// The job's own answer.
    pub value: T,
    /// What this node held after the commit: a reader elsewhere who has all of it has the write.
    pub vector: Arc<VersionVector>,
    /// Where in the log of this node it ends; `None` when the job wrote nothing.
    pub end: Option<(SiteId, Version)>,
}

/// One transaction: what is of this node is durable, what is of others is on their disks.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its versions, in the order of their application. Empty when the database was replaced by a copy that holds
    /// more ([`Store::adopt`]): what it has beyond the vector before is in the logs.
    pub frames: Vec<Arc<Frame>>,
    /// What its jobs noted of rows, by the rows' places in its one version: how things are after it, maybe not any more.
    pub notes: BTreeMap<u32, Note>,
    /// What the node holds now.
    pub vector: Arc<VersionVector>,
    /// Whether it came from jobs of this node.
    pub local: bool,
}

/// What became of frames that were handed to [`Store::apply`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Frames that moved the vector.
    pub applied: usize,
    /// Frames that were held already.
    pub duplicates: usize,
    /// Frames that follow a version which is not held yet: to be asked for again.
    pub gaps: usize,
    /// Frames of which a part waits for a table or column that a newer program has.
    pub held: usize,
    /// Frames that the database could not take and that were set aside: a fault.
    pub quarantined: usize,
}

/// A handle to the database; clones share it. The last one to go stops the writer.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    generation: u64,
    path: PathBuf,
    schema: Schema,
    queue: Arc<queue::Queue>,
    places: Arc<Semaphore>,
    held: AtomicBool,
    in_doubt: bool,
    site: watch::Receiver<SiteId>,
    vector: watch::Receiver<Arc<VersionVector>>,
    durable: watch::Receiver<Arc<VersionVector>>,
    retired: watch::Receiver<Arc<Retirements>>,
    /// A database that is adopted has the same tables.
    logs: LogReader,
    health: watch::Receiver<Health>,
    commits: broadcast::Sender<Arc<Commit>>,
    readers: Arc<Mutex<Vec<Connection>>>,
    reading: Arc<Semaphore>,
    reading_logs: Semaphore,
    /// Whether there are no threads: see [`Worker`].
    inline: bool,
    writer: Mutex<Option<JoinHandle<()>>>,
    checkpointer: Arc<Mutex<Option<checkpoint::Checkpointer>>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.path)
            .field("site", &self.site())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database at `path`, creating or migrating it, and starts its writer.
    ///
    /// # Errors
    /// See [`OpenError`]. A second writer on the same file is refused.
    pub fn open(path: &Path, schema: &Schema, derive: Box<dyn Derive>) -> Result<Self, OpenError> {
        let (store, writer) = Self::assemble(path, schema, derive, Arc::new(System), false)?;
        let queue = Arc::clone(&store.inner.queue);
        let checkpointer = checkpoint::Checkpointer::start(path, store.node(), Arc::clone(&queue))?;
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&queue))
            .map_err(|source| OpenError::File { path: path.to_owned(), source: source.into() })?;
        *store.inner.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        *store.inner.checkpointer.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpointer);
        Ok(store)
    }

    /// The node that this data folder belongs to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// When this process opened the database, in milliseconds since 1970, or later: it grows with each start of the node,
    /// also when its clock was set back in between.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// The site whose log this node writes. It changes when the disk turns out to have gone back in time.
    #[must_use]
    pub fn site(&self) -> SiteId {
        *self.inner.site.borrow()
    }

    /// Whether the disk was not certain to be the newest when the database was opened: a copy of it may have been written
    /// to since. Then the node must go on under a new site id ([`Store::renew_site`]) before it takes a write (I2).
    #[must_use]
    pub fn was_in_doubt(&self) -> bool {
        self.inner.in_doubt
    }

    /// What this node holds, and readers see. Of its own log all is durable; of the others' see [`Store::durable`].
    #[must_use]
    pub fn vector(&self) -> Arc<VersionVector> {
        Arc::clone(&self.inner.vector.borrow())
    }

    /// What of it is on this node's disk for certain. Frames of other sites, which are on their writers' disks, get to
    /// this one with the next local commit or [`Store::sync`].
    #[must_use]
    pub fn durable(&self) -> Arc<VersionVector> {
        if mutation::is_on(Mutation::ClaimUnsynced) {
            return self.vector();
        }
        Arc::clone(&self.inner.durable.borrow())
    }

    /// Brings to the disk what is held now; one fsync, or none where all of it is there already.
    ///
    /// # Errors
    /// A [`StoreError`] when the disk fails.
    pub async fn sync(&self) -> Result<(), StoreError> {
        if self.durable().covers(&self.vector()) {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        if !self.inner.queue.push_sync(answer) {
            return Err(StoreError::Closed);
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// The retirements that this node knows: all that are said in versions of a [`Store::vector`] that was taken before,
    /// and maybe more.
    #[must_use]
    pub fn retired(&self) -> Arc<Retirements> {
        Arc::clone(&self.inner.retired.borrow())
    }

    /// Whether the disk takes writes, as far as is known.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.health.clone()
    }

    /// Waits until everything in `wanted` is held; `false` when that took longer than `timeout`.
    pub async fn wait_for(&self, wanted: &VersionVector, timeout: Duration) -> bool {
        let mut vector = self.inner.vector.clone();
        let covered = vector.wait_for(|held| held.covers(wanted));
        matches!(tokio::time::timeout(timeout, covered).await, Ok(Ok(_)))
    }

    /// Each commit from now on. A receiver that falls behind by too many is told so and re-reads the log.
    #[must_use]
    pub fn commits(&self) -> broadcast::Receiver<Arc<Commit>> {
        self.inner.commits.subscribe()
    }

    /// Runs `job` on the writer thread and answers once what it wrote is fsynced (invariant I1).
    ///
    /// A job that returns an error writes nothing. A job with more rows than a version holds is split into several
    /// versions, committed in order.
    ///
    /// # Errors
    /// The job's own error, or a [`StoreError`] when writes are held, the queue stays full or the commit fails.
    pub async fn write<T, E>(
        &self,
        job: impl FnOnce(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Written<T>, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.write_sized(0, job).await
    }

    /// [`Store::write`] for a job that holds so many bytes until it has run: they count against the queue's bound.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_sized<T, E>(
        &self,
        bytes: usize,
        job: impl FnOnce(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Written<T>, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if self.inner.held.load(Ordering::Acquire) {
            return Err(StoreError::Unsettled.into());
        }
        let places = self.places(bytes).await?;
        let (answer, answered) = oneshot::channel();
        let job: queue::Job = Box::new(move |batch| {
            let result = job(batch);
            if result.is_err() {
                batch.discard();
            }
            let site = batch.writes().then(|| batch.site());
            Box::new(move |outcome| {
                drop(places);
                let result = match (result, outcome) {
                    (Err(error), _) => Err(error),
                    (Ok(_), Err(error)) => Err(E::from(error)),
                    (Ok(value), Ok(vector)) => {
                        let end = site.map(|site| (site, vector.get(site)));
                        Ok(Written { value, vector, end })
                    }
                };
                // The caller may have gone: its write stands all the same.
                let _ = answer.send(result);
            })
        });
        if !self.inner.queue.push_job(job, bytes) {
            return Err(StoreError::Closed.into());
        }
        answered.await.map_err(|_| StoreError::Job)?
    }

    /// Places in the writer's queue for a job that holds so many bytes.
    async fn places(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        // One that is larger than the queue has it for itself.
        let wanted = bytes.div_ceil(JOB_SIZE).clamp(1, MAX_QUEUED / JOB_SIZE) as u32;
        if let Ok(places) = Arc::clone(&self.inner.places).try_acquire_many_owned(wanted) {
            return Ok(places);
        }
        let started = Instant::now();
        let places = Arc::clone(&self.inner.places).acquire_many_owned(wanted);
        let places = tokio::time::timeout(ENQUEUE_PATIENCE, places).await;
        metrics::histogram!("mychat_store_place_seconds").record(started.elapsed().as_secs_f64());
        let Ok(places) = places else {
            metrics::counter!("mychat_store_busy_total").increment(1);
            return Err(StoreError::Busy);
        };
        places.map_err(|_| StoreError::Closed)
    }

    /// Refuses local writes until [`Store::release_writes`]: while it is not certain that the next version of the own
    /// log has never been used (invariant I2). Frames of other sites are merged all the same.
    pub fn hold_writes(&self) {
        self.inner.held.store(true, Ordering::Release);
    }

    /// Accepts local writes again.
    pub fn release_writes(&self) {
        self.inner.held.store(false, Ordering::Release);
    }

    /// Merges frames of other sites, in the given order, in as few transactions as fit the bounds.
    ///
    /// # Errors
    /// A [`StoreError`] when the disk fails; nothing was applied then and the vector is as before.
    pub async fn apply(&self, frames: Vec<Arc<Frame>>) -> Result<Applied, StoreError> {
        let (answer, answered) = oneshot::channel();
        if !self.inner.queue.push_remote(queue::Remote { frames, answer }) {
            return Err(StoreError::Closed);
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Goes on under a new site id, keeping all data: the old log has become one that others know more of (I2).
    ///
    /// # Errors
    /// A [`StoreError`] when the disk fails; the old site id is kept then.
    pub async fn renew_site(&self) -> Result<SiteId, StoreError> {
        let (answer, answered) = oneshot::channel();
        if !self.inner.queue.push_renewal(answer) {
            return Err(StoreError::Closed);
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Retires a site that this node wrote before, up to all that is held of it (see [`crate::log::retirement`]).
    ///
    /// # Errors
    /// As for [`Store::write`].
    pub async fn retire(&self, site: SiteId) -> Result<(), StoreError> {
        let node = self.node();
        self.write(move |batch| retired::write(batch, node, site)).await.map(|_| ())
    }

    /// The retirements that the database holds.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn retirements(&self) -> Result<Vec<Retirement>, StoreError> {
        self.read(|db| Ok::<_, StoreError>(retired::read(db)?)).await
    }

    /// Runs `f` on a read-only connection, in one snapshot, on a thread that may block.
    ///
    /// # Errors
    /// Those of `f`, and of opening a connection.
    pub async fn read<T, E>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
    {
        let turn = self.reader_turn().await?;
        if self.inner.inline {
            return self.inner.snapshot(f);
        }
        let inner = Arc::clone(&self.inner);
        let read = move || {
            let result = inner.snapshot(f);
            drop(turn);
            result
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| StoreError::Job)?
    }

    /// Like [`Store::read`], but on the calling thread: for a few look-ups by key, which take less time than it takes
    /// to wake another thread for them.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn glance<T, E>(&self, f: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StoreError> + From<rusqlite::Error>,
    {
        let _turn = self.reader_turn().await?;
        self.inner.snapshot(f)
    }

    async fn reader_turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        Arc::clone(&self.inner.reading).acquire_owned().await.map_err(|_| StoreError::Closed)
    }

    /// Reads a part of `site`'s log, from the version after `after` on: for a peer or a client that is behind.
    ///
    /// # Errors
    /// A [`StoreError`] when the database can't be read.
    pub async fn read_log(
        &self,
        site: SiteId,
        after: Version,
        max_bytes: usize,
    ) -> Result<LogRead, StoreError> {
        let _turn = self.inner.reading_logs.acquire().await.map_err(|_| StoreError::Closed)?;
        let logs = self.logs();
        self.read(move |db| Ok::<_, StoreError>(logs.read(db, site, after, max_bytes)?)).await
    }

    /// Reads logs inside a read that is under way; see [`Store::read_log`].
    #[must_use]
    pub fn logs(&self) -> LogReader {
        self.inner.logs.clone()
    }

    /// Stops the writer after what is queued, and closes the database.
    pub async fn close(&self) {
        self.inner.queue.close();
        let thread = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        let checkpointer = self.inner.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = tokio::task::spawn_blocking(move || drop(checkpointer)).await;
        let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for reader in readers.drain(..) {
            connection::close(reader);
        }
    }
}

impl Inner {
    /// Runs `f` in one snapshot, on a connection that is idle or new.
    fn snapshot<T, E: From<StoreError> + From<rusqlite::Error>>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => connection::open_reader(&self.path)?,
        };
        let lent = Lent::new(reader);
        let result = lent.snapshot(f)?;
        let reader = lent.give_back();
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).extend(reader);
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        for reader in self.readers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            connection::close(reader);
        }
    }
}
