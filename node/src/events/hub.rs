//! The hub: one task that turns commits into what streams hear, in the order of the commits.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use mychat_replication::{
    log::{Frame, Version, VersionVector},
    store::{Commit, Store, StoreError},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Comings, Cursors, Item,
    audience::Audience,
    goodbye::goodbyes,
    opened::Opened,
    reactor::{Departures, PING_SLOTS, Reactors},
    recent::Recent,
    state::{State, Subscription},
    steps::{self, FrameSteps},
};
use crate::{
    accounts,
    app::Condition,
    http::{Problem, admit},
    ids::{AccountId, SessionId, SpaceId},
    spaces,
};

/// How often an idle stream gets a sign of life; the contract says every 20 s at least.
const PING: Duration = Duration::from_secs(15);
const _: () = assert!(PING.as_secs() < 20);
/// Requests for streams that wait for the hub; more wait for a place.
const OPENING: usize = 4096;
/// How long they wait before they are told that the node is busy.
const OPENING_PATIENCE: Duration = Duration::from_secs(10);
/// How often the hub looks whether a reactor that is behind has room again, should it not be told.
const ROOM: Duration = Duration::from_millis(200);
/// Streams that are registered in one go.
const OPEN_AT_ONCE: usize = 256;
/// Commits that are turned into events in one read.
const COMMITS_AT_ONCE: usize = 64;
/// Rows whose events are made without waking another thread for it.
const ROWS_AT_A_GLANCE: usize = 16;
/// Bytes of one read of a log when commits were missed.
const PIECE: usize = 256 << 10;

/// A handle to the hub; clones share it.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<Mutex<State>>,
    condition: Arc<Condition>,
    opening: mpsc::Sender<Open>,
    recent: Arc<Recent>,
    cursors: Cursors,
    store: Store,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) struct Open {
    pub(super) subscription: Subscription,
    pub(super) answer: oneshot::Sender<Result<Opened, Problem>>,
}

impl Hub {
    /// Starts the hub of a store.
    #[must_use]
    pub fn start(store: Store, condition: Arc<Condition>) -> Self {
        let (opening, opened) = mpsc::channel(OPENING);
        let commits = store.commits();
        // Subscribed first: what is committed from here on comes as a commit, what was before is in the vector.
        let cursors = Cursors::new(store.clone());
        let state = Arc::new_cyclic(|books: &Weak<Mutex<State>>| {
            let reactors = Reactors::new(departures(books.clone(), Arc::clone(&condition)));
            Mutex::new(State::new(store.vector().as_ref().clone(), cursors.clone(), reactors))
        });
        let stop = CancellationToken::new();
        let recent = Arc::new(Recent::new(store.clone()));
        let task =
            Task { store: store.clone(), state: Arc::clone(&state), condition: Arc::clone(&condition) };
        tokio::spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(task.run(commits, opened)).await;
            }
        });
        Self { inner: Arc::new(Inner { state, condition, opening, recent, cursors, store, stop }) }
    }

    /// Registers a stream.
    ///
    /// # Errors
    /// 401 when the session has ended since the call began; 503 when too many are being registered, or the hub has stopped.
    pub async fn open(&self, subscription: Subscription) -> Result<Opened, Problem> {
        let (answer, opened) = oneshot::channel();
        let busy = || Problem::unavailable("too many streams are being opened");
        let open = self.inner.opening.send(Open { subscription, answer });
        timeout(OPENING_PATIENCE, open).await.map_err(|_| busy())?.map_err(|_| busy())?;
        opened.await.map_err(|_| busy())?
    }

    /// Reads and writes the cursors of this node's clients.
    #[must_use]
    pub fn cursors(&self) -> &Cursors {
        &self.inner.cursors
    }

    /// What clients have missed lately, read once for all of them.
    pub(super) fn recent(&self) -> Arc<Recent> {
        Arc::clone(&self.inner.recent)
    }

    /// Tells the streams of the members of some spaces, but those of `about` itself, something that is not kept. Spaces
    /// with more than `most` streams are passed over. It may get lost.
    pub fn publish_ephemeral(
        &self,
        spaces: &BTreeSet<SpaceId>,
        about: AccountId,
        kind: &'static str,
        data: &serde_json::Value,
        most: usize,
    ) {
        let item = Arc::new(Item::new(None, kind, data));
        lock(&self.inner.state).tell_ephemeral(spaces, about, &item, most);
    }

    /// How many events have been given to streams so far.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        lock(&self.inner.state).deliveries()
    }

    /// Whose streams come and go.
    #[must_use]
    pub fn comings(&self) -> Arc<Comings> {
        lock(&self.inner.state).comings()
    }

    /// The spaces of those of some accounts who have streams open; `None` for the others. Those whose spaces can't be
    /// read are left out.
    pub async fn present(&self, accounts: Vec<AccountId>) -> Vec<(AccountId, Option<BTreeSet<SpaceId>>)> {
        if accounts.is_empty() {
            return Vec::new();
        }
        let audience = lock(&self.inner.state).audience();
        let (here, gone): (Vec<_>, Vec<_>) =
            accounts.into_iter().partition(|account| audience.contains(*account));
        let mut present: Vec<_> = gone.into_iter().map(|account| (account, None)).collect();
        let read = move |db: &rusqlite::Connection| {
            here.into_iter()
                .map(|account| {
                    let spaces = spaces::spaces_of(db, account)?;
                    Ok((account, Some(spaces.into_iter().collect())))
                })
                .collect::<Result<Vec<_>, StoreError>>()
        };
        match self.inner.store.read(read).await {
            Ok(here) => present.extend(here),
            Err(error) => tracing::warn!(%error, "it can't be read where those who are online are members"),
        }
        present
    }

    /// Ends all streams with a `goodbye` that names where to go, and when.
    pub fn end_all(&self, reason: &str, alternatives: &[String]) {
        end_all(&lock(&self.inner.state), reason, alternatives);
    }

    /// Cuts off the streams that have not ended by themselves.
    pub fn cut(&self) {
        lock(&self.inner.state).reactors().cut();
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

/// Takes streams that have gone off the books.
fn departures(books: Weak<Mutex<State>>, condition: Arc<Condition>) -> Departures {
    Arc::new(move |gone| {
        if let Some(state) = books.upgrade() {
            let mut state = lock(&state);
            state.departed(&gone);
            condition.set_open_streams(state.open());
        }
    })
}

fn end_all(state: &State, reason: &str, alternatives: &[String]) {
    state.end_all(&goodbyes(reason, alternatives, state.open()));
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Task {
    pub(super) store: Store,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) condition: Arc<Condition>,
}

impl Task {
    async fn run(self, mut commits: broadcast::Receiver<Arc<Commit>>, mut opening: mpsc::Receiver<Open>) {
        let mut pings = tokio::time::interval(PING / PING_SLOTS as u32);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut slots = (0..PING_SLOTS).cycle();
        loop {
            tokio::select! {
                commit = commits.recv() => match commit {
                    Ok(commit) => {
                        let (batch, missed) = gather(commit, &mut commits);
                        self.commits(batch).await;
                        if missed > 0 {
                            self.missed(missed).await;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => self.missed(missed).await,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(open) = opening.recv() => {
                    let mut batch = vec![open];
                    while batch.len() < OPEN_AT_ONCE && let Ok(more) = opening.try_recv() {
                        batch.push(more);
                    }
                    self.open(batch).await;
                }
                _ = pings.tick() => {
                    let state = lock(&self.state);
                    state.ping_settled();
                    if slots.next() == Some(0) {
                        state.ping();
                    }
                }
            }
            self.room().await;
        }
    }

    /// More commits came than are kept for the hub: the logs have them.
    async fn missed(&self, commits: u64) {
        metrics::counter!("mychat_events_missed_commits_total").increment(commits);
        self.catch_up().await;
    }

    /// Waits while a reactor is behind: what is committed meanwhile is in the logs.
    async fn room(&self) {
        loop {
            let room = {
                let state = lock(&self.state);
                if !state.reactors().is_full() {
                    return;
                }
                state.reactors().room()
            };
            let _ = timeout(ROOM, room.notified()).await;
        }
    }

    pub(super) fn ping(&self) {
        lock(&self.state).ping();
    }

    /// Tells what follows from commits. Should the read fail, the logs are read instead, until it works.
    pub(super) async fn commits(&self, commits: Vec<Arc<Commit>>) {
        let (audience, follows, heard) = {
            let mut state = lock(&self.state);
            if state.open() == 0 {
                for commit in &commits {
                    state.skip_to(&commit.vector);
                }
                return;
            }
            let frames = || commits.iter().flat_map(|commit| &commit.frames);
            (state.audience(), follow(state.position(), frames()), state.heard(frames()))
        };
        if commits.iter().any(|commit| commit.frames.is_empty()) {
            // The database was replaced by one that holds more: what is new is in the logs only.
            return self.catch_up().await;
        }
        if !follows {
            tracing::error!("a commit does not follow what was told: the log is read for what is between");
            return self.catch_up().await;
        }
        #[cfg(debug_assertions)]
        self.compare_with_tables(&commits).await;
        let mut known = known(&commits, &heard);
        let frames: Vec<Arc<Frame>> =
            known.iter().filter_map(|known| known.as_ref().err()).cloned().collect();
        if !frames.is_empty() {
            match self.read(frames, audience).await {
                Ok(read) => {
                    let unknown = known.iter_mut().filter(|known| known.is_err());
                    unknown.zip(read).for_each(|(unknown, read)| *unknown = Ok(read));
                }
                Err(error) => {
                    tracing::error!(%error, "events could not be made of commits; the log is read for them");
                    return self.catch_up().await;
                }
            }
        }
        let mut state = lock(&self.state);
        known.into_iter().flatten().for_each(|frame| state.tell(frame));
    }

    /// Works out what follows from frames by the tables.
    async fn read(
        &self,
        frames: Vec<Arc<Frame>>,
        audience: Arc<Audience>,
    ) -> Result<Vec<FrameSteps>, StoreError> {
        let rows: usize = frames.iter().map(|frame| frame.changes.len()).sum();
        let read = move |db: &rusqlite::Connection| {
            frames
                .iter()
                .map(|frame| steps::of_frame(db, frame, &audience))
                .collect::<rusqlite::Result<Vec<_>>>()
                .map_err(StoreError::from)
        };
        if rows <= ROWS_AT_A_GLANCE { self.store.glance(read).await } else { self.store.read(read).await }
    }

    /// What was noted of a commit must be what the tables say, as long as there is no later one.
    #[cfg(debug_assertions)]
    async fn compare_with_tables(&self, commits: &[Arc<Commit>]) {
        let [commit] = commits else { return };
        let Some(noted) = steps::noted(commit) else { return };
        let read = |db: &rusqlite::Connection| {
            steps::of_frame(db, &commit.frames[0], &Audience::default()).map_err(StoreError::from)
        };
        let Ok(read) = self.store.glance(read).await else { return };
        if *self.store.vector() == *commit.vector {
            assert_eq!(format!("{noted:?}"), format!("{read:?}"), "what was noted and what the tables say");
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
                let logs = self.store.logs();
                let read = move |db: &rusqlite::Connection| {
                    let piece = logs.read(db, site, after, PIECE)?;
                    piece
                        .frames
                        .iter()
                        .map(|frame| steps::of_frame(db, frame, &audience))
                        .collect::<rusqlite::Result<Vec<_>>>()
                        .map_err(StoreError::from)
                };
                match self.store.read(read).await {
                    Ok(frames) => {
                        {
                            let mut state = lock(&self.state);
                            frames.into_iter().for_each(|frame| state.tell(frame));
                        }
                        self.room().await;
                    }
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        // Clients hold cursors: those who come back find what they missed.
                        tracing::error!(%error, "the log can't be read for events: the streams are ended");
                        let mut state = lock(&self.state);
                        end_all(&state, "unavailable", &[]);
                        state.skip_to(&target);
                        return;
                    }
                }
            }
        }
    }

    /// Registers streams. A session may have ended between its call's beginning and here, when the hub had no stream of it
    /// to end; what ends from here on is told to the streams after this.
    pub(super) async fn open(&self, batch: Vec<Open>) {
        let readers: HashSet<(AccountId, SessionId)> =
            batch.iter().map(|open| (open.subscription.account, open.subscription.session)).collect();
        let read = move |db: &rusqlite::Connection| {
            let (mut standings, mut spaces) = (HashMap::new(), HashMap::new());
            for (account, session) in readers {
                standings.insert(session, accounts::standing(db, account, session)?);
                if let Entry::Vacant(vacant) = spaces.entry(account) {
                    vacant.insert(spaces::spaces_of(db, account)?.into_iter().collect::<BTreeSet<_>>());
                }
            }
            Ok::<_, StoreError>((standings, spaces))
        };
        let (standings, spaces) = match self.store.read(read).await {
            Ok(read) => read,
            Err(error) => {
                // The callers see that nobody answers.
                tracing::error!(%error, "memberships can't be read: streams can't be opened");
                return;
            }
        };
        let mut state = lock(&self.state);
        for Open { subscription, answer } in batch {
            // The call was checked: an account that is not here was, before another database took this one's place.
            let standing = standings.get(&subscription.session).copied().flatten();
            if let Some(Err(problem)) = standing.map(|standing| admit(Some(standing))) {
                // Nobody may wait for it any more.
                let _ = answer.send(Err(problem));
                continue;
            }
            let spaces = spaces.get(&subscription.account).cloned().unwrap_or_default();
            let position = state.position().clone();
            let (id, queue) = state.add(subscription, spaces);
            let opened =
                Opened::new(id, queue, position, Arc::clone(&self.state), Arc::clone(&self.condition));
            self.condition.set_open_streams(state.open());
            // Dropping what nobody waits for any more takes the lock itself.
            if let Err(unwanted) = answer.send(Ok(opened)) {
                drop(state);
                drop(unwanted);
                state = lock(&self.state);
            }
        }
    }
}

/// What follows from each frame, as far as it is known without reading: from those that nobody here hears of, nothing.
fn known(commits: &[Arc<Commit>], heard: &[bool]) -> Vec<Result<FrameSteps, Arc<Frame>>> {
    let frames = commits.iter().flat_map(|commit| commit.frames.iter().map(move |frame| (commit, frame)));
    let known = |((commit, frame), heard): ((&Arc<Commit>, &Arc<Frame>), &bool)| {
        if !heard {
            metrics::counter!("mychat_events_unheard_versions_total").increment(1);
            return Ok(FrameSteps::none(frame));
        }
        steps::noted(commit).ok_or_else(|| Arc::clone(frame))
    };
    frames.zip(heard).map(known).collect()
}

/// What has come besides `first`, up to a number; and how many commits were missed right after that.
fn gather(first: Arc<Commit>, commits: &mut broadcast::Receiver<Arc<Commit>>) -> (Vec<Arc<Commit>>, u64) {
    let mut batch = vec![first];
    while batch.len() < COMMITS_AT_ONCE {
        match commits.try_recv() {
            Ok(more) => batch.push(more),
            // It is said only once.
            Err(broadcast::error::TryRecvError::Lagged(missed)) => return (batch, missed),
            Err(_) => break,
        }
    }
    (batch, 0)
}

/// Whether each frame follows what was told before. The first of a site follows what this node had of it under another
/// name (see `store/site.rs`), or nothing.
fn follow<'a>(position: &VersionVector, mut frames: impl Iterator<Item = &'a Arc<Frame>>) -> bool {
    // What the frames add; the position itself is as long as there are sites, and this is done for each commit.
    let mut beyond = VersionVector::default();
    frames.all(|frame| {
        let told = position.get(frame.site).max(beyond.get(frame.site));
        beyond.advance(frame.site, frame.version.max(told));
        told == Version(0) || frame.after <= told
    })
}

#[cfg(test)]
mod tests;
