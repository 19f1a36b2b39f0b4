//! The hub: one task that turns commits into what streams hear, in the order of the commits.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use mychat_replication::{
    Role,
    log::{Frame, VersionVector},
    mesh::Mesh,
    store::{Commit, Store, StoreError},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{
    Item,
    queue::Queue,
    state::{State, Subscription},
    steps,
};
use crate::{
    app::Condition,
    http::Problem,
    ids::{AccountId, SpaceId},
    packed, spaces,
};

/// How often an idle stream gets a sign of life; the contract says every 20 s at least.
const PING: Duration = Duration::from_secs(15);
/// Requests for streams that wait for the hub; more are told that the node is busy.
const OPENING: usize = 4096;
/// Streams that are registered in one go.
const OPEN_AT_ONCE: usize = 256;
/// Commits that are turned into events in one read.
const COMMITS_AT_ONCE: usize = 64;
/// Rows whose events are made without waking another thread for it.
const ROWS_AT_A_GLANCE: usize = 16;
/// Bytes of one read of a log when commits were missed.
const PIECE: usize = 256 << 10;
/// The kind of the datagrams that carry typing to the other nodes.
pub const EPHEMERAL_KIND: u8 = 32;

/// A handle to the hub; clones share it.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<Mutex<State>>,
    condition: Arc<Condition>,
    opening: mpsc::Sender<Open>,
    mesh: Option<Mesh>,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) struct Open {
    pub(super) subscription: Subscription,
    pub(super) answer: oneshot::Sender<Opened>,
}

/// A registered stream. Dropping it takes the stream off the hub's books.
pub struct Opened {
    id: u64,
    /// What happens from the registration on.
    pub queue: Arc<Queue>,
    /// What had been told before: the rest is in the logs.
    pub position: VersionVector,
    state: Arc<Mutex<State>>,
    condition: Arc<Condition>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.remove(self.id);
        self.condition.set_open_streams(state.open());
    }
}

/// Typing, between nodes.
#[derive(Serialize, Deserialize)]
struct Ephemeral {
    space: SpaceId,
    account: AccountId,
}

impl Hub {
    /// Starts the hub of a store. Typing goes to the other nodes by `mesh`.
    #[must_use]
    pub fn start(store: Store, condition: Arc<Condition>, mesh: Option<Mesh>) -> Self {
        let (opening, opened) = mpsc::channel(OPENING);
        let commits = store.commits();
        // Subscribed first: what is committed from here on comes as a commit, what was before is in the vector.
        let state = Arc::new(Mutex::new(State::new(store.vector().as_ref().clone())));
        let stop = CancellationToken::new();
        let task = Task { store, state: Arc::clone(&state), condition: Arc::clone(&condition) };
        tokio::spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(task.run(commits, opened)).await;
            }
        });
        Self { inner: Arc::new(Inner { state, condition, opening, mesh, stop }) }
    }

    /// Registers a stream.
    ///
    /// # Errors
    /// 503 when too many are being registered, or the hub has stopped.
    pub async fn open(&self, subscription: Subscription) -> Result<Opened, Problem> {
        let (answer, opened) = oneshot::channel();
        let busy = || Problem::unavailable("too many streams are being opened");
        self.inner.opening.try_send(Open { subscription, answer }).map_err(|_| busy())?;
        opened.await.map_err(|_| busy())
    }

    /// Tells the members of a space, here and at the other nodes, that somebody types. It may get lost.
    pub fn typing(&self, space: SpaceId, account: AccountId) {
        self.tell_typing(space, account);
        let Some(mesh) = &self.inner.mesh else { return };
        let payload = Bytes::from(packed::encode(&Ephemeral { space, account }));
        for peer in mesh.peers().iter().filter(|peer| peer.connected && peer.role == Role::Node) {
            if let Err(error) = mesh.datagram(peer.node, EPHEMERAL_KIND, payload.clone()) {
                tracing::trace!(%error, "typing could not be passed on");
            }
        }
    }

    /// Takes what another node passed on.
    pub fn receive(&self, payload: &[u8]) {
        if let Some(Ephemeral { space, account }) = packed::decode(payload) {
            self.tell_typing(space, account);
        }
    }

    fn tell_typing(&self, space: SpaceId, account: AccountId) {
        let data = serde_json::json!({ "space": space, "account": account });
        lock(&self.inner.state).tell_ephemeral(space, account, &Arc::new(Item::new(None, "typing", &data)));
    }

    /// Ends all streams with a `goodbye` that names where to go.
    pub fn end_all(&self, reason: &str, alternatives: &[String]) {
        lock(&self.inner.state).end_all(reason, alternatives);
    }

    /// How many streams are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.inner.condition.open_streams()
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("open", &self.open_streams()).finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Task {
    pub(super) store: Store,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) condition: Arc<Condition>,
}

impl Task {
    async fn run(self, mut commits: broadcast::Receiver<Arc<Commit>>, mut opening: mpsc::Receiver<Open>) {
        let mut pings = tokio::time::interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                commit = commits.recv() => match commit {
                    Ok(commit) => {
                        let mut batch = vec![commit];
                        while batch.len() < COMMITS_AT_ONCE && let Ok(more) = commits.try_recv() {
                            batch.push(more);
                        }
                        self.commits(batch).await;
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        metrics::counter!("mychat_events_missed_commits_total").increment(missed);
                        self.catch_up().await;
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(open) = opening.recv() => {
                    let mut batch = vec![open];
                    while batch.len() < OPEN_AT_ONCE && let Ok(more) = opening.try_recv() {
                        batch.push(more);
                    }
                    self.open(batch).await;
                }
                _ = pings.tick() => self.ping(),
            }
        }
    }

    pub(super) fn ping(&self) {
        lock(&self.state).ping();
    }

    /// Tells what follows from commits. Should the read fail, the logs are read instead, until it works.
    pub(super) async fn commits(&self, commits: Vec<Arc<Commit>>) {
        let audience = {
            let mut state = lock(&self.state);
            if state.open() == 0 {
                for commit in &commits {
                    state.skip_to(&commit.vector);
                }
                return;
            }
            state.audience()
        };
        if commits.iter().any(|commit| commit.frames.is_empty()) {
            // The database was replaced by one that holds more: what is new is in the logs only.
            return self.catch_up().await;
        }
        let frames: Vec<Arc<Frame>> =
            commits.iter().flat_map(|commit| commit.frames.iter().cloned()).collect();
        let rows: usize = frames.iter().map(|frame| frame.changes.len()).sum();
        let read = move |db: &rusqlite::Connection| {
            frames
                .iter()
                .map(|frame| steps::of_frame(db, frame, &audience))
                .collect::<rusqlite::Result<Vec<_>>>()
                .map_err(StoreError::from)
        };
        let made = if rows <= ROWS_AT_A_GLANCE {
            self.store.glance(read).await
        } else {
            self.store.read(read).await
        };
        match made {
            Ok(frames) => {
                let mut state = lock(&self.state);
                for frame in frames {
                    state.tell(frame);
                }
            }
            Err(error) => {
                tracing::error!(%error, "events could not be made of commits; the log is read for them");
                self.catch_up().await;
            }
        }
    }

    /// Tells what the logs have beyond what was told.
    pub(super) async fn catch_up(&self) {
        let target = self.store.vector();
        for (site, end) in target.iter() {
            loop {
                let (after, audience) = {
                    let state = lock(&self.state);
                    (state.position().get(site), state.audience())
                };
                if after >= end {
                    break;
                }
                let read = move |db: &rusqlite::Connection| {
                    let piece = mychat_replication::store::read_log(db, site, after, PIECE)?;
                    piece
                        .frames
                        .iter()
                        .map(|frame| steps::of_frame(db, frame, &audience))
                        .collect::<rusqlite::Result<Vec<_>>>()
                        .map_err(StoreError::from)
                };
                match self.store.read(read).await {
                    Ok(frames) => {
                        let mut state = lock(&self.state);
                        for frame in frames {
                            state.tell(frame);
                        }
                    }
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        // Clients hold cursors: those who come back find what they missed.
                        tracing::error!(%error, "the log can't be read for events: the streams are ended");
                        let mut state = lock(&self.state);
                        state.end_all("unavailable", &[]);
                        state.skip_to(&target);
                        return;
                    }
                }
            }
        }
    }

    pub(super) async fn open(&self, batch: Vec<Open>) {
        let accounts: BTreeSet<AccountId> = batch.iter().map(|open| open.subscription.account).collect();
        let read = move |db: &rusqlite::Connection| {
            let mut found = std::collections::HashMap::new();
            for account in accounts {
                let spaces: BTreeSet<SpaceId> = spaces::spaces_of(db, account)?.into_iter().collect();
                found.insert(account, spaces);
            }
            Ok::<_, StoreError>(found)
        };
        let spaces = match self.store.read(read).await {
            Ok(spaces) => spaces,
            Err(error) => {
                // The callers see that nobody answers.
                tracing::error!(%error, "memberships can't be read: streams can't be opened");
                return;
            }
        };
        let mut state = lock(&self.state);
        for Open { subscription, answer } in batch {
            let spaces = spaces.get(&subscription.account).cloned().unwrap_or_default();
            let position = state.position().clone();
            let (id, queue) = state.add(subscription, spaces);
            let opened = Opened {
                id,
                queue,
                position,
                state: Arc::clone(&self.state),
                condition: Arc::clone(&self.condition),
            };
            self.condition.set_open_streams(state.open());
            // Dropping what nobody waits for any more takes the lock itself.
            if let Err(unwanted) = answer.send(opened) {
                drop(state);
                drop(unwanted);
                state = lock(&self.state);
            }
        }
    }
}
