//! [`App`]: what every handler works with. A handle; clones share everything.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mychat_replication::{NodeId, Role, directory::Entry, log::VersionVector, mesh::Mesh, store::Store};
use tokio::sync::watch;

use crate::{
    accounts::{password::Passwords, throttle::Throttle},
    config::NodeConfig,
    events::Hub,
    http::{Problem, origins::Origins},
    keys::Keys,
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
#[derive(Debug, Default)]
pub struct Condition {
    ready: AtomicBool,
    draining: AtomicBool,
    streams: AtomicUsize,
}

impl Condition {
    /// Says that the node has (not) what it needs to serve: replication calls it once it has caught up.
    pub fn set_ready(&self, ready: bool) {
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

    /// Whether writes may be accepted: the other nodes have had their say about this one's log.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether clients should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.is_draining()
    }

    /// Whether the node is going out of service.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// The parts of a running node, as the handlers use them.
#[derive(Clone)]
pub struct App {
    /// The database.
    pub store: Store,
    /// The keys of tokens and claims.
    pub keys: Keys,
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
    /// Counts failed sign-ins.
    pub throttle: Arc<Throttle>,
    heads: Arc<OnceLock<Arc<dyn Heads>>>,
}

impl App {
    /// Puts a node's parts together. It is not ready yet.
    #[must_use]
    pub fn new(store: Store, config: Arc<NodeConfig>, mesh: Option<Mesh>) -> Self {
        let condition = Arc::<Condition>::default();
        Self {
            events: Hub::start(store.clone(), Arc::clone(&condition), mesh.clone()),
            store,
            keys: Keys::new(&config.cluster_key),
            passwords: Passwords::new(config.password_cost),
            mesh,
            condition,
            throttle: Arc::default(),
            heads: Arc::default(),
            config,
        }
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
