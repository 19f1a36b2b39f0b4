//! A store without threads: what is asked of it waits until its owner lets it work.
//!
//! For a simulation, which decides when a disk has done something. It is the same writer on the same queue, only that
//! somebody else calls it; reads run where they are asked for. So the futures of such a [`Store`] need no
//! runtime: those of reads are ready at once, those of writes after the [`Worker`] had its turn.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;

use super::{
    Derive, OpenError, Schema, Store, StoreError, Surroundings, connection,
    queue::{Queue, Work},
    writer::Writer,
};

impl Store {
    /// Opens the database without threads of its own: it works when its [`Worker`] is told to.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_inline(
        path: &Path,
        schema: &Schema,
        derive: Box<dyn Derive>,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<(Self, Worker), OpenError> {
        let (store, writer) = Self::assemble(path, schema, derive, surroundings, true)?;
        let (queue, readers) = (Arc::clone(&store.inner.queue), Arc::clone(&store.inner.readers));
        Ok((store, Worker { writer, queue, readers }))
    }
}

/// The writer of a store that was opened with [`Store::open_inline`].
pub struct Worker {
    pub(super) writer: Writer,
    pub(super) queue: Arc<Queue>,
    readers: Arc<Mutex<Vec<Connection>>>,
}

impl Worker {
    /// Does the next thing that waits, in one or more transactions, and answers it; `false` when nothing waits.
    pub fn work(&mut self) -> bool {
        let work = self.queue.take();
        let some = work.is_some();
        work.into_iter().for_each(|work| self.writer.do_work(work, &self.queue));
        some
    }

    /// Whether something waits.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.queue.has_work()
    }

    /// Whether the disk takes writes, as far as is known.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.writer.is_well()
    }

    /// Tries a commit, to find out whether the disk takes writes again.
    pub fn probe(&mut self) {
        self.writer.do_work(Work::Idle, &self.queue);
    }

    /// Ends as a process that is killed does: what waits is lost, nothing more is written, and the write-ahead log stays
    /// as it is. Nobody may read from the store after this.
    pub fn kill(mut self) {
        self.queue.close();
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.drain(..).chain(self.writer.take_connection()).for_each(connection::abandon);
    }

    /// The connection that writes.
    ///
    /// # Errors
    /// When it was closed after a failure and could not be opened anew.
    pub fn connection(&self) -> Result<&Connection, StoreError> {
        self.writer.db()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close();
        self.writer.close();
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("has_work", &self.has_work()).finish_non_exhaustive()
    }
}
