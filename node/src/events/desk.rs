//! The hub without its task: for a simulation, which decides itself when commits are told and clients read.
//!
//! It is the hub's own work on the hub's own books, over a store without threads
//! ([`Store::open_inline`]), whose reads are ready at once. So nothing here ever waits.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use mychat_replication::store::{Commit, Store};
use tokio::sync::oneshot;

use super::{
    Cursor, Cursors, Item, Unreadable,
    backlog::Backlog,
    hub::{Open, Task},
    opened::Opened,
    reactor::Reactors,
    recent::Recent,
    state::{State, Subscription},
    stream::Stream,
};
use crate::{
    app::Condition,
    ids::{AccountId, SessionId},
};

/// A hub that works when it is told to.
pub struct Desk {
    task: Task,
    recent: Arc<Recent>,
    cursors: Cursors,
}

/// The stream of one client.
pub struct Reader {
    stream: Stream,
    start: String,
    missed: bool,
}

impl Desk {
    /// The hub of a store that has no threads.
    #[must_use]
    pub fn new(store: Store) -> Self {
        // Its streams keep their queues: nobody moves to a reactor.
        let reactors = Reactors::new(Arc::new(|_| {}));
        let cursors = Cursors::new(store.clone());
        let state = State::new(store.vector().as_ref().clone(), cursors.clone(), reactors);
        let state = Arc::new(Mutex::new(state));
        let condition = Arc::new(Condition::of(&store));
        let recent = Arc::new(Recent::new(store.clone()));
        Self { task: Task { store, state, condition }, recent, cursors }
    }

    /// Tells what follows from commits, in their order; `None` for the news that some were missed.
    pub fn tell(&self, commits: Option<Vec<Arc<Commit>>>) {
        let told = match commits {
            Some(commits) => self.task.commits(commits).now_or_never(),
            None => self.task.catch_up().now_or_never(),
        };
        debug_assert!(told.is_some(), "the reads of a store without threads are ready at once");
    }

    /// Opens a stream for an account, from `cursor` on, or from now on without one. `None` when the database can't be
    /// read.
    ///
    /// # Errors
    /// When the cursor can't be read, for now or at all.
    pub fn open(
        &self,
        account: AccountId,
        session: SessionId,
        cursor: Option<&str>,
    ) -> Result<Option<Reader>, Unreadable> {
        let start = cursor.map_or_else(|| Ok(self.cursors.now()), |text| self.cursors.read(text))?;
        Ok(self.open_at(account, session, start))
    }

    fn open_at(&self, account: AccountId, session: SessionId, start: Cursor) -> Option<Reader> {
        let subscription = Subscription { account, session, only: None, cursor: start.clone() };
        let (answer, mut opened) = oneshot::channel();
        self.task.open(vec![Open { subscription, answer }]).now_or_never()?;
        let opened: Opened = opened.try_recv().ok()?.ok()?;
        let backlog = Backlog::new(
            Arc::clone(&self.recent),
            self.cursors.clone(),
            account,
            None,
            start.clone(),
            &opened.position,
        );
        let start = self.cursors.write(&start);
        Some(Reader { stream: Stream::new(Some(backlog), opened), start, missed: true })
    }

    /// Sends all streams a sign of life, which carries their cursors on.
    pub fn ping(&self) {
        self.task.ping();
    }
}

impl Reader {
    /// Where it begins: the cursor that a client is told first.
    #[must_use]
    pub fn start(&self) -> &str {
        &self.start
    }

    /// Whether what it has given so far came from the logs.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.missed
    }

    /// A piece of what waits; empty when nothing does, `None` at the end of the stream.
    pub fn take(&mut self) -> Option<Vec<Arc<Item>>> {
        if self.missed {
            // `None` is a database that can't be read.
            let missed = self.stream.missed().now_or_never()??;
            if !missed.is_empty() {
                return Some(missed.into());
            }
            self.missed = false;
        }
        match self.stream.next().now_or_never() {
            Some(items) => items.map(Vec::from),
            None => Some(Vec::new()),
        }
    }
}
