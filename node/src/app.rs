//! [`App`]: what every handler works with. A handle; clones share everything.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mychat_replication::{
    NodeId, Role,
    directory::Entry,
    log::VersionVector,
    mesh::Mesh,
    snapshot::{SyncState, SyncStatus},
    store::{Health, Store},
};
use tokio::sync::watch;

use crate::{
    accounts::{Exports, Standings, password::Passwords, throttle::Throttle},
    capacity::Capacity,
    config::NodeConfig,
    erasure::Erasure,
    events::Hub,
    http::{Problem, origins::Origins},
    keys::Keys,
    presence::Presence,
};

/// How long a call waits for rows that another node has written and this one lacks so far.
pub const CATCH_UP: Duration = Duration::from_secs(2);

/// What this node knows of the other nodes' logs. Replication supplies it once it runs.
pub trait Heads: Send + Sync + 'static {
    /// What `node` holds, as far as it has told; `None` when it has not told anything.
    fn of(&self, node: NodeId) -> Option<VersionVector>;
    /// Changes whenever some node's head has moved.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Whether the node takes clients.
#[derive(Debug)]
pub struct Condition {
    ready: AtomicBool,
    draining: AtomicBool,
    streams: AtomicUsize,
    health: watch::Receiver<Health>,
    sync: Mutex<SyncStatus>,
    /// Whether the database is not that of a node that has yet to hear of the others for the first time.
    filled: AtomicBool,
}

impl Condition {
    /// That of a node that is not ready yet.
    pub(crate) fn of(store: &Store) -> Self {
        Self {
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            health: store.health(),
            sync: Mutex::default(),
            filled: AtomicBool::new(!store.vector().is_empty()),
        }
    }

    /// Says that the node has (not) what it needs to serve: replication calls it once it has caught up.
    pub fn set_ready(&self, ready: bool) {
        self.filled.fetch_or(ready, Ordering::AcqRel);
        self.ready.store(ready, Ordering::Release);
    }

    /// Says that the node is going out of service.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Says that the node takes clients again: an operator had taken it out of service.
    pub fn undrain(&self) {
        self.draining.store(false, Ordering::Release);
    }

    /// Says how many event streams are open.
    pub fn set_open_streams(&self, open: usize) {
        self.streams.store(open, Ordering::Relaxed);
    }

    /// How many event streams are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Says what the node does about what it lacks.
    pub fn set_sync(&self, sync: SyncStatus) {
        *self.sync.lock().unwrap_or_else(PoisonError::into_inner) = sync;
    }

    /// What the node does about what it lacks.
    #[must_use]
    pub fn sync(&self) -> SyncStatus {
        *self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is data to answer from, be it not the latest: not on a new node until it is ready for the first
    /// time, nor while a node gets another database.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.filled.load(Ordering::Acquire) && self.sync().state != SyncState::Snapshot
    }

    /// Whether the node has what it needs to serve: the other nodes have had their say about this one's log, and it
    /// holds, nearly, what they hold.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether clients should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// Why clients should not be sent here; `None` when they should.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("the node is going out of service".to_owned());
        }
        // Before what it lacks: a disk that refuses is why it lacks it.
        if let Health::Refusing(fault) = *self.health.borrow() {
            return Some(format!("{fault}: no writes for now; reads go on"));
        }
        if self.has_caught_up() {
            return None;
        }
        let SyncStatus { state, percent, .. } = self.sync();
        let percent = percent.unwrap_or_default();
        Some(match state {
            SyncState::Snapshot => format!("the node gets a snapshot of the data: {percent:.0} %"),
            SyncState::CatchingUp => format!("the node catches up with the others: {percent:.0} %"),
            SyncState::Live => "the node is starting".to_owned(),
        })
    }

    /// Whether the node is going out of service.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// The parts of a running node, as the handlers use them. A handle: every layer around a handler has its own, so it is
/// one counter to touch and not ten.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What an [`App`] is a handle to.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The keys of tokens and claims.
    pub keys: Keys,
    /// The sessions that were found good.
    pub standings: Standings,
    /// The settings.
    pub config: Arc<NodeConfig>,
    /// The other nodes; `None` when this one is alone.
    pub mesh: Option<Mesh>,
    /// Whether the node takes clients.
    pub condition: Arc<Condition>,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// What clients hear of.
    pub events: Hub,
    /// How many streams the node can carry.
    pub capacity: Capacity,
    /// Who is online and who types.
    pub presence: Presence,
    /// Counts failed sign-ins.
    pub throttle: Arc<Throttle>,
    /// Who gets all that is held on an account.
    pub exports: Exports,
    /// Overwrites what is deleted.
    pub erasure: Erasure,
    heads: OnceLock<Arc<dyn Heads>>,
}

impl App {
    /// Puts a node's parts together; `standings` is of what derives in the store. It is not ready yet.
    #[must_use]
    pub fn new(store: Store, standings: Standings, config: Arc<NodeConfig>, mesh: Option<Mesh>) -> Self {
        let condition = Arc::new(Condition::of(&store));
        let events = Hub::start(store.clone(), Arc::clone(&condition));
        let capacity = Capacity::start(&config.limits, Arc::clone(&condition), events.clone());
        Self(Arc::new(Parts {
            presence: Presence::start(store.clone(), events.clone(), mesh.clone(), capacity.clone()),
            capacity,
            events,
            store,
            keys: Keys::new(&config.cluster_key),
            standings,
            passwords: Passwords::new(config.password_cost),
            mesh,
            condition,
            throttle: Arc::default(),
            exports: Exports::default(),
            erasure: Erasure::default(),
            heads: OnceLock::default(),
            config,
        }))
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.store.node()
    }

    /// Where clients of this node can go instead: the other nodes that are ready, as far as the directory knows.
    #[must_use]
    pub fn alternatives(&self) -> Vec<String> {
        let Some(mesh) = &self.mesh else { return Vec::new() };
        let says =
            |entry: &Entry, fact: &str, value: &str| entry.facts.get(fact).is_some_and(|said| said == value);
        mesh.directory()
            .entries()
            .iter()
            .filter(|entry| entry.node != self.node() && entry.role == Role::Node && entry.alive)
            .filter(|entry| says(entry, "ready", "true") && !says(entry, "draining", "true"))
            .filter_map(|entry| entry.facts.get("url").cloned())
            .collect()
    }

    /// Connects what replication knows of the other nodes; the first call counts.
    pub fn set_heads(&self, heads: Arc<dyn Heads>) {
        let _ = self.heads.set(heads);
    }

    /// What replication knows of the other nodes.
    #[must_use]
    pub fn heads(&self) -> Option<Arc<dyn Heads>> {
        self.heads.get().cloned()
    }

    /// How many versions `node` holds that this node lacks.
    #[must_use]
    pub fn behind(&self, node: NodeId) -> u64 {
        let Some(theirs) = self.heads().and_then(|heads| heads.of(node)) else { return 0 };
        let ours = self.store.vector();
        theirs.iter().map(|(site, version)| version.0.saturating_sub(ours.get(site).0)).sum()
    }

    /// The origins that web pages of this cluster come from.
    #[must_use]
    pub fn origins(&self) -> Origins {
        Origins::of(self)
    }

    /// Reads until `found` finds something, again after each commit, [`CATCH_UP`] at most: for what another node
    /// has answered a client with before it arrived here.
    ///
    /// # Errors
    /// Those of `found`.
    pub async fn await_rows<T: Send + 'static>(
        &self,
        found: impl Fn(&rusqlite::Connection) -> rusqlite::Result<Option<T>> + Clone + Send + 'static,
    ) -> Result<Option<T>, Problem> {
        let look = || {
            let found = found.clone();
            self.store.glance(move |db| Ok::<_, Problem>(found(db)?))
        };
        if let Some(value) = look().await? {
            return Ok(Some(value));
        }
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        let mut commits = self.store.commits();
        loop {
            if let Some(value) = look().await? {
                return Ok(Some(value));
            }
            match tokio::time::timeout_at(deadline, commits.recv()).await {
                // Missed some: the next look sees them all the same.
                Ok(Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_))) => {}
                Ok(Err(tokio::sync::broadcast::error::RecvError::Closed)) | Err(_) => return Ok(None),
            }
        }
    }
}
