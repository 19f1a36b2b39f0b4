//! Overwrites what is deleted or erased and still there.
//!
//! A deletion is a fact, and hides from then on whatever it covers; so is the erasure of an account. What an erasure or the
//! deletion of one message finds it overwrites by itself. The rest is left to a task of the node that goes on when the
//! caller has left, a bounded number at a time, so that other writes get their turn:
//!
//! - at the node where a range was deleted, **at once**, and again when it starts, if it was stopped before the end;
//! - at each node **once an hour**, at a time of its own: what arrived only after the fact that covers it, or was left
//!   behind by a node that is gone. Whoever is first leaves nothing for the others, and two at the same time write the
//!   same.
//!
//! What is to be done is found in the tables each time, so nothing is lost with the process.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mychat_replication::store::{Store, StoreError};
use tokio::{sync::watch, time::Instant};

use crate::{accounts, app::App, http, ids::SpaceId, messages};

/// How often everything is looked through.
const PERIOD: Duration = Duration::from_secs(3600);
/// How long after a failure, or while the node has not caught up yet, it is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// Spaces that wait to be looked through; a further one has to wait until everything is.
const MAX_WAITING: usize = 4096;

/// A handle to the task; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Erasure(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    waiting: Mutex<BTreeSet<SpaceId>>,
    /// How often it was asked for something.
    asked: watch::Sender<u64>,
    /// Up to which of those all is done.
    done: watch::Sender<u64>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

impl Erasure {
    /// Has the purges of a space carried out that are in the tables by now.
    pub fn ask(&self, space: SpaceId) -> Ticket {
        let mut waiting = self.waiting();
        if waiting.len() < MAX_WAITING {
            waiting.insert(space);
        }
        // Under the lock: whoever takes the space also sees the number.
        self.0.asked.send_modify(|asked| *asked += 1);
        Ticket(*self.0.asked.borrow())
    }

    /// Waits until that is done, for `patience` at most.
    pub async fn done(&self, Ticket(asked): Ticket, patience: Duration) {
        let mut done = self.0.done.subscribe();
        let _ = tokio::time::timeout(patience, done.wait_for(|done| *done >= asked)).await;
    }

    /// What is to be done next, and the number of the latest wish in it.
    fn take(&self) -> (BTreeSet<SpaceId>, u64) {
        let mut waiting = self.waiting();
        (std::mem::take(&mut *waiting), *self.0.asked.borrow())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeSet<SpaceId>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Overwrites for as long as the node runs.
pub async fn run(app: App) {
    let (store, erasure) = (&app.store, &app.erasure);
    let mut asked = erasure.0.asked.subscribe();
    // What others have done meanwhile need not be done again.
    while !app.condition.has_caught_up() {
        tokio::time::sleep(PAUSE).await;
    }
    while let Err(error) = resume(store, erasure).await {
        tracing::debug!(%error, "what was being deleted can't be read now");
        tokio::time::sleep(PAUSE).await;
    }
    // Nodes that were started together must not all look together.
    let mut next = Instant::now() + PERIOD.mul_f64(rand::random());
    loop {
        let all = Instant::now() >= next;
        if !all && erasure.waiting().is_empty() {
            let _ = tokio::time::timeout_at(next, asked.changed()).await;
            continue;
        }
        let (spaces, number) = erasure.take();
        let overwritten = if all { everything(store).await } else { purged(store, spaces).await };
        match overwritten {
            Ok(overwritten) => {
                tracing::debug!(overwritten, all, "what is deleted was overwritten");
                erasure.0.done.send_replace(number);
                if all {
                    next = Instant::now() + PERIOD;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "what is deleted can't be overwritten now");
                tokio::time::sleep(PAUSE).await;
                next = Instant::now();
            }
        }
    }
}

/// Asks for what this node may not have finished before it was stopped.
async fn resume(store: &Store, erasure: &Erasure) -> Result<(), StoreError> {
    let site = store.site();
    let spaces = store.read(move |db| Ok::<_, StoreError>(messages::purged_by(db, site)?)).await?;
    spaces.into_iter().for_each(|space| {
        erasure.ask(space);
    });
    Ok(())
}

async fn purged(store: &Store, spaces: BTreeSet<SpaceId>) -> Result<usize, StoreError> {
    let mut overwritten = 0;
    for space in spaces {
        overwritten += messages::overwrite_purged(store, space).await?;
    }
    Ok(overwritten)
}

/// Looks through everything.
pub(crate) async fn everything(store: &Store) -> Result<usize, StoreError> {
    let rows = accounts::closing::erase_late(store).await? + messages::overwrite_deleted(store).await?;
    Ok(rows + http::kept::blank(store, &[messages::blank, accounts::blank]).await?)
}
