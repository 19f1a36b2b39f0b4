//! Cursors as clients keep them: read and written by what a node holds at that moment.

use std::sync::{Arc, Mutex, PoisonError};

use mychat_replication::{log::Retirements, store::Store};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Duration, Instant, timeout_at},
};

use super::{Cursor, Retired, Unreadable};

/// Reads and writes the cursors of a node's clients; clones share what is known.
#[derive(Clone)]
pub struct Cursors {
    store: Store,
    latest: Arc<Mutex<(Arc<Retirements>, Arc<Retired>)>>,
}

impl Cursors {
    /// For the clients of a node with this database.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let retirements = store.retired();
        let retired = Arc::new(Retired::of(&retirements));
        Self { store, latest: Arc::new(Mutex::new((retirements, retired))) }
    }

    /// A client that has seen all that the node holds.
    #[must_use]
    pub fn now(&self) -> Cursor {
        Cursor::from(self.store.vector().as_ref())
    }

    /// Reads a cursor that a client has brought.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(&self, text: &str) -> Result<Cursor, Unreadable> {
        // In this order: the retirements are known before the vector says that they are held.
        let vector = self.store.vector();
        Cursor::read(text, &vector, &self.retired())
    }

    /// The same, waiting at most for so long until the node knows what the cursor leaves out.
    ///
    /// # Errors
    /// As [`Cursors::read`].
    pub async fn read_within(&self, text: &str, patience: Duration) -> Result<Cursor, Unreadable> {
        let deadline = Instant::now() + patience;
        let mut commits = self.store.commits();
        loop {
            match self.read(text) {
                Err(Unreadable::Unknown) => {}
                result => return result,
            }
            match timeout_at(deadline, commits.recv()).await {
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return Err(Unreadable::Unknown),
            }
        }
    }

    /// The cursor as a client keeps it.
    #[must_use]
    pub fn write(&self, cursor: &Cursor) -> String {
        cursor.write(&self.retired())
    }

    /// What is known to be retired now.
    fn retired(&self) -> Arc<Retired> {
        let retirements = self.store.retired();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&latest.0, &retirements) {
            *latest = (Arc::clone(&retirements), Arc::new(Retired::of(&retirements)));
        }
        Arc::clone(&latest.1)
    }
}

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursors").finish_non_exhaustive()
    }
}
