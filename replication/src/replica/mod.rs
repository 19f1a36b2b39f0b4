//! The driver of the protocol: a [`Store`] that takes part in a [`Mesh`].
//!
//! One task owns the protocol's [`Core`](crate::protocol::Core) and is told everything in turn: what the mesh reports,
//! what the store commits, what the tasks around the streams read and write. Its answers go to
//!
//! - a writing task for each follower (`streams.rs`), whose queue the core bounds by its window,
//! - a reading task for each upstream, which takes no more than the credit that the core gives,
//! - short tasks for reads of the log and for applying a batch,
//! - datagrams: heads, and acknowledgements to the writer of a log (`acks.rs`).
//!
//! **No peer holds up another.** The core's task waits for nothing but news: datagrams are handed to QUIC or dropped,
//! frames go into a queue that takes them at once, everything else is a task of its own. What waits for a slow or
//! stalled peer is the task that writes its stream, with a window's worth of frames; what waits for a slow disk are the
//! tasks that read, once their credit is used up. All of them report through one bounded channel. It is full only while
//! the core's task has not had its turn, never because of a peer, and the core's task itself never sends to it: so no
//! circle of tasks can wait for each other.
//!
//! Datagrams and streams of kinds that are not replication's are handed on to the application.

mod acks;
mod figures;
mod streams;
mod task;
pub(crate) mod wire;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    NodeId,
    log::VersionVector,
    mesh::{Mesh, MeshEvent},
    protocol::{Followers, Start},
    snapshot::{SnapshotConfig, SyncStatus},
    store::Store,
};

/// Kinds of streams and datagrams from this one on are the application's.
pub const APPLICATION_KINDS: u8 = 32;
/// Datagrams of the application that wait to be taken; more are dropped, as datagrams may be.
const APPLICATION_QUEUE: usize = 1024;
/// Reports of the tasks that wait for the core's task; the reporting task waits beyond.
const REPORTS: usize = 1024;

/// Nodes above which sites of other regions are followed through relays, unless it is set.
pub const RELAY_ABOVE: usize = 100;

/// How a store takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// No seed was configured: there is nobody whose word to wait for.
    pub alone: bool,
    /// With more nodes than this, a log crosses to another region once, to a relay there (see [`crate::protocol`]).
    pub relay_above: usize,
    /// When to take a peer's whole database, and how fast to give the own one.
    pub snapshots: SnapshotConfig,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self { alone: false, relay_above: RELAY_ABOVE, snapshots: SnapshotConfig::default() }
    }
}

impl ReplicaConfig {
    /// What a node with this store may rely on.
    fn beginning(&self, store: &Store) -> Start {
        match (store.was_in_doubt(), self.alone) {
            (true, alone) => Start::InDoubt { alone },
            (false, true) => Start::Alone,
            (false, false) => Start::Asking,
        }
    }
}

/// How replication stands.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether writes may be accepted (see [`crate::protocol`]): not before the peers had their say.
    pub settled: bool,
    /// Whether this node also holds what its peers held a moment ago: clients may be sent here. Once that has lasted, it
    /// stays so when the node falls behind later on, unless it takes a snapshot.
    pub ready: bool,
    /// What the node does about what it lacks.
    pub sync: SyncStatus,
    /// The peers that hold data, as far as they are connected.
    pub peers: BTreeMap<NodeId, PeerStatus>,
}

/// How a peer stands.
#[derive(Debug, Clone, Default)]
pub struct PeerStatus {
    /// What it said it holds; at most a heartbeat old.
    pub heads: VersionVector,
    /// Versions that this node lacks of it.
    pub behind: u64,
    /// For how long this node has lacked some of it (see [`Core::lag`](crate::protocol::Core::lag)).
    pub lag: Duration,
    /// The streams on which it follows from here: whether they are live, and what waits to be sent on them.
    pub followers: Followers,
}

/// A datagram of the application's.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who sent it.
    pub from: NodeId,
    /// Its kind, [`APPLICATION_KINDS`] or above.
    pub kind: u8,
    /// What it says.
    pub payload: Bytes,
}

/// A replicated store at work. Dropping it, or [`Replica::stop`], ends its tasks; store and mesh stay.
#[derive(Debug)]
pub struct Replica {
    store: Store,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Replica {
    /// Joins `store` to the mesh. The receiver gives the application's datagrams.
    #[must_use]
    pub fn start(
        store: Store,
        mesh: Mesh,
        events: mpsc::Receiver<MeshEvent>,
        config: ReplicaConfig,
    ) -> (Self, mpsc::Receiver<Message>) {
        let alone = config.beginning(&store) == Start::Alone;
        let ready = Status { settled: alone, ready: alone, ..Status::default() };
        let (status, watching) = watch::channel(ready);
        let (messages, receiver) = mpsc::channel(APPLICATION_QUEUE);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let commits = store.commits();
        if !alone {
            store.hold_writes();
        }
        let task =
            task::CoreTask::new(store.clone(), mesh, tasks.clone(), stop.clone(), status, messages, config);
        tasks.spawn({
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(task.run(events, commits)).await;
            }
        });
        (Self { store, status: watching, stop, tasks }, receiver)
    }

    /// How replication stands; changes are told within a heartbeat.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until every connected peer holds all that this node wrote; `false` when that took too long.
    pub async fn flush(&self, timeout: Duration) -> bool {
        let wrote: VersionVector =
            std::iter::once((self.store.site(), self.store.vector().get(self.store.site()))).collect();
        let mut status = self.status.clone();
        let flushed = status.wait_for(|status| status.peers.values().all(|peer| peer.heads.covers(&wrote)));
        matches!(tokio::time::timeout(timeout, flushed).await, Ok(Ok(_)))
    }

    /// Ends all tasks.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the core's task is told by the tasks around it.
enum Report {
    /// An event for the core as it is.
    Event(crate::protocol::Event),
    /// What was held is on the disk, or could not be brought there.
    Synced,
    /// The work on a snapshot went on.
    Snapshot(task::Outcome),
    /// A peer asked for a log; its answers go to the stream.
    Follower { peer: NodeId, request: wire::FollowRequest, send: quinn::SendStream },
}

type Reports = mpsc::Sender<Report>;

/// What of [`Arc`]ed frames is sent in one piece.
type Frames = Vec<Arc<crate::log::Frame>>;
