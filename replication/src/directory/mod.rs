//! What each member says of itself: short facts under names, such as its URL or its load.
//!
//! The facts are gossiped by `chitchat` over the mesh: every member holds everybody's, about a second old
//! at most. A member writes its own facts only. Whether a member is alive is not gossip but the word of
//! the failure detector.
//!
//! ```text
//!  publish ──▶ wanted ──▶ ┌────────┐ ──▶ gossip ──▶ mesh
//!                         │ keeper │
//!  entries ◀── view ◀──── └────────┘ ◀── gossip ◀── mesh
//! ```

mod keeper;
mod transport;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use metrics::counter;
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use crate::identity::{NodeId, Role};
use crate::membership::{Member, Membership};
pub(crate) use keeper::Keeper;

/// The kind of the datagrams and one-way streams that gossip travels in.
pub(crate) const KIND: u8 = 2;
/// Messages that wait for the keeper; more are dropped, since gossip repeats itself.
const QUEUE: usize = 256;
/// New connections that wait for a first gossip; more wait for the ordinary rounds.
const GREETED: usize = 64;
/// The longest name or value of a fact, in bytes.
const LONGEST: usize = 1024;
/// The most facts of one member.
const MOST_FACTS: usize = 64;
/// Names that begin so are the directory's own.
const OWN: char = '~';

/// What the directory needs of the network below it.
pub(crate) trait Carrier: Clone + Send + Sync + 'static {
    /// Sends a message to the member that listens at this address, if it is connected. It may get lost.
    fn carry(&self, to: SocketAddr, message: Bytes);
    /// Where the connected members listen.
    fn reached(&self) -> Vec<SocketAddr>;
}

/// A handle to the directory of a running [`crate::mesh::Mesh`].
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

/// A member and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who it is.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// The region it runs in.
    pub region: String,
    /// Its address in the mesh, as it advertises.
    pub mesh: SocketAddr,
    /// Whether it is alive as far as this process knows.
    pub alive: bool,
    /// What it published.
    pub facts: BTreeMap<String, String>,
}

struct Inner {
    me: Member,
    membership: Membership,
    /// What this member publishes.
    wanted: Mutex<BTreeMap<String, String>>,
    published: Notify,
    /// What the others said, as the keeper last saw it.
    view: RwLock<BTreeMap<NodeId, Entry>>,
    inbox: mpsc::Sender<(SocketAddr, Bytes)>,
    greeted: mpsc::Sender<SocketAddr>,
}

impl Inner {
    fn wanted(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.wanted.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Makes the handle and the keeper behind it, which the caller starts.
pub(crate) fn new(me: &Member, membership: Membership) -> (Directory, Keeper) {
    let (inbox, messages) = mpsc::channel(QUEUE);
    let (greeted, newcomers) = mpsc::channel(GREETED);
    let inner = Arc::new(Inner {
        me: me.clone(),
        membership,
        wanted: Mutex::default(),
        published: Notify::new(),
        view: RwLock::default(),
        inbox,
        greeted,
    });
    (Directory { inner: inner.clone() }, Keeper::new(inner, messages, newcomers))
}

impl Directory {
    /// Says something of this member, in place of what it said under the same name before. The others see
    /// it within about a second. A fact over 1 KiB or beyond the 64th is refused with a warning in the log,
    /// and so is a name that begins with `~`.
    pub fn publish(&self, key: &str, value: &str) {
        let mut wanted = self.inner.wanted();
        let is_new = !wanted.contains_key(key);
        if key.starts_with(OWN) || key.len() > LONGEST || value.len() > LONGEST {
            warn!(key, bytes = value.len(), "this fact cannot be published");
        } else if is_new && wanted.len() >= MOST_FACTS {
            warn!(key, "this member publishes {MOST_FACTS} facts already");
        } else if wanted.get(key).is_none_or(|current| current != value) {
            wanted.insert(key.to_owned(), value.to_owned());
            self.inner.published.notify_one();
        }
    }

    /// All members that are known, this one included, ordered by id. Those that are not alive stay for
    /// about an hour.
    pub fn entries(&self) -> Vec<Entry> {
        let inner = &self.inner;
        let mut entries = inner.view.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        for member in inner.membership.up() {
            entries.entry(member.node).or_insert_with(|| Entry::of(&member, BTreeMap::new()));
        }
        entries.insert(inner.me.node, Entry::of(&inner.me, inner.wanted().clone()));
        let mut entries: Vec<_> = entries.into_values().collect();
        for entry in &mut entries {
            entry.alive = inner.membership.is_alive(entry.node);
        }
        entries
    }

    /// A message of kind [`KIND`] arrived from the member that listens at this address.
    pub(crate) fn receive(&self, from: SocketAddr, message: Bytes) {
        if self.inner.inbox.try_send((from, message)).is_err() {
            counter!("mychat_mesh_datagrams_dropped_total", "stage" => "directory").increment(1);
        }
    }

    /// Messages that wait for the keeper.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.inbox.max_capacity() - self.inner.inbox.capacity()
    }

    /// A connection to the member that listens at this address is open: it gets to know us at once.
    pub(crate) fn greeted(&self, addr: SocketAddr) {
        let _ = self.inner.greeted.try_send(addr);
    }
}

impl Entry {
    fn of(member: &Member, facts: BTreeMap<String, String>) -> Self {
        Self {
            node: member.node,
            role: member.role,
            region: member.region.clone(),
            mesh: member.addr,
            alive: false,
            facts,
        }
    }
}
